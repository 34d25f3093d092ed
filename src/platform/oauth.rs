//! The OAuth calls: authorize address, code exchange, refresh, revoke (S1 4.1). Never through discovery, forms only, and an answer is
//! taken whole or not at all.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::model::token::{AccessToken, AuthorizationCode, MalformedToken, RefreshToken, TokenSet};

use super::verdict::Call;
use super::wire::under;
use super::{Blame, CredentialsVerdict, Platform, TokenHint, Trouble, TroubleKind};

impl Platform {
    /// Where the browser is sent (S1 4.1.1).
    pub fn authorize_url(&self, state: &str) -> Url {
        let mut url = under(&self.realm.oauth_base, "/oauth2/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.realm.client_id)
            .append_pair("response_type", "code")
            .append_pair("state", state)
            .append_pair("redirect_uri", self.realm.redirect_uri.as_str())
            .append_pair("loginPage", self.realm.login_page.as_str())
            .append_pair("scope", "openid");
        url
    }

    /// A code works once and dies within minutes (S1 4.1.2), so after `TimedOut` or `Lost` a repeat may be refused although the first
    /// try worked: then only a new login helps.
    pub async fn exchange_code(&self, code: &AuthorizationCode) -> Result<TokenSet, Trouble> {
        self.ask_for_tokens(
            Call::CodeExchange,
            &[
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", self.realm.redirect_uri.as_str()),
            ],
        )
        .await
    }

    /// Whether a refused grant really is the grant's fault is for renewal to find out, with `probe_credentials`.
    pub async fn refresh(&self, refresh: &RefreshToken) -> Result<TokenSet, Trouble> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
        self.ask_for_tokens(Call::Refresh, &fields).await
    }

    /// Kills the grant, for all users of the account (S1 4.1.5).
    pub async fn revoke(&self, token: &str, hint: TokenHint) -> Result<(), Trouble> {
        let hint = match hint {
            TokenHint::Access => "access_token",
            TokenHint::Refresh => "refresh_token",
        };
        let fields = self.with_credentials(&[("token", token), ("token_type_hint", hint)]);
        let url = under(&self.realm.oauth_base, "/oauth2/revoke");
        self.wire.post_form(Call::Revoke, url, &fields).await.map(|_| ())
    }

    /// Asks the token endpoint with a code that cannot be valid: an answer about the code means that the client was accepted.
    pub async fn probe_credentials(&self) -> CredentialsVerdict {
        let Some(code) = impossible_code() else { return CredentialsVerdict::Unknown };
        match self.exchange_code(&code).await {
            Err(Trouble { kind: TroubleKind::Refused, blame: Blame::Grant, .. }) => CredentialsVerdict::Good,
            Err(Trouble { kind: TroubleKind::Refused, blame: Blame::Credentials, .. }) => {
                CredentialsVerdict::Bad
            }
            _ => CredentialsVerdict::Unknown,
        }
    }

    async fn ask_for_tokens(&self, call: Call, fields: &[(&str, &str)]) -> Result<TokenSet, Trouble> {
        let url = under(&self.realm.oauth_base, "/oauth2/token");
        let answer = self.wire.post_form(call, url, &self.with_credentials(fields)).await?;
        token_set(call, &answer.json(call)?)
    }

    fn with_credentials<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut all = fields.to_vec();
        all.push(("client_id", &self.realm.client_id));
        all.push(("client_secret", self.realm.client_secret.expose()));
        all
    }
}

/// Reads a token answer (S1 4.1.2; the same object is nested in a pairing, S1 4.3.1).
///
/// One unsound field refuses the whole answer, so that the store keeps what it has. A missing `refresh_token` is sound: the old one
/// stays good. Servers that print every field of theirs print a missing one as null.
pub(super) fn token_set(call: Call, answer: &Value) -> Result<TokenSet, Trouble> {
    let unsound = |fault: MalformedToken| Trouble::malformed(call, fault.to_string());
    let fields =
        answer.as_object().ok_or_else(|| Trouble::malformed(call, "the token answer is no object"))?;
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Trouble::malformed(call, format!("{name} is not a string"))),
    };
    if text("token_type")?.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(Trouble::malformed(call, "token_type is not Bearer"));
    }
    let access = text("access_token")?.ok_or_else(|| Trouble::malformed(call, "access_token is missing"))?;
    Ok(TokenSet {
        access: AccessToken::checked(access).map_err(unsound)?,
        refresh: text("refresh_token")?.map(RefreshToken::checked).transpose().map_err(unsound)?,
        expires_in: lifetime(call, fields.get("expires_in"))?,
    })
}

/// The documented life of a fresh access token (S1 4.1.2). Taken where the answer names none, which RFC 6749, 5.1 allows: refusing
/// such an answer would throw a rotated refresh token away.
const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// A longer life is believed this far only; the token is then renewed early, which harms nobody.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Beyond a year the answer was made by something else than a token endpoint: nothing in it is believed, its refresh token least of
/// all, since that would take the place of a good one (threats, row 16).
const ABSURD_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

