//! One account in the book: a snapshot that is replaced as a whole, and what its calls and renewals note beside it.
//!
//! The rule guarded here: a snapshot's generation never goes back, whoever publishes (a flight, a pairing, a re-read of the store).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{NewTokens, StoredAccess};

use super::gaps::Pacing;
use super::renewal::Landing;
use super::signals::Signals;
use super::{Access, locked};

/// One account in the book. Its identity lasts as long as the account does; what changes is behind the snapshot.
pub struct Entry {
    pub name: AccountName,
    pub signals: Signals,
    snapshot: ArcSwap<Snapshot>,
    /// Until when no renewal can begin, as far as is known: the gap after a refresh, the back-off after trouble.
    hold_until: AtomicU64,
    pub(super) pacing: Mutex<Pacing>,
    /// The account's one renewal under way.
    pub(super) flight: Mutex<Option<watch::Receiver<Option<Landing>>>>,
}

/// What an account allows right now.
#[derive(Debug, Clone)]
pub enum Standing {
    Ready(Arc<Access>),
    /// Known and willing, but without a live token or a route: renew first.
    Renewable {
        generation: u64,
    },
    Paused,
    NeedsLogin {
        since: Timestamp,
        why: String,
    },
}

/// What operators may see of an account; no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub realm: RealmName,
    pub account_id: AccountId,
    pub state: AccountState,
    pub generation: u64,
    pub expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
    pub route: Option<Arc<Route>>,
    /// Grants in other realms.
    pub elsewhere: Vec<(RealmName, AccountId)>,
    /// The newest tokens are in memory only: the store did not take them.
    pub unsaved: bool,
    /// Why the last renewal failed and when it is tried again.
    pub trouble: Option<(String, Timestamp)>,
}

impl Entry {
    /// The vendor's id and realm of the current grant.
    pub fn identity(&self) -> (RealmName, AccountId) {
        let snapshot = self.snapshot.load();
        (snapshot.realm.clone(), snapshot.id)
    }

    /// `Ready` also while the token is past its end by our clock but nothing better can be had: the platform decides then. An account
    /// that needs a login serves on with a token that nobody has seen fail.
    pub fn standing(&self, now: Timestamp) -> Standing {
        let snapshot = self.snapshot.load();
        match (&snapshot.state, snapshot.access()) {
            (AccountState::Paused, _) => Standing::Paused,
            (_, Some(access)) if access.expires_at > now => Standing::Ready(Arc::clone(access)),
            (AccountState::NeedsLogin { since, why }, _) => {
                Standing::NeedsLogin { since: *since, why: why.clone() }
            }
            (AccountState::Ready, Some(access)) if now < self.hold_until() => {
                Standing::Ready(Arc::clone(access))
            }
            (AccountState::Ready, _) => Standing::Renewable { generation: snapshot.serial },
        }
    }

    /// Remembers that a caller used the account; the keeper looks at it. An atomic store.
    pub fn touch(&self, now: Timestamp) {
        self.signals.called(now);
    }

    pub fn state(&self) -> AccountState {
        self.snapshot.load().state.clone()
    }

    /// The generation that a renewal on nobody's behalf (operator, import) has seen.
    pub fn generation(&self) -> u64 {
        self.snapshot.load().serial
    }

    pub fn summary(&self) -> Summary {
        let snapshot = self.snapshot.load();
        Summary {
            realm: snapshot.realm.clone(),
            account_id: snapshot.id,
            state: snapshot.state.clone(),
            generation: snapshot.serial,
            expires_at: snapshot.held.expires_at(),
            refreshed_at: snapshot.refreshed_at,
            obtained_at: snapshot.obtained_at,
            route: snapshot.route.clone(),
            elsewhere: snapshot.elsewhere.iter().map(|other| (other.realm.clone(), other.id)).collect(),
            unsaved: snapshot.unsaved,
            trouble: locked(&self.pacing).trouble(),
        }
    }

