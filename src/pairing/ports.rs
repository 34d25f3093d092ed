//! What pairing asks of others, narrow enough that a test can play both sides. Nothing is decided here.

use std::future::Future;
use std::pin::Pin;

use url::Url;

use crate::access::replace_grant::ReplaceError;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName};
use crate::model::route::Route;
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{PairResponse, Platform, PlatformError, RelatedAccount, TokenHint};
use crate::store::{AccountRecord, NewGrant};

/// A control call on its way.
pub type CallFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, PlatformError>> + Send + 'a>>;

/// One realm's control calls as far as pairing needs them.
pub trait LoginCalls: Send + Sync + 'static {
    fn authorize_url(&self, state: &str) -> Url;
    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet>;
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> CallFuture<'a, TokenSet>;
    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route>;
    fn discover<'a>(&'a self, last: Option<&'a Route>, bearer: &'a AccessToken) -> CallFuture<'a, Route>;
    /// The later discovery over a route that is not in use yet.
    fn prove<'a>(&'a self, route: &'a Route, bearer: &'a AccessToken) -> CallFuture<'a, Route>;
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
    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> CallFuture<'a, ()>;
}

impl LoginCalls for Platform {
    fn authorize_url(&self, state: &str) -> Url {
        Platform::authorize_url(self, state)
    }

    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        Box::pin(Platform::exchange_code(self, code))
    }

    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> CallFuture<'a, TokenSet> {
        Box::pin(Platform::refresh(self, refresh))
    }

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        Box::pin(Platform::discover_first(self, bearer))
    }

    fn discover<'a>(&'a self, last: Option<&'a Route>, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        Box::pin(Platform::discover(self, last, bearer))
    }

    fn prove<'a>(&'a self, route: &'a Route, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        Box::pin(Platform::prove(self, route, bearer))
    }

    fn related_accounts<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>> {
        Box::pin(Platform::related_accounts(self, route, bearer))
    }

    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> CallFuture<'a, PairResponse> {
        Box::pin(Platform::pair(self, route, bearer, account, callback))
    }

    fn unpair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> CallFuture<'a, ()> {
        Box::pin(Platform::unpair(self, route, bearer, account))
    }

    fn revoke<'a>(&'a self, token: &'a str, hint: TokenHint) -> CallFuture<'a, ()> {
        Box::pin(Platform::revoke(self, token, hint))
    }
}

/// What the rest of the gateway does when an account changes.
pub trait Hooks: Send + Sync + 'static {
    /// The book takes over what the store now holds.
    fn publish(&self, record: &AccountRecord);
    /// The account's last grant is gone.
    fn withdraw(&self, name: &AccountName);
    /// The account that was called `from` is called as the record says.
    fn rename(&self, from: &AccountName, record: &AccountRecord);
    /// Returns when no refresh of the account is under way here.
    fn until_idle<'a>(&'a self, account: &'a AccountName) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// Whether the account's newest tokens are in memory only.
    fn is_unsaved(&self, account: &AccountName) -> bool;
    /// A line of the account's timeline; no token, no patient.
    fn note(&self, account: &AccountName, event: JournalEvent, detail: String);
    /// Has the platform take a refresh token before it stands in the
    /// place of the account's own, and stores it then.
    fn replace<'a>(
        &'a self,
        grant: NewGrant,
    ) -> Pin<Box<dyn Future<Output = Result<AccountRecord, ReplaceError>> + Send + 'a>>;
    /// Discovery alone, with the token at hand. The error is a sentence for people.
    fn discover<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
    /// One renewal at an operator's wish: refresh, then discovery. The error is a sentence for people.
    fn renew<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}
