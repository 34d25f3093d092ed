//! An account at one moment, and what a call takes from it.
//!
//! One allocation with everything but the texts of the tokens: where calls go over tens of thousands of
//! accounts, none of this is in a cache, and each place more to look at is a wait for memory.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountState, ApiVersion, RealmName, Remedy};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{NewTokens, StoredAccess};

use super::route_candidate::RouteTrial;

/// What a call needs right now: a snapshot that has it all. Never changed, only replaced; one reference count
/// per call.
#[derive(Clone)]
pub struct Access(Arc<Snapshot>);

/// An account at one moment: its state and its current grant.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub state: AccountState,
    pub realm: RealmName,
    pub id: AccountId,
    /// Which version of the API discovery is asked for; `None` is the realm's.
    pub version: Option<ApiVersion>,
    pub refresh: RefreshToken,
    pub token: Option<StoredAccess>,
    pub route: Option<Arc<Route>>,
    /// A route that the next call is to try. Where it is the one in use, that one is not proven yet.
    pub trial: Option<Arc<RouteTrial>>,
    /// What callers know as the generation. It starts as the store's and grows with every publication, also
    /// while the store is unavailable and across a change of realm, where the store's would stand still or
    /// fall.
    pub serial: u64,
    pub stored_generation: u64,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
    pub standby_grants: StandbyGrants,
    pub unsaved: bool,
    /// The refresh token was imported, and no refresh with it has brought anything yet.
    pub untried: bool,
}

/// What the account has in other realms than the one in use: grants, and a move that waits for a login.
/// Nearly always nothing, which takes one word.
#[derive(Clone, Default)]
pub(super) struct StandbyGrants(Option<Box<OtherRealms>>);

#[derive(Clone)]
struct OtherRealms {
    grants: Vec<StandbyGrant>,
    moving_to: Option<RealmName>,
}

impl StandbyGrants {
    pub fn new(grants: Vec<StandbyGrant>, moving_to: Option<RealmName>) -> Self {
        let is_empty = grants.is_empty() && moving_to.is_none();
        Self((!is_empty).then(|| Box::new(OtherRealms { grants, moving_to })))
    }

    fn moving_to(&self) -> Option<&RealmName> {
        self.0.as_ref()?.moving_to.as_ref()
    }
}

impl Deref for StandbyGrants {
    type Target = [StandbyGrant];

    fn deref(&self) -> &[StandbyGrant] {
        self.0.as_deref().map_or(&[], |others| others.grants.as_slice())
    }
}

/// A grant of the account in a realm that is not the current one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct StandbyGrant {
    pub realm: RealmName,
    pub id: AccountId,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
}

impl Access {
    /// The secret as it stands in an `Authorization` field: `Bearer …`. For the wire alone.
    pub fn expose_bearer(&self) -> &str {
        self.parts().0.token.expose_bearer()
    }

    pub fn route(&self) -> &Arc<Route> {
        self.parts().1
    }

    pub fn expires_at(&self) -> Timestamp {
        self.parts().0.expires_at
    }

    /// A route that is not proven and that a call may try.
    pub fn trial(&self) -> Option<&Arc<RouteTrial>> {
        self.0.trial.as_ref()
    }

    /// The same token over another route.
    pub fn over(&self, route: &Arc<Route>) -> Self {
        let mut moved = Snapshot::clone(&self.0);
        moved.route = Some(Arc::clone(route));
        Self(Arc::new(moved))
    }

    /// Grows with every renewal; a caller of `renew` says which one it saw fail.
    pub fn generation(&self) -> u64 {
        self.0.serial
    }

    pub fn realm(&self) -> &RealmName {
        &self.0.realm
    }

    /// The version of the API that the account has instead of its realm's.
    pub fn version(&self) -> Option<ApiVersion> {
        self.0.version
    }

