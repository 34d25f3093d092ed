//! One connection's life: greeted, served, ended. Decides nothing about requests but whether they may be heard.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::Response;
use ipnet::IpNet;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::http1::{ReadHeadError, Request, RequestHead, ResponseContext, ServerConnection, WriteError};

use super::ending::{End, Ending, Words, linger};
use super::failures::{Failure, FailureLog, handshake_reason};
use super::framing::{self, Framing};
use super::proxy_protocol::{ProxyError, VERSION_1};
use super::pulse::{Phase, Pulse, Verdict};
use super::refusal::{ServerRefusal, to_wire};
use super::rounds::Rounds;
use super::socket::Socket;
use super::tls::{TlsCertificates, peer_certificate};
use super::{Counters, Handler, Limits, Peer, proxy_protocol};

/// What the connections of one worker share.
pub(super) struct Worker<H> {
    pub(super) handler: Rc<H>,
    pub(super) words: Words,
    pub(super) limits: Limits,
    pub(super) rounds: Rc<Rounds>,
    pub(super) counters: Arc<Counters>,
    pub(super) trusted_proxies: Arc<[IpNet]>,
    pub(super) tls: Option<Arc<TlsCertificates>>,
    pub(super) failures: Arc<FailureLog>,
}

impl<H: Handler> Worker<H> {
    pub(super) fn words(handler: &Rc<H>) -> Words {
        let handler = handler.clone();
        Rc::new(move |refusal| to_wire(&handler.refuse(refusal, None)))
    }

    fn refused(&self, refusal: ServerRefusal) -> End {
        self.counters.refused_requests.add();
        End::Refused((self.words)(refusal))
    }

    /// To the log, unless it has heard of this peer lately.
    fn log_failure(&self, failure: Failure, peer: IpAddr, reason: &dyn fmt::Display) {
        if self.failures.is_news(failure, peer, Instant::now()) {
            match failure {
                Failure::ProxyHeader => {
                    tracing::info!(%peer, %reason, "connection without a usable PROXY header")
                }
                Failure::Handshake => tracing::info!(%peer, %reason, "TLS handshake failed"),
            }
        }
    }

    /// A request whose head could be read: the refusal may depend on what was asked for.
    fn refused_head(&self, refusal: ServerRefusal, head: &RequestHead) -> End {
        self.counters.refused_requests.add();
        End::Refused(to_wire(&self.handler.refuse(refusal, Some(head))))
    }
}

/// A connection's place among those that are open; given back when this goes.
pub(super) struct Admitted {
    rounds: Rc<Rounds>,
    counters: Arc<Counters>,
    pulse: Rc<Pulse>,
}

impl Admitted {
    /// The caller has counted it in.
    pub(super) fn new(rounds: &Rc<Rounds>, counters: &Arc<Counters>) -> Self {
        Self { rounds: rounds.clone(), counters: counters.clone(), pulse: rounds.admit() }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.counters.panics.add();
        }
        self.rounds.dismiss(&self.pulse);
        self.counters.open.leave();
    }
}

pub(super) async fn run<H: Handler>(
    worker: Rc<Worker<H>>,
    admitted: Admitted,
    tcp: TcpStream,
    addr: SocketAddr,
    tls: bool,
) {
    let pulse = admitted.pulse.clone();
    // Answers leave in one piece; waiting for more would only delay them. Fails on a socket that is gone.
    let _ = tcp.set_nodelay(true);
    let Some((socket, peer)) = open(&worker, &pulse, tcp, addr, tls).await else { return };

    pulse.enter(Phase::Fresh);
    let connection = ServerConnection::new(socket, pulse.clone(), worker.limits.head());
    let unfinished = CutOff { connection: &connection };
    let peer = Rc::new(peer);
    let end = {
        let serving = pin!(serve(&worker, &connection, &peer));
        let is_reset = || connection.with_stream(Socket::has_failed).unwrap_or(false);
        until_verdict(&pulse, serving, is_reset).await.unwrap_or_else(End::Verdict)
        // Here a request that was being handled is dropped, and with it the call to the platform.
    };
    pulse.end();
    drop(unfinished);
    // Boxed, like all that comes once in a connection's life.
    Box::pin(Ending { counters: &worker.counters, words: &worker.words, connection: &connection }.run(end))
        .await;
}

/// An answer cut short by a panic or by the end of its runtime must not look whole.
struct CutOff<'a> {
    connection: &'a ServerConnection<Socket, Rc<Pulse>>,
}

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        if self.connection.observer().unfinished()
            && let Some(socket) = self.connection.take_stream()
        {
            socket.abort();
        }
    }
}

