//! The OAuth calls: authorize address, code exchange, refresh, revoke (S1 4.1). Never through discovery, and
//! forms only.

use url::Url;

use crate::model::token::{AuthorizationCode, RefreshToken, TokenSet};

use super::control_call::ControlCall;
use super::control_client::append_path;
use super::documented_outcome::refusal;
use super::oauth_errors::{ErrorBody, ErrorResponse};
use super::token_response::token_set;
use super::{Blame, CredentialsCheck, PlatformClient, PlatformError, PlatformErrorKind, TokenHint};

impl PlatformClient {
    /// Where the browser is sent (S1 4.1.1).
    pub fn authorize_url(&self, state: &str) -> Url {
        let mut url = append_path(&self.realm.oauth_base, "/oauth2/authorize");
        url.query_pairs_mut()
            .append_pair("client_id", &self.realm.client_id)
            .append_pair("response_type", "code")
            .append_pair("state", state)
            .append_pair("redirect_uri", self.realm.redirect_uri.as_str())
            .append_pair("loginPage", self.realm.login_page.as_str())
            .append_pair("scope", &self.realm.scope)
            .extend_pairs(&self.realm.authorize_parameters);
        url
    }

    /// A code works once and dies within minutes (S1 4.1.2), so after `TimedOut` or `Lost` a repeat may be
    /// refused although the first try worked: then only a new login helps.
    pub async fn exchange_code(&self, code: &AuthorizationCode) -> Result<TokenSet, PlatformError> {
        self.ask_for_tokens(
            ControlCall::CodeExchange,
            &[
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", self.realm.redirect_uri.as_str()),
            ],
        )
        .await
    }

    /// Whether a refused grant really is the grant's fault is for renewal to find out, with
    /// `probe_credentials`.
    pub async fn refresh(&self, refresh: &RefreshToken) -> Result<TokenSet, PlatformError> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
        self.ask_for_tokens(ControlCall::Refresh, &fields).await
    }

    /// Kills the grant, for all users of the account (S1 4.1.5).
    pub async fn revoke(&self, token: &str, hint: TokenHint) -> Result<(), PlatformError> {
        let hint = match hint {
            TokenHint::Access => "access_token",
            TokenHint::Refresh => "refresh_token",
        };
        let fields = self.with_credentials(&[("token", token), ("token_type_hint", hint)]);
        let url = append_path(&self.realm.oauth_base, "/oauth2/revoke");
        self.client.post_form(ControlCall::Revoke, url, &fields).await.map(|_| ())
    }

    /// Asks the token endpoint with a code that cannot be valid: a response about the code means that the
    /// client was accepted. What was said by somebody in front of it says nothing.
    pub async fn probe_credentials(&self) -> CredentialsCheck {
        let Some(code) = random_code() else { return CredentialsCheck::Unknown };
        match self.exchange_code(&code).await {
            Err(PlatformError { kind: PlatformErrorKind::Refused, blame: Blame::Grant, .. }) => {
                CredentialsCheck::Good
            }
            Err(PlatformError { kind: PlatformErrorKind::Refused, blame: Blame::Credentials, .. }) => {
                CredentialsCheck::Bad
            }
            _ => CredentialsCheck::Unknown,
        }
    }

    async fn ask_for_tokens(
        &self,
        call: ControlCall,
        fields: &[(&str, &str)],
    ) -> Result<TokenSet, PlatformError> {
        let url = append_path(&self.realm.oauth_base, "/oauth2/token");
        let response = self.client.post_form(call, url, &self.with_credentials(fields)).await?;
        token_set(call, &response).map_err(|error| {
            // Some servers refuse with status 200.
            let error_response = ErrorResponse::of_body(&response.body);
            if error_response.body == ErrorBody::OAuth && error.refresh.is_none() {
                refusal(call, response.status, &error_response)
            } else {
                error
            }
        })
    }

    fn with_credentials<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut all = fields.to_vec();
        all.push(("client_id", &self.realm.client_id));
        all.push(("client_secret", self.realm.client_secret.expose()));
        all
    }
}

