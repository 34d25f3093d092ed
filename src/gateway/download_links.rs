//! The links that the platform last printed for downloads whose address is not the one that applications used
//! to build by hand ("do not hard code", migration notice): whoever still builds it is led there.
//!
//! The rule guarded here: a link stands for an order only where its own value names that order and that kind
//! of file. Where links are what applications build, nothing is kept, looked up or locked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use percent_encoding::percent_decode_str;

use crate::model::account::{AccountName, RealmName};

/// Links of one gateway, in two halves: when the younger is full, the older goes. A few hundred bytes each.
const MOST_KEPT: usize = 16 * 1024;
/// What is longer is no address of a file.
const LONGEST: usize = 700;

/// A link to a host that the account's links may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadLink {
    /// Host, and port where it has one.
    pub authority: String,
    /// Path and query, as the platform printed them.
    pub path_and_query: String,
}

/// What a download is for, as its address says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DownloadName {
    order: String,
    /// In lower case.
    asset: String,
}

/// Per gateway, over all its workers: each hears of a link when a caller's list goes through it.
#[derive(Default)]
pub struct DownloadLinks {
    /// Whether there is anything to look up.
    any: AtomicBool,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<LinkKey, DownloadLink>,
    old: HashMap<LinkKey, DownloadLink>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LinkKey {
    account: AccountName,
    realm: RealmName,
    name: DownloadName,
}

impl DownloadLinks {
    /// Whether no link was ever kept: then there is nothing to look up.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// Keeps a link that names its order. Nothing is kept of one that does not.
    pub fn saw(&self, account: &AccountName, realm: &RealmName, link: DownloadLink) {
        let Some(name) = DownloadName::of_link(&link.path_and_query) else { return };
        let key = LinkKey { account: account.clone(), realm: realm.clone(), name };
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.young.len() >= MOST_KEPT / 2 {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(key, link);
        self.any.store(true, Relaxed);
    }

    /// The link last seen for a download.
    pub fn find(
        &self,
        account: &AccountName,
        realm: &RealmName,
        name: &DownloadName,
    ) -> Option<DownloadLink> {
        if self.is_empty() {
            return None;
        }
        let key = LinkKey { account: account.clone(), realm: realm.clone(), name: name.clone() };
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.get(&key).or_else(|| halves.old.get(&key)).cloned()
    }

    /// The link leads nowhere any more.
    pub fn forget(&self, account: &AccountName, realm: &RealmName, name: &DownloadName) {
        let key = LinkKey { account: account.clone(), realm: realm.clone(), name: name.clone() };
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.young.remove(&key);
        halves.old.remove(&key);
    }
}

impl DownloadName {
    /// Of `/order/{orderId}/download/{assetType}`.
    pub fn of_built_path(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let [_, order, _, asset] = segments[..] else { return None };
        Some(Self::new(order, asset))
    }

    /// Of any address that names an order and a kind of file: the order behind a word for it, or the only
    /// number in the path, or a parameter called so; the kind behind `download`, or as the last segment or a
    /// parameter. Another patient's file would be worse than none: what is in doubt has no name.
    fn of_link(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let behind = |words: &[&str]| {
            let mut found = segments.windows(2).filter(|pair| is_one_of(pair[0], words)).map(|pair| pair[1]);
            let first = found.next();
            first.filter(|_| found.next().is_none())
        };
        let mut numbers = segments.iter().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let only_number = match (numbers.next(), numbers.next()) {
            (Some(number), None) => Some(*number),
            _ => None,
        };
        let parameter = |words: &[&str]| {
            let mut found = query.split('&').filter_map(|pair| pair.split_once('='));
            found.find(|(name, _)| is_one_of(name, words)).map(|(_, value)| value)
        };
        let order = behind(&["order", "orders"]).or_else(|| parameter(&["order", "orderid"]));
        let order = order.or(only_number)?;
        let asset = behind(&["download"]).or_else(|| parameter(&["assettype", "asset", "type"]));
        let asset = asset.or_else(|| segments.last().map(|last| last.split('.').next().unwrap_or(last)))?;
        (order != asset).then(|| Self::new(order, asset))
    }

