//! Client credentials in `Authorization: Basic` (RFC 6749, 2.3.1): each half is form-encoded, as many clients
//! forget. Both readings of a half are taken, since a secret has to be known for either.

use std::borrow::Cow;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::percent_decode;

use crate::http1::{Headers, KnownHeader, ascii_str};

/// What one Basic credential says, in each way in which it can be read.
#[derive(PartialEq, Eq)]
pub struct BasicCredentials {
    pub client_ids: [String; 2],
    /// SHA-256 of the secret.
    pub secrets: [[u8; 32]; 2],
}

impl BasicCredentials {
    /// All that are there; what is no Basic credential is somebody else's.
    pub fn of(headers: &Headers) -> Vec<Self> {
        headers.all(KnownHeader::Authorization).filter_map(|value| Self::parse(ascii_str(value)?)).collect()
    }

    fn parse(value: &str) -> Option<Self> {
        let pair = basic_pair(value)?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (id, secret) = (&pair[..colon], &pair[colon + 1..]);
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(Self {
            client_ids: [lossy(&form_decode(id)), lossy(id)],
            secrets: [sha256(&form_decode(secret)), sha256(secret)],
        })
    }
}

/// The secrets of all Basic credentials, in each way in which they can be read.
pub fn basic_secrets(headers: &Headers) -> Vec<Vec<u8>> {
    let pairs = headers.all(KnownHeader::Authorization).filter_map(|value| basic_pair(ascii_str(value)?));
    let secrets = pairs.filter_map(|pair| {
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let secret = &pair[colon + 1..];
        Some([form_decode(secret).into_owned(), secret.to_vec()])
    });
    secrets.flatten().collect()
}

fn basic_pair(value: &str) -> Option<Vec<u8>> {
    let (scheme, credential) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credential = credential.trim();
    STANDARD.decode(credential).or_else(|_| STANDARD_NO_PAD.decode(credential)).ok()
}

/// One value of `application/x-www-form-urlencoded`.
fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

pub fn sha256(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pair: &str) -> BasicCredentials {
        BasicCredentials::parse(&format!("basic  {}", STANDARD.encode(pair))).unwrap()
    }

    #[test]
    fn both_halves_are_read_encoded_and_as_they_stand() {
        let encoded = parsed("a%3Ab+c:p%40s+s%25");
        assert_eq!(encoded.client_ids[0], "a:b c");
        assert_eq!(encoded.secrets[0], sha256(b"p@s s%"));
        let naive = parsed("app:a+b%zz:c");
        assert_eq!((naive.client_ids[1].as_str(), naive.secrets[1]), ("app", sha256(b"a+b%zz:c")));
        for odd in ["Basic", "Basic !", "Bearer YTpi", "Basic YQ==", ""] {
            assert!(BasicCredentials::parse(odd).is_none(), "{odd}");
        }
        assert!(BasicCredentials::parse("Basic YTpiYg").is_some(), "without padding");
    }
}
