//! The store in one SQLite file: one process, one connection that writes, one that reads. What was
//! acknowledged survives kill -9 and power cuts.
//!
//! Statements whose success matters run to their end by `execute`: a `RETURNING` read with `fetch_optional`
//! is reset early, and the failure of its commit would go unseen.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::backup::BackupSink;
use super::cluster::{ClusterStore, ReplicaId};
use super::key_file::{self, EnvLookup};
use super::last_seen::{LastSeenPage, LastSeenRecord};
use super::process_lock::ProcessLock;
use super::rotate::{Rotation, rotate};
use super::rows;
use super::seal::SealKeys;
use super::sql::{self, Purpose, SqlConnection, SqlDatabase, values};
use super::unavailable::{StoreUnavailable, UnavailableKind};
use super::{
    AccountRecord, AccountSink, ApplicationGrant, ClampedAccount, JournalEntry, LoadedAccounts, NewGrant,
    NewTokens, PendingKind, PendingLogin, Store, StoreError, StoreFuture, StoredRoute,
};
use crate::clock::{Clock, Timestamp};
use crate::config::SecretSource;
use crate::model::account::{AccountName, AccountState, ApiVersion, RealmName};
use connection::SharedConnection;

mod backup;
mod clamp;
mod connection;
mod dialect;
mod last_seen;
mod migrate;
mod start;

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod tests;

pub use backup::{backup, count_accounts, restore};
pub use start::check;

pub struct SqliteStore {
    writer: SharedConnection,
    /// Long reads (50,000 accounts at start) hold up no commit.
    reader: SharedConnection,
    path: PathBuf,
    keys: SealKeys,
    clock: Clock,
    /// Held while a backup is taken: they share the name of a scratch file.
    copying: tokio::sync::Mutex<()>,
    /// Stands last, so that it is given back last.
    lock: Mutex<Option<ProcessLock>>,
}

impl SqliteStore {
    pub async fn open(
        path: &Path,
        key: &SecretSource,
        environment: EnvLookup<'_>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let start::Claimed { path, is_new, lock } = start::claim(path)?;
        let keys = key_file::load(key, &path.display().to_string(), is_new, environment)?;
        let options = start::options(&path);
        let writer = start::connect(options.clone(), &path).await?;
        start::prepare(&writer, &keys, &path).await?;
        let reader = start::connect(options.pragma("query_only", "on"), &path).await?;
        let copying = tokio::sync::Mutex::default();
        Ok(Self { writer, reader, path, keys, clock, copying, lock: Mutex::new(Some(lock)) })
    }

    async fn delete_intent(
        &self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin(Purpose::WriteOnce).await?;
        let sql = "UPDATE grants SET intent_at = NULL \
                   WHERE account = $1 AND realm = $2 AND generation = $3 AND intent_at = $4";
        let values = values![name, realm, rows::signed(expected), self.stored(noted_at)];
        Ok(tx.execute(sql, values).await? > 0)
    }

    async fn write_heartbeat(&self) -> Result<(), StoreError> {
        if !self.path.exists() {
            let why =
                format!("{} is gone; what is written now is lost at the next start", self.path.display());
            return Err(StoreError::Unavailable(why.into()));
        }
        sql::journal::write_heartbeat(self).await
    }

    /// The last connection to go folds the write-ahead log into the main file, so that a copy of that file
    /// alone is whole.
    async fn close_files(&self) -> Result<(), StoreError> {
        let closed = (self.reader.close().await, self.writer.close().await);
        // Whoever still holds this store cannot write any more, so the next process may.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        closed.0.and(closed.1).map_err(store_error)
    }
}

rows::impl_row_columns!(sqlx::sqlite::SqliteRow);

impl Store for SqliteStore {
    fn cluster(&self) -> Option<&dyn ClusterStore> {
        None
    }

