//! The names that a CA may sign for: exact, in lower case, never a wildcard, an address or a single label.

use std::fmt;

/// What a name has to look like.
pub const HOST_NAME_RULE: &str = "a full host name like api-proxy.aligntech.com: letters, digits and hyphens, at least one dot, no wildcard, no port";

/// A set of host names; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// In the order given, each once. The error is the first name that is none.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut hosts = Vec::new();
        for name in names {
            let host = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            if !is_host_name(&host) {
                return Err(name.to_owned());
            }
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() { Err(String::new()) } else { Ok(Self(hosts)) }
    }

    /// The host that `name` stands for, in any letter case and perhaps with a final dot.
    pub fn find(&self, name: &str) -> Option<&str> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().map(String::as_str).find(|host| host.eq_ignore_ascii_case(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub fn first(&self) -> &str {
        &self.0[0]
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// RFC 1123, 2.1. A last label of digits would be an address (`127.0.0.1`).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.contains('.') && name.split('.').all(is_label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_lower_case_and_once() {
        let hosts = HostNames::new(["API.test", "b.test.", "api.test"]).unwrap();
        assert_eq!(hosts.iter().collect::<Vec<_>>(), ["api.test", "b.test"]);
        assert_eq!(hosts.find("Api.Test."), Some("api.test"));
        for other in ["x.api.test", "test", "api.test..", "", "*.test"] {
            assert_eq!(hosts.find(other), None, "{other}");
        }
    }

    #[test]
    fn what_would_open_more_than_one_host_is_no_name() {
        for bad in [
            "com",
            "*.aligntech.com",
            "127.0.0.1",
            "::1",
            "a.test:443",
            ".test",
            "a..test",
            "-a.test",
            "a_b.test",
            "a b.test",
            "https://a.test",
            "",
            ".",
            "ä.test",
        ] {
            assert_eq!(HostNames::new(["ok.test", bad]), Err(bad.to_owned()), "{bad}");
        }
    }
}
