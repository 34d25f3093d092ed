//! Which hosts an account's links may name: its route's own, and those that its realm lists in `link_hosts`.

use crate::gateway::settings::RealmPolicy;
use crate::model::route::{Route, without_final_dot};

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

/// Host and port of an authority that is one of the realm's link hosts. Ports and the like only where the
/// realm is an insecure one.
pub fn parse(authority: &str, route: &Route, realm: &RealmPolicy) -> Option<(String, u16)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing;
    use crate::model::route::HostPolicy;

    #[test]
    fn a_link_host_is_a_host_and_a_port_and_nothing_that_only_ends_like_one() {
        let realm = |insecure| RealmPolicy {
            hosts: HostPolicy { allowed: Vec::new(), allow_insecure: insecure },
            link_hosts: vec!["*.link.test".parse().unwrap(), "[::1]".parse().unwrap()],
            discovery: testing::config().realms.values().next().unwrap().discovery.clone(),
        };
        let policy = HostPolicy { allowed: vec!["*.iterocloud.com".parse().unwrap()], allow_insecure: false };
        let route = &Route::parse("https://eu.iterocloud.com", "/itero-gen-api/v2", &policy).unwrap();
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
            assert_eq!(parse(authority, route, &realm(insecure)), expected, "{authority}");
        }
    }
}
