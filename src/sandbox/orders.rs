//! Orders and RXs of an account, made up from its number: the same today and tomorrow, and never stored.
//! Field names beyond those in the documents are ours; a caller of the vendor must not rely on them either.

use std::fmt::Write;

use super::assets::Asset;
use super::behavior::{Behavior, LinkForm, StatusForm};
use super::state::{AccountKind, CreatedRx, Practice};

/// Numbers of one account begin here, times its own number: whose an order is can be read off it.
const BLOCK: u64 = 100_000;
/// Within a block: RXs from the start, RXs that callers created, then order numbers.
const CREATED_FROM: u64 = 40_000;
const ORDERS_FROM: u64 = 50_000;
/// Names seen in secondary sources (gen-api section 5).
pub const ASSET_TYPES: [&str; 2] = ["IDE", "IMAGE_GALLERY"];

/// One order that exists from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub account: u64,
    pub index: u64,
}

impl Order {
    pub fn rx_id(self) -> u64 {
        self.account * BLOCK + self.index
    }

    pub fn order_id(self) -> u64 {
        self.account * BLOCK + ORDERS_FROM + self.index
    }

    /// What a link has and a built address lacks.
    pub fn ticket(self) -> String {
        format!("t{:x}", self.order_id().wrapping_mul(0x9e37_79b9))
    }

    pub fn by_rx_id(rx_id: u64) -> Option<Self> {
        let index = rx_id % BLOCK;
        (index < CREATED_FROM).then_some(Self { account: rx_id / BLOCK, index })
    }

    pub fn by_order_id(order_id: u64) -> Option<Self> {
        let index = (order_id % BLOCK).checked_sub(ORDERS_FROM)?;
        Some(Self { account: order_id / BLOCK, index })
    }

    pub fn asset(self, asset_type: &str, length: u64) -> Option<Asset> {
        let number = ASSET_TYPES.iter().position(|known| *known == asset_type)? as u64;
        Some(Asset { seed: self.order_id() * 2 + number, length })
    }
}

/// How links of one response are printed.
pub struct LinkPrinter<'a> {
    /// The address and API prefix that was asked.
    pub origin: &'a str,
    pub prefix: &'a str,
    pub behavior: &'a Behavior,
    /// Makes a pre-signed link.
    pub sign: &'a dyn Fn(&str) -> String,
}

impl LinkPrinter<'_> {
    /// JSON text, quotes included.
    fn print(&self, order: Order, number: u64, asset_type: &str) -> String {
        let path = format!("/order/{}/download/{asset_type}", order.order_id());
        let form = self.behavior.link_form.nth(order.index * ASSET_TYPES.len() as u64 + number);
        let path = if self.behavior.download_ticket && form != LinkForm::ForeignHost {
            format!("{path}?ticket={}", order.ticket())
        } else {
            path
        };
        let (origin, prefix) = (self.origin, self.prefix);
        match form {
            LinkForm::Relative => format!("\"{prefix}{path}\""),
            LinkForm::JsonEscaped => format!("\"{origin}{prefix}{path}\"").replace('/', "\\/"),
            LinkForm::ForeignHost => format!("\"{}\"", (self.sign)(&path)),
            LinkForm::Absolute | LinkForm::Mixed => format!("\"{origin}{prefix}{path}\""),
        }
    }
}

/// The orders that a list shows: all of a clinic's, a lab's new ones only (gen-api section 5).
pub fn listed(practice: &Practice) -> Vec<Order> {
    let account = practice.account.id;
    let orders = (0..practice.account.orders.min(CREATED_FROM)).map(|index| Order { account, index });
    let is_new = |order: &Order| {
        !practice.downloaded.contains(&order.order_id()) && !practice.returned.contains(&order.order_id())
    };
    match practice.account.kind {
        AccountKind::Clinic => orders.collect(),
        AccountKind::Lab => orders.filter(is_new).collect(),
    }
}

pub fn exists(practice: &Practice, order: Order) -> bool {
    order.account == practice.account.id && order.index < practice.account.orders.min(CREATED_FROM)
}

pub fn next_rx_id(practice: &Practice) -> u64 {
    practice.account.id * BLOCK + CREATED_FROM + practice.creations % (ORDERS_FROM - CREATED_FROM)
}

/// `lacking`: an RX that is left out.
pub fn list_json(practice: &Practice, links: &LinkPrinter<'_>, v2: bool, lacking: Option<u64>) -> String {
    let there = listed(practice).into_iter().filter(|order| Some(order.rx_id()) != lacking);
    let mut entries: Vec<String> = there.map(|order| order_json(practice, order, links, v2)).collect();
    if practice.account.kind == AccountKind::Clinic {
        entries.extend(practice.created.values().map(|rx| created_json(practice, rx)));
    }
    response_json(&format!("[{}]", entries.join(",\n ")), links.behavior)
}

/// Written by hand and not by a serialiser: blanks, `1.50` and escapes
/// are there to be lost by whoever re-writes them.
pub fn order_json(practice: &Practice, order: Order, links: &LinkPrinter<'_>, v2: bool) -> String {
    let (first, last) = super::patients::name(order.account, order.index);
    let mut text = format!(
        r#"{{"RxId": {}, "OrderId": {}, "Status": "{}", "PatientFirstName": {}, "PatientLastName": {}, "ChartNumber": "{}", "PracticeName": {}, "Units": 1.50, "DueDate": "2026-12-{:02}T00:00:00Z""#,
        order.rx_id(),
        order.order_id(),
        order_status(practice, order),
        quoted(first),
        quoted(last),
        super::patients::chart_number(order.account, order.index),
        quoted(&practice.account.name),
        1 + order.index % 28,
    );
    // "V2 return body includes two more tags" (migration notice, comparison).
    if v2 {
        text.push_str(r#", "ProcedureName": "Fixed Restorative", "ProcedureTypeName": "Crown\u002fBridge""#);
    }
    text.push_str(r#", "URLs": ["#);
    for (number, asset_type) in ASSET_TYPES.iter().enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        let link = links.print(order, number as u64, asset_type);
        // Writing to a String cannot fail.
        let _ = write!(text, r#"{comma}{{"AssetType": "{asset_type}", "Url": {link}}}"#);
    }
    text.push_str("]}");
    text
}

pub fn created_json(practice: &Practice, rx: &CreatedRx) -> String {
    format!(
        r#"{{"RxId": {}, "OrderId": null, "Status": "Scanning", "PracticeName": {}, "Created": "{}", "URLs": []}}"#,
        rx.rx_id,
        quoted(&practice.account.name),
        rx.at,
    )
}

/// The frame that every data response has.
pub fn response_json(data: &str, behavior: &Behavior) -> String {
    let status = match behavior.status_form {
        StatusForm::Number => "1",
        StatusForm::Text => "\"Success\"",
    };
    format!("{{\"Data\": {data},\n \"Status\": {status}, \"Errors\": []}}")
}

fn order_status(practice: &Practice, order: Order) -> &'static str {
    const CLINIC: [&str; 4] = ["Completed", "iTero Modeling", "Lab Review", "iTero Milling"];
    match practice.account.kind {
        AccountKind::Lab if practice.downloaded.contains(&order.order_id()) => "Downloaded",
        _ if practice.returned.contains(&order.order_id()) => "Returned to Doctor",
        AccountKind::Lab => "Ready for Download",
        AccountKind::Clinic => CLINIC[(order.index % 4) as usize],
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
