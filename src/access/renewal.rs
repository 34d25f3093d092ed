//! Renewal: refresh, then discovery, for one account, once. `renew` is the only entry point: request path,
//! scheduler and operators use it.
//!
//! The rule guarded here (single flight): one renewal per account at a time, in a task of its own on the
//! control runtime, so that a caller who disconnects loses nothing but its own response.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::journal::{Journal, JournalEvent};
use crate::model::account::{AccountState, RealmName};
use crate::model::route::Route;
use crate::store::Store;
use crate::store::cluster::ReplicaId;
use crate::store::leader_election::LeaderElection;

use super::Access;
use super::cause::RenewalResult;
use super::circuit_breaker::{CircuitBreaker, CircuitBreakers, OpenReason, Permit, RenewalCounters};
use super::context::RenewalContext;
use super::control_calls::ControlCalls;
use super::pacing::{PacingInput, lacks_only_a_route};
use super::pending_commits::PendingCommits;
use super::registry::{Account, AccountRegistry};
use super::renewal_task::RenewalTask;
use super::retry_queue::{RetryQueue, StandbyRetries};
use super::single_flight::ResultReceiver;
use super::snapshot::Snapshot;

pub use super::cause::{Cause, RenewError};

/// What renewals are made of.
pub struct RenewalParts {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub registry: Arc<AccountRegistry>,
    pub platforms: HashMap<RealmName, Arc<dyn ControlCalls>>,
    pub journal: Journal,
    pub settings: config::RenewalConfig,
    /// The control runtime: renewals, the scheduler and the saving of unsaved tokens run there.
    pub runtime: Handle,
    /// Who this gateway is among those that share its store.
    pub replica: ReplicaId,
}

/// The one entry point to renewals. Clones share everything.
#[derive(Clone)]
pub struct Renewals {
    context: Arc<RenewalContext>,
}

/// What readiness, metrics and operators should hear of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alarms {
    /// Accounts whose newest tokens are in memory only, because the store does not take them: a crash now
    /// would cost their logins.
    pub unsaved_accounts: usize,
    /// Commits of new tokens that the store did not take, since the start.
    pub failed_commits: u64,
    pub realms: Vec<(RealmName, OpenReason)>,
}

/// Legacy programs give up after some 30 s; with 10 s for the renewal there is time left for the call itself
/// (design, section 4).
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Thousands of accounts may be named a wrong route at once; each check may wait for a response.
const ROUTE_CHECKS: usize = 16;

/// As the store knows it.
const KEEPER: &str = "keeper";

impl Renewals {
    pub fn new(parts: RenewalParts) -> Self {
        let lead =
            LeaderElection::new(Arc::clone(&parts.store), parts.clock.clone(), KEEPER, parts.replica.clone());
        let context = RenewalContext {
            clock: parts.clock,
            store: parts.store,
            registry: parts.registry,
            platforms: ArcSwap::from_pointee(parts.platforms),
            journal: parts.journal,
            settings: ArcSwap::from_pointee(parts.settings),
            runtime: parts.runtime,
            replica: parts.replica,
            lead,
            breakers: CircuitBreakers::default(),
            pending_commits: PendingCommits::default(),
            standby_retries: StandbyRetries::default(),
            retries: RetryQueue::default(),
            active_tasks: watch::Sender::new(0),
            route_checks: Semaphore::new(ROUTE_CHECKS),
        };
        let renewals = Self { context: Arc::new(context) };
        renewals.name_interrupted_refreshes();
        renewals
    }

    /// Returns at once where the registry already holds something newer than `seen_generation`; else joins or
    /// starts the account's one renewal. Callable from any runtime: the renewal runs on the control runtime
    /// and outlives its callers.
    pub async fn renew(
        &self,
        account: &Arc<Account>,
        seen_generation: u64,
        cause: Cause,
    ) -> Result<Access, RenewError> {
        let joined = self.join_or_start(account, seen_generation, cause)?;
        let access = self.wait_for(joined).await?;
        match cause {
            // A renewal that was in flight already when this caller's call failed may have brought just what
            // it saw fail.
            Cause::Unauthorized | Cause::Forbidden if access.generation() <= seen_generation => {
                Err(RenewError::TooSoon { until: account.renewals_blocked_until() })
            }
            _ => Ok(access),
        }
    }

