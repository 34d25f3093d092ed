//! The calls that every kind of client makes, one row each, and what the platform is known to respond.

use std::path::Path;

use crate::test_bed::{CLINIC, LAB, Target, TestBed};

/// One call that every kind of client makes.
pub struct Call {
    pub name: &'static str,
    pub method: &'static str,
    pub url: String,
    /// A file beside the plan.
    pub body: Option<&'static str>,
    pub headers: Vec<String>,
    /// What the direct way must return, so that two equal failures do not pass.
    pub statuses: &'static [u16],
    /// The response carries links: it is asked for uncompressed and whole, and its length changes.
    pub links: bool,
}

/// Bodies as applications send them: odd blanks, letters beyond ASCII, numbers that a rewriter would shorten.
const BODIES: [(&str, &str); 5] = [
    ("search.json", "{ \"LastName\" : \"Müller\",\r\n\"Limit\":1.50 }"),
    ("patient.json", "{\"PatientGuid\":\"00002711-5a4d-4000-8000-000000000001\",\"Remark\":\"Zoë & 李\"}"),
    ("chart.json", "{\"ChartNumber\":\"C10001-0002\",\"FirstName\":\"Chloe\\u0301\"}"),
    ("empty", ""),
    ("rx.json", "{\"Procedure\":{\"MapID\":\"FR\"},\"Notes\":\"line one\\nline two\"}"),
];

/// Longer than what the gateway keeps to send again (1 MiB).
const LARGE: usize = 2_500_000;

pub fn write_bodies(dir: &Path) {
    for (name, text) in BODIES {
        std::fs::write(dir.join(name), text).expect("a body");
    }
    let large = format!("{{\"Notes\":\"{}\"}}", "0123456789".repeat(LARGE / 10));
    std::fs::write(dir.join("large.json"), large).expect("a body");
}

