//! One connection's life: greeted, served, ended. Decides nothing about requests but whether they may be heard.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::ending::Ending;
use super::framing::{self, Framing, FramingError};
use super::pulse::{Phase, Pulse, Verdict};
use super::refusal::{ServerRefusal, to_wire};
use super::rounds::Rounds;
use super::tls::{TlsCertificates, peer_certificate};
use super::wire::{Socket, Wire, Words};
use super::{BodyError, Counters, Handler, Limits, Peer, proxy_protocol};

/// What the connections of one worker share.
pub(super) struct Worker<H> {
    pub(super) handler: Rc<H>,
    pub(super) words: Words,
    pub(super) http: hyper::server::conn::http1::Builder,
    pub(super) limits: Limits,
    pub(super) rounds: Rc<Rounds>,
    pub(super) counters: Arc<Counters>,
    pub(super) trusted_proxies: Arc<[IpNet]>,
    pub(super) tls: Option<Arc<TlsCertificates>>,
}

impl<H: Handler> Worker<H> {
    pub(super) fn words(handler: &Rc<H>) -> Words {
        let handler = handler.clone();
        Rc::new(move |refusal| to_wire(&handler.refuse(refusal)))
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
    let wire = Wire::new(socket, pulse.clone(), worker.words.clone(), worker.limits.max_head);
    let line = Rc::new(Line { worker: worker.clone(), pulse: pulse.clone(), peer: Rc::new(peer) });
    let service = service_fn(move |request| {
        let flaw = line.pulse.begin_request();
        answer(line.clone(), request, flaw)
    });
    let mut connection = worker.http.serve_connection(TokioIo::new(wire), service);
    let end = until_verdict(&pulse, &mut connection).await;

    let unfinished = pulse.unfinished();
    let answering = unfinished && pulse.answering();
    // Taking hyper apart drops the request that it was waiting for, and with it the call to the platform.
    let wire = connection.into_parts().io.into_inner();
    pulse.end();
    let ending = Ending { counters: &worker.counters, pulse: &pulse, unfinished, answering };
    ending.run(wire, end).await;
}

/// Lets `work` go on until it is done or the sweep ends the connection.
async fn until_verdict<F: Future + Unpin>(pulse: &Pulse, mut work: F) -> Result<F::Output, Verdict> {
    poll_fn(|cx| {
        pulse.watched_by(cx.waker());
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
    match until_verdict(pulse, Box::pin(greeting)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(_late)) => {
            worker.counters.handshake_timeouts.add();
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
                tracing::debug!(peer = %peer.socket_addr, %error, "connection without a usable PROXY header");
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
            tracing::debug!(peer = %peer.socket_addr, %error, "TLS handshake failed");
            None
        }
    }
}

/// What the requests of one connection share.
struct Line<H> {
    worker: Rc<Worker<H>>,
    pulse: Rc<Pulse>,
    peer: Rc<Peer>,
}

/// One request to one answer. The handler hears only requests that have a single meaning.
async fn answer<H: Handler>(
    line: Rc<Line<H>>,
    mut request: Request<Incoming>,
    flaw: Option<FramingError>,
) -> Result<Response<Answer<H::Body>>, Tunnel> {
    let Worker { handler, counters, .. } = &*line.worker;
    let framing = flaw.map_or_else(|| framing::examine(&request), Err);
    let (mut response, last) = match framing {
        Err(flaw) => {
            counters.refused_requests.add();
            (line.refuse(flaw.refusal()), true)
        }
        Ok(framing) => {
            if request.headers().contains_key(header::UPGRADE) {
                // Nobody may take this connection out of HTTP.
                request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
            }
            let handled = handler.handle(request, line.peer.clone());
            match AssertUnwindSafe(handled).catch_unwind().await {
                Ok(response) => (response.map(|body| line.handled(body)), framing == Framing::Chunked),
                Err(_panic) => {
                    counters.panics.add();
                    (line.refuse(ServerRefusal::Panicked), true)
                }
            }
        }
    };
    if response.status().is_informational() {
        return Err(Tunnel);
    }
    if last || line.pulse.draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    line.pulse.begin_answer();
    Ok(response)
}

impl<H: Handler> Line<H> {
    fn handled(&self, body: H::Body) -> Answer<H::Body> {
        Answer { body: AnswerBody::Handled { body }, end: AnswerEnd { pulse: self.pulse.clone() } }
    }

    fn refuse(&self, refusal: ServerRefusal) -> Response<Answer<H::Body>> {
        self.worker.handler.refuse(refusal).map(|text| {
            let body = AnswerBody::Refused { text: Some(text).filter(|text| !text.is_empty()) };
            Answer { body, end: AnswerEnd { pulse: self.pulse.clone() } }
        })
    }
}

/// A handler answered 101 or another interim status, which would leave HTTP: the connection is cut instead.
#[derive(Debug, thiserror::Error)]
#[error("an interim status is no answer")]
struct Tunnel;

pin_project! {
    /// The body of an answer. Tells the deadlines when it has gone.
    struct Answer<B> {
        #[pin]
        body: AnswerBody<B>,
        end: AnswerEnd,
    }
}

pin_project! {
    #[project = AnswerBodyProjection]
    enum AnswerBody<B> {
        Handled { #[pin] body: B },
        Refused { text: Option<Bytes> },
    }
}

struct AnswerEnd {
    pulse: Rc<Pulse>,
}

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.pulse.end_answer();
    }
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>>> Body for Answer<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.project().body.project() {
            AnswerBodyProjection::Handled { body } => {
                body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            AnswerBodyProjection::Refused { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            AnswerBody::Handled { body } => body.is_end_stream(),
            AnswerBody::Refused { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            AnswerBody::Handled { body } => body.size_hint(),
            AnswerBody::Refused { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
        }
    }
}
