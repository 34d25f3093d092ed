//! The vendor's OAuth and pairing, answered for applications that do it by themselves. No Align token ever
//! leaves: what an application gets is the gateway's, bound to it and to one account (threats, row 33).

mod adoption;
mod authorize;
mod client;
mod credentials;
mod endpoint;
mod error;
mod form;
mod id_token;
mod login_calls;
mod pair_request;
mod revoke;
mod token;
mod unpair;
mod vendor_response;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response};
use tokio::runtime::Handle;

use crate::access::application_grant_issuer::ApplicationGrantIssuer;
use crate::access::known_tokens::KnownTokens;
use crate::access::registry::AccountRegistry;
use crate::gateway::GatewayShared;
use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::CallerRules;
use crate::http1::RequestHead;
use crate::model::endpoint::Endpoint;
use crate::pairing::Pairing;

pub use adoption::AdoptionPace;
pub use endpoint::{ApiCall, OAuthEndpoint, api_call, oauth_endpoint};
pub use form::MAX_FORM;

/// Serves the OAuth and pairing requests of callers.
pub struct OAuthFacade {
    pub shared: Arc<GatewayShared>,
    pub known_tokens: Arc<KnownTokens>,
    pub issuer: ApplicationGrantIssuer,
    pub registry: Arc<AccountRegistry>,
    pub pairing: Arc<Pairing>,
    /// Where the calls to store and platform run, so that an application that disconnects stops none.
    pub runtime: Handle,
    pub adoption_pace: AdoptionPace,
}

/// An API call that was answered here.
pub struct ServedCall {
    pub response: Response<Bytes>,
    pub caller: Arc<CallerRules>,
    pub endpoint: &'static Endpoint,
}

impl OAuthFacade {
    /// Serves a POST to the token or revocation endpoint; `body` is at most [`MAX_FORM`] bytes.
    pub async fn serve_oauth(
        &self,
        endpoint: OAuthEndpoint,
        head: &RequestHead,
        body: &[u8],
        peer: &PeerInfo,
        request_id: &HeaderValue,
    ) -> Response<Bytes> {
        let served = match endpoint {
            OAuthEndpoint::Token => self.issue_token(&head.headers, body, peer).await,
            OAuthEndpoint::Revoke => self.revoke(&head.headers, body, peer).await,
            // It takes parameters in the body as well (RFC 6749, 3.1).
            OAuthEndpoint::Authorize => Ok(self.authorize(std::str::from_utf8(body).ok())),
        };
        served.unwrap_or_else(|error| error.response(request_id))
    }

    /// Serves an API call; `body` is at most [`MAX_FORM`] bytes.
    pub async fn serve_api(
        &self,
        call: ApiCall,
        head: &RequestHead,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<ServedCall, Refusal> {
        match call {
            ApiCall::OfLogin => self.serve_login_call(head, body, peer).await,
            ApiCall::Unpair => self.serve_unpair(head, body, peer).await,
        }
    }

    async fn on_control<T: Send + 'static>(
        &self,
        step: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.runtime.spawn(step).await.map_err(|problem| {
            tracing::error!(
                panicked = problem.is_panic(),
                "a call of an application ended in a fault of the gateway"
            );
            Refusal::Panicked
        })
    }
}
