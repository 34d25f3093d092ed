//! Why an exchange brought no response.

use crate::http1::framing::ResponseFramingError;
use crate::http1::parse::HeadError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeError {
    TimedOut,
    /// The connection ended, or broke.
    ConnectionEnded,
    CallerBodyFailed,
    InvalidHead(HeadError),
    InvalidFraming(ResponseFramingError),
    SwitchedProtocols,
    /// More bytes came than belong to the response.
    UnexpectedBytes,
}

/// What is known about a failed exchange.
#[derive(Debug, Clone, Copy)]
pub struct FailedExchange {
    pub error: ExchangeError,
    /// The connection had been idle in the pool.
    pub reused: bool,
    /// Bytes of the request have left.
    pub sent: bool,
    /// Bytes of a response have come.
    pub received: bool,
    /// The caller owed the next chunk of its body.
    pub awaiting_body: bool,
}
