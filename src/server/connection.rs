//! One connection's life: handshake, requests, close. It decides only whether a request is well-framed enough
//! to be handled.

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

use crate::http1::{
    ReadHeadError, Request, RequestFraming, RequestHead, ResponseContext, ServerConnection, WriteError,
    request_framing,
};

use super::activity::{CloseReason, ConnectionActivity, Phase};
use super::closer::{Closer, ConnectionOutcome, RefusalRenderer, linger};
use super::failure_log::{FailureKind, FailureLog, handshake_reason};
use super::forward_proxy::{self, ProxiedRequest, ProxyStart};
use super::listen::ListenerKind;
use super::proxy_protocol::{ProxyError, VERSION_1};
use super::refusal::{ServerRefusal, to_wire};
use super::socket::Socket;
use super::timeouts::ConnectionTable;
use super::tls::{TlsCertificates, peer_certificate};
use super::{Handler, Peer, RequestedHost, ServerCounters, ServerLimits, proxy_protocol};

/// What the connections of one worker share.
pub(super) struct Worker<H> {
    pub(super) handler: Rc<H>,
    pub(super) render_refusal: RefusalRenderer,
    pub(super) limits: ServerLimits,
    pub(super) connections: Rc<ConnectionTable>,
    pub(super) counters: Arc<ServerCounters>,
    pub(super) trusted_proxies: Arc<[IpNet]>,
    pub(super) tls: Option<Arc<TlsCertificates>>,
    pub(super) forward_proxy: Option<Arc<TlsCertificates>>,
    pub(super) failure_log: Arc<FailureLog>,
}

impl<H: Handler> Worker<H> {
    pub(super) fn refusal_renderer(handler: &Rc<H>) -> RefusalRenderer {
        let handler = handler.clone();
        Rc::new(move |refusal| to_wire(&handler.refuse(refusal, None)))
    }

    fn refused(&self, refusal: ServerRefusal) -> ConnectionOutcome {
        self.counters.refused_requests.add();
        ConnectionOutcome::Refused((self.render_refusal)(refusal))
    }

    /// Logs a failed connection, unless one of this peer was logged lately.
    fn log_failure(&self, failure: FailureKind, peer: IpAddr, reason: &dyn fmt::Display) {
        if self.failure_log.should_log(failure, peer, Instant::now()) {
            match failure {
                FailureKind::ProxyHeader => {
                    tracing::info!(%peer, %reason, "connection without a usable PROXY header")
                }
                FailureKind::Handshake => tracing::info!(%peer, %reason, "TLS handshake failed"),
            }
        }
    }

    /// What becomes of a request to a forward proxy that no handler shall see. Other listeners' requests
    /// pass.
    fn outcome_as_proxy(&self, head: &RequestHead, peer: &Peer) -> Option<ConnectionOutcome> {
        let own = peer.forward_proxy?;
        let hosts = self.forward_proxy.as_ref()?.hosts()?;
        match forward_proxy::classify(head, &hosts) {
            ProxiedRequest::Ours => None,
            ProxiedRequest::Pac => Some(ConnectionOutcome::Answered(forward_proxy::pac(head, &hosts, own))),
            ProxiedRequest::Refused => Some(self.refused_head(ServerRefusal::ProxyTarget, head)),
        }
    }

    /// A request whose head could be read: the refusal may depend on what was asked for.
    fn refused_head(&self, refusal: ServerRefusal, head: &RequestHead) -> ConnectionOutcome {
        self.counters.refused_requests.add();
        ConnectionOutcome::Refused(to_wire(&self.handler.refuse(refusal, Some(head))))
    }
}

/// Counts a connection as open until it is dropped.
pub(super) struct ConnectionGuard {
    connections: Rc<ConnectionTable>,
    counters: Arc<ServerCounters>,
    activity: Rc<ConnectionActivity>,
}

impl ConnectionGuard {
    /// The caller has already incremented `open`.
    pub(super) fn new(connections: &Rc<ConnectionTable>, counters: &Arc<ServerCounters>) -> Self {
        Self { connections: connections.clone(), counters: counters.clone(), activity: connections.insert() }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.counters.panics.add();
        }
        self.connections.remove(&self.activity);
        self.counters.open.leave();
    }
}

