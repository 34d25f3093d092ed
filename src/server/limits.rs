//! The limits of the server. What a caller sends or leaves unread never costs more than these.

use std::time::Duration;

use crate::http1::HeadLimits;

/// For the handshake of a connection; no key of the configuration sets it. A caller across an ocean needs a
/// second.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much a caller may take, and for how long. The defaults stand in `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections over all workers. Each idle one costs about 5 KiB (13 over TLS) and a descriptor, a busy
    /// one a second descriptor.
    pub max_connections: usize,
    /// Bytes of a request head, request line included. A bearer of 8 K and some cookies must pass; 256 K must
    /// not.
    pub max_head: usize,
    /// Header lines of a request.
    pub max_headers: usize,
    /// From the first byte of a head (on a new connection: from accept) to its last.
    pub head_timeout: Duration,
    /// The longest silence inside a request body, and the longest time a caller may leave its response
    /// unread.
    pub body_idle_timeout: Duration,
    /// How long a connection may wait for its next request. Longer than the 60 s at which common balancers
    /// give up, so that the side that opened the connection is the one that closes it.
    pub keep_alive_timeout: Duration,
    /// How long running requests may take to finish on a drain.
    pub drain_timeout: Duration,
    /// From accept to the end of the TLS handshake, a PROXY header included.
    pub handshake_timeout: Duration,
}

impl ServerLimits {
    /// Wide enough for any test; each tightens what it is about.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            max_connections: 10_000,
            max_head: 64 * 1024,
            max_headers: 100,
            head_timeout: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(25),
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }

    /// How much of a request's head is taken.
    pub(super) fn head(&self) -> HeadLimits {
        HeadLimits { max_bytes: self.max_head, max_headers: self.max_headers }
    }
}