/// 128 random bits: no code that was ever handed out.
fn random_code() -> Option<AuthorizationCode> {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).ok()?;
    Some(AuthorizationCode::new(format!("probe-{:032x}", u128::from_be_bytes(bits))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::responder::{
        Responder, bare_platform, json_response, platform, realm_of, status_response,
    };
    use super::*;
    use crate::model::token::AccessToken;

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
        let responder = Responder::start(vec![json_response(
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
                oddities: Vec::new(),
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
            Responder::start(vec![json_response(r#"{"access_token":"new","expires_in":"1800"}"#)]).await;
        let tokens = platform(&responder).refresh(&RefreshToken::new("old")).await.unwrap();
        assert_eq!((tokens.refresh, tokens.expires_in), (None, Duration::from_secs(1800)));
        assert_eq!(
            responder.only_request().body,
            "grant_type=refresh_token&refresh_token=old&client_id=client+1&client_secret=s3cret%26%3D"
        );
    }

    #[tokio::test]
    async fn revoke_names_the_kind_of_token() {
        let responder = Responder::start(vec![status_response(200, ""), status_response(401, "")]).await;
        let platform = platform(&responder);
        platform.revoke("r1", TokenHint::Refresh).await.unwrap();
        let error = platform.revoke("a1", TokenHint::Access).await.unwrap_err();
        assert_eq!((error.kind, error.blame), (PlatformErrorKind::Refused, Blame::Grant));
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
    async fn a_refusal_with_status_200_is_a_refusal() {
        for (body, blame, kind) in [
            (r#"{"error":"invalid_grant"}"#, Blame::Grant, PlatformErrorKind::Refused),
            (r#"{"error":"invalid_client"}"#, Blame::Credentials, PlatformErrorKind::Refused),
            (r#"{"error":"we are closed"}"#, Blame::Realm, PlatformErrorKind::Unexpected),
            (
                r#"{"Data":null,"Status":"Failure","Errors":["x"]}"#,
                Blame::Realm,
                PlatformErrorKind::Malformed,
            ),
        ] {
            let responder = Responder::start(vec![json_response(body)]).await;
            let error = platform(&responder).refresh(&RefreshToken::new("old")).await.unwrap_err();
            assert_eq!((error.blame, error.kind), (blame, kind), "{body}");
        }
    }

    #[tokio::test]
    async fn the_probe_believes_the_token_endpoint_alone() {
        for (play, documented_outcome) in [
            (status_response(400, r#"{"error":"invalid_grant"}"#), CredentialsCheck::Good),
            (status_response(400, "Wrong code"), CredentialsCheck::Good),
            (json_response(r#"{"error":"invalid_grant"}"#), CredentialsCheck::Good),
            (status_response(400, r#"{"error":"invalid_client"}"#), CredentialsCheck::Bad),
            (status_response(401, r#"{"error":"invalid_client"}"#), CredentialsCheck::Bad),
            (status_response(401, ""), CredentialsCheck::Bad),
            (status_response(400, ""), CredentialsCheck::Unknown),
            (status_response(400, "<html>blocked</html>"), CredentialsCheck::Unknown),
            (status_response(401, "<html>blocked</html>"), CredentialsCheck::Unknown),
            (status_response(400, r#"{"error":"invalid_request"}"#), CredentialsCheck::Unknown),
            (status_response(400, r#"{"error":"invalid_client_metadata"}"#), CredentialsCheck::Unknown),
            (status_response(500, ""), CredentialsCheck::Unknown),
            (json_response(r#"{"access_token":"a"}"#), CredentialsCheck::Unknown),
        ] {
            let responder = Responder::start(vec![play]).await;
            assert_eq!(platform(&responder).probe_credentials().await, documented_outcome);
            assert!(responder.only_request().body.contains("code=probe-"));
        }
    }
}
