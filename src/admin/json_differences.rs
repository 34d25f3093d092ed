//! Where two JSON responses to the same question differ: fields, ids, values, link hosts. Pure; nothing here
//! asks anybody.
//!
//! The rule guarded here: no value of a response leaves this file, only its keyed hash; names of fields, ids
//! of orders and hosts of links do.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use serde_json::{Map, Value};
use url::Url;

/// Names of the fields by which entries of a list are told apart, in order of preference, without letter case
/// and blanks.
const IDS: [&str; 7] = ["rxid", "orderid", "accountid", "companyid", "mapid", "guid", "id"];

/// One kind of difference. The same one in several entries or responses is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The second world has this status instead.
    Status { first: u16, second: u16 },
    /// An entry is in one world alone.
    Entry { list: String, id: String, in_first: bool },
    /// A field is in one world alone.
    Field { field: String, in_first: bool },
    /// The same value stands under another name.
    Renamed { first: String, second: String },
    /// Hashes of the first pair of values that was met.
    Value { field: String },
    /// Links of one world lead to another host.
    LinkHost { first: String, second: String },
    /// A response is no JSON in one world.
    NoJson { in_first: bool },
}

/// All differences that were found, each with the calls it was found in and with examples as hashes.
#[derive(Default)]
pub struct Differences {
    found: BTreeMap<Difference, Evidence>,
}

/// Where a difference was met, and how often.
#[derive(Default)]
pub struct Evidence {
    pub calls: BTreeSet<&'static str>,
    pub times: u64,
    /// Keyed hashes of the first two values that differ.
    pub example: Option<(String, String)>,
}

/// What is particular about one of the two worlds.
pub struct World<'a> {
    /// The host that its API calls go to: links that lead there are the world's own.
    pub host: &'a str,
    /// The path of its route, which its links begin with.
    pub path: &'a str,
}

/// Compares two worlds' responses and gathers what differs.
pub struct Comparison<'a> {
    pub first: World<'a>,
    pub second: World<'a>,
    /// Hashes of values are good for this comparison alone.
    pub key: &'a hmac::Key,
    pub differences: Differences,
}

impl Differences {
    pub fn into_inner(self) -> BTreeMap<Difference, Evidence> {
        self.found
    }

    fn add(&mut self, call: &'static str, difference: Difference, example: Option<(String, String)>) {
        let evidence = self.found.entry(difference).or_default();
        evidence.calls.insert(call);
        evidence.times += 1;
        if evidence.example.is_none() {
            evidence.example = example;
        }
    }
}