    fn accounts(&self) -> StoreFuture<'_, LoadedAccounts> {
        Box::pin(async {
            let mut accounts = Vec::new();
            let broken = sql::accounts::each(self, &mut |account| accounts.push(account)).await?;
            Ok(LoadedAccounts { accounts, broken })
        })
    }

    fn each_account<'a>(&'a self, take: AccountSink<'a>) -> StoreFuture<'a, Vec<(AccountName, String)>> {
        Box::pin(sql::accounts::each(self, take))
    }

    fn account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, Option<AccountRecord>> {
        Box::pin(sql::accounts::read(self, name))
    }

    fn put_grant(&self, grant: NewGrant) -> StoreFuture<'_, AccountRecord> {
        Box::pin(async move { sql::grants::put(self, &grant).await })
    }

    fn set_state<'a>(&'a self, name: &'a AccountName, state: &'a AccountState) -> StoreFuture<'a, ()> {
        Box::pin(sql::accounts::set_state(self, name, state))
    }

    fn set_test<'a>(&'a self, name: &'a AccountName, is_test: bool) -> StoreFuture<'a, ()> {
        Box::pin(sql::accounts::set_test(self, name, is_test))
    }

    fn set_version<'a>(&'a self, name: &'a AccountName, version: Option<ApiVersion>) -> StoreFuture<'a, ()> {
        Box::pin(sql::accounts::set_version(self, name, version))
    }

    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        Box::pin(sql::accounts::set_current(self, name, realm))
    }

    fn set_moving<'a>(&'a self, name: &'a AccountName, to: Option<&'a RealmName>) -> StoreFuture<'a, ()> {
        Box::pin(sql::accounts::set_moving(self, name, to))
    }

    fn note_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        Box::pin(sql::grants::note_intent(self, name, realm, at))
    }

    fn clear_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        _: &'a ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> StoreFuture<'a, bool> {
        Box::pin(self.delete_intent(name, realm, expected, noted_at))
    }

    fn commit_tokens<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, u64> {
        Box::pin(sql::grants::commit_tokens(self, name, realm, expected, tokens))
    }

    fn keep_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        seen_generation: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, bool> {
        Box::pin(sql::fallbacks::keep(self, name, realm, seen_generation, tokens))
    }

    fn adopt_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
    ) -> StoreFuture<'a, Option<u64>> {
        Box::pin(sql::fallbacks::adopt(self, name, realm, expected))
    }

    fn set_route<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        route: &'a StoredRoute,
    ) -> StoreFuture<'a, ()> {
        Box::pin(sql::grants::set_route(self, name, realm, route))
    }

    fn remove_grant<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        Box::pin(sql::grants::remove(self, name, realm))
    }

    fn remove_account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, ()> {
        Box::pin(sql::rename::remove(self, name))
    }

    fn rename_account<'a>(
        &'a self,
        from: &'a AccountName,
        to: &'a AccountName,
    ) -> StoreFuture<'a, AccountRecord> {
        Box::pin(sql::rename::rename(self, from, to))
    }

    fn pending_logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        Box::pin(sql::logins::all(self))
    }

    fn known_tokens(&self) -> StoreFuture<'_, Vec<([u8; 32], AccountName)>> {
        Box::pin(sql::accounts::known_tokens(self))
    }

    fn put_application_grant<'a>(
        &'a self,
        offered: &'a ApplicationGrant,
    ) -> StoreFuture<'a, ApplicationGrant> {
        Box::pin(sql::application_grants::put(self, offered))
    }

    fn remove_application_grant<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
    ) -> StoreFuture<'a, bool> {
        Box::pin(sql::application_grants::remove(self, caller, account))
    }

    fn set_callback_url<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
        callback_url: Option<&'a str>,
    ) -> StoreFuture<'a, bool> {
        Box::pin(sql::application_grants::set_callback_url(self, caller, account, callback_url))
    }

    fn application_grants<'a>(
        &'a self,
        account: Option<&'a AccountName>,
    ) -> StoreFuture<'a, Vec<ApplicationGrant>> {
        Box::pin(async move {
            match account {
                Some(account) => sql::application_grants::of(self, account).await,
                None => sql::application_grants::all(self).await,
            }
        })
    }

    fn put_login(&self, login: PendingLogin) -> StoreFuture<'_, ()> {
        Box::pin(async move { sql::logins::put(self, &login).await })
    }

    fn peek_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        Box::pin(sql::logins::peek(self, id, kind, now))
    }

    fn take_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        Box::pin(sql::logins::take(self, id, kind, now))
    }

    fn append_journal(&self, entry: JournalEntry) -> StoreFuture<'_, ()> {
        Box::pin(async move { sql::journal::append(self, &entry).await })
    }

    fn journal<'a>(
        &'a self,
        account: Option<&'a AccountName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<JournalEntry>> {
        Box::pin(sql::journal::read(self, account, limit))
    }

    fn rotate_key(&self) -> StoreFuture<'_, Rotation> {
        Box::pin(rotate(self, &self.keys))
    }

    fn back_up<'a>(&'a self, out: BackupSink<'a>) -> StoreFuture<'a, u64> {
        Box::pin(self.send_copy(out))
    }

    fn merge_last_seen<'a>(&'a self, seen: &'a [LastSeenRecord]) -> StoreFuture<'a, ()> {
        Box::pin(self.write_last_seen(seen))
    }

    fn last_seen(&self, _since: Timestamp) -> StoreFuture<'_, LastSeenPage> {
        Box::pin(self.read_last_seen())
    }

    fn clamp_future_times(&self) -> StoreFuture<'_, Vec<ClampedAccount>> {
        Box::pin(self.clamp_future_rows())
    }

    fn ping(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.write_heartbeat())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.close_files())
    }
}

/// Trouble passes (a full disk, a lock); damage does not. SQLite's messages hold no values.
fn store_error(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => {
            StoreError::Refused(format!("the database is damaged: {error}; restore a backup"))
        }
        code => StoreError::Unavailable(StoreUnavailable::new(unavailable_kind(code), error.to_string())),
    }
}

fn unavailable_kind(code: Option<i32>) -> UnavailableKind {
    match code {
        Some(SQLITE_FULL) => UnavailableKind::DiskFull,
        Some(SQLITE_READONLY) => UnavailableKind::ReadOnly,
        Some(SQLITE_BUSY) => UnavailableKind::Slow,
        _ => UnavailableKind::Other,
    }
}

// sqlite.org/rescode.html
const SQLITE_PERM: i32 = 3;
const SQLITE_BUSY: i32 = 5;
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

/// The low byte of the extended code that sqlx reports.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}