pub(super) async fn run<H: Handler>(
    worker: Rc<Worker<H>>,
    guard: ConnectionGuard,
    tcp: TcpStream,
    addr: SocketAddr,
    kind: ListenerKind,
) {
    let activity = guard.activity.clone();
    // Responses leave in one write; waiting for more would only delay them. Fails on a closed socket.
    let _ = tcp.set_nodelay(true);
    let Some((socket, peer)) = prepare(&worker, &activity, tcp, addr, kind).await else { return };

    activity.enter(Phase::AwaitingRequest);
    let connection = ServerConnection::new(socket, activity.clone(), worker.limits.head());
    let abort_on_drop = AbortOnDrop { connection: &connection };
    let peer = Rc::new(peer);
    let outcome = {
        let serving = pin!(serve(&worker, &connection, &peer));
        let is_reset = || connection.with_stream(Socket::has_failed).unwrap_or(false);
        until_closed(&activity, serving, is_reset).await.unwrap_or_else(ConnectionOutcome::Closed)
        // Here a request that was being handled is dropped, and with it the call to the platform.
    };
    activity.begin_close();
    drop(abort_on_drop);
    // Boxed, like all that comes once in a connection's life.
    Box::pin(
        Closer {
            counters: &worker.counters,
            render_refusal: &worker.render_refusal,
            connection: &connection,
        }
        .run(outcome),
    )
    .await;
}

/// A response cut short by a panic or by the end of its runtime must not look complete.
struct AbortOnDrop<'a> {
    connection: &'a ServerConnection<Socket, Rc<ConnectionActivity>>,
}

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        if self.connection.observer().in_flight()
            && let Some(socket) = self.connection.take_stream()
        {
            socket.abort();
        }
    }
}

/// Serves request after request, in order. The handler gets only requests that have a single meaning.
async fn serve<H: Handler>(
    worker: &Worker<H>,
    connection: &Rc<ServerConnection<Socket, Rc<ConnectionActivity>>>,
    peer: &Rc<Peer>,
) -> ConnectionOutcome {
    let activity = connection.observer();
    loop {
        let head = match connection.next_head().await {
            Ok(Some(head)) => head,
            Ok(None) => return ConnectionOutcome::Complete,
            Err(ReadHeadError::PeerClosed) => return ConnectionOutcome::PeerClosed,
            Err(ReadHeadError::Invalid(fault)) => return worker.refused(fault.into()),
        };
        let framing = match request_framing(&head) {
            Ok(framing) => framing,
            Err(error) => return worker.refused_head(error.into(), &head),
        };
        if let Some(outcome) = worker.outcome_as_proxy(&head, peer) {
            return outcome;
        }
        activity.begin_request();
        let mut context = ResponseContext::for_request(&head);
        let request = connection.start_request(head, framing.decoder());
        let response = match run_handler(worker, connection, request, peer.clone()).await {
            Ok(response) => response,
            Err(outcome) => return outcome,
        };
        if response.status().is_informational() {
            // 101 would leave HTTP: the connection is cut instead.
            return ConnectionOutcome::Aborted;
        }
        context.keep_alive &= framing != RequestFraming::Chunked && !activity.draining();
        activity.begin_response();
        match connection.write_response(context, response).await {
            Ok(true) => activity.end_response(connection.is_inside_head()),
            Ok(false) => return ConnectionOutcome::Complete,
            Err(WriteError::PeerClosed) => return ConnectionOutcome::ClientDisconnected,
            Err(WriteError::BodyFailed) => return ConnectionOutcome::Aborted,
        }
    }
}

/// One request to one response; dropped when the caller hangs up, which cancels it.
async fn run_handler<H: Handler>(
    worker: &Worker<H>,
    connection: &ServerConnection<Socket, Rc<ConnectionActivity>>,
    request: Request,
    peer: Rc<Peer>,
) -> Result<Response<H::Body>, ConnectionOutcome> {
    // Pinned before it is wrapped: moving this large future is costly.
    let mut handling = pin!(worker.handler.handle(request, peer));
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(cx))) {
        Ok(Poll::Ready(response)) => Poll::Ready(Ok(response)),
        Ok(Poll::Pending) => {
            connection.poll_peer_closed(cx).map(|()| Err(ConnectionOutcome::ClientDisconnected))
        }
        Err(_panic) => {
            worker.counters.panics.add();
            Poll::Ready(Err(ConnectionOutcome::Refused((worker.render_refusal)(ServerRefusal::Panicked))))
        }
    })
    .await
}

/// Lets `work` go on until it is done or the sweep ends the connection. `is_reset` is asked where the caller
/// has shut down its side.
async fn until_closed<F: Future + Unpin>(
    activity: &ConnectionActivity,
    mut work: F,
    is_reset: impl Fn() -> bool,
) -> Result<F::Output, CloseReason> {
    poll_fn(|cx| {
        activity.register_waker(cx.waker());
        if activity.take_reset_check() && is_reset() {
            activity.close_with(CloseReason::Reset);
        }
        match activity.close_reason() {
            Some(reason) => Poll::Ready(Err(reason)),
            None => Pin::new(&mut work).poll(cx).map(Ok),
        }
    })
    .await
}

