//! Origins of web pages (RFC 6454), as browsers and programs with a browser inside send them.

use std::fmt;
use std::str::FromStr;

/// `https://viewer.example.com`, `file://`, `app://local`, or `null`, which every local or sandboxed page
/// sends. Lower case, without a default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Whether a page that sends this is meant.
    pub fn is(&self, sent: &[u8]) -> bool {
        sent.eq_ignore_ascii_case(self.0.as_bytes())
    }

    /// Any page may have it.
    pub fn is_anonymous(&self) -> bool {
        self.0 == "null"
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim().to_ascii_lowercase();
        if text == "null" {
            return Ok(Self(text));
        }
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let in_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
            return Err("its scheme is none");
        }
        if authority.contains('*') {
            return Err("it is a pattern, and each page has to be named");
        }
        let in_authority =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if !authority.bytes().all(in_authority) {
            return Err("it goes on behind the host");
        }
        if authority.is_empty() && matches!(scheme, "http" | "https") {
            return Err("it has no host");
        }
        let default = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        Ok(Self(format!("{scheme}://{}", authority.strip_suffix(default).unwrap_or(authority))))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_page_sends_in_any_spelling_of_the_file() {
        for (written, sent) in [
            ("https://Viewer.example.com/", "https://viewer.example.com"),
            ("https://viewer.example.com:443", "https://viewer.example.com"),
            ("http://10.1.2.3:8080", "http://10.1.2.3:8080"),
            ("file:///", "file://"),
            ("file://", "file://"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
        ] {
            assert!(written.parse::<Origin>().unwrap().is(sent.as_bytes()), "{written}");
        }
        let origin: Origin = "https://a.test".parse().unwrap();
        for other in [
            "https://a.test.evil.test",
            "http://a.test",
            "https://a.test:8443",
            "https://b.a.test",
            "null",
            "",
        ] {
            assert!(!origin.is(other.as_bytes()), "{other}");
        }
        for bad in [
            "*",
            "https://*",
            "https://*.a.test",
            "https://",
            "a.test",
            "https://a.test/x",
            "https://u@a.test",
            "://a",
            "",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
