//! Renewal: refresh, then discovery, for one account, once. `renew` is the only door: request path, keeper and operators use it.
//!
//! The rule guarded here: one flight per account, in a task of its own on the control runtime, so that a caller who hangs up loses
//! nothing but its own answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::model::account::{AccountState, RealmName};
use crate::model::route::Route;
use crate::store::Store;
use crate::store::cluster::ReplicaId;
use crate::store::leader_election::LeaderElection;

use super::aside::PutOff;
use super::book::{Book, Entry};
use super::calls::{Chronicle, ControlCalls};
use super::cause::Landing;
use super::flight::Flight;
use super::gaps::{Facts, lacks_only_a_route};
use super::realm::{RealmTrouble, Realms, Tally, Ticket};
use super::retries::{self, Retries};
use super::snapshot::Snapshot;
use super::unsaved::Unsaved;
use super::{Access, keeper, locked};

pub use super::cause::{Cause, RenewProblem};

/// What renewals are made of.
pub struct Parts {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub book: Arc<Book>,
    pub platforms: HashMap<RealmName, Arc<dyn ControlCalls>>,
    pub chronicle: Arc<dyn Chronicle>,
    pub settings: config::RenewalConfig,
    /// The control runtime: flights, the keeper and the saving of unsaved tokens run there.
    pub runtime: Handle,
    /// Who this gateway is among those that share its store.
    pub replica: ReplicaId,
}

/// The one door.
#[derive(Clone)]
pub struct Renewals {
    shared: Arc<Shared>,
}

/// What readiness, metrics and operators should hear of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alarms {
    /// Accounts whose newest tokens are in memory only, because the store does not take them: a crash now would cost their logins.
    pub unsaved_accounts: usize,
    /// Commits of new tokens that the store did not take, since the start.
    pub failed_commits: u64,
    pub realms: Vec<(RealmName, RealmTrouble)>,
}

/// Legacy programs give up after some 30 s; with 10 s for the renewal there is time left for the call itself (design, section 4).
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// When a realm that the configuration does not have is looked at again.
const NO_REALM_RETRY: Duration = Duration::from_secs(60);

/// Thousands of accounts may be named a wrong route at once; each check may wait for an answer.
const ROUTE_CHECKS: usize = 16;

/// As the store knows it.
const KEEPER: &str = "keeper";

impl Renewals {
    pub fn new(parts: Parts) -> Self {
        let lead =
            LeaderElection::new(Arc::clone(&parts.store), parts.clock.clone(), KEEPER, parts.replica.clone());
        let shared = Shared {
            clock: parts.clock,
            store: parts.store,
            book: parts.book,
            platforms: ArcSwap::from_pointee(parts.platforms),
            chronicle: parts.chronicle,
            settings: ArcSwap::from_pointee(parts.settings),
            runtime: parts.runtime,
            replica: parts.replica,
            lead,
            realms: Realms::default(),
            unsaved: Unsaved::default(),
            put_off: PutOff::default(),
            retries: Retries::default(),
            in_flight: watch::Sender::new(0),
            route_checks: Semaphore::new(ROUTE_CHECKS),
        };
        let renewals = Self { shared: Arc::new(shared) };
        renewals.name_interrupted_refreshes();
        renewals
    }

    /// Returns at once where the book already holds something newer than `seen_generation`; else joins or starts the account's one
    /// flight. Callable from any runtime: the flight runs on the control runtime and outlives its callers.
    pub async fn renew(
        &self,
        entry: &Arc<Entry>,
        seen_generation: u64,
        cause: Cause,
    ) -> Result<Access, RenewProblem> {
        let boarding = self.board(entry, seen_generation, cause)?;
        let access = self.wait_for(boarding).await?;
        match cause {
            // A flight that was under way already when this caller's call failed may have brought just what it saw fail.
            Cause::Unauthorized | Cause::Forbidden if access.generation() <= seen_generation => {
                Err(RenewProblem::TooSoon { until: entry.hold_until() })
            }
            _ => Ok(access),
        }
    }

    /// Starts a renewal without waiting for it: for a call whose body cannot be repeated.
    pub fn renew_behind(&self, entry: &Arc<Entry>, seen_generation: u64, cause: Cause) {
        // Where it may not begin, nobody waits to hear why.
        let _ = self.board(entry, seen_generation, cause);
    }

    /// Waits for the flight under way, where there is one: for a call whose token has been refused before it was sent.
    pub async fn join(&self, entry: &Arc<Entry>) -> Option<Result<Access, RenewProblem>> {
        let flight = locked(&entry.flight).clone()?;
        Some(self.wait_for(Boarding::Flight(*flight)).await)
    }

    /// What came of a repeat after a 403-caused renewal. Only a cure changes anything: the wait was doubled when the renewal ended,
    /// since the caller that would report may be gone by then.
    pub fn report_forbidden(&self, entry: &Arc<Entry>, cured: bool) {
        if cured {
            entry.pacing.lock().cured();
        }
    }

