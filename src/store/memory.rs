//! A store in memory: for tests of whatever uses a store. Passes the same contract, and can be made
//! to fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backup::BackupSink;
use super::cluster::{ClusterStore, ReplicaId};
use super::last_seen::{LastSeenPage, LastSeenRecord};
use super::memory_state::MemoryState;
use super::rotate::Rotation;
use super::{
    AccountRecord, ApplicationGrant, ApplicationGrantRecord, ClampedAccount, JournalEntry, LoadedAccounts,
    NewGrant, NewTokens, PendingKind, PendingLogin, Store, StoreError, StoreFuture, StoredRoute,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, AccountState, ApiVersion, RealmName};

pub struct MemoryStore {
    clock: Clock,
    state: Mutex<MemoryState>,
    commits_fail: AtomicBool,
    writes_fail: AtomicBool,
}

impl MemoryStore {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            commits_fail: AtomicBool::new(false),
            writes_fail: AtomicBool::new(false),
        }
    }

    /// While true, `commit_tokens` fails as on a full disk.
    pub fn fail_commits(&self, fail: bool) {
        self.commits_fail.store(fail, Ordering::SeqCst);
    }

    /// While true, everything that writes fails as on a full disk.
    pub fn fail_writes(&self, fail: bool) {
        self.writes_fail.store(fail, Ordering::SeqCst);
    }

    fn read(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Result<MutexGuard<'_, MemoryState>, StoreError> {
        if self.writes_fail.load(Ordering::SeqCst) { Err(full()) } else { Ok(self.read()) }
    }
}

fn full() -> StoreError {
    StoreError::Unavailable("told to fail".into())
}

/// The result is ready at once; it is returned in the trait's form.
fn ready<'a, T: Send + 'a>(response: Result<T, StoreError>) -> StoreFuture<'a, T> {
    Box::pin(std::future::ready(response))
}

impl Store for MemoryStore {
    fn cluster(&self) -> Option<&dyn ClusterStore> {
        None
    }

