//! HTTP/1.1 on the wire, for both sides of the gateway: heads and bodies out of bytes and back. No sockets' business, no deadlines, no
//! iTero; who reads and writes decides what becomes of a message.
//!
//! Strict in what it takes: a message that could be understood in two ways is refused, never repaired (threats, rows 1 to 3). Letter
//! case and order of fields survive, because legacy applications notice.
//!
//! Why not hyper: `docs/decisions/0016-http1-of-our-own.md`. Reading order: `name` → `fields` → `head` → `body` → `inbox` (what has been read and not used yet) →
//! `serve` (one served connection), with `request_body`, `response` and `turn`.

mod body;
mod fields;
mod head;
mod inbox;
mod name;
mod request_body;
mod response;
mod scratch;
mod serve;
mod spares;
mod turn;

pub use body::{BodyFault, Decoder, chunk_start};
pub use fields::{Field, Fields, Twice, text, words};
pub use head::{HeadFault, HeadLimits, OddByte, RequestHead, ResponseHead, length, write_field};
pub use inbox::Inbox;
pub use name::{Name, Names};
pub use request_body::RequestBody;
pub use response::{Asked, Passed, ResponseFault};
pub use scratch::Scratch;
pub use serve::{Attendant, HeadEnd, Served, Unattended};
pub use turn::{TURN, end_turn};

/// A request: its head, and its body still to come.
pub struct Request {
    pub head: RequestHead,
    pub body: RequestBody,
}

/// A reason phrase other than the usual one; travels in an answer's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub bytes::Bytes);
