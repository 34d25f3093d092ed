//! Speaks to iTero's control calls: OAuth, discovery, accounts. One attempt per method, every answer validated, every trouble typed
//! by blame. Never retries and never stores; those are `access`' and `pairing`'s business.

use crate::config;
use crate::model::account::AccountId;
use crate::model::route::Route;
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use url::Url;

/// One realm's control calls.
pub struct Platform {}

/// Whose trouble it is. Decided where the wire answer is parsed, never by searching text later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The refresh token, code or bearer that was sent is no longer good: a new login helps.
    Grant,
    /// The client id or secret is refused: the operator must act, grants are fine.
    Credentials,
    /// The account itself cannot do this (paired elsewhere, wrong id, not enabled).
    Account,
    /// The platform or the way to it: time-outs, 5xx, junk, refused addresses. Try later.
    Realm,
}

/// Why a control call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {detail}")]
pub struct Trouble {
    /// `refresh`, `code_exchange`, `discovery`, …
    pub call: &'static str,
    pub blame: Blame,
    pub status: Option<u16>,
    pub kind: TroubleKind,
    /// For people and logs: no token, no body beyond the vendor's `error` word.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// 400 or 401 at the token endpoint, 401 elsewhere.
    Refused,
    /// 403.
    Forbidden,
    /// 409: the lab is paired with another application (S1 4.3.1).
    PairedElsewhere,
    /// 200 with an empty array: discovery is not enabled, or a parameter is wrong (S1 4.2.2).
    NothingDiscovered,
    /// Discovery answered with a place that the configuration does not allow.
    RouteRefused,
    /// 500: repeat.
    Failed,
    /// 504, or our own time limit: repeat after the documented pause.
    TimedOut,
    /// The connection could not be made; nothing was sent.
    Unreachable,
    /// The connection broke after the request was sent: it may have been carried out.
    Lost,
    /// An answer that cannot be what the documents describe.
    Malformed,
    /// Any other status, with `Status`/`Errors` in a 200 among them.
    Unexpected,
}

impl Trouble {
    /// Whether the documents or common sense advise a repeat.
    pub fn transient(&self) -> bool {
        self.blame == Blame::Realm
    }
}

/// An account that the logged-in user may pair.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RelatedAccount {
    pub id: AccountId,
    pub name: String,
    pub address: String,
    pub paired: bool,
}

/// What pairing brought: the second token set, used from now on (S1 4.3.1).
#[derive(Debug, Clone)]
pub struct Pairing {
    pub tokens: TokenSet,
    pub company_id: Option<AccountId>,
    /// Clinics only: duplicate or missing chart numbers.
    pub warnings: Vec<String>,
}

/// What the probe with a code that cannot be valid said of our credentials (gen-api, section 2, status table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsVerdict {
    /// 400: the code was looked at, so the client was accepted.
    Good,
    /// 401.
    Bad,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHint {
    Access,
    Refresh,
}

impl Platform {
    pub fn new(_realm: &config::Realm) -> Self {
        unimplemented!()
    }

    /// Where the browser is sent (S1 4.1.1).
    pub fn authorize_url(&self, _state: &str) -> Url {
        unimplemented!()
    }

    pub async fn exchange_code(&self, _code: &AuthorizationCode) -> Result<TokenSet, Trouble> {
        unimplemented!()
    }

    pub async fn refresh(&self, _refresh: &RefreshToken) -> Result<TokenSet, Trouble> {
        unimplemented!()
    }

    pub async fn revoke(&self, _token: &str, _hint: TokenHint) -> Result<(), Trouble> {
        unimplemented!()
    }

    pub async fn probe_credentials(&self) -> CredentialsVerdict {
        unimplemented!()
    }

    /// At `base_url`: the first discovery, and the fallback of the later ones.
    pub async fn discover_first(&self, _bearer: &AccessToken) -> Result<Route, Trouble> {
        unimplemented!()
    }

    /// At Domain/Path, then at `base_url` where that has failed. A pinned route is returned without a call.
    pub async fn discover(&self, _last: Option<&Route>, _bearer: &AccessToken) -> Result<Route, Trouble> {
        unimplemented!()
    }

    pub async fn related_accounts(
        &self,
        _route: &Route,
        _bearer: &AccessToken,
    ) -> Result<Vec<RelatedAccount>, Trouble> {
        unimplemented!()
    }

    pub async fn pair(
        &self,
        _route: &Route,
        _bearer: &AccessToken,
        _account: AccountId,
        _callback: Option<&Url>,
    ) -> Result<Pairing, Trouble> {
        unimplemented!()
    }

    pub async fn unpair(
        &self,
        _route: &Route,
        _bearer: &AccessToken,
        _account: AccountId,
    ) -> Result<(), Trouble> {
        unimplemented!()
    }
}
