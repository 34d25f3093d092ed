//! What must outlive the process: accounts, grants, pending logins, the journal. Durable before it is used, sealed at rest, atomic.
//!
//! One trait, one contract suite (`contract.rs`) that every kind of store passes.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::token::{AccessToken, RefreshToken};
use cluster::{Changes, Lease, ReplicaId};
use last_seen::{LastSeenPage, LastSeenRecord};
use unavailable::StoreUnavailable;

pub mod backup;
pub mod cluster;
pub mod key_file;
pub mod last_seen;
pub mod leader_election;
pub mod memory;
pub mod migrate;
pub mod postgres;
pub mod private_file;
pub mod rotate;
pub mod seal;
pub mod sqlite;
pub mod unavailable;

mod key_check;
mod process_lock;
mod rows;

#[cfg(test)]
pub mod contract;

/// Opens the store that the configuration names; what it refuses needs a human.
pub async fn open(config: &config::StoreConfig, clock: Clock) -> Result<Arc<dyn Store>, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => {
            Ok(Arc::new(sqlite::SqliteStore::open(path, &config.key, &environment, clock).await?))
        }
        config::StoreUrl::Postgres { url, listen_url } => {
            let listen_url = listen_url.as_deref();
            let opened = postgres::PostgresStore::open(url, listen_url, &config.key, &environment, clock);
            Ok(Arc::new(opened.await?))
        }
    }
}

/// Opens the store for what `store …` does to a whole one: moving and key rotation. A SQLite file must not be in use.
pub async fn open_migratable(
    config: &config::StoreConfig,
    clock: Clock,
) -> Result<Box<dyn migrate::Migratable>, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => {
            Ok(Box::new(sqlite::SqliteStore::open(path, &config.key, &environment, clock).await?))
        }
        config::StoreUrl::Postgres { url, .. } => {
            Ok(Box::new(postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?))
        }
    }
}

/// What keeps a store from being opened and can be seen without opening it: the fault and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct SetupError {
    pub what: String,
    pub fix: String,
}

impl SetupError {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

impl From<SetupError> for StoreError {
    fn from(error: SetupError) -> Self {
        StoreError::Refused(error.to_string())
    }
}

/// Looks at what `open` will need, each with its key. Opens no database and makes nothing.
pub fn check(config: &config::StoreConfig) -> Vec<(&'static str, SetupError)> {
    let environment = |name: &str| std::env::var_os(name);
    let mut found = Vec::new();
    let (database, may_be_new) = match &config.url {
        config::StoreUrl::Sqlite(path) => {
            let looked = sqlite::check(path);
            let is_new = looked.as_ref().is_ok_and(|is_new| *is_new);
            found.extend(looked.err().map(|error| ("store.url", error)));
            (path.display().to_string(), is_new)
        }
        config::StoreUrl::Postgres { url, listen_url } => {
            let both = [("store.url", Some(url)), ("store.listen_url", listen_url.as_ref())];
            for (key, url) in both {
                let looked = url.map(|url| postgres::check_address(url, key));
                found.extend(looked.and_then(Result::err).map(|error| (key, error)));
            }
            // Whether the database is new is known when it is opened.
            ("the database".to_owned(), true)
        }
    };
    // Where the database cannot be looked at, nobody knows whether its key has to be there.
    let unknown = found.iter().any(|(key, _)| *key == "store.url");
    let key = key_file::check(&config.key, &database, may_be_new || unknown, &environment);
    found.extend(key.err().map(|error| ("store.key", error)));
    found
}

/// Copies a store that may be in use into a new, private file.
pub async fn back_up(
    config: &config::StoreConfig,
    clock: Clock,
    into: &Path,
) -> Result<backup::Backup, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => sqlite::backup(path, into).await,
        config::StoreUrl::Postgres { url, .. } => {
            let store = postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?;
            backup::to_file(&store, into).await
        }
    }
}

