//! Heads out of bytes and back. What may stand in a method, a target, a name or a value is `http`'s judgement; how the lines are put
//! together is judged here, and nothing is forgiven (RFC 9112, 2 to 5).

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use super::spelling::Spelling;

/// How much of a head is taken.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub bytes: usize,
    pub fields: usize,
}

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    #[error("the head is too large")]
    TooLarge,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("lines of a head end with CR LF")]
    BareLineFeed,
    #[error("only HTTP/1 is spoken here")]
    Version,
    #[error("the head cannot be parsed")]
    Malformed,
}

/// The head of an answer.
#[derive(Debug)]
pub struct ResponseHead {
    pub version: Version,
    pub status: StatusCode,
    /// As sent; may be empty.
    pub reason: Bytes,
    pub headers: HeaderMap,
    pub spelling: Spelling,
}

/// A whole request head, its blank line included.
pub(super) fn parse_request(head: Bytes, limits: &HeadLimits) -> Result<Request<Spelling>, HeadFault> {
    let (line, fields) = first_line(&head)?;
    let method_end = memchr::memchr(b' ', line).ok_or(HeadFault::Malformed)?;
    let target_end =
        memchr::memrchr(b' ', line).filter(|end| *end > method_end).ok_or(HeadFault::Malformed)?;
    let version = version(&line[target_end + 1..])?;
    let method = Method::from_bytes(&line[..method_end]).map_err(|_| HeadFault::Malformed)?;
    let target = head.slice(method_end + 1..target_end);
    if target.len() > MAX_TARGET {
        return Err(HeadFault::TargetTooLong);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| HeadFault::Malformed)?;
    let (headers, spelling) = parse_fields(&head, fields, limits)?;
    let mut request = Request::new(spelling);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(request)
}

/// A whole answer head, its blank line included.
pub(super) fn parse_response(head: &Bytes, limits: &HeadLimits) -> Result<ResponseHead, HeadFault> {
    let (line, fields) = first_line(head)?;
    let version = version(line.get(..8).ok_or(HeadFault::Malformed)?)?;
    let [b' ', status @ ..] = &line[8..] else { return Err(HeadFault::Malformed) };
    let (status, reason) = status.split_at_checked(3).ok_or(HeadFault::Malformed)?;
    let status = StatusCode::from_bytes(status).map_err(|_| HeadFault::Malformed)?;
    // Some servers leave out the blank before an empty reason.
    let reason = match reason {
        [] => Bytes::new(),
        [b' ', reason @ ..] if reason.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..)) => {
            head.slice(13..13 + reason.len())
        }
        _ => return Err(HeadFault::Malformed),
    };
    let (headers, spelling) = parse_fields(head, fields, limits)?;
    Ok(ResponseHead { version, status, reason, headers, spelling })
}

/// `http`'s own limit.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The first line without its end, and where the next one begins.
fn first_line(head: &[u8]) -> Result<(&[u8], usize), HeadFault> {
    let end = memchr::memchr(b'\n', head).ok_or(HeadFault::Malformed)?;
    Ok((head[..end].strip_suffix(b"\r").ok_or(HeadFault::BareLineFeed)?, end + 1))
}

fn version(text: &[u8]) -> Result<Version, HeadFault> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ => Err(HeadFault::Version),
    }
}

fn parse_fields(
    head: &Bytes,
    mut at: usize,
    limits: &HeadLimits,
) -> Result<(HeaderMap, Spelling), HeadFault> {
    let mut headers = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
    let mut spelling = Spelling::new(head.clone());
    let mut count = 0;
    loop {
        let end = at + memchr::memchr(b'\n', &head[at..]).ok_or(HeadFault::Malformed)?;
        let line = head[at..end].strip_suffix(b"\r").ok_or(HeadFault::BareLineFeed)?;
        if line.is_empty() {
            return Ok((headers, spelling));
        }
        count += 1;
        if count > limits.fields {
            return Err(HeadFault::TooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(HeadFault::Malformed)?;
        // No blank may stand in a name, so neither before its colon, nor at the beginning of a folded line.
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| HeadFault::Malformed)?;
        let value = trimmed(line, colon + 1);
        let value = HeaderValue::from_maybe_shared(head.slice(at + value.start..at + value.end))
            .map_err(|_| HeadFault::Malformed)?;
        spelling.add(at, end + 1, colon);
        headers.append(name, value);
        at = end + 1;
    }
}

thread_local! {
    // A map of a dozen fields is too large for the allocator's quick lists, and each call needs two.
    static SPARES: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// How many maps a worker keeps, and how large they may have become.
const SPARE_MAPS: usize = 32;
const SPARE_FIELDS: usize = 64;

/// Takes back a map that came from a head, for the next head.
pub fn recycle(mut headers: HeaderMap) {
    if headers.capacity() == 0 || headers.capacity() > SPARE_FIELDS {
        return;
    }
    // What it held must not outlive its call.
    headers.clear();
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARE_MAPS {
            spares.push(headers);
        }
    });
}

