//! What a store in memory holds, and what each call of the store changes in it.

use std::collections::BTreeMap;

use super::last_seen::{LastSeen, LastSeenRecord, Subject};
use super::{
    AccountRecord, ApplicationGrant, ApplicationGrantRecord, ApplicationGrantState, GrantRecord,
    JOURNAL_LINES, JournalEntry, NEWEST_FALLBACKS, NewGrant, NewTokens, PendingKind, PendingLogin,
    StoreError, token_hash,
};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;

#[derive(Default)]
pub(super) struct MemoryState {
    pub(super) accounts: BTreeMap<AccountName, AccountRecord>,
    /// The highest generation of removed grants.
    pub(super) spent: BTreeMap<AccountName, u64>,
    pub(super) logins: BTreeMap<[u8; 32], PendingLogin>,
    pub(super) journal: Vec<JournalEntry>,
    pub(super) known_tokens: BTreeMap<[u8; 32], AccountName>,
    /// Refresh tokens kept beside a grant's own, the newest last.
    pub(super) fallbacks: BTreeMap<(AccountName, RealmName), Vec<RefreshToken>>,
    pub(super) application_grants: BTreeMap<(AccountName, String), ApplicationGrantRecord>,
    pub(super) last_seen: BTreeMap<Subject, LastSeen>,
}

impl MemoryState {
    pub(super) fn merge_last_seen(&mut self, seen: &[LastSeenRecord]) {
        for LastSeenRecord { subject, moments } in seen {
            if matches!(subject, Subject::Account(name) if !self.accounts.contains_key(name)) {
                continue;
            }
            let known = self.last_seen.entry(subject.clone()).or_default();
            *known = known.merged(moments);
        }
    }

    pub(super) fn account(&mut self, name: &AccountName) -> Result<&mut AccountRecord, StoreError> {
        self.accounts.get_mut(name).ok_or_else(|| StoreError::UnknownAccount(name.clone()))
    }

    pub(super) fn grant(
        &mut self,
        name: &AccountName,
        realm: &RealmName,
    ) -> Result<&mut GrantRecord, StoreError> {
        let grants = &mut self.account(name)?.grants;
        grants
            .iter_mut()
            .find(|grant| grant.realm == *realm)
            .ok_or_else(|| StoreError::UnknownGrant { account: name.clone(), realm: realm.clone() })
    }

    pub(super) fn put_grant(&mut self, new: NewGrant) -> Result<AccountRecord, StoreError> {
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
            is_test: false,
            version: None,
            moving_to: None,
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
            account.moving_to = account.moving_to.take().filter(|to| *to != new.realm);
            account.current = new.realm;
        }
        if let Some(state) = new.state {
            account.state = state;
        }
        Ok(account.clone())
    }

    pub(super) fn commit(
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

    pub(super) fn keep_fallback_token(
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

    pub(super) fn adopt_fallback_token(
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

    pub(super) fn remove_grant(&mut self, name: &AccountName, realm: &RealmName) -> Result<(), StoreError> {
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

    pub(super) fn forget(&mut self, name: &AccountName) {
        self.accounts.remove(name);
        self.known_tokens.retain(|_, known| known != name);
        self.fallbacks.retain(|(known, _), _| known != name);
        self.application_grants.retain(|(known, _), _| known != name);
        self.last_seen.remove(&Subject::Account(name.clone()));
    }

    pub(super) fn remember_generations(&mut self, name: &AccountName) -> Result<(), StoreError> {
        let highest =
            self.account(name)?.grants.iter().map(|grant| grant.generation).max().unwrap_or_default();
        let spent = self.spent.entry(name.clone()).or_default();
        *spent = highest.max(*spent);
        Ok(())
    }

    pub(super) fn remove_account(&mut self, name: &AccountName) -> Result<(), StoreError> {
        self.remember_generations(name)?;
        self.forget(name);
        Ok(())
    }

    pub(super) fn rename_account(
        &mut self,
        from: &AccountName,
        to: &AccountName,
    ) -> Result<AccountRecord, StoreError> {
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
        for (_, mut record) in
            self.application_grants.extract_if(.., |(known, _), _| known == from).collect::<Vec<_>>()
        {
            if let ApplicationGrantState::Live(grant) = &mut record.state {
                grant.account = to.clone();
            }
            self.application_grants.insert((to.clone(), record.caller.clone()), record);
        }
        if let Some(seen) = self.last_seen.remove(&Subject::Account(from.clone())) {
            self.last_seen.insert(Subject::Account(to.clone()), seen);
        }
        Ok(account)
    }

    pub(super) fn put_application_grant(
        &mut self,
        offered: &ApplicationGrant,
    ) -> Result<ApplicationGrant, StoreError> {
        self.account(&offered.account)?;
        let place = (offered.account.clone(), offered.caller.clone());
        let caller = offered.caller.clone();
        let state = ApplicationGrantState::Revoked;
        let empty = || ApplicationGrantRecord { caller, generation: 0, state };
        let record = self.application_grants.entry(place).or_insert_with(empty);
        if let Some(standing) = record.live() {
            return Ok(standing.clone());
        }
        record.generation += 1;
        record.state = ApplicationGrantState::Live(offered.clone());
        Ok(offered.clone())
    }

    pub(super) fn remove_application_grant(&mut self, caller: &str, account: &AccountName) -> bool {
        let Some(record) = self.application_grants.get_mut(&(account.clone(), caller.to_owned())) else {
            return false;
        };
        let was_there = record.live().is_some();
        record.generation += u64::from(was_there);
        record.state = ApplicationGrantState::Revoked;
        was_there
    }

    pub(super) fn set_callback_url(
        &mut self,
        caller: &str,
        account: &AccountName,
        callback_url: Option<&str>,
    ) -> bool {
        let record = self.application_grants.get_mut(&(account.clone(), caller.to_owned()));
        let Some(ApplicationGrantState::Live(grant)) = record.map(|record| &mut record.state) else {
            return false;
        };
        grant.callback_url = callback_url.map(str::to_owned);
        true
    }

    pub(super) fn login(&self, id: [u8; 32], kind: PendingKind, now: Timestamp) -> Option<PendingLogin> {
        self.logins.get(&id).filter(|login| login.kind == kind && login.expires_at > now).cloned()
    }

    pub(super) fn append(&mut self, entry: JournalEntry) {
        let account = entry.account.clone();
        self.journal.push(entry);
        if self.journal.iter().filter(|line| line.account == account).count() > JOURNAL_LINES {
            let oldest = self.journal.iter().position(|line| line.account == account);
            oldest.map(|at| self.journal.remove(at));
        }
    }
}
