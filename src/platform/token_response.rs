//! The one reader of token responses, for code exchange, refresh and pairing (S1 4.1.2, 4.3.1).
//!
//! The rule guarded here: whatever carries a sound access token is used, and a refresh token that came is
//! never dropped. Everything else in a response may be odd; it falls back to a cautious value and is
//! reported.

use std::time::Duration;

use crate::model::token::{AccessToken, MalformedTokenError, RefreshToken, TokenSet};

use super::PlatformError;
use super::control_call::ControlCall;
use super::control_client::RawResponse;
use super::loose_json::{self, LooseJson};

/// The documented life of a fresh access token (S1 4.1.2). Taken where the response names none, which RFC
/// 6749, 5.1 allows: the server then documents it elsewhere, as the vendor does. Five minutes would refresh
/// twelve times as often for nothing.
pub(super) const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// Taken where a life is named and cannot be read: something is odd about it, so it may be shorter than
/// documented.
pub(super) const CAUTIOUS_LIFE: Duration = Duration::from_secs(300);

/// A longer life is believed this far only; the token is then renewed early, which harms nobody.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Beyond a year it is no life but something else, such as a moment.
const ABSURD_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads what a response with a good status brought. A `PlatformError` carries the refresh token of a
/// response without a usable access token.
pub(super) fn token_set(call: ControlCall, response: &RawResponse) -> Result<TokenSet, PlatformError> {
    let document = loose_json::read(&response.body).filter(|document| document.value.text().is_none());
    let Some(document) = document else {
        return Err(response.broken.clone().unwrap_or_else(|| response.no_json(call)));
    };
    let holder = holder(&document.value);
    let missing_end = document.cut || (response.broken.is_some() && !document.closed);
    match sound_access(holder) {
        Ok(access) if !missing_end => {
            let mut oddities = response.oddities.clone();
            oddities.extend(document.flaws.iter().map(|flaw| (*flaw).to_owned()));
            if call != ControlCall::Pair && !std::ptr::eq(holder, &raw const document.value) {
                oddities.push("the tokens stand inside another object".to_owned());
            }
            let expires_in = lifetime(holder, &mut oddities);
            odd_type(holder, &mut oddities);
            let refresh = sound_refresh(holder).unwrap_or_else(|fault| {
                oddities.push(format!("{fault}, so the one at hand stays"));
                None
            });
            oddities.extend(response.broken.as_ref().map(|broken| broken.detail.clone()));
            Ok(TokenSet { access, refresh, expires_in, oddities })
        }
        unusable => {
            let fault =
                unusable.err().map_or_else(|| "the answer is cut off".to_owned(), |fault| fault.to_string());
            let mut error = response.broken.clone().unwrap_or_else(|| PlatformError::malformed(call, fault));
            error.refresh = sound_refresh(holder).ok().flatten();
            Err(error)
        }
    }
}

/// The outermost object with a sound access token; where there is none, with a sound refresh token.
fn holder(document: &LooseJson) -> &LooseJson {
    let all = document.walk();
    let with_access = all.iter().find(|object| sound_access(object).is_ok());
    let with_refresh = || all.iter().find(|object| matches!(sound_refresh(object), Ok(Some(_))));
    let naming = || all.iter().find(|object| !object.all("access_token").is_empty());
    with_access.or_else(with_refresh).or_else(naming).copied().unwrap_or(document)
}

fn sound_access(object: &LooseJson) -> Result<AccessToken, MalformedTokenError> {
    sound(object, "access_token", |text| AccessToken::checked(without_scheme(text)))?
        .ok_or(MalformedTokenError { what: "access_token", fault: "is missing" })
}

/// An empty one is none; one that no token may look like is reported.
fn sound_refresh(object: &LooseJson) -> Result<Option<RefreshToken>, MalformedTokenError> {
    sound(object, "refresh_token", RefreshToken::checked)
}

/// The first sound text under a name; blanks around it belong to no token.
fn sound<T>(
    object: &LooseJson,
    name: &'static str,
    check: impl Fn(&str) -> Result<T, MalformedTokenError>,
) -> Result<Option<T>, MalformedTokenError> {
    let mut fault = None;
    for value in object.all(name) {
        let checked = match value.text().map(str::trim) {
            Some("") => continue,
            Some(text) => check(text),
            None if value.is_null() => continue,
            None => Err(MalformedTokenError { what: name, fault: "is not a string" }),
        };
        match checked {
            Ok(token) => return Ok(Some(token)),
            Err(odd) => fault = fault.or(Some(odd)),
        }
    }
    fault.map_or(Ok(None), Err)
}

