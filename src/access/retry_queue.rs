//! Who is owed a renewal although no caller asks. Values only; `retries` and `scheduler` work them off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};

use super::account::Account;
use super::locked;

/// Accounts that are owed a renewal.
#[derive(Default)]
pub(super) struct RetryQueue {
    /// Their last renewal failed; when to try again is for their pacing and their realm to say.
    pub failing: Mutex<HashMap<AccountName, Arc<Account>>>,
    /// Those that need a login by a verdict that may have been wrong, each with the moment of its one more
    /// try.
    pub second_tries: Mutex<HashMap<AccountName, (Arc<Account>, Timestamp)>>,
    pub changed: Notify,
}

impl RetryQueue {
    pub fn add(&self, account: &Arc<Account>) {
        locked(&self.failing).insert(account.name.clone(), Arc::clone(account));
        self.changed.notify_one();
    }

    pub fn second_try_at(&self, account: Arc<Account>, at: Timestamp) {
        locked(&self.second_tries).entry(account.name.clone()).or_insert((account, at));
        self.changed.notify_one();
    }
}

/// Grants that could not be refreshed the last time.
#[derive(Default)]
pub(super) struct StandbyRetries(Mutex<HashMap<(AccountName, RealmName), RetryAt>>);

#[derive(Clone, Copy)]
pub(super) struct RetryAt {
    pub at: Timestamp,
    /// The platform refused the grant.
    pub refused: bool,
}

impl StandbyRetries {
    pub fn get(&self, name: &AccountName, realm: &RealmName) -> Option<RetryAt> {
        let all = locked(&self.0);
        // Nearly always there is none at all, and then nothing is copied.
        if all.is_empty() { None } else { all.get(&(name.clone(), realm.clone())).copied() }
    }

    pub fn set(&self, name: &AccountName, realm: &RealmName, again: Option<RetryAt>) {
        let key = (name.clone(), realm.clone());
        match again {
            Some(again) => locked(&self.0).insert(key, again),
            None => locked(&self.0).remove(&key),
        };
    }
}