/// Puts a backup into a store that holds nothing yet. No gateway may be at work on it.
pub async fn restore(
    config: &config::StoreConfig,
    clock: Clock,
    from: &Path,
) -> Result<backup::Backup, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    let kind = backup::kind_of(from)?;
    match (&config.url, kind) {
        (config::StoreUrl::Sqlite(path), backup::BackupKind::Sqlite) => {
            sqlite::restore(path, &config.key, &environment, clock, from).await
        }
        (config::StoreUrl::Postgres { url, .. }, backup::BackupKind::Postgres) => {
            // Opening an empty database would make a key that is none of the backup's.
            key_file::must_be_there(&config.key, &from.display().to_string(), &environment)?;
            let store = postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?;
            store.restore(from).await
        }
        (url, kind) => Err(StoreError::Refused(format!(
            "{} is a backup of {}, and store.url is {}: put it back into a store of its own kind, and move that with `store migrate`",
            from.display(),
            if kind == backup::BackupKind::Sqlite { "a SQLite file" } else { "a PostgreSQL database" },
            if matches!(url, config::StoreUrl::Sqlite(_)) {
                "a SQLite file"
            } else {
                "a PostgreSQL database"
            },
        ))),
    }
}

/// An answer that is on its way; stores are used as `Arc<dyn Store>`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("account {0} is not known")]
    UnknownAccount(AccountName),
    #[error("account {account} has no grant in realm {realm}")]
    UnknownGrant { account: AccountName, realm: RealmName },
    /// (realm, account id) is unique, so that nothing is refreshed by two.
    #[error("account {id} of realm {realm} is already known as {held_by}")]
    GrantTaken { realm: RealmName, id: AccountId, held_by: AccountName },
    /// A name stands for one account.
    #[error("the name {0} is taken")]
    NameTaken(AccountName),
    /// Somebody committed newer tokens in between; re-read and use theirs.
    #[error("newer tokens were committed meanwhile (generation {0})")]
    Fenced(u64),
    /// The row was tampered with or sealed under another key; only its account is affected.
    #[error("a record of {account} cannot be unsealed: {why}")]
    Unsealable { account: AccountName, why: String },
    /// Full disk, lost database, locked file: transient, tried again.
    #[error("the store is out of order: {0}")]
    Unavailable(StoreUnavailable),
    /// Another gateway has it; that one may be about to end.
    #[error("{0}")]
    InUse(String),
    /// Found at start: needs a human.
    #[error("{0}")]
    Refused(String),
}

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
    /// Grows by one with every commit of tokens. A new grant begins above every generation that its account ever had,
    /// in whatever realm, removed ones included.
    pub generation: u64,
    /// When the token endpoint last gave us tokens by a refresh (pairing does not count).
    pub refreshed_at: Option<Timestamp>,
    /// When this grant was paired or imported.
    pub obtained_at: Timestamp,
    /// Domain and Path as last accepted.
    pub route: Option<StoredRoute>,
    /// Set before a refresh goes out, cleared by the commit, or by an answer that spent nothing: what is left behind names the window in
    /// which a kill fell, or an answer that was lost.
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
}

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

/// Takes accounts as they are read.
pub type AccountSink<'a> = &'a mut (dyn FnMut(AccountRecord) + Send);

