//! Who speaks when the token endpoint refuses, and whose fault the refusal is. Pure: a status, a body and a
//! few headers go in.
//!
//! The rule guarded here: a grant is blamed only by an OAuth word that blames it, or by the vendor's
//! documented status when it is the token endpoint that speaks. A page, an empty 400, a proxy's or a
//! firewall's response says nothing about anybody's grant.

use http::HeaderMap;
use http::header::{PROXY_AUTHENTICATE, VIA, WWW_AUTHENTICATE};

use super::control_call::ControlCall;
use super::loose_json;
use super::{Blame, PlatformErrorKind};

/// What a refusal consists of, as far as anything is concluded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorResponse {
    /// OAuth's `error` (RFC 6749, 5.2), where it is a plain word: it would be printed.
    pub word: Option<String>,
    pub body: ErrorBody,
    /// A challenge or a mark of something between us and the token endpoint.
    pub foreign: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorBody {
    /// An object with OAuth's `error`, whatever that says.
    OAuth,
    /// A short text, in JSON or not, that names the vendor's reason: "Wrong refresh token" (S1 4.1.2, 4.1.3).
    Reason,
    Empty,
    /// A page, another program's JSON, anything else.
    Other,
}

/// What a response is taken to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefusalMeaning {
    pub blame: Blame,
    pub kind: PlatformErrorKind,
    pub says: &'static str,
    /// The response itself named what it refuses, by an OAuth word.
    pub named: bool,
}

/// Words that blame the refresh token, the code or the token to be revoked. Beside RFC 6749's, those that say
/// so plainly.
const GRANT_WORDS: [&str; 12] = [
    "invalid_grant",
    "invalid_token",
    "invalid_refresh_token",
    "wrong_refresh_token",
    "missing_refresh_token",
    "refresh_token_expired",
    "expired_token",
    "token_expired",
    "token_revoked",
    "interaction_required",
    "login_required",
    "consent_required",
];
const CREDENTIAL_WORDS: [&str; 3] = ["invalid_client", "unauthorized_client", "invalid_client_credentials"];
/// The vendor's reasons as its tables print them (S1 4.1.2, 4.1.3, 4.1.5).
const REASONS: [&str; 6] =
    ["refresh token", "wrong code", "missing code", "authorization code", "wrong token", "missing token"];
/// A reason is a sentence; whatever is longer is a page.
const LONGEST_REASON: usize = 400;

impl ErrorResponse {
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let challenged = headers.contains_key(WWW_AUTHENTICATE) || headers.contains_key(PROXY_AUTHENTICATE);
        let mut error_response = Self::of_body(body);
        // RFC 6749, 5.2 has a challenge beside a refusal in JSON; beside anything else it asks for another's
        // password. A bare status that came through an intermediary may be the intermediary's.
        error_response.foreign = error_response.body != ErrorBody::OAuth
            && (challenged || (error_response.body == ErrorBody::Empty && headers.contains_key(VIA)));
        error_response
    }

    pub fn of_body(body: &[u8]) -> Self {
        let document = loose_json::read(body);
        let object = document.as_ref().map(|document| &document.value);
        let error = object.and_then(|object| object.all("error").first().copied());
        let text = String::from_utf8_lossy(body).to_ascii_lowercase();
        let reason = body.len() <= LONGEST_REASON
            && !text.contains('<')
            && REASONS.iter().any(|reason| text.contains(reason));
        let body = match error {
            Some(error) if error.text().is_some() => ErrorBody::OAuth,
            _ if reason => ErrorBody::Reason,
            _ if text.trim().is_empty() => ErrorBody::Empty,
            _ => ErrorBody::Other,
        };
        Self { word: error.and_then(|error| plain_word(error.text()?)), body, foreign: false }
    }
}

