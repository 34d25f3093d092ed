//! The platform's control calls as renewal and pairing make them. One trait, so that both can be tested
//! against a scripted platform.

use std::future::Future;
use std::pin::Pin;

use url::Url;

use crate::model::account::{AccountId, ApiVersion};
use crate::model::route::Route;
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{
    CredentialsCheck, PairResponse, PlatformClient, PlatformError, ReadResponse, RelatedAccount, TokenHint,
};

pub type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A control call under way: it succeeds, or says what the platform did instead.
pub type CallFuture<'a, T> = Call<'a, Result<T, PlatformError>>;

/// One realm's control calls, one attempt each.
pub trait ControlCalls: Send + Sync + 'static {
    /// Where the browser logs in. Nothing is sent.
    fn authorize_url(&self, state: &str) -> Url;
    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet>;
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> CallFuture<'a, TokenSet>;
    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> CallFuture<'a, ()>;
    fn probe_credentials(&self) -> Call<'_, CredentialsCheck>;

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route>;
    /// The later discovery; `version` is asked for in the place of the realm's.
    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Route>;
    /// The later discovery over a route that is not in use: where it says that calls go.
    fn prove<'a>(
        &'a self,
        route: &'a Route,
        version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Route>;

    /// One of the API's own reads below a route; every status is a response.
    fn read<'a>(
        &'a self,
        route: &'a Route,
        path: &'a str,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, ReadResponse>;

    fn related_accounts<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>>;
    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> CallFuture<'a, PairResponse>;
    fn unpair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> CallFuture<'a, ()>;
}

impl ControlCalls for PlatformClient {
    fn authorize_url(&self, state: &str) -> Url {
        PlatformClient::authorize_url(self, state)
    }

    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        Box::pin(PlatformClient::exchange_code(self, code))
    }

    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> CallFuture<'a, TokenSet> {
        Box::pin(PlatformClient::refresh(self, refresh))
    }

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        Box::pin(PlatformClient::discover_first(self, bearer))
    }

    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Route> {
        Box::pin(PlatformClient::discover(self, last, version, bearer))
    }

    fn prove<'a>(
        &'a self,
        route: &'a Route,
        version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Route> {
        Box::pin(PlatformClient::prove(self, route, version, bearer))
    }

    fn read<'a>(
        &'a self,
        route: &'a Route,
        path: &'a str,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, ReadResponse> {
        Box::pin(PlatformClient::read(self, route, path, bearer))
    }

    fn related_accounts<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>> {
        Box::pin(PlatformClient::related_accounts(self, route, bearer))
    }

    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> CallFuture<'a, PairResponse> {
        Box::pin(PlatformClient::pair(self, route, bearer, account, callback))
    }

    fn unpair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> CallFuture<'a, ()> {
        Box::pin(PlatformClient::unpair(self, route, bearer, account))
    }

    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> CallFuture<'a, ()> {
        Box::pin(PlatformClient::revoke(self, token, hint))
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        Box::pin(PlatformClient::probe_credentials(self))
    }
}
