//! The platform's control calls as renewal and pairing make them. One trait, so that both can be tested against a
//! scripted platform.

use std::future::Future;
use std::pin::Pin;

use url::Url;

use crate::model::account::AccountId;
use crate::model::route::Route;
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{CredentialsCheck, PairResponse, Platform, PlatformError, RelatedAccount, TokenHint};

pub type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A control call under way: it succeeds, or says what the platform did instead.
pub type ControlCall<'a, T> = Call<'a, Result<T, PlatformError>>;

/// One realm's control calls, one attempt each.
pub trait ControlCalls: Send + Sync + 'static {
    /// Where the browser logs in. Nothing is sent.
    fn authorize_url(&self, state: &str) -> Url;
    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> ControlCall<'a, TokenSet>;
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> ControlCall<'a, TokenSet>;
    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> ControlCall<'a, ()>;
    fn probe_credentials(&self) -> Call<'_, CredentialsCheck>;

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> ControlCall<'a, Route>;
    fn discover<'a>(&'a self, last: Option<&'a Route>, bearer: &'a AccessToken) -> ControlCall<'a, Route>;
    /// The later discovery over a route that is not in use: where it says that calls go.
    fn prove<'a>(&'a self, route: &'a Route, bearer: &'a AccessToken) -> ControlCall<'a, Route>;

    fn related_accounts<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> ControlCall<'a, Vec<RelatedAccount>>;
    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> ControlCall<'a, PairResponse>;
    fn unpair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> ControlCall<'a, ()>;
}

impl ControlCalls for Platform {
    fn authorize_url(&self, state: &str) -> Url {
        Platform::authorize_url(self, state)
    }

    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> ControlCall<'a, TokenSet> {
        Box::pin(Platform::exchange_code(self, code))
    }

    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> ControlCall<'a, TokenSet> {
        Box::pin(Platform::refresh(self, refresh))
    }

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> ControlCall<'a, Route> {
        Box::pin(Platform::discover_first(self, bearer))
    }

    fn discover<'a>(&'a self, last: Option<&'a Route>, bearer: &'a AccessToken) -> ControlCall<'a, Route> {
        Box::pin(Platform::discover(self, last, bearer))
    }

    fn prove<'a>(&'a self, route: &'a Route, bearer: &'a AccessToken) -> ControlCall<'a, Route> {
        Box::pin(Platform::prove(self, route, bearer))
    }

    fn related_accounts<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> ControlCall<'a, Vec<RelatedAccount>> {
        Box::pin(Platform::related_accounts(self, route, bearer))
    }

    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> ControlCall<'a, PairResponse> {
        Box::pin(Platform::pair(self, route, bearer, account, callback))
    }

    fn unpair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> ControlCall<'a, ()> {
        Box::pin(Platform::unpair(self, route, bearer, account))
    }

    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> ControlCall<'a, ()> {
        Box::pin(Platform::revoke(self, token, hint))
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        Box::pin(Platform::probe_credentials(self))
    }
}
