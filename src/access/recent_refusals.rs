//! The refused refresh tokens of a realm, as long as they may mean something else than dead grants.
//!
//! The rule guarded here: many refusals within minutes are a signal before they are a verdict.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Timestamp;

use super::account::Account;

/// Refusals that belong together.
pub(super) const CORRELATION_WINDOW: Duration = Duration::from_secs(600);
/// So many accounts refused within minutes are no coincidence, although others succeed between them.
const MASS_REFUSAL: usize = 3;
/// Between two tries of a realm all of whose accounts were refused, the longer the longer that lasts.
const SHORTEST_PROBE: Duration = Duration::from_secs(30);
const LONGEST_PROBE: Duration = Duration::from_secs(1800);
/// By then it was no mistake.
pub(super) const LAST_PROBE: Duration = Duration::from_secs(24 * 3600);

#[derive(Default)]
pub(super) struct Refusals {
    recent: Vec<(Timestamp, Weak<Account>)>,
    /// Since the last success: these may be about our credentials.
    unproven: Vec<(Timestamp, Weak<Account>)>,
    /// Accounts that need a login by a verdict that fell among others: tried once more when the realm is seen
    /// to work.
    given_up: Vec<Weak<Account>>,
    given_up_at: Timestamp,
    next_probe: Timestamp,
}

/// What a refusal looks like beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefusalContext {
    /// Another account was refused and none has succeeded since.
    pub unproven: bool,
    /// Refused together with others: to be tried once more before a login is asked for.
    pub together: bool,
}

impl Refusals {
    pub fn add(&mut self, now: Timestamp, account: &Arc<Account>) -> RefusalContext {
        let another = |(_, other): &(Timestamp, Weak<Account>)| {
            other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, account))
        };
        // A second look is refused too: the verdict bears the moment of the first.
        let first = self.unproven.iter().find(|refusal| !another(refusal)).map_or(now, |(at, _)| *at);
        self.recent.retain(|refusal| another(refusal) && now.since(refusal.0) < CORRELATION_WINDOW);
        self.unproven.retain(another);
        let unproven = !self.unproven.is_empty();
        let fresh = |(at, _): &(Timestamp, Weak<Account>)| now.since(*at) < CORRELATION_WINDOW;
        let together = self.recent.len() + 1 >= MASS_REFUSAL || self.unproven.iter().any(fresh);
        self.recent.push((now, Arc::downgrade(account)));
        self.unproven.push((first, Arc::downgrade(account)));
        RefusalContext { unproven, together }
    }

    /// Whoever was refused within these minutes beside `account`.
    pub fn others(&self, account: &Arc<Account>) -> Vec<Arc<Account>> {
        let others = self.recent.iter().filter_map(|(_, other)| other.upgrade());
        others.filter(|other| !Arc::ptr_eq(other, account)).collect()
    }

    /// Takes those whose refusal may have been about our credentials, each with its moment.
    pub fn take_unproven(&mut self) -> Vec<(Timestamp, Arc<Account>)> {
        self.unproven.drain(..).filter_map(|(at, account)| Some((at, account.upgrade()?))).collect()
    }

    /// The credentials are good.
    pub fn proven(&mut self) {
        self.unproven.clear();
    }

    /// `false` where it was given up already.
    pub fn give_up(&mut self, now: Timestamp, account: &Arc<Account>) -> bool {
        let account = Arc::downgrade(account);
        if self.given_up.iter().any(|known| known.ptr_eq(&account)) {
            return false;
        }
        self.given_up.push(account);
        self.given_up_at = now;
        self.next_probe = now + SHORTEST_PROBE;
        true
    }

    /// The realm works: those whose verdict fell among others.
    pub fn take_given_up(&mut self) -> Vec<Arc<Account>> {
        self.given_up.drain(..).filter_map(|account| account.upgrade()).collect()
    }

    pub fn next_probe(&self) -> Option<Timestamp> {
        (!self.given_up.is_empty()).then_some(self.next_probe)
    }

    /// One of those that were given up, to see whether the realm takes it by now; each in turn.
    pub fn probe(&mut self, now: Timestamp) -> Option<Arc<Account>> {
        if self.given_up.is_empty() || now < self.next_probe {
            return None;
        }
        let lasted = now.since(self.given_up_at);
        if lasted > LAST_PROBE {
            self.given_up.clear();
        }
        self.next_probe = now + (lasted / 4).clamp(SHORTEST_PROBE, LONGEST_PROBE);
        self.given_up.retain(|account| account.strong_count() > 0);
        let first = self.given_up.first()?.upgrade();
        self.given_up.rotate_left(1);
        first
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
