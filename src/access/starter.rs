//! Starts renewals that no caller waits for: spread out, a few at a time, never all at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::account::Account;
use super::cause::{Cause, RenewError};
use super::renewal::Renewals;

/// Renewals of one starter in flight at once; those of callers find permits beside them.
const MAX_CONCURRENT: usize = 8;
/// 50 starts a second: 100,000 accounts in use need 30, and 100,000 that are overdue after a long stop take
/// half an hour.
const START_INTERVAL: Duration = Duration::from_millis(20);

/// Bounds how many of its renewals are in flight, and how fast they begin.
pub(super) struct Starter {
    renewals: Renewals,
    slots: Arc<Semaphore>,
}

impl Starter {
    pub fn new(renewals: &Renewals) -> Self {
        Self { renewals: renewals.clone(), slots: Arc::new(Semaphore::new(MAX_CONCURRENT)) }
    }

    /// Starts a renewal as soon as a slot is free, and pauses after it. What is denied costs no time: a realm
    /// in trouble must not hold the others' accounts up.
    pub async fn renew(&self, account: Arc<Account>, cause: Cause) {
        let Some(slot) = self.slot().await else { return };
        let joined = match self.renewals.join_or_start(&account, account.generation(), cause) {
            Ok(joined) => joined,
            Err(error) => {
                tracing::debug!(account = %account.name, why = word(&error), "not renewed");
                return;
            }
        };
        let waiting = self.renewals.clone();
        self.spawn(slot, async move {
            // The renewal itself tells what came of it.
            let _ = waiting.wait_for(joined).await;
        })
        .await;
    }

    /// Likewise for work of another kind.
    pub async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(slot) = self.slot().await {
            self.spawn(slot, work).await;
        }
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    async fn spawn(&self, slot: OwnedSemaphorePermit, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(async move {
            let _slot = slot;
            work.await;
        });
        self.renewals.context().clock.sleep(START_INTERVAL).await;
    }
}

/// For the log.
fn word(problem: &RenewError) -> &'static str {
    match problem {
        RenewError::TooSoon { .. } => "too_soon",
        RenewError::Paused => "paused",
        RenewError::NeedsLogin { .. } => "needs_login",
        RenewError::Unavailable { .. } => "unavailable",
        RenewError::StillRunning => "still_running",
    }
}
