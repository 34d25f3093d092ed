//! Responses as a client has presented them, made comparable: addresses to one form, what belongs to one
//! connection left out.

use std::io::Read;

use crate::kind::Run;
use crate::plan::Call;
use crate::test_bed::{PlatformBehavior, Target, TestBed};

/// A response as the client program printed it.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: String,
    /// In the client's spelling, sorted by name; fields of one name in their order.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// One sentence per difference.
pub fn compare(bed: &TestBed, direct: &Run, through: &Run) -> Vec<String> {
    let mut differences = Vec::new();
    for (number, call) in direct.calls.iter().enumerate() {
        let expected = read(direct, number).made_comparable(bed, &bed.direct, call);
        let found = read(through, number).made_comparable(bed, &bed.through, call);
        if !call.statuses.iter().any(|status| status.to_string() == expected.status) {
            differences.push(format!("{}: {} already on the direct way", call.name, expected.status));
        }
        differences.extend(expected.difference(&found).map(|what| format!("{}: {what}", call.name)));
    }
    differences
}

fn read(run: &Run, number: usize) -> Response {
    let file = |kind: &str| std::fs::read(run.out.join(format!("{number}.{kind}"))).unwrap_or_default();
    let (mut head, mut body) = (file("head"), file("body"));
    let raw = file("raw");
    if !raw.is_empty() {
        let end = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head's end");
        head = raw[..end].to_vec();
        body = raw[end + 4..].to_vec();
    }
    let head: String = head.iter().map(|byte| char::from(*byte)).collect();
    let lines: Vec<&str> = head.lines().filter(|line| !line.is_empty()).collect();
    // Some programs print the heads of a 100 and of redirects too; the last one counts.
    let first = lines.iter().rposition(|line| line.starts_with("HTTP/")).unwrap_or(0);
    let status = lines.get(first).copied().unwrap_or("no answer");
    let status = if status.starts_with("HTTP/") { status.split(' ').nth(1).unwrap_or("") } else { status };
    let mut headers: Vec<(String, String)> = lines
        .iter()
        .skip(first + 1)
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    Response { status: status.to_owned(), headers, body }
}

impl Response {
    fn made_comparable(mut self, bed: &TestBed, target: &Target, call: &Call) -> Self {
        let gzip = self.header("content-encoding") == Some("gzip") && self.body.starts_with(&[0x1f, 0x8b]);
        let length: Option<usize> = self.header("content-length").and_then(|value| value.parse().ok());
        if call.method != "HEAD" && !gzip && self.status != "304" {
            // What a client unpacks by itself is longer than what it was told.
            let unpacked = self.header("content-encoding").is_some();
            assert!(length.is_none_or(|length| unpacked || length == self.body.len()), "{}", call.name);
        }
        if gzip && call.links {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut unpacked).expect("gzip");
            self.body = unpacked;
        }
        let chunked = bed.behavior == PlatformBehavior::Adverse && self.is_json();
        let dropped = |name: &str| match name {
            "connection" | "keep-alive" | "transfer-encoding" | "trailer" | "upgrade" => true,
            "x-request-id" => target.name == "through",
            // Links are not of one length, and are asked for uncompressed.
            "content-encoding" | "vary" => call.links,
            // What the platform sends in chunks has a length only for HTTP/1.0, which the gateway does not
            // speak to it.
            "content-length" => call.links || chunked,
            _ => false,
        };
        self.headers.retain(|(name, _)| !dropped(&name.to_ascii_lowercase()));
        for (name, value) in &mut self.headers {
            if name.eq_ignore_ascii_case("date") {
                assert!(value.ends_with(" GMT") && value.len() == 29, "{value}");
                *value = "a date".to_owned();
            }
            if name.eq_ignore_ascii_case("location") {
                *value = printable(target, value);
            }
        }
        if call.links {
            let text = String::from_utf8(self.body).expect("lists are text");
            self.body = printable(target, &text).into_bytes();
        }
        self
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(|value| value.starts_with("application/json"))
    }

    fn difference(&self, other: &Self) -> Option<String> {
        if self.status != other.status {
            return Some(format!("{} becomes {}", self.status, other.status));
        }
        if self.headers != other.headers {
            return Some(format!("{:?}\n   becomes {:?}", self.headers, other.headers));
        }
        let at = self.body.iter().zip(&other.body).position(|(one, two)| one != two);
        let at =
            at.or((self.body.len() != other.body.len()).then_some(self.body.len().min(other.body.len())))?;
        let around = |body: &[u8]| {
            let (begin, end) = (at.saturating_sub(60).min(body.len()), (at + 60).min(body.len()));
            String::from_utf8_lossy(&body[begin..end]).into_owned()
        };
        Some(format!(
            "body of {} and {} bytes: {:?}\n   becomes {:?}",
            self.body.len(),
            other.body.len(),
            around(&self.body),
            around(&other.body)
        ))
    }
}

/// Addresses of either way in one form. Pre-signed addresses differ
/// in their signature from sandbox to sandbox.
fn printable(target: &Target, text: &str) -> String {
    let escaped = |address: &str| address.replace('/', "\\/");
    let mut text = text.replace(&target.storage_origin, "{storage}");
    for address in &target.addresses {
        text = text.replace(address, "{platform}").replace(&escaped(address), "{platform}");
        // A link without a host: the gateway's has its account's prefix.
        let path = address["http://".len()..].find('/').map(|at| &address["http://".len() + at..]);
        if let Some(path) = path {
            text = text.replace(&format!("\"{path}/"), "\"/");
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("{storage}") {
        let end = at + rest[at..].find('"').unwrap_or(rest.len() - at);
        out.push_str(rest[..end].split('?').next().unwrap_or_default());
        rest = &rest[end..];
    }
    out + rest
}
