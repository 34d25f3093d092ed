//! The health of a realm, so that one account's dead grant, bad client credentials and an outage are told apart (threats, row 12), and
//! an outage is met by one trial at a time instead of by every account.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::platform::{CredentialsCheck, PlatformError};

use super::cause::Cause;
use super::entry::Entry;
use super::gaps::{back_off, share};
use super::locked;
use super::refusals::Refusals;

/// What ails a whole realm. No grant of it is given up meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealmTrouble {
    /// The platform refuses the client id or secret.
    BadCredentials { since: Timestamp },
    /// Several accounts in a row could not be renewed, or the token endpoint's refusals cannot be explained.
    OutOfOrder { since: Timestamp, detail: String },
}

/// How renewals of a realm went since the start; for metrics.
#[derive(Debug, Default)]
pub struct Tally {
    pub refreshes: AtomicU64,
    pub refresh_failures: AtomicU64,
    pub refusals: AtomicU64,
    pub discoveries: AtomicU64,
    pub discovery_failures: AtomicU64,
}

impl Tally {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// Accounts that must fail in a row, none succeeding in between, before the realm is taken to be at fault. One account's own trouble
/// must not hold the others up.
const ACCOUNTS_FOR_AN_OUTAGE: usize = 3;
/// With one trial at a time half a minute hammers nobody and notices the end of an outage soon.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// Credentials come back by somebody's hand, which a reload tells us; the rest is for a vendor who undoes a mistake, which is noticed
/// within a minute.
const CREDENTIALS_HOLD: Duration = Duration::from_secs(45);
/// Refreshes of a realm under way at once. More wait for a seat: after a restart thousands of tokens may have expired together, and a
/// realm that stalls must not use up what the others need.
const SEATS: usize = 32;
/// "Several of one realm within a minute" (design, section 5).
const TOGETHER: Duration = Duration::from_secs(60);

/// All realms' health.
#[derive(Default)]
pub(super) struct Realms(Mutex<HashMap<RealmName, Arc<Health>>>);

impl Realms {
    pub fn get(&self, realm: &RealmName) -> Arc<Health> {
        let mut realms = locked(&self.0);
        Arc::clone(realms.entry(realm.clone()).or_insert_with(|| Arc::new(Health::new(realm.clone()))))
    }

    pub fn all(&self) -> Vec<Arc<Health>> {
        let mut all: Vec<_> = locked(&self.0).values().cloned().collect();
        all.sort_by(|a, b| a.realm.cmp(&b.realm));
        all
    }
}

pub(super) struct Health {
    pub realm: RealmName,
    pub tally: Arc<Tally>,
    /// For each refresh under way.
    pub seats: Semaphore,
    /// What the last probe said. The lock is held while one is under way, so that a hundred dead grants ask once.
    pub probed: tokio::sync::Mutex<Option<(Timestamp, CredentialsCheck)>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trouble: Option<RealmTrouble>,
    retry_at: Timestamp,
    holds: u32,
    trial_under_way: bool,
    recoveries: u32,
    failing: Vec<AccountName>,
    refusals: Refusals,
    /// `Retry-After` of an answer that speaks for the whole token endpoint.
    asked_to_wait: Timestamp,
}

/// What a refused refresh token is taken to mean before anybody is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    Grant,
    /// Ask the token endpoint whether our credentials are good.
    Credentials,
}

/// The right to renew in this realm. Dropping it ends a trial.
pub(super) struct Ticket {
    health: Arc<Health>,
    pub trial: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.trial {
            locked(&self.health.state).trial_under_way = false;
        }
    }
}

