//! An axum router behind the same sockets, limits and drain as everything else, for pages and operators.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tower_service::Service;

use super::workers::StartError;
use super::{Handler, Listeners, MakeHandler, Options, Peer, ServerRefusal, Workers};

/// Serves `router`. Its handlers run on the `control` runtime, where store and renewal live, and go on when the
/// caller hangs up: a pairing half done is worse than one whose answer nobody reads.
///
/// Requests carry [`Peer`] and `ConnectInfo<SocketAddr>` (the caller's address) as extensions.
pub fn serve_router(
    listeners: Listeners,
    options: Options,
    router: Router,
    control: Handle,
) -> Result<Workers, StartError> {
    Workers::start(listeners, options, Arc::new(Routed { router, control }))
}

#[derive(Clone)]
struct Routed {
    router: Router,
    control: Handle,
}

impl MakeHandler for Routed {
    type Handler = Routed;

    fn make(&self, _worker: usize) -> Routed {
        self.clone()
    }
}

impl Handler for Routed {
    type Body = Body;

    async fn handle(&self, request: Request<Incoming>, peer: Rc<Peer>) -> Response<Body> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer.addr));
        request.extensions_mut().insert(Peer::clone(&peer));
        let mut router = self.router.clone();
        let answered = self.control.spawn(async move { router.call(request).await });
        match answered.await {
            Ok(Ok(response)) => response,
            // The router cannot fail, so this is a panic, or a runtime that is shutting down.
            Ok(Err(_)) | Err(_) => self.refuse(ServerRefusal::Panicked).map(Body::from),
        }
    }

    fn refuse(&self, refusal: ServerRefusal) -> Response<Bytes> {
        refusal.plain()
    }
}
