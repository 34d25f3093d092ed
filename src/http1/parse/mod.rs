//! Bytes to heads and bodies. What could be understood in two ways is refused, never repaired (RFC 9112, 2 to
//! 7).

mod body;
mod head;
mod head_error;
mod headers;
mod known_header;

pub use body::{BodyDecoder, BodyError};
pub use head::{RequestHead, ResponseHead, parse_request, parse_response};
pub use head_error::{HeadError, HeadLimits, InvalidByte};
pub use headers::{DuplicateHeader, HeaderField, Headers, ascii_str, tokens};
pub use known_header::{HeaderSet, KnownHeader};
