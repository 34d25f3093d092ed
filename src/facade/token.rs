//! `POST /oauth2/token`: a refresh token that is known here gets a gateway token, and the code of a login
//! gets the login. No Align token ever leaves: an imported refresh token comes back as the application sent
//! it, so that it can go back to the vendor, or is exchanged for one of the gateway's where the caller's
//! `facade` says `adopt`.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::access::application_grants::{self, GrantStamp};
use crate::access::registry::Availability;
use crate::gateway::inbound::caller::PeerInfo;
use crate::gateway::inbound::token::{NewLoginToken, NewToken};
use crate::gateway::settings::CallerRules;
use crate::http1::Headers;
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::pairing::{self, ApplicationLogin, CodeExchange, LoginError, LoginId};

use super::OAuthFacade;
use super::client;
use super::error::{FacadeError, OAuthRequestError};
use super::form::TokenForm;
use super::id_token::{self, IdTokenClaims};
use super::vendor_response::IssuedTokens;

impl OAuthFacade {
    pub(super) async fn issue_token(
        &self,
        headers: &Headers,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<(Response<Bytes>, Arc<CallerRules>), FacadeError> {
        let form = TokenForm::read_token_request(headers, body).map_err(OAuthRequestError::InvalidRequest)?;
        let (issued, caller) = match form.grant_type.as_str() {
            "refresh_token" => self.refresh(headers, &form, peer).await?,
            "authorization_code" => self.exchange_code(headers, form, body, peer).await?,
            _ => return Err(OAuthRequestError::UnsupportedGrant.into()),
        };
        Ok((issued.response(), caller))
    }

    async fn refresh(
        &self,
        headers: &Headers,
        form: &TokenForm,
        peer: &PeerInfo,
    ) -> Result<(IssuedTokens, Arc<CallerRules>), FacadeError> {
        let client = client::authenticate_client(&self.shared, headers, form)?;
        let is_client = client.is_some();
        let caller = match client {
            Some(client) => client.rules,
            None => client::authenticate(&self.shared, headers, form, peer)?.rules,
        };
        let held = RefreshToken::new(form.refresh_token.as_str());
        if pairing::is_login_token(&held) {
            return Ok((self.refresh_login(&caller, held).await?, caller));
        }
        let granted = self.granted_account(&held, &caller.name).await;
        let is_ours = granted.is_some();
        let name = match granted.or_else(|| self.known_tokens.account_of(&held)) {
            Some(name) => name,
            None if is_client => self.first_seen(&caller, &held).await?,
            None => return Err(OAuthRequestError::UnknownToken.into()),
        };
        self.check_account(&caller, &name)?;
        let granted = if is_ours { Some(held.clone()) } else { self.adopt(&caller, &name).await };
        Ok((self.tokens_of(&caller, &name, granted.as_ref(), held)?, caller))
    }

    /// From the code of [`Pairing::authorize`](pairing::Pairing::authorize) to the login (Authentication and
    /// Pairing V2, 4.1.2). Only a client that has shown its own credentials may ask.
    async fn exchange_code(
        &self,
        headers: &Headers,
        form: TokenForm,
        body: &[u8],
        peer: &PeerInfo,
    ) -> Result<(IssuedTokens, Arc<CallerRules>), FacadeError> {
        let Some(client) = client::authenticate_client(&self.shared, headers, &form)? else {
            client::authenticate(&self.shared, headers, &form, peer)?;
            return Err(OAuthRequestError::UnsupportedGrant.into());
        };
        let caller = client.rules;
        if form.code.is_empty() {
            return Err(OAuthRequestError::InvalidRequest(
                "code is missing: it is the one that came to redirect_uri",
            )
            .into());
        }
        let (pairing, name) = (self.pairing.clone(), caller.name.clone());
        let exchanged = self.on_control(async move {
            let exchange = CodeExchange {
                caller: &name,
                code: &form.code,
                redirect_uri: form.redirect_uri.as_deref(),
                code_verifier: form.code_verifier.as_deref(),
            };
            pairing.exchange_code(exchange).await
        });
        let login = exchanged.await?.map_err(OAuthRequestError::of_code)?;
        tracing::info!(caller = %caller.name, "an application has logged in");
        let (id, nonce) = (login.id, login.nonce.clone());
        let mut tokens = self.tokens_of_login(&caller, login)?;
        if caller.wants_id_token() {
            let now = self.shared.clock.time_of_day(self.shared.clock.now());
            let claims = IdTokenClaims {
                client_id: caller.client_id().unwrap_or_default(),
                login: id,
                nonce: nonce.as_deref(),
                issued_at: now,
                expires_at: now + tokens.lifetime,
            };
            let key = id_token::signing_key(headers, body, &caller);
            tokens.id_token = key.map(|key| id_token::mint(&key, &caller, &claims));
        }
        Ok((tokens, caller))
    }

    async fn refresh_login(
        &self,
        caller: &CallerRules,
        refresh: RefreshToken,
    ) -> Result<IssuedTokens, FacadeError> {
        if !caller.has_logins() {
            return Err(OAuthRequestError::LoginOver.into());
        }
        let id = LoginId::of(&refresh);
        let (pairing, name) = (self.pairing.clone(), caller.name.clone());
        let ends_at = self.on_control(async move { pairing.login_end(id, &name).await }).await?;
        let ends_at = ends_at.map_err(|error| match error {
            LoginError::StoreDown => OAuthRequestError::StoreUnavailable,
            _ => OAuthRequestError::LoginOver,
        })?;
        self.tokens_of_login(caller, ApplicationLogin { id, refresh, ends_at, nonce: None })
    }

    /// A login lasts as long as the platform's token behind it.
    fn tokens_of_login(
        &self,
        caller: &CallerRules,
        login: ApplicationLogin,
    ) -> Result<IssuedTokens, FacadeError> {
        let now = self.shared.clock.now();
        let lifetime = login.ends_at.since(now).min(caller.token_life());
        let new_token = NewLoginToken {
            caller: &caller.name,
            login: login.id.to_bytes(),
            expires_at: now + lifetime,
            size: caller.token_size(),
        };
        let access = self.shared.tokens.mint_login(new_token).ok_or(NAME_TOO_LONG)?;
        Ok(IssuedTokens { access, refresh: login.refresh, lifetime, id_token: None })
    }

    /// A token set for an account; `granted` is the application grant that it comes of, where there is one.
    pub(super) fn tokens_of(
        &self,
        caller: &CallerRules,
        account: &AccountName,
        granted: Option<&RefreshToken>,
        held: RefreshToken,
    ) -> Result<IssuedTokens, FacadeError> {
        let now = self.shared.clock.now();
        let lifetime = caller.token_life();
        let new_token = NewToken {
            caller: &caller.name,
            account,
            issued_at: now,
            expires_at: now + lifetime,
            grant: granted.map(GrantStamp::of),
            size: caller.token_size(),
        };
        let access = self.shared.tokens.mint(new_token).ok_or(NAME_TOO_LONG)?;
        tracing::info!(caller = %caller.name, %account, "gateway token handed out");
        Ok(IssuedTokens { access, refresh: granted.cloned().unwrap_or(held), lifetime, id_token: None })
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
}

const NAME_TOO_LONG: OAuthRequestError =
    OAuthRequestError::InvalidRequest("the caller's name is too long for a token");
