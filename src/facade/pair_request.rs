//! The body of a pairing or unpairing call. The rule: the account is found in whatever spelling the vendor's
//! own pages use, since a call that is refused costs somebody a pairing.

use serde_json::{Map, Value};
use url::Url;

use crate::model::account::AccountId;

/// What an application asks to pair or unpair.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub struct PairRequest {
    pub account: AccountId,
    /// An http or https address.
    pub callback_url: Option<String>,
    /// What was wrong with the callback URL, for the application's user: a pairing is not lost over it.
    pub doubt: Option<&'static str>,
}

/// The body has `AccountId`, the vendor's summary `CompanyID` (Authentication and Pairing V2, 4.3.1 and
/// 4.5.1).
const ID_FIELDS: [&str; 2] = ["accountid", "companyid"];
const CALLBACK_FIELD: &str = "callbackurl";
const NO_ADDRESS: &str = "CallbackUrl is no http or https address; the account is paired without one";
/// Longer than any address that somebody would register.
const LONGEST_CALLBACK_URL: usize = 1024;

impl PairRequest {
    /// The error is a sentence for the application.
    pub fn read(body: &[u8]) -> Result<Self, &'static str> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let fields: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| "the body is no JSON object")?;
        let mut account = None;
        for id in fields.iter().filter(|(name, _)| ID_FIELDS.contains(&&*plain(name))).map(|(_, id)| id) {
            let id = account_id(id).ok_or("AccountId is no account's number")?;
            if account.replace(id).is_some_and(|other| other != id) {
                return Err("AccountId and CompanyID name two accounts");
            }
        }
        let callback = fields.iter().find(|(name, _)| plain(name) == CALLBACK_FIELD);
        let callback = callback.and_then(|(_, url)| url.as_str()).map(str::trim).unwrap_or_default();
        let is_address = Url::parse(callback).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        let is_taken = is_address && callback.len() <= LONGEST_CALLBACK_URL;
        Ok(Self {
            account: account.ok_or("AccountId is missing")?,
            callback_url: is_taken.then(|| callback.to_owned()),
            doubt: (!callback.is_empty() && !is_taken).then_some(NO_ADDRESS),
        })
    }
}

/// A name without the trailing blanks of the vendor's samples, in small letters.
fn plain(name: &str) -> String {
    name.trim().to_ascii_lowercase()
}

/// A number, or a text that is one.
fn account_id(value: &Value) -> Option<AccountId> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => serde_json::from_value(value.clone()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_in_any_spelling() {
        for body in [
            r#"{"AccountId":12}"#,
            r#"{"accountId":"12"}"#,
            r#"{"ACCOUNTID ":" 12 "}"#,
            r#"{"CompanyID":12}"#,
            r#"{"companyId":"12","AccountId":12}"#,
            "\u{feff}{\"AccountId\":12,\"CallbackUrl\":null}",
            r#"{"AccountId":12,"CallbackUrl":"  ","Other":[1]}"#,
        ] {
            let read = PairRequest::read(body.as_bytes());
            assert_eq!(
                read,
                Ok(PairRequest { account: AccountId::new(12), callback_url: None, doubt: None }),
                "{body}"
            );
        }
        let with_url =
            PairRequest::read(br#"{"AccountId":1,"callbackURL":"https://pms.test/hook"}"#).unwrap();
        assert_eq!((with_url.callback_url.as_deref(), with_url.doubt), (Some("https://pms.test/hook"), None));
        for odd in ["not a url", "javascript:alert(1)", "/hook"] {
            let read =
                PairRequest::read(format!(r#"{{"AccountId":1,"CallbackUrl":"{odd}"}}"#).as_bytes()).unwrap();
            assert!(read.callback_url.is_none() && read.doubt.is_some(), "{odd}");
        }
    }

    #[test]
    fn what_names_no_account_or_two_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"AccountId":null}"#,
            r#"{"AccountId":-1}"#,
            r#"{"AccountId":1.5}"#,
            r#"{"AccountId":"x"}"#,
            r#"{"AccountId":1,"CompanyID":2}"#,
            "AccountId=1",
        ] {
            assert!(PairRequest::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
