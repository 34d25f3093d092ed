//! An account at one moment, and what a call takes from it.
//!
//! One allocation with everything but the texts of the tokens: where calls go over tens of thousands of accounts, none of this is in a
//! cache, and each place more to look at is a wait for memory.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountState, RealmName};
use crate::model::route::Route;
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{NewTokens, StoredAccess};

/// What a call needs right now: a snapshot that has it all. Never changed, only replaced; one reference count per call.
#[derive(Clone)]
pub struct Access(Arc<Snapshot>);

/// An account at one moment: its state and its current grant.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub state: AccountState,
    pub realm: RealmName,
    pub id: AccountId,
    pub refresh: RefreshToken,
    pub token: Option<StoredAccess>,
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

    /// Grows with every renewal; a caller of `renew` says which one it saw fail.
    pub fn generation(&self) -> u64 {
        self.0.serial
    }

    pub fn realm(&self) -> &RealmName {
        &self.0.realm
    }

    /// For tests of whatever stands on accounts, in realm `global`.
    #[cfg(test)]
    pub fn endless(token: AccessToken, route: Route, generation: u64) -> Self {
        let never = Timestamp::from_millis(u64::MAX);
        Self(Arc::new(Snapshot {
            state: AccountState::Ready,
            realm: "global".parse().unwrap(),
            id: AccountId::new(1),
            refresh: RefreshToken::new("refresh"),
            token: Some(StoredAccess { token, expires_at: never }),
            route: Some(Arc::new(route)),
            serial: generation,
            stored_generation: generation,
            refreshed_at: None,
            obtained_at: Timestamp::default(),
            elsewhere: Box::default(),
            unsaved: false,
        }))
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

impl Elsewhere {
    /// Since when the platform has not heard of it.
    pub fn fresh_at(&self) -> Timestamp {
        self.refreshed_at.map_or(self.obtained_at, |at| at.max(self.obtained_at))
    }
}

impl Snapshot {
    /// Whatever there is to call with, be it live or not.
    pub fn access(self: &Arc<Self>) -> Option<Access> {
        self.is_whole().then(|| Access(Arc::clone(self)))
    }

    pub fn is_whole(&self) -> bool {
        self.token.is_some() && self.route.is_some()
    }

    pub fn expires_at(&self) -> Option<Timestamp> {
        self.token.as_ref().map(|token| token.expires_at)
    }

    pub fn live_token(&self, now: Timestamp) -> Option<AccessToken> {
        self.token.as_ref().filter(|token| token.expires_at > now).map(|token| token.token.clone())
    }

    /// The last refresh of the account on any platform: the vendor wants refreshes apart per account, not per grant.
    pub fn last_refresh(&self) -> Option<Timestamp> {
        self.elsewhere.iter().filter_map(|other| other.refreshed_at).chain(self.refreshed_at).max()
    }

    pub fn on_both_platforms(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    pub fn with_tokens(&self, tokens: &NewTokens, stored: Option<u64>) -> Self {
        let stored_generation = stored.unwrap_or(self.stored_generation);
        Self {
            refresh: tokens.refresh.clone().unwrap_or_else(|| self.refresh.clone()),
            refreshed_at: Some(tokens.refreshed_at),
            serial: (self.serial + 1).max(stored_generation),
            stored_generation,
            unsaved: stored.is_none(),
            token: Some(tokens.access.clone()),
            ..self.clone()
        }
    }

    /// `self` brought up to what the store holds. The store's tokens win only with a higher generation: a record read before a commit
    /// must not undo it, and tokens that the store did not take are newer than what it has.
    pub fn merged(&self, record: &Snapshot) -> Arc<Snapshot> {
        if self.realm == record.realm && record.stored_generation <= self.stored_generation {
            let mut kept = self.clone();
            kept.state = record.state.clone();
            kept.id = record.id;
            kept.elsewhere = record.elsewhere.clone();
            if record.route.is_some() && record.stored_generation == self.stored_generation {
                kept.route = record.route.clone();
            }
            return Arc::new(kept);
        }
        let mut newer = record.clone();
        newer.serial = (self.serial + 1).max(record.stored_generation);
        if newer.route.is_none() && self.realm == newer.realm {
            newer.route = self.route.clone();
        }
        Arc::new(newer)
    }
}
