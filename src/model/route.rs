//! Where an account's calls go: Domain + Path from discovery, checked before any token goes there.
//!
//! The rule guarded here: a discovered host is compared after URL parsing, label by label, and a realm that
//! does not say `allow_insecure` never talks to anything but https on its default port under an allowed name
//! (threats, row 7).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use url::{Host, Url};

/// A name without the dot that may end it: `eu.iterocloud.com.` is the same name, spelled absolutely (RFC
/// 1034, 3.1).
pub fn without_final_dot(host: &str) -> &str {
    host.strip_suffix('.').filter(|name| !name.is_empty() && !name.ends_with('.')).unwrap_or(host)
}

/// A host name of the configuration; a leading `*.` stands for one or more labels, never for none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    any_subdomain: bool,
    /// Lower case, without the wildcard.
    name: String,
}

/// What a realm's addresses may look like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPolicy {
    pub allowed: Vec<HostPattern>,
    /// http, ports and address literals are taken too: for a sandbox only.
    pub allow_insecure: bool,
}

/// A checked base address for an account's calls.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Route {
    secure: bool,
    host: String,
    port: u16,
    /// Begins with `/`, has at least one segment and does not end with `/`.
    path: String,
    /// `host` or `host:port`, made once: every call sends it.
    host_header: HeaderValue,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("Domain {0:?} is not an address")]
    NotAnAddress(String),
    #[error("Domain is not https")]
    NotHttps,
    #[error("Domain carries {0}")]
    Carries(&'static str),
    #[error("host {0:?} is not in allowed_hosts")]
    HostNotAllowed(String),
    #[error("Path {0:?} is not a plain absolute path of at least one segment")]
    OddPath(String),
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (any_subdomain, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let host =
            Host::parse(without_final_dot(name)).map_err(|_| format!("{text:?} is not a host name"))?;
        match host {
            Host::Domain(name) if name.contains('*') || name.ends_with('.') => {
                Err(format!("{text:?}: only a leading '*.' is understood"))
            }
            Host::Domain(name) if any_subdomain && !name.contains('.') => {
                Err(format!("{text:?} would allow a whole top-level domain"))
            }
            Host::Domain(name) => Ok(Self { any_subdomain, name }),
            _ if any_subdomain => Err(format!("{text:?}: an address has no subdomains")),
            address => Ok(Self { any_subdomain, name: address.to_string() }),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.any_subdomain { "*." } else { "" })?;
        f.write_str(&self.name)
    }
}

impl HostPattern {
    /// Whether a host, lower case as a parsed URL has it, is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = without_final_dot(host);
        if !self.any_subdomain {
            return host == self.name;
        }
        host.strip_suffix(self.name.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty() && !labels.starts_with('.'))
    }

    /// Whether some host is meant by both.
    pub fn overlaps(&self, other: &HostPattern) -> bool {
        let is_below =
            |inner: &HostPattern, outer: &HostPattern| outer.any_subdomain && outer.matches(&inner.name);
        self.any_subdomain == other.any_subdomain && self.name == other.name
            || is_below(self, other)
            || is_below(other, self)
    }
}

impl HostPolicy {
    pub fn allows(&self, host: &str) -> bool {
        self.allowed.iter().any(|pattern| pattern.matches(host))
    }

