//! The store of several gateways, in PostgreSQL 13 or newer. Everything is a short transaction with
//! time-outs, so that a database in trouble is told within seconds, and nothing lives in a session, so that a
//! transaction pooler may stand between.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::{Query, QueryScalar};
use tokio::sync::mpsc;

use super::backup::BackupSink;
use super::cluster::{Changes, ClusterStore, Lease, ReplicaId};
use super::key_file::EnvLookup;
use super::last_seen::{LastSeenPage, LastSeenRecord};
use super::rotate::{Rotation, rotate};
use super::rows;
use super::seal::SealKeys;
use super::sql;
use super::{
    AccountRecord, AccountSink, ApplicationGrant, ClampedAccount, JournalEntry, LoadedAccounts, NewGrant,
    NewTokens, PendingKind, PendingLogin, SetupError, Store, StoreError, StoreFuture, StoredRoute,
};
use crate::clock::{Clock, Timestamp};
use crate::config::SecretSource;
use crate::model::account::{AccountName, AccountState, ApiVersion, RealmName};
use error::store_error;
use limits::{LONG, SHORT, repeated, within};
use pool::ConnectionPool;
use target::DatabaseTarget;

mod backup;
mod clamp;
mod cluster;
mod dialect;
mod error;
mod last_seen;
mod limits;
mod migrate;
mod pool;
mod start;
mod target;
mod watch;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod moving_tests;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use backup::check_backup;

pub struct PostgresStore {
    pool: ConnectionPool,
    /// Where notifications come from, around a pooler.
    listen: Option<DatabaseTarget>,
    keys: SealKeys,
    clock: Clock,
}

impl PostgresStore {
    /// Connects, brings the schema up to date, and proves the key. `listen_url` leads to the same database
    /// without a transaction pooler between; with none, changes by others are polled for.
    pub async fn open(
        url: &str,
        listen_url: Option<&str>,
        key: &SecretSource,
        environment: EnvLookup<'_>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let target = DatabaseTarget::parse(url, "store.url")?;
        let listen = listen_url.map(|url| DatabaseTarget::parse(url, "store.listen_url")).transpose()?;
        let (keys, durable) = within(LONG, start::prepare(&target, key, environment, &clock)).await?;
        Ok(Self { pool: ConnectionPool::new(target, durable, clock.clone()), listen, keys, clock })
    }
}

/// Whether an address can be used at all; nobody is connected to. `key` is where it stands in the
/// configuration.
pub fn check_address(url: &str, key: &str) -> Result<(), SetupError> {
    DatabaseTarget::parse(url, key).map(drop)
}

rows::impl_row_columns!(sqlx::postgres::PgRow);

impl Store for PostgresStore {
    fn cluster(&self) -> Option<&dyn ClusterStore> {
        Some(self)
    }

