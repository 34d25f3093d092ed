//! Asks again about routes that are not proven, and about those that cannot be connected to: in the background, without waiting for a
//! token's end.
//!
//! The rule guarded here: a real move is followed within a minute, and a wrong one costs a discovery a minute at most.

use std::sync::Arc;
use std::time::Duration;

use crate::model::account::AccountState;
use crate::model::route::Route;

use super::book::Entry;
use super::candidate::Trial;
use super::cause::Cause;
use super::flight::Flight;
use super::gaps::{back_off, share};
use super::renewal::{Renewals, Shared};

/// The longest wait between two questions.
const LONGEST: Duration = Duration::from_secs(60);

impl Renewals {
    /// A call found no connection to the account's route.
    pub fn route_unreachable(&self, entry: &Arc<Entry>, route: &Arc<Route>, why: &str) {
        let snapshot = entry.snapshot();
        if snapshot.route.as_ref() != Some(route) {
            return;
        }
        let now = self.shared().clock.now();
        let responded_at = entry.responded_at();
        let (is_news, ask) = entry.pacing.lock().routes.not_connected(now, responded_at, why);
        if is_news {
            let detail = format!("{route}: {why}; if it lasts, discovery is asked at base_url");
            self.shared().chronicle.note(&entry.name, "route_unreachable", detail);
        }
        if ask && snapshot.live_token(now).is_some() {
            let (shared, entry) = (Arc::clone(self.shared()), Arc::clone(entry));
            self.shared().runtime.spawn(async move { look_again(&shared, &entry, true).await });
        }
    }

    /// A call has tried a route that discovery could not prove. `failure` says why its answer is no proof.
    pub fn trial_over(&self, entry: &Arc<Entry>, trial: &Arc<Trial>, failure: Option<String>) {
        let snapshot = entry.snapshot();
        if !snapshot.trial.as_ref().is_some_and(|known| Arc::ptr_eq(known, trial)) {
            return;
        }
        let shared = Arc::clone(self.shared());
        let Some(why) = failure else {
            let (entry, route) = (Arc::clone(entry), Arc::clone(trial.route()));
            let work = async move {
                if let Some(flight) = flight(&shared, &entry) {
                    flight.adopt(&snapshot, &route).await;
                }
            };
            self.shared().runtime.spawn(work);
            return;
        };
        let now = shared.clock.now();
        entry.pacing.lock().routes.keep(now, trial.route(), why);
        if snapshot.route.as_ref() != Some(trial.route()) {
            entry.put_trial(&snapshot.realm, None);
        }
        shared.follow(entry);
    }
}

impl Shared {
    /// Starts the task that asks again for this account, where none is under way.
    pub(super) fn follow(self: &Arc<Self>, entry: &Arc<Entry>) {
        if !std::mem::replace(&mut entry.pacing.lock().routes.followed, true) {
            self.runtime.spawn(follow(Arc::clone(self), Arc::clone(entry)));
        }
    }
}

/// Until discovery names the route in use, another one is proven, or the account is gone.
async fn follow(shared: Arc<Shared>, entry: Arc<Entry>) {
    let mut tries: u32 = 0;
    loop {
        tries = tries.saturating_add(1);
        let jitter = share(entry.name.as_str(), u64::from(tries));
        shared.clock.sleep(back_off(tries, LONGEST, jitter)).await;
        let is_known =
            shared.book.by_name(entry.name.as_str()).is_some_and(|known| Arc::ptr_eq(&known, &entry));
        {
            let mut pacing = entry.pacing.lock();
            if !is_known || pacing.routes.candidate.is_none() {
                pacing.routes.followed = false;
                return;
            }
        }
        let snapshot = entry.snapshot();
        // The next call tries it: until then there is nothing to ask.
        let is_on_trial = snapshot.trial.is_some() && snapshot.is_proven();
        if !is_on_trial && snapshot.state != AccountState::Paused {
            look_again(&shared, &entry, false).await;
        }
    }
}

async fn look_again(shared: &Arc<Shared>, entry: &Arc<Entry>, at_base: bool) {
    let Ok(_turn) = shared.route_checks.acquire().await else { return };
    if let Some(flight) = flight(shared, entry) {
        flight.look_again(at_base).await;
    }
}

/// Discovery is no renewal: a realm whose token endpoint is in trouble does not hold it up.
fn flight(shared: &Arc<Shared>, entry: &Arc<Entry>) -> Option<Flight> {
    let ticket = shared.admit(&entry.snapshot().realm, Cause::Operator).ok()?;
    Some(Flight::new(Arc::clone(shared), Arc::clone(entry), Cause::Operator, ticket, None))
}