impl Comparison<'_> {
    /// Responses to one call. Bodies are looked at where both worlds say the same status.
    pub fn responses(&mut self, call: &'static str, first: (u16, &[u8]), second: (u16, &[u8])) {
        if first.0 != second.0 {
            let difference = Difference::Status { first: first.0, second: second.0 };
            return self.differences.add(call, difference, None);
        }
        match (serde_json::from_slice(first.1), serde_json::from_slice(second.1)) {
            (Ok(one), Ok(other)) => self.values(call, "", &one, &other),
            (Err(_), Err(_)) => {}
            (one, Err(_) | Ok(_)) => {
                self.differences.add(call, Difference::NoJson { in_first: one.is_err() }, None);
            }
        }
    }

    fn values(&mut self, call: &'static str, at: &str, one: &Value, other: &Value) {
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => self.objects(call, at, one, other),
            (Value::Array(one), Value::Array(other)) => self.lists(call, at, one, other),
            (Value::String(one), Value::String(other)) => self.texts(call, at, one, other),
            (one, other) if one == other => {}
            (one, other) => self.value(call, at, &one.to_string(), &other.to_string()),
        }
    }

    fn objects(
        &mut self,
        call: &'static str,
        at: &str,
        one: &Map<String, Value>,
        other: &Map<String, Value>,
    ) {
        let mut only_other: Vec<_> = other.iter().filter(|(name, _)| !one.contains_key(*name)).collect();
        for (name, value) in one {
            if let Some(beside) = other.get(name) {
                self.values(call, &below(at, name), value, beside);
                continue;
            }
            let same = only_other.iter().position(|(_, beside)| *beside == value && says_something(value));
            let difference = match same.map(|at| only_other.remove(at)) {
                Some((new_name, _)) => {
                    Difference::Renamed { first: below(at, name), second: below(at, new_name) }
                }
                None => Difference::Field { field: below(at, name), in_first: true },
            };
            self.differences.add(call, difference, None);
        }
        for (name, _) in only_other {
            self.differences.add(call, Difference::Field { field: below(at, name), in_first: false }, None);
        }
    }

    /// Entries that have an id are told apart by it, others by their place.
    fn lists(&mut self, call: &'static str, at: &str, one: &[Value], other: &[Value]) {
        let at = format!("{at}[]");
        let Some(id) = id_field(one, other) else {
            for (one, other) in one.iter().zip(other) {
                self.values(call, &at, one, other);
            }
            let extra = one.iter().skip(other.len()).map(|_| true);
            let extra = extra.chain(other.iter().skip(one.len()).map(|_| false));
            for (place, in_first) in extra.enumerate() {
                let id = format!("without an id ({})", place + 1);
                self.differences.add(call, Difference::Entry { list: shown(&at), id, in_first }, None);
            }
            return;
        };
        let keyed = |entries: &[Value]| -> BTreeMap<String, Value> {
            entries.iter().filter_map(|entry| Some((id_of(entry, id)?, entry.clone()))).collect()
        };
        let (one, other) = (keyed(one), keyed(other));
        for (id, entry) in &one {
            match other.get(id) {
                Some(beside) => self.values(call, &at, entry, beside),
                None => self.entry(call, &at, id, true),
            }
        }
        for id in other.keys().filter(|id| !one.contains_key(*id)) {
            self.entry(call, &at, id, false);
        }
    }

    fn entry(&mut self, call: &'static str, at: &str, id: &str, in_first: bool) {
        let difference = Difference::Entry { list: shown(at), id: id.to_owned(), in_first };
        self.differences.add(call, difference, None);
    }

    fn texts(&mut self, call: &'static str, at: &str, one: &str, other: &str) {
        let links = (self.first.link(one), self.second.link(other));
        let (Some(first), Some(second)) = links else {
            if one != other {
                self.value(call, at, one, other);
            }
            return;
        };
        if first.host != second.host {
            let difference = Difference::LinkHost { first: first.host, second: second.host };
            return self.differences.add(call, difference, None);
        }
        // What a signed link to a storage host says differs each time.
        if first.is_own && first.path != second.path {
            self.value(call, at, &first.path, &second.path);
        }
    }

    fn value(&mut self, call: &'static str, at: &str, one: &str, other: &str) {
        let example = (self.hashed(one), self.hashed(other));
        self.differences.add(call, Difference::Value { field: shown(at) }, Some(example));
    }

    fn hashed(&self, value: &str) -> String {
        let tag = hmac::sign(self.key, value.as_bytes());
        hex::encode(&tag.as_ref()[..6])
    }
}

/// A link as far as two worlds can be expected to agree on it.
struct Link {
    host: String,
    is_own: bool,
    /// Below the route, without query.
    path: String,
}

impl World<'_> {
    fn link(&self, text: &str) -> Option<Link> {
        let below = |path: &str| path.strip_prefix(self.path).unwrap_or(path).to_owned();
        if text.starts_with('/') {
            let path = text.split('?').next().unwrap_or(text);
            return Some(Link { host: OWN.to_owned(), is_own: true, path: below(path) });
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let host = authority(&url);
        let is_own = host == self.host;
        let host = if is_own { OWN.to_owned() } else { host };
        Some(Link { host, is_own, path: below(url.path()) })
    }
}

const OWN: &str = "the API's own";

/// Host and, where it is not the scheme's, port.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// So that nothing and nothing are not taken for one thing under two names.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(_) => true,
    }
}

fn below(at: &str, name: &str) -> String {
    let name = name.trim();
    shown(&if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") })
}

/// An order is one whether it stands in a list or alone.
fn shown(at: &str) -> String {
    match at.strip_prefix("Data[]") {
        Some(rest) => format!("Data{rest}"),
        None => at.to_owned(),
    }
}

/// A field that every entry of both lists has, and no two of one list share.
fn id_field(one: &[Value], other: &[Value]) -> Option<&'static str> {
    let has_all = |id: &&str| {
        [one, other].iter().all(|entries| {
            let ids: BTreeSet<String> = entries.iter().filter_map(|entry| id_of(entry, id)).collect();
            ids.len() == entries.len()
        })
    };
    IDS.into_iter().find(has_all).filter(|_| !one.is_empty() || !other.is_empty())
}

