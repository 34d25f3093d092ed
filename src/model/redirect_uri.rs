//! Where an application's browser is sent after its login. The rule: what an operator has listed is compared
//! character by character (RFC 9700, 2.1), but for the port of a loopback address, which a program on the
//! person's own machine may choose (RFC 8252, 7.3).

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// A redirect URI that an application may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    /// Without its port, where it is a loopback address.
    loopback: Option<Url>,
}

/// Schemes that run or show something instead of leading to an application.
const NO_APPLICATION: [&str; 6] = ["javascript", "data", "vbscript", "file", "blob", "about"];

impl RedirectUri {
    /// Whether this is what an application has sent.
    pub fn matches(&self, sent: &str) -> bool {
        if sent == self.text {
            return true;
        }
        let Some(listed) = &self.loopback else { return false };
        // A second spelling of the same address is none that was listed.
        Url::parse(sent).is_ok_and(|sent_url| {
            sent_url.fragment().is_none()
                && without_loopback_port(&sent_url).as_ref() == Some(listed)
                && is_as_written(sent, &sent_url)
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether codes come to it in the clear over a network.
    pub fn is_unprotected(&self) -> bool {
        self.text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"))
            && self.loopback.is_none()
    }
}

/// Whether a URL was written as it is read: nothing in it was dropped, decoded or added but a path of `/`.
fn is_as_written(text: &str, url: &Url) -> bool {
    text == url.as_str() || url.as_str().strip_suffix('/') == Some(text)
}

fn without_loopback_port(url: &Url) -> Option<Url> {
    let is_loopback = match url.host()? {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => name == "localhost",
    };
    if !is_loopback || url.scheme() != "http" {
        return None;
    }
    let mut url = url.clone();
    url.set_port(None).ok()?;
    Some(url)
}

impl FromStr for RedirectUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "it is not a complete URL")?;
        if text.contains('#') {
            return Err("it has a fragment (#), which no redirect URI may have");
        }
        if NO_APPLICATION.contains(&url.scheme()) {
            return Err("its scheme leads to no application");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name or a password");
        }
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err("it holds blanks or other characters than a URL has");
        }
        Ok(Self { text: text.to_owned(), loopback: without_loopback_port(&url) })
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_address_matches_itself_alone() {
        let listed: RedirectUri = "https://pms.example.test/oauth/cb?x=1".parse().unwrap();
        assert!(listed.matches("https://pms.example.test/oauth/cb?x=1"));
        for other in [
            "https://pms.example.test/oauth/cb",
            "https://pms.example.test/oauth/cb?x=1&y=2",
            "https://pms.example.test/oauth/cb/?x=1",
            "https://PMS.example.test/oauth/cb?x=1",
            "https://pms.example.test:443/oauth/cb?x=1",
            "https://pms.example.test:8443/oauth/cb?x=1",
            "https://pms.example.test@evil.test/oauth/cb?x=1",
            "http://pms.example.test/oauth/cb?x=1",
            "https://pms.example.test/oauth/cb?x=1#f",
            "",
        ] {
            assert!(!listed.matches(other), "{other}");
        }
    }

    #[test]
    fn a_loopback_address_may_have_any_port() {
        let listed: RedirectUri = "http://127.0.0.1:5000/cb".parse().unwrap();
        for port in ["", ":1", ":5000", ":65535"] {
            assert!(listed.matches(&format!("http://127.0.0.1{port}/cb")), "{port}");
        }
        for other in [
            "http://127.0.0.1:5000/cb2",
            "http://127.0.0.1:5000/a/../cb",
            "http://127.1:5000/cb",
            "http://localhost:5000/cb",
            "http://127.0.0.1.evil.test:5000/cb",
            "http://u@127.0.0.1:5000/cb",
            "http://127.0.0.1:5000/cb#",
            "https://127.0.0.1:5000/cb",
        ] {
            assert!(!listed.matches(other), "{other}");
        }
        let bare: RedirectUri = "http://localhost".parse().unwrap();
        assert!(bare.matches("http://localhost:8123") && bare.matches("http://localhost:8123/"));
    }

    #[test]
    fn what_leads_to_no_application_is_refused() {
        for bad in [
            "",
            "/cb",
            "127.0.0.1:5000/cb",
            "https://x.test/#a",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://u:p@x.test/",
            "https://x.test/a b",
        ] {
            assert!(bad.parse::<RedirectUri>().is_err(), "{bad}");
        }
        assert!("com.example.pms:/cb".parse::<RedirectUri>().is_ok(), "a program's own scheme");
    }
}
