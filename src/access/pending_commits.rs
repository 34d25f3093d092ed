//! New tokens that the store did not take: they wait here, in memory, until it does (threats, row 21). Values
//! only; `commit` saves them.
//!
//! The rule guarded here: of the tokens that wait, the newest win.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;

use crate::model::account::{AccountName, RealmName};
use crate::model::token::RefreshToken;
use crate::store::NewTokens;

use super::locked;

/// Tokens that wait for the store, one set per grant.
#[derive(Default)]
pub(super) struct PendingCommits {
    waiting: Mutex<HashMap<(AccountName, RealmName), PendingCommit>>,
    count: watch::Sender<usize>,
    pub failures: AtomicU64,
}

#[derive(Clone)]
pub(super) struct PendingCommit {
    /// The store's generation as last known.
    pub expected: u64,
    pub tokens: NewTokens,
    /// The refresh tokens that these came from. A store that holds one of them holds something older.
    pub ancestors: Vec<RefreshToken>,
    pub version: u64,
    /// The refresh token before one that came alone: kept beside it in the store until that is proven.
    pub one_before: Option<RefreshToken>,
}

impl PendingCommits {
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Commits that the store did not take, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub async fn until_empty(&self) {
        let mut count = self.count.subscribe();
        let _ = count.wait_for(|waiting| *waiting == 0).await;
    }

    /// Puts the tokens in the place of older ones that still wait. `false` where none do.
    pub fn replace(&self, key: &(AccountName, RealmName), spent: &RefreshToken, tokens: &NewTokens) -> bool {
        let mut waiting = locked(&self.waiting);
        let Some(older) = waiting.get_mut(key) else { return false };
        older.version += 1;
        older.ancestors.push(spent.clone());
        let kept = older.tokens.refresh.take();
        older.tokens = tokens.clone();
        // A response without a refresh token keeps the one before, which the store has not seen either.
        older.tokens.refresh = older.tokens.refresh.take().or(kept);
        // A refresh has proven what it was asked with.
        older.one_before = None;
        true
    }

    /// Likewise a refresh token that came alone, after the one that is to be kept beside it.
    pub fn replace_refresh(
        &self,
        key: &(AccountName, RealmName),
        tokens: &NewTokens,
        one_before: Option<RefreshToken>,
    ) -> bool {
        let mut waiting = locked(&self.waiting);
        let Some(older) = waiting.get_mut(key) else { return false };
        older.version += 1;
        older.ancestors.extend(one_before.iter().chain(&tokens.refresh).cloned());
        older.tokens.refresh = tokens.refresh.clone();
        older.one_before = one_before;
        true
    }

    pub fn add(&self, key: &(AccountName, RealmName), waiting: PendingCommit) {
        let mut all = locked(&self.waiting);
        all.insert(key.clone(), waiting);
        self.count.send_replace(all.len());
    }

    pub fn get(&self, key: &(AccountName, RealmName)) -> Option<PendingCommit> {
        locked(&self.waiting).get(key).cloned()
    }

    /// Takes out what was saved; newer tokens that came meanwhile stay, over what is now in the store.
    pub fn saved(&self, key: &(AccountName, RealmName), version: u64, generation: u64) -> bool {
        let mut all = locked(&self.waiting);
        match all.get_mut(key) {
            Some(newer) if newer.version != version => {
                newer.expected = generation;
                false
            }
            _ => {
                all.remove(key);
                self.count.send_replace(all.len());
                true
            }
        }
    }

    pub fn expect(&self, key: &(AccountName, RealmName), generation: u64) {
        if let Some(waiting) = locked(&self.waiting).get_mut(key) {
            waiting.expected = generation;
        }
    }

    /// Gives up tokens that somebody else's have overtaken; `false` where newer ones wait by now.
    pub fn drop_if(&self, key: &(AccountName, RealmName), version: u64) -> bool {
        let mut all = locked(&self.waiting);
        if all.get(key).is_some_and(|waiting| waiting.version != version) {
            return false;
        }
        all.remove(key);
        self.count.send_replace(all.len());
        true
    }

    /// Puts the refresh token before one that came alone back in its place, since the platform refuses that.
    /// `None` where there is none.
    pub fn take_one_before(&self, key: &(AccountName, RealmName)) -> Option<RefreshToken> {
        let mut waiting = locked(&self.waiting);
        let pending = waiting.get_mut(key)?;
        let one_before = pending.one_before.take()?;
        pending.version += 1;
        pending.tokens.refresh = Some(one_before.clone());
        Some(one_before)
    }
}
