//! `unpair-account` by an application that has tokens of the gateway's own: it detaches this application
//! alone. The rule: whatever the caller's `allow` says, and however often an application asks, such a call
//! never reaches the platform, where it would end the pairing of every user (threats, row 27).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::gateway::inbound::caller;
use crate::gateway::inbound::target;
use crate::gateway::inbound::token::TokenClaims;
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::{CallerRules, GatewaySettings};
use crate::http1::RequestHead;
use crate::model::endpoint::EndpointId;

use super::OAuthFacade;
use super::pair_request::PairRequest;
use super::vendor_response::{failure, login_failure, unpaired};
use crate::pairing::LoginError;

/// An application that detaches itself.
pub struct Unpairing {
    pub caller: Arc<CallerRules>,
    claims: TokenClaims,
}

impl OAuthFacade {
    /// Whether a request is such a call. By its token alone, whatever else identifies it, and by any method:
    /// the gateway would let an operator's key unpair for everybody.
    pub(super) fn unpairing(
        &self,
        settings: &GatewaySettings,
        head: &RequestHead,
    ) -> Option<Result<Unpairing, Refusal>> {
        if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) || !settings.has_facades {
            return None;
        }
        // A guarded path is recognised behind any base.
        let target = target::parse(&head.method, &head.uri, "").ok()?;
        if target.endpoint.id != EndpointId::UnpairAccount {
            return None;
        }
        let token = caller::gateway_token(&head.headers)?;
        // One that is stale or forged is refused like any other.
        let claims = self.shared.tokens.read(token, self.shared.clock.now()).ok()?;
        let rules = settings.caller_by_name(&claims.caller).filter(|rules| rules.has_facade())?;
        let accepted = caller::accept(rules.clone(), &head.headers);
        Some(accepted.map(|accepted| Unpairing { caller: accepted.rules, claims }))
    }

    pub(super) async fn serve_unpairing(&self, call: &Unpairing, body: &[u8]) -> Response<Bytes> {
        let (caller, account) = (call.caller.name.as_str(), &call.claims.account);
        let known = self.registry.by_name(account.as_str());
        if !body.is_empty() {
            let request = match PairRequest::read(body) {
                Ok(request) => request,
                Err(why) => return failure(StatusCode::BAD_REQUEST, why),
            };
            if known.is_some_and(|known| known.identity().1 != request.account) {
                return failure(StatusCode::BAD_REQUEST, OTHER_ACCOUNT);
            }
        }
        let grants = &self.known_tokens.application_grants;
        let standing = grants.refresh_token_of(caller, account).is_some();
        let is_its_own = call.claims.grant.is_none_or(|grant| grants.is_valid(grant, caller, account));
        if standing && !is_its_own {
            return failure(StatusCode::UNAUTHORIZED, OLD_TOKEN);
        }
        // Asked twice, it is detached; and another gateway may have issued what is not known here yet.
        match self.issuer.revoke(caller, account).await {
            Ok(_) => {
                tracing::info!(caller, %account, "the caller has detached itself; the account stays paired");
                unpaired()
            }
            Err(problem) => {
                tracing::warn!(caller, %account, %problem, "a grant is not revoked yet");
                login_failure(&LoginError::StoreDown)
            }
        }
    }
}

/// Authentication and Pairing V2, 4.3.2: wrong company id.
const OTHER_ACCOUNT: &str = "AccountId is not the account that this token is for";
const OLD_TOKEN: &str = "this token is of an earlier pairing: use the tokens of the last one";