    fn accounts(&self) -> StoreFuture<'_, LoadedAccounts> {
        Box::pin(within(LONG, async {
            let mut accounts = Vec::new();
            let broken = sql::accounts::each(self, &mut |account| accounts.push(account)).await?;
            Ok(LoadedAccounts { accounts, broken })
        }))
    }

    fn each_account<'a>(&'a self, take: AccountSink<'a>) -> StoreFuture<'a, Vec<(AccountName, String)>> {
        Box::pin(within(LONG, sql::accounts::each(self, take)))
    }

    fn account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, Option<AccountRecord>> {
        Box::pin(repeated(SHORT, move || sql::accounts::read(self, name)))
    }

    fn put_grant(&self, grant: NewGrant) -> StoreFuture<'_, AccountRecord> {
        Box::pin(async move { repeated(SHORT, || sql::grants::put(self, &grant)).await })
    }

    fn set_state<'a>(&'a self, name: &'a AccountName, state: &'a AccountState) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::accounts::set_state(self, name, state)))
    }

    fn set_test<'a>(&'a self, name: &'a AccountName, is_test: bool) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::accounts::set_test(self, name, is_test)))
    }

    fn set_version<'a>(&'a self, name: &'a AccountName, version: Option<ApiVersion>) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::accounts::set_version(self, name, version)))
    }

    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::accounts::set_current(self, name, realm)))
    }

    fn set_moving<'a>(&'a self, name: &'a AccountName, to: Option<&'a RealmName>) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::accounts::set_moving(self, name, to)))
    }

    fn note_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::grants::note_intent(self, name, realm, at)))
    }

    fn clear_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> StoreFuture<'a, bool> {
        Box::pin(repeated(SHORT, move || self.delete_intent(name, realm, owner, expected, noted_at)))
    }

    fn commit_tokens<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, u64> {
        Box::pin(repeated(SHORT, move || sql::grants::commit_tokens(self, name, realm, expected, tokens)))
    }

    fn set_route<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        route: &'a StoredRoute,
    ) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::grants::set_route(self, name, realm, route)))
    }

    fn remove_grant<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::grants::remove(self, name, realm)))
    }

    fn remove_account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || sql::rename::remove(self, name)))
    }

    fn rename_account<'a>(
        &'a self,
        from: &'a AccountName,
        to: &'a AccountName,
    ) -> StoreFuture<'a, AccountRecord> {
        Box::pin(repeated(SHORT, move || sql::rename::rename(self, from, to)))
    }

    fn pending_logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        Box::pin(within(LONG, sql::logins::all(self)))
    }

    fn known_tokens(&self) -> StoreFuture<'_, Vec<([u8; 32], AccountName)>> {
        Box::pin(within(LONG, sql::accounts::known_tokens(self)))
    }

    fn put_application_grant<'a>(
        &'a self,
        offered: &'a ApplicationGrant,
    ) -> StoreFuture<'a, ApplicationGrant> {
        Box::pin(repeated(SHORT, move || sql::application_grants::put(self, offered)))
    }

    fn remove_application_grant<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
    ) -> StoreFuture<'a, bool> {
        Box::pin(within(SHORT, sql::application_grants::remove(self, caller, account)))
    }

    fn set_callback_url<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
        callback_url: Option<&'a str>,
    ) -> StoreFuture<'a, bool> {
        Box::pin(repeated(SHORT, move || {
            sql::application_grants::set_callback_url(self, caller, account, callback_url)
        }))
    }

    fn application_grants<'a>(
        &'a self,
        account: Option<&'a AccountName>,
    ) -> StoreFuture<'a, Vec<ApplicationGrant>> {
        Box::pin(async move {
            match account {
                Some(account) => repeated(SHORT, move || sql::application_grants::of(self, account)).await,
                None => within(LONG, sql::application_grants::all(self)).await,
            }
        })
    }

    fn put_login(&self, login: PendingLogin) -> StoreFuture<'_, ()> {
        Box::pin(async move { repeated(SHORT, || sql::logins::put(self, &login)).await })
    }

    fn peek_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        Box::pin(repeated(SHORT, move || sql::logins::peek(self, id, kind, now)))
    }

    fn take_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        Box::pin(repeated(SHORT, move || sql::logins::take(self, id, kind, now)))
    }

    fn append_journal(&self, entry: JournalEntry) -> StoreFuture<'_, ()> {
        Box::pin(async move { repeated(SHORT, || sql::journal::append(self, &entry)).await })
    }

    fn journal<'a>(
        &'a self,
        account: Option<&'a AccountName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<JournalEntry>> {
        Box::pin(repeated(SHORT, move || sql::journal::read(self, account, limit)))
    }

    fn keep_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        seen_generation: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, bool> {
        Box::pin(repeated(SHORT, move || sql::fallbacks::keep(self, name, realm, seen_generation, tokens)))
    }

    fn adopt_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
    ) -> StoreFuture<'a, Option<u64>> {
        Box::pin(repeated(SHORT, move || sql::fallbacks::adopt(self, name, realm, expected)))
    }

    fn rotate_key(&self) -> StoreFuture<'_, Rotation> {
        Box::pin(rotate(self, &self.keys))
    }

    fn back_up<'a>(&'a self, out: BackupSink<'a>) -> StoreFuture<'a, u64> {
        Box::pin(self.write_backup(out))
    }

    fn merge_last_seen<'a>(&'a self, seen: &'a [LastSeenRecord]) -> StoreFuture<'a, ()> {
        Box::pin(repeated(LONG, move || self.write_last_seen(seen)))
    }

    fn last_seen(&self, since: Timestamp) -> StoreFuture<'_, LastSeenPage> {
        Box::pin(within(LONG, self.read_last_seen(since)))
    }

    fn clamp_future_times(&self) -> StoreFuture<'_, Vec<ClampedAccount>> {
        Box::pin(repeated(LONG, move || self.clamp_future_rows()))
    }

    fn ping(&self) -> StoreFuture<'_, ()> {
        Box::pin(repeated(SHORT, move || sql::journal::write_heartbeat(self)))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(within(SHORT, self.pool.close()))
    }
}

impl ClusterStore for PostgresStore {
    fn take_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        seen_generation: u64,
        life: Duration,
    ) -> StoreFuture<'a, Lease> {
        Box::pin(repeated(SHORT, move || self.claim(name, realm, owner, seen_generation, life)))
    }

    fn extend_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        life: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(repeated(SHORT, move || self.extend(name, realm, owner, life)))
    }

    fn release_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
    ) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || self.release(name, realm, owner)))
    }

    fn changes_since(&self, seen: u64) -> StoreFuture<'_, Changes> {
        Box::pin(repeated(SHORT, move || self.read_changes(seen)))
    }

    fn newest_change(&self) -> StoreFuture<'_, u64> {
        Box::pin(repeated(SHORT, move || self.read_newest_change()))
    }

    fn watch(
        &self,
        seen: u64,
        told: mpsc::Sender<Vec<AccountName>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.tell_changes(seen, told))
    }

    fn lead<'a>(&'a self, task: &'a str, owner: &'a ReplicaId, life: Duration) -> StoreFuture<'a, bool> {
        Box::pin(repeated(SHORT, move || self.take_lead(task, owner, life)))
    }

    fn step_down<'a>(&'a self, task: &'a str, owner: &'a ReplicaId) -> StoreFuture<'a, ()> {
        Box::pin(repeated(SHORT, move || self.leave_lead(task, owner)))
    }
}

/// A statement without a name: a pooler may give each transaction another session, where a name is unknown or
/// taken.
fn query(sql: &'static str) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).persistent(false)
}

/// Likewise, for one value.
fn scalar<O>(sql: &'static str) -> QueryScalar<'static, Postgres, O, PgArguments>
where
    (O,): for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_scalar(sql).persistent(false)
}
