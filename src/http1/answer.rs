//! The head of an answer to a caller: how its body is framed, and whether the connection goes on.

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body;

use super::Reason;
use super::head::{self, length};
use super::spelling::{Speller, Spelling};

/// Why an answer did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFault {
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

/// The body of an answer, which may know how its head was spelled by whoever made it.
pub trait Spelled {
    fn spelling(&self) -> &Spelling {
        static NONE: Spelling = Spelling::none();
        &NONE
    }
}

/// How an answer is framed.
pub(super) struct Plan {
    framing: AnswerFraming,
    /// The head does not tell the length yet.
    tell_length: bool,
    drop_length: bool,
    pub(super) keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerFraming {
    /// The head is all of it.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Room for the heads of usual answers, and small enough for the allocator's quick lists.
pub(super) const HEAD_EXPECTED: usize = 768;

impl Plan {
    pub(super) fn new(asked: &Asked, head: &Parts, body: &impl Body) -> Self {
        let declared = head.headers.get(header::CONTENT_LENGTH).and_then(length);
        let bodyless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (framing, tell_length) = match (declared, body.size_hint().exact()) {
            _ if asked.head_only || bodyless => (AnswerFraming::None, false),
            (Some(length), _) => (AnswerFraming::Length(length), false),
            (None, Some(length)) => (AnswerFraming::Length(length), true),
            (None, None) if asked.version == Version::HTTP_11 => (AnswerFraming::Chunked, false),
            (None, None) => (AnswerFraming::UntilClose, false),
        };
        let keep = asked.keep && framing != AnswerFraming::UntilClose && !says_close(&head.headers);
        Self { framing, tell_length, drop_length: head.status == StatusCode::NO_CONTENT, keep }
    }

    pub(super) fn chunked(&self) -> bool {
        self.framing == AnswerFraming::Chunked
    }

    /// How much may still be written.
    pub(super) fn left(&self) -> u64 {
        match self.framing {
            AnswerFraming::None => 0,
            AnswerFraming::Length(length) => length,
            AnswerFraming::Chunked | AnswerFraming::UntilClose => u64::MAX,
        }
    }

    /// A body that ends before its length is reached is no answer.
    pub(super) fn check(&self, left: u64) -> Result<(), AnswerFault> {
        match self.framing {
            AnswerFraming::Length(_) if left > 0 => Err(AnswerFault::Broken),
            _ => Ok(()),
        }
    }

    pub(super) fn write_head(
        &self,
        out: &mut Vec<u8>,
        asked: &Asked,
        head: &Parts,
        spelling: &Spelling,
        keep: bool,
    ) {
        let reason = head.extensions.get::<Reason>().map(|reason| &reason.0[..]);
        head::write_status_line(out, asked.version, head.status, reason);
        let mut speller = Speller::of(spelling);
        for (name, value) in &head.headers {
            let ours = *name == header::CONNECTION || (self.drop_length && *name == header::CONTENT_LENGTH);
            if !ours && *name != header::TRANSFER_ENCODING {
                speller.write(out, name, value);
            }
        }
        match self.framing {
            AnswerFraming::Length(length) if self.tell_length => {
                head::write_field(out, b"content-length", HeaderValue::from(length).as_bytes());
            }
            AnswerFraming::Chunked => head::write_field(out, b"transfer-encoding", b"chunked"),
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

fn says_close(headers: &HeaderMap) -> bool {
    says(headers, b"close")
}

/// Whether `Connection` has this among its words.
pub fn says(headers: &HeaderMap, word: &[u8]) -> bool {
    let lines = headers.get_all(header::CONNECTION);
    let mut words = lines.iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
}

impl Asked {
    /// What a request's own head says.
    pub fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let keep = match request.version() {
            Version::HTTP_11 => !says_close(headers),
            _ => says(headers, b"keep-alive") && !says_close(headers),
        };
        let head_only = *request.method() == Method::HEAD;
        Self { version: request.version(), head_only, keep }
    }
}