fn lifetime(call: Call, value: Option<&Value>) -> Result<Duration, Trouble> {
    let seconds = match value {
        None | Some(Value::Null) => return Ok(USUAL_LIFE),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if seconds > ABSURD_LIFE.as_secs_f64() => {
            Err(Trouble::malformed(call, "expires_in is an absurd number of seconds"))
        }
        Some(seconds) if seconds >= LONGEST_LIFE.as_secs_f64() => Ok(LONGEST_LIFE),
        Some(seconds) if seconds >= 1.0 => Ok(Duration::from_secs_f64(seconds.floor())),
        _ => Err(Trouble::malformed(call, "expires_in is not a number of seconds")),
    }
}

/// 128 random bits: no code that was ever handed out.
fn impossible_code() -> Option<AuthorizationCode> {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).ok()?;
    Some(AuthorizationCode::new(format!("probe-{:032x}", u128::from_be_bytes(bits))))
}

#[cfg(test)]
mod tests {
    use super::super::responder::{Responder, bare_platform, json_answer, platform, realm_of, status_answer};
    use super::*;

    async fn refreshed(body: &str) -> Result<TokenSet, Trouble> {
        let responder = Responder::start(vec![json_answer(body)]).await;
        platform(&responder).refresh(&RefreshToken::new("old")).await
    }

    #[tokio::test]
    async fn the_authorize_address_carries_exactly_the_documented_parameters() {
        let responder = Responder::start(Vec::new()).await;
        let mut realm = realm_of(&responder);
        realm.oauth_base = "https://identity.example.test/tenant/?x=1#y".parse().unwrap();
        let url = bare_platform(&realm).authorize_url("a+b&c");
        assert_eq!(
            url.as_str(),
            "https://identity.example.test/tenant/oauth2/authorize?client_id=client+1&response_type=code&state=a%2Bb%26c\
             &redirect_uri=https%3A%2F%2Fgateway.example.test%2Foauth2%2Fcallback\
             &loginPage=https%3A%2F%2Flogin.example.test%2Fstart%3Fbrand%3D1%26lang%3Dde&scope=openid"
        );
    }

    #[tokio::test]
    async fn a_code_is_exchanged_by_a_form_and_brings_both_tokens() {
        // The sample of S1 4.1.2.
        let responder = Responder::start(vec![json_answer(
            r#"{"access_token":"acc","refresh_token":"ref","scope":"openid","id_token":"id","token_type":"Bearer","expires_in":3600}"#,
        )])
        .await;
        let tokens = platform(&responder).exchange_code(&AuthorizationCode::new("c o/de")).await.unwrap();
        assert_eq!(
            tokens,
            TokenSet {
                access: AccessToken::new("acc"),
                refresh: Some(RefreshToken::new("ref")),
                expires_in: Duration::from_secs(3600),
            }
        );
        let request = responder.only_request();
        assert_eq!(request.line(), "POST /oauth2/token HTTP/1.1");
        assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(
            request.body,
            "grant_type=authorization_code&code=c+o%2Fde\
             &redirect_uri=https%3A%2F%2Fgateway.example.test%2Foauth2%2Fcallback\
             &client_id=client+1&client_secret=s3cret%26%3D"
        );
    }

