//! The registry of accounts, read on the request path without waiting. Nothing here does I/O.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use dashmap::{DashMap, DashSet};

use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::route::{HostPolicy, Route};
use crate::store::{AccountRecord, GrantRecord};

pub use super::account::{Account, Availability, Summary};

use super::locked;
use super::pacing::Pacing;
use super::snapshot::{Snapshot, StandbyGrant, StandbyGrants};

/// All accounts that the gateway knows.
pub struct AccountRegistry {
    by_name: DashSet<ByName>,
    /// Entries that hold a grant of this id, in whatever realm.
    by_id: DashMap<AccountId, GrantHolders>,
    rules: ArcSwap<HashMap<RealmName, RouteRules>>,
    /// Thousands of accounts share a handful of routes.
    routes: Mutex<HashSet<Arc<Route>>>,
    /// Writers one at a time, so that both indexes change together; readers never take it.
    writing: Mutex<()>,
}

/// An account found by its own name: the index keeps no copy of it.
struct ByName(Arc<Account>);

/// Nearly always one, which costs no list.
enum GrantHolders {
    One(Arc<Account>),
    Several(Box<[Arc<Account>]>),
}

/// What a realm says about routes: a stored one is checked again at every load, since `allowed_hosts` may
/// have become narrower.
#[derive(Debug, Clone)]
pub struct RouteRules {
    pub hosts: HostPolicy,
    /// Pinned by the configuration; wins over whatever was discovered.
    pub pinned: Option<Route>,
    /// Of kind old: that tokens end there is expected of accounts that have left it.
    pub is_old: bool,
}

/// The result of a look-up by the vendor's id.
pub enum AccountLookup {
    One(Arc<Account>),
    /// The id exists in several realms.
    Ambiguous(Vec<RealmName>),
    Nobody,
}

impl RouteRules {
    pub fn of(realm: &config::RealmConfig) -> Self {
        let pinned = realm.route.as_ref();
        let pinned = pinned.and_then(|pin| Route::parse(&pin.domain, &pin.path, &realm.hosts).ok());
        Self { hosts: realm.hosts.clone(), pinned, is_old: realm.kind == config::RealmKind::Old }
    }
}

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.name.as_str()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.as_str().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl GrantHolders {
    fn of(entries: Vec<Arc<Account>>) -> Option<Self> {
        match <[Arc<Account>; 1]>::try_from(entries) {
            Ok([only]) => Some(GrantHolders::One(only)),
            Err(none) if none.is_empty() => None,
            Err(several) => Some(GrantHolders::Several(several.into())),
        }
    }

    fn entries(&self) -> &[Arc<Account>] {
        match self {
            GrantHolders::One(only) => std::slice::from_ref(only),
            GrantHolders::Several(several) => several,
        }
    }
}