    pub(super) fn new(name: AccountName, snapshot: Snapshot, pacing: Pacing) -> Self {
        Self {
            name,
            signals: Signals::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            hold_until: AtomicU64::new(0),
            pacing: Mutex::new(pacing),
            flight: Mutex::new(None),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn hold_until(&self) -> Timestamp {
        Timestamp::from_millis(self.hold_until.load(Relaxed))
    }

    pub(super) fn hold(&self, until: Timestamp) {
        self.hold_until.store(until.as_millis(), Relaxed);
    }

    /// Takes what the store holds, unless the snapshot is newer.
    pub(super) fn merge(&self, record: Snapshot) {
        let before = self.snapshot.rcu(|now| now.merged(&record));
        if before.realm != record.realm || record.stored_generation > before.stored_generation {
            // A new grant owes nothing to the troubles of the one before.
            *locked(&self.pacing) = Pacing::default();
            self.hold(Timestamp::default());
        }
    }

    /// Publishes the tokens of a refresh that started from `before`. `stored` is their generation in the store, or `None` while they
    /// are in memory only. Tokens of a grant that is no longer current, or that a pairing has overtaken, are left out.
    pub(super) fn take_tokens(&self, before: &Snapshot, tokens: &NewTokens, stored: Option<u64>) {
        self.snapshot.rcu(|now| {
            let not_overtaken = match stored {
                Some(generation) => generation > now.stored_generation,
                // Not told by generations: the saver may have brought just these tokens' forebears into the store.
                None => now.refresh == before.refresh,
            };
            match now.realm == before.realm && not_overtaken {
                true => Arc::new(now.with_tokens(tokens, stored)),
                false => Arc::clone(now),
            }
        });
    }

    /// Notes that tokens published from memory have reached the store.
    pub(super) fn tokens_saved(&self, realm: &RealmName, generation: u64) {
        self.change(realm, |snapshot| {
            snapshot.stored_generation = snapshot.stored_generation.max(generation);
            snapshot.unsaved = false;
        });
    }

    pub(super) fn put_route(&self, realm: &RealmName, route: Option<Arc<Route>>) {
        self.change(realm, |snapshot| snapshot.set_route(route.clone()));
    }

    pub(super) fn take_state(&self, realm: &RealmName, state: &AccountState) {
        self.change(realm, |snapshot| snapshot.state = state.clone());
    }

    /// Forgets an access token that the platform refuses.
    pub(super) fn drop_access(&self, generation: u64) {
        let realm = self.snapshot.load().realm.clone();
        self.change(&realm, |snapshot| {
            if snapshot.serial <= generation {
                snapshot.held = Held::Nothing;
            }
        });
    }

    fn change(&self, realm: &RealmName, edit: impl Fn(&mut Snapshot)) {
        self.snapshot.rcu(|now| {
            if now.realm != *realm {
                return Arc::clone(now);
            }
            let mut changed = Snapshot::clone(now);
            edit(&mut changed);
            Arc::new(changed)
        });
    }
}

/// An account at one moment: its state and its current grant.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub state: AccountState,
    pub realm: RealmName,
    pub id: AccountId,
    pub refresh: RefreshToken,
    pub held: Held,
    pub route: Option<Arc<Route>>,
    /// What callers know as the generation. It starts as the store's and grows with every publication, also while the store is out of
    /// order and across a change of realm, where the store's would stand still or fall.
    pub serial: u64,
    pub stored_generation: u64,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
    pub elsewhere: Box<[Elsewhere]>,
    pub unsaved: bool,
}

/// A grant of the account in a realm that is not the current one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub realm: RealmName,
    pub id: AccountId,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
}

impl Elsewhere {
    /// Since when the platform has not heard of it.
    pub fn fresh_at(&self) -> Timestamp {
        self.refreshed_at.map_or(self.obtained_at, |at| at.max(self.obtained_at))
    }
}

/// What there is of an access token. Kept once: the bearer inside `Access` is up to 8 K.
#[derive(Clone)]
pub(super) enum Held {
    Nothing,
    /// A token, but no place to use it yet.
    Token(Box<StoredAccess>),
    Whole(Arc<Access>),
}

const BEARER: &str = "Bearer ";