    /// Starts a renewal without waiting for it: for a call whose body cannot be repeated.
    pub fn renew_in_background(&self, account: &Arc<Account>, seen_generation: u64, cause: Cause) {
        // Where it may not begin, nobody waits to hear why.
        let _ = self.join_or_start(account, seen_generation, cause);
    }

    /// Waits for the renewal in flight, where there is one: for a call whose token has been refused before it
    /// was sent.
    pub async fn join(&self, account: &Arc<Account>) -> Option<Result<Access, RenewError>> {
        let in_flight = account.single_flight.in_flight()?;
        Some(self.wait_for(Joined::InFlight(in_flight)).await)
    }

    /// What came of a repeat after a 403-caused renewal. Only a cure changes anything: the wait was doubled
    /// when the renewal ended, since the caller that would report may be gone by then.
    pub fn report_forbidden(&self, account: &Arc<Account>, cured: bool) {
        if cured {
            account.pacing.lock().cured();
        }
    }

    /// Discovery alone, with the token at hand (`accounts discover`); a full renewal where there is none.
    pub async fn rediscover(&self, account: &Arc<Account>) -> Result<Arc<Route>, RenewError> {
        let before = account.snapshot();
        match before.state {
            AccountState::Paused => return Err(RenewError::Paused),
            AccountState::Ready | AccountState::NeedsLogin { .. } => {}
        }
        if before.live_token(self.context.clock.now()).is_none() {
            return self
                .renew(account, before.serial, Cause::Operator)
                .await
                .map(|access| Arc::clone(access.route()));
        }
        let permit = self.context.try_acquire(&before.realm, Cause::Operator)?;
        let task =
            RenewalTask::new(Arc::clone(&self.context), Arc::clone(account), Cause::Operator, permit, None);
        let found = self.context.runtime.spawn(task.discover_only());
        found.await.unwrap_or_else(|_| Err(self.context.unavailable("the discovery was cut off")))
    }

    pub fn alarms(&self) -> Alarms {
        let ailing = |breaker: &Arc<CircuitBreaker>| Some((breaker.realm.clone(), breaker.open_reason()?));
        Alarms {
            unsaved_accounts: self.context.pending_commits.count(),
            failed_commits: self.context.pending_commits.failures(),
            realms: self.context.breakers.all().iter().filter_map(ailing).collect(),
        }
    }

    pub fn renewal_counters(&self) -> Vec<(RealmName, Arc<RenewalCounters>)> {
        let all = self.context.breakers.all();
        all.iter().map(|breaker| (breaker.realm.clone(), Arc::clone(&breaker.counters))).collect()
    }

    /// Returns when no renewal is in flight and no token waits to be saved: for the end of the process, which
    /// puts its own limit on it.
    pub async fn finish(&self) {
        let mut active = self.context.active_tasks.subscribe();
        let _ = active.wait_for(|flights| *flights == 0).await;
        self.context.pending_commits.until_empty().await;
    }

    pub(super) fn context(&self) -> &Arc<RenewalContext> {
        &self.context
    }

