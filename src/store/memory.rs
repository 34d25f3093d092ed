//! A store in memory: for tests of whatever uses a store. Passes the same contract, and can be made
//! to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backup::BackupSink;
use super::cluster::{ClusterStore, ReplicaId};
use super::last_seen::{LastSeen, LastSeenPage, LastSeenRecord, Subject};
use super::rotate::Rotation;
use super::{
    AccountRecord, ClampedAccount, GrantRecord, JOURNAL_LINES, JournalEntry, LoadedAccounts,
    NEWEST_FALLBACKS, NewGrant, NewTokens, PendingKind, PendingLogin, Store, StoreError, StoreFuture,
    StoredRoute, token_hash,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;

pub struct MemoryStore {
    clock: Clock,
    state: Mutex<MemoryState>,
    commits_fail: AtomicBool,
    writes_fail: AtomicBool,
}

#[derive(Default)]
struct MemoryState {
    accounts: BTreeMap<AccountName, AccountRecord>,
    /// The highest generation of removed grants.
    spent: BTreeMap<AccountName, u64>,
    logins: BTreeMap<[u8; 32], PendingLogin>,
    journal: Vec<JournalEntry>,
    known_tokens: BTreeMap<[u8; 32], AccountName>,
    /// Refresh tokens kept beside a grant's own, the newest last.
    fallbacks: BTreeMap<(AccountName, RealmName), Vec<RefreshToken>>,
    last_seen: BTreeMap<Subject, LastSeen>,
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

impl MemoryState {
    fn merge_last_seen(&mut self, seen: &[LastSeenRecord]) {
        for LastSeenRecord { subject, moments } in seen {
            if matches!(subject, Subject::Account(name) if !self.accounts.contains_key(name)) {
                continue;
            }
            let known = self.last_seen.entry(subject.clone()).or_default();
            *known = known.merged(moments);
        }
    }

    fn account(&mut self, name: &AccountName) -> Result<&mut AccountRecord, StoreError> {
        self.accounts.get_mut(name).ok_or_else(|| StoreError::UnknownAccount(name.clone()))
    }

    fn grant(&mut self, name: &AccountName, realm: &RealmName) -> Result<&mut GrantRecord, StoreError> {
        let grants = &mut self.account(name)?.grants;
        grants
            .iter_mut()
            .find(|grant| grant.realm == *realm)
            .ok_or_else(|| StoreError::UnknownGrant { account: name.clone(), realm: realm.clone() })
    }

    fn put_grant(&mut self, new: NewGrant) -> Result<AccountRecord, StoreError> {
        let taken = self.accounts.values().find(|account| {
            account.name != new.name
                && account
                    .grants
                    .iter()
                    .any(|grant| grant.realm == new.realm && grant.account_id == new.account_id)
        });
        if let Some(holder) = taken {
            return Err(StoreError::GrantTaken {
                realm: new.realm,
                id: new.account_id,
                held_by: holder.name.clone(),
            });
        }
        let handed_in = new.trial.as_ref().map(|proof| &proof.handed_in);
        for token in handed_in.into_iter().chain([&new.refresh]) {
            self.known_tokens.insert(token_hash(token), new.name.clone());
        }
        self.fallbacks.remove(&(new.name.clone(), new.realm.clone()));
        let spent = self.spent.get(&new.name).copied().unwrap_or_default();
        let account = self.accounts.entry(new.name.clone()).or_insert_with(|| AccountRecord {
            name: new.name,
            current: new.realm.clone(),
            state: AccountState::Ready,
            grants: Vec::new(),
        });
        let highest = account.grants.iter().map(|grant| grant.generation).fold(spent, u64::max);
        let replaced = account.grants.iter().position(|grant| grant.realm == new.realm);
        let old = replaced.map(|at| account.grants.remove(at)).filter(|old| old.account_id == new.account_id);
        let (refreshed_at, old_route) = old.map_or((None, None), |old| (old.refreshed_at, old.route));
        account.grants.push(GrantRecord {
            realm: new.realm.clone(),
            account_id: new.account_id,
            refresh: new.refresh,
            access: new.access,
            generation: highest + 1,
            refreshed_at: new.trial.map(|proof| proof.refreshed_at).or(refreshed_at),
            obtained_at: new.at,
            route: new.route.or(old_route),
            intent: None,
        });
        account.grants.sort_by(|a, b| a.realm.cmp(&b.realm));
        if new.make_current {
            account.current = new.realm;
        }
        if let Some(state) = new.state {
            account.state = state;
        }
        Ok(account.clone())
    }

    fn commit(
        &mut self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
        tokens: &NewTokens,
    ) -> Result<u64, StoreError> {
        let grant = self.grant(name, realm)?;
        if grant.generation != expected {
            return Err(StoreError::Fenced(grant.generation));
        }
        grant.generation += 1;
        grant.access = Some(tokens.access.clone());
        if let Some(refresh) = &tokens.refresh {
            grant.refresh = refresh.clone();
        }
        grant.refreshed_at = Some(tokens.refreshed_at);
        grant.intent = None;
        let generation = grant.generation;
        self.fallbacks.remove(&(name.clone(), realm.clone()));
        Ok(generation)
    }

    fn keep_fallback_token(
        &mut self,
        name: &AccountName,
        realm: &RealmName,
        seen_generation: u64,
        tokens: &NewTokens,
    ) -> Result<bool, StoreError> {
        let grant = self.grant(name, realm)?;
        let Some(refresh) = tokens.refresh.as_ref().filter(|kept| **kept != grant.refresh) else {
            return Ok(false);
        };
        if grant.generation != seen_generation {
            return Ok(false);
        }
        let kept = self.fallbacks.entry((name.clone(), realm.clone())).or_default();
        kept.push(refresh.clone());
        if kept.len() > 1 + NEWEST_FALLBACKS as usize {
            kept.remove(1);
        }
        Ok(true)
    }

    fn adopt_fallback_token(
        &mut self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
    ) -> Result<Option<u64>, StoreError> {
        let known = self.grant(name, realm)?.generation;
        if known != expected {
            return Err(StoreError::Fenced(known));
        }
        let kept = self.fallbacks.get_mut(&(name.clone(), realm.clone())).and_then(Vec::pop);
        let Some(kept) = kept else { return Ok(None) };
        let grant = self.grant(name, realm)?;
        grant.generation += 1;
        (grant.refresh, grant.access, grant.intent) = (kept, None, None);
        Ok(Some(grant.generation))
    }

    fn remove_grant(&mut self, name: &AccountName, realm: &RealmName) -> Result<(), StoreError> {
        let generation = self.grant(name, realm)?.generation;
        let spent = self.spent.entry(name.clone()).or_default();
        *spent = generation.max(*spent);
        let account = self.account(name)?;
        account.grants.retain(|grant| grant.realm != *realm);
        self.fallbacks.remove(&(name.clone(), realm.clone()));
        let account = self.account(name)?;
        // The grants stand in the order of their realms; of two obtained at once the first realm is taken.
        match account.grants.iter().rev().max_by_key(|grant| grant.obtained_at) {
            None => self.forget(name),
            Some(next) if account.current == *realm => account.current = next.realm.clone(),
            Some(_) => {}
        }
        Ok(())
    }

    fn forget(&mut self, name: &AccountName) {
        self.accounts.remove(name);
        self.known_tokens.retain(|_, known| known != name);
        self.fallbacks.retain(|(known, _), _| known != name);
        self.last_seen.remove(&Subject::Account(name.clone()));
    }

    fn remember_generations(&mut self, name: &AccountName) -> Result<(), StoreError> {
        let highest =
            self.account(name)?.grants.iter().map(|grant| grant.generation).max().unwrap_or_default();
        let spent = self.spent.entry(name.clone()).or_default();
        *spent = highest.max(*spent);
        Ok(())
    }

    fn remove_account(&mut self, name: &AccountName) -> Result<(), StoreError> {
        self.remember_generations(name)?;
        self.forget(name);
        Ok(())
    }

    fn rename_account(&mut self, from: &AccountName, to: &AccountName) -> Result<AccountRecord, StoreError> {
        let mut account = self.account(from)?.clone();
        if self.accounts.contains_key(to) {
            return Err(StoreError::NameTaken(to.clone()));
        }
        self.remember_generations(from)?;
        let spent = self.spent.get(to).copied().unwrap_or_default();
        account.name = to.clone();
        account.grants.iter_mut().for_each(|grant| grant.generation = grant.generation.max(spent + 1));
        self.accounts.remove(from);
        self.accounts.insert(to.clone(), account.clone());
        self.known_tokens.values_mut().filter(|name| *name == from).for_each(|name| *name = to.clone());
        for grant in &account.grants {
            if let Some(kept) = self.fallbacks.remove(&(from.clone(), grant.realm.clone())) {
                self.fallbacks.insert((to.clone(), grant.realm.clone()), kept);
            }
        }
        if let Some(seen) = self.last_seen.remove(&Subject::Account(from.clone())) {
            self.last_seen.insert(Subject::Account(to.clone()), seen);
        }
        Ok(account)
    }

    fn login(&self, id: [u8; 32], kind: PendingKind, now: Timestamp) -> Option<PendingLogin> {
        self.logins.get(&id).filter(|login| login.kind == kind && login.expires_at > now).cloned()
    }

    fn append(&mut self, entry: JournalEntry) {
        let account = entry.account.clone();
        self.journal.push(entry);
        if self.journal.iter().filter(|line| line.account == account).count() > JOURNAL_LINES {
            let oldest = self.journal.iter().position(|line| line.account == account);
            oldest.map(|at| self.journal.remove(at));
        }
    }
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

    fn set_current<'a>(&'a self, name: &'a AccountName, realm: &'a RealmName) -> StoreFuture<'a, ()> {
        ready(self.write().and_then(|mut state| {
            state.grant(name, realm)?;
            state.account(name)?.current = realm.clone();
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
