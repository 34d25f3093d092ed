//! What must outlive the process: accounts, grants, pending logins, the journal. Durable before it is used,
//! sealed at rest, atomic.
//!
//! Two traits: [`Store`], which every kind of store has, and [`ClusterStore`](cluster::ClusterStore), which a
//! store has where several gateways may work on it. One contract suite (`contract.rs`) is passed by every
//! kind.

use std::future::Future;
use std::pin::Pin;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, AccountState, ApiVersion, RealmName};
use cluster::{ClusterStore, ReplicaId};
use last_seen::{LastSeenPage, LastSeenRecord};

pub mod backup;
pub mod backup_receiver;
pub mod cluster;
pub mod key_file;
pub mod last_seen;
pub mod leader_election;
pub mod memory;
mod memory_state;
pub mod migrate;
pub mod postgres;
pub mod private_file;
pub mod rotate;
pub mod seal;
pub mod sqlite;
pub mod unavailable;

mod error;
mod key_check;
mod open;
mod process_lock;
mod records;
mod rows;
mod sql;

#[cfg(test)]
pub mod contract;

pub use error::{SetupError, StoreError};
pub use open::{back_up, check, open, open_migratable, restore};
pub use records::{
    APPLICATION_DETACHED, AccountRecord, ApplicationGrant, ApplicationGrantRecord, ApplicationGrantState,
    ClampedAccount, GrantRecord, JOURNAL_LINES, JournalEntry, LoadedAccounts, NEWEST_FALLBACKS, NewGrant,
    NewTokens, PendingKind, PendingLogin, StoredAccess, StoredRoute, TrialRefresh, token_hash,
};

/// A result that is on its way; stores are used as `Arc<dyn Store>`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Takes accounts as they are read.
pub type AccountSink<'a> = &'a mut (dyn FnMut(AccountRecord) + Send);

