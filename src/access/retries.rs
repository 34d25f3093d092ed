//! Renewals that are owed to an account although no caller asks: what failed is tried again, a realm in trouble is asked whether it is
//! well again, and a refusal that may have been a mistake is looked at once more.
//!
//! The rule guarded here: all of it goes through the one door and its waits, so that a realm in trouble sees one trial at a time and
//! nobody hammers a dead account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::clock::Timestamp;
use crate::model::account::{AccountName, AccountState, RealmName};

use super::book::Entry;
use super::cause::{Cause, RenewProblem};
use super::gaps::{gap, share};
use super::realm::Health;
use super::renewal::{Renewals, Shared};
use super::{keeper, locked, refusals};

/// When the first of those are looked at again whose verdict may have been wrong, after the realm was seen to
/// work; the last within a minute.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Between two looks, also where what was due could not begin.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Where something is owed and a trial is under way, or nobody can make one.
const PAUSE_WITHOUT_WORK: Duration = Duration::from_secs(5);
/// Between two second looks at one account, where the first said nothing.
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_secs(30);
/// Renewals under way at once; callers' flights find seats beside them.
const AT_ONCE: usize = 8;

/// Accounts that are owed a renewal.
#[derive(Default)]
pub(super) struct Retries {
    /// Their last renewal failed; when to try again is for their pacing and their realm to say.
    failing: Mutex<HashMap<AccountName, Arc<Entry>>>,
    /// Those that need a login by a verdict that may have been wrong, each with the moment of its one more try.
    second_looks: Mutex<HashMap<AccountName, (Arc<Entry>, Timestamp)>>,
    changed: Notify,
}

impl Retries {
    pub fn add(&self, entry: &Arc<Entry>) {
        locked(&self.failing).insert(entry.name.clone(), Arc::clone(entry));
        self.changed.notify_one();
    }

    pub fn look_again(&self, entry: Arc<Entry>, at: Timestamp) {
        locked(&self.second_looks).entry(entry.name.clone()).or_insert((entry, at));
        self.changed.notify_one();
    }
}

impl Shared {
    /// The realm has taken a refresh. Whoever was given up while others were refused too is looked at again.
    pub(super) fn realm_works(&self, health: &Health) {
        for entry in health.succeeded() {
            let spread = LOOK_AGAIN.mul_f64(1.0 + 3.0 * share(entry.name.as_str(), 2));
            self.retries.look_again(entry, self.clock.now() + spread);
        }
    }
}

/// Ends with the control runtime. Sleeps without a timer while all is well.
pub(super) async fn run(renewals: &Renewals) {
    let hands = Arc::new(Semaphore::new(AT_ONCE));
    let shared = renewals.shared();
    remember_given_up(shared);
    loop {
        let now = shared.clock.now();
        match next(shared) {
            None => shared.retries.changed.notified().await,
            Some(at) if at > now => tokio::select! {
                () = shared.clock.sleep_until(at) => {}
                () = shared.retries.changed.notified() => {}
            },
            Some(_) => {
                let (owed, looks) = (due(shared, now), looks_due(shared, now));
                let pause =
                    if owed.is_empty() && looks.is_empty() { PAUSE_WITHOUT_WORK } else { SHORTEST_PAUSE };
                for (entry, cause) in owed {
                    keeper::start(renewals, &hands, entry, cause).await;
                }
                for entry in looks {
                    second_look(renewals, &hands, entry).await;
                }
                shared.clock.sleep(pause).await;
            }
        }
    }
}

/// Accounts that need a login since a moment at which others were refused too: the process may have ended before
/// they were looked at again.
fn remember_given_up(shared: &Shared) {
    let mut refused: Vec<_> = shared
        .book
        .all()
        .into_iter()
        .filter_map(|entry| {
            let snapshot = entry.snapshot();
            match &snapshot.state {
                AccountState::NeedsLogin { since, .. } => Some((snapshot.realm.clone(), *since, entry)),
                AccountState::Ready | AccountState::Paused => None,
            }
        })
        .collect();
    refused.sort_by(|(realm, since, _), (other, later, _)| (realm, since).cmp(&(other, later)));
    let together = |(realm, since, _): &(RealmName, Timestamp, _),
                    (other, later, _): &(RealmName, Timestamp, _)| {
        realm == other && later.since(*since) < refusals::MINUTES
    };
    for (at, refusal) in refused.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| refused.get(at));
        let among = before.is_some_and(|before| together(before, refusal))
            || refused.get(at + 1).is_some_and(|next| together(refusal, next));
        let (realm, since, entry) = refusal;
        if among && shared.clock.now().since(*since) < refusals::LAST_PROBE {
            shared.realms.get(realm).given_up(*since, entry);
        }
    }
}

/// The earliest moment at which something may be owed.
fn next(shared: &Shared) -> Option<Timestamp> {
    let failing = failing(shared).into_iter().map(|(_, at)| at).min();
    let looks = locked(&shared.retries.second_looks).values().map(|(_, at)| *at).min();
    let realms = shared.realms.all();
    let probes = realms.iter().filter_map(|health| health.next_probe()).min();
    [failing, looks, probes].into_iter().flatten().min()
}