    /// Discovery alone, with the token at hand (`accounts discover`); a full renewal where there is none.
    pub async fn rediscover(&self, entry: &Arc<Entry>) -> Result<Arc<Route>, RenewProblem> {
        let before = entry.snapshot();
        match before.state {
            AccountState::Paused => return Err(RenewProblem::Paused),
            AccountState::Ready | AccountState::NeedsLogin { .. } => {}
        }
        if before.live_token(self.shared.clock.now()).is_none() {
            return self
                .renew(entry, before.serial, Cause::Operator)
                .await
                .map(|access| Arc::clone(access.route()));
        }
        let ticket = self.shared.admit(&before.realm, Cause::Operator)?;
        let flight = Flight::new(Arc::clone(&self.shared), Arc::clone(entry), Cause::Operator, ticket, None);
        let found = self.shared.runtime.spawn(flight.discover_only());
        found.await.unwrap_or_else(|_| Err(self.shared.unavailable("the discovery was cut off")))
    }

    /// Starts the keeper on the control runtime, and what is owed without a caller.
    pub fn keep(&self) -> JoinHandle<()> {
        let renewals = self.clone();
        self.shared.runtime.spawn(async move {
            tokio::join!(keeper::run(renewals.clone()), retries::run(&renewals));
        })
    }

    /// Leaves the keeping to another gateway. The task that [`Renewals::keep`] started must have been ended.
    pub async fn stop_keeping(&self) {
        self.shared.lead.step_down().await;
    }

    /// Puts new settings in force. Realms in `changed` have new credentials or addresses: their waits end, and accounts that needed a
    /// login are tried once more, since the credentials may have been why.
    pub async fn reload(
        &self,
        settings: config::RenewalConfig,
        platforms: HashMap<RealmName, Arc<dyn ControlCalls>>,
        changed: &[RealmName],
    ) {
        self.shared.settings.store(Arc::new(settings));
        self.shared.platforms.store(Arc::new(platforms));
        for realm in changed {
            self.shared.realms.get(realm).reset().await;
        }
        let refused = |entry: &Arc<Entry>| {
            let snapshot = entry.snapshot();
            matches!(snapshot.state, AccountState::NeedsLogin { .. }) && changed.contains(&snapshot.realm)
        };
        let again: Vec<_> = self.shared.book.all().into_iter().filter(refused).collect();
        if !again.is_empty() {
            self.shared.runtime.spawn(keeper::try_again(self.clone(), again));
        }
    }

    pub fn alarms(&self) -> Alarms {
        let ailing = |health: &Arc<super::realm::Health>| Some((health.realm.clone(), health.trouble()?));
        Alarms {
            unsaved_accounts: self.shared.unsaved.count(),
            failed_commits: self.shared.unsaved.failures(),
            realms: self.shared.realms.all().iter().filter_map(ailing).collect(),
        }
    }

    pub fn tallies(&self) -> Vec<(RealmName, Arc<Tally>)> {
        let all = self.shared.realms.all();
        all.iter().map(|health| (health.realm.clone(), Arc::clone(&health.tally))).collect()
    }

