//! The vendor's `/oauth2/token` for applications that refresh by themselves: an imported refresh token is
//! exchanged for a gateway token. No Align token ever leaves, and the refresh token comes back unchanged, so
//! that the application can go back to the vendor.

mod credentials;
mod form;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::access::known_tokens::KnownTokens;
use crate::access::registry::{AccountRegistry, Availability};
use crate::gateway::GatewayShared;
use crate::gateway::inbound::caller::{self, AuthenticatedCaller, PeerInfo};
use crate::gateway::refusal::Refusal;
use crate::gateway::refusal::oauth_error::OAuthError;
use crate::gateway::settings::GatewaySettings;
use crate::http1::Headers;
use crate::model::token::RefreshToken;

pub use form::MAX_FORM;

use credentials::BasicCredentials;
use form::TokenForm;

/// Serves token requests of callers.
pub struct TokenEndpoint {
    pub shared: Arc<GatewayShared>,
    pub known_tokens: Arc<KnownTokens>,
    pub registry: Arc<AccountRegistry>,
}

/// What is wrong with a token request, in the vendor's terms: 400 and 401 of its table, RFC 6749's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenRequestError {
    InvalidRequest(&'static str),
    UnsupportedGrant,
    InvalidClient,
    UnknownToken,
    NotAllowed,
    NeedsLogin,
    Paused,
}

/// Whether a path is the vendor's token endpoint, bare or after an account's prefix, and after the path of
/// the gateway's own URL.
pub fn is_token_path(settings: &GatewaySettings, path: &str) -> bool {
    // A glance that nearly every call fails at once.
    path.trim_end_matches('/').ends_with(TOKEN_PATH)
        && settings.callers.iter().any(|caller| {
            let below = path.strip_prefix(caller.url.path.as_str());
            below.is_some_and(is_token_endpoint)
        })
}

const TOKEN_PATH: &str = "/oauth2/token";