/// Everything before the first request. Direct plain callers, the usual ones, cost nothing here.
async fn prepare<H: Handler>(
    worker: &Worker<H>,
    activity: &ConnectionActivity,
    tcp: TcpStream,
    addr: SocketAddr,
    kind: ListenerKind,
) -> Option<(Socket, Peer)> {
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let via_trusted_proxy = worker.trusted_proxies.iter().any(|net| net.contains(&addr.ip()));
    let peer = Peer {
        addr,
        socket_addr: addr,
        via_trusted_proxy,
        secure: kind == ListenerKind::Tls,
        certificate: None,
        requested_host: RequestedHost::Any,
        forward_proxy: None,
    };
    if !via_trusted_proxy && kind == ListenerKind::Plain {
        return Some((Socket::Plain(tcp), peer));
    }
    let handshake = tokio::time::timeout(worker.limits.handshake_timeout, handshake(worker, tcp, peer, kind));
    // Boxed, so that idle connections do not carry the size of a handshake around.
    match until_closed(activity, Box::pin(handshake), || false).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_late)) => {
            worker.counters.handshake_timeouts.add();
            worker.log_failure(FailureKind::Handshake, addr.ip(), &"it was not over in time");
            None
        }
        Err(_stopped) => None,
    }
}

async fn handshake<H: Handler>(
    worker: &Worker<H>,
    mut tcp: TcpStream,
    mut peer: Peer,
    kind: ListenerKind,
) -> Option<(Socket, Peer)> {
    if peer.via_trusted_proxy {
        match proxy_protocol::read(&mut tcp).await {
            Ok(Some(addr)) => peer.addr = addr,
            Ok(None) => {}
            Err(error) => {
                worker.counters.proxy_header_failures.add();
                worker.log_failure(FailureKind::ProxyHeader, peer.socket_addr.ip(), &error);
                if matches!(error, ProxyError::VersionOne) && !peer.secure {
                    send_and_close(tcp, &(worker.render_refusal)(ServerRefusal::BadRequest(VERSION_1))).await;
                }
                return None;
            }
        }
    }
    match kind {
        ListenerKind::Plain => Some((Socket::Plain(tcp), peer)),
        ListenerKind::Tls => tls_handshake(worker, worker.tls.as_ref()?, tcp, peer, None).await,
        ListenerKind::ForwardProxy => {
            proxy_handshake(worker, worker.forward_proxy.as_ref()?, tcp, peer).await
        }
    }
}

/// What a caller of the forward proxy wants: a tunnel, which ends here, or to send requests at once.
async fn proxy_handshake<H: Handler>(
    worker: &Worker<H>,
    certificates: &Arc<TlsCertificates>,
    tcp: TcpStream,
    mut peer: Peer,
) -> Option<(Socket, Peer)> {
    // Failed: the caller has gone.
    match forward_proxy::start(tcp, &*certificates.hosts()?, &worker.limits.head()).await.ok()? {
        ProxyStart::Closed => None,
        ProxyStart::Refused(tcp, refusal) => {
            worker.counters.refused_requests.add();
            send_and_close(tcp, &(worker.render_refusal)(refusal)).await;
            None
        }
        ProxyStart::Requests(tcp) => {
            peer.forward_proxy = tcp.local_addr().ok();
            peer.requested_host = RequestedHost::Unnamed;
            Some((Socket::Plain(tcp), peer))
        }
        ProxyStart::Tunnel(tcp, host) => {
            peer.secure = true;
            tls_handshake(worker, certificates, tcp, peer, Some(&host)).await
        }
    }
}

async fn tls_handshake<H: Handler>(
    worker: &Worker<H>,
    certificates: &Arc<TlsCertificates>,
    tcp: TcpStream,
    mut peer: Peer,
    tunnel_host: Option<&str>,
) -> Option<(Socket, Peer)> {
    match certificates.accept(tcp, tunnel_host).await {
        Ok((stream, requested_host)) => {
            peer.certificate = peer_certificate(stream.get_ref().1);
            peer.requested_host = requested_host;
            Some((Socket::Tls(Box::new(stream)), peer))
        }
        Err(error) => {
            worker.counters.tls_failures.add();
            worker.log_failure(FailureKind::Handshake, peer.addr.ip(), &handshake_reason(&error));
            None
        }
    }
}

/// A last response to a peer that has sent something else than TLS or a request.
async fn send_and_close(mut tcp: TcpStream, bytes: &[u8]) {
    if tcp.write_all(bytes).await.is_ok() && tcp.shutdown().await.is_ok() {
        linger(&mut tcp).await;
    }
}
