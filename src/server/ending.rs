//! The end of a connection: whether the caller is told something, taken leave of, or cut off so that it notices.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::ServerConnection;

use super::Counters;
use super::pulse::{Pulse, Verdict};
use super::refusal::ServerRefusal;
use super::socket::Socket;

/// How long a caller may go on sending into a closed connection. Closing at once would make the kernel answer with a
/// reset, which can overtake the refusal that explains it.
const LINGER: Duration = Duration::from_secs(2);

/// How long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why serving a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All that was asked is answered.
    Done,
    /// What came is not answered by the handler; the refusal as it goes out.
    Refused(Bytes),
    /// The caller has gone between two requests, or in the middle of a head.
    Gone,
    /// The caller has gone before its request was answered.
    HungUp,
    /// The answer broke off.
    Cut,
    Verdict(Verdict),
}

/// Puts a refusal into the handler's words, as bytes.
pub(super) type Words = Rc<dyn Fn(ServerRefusal) -> Bytes>;

/// What the end of a connection needs to know of it.
pub(super) struct Ending<'a> {
    pub(super) counters: &'a Counters,
    pub(super) words: &'a Words,
    pub(super) connection: &'a ServerConnection<Socket, Rc<Pulse>>,
}

impl Ending<'_> {
    pub(super) async fn run(&self, end: End) {
        match end {
            End::Done => self.part_and_linger().await,
            End::Refused(refusal) => self.send_last(&refusal).await,
            End::Gone => {}
            End::HungUp => {
                self.counters.hang_ups.add();
                self.abort();
            }
            End::Cut => {
                self.counters.aborted_responses.add();
                self.abort();
            }
            End::Verdict(verdict) => self.carry_out(verdict).await,
        }
    }

    async fn carry_out(&self, verdict: Verdict) {
        match verdict {
            Verdict::SlowHead => {
                self.counters.head_timeouts.add();
                if self.connection.is_inside_head() {
                    self.refuse(ServerRefusal::RequestTimeout).await;
                } else {
                    self.part_and_linger().await;
                }
            }
            Verdict::SlowBody => {
                self.counters.body_timeouts.add();
                if self.connection.observer().responding() {
                    self.abort();
                } else {
                    self.refuse(ServerRefusal::RequestTimeout).await;
                }
            }
            Verdict::Unread => {
                self.counters.write_timeouts.add();
                self.abort();
            }
            Verdict::KeepAliveOver => {
                self.counters.keep_alive_timeouts.add();
                self.part_and_linger().await;
            }
            Verdict::Evicted => {
                self.counters.evicted.add();
                self.part_and_linger().await;
            }
            Verdict::NotNeeded => self.part_and_linger().await,
            Verdict::Stopped => self.abort(),
            Verdict::Reset => {
                self.counters.hang_ups.add();
                self.abort();
            }
        }
    }

    /// The caller must not take what it has for the whole answer.
    fn abort(&self) {
        if let Some(socket) = self.connection.take_stream() {
            socket.abort();
        }
    }

    async fn refuse(&self, refusal: ServerRefusal) {
        self.send_last(&(self.words)(refusal)).await;
    }

    async fn send_last(&self, words: &[u8]) {
        if let Ok(Ok(())) = tokio::time::timeout(FAREWELL, self.connection.write_raw(words)).await {
            self.part(true).await;
        }
    }

    async fn part_and_linger(&self) {
        self.part(!self.connection.is_between_requests()).await;
    }

    /// Takes leave; then takes in what the caller is still sending, if it is, until it has seen that nobody listens.
    async fn part(&self, still_sending: bool) {
        let Some(mut socket) = self.connection.take_stream() else { return };
        // A caller that does not take the farewell has gone.
        let _ = tokio::time::timeout(FAREWELL, socket.shutdown()).await;
        if still_sending && !self.connection.observer().is_half_closed() {
            linger(socket.tcp()).await;
        }
    }
}

pub(super) async fn linger(tcp: &mut TcpStream) {
    // On the heap: this is a part of every connection's future.
    let mut sink = vec![0; 16 * 1024];
    let drained = async { while matches!(tcp.read(&mut sink).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
