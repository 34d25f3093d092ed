//! Links in answers become ours, by value: a URL whose host is the account's own Domain or a configured link host is changed, and
//! nothing else is. What is rewritten leads back to exactly the platform address it came from (`target` is the other half).
//!
//! A gateway link names its account, not its caller: whoever fetches it is identified like anybody else, by key or by network.

mod fields;
mod rewriter;
mod url;

use std::fmt;
use std::sync::Arc;

use crate::model::account::AccountName;
use crate::model::route::{Route, without_final_dot};

use crate::gateway::inbound::target;
use crate::gateway::settings::{BaseUrl, RealmPolicy};
use url::{authority_end, path_of};

pub use fields::ADDRESS_FIELDS;
pub use rewriter::{LinkCounts, LinkMatcher, Rewriter, has_wide_letters};

/// Where links of one account point to, there and here.
pub struct LinkContext {
    route: Arc<Route>,
    authority: String,
    realm: Arc<RealmPolicy>,
    /// `http://gateway:8080/accounts/smile`
    absolute: String,
    /// `/accounts/smile`
    relative: String,
}

/// What stands in place of scheme and authority.
struct GatewayUrl<'t> {
    prefix: &'t str,
    /// Where the prefix alone would not lead back.
    host: Option<&'t str>,
}

impl GatewayUrl<'_> {
    fn parts(&self) -> [&str; 3] {
        [self.prefix, self.host.map_or("", |_| "/@"), self.host.unwrap_or_default()]
    }

    fn write(&self, slash: Slash, out: &mut Vec<u8>) {
        for part in self.parts() {
            write_with(slash, part, out);
        }
    }
}

/// How a text writes a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slash {
    Plain,
    /// `\/`
    Escaped,
    /// `\u002f`
    Unicode,
}

impl Slash {
    fn as_str(self) -> &'static str {
        match self {
            Slash::Plain => "/",
            Slash::Escaped => "\\/",
            Slash::Unicode => "\\u002f",
        }
    }
}

impl fmt::Display for GatewayUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

impl LinkContext {
    pub fn new(base: &BaseUrl, account: &AccountName, route: &Arc<Route>, realm: &Arc<RealmPolicy>) -> Self {
        Self {
            route: route.clone(),
            authority: route.authority(),
            realm: realm.clone(),
            absolute: format!("{}{}/accounts/{account}", base.origin, base.path),
            relative: format!("{}/accounts/{account}", base.path),
        }
    }

    /// Our address for a path on a host of the platform, the path itself left off. The short form is taken only where it leads back to
    /// the very same platform path.
    fn gateway_url<'t>(&'t self, prefix: &'t str, authority: &'t str, path: &[u8]) -> GatewayUrl<'t> {
        let short = self.is_own(authority) && target::round_trips(&path_of(path), self.route.path());
        GatewayUrl { prefix, host: (!short).then_some(authority) }
    }

    /// What nearly all links are: the account's own authority, its Path, and something that is no prefix. The others are judged at length.
    fn surely_round_trips(&self, rest: &[u8], safe_bytes: &[bool; 256]) -> bool {
        let behind = rest
            .strip_prefix(self.authority.as_bytes())
            .and_then(|path| path.strip_prefix(self.route.path().as_bytes()));
        matches!(behind, Some([b'/', next, ..]) if safe_bytes[usize::from(*next)])
    }

    fn is_own(&self, authority: &str) -> bool {
        is_authority_of(authority, &self.route)
    }

    fn is_rewritten_host(&self, authority: &str) -> bool {
        self.is_own(authority) || link_host(authority, &self.route, &self.realm).is_some()
    }
}

/// Whether an authority is the route's own, in any spelling: letter case, the port that goes without saying,
/// the dot at the end.
pub fn is_authority_of(authority: &str, route: &Route) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (authority, None),
    };
    let port = match port {
        Some(port) => port.parse().ok(),
        None => Some(if route.secure() { 443 } else { 80 }),
    };
    port == Some(route.port()) && without_final_dot(host).eq_ignore_ascii_case(route.host())
}

/// Host and port of an authority that is one of the realm's link hosts. Ports and the like only where the realm is an insecure one.
pub fn link_host(authority: &str, route: &Route, realm: &RealmPolicy) -> Option<(String, u16)> {
    let default = if route.secure() { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let host = without_final_dot(host);
    // A pattern with a star would let anything at all stand before its end.
    if !is_host(host) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let admitted = realm.link_hosts.iter().any(|pattern| pattern.matches(&host));
    (admitted && (port == default || realm.hosts.allow_insecure)).then_some((host, port))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(gateway_url) => gateway_url.parse::<std::net::Ipv6Addr>().is_ok(),
        None => text.split('.').all(is_label),
    }
}

fn write_with(slash: Slash, text: &str, out: &mut Vec<u8>) {
    if slash == Slash::Plain {
        return out.extend_from_slice(text.as_bytes());
    }
    for (count, part) in text.split('/').enumerate() {
        if count > 0 {
            out.extend_from_slice(slash.as_str().as_bytes());
        }
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;
    use crate::model::route::HostPolicy;

    pub(super) fn link_context_at(domain: &str, path: &str, base: &str, insecure: bool) -> LinkContext {
        let policy = HostPolicy {
            allowed: vec!["*.iterocloud.com".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            allow_insecure: insecure,
        };
        let realm = RealmPolicy {
            hosts: policy.clone(),
            link_hosts: vec!["files.iterocloud.com".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let route = Arc::new(Route::parse(domain, path, &policy).unwrap());
        LinkContext::new(
            &BaseUrl::new(&base.parse().unwrap()),
            &"smile".parse().unwrap(),
            &route,
            &Arc::new(realm),
        )
    }

    pub(super) fn link_context() -> LinkContext {
        link_context_at("https://eu.iterocloud.com", "/itero-gen-api/v2", "http://gw:8080", false)
    }

    #[test]
    fn a_link_host_is_a_host_and_a_port_and_nothing_that_only_ends_like_one() {
        let realm = |insecure| RealmPolicy {
            hosts: HostPolicy { allowed: Vec::new(), allow_insecure: insecure },
            link_hosts: vec!["*.link.test".parse().unwrap(), "[::1]".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let route = &*link_context().route;
        for (authority, insecure, host) in [
            ("a.link.test", false, Some(("a.link.test", 443))),
            ("A.b.LINK.test:443", false, Some(("a.b.link.test", 443))),
            ("a.link.test:9", true, Some(("a.link.test", 9))),
            ("a.link.test:9", false, None),
            ("link.test", true, None),
            (".link.test", true, None),
            ("a..link.test", true, None),
            ("a.link.test.", true, Some(("a.link.test", 443))),
            ("a.link.test.:443", false, Some(("a.link.test", 443))),
            ("a.link.test..", true, None),
            (".", true, None),
            ("evil.test@a.link.test", true, None),
            ("evil.test%2fa.link.test", true, None),
            ("evil.test%00a.link.test", true, None),
            ("evil.test\\a.link.test", true, None),
            ("evil.test:80@a.link.test", true, None),
            ("*.link.test", true, None),
            ("a.link.test:+9", true, None),
            ("a.link.test:", true, None),
            ("a.link.test:9:9", true, None),
            ("a.link.test:65536", true, None),
            ("[::1].link.test", true, None),
            ("", true, None),
        ] {
            let expected = host.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(link_host(authority, route, &realm(insecure)), expected, "{authority}");
        }
    }
}
