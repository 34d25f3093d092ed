//! The head of a response to a caller: how its body is framed, and whether the connection goes on.

use http::response::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body;

use crate::http1::ReasonPhrase;
use crate::http1::framing::parse_content_length;
use crate::http1::parse::{Headers, KnownHeader, RequestHead, tokens};
use crate::http1::write::{write_header, write_status_line};

/// Why a response did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// The caller has closed the connection.
    PeerClosed,
    /// The response itself broke off: the caller must not take what it has for a complete one.
    BodyFailed,
}

/// What a response needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct ResponseContext {
    pub version: Version,
    /// HEAD: the head alone is wanted.
    pub head_only: bool,
    /// The connection may serve another request.
    pub keep_alive: bool,
}

/// The body of a response. One that is passed on brings the headers that it came with: they stand in
/// the head before all others.
pub trait ForwardedHeaders {
    fn forwarded_headers(&self) -> Option<&Headers> {
        None
    }
}

/// How a response is framed.
pub(super) struct ResponseFraming {
    framing: BodyFraming,
    /// The head does not tell the length yet.
    add_length: bool,
    omit_length: bool,
    pub(super) keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    /// The head is all of it.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl ResponseFraming {
    pub(super) fn new(
        context: &ResponseContext,
        head: &Parts,
        body: &(impl Body + ForwardedHeaders),
    ) -> Self {
        let passed = body.forwarded_headers().and_then(|headers| headers.get(KnownHeader::ContentLength));
        let declared = passed.or_else(|| head.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes));
        let declared = declared.and_then(parse_content_length);
        let bodyless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (framing, add_length) = match (declared, body.size_hint().exact()) {
            _ if context.head_only || bodyless => (BodyFraming::None, false),
            (Some(length), _) => (BodyFraming::Length(length), false),
            (None, Some(length)) => (BodyFraming::Length(length), true),
            (None, None) if context.version == Version::HTTP_11 => (BodyFraming::Chunked, false),
            (None, None) => (BodyFraming::UntilClose, false),
        };
        let keep = context.keep_alive && framing != BodyFraming::UntilClose && !wants_close(head);
        Self { framing, add_length, omit_length: head.status == StatusCode::NO_CONTENT, keep }
    }

    pub(super) fn chunked(&self) -> bool {
        self.framing == BodyFraming::Chunked
    }

    /// What is said by whoever frames the response.
    fn is_set_by_framing(&self, name: KnownHeader) -> bool {
        match name {
            KnownHeader::Connection | KnownHeader::TransferEncoding => true,
            KnownHeader::ContentLength => self.omit_length,
            _ => false,
        }
    }

    /// How much may still be written.
    pub(super) fn remaining(&self) -> u64 {
        match self.framing {
            BodyFraming::None => 0,
            BodyFraming::Length(length) => length,
            BodyFraming::Chunked | BodyFraming::UntilClose => u64::MAX,
        }
    }

    /// A body that ends before its length is reached is no response.
    pub(super) fn check_complete(&self, remaining: u64) -> Result<(), WriteError> {
        match self.framing {
            BodyFraming::Length(_) if remaining > 0 => Err(WriteError::BodyFailed),
            _ => Ok(()),
        }
    }

    pub(super) fn write_head(
        &self,
        out: &mut Vec<u8>,
        context: &ResponseContext,
        head: &Parts,
        passed: Option<&Headers>,
        keep: bool,
    ) {
        let reason = head.extensions.get::<ReasonPhrase>().map(|reason| &reason.0[..]);
        write_status_line(out, context.version, head.status, reason);
        for header in passed.into_iter().flat_map(Headers::iter) {
            if !self.is_set_by_framing(header.name) {
                header.write(out);
            }
        }
        for (name, value) in &head.headers {
            let name = name.as_str().as_bytes();
            if !self.is_set_by_framing(KnownHeader::from_bytes(name)) {
                write_header(out, name, value.as_bytes());
            }
        }
        match self.framing {
            BodyFraming::Length(length) if self.add_length => {
                write_header(out, b"content-length", HeaderValue::from(length).as_bytes());
            }
            BodyFraming::Chunked => write_header(out, b"transfer-encoding", b"chunked"),
            _ => {}
        }
        match (keep, context.version) {
            (false, _) => write_header(out, b"connection", b"close"),
            (true, Version::HTTP_10) => write_header(out, b"connection", b"keep-alive"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A response that was made here wants to be the last.
fn wants_close(head: &Parts) -> bool {
    let lists = head.headers.get_all(header::CONNECTION);
    lists.iter().any(|list| tokens(list.as_bytes()).any(|word| word.eq_ignore_ascii_case(b"close")))
}

impl ResponseContext {
    /// What a request's own head says.
    pub fn for_request(head: &RequestHead) -> Self {
        let close = head.headers.has_token(KnownHeader::Connection, b"close");
        let keep_alive = match head.version {
            Version::HTTP_11 => !close,
            _ => !close && head.headers.has_token(KnownHeader::Connection, b"keep-alive"),
        };
        Self { version: head.version, head_only: head.method == Method::HEAD, keep_alive }
    }
}
