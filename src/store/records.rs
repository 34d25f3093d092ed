//! What a store holds: accounts with their grants, pending logins, the journal. Values only.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, AccountState, ApiVersion, RealmName};
use crate::model::token::{AccessToken, RefreshToken};

/// Every account that can be read, and those that cannot: one broken record refuses its own account only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedAccounts {
    /// By name.
    pub accounts: Vec<AccountRecord>,
    /// Each with the reason, for people.
    pub broken: Vec<(AccountName, String)>,
}

/// An account with all its grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    pub name: AccountName,
    /// The realm whose grant is used.
    pub current: RealmName,
    pub state: AccountState,
    /// It exists to be tested with: load tests and drills call no others.
    pub is_test: bool,
    /// Which version of the API discovery is asked for; `None` is the realm's.
    pub version: Option<ApiVersion>,
    /// Where the account is being moved to: its next login in that realm ends the move. Never the current
    /// realm.
    pub moving_to: Option<RealmName>,
    pub grants: Vec<GrantRecord>,
}

impl AccountRecord {
    pub fn current_grant(&self) -> Option<&GrantRecord> {
        self.grants.iter().find(|grant| grant.realm == self.current)
    }
}

/// A refresh token of an account in a realm, with what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRecord {
    pub realm: RealmName,
    pub account_id: AccountId,
    pub refresh: RefreshToken,
    /// Absent after an import until the first refresh.
    pub access: Option<StoredAccess>,
    /// Grows by one with every commit of tokens. A new grant begins above every generation that its account
    /// ever had, in whatever realm, removed ones included.
    pub generation: u64,
    /// When the token endpoint last gave us tokens by a refresh (pairing does not count).
    pub refreshed_at: Option<Timestamp>,
    /// When this grant was paired or imported.
    pub obtained_at: Timestamp,
    /// Domain and Path as last accepted.
    pub route: Option<StoredRoute>,
    /// Set before a refresh goes out, cleared by the commit, or by a response that spent nothing: what is
    /// left behind names the window in which a kill fell, or a response that was lost.
    pub intent: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccess {
    pub token: AccessToken,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRoute {
    pub domain: String,
    pub path: String,
    pub discovered_at: Timestamp,
}

/// A grant as pairing or import brings it.
#[derive(Debug, Clone)]
pub struct NewGrant {
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    pub refresh: RefreshToken,
    pub access: Option<StoredAccess>,
    pub route: Option<StoredRoute>,
    pub at: Timestamp,
    /// Whether the account uses this grant from now on.
    pub make_current: bool,
    /// The state after it; `None` keeps the account's (a new account: `Ready`).
    pub state: Option<AccountState>,
    /// Where `refresh` came by a refresh that was made before the grant is stored.
    pub trial: Option<TrialRefresh>,
}

/// The refresh with which a token was tried before it is stored.
#[derive(Debug, Clone)]
pub struct TrialRefresh {
    /// The refresh token that was handed in: applications may hold it, so it is known too.
    pub handed_in: RefreshToken,
    pub refreshed_at: Timestamp,
}

/// What a refresh brought. `refresh: None` keeps the old refresh token.
#[derive(Debug, Clone)]
pub struct NewTokens {
    pub access: StoredAccess,
    pub refresh: Option<RefreshToken>,
    pub refreshed_at: Timestamp,
}

/// What a caller holds for an account that refreshes with the gateway instead of the platform: a refresh
/// token of the gateway's own, never Align's.
#[derive(Clone, PartialEq, Eq)]
pub struct ApplicationGrant {
    pub caller: String,
    pub account: AccountName,
    pub refresh: RefreshToken,
    /// Where the application wants scan notifications of the account (Authentication and Pairing V2, 4.3.1).
    pub callback_url: Option<String>,
}

/// Without the callback URL, which may hold a secret of the application's.
impl fmt::Debug for ApplicationGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, account, refresh, callback_url } = self;
        let callback = if callback_url.is_some() { "with" } else { "without" };
        write!(f, "ApplicationGrant({caller} for {account}, {refresh:?}, {callback} callback)")
    }
}

