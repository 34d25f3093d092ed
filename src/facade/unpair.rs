//! `DELETE …/unpair-account` by an application that has a grant of its own: it detaches this application
//! alone. The pairing itself, which every user of the account has, is for operators (threats, row 27).

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::gateway::inbound::caller::{self, PeerInfo};
use crate::gateway::inbound::target;
use crate::gateway::refusal::Refusal;
use crate::http1::RequestHead;
use crate::model::account::AccountName;
use crate::model::endpoint::EndpointId;

use super::pair_request::PairRequest;
use super::vendor_response::{failure, login_failure, unpaired};
use super::{OAuthFacade, ServedCall};
use crate::pairing::LoginError;

impl OAuthFacade {
    /// Whether a request is such a call; any other is the gateway's.
    pub fn detaches(&self, head: &RequestHead, peer: &PeerInfo) -> bool {
        let settings = self.shared.settings.load();
        let now = self.shared.clock.now();
        let Ok(caller) = caller::identify(&settings, &self.shared.tokens, &head.headers, peer, now) else {
            return false;
        };
        let parsed = target::parse(&head.method, &head.uri, &caller.rules.url.path);
        let is_unpairing = parsed.is_ok_and(|target| target.endpoint.id == EndpointId::UnpairAccount);
        let holds_grant = |account: &AccountName| {
            self.known_tokens.application_grants.refresh_token_of(&caller.rules.name, account).is_some()
        };
        is_unpairing && caller.rules.has_facade() && caller.token_account.as_ref().is_some_and(holds_grant)
    }

    /// Serves what [`OAuthFacade::detaches`] has found.
    pub async fn serve_unpair(
        &self,
        head: &RequestHead,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<ServedCall, Refusal> {
        let settings = self.shared.settings.load();
        let now = self.shared.clock.now();
        let caller = caller::identify(&settings, &self.shared.tokens, &head.headers, peer, now)?;
        let target = target::parse(&head.method, &head.uri, &caller.rules.url.path)?;
        let account = caller.token_account.ok_or(Refusal::AccountNotChosen(Vec::new()))?;
        let response = self.detach(&caller.rules.name, &account, body).await;
        Ok(ServedCall { response, caller: caller.rules, endpoint: target.endpoint })
    }

    async fn detach(&self, caller: &str, account: &AccountName, body: &[u8]) -> Response<Bytes> {
        let request = match PairRequest::read(body) {
            Ok(request) => request,
            Err(why) => return failure(StatusCode::BAD_REQUEST, why),
        };
        let known = self.registry.by_name(account.as_str());
        if known.is_some_and(|known| known.identity().1 != request.account) {
            return failure(StatusCode::BAD_REQUEST, OTHER_ACCOUNT);
        }
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