/// The id as text, whether it is written as a number or as a string.
fn id_of(entry: &Value, id: &str) -> Option<String> {
    let is_it = |name: &&String| name.trim().eq_ignore_ascii_case(id);
    let fields = entry.as_object()?;
    let name = fields.keys().find(is_it)?;
    match &fields[name] {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.trim().to_owned()),
        _ => None,
    }
}

/// The RX ids of a list's orders.
pub fn rx_ids(body: &[u8]) -> BTreeSet<String> {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let entries = match &parsed {
        Value::Array(entries) => entries.as_slice(),
        Value::Object(fields) => {
            let data = fields.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("data"));
            data.and_then(|(_, value)| value.as_array()).map_or(&[][..], Vec::as_slice)
        }
        _ => &[],
    };
    // It becomes part of a path.
    let is_plain = |id: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=64).contains(&id.len()) && id.bytes().all(plain)
    };
    entries.iter().filter_map(|entry| id_of(entry, "rxid")).filter(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(one: &Value, other: &Value) -> Vec<Difference> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let (first, second) =
            (World { host: "old.example", path: "/v1" }, World { host: "eu.example", path: "/v2" });
        let mut comparison = Comparison { first, second, key: &key, differences: Differences::default() };
        let (one, other) = (one.to_string(), other.to_string());
        comparison.responses("GET /orders/practice", (200, one.as_bytes()), (200, other.as_bytes()));
        comparison.differences.into_inner().into_keys().collect()
    }

    fn order(id: u64, host: &str) -> Value {
        json!({"RxId": id, "LastName": format!("Doe {id}"), "Units": 1.5, "URLs": [
            {"AssetType": "IDE", "Url": format!("https://{host}/order/{id}/download/IDE?s=1")},
        ]})
    }

    fn world(ids: &[u64], host: &str) -> Value {
        json!({"Data": ids.iter().map(|id| order(*id, host)).collect::<Vec<_>>(), "Status": 1})
    }

    #[test]
    fn worlds_that_differ_by_their_own_hosts_alone_are_the_same() {
        assert_eq!(found(&world(&[1, 2], "old.example/v1"), &world(&[2, 1], "eu.example/v2")), []);
        let relative = json!({"Data": [{"RxId": 1, "Url": "/v2/order/1/download/IDE"}]});
        let absolute = json!({"Data": [{"RxId": "1", "Url": "https://old.example/v1/order/1/download/IDE"}]});
        assert_eq!(found(&absolute, &relative).len(), 1, "the id's form alone");
    }

    #[test]
    fn each_difference_is_one_however_often_it_is_met() {
        let (one, mut other) = (world(&[1, 2, 3], "old.example/v1"), world(&[1, 2], "files.example"));
        for order in other["Data"].as_array_mut().unwrap() {
            let name = order.as_object_mut().unwrap().remove("LastName").unwrap();
            order["Surname"] = name;
        }
        assert_eq!(
            found(&one, &other),
            [
                Difference::Entry { list: "Data".into(), id: "3".into(), in_first: true },
                Difference::Renamed { first: "Data.LastName".into(), second: "Data.Surname".into() },
                Difference::LinkHost { first: OWN.into(), second: "files.example".into() },
            ]
        );
    }

    #[test]
    fn a_value_that_differs_leaves_as_two_hashes() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let world = || World { host: "x", path: "" };
        let mut comparison =
            Comparison { first: world(), second: world(), key: &key, differences: Differences::default() };
        let body = |name: &str| json!({"Data": {"Name": name}}).to_string();
        let (one, other) = (body("Doe"), body("Roe"));
        comparison.responses("GET /orders/{rxId}", (200, one.as_bytes()), (200, other.as_bytes()));
        let all = comparison.differences.into_inner();
        let (difference, evidence) = all.first_key_value().unwrap();
        assert_eq!(*difference, Difference::Value { field: "Data.Name".into() });
        let (first, second) = evidence.example.as_ref().unwrap();
        assert!(first != second && first.len() == 12 && !first.contains("Doe"), "{first} {second}");
    }

    #[test]
    fn ids_that_could_be_more_than_a_segment_are_left_out() {
        let body = json!({"Data": [{"RxId": 7}, {"RxId": "a-b"}, {"RxId": "../x"}, {"RxId": ""}]});
        assert_eq!(rx_ids(body.to_string().as_bytes()), BTreeSet::from(["7".to_owned(), "a-b".to_owned()]));
    }
}
