//! How connections are opened, and what tells one destination from another.

use tokio::io::{AsyncRead, AsyncWrite};

/// Opens connections to a destination.
pub trait Dial: 'static {
    type Stream: Io;

    fn dial(&self, key: PoolKey<'_>) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// Trait alias for the stream bounds.
pub trait Io: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Io for S {}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    pub reason: String,
    /// A retry will not help: a refused certificate or address.
    pub permanent: bool,
}

/// A destination. Connections with different keys are never mixed up, even where they lead to the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolKey<'a> {
    /// Whose connection it is: trust and proxy differ between them (threats, row 26).
    pub partition: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub secure: bool,
}
