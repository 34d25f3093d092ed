//! Sockets, TLS, limits, timeouts, drain. Knows nothing about iTero and never will.
//!
//! One current-thread runtime per worker, each with sockets of its own; a connection lives and dies on the
//! worker that accepted it, so nothing on the request path is shared between threads.
//!
//! Reading order: `workers` (threads; shutdown in `drain`) → `accept` → `connection` (one connection's life;
//! `closer` ends it; requests and responses are `http1`'s) → `activity` (what a connection is doing) and
//! `timeouts` (the sweep).

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::http1::{ForwardedHeaders, Request, RequestHead};

mod accept;
mod activity;
mod certificate;
mod closer;
mod connection;
mod counters;
pub mod descriptor_limit;
mod drain;
mod failure_log;
mod forward_proxy;
mod limits;
mod listen;
pub mod notify;
mod private_ca;
mod proxy_protocol;
mod refusal;
mod router;
mod socket;
mod timeouts;
mod tls;
mod tls_error;
mod tls_warnings;
mod workers;

#[cfg(test)]
mod tests;

pub use certificate::CertificateWarning;
pub use counters::ServerCounters;
pub use limits::{HANDSHAKE_TIMEOUT, ServerLimits};
pub use listen::{BindError, InheritedSockets, ListenerKind, Listeners};
pub use refusal::ServerRefusal;
pub use router::serve_router;
pub use tls::{CaFolder, Reload, TlsCertificates, TlsFiles};
pub use tls_error::TlsError;
pub use tls_warnings::{authority_warnings, ca_warnings, certificate_warnings};
pub use workers::{DrainReport, ServerOptions, ServerStartError, Workers};

/// What makes bodies fail: any error at all, since it only ends the connection.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Answers the requests of one worker. Lives on that worker's thread and never leaves it.
pub trait Handler: 'static {
    /// An error of this body aborts the caller's connection, so that a short response never looks complete.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError>> + ForwardedHeaders + 'static;

    /// Dropped when the caller hangs up, which has to cancel whatever it was waiting for.
    fn handle(&self, request: Request, peer: Rc<Peer>) -> impl Future<Output = Response<Self::Body>>;

    /// Renders a refusal of the server as this handler's responses look; `head` is that of the refused
    /// request, where it could be read. Length and `Connection` are set by the server.
    fn refuse(&self, refusal: ServerRefusal, head: Option<&RequestHead>) -> Response<Bytes>;
}

/// Makes a handler per worker, on the worker's own thread and inside its runtime.
pub trait MakeHandler: Send + Sync + 'static {
    type Handler: Handler;

    fn make(&self, worker: usize) -> Self::Handler;
}

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The caller's address: what a trusted balancer's PROXY header says, else the address of the socket.
    pub addr: SocketAddr,
    /// The address at the other end of the socket.
    pub socket_addr: SocketAddr,
    /// The other end of the socket is a trusted proxy: its own address identifies nobody.
    pub via_trusted_proxy: bool,
    /// The connection is encrypted.
    pub secure: bool,
    /// The caller's certificate, if it showed one; verified against `client_ca`.
    pub certificate: Option<Arc<PeerCertificate>>,
    pub requested_host: RequestedHost,
    /// The forward proxy's own address, where the caller names hosts by URL instead of asking for a tunnel.
    pub forward_proxy: Option<SocketAddr>,
}

/// The host that a caller asked for when it connected: in TLS, or of a forward proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedHost {
    /// The listener has no private CA, and takes every host's requests.
    Any,
    /// The caller named none, as old programs do not; its requests do.
    Unnamed,
    /// One of the CA's hosts, in lower case.
    Named(Box<str>),
}

/// A client certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 over the DER form.
    pub fingerprint: [u8; 32],
    /// DNS names of the subjectAltName extension.
    pub dns_names: Vec<String>,
}
