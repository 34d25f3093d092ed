//! The scheduler: renews ahead of expiry what is in use, and often enough what is idle, so that no caller
//! waits and no pairing lapses.
//!
//! The rule guarded here: it asks through the one entry point like everybody else, spread out, a few at a
//! time, never all at once. Of several gateways on one store, one keeps for all.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountState, RealmName};

use super::cause::Cause;
use super::pacing::{TOKEN_LIFE, stable_jitter};
use super::registry::Account;
use super::renewal::Renewals;
use super::retries;
use super::snapshot::Snapshot;
use super::standby_grants;
use super::starter::Starter;

/// How far a round looks ahead. It reads a few words per account (measured: 145 ms for 100,000 accounts,
/// without any optimisation by the compiler), so a queue that would have to follow every call, pause and
/// pairing is not worth it.
const LONGEST_ROUND: Duration = Duration::from_secs(30);
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

/// What decides when an account is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleInput {
    pub expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    /// When the grant was paired or imported.
    pub obtained_at: Timestamp,
    pub last_used: Option<Timestamp>,
    /// Gap or back-off.
    pub blocked_until: Timestamp,
}

/// When an account should be renewed next and why. `spread` in 0..1 differs between accounts and moves the
/// moment ahead, so that accounts renewed together part.
pub fn next_due(
    now: Timestamp,
    input: &ScheduleInput,
    spread: f64,
    settings: &config::RenewalConfig,
) -> (Timestamp, Cause) {
    let fresh_at = input.refreshed_at.max(Some(input.obtained_at)).unwrap_or(input.obtained_at);
    let life = input.expires_at.map_or(TOKEN_LIFE, |end| end.since(fresh_at));
    let in_use =
        input.last_used.is_some_and(|used| used >= fresh_at || now.since(used) < life.max(TOKEN_LIFE));
    let (due, cause) = match (in_use, input.expires_at) {
        (true, Some(end)) => {
            // A token that lives shorter than `renew_before_expiry` must not be renewed without end.
            let ahead = settings.renew_before_expiry.min(life / 4);
            (end - ahead - ahead.mul_f64(spread), Cause::BeforeExpiry)
        }
        (true, None) => (now, Cause::BeforeExpiry),
        (false, _) => {
            let early = (settings.idle_renewal / 8).mul_f64(spread);
            (fresh_at + (settings.idle_renewal - early), Cause::IdleRenewal)
        }
    };
    (due.max(input.blocked_until), cause)
}

/// An account that the scheduler will renew.
pub(super) struct Due {
    pub at: Timestamp,
    pub account: Arc<Account>,
    pub cause: Cause,
    /// A grant that the account does not use at present.
    pub standby_realm: Option<RealmName>,
}

/// Whatever is due by `until`, the most urgent first.
pub(super) fn due_by(renewals: &Renewals, now: Timestamp, until: Timestamp) -> Vec<Due> {
    let settings = renewals.context().settings.load();
    let mut due = Vec::new();
    renewals.context().registry.for_each(|account| {
        let snapshot = account.snapshot();
        let found = due_of(account, &snapshot, now, &settings);
        if let Some((at, cause)) = found.filter(|(at, _)| *at <= until) {
            due.push(Due { at, account: Arc::clone(account), cause, standby_realm: None });
        }
        for (realm, at) in standby_grants::due(renewals.context(), account, &snapshot) {
            if at <= until {
                due.push(Due {
                    at,
                    account: Arc::clone(account),
                    cause: Cause::IdleRenewal,
                    standby_realm: Some(realm),
                });
            }
        }
    });
    due.sort_by_key(|due| due.at);
    due
}

impl Renewals {
    /// Starts the scheduler on the control runtime, with the retries.
    pub fn start_scheduler(&self) -> JoinHandle<()> {
        let renewals = self.clone();
        self.context().runtime.spawn(async move {
            tokio::join!(run(&renewals), retries::run(&renewals));
        })
    }

    /// Leaves the schedule to another gateway. The task that [`Renewals::start_scheduler`] started must have
    /// been ended.
    pub async fn stop_scheduler(&self) {
        self.context().lead.step_down().await;
    }
}

async fn run(renewals: &Renewals) {
    tokio::join!(renewals.context().lead.campaign(), keep(renewals));
}

async fn keep(renewals: &Renewals) {
    let starter = Starter::new(renewals);
    let clock = renewals.context().clock.clone();
    let lead = &renewals.context().lead;
    loop {
        lead.wait_elected().await;
        let now = clock.now();
        let round = round_length(&renewals.context().settings.load());
        for due in due_by(renewals, now, now + round) {
            clock.sleep_until(due.at).await;
            if !lead.is_leader() {
                break;
            }
            if let Some(realm) = due.standby_realm {
                let work =
                    standby_grants::refresh_standby(Arc::clone(renewals.context()), due.account, realm);
                starter.run(work).await;
                continue;
            }
            // The wait may have been long, and a caller may have renewed it meanwhile.
            let settings = renewals.context().settings.load_full();
            let still = due_of(&due.account, &due.account.snapshot(), clock.now(), &settings);
            if still.is_some_and(|(at, _)| at <= clock.now()) {
                starter.renew(due.account, due.cause).await;
            }
        }
        clock.sleep_until(now + round).await;
    }
}

fn due_of(
    account: &Account,
    snapshot: &Snapshot,
    now: Timestamp,
    settings: &config::RenewalConfig,
) -> Option<(Timestamp, Cause)> {
    match snapshot.state {
        AccountState::Ready => {}
        AccountState::Paused | AccountState::NeedsLogin { .. } => return None,
    }
    let input = ScheduleInput {
        expires_at: snapshot.expires_at(),
        refreshed_at: snapshot.refreshed_at,
        obtained_at: snapshot.obtained_at,
        last_used: account.activity.last_call_at(),
        blocked_until: account.renewals_blocked_until(),
    };
    Some(next_due(now, &input, stable_jitter(account.name.as_str(), 0), settings))
}

/// Short enough for tokens of a demo that live seconds.
fn round_length(settings: &config::RenewalConfig) -> Duration {
    (settings.renew_before_expiry / 4).clamp(SHORTEST_ROUND, LONGEST_ROUND)
}
