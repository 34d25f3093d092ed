//! Parses heads. `http` judges what is allowed in a method or a target; how the lines are put together is
//! judged here, and nothing is forgiven (RFC 9112, 2 to 5).

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Method, StatusCode, Uri, Version};

use super::head_error::{HeadError, HeadLimits, HeadPart, invalid_byte};
use super::headers::{Headers, is_token_byte};

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: Headers,
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    pub version: Version,
    pub status: StatusCode,
    /// As sent; may be empty.
    pub reason: Bytes,
    pub headers: Headers,
}

/// A complete request head, its blank line included.
pub fn parse_request(head: Bytes, limits: &HeadLimits) -> Result<RequestHead, HeadError> {
    let (line, headers) = first_line(&head)?;
    if [&b"PROXY TCP"[..], b"PROXY UNKNOWN"].iter().any(|begin| line.starts_with(begin)) {
        return Err(HeadError::ProxyHeader);
    }
    let method_end = memchr::memchr(b' ', line).ok_or(HeadError::Malformed)?;
    let target_end =
        memchr::memrchr(b' ', line).filter(|end| *end > method_end).ok_or(HeadError::Malformed)?;
    let version = version(&line[target_end + 1..])?;
    let method = &line[..method_end];
    let method =
        Method::from_bytes(method).map_err(|_| invalid_byte(method, HeadPart::Method, is_token_byte))?;
    let target = method_end + 1..target_end;
    if target.len() > MAX_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    let uri = match Uri::from_maybe_shared(head.slice(target.clone())) {
        Ok(uri) => uri,
        Err(_) => parse_non_ascii_target(&head[target.clone()])?,
    };
    check_fragment(&head[target])?;
    Ok(RequestHead { method, uri, version, headers: Headers::parse(head, headers, limits)? })
}

/// A complete response head, its blank line included.
pub fn parse_response(head: Bytes, limits: &HeadLimits) -> Result<ResponseHead, HeadError> {
    let (line, headers) = first_line(&head)?;
    let version = version(line.get(..8).ok_or(HeadError::Malformed)?)?;
    let [b' ', status @ ..] = &line[8..] else { return Err(HeadError::Malformed) };
    let (status, reason) = status.split_at_checked(3).ok_or(HeadError::Malformed)?;
    let status = StatusCode::from_bytes(status).map_err(|_| HeadError::Malformed)?;
    // Some servers leave out the blank before an empty reason.
    let reason = match reason {
        [] => Bytes::new(),
        [b' ', reason @ ..] if reason.iter().all(|b| matches!(b, b'\t' | b' '..=b'~' | 0x80..)) => {
            head.slice(13..13 + reason.len())
        }
        _ => return Err(HeadError::Malformed),
    };
    Ok(ResponseHead { version, status, reason, headers: Headers::parse(head, headers, limits)? })
}

/// Raw bytes beyond ASCII pass as they came where they are UTF-8. Old programs send them in Latin-1 as well,
/// which `Uri` cannot hold: those go on percent-encoded, which means the same to whoever reads them
/// (RFC 3986, 2.1).
fn parse_non_ascii_target(target: &[u8]) -> Result<Uri, HeadError> {
    if std::str::from_utf8(target).is_err() {
        let target = percent_encode_non_utf8(target);
        if target.len() > MAX_TARGET {
            return Err(HeadError::TargetTooLong);
        }
        if let Ok(uri) = Uri::from_maybe_shared(target) {
            return Ok(uri);
        }
    }
    let query = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, rest) = target.split_at(query);
    let [path_bytes, query_bytes] = &*TARGET_BYTES;
    Err(match invalid_byte(path, HeadPart::Target, |byte| path_bytes[usize::from(byte)]) {
        HeadError::Malformed => {
            invalid_byte(rest, HeadPart::Target, |byte| query_bytes[usize::from(byte)]).offset_by(path.len())
        }
        found => found,
    })
}

/// `Uri` cuts a fragment off without a look at it.
fn check_fragment(target: &[u8]) -> Result<(), HeadError> {
    let Some(at) = memchr::memchr(b'#', target) else { return Ok(()) };
    let [_, query_bytes] = &*TARGET_BYTES;
    let allowed = |byte: u8| query_bytes[usize::from(byte)];
    if target[at..].iter().all(|byte| allowed(*byte)) {
        Ok(())
    } else {
        Err(invalid_byte(&target[at..], HeadPart::Target, allowed).offset_by(at))
    }
}

/// By `Uri`'s own word, in a path and in a query. Asked once: a target of 64 KiB would take thousands of
/// times as long to refuse as to send.
static TARGET_BYTES: LazyLock<[[bool; 256]; 2]> = LazyLock::new(|| {
    [&b"/"[..], b"/?"].map(|begin| {
        std::array::from_fn(|at| {
            u8::try_from(at)
                .is_ok_and(|byte| byte >= 0x80 || Uri::try_from([begin, &[byte]].concat()).is_ok())
        })
    })
});

