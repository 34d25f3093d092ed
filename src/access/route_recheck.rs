//! Asks again about routes that are not proven, and about those that cannot be connected to: in the
//! background, without waiting for a token's end.
//!
//! The rule guarded here: a real move is followed within a minute, and a wrong one costs a discovery a minute
//! at most.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::route::Route;

use super::cause::Cause;
use super::context::RenewalContext;
use super::pacing::{backoff, stable_jitter};
use super::registry::Account;
use super::renewal::Renewals;
use super::renewal_task::RenewalTask;
use super::route_candidate::RouteTrial;

/// The longest wait between two questions.
const LONGEST: Duration = Duration::from_secs(60);

impl Renewals {
    /// A call found no connection to the account's route.
    pub fn route_unreachable(&self, account: &Arc<Account>, route: &Arc<Route>, why: &str) {
        let snapshot = account.snapshot();
        if snapshot.route.as_ref() != Some(route) {
            return;
        }
        let now = self.context().clock.now();
        let responded_at = account.responded_at();
        let (is_news, ask) = account.pacing.lock().routes.record_connect_failure(now, responded_at, why);
        if is_news {
            let detail = format!("{route}: {why}; if it lasts, discovery is asked at base_url");
            self.context().journal.record(&account.name, JournalEvent::RouteUnreachable, detail);
        }
        if ask && snapshot.live_token(now).is_some() {
            let (context, account) = (Arc::clone(self.context()), Arc::clone(account));
            self.context().runtime.spawn(async move { recheck_route(&context, &account, true).await });
        }
    }

    /// A call has tried a route that discovery could not prove. `failure` says why its response is no proof.
    pub fn finish_route_trial(
        &self,
        account: &Arc<Account>,
        trial: &Arc<RouteTrial>,
        failure: Option<String>,
    ) {
        let snapshot = account.snapshot();
        if !snapshot.trial.as_ref().is_some_and(|known| Arc::ptr_eq(known, trial)) {
            return;
        }
        let context = Arc::clone(self.context());
        let Some(why) = failure else {
            let (account, route) = (Arc::clone(account), Arc::clone(trial.route()));
            let work = async move {
                if let Some(task) = discovery_task(&context, &account) {
                    task.publish_proven(&snapshot, &route).await;
                }
            };
            self.context().runtime.spawn(work);
            return;
        };
        let now = context.clock.now();
        account.pacing.lock().routes.record_unproven(now, trial.route(), why);
        if snapshot.route.as_ref() != Some(trial.route()) {
            account.put_trial(&snapshot.realm, None);
        }
        context.follow(account);
    }
}

impl RenewalContext {
    /// Starts the task that asks again for this account, where none is in flight.
    pub(super) fn follow(self: &Arc<Self>, account: &Arc<Account>) {
        if !std::mem::replace(&mut account.pacing.lock().routes.followed, true) {
            self.runtime.spawn(follow(Arc::clone(self), Arc::clone(account)));
        }
    }
}

/// Until discovery names the route in use, another one is proven, or the account is gone.
async fn follow(context: Arc<RenewalContext>, account: Arc<Account>) {
    let mut tries: u32 = 0;
    loop {
        tries = tries.saturating_add(1);
        let jitter = stable_jitter(account.name.as_str(), u64::from(tries));
        context.clock.sleep(backoff(tries, LONGEST, jitter)).await;
        let is_known = context
            .registry
            .by_name(account.name.as_str())
            .is_some_and(|known| Arc::ptr_eq(&known, &account));
        {
            let mut pacing = account.pacing.lock();
            if !is_known || pacing.routes.candidate.is_none() {
                pacing.routes.followed = false;
                return;
            }
        }
        let snapshot = account.snapshot();
        // The next call tries it: until then there is nothing to ask.
        let is_on_trial = snapshot.trial.is_some() && snapshot.is_proven();
        if !is_on_trial && snapshot.state != AccountState::Paused {
            recheck_route(&context, &account, false).await;
        }
    }
}

async fn recheck_route(context: &Arc<RenewalContext>, account: &Arc<Account>, at_base: bool) {
    let Ok(_turn) = context.route_checks.acquire().await else { return };
    if let Some(task) = discovery_task(context, account) {
        task.recheck_route(at_base).await;
    }
}

/// Discovery is no renewal: a realm whose token endpoint is in trouble does not hold it up.
fn discovery_task(context: &Arc<RenewalContext>, account: &Arc<Account>) -> Option<RenewalTask> {
    let permit = context.try_acquire(&account.snapshot().realm, Cause::Operator).ok()?;
    Some(RenewalTask::new(Arc::clone(context), Arc::clone(account), Cause::Operator, permit, None))
}