/// What is owed now. Of a realm in trouble one account is enough.
fn due(shared: &Shared, now: Timestamp) -> Vec<(Arc<Entry>, Cause)> {
    let mut owed = Vec::new();
    let mut tried: Vec<Arc<Health>> = Vec::new();
    for (entry, at) in failing(shared) {
        let snapshot = entry.snapshot();
        let health = shared.realms.get(&snapshot.realm);
        if at > now || tried.iter().any(|realm| realm.realm == health.realm) {
            continue;
        }
        if health.in_trouble() {
            tried.push(health);
        }
        // With a living token only a route is wanting, and a refresh would be one too many.
        let only_a_route = snapshot.route.is_none() && snapshot.live_token(now).is_some();
        owed.push((entry, if only_a_route { Cause::NoToken } else { Cause::Ahead }));
    }
    for health in shared.realms.all() {
        if tried.iter().any(|realm| realm.realm == health.realm) {
            continue;
        }
        if let Some(entry) = health.take_refused(now) {
            owed.push((entry, Cause::Operator));
        } else if health.trial_is_due(now)
            && let Some(entry) = anybody(shared, &health, now)
        {
            owed.push((entry, Cause::Ahead));
        }
    }
    owed
}

/// Whose second look is due: at its moment, and not while the realm is in trouble or wants to be left alone.
fn looks_due(shared: &Shared, now: Timestamp) -> Vec<Arc<Entry>> {
    let mut looks = Vec::new();
    locked(&shared.retries.second_looks).retain(|_, (entry, at)| {
        let health = shared.realms.get(&entry.snapshot().realm);
        let waits = *at > now || health.in_trouble() || health.held_until() > now;
        let is_owed = needs_login(entry) && is_known(shared, entry);
        if !waits && is_owed {
            looks.push(Arc::clone(entry));
        }
        waits && is_owed
    });
    looks
}

/// One look. Where nothing was said about the grant (the platform failed, the vendor's gap, a store that takes no
/// writes) it is still owed.
async fn second_look(renewals: &Renewals, hands: &Arc<Semaphore>, entry: Arc<Entry>) {
    let Ok(hand) = Arc::clone(hands).acquire_owned().await else { return };
    let looking = renewals.clone();
    tokio::spawn(async move {
        let _hand = hand;
        let looked = looking.renew(&entry, entry.generation(), Cause::Operator).await;
        let shared = looking.shared();
        let again = match looked {
            Err(RenewProblem::Unavailable { retry_at, .. } | RenewProblem::TooSoon { until: retry_at }) => {
                retry_at
            }
            Err(RenewProblem::StillRunning) => Timestamp::default(),
            Ok(_) | Err(RenewProblem::NeedsLogin { .. } | RenewProblem::Paused) => return,
        };
        if needs_login(&entry) {
            shared.retries.look_again(entry, again.max(shared.clock.now() + PAUSE_BETWEEN_LOOKS));
        }
    });
    renewals.shared().clock.sleep(keeper::PACE).await;
}

/// Not removed or renamed since.
fn is_known(shared: &Shared, entry: &Arc<Entry>) -> bool {
    shared.book.by_name(entry.name.as_str()).is_some_and(|known| Arc::ptr_eq(&known, entry))
}

fn needs_login(entry: &Entry) -> bool {
    matches!(entry.state(), AccountState::NeedsLogin { .. })
}

/// Those that still fail, each with the moment from which it may be tried; the others are forgotten.
fn failing(shared: &Shared) -> Vec<(Arc<Entry>, Timestamp)> {
    let settings = shared.settings.load();
    let mut failing = Vec::new();
    locked(&shared.retries.failing).retain(|_, entry| {
        let snapshot = entry.snapshot();
        let health = shared.realms.get(&snapshot.realm);
        let retry_at = entry.pacing.lock().retry_at(health.recoveries());
        let is_at_work = snapshot.state == AccountState::Ready && is_known(shared, entry);
        let Some(retry_at) = retry_at.filter(|_| is_at_work) else { return false };
        let own = if health.in_trouble() { Timestamp::default() } else { retry_at };
        let apart = snapshot.last_refresh().map(|last| last + gap(&settings, snapshot.on_both_platforms()));
        let at = own.max(health.held_until()).max(apart.unwrap_or_default());
        failing.push((Arc::clone(entry), at));
        true
    });
    // The one that has waited longest first.
    failing.sort_by_key(|(entry, at)| (*at, entry.hold_until()));
    failing
}

/// An account that may be refreshed now, where a realm in trouble has none that fails: they may have been paused or removed since.
fn anybody(shared: &Shared, health: &Health, now: Timestamp) -> Option<Arc<Entry>> {
    let settings = shared.settings.load();
    let mut found = None;
    shared.book.for_each(|entry| {
        if found.is_some() {
            return;
        }
        let snapshot = entry.snapshot();
        let apart = gap(&settings, snapshot.on_both_platforms());
        let may = snapshot.last_refresh().is_none_or(|last| last + apart <= now);
        if may && snapshot.realm == health.realm && snapshot.state == AccountState::Ready {
            found = Some(Arc::clone(entry));
        }
    });
    found
}
