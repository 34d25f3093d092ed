//! The head of an answer to a caller: how its body is framed, and whether the connection goes on.

use http::response::Parts;
use http::{HeaderValue, Method, StatusCode, Version, header};
use http_body::Body;

use super::Reason;
use super::fields::{Fields, words};
use super::head::{self, RequestHead, length};
use super::name::Name;

/// Why an answer did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFault {
    /// The caller has gone.
    Gone,
    /// The answer itself broke off: the caller must not take what it has for the whole.
    Broken,
}

/// What an answer needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub version: Version,
    /// HEAD: the head alone is wanted.
    pub head_only: bool,
    /// The connection may serve another request.
    pub keep: bool,
}

/// The body of an answer. One that is passed on brings the fields with it that it came with: they stand in the head before all others.
pub trait Passed {
    fn fields(&self) -> Option<&Fields> {
        None
    }
}

/// How an answer is framed.
pub(super) struct Plan {
    framing: ResponseFraming,
    /// The head does not tell the length yet.
    tell_length: bool,
    drop_length: bool,
    pub(super) keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ResponseFraming {
    /// The head is all of it.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Plan {
    pub(super) fn new(asked: &Asked, head: &Parts, body: &(impl Body + Passed)) -> Self {
        let passed = body.fields().and_then(|fields| fields.get(Name::ContentLength));
        let declared = passed.or_else(|| head.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes));
        let declared = declared.and_then(length);
        let bodyless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (framing, tell_length) = match (declared, body.size_hint().exact()) {
            _ if asked.head_only || bodyless => (ResponseFraming::None, false),
            (Some(length), _) => (ResponseFraming::Length(length), false),
            (None, Some(length)) => (ResponseFraming::Length(length), true),
            (None, None) if asked.version == Version::HTTP_11 => (ResponseFraming::Chunked, false),
            (None, None) => (ResponseFraming::UntilClose, false),
        };
        let keep = asked.keep && framing != ResponseFraming::UntilClose && !says_close(head);
        Self { framing, tell_length, drop_length: head.status == StatusCode::NO_CONTENT, keep }
    }

    pub(super) fn chunked(&self) -> bool {
        self.framing == ResponseFraming::Chunked
    }

    /// What is said by whoever frames the answer.
    fn is_ours(&self, name: Name) -> bool {
        match name {
            Name::Connection | Name::TransferEncoding => true,
            Name::ContentLength => self.drop_length,
            _ => false,
        }
    }

    /// How much may still be written.
    pub(super) fn left(&self) -> u64 {
        match self.framing {
            ResponseFraming::None => 0,
            ResponseFraming::Length(length) => length,
            ResponseFraming::Chunked | ResponseFraming::UntilClose => u64::MAX,
        }
    }

    /// A body that ends before its length is reached is no answer.
    pub(super) fn check(&self, left: u64) -> Result<(), ResponseFault> {
        match self.framing {
            ResponseFraming::Length(_) if left > 0 => Err(ResponseFault::Broken),
            _ => Ok(()),
        }
    }

    pub(super) fn write_head(
        &self,
        out: &mut Vec<u8>,
        asked: &Asked,
        head: &Parts,
        passed: Option<&Fields>,
        keep: bool,
    ) {
        let reason = head.extensions.get::<Reason>().map(|reason| &reason.0[..]);
        head::write_status_line(out, asked.version, head.status, reason);
        for field in passed.into_iter().flat_map(Fields::iter) {
            if !self.is_ours(field.name) {
                field.write(out);
            }
        }
        for (name, value) in &head.headers {
            let name = name.as_str().as_bytes();
            if !self.is_ours(Name::of(name)) {
                head::write_field(out, name, value.as_bytes());
            }
        }
        match self.framing {
            ResponseFraming::Length(length) if self.tell_length => {
                head::write_field(out, b"content-length", HeaderValue::from(length).as_bytes());
            }
            ResponseFraming::Chunked => head::write_field(out, b"transfer-encoding", b"chunked"),
            _ => {}
        }
        match (keep, asked.version) {
            (false, _) => head::write_field(out, b"connection", b"close"),
            (true, Version::HTTP_10) => head::write_field(out, b"connection", b"keep-alive"),
            (true, _) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// An answer that was made here wants to be the last.
fn says_close(head: &Parts) -> bool {
    let lists = head.headers.get_all(header::CONNECTION);
    lists.iter().any(|list| words(list.as_bytes()).any(|word| word.eq_ignore_ascii_case(b"close")))
}

impl Asked {
    /// What a request's own head says.
    pub fn of(head: &RequestHead) -> Self {
        let close = head.fields.says(Name::Connection, b"close");
        let keep = match head.version {
            Version::HTTP_11 => !close,
            _ => !close && head.fields.says(Name::Connection, b"keep-alive"),
        };
        Self { version: head.version, head_only: head.method == Method::HEAD, keep }
    }
}
