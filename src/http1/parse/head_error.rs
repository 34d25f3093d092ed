//! How much of a head is taken, and why one is refused. A byte that is not allowed is named with its place,
//! never the text around it: refusals are shown to strangers.

use std::fmt;

/// How much of a head is taken.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub max_bytes: usize,
    pub max_headers: usize,
}

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the head is too large")]
    TooLarge,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("lines of a head end with CR LF")]
    BareLineFeed,
    #[error("only HTTP/1 is spoken here")]
    Version,
    #[error("{0}")]
    InvalidByte(InvalidByte),
    #[error("a PROXY header of version 1")]
    ProxyHeader,
    #[error("the head cannot be parsed")]
    Malformed,
}

/// A byte that may not stand where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidByte {
    pub byte: u8,
    /// Counted from one.
    pub position: usize,
    pub part: HeadPart,
}

/// Where in a head. Fields are counted from one, since their names are not repeated to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadPart {
    Method,
    Target,
    FieldName(usize),
    FieldValue(usize),
}

impl fmt::Display for InvalidByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { byte, position, part } = self;
        write!(f, "byte 0x{byte:02x} at position {position} of ")?;
        match part {
            HeadPart::Method => f.write_str("the method"),
            HeadPart::Target => f.write_str("the request target"),
            HeadPart::FieldName(number) => write!(f, "the name of header {number}"),
            HeadPart::FieldValue(number) => write!(f, "the value of header {number}"),
        }
    }
}

/// The first byte that `allowed` refuses, as the reason why all of it is refused.
pub(super) fn invalid_byte(text: &[u8], part: HeadPart, allowed: impl Fn(u8) -> bool) -> HeadError {
    match text.iter().position(|byte| !allowed(*byte)) {
        Some(at) => HeadError::InvalidByte(InvalidByte { byte: text[at], position: at + 1, part }),
        None => HeadError::Malformed,
    }
}

impl HeadError {
    /// The same byte, counted from the beginning of a longer text.
    pub(super) fn offset_by(self, length: usize) -> Self {
        match self {
            HeadError::InvalidByte(invalid) => {
                HeadError::InvalidByte(InvalidByte { position: invalid.position + length, ..invalid })
            }
            other => other,
        }
    }
}