    fn new(order: &str, asset: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Self { order: decoded(order), asset: decoded(asset).to_ascii_lowercase() }
    }
}

/// Letters alone compared: `order_id` and `OrderId` are one.
fn is_one_of(text: &str, words: &[&str]) -> bool {
    let letters: String =
        text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    words.contains(&&*letters)
}

/// The address that a link's text has behind its authority, taken from JSON; `None` where it does not end
/// here, or is written in a way that is not read.
pub fn address_in_json(text: &[u8]) -> Option<String> {
    let end = text.iter().take(LONGEST).position(|byte| *byte == b'"')?;
    let literal = [b"\"", &text[..end], b"\""].concat();
    let address: String = serde_json::from_slice(&literal).ok()?;
    let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic());
    (address.starts_with('/') && is_plain).then(|| address.split('#').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(order: &str, asset: &str) -> Option<DownloadName> {
        Some(DownloadName { order: order.to_owned(), asset: asset.to_owned() })
    }

    #[test]
    fn a_link_is_for_the_order_that_it_names_and_for_no_other() {
        for (link, named) in [
            ("/itero-gen-api/v2/order/91/download/IDE?ticket=77", name("91", "ide")),
            ("/files/orders/91/IMAGE_GALLERY.zip", name("91", "image_gallery")),
            ("/files/91/IDE?expires=1790000000", name("91", "ide")),
            ("/fetch?orderId=91&AssetType=IDE&sig=5", name("91", "ide")),
            ("/fetch/a%2fb?order_id=9%31&type=IDE", name("91", "ide")),
            ("/files/91/17/IDE", None),
            ("/order/91/order/92/download/IDE", None),
            ("/files/abc/IDE?expires=1790000000", None),
            ("/files/91", None),
            ("/", None),
        ] {
            assert_eq!(DownloadName::of_link(link), named, "{link}");
        }
        assert_eq!(DownloadName::of_built_path("/order/91/download/Ide"), name("91", "ide"));
        assert_eq!(DownloadName::of_built_path("/order/91/download"), None);
    }

    #[test]
    fn an_address_is_read_as_json_writes_it() {
        for (text, address) in [
            (&br#"/a/b?c=1&d=2","x""#[..], Some("/a/b?c=1&d=2")),
            (br#"\/a\u002fb\u0026c#d""#, Some("/a/b&c")),
            (br#"/a b""#, None),
            (br#"/a"#, None),
            (br#"x""#, None),
            (br#"/\u00""#, None),
        ] {
            assert_eq!(address_in_json(text).as_deref(), address);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_one_account_and_realm_alone() {
        let links = DownloadLinks::default();
        let (smile, other): (AccountName, AccountName) = ("smile".parse().unwrap(), "other".parse().unwrap());
        let (global, old): (RealmName, RealmName) = ("global".parse().unwrap(), "old".parse().unwrap());
        let link = |order: usize| DownloadLink {
            authority: "files.test".to_owned(),
            path_and_query: format!("/order/{order}/download/IDE?t=1"),
        };
        let find = |account, realm, order: usize| {
            links.find(account, realm, &name(&order.to_string(), "ide").unwrap())
        };
        assert_eq!(find(&smile, &global, 1), None);
        for order in 0..MOST_KEPT + 1 {
            links.saw(&smile, &global, link(order));
        }
        let halves = links.halves.lock().unwrap();
        assert!(halves.young.len() + halves.old.len() <= MOST_KEPT);
        drop(halves);
        assert_eq!(find(&smile, &global, 0), None);
        assert_eq!(find(&smile, &global, MOST_KEPT), Some(link(MOST_KEPT)));
        assert_eq!(find(&other, &global, MOST_KEPT), None);
        assert_eq!(find(&smile, &old, MOST_KEPT), None);
        links.forget(&smile, &global, &name(&MOST_KEPT.to_string(), "ide").unwrap());
        assert_eq!(find(&smile, &global, MOST_KEPT), None);
    }
}