/// The value's place in its line, without the blanks around it.
fn trimmed(line: &[u8], mut start: usize) -> std::ops::Range<usize> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let mut end = line.len();
    while line.get(start).is_some_and(blank) {
        start += 1;
    }
    while end > start && blank(&line[end - 1]) {
        end -= 1;
    }
    start..end
}

/// What a Content-Length says: digits only, no sign, no list, no blanks, and small enough for a `u64` (RFC 9110, 8.6).
pub fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `HTTP/1.1 200 OK`
pub fn write_status_line(out: &mut Vec<u8>, version: Version, status: StatusCode, reason: Option<&[u8]>) {
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()));
    out.extend_from_slice(b"\r\n");
}

pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Speller;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, fields: 3 };

    fn written(headers: &HeaderMap, spelling: &Spelling) -> String {
        let (mut out, mut speller) = (Vec::new(), Speller::of(spelling));
        headers.iter().for_each(|(name, value)| speller.write(&mut out, name, value));
        String::from_utf8(out).unwrap()
    }

    fn request(text: &str) -> Result<Request<Spelling>, HeadFault> {
        parse_request(Bytes::copy_from_slice(text.as_bytes()), &LIMITS)
    }

    fn response(text: &str) -> Result<ResponseHead, HeadFault> {
        parse_response(&Bytes::copy_from_slice(text.as_bytes()), &LIMITS)
    }

    #[test]
    fn a_head_keeps_its_order_its_letter_case_and_its_bytes() {
        let text = "POST /a%2f?b=%41 HTTP/1.1\r\nHOST: a\r\nX-Thing:  \t1 2ä \r\nx-thing:\r\n\r\n";
        let request = request(text).unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("POST", "/a%2f?b=%41".to_owned())
        );
        let (head, spelling) = request.into_parts();
        let mut headers = head.headers;
        let fields = "HOST: a\r\nX-Thing:  \t1 2ä \r\nX-Thing: \r\n";
        assert_eq!(written(&headers, &spelling), fields);
        // What has been changed since is written anew, under the name that was used.
        headers.insert("host", HeaderValue::from_static("b"));
        headers.insert("x-thing", HeaderValue::from_static("3"));
        headers.insert("x-new", HeaderValue::from_static("4"));
        assert_eq!(written(&headers, &spelling), "HOST: b\r\nX-Thing: 3\r\nx-new: 4\r\n");
    }

    #[test]
    fn a_map_that_is_used_again_holds_nothing_of_its_last_head() {
        let first = request("GET / HTTP/1.1\r\nAuthorization: secret\r\nHost: a\r\n\r\n").unwrap();
        recycle(first.into_parts().0.headers);
        let second = request("GET / HTTP/1.1\r\nHost: b\r\n\r\n").unwrap();
        assert_eq!(second.headers().len(), 1);
        assert_eq!(second.headers()["host"], "b");
    }

    #[test]
    fn what_is_not_put_together_properly_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            "GET / HTTP/1.1\r\nA : c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: c\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\n: c\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "G\x01T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n",
        ] {
            assert!(request(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_status_line_may_lack_its_reason_and_nothing_else() {
        for (good, reason) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "OK"),
            ("HTTP/1.1 299 Very Fine\r\n\r\n", "Very Fine"),
            ("HTTP/1.0 200 \r\n\r\n", ""),
            ("HTTP/1.1 200\r\n\r\n", ""),
        ] {
            assert_eq!(response(good).unwrap().reason, reason, "{good:?}");
        }
        for bad in [
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 abc OK\r\n\r\n",
        ] {
            assert!(response(bad).is_err(), "{bad:?}");
        }
    }
}
