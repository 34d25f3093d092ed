//! One account in the registry: a snapshot that is replaced as one, and what calls and renewals record beside
//! it.
//!
//! The rule guarded here: a snapshot's generation never goes back, whoever publishes (a renewal, a pairing, a
//! re-read of the store).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, AccountState, ApiVersion, RealmName, Remedy};
use crate::model::route::Route;
use crate::model::token::RefreshToken;
use crate::store::NewTokens;
use arc_swap::ArcSwap;

use super::activity::Activity;
use super::cause::Cause;
use super::failure_streak::{CallFailure, FailureStreak};
use super::pacing::Pacing;
use super::pacing_cell::PacingCell;
use super::route_candidate::{RouteCandidate, RouteTrial, UnreachableRoute};
use super::single_flight::SingleFlight;
use super::snapshot::{Access, Snapshot};

/// One account in the registry. Its identity lasts as long as the account does; what changes is behind the
/// snapshot.
pub struct Account {
    pub name: AccountName,
    pub activity: Activity,
    snapshot: ArcSwap<Snapshot>,
    /// Until when no renewal can begin, as far as is known: the gap after a refresh, the back-off after
    /// trouble.
    renewals_blocked_until: AtomicU64,
    /// When our own last refresh went out: the intent of that moment in the store is ours.
    sent_at: AtomicU64,
    /// The generation that the platform has refused and whose successor is on the way; see [`Refused`].
    refused: AtomicU64,
    pub(super) pacing: PacingCell,
    /// The account's one renewal in flight.
    pub(super) single_flight: SingleFlight,
}

/// What an account allows right now.
#[derive(Debug, Clone)]
pub enum Availability {
    Ready(Access),
    /// The platform has refused this token, and the renewal that replaces it is in flight.
    Refused {
        access: Access,
        /// How it was refused: [`Cause::Unauthorized`] or [`Cause::Forbidden`].
        cause: Cause,
    },
    /// Known and willing, but without a live token or a route: renew first.
    Renewable {
        generation: u64,
    },
    Paused,
    NeedsLogin {
        since: Timestamp,
        why: String,
        remedy: Remedy,
    },
}

/// What operators may see of an account; no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub realm: RealmName,
    pub account_id: AccountId,
    /// Which version of the API discovery is asked for; `None` is the realm's.
    pub version: Option<ApiVersion>,
    pub state: AccountState,
    pub generation: u64,
    pub expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    pub obtained_at: Timestamp,
    pub route: Option<Arc<Route>>,
    /// Whether the route has answered as the platform's API does.
    pub route_proven: bool,
    /// Named by discovery and not used.
    pub candidate: Option<RouteCandidate>,
    /// Calls found no connection to the route.
    pub unreachable: Option<UnreachableRoute>,
    /// Grants in other realms.
    pub standby_grants: Vec<(RealmName, AccountId)>,
    /// The newest tokens are in memory only: the store did not take them.
    pub unsaved: bool,
    /// Why the last renewal failed and when it is tried again.
    pub last_error: Option<(String, Timestamp)>,
    /// Calls that failed in a row, up to now.
    pub streak: Option<FailureStreak>,
}

impl Account {
    /// The vendor's id and realm of the current grant.
    pub fn identity(&self) -> (RealmName, AccountId) {
        let snapshot = self.snapshot.load();
        (snapshot.realm.clone(), snapshot.id)
    }

    /// Where the account's next login belongs: its current realm, or the one that it is being moved to.
    pub fn login_realm(&self) -> RealmName {
        self.snapshot.load().login_realm().clone()
    }

    /// `Ready` also while the token is past its end by our clock but nothing better can be had: the platform
    /// decides then. An account that needs a login serves on with a token that nobody has seen fail.
    pub fn availability(&self, now: Timestamp) -> Availability {
        let snapshot = self.snapshot.load();
        match (&snapshot.state, snapshot.access()) {
            (AccountState::Paused, _) => Availability::Paused,
            (_, Some(access)) if access.expires_at() > now => match self.refused.load(Relaxed) {
                Refused::NOTHING => Availability::Ready(access),
                word => self.ready_or_refused(access, word),
            },
            (AccountState::NeedsLogin { since, why }, _) => {
                Availability::NeedsLogin { since: *since, why: why.clone(), remedy: snapshot.remedy() }
            }
            (AccountState::Ready, Some(access)) if now < self.renewals_blocked_until() => {
                Availability::Ready(access)
            }
            (AccountState::Ready, _) => Availability::Renewable { generation: snapshot.serial },
        }
    }