/// Some servers print the token as it stands in a header.
fn without_scheme(text: &str) -> &str {
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => text,
    }
}

/// Whatever it says, the documents know bearers alone (S1 4.1.2).
fn odd_type(holder: &LooseJson, oddities: &mut Vec<String>) {
    let values = holder.all("token_type");
    let odd = |value: &&LooseJson| {
        !value.is_null() && !value.text().is_some_and(|text| text.trim().eq_ignore_ascii_case("bearer"))
    };
    if values.first().is_some_and(odd) {
        oddities.push("token_type is not Bearer".to_owned());
    }
}

fn lifetime(holder: &LooseJson, oddities: &mut Vec<String>) -> Duration {
    let named = holder.all("expires_in").into_iter().find(|value| !value.is_null());
    let Some(named) = named else { return USUAL_LIFE };
    let seconds = match named {
        LooseJson::Text(text) | LooseJson::Word(text) => text.trim().parse::<f64>().ok(),
        LooseJson::Object(_) | LooseJson::Array(_) => None,
    };
    match seconds.filter(|seconds| (1.0..=ABSURD_LIFE.as_secs_f64()).contains(seconds)) {
        Some(seconds) if seconds >= LONGEST_LIFE.as_secs_f64() => LONGEST_LIFE,
        Some(seconds) => Duration::from_secs_f64(seconds.floor()),
        None => {
            let minutes = CAUTIOUS_LIFE.as_secs() / 60;
            oddities
                .push(format!("expires_in is no number of seconds to go by, so {minutes} minutes are taken"));
            CAUTIOUS_LIFE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Blame, PlatformErrorKind};

    fn response(body: &[u8]) -> RawResponse {
        let media = Some("application/json".to_owned());
        RawResponse { status: 200, media, body: body.to_vec(), oddities: Vec::new(), broken: None }
    }

    fn read(body: &str) -> Result<TokenSet, PlatformError> {
        token_set(ControlCall::Refresh, &response(body.as_bytes()))
    }

    /// Access token, refresh token, seconds, and how much is odd.
    fn summary(body: &str) -> (String, Option<String>, u64, usize) {
        let tokens = read(body).unwrap_or_else(|error| panic!("{body}: {error}"));
        let refresh = tokens.refresh.map(|refresh| refresh.expose().to_owned());
        (tokens.access.expose().to_owned(), refresh, tokens.expires_in.as_secs(), tokens.oddities.len())
    }

    #[test]
    fn whatever_stands_beside_a_sound_access_token_costs_nothing_but_a_line() {
        for (fields, seconds, odd) in [
            (r#""token_type":"BearerToken","expires_in":60"#, 60, 1),
            (r#""token_type":7,"expires_in":60"#, 60, 1),
            (r#""token_type":["Bearer"],"expires_in":60"#, 60, 1),
            (r#""token_type":" bearer ","expires_in":60"#, 60, 0),
            (r#""token_type":null,"expires_in":3599"#, 3599, 0),
            (r#""expires_in":"3600 ""#, 3600, 0),
            (r#""expires_in":" 1800.7""#, 1800, 0),
            (r#""expires_in":3599.9"#, 3599, 0),
            (r#""expires_in":2592000"#, 24 * 3600, 0),
            (r#""expires_in":"2592000""#, 24 * 3600, 0),
            (r#""expires_in":0"#, 300, 1),
            (r#""expires_in":-3600"#, 300, 1),
            (r#""expires_in":0.5"#, 300, 1),
            (r#""expires_in":"""#, 300, 1),
            (r#""expires_in":"soon""#, 300, 1),
            (r#""expires_in":true"#, 300, 1),
            (r#""expires_in":[3600]"#, 300, 1),
            (r#""expires_in":{"seconds":3600}"#, 300, 1),
            (r#""expires_in":99999999999"#, 300, 1),
            (r#""expires_in":1e300"#, 300, 1),
            (r#""expires_in":1e999"#, 300, 2),
            (r#""expires_in":NaN"#, 300, 2),
            (r#""expires_in":Infinity"#, 300, 2),
            (r#""expires_in":null"#, 3600, 0),
            (r#""scope":"openid""#, 3600, 0),
            (r#""ExpiresIn":60"#, 60, 0),
        ] {
            let body = format!(r#"{{"access_token":"a","refresh_token":"r",{fields}}}"#);
            assert_eq!(summary(&body), ("a".to_owned(), Some("r".to_owned()), seconds, odd), "{body}");
        }
    }

    #[test]
    fn a_refresh_token_that_came_is_kept_and_one_that_cannot_be_is_told() {
        let long = "r".repeat(3000);
        let long_field = format!(r#""{long}""#);
        for (value, refresh, odd) in [
            (r#""r""#, Some("r"), 0),
            (r#"" r\r\n""#, Some("r"), 0),
            (long_field.as_str(), Some(long.as_str()), 0),
            (r#""""#, None, 0),
            (r#""  ""#, None, 0),
            ("null", None, 0),
            ("12345", None, 1),
            (r#"["r"]"#, None, 1),
            ("{}", None, 1),
            (r#""one\r\ntwo""#, None, 1),
            (r#""schl\u00fcssel""#, None, 1),
            (r#""","refresh_token":"r""#, Some("r"), 0),
            (r#""r","refresh_token":null"#, Some("r"), 0),
        ] {
            let body = format!(r#"{{"access_token":"a","refresh_token":{value}}}"#);
            let expected = ("a".to_owned(), refresh.map(str::to_owned), 3600, odd);
            assert_eq!(summary(&body), expected, "{body}");
        }
    }

    #[test]
    fn the_access_token_is_found_however_the_response_is_written() {
        let token = "t".repeat(8192);
        for (body, access) in [
            (format!(r#"{{"access_token":"{token}"}}"#), token.as_str()),
            (r#"{"access_token":" a\n"}"#.to_owned(), "a"),
            (r#"{"access_token":"Bearer a"}"#.to_owned(), "a"),
            (r#"{"access_token":"b","access_token":"a"}"#.to_owned(), "a"),
            (r#"{"access_token":"a","access_token":null}"#.to_owned(), "a"),
            (r#"{"ACCESS_TOKEN":"a"}"#.to_owned(), "a"),
            (r#"{"OAuthResponse":{"access_token":"a"}}"#.to_owned(), "a"),
            (r#"{"Data":[{"x":1},{"access_token":"a"}]}"#.to_owned(), "a"),
            (r#"{"access_token":{},"Data":{"access_token":"a"}}"#.to_owned(), "a"),
            ("\u{feff}{\"access_token\":\"a\"}\n\n<!-- ok -->".to_owned(), "a"),
            (r#"{"access_token":"a","error":"none"}"#.to_owned(), "a"),
        ] {
            assert_eq!(summary(&body).0, access, "{body}");
        }
    }

    #[test]
    fn a_response_without_a_usable_access_token_is_trouble_and_its_refresh_token_is_kept() {
        let long = "x".repeat(100_000);
        for access in ["5", "null", r#""""#, r#""a\r\nX-Evil: 1""#, "[]", r#""LONG""#, r#""\u00e4""#] {
            let body = format!(r#"{{"access_token":{access},"refresh_token":"r","expires_in":3600}}"#);
            let error = read(&body.replace("LONG", &long)).unwrap_err();
            assert_eq!((error.kind, error.blame), (PlatformErrorKind::Malformed, Blame::Realm), "{access}");
            assert_eq!(error.refresh, Some(RefreshToken::new("r")), "{access}");
            assert!(error.is_transient() && error.detail.len() < 120, "{}", error.detail);
        }
        for body in
            ["<html>Sign in {\"access_token\":\"a\"}</html>", "[]", "null", "{}", "", r#"{"Data":{}}"#]
        {
            let error = read(body).unwrap_err();
            assert_eq!((error.kind, error.refresh), (PlatformErrorKind::Malformed, None), "{body}");
        }
    }

    #[test]
    fn half_a_response_is_trouble_and_a_missing_bracket_is_not() {
        assert!(read(r#"{"access_token":"a","refresh_token":"r"#).is_err());
        assert_eq!(summary(r#"{"access_token":"a","refresh_token":"r""#).1.as_deref(), Some("r"));
        let cut = read(r#"{"refresh_token":"r","access_token":"aaa"#).unwrap_err();
        assert_eq!(cut.refresh, Some(RefreshToken::new("r")));
    }
}