impl AccountRegistry {
    /// Empty; [`AccountRegistry::apply`] takes in what the store has, account by account.
    pub fn new(rules: HashMap<RealmName, RouteRules>) -> Self {
        Self {
            by_name: DashSet::new(),
            by_id: DashMap::new(),
            rules: ArcSwap::from_pointee(rules),
            routes: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    pub fn load(records: Vec<AccountRecord>, rules: HashMap<RealmName, RouteRules>) -> Self {
        let registry = Self::new(rules);
        for record in records {
            registry.apply(record);
        }
        registry
    }

    pub fn by_name(&self, name: &str) -> Option<Arc<Account>> {
        self.by_name.get(name).map(|found| Arc::clone(&found.0))
    }

    /// Finds grants that are not the current one as well, so that an id stays good while its account moves
    /// between platforms.
    pub fn by_id(&self, realm: Option<&RealmName>, id: AccountId) -> AccountLookup {
        let Some(holders) = self.by_id.get(&id) else { return AccountLookup::Nobody };
        let holders = holders.entries();
        let wanted =
            |account: &&Arc<Account>| realm.is_none_or(|realm| realm_of(account, id, Some(realm)).is_some());
        let mut matching = holders.iter().filter(wanted);
        match (matching.next(), matching.next()) {
            (None, _) => AccountLookup::Nobody,
            (Some(only), None) => AccountLookup::One(Arc::clone(only)),
            (Some(_), Some(_)) => {
                let mut realms: Vec<_> =
                    holders.iter().filter_map(|account| realm_of(account, id, None)).collect();
                realms.sort();
                realms.dedup();
                AccountLookup::Ambiguous(realms)
            }
        }
    }

    /// In order of name. For operators' lists: it walks and sorts all accounts.
    pub fn all(&self) -> Vec<Arc<Account>> {
        let mut all: Vec<_> = self.by_name.iter().map(|found| Arc::clone(&found.0)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Puts into the registry what the store now holds of an account: after a pairing, an import, a pause, a
    /// resume, a switch of realm. An account that exists keeps its identity, and its tokens where they are
    /// newer than the record's. `None`, and no account any more, for a record without a current grant.
    pub fn apply(&self, record: AccountRecord) -> Option<Arc<Account>> {
        let _one_writer = locked(&self.writing);
        let Some(grant) = record.current_grant() else {
            tracing::error!(account = %record.name, "the account has no grant in its current realm; it is left out");
            self.remove_indexed(record.name.as_str());
            return None;
        };
        let snapshot = self.snapshot_of(&record, grant);
        let known = self.by_name(record.name.as_str());
        let account = match known {
            Some(account) => {
                let stale: Vec<_> = ids(&account.snapshot()).filter(|id| !holds(&record, *id)).collect();
                stale.into_iter().for_each(|id| self.unindex_id(id, &account));
                account.merge(snapshot);
                account
            }
            None => {
                let pacing = Pacing::after_restart(grant.intent);
                let account = Arc::new(Account::new(record.name.clone(), snapshot, pacing));
                self.by_name.insert(ByName(Arc::clone(&account)));
                account
            }
        };
        record.grants.iter().for_each(|grant| self.index_id(grant.account_id, &account));
        Some(account)
    }

    /// Takes an account out after its last grant is gone.
    pub fn remove(&self, name: &str) {
        let _one_writer = locked(&self.writing);
        self.remove_indexed(name);
    }

    /// Puts new rules in force; a route that they no longer allow is forgotten, a pinned one takes its place
    /// at once.
    pub fn set_rules(&self, rules: HashMap<RealmName, RouteRules>) {
        let _one_writer = locked(&self.writing);
        self.rules.store(Arc::new(rules));
        for account in self.all() {
            let snapshot = account.snapshot();
            let rules = self.rules.load();
            let route = rules.get(&snapshot.realm).and_then(|rules| match &rules.pinned {
                Some(pinned) => Some(self.intern_route(pinned.clone())),
                None => snapshot.route.clone().filter(|route| still_allowed(route, &rules.hosts)),
            });
            if route != snapshot.route {
                account.put_route(&snapshot.realm, route);
            }
        }
    }

    /// For rounds over every account, in no order, without sorting or collecting them.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<Account>)) {
        self.by_name.iter().for_each(|found| look(&found.0));
    }

    /// Whether this realm is of kind old.
    pub(super) fn is_old(&self, realm: &RealmName) -> bool {
        self.rules.load().get(realm).is_some_and(|rules| rules.is_old)
    }

    /// The one copy of a route.
    pub(super) fn intern_route(&self, route: Route) -> Arc<Route> {
        let mut routes = locked(&self.routes);
        if let Some(known) = routes.get(&route) {
            return Arc::clone(known);
        }
        // A platform that names another route each time must not fill the memory.
        if routes.len() >= 64 && routes.len().is_power_of_two() {
            routes.retain(|known| Arc::strong_count(known) > 1);
        }
        let route = Arc::new(route);
        routes.insert(Arc::clone(&route));
        route
    }

    /// Whether no other account of the realm is at work that could tell bad credentials from a dead grant.
    pub(super) fn is_only_one_at_work(&self, realm: &RealmName, name: &AccountName) -> bool {
        !self.by_name.iter().any(|found| {
            let snapshot = found.0.snapshot();
            found.0.name != *name && snapshot.realm == *realm && snapshot.state == AccountState::Ready
        })
    }

    pub(super) fn snapshot_of(&self, record: &AccountRecord, grant: &GrantRecord) -> Snapshot {
        let rules = self.rules.load();
        let others = record.grants.iter().filter(|other| other.realm != grant.realm);
        let standby_grants = others.map(|other| StandbyGrant {
            realm: one_copy(&rules, &other.realm),
            id: other.account_id,
            refreshed_at: other.refreshed_at,
            obtained_at: other.obtained_at,
        });
        let moving_to = record.moving_to.as_ref().map(|realm| one_copy(&rules, realm));
        Snapshot {
            state: record.state.clone(),
            realm: one_copy(&rules, &grant.realm),
            id: grant.account_id,
            version: record.version,
            refresh: grant.refresh.clone(),
            // One without an end was written beside a refresh token that came alone.
            token: grant.access.clone().filter(|access| access.expires_at != Timestamp::default()),
            route: self.route_of(grant, &rules),
            trial: None,
            serial: grant.generation,
            stored_generation: grant.generation,
            refreshed_at: grant.refreshed_at,
            obtained_at: grant.obtained_at,
            standby_grants: StandbyGrants::new(standby_grants.collect(), moving_to),
            unsaved: false,
            // Pairing and every refresh leave an access token beside the grant.
            untried: grant.access.is_none(),
        }
    }

    fn route_of(&self, grant: &GrantRecord, rules: &HashMap<RealmName, RouteRules>) -> Option<Arc<Route>> {
        let rules = rules.get(&grant.realm)?;
        if let Some(pinned) = &rules.pinned {
            return Some(self.intern_route(pinned.clone()));
        }
        let stored = grant.route.as_ref()?;
        Route::parse(&stored.domain, &stored.path, &rules.hosts).ok().map(|route| self.intern_route(route))
    }

    fn remove_indexed(&self, name: &str) {
        if let Some(ByName(account)) = self.by_name.remove(name) {
            ids(&account.snapshot()).for_each(|id| self.unindex_id(id, &account));
        }
    }

    fn index_id(&self, id: AccountId, account: &Arc<Account>) {
        self.change_holders(id, |holders| {
            if !holders.iter().any(|holder| Arc::ptr_eq(holder, account)) {
                holders.push(Arc::clone(account));
            }
        });
    }

    fn unindex_id(&self, id: AccountId, account: &Arc<Account>) {
        self.change_holders(id, |holders| holders.retain(|holder| !Arc::ptr_eq(holder, account)));
    }

    /// Under the lock of writers, so nothing is lost between reading and writing.
    fn change_holders(&self, id: AccountId, change: impl FnOnce(&mut Vec<Arc<Account>>)) {
        let mut holders = self.by_id.get(&id).map_or_else(Vec::new, |known| known.entries().to_vec());
        change(&mut holders);
        match GrantHolders::of(holders) {
            Some(holders) => drop(self.by_id.insert(id, holders)),
            None => drop(self.by_id.remove(&id)),
        }
    }
}

/// The realm in which an account holds this id; the current grant's first.
fn realm_of(account: &Account, id: AccountId, wanted: Option<&RealmName>) -> Option<RealmName> {
    let snapshot = account.snapshot();
    let current = (&snapshot.realm, snapshot.id);
    let others = snapshot.standby_grants.iter().map(|other| (&other.realm, other.id));
    std::iter::once(current)
        .chain(others)
        .find(|(realm, held)| *held == id && wanted.is_none_or(|wanted| wanted == *realm))
        .map(|(realm, _)| realm.clone())
}

fn ids(snapshot: &Snapshot) -> impl Iterator<Item = AccountId> {
    let others = snapshot.standby_grants.iter().map(|other| other.id);
    std::iter::once(snapshot.id).chain(others)
}

fn holds(record: &AccountRecord, id: AccountId) -> bool {
    record.grants.iter().any(|grant| grant.account_id == id)
}

/// The configuration's copy of a realm's name, so that thousands of accounts share its text.
fn one_copy(rules: &HashMap<RealmName, RouteRules>, realm: &RealmName) -> RealmName {
    rules.get_key_value(realm).map_or_else(|| realm.clone(), |(ours, _)| ours.clone())
}

fn still_allowed(route: &Route, hosts: &HostPolicy) -> bool {
    Route::parse(&route.domain(), route.path(), hosts).is_ok()
}
