//! What several gateways on one store agree upon: who refreshes, who does a background job, and which
//! accounts somebody else changed.
//!
//! The rule guarded here: a lease only spares the platform a second refresh. What keeps tokens from being
//! lost is the generation that every commit is compared with, so a lease may end, be lost or be ignored
//! without harm to a login.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Store, StoreError, StoreFuture};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, RealmName};

/// One running gateway. Made anew at each start, so that what a dead process held is never taken for ours.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ReplicaId(Arc<str>);

/// What came of asking for the right to refresh a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// Ours until it ends or is released.
    Taken,
    /// Somebody else refreshes; `until` by our own clock.
    HeldBy { owner: ReplicaId, until: Timestamp },
    /// Somebody else has refreshed or paired: read the store again and use that.
    Moved(u64),
}

/// Accounts that changed after a point, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub accounts: Vec<AccountName>,
    /// Where to go on from.
    pub newest: u64,
}

/// The second half of a store on which several gateways may work. It has no defaults: a store that says it is
/// shared has to answer each of these.
pub trait ClusterStore: Send + Sync {
    /// Takes the right to refresh a grant, in the whole cluster, for `life`: longer than the refresh may
    /// take. Only while `seen_generation` is the grant's. Our own lease is taken again; one for a generation
    /// that has passed holds nobody up.
    fn take_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        seen_generation: u64,
        life: Duration,
    ) -> StoreFuture<'a, Lease>;
    /// `false` where the lease is not ours any more.
    fn extend_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
        life: Duration,
    ) -> StoreFuture<'a, bool>;
    /// Ends our lease; another's stays.
    fn release_lease<'a>(
        &'a self,
        name: &'a AccountName,
        realm: &'a RealmName,
        owner: &'a ReplicaId,
    ) -> StoreFuture<'a, ()>;

    /// The accounts that anybody changed after `seen`: tokens, route, state, grants that came or went; not
    /// intents. To begin, ask for [`newest_change`](Self::newest_change) first and read the accounts then, so
    /// that nothing falls between. Where the store was put back to an earlier time, every account is named.
    fn changes_since(&self, seen: u64) -> StoreFuture<'_, Changes>;
    fn newest_change(&self) -> StoreFuture<'_, u64>;
    /// Sends changes after `seen`, our own included, until the receiver goes. Trouble with the store only
    /// delays it.
    fn watch(
        &self,
        seen: u64,
        changes: mpsc::Sender<Vec<AccountName>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Whether `owner` does this background job for the cluster during the next `life`: it does where nobody
    /// else does. To be asked again well before that is over.
    fn lead<'a>(&'a self, task: &'a str, owner: &'a ReplicaId, life: Duration) -> StoreFuture<'a, bool>;
    /// Leaves the job to others at once.
    fn step_down<'a>(&'a self, task: &'a str, owner: &'a ReplicaId) -> StoreFuture<'a, ()>;
}

/// Leases as a caller asks any store for them. Where no other process can work on the store, a lease is free
/// to whoever asks: one flight per account is the process's own business.
impl dyn Store {
    /// Whether other gateways may work on this store at the same time.
    pub fn is_shared(&self) -> bool {
        self.cluster().is_some()
    }

    pub async fn take_lease(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
        seen_generation: u64,
        life: Duration,
    ) -> Result<Lease, StoreError> {
        match self.cluster() {
            Some(cluster) => cluster.take_lease(name, realm, owner, seen_generation, life).await,
            None => Ok(Lease::Taken),
        }
    }

    pub async fn extend_lease(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
        life: Duration,
    ) -> Result<bool, StoreError> {
        match self.cluster() {
            Some(cluster) => cluster.extend_lease(name, realm, owner, life).await,
            None => Ok(true),
        }
    }

    pub async fn release_lease(
        &self,
        name: &AccountName,
        realm: &RealmName,
        owner: &ReplicaId,
    ) -> Result<(), StoreError> {
        match self.cluster() {
            Some(cluster) => cluster.release_lease(name, realm, owner).await,
            None => Ok(()),
        }
    }
}

impl ReplicaId {
    /// `place` tells people where it runs: a host name.
    pub fn new(place: &str) -> Result<Self, StoreError> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StoreError::Refused("the system gave no random bytes for a name".to_owned()))?;
        Ok(Self(format!("{place}/{:016x}", u64::from_be_bytes(random)).into()))
    }

    pub(super) fn from_store(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A lease that was taken, for as long as work under it runs.
pub struct LeaseGuard<'a> {
    pub store: &'a dyn Store,
    pub clock: &'a Clock,
    pub name: &'a AccountName,
    pub realm: &'a RealmName,
    pub owner: &'a ReplicaId,
    /// How long the lease lasts from each time it is taken or extended.
    pub life: Duration,
    /// Until when it is ours by our own clock, in milliseconds; moved on with each extension.
    pub ends: &'a AtomicU64,
}

impl LeaseGuard<'_> {
    /// Runs `work` and extends the lease meanwhile. `work` always runs to its end: a lease that could not be
    /// extended costs at most a second refresh, and giving up half-way could cost the tokens.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return done,
                () = self.clock.sleep(self.life / 3) => {}
            }
            let ends = self.clock.now() + self.life;
            let mut extending = pin!(self.store.extend_lease(self.name, self.realm, self.owner, self.life));
            let extended = tokio::select! {
                biased;
                done = work.as_mut() => return done,
                extended = extending.as_mut() => extended,
            };
            match extended {
                Ok(true) => self.ends.store(ends.as_millis(), Relaxed),
                Ok(false) => {
                    tracing::warn!(account = %self.name, realm = %self.realm, "the lease of a refresh went to another gateway")
                }
                Err(trouble) => {
                    tracing::warn!(account = %self.name, realm = %self.realm, %trouble, "the lease of a refresh could not be extended")
                }
            }
        }
    }

    pub async fn release(&self) {
        if let Err(trouble) = self.store.release_lease(self.name, self.realm, self.owner).await {
            tracing::debug!(account = %self.name, %trouble, "a lease could not be released; it ends by itself");
        }
    }
}