impl Health {
    fn new(realm: RealmName) -> Self {
        Self {
            realm,
            tally: Arc::default(),
            seats: Semaphore::new(SEATS),
            probed: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub fn trouble(&self) -> Option<RealmTrouble> {
        locked(&self.state).trouble.clone()
    }

    pub fn in_trouble(&self) -> bool {
        locked(&self.state).trouble.is_some()
    }

    /// How often the realm came back: back-offs from before the last time are void.
    pub fn recoveries(&self) -> u32 {
        locked(&self.state).recoveries
    }

    /// A healthy realm lets everybody pass; one in trouble a single trial at a time, when its hold is over. An operator always passes.
    /// `Err` says until when and why.
    pub fn admit(self: &Arc<Self>, now: Timestamp, cause: Cause) -> Result<Ticket, (Timestamp, String)> {
        let mut state = locked(&self.state);
        let ticket = |trial| Ticket { health: Arc::clone(self), trial };
        if now < state.asked_to_wait && !cause.is_operators() {
            let detail =
                format!("the token endpoint of realm {} asks to be left alone for a while", self.realm);
            return Err((state.asked_to_wait, detail));
        }
        let Some(trouble) = &state.trouble else { return Ok(ticket(false)) };
        if cause.is_operators() {
            return Ok(ticket(false));
        }
        if now < state.retry_at {
            return Err((state.retry_at, trouble.sentence(&self.realm)));
        }
        if state.trial_under_way {
            return Err((now + Duration::from_secs(2), trouble.sentence(&self.realm)));
        }
        state.trial_under_way = true;
        Ok(ticket(true))
    }

    /// A refresh succeeded: credentials are good and the realm answers. Returns the accounts whose verdict fell while others were
    /// refused too: they are to be tried once more.
    #[must_use]
    pub fn succeeded(&self) -> Vec<Arc<Entry>> {
        let mut state = locked(&self.state);
        state.failing.clear();
        state.refusals.proven();
        state.asked_to_wait = Timestamp::default();
        if state.trouble.take().is_some() {
            state.recover();
            tracing::info!(realm = %self.realm, "renewals work again");
        }
        state.refusals.take_given_up()
    }

    /// A refresh failed in a way that may pass.
    pub fn failed(&self, now: Timestamp, account: &AccountName, trouble: &PlatformError) {
        let detail = &*trouble.to_string();
        let mut state = locked(&self.state);
        // The two statuses that speak for the server and not for one call (RFC 9110, 15.6.4; RFC 6585, 4).
        if let (Some(429 | 503), Some(asked)) = (trouble.status, trouble.retry_after) {
            state.asked_to_wait = state.asked_to_wait.max(now + asked);
        }
        if !state.failing.contains(account) && state.failing.len() < ACCOUNTS_FOR_AN_OUTAGE {
            state.failing.push(account.clone());
        }
        let outage = state.failing.len() >= ACCOUNTS_FOR_AN_OUTAGE;
        if state.trouble.is_none() && !outage {
            return;
        }
        if state.trouble.is_none() {
            tracing::error!(realm = %self.realm, detail, "renewals fail for several accounts; one trial at a time from now on");
            state.trouble = Some(RealmTrouble::OutOfOrder { since: now, detail: detail.to_owned() });
        }
        state.hold(now, &self.realm);
    }

    /// Refusals that neither grants nor credentials explain.
    pub fn unexplained(&self, now: Timestamp) {
        let mut state = locked(&self.state);
        if state.trouble.is_none() {
            let detail =
                "the token endpoint refuses refresh tokens and does not say whether our credentials are good";
            tracing::error!(realm = %self.realm, detail, "no grant is given up; one trial at a time from now on");
            state.trouble = Some(RealmTrouble::OutOfOrder { since: now, detail: detail.to_owned() });
        }
        state.hold(now, &self.realm);
    }

    /// The platform refuses our client credentials. Alarms once, and returns the accounts whose refusal meant just that,
    /// with its time.
    pub fn credentials_are_bad(&self, now: Timestamp) -> Vec<(Timestamp, Arc<Entry>)> {
        let mut state = locked(&self.state);
        if !matches!(state.trouble, Some(RealmTrouble::BadCredentials { .. })) {
            tracing::error!(
                realm = %self.realm,
                "the platform refuses client_id or client_secret of this realm; all grants are kept, correct them and reload"
            );
            state.trouble = Some(RealmTrouble::BadCredentials { since: now });
        }
        state.retry_at = now + CREDENTIALS_HOLD;
        state.refusals.take_unproven()
    }

    /// A refresh token was refused. One account's refusal means its grant; the only account's, or several within a minute or in a row
    /// without a success between them (a small office's tokens expire minutes apart), may mean our credentials.
    ///
    /// The second value says whether it was refused together with others, within minutes.
    pub fn refused(&self, now: Timestamp, entry: &Arc<Entry>, only_one_at_work: bool) -> (Suspect, bool) {
        let mut state = locked(&self.state);
        let in_trouble = state.trouble.is_some();
        let among = state.refusals.add(now, entry);
        let ask = only_one_at_work || among.unproven || in_trouble;
        (if ask { Suspect::Credentials } else { Suspect::Grant }, among.together)
    }

    pub fn others_refused(&self, entry: &Arc<Entry>) -> Vec<Arc<Entry>> {
        locked(&self.state).refusals.others(entry)
    }

    /// Notes a verdict that fell while others were refused too; `false` where it was noted already.
    pub fn given_up(&self, now: Timestamp, entry: &Arc<Entry>) -> bool {
        locked(&self.state).refusals.give_up(now, entry)
    }

    /// Until when nobody but an operator is let through.
    pub fn held_until(&self) -> Timestamp {
        let state = locked(&self.state);
        let hold = if state.trouble.is_some() { state.retry_at } else { Timestamp::default() };
        hold.max(state.asked_to_wait)
    }

    /// When the realm should be asked again, although nobody calls.
    pub fn next_probe(&self) -> Option<Timestamp> {
        let state = locked(&self.state);
        let trial = state.trouble.is_some().then(|| state.retry_at.max(state.asked_to_wait));
        let refused = state.refusals.next_probe().map(|at| at.max(state.retry_at));
        trial.into_iter().chain(refused).min()
    }

    pub fn trial_is_due(&self, now: Timestamp) -> bool {
        let state = locked(&self.state);
        state.trouble.is_some() && !state.trial_under_way && now >= state.retry_at.max(state.asked_to_wait)
    }

    /// One of the accounts that were refused together, where it is time to see whether the realm takes it by now.
    pub fn take_refused(&self, now: Timestamp) -> Option<Arc<Entry>> {
        let mut state = locked(&self.state);
        if state.trouble.is_some() { None } else { state.refusals.probe(now) }
    }

    /// The probe found the credentials good: those refused so far had dead grants.
    pub fn credentials_are_good(&self) {
        let mut state = locked(&self.state);
        state.refusals.proven();
        if state.trouble.take().is_some() {
            state.recover();
            tracing::info!(realm = %self.realm, "our credentials are good; the refused grants are dead");
        }
    }

    /// Whether an earlier probe still counts.
    pub fn is_recent(asked: Timestamp, now: Timestamp) -> bool {
        now.since(asked) < TOGETHER
    }

    /// New credentials or addresses: everything starts afresh.
    pub async fn reset(&self) {
        *self.probed.lock().await = None;
        let mut state = locked(&self.state);
        state.trouble = None;
        state.failing.clear();
        state.refusals.clear();
        state.asked_to_wait = Timestamp::default();
        state.recover();
    }
}

impl State {
    fn hold(&mut self, now: Timestamp, realm: &RealmName) {
        self.holds = self.holds.saturating_add(1);
        self.retry_at =
            now + back_off(self.holds, LONGEST_HOLD, share(realm.as_str(), u64::from(self.holds)));
    }

    fn recover(&mut self) {
        self.holds = 0;
        self.retry_at = Timestamp::default();
        self.recoveries = self.recoveries.wrapping_add(1);
    }
}

impl RealmTrouble {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            RealmTrouble::BadCredentials { .. } => "credentials",
            RealmTrouble::OutOfOrder { .. } => "out_of_order",
        }
    }

