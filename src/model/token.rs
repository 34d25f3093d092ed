//! Secrets as types that cannot print themselves; taking the text out needs `expose`, which is easy to find.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

macro_rules! secret_type {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $type(Box<str>);

        impl $type {
            pub fn new(text: impl Into<Box<str>>) -> Self {
                Self(text.into())
            }

            /// The secret itself. For the wire and the sealed store alone.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({} chars)"), self.0.len())
            }
        }
    };
}

secret_type!(
    /// What a grant consists of: up to 40 characters (Authentication and Pairing V2, 4.1.2), longer ones are
    /// taken too.
    RefreshToken
);
secret_type!(
    /// The credentials that Align gave to the integration.
    ClientSecret
);
secret_type!(
    /// The single-use code that comes back from the login page.
    AuthorizationCode
);

/// A bearer token, up to 8 K (Authentication and Pairing V2, 4.1.2). Lives an hour. Kept as calls need it,
/// with the scheme in front.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AccessToken(Box<str>);

const SCHEME: &str = "Bearer ";

/// The longest access token taken: twice the documented 8 K, so that a small growth does not stop everything.
pub const MAX_ACCESS_TOKEN: usize = 16 * 1024;
/// The longest refresh token taken. 40 characters are documented; other platforms hand out ones as long as
/// access tokens.
pub const MAX_REFRESH_TOKEN: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} {fault}")]
pub struct MalformedTokenError {
    pub what: &'static str,
    pub fault: &'static str,
}

impl AccessToken {
    /// Of a text that is known to be a token; [`AccessToken::checked`] for what comes from elsewhere.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self([SCHEME, text.as_ref()].concat().into())
    }

    /// Takes only what can stand in an `Authorization` header: visible ASCII, not empty, not absurdly long.
    pub fn checked(text: &str) -> Result<Self, MalformedTokenError> {
        check("access_token", text, MAX_ACCESS_TOKEN).map(Self::new)
    }

    /// The secret itself. For the sealed store alone.
    pub fn expose(&self) -> &str {
        &self.0[SCHEME.len()..]
    }

    /// The secret as it stands in an `Authorization` field: `Bearer …`.
    pub fn expose_bearer(&self) -> &str {
        &self.0
    }

    /// The same for a client that wants a header value, marked sensitive.
    pub fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({} chars)", self.expose().len())
    }
}

impl RefreshToken {
    /// Takes only visible ASCII, not empty, not absurdly long.
    pub fn checked(text: &str) -> Result<Self, MalformedTokenError> {
        check("refresh_token", text, MAX_REFRESH_TOKEN).map(Self::new)
    }
}

fn check<'a>(what: &'static str, text: &'a str, longest: usize) -> Result<&'a str, MalformedTokenError> {
    let fault = if text.is_empty() {
        "is empty"
    } else if text.len() > longest {
        "is too long"
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        "holds characters that no token may hold"
    } else {
        return Ok(text);
    };
    Err(MalformedTokenError { what, fault })
}

/// What the token endpoint hands out: `refresh` is absent where the response has none (then the old one
/// stays).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    pub access: AccessToken,
    pub refresh: Option<RefreshToken>,
    /// Remaining lifetime, as the response says (3600 s at first).
    pub expires_in: Duration,
    /// For people: what was odd about the response, and what was made of it. No token.
    pub oddities: Vec<String>,
}

impl TokenSet {
    /// One line about what was odd, for the journal; nothing where nothing was.
    pub fn oddity_line(&self) -> Option<String> {
        let oddities = self.oddities.join("; ");
        (!oddities.is_empty())
            .then(|| format!("the tokens are used, although the answer was odd: {oddities}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_length_only() {
        assert_eq!(format!("{:?}", RefreshToken::new("abcdef")), "RefreshToken(6 chars)");
        let token = AccessToken::new("s3cret");
        assert_eq!(format!("{token:?}"), "AccessToken(6 chars)");
        assert!(!format!("{:?}", token.header()).contains("s3cret"));
        assert_eq!((token.expose(), token.expose_bearer()), ("s3cret", "Bearer s3cret"));
        assert_eq!(token.header().as_bytes(), b"Bearer s3cret");
    }

    #[test]
    fn a_token_with_a_line_break_a_blank_or_nothing_in_it_is_refused() {
        for bad in ["", "a\r\nX: y", "a b", "ä", &"a".repeat(MAX_ACCESS_TOKEN + 1)] {
            assert!(AccessToken::checked(bad).is_err());
        }
        assert!(AccessToken::checked(&"a".repeat(8192)).is_ok());
    }
}
