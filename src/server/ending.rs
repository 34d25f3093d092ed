//! The end of a connection: whether the caller is told something, taken leave of, or cut off so that it notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Counters;
use super::pulse::{Pulse, Verdict};
use super::refusal::ServerRefusal;
use super::wire::Wire;

/// How long a caller may go on sending into a closed connection. Closing at once would make the kernel answer with a
/// reset, which can overtake the refusal that explains it.
const LINGER: Duration = Duration::from_secs(2);

/// How long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The end of a connection, and what was going on when it came.
pub(super) struct Ending<'a> {
    pub(super) counters: &'a Counters,
    pub(super) pulse: &'a Pulse,
    pub(super) unfinished: bool,
    pub(super) answering: bool,
}

impl Ending<'_> {
    pub(super) async fn run(&self, wire: Wire, end: Result<hyper::Result<()>, Verdict>) {
        if wire.refused().is_some() {
            self.counters.refused_requests.add();
        }
        match end {
            Ok(Ok(())) => self.linger(wire).await,
            Ok(Err(error)) if self.unfinished => self.cut(wire, &error),
            Ok(Err(error)) if error.is_parse() => {
                if wire.refused().is_none() {
                    // hyper says nothing to an HTTP/2 preface.
                    self.counters.refused_requests.add();
                    return self.refuse(wire, ServerRefusal::BadRequest("only HTTP/1 is spoken here")).await;
                }
                self.linger(wire).await;
            }
            Ok(Err(_gone)) => {}
            Err(verdict) => self.carry_out(verdict, wire).await,
        }
    }

    async fn carry_out(&self, verdict: Verdict, mut wire: Wire) {
        match verdict {
            Verdict::SlowHead => {
                self.counters.head_timeouts.add();
                if self.pulse.scan().inside_head() {
                    self.refuse(wire, ServerRefusal::RequestTimeout).await;
                } else {
                    self.part(&mut wire).await;
                }
            }
            Verdict::SlowBody => {
                self.counters.body_timeouts.add();
                if self.answering {
                    wire.abort();
                } else {
                    self.refuse(wire, ServerRefusal::RequestTimeout).await;
                }
            }
            Verdict::Unread => {
                self.counters.write_timeouts.add();
                wire.abort();
            }
            Verdict::KeepAliveOver => {
                self.counters.keep_alive_timeouts.add();
                self.part(&mut wire).await;
            }
            Verdict::Evicted => {
                self.counters.evicted.add();
                self.part(&mut wire).await;
            }
            Verdict::NotNeeded => self.part(&mut wire).await,
            Verdict::Stopped => wire.abort(),
        }
    }

    /// The caller must not take what it has for the whole answer.
    fn cut(&self, mut wire: Wire, error: &hyper::Error) {
        if error.is_user() {
            self.counters.aborted_answers.add();
        } else {
            self.counters.hang_ups.add();
        }
        wire.abort();
    }

    async fn refuse(&self, mut wire: Wire, refusal: ServerRefusal) {
        if let Ok(Ok(())) = tokio::time::timeout(FAREWELL, wire.refuse(refusal)).await {
            self.part(&mut wire).await;
            self.linger(wire).await;
        }
    }

    async fn part(&self, wire: &mut Wire) {
        // A caller that does not take the farewell has gone.
        let _ = tokio::time::timeout(FAREWELL, wire.socket().shutdown()).await;
    }

    /// Takes in what the caller is still sending, if it is, until it has seen that nobody listens.
    async fn linger(&self, mut wire: Wire) {
        if !self.pulse.scan().between_requests() && !self.pulse.has_hung_up() {
            linger(wire.socket().tcp()).await;
        }
    }
}

pub(super) async fn linger(tcp: &mut TcpStream) {
    // On the heap: this is a part of every connection's future.
    let mut sink = vec![0; 16 * 1024];
    let drained = async { while matches!(tcp.read(&mut sink).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
