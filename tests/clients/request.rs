//! Requests as the platform has received them: the gateway's must be the client's own, but for what is the
//! gateway's to set.

use serde_json::Value;

use crate::kind::Kind;
use crate::test_bed::{CLINIC, LAB, Target, TestBed};

/// A request as the sandbox recorded it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    call: String,
    /// Sorted by name, in the client's spelling.
    headers: Vec<(String, String)>,
    body_length: u64,
    body_sha256: String,
}

/// One sentence per difference.
pub fn compare(bed: &TestBed, kind: &Kind) -> Vec<String> {
    let mut differences = Vec::new();
    for account in [CLINIC, LAB] {
        let (direct, through) = (received(&bed.direct, account), received(&bed.through, account));
        assert!(direct.len() >= 5, "{}: too few calls came to compare anything", kind.name);
        if direct.len() != through.len() {
            differences.push(format!("{} requests become {}", direct.len(), through.len()));
        }
        for (expected, found) in direct.iter().zip(&through) {
            if expected != found {
                differences.push(format!("{expected:?}\n   reaches the platform as {found:?}"));
            }
        }
    }
    differences
}

fn received(target: &Target, account: u64) -> Vec<Request> {
    let calls = target.steer("GET", &format!("/calls?account={account}&heads=1"), &Value::Null);
    let calls = calls.as_array().expect("calls");
    let of_an_application =
        |call: &&Value| !matches!(call["endpoint"].as_str(), Some("refresh" | "discovery"));
    let mut seen: Vec<(Request, u64)> = Vec::new();
    for call in calls.iter().filter(of_an_application) {
        let request = request(call);
        // A 403 may be an expired token, so the gateway renews and asks once
        // more: to the application that is one call.
        if seen.last().is_some_and(|(last, status)| *status == 403 && last == &request) {
            seen.pop();
        }
        seen.push((request, call["status"].as_u64().unwrap_or_default()));
    }
    seen.into_iter().map(|(request, _)| request).collect()
}

fn request(call: &Value) -> Request {
    let pairs = call["headers"].as_array().expect("headers");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut headers: Vec<(String, String)> =
        pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    let connection: Vec<String> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let links = matches!(call["endpoint"].as_str(), Some("orders_practice" | "orders_lab" | "order"));
    headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        let ours = matches!(name.as_str(), "host" | "via" | "x-request-id" | "expect");
        let of_the_connection = matches!(
            name.as_str(),
            "connection"
                | "keep-alive"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "http2-settings"
        ) || connection.contains(&name);
        let spoils_links = links && matches!(name.as_str(), "accept-encoding" | "range" | "if-range");
        !(ours || of_the_connection || spoils_links)
    });
    headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    Request {
        call: text(&call["call"]),
        headers,
        body_length: call["body_length"].as_u64().expect("a length"),
        body_sha256: text(&call["body_sha256"]),
    }
}