/// With an escape in place of each byte that is part of no UTF-8.
fn percent_encode_non_utf8(target: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(target.len() + 16);
    for chunk in target.utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        for byte in chunk.invalid() {
            text.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Bytes::from(text)
}

/// `http`'s own limit.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The first line without its end, and where the next one begins.
fn first_line(head: &[u8]) -> Result<(&[u8], usize), HeadError> {
    let end = memchr::memchr(b'\n', head).ok_or(HeadError::Malformed)?;
    Ok((head[..end].strip_suffix(b"\r").ok_or(HeadError::BareLineFeed)?, end + 1))
}

fn version(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ => Err(HeadError::Version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_bytes: 1000, max_headers: 3 };

    fn request(text: &str) -> Result<RequestHead, HeadError> {
        parse_request(Bytes::copy_from_slice(text.as_bytes()), &LIMITS)
    }

    fn response(text: &str) -> Result<ResponseHead, HeadError> {
        parse_response(Bytes::copy_from_slice(text.as_bytes()), &LIMITS)
    }

    #[test]
    fn a_request_head_comes_as_it_was_sent() {
        let head = request("POST /a%2f?b=%41 HTTP/1.1\r\nHOST: a\r\nX-Thing: 1\r\n\r\n").unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string()), ("POST", "/a%2f?b=%41".to_owned()));
        assert_eq!((head.version, head.headers.iter().count()), (Version::HTTP_11, 2));
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
            "GET / HTTP/1.1\r\nA: b\x7fc\r\n\r\n",
            "GET / HTTP/1.1\r\nA\r\n: c\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
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
    fn a_byte_that_may_not_stand_where_it_does_is_named_with_its_place() {
        for (bad, named) in [
            ("G\x01T / HTTP/1.1\r\n\r\n", "byte 0x01 at position 2 of the method"),
            ("GET  / HTTP/1.1\r\n\r\n", "byte 0x20 at position 1 of the request target"),
            ("GET /a<b HTTP/1.1\r\n\r\n", "byte 0x3c at position 3 of the request target"),
            ("GET /a#b\x01 HTTP/1.1\r\n\r\n", "byte 0x01 at position 5 of the request target"),
            ("GET /a\tb HTTP/1.1\r\n\r\n", "byte 0x09 at position 3 of the request target"),
            ("GET /a?b=\"c\" x HTTP/1.1\r\n\r\n", "of the request target"),
            ("GET /a?bc=<x HTTP/1.1\r\n\r\n", "byte 0x3c at position 7 of the request target"),
            ("GET / HTTP/1.1\r\nA: 1\r\nB b: c\r\n\r\n", "byte 0x20 at position 2 of the name of header 2"),
            (
                "GET / HTTP/1.1\r\nA: 1\r\n folded: x\r\n\r\n",
                "byte 0x20 at position 1 of the name of header 2",
            ),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", "byte 0x00 at position 3 of the value of header 1"),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", "byte 0x0d at position 3 of the value of header 1"),
        ] {
            let told = request(bad).unwrap_err().to_string();
            assert!(told.contains(named), "{bad:?}: {told}");
        }
        assert_eq!(
            request("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n").unwrap_err(),
            HeadError::ProxyHeader
        );
    }

    #[test]
    fn latin_1_in_a_target_passes_as_utf_8_does() {
        let parsed = |target: &[u8]| {
            let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            parse_request(Bytes::from(head), &LIMITS).map(|head| head.uri.to_string())
        };
        assert_eq!(parsed("/patients?name=Müller".as_bytes()).unwrap(), "/patients?name=Müller");
        assert_eq!(parsed(b"/patients/M\xfcller?name=\xdf").unwrap(), "/patients/M%FCller?name=%DF");
        assert_eq!(
            parsed("/ä/".as_bytes().iter().chain(b"\xe4").copied().collect::<Vec<_>>().as_slice()).unwrap(),
            "/ä/%E4"
        );
        assert_eq!(parsed(b"/\xc0\xae\xc0\xae/x").unwrap(), "/%C0%AE%C0%AE/x", "judged later, as any escape");
        let invalid = parsed(b"/M\xfcller<x").unwrap_err().to_string();
        assert!(invalid.contains("byte 0x3c at position 8 "), "counted in what was sent: {invalid}");
        let long = [b"/".as_slice(), &[0xe4; 30_000]].concat();
        let limits = HeadLimits { max_bytes: 1 << 20, max_headers: 3 };
        let head = [b"GET ", long.as_slice(), b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse_request(Bytes::from(head), &limits).unwrap_err(), HeadError::TargetTooLong);
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
