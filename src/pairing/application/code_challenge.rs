//! Proof Key for Code Exchange (RFC 7636): who brings a code has to know what the one who began has made up.

use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::code::sha256;

/// What an application has sent at the beginning.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::pairing) enum CodeChallenge {
    /// The verifier's SHA-256 in base64url.
    S256(String),
    /// The verifier itself.
    Plain(String),
}

/// RFC 7636, 4.1 and 4.2.
const LENGTHS: std::ops::RangeInclusive<usize> = 43..=128;

impl CodeChallenge {
    /// `plain` where no method is named (RFC 7636, 4.3). The error is a sentence for the application.
    pub fn parse(challenge: &str, method: Option<&str>) -> Result<Self, &'static str> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        if !LENGTHS.contains(&challenge.len()) || !challenge.bytes().all(unreserved) {
            return Err("code_challenge has not the form of RFC 7636");
        }
        match method {
            Some("S256") => Ok(Self::S256(challenge.to_owned())),
            None | Some("plain") => Ok(Self::Plain(challenge.to_owned())),
            Some(_) => Err("code_challenge_method is neither S256 nor plain"),
        }
    }

    /// In constant time.
    pub fn is_met_by(&self, verifier: &str) -> bool {
        let same = |one: &str, other: &str| {
            constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
        };
        match self {
            Self::S256(challenge) => same(challenge, &URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))),
            Self::Plain(challenge) => same(challenge, verifier),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_verifier_of_the_rfc_meets_its_challenge_and_no_other_does() {
        let challenge = CodeChallenge::parse(CHALLENGE, Some("S256")).unwrap();
        assert!(challenge.is_met_by(VERIFIER));
        assert!(!challenge.is_met_by(CHALLENGE) && !challenge.is_met_by(""));
        let plain = CodeChallenge::parse(VERIFIER, None).unwrap();
        assert!(plain.is_met_by(VERIFIER) && !plain.is_met_by(CHALLENGE));
    }

    #[test]
    fn what_has_not_the_form_is_refused() {
        for (challenge, method) in
            [("short", Some("S256")), ("", None), (CHALLENGE, Some("s256")), (&*"a".repeat(129), None)]
        {
            assert!(CodeChallenge::parse(challenge, method).is_err(), "{challenge} {method:?}");
        }
    }
}
