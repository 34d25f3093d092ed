//! Secrets that a browser or an operator carries for us: start codes, states, choice codes, and the cookie
//! that binds a login.
//!
//! 256 random bits each; only their SHA-256 is stored, so that a stolen database opens no login (threats,
//! rows 9 and 20).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A one-time secret in a link, a form or the `state` parameter.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(String);

/// What is stored of a [`Code`] or a cookie's value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CodeHash([u8; 32]);

/// A cookie of ours, set or unset.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    value: String,
    secure: bool,
    max_age: Duration,
}

const RANDOM_BYTES: usize = 32;
const CODE_LENGTH: usize = 43;

impl Code {
    pub(super) fn fresh() -> Self {
        let mut bytes = [0; RANDOM_BYTES];
        rand::fill(&mut bytes).expect("aws-lc ends the process rather than run without randomness");
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Anything that cannot be a code of ours is `None`, before the store is asked.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (text.len() == CODE_LENGTH && text.bytes().all(fits)).then(|| Self(text.to_owned()))
    }

    /// The secret itself: for links, forms and the sealed store alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> CodeHash {
        CodeHash(sha256(self.0.as_bytes()))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text).ok_or_else(|| serde::de::Error::custom("not a code"))
    }
}

/// What is stored of a secret, and compared.
pub(super) fn sha256(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    hash
}

impl CodeHash {
    /// Of a secret that is no [`Code`].
    pub(super) fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    pub(super) fn as_bytes(self) -> [u8; 32] {
        self.0
    }

    /// In constant time.
    pub(super) fn is_of(self, secret: &Code) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &secret.hash().0).is_ok()
    }
}

impl Serialize for CodeHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for CodeHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("not a hash"))
    }
}

impl Cookie {
    /// Binds the browser to the login with this hash. Each login has a cookie of its own, named after the
    /// login, so that two tabs do not overwrite each other's.
    pub(super) fn binding(login: CodeHash, secret: &Code, secure: bool, max_age: Duration) -> Self {
        Self { name: cookie_name(login, secure), value: secret.expose().to_owned(), secure, max_age }
    }

    pub(super) fn forgotten(login: CodeHash, secure: bool) -> Self {
        Self { name: cookie_name(login, secure), value: String::new(), secure, max_age: Duration::ZERO }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of a `Set-Cookie` header. Lax, not Strict: the browser
    /// comes back from the login page of another site.
    pub fn header(&self) -> String {
        let Self { name, value, max_age, .. } = self;
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}", max_age.as_secs())
    }
}

/// The secrets that a `Cookie` header carries for this login: normally
/// one, more where somebody planted a second.
pub(super) fn bound_secrets(cookies: &str, login: CodeHash, secure: bool) -> impl Iterator<Item = Code> {
    let wanted = cookie_name(login, secure);
    cookies.split(';').filter_map(move |pair| {
        let (name, value) = pair.split_once('=')?;
        if name.trim() != wanted {
            return None;
        }
        Code::parse(value.trim())
    })
}

/// `__Host-` keeps other hosts and plain http from planting the cookie; browsers allow it with `Secure` only.
fn cookie_name(login: CodeHash, secure: bool) -> String {
    let prefix = if secure { "__Host-" } else { "" };
    let tail = hex::encode(&login.0[..8]);
    format!("{prefix}genapi-login-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_256_bits_is_never_the_same_and_cannot_be_printed() {
        let (one, two) = (Code::fresh(), Code::fresh());
        assert_ne!(one, two);
        assert_eq!(URL_SAFE_NO_PAD.decode(one.expose()).unwrap().len(), 32);
        assert_eq!(Code::parse(one.expose()), Some(one.clone()));
        assert!(!format!("{one:?}").contains(one.expose()));
        assert!(one.hash().is_of(&one) && !one.hash().is_of(&two));
    }

    #[test]
    fn what_cannot_be_a_code_is_not_looked_up() {
        for bad in ["", "a", &"a".repeat(42), &"a".repeat(44), &"ä".repeat(43), &"%".repeat(43)] {
            assert_eq!(Code::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_cookie_is_http_only_lax_and_kept_to_its_host_over_https() {
        let (login, secret) = (Code::fresh(), Code::fresh());
        let cookie = Cookie::binding(login.hash(), &secret, true, Duration::from_secs(600));
        let tail = cookie.name().strip_prefix("__Host-genapi-login-").unwrap();
        assert_eq!(tail.len(), 16);
        assert_eq!(
            cookie.header(),
            format!(
                "{}={}; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure",
                cookie.name(),
                secret.expose()
            )
        );
        let plain = Cookie::forgotten(login.hash(), false);
        assert_eq!(
            plain.header(),
            format!("genapi-login-{tail}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
        );
    }

    #[test]
    fn the_secret_of_one_login_is_found_among_other_cookies() {
        let (login, other, secret) = (Code::fresh(), Code::fresh(), Code::fresh());
        let cookies = format!(
            "theme=dark; {}={}; {}={}",
            cookie_name(other.hash(), true),
            Code::fresh().expose(),
            cookie_name(login.hash(), true),
            secret.expose()
        );
        assert_eq!(bound_secrets(&cookies, login.hash(), true).collect::<Vec<_>>(), vec![secret]);
        assert_eq!(bound_secrets(&cookies, login.hash(), false).count(), 0);
        assert_eq!(bound_secrets("", login.hash(), true).count(), 0);
    }
}
