//! What renewals share: the store, the registry, the realms' calls and circuit breakers, and the queues of
//! work that waits. At the bottom of this module: it knows none of those who use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::config;
use crate::journal::Journal;
use crate::model::account::RealmName;
use crate::store::Store;
use crate::store::cluster::ReplicaId;
use crate::store::leader_election::LeaderElection;

use super::cause::{Cause, RenewError};
use super::circuit_breaker::{CircuitBreaker, CircuitBreakers, Permit};
use super::control_calls::ControlCalls;
use super::pacing::stable_jitter;
use super::pending_commits::PendingCommits;
use super::registry::AccountRegistry;
use super::retry_queue::{RetryQueue, StandbyRetries};

/// When a realm that the configuration does not have is looked at again.
const NO_REALM_RETRY: Duration = Duration::from_secs(60);
/// When the first of those are looked at again whose verdict may have been wrong, after the realm was seen to
/// work; the last within a minute.
const SECOND_TRY_AFTER: Duration = Duration::from_secs(15);

/// What the entry point, the renewal tasks and the scheduler share.
pub(super) struct RenewalContext {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub registry: Arc<AccountRegistry>,
    pub platforms: ArcSwap<HashMap<RealmName, Arc<dyn ControlCalls>>>,
    pub journal: Journal,
    pub settings: ArcSwap<config::RenewalConfig>,
    pub runtime: Handle,
    pub replica: ReplicaId,
    /// Who keeps.
    pub lead: LeaderElection,
    pub breakers: CircuitBreakers,
    pub pending_commits: PendingCommits,
    pub standby_retries: StandbyRetries,
    pub retries: RetryQueue,
    /// Tasks that the end of the process waits for; see [`ActiveTask`].
    pub active_tasks: watch::Sender<usize>,
    /// Discoveries in flight that no renewal has asked for.
    pub route_checks: Semaphore,
}

impl RenewalContext {
    pub fn platform(&self, realm: &RealmName) -> Result<Arc<dyn ControlCalls>, RenewError> {
        self.platforms.load().get(realm).cloned().ok_or_else(|| RenewError::Unavailable {
            retry_at: self.clock.now() + NO_REALM_RETRY,
            detail: format!("the configuration has no realm {realm}"),
        })
    }

    /// Something of ours went wrong that the next try may not meet.
    pub fn unavailable(&self, detail: &str) -> RenewError {
        let retry_at = self.clock.now() + Duration::from_secs(1);
        RenewError::Unavailable { retry_at, detail: detail.to_owned() }
    }

    pub fn try_acquire(&self, realm: &RealmName, cause: Cause) -> Result<Permit, RenewError> {
        let admitted = self.breakers.get(realm).try_acquire(self.clock.now(), cause);
        admitted.map_err(|(retry_at, detail)| RenewError::Unavailable { retry_at, detail })
    }

    /// The realm has taken a refresh. Whoever was given up while others were refused too is looked at again.
    pub(super) fn realm_works(&self, breaker: &CircuitBreaker) {
        for account in breaker.succeeded() {
            let spread = SECOND_TRY_AFTER.mul_f64(1.0 + 3.0 * stable_jitter(account.name.as_str(), 2));
            self.retries.second_try_at(account, self.clock.now() + spread);
        }
    }
}

/// A task that the end of the process waits for: from `begin` until this is dropped.
pub(super) struct ActiveTask(Arc<RenewalContext>);

impl ActiveTask {
    pub fn begin(context: &Arc<RenewalContext>) -> Self {
        context.active_tasks.send_modify(|tasks| *tasks += 1);
        Self(Arc::clone(context))
    }
}

impl Drop for ActiveTask {
    fn drop(&mut self) {
        self.0.active_tasks.send_modify(|tasks| *tasks -= 1);
    }
}
