//! What is wrong with a request to the facade, in the vendor's statuses and RFC 6749's words.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::gateway::refusal::Refusal;
use crate::gateway::refusal::oauth_error::OAuthError;
use crate::pairing::CodeExchangeError;

/// What is wrong with a token request, in the vendor's terms: 400 and 401 of its table, RFC 6749's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthRequestError {
    InvalidRequest(&'static str),
    UnsupportedGrant,
    InvalidClient,
    UnknownToken,
    /// The platform was asked about another unknown token of this caller's a moment ago.
    AskedTooSoon,
    /// The code of a login, or what had to come with it.
    WrongCode(CodeExchangeError),
    /// The login behind a refresh token has ended, with the platform's token behind it.
    LoginOver,
    /// The token to revoke is none that the gateway has handed out to this client.
    NotRevocable,
    StoreUnavailable,
    NotAllowed,
    NeedsLogin,
    Paused,
}

/// Which half of the house says no.
#[derive(Debug)]
pub enum FacadeError {
    Gateway(Refusal),
    Vendor(OAuthRequestError),
}

impl From<OAuthRequestError> for FacadeError {
    fn from(refusal: OAuthRequestError) -> Self {
        FacadeError::Vendor(refusal)
    }
}

impl From<Refusal> for FacadeError {
    fn from(refusal: Refusal) -> Self {
        FacadeError::Gateway(refusal)
    }
}

impl FacadeError {
    pub fn response(self, request_id: &HeaderValue) -> Response<Bytes> {
        match self {
            FacadeError::Gateway(refusal) => refusal.oauth_response(request_id, false),
            FacadeError::Vendor(refusal) => refusal.response(request_id),
        }
    }
}

impl OAuthRequestError {
    pub(super) fn of_code(error: CodeExchangeError) -> Self {
        match error {
            CodeExchangeError::StoreUnavailable => Self::StoreUnavailable,
            error => Self::WrongCode(error),
        }
    }

    fn response(self, request_id: &HeaderValue) -> Response<Bytes> {
        let (status, error, description) = self.words();
        let refusal = OAuthError { status, error, description, allowed: None };
        let mut response = refusal.response(request_id, false);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        response
    }

    /// Status, RFC 6749's word, and a sentence.
    fn words(self) -> (StatusCode, &'static str, String) {
        use OAuthRequestError::*;
        let (status, error, description) = match self {
            InvalidRequest(what) => (StatusCode::BAD_REQUEST, "invalid_request", what),
            UnsupportedGrant => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "answered here are refresh_token, and authorization_code for clients whose facade lists redirect_uris",
            ),
            InvalidClient => {
                (StatusCode::UNAUTHORIZED, "invalid_client", "client_id or client_secret is wrong")
            }
            // Authentication and Pairing V2, 4.1.2: 400 for a wrong code.
            WrongCode(error) => return (StatusCode::BAD_REQUEST, "invalid_grant", error.to_string()),
            LoginOver => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "the login is over: pair an account within an hour of it, and use the tokens of the pairing",
            ),
            UnknownToken => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "this refresh token was not imported: an operator takes it over with genapi-gateway accounts import",
            ),
            NotRevocable => (
                StatusCode::UNAUTHORIZED,
                "invalid_grant",
                "the token is none that this gateway has handed out to this client; an operator revokes the account's own with \
                 genapi-gateway accounts revoke",
            ),
            AskedTooSoon => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "another refresh token that is not known here was tried a moment ago; try again in a minute",
            ),
            StoreUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "store_unavailable: nothing was changed; try again",
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
        (status, error, description.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_refresh_has_the_vendors_status_and_a_word_that_helps() {
        let response = OAuthRequestError::UnknownToken.response(&HeaderValue::from_static("r-1"));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!((response.status().as_u16(), body["error"].as_str()), (401, Some("invalid_grant")));
        assert!(body["error_description"].as_str().unwrap().contains("accounts import"));
    }
}
