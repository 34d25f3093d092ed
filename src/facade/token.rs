//! `POST /oauth2/token`: a refresh token that is known here gets a gateway token. No Align token ever leaves:
//! an imported one comes back as the application sent it, so that it can go back to the vendor, or is
//! exchanged for one of the gateway's where the caller's `facade` says `adopt`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::access::application_grants::{self, GrantStamp};
use crate::access::registry::Availability;
use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::inbound::token::NewToken;
use crate::gateway::settings::CallerRules;
use crate::http1::Headers;
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;

use super::OAuthFacade;
use super::client;
use super::error::{FacadeError, OAuthRequestError};
use super::form::TokenForm;

impl OAuthFacade {
    pub(super) async fn issue_token(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<Response<Bytes>, FacadeError> {
        let form = TokenForm::read_token_request(headers, body).map_err(OAuthRequestError::InvalidRequest)?;
        let caller = client::authenticate(&self.shared, headers, &form, peer)?.rules;
        if form.grant_type != "refresh_token" {
            return Err(OAuthRequestError::UnsupportedGrant.into());
        }
        let held = RefreshToken::new(form.refresh_token.as_str());
        let granted = self.granted_account(&held, &caller.name).await;
        let is_ours = granted.is_some();
        let name = granted.or_else(|| self.known_tokens.account_of(&held));
        let name = name.ok_or(OAuthRequestError::UnknownToken)?;
        self.check_account(&caller, &name)?;
        let granted = if is_ours { Some(held.clone()) } else { self.adopt(&caller, &name).await };
        let now = self.shared.clock.now();
        let lifetime = caller.token_life();
        let new_token = NewToken {
            caller: &caller.name,
            account: &name,
            issued_at: now,
            expires_at: now + lifetime,
            grant: granted.as_ref().map(GrantStamp::of),
            size: caller.token_size(),
        };
        let token = self.shared.tokens.mint(new_token);
        let token =
            token.ok_or(OAuthRequestError::InvalidRequest("the caller's name is too long for a token"))?;
        tracing::info!(caller = %caller.name, account = %name, "gateway token handed out");
        Ok(token_response(&token, &granted.unwrap_or(held), lifetime))
    }

    /// The account that one of the gateway's own refresh tokens opens for this caller. Another gateway may
    /// have handed it out a moment ago: an application must not lose its login over that.
    pub(super) async fn granted_account(&self, token: &RefreshToken, caller: &str) -> Option<AccountName> {
        let known = self.known_tokens.application_grants.account_of(token, caller);
        if known.is_some() || !application_grants::is_ours(token) {
            return known;
        }
        self.issuer.load_missing().await;
        self.known_tokens.application_grants.account_of(token, caller)
    }

    /// Whether the caller may have a token for the account now.
    fn check_account(&self, caller: &CallerRules, name: &AccountName) -> Result<(), OAuthRequestError> {
        let account = self.registry.by_name(name.as_str()).ok_or(OAuthRequestError::UnknownToken)?;
        if !caller.may_use(name, || account.identity()) {
            return Err(OAuthRequestError::NotAllowed);
        }
        let now = self.shared.clock.now();
        match account.availability(now) {
            Availability::Ready(_) | Availability::Refused { .. } | Availability::Renewable { .. } => {}
            Availability::Paused => return Err(OAuthRequestError::Paused),
            Availability::NeedsLogin { .. } => return Err(OAuthRequestError::NeedsLogin),
        }
        account.mark_used(now);
        Ok(())
    }

    /// The gateway's own refresh token for an application that brings the platform's. Where the store does
    /// not take it the application keeps what it has, and is asked again with its next refresh.
    async fn adopt(&self, caller: &CallerRules, account: &AccountName) -> Option<RefreshToken> {
        if !caller.adopts_tokens() {
            return None;
        }
        let issued = self.issuer.issue(&caller.name, account).await;
        let warn = |problem: &_| {
            tracing::warn!(caller = %caller.name, %account, %problem, "a refresh token is not exchanged yet");
        };
        issued.inspect_err(warn).ok()
    }
}

/// The vendor's shape (Authentication and Pairing V2, 4.1.3).
fn token_response(access_token: &str, refresh_token: &RefreshToken, lifetime: Duration) -> Response<Bytes> {
    json_response(
        StatusCode::OK,
        &serde_json::json!({
            "access_token": access_token,
            "refresh_token": refresh_token.expose(),
            "scope": "openid",
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
        }),
    )
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
