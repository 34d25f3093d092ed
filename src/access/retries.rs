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
use crate::model::account::{AccountName, AccountState};

use super::book::Entry;
use super::gaps::gap;
use super::realm::Health;
use super::renewal::{Cause, Renewals, Shared};
use super::{keeper, locked};

/// Between two looks, also where what was due could not begin.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Where something is owed and a trial is under way, or nobody can make one.
const PAUSE_WITHOUT_WORK: Duration = Duration::from_secs(5);
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

/// Ends with the control runtime. Sleeps without a timer while all is well.
pub(super) async fn run(renewals: &Renewals) {
    let hands = Arc::new(Semaphore::new(AT_ONCE));
    let shared = renewals.shared();
    loop {
        let now = shared.clock.now();
        match next(shared) {
            None => shared.retries.changed.notified().await,
            Some(at) if at > now => tokio::select! {
                () = shared.clock.sleep_until(at) => {}
                () = shared.retries.changed.notified() => {}
            },
            Some(_) => {
                let owed = due(shared, now);
                let pause = if owed.is_empty() { PAUSE_WITHOUT_WORK } else { SHORTEST_PAUSE };
                for (entry, cause) in owed {
                    keeper::start(renewals, &hands, entry, cause).await;
                }
                shared.clock.sleep(pause).await;
            }
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
    locked(&shared.retries.second_looks).retain(|_, (entry, at)| {
        let health = shared.realms.get(&entry.snapshot().realm);
        let waits = *at > now || health.in_trouble();
        if !waits && matches!(entry.state(), AccountState::NeedsLogin { .. }) {
            owed.push((Arc::clone(entry), Cause::Operator));
        }
        waits
    });
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

/// Those that still fail, each with the moment from which it may be tried; the others are forgotten.
fn failing(shared: &Shared) -> Vec<(Arc<Entry>, Timestamp)> {
    let settings = shared.settings.load();
    let mut failing = Vec::new();
    locked(&shared.retries.failing).retain(|_, entry| {
        let snapshot = entry.snapshot();
        let health = shared.realms.get(&snapshot.realm);
        let retry_at = entry.pacing.lock().retry_at(health.recoveries());
        let Some(retry_at) = retry_at.filter(|_| snapshot.state == AccountState::Ready) else { return false };
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
