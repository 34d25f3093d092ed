//! Where a request of a caller goes: to the facade if it is about a token or a login, else to the gateway.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::facade::{self, ApiCall, OAuthEndpoint, OAuthFacade};
use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::refusal::Refusal;
use crate::gateway::refusal::oauth_error::OAuthError;
use crate::gateway::{AccountDirectory, Gateway, GatewayShared, LocalResponse, ResponseBody};
use crate::http1::{Request, RequestBody, RequestHead};
use crate::model::endpoint;
use crate::model::legacy_host::HostRole;
use crate::server::{Handler, MakeHandler, Peer, ServerRefusal};
use crate::upstream::Stream;

use super::connectors::RealmConnectors;
use super::legacy_host::{self, OtherHost};
use super::observe::WorkerObservers;

/// Makes each worker its own gateway.
pub struct HandlerFactory {
    pub shared: Arc<GatewayShared>,
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub connectors: RealmConnectors,
    pub observers: Arc<WorkerObservers>,
    pub facade: Arc<OAuthFacade>,
}

pub struct DataHandler {
    gateway: Gateway<RealmConnectors>,
    facade: Arc<OAuthFacade>,
    shared: Arc<GatewayShared>,
}

impl MakeHandler for HandlerFactory {
    type Handler = DataHandler;

    fn make(&self, worker: usize) -> DataHandler {
        let accounts = AccountDirectory { registry: self.registry.clone(), renewals: self.renewals.clone() };
        let observer = self.observers.of_worker(worker);
        DataHandler {
            gateway: Gateway::new(self.shared.clone(), accounts, self.connectors.clone(), observer),
            facade: self.facade.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl Handler for DataHandler {
    type Body = ResponseBody<Stream>;

    fn handle(&self, request: Request, peer: Rc<Peer>) -> impl Future<Output = Response<Self::Body>> {
        let host_role = legacy_host::role(&request.head, &peer.requested_host);
        self.response(request, peer_info(&peer), host_role)
    }

    fn refuse(&self, refusal: ServerRefusal, head: Option<&RequestHead>) -> Response<Bytes> {
        let refusal = refusal_for(refusal);
        match head {
            Some(head) if self.oauth_endpoint(head).is_some() => {
                let id = self.gateway.request_id(&head.headers);
                refusal.oauth_response(&id, head.method == Method::HEAD)
            }
            _ => self.gateway.refuse(&refusal),
        }
    }
}

impl DataHandler {
    /// `host_role` is that of the host of the old platform which the request was sent to, if it was.
    pub async fn response(
        &self,
        request: Request,
        peer: PeerInfo,
        host_role: Result<Option<HostRole>, OtherHost>,
    ) -> Response<ResponseBody<Stream>> {
        let Ok(host_role) = host_role else { return self.misdirected(&request.head, OTHER_HOST) };
        if let Some(endpoint) = self.oauth_endpoint(&request.head) {
            // Boxed, so that the other calls do not carry its size around.
            Box::pin(self.oauth(endpoint, request, peer)).await
        } else if host_role == Some(HostRole::OAuth) {
            self.misdirected(&request.head, OAUTH_ALONE)
        } else if let Some(call) = self.facade.api_call(&request.head, &peer) {
            Box::pin(self.facade_api(call, request)).await
        } else {
            self.gateway.handle(request, peer).await
        }
    }

    fn misdirected(&self, head: &RequestHead, why: &'static str) -> Response<ResponseBody<Stream>> {
        self.gateway.refuse_call(head, &Refusal::Misdirected(why))
    }

    fn oauth_endpoint(&self, head: &RequestHead) -> Option<OAuthEndpoint> {
        facade::oauth_endpoint(&self.shared.settings.load(), head.uri.path())
    }

    /// An API call that the facade answers instead of the platform.
    async fn facade_api(
        &self,
        call: Result<ApiCall, Refusal>,
        request: Request,
    ) -> Response<ResponseBody<Stream>> {
        let Request { head, body } = request;
        let call = match call {
            Ok(call) => call,
            Err(refusal) => return self.gateway.refuse_call(&head, &refusal),
        };
        let served = async {
            let body = read_body(body, self.shared.settings.load().body_idle).await?;
            self.facade.serve_api(&call, &head, &body).await
        };
        self.gateway.answer_locally(&head, Some(call.caller().clone()), served).await
    }

    async fn oauth(
        &self,
        endpoint: OAuthEndpoint,
        request: Request,
        peer: PeerInfo,
    ) -> Response<ResponseBody<Stream>> {
        let Request { head, body } = request;
        let id = self.gateway.request_id(&head.headers);
        // A refresh of ours: what it is answered here must not be taken for the platform's word on the grant.
        if let Err(refusal) = self.gateway.check_loop(&head) {
            return refusal.oauth_response(&id, head.method == Method::HEAD).map(ResponseBody::full);
        }
        if !endpoint.takes(&head.method) {
            let error = OAuthError::method(endpoint.methods());
            return error.response(&id, head.method == Method::HEAD).map(ResponseBody::full);
        }
        let served = async {
            let form = match read_body(body, self.shared.settings.load().body_idle).await {
                Ok(form) => form,
                Err(refusal) => return Ok(local(refusal.oauth_response(&id, false))),
            };
            Ok(self.facade.serve_oauth(endpoint, &head, &form, &peer, &id).await)
        };
        self.gateway.answer_locally(&head, None, served).await
    }
}

fn local(response: Response<Bytes>) -> LocalResponse {
    LocalResponse { response, caller: None, endpoint: endpoint::OTHER, account: None }
}

const OTHER_HOST: &str = "the connection was opened for another host";
const OAUTH_ALONE: &str = "this host serves logins and tokens alone";

async fn read_body(body: RequestBody, patience: std::time::Duration) -> Result<Bytes, Refusal> {
    let read = Limited::new(body, facade::MAX_FORM).collect();
    match tokio::time::timeout(patience, read).await {
        Err(_) => Err(Refusal::RequestTimeout),
        Ok(Ok(form)) => Ok(form.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::ContentTooLarge),
        Ok(Err(_)) => Err(Refusal::BadFraming("the body broke off")),
    }
}

fn peer_info(peer: &Peer) -> PeerInfo {
    PeerInfo {
        addr: peer.addr.ip(),
        via_trusted_proxy: peer.via_trusted_proxy,
        certificate: peer.certificate.as_ref().map(|certificate| certificate.fingerprint),
        secure: peer.secure,
    }
}

/// The server's reasons in the gateway's words.
fn refusal_for(refusal: ServerRefusal) -> Refusal {
    match refusal {
        ServerRefusal::BadRequest(what) => Refusal::BadFraming(what),
        ServerRefusal::InvalidByte(_) => Refusal::InvalidByte(refusal.detail().into_owned()),
        ServerRefusal::HeadTooLarge => Refusal::HeadTooLarge,
        ServerRefusal::UriTooLong => Refusal::UriTooLong,
        ServerRefusal::MethodNotAllowed => Refusal::MethodNotAllowed,
        ServerRefusal::RequestTimeout => Refusal::RequestTimeout,
        ServerRefusal::TooManyConnections => Refusal::TooManyConnections,
        ServerRefusal::ProxyTarget => Refusal::ProxyTargetRefused,
        ServerRefusal::Panicked => Refusal::Panicked,
    }
}