    /// Checks an address that a bearer or the client credentials would be sent to.
    pub fn check(&self, url: &Url) -> Result<(), RouteError> {
        let host = url.host_str().ok_or_else(|| RouteError::NotAnAddress(url.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RouteError::Carries("a user name or password"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_insecure => {}
            _ => return Err(RouteError::NotHttps),
        }
        if !self.allow_insecure {
            if url.port().is_some() {
                return Err(RouteError::Carries("a port"));
            }
            if !matches!(url.host(), Some(Host::Domain(_))) {
                return Err(RouteError::Carries("an address instead of a name"));
            }
        }
        if self.allows(host) { Ok(()) } else { Err(RouteError::HostNotAllowed(host.to_owned())) }
    }
}

impl Route {
    /// Reads a discovery response. `domain` may come with or without a scheme and with a trailing slash,
    /// since the documents do not say (gen-api, section 3); `path` must be a plain absolute path.
    pub fn parse(domain: &str, path: &str, policy: &HostPolicy) -> Result<Self, RouteError> {
        let domain = domain.trim();
        let shown = || RouteError::NotAnAddress(domain.chars().take(200).collect());
        if domain.is_empty() || domain.bytes().any(|b| b.is_ascii_control() || b == b' ' || b == b'\\') {
            return Err(shown());
        }
        let parsed = if domain.contains("://") {
            Url::parse(domain)
        } else {
            Url::parse(&format!("https://{domain}"))
        };
        let url = parsed.map_err(|_| shown())?;
        policy.check(&url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RouteError::Carries("a query or fragment"));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(RouteError::Carries("a path"));
        }
        let host = without_final_dot(url.host_str().ok_or_else(shown)?).to_owned();
        let port = url.port_or_known_default().ok_or_else(shown)?;
        let secure = url.scheme() == "https";
        let host_header = HeaderValue::try_from(authority(secure, &host, port)).map_err(|_| shown())?;
        Ok(Self { secure, host, port, path: check_path(path)?, host_header })
    }

    pub fn secure(&self) -> bool {
        self.secure
    }

    /// Lower case; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host` or `host:port`, as the Host header has it.
    pub fn authority(&self) -> String {
        authority(self.secure, &self.host, self.port)
    }

    /// The authority of another host that is reached as this route's is.
    pub fn authority_of(&self, host: &str, port: u16) -> String {
        authority(self.secure, host, port)
    }

    /// The same, ready to be sent.
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// Scheme and authority, without the path.
    pub fn domain(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    /// The same place with another path: for a link host's own paths.
    pub fn with_path(&self, path: &str) -> Result<Self, RouteError> {
        Ok(Self { path: check_path(path)?, ..self.clone() })
    }
}

fn authority(secure: bool, host: &str, port: u16) -> String {
    let default = if secure { 443 } else { 80 };
    if port == default { host.to_owned() } else { format!("{host}:{port}") }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.domain(), self.path)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const MAX_PATH: usize = 256;

fn check_path(path: &str) -> Result<String, RouteError> {
    let trimmed = path.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    let good = trimmed.len() <= MAX_PATH
        && trimmed.starts_with('/')
        && trimmed.bytes().all(plain)
        && !trimmed.contains("//")
        && !trimmed.split('/').any(|segment| segment == "." || segment == "..");
    if good { Ok(trimmed.to_owned()) } else { Err(RouteError::OddPath(path.chars().take(200).collect())) }
}

/// Whether an address belongs to a private, local or otherwise non-public range: a public name that resolves
/// to one is refused (threats, row 7: metadata addresses and the like).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && v4.octets()[2] == 0)
                || (a == 198 && (b == 18 || b == 19))
                || a >= 240
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            if let Some(v4) = v6.to_ipv4() {
                return v6.is_loopback() || is_private(IpAddr::V4(v4));
            }
            v6.is_unspecified()
                || v6.is_multicast()
                || (first & 0xfe00) == 0xfc00
                || (first & 0xffc0) == 0xfe80
                || (first == 0x0064 && v6.segments()[1] == 0xff9b)
                || (first == 0x2001 && v6.segments()[1] == 0x0db8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(patterns: &[&str]) -> HostPolicy {
        HostPolicy { allowed: patterns.iter().map(|p| p.parse().unwrap()).collect(), allow_insecure: false }
    }

    #[test]
    fn two_patterns_overlap_where_a_host_is_meant_by_both() {
        for (one, other, overlap) in [
            ("a.test.cn", "a.test.cn", true),
            ("a.test.cn", "A.test.cn.", true),
            ("a.test.cn", "b.test.cn", false),
            ("*.test.cn", "a.test.cn", true),
            ("*.test.cn", "test.cn", false),
            ("*.test.cn", "a.b.test.cn", true),
            ("*.test.cn", "*.test.cn", true),
            ("*.test.cn", "*.b.test.cn", true),
            ("*.test.cn", "*.xtest.cn", false),
            ("*.test.cn", "atest.cn", false),
        ] {
            let (one, other): (HostPattern, HostPattern) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (overlap, overlap), "{one} {other}");
        }
    }

    #[test]
    fn a_star_stands_for_one_or_more_labels_and_never_for_none() {
        let pattern: HostPattern = "*.iterocloud.com".parse().unwrap();
        for good in ["eu.iterocloud.com", "a.b.iterocloud.com"] {
            assert!(pattern.matches(good), "{good}");
        }
        for bad in [
            "iterocloud.com",
            "iterocloud.com.",
            "eviliterocloud.com",
            ".iterocloud.com",
            "iterocloud.com.evil.test",
            "eu.iterocloud.com..",
        ] {
            assert!(!pattern.matches(bad), "{bad}");
        }
        for bad in ["*", "*.com", "*.com.", "a*.com", "*.*.com", "*.127.0.0.1", "", ".", "a..", "a b"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_final_dot_makes_no_other_name() {
        for (pattern, host) in [
            ("*.iterocloud.com.", "eu.iterocloud.com"),
            ("*.iterocloud.com", "eu.iterocloud.com."),
            ("eu.iterocloud.com.", "eu.iterocloud.com"),
            ("eu.iterocloud.com", "eu.iterocloud.com."),
        ] {
            assert!(pattern.parse::<HostPattern>().unwrap().matches(host), "{pattern} {host}");
        }
    }

    #[test]
    fn every_form_of_domain_that_the_documents_leave_open_is_the_same_route() {
        let policy = policy(&["*.iterocloud.com"]);
        for domain in [
            "https://eu.iterocloud.com",
            "https://eu.iterocloud.com/",
            "eu.iterocloud.com",
            "EU.iterocloud.com/",
            "https://eu.iterocloud.com:443",
            "https://eu.iterocloud.com./",
            "EU.Iterocloud.com.",
            "https://eu.iterocloud.com.:443/",
        ] {
            for path in ["/itero-gen-api/v2", "/itero-gen-api/v2/"] {
                let route = Route::parse(domain, path, &policy).unwrap();
                assert_eq!(route.to_string(), "https://eu.iterocloud.com/itero-gen-api/v2");
            }
        }
    }

    #[test]
    fn a_hostile_discovery_is_refused() {
        let policy = policy(&["*.iterocloud.com"]);
        for domain in [
            "http://eu.iterocloud.com",
            "https://evil.test",
            "https://eu.iterocloud.com.evil.test",
            "https://eviliterocloud.com",
            "https://iterocloud.com",
            "https://eu.iterocloud.com@evil.test",
            "https://user:pw@eu.iterocloud.com",
            "https://eu.iterocloud.com:8443",
            "https://169.254.169.254",
            "https://[::1]",
            "https://0x7f.1",
            "https://eu.iterocloud.com/extra",
            "https://eu.iterocloud.com?x=1",
            "https://eu.iterocloud.com#x",
            "ftp://eu.iterocloud.com",
            "//evil.test",
            "https:\\\\evil.test",
            "https://evil.test\r\nHost: x",
            "",
        ] {
            assert!(Route::parse(domain, "/v2", &policy).is_err(), "{domain:?}");
        }
        // Without a segment every call would go to the host's root, which belongs to no API.
        for path in
            ["", "/", "//", "///", "v2", "//v2", "/a/../b", "/a b", "/a?x", "/a%2e", "/a\r\n", "\\a", "/a#b"]
        {
            assert!(Route::parse("https://eu.iterocloud.com", path, &policy).is_err(), "{path:?}");
        }
    }

    #[test]
    fn private_addresses_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.0.1",
            "100.64.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "2606:4700::1", "52.1.2.3"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }
}
