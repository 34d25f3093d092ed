//! What the server counts. Counters are touched per connection and per failure, never per request.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by all workers; read by whoever reports.
#[derive(Debug, Default)]
pub struct ServerCounters {
    pub accepted: Counter,
    /// Connections open right now.
    pub open: Gauge,
    /// Rejected because `max_connections` were open and none of them idle.
    pub connection_limit: Counter,
    /// Idle connections closed to make room for new ones.
    pub evicted: Counter,
    pub accept_errors: Counter,
    pub tls_failures: Counter,
    pub proxy_header_failures: Counter,
    pub handshake_timeouts: Counter,
    pub head_timeouts: Counter,
    pub keep_alive_timeouts: Counter,
    pub body_timeouts: Counter,
    pub write_timeouts: Counter,
    /// Requests refused for their framing, their size or their method, before any handler saw them.
    pub refused_requests: Counter,
    /// Connections that the caller closed while a request was in flight.
    pub client_disconnects: Counter,
    /// Responses cut short on purpose, because their body failed.
    pub aborted_responses: Counter,
    pub panics: Counter,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one in and returns how many there were before.
    pub(super) fn enter(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