    fn parts(&self) -> (&StoredAccess, &Arc<Route>) {
        match (&self.0.token, &self.0.route) {
            (Some(token), Some(route)) => (token, route),
            _ => unreachable!("an access is made only of a snapshot that has both"),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access(generation {} in {})", self.generation(), self.realm())
    }
}

impl StandbyGrant {
    /// When the grant was last refreshed or obtained.
    pub fn fresh_at(&self) -> Timestamp {
        self.refreshed_at.map_or(self.obtained_at, |at| at.max(self.obtained_at))
    }
}

impl Snapshot {
    /// Whatever there is to call with, be it live or not.
    pub fn access(self: &Arc<Self>) -> Option<Access> {
        self.is_complete().then(|| Access(Arc::clone(self)))
    }

    pub fn is_complete(&self) -> bool {
        self.token.is_some() && self.route.is_some()
    }

    /// Whether the route in use has answered as the platform's API does.
    pub fn is_proven(&self) -> bool {
        match (&self.route, &self.trial) {
            (Some(route), Some(trial)) => trial.route() != route,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        self.token.as_ref().map(|token| token.expires_at)
    }

    pub fn live_token(&self, now: Timestamp) -> Option<AccessToken> {
        self.token.as_ref().filter(|token| token.expires_at > now).map(|token| token.token.clone())
    }

    /// What helps where the account needs a login.
    pub fn remedy(&self) -> Remedy {
        Remedy::of(self.untried && self.moving_to().is_none())
    }

    /// Where the account is being moved to, as long as it holds no grant there that is in use.
    pub fn moving_to(&self) -> Option<&RealmName> {
        self.standby_grants.moving_to()
    }

    /// Where the account's next login belongs.
    pub fn login_realm(&self) -> &RealmName {
        self.moving_to().unwrap_or(&self.realm)
    }

    /// The last refresh of the account on any platform: the vendor wants refreshes apart per account, not per
    /// grant.
    pub fn last_refresh(&self) -> Option<Timestamp> {
        self.standby_grants.iter().filter_map(|other| other.refreshed_at).chain(self.refreshed_at).max()
    }

    pub fn on_both_platforms(&self) -> bool {
        !self.standby_grants.is_empty()
    }

    pub fn with_tokens(&self, tokens: &NewTokens, stored: Option<u64>) -> Self {
        let stored_generation = stored.unwrap_or(self.stored_generation);
        Self {
            refresh: tokens.refresh.clone().unwrap_or_else(|| self.refresh.clone()),
            refreshed_at: Some(tokens.refreshed_at),
            serial: (self.serial + 1).max(stored_generation),
            stored_generation,
            unsaved: stored.is_none(),
            untried: false,
            token: Some(tokens.access.clone()),
            ..self.clone()
        }
    }

    /// `self` brought up to what the store holds. The store's tokens win only with a higher generation: a
    /// record read before a commit must not undo it, and tokens that the store did not take are newer than
    /// what it has.
    pub fn merged(&self, record: &Snapshot) -> Arc<Snapshot> {
        if self.realm == record.realm && record.stored_generation <= self.stored_generation {
            let mut kept = self.clone();
            kept.state = record.state.clone();
            kept.id = record.id;
            kept.version = record.version;
            kept.standby_grants = record.standby_grants.clone();
            if record.route.is_some() && record.stored_generation == self.stored_generation {
                kept.take_stored_route(record.route.clone());
            }
            return Arc::new(kept);
        }
        let mut newer = record.clone();
        newer.serial = (self.serial + 1).max(record.stored_generation);
        if self.realm == newer.realm {
            let stored = newer.route.take();
            newer.route = self.route.clone();
            newer.trial = self.trial.clone();
            if stored.is_some() {
                newer.take_stored_route(stored);
            }
        }
        Arc::new(newer)
    }

    /// A stored route is a proven one, whoever has proven it; what was on trial besides may go on.
    fn take_stored_route(&mut self, stored: Option<Arc<Route>>) {
        let is_moot = !self.is_proven() || self.trial.as_ref().map(|trial| trial.route()) == stored.as_ref();
        if is_moot {
            self.trial = None;
        }
        self.route = stored;
    }
}
