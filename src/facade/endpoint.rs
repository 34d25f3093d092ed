//! Which requests the facade answers instead of the gateway: the vendor's OAuth endpoints by their paths, and
//! the few API calls that are about an application's own login or grant.

use http::Method;

use crate::gateway::inbound::caller;
use crate::gateway::settings::GatewaySettings;
use crate::http1::RequestHead;

/// The OAuth endpoints that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthEndpoint {
    Token,
    Authorize,
    Revoke,
}

/// An API call that is answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiCall {
    /// It carries the token of a login, which opens no account yet.
    OfLogin,
    /// It may be the unpairing by an application that has a grant of its own.
    Unpair,
}

const ENDPOINTS: [OAuthEndpoint; 3] = [OAuthEndpoint::Token, OAuthEndpoint::Authorize, OAuthEndpoint::Revoke];

impl OAuthEndpoint {
    /// As the vendor has it (Authentication and Pairing V2, 4.1.1, 4.1.2 and 4.1.5).
    fn path(self) -> &'static str {
        match self {
            Self::Token => "/oauth2/token",
            Self::Authorize => "/oauth2/authorize",
            Self::Revoke => "/oauth2/revoke",
        }
    }
}

/// Which of the vendor's OAuth endpoints a path is, bare or after an account's prefix, and after the path of
/// the gateway's own URL.
pub fn oauth_endpoint(settings: &GatewaySettings, path: &str) -> Option<OAuthEndpoint> {
    // A glance that nearly every call fails at once.
    let trimmed = path.trim_end_matches('/');
    let endpoint = ENDPOINTS.into_iter().find(|endpoint| trimmed.ends_with(endpoint.path()))?;
    if endpoint != OAuthEndpoint::Token && !settings.callers.iter().any(|caller| caller.has_facade()) {
        return None;
    }
    let is_it = |below: &str| is_below_prefix(below, endpoint);
    let mut callers = settings.callers.iter();
    callers.any(|caller| path.strip_prefix(caller.url.path.as_str()).is_some_and(is_it)).then_some(endpoint)
}

/// Whether a request may be an API call of ours; a glance at every call.
pub fn api_call(head: &RequestHead) -> Option<ApiCall> {
    if caller::login_token(&head.headers).is_some() {
        return Some(ApiCall::OfLogin);
    }
    let is_unpairing = head.method == Method::DELETE && head.uri.path().contains("unpair");
    is_unpairing.then_some(ApiCall::Unpair)
}

/// Slashes at the end of a base URL do not count.
fn is_below_prefix(path: &str, endpoint: OAuthEndpoint) -> bool {
    let Some(prefix) = path.trim_end_matches('/').strip_suffix(endpoint.path()) else { return false };
    let prefix = prefix.trim_matches('/');
    let name = prefix.strip_prefix("accounts/").map(|name| name.trim_start_matches('/'));
    prefix.is_empty() || name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
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