    #[tokio::test]
    async fn a_refresh_sends_the_token_and_the_credentials_once() {
        let responder =
            Responder::start(vec![json_answer(r#"{"access_token":"new","expires_in":"1800"}"#)]).await;
        let tokens = platform(&responder).refresh(&RefreshToken::new("old")).await.unwrap();
        assert_eq!((tokens.refresh, tokens.expires_in), (None, Duration::from_secs(1800)));
        assert_eq!(
            responder.only_request().body,
            "grant_type=refresh_token&refresh_token=old&client_id=client+1&client_secret=s3cret%26%3D"
        );
    }

    #[tokio::test]
    async fn revoke_names_the_kind_of_token() {
        let responder = Responder::start(vec![status_answer(200, ""), status_answer(401, "")]).await;
        let platform = platform(&responder);
        platform.revoke("r1", TokenHint::Refresh).await.unwrap();
        let trouble = platform.revoke("a1", TokenHint::Access).await.unwrap_err();
        assert_eq!((trouble.kind, trouble.blame), (TroubleKind::Refused, Blame::Grant));
        let bodies: Vec<String> = responder.requests().into_iter().map(|request| request.body).collect();
        assert_eq!(
            bodies,
            [
                "token=r1&token_type_hint=refresh_token&client_id=client+1&client_secret=s3cret%26%3D",
                "token=a1&token_type_hint=access_token&client_id=client+1&client_secret=s3cret%26%3D",
            ]
        );
    }

    #[tokio::test]
    async fn a_refused_refresh_tells_grant_from_credentials_where_the_answer_does() {
        for (status, body, blame) in [
            (401, "", Blame::Grant),
            (400, r#"{"error":"invalid_grant","error_description":"x"}"#, Blame::Grant),
            (401, r#"{"error":"invalid_client"}"#, Blame::Credentials),
            (401, "<html>invalid_client</html>", Blame::Grant),
            (500, r#"{"error":"invalid_client"}"#, Blame::Realm),
            (400, r#"{"error":"temporarily_unavailable"}"#, Blame::Realm),
            (400, r#"{"error":"unsupported_grant_type"}"#, Blame::Realm),
            (401, r#"{"error":"wrong_refresh_token"}"#, Blame::Grant),
        ] {
            let responder = Responder::start(vec![status_answer(status, body)]).await;
            let trouble = platform(&responder).refresh(&RefreshToken::new("old")).await.unwrap_err();
            assert_eq!((trouble.status, trouble.blame), (Some(status), blame), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn the_probe_reads_400_as_good_and_401_as_bad() {
        for (play, verdict) in [
            (status_answer(400, ""), CredentialsVerdict::Good),
            (status_answer(400, r#"{"error":"invalid_grant"}"#), CredentialsVerdict::Good),
            (status_answer(400, r#"{"error":"invalid_client"}"#), CredentialsVerdict::Bad),
            (status_answer(400, r#"{"error":"invalid_client_metadata"}"#), CredentialsVerdict::Unknown),
            (status_answer(401, ""), CredentialsVerdict::Bad),
            (status_answer(500, ""), CredentialsVerdict::Unknown),
            (json_answer(r#"{"access_token":"a"}"#), CredentialsVerdict::Unknown),
        ] {
            let responder = Responder::start(vec![play]).await;
            assert_eq!(platform(&responder).probe_credentials().await, verdict);
            assert!(responder.only_request().body.contains("code=probe-"));
        }
    }

    #[tokio::test]
    async fn an_unsound_token_answer_is_refused_as_a_whole() {
        let long = "x".repeat(100_000);
        for body in [
            "<html>Sign in</html>",
            "[]",
            "null",
            r#"{"refresh_token":"r","expires_in":3600}"#,
            r#"{"access_token":5,"expires_in":3600}"#,
            r#"{"access_token":"","expires_in":3600}"#,
            r#"{"access_token":"a\r\nX-Evil: 1","expires_in":3600}"#,
            r#"{"access_token":"a","refresh_token":"r\r\n","expires_in":3600}"#,
            r#"{"access_token":"a","refresh_token":"","expires_in":3600}"#,
            r#"{"access_token":null,"expires_in":3600}"#,
            r#"{"access_token":"a","refresh_token":["r"],"expires_in":3600}"#,
            r#"{"access_token":"a","access_token":"b","expires_in":3600}"#,
            r#"{"access_token":"a","token_type":"mac","expires_in":3600}"#,
            r#"{"access_token":"a","token_type":7,"expires_in":3600}"#,
            r#"{"access_token":"a","expires_in":0}"#,
            r#"{"access_token":"a","expires_in":-3600}"#,
            r#"{"access_token":"a","expires_in":"soon"}"#,
            r#"{"access_token":"a","expires_in":""}"#,
            r#"{"access_token":"a","expires_in":true}"#,
            r#"{"access_token":"a","expires_in":NaN}"#,
            r#"{"access_token":"a","expires_in":99999999999}"#,
            r#"{"access_token":"a","expires_in":1e300}"#,
            r#"{"access_token":"a","expires_in":"99999999999999999999999"}"#,
            r#"{"access_token":"LONG"}"#,
        ] {
            let trouble = refreshed(&body.replace("LONG", &long)).await.unwrap_err();
            assert_eq!((trouble.kind, trouble.blame), (TroubleKind::Malformed, Blame::Realm), "{body}");
            assert!(trouble.transient() && trouble.detail.len() < 120, "{}", trouble.detail);
        }
    }

    #[tokio::test]
    async fn a_life_is_believed_for_a_day_at_most_and_an_hour_where_none_is_named() {
        for (field, seconds) in [
            (r#","expires_in":3599"#, 3599),
            (r#","expires_in":3599.9,"token_type":"bearer""#, 3599),
            (r#","expires_in":2592000"#, 24 * 3600),
            (r#","expires_in":"2592000""#, 24 * 3600),
            ("", 3600),
        ] {
            let tokens = refreshed(&format!(r#"{{"access_token":"a"{field}}}"#)).await.unwrap();
            assert_eq!(tokens.expires_in, Duration::from_secs(seconds), "{field}");
        }
    }

    #[tokio::test]
    async fn a_null_is_a_field_that_is_missing() {
        let body = r#"{"access_token":"a","refresh_token":null,"id_token":null,"token_type":null,"expires_in":null,"scope":null}"#;
        let tokens = refreshed(body).await.unwrap();
        assert_eq!((tokens.refresh, tokens.expires_in), (None, USUAL_LIFE));
    }

    #[tokio::test]
    async fn an_8_k_token_is_taken() {
        let token = "t".repeat(8192);
        let tokens = refreshed(&format!(r#"{{"access_token":"{token}","expires_in":3600}}"#)).await.unwrap();
        assert_eq!(tokens.access.expose(), token);
    }
}
