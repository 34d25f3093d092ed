//! Who a call is made for. A name is ours and unique; an id is the vendor's and unique within its realm.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use crate::clock::Timestamp;

/// The name under which operators and callers know an account: `[a-z0-9][a-z0-9._-]*`, at most 64 characters,
/// never all digits (so that it cannot be taken for an id). Usual ones are stored in place: of thousands of
/// accounts a call looks at one, and no cache holds what it points to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(SmolStr);

/// The vendor's number of an account; its documents print it as a number and as a string, so both are taken
/// (Authentication and Pairing V2, 4.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AccountId(u64);

/// A version of the vendor's API, as discovery is asked for it (Authentication and Pairing V2, 4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiVersion(NonZeroU16);

impl ApiVersion {
    /// `None` for zero.
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    pub fn number(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for ApiVersion {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits && !text.starts_with('0'));
        number.map(Self).ok_or_else(|| NameError {
            kind: "version",
            text: text.to_owned(),
            rule: "write a number such as 2 or 3",
        })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One `[realms.NAME]` of the configuration: an auth base, an API base and the client credentials that belong
/// to them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmName(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct NameError {
    pub kind: &'static str,
    pub text: String,
    pub rule: &'static str,
}

/// A word that keeps realms apart: callers of one group never reach accounts of another. Realms and callers
/// without one are a group too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealmGroup(Arc<str>);

/// What the gateway may do for an account right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AccountState {
    Ready,
    /// Held by an operator: kept, not refreshed and not served by us.
    Paused,
    /// The vendor no longer takes the grant. It is kept, and tried again when credentials change or an
    /// operator asks.
    NeedsLogin {
        since: Timestamp,
        why: String,
    },
}

/// What puts an account right that needs a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Its refresh token was imported and the first refresh with it was refused: the application has
    /// refreshed since, and holds the token that lives.
    PresentToken,
    /// Its refresh token was good once: nobody holds a better one.
    Login,
}

impl Remedy {
    /// `untried`: the token was imported, and no refresh with it has brought anything yet.
    pub fn of(untried: bool) -> Self {
        if untried { Remedy::PresentToken } else { Remedy::Login }
    }

    /// What to do, for people, with what to type.
    pub fn advice(self, realm: &RealmName, name: &AccountName) -> String {
        let login = format!(
            "`genapi-gateway accounts pair --realm {realm} --name {name}`, or `genapi-gateway accounts invite {name}` for a link to mail"
        );
        match self {
            Remedy::PresentToken => format!(
                "Give me the application's present refresh token again: stop its refreshing, then `genapi-gateway accounts import FILE` \
                 with it. Only where there is none, somebody with a MyiTero login has to log in once: {login}."
            ),
            Remedy::Login => format!("Somebody with a MyiTero login has to log in once: {login}."),
        }
    }

    /// The same as short as a refusal has it.
    pub fn fix(self, realm: &RealmName, name: &AccountName) -> String {
        let login = format!("genapi-gateway accounts pair --realm {realm} --name {name}");
        match self {
            Remedy::PresentToken => {
                format!(
                    "genapi-gateway accounts import FILE, with the application's present refresh token of {name}; else {login}"
                )
            }
            Remedy::Login => login,
        }
    }

    /// In one line: what the account needs.
    pub fn need(self) -> &'static str {
        match self {
            Remedy::PresentToken => "the application's present refresh token (`accounts import`)",
            Remedy::Login => "a login",
        }
    }
}

impl AccountState {
    /// The word used in tables, metrics and the JSON API.
    pub fn word(&self) -> &'static str {
        match self {
            AccountState::Ready => "ready",
            AccountState::Paused => "paused",
            AccountState::NeedsLogin { .. } => "needs_login",
        }
    }
}

const MAX_NAME: usize = 64;

fn check_name(kind: &'static str, text: &str) -> Result<(), NameError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rule = if text.len() > MAX_NAME {
        "at most 64 characters"
    } else if !starts_well || !text.bytes().all(fits) {
        "lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit"
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        "it needs a character that is not a digit, or it would be taken for an id"
    } else {
        return Ok(());
    };
    Err(NameError { kind, text: text.chars().take(MAX_NAME).collect(), rule })
}

macro_rules! name_type {
    ($type:ident, $kind:literal) => {
        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name($kind, text).map(|()| Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(AccountName, "account name");
name_type!(RealmName, "realm name");
name_type!(RealmGroup, "group");

impl AccountName {
    /// Whether a pattern of the configuration or the command line means this account: `*` stands for any run
    /// of characters.
    pub fn matches(&self, pattern: &str) -> bool {
        glob(pattern.as_bytes(), self.0.as_bytes())
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at_text < text.len() {
        if pattern.get(at_pattern) == Some(&b'*') {
            retry = Some((at_pattern, at_text));
            at_pattern += 1;
        } else if pattern.get(at_pattern) == Some(&text[at_text]) {
            at_pattern += 1;
            at_text += 1;
        } else if let Some((star, matched)) = retry {
            retry = Some((star, matched + 1));
            at_pattern = star + 1;
            at_text = matched + 1;
        } else {
            return false;
        }
    }
    pattern[at_pattern..].iter().all(|b| *b == b'*')
}

impl AccountId {
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl FromStr for AccountId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = if digits { text.parse().ok() } else { None };
        parsed.map(Self).ok_or_else(|| NameError {
            kind: "account id",
            text: text.chars().take(MAX_NAME).collect(),
            rule: "a whole number",
        })
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NumberOrText {
            Number(u64),
            Text(String),
        }
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(id) => Ok(Self(id)),
            NumberOrText::Text(text) => text.trim().parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_and_never_all_digits() {
        for good in ["smile-berlin", "0a", "a.b_c-d", "lab1"] {
            assert_eq!(good.parse::<AccountName>().unwrap().as_str(), good);
        }
        for bad in ["", "Smile", "-a", ".a", "123", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_taken_as_number_and_as_string() {
        let ids: Vec<AccountId> = serde_json::from_str(r#"[12, "12", " 12 "]"#).unwrap();
        assert_eq!(ids, vec![AccountId::new(12); 3]);
        for bad in ["-1", "+1", "1.0", "", "99999999999999999999"] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let name: AccountName = "smile-berlin".parse().unwrap();
        for pattern in ["*", "smile-*", "*berlin", "s*e-*n", "smile-berlin", "smile-berlin*"] {
            assert!(name.matches(pattern), "{pattern}");
        }
        for pattern in ["smile", "smile-b", "*x*", "", "berlin*"] {
            assert!(!name.matches(pattern), "{pattern}");
        }
    }
}