/// Slashes at the end of a base URL do not count.
fn is_token_endpoint(path: &str) -> bool {
    let Some(prefix) = path.trim_end_matches('/').strip_suffix(TOKEN_PATH) else { return false };
    let prefix = prefix.trim_matches('/');
    let name = prefix.strip_prefix("accounts/").map(|name| name.trim_start_matches('/'));
    prefix.is_empty() || name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

impl TokenEndpoint {
    /// Serves `POST /oauth2/token`; `body` is at most [`MAX_FORM`] bytes.
    pub fn token(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
        request_id: &HeaderValue,
    ) -> Response<Bytes> {
        match self.issue_token(headers, body, peer) {
            Ok(response) => response,
            Err(FacadeError::Gateway(refusal)) => refusal.oauth_response(request_id, false),
            Err(FacadeError::Vendor(refusal)) => refusal.response(request_id),
        }
    }

    fn issue_token(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<Response<Bytes>, FacadeError> {
        let form = TokenForm::read(headers, body).map_err(TokenRequestError::InvalidRequest)?;
        let caller = self.caller(headers, &form, peer)?;
        if form.grant_type != "refresh_token" {
            return Err(TokenRequestError::UnsupportedGrant.into());
        }
        let token = RefreshToken::new(form.refresh_token.as_str());
        let name = self.known_tokens.account_of(&token).ok_or(TokenRequestError::UnknownToken)?;
        let entry = self.registry.by_name(name.as_str()).ok_or(TokenRequestError::UnknownToken)?;
        if !caller.rules.may_use(&name, || entry.identity()) {
            return Err(TokenRequestError::NotAllowed.into());
        }
        let now = self.shared.clock.now();
        match entry.availability(now) {
            Availability::Ready(_) | Availability::Refused { .. } | Availability::Renewable { .. } => {}
            Availability::Paused => return Err(TokenRequestError::Paused.into()),
            Availability::NeedsLogin { .. } => return Err(TokenRequestError::NeedsLogin.into()),
        }
        entry.mark_used(now);
        let lifetime = self.shared.tokens.lifetime();
        let minted = self.shared.tokens.mint(&caller.rules.name, &name, now + lifetime);
        let token =
            minted.ok_or(TokenRequestError::InvalidRequest("the caller's name is too long for a token"))?;
        tracing::info!(caller = %caller.rules.name, account = %name, "gateway token handed out");
        Ok(token_response(&token, &form.refresh_token, lifetime))
    }

    /// A configured client's credentials count first, in the form or in `Authorization: Basic`; else the
    /// caller is known as for any other call. Both ways at once are one too many (RFC 6749, 2.3) unless they
    /// say the same.
    fn caller(
        &self,
        headers: &Headers,
        form: &TokenForm,
        peer: &PeerInfo,
    ) -> Result<AuthenticatedCaller, FacadeError> {
        let settings = self.shared.settings.load();
        let now = self.shared.clock.now();
        // A Basic password may be a caller's key as well: that is the gateway's own way, and no client
        // credential.
        let is_key = |basic: &BasicCredentials| settings.caller_by_key(&basic.secrets[1]).is_some();
        let mut basics = BasicCredentials::of(headers);
        basics.retain(|basic| !is_key(basic));
        basics.dedup();
        let in_form = settings.caller_by_client_id(&form.client_id);
        let of_basic = |basic: &BasicCredentials| {
            basic.client_ids.iter().find_map(|id| settings.caller_by_client_id(id)).cloned()
        };
        let in_basic = basics.iter().find_map(of_basic);
        if (in_form.is_some() || in_basic.is_some()) && !basics.iter().all(|basic| same_client(basic, form)) {
            return Err(TokenRequestError::InvalidRequest(CREDENTIALS_DIFFER).into());
        }
        if let Some(rules) = in_basic.as_ref().or(in_form) {
            let secrets = basics.iter().flat_map(|basic| &basic.secrets).chain(&form.client_secret);
            // All are compared, so that the time tells nothing of which was right.
            let right = secrets.fold(false, |right, secret| rules.facade_secret_is(secret) | right);
            return if right {
                caller::accept(rules.clone(), headers).map_err(FacadeError::Gateway)
            } else {
                Err(TokenRequestError::InvalidClient.into())
            };
        }
        caller::identify(&settings, &self.shared.tokens, headers, peer, now).map_err(FacadeError::Gateway)
    }
}

const CREDENTIALS_DIFFER: &str =
    "client credentials are sent twice and differ: send them as Authorization Basic or in the form, not both";

/// Whether the form says nothing else about the client than the header does.
fn same_client(basic: &BasicCredentials, form: &TokenForm) -> bool {
    let same_id = form.client_id.is_empty() || basic.client_ids.contains(&form.client_id);
    same_id && form.client_secret.is_none_or(|secret| basic.secrets.contains(&secret))
}

/// Which half of the house says no.
#[derive(Debug)]
enum FacadeError {
    Gateway(Refusal),
    Vendor(TokenRequestError),
}

impl From<TokenRequestError> for FacadeError {
    fn from(refusal: TokenRequestError) -> Self {
        FacadeError::Vendor(refusal)
    }
}

/// The vendor's shape (Authentication and Pairing V2, 4.1.3).
fn token_response(access_token: &str, refresh_token: &str, lifetime: Duration) -> Response<Bytes> {
    json_response(
        StatusCode::OK,
        &serde_json::json!({
            "access_token": access_token,
            "refresh_token": refresh_token,
            "scope": "openid",
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
        }),
    )
}

impl TokenRequestError {
    fn response(self, request_id: &HeaderValue) -> Response<Bytes> {
        use TokenRequestError::*;
        let (status, error, description) = match self {
            InvalidRequest(what) => (StatusCode::BAD_REQUEST, "invalid_request", what),
            UnsupportedGrant => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "only refresh_token is answered here; an operator pairs accounts with genapi-gateway accounts pair",
            ),
            InvalidClient => {
                (StatusCode::UNAUTHORIZED, "invalid_client", "client_id or client_secret is wrong")
            }
            UnknownToken => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "this refresh token was not imported: an operator takes it over with genapi-gateway accounts import",
            ),
            NotAllowed => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "this caller may not use the account of this refresh token; see the caller's accounts in config.toml",
            ),
            NeedsLogin => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "account_needs_login: the platform no longer takes the account's grant; genapi-gateway explain tells why",
            ),
            Paused => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "account_paused: an operator has paused this account; genapi-gateway accounts resume starts it again",
            ),
        };
        let refusal = OAuthError { status, error, description: description.to_owned() };
        let mut response = refusal.response(request_id, false);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_endpoint_is_found_bare_and_behind_an_account() {
        for path in [
            "/oauth2/token",
            "/oauth2/token/",
            "//oauth2/token",
            "/accounts/smile/oauth2/token",
            "/accounts/smile//oauth2/token",
            "//accounts//smile/oauth2/token",
        ] {
            assert!(is_token_endpoint(path), "{path}");
        }
        for path in [
            "/oauth2/tokens",
            "/x/oauth2/token",
            "/accounts/a/b/oauth2/token",
            "/accounts/oauth2/token",
            "//evil.test/oauth2/token",
            "/",
            "/oauth2",
        ] {
            assert!(!is_token_endpoint(path), "{path}");
        }
    }

    #[test]
    fn a_refused_refresh_has_the_vendors_status_and_a_word_that_helps() {
        let response = TokenRequestError::UnknownToken.response(&HeaderValue::from_static("r-1"));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!((response.status().as_u16(), body["error"].as_str()), (401, Some("invalid_grant")));
        assert!(body["error_description"].as_str().unwrap().contains("accounts import"));
    }
}