    /// Remembers that a caller used the account; the scheduler looks at it. An atomic store.
    pub fn mark_used(&self, now: Timestamp) {
        self.activity.called(now);
    }

    /// A call came to nothing good for its caller.
    pub fn call_failed(&self, what: CallFailure, at: Timestamp) {
        let good_at = self.activity.succeeded_at();
        let mut pacing = self.pacing.lock();
        pacing.streak = Some(FailureStreak::after(pacing.streak.take(), what, at, good_at));
    }

    /// Failures in a row up to now, where the last call failed.
    pub fn streak(&self) -> Option<FailureStreak> {
        let good_at = self.activity.succeeded_at();
        self.pacing.lock().streak.clone().filter(|streak| streak.goes_on(good_at))
    }

    /// The platform answers over the account's route again.
    pub(super) fn platform_is_well(&self, at: Timestamp) {
        if let Some(streak) = self.pacing.lock().streak.as_mut().filter(|streak| streak.last < at) {
            streak.well_at = Some(at);
        }
    }

    /// When the platform last answered a call of this account, whatever it said, as far as is known.
    pub(super) fn responded_at(&self) -> Option<Timestamp> {
        let failed = self.pacing.lock().streak.as_ref().and_then(|streak| match streak.what {
            CallFailure::Status(_) => Some(streak.last),
            CallFailure::Refused(_) => None,
        });
        self.activity.succeeded_at().max(failed)
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
        let responded_at = self.responded_at();
        let streak = self.streak();
        let pacing = self.pacing.lock();
        let is_so_still = |known: &&UnreachableRoute| responded_at.is_none_or(|at| at < known.last);
        Summary {
            realm: snapshot.realm.clone(),
            account_id: snapshot.id,
            version: snapshot.version,
            state: snapshot.state.clone(),
            generation: snapshot.serial,
            expires_at: snapshot.expires_at(),
            refreshed_at: snapshot.refreshed_at,
            obtained_at: snapshot.obtained_at,
            route: snapshot.route.clone(),
            standby_grants: snapshot
                .standby_grants
                .iter()
                .map(|other| (other.realm.clone(), other.id))
                .collect(),
            unsaved: snapshot.unsaved,
            last_error: pacing.last_error(),
            streak,
            route_proven: snapshot.is_proven(),
            candidate: pacing.routes.candidate.clone(),
            unreachable: pacing.routes.unreachable.as_ref().filter(is_so_still).cloned(),
        }
    }

