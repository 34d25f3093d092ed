//! The vendor's OAuth and pairing, answered for applications that do it by themselves. No Align token ever
//! leaves: what an application gets is the gateway's, bound to it and to one account (threats, row 33).

mod adoption;
mod authorize;
mod client;
mod credentials;
mod error;
mod form;
mod id_token;
mod login_calls;
mod oauth_endpoint;
mod pair_request;
mod revoke;
mod token;
mod unpair;
mod vendor_response;

use std::sync::Arc;

use http::HeaderValue;
use tokio::runtime::Handle;

use crate::access::application_grant_issuer::ApplicationGrantIssuer;
use crate::access::known_tokens::KnownTokens;
use crate::access::registry::AccountRegistry;
use crate::gateway::inbound::caller::{self, PeerInfo};
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::CallerRules;
use crate::gateway::{GatewayShared, LocalResponse};
use crate::http1::RequestHead;
use crate::model::endpoint::{self, EndpointId};
use crate::pairing::{LoginId, Pairing};

pub use adoption::AdoptionPace;
pub use form::MAX_FORM;
pub use oauth_endpoint::{OAuthEndpoint, oauth_endpoint};
use unpair::Unpairing;

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

/// An API call that is answered here, with who makes it.
pub enum ApiCall {
    /// It carries the token of a login, which opens no account yet.
    OfLogin { caller: Arc<CallerRules>, login: LoginId },
    /// An application detaches itself.
    Unpair(Unpairing),
}

impl ApiCall {
    pub fn caller(&self) -> &Arc<CallerRules> {
        match self {
            Self::OfLogin { caller, .. } => caller,
            Self::Unpair(unpairing) => &unpairing.caller,
        }
    }
}

impl OAuthFacade {
    /// Serves a POST to an OAuth endpoint; `body` is at most [`MAX_FORM`] bytes.
    pub async fn serve_oauth(
        &self,
        endpoint: OAuthEndpoint,
        head: &RequestHead,
        body: &[u8],
        peer: &PeerInfo,
        request_id: &HeaderValue,
    ) -> LocalResponse {
        let (row, served) = match endpoint {
            OAuthEndpoint::Token => (EndpointId::Token, self.issue_token(&head.headers, body, peer).await),
            OAuthEndpoint::Revoke => (EndpointId::Revoke, self.revoke(&head.headers, body, peer).await),
            OAuthEndpoint::Authorize => return self.authorize(head, body),
        };
        let (response, caller) = match served {
            Ok((response, caller)) => (response, Some(caller)),
            Err(error) => (error.response(request_id), None),
        };
        LocalResponse { response, caller, endpoint: endpoint::row_of(row), account: None }
    }

    /// Whether a request is an API call of ours, and whose. `None` is the gateway's. A glance at every call.
    pub fn api_call(&self, head: &RequestHead, peer: &PeerInfo) -> Option<Result<ApiCall, Refusal>> {
        let settings = self.shared.settings.load();
        if caller::login_token(&head.headers).is_some() {
            let (tokens, now) = (&self.shared.tokens, self.shared.clock.now());
            let identified = caller::identify_login(&settings, tokens, &head.headers, peer, now);
            return Some(
                identified
                    .map(|(caller, login)| ApiCall::OfLogin { caller, login: LoginId::from_bytes(login) }),
            );
        }
        self.unpairing(&settings, head).map(|call| call.map(ApiCall::Unpair))
    }

    /// Serves an API call; `body` is at most [`MAX_FORM`] bytes.
    pub async fn serve_api(
        &self,
        call: &ApiCall,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<LocalResponse, Refusal> {
        match call {
            ApiCall::OfLogin { caller, login } => self.serve_login_call(caller, *login, head, body).await,
            ApiCall::Unpair(unpairing) => Ok(LocalResponse {
                response: self.serve_unpairing(unpairing, body).await,
                caller: None,
                endpoint: endpoint::row_of(EndpointId::UnpairAccount),
                account: None,
            }),
        }
    }

    /// Runs a step where the calls to store and platform belong. It goes on when the application disconnects:
    /// for what must not be cut off.
    async fn on_control<T: Send + 'static>(
        &self,
        step: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        ended(self.runtime.spawn(step).await)
    }

    /// The same for what only reads: it ends with the application.
    async fn read_on_control<T: Send + 'static>(
        &self,
        step: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(step, &self.runtime);
        match task.join_next().await {
            Some(done) => ended(done),
            None => Err(Refusal::Panicked),
        }
    }
}

fn ended<T>(done: Result<T, tokio::task::JoinError>) -> Result<T, Refusal> {
    done.map_err(|problem| {
        tracing::error!(
            panicked = problem.is_panic(),
            "a call of an application ended in a fault of the gateway"
        );
        Refusal::Panicked
    })
}
