//! The vendor's OAuth endpoints, answered for applications that refresh by themselves. No Align token ever
//! leaves: what an application gets is the gateway's, bound to it and to one account (threats, row 33).

mod client;
mod credentials;
mod error;
mod form;
mod revoke;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response};

use crate::access::application_grant_issuer::ApplicationGrantIssuer;
use crate::access::known_tokens::KnownTokens;
use crate::access::registry::AccountRegistry;
use crate::gateway::GatewayShared;
use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::settings::GatewaySettings;
use crate::http1::Headers;

pub use form::MAX_FORM;

/// Serves the OAuth requests of callers.
pub struct OAuthFacade {
    pub shared: Arc<GatewayShared>,
    pub known_tokens: Arc<KnownTokens>,
    pub issuer: ApplicationGrantIssuer,
    pub registry: Arc<AccountRegistry>,
}

/// The endpoints that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthEndpoint {
    Token,
    Revoke,
}

impl OAuthEndpoint {
    /// As the vendor has it (Authentication and Pairing V2, 4.1.2 and 4.1.5).
    fn path(self) -> &'static str {
        match self {
            Self::Token => "/oauth2/token",
            Self::Revoke => "/oauth2/revoke",
        }
    }
}

/// Which of the vendor's OAuth endpoints a path is, bare or after an account's prefix, and after the path of
/// the gateway's own URL.
pub fn endpoint(settings: &GatewaySettings, path: &str) -> Option<OAuthEndpoint> {
    // A glance that nearly every call fails at once.
    let trimmed = path.trim_end_matches('/');
    let is_asked = |endpoint: &OAuthEndpoint| trimmed.ends_with(endpoint.path());
    let endpoint = [OAuthEndpoint::Token, OAuthEndpoint::Revoke].into_iter().find(is_asked)?;
    if endpoint == OAuthEndpoint::Revoke && !settings.callers.iter().any(|caller| caller.has_facade()) {
        return None;
    }
    let is_it = |below: &str| is_below_prefix(below, endpoint);
    let mut callers = settings.callers.iter();
    callers.any(|caller| path.strip_prefix(caller.url.path.as_str()).is_some_and(is_it)).then_some(endpoint)
}

/// Slashes at the end of a base URL do not count.
fn is_below_prefix(path: &str, endpoint: OAuthEndpoint) -> bool {
    let Some(prefix) = path.trim_end_matches('/').strip_suffix(endpoint.path()) else { return false };
    let prefix = prefix.trim_matches('/');
    let name = prefix.strip_prefix("accounts/").map(|name| name.trim_start_matches('/'));
    prefix.is_empty() || name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

impl OAuthFacade {
    /// Serves a POST; `body` is at most [`MAX_FORM`] bytes.
    pub async fn serve(
        &self,
        endpoint: OAuthEndpoint,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
        request_id: &HeaderValue,
    ) -> Response<Bytes> {
        let served = match endpoint {
            OAuthEndpoint::Token => self.issue_token(headers, body, peer).await,
            OAuthEndpoint::Revoke => self.revoke(headers, body, peer).await,
        };
        served.unwrap_or_else(|error| error.response(request_id))
    }
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
            assert!(is_below_prefix(path, OAuthEndpoint::Token), "{path}");
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
            assert!(!is_below_prefix(path, OAuthEndpoint::Token), "{path}");
        }
    }
}
