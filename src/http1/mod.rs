//! HTTP/1.1 on the wire, both halves: requests in and responses out (`server`), requests out and responses in
//! (`client`). No sockets' business and no iTero; whoever reads and writes decides what becomes of a message.
//!
//! Strict in what it takes: a message that could be understood in two ways is refused, never repaired
//! (threats, rows 1 to 3). Letter case and order of headers survive, because legacy applications notice.
//!
//! Why not hyper: `docs/decisions/0016-http1-of-our-own.md`. Reading order: `parse` (heads and bodies out of
//! bytes) → `framing` (where a body ends) → `read_buffer` → `server`, `client`.

mod buffer_pool;
pub mod client;
mod fairness;
mod framing;
mod parse;
mod read_buffer;
mod request_body;
mod server;
mod write;
mod write_buffer;

pub use framing::{
    FramingError, RequestFraming, ResponseFramingError, parse_content_length, request_framing, response_body,
};
pub use parse::{
    BodyDecoder, BodyError, DuplicateHeader, HeadError, HeadLimits, HeaderField, HeaderSet, Headers,
    InvalidByte, KnownHeader, RequestHead, ResponseHead, ascii_str, parse_request, parse_response, tokens,
};
pub use read_buffer::ReadBuffer;
pub use request_body::RequestBody;
pub use server::{
    ConnectionObserver, ForwardedHeaders, NoopConnectionObserver, ReadHeadError, ResponseContext,
    ServerConnection, WriteError,
};
pub use write::write_header;
pub use write_buffer::WriteBuffer;

/// A request: its head, and its body still to come.
pub struct Request {
    pub head: RequestHead,
    pub body: RequestBody,
}

/// A reason phrase other than the usual one; travels in a response's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonPhrase(pub bytes::Bytes);
