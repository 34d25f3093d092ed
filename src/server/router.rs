//! An axum router behind the same sockets, limits and drain as everything else, for pages and operators.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tower_service::Service;

use crate::http1::{self, BodyError, ForwardedHeaders, RequestBody, RequestHead};

use super::workers::ServerStartError;
use super::{Handler, Listeners, MakeHandler, Peer, ServerOptions, ServerRefusal, Workers};

/// Serves `router`. Its handlers run on the `control` runtime, where store and renewal live, and go on when
/// the caller hangs up: a pairing half done is worse than one whose response nobody reads.
///
/// Requests carry [`Peer`] and `ConnectInfo<SocketAddr>` (the caller's address) as extensions.
pub fn serve_router(
    listeners: Listeners,
    options: ServerOptions,
    router: Router,
    control: Handle,
) -> Result<Workers, ServerStartError> {
    Workers::start(listeners, options, Arc::new(RouterHandler { router, control }))
}

#[derive(Clone)]
struct RouterHandler {
    router: Router,
    control: Handle,
}

impl MakeHandler for RouterHandler {
    type Handler = RouterHandler;

    fn make(&self, _worker: usize) -> RouterHandler {
        self.clone()
    }
}

impl ForwardedHeaders for Body {}

impl Handler for RouterHandler {
    type Body = Body;

    async fn handle(&self, request: http1::Request, peer: Rc<Peer>) -> Response<Body> {
        let http1::Request { head, body } = request;
        let (sender, receiver) = mpsc::channel(1);
        let receiver =
            if body.has_ended() { Body::empty() } else { Body::new(ChannelBody { receiver, ended: false }) };
        let mut request = Request::new(receiver);
        let RequestHead { method, uri, version, headers } = head;
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers.to_map();
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.addr));
        request.extensions_mut().insert(Peer::clone(&peer));
        let mut router = self.router.clone();
        let response = self.control.spawn(async move { router.call(request).await });
        let response = tokio::select! {
            response = response => response,
            never = pump_body(body, sender) => match never {},
        };
        match response {
            Ok(Ok(response)) => response,
            // The router cannot fail, so this is a panic, or a runtime that is shutting down.
            Ok(Err(_)) | Err(_) => self.refuse(ServerRefusal::Panicked, None).map(Body::from),
        }
    }

    fn refuse(&self, refusal: ServerRefusal, _head: Option<&RequestHead>) -> Response<Bytes> {
        refusal.plain()
    }
}

/// Sends a request's body, which is read on this thread alone, to where the router runs. Never ends: the
/// response does.
async fn pump_body(mut body: RequestBody, sender: mpsc::Sender<BodyMessage>) -> Infallible {
    loop {
        let chunk = poll_fn(|cx| body.poll_data(cx)).await.transpose();
        let last = !matches!(chunk, Ok(Some(_)));
        // A router that has heard enough drops its end.
        if sender.send(chunk).await.is_err() || last {
            return std::future::pending().await;
        }
    }
}

/// `None` is the end: a body that was only dropped must not look complete.
type BodyMessage = Result<Option<Bytes>, BodyError>;

/// The other end of `pump_body`.
struct ChannelBody {
    receiver: mpsc::Receiver<BodyMessage>,
    ended: bool,
}

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.receiver.poll_recv(cx)).unwrap_or(Err(BodyError::Truncated)).transpose();
        self.ended = !matches!(chunk, Some(Ok(_)));
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
