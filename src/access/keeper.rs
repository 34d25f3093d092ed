//! The keeper: renews ahead of expiry what is in use, and often enough what is idle, so that no caller waits and no pairing lapses.
//!
//! The rule guarded here: it asks through the one door like everybody else, spread out, a few at a time, never all at once. Of several
//! gateways on one store, one keeps for all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountState, RealmName};

use super::aside;
use super::book::Entry;
use super::cause::{Cause, RenewProblem};
use super::gaps::{TOKEN_LIFE, share};
use super::renewal::Renewals;
use super::snapshot::Snapshot;

/// Renewals of the keeper's under way at once; callers' flights find seats beside them.
const AT_ONCE: usize = 8;
/// 50 starts a second: 100,000 accounts in use need 30, and 100,000 that are overdue after a long stop take half an hour.
pub(super) const PACE: Duration = Duration::from_millis(20);
/// How far a round looks ahead. It reads a few words per account (measured: 145 ms for 100,000 accounts, without any optimisation by the
/// compiler), so a queue that would have to follow every call, pause and pairing is not worth it.
const LONGEST_ROUND: Duration = Duration::from_secs(30);
const SHORTEST_ROUND: Duration = Duration::from_secs(1);

/// What decides when an account is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub expires_at: Option<Timestamp>,
    pub refreshed_at: Option<Timestamp>,
    /// When the grant was paired or imported.
    pub obtained_at: Timestamp,
    pub last_used: Option<Timestamp>,
    /// Gap or back-off.
    pub held_until: Timestamp,
}

/// When an account should be renewed next and why. `spread` in 0..1 differs between accounts and moves the moment ahead, so that accounts
/// renewed together part.
pub fn next_due(
    now: Timestamp,
    facts: &Facts,
    spread: f64,
    settings: &config::RenewalConfig,
) -> (Timestamp, Cause) {
    let fresh_at = facts.refreshed_at.max(Some(facts.obtained_at)).unwrap_or(facts.obtained_at);
    let life = facts.expires_at.map_or(TOKEN_LIFE, |end| end.since(fresh_at));
    let in_use =
        facts.last_used.is_some_and(|used| used >= fresh_at || now.since(used) < life.max(TOKEN_LIFE));
    let (due, cause) = match (in_use, facts.expires_at) {
        (true, Some(end)) => {
            // A token that lives shorter than `ahead` must not be renewed without end.
            let ahead = settings.renew_before_expiry.min(life / 4);
            (end - ahead - ahead.mul_f64(spread), Cause::Ahead)
        }
        (true, None) => (now, Cause::Ahead),
        (false, _) => {
            let early = (settings.idle_renewal / 8).mul_f64(spread);
            (fresh_at + (settings.idle_renewal - early), Cause::KeepAlive)
        }
    };
    (due.max(facts.held_until), cause)
}

/// An account that the keeper will renew.
pub(super) struct Due {
    pub at: Timestamp,
    pub entry: Arc<Entry>,
    pub cause: Cause,
    /// A grant that the account does not use at present.
    pub aside: Option<RealmName>,
}

/// Whatever is due by `until`, the most urgent first.
pub(super) fn due_by(renewals: &Renewals, now: Timestamp, until: Timestamp) -> Vec<Due> {
    let settings = renewals.shared().settings.load();
    let mut due = Vec::new();
    renewals.shared().book.for_each(|entry| {
        let snapshot = entry.snapshot();
        let found = due_of(entry, &snapshot, now, &settings);
        if let Some((at, cause)) = found.filter(|(at, _)| *at <= until) {
            due.push(Due { at, entry: Arc::clone(entry), cause, aside: None });
        }
        for (realm, at) in aside::due(renewals.shared(), entry, &snapshot) {
            if at <= until {
                due.push(Due { at, entry: Arc::clone(entry), cause: Cause::KeepAlive, aside: Some(realm) });
            }
        }
    });
    due.sort_by_key(|due| due.at);
    due
}

/// The keeper's life. Ends with the control runtime.
pub(super) async fn run(renewals: Renewals) {
    tokio::join!(renewals.shared().lead.campaign(), keep(&renewals));
}

