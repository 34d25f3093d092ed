//! The hot path: the life of one call, from its head to its line in the access log.
//!
//! `inbound` settles who calls what for which account, `forward` sends it and decides about retries,
//! `response` makes the caller's response of the platform's. Each step is pure or one attempt at something;
//! only the loop in `forward` repeats. Nothing here refreshes a token or speaks to a store: `access` does.

mod access_log;
mod built_download;
mod download_links;
pub mod forward;
pub mod inbound;
pub mod refusal;
mod request_ids;
pub mod response;
pub mod settings;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
mod v1;
mod worker;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};

use crate::access::account::Account;
use crate::http1::client::Dial;
use crate::http1::{KnownHeader, Request, RequestBody, RequestHead};
use crate::model::endpoint::{Endpoint, EndpointId, V1Difference};

pub use access_log::{AccessLog, BuiltDownload, CallObserver, LogEntry, RequestLog, Sinks};
pub use forward::upstream_body::ResponseBodyError;
pub use response::body::ResponseBody;
pub use worker::{AccountDirectory, Gateway, GatewayShared, via_header};

use forward::headers::OutboundFraming;
use forward::replay::{self, BufferState};
use forward::resolved_request::ResolvedRequest;
use inbound::account;
use inbound::caller::{self, PeerInfo};
use inbound::permission::{check_allowed, refuse_tunnel_methods};
use inbound::{cors, target};
use refusal::Refusal;
use settings::CallerRules;
use worker::GatewayResponse;

/// A response that was made without the platform, and what its line in the access log says.
pub struct LocalResponse {
    pub response: Response<Bytes>,
    /// Where the work itself found out who calls.
    pub caller: Option<Arc<CallerRules>>,
    pub endpoint: &'static Endpoint,
    pub account: Option<Arc<Account>>,
}

impl<D: Dial> Gateway<D> {
    /// One call. Dropped midway (the caller hung up), it takes its connection to the platform with it.
    pub async fn handle(&self, request: Request, peer: PeerInfo) -> GatewayResponse<D> {
        let Request { head, body } = request;
        let id = self.request_id(&head.headers);
        let mut log = self.begin_log(&head.method, id.clone());
        let outcome = self.serve(&head, body, &peer, &mut log).await;
        let mut response = outcome.unwrap_or_else(|refusal| {
            log.refusal = Some(refusal.code());
            refusal.response(&id, head.method == Method::HEAD, ResponseBody::full)
        });
        // A page that got as far as being a caller is a listed one.
        if let (Some(_), Some(origin)) = (&log.caller, head.headers.get(KnownHeader::Origin)) {
            cors::allow_origin(&mut response, origin);
        }
        log.status = response.status().as_u16();
        response.map(|body| body.with_log(log))
    }

    /// A call that is refused before anything else is asked about it; it has its line in the access log.
    pub fn refuse_call(&self, head: &RequestHead, refusal: &Refusal) -> GatewayResponse<D> {
        let id = self.request_id(&head.headers);
        let mut log = self.begin_log(&head.method, id.clone());
        let response = refusal.response(&id, head.method == Method::HEAD, ResponseBody::full);
        (log.refusal, log.status) = (Some(refusal.code()), response.status().as_u16());
        response.map(|body| body.with_log(log))
    }

    /// A call that is answered without this path; it has its line in the access log, and counts under its
    /// caller's limit until `work` is done.
    pub async fn answer_locally(
        &self,
        head: &RequestHead,
        caller: Option<Arc<CallerRules>>,
        work: impl Future<Output = Result<LocalResponse, Refusal>>,
    ) -> GatewayResponse<D> {
        let id = self.request_id(&head.headers);
        let mut log = self.begin_log(&head.method, id.clone());
        let limiter = caller.as_ref().and_then(|caller| caller.limiter.clone());
        log.caller = caller;
        let admitted = self.check_loop(head).and_then(|()| log.acquire(limiter.as_ref(), log.at));
        let answered = match admitted {
            Ok(()) => work.await,
            Err(refusal) => Err(refusal),
        };
        let response = answered.map(|local| {
            let LocalResponse { mut response, caller, endpoint, account } = local;
            response.headers_mut().insert(refusal::X_REQUEST_ID.clone(), id.clone());
            log.endpoint = endpoint;
            log.caller = log.caller.take().or(caller);
            account.iter().for_each(|account| log.set_account(account));
            response.map(ResponseBody::full)
        });
        let response = response.unwrap_or_else(|refusal| {
            log.refusal = Some(refusal.code());
            refusal.response(&id, head.method == Method::HEAD, ResponseBody::full)
        });
        log.status = response.status().as_u16();
        response.map(|body| body.with_log(log))
    }

    async fn serve(
        &self,
        head: &RequestHead,
        body: RequestBody,
        peer: &PeerInfo,
        log: &mut RequestLog,
    ) -> Result<GatewayResponse<D>, Refusal> {
        let settings = self.settings();
        refuse_tunnel_methods(&head.method)?;
        if let Some(response) = cors::preflight(&settings, head) {
            return Ok(response.map(ResponseBody::full));
        }
        self.check_loop(head)?;
        let now = log.at;
        let caller = caller::identify(&settings, &self.shared.tokens, &head.headers, peer, now)?;
        log.caller = Some(caller.rules.clone());
        log.acquire(caller.rules.limiter.as_ref(), now)?;
        let target = target::parse(&head.method, &head.uri, &caller.rules.url.path)?;
        log.endpoint = target.endpoint;
        let account =
            account::choose(&self.accounts.registry, &caller, target.account.as_deref(), &head.headers)?;
        log.set_account(&account);
        log.acquire(self.account_limiter(&settings, &account.name).as_ref(), now)?;
        check_allowed(&caller.rules, target.endpoint)?;
        let access = self.available_access(&account, log).await?;
        let request = ResolvedRequest::new(&settings, head, &caller.rules, target, account, &access, now)?;
        log.endpoint = request.endpoint;
        if request.endpoint.id == EndpointId::Discovery && request.is_read() {
            return Ok(self.discovery_response(&request, &access, log));
        }
        if request.endpoint.is_download
            && let Some(known) = self.known_download(&request, &access, log)
            && let Some(response) =
                Box::pin(self.known_download_response(&request, &access, known, log)).await?
        {
            return Ok(response);
        }
        let body = match replay::buffer(body, request_framing(head), settings.replay_limit) {
            BufferState::Ready(body) => body,
            // Boxed, like all that few calls need, so that the others do not carry its size around.
            BufferState::Incomplete(buffering) => Box::pin(buffering.read(settings.body_idle)).await?,
        };
        let body = if request.v1 == V1Difference::Procedure {
            v1::translate(body, &head.headers, &settings.v1)?
        } else {
            body
        };
        let forwarded = self.forward_with_retries(&request, access, &body, log).await?;
        self.caller_response(&request, forwarded, log).await
    }
}

fn request_framing(head: &RequestHead) -> OutboundFraming {
    if head.headers.has(KnownHeader::TransferEncoding) {
        OutboundFraming::Chunked
    } else {
        OutboundFraming::AsReceived
    }
}