    /// Returns when no flight is under way and no token waits to be saved: for the end of the process, which puts its own limit on it.
    pub async fn finish(&self) {
        let mut in_flight = self.shared.in_flight.subscribe();
        let _ = in_flight.wait_for(|flights| *flights == 0).await;
        self.shared.unsaved.until_empty().await;
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hands out the newer access, the flight under way, or a new one. Does not wait.
    pub(super) fn board(
        &self,
        entry: &Arc<Entry>,
        seen: u64,
        cause: Cause,
    ) -> Result<Boarding, RenewProblem> {
        let now = self.shared.clock.now();
        let mut under_way = locked(&entry.flight);
        // Looked at under the flight's lock and not before it: the flight that renewed this very token may have landed between the
        // caller's failure and now, and without this look the late loser would refresh a fresh token.
        let snapshot = entry.snapshot();
        if let Some(access) = newer(&snapshot, seen, cause, now) {
            return Ok(Boarding::Newer(access));
        }
        match &snapshot.state {
            AccountState::Ready => {}
            AccountState::Paused => return Err(RenewProblem::Paused),
            AccountState::NeedsLogin { .. } if cause.is_operators() => {}
            AccountState::NeedsLogin { since, why } => {
                let (why, remedy) = (why.clone(), snapshot.remedy());
                let problem = RenewProblem::NeedsLogin { since: *since, why, remedy };
                if matches!(cause, Cause::Unauthorized | Cause::Forbidden) {
                    entry.drop_access(seen);
                }
                return Err(problem);
            }
        }
        if let Some(flight) = under_way.as_ref() {
            entry.refuse(seen, cause);
            return Ok(Boarding::Flight(watch::Receiver::clone(flight)));
        }
        let ticket = self.permit(entry, &snapshot, cause, now)?;
        let (land, landing) = watch::channel(None);
        *under_way = Some(Box::new(landing.clone()));
        entry.refuse(seen, cause);
        let flight = Flight::new(Arc::clone(&self.shared), Arc::clone(entry), cause, ticket, Some(land));
        self.shared.runtime.spawn(flight.fly());
        Ok(Boarding::Flight(landing))
    }

    pub(super) async fn wait_for(&self, boarding: Boarding) -> Landing {
        let mut flight = match boarding {
            Boarding::Newer(access) => return Ok(access),
            Boarding::Flight(flight) => flight,
        };
        tokio::select! {
            biased;
            landed = flight.wait_for(Option::is_some) => landed
                .ok()
                .and_then(|landing| landing.clone())
                .unwrap_or_else(|| Err(self.shared.unavailable("the renewal was cut off"))),
            () = self.shared.clock.sleep(LONGEST_WAIT) => Err(RenewProblem::StillRunning),
        }
    }

    pub(super) fn permit(
        &self,
        entry: &Entry,
        snapshot: &Snapshot,
        cause: Cause,
        now: Timestamp,
    ) -> Result<Ticket, RenewProblem> {
        let health = self.shared.realms.get(&snapshot.realm);
        let facts = Facts {
            last_refresh: snapshot.last_refresh(),
            on_both_platforms: snapshot.on_both_platforms(),
            only_a_route: lacks_only_a_route(snapshot, cause, now),
            token_lives: snapshot.live_token(now).is_some(),
            realm_in_trouble: health.in_trouble(),
            recoveries: health.recoveries(),
        };
        let permitted = entry.pacing.lock().permit(now, cause, &facts, &self.shared.settings.load());
        permitted.and_then(|()| self.shared.admit(&snapshot.realm, cause)).inspect_err(|problem| {
            if let RenewProblem::Unavailable { retry_at, .. } = problem {
                entry.hold(*retry_at);
            }
        })
    }

    /// A refresh that was under way when the process ended may have spent the token that the store holds (threats, row 21): the journal
    /// names it, so that a login lost in that window is explained. Once lost, it is told with the login's need, and not at each start.
    ///
    /// Where others work on the same store it may be theirs and going on; then it is named by whoever takes it over.
    fn name_interrupted_refreshes(&self) {
        if self.shared.store.is_shared() {
            return;
        }
        let lost = |entry: &Entry| matches!(entry.state(), AccountState::NeedsLogin { .. });
        for entry in self.shared.book.all().into_iter().filter(|entry| !lost(entry)) {
            let Some(spent) = entry.pacing.lock().maybe_spent else { continue };
            let detail = format!("{spent}; the refresh token at hand is tried as it is");
            self.shared.chronicle.note(&entry.name, "refresh_interrupted", detail);
        }
    }
}

pub(super) enum Boarding {
    Newer(Access),
    Flight(watch::Receiver<Option<Landing>>),
}

/// Whether the book already has what the caller is after.
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

/// What the door, the flights and the keeper share.
pub(super) struct Shared {
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub book: Arc<Book>,
    pub platforms: ArcSwap<HashMap<RealmName, Arc<dyn ControlCalls>>>,
    pub chronicle: Arc<dyn Chronicle>,
    pub settings: ArcSwap<config::RenewalConfig>,
    pub runtime: Handle,
    pub replica: ReplicaId,
    /// Who keeps.
    pub lead: LeaderElection,
    pub realms: Realms,
    pub unsaved: Unsaved,
    pub put_off: PutOff,
    pub retries: Retries,
    pub in_flight: watch::Sender<usize>,
    /// Discoveries under way that no renewal has asked for.
    pub route_checks: Semaphore,
}

impl Shared {
    pub fn platform(&self, realm: &RealmName) -> Result<Arc<dyn ControlCalls>, RenewProblem> {
        self.platforms.load().get(realm).cloned().ok_or_else(|| RenewProblem::Unavailable {
            retry_at: self.clock.now() + NO_REALM_RETRY,
            detail: format!("the configuration has no realm {realm}"),
        })
    }

    /// Something of ours went wrong that the next try may not meet.
    pub fn unavailable(&self, detail: &str) -> RenewProblem {
        let retry_at = self.clock.now() + Duration::from_secs(1);
        RenewProblem::Unavailable { retry_at, detail: detail.to_owned() }
    }

    pub fn admit(&self, realm: &RealmName, cause: Cause) -> Result<Ticket, RenewProblem> {
        let admitted = self.realms.get(realm).admit(self.clock.now(), cause);
        admitted.map_err(|(retry_at, detail)| RenewProblem::Unavailable { retry_at, detail })
    }
}