#[rustfmt::skip]
pub fn calls(bed: &TestBed, target: &Target) -> Vec<Call> {
    let (clinic, lab) = (&target.clinic, &target.lab);
    let rx = CLINIC * 100_000;
    let (created, order) = (rx + 40_000, rx + 50_000);
    let of_clinic = |name, method, path: String, statuses| call(name, method, clinic.clone() + &path, &bed.clinic_bearer, statuses);
    let of_lab = |name, method, url: String, statuses| call(name, method, url, &bed.lab_bearer, statuses);
    let range = "Range: bytes=100-299";
    vec![
        of_clinic("unavailable", "GET", "/practice-configuration".into(), &[503]),
        of_clinic("too many", "GET", "/practice-configuration".into(), &[429]),
        of_clinic("configuration", "GET", "/practice-configuration".into(), &[200]),
        of_clinic("repeated fields", "GET", "/practice-configuration".into(), &[200]).with("X-Repeat: one").with("X-Repeat: two"),
        of_clinic("compressed", "GET", "/practice-configuration".into(), &[200]).with("Accept-Encoding: gzip"),
        of_clinic("head", "HEAD", "/practice-configuration".into(), &[200]),
        of_clinic("redirect", "GET", format!("/orders/{rx}"), &[200, 302]).links(),
        of_clinic("long list", "GET", "/orders/practice".into(), &[200]).links(),
        of_clinic("head of a list", "HEAD", "/orders/practice".into(), &[200]).links(),
        of_clinic("one order", "GET", format!("/orders/{rx}"), &[200]).links(),
        of_clinic("missing order", "GET", "/orders/99".into(), &[404]).links(),
        of_clinic("odd path", "GET", "/practice%2Dconfiguration/%c3%A9%2F;v=1/x".into(), &[404]),
        of_clinic("unknown path", "GET", "/nowhere/at/all/?x=1&&y".into(), &[404]),
        of_lab("odd query", "GET", lab.clone() + "/patient/search?name=M%C3%BCller&q=a%20b+c&empty=&flag&z=1;2,3&sl=/%2F?:@!$()*", &[200]),
        of_lab("search", "POST", lab.clone() + "/patient/search", &[200]).body("search.json"),
        of_clinic("update", "PUT", "/patients".into(), &[200]).body("patient.json"),
        of_clinic("patch", "PATCH", "/patient/by-chart-number".into(), &[200]).body("chart.json"),
        of_clinic("create", "POST", "/scan-request".into(), &[200]).body("rx.json"),
        of_clinic("create large", "POST", "/scan-request".into(), &[200]).body("large.json"),
        of_clinic("no JSON", "POST", "/scan-request".into(), &[400]).body("empty"),
        of_clinic("delete", "DELETE", format!("/scan-request/{created}"), &[200]),
        of_clinic("delete with body", "DELETE", format!("/scan-request/{}", created + 1), &[200]).body("rx.json"),
        of_clinic("delete again", "DELETE", format!("/scan-request/{created}"), &[404]),
        of_clinic("return", "POST", format!("/order/{order}/return"), &[200]).body("empty"),
        of_clinic("wrong method", "PUT", "/practice-configuration".into(), &[405]).body("rx.json"),
        of_clinic("refused", "GET", "/orders/lab".into(), &[403]).links(),
        of_clinic("not its order", "GET", format!("/order/{}/download/IDE", LAB * 100_000 + 50_000), &[404]),
        of_lab("lab list", "GET", format!("{lab}/orders/lab"), &[200]).links(),
        of_lab("head of a download", "HEAD", target.links[0].clone(), &[200]),
        of_lab("download", "GET", target.links[0].clone(), &[200]),
        of_lab("part", "GET", target.links[1].clone(), &[206]).with(range),
        of_lab("part if unchanged", "GET", target.links[1].clone(), &[200]).with(range).with("If-Range: \"other\""),
        of_lab("part of nothing", "GET", target.links[1].clone(), &[416]).with("Range: bytes=99999999-"),
        of_lab("unchanged", "GET", target.links[2].clone(), &[304]).with(&etag(target)),
        of_lab("lab list afterwards", "GET", format!("{lab}/orders/lab"), &[200]).links(),
    ]
}

/// The plan as the programs read it: number, method, URL, body file or `-`, fields with `|` between them.
pub fn text(dir: &Path, calls: &[Call]) -> String {
    let line = |(number, call): (usize, &Call)| {
        let body = call.body.map_or("-".to_owned(), |name| dir.join(name).display().to_string());
        format!("{number}\t{}\t{}\t{body}\t{}\n", call.method, call.url, call.headers.join("|"))
    };
    calls.iter().enumerate().map(line).collect()
}

fn call(
    name: &'static str,
    method: &'static str,
    url: String,
    bearer: &str,
    statuses: &'static [u16],
) -> Call {
    let headers = vec![
        format!("Authorization: Bearer {bearer}"),
        "X-LeGaCy-CaSe: MiXed".to_owned(),
        "Cookie: session=1; theme=dark".to_owned(),
        "Accept: application/json, */*;q=0.1".to_owned(),
    ];
    Call { name, method, url, body: None, headers, statuses, links: false }
}

impl Call {
    fn with(mut self, header: &str) -> Self {
        self.headers.push(header.to_owned());
        self
    }

    fn body(self, file: &'static str) -> Self {
        Self { body: Some(file), ..self }.with("Content-Type: application/json; charset=utf-8")
    }

    fn links(self) -> Self {
        Self { links: true, ..self }
    }
}

/// Of the third link: the sandbox makes it up from order, asset and length, so it is known beforehand.
fn etag(target: &Target) -> String {
    let mut tail = target.links[2].rsplit('/');
    let number = u64::from(tail.next() != Some("IDE"));
    let order: u64 = tail.nth(1).and_then(|order| order.parse().ok()).expect("an order's number");
    format!("If-None-Match: \"{:x}-{:x}\"", order * 2 + number, 256 * 1024)
}
