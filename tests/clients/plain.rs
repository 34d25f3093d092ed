//! HTTP for the test's own errands (control ports, one list): one call per connection, bodies by
//! Content-Length or to the end.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// Makes a call and returns its JSON; panics when the response is not a good one.
pub fn json(method: &str, url: &str, bearer: &str, body: &Value) -> Value {
    let (status, text) = call(method, url, bearer, body).expect("the call is answered");
    assert_eq!(status, 200, "{method} {url}: {text}");
    serde_json::from_str(&text).expect("the answer is JSON")
}

/// Status and body; an error where nobody listens.
pub fn call(method: &str, url: &str, bearer: &str, body: &Value) -> std::io::Result<(u16, String)> {
    let (authority, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(authority)?;
    let text = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let response = String::from_utf8_lossy(&response).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Ok((status, body))
}

fn unchunked(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's length");
        body.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    body
}