/// The durable half of the gateway. What returns `Ok` is on the disk.
pub trait Store: Send + Sync + 'static {
    /// What several gateways on this store agree upon; `None` where only this process can work on it.
    fn cluster(&self) -> Option<&dyn ClusterStore>;

    fn accounts(&self) -> StoreFuture<'_, LoadedAccounts>;
    /// Hands every account over as it is read, by name, so that thousands of tokens are not held twice. What
    /// comes back is those that cannot be read, each with the reason. After an error some were handed over.
    fn each_account<'a>(&'a self, take: AccountSink<'a>) -> StoreFuture<'a, Vec<(AccountName, String)>> {
        Box::pin(async move {
            let loaded = self.accounts().await?;
            loaded.accounts.into_iter().for_each(take);
            Ok(loaded.broken)
        })
    }
    fn account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, Option<AccountRecord>>;

    /// Adds or replaces the grant of (name, realm); makes the account where it is new, with this grant
    /// current. One transaction.
    ///
    /// Replacing a grant of the same account id keeps the time of its last refresh, and its route unless a
    /// new one comes along. Of a broken record nothing is kept, so this also mends it; where another grant of
    /// the account is broken too, the new grant is in place although the result is `Unsealable`.
    fn put_grant(&self, grant: NewGrant) -> StoreFuture<'_, AccountRecord>;
    fn set_state<'a>(&'a self, name: &'a AccountName, state: &'a AccountState) -> StoreFuture<'a, ()>;
    /// Which version of the API discovery is asked for; `None` is the realm's.
    fn set_version<'a>(&'a self, name: &'a AccountName, version: Option<ApiVersion>) -> StoreFuture<'a, ()>;
    /// Makes the realm's grant the one that is used; a move there is over, and so is one to where it was.
    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()>;
    /// Whether the account exists to be tested with. A new one does not.
    fn set_test<'a>(&'a self, name: &'a AccountName, is_test: bool) -> StoreFuture<'a, ()>;
    /// Marks an account as moving to a realm where it holds no grant yet, or ends that. The mark goes when a
    /// grant of that realm comes into use.
    fn set_moving<'a>(&'a self, name: &'a AccountName, to: Option<&'a RealmName>) -> StoreFuture<'a, ()>;
    /// Writes down that a refresh is about to go out.
    fn note_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        at: Timestamp,
    ) -> StoreFuture<'a, ()>;
    /// Ends an intent whose refresh brought a response without tokens: the one noted at `noted_at` for
    /// `expected`. One that somebody else noted since stays, and while another gateway holds the grant's
    /// lease nothing is touched. Says whether it was there to end.
    fn clear_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> StoreFuture<'a, bool>;
    /// Commits new tokens where `expected` is still the grant's generation, clears the intent, and returns
    /// the new generation: `expected + 1`. After `Unavailable` it may have happened all the same; a repeat is
    /// then `Fenced` by its own tokens.
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

    /// Forgets an account with all its grants, also one whose record cannot be read. Its timeline outlives
    /// it, and its generations never start again.
    fn remove_account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, ()>;
    /// Gives an account another name, with its grants, what is known of its tokens and when it was last seen.
    /// Its timeline stays under the old one. `NameTaken` where the new name stands for an account.
    fn rename_account<'a>(
        &'a self,
        from: &'a AccountName,
        to: &'a AccountName,
    ) -> StoreFuture<'a, AccountRecord>;

    /// SHA-256 of every refresh token that `put_grant` took for an account which still exists, with its name:
    /// what an application that refreshes by itself may still send, however often the platform has rotated it
    /// since.
    fn known_tokens(&self) -> StoreFuture<'_, Vec<([u8; 32], AccountName)>>;

    /// Adds an application's grant unless there is one for this caller and account; returns the one that
    /// stands, so that two that ask at once get the same.
    fn put_application_grant<'a>(
        &'a self,
        offered: &'a ApplicationGrant,
    ) -> StoreFuture<'a, ApplicationGrant>;
    /// Says whether it was there. They also go with their account, and follow its name; one that cannot be
    /// read ends where the account gets another name.
    fn remove_application_grant<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
    ) -> StoreFuture<'a, bool>;
    /// What a grant's application has said since about where it wants scan notifications. Says whether there
    /// is such a grant.
    fn set_callback_url<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
        callback_url: Option<&'a str>,
    ) -> StoreFuture<'a, bool>;
    /// Those that stand, of one account or of all. One that cannot be read is left out.
    fn application_grants<'a>(
        &'a self,
        account: Option<&'a AccountName>,
    ) -> StoreFuture<'a, Vec<ApplicationGrant>>;

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

    /// Keeps the refresh token of a commit that came too late (`Fenced`), beside the grant's own.
    /// `seen_generation` is what the commit expected. Says whether there was anything to keep: not where no
    /// refresh token came, where it is the grant's own, or where the account was paired or imported anew
    /// since.
    ///
    /// Why: two replicas refreshed with the same refresh token, since one was thought dead. Where the
    /// platform does not rotate, both got the old one back. Where it does, the winner may hold a token that
    /// the platform has already replaced by the loser's: then the loser's is the one that lives. It is tried
    /// before anybody is asked to log in. The next commit shows that the grant's own chain lives, and forgets
    /// what was kept. A platform that answers the second use of a refresh token by ending the whole grant
    /// leaves nothing that could be kept.
    fn keep_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        seen_generation: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, bool>;
    /// For a grant whose refresh token the platform refuses: puts the newest kept one in its place, without
    /// an access token, and returns the new generation; refresh again with it. `None` where none is kept.
    /// `Fenced` where `expected` has passed.
    fn adopt_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
    ) -> StoreFuture<'a, Option<u64>>;

    /// Re-encrypts everything with the first key that is held; see [`rotate`].
    fn rotate_key(&self) -> StoreFuture<'_, rotate::Rotation>;

    /// Writes a copy of one moment, sealed as it is, while work goes on; says how many accounts are in it.
    /// What was written before a failure is no backup.
    fn back_up<'a>(&'a self, out: backup::BackupSink<'a>) -> StoreFuture<'a, u64>;

    /// Adds to what is known of when accounts and callers were last seen; accounts that are gone are left
    /// out.
    fn merge_last_seen<'a>(&'a self, seen: &'a [LastSeenRecord]) -> StoreFuture<'a, ()>;
    /// What anybody noted after `since`, the `up_to` of an earlier result; perhaps more. All of it for the
    /// beginning of time.
    fn last_seen(&self, since: Timestamp) -> StoreFuture<'_, LastSeenPage>;

    /// Sets every moment that lies in the future down to now: it was noted by a clock that was wrong, and
    /// until its time came round it would hold up what waits for it to pass. A token's end moves down with
    /// the moment at which the token came. Says whose grants were concerned. A store that does not outlive
    /// the process has nothing of the kind.
    fn clamp_future_times(&self) -> StoreFuture<'_, Vec<ClampedAccount>>;

    /// Fails where the store cannot take a write right now.
    fn ping(&self) -> StoreFuture<'_, ()>;

    /// Closes files and connections in good order before the process ends, and gives the store free for
    /// another process; nothing is lost where it is never called. It is the end: a later call fails, since
    /// somebody else may be at work by then.
    fn close(&self) -> StoreFuture<'_, ()>;
}