    pub fn sentence(&self, realm: &RealmName) -> String {
        match self {
            RealmTrouble::BadCredentials { since } => {
                format!("the platform refuses the client credentials of realm {realm} since {since}")
            }
            RealmTrouble::OutOfOrder { since, detail } => {
                format!("renewals in realm {realm} fail since {since}: {detail}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::doubles::timed_out;

    fn ailing() -> Arc<Health> {
        let health = Arc::new(Health::new("global".parse().unwrap()));
        for account in ["a1", "a2", "a3"] {
            assert!(health.admit(at(0), Cause::NoToken).is_ok(), "two accounts are no outage");
            health.failed(at(0), &account.parse().unwrap(), &timed_out());
        }
        health
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn one_account_failing_again_and_again_is_not_the_realms_trouble() {
        let health = Arc::new(Health::new("global".parse().unwrap()));
        for _ in 0..100 {
            health.failed(at(0), &"a1".parse().unwrap(), &timed_out());
        }
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_realm_in_trouble_admits_one_trial_at_a_time_after_its_hold_and_an_operator_always() {
        let health = ailing();
        assert!(health.admit(at(0), Cause::NoToken).is_err());
        assert!(health.admit(at(0), Cause::Operator).is_ok());
        let trial = health.admit(at(2), Cause::NoToken).unwrap_or_else(|held| panic!("{held:?}"));
        assert!(health.admit(at(2), Cause::Ahead).is_err(), "a trial is under way");
        drop(trial);
        assert!(health.admit(at(2), Cause::Ahead).is_ok());
    }

    #[test]
    fn holds_grow_to_half_a_minute_and_a_success_ends_them_for_all() {
        let health = ailing();
        for _ in 0..20 {
            health.failed(at(0), &"a1".parse().unwrap(), &timed_out());
        }
        assert!(health.admit(at(29), Cause::NoToken).is_err());
        assert!(health.admit(at(38), Cause::NoToken).is_ok());
        let recoveries = health.recoveries();
        assert!(health.succeeded().is_empty());
        assert!(health.admit(at(0), Cause::NoToken).is_ok());
        assert_eq!(health.recoveries(), recoveries + 1);
    }
}