    pub(super) fn new(name: AccountName, snapshot: Snapshot, pacing: Pacing) -> Self {
        Self {
            name,
            activity: Activity::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            renewals_blocked_until: AtomicU64::new(0),
            sent_at: AtomicU64::new(0),
            refused: AtomicU64::new(Refused::NOTHING),
            pacing: PacingCell::new(pacing),
            single_flight: SingleFlight::default(),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn renewals_blocked_until(&self) -> Timestamp {
        Timestamp::from_millis(self.renewals_blocked_until.load(Relaxed))
    }

    pub(super) fn block_renewals_until(&self, until: Timestamp) {
        self.renewals_blocked_until.store(until.as_millis(), Relaxed);
    }

    /// Notes that a call with this generation was answered 401 or 403 and that a renewal is in flight because
    /// of it. A 401 outranks a 403, which may mean what it says.
    pub(super) fn refuse(&self, generation: u64, cause: Cause) {
        let Some(word) = Refused::word(generation, cause) else { return };
        let _ = self.refused.fetch_update(Relaxed, Relaxed, |known| {
            (known == Refused::NOTHING || word > known).then_some(word)
        });
    }

    /// The renewal is over, whatever it brought.
    pub(super) fn clear_in_flight(&self) {
        let mut slot = self.single_flight.lock();
        slot.clear();
        // Under the lock, so that what the next renewal notes is not wiped out.
        self.refused.store(Refused::NOTHING, Relaxed);
    }

    #[cold]
    fn ready_or_refused(&self, access: Access, word: u64) -> Availability {
        match Refused::read(word) {
            (generation, cause) if generation >= access.generation() => {
                Availability::Refused { access, cause }
            }
            _ => Availability::Ready(access),
        }
    }

    pub(super) fn record_refresh_sent(&self, at: Timestamp) {
        self.sent_at.store(at.as_millis(), Relaxed);
    }

    /// Whether this intent is of our own last refresh.
    pub(super) fn is_ours(&self, intent: Timestamp) -> bool {
        self.sent_at.load(Relaxed) == intent.as_millis()
    }

    /// Takes what the store holds, unless the snapshot is newer.
    pub(super) fn merge(&self, record: Snapshot) {
        let before = self.snapshot.rcu(|now| now.merged(&record));
        if before.realm != record.realm || record.stored_generation > before.stored_generation {
            // A new grant owes nothing to the troubles of the one before.
            *self.pacing.lock() = Pacing::default();
            self.sent_at.store(0, Relaxed);
            self.block_renewals_until(Timestamp::default());
        }
    }

    /// Publishes the tokens of a refresh that started from `before`. `stored` is their generation in the
    /// store, or `None` while they are in memory only. Tokens of a grant that is no longer current, or that a
    /// pairing has overtaken, are left out.
    pub(super) fn take_tokens(&self, before: &Snapshot, tokens: &NewTokens, stored: Option<u64>) {
        self.snapshot.rcu(|now| {
            let not_overtaken = match stored {
                Some(generation) => generation > now.stored_generation,
                // Not decided by generations: the saver may have brought just these tokens' forebears into
                // the store.
                None => now.refresh == before.refresh,
            };
            if now.realm == before.realm && not_overtaken {
                Arc::new(now.with_tokens(tokens, stored))
            } else {
                Arc::clone(now)
            }
        });
    }

    /// Publishes a refresh token that came without an access token; what serves goes on serving. `stored` is
    /// its generation in the store, or `None` while it is in memory only.
    pub(super) fn take_refresh(&self, before: &Snapshot, refresh: &RefreshToken, stored: Option<u64>) {
        self.change(&before.realm, |snapshot| match stored {
            Some(generation) if generation > snapshot.stored_generation => {
                snapshot.refresh = refresh.clone();
                snapshot.stored_generation = generation;
            }
            None if snapshot.refresh == before.refresh => {
                snapshot.refresh = refresh.clone();
                snapshot.unsaved = true;
            }
            _ => {}
        });
    }

    /// Notes that tokens published from memory have reached the store.
    pub(super) fn tokens_saved(&self, realm: &RealmName, generation: u64) {
        self.change(realm, |snapshot| {
            snapshot.stored_generation = snapshot.stored_generation.max(generation);
            snapshot.unsaved = false;
        });
    }

    /// A proven route, or none.
    pub(super) fn put_route(&self, realm: &RealmName, route: Option<Arc<Route>>) {
        self.change(realm, |snapshot| {
            snapshot.route = route.clone();
            snapshot.trial = None;
        });
    }

    /// A route of which nothing better is known than that discovery has named it.
    pub(super) fn put_unproven(&self, realm: &RealmName, route: &Arc<Route>) {
        let trial = RouteTrial::of(Arc::clone(route));
        self.change(realm, |snapshot| {
            snapshot.route = Some(Arc::clone(route));
            snapshot.trial = Some(Arc::clone(&trial));
        });
    }

    /// A route that the next call is to try beside the proven one, or none.
    pub(super) fn put_trial(&self, realm: &RealmName, trial: Option<Arc<RouteTrial>>) {
        let snapshot = self.snapshot.load();
        let is_moot = snapshot.trial.is_none() && trial.is_none();
        if !is_moot && snapshot.is_proven() {
            self.change(realm, |snapshot| snapshot.trial = trial.clone());
        }
    }

    pub(super) fn take_state(&self, realm: &RealmName, state: &AccountState) {
        self.change(realm, |snapshot| snapshot.state = state.clone());
    }

    /// Forgets an access token that the platform refuses.
    pub(super) fn drop_access(&self, generation: u64) {
        let realm = self.snapshot.load().realm.clone();
        self.change(&realm, |snapshot| {
            if snapshot.serial <= generation {
                snapshot.token = None;
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

/// A refused generation and how it was refused, in one atomic integer that calls read without a lock.
struct Refused;

impl Refused {
    const NOTHING: u64 = 0;

    /// `None` for a renewal that nobody's refusal has caused.
    fn word(generation: u64, cause: Cause) -> Option<u64> {
        match cause {
            Cause::Unauthorized => Some(generation.wrapping_add(1) << 1 | 1),
            Cause::Forbidden => Some(generation.wrapping_add(1) << 1),
            Cause::NoToken | Cause::BeforeExpiry | Cause::IdleRenewal | Cause::Operator | Cause::Forced => {
                None
            }
        }
    }

    fn read(word: u64) -> (u64, Cause) {
        let cause = if word & 1 == 1 { Cause::Unauthorized } else { Cause::Forbidden };
        ((word >> 1).wrapping_sub(1), cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_costs_little_beyond_its_tokens() {
        let counts = 2 * size_of::<usize>();
        let all = size_of::<Account>() + size_of::<Snapshot>() + 2 * counts;
        assert!(all <= 336, "{all} bytes");
    }
}
