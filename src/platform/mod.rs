//! Speaks to iTero's control calls: OAuth, discovery, accounts. One attempt per method, every response
//! validated, every error typed by blame. Never retries and never stores; those are `access`' and `pairing`'s
//! business.

mod accounts;
mod control_call;
mod control_client;
mod decompress;
mod discovery;
mod documented_outcome;
mod loose_json;
mod oauth;
mod oauth_errors;
mod read;
#[cfg(test)]
mod responder;
mod retry_after;
mod strict_json;
mod token_response;

use std::time::Duration;

use http::HeaderValue;
use url::Url;

use crate::config;
use crate::model::account::AccountId;
use crate::model::route::{Route, RouteError};
use crate::model::token::{RefreshToken, TokenSet};
use crate::upstream::Connector;

use control_call::ControlCall;
use control_client::{CallLimits, ControlClient};
pub use read::ReadResponse;

/// One realm's control calls. The methods stand in `oauth`, `discovery` and `accounts`.
pub struct PlatformClient {
    realm: config::RealmConfig,
    /// Checked once: with it discovery is never asked.
    pinned: Option<Route>,
    client: ControlClient,
}

/// Why a realm's control calls cannot be set up; the configuration must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformSetupError {
    #[error("the pinned `route` is not usable: {0}")]
    Route(#[from] RouteError),
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

impl PlatformClient {
    /// Opens no connection.
    pub fn new(realm: &config::RealmConfig, connector: Connector) -> Result<Self, PlatformSetupError> {
        Self::with_limits(realm, connector, CallLimits::default())
    }

    fn with_limits(
        realm: &config::RealmConfig,
        connector: Connector,
        limits: CallLimits,
    ) -> Result<Self, PlatformSetupError> {
        let pinned = realm.route.as_ref().map(|pin| Route::parse(&pin.domain, &pin.path, &realm.hosts));
        let client = ControlClient::new(connector, limits, realm.hosts.allow_insecure)
            .map_err(PlatformSetupError::Client)?;
        Ok(Self { realm: realm.clone(), pinned: pinned.transpose()?, client })
    }

    /// Sends `via` with every call, by which this gateway knows a call that arrives at itself: on a machine
    /// whose hosts file or proxy setting leads the platform's names to it.
    #[must_use]
    pub fn with_via(mut self, via: HeaderValue) -> Self {
        self.client.via = Some(via);
        self
    }

    /// An address below a route, checked again: a stored route may be older than `allowed_hosts` (threats,
    /// row 7).
    fn below(&self, call: ControlCall, route: &Route, endpoint: &str) -> Result<Url, PlatformError> {
        let refused =
            |why: String| PlatformError::new(call, Blame::Realm, PlatformErrorKind::RouteRefused, None, why);
        let url = Url::parse(&format!("{route}/{endpoint}")).map_err(|error| refused(error.to_string()))?;
        match self.realm.hosts.check(&url) {
            Ok(()) => Ok(url),
            Err(problem) => Err(refused(format!("the route {} is not called: {problem}", route.domain()))),
        }
    }
}

/// Whose fault it is. Decided where the response is parsed, never by searching text later.
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
pub struct PlatformError {
    /// `refresh`, `code_exchange`, `discovery`, …
    pub call: &'static str,
    pub blame: Blame,
    pub status: Option<u16>,
    pub kind: PlatformErrorKind,
    /// For people and logs: no token, no body beyond the vendor's `error` word.
    pub detail: String,
    /// The response itself named what it refuses, by an OAuth word (RFC 6749, 5.2): more than a status says.
    pub named: bool,
    /// How long the platform asks to be left alone, within bounds.
    pub retry_after: Option<Duration>,
    /// The refresh token of a response whose access token cannot be used: it may have taken the place of the
    /// one that was sent.
    pub refresh: Option<RefreshToken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformErrorKind {
    /// The token endpoint refuses grant or client; 401 elsewhere.
    Refused,
    /// 403.
    Forbidden,
    /// 409: the lab is paired with another application (S1 4.3.1).
    PairedElsewhere,
    /// 200 with an empty array: discovery is not enabled, or a parameter is wrong (S1 4.2.2).
    NothingDiscovered,
    /// Discovery returned a place that the configuration does not allow.
    RouteRefused,
    /// 500: repeat.
    Failed,
    /// 504, or our own time limit: repeat after the documented pause.
    TimedOut,
    /// The connection could not be made; nothing was sent.
    Unreachable,
    /// The connection broke after the request was sent: it may have been carried out.
    Lost,
    /// A response that cannot be what the documents describe.
    Malformed,
    /// Any other status, with `Status`/`Errors` in a 200 among them.
    Unexpected,
}

impl PlatformError {
    fn new(
        call: ControlCall,
        blame: Blame,
        kind: PlatformErrorKind,
        status: Option<u16>,
        detail: impl Into<String>,
    ) -> Self {
        Self::plain(call.name(), blame, kind, status, detail)
    }

    /// Nothing but whose it is and why.
    pub(crate) fn plain(
        call: &'static str,
        blame: Blame,
        kind: PlatformErrorKind,
        status: Option<u16>,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        Self { call, blame, status, kind, detail, named: false, retry_after: None, refresh: None }
    }

    /// A response with a good status that cannot be what the documents describe. The realm's trouble: grants
    /// are kept.
    fn malformed(call: ControlCall, detail: impl Into<String>) -> Self {
        Self::new(call, Blame::Realm, PlatformErrorKind::Malformed, Some(200), detail)
    }

    /// Whoever asked has stopped waiting.
    pub fn no_response(call: &'static str, after: std::time::Duration) -> Self {
        let detail = format!("no answer within {} s", after.as_secs());
        Self::plain(call, Blame::Realm, PlatformErrorKind::TimedOut, None, detail)
    }

    /// The platform or the way to it is at fault: later, the same call may succeed.
    pub fn is_transient(&self) -> bool {
        self.blame == Blame::Realm
    }

    /// A call that is safe to send twice may be sent again, after the documented pause.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            PlatformErrorKind::Failed
            | PlatformErrorKind::TimedOut
            | PlatformErrorKind::Unreachable
            | PlatformErrorKind::Lost => true,
            PlatformErrorKind::Refused
            | PlatformErrorKind::Forbidden
            | PlatformErrorKind::PairedElsewhere
            | PlatformErrorKind::NothingDiscovered
            | PlatformErrorKind::RouteRefused
            | PlatformErrorKind::Malformed
            | PlatformErrorKind::Unexpected => false,
        }
    }

    /// The platform may have carried the call out, although it did not say so.
    pub fn may_have_acted(&self) -> bool {
        matches!(self.kind, PlatformErrorKind::Failed | PlatformErrorKind::TimedOut | PlatformErrorKind::Lost)
    }

    /// With rotation, the response that could not be read may have replaced the refresh token that was sent.
    pub fn may_have_spent_token(&self) -> bool {
        matches!(
            self.kind,
            PlatformErrorKind::Lost | PlatformErrorKind::TimedOut | PlatformErrorKind::Malformed
        )
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
pub struct PairResponse {
    pub tokens: TokenSet,
    pub company_id: Option<AccountId>,
    /// Clinics only: duplicate or missing chart numbers.
    pub warnings: Vec<String>,
}

/// What the probe with a code that cannot be valid said of our credentials (gen-api, section 2, status
/// table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsCheck {
    /// The code was refused, so it was looked at, so the client was accepted.
    Good,
    /// The client was refused.
    Bad,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenHint {
    Access,
    Refresh,
}
