//! `POST /oauth2/revoke`: an application gives its own grant back. The account stays paired, and other
//! applications go on: the real revocation hits every user of the account and is for operators (threats, row
//! 27).

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::refusal::Refusal;
use crate::gateway::settings::CallerRules;
use crate::http1::Headers;
use crate::model::account::AccountName;
use crate::model::endpoint::Group;
use crate::model::token::RefreshToken;
use crate::pairing::{self, LoginId};

use super::OAuthFacade;
use super::client;
use super::error::{FacadeError, OAuthRequestError};
use super::form::TokenForm;
use super::vendor_response::revoked;

impl OAuthFacade {
    pub(super) async fn revoke(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<(Response<Bytes>, Arc<CallerRules>), FacadeError> {
        let form = TokenForm::read(headers, body).map_err(OAuthRequestError::InvalidRequest)?;
        let caller = client::authenticate(&self.shared, headers, &form, peer)?.rules;
        if !caller.has_facade() {
            return Err(FacadeError::Gateway(Refusal::CallNotAllowed(Group::Revoke)));
        }
        if let Some(login) = self.login_to_end(&form.token) {
            return Ok((self.end_login(&caller.name, login).await?, caller));
        }
        let account = self.account_to_revoke(&form.token, &caller.name).await;
        let account = account.ok_or(OAuthRequestError::NotRevocable)?;
        let removed = self.issuer.revoke(&caller.name, &account).await;
        removed.map_err(|problem| {
            tracing::warn!(caller = %caller.name, %account, %problem, "a grant is not revoked yet");
            OAuthRequestError::StoreUnavailable
        })?;
        tracing::info!(caller = %caller.name, %account, "the caller has revoked its grant");
        Ok((revoked(), caller))
    }

    /// The login of a refresh or access token; whose it is, the store knows.
    fn login_to_end(&self, token: &str) -> Option<LoginId> {
        let refresh = RefreshToken::new(token);
        if pairing::is_login_token(&refresh) {
            return Some(LoginId::of(&refresh));
        }
        let claims = self.shared.tokens.verify_login(token, self.shared.clock.now()).ok()?;
        Some(LoginId::from_bytes(claims.login))
    }

    async fn end_login(&self, caller: &str, id: LoginId) -> Result<Response<Bytes>, FacadeError> {
        let (pairing, name) = (self.pairing.clone(), caller.to_owned());
        match self.on_control(async move { pairing.end_login(id, &name).await }).await? {
            Ok(true) => Ok(revoked()),
            Ok(false) => Err(OAuthRequestError::NotRevocable.into()),
            Err(_) => Err(OAuthRequestError::StoreUnavailable.into()),
        }
    }

    /// The account of a grant of this caller's, by its refresh token or an access token that came of it
    /// (Authentication and Pairing V2, 4.1.5 takes both).
    async fn account_to_revoke(&self, token: &str, caller: &str) -> Option<AccountName> {
        let by_refresh = self.granted_account(&RefreshToken::new(token), caller).await;
        by_refresh.or_else(|| {
            let claims = self.shared.tokens.verify(token, self.shared.clock.now()).ok()?;
            (claims.caller == caller && claims.grant.is_some()).then_some(claims.account)
        })
    }
}