/// Request after request, in order. The handler hears only requests that have a single meaning.
async fn serve<H: Handler>(
    worker: &Worker<H>,
    connection: &Rc<ServerConnection<Socket, Rc<Pulse>>>,
    peer: &Rc<Peer>,
) -> End {
    let pulse = connection.observer();
    loop {
        let head = match connection.next_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return End::Done,
            Err(ReadHeadError::PeerClosed) => return End::Gone,
            Err(ReadHeadError::Invalid(fault)) => return worker.refused(fault.into()),
        };
        let framing = match framing::examine(&head) {
            Ok(framing) => framing,
            Err(flaw) => return worker.refused_head(flaw.refusal(), &head),
        };
        pulse.begin_request();
        let mut context = ResponseContext::for_request(&head);
        let request = connection.start_request(head, framing.decoder());
        let response = match handled(worker, connection, request, peer.clone()).await {
            Ok(response) => response,
            Err(end) => return end,
        };
        if response.status().is_informational() {
            // 101 would leave HTTP: the connection is cut instead.
            return End::Cut;
        }
        context.keep_alive &= framing != Framing::Chunked && !pulse.draining();
        pulse.begin_response();
        match connection.write_response(context, response).await {
            Ok(true) => pulse.end_response(connection.is_inside_head()),
            Ok(false) => return End::Done,
            Err(WriteError::PeerClosed) => return End::HungUp,
            Err(WriteError::BodyFailed) => return End::Cut,
        }
    }
}

/// One request to one answer; dropped when the caller hangs up, which cancels it.
async fn handled<H: Handler>(
    worker: &Worker<H>,
    connection: &ServerConnection<Socket, Rc<Pulse>>,
    request: Request,
    peer: Rc<Peer>,
) -> Result<Response<H::Body>, End> {
    // Pinned before anything is put around it: it is large, and would be copied once for each coat.
    let mut handled = pin!(worker.handler.handle(request, peer));
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
        Ok(Poll::Ready(response)) => Poll::Ready(Ok(response)),
        Ok(Poll::Pending) => connection.poll_peer_closed(cx).map(|()| Err(End::HungUp)),
        Err(_panic) => {
            worker.counters.panics.add();
            Poll::Ready(Err(End::Refused((worker.words)(ServerRefusal::Panicked))))
        }
    })
    .await
}

/// Lets `work` go on until it is done or the sweep ends the connection. `is_reset` is asked where the caller
/// has shut down its side.
async fn until_verdict<F: Future + Unpin>(
    pulse: &Pulse,
    mut work: F,
    is_reset: impl Fn() -> bool,
) -> Result<F::Output, Verdict> {
    poll_fn(|cx| {
        pulse.watched_by(cx.waker());
        if pulse.takes_reset_check() && is_reset() {
            pulse.condemn(Verdict::Reset);
        }
        match pulse.verdict() {
            Some(verdict) => Poll::Ready(Err(verdict)),
            None => Pin::new(&mut work).poll(cx).map(Ok),
        }
    })
    .await
}

/// Everything before the first request. Direct plain callers, the usual ones, cost nothing here.
async fn open<H: Handler>(
    worker: &Worker<H>,
    pulse: &Pulse,
    tcp: TcpStream,
    addr: SocketAddr,
    tls: bool,
) -> Option<(Socket, Peer)> {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let balancer = worker.trusted_proxies.iter().any(|net| net.contains(&addr.ip()));
    let peer = Peer { addr, socket_addr: addr, balancer, secure: tls, certificate: None };
    if !balancer && !tls {
        return Some((Socket::Plain(tcp), peer));
    }
    let greeting = tokio::time::timeout(worker.limits.handshake_timeout, greet(worker, tcp, peer));
    // Boxed, so that idle connections do not carry the size of a handshake around.
    match until_verdict(pulse, Box::pin(greeting), || false).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(_late)) => {
            worker.counters.handshake_timeouts.add();
            worker.log_failure(Failure::Handshake, addr.ip(), &"it was not over in time");
            None
        }
        Err(_stopped) => None,
    }
}

async fn greet<H: Handler>(worker: &Worker<H>, mut tcp: TcpStream, mut peer: Peer) -> Option<(Socket, Peer)> {
    if peer.balancer {
        match proxy_protocol::read(&mut tcp).await {
            Ok(Some(addr)) => peer.addr = addr,
            Ok(None) => {}
            Err(error) => {
                worker.counters.proxy_header_failures.add();
                worker.log_failure(Failure::ProxyHeader, peer.socket_addr.ip(), &error);
                if matches!(error, ProxyError::VersionOne) && !peer.secure {
                    say_and_close(tcp, &(worker.words)(ServerRefusal::BadRequest(VERSION_1))).await;
                }
                return None;
            }
        }
    }
    let Some(certificates) = worker.tls.as_ref().filter(|_| peer.secure) else {
        return Some((Socket::Plain(tcp), peer));
    };
    match TlsAcceptor::from(certificates.current()).accept(tcp).await {
        Ok(stream) => {
            peer.certificate = peer_certificate(stream.get_ref().1);
            Some((Socket::Tls(Box::new(stream)), peer))
        }
        Err(error) => {
            worker.counters.tls_failures.add();
            worker.log_failure(Failure::Handshake, peer.addr.ip(), &handshake_reason(&error));
            None
        }
    }
}

/// What a peer is told that has sent something else than TLS or a request.
async fn say_and_close(mut tcp: TcpStream, words: &[u8]) {
    if tcp.write_all(words).await.is_ok() && tcp.shutdown().await.is_ok() {
        linger(&mut tcp).await;
    }
}
