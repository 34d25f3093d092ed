//! HTTP/1.1 on the wire, for both sides of the gateway: heads and bodies out of bytes and back. No sockets' business, no deadlines, no
//! iTero; who reads and writes decides what becomes of a message.
//!
//! Strict in what it takes: a message that could be understood in two ways is refused, never repaired (threats, rows 1 to 3). Letter
//! case and order of fields survive, because legacy applications notice.
//!
//! Why not hyper: `docs/decisions/0016-http1-of-our-own.md`. Reading order: `known_header` → `headers` → `head` → `body` → `read_buffer` (what has been read and not used yet) →
//! `serve` (one served connection), with `request_body`, `response` and `fairness`.

mod body;
mod buffer_pool;
mod fairness;
mod head;
mod headers;
mod known_header;
mod read_buffer;
mod request_body;
mod response;
mod serve;
mod write_buffer;

pub use body::{BodyDecoder, BodyError, write_chunk_header};
pub use fairness::{YIELD_AFTER, poll_yield};
pub use head::{
    HeadError, HeadLimits, InvalidByte, RequestHead, ResponseHead, parse_content_length, write_header,
};
pub use headers::{DuplicateHeader, HeaderField, Headers, ascii_str, tokens};
pub use known_header::{HeaderSet, KnownHeader};
pub use read_buffer::ReadBuffer;
pub use request_body::RequestBody;
pub use response::{ForwardedHeaders, ResponseContext, WriteError};
pub use serve::{ConnectionObserver, NoopObserver, ReadHeadError, ServerConnection};
pub use write_buffer::WriteBuffer;

/// A request: its head, and its body still to come.
pub struct Request {
    pub head: RequestHead,
    pub body: RequestBody,
}

/// A reason phrase other than the usual one; travels in an answer's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonPhrase(pub bytes::Bytes);
