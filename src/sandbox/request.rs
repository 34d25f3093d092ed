//! A request exactly as it came, read strictly.
//! Anything doubtful about its framing is refused, so that a smuggled call cannot pass unseen.

use std::io;

use bytes::{Buf, Bytes};

/// A request; its body fields are empty until `read_body`.
#[derive(Debug)]
pub struct SandboxRequest {
    method: Bytes,
    pub target: Bytes,
    pub headers: Vec<(Bytes, Bytes)>,
    /// The first 64 KiB.
    pub body: Bytes,
    pub body_length: u64,
    pub body_sha256: Option<String>,
    pub keep_alive: bool,
    /// HTTP/1.1; a 1.0 caller cannot take chunks.
    pub may_chunk: bool,
}

impl SandboxRequest {
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.method).unwrap_or("")
    }

    pub fn path(&self) -> &str {
        let target = std::str::from_utf8(&self.target).unwrap_or("");
        target.split('?').next().unwrap_or("")
    }

    pub fn query(&self) -> &str {
        let target = std::str::from_utf8(&self.target).unwrap_or("");
        target.split_once('?').map_or("", |(_, query)| query)
    }

    pub fn parameter(&self, name: &str) -> Option<String> {
        value_in(self.query().as_bytes(), name)
    }

    pub fn form_value(&self, name: &str) -> Option<String> {
        value_in(&self.body, name)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether `body` is all of it.
    pub fn body_is_complete(&self) -> bool {
        self.body_length == self.body.len() as u64
    }
}

fn value_in(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(given, _)| given == name).map(|(_, value)| value.into_owned())
}

fn find<'a, 'n>(
    headers: &'a [(Bytes, Bytes)],
    name: &'n str,
) -> impl Iterator<Item = &'a Bytes> + use<'a, 'n> {
    headers
        .iter()
        .filter(move |(given, _)| given.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// Why no request came.
pub enum ReadRequestError {
    /// The peer closed, or broke off.
    Closed,
    /// Respond with this status and sentence, then close.
    Refused(u16, &'static str),
}

impl From<io::Error> for ReadRequestError {
    fn from(_: io::Error) -> Self {
        ReadRequestError::Closed
    }
}

/// How the body ends.
pub enum RequestFraming {
    None,
    Length(u64),
    Chunked,
}

/// Reads a head that ends with its blank line.
pub fn parse_head(head: Bytes) -> Result<(SandboxRequest, RequestFraming), ReadRequestError> {
    const BAD: ReadRequestError = ReadRequestError::Refused(400, "bad request head");
    let mut lines = HeadLines { rest: head.slice(..head.len() - 2) };
    let line = lines.next().ok_or(BAD)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) =
        (parts.next().ok_or(BAD)?, parts.next().ok_or(BAD)?, parts.next().ok_or(BAD)?);
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(BAD),
    };
    if parts.next().is_some() || !method.iter().all(u8::is_ascii_uppercase) || !target.starts_with(b"/") {
        return Err(BAD);
    }
    if !target.iter().all(|byte| (0x21..0x7f).contains(byte)) {
        return Err(BAD);
    }
    let (method, target) = (head.slice_ref(method), head.slice_ref(target));
    let mut headers = Vec::with_capacity(16);
    for line in lines {
        let colon = memchr::memchr(b':', &line).ok_or(BAD)?;
        let name = line.slice(..colon);
        // A blank before the colon or a folded line is how fields are hidden from one of two readers.
        if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_graphic()) {
            return Err(BAD);
        }
        let value = line.slice_ref(line[colon + 1..].trim_ascii());
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(BAD);
        }
        headers.push((name, value));
    }
    let framing = framing(&headers, http11)?;
    let keep_alive = keeps_alive(&headers, http11);
    let request = SandboxRequest {
        method,
        target,
        headers,
        body: Bytes::new(),
        body_length: 0,
        body_sha256: None,
        keep_alive,
        may_chunk: http11,
    };
    Ok((request, framing))
}

/// The lines of a head, without their line breaks.
struct HeadLines {
    rest: Bytes,
}

impl Iterator for HeadLines {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let end = memchr::memmem::find(&self.rest, b"\r\n")?;
        let line = self.rest.split_to(end);
        self.rest.advance(2);
        Some(line)
    }
}

fn framing(headers: &[(Bytes, Bytes)], http11: bool) -> Result<RequestFraming, ReadRequestError> {
    let lengths: Vec<_> = find(headers, "content-length").collect();
    let encodings: Vec<_> = find(headers, "transfer-encoding").collect();
    match (lengths[..].len(), encodings[..].len()) {
        (0, 0) => Ok(RequestFraming::None),
        (1, 0) => {
            let digits = lengths[0].len() <= 18 && !lengths[0].is_empty();
            let text = std::str::from_utf8(lengths[0]).ok().filter(|_| digits);
            let plain = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = plain.and_then(|text| text.parse().ok());
            length.map(RequestFraming::Length).ok_or(ReadRequestError::Refused(400, "bad Content-Length"))
        }
        (0, 1) if http11 && encodings[0].eq_ignore_ascii_case(b"chunked") => Ok(RequestFraming::Chunked),
        _ => Err(ReadRequestError::Refused(400, "doubtful framing")),
    }
}

fn keeps_alive(headers: &[(Bytes, Bytes)], http11: bool) -> bool {
    let says = |token: &str| {
        find(headers, "connection").any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };
    if http11 { !says("close") } else { says("keep-alive") }
}
