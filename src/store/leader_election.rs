//! A background job that one gateway does for all that share a store; another one takes it over when that one
//! is gone.
//!
//! The rule guarded here: a leader that cannot reach the store stops before anybody else may begin. Leading
//! spares work; it decides nothing about tokens, so two leaders for a moment would do no harm.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Store;
use super::cluster::ReplicaId;
use crate::clock::{Clock, Timestamp};

/// A dead leader's job is taken over after this long, and a third of it at most.
pub const TERM: Duration = Duration::from_secs(15);

/// Whether this gateway does the job.
pub struct LeaderElection {
    store: Arc<dyn Store>,
    clock: Clock,
    task: &'static str,
    owner: ReplicaId,
    /// By our own clock.
    until: watch::Sender<Timestamp>,
}

impl LeaderElection {
    pub fn new(store: Arc<dyn Store>, clock: Clock, task: &'static str, owner: ReplicaId) -> Self {
        Self { store, clock, task, owner, until: watch::Sender::new(Timestamp::default()) }
    }

    /// Always where nobody else works on the store.
    pub fn is_leader(&self) -> bool {
        self.store.cluster().is_none() || self.clock.now() < *self.until.borrow()
    }

    /// Returns once the job is ours.
    pub async fn wait_elected(&self) {
        if self.store.cluster().is_none() {
            return;
        }
        let _ = self.until.subscribe().wait_for(|until| self.clock.now() < *until).await;
    }

    /// Asks for the job again and again, for as long as this is polled.
    pub async fn campaign(&self) {
        while let Some(cluster) = self.store.cluster() {
            // Ours counts from before the question, the store's from after it: ours ends first.
            let asked = self.clock.now();
            let before = self.is_leader();
            match cluster.lead(self.task, &self.owner, TERM).await {
                Ok(leads) => {
                    self.until.send_replace(if leads { asked + TERM } else { Timestamp::default() });
                    if leads != before {
                        tracing::info!(task = self.task, leads, "a job of the cluster changed hands");
                    }
                }
                Err(trouble) => {
                    tracing::debug!(task = self.task, %trouble, "nobody can say who does a job of the cluster");
                }
            }
            self.clock.sleep(TERM / 3).await;
        }
        std::future::pending().await
    }

    /// Leaves it to another gateway at once. `campaign` must not be polled any more.
    pub async fn step_down(&self) {
        if let Some(cluster) = self.store.cluster()
            && self.is_leader()
        {
            self.until.send_replace(Timestamp::default());
            if let Err(trouble) = cluster.step_down(self.task, &self.owner).await {
                tracing::debug!(task = self.task, %trouble, "the job could not be left; another gateway takes it over soon");
            }
        }
    }
}
