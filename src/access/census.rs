//! Accounts counted by realm and state, with the earliest token expiry: what metrics may tell, since it names nobody.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::model::account::{AccountState, RealmName};

use super::book::Book;

/// One realm's accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    pub ready: usize,
    pub paused: usize,
    pub needs_login: usize,
    /// Of accounts that are ready; one in the past belongs to an account that nobody uses, or to one in trouble.
    pub earliest_expiry: Option<Timestamp>,
    /// Accounts whose newest tokens are in memory only.
    pub unsaved: usize,
}

impl Book {
    /// Walks all accounts: for a scrape, not for a call.
    pub fn census(&self) -> BTreeMap<RealmName, Census> {
        let mut realms: BTreeMap<RealmName, Census> = BTreeMap::new();
        self.for_each(|entry| {
            let snapshot = entry.snapshot();
            let census = realms.entry(snapshot.realm.clone()).or_default();
            census.unsaved += usize::from(snapshot.unsaved);
            match snapshot.state {
                AccountState::Paused => census.paused += 1,
                AccountState::NeedsLogin { .. } => census.needs_login += 1,
                AccountState::Ready => {
                    census.ready += 1;
                    let earliest = census.earliest_expiry.into_iter().chain(snapshot.expires_at()).min();
                    census.earliest_expiry = earliest;
                }
            }
        });
        realms
    }
}