    fn rotate_key(&self) -> StoreFuture<'_, Rotation> {
        ready(Ok(Rotation::default()))
    }

    fn back_up<'a>(&'a self, _: BackupSink<'a>) -> StoreFuture<'a, u64> {
        ready(Err(StoreError::Refused("this store cannot be backed up".to_owned())))
    }

    fn clamp_future_times(&self) -> StoreFuture<'_, Vec<ClampedAccount>> {
        ready(Ok(Vec::new()))
    }

    fn accounts(&self) -> StoreFuture<'_, LoadedAccounts> {
        ready(Ok(LoadedAccounts {
            accounts: self.read().accounts.values().cloned().collect(),
            broken: Vec::new(),
        }))
    }

    fn account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, Option<AccountRecord>> {
        ready(Ok(self.read().accounts.get(name).cloned()))
    }

    fn put_grant(&self, grant: NewGrant) -> StoreFuture<'_, AccountRecord> {
        ready(self.write().and_then(|mut state| state.put_grant(grant)))
    }

    fn set_state<'a>(&'a self, name: &'a AccountName, state: &'a AccountState) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut held| {
            held.account(name)?.state = state.clone();
            Ok(())
        }))
    }

    fn set_test<'a>(&'a self, name: &'a AccountName, is_test: bool) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut held| {
            held.account(name)?.is_test = is_test;
            Ok(())
        }))
    }

    fn set_version<'a>(&'a self, name: &'a AccountName, version: Option<ApiVersion>) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut held| {
            held.account(name)?.version = version;
            Ok(())
        }))
    }

    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| {
            state.grant(name, realm)?;
            let account = state.account(name)?;
            let before = std::mem::replace(&mut account.current, realm.clone());
            account.moving_to = account.moving_to.take().filter(|to| *to != *realm && *to != before);
            Ok(())
        }))
    }

    fn set_moving<'a>(&'a self, name: &'a AccountName, to: Option<&'a RealmName>) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| {
            let account = state.account(name)?;
            account.moving_to = to.filter(|to| **to != account.current).cloned();
            Ok(())
        }))
    }

    fn note_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| {
            state.grant(name, realm)?.intent = Some(at);
            Ok(())
        }))
    }

    fn clear_intent<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        _: &'a ReplicaId,
        expected: u64,
        noted_at: Timestamp,
    ) -> StoreFuture<'a, bool> {
        ready(self.write().map(|mut state| {
            let noted = state
                .grant(name, realm)
                .ok()
                .filter(|grant| grant.generation == expected && grant.intent == Some(noted_at));
            noted.map(|grant| grant.intent = None).is_some()
        }))
    }

    fn commit_tokens<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, u64> {
        if self.commits_fail.load(Ordering::SeqCst) {
            return ready(Err(full()));
        }
        ready(self.write().and_then(|mut state| state.commit(name, realm, expected, tokens)))
    }

    fn keep_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        seen_generation: u64,
        tokens: &'a NewTokens,
    ) -> StoreFuture<'a, bool> {
        ready(
            self.write()
                .and_then(|mut state| state.keep_fallback_token(name, realm, seen_generation, tokens)),
        )
    }

    fn adopt_fallback_token<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        expected: u64,
    ) -> StoreFuture<'a, Option<u64>> {
        ready(self.write().and_then(|mut state| state.adopt_fallback_token(name, realm, expected)))
    }

    fn set_route<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        route: &'a StoredRoute,
    ) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| {
            state.grant(name, realm)?.route = Some(route.clone());
            Ok(())
        }))
    }

    fn remove_grant<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| state.remove_grant(name, realm)))
    }

    fn remove_account<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| state.remove_account(name)))
    }

    fn rename_account<'a>(
        &'a self,
        from: &'a AccountName,
        to: &'a AccountName,
    ) -> StoreFuture<'a, AccountRecord> {
        ready(self.write().and_then(|mut state| state.rename_account(from, to)))
    }

    fn pending_logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        ready(Ok(self.read().logins.values().cloned().collect()))
    }

    fn known_tokens(&self) -> StoreFuture<'_, Vec<([u8; 32], AccountName)>> {
        let state = self.read();
        ready(Ok(state.known_tokens.iter().map(|(hash, name)| (*hash, name.clone())).collect()))
    }

    fn put_application_grant<'a>(
        &'a self,
        offered: &'a ApplicationGrant,
    ) -> StoreFuture<'a, ApplicationGrant> {
        ready(self.write().and_then(|mut state| state.put_application_grant(offered)))
    }

    fn remove_application_grant<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
    ) -> StoreFuture<'a, bool> {
        ready(self.write().map(|mut state| state.remove_application_grant(caller, account)))
    }

    fn set_callback_url<'a>(
        &'a self,
        caller: &'a str,
        account: &'a AccountName,
        callback_url: Option<&'a str>,
    ) -> StoreFuture<'a, bool> {
        ready(self.write().map(|mut state| state.set_callback_url(caller, account, callback_url)))
    }

    fn application_grants<'a>(
        &'a self,
        account: Option<&'a AccountName>,
    ) -> StoreFuture<'a, Vec<ApplicationGrant>> {
        let state = self.read();
        let is_asked = |grant: &&ApplicationGrant| account.is_none_or(|account| grant.account == *account);
        let live = state.application_grants.values().filter_map(ApplicationGrantRecord::live);
        ready(Ok(live.filter(is_asked).cloned().collect()))
    }

    fn put_login(&self, login: PendingLogin) -> StoreFuture<'_, ()> {
        let now = self.clock.now();
        ready(self.write().map(|mut state| {
            state.logins.retain(|_, login| login.expires_at > now);
            state.logins.insert(login.id, login);
        }))
    }

    fn peek_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        ready(Ok(self.read().login(id, kind, now)))
    }

    fn take_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> StoreFuture<'_, Option<PendingLogin>> {
        ready(self.write().map(|mut state| {
            let login = state.login(id, kind, now)?;
            state.logins.remove(&login.id)
        }))
    }

    fn append_journal(&self, entry: JournalEntry) -> StoreFuture<'_, ()> {
        ready(self.write().map(|mut state| state.append(entry)))
    }

    fn journal<'a>(
        &'a self,
        account: Option<&'a AccountName>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<JournalEntry>> {
        let state = self.read();
        let lines =
            state.journal.iter().rev().filter(|line| account.is_none_or(|account| line.account == *account));
        ready(Ok(lines.take(limit as usize).cloned().collect()))
    }

    fn merge_last_seen<'a>(&'a self, seen: &'a [LastSeenRecord]) -> StoreFuture<'a, ()> {
        ready(self.write().map(|mut state| state.merge_last_seen(seen)))
    }

    fn last_seen(&self, _since: Timestamp) -> StoreFuture<'_, LastSeenPage> {
        let seen = self.read().last_seen.clone().into_iter();
        let seen = seen.map(|(subject, moments)| LastSeenRecord { subject, moments }).collect();
        ready(Ok(LastSeenPage { seen, up_to: Timestamp::default() }))
    }

    fn ping(&self) -> StoreFuture<'_, ()> {
        ready(self.write().map(drop))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.fail_writes(true);
        ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{TestStore, grant, name, realm, store_contract, tokens};
    use std::sync::Arc;

    async fn make(clock: Clock) -> TestStore {
        TestStore { store: Arc::new(MemoryStore::new(clock.clone())), clock, folder: None }
    }

    store_contract!(make);

    #[tokio::test]
    async fn it_fails_as_told_and_works_again() {
        let store = MemoryStore::new(Clock::manual(Timestamp::default()));
        store.put_grant(grant("smile", "global", 1)).await.unwrap();
        let (smile, global, brought) = (name("smile"), realm("global"), tokens("access", None, 20));
        store.fail_commits(true);
        store.note_intent(&smile, &global, Timestamp::default()).await.unwrap();
        assert!(store.commit_tokens(&smile, &global, 1, &brought).await.is_err());
        store.fail_commits(false);
        store.fail_writes(true);
        assert!(store.commit_tokens(&smile, &global, 1, &brought).await.is_err());
        assert!(store.ping().await.is_err());
        store.fail_writes(false);
        assert_eq!(store.commit_tokens(&smile, &global, 1, &brought).await.unwrap(), 2);
    }
}