/// The durable half of the gateway. What answers `Ok` is on the disk.
pub trait Store: Send + Sync + 'static {
    fn accounts(&self) -> StoreFuture<'_, LoadedAccounts>;
    /// Hands every account over as it is read, by name, so that thousands of tokens are not held twice. What comes back is those that
    /// cannot be read, each with the reason. After an error some were handed over.
    fn each_account<'a>(&'a self, take: AccountSink<'a>) -> StoreFuture<'a, Vec<(AccountName, String)>> {
        Box::pin(async move {
            let loaded = self.accounts().await?;
            loaded.accounts.into_iter().for_each(take);
            Ok(loaded.broken)
        })
    }
    fn account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, Option<AccountRecord>>;

    /// Adds or replaces the grant of (name, realm); makes the account where it is new, with this grant current. One transaction.
    ///
    /// Replacing a grant of the same account id keeps the time of its last refresh, and its route unless a new one comes along.
    /// Of a broken record nothing is kept, so this also mends it; where another grant of the account is broken too,
    /// the new grant is in place although the answer is `Unsealable`.
    fn put_grant(&self, grant: NewGrant) -> StoreFuture<'_, AccountRecord>;
    fn set_state<'a>(&'a self, name: &'a AccountName, state: &'a AccountState) -> StoreFuture<'a, ()>;
    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()>;
    /// Writes down that a refresh is about to go out.
    fn note_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        at: Timestamp,
    ) -> StoreFuture<'a, ()>;
    /// Ends an intent whose refresh was answered without tokens: the one noted at `noted_at` for `expected`. One that somebody else noted
    /// since stays, and while another gateway holds the grant's lease nothing is touched. Says whether it was there to end.
    fn clear_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> StoreFuture<'a, bool>;
    /// Commits new tokens where `expected` is still the grant's generation, clears the intent, and returns the new generation:
    /// `expected + 1`. After `Unavailable` it may have happened all the same; a repeat is then `Fenced` by its own tokens.
    fn commit_tokens<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, u64>;
    fn set_route<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        route: &'a StoredRoute,
    ) -> StoreFuture<'a, ()>;
    /// Removes one grant, and the account with its last one (after unpair or revoke).
    /// Where the current one goes, the one obtained last becomes current.
    fn remove_grant<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()>;

    /// Forgets an account with all its grants, also one whose record cannot be read. Its timeline outlives it, and its generations never
    /// start again.
    fn remove_account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, ()>;
    /// Gives an account another name, with its grants, what is known of its tokens and when it was last seen. Its timeline stays under
    /// the old one. `NameTaken` where the new name stands for an account.
    fn rename_account<'a>(
        &'a self,
        from: &'a AccountName,
        to: &'a AccountName,
    ) -> StoreFuture<'a, AccountRecord>;

    /// SHA-256 of every refresh token that `put_grant` took for an account which still exists, with its name: what an application
    /// that refreshes by itself may still send, however often the platform has rotated it since.
    fn known_tokens(&self) -> StoreFuture<'_, Vec<([u8; 32], AccountName)>>;

    /// Also sweeps out what has expired.
    fn put_login(&self, login: PendingLogin) -> StoreFuture<'_, ()>;
    /// Reads without taking; `None` where it is unknown or expired.
    fn peek_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>>;
    /// Takes it out, so that it can be used once; `None` where it is unknown, expired or taken.
    fn take_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>>;

    /// Those that unseal; some may have expired. The others are as good as none.
    fn pending_logins(&self) -> StoreFuture<'_, Vec<PendingLogin>>;

    /// Keeps the newest [`JOURNAL_LINES`] of each account; an account's timeline outlives it.
    fn append_journal(&self, entry: JournalEntry) -> StoreFuture<'_, ()>;
    /// Newest first.
    fn journal<'a>(
        &'a self,
        account: Option<&'a AccountName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<JournalEntry>>;

    /// Whether other gateways may work on this store at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Takes the right to refresh a grant, in the whole cluster, for `life`: longer than the refresh may take. Only while
    /// `seen_generation` is the grant's. Our own lease is taken again; one for a generation that has passed holds nobody up.
    ///
    /// Without several processes (the default) it is free to whoever asks: one flight per account is the process's own business.
    fn take_lease<'a>(
        &'a self,
        _name: &'a AccountName,
        _realm: &'a RealmName,
        _owner: &'a ReplicaId,
        _seen_generation: u64,
        _life: Duration,
    ) -> StoreFuture<'a, Lease> {
        response(Lease::Taken)
    }
    /// `false` where the lease is not ours any more.
    fn extend_lease<'a>(
        &'a self,
        _name: &'a AccountName,
        _realm: &'a RealmName,
        _owner: &'a ReplicaId,
        _life: Duration,
    ) -> StoreFuture<'a, bool> {
        response(true)
    }
    /// Ends our lease; another's stays.
    fn release_lease<'a>(
        &'a self,
        _name: &'a AccountName,
        _realm: &'a RealmName,
        _owner: &'a ReplicaId,
    ) -> StoreFuture<'a, ()> {
        response(())
    }

    /// Keeps the refresh token of a commit that came too late (`Fenced`), beside the grant's own. `seen_generation` is what the commit
    /// expected. Says whether there was anything to keep: not where no refresh token came, where it is the grant's own, or where the
    /// account was paired or imported anew since.
    ///
    /// Why: two replicas refreshed with the same refresh token, since one was thought dead. Where the platform does not rotate, both got
    /// the old one back. Where it does, the winner may hold a token that the platform has already replaced by the loser's: then the
    /// loser's is the one that lives. It is tried before anybody is asked to log in. The next commit shows that the grant's own
    /// chain lives, and forgets what was kept. A platform that answers the second use of a refresh token by ending the whole grant
    /// leaves nothing that could be kept.
    fn keep_fallback_token<'a>(
        &'a self,
        _name: &'a AccountName,
        _realm: &'a RealmName,
        _seen_generation: u64,
        _tokens: &'a NewTokens,
    ) -> StoreFuture<'a, bool> {
        response(false)
    }
    /// For a grant whose refresh token the platform refuses: puts the newest kept one in its place, without an access token, and
    /// returns the new generation; refresh again with it. `None` where none is kept. `Fenced` where `expected` has passed.
    fn adopt_fallback_token<'a>(
        &'a self,
        _name: &'a AccountName,
        _realm: &'a RealmName,
        _expected: u64,
    ) -> StoreFuture<'a, Option<u64>> {
        response(None)
    }

    /// The accounts that anybody changed after `seen`: tokens, route, state, grants that came or went; not intents. To begin, ask for
    /// [`Store::newest_change`] first and read the accounts then, so that nothing falls between. Where the store was put back to an
    /// earlier time, every account is named.
    fn changes_since(&self, _seen: u64) -> StoreFuture<'_, Changes> {
        response(Changes::default())
    }
    fn newest_change(&self) -> StoreFuture<'_, u64> {
        response(0)
    }
    /// Tells of changes after `seen`, our own included, until the receiver goes. Trouble with the store only delays it.
    fn watch(
        &self,
        _seen: u64,
        told: mpsc::Sender<Vec<AccountName>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move { told.closed().await })
    }

    /// Whether `owner` does this background job for the cluster during the next `life`: it does where nobody else does. To be asked
    /// again well before that is over.
    fn lead<'a>(&'a self, _task: &'a str, _owner: &'a ReplicaId, _life: Duration) -> StoreFuture<'a, bool> {
        response(true)
    }
    /// Leaves the job to others at once.
    fn step_down<'a>(&'a self, _task: &'a str, _owner: &'a ReplicaId) -> StoreFuture<'a, ()> {
        response(())
    }

    /// Seals everything anew under the first key that is held; see [`rotate`]. A store that seals nothing has nothing to do.
    fn rotate_key(&self) -> StoreFuture<'_, rotate::Rotation> {
        response(rotate::Rotation::default())
    }

    /// Writes a copy of one moment, sealed as it is, while work goes on; says how many accounts are in it. What was written before a
    /// failure is no backup.
    fn back_up<'a>(&'a self, _out: backup::BackupSink<'a>) -> StoreFuture<'a, u64> {
        Box::pin(async { Err(StoreError::Refused("this store cannot be backed up".to_owned())) })
    }

    /// Adds to what is known of when accounts and callers were last seen; accounts that are gone are left out.
    fn merge_last_seen<'a>(&'a self, seen: &'a [LastSeenRecord]) -> StoreFuture<'a, ()>;
    /// What anybody noted after `since`, the `up_to` of an earlier answer; perhaps more. All of it for the beginning of time.
    fn last_seen(&self, since: Timestamp) -> StoreFuture<'_, LastSeenPage>;

    /// Sets every moment that lies in the future down to now: it was noted by a clock that was wrong, and
    /// until its time came round it would hold up what waits for it to pass. A token's end moves down with
    /// the moment at which the token came. Says whose grants were concerned. A store that does not outlive
    /// the process has nothing of the kind.
    fn clamp_future_times(&self) -> StoreFuture<'_, Vec<ClampedAccount>> {
        response(Vec::new())
    }

    /// Fails where the store cannot take a write right now.
    fn ping(&self) -> StoreFuture<'_, ()>;

    /// Closes files and connections in good order before the process ends, and gives the store free for another process; nothing is
    /// lost where it is never called. It is the end: a later call fails, since somebody else may be at work by then.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// What a store of one process says about the cluster that it is not part of.
fn response<'a, T: Send + 'a>(response: T) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(Ok(response)))
}

/// How much of an account's timeline is kept: three weeks of hourly refreshes.
pub const JOURNAL_LINES: usize = 500;

/// Refresh tokens kept beside a grant's own: so many of the newest, and the first, which is the last one that was proven.
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
}