fn plain_word(text: &str) -> Option<String> {
    let word = text.trim().to_ascii_lowercase();
    let plain = (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    plain.then_some(word)
}

/// The table. What it does not list is the realm's trouble, so that no grant suffers from it.
pub(super) fn meaning(call: ControlCall, status: u16, error_response: &ErrorResponse) -> RefusalMeaning {
    use Blame::{Credentials, Grant, Realm};
    use PlatformErrorKind::{Failed, Forbidden, Refused, TimedOut, Unexpected};

    let word = error_response.word.as_deref().unwrap_or_default();
    let from_endpoint = !error_response.foreign && error_response.body != ErrorBody::Other;
    let (blame, kind, says) = match (status, word) {
        // A gateway's own failure may quote what it could not pass on; but a refused grant is refused by
        // whatever status.
        (200..=599, word) if GRANT_WORDS.contains(&word) => return named(Grant, refused_grant(call)),
        (200..=499, word) if CREDENTIAL_WORDS.contains(&word) => {
            return named(Credentials, "client id or secret are not accepted");
        }
        (400..=499, "server_error" | "temporarily_unavailable" | "slow_down") => {
            (Realm, Failed, "the platform failed")
        }
        (
            400..=499,
            "unsupported_grant_type" | "invalid_scope" | "invalid_client_metadata" | "invalid_request",
        ) => (Realm, Unexpected, "the platform does not take what the documents prescribe"),
        // S1 4.1.2: "wrong or missing code". Without a word or a reason, 400 may be anybody's.
        (400, _)
            if call == ControlCall::CodeExchange
                && error_response.body == ErrorBody::Reason
                && !error_response.foreign =>
        {
            (Grant, Refused, refused_grant(call))
        }
        // S1 4.1.2, 4.1.3, 4.1.5
        (401, _) if from_endpoint => match call {
            ControlCall::CodeExchange if error_response.body != ErrorBody::Reason => {
                (Credentials, Refused, "the client is not authorized")
            }
            _ => (Grant, Refused, refused_grant(call)),
        },
        (400 | 401, _) => (
            Realm,
            Unexpected,
            "the refusal does not look like a token endpoint's: a proxy's, a firewall's or an error page",
        ),
        (403, _) => (Realm, Forbidden, "the call is forbidden"),
        (407, _) => (Realm, Unexpected, "a proxy wants a password"),
        (429, _) => (Realm, Unexpected, "the platform wants fewer calls"),
        (504, _) => (Realm, TimedOut, "the platform timed out"),
        (500..=599, _) => (Realm, Failed, "the platform failed"),
        (300..=399, _) => {
            (Realm, Unexpected, "the platform answered with a redirect, and those are not followed")
        }
        _ => (Realm, Unexpected, "the platform gave an answer that it does not document"),
    };
    RefusalMeaning { blame, kind, says, named: false }
}

fn named(blame: Blame, says: &'static str) -> RefusalMeaning {
    RefusalMeaning { blame, kind: PlatformErrorKind::Refused, says, named: true }
}

fn refused_grant(call: ControlCall) -> &'static str {
    match call {
        ControlCall::CodeExchange => "the code is not accepted",
        ControlCall::Revoke => "the token is not accepted",
        _ => "the refresh token is not accepted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Blame::{Credentials, Grant, Realm};

    /// Status, headers, body, and who is to blame.
    type Row = (u16, &'static [(&'static str, &'static str)], &'static str, Blame);

    fn error_response(headers: &[(&'static str, &'static str)], body: &str) -> ErrorResponse {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        ErrorResponse::of(
            &HeaderMap::from_iter(headers.map(|(name, value): (http::HeaderName, _)| (name, value))),
            body.as_bytes(),
        )
    }

    #[test]
    fn a_refused_refresh_is_blamed_on_whoever_the_token_endpoint_names_and_on_nobody_else() {
        const PAGE: &str = "<html><h1>Blocked</h1> invalid_grant, wrong refresh token</html>";
        const BASIC: &[(&str, &str)] = &[("www-authenticate", r#"Basic realm="proxy""#)];
        let rows: &[Row] = &[
            // A word that blames the grant, at whatever status.
            (200, &[], r#"{"error":"invalid_grant"}"#, Grant),
            (400, &[], r#"{"error":"invalid_grant","error_description":"x"}"#, Grant),
            (401, &[], r#"{"error":"invalid_grant"}"#, Grant),
            (403, &[], r#"{"error":"invalid_grant"}"#, Grant),
            (500, &[], r#"{"error":"invalid_grant"}"#, Grant),
            (400, &[], "\u{feff}{\"error\":\"INVALID_GRANT\"}\n", Grant),
            (400, &[], r#"{"error":"refresh_token_expired"}"#, Grant),
            (401, BASIC, r#"{"error":"invalid_grant"}"#, Grant),
            // The vendor's documented 401, as far as the token endpoint says it.
            (401, &[], "", Grant),
            (401, &[], r#"{"error":"wrong_refresh_token"}"#, Grant),
            (401, &[], r#"{"error":"Wrong refresh token"}"#, Grant),
            (401, &[], r#"{"Message":"Missing refresh token"}"#, Grant),
            (401, &[], "Wrong refresh token", Grant),
            (401, &[], r#""Wrong refresh token""#, Grant),
            // Somebody else's 401.
            (401, &[], PAGE, Realm),
            (401, &[], r#"{"message":"Unauthorized"}"#, Realm),
            (401, BASIC, "", Realm),
            (401, &[("proxy-authenticate", "NTLM")], "", Realm),
            (401, &[("via", "1.1 firewall")], "", Realm),
            (401, BASIC, "Wrong refresh token", Realm),
            (407, &[("proxy-authenticate", "Basic")], "", Realm),
            // The client.
            (401, BASIC, r#"{"error":"invalid_client"}"#, Credentials),
            (400, &[], r#"{"error":"unauthorized_client"}"#, Credentials),
            (500, &[], r#"{"error":"invalid_client"}"#, Realm),
            // Whatever else stands in the way.
            (400, &[], PAGE, Realm),
            (400, &[], "", Realm),
            (400, &[], "Bad Request", Realm),
            (400, &[], "Wrong refresh token", Realm),
            (400, &[], r#"{"error":"invalid_request"}"#, Realm),
            (401, &[], r#"{"error":"invalid_request"}"#, Realm),
            (400, &[], r#"{"error":"temporarily_unavailable"}"#, Realm),
            (400, &[], r#"{"error":"unsupported_grant_type"}"#, Realm),
            (400, &[], r#"{"error":{"code":"invalid_grant"}}"#, Realm),
            (403, &[], PAGE, Realm),
            (403, &[], "", Realm),
            (404, &[], "", Realm),
            (302, &[], "", Realm),
            (418, &[], "", Realm),
            (429, &[], r#"{"error":"slow_down"}"#, Realm),
            (503, &[], PAGE, Realm),
            (200, &[], r#"{"error":"closed"}"#, Realm),
        ];
        for (status, headers, body, blame) in rows {
            let error_response = error_response(headers, body);
            let meaning = meaning(ControlCall::Refresh, *status, &error_response);
            assert_eq!(meaning.blame, *blame, "{status} {headers:?} {body}: {error_response:?}");
            assert_eq!(meaning.blame == Realm, meaning.kind != PlatformErrorKind::Refused, "{status} {body}");
        }
    }

    #[test]
    fn a_refused_code_and_a_refused_revocation_follow_the_same_rule() {
        let page = "<html>Blocked</html>";
        for (call, status, body, blame) in [
            (ControlCall::CodeExchange, 400, r#"{"error":"invalid_grant"}"#, Grant),
            (ControlCall::CodeExchange, 400, "Wrong code", Grant),
            (ControlCall::CodeExchange, 400, r#"{"Message":"Missing code"}"#, Grant),
            (ControlCall::CodeExchange, 400, page, Realm),
            (ControlCall::CodeExchange, 400, "", Realm),
            (ControlCall::CodeExchange, 401, "", Credentials),
            (ControlCall::CodeExchange, 401, page, Realm),
            (ControlCall::Revoke, 401, r#"{"error":"invalid_token"}"#, Grant),
            (ControlCall::Revoke, 401, "", Grant),
            (ControlCall::Revoke, 401, page, Realm),
            (ControlCall::Revoke, 400, "", Realm),
            (ControlCall::Revoke, 400, r#"{"error":"unsupported_token_type"}"#, Realm),
        ] {
            assert_eq!(
                meaning(call, status, &error_response(&[], body)).blame,
                blame,
                "{call:?} {status} {body}"
            );
        }
    }

    #[test]
    fn a_word_that_could_not_be_printed_is_no_word() {
        for body in [r#"{"error":"eyJ.secret"}"#, r#"{"error":"a b"}"#, r#"{"error":""}"#, r#"{"error":5}"#] {
            assert_eq!(ErrorResponse::of_body(body.as_bytes()).word, None, "{body}");
        }
    }
}