/// The same with its past, as it moves between stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationGrantRecord {
    pub caller: String,
    /// Grows with every grant and every revocation of this caller's for the account.
    pub generation: u64,
    pub state: ApplicationGrantState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplicationGrantState {
    Live(ApplicationGrant),
    Revoked,
    /// Does not unseal under the keys that are held, and opens nothing until it does. These are the bytes as
    /// they stand: they open under this account's name only.
    Unreadable {
        refresh_sealed: Vec<u8>,
        callback_url_sealed: Option<Vec<u8>>,
    },
}

impl ApplicationGrantRecord {
    /// `None` where no token of the caller's opens the account.
    pub fn live(&self) -> Option<&ApplicationGrant> {
        match &self.state {
            ApplicationGrantState::Live(grant) => Some(grant),
            ApplicationGrantState::Revoked | ApplicationGrantState::Unreadable { .. } => None,
        }
    }

    pub fn is_unreadable(&self) -> bool {
        matches!(self.state, ApplicationGrantState::Unreadable { .. })
    }
}

/// A login that was started and not yet finished, kept under the SHA-256 of its state or start code.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingLogin {
    pub id: [u8; 32],
    pub kind: PendingKind,
    pub expires_at: Timestamp,
    /// JSON of what the login is for; sealed. Its owner is `pairing`.
    pub payload: String,
}

/// Without the payload, which may hold login tokens.
impl fmt::Debug for PendingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingLogin({:?} until {})", self.kind, self.expires_at)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// A start link that was handed out (`pair`, `invite`).
    Start,
    /// An OAuth `state` under way.
    State,
    /// Logged in, the account is yet to be chosen.
    Choice,
    /// The code of an application's login, which the application is to exchange.
    ApplicationCode,
    /// An application's login: it may list the accounts of whoever logged in, and pair them.
    ApplicationLogin,
}

impl PendingKind {
    pub const ALL: [Self; 5] =
        [Self::Start, Self::State, Self::Choice, Self::ApplicationCode, Self::ApplicationLogin];
}

/// The event under which a store notes that an application's grant has ended with a rename. The journal has
/// the same word for one that was revoked.
pub const APPLICATION_DETACHED: &str = "application_detached";

/// One line of an account's timeline: changes and why, not calls.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JournalEntry {
    pub at: Timestamp,
    pub account: AccountName,
    /// Stable word: `paired`, `imported`, `refreshed`, `route_changed`, `needs_login`, …
    pub event: String,
    /// A sentence for people; no token, no patient.
    pub detail: String,
}

/// A grant of this account was noted in the future, by so much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClampedAccount {
    pub account: AccountName,
    pub by: Duration,
}

/// The form in which [`Store::known_tokens`] remembers a refresh token.
pub fn token_hash(refresh: &RefreshToken) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, refresh.expose().as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// How much of an account's timeline is kept: three weeks of hourly refreshes.
pub const JOURNAL_LINES: usize = 500;

/// Refresh tokens kept beside a grant's own: so many of the newest, and the first, which is the last one that
/// was proven.
pub const NEWEST_FALLBACKS: i64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_login_does_not_print_its_payload() {
        let login = PendingLogin {
            id: [1; 32],
            kind: PendingKind::Choice,
            expires_at: Timestamp::from_millis(1_700_000_000_000),
            payload: "s3cret".into(),
        };
        assert_eq!(format!("{login:?}"), "PendingLogin(Choice until 2023-11-14T22:13:20Z)");
    }

    #[test]
    fn an_applications_grant_does_not_print_its_callback_url() {
        let grant = ApplicationGrant {
            caller: "oldpms".into(),
            account: "smile".parse().unwrap(),
            refresh: RefreshToken::new("12345"),
            callback_url: Some("https://pms.test/hook?key=s3cret".into()),
        };
        let refresh = &grant.refresh;
        let expected = format!("ApplicationGrant(oldpms for smile, {refresh:?}, with callback)");
        assert_eq!(format!("{grant:?}"), expected);
    }
}