async fn keep(renewals: &Renewals) {
    let hands = Arc::new(Semaphore::new(AT_ONCE));
    let clock = renewals.shared().clock.clone();
    let lead = &renewals.shared().lead;
    loop {
        lead.wait_elected().await;
        let now = clock.now();
        let round = round_length(&renewals.shared().settings.load());
        for due in due_by(renewals, now, now + round) {
            clock.sleep_until(due.at).await;
            if !lead.is_leader() {
                break;
            }
            if let Some(realm) = due.aside {
                start_aside(renewals, &hands, due.entry, realm).await;
                continue;
            }
            // The wait may have been long, and a caller may have renewed it meanwhile.
            let settings = renewals.shared().settings.load_full();
            let still = due_of(&due.entry, &due.entry.snapshot(), clock.now(), &settings);
            if still.is_some_and(|(at, _)| at <= clock.now()) {
                start(renewals, &hands, due.entry, due.cause).await;
            }
        }
        clock.sleep_until(now + round).await;
    }
}

/// Tries accounts once more that needed a login, after their credentials have changed.
pub(super) async fn try_again(renewals: Renewals, entries: Vec<Arc<Entry>>) {
    let hands = Arc::new(Semaphore::new(AT_ONCE));
    for entry in entries {
        start(&renewals, &hands, entry, Cause::Operator).await;
    }
}

/// For the log.
fn word(problem: &RenewProblem) -> &'static str {
    match problem {
        RenewProblem::TooSoon { .. } => "too_soon",
        RenewProblem::Paused => "paused",
        RenewProblem::NeedsLogin { .. } => "needs_login",
        RenewProblem::Unavailable { .. } => "unavailable",
        RenewProblem::StillRunning => "still_running",
    }
}

/// Begins a renewal as soon as a hand is free, and takes a breath after it. What the door denies costs no time: a realm in trouble must
/// not hold the others' accounts up.
pub(super) async fn start(renewals: &Renewals, hands: &Arc<Semaphore>, entry: Arc<Entry>, cause: Cause) {
    let Ok(hand) = Arc::clone(hands).acquire_owned().await else { return };
    let boarding = match renewals.board(&entry, entry.generation(), cause) {
        Ok(boarding) => boarding,
        Err(problem) => {
            tracing::debug!(account = %entry.name, why = word(&problem), "not renewed");
            return;
        }
    };
    let waiting = renewals.clone();
    tokio::spawn(async move {
        let _hand = hand;
        // The flight itself tells what came of it.
        let _ = waiting.wait_for(boarding).await;
    });
    renewals.shared().clock.sleep(PACE).await;
}

/// Likewise for a grant that is not in use; the account's own renewals wait for nothing of it.
async fn start_aside(renewals: &Renewals, hands: &Arc<Semaphore>, entry: Arc<Entry>, realm: RealmName) {
    let Ok(hand) = Arc::clone(hands).acquire_owned().await else { return };
    let shared = Arc::clone(renewals.shared());
    tokio::spawn(async move {
        let _hand = hand;
        aside::keep_alive(shared, entry, realm).await;
    });
    renewals.shared().clock.sleep(PACE).await;
}

fn due_of(
    entry: &Entry,
    snapshot: &Snapshot,
    now: Timestamp,
    settings: &config::RenewalConfig,
) -> Option<(Timestamp, Cause)> {
    match snapshot.state {
        AccountState::Ready => {}
        AccountState::Paused | AccountState::NeedsLogin { .. } => return None,
    }
    let facts = Facts {
        expires_at: snapshot.expires_at(),
        refreshed_at: snapshot.refreshed_at,
        obtained_at: snapshot.obtained_at,
        last_used: entry.signals.last_call_at(),
        held_until: entry.hold_until(),
    };
    Some(next_due(now, &facts, share(entry.name.as_str(), 0), settings))
}

/// Short enough for tokens of a demo that live seconds.
fn round_length(settings: &config::RenewalConfig) -> Duration {
    (settings.renew_before_expiry / 4).clamp(SHORTEST_ROUND, LONGEST_ROUND)
}
