//! Accounts counted by realm and state, with the earliest token expiry: what metrics may tell, since it names
//! nobody.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::model::account::{AccountState, RealmName};

use super::registry::AccountRegistry;

/// One realm's accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RealmStats {
    pub ready: usize,
    pub paused: usize,
    pub needs_login: usize,
    /// Of accounts that are ready; one in the past belongs to an account that nobody uses, or to one in
    /// trouble.
    pub earliest_expiry: Option<Timestamp>,
    /// Accounts whose newest tokens are in memory only.
    pub unsaved: usize,
}

impl AccountRegistry {
    /// Walks all accounts: for a scrape, not for a call.
    pub fn realm_stats(&self) -> BTreeMap<RealmName, RealmStats> {
        let mut realms: BTreeMap<RealmName, RealmStats> = BTreeMap::new();
        self.for_each(|account| {
            let snapshot = account.snapshot();
            let realm_stats = realms.entry(snapshot.realm.clone()).or_default();
            realm_stats.unsaved += usize::from(snapshot.unsaved);
            match snapshot.state {
                AccountState::Paused => realm_stats.paused += 1,
                AccountState::NeedsLogin { .. } => realm_stats.needs_login += 1,
                AccountState::Ready => {
                    realm_stats.ready += 1;
                    let earliest = realm_stats.earliest_expiry.into_iter().chain(snapshot.expires_at()).min();
                    realm_stats.earliest_expiry = earliest;
                }
            }
        });
        realms
    }
}
