//! `POST /oauth2/revoke`: an application gives its own grant back. The account stays paired, and other
//! applications go on: the real revocation hits every user of the account and is for operators (threats, row
//! 27).

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::refusal::Refusal;
use crate::http1::Headers;
use crate::model::account::AccountName;
use crate::model::endpoint::Group;
use crate::model::token::RefreshToken;

use super::OAuthFacade;
use super::client;
use super::error::{FacadeError, OAuthRequestError};
use super::form::TokenForm;

impl OAuthFacade {
    pub(super) async fn revoke(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<Response<Bytes>, FacadeError> {
        let form = TokenForm::read(headers, body).map_err(OAuthRequestError::InvalidRequest)?;
        let caller = client::authenticate(&self.shared, headers, &form, peer)?.rules;
        if !caller.has_facade() {
            return Err(FacadeError::Gateway(Refusal::CallNotAllowed(Group::Revoke)));
        }
        let account = self.account_to_revoke(&form.token, &caller.name).await;
        let account = account.ok_or(OAuthRequestError::NotRevocable)?;
        let revoked = self.issuer.revoke(&caller.name, &account).await;
        revoked.map_err(|problem| {
            tracing::warn!(caller = %caller.name, %account, %problem, "a grant is not revoked yet");
            OAuthRequestError::StoreUnavailable
        })?;
        tracing::info!(caller = %caller.name, %account, "the caller has revoked its grant");
        Ok(empty_response())
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

/// RFC 7009, 2.2: 200, and whatever stands in the body is ignored.
fn empty_response() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"{}"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
