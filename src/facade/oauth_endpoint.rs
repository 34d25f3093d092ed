//! Which paths are the vendor's OAuth endpoints.

use http::Method;

use crate::gateway::inbound::target;
use crate::gateway::settings::GatewaySettings;

/// The OAuth endpoints that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthEndpoint {
    Token,
    Authorize,
    Revoke,
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

impl OAuthEndpoint {
    /// The methods that it takes, as `Allow` has them.
    pub fn methods(self) -> &'static str {
        match self {
            Self::Token | Self::Revoke => "POST",
            Self::Authorize => "GET, HEAD, POST",
        }
    }

    pub fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|taken| taken == method.as_str())
    }
}

/// Which of the vendor's OAuth endpoints a path is: bare, behind an account's prefix, behind the old
/// platform's prefixes, and after the path of the gateway's own URL.
pub fn oauth_endpoint(settings: &GatewaySettings, path: &str) -> Option<OAuthEndpoint> {
    // A glance that nearly every call fails at once.
    let trimmed = path.trim_end_matches('/');
    let endpoint = ENDPOINTS.into_iter().find(|endpoint| trimmed.ends_with(endpoint.path()))?;
    if endpoint != OAuthEndpoint::Token && !settings.has_facades {
        return None;
    }
    let is_it = |base: &str| is_below(path, base, endpoint);
    settings.callers.iter().any(|caller| is_it(&caller.url.path)).then_some(endpoint)
}

/// Slashes at the end of a base URL do not count.
fn is_below(path: &str, base: &str, endpoint: OAuthEndpoint) -> bool {
    target::without_prefixes(path, base).trim_end_matches('/') == endpoint.path()
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
            "/itero-gen-api/v2/oauth2/token",
            "/accounts/smile/lab-sw/v1/oauth2/token",
        ] {
            assert!(is_below(path, "", OAuthEndpoint::Token), "{path}");
        }
        for path in [
            "/oauth2/tokens",
            "/OAuth2/Token",
            "/x/oauth2/token",
            "/accounts/a/b/oauth2/token",
            "/accounts/oauth2/token",
            "//evil.test/oauth2/token",
            "/",
            "/oauth2",
        ] {
            assert!(!is_below(path, "", OAuthEndpoint::Token), "{path}");
        }
    }
}