impl Held {
    fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Held::Nothing => None,
            Held::Token(token) => Some(token.expires_at),
            Held::Whole(access) => Some(access.expires_at),
        }
    }

    /// The token itself again, for discovery.
    fn token(&self) -> Option<StoredAccess> {
        match self {
            Held::Nothing => None,
            Held::Token(token) => Some(StoredAccess::clone(token)),
            Held::Whole(access) => {
                let text = access.bearer.to_str().ok()?.strip_prefix(BEARER)?;
                Some(StoredAccess { token: AccessToken::new(text), expires_at: access.expires_at })
            }
        }
    }
}

impl Snapshot {
    pub fn access(&self) -> Option<&Arc<Access>> {
        match &self.held {
            Held::Whole(access) => Some(access),
            Held::Nothing | Held::Token(_) => None,
        }
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        self.held.expires_at()
    }

    pub fn live_token(&self, now: Timestamp) -> Option<AccessToken> {
        self.held.token().filter(|held| held.expires_at > now).map(|held| held.token)
    }

    /// The last refresh of the account on any platform: the vendor wants refreshes apart per account, not per grant.
    pub fn last_refresh(&self) -> Option<Timestamp> {
        self.elsewhere.iter().filter_map(|other| other.refreshed_at).chain(self.refreshed_at).max()
    }

    pub fn on_both_platforms(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Puts an access token in place, whole where there is a route.
    pub fn set_access(&mut self, access: Option<StoredAccess>) {
        self.held = match (access, &self.route) {
            (None, _) => Held::Nothing,
            (Some(access), None) => Held::Token(Box::new(access)),
            (Some(access), Some(route)) => Held::Whole(Arc::new(Access {
                bearer: access.token.bearer(),
                route: Arc::clone(route),
                generation: self.serial,
                realm: self.realm.clone(),
                expires_at: access.expires_at,
            })),
        };
    }

    fn set_route(&mut self, route: Option<Arc<Route>>) {
        if self.route == route {
            return;
        }
        self.route = route;
        if let (Held::Whole(access), Some(route)) = (&self.held, &self.route) {
            // The bearer is shared, not built again: it is up to 8 K.
            self.held = Held::Whole(Arc::new(Access { route: Arc::clone(route), ..Access::clone(access) }));
            return;
        }
        let token = self.held.token();
        self.set_access(token);
    }

    fn with_tokens(&self, tokens: &NewTokens, stored: Option<u64>) -> Self {
        let stored_generation = stored.unwrap_or(self.stored_generation);
        let mut new = Self {
            refresh: tokens.refresh.clone().unwrap_or_else(|| self.refresh.clone()),
            refreshed_at: Some(tokens.refreshed_at),
            serial: (self.serial + 1).max(stored_generation),
            stored_generation,
            unsaved: stored.is_none(),
            held: Held::Nothing,
            ..self.clone()
        };
        new.set_access(Some(tokens.access.clone()));
        new
    }

    /// `self` brought up to what the store holds. The store's tokens win only with a higher generation: a record read before a commit
    /// must not undo it, and tokens that the store did not take are newer than what it has.
    fn merged(&self, record: &Snapshot) -> Arc<Snapshot> {
        if self.realm == record.realm && record.stored_generation <= self.stored_generation {
            let mut kept = self.clone();
            kept.state = record.state.clone();
            kept.id = record.id;
            kept.elsewhere = record.elsewhere.clone();
            if record.route.is_some() && record.stored_generation == self.stored_generation {
                kept.set_route(record.route.clone());
            }
            return Arc::new(kept);
        }
        let mut newer = record.clone();
        newer.serial = (self.serial + 1).max(record.stored_generation);
        if newer.route.is_none() && self.realm == newer.realm {
            newer.route = self.route.clone();
        }
        let token = newer.held.token();
        newer.set_access(token);
        Arc::new(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_costs_less_than_a_kilobyte_beyond_its_tokens() {
        let counts = 2 * size_of::<usize>();
        let name = counts + 24;
        let index = 2 * (size_of::<(AccountName, Arc<Entry>)>() + 16);
        let all =
            size_of::<Entry>() + size_of::<Snapshot>() + size_of::<Access>() + 3 * counts + name + index;
        assert!(all <= 640, "{all} bytes");
    }
}
