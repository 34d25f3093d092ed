//! Closes a connection: with a last response, gracefully (half-close, then drain the input), or with a reset.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::ServerConnection;

use super::ServerCounters;
use super::activity::{CloseReason, ConnectionActivity};
use super::refusal::ServerRefusal;
use super::socket::Socket;

/// How long a caller may go on sending into a closed connection. Closing at once would make the kernel answer
/// with a reset, which can overtake the refusal that explains it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last bytes of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How serving a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectionOutcome {
    /// All requests were responded to.
    Complete,
    /// The server refused a request; the refusal as it is written.
    Refused(Bytes),
    /// The server itself responded, for good; the response as it is written.
    Answered(Bytes),
    /// The caller has closed the connection between two requests, or within a head.
    PeerClosed,
    /// The caller has closed the connection before its request was responded to.
    ClientDisconnected,
    /// The response broke off.
    Aborted,
    Closed(CloseReason),
}

/// Renders a refusal as the handler does, as bytes.
pub(super) type RefusalRenderer = Rc<dyn Fn(ServerRefusal) -> Bytes>;

/// Closes one connection, by how serving it ended.
pub(super) struct Closer<'a> {
    pub(super) counters: &'a ServerCounters,
    pub(super) render_refusal: &'a RefusalRenderer,
    pub(super) connection: &'a ServerConnection<Socket, Rc<ConnectionActivity>>,
}

impl Closer<'_> {
    pub(super) async fn run(&self, end: ConnectionOutcome) {
        match end {
            ConnectionOutcome::Complete => self.close_gracefully().await,
            ConnectionOutcome::Refused(bytes) | ConnectionOutcome::Answered(bytes) => {
                self.send_last(&bytes).await
            }
            ConnectionOutcome::PeerClosed => {}
            ConnectionOutcome::ClientDisconnected => {
                self.counters.client_disconnects.add();
                self.abort();
            }
            ConnectionOutcome::Aborted => {
                self.counters.aborted_responses.add();
                self.abort();
            }
            ConnectionOutcome::Closed(reason) => self.close_for(reason).await,
        }
    }

    async fn close_for(&self, reason: CloseReason) {
        match reason {
            CloseReason::HeadTimeout => {
                self.counters.head_timeouts.add();
                if self.connection.is_inside_head() {
                    self.refuse(ServerRefusal::RequestTimeout).await;
                } else {
                    self.close_gracefully().await;
                }
            }
            CloseReason::BodyTimeout => {
                self.counters.body_timeouts.add();
                if self.connection.observer().is_responding() {
                    self.abort();
                } else {
                    self.refuse(ServerRefusal::RequestTimeout).await;
                }
            }
            CloseReason::WriteTimeout => {
                self.counters.write_timeouts.add();
                self.abort();
            }
            CloseReason::KeepAliveTimeout => {
                self.counters.keep_alive_timeouts.add();
                self.close_gracefully().await;
            }
            CloseReason::Evicted => {
                self.counters.evicted.add();
                self.close_gracefully().await;
            }
            CloseReason::Drained => self.close_gracefully().await,
            CloseReason::Shutdown => self.abort(),
            CloseReason::Reset => {
                self.counters.client_disconnects.add();
                self.abort();
            }
        }
    }

    /// The caller must not take what it has for a complete response.
    fn abort(&self) {
        if let Some(socket) = self.connection.take_stream() {
            socket.abort();
        }
    }

    async fn refuse(&self, refusal: ServerRefusal) {
        self.send_last(&(self.render_refusal)(refusal)).await;
    }

    async fn send_last(&self, bytes: &[u8]) {
        if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, self.connection.write_raw(bytes)).await {
            self.shutdown_write(true).await;
        }
    }

    async fn close_gracefully(&self) {
        self.shutdown_write(!self.connection.is_between_requests()).await;
    }

    /// Half-closes, then drains input for a while (lingering close).
    async fn shutdown_write(&self, still_sending: bool) {
        let Some(mut socket) = self.connection.take_stream() else { return };
        // Late or failed: the caller has gone, and nothing else can be done.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.shutdown()).await;
        if still_sending && !self.connection.observer().is_half_closed() {
            linger(socket.tcp()).await;
        }
    }
}

pub(super) async fn linger(tcp: &mut TcpStream) {
    // On the heap: this is a part of every connection's future.
    let mut sink = vec![0; 16 * 1024];
    let drained = async { while matches!(tcp.read(&mut sink).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, drained).await;
}