    /// Hands out the newer access, the renewal in flight, or a new one. Does not wait.
    pub(super) fn join_or_start(
        &self,
        account: &Arc<Account>,
        seen: u64,
        cause: Cause,
    ) -> Result<Joined, RenewError> {
        let now = self.context.clock.now();
        let mut slot = account.single_flight.lock();
        // Looked at under the renewal's lock and not before it: the renewal that renewed this very token may
        // have ended between the caller's failure and now, and without this look the late loser would refresh
        // a fresh token.
        let snapshot = account.snapshot();
        if let Some(access) = newer(&snapshot, seen, cause, now) {
            return Ok(Joined::Newer(access));
        }
        match &snapshot.state {
            AccountState::Ready => {}
            AccountState::Paused => return Err(RenewError::Paused),
            AccountState::NeedsLogin { .. } if cause.is_operators() => {}
            AccountState::NeedsLogin { since, why } => {
                let (why, remedy) = (why.clone(), snapshot.remedy());
                let problem = RenewError::NeedsLogin { since: *since, why, remedy };
                if matches!(cause, Cause::Unauthorized | Cause::Forbidden) {
                    account.drop_access(seen);
                }
                return Err(problem);
            }
        }
        if let Some(in_flight) = slot.in_flight() {
            account.refuse(seen, cause);
            return Ok(Joined::InFlight(in_flight));
        }
        let permit = self.take_permit(account, &snapshot, cause, now)?;
        let (sender, result) = slot.occupy();
        account.refuse(seen, cause);
        let task =
            RenewalTask::new(Arc::clone(&self.context), Arc::clone(account), cause, permit, Some(sender));
        self.context.runtime.spawn(task.run());
        Ok(Joined::InFlight(result))
    }

    pub(super) async fn wait_for(&self, joined: Joined) -> RenewalResult {
        let mut in_flight = match joined {
            Joined::Newer(access) => return Ok(access),
            Joined::InFlight(in_flight) => in_flight,
        };
        tokio::select! {
            biased;
            landed = in_flight.wait_for(Option::is_some) => landed
                .ok()
                .and_then(|result| result.clone())
                .unwrap_or_else(|| Err(self.context.unavailable("the renewal was cut off"))),
            () = self.context.clock.sleep(LONGEST_WAIT) => Err(RenewError::StillRunning),
        }
    }

    pub(super) fn take_permit(
        &self,
        account: &Account,
        snapshot: &Snapshot,
        cause: Cause,
        now: Timestamp,
    ) -> Result<Permit, RenewError> {
        let breaker = self.context.breakers.get(&snapshot.realm);
        let input = PacingInput {
            last_refresh: snapshot.last_refresh(),
            on_both_platforms: snapshot.on_both_platforms(),
            only_a_route: lacks_only_a_route(snapshot, cause, now),
            token_lives: snapshot.live_token(now).is_some(),
            breaker_open: breaker.is_open(),
            recoveries: breaker.recoveries(),
        };
        let permitted = account.pacing.lock().check(now, cause, &input, &self.context.settings.load());
        permitted.and_then(|()| self.context.try_acquire(&snapshot.realm, cause)).inspect_err(|problem| {
            if let RenewError::Unavailable { retry_at, .. } = problem {
                account.block_renewals_until(*retry_at);
            }
        })
    }

    /// A refresh that was in flight when the process ended may have spent the token that the store holds
    /// (threats, row 21): the journal names it, so that a login lost in that window is explained. Once lost,
    /// it is reported with the login's need, and not at each start.
    ///
    /// Where others work on the same store it may be theirs and going on; then it is named by whoever takes
    /// it over.
    fn name_interrupted_refreshes(&self) {
        if self.context.store.is_shared() {
            return;
        }
        let lost = |account: &Account| matches!(account.state(), AccountState::NeedsLogin { .. });
        for account in self.context.registry.all().into_iter().filter(|account| !lost(account)) {
            let Some(spent) = account.pacing.lock().maybe_spent else { continue };
            let detail = format!("{spent}; the refresh token at hand is tried as it is");
            self.context.journal.record(&account.name, JournalEvent::RefreshInterrupted, detail);
        }
    }
}

/// What somebody who asks for a renewal gets at once.
pub(super) enum Joined {
    Newer(Access),
    InFlight(ResultReceiver),
}

/// Whether the registry already has what the caller is after.
fn newer(snapshot: &Arc<Snapshot>, seen: u64, cause: Cause, now: Timestamp) -> Option<Access> {
    if snapshot.state == AccountState::Paused {
        return None;
    }
    let access = snapshot.access()?;
    let better = match cause {
        // A route may have come without a new token, so the generation alone does not tell.
        Cause::NoToken => true,
        _ => access.generation() > seen,
    };
    // Another gateway's token may have run out before this one heard of it.
    (better && access.expires_at() > now).then_some(access)
}
