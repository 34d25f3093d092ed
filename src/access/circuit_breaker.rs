//! The circuit breaker of a realm. Closed, it lets every renewal through; open, none but an operator's;
//! half-open, when its time is over, one probe at a time.
//!
//! It opens when several accounts in a row fail, or when our credentials are refused, so that one account's
//! dead grant, bad client credentials and an outage are distinguished (threats, row 12).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::platform::{CredentialsCheck, PlatformError};

use super::account::Account;
use super::cause::Cause;
use super::locked;
use super::pacing::{backoff, stable_jitter};
use super::recent_refusals::Refusals;

/// Why a realm's circuit breaker is open. No grant of the realm is given up meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenReason {
    /// The platform refuses the client id or secret.
    BadCredentials { since: Timestamp },
    /// Several accounts in a row could not be renewed, or the token endpoint's refusals cannot be explained.
    Unavailable { since: Timestamp, detail: String },
}

/// How renewals of a realm went since the start; for metrics.
#[derive(Debug, Default)]
pub struct RenewalCounters {
    pub refreshes: AtomicU64,
    pub refresh_failures: AtomicU64,
    pub refusals: AtomicU64,
    pub discoveries: AtomicU64,
    pub discovery_failures: AtomicU64,
}

impl RenewalCounters {
    pub(super) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// Accounts that must fail in a row, none succeeding in between, before the realm is taken to be at fault.
/// One account's own trouble must not hold the others up.
const ACCOUNTS_FOR_AN_OUTAGE: usize = 3;
/// With one probe at a time, 30 s between probes is gentle enough and notices the end of an outage soon.
const LONGEST_OPEN: Duration = Duration::from_secs(30);
/// Credentials come back by somebody's hand, which a reload tells us; the rest is for a vendor who undoes a
/// mistake, which is noticed within a minute.
const CREDENTIALS_OPEN: Duration = Duration::from_secs(45);
/// Refreshes of a realm in flight at once. More wait for a permit: after a restart thousands of tokens may
/// have expired together, and a realm that stalls must not use up what the others need.
const CONCURRENT_REFRESHES: usize = 32;
/// "Several of one realm within a minute" (design, section 5).
const PROBE_VALIDITY: Duration = Duration::from_secs(60);

/// Every realm's circuit breaker.
#[derive(Default)]
pub(super) struct CircuitBreakers(Mutex<HashMap<RealmName, Arc<CircuitBreaker>>>);

impl CircuitBreakers {
    pub fn get(&self, realm: &RealmName) -> Arc<CircuitBreaker> {
        let mut realms = locked(&self.0);
        Arc::clone(
            realms.entry(realm.clone()).or_insert_with(|| Arc::new(CircuitBreaker::new(realm.clone()))),
        )
    }

    pub fn all(&self) -> Vec<Arc<CircuitBreaker>> {
        let mut all: Vec<_> = locked(&self.0).values().cloned().collect();
        all.sort_by(|a, b| a.realm.cmp(&b.realm));
        all
    }
}

/// One realm's circuit breaker, with its counters and its limit on concurrent refreshes.
pub(super) struct CircuitBreaker {
    pub realm: RealmName,
    pub counters: Arc<RenewalCounters>,
    /// One for each refresh in flight.
    pub refresh_permits: Semaphore,
    /// What the platform last said of our credentials. Locked while it is asked, so that a hundred dead
    /// grants ask once.
    pub probed: tokio::sync::Mutex<Option<(Timestamp, CredentialsCheck)>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open_reason: Option<OpenReason>,
    open_until: Timestamp,
    times_opened: u32,
    probe_in_flight: bool,
    recoveries: u32,
    failing: Vec<AccountName>,
    refusals: Refusals,
    /// `Retry-After` of a response that speaks for the whole token endpoint.
    retry_after_until: Timestamp,
}

/// What a refused refresh token is taken to mean before anybody is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LikelyCause {
    Grant,
    /// Ask the token endpoint whether our credentials are good.
    Credentials,
}

/// The right to renew in this realm. Dropping it ends a probe.
pub(super) struct Permit {
    breaker: Arc<CircuitBreaker>,
    pub is_probe: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe {
            locked(&self.breaker.state).probe_in_flight = false;
        }
    }
}

impl CircuitBreaker {
    fn new(realm: RealmName) -> Self {
        Self {
            realm,
            counters: Arc::default(),
            refresh_permits: Semaphore::new(CONCURRENT_REFRESHES),
            probed: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub fn open_reason(&self) -> Option<OpenReason> {
        locked(&self.state).open_reason.clone()
    }

    pub fn is_open(&self) -> bool {
        locked(&self.state).open_reason.is_some()
    }

    /// How often the realm came back: back-offs from before the last time are void.
    pub fn recoveries(&self) -> u32 {
        locked(&self.state).recoveries
    }

    /// `Ok` while the breaker is closed, for an operator always, and half-open for one probe at a time. `Err`
    /// says until when and why not.
    pub fn try_acquire(
        self: &Arc<Self>,
        now: Timestamp,
        cause: Cause,
    ) -> Result<Permit, (Timestamp, String)> {
        let mut state = locked(&self.state);
        let permit = |is_probe| Permit { breaker: Arc::clone(self), is_probe };
        if now < state.retry_after_until && !cause.is_operators() {
            let detail =
                format!("the token endpoint of realm {} asks to be left alone for a while", self.realm);
            return Err((state.retry_after_until, detail));
        }
        let Some(reason) = &state.open_reason else { return Ok(permit(false)) };
        if cause.is_operators() {
            return Ok(permit(false));
        }
        if now < state.open_until {
            return Err((state.open_until, reason.sentence(&self.realm)));
        }
        if state.probe_in_flight {
            return Err((now + Duration::from_secs(2), reason.sentence(&self.realm)));
        }
        state.probe_in_flight = true;
        Ok(permit(true))
    }

    /// A refresh succeeded: credentials are good and the realm answers. Returns the accounts whose verdict
    /// fell while others were refused too: they are to be tried once more.
    #[must_use]
    pub fn succeeded(&self) -> Vec<Arc<Account>> {
        let mut state = locked(&self.state);
        state.failing.clear();
        state.refusals.proven();
        state.retry_after_until = Timestamp::default();
        if state.open_reason.take().is_some() {
            state.recover();
            tracing::info!(realm = %self.realm, "renewals work again");
        }
        state.refusals.take_given_up()
    }

    /// A refresh failed in a way that may pass.
    pub fn failed(&self, now: Timestamp, account: &AccountName, error: &PlatformError) {
        let detail = &*error.to_string();
        let mut state = locked(&self.state);
        // The two statuses that speak for the server and not for one call (RFC 9110, 15.6.4; RFC 6585, 4).
        if let (Some(429 | 503), Some(asked)) = (error.status, error.retry_after) {
            state.retry_after_until = state.retry_after_until.max(now + asked);
        }
        if !state.failing.contains(account) && state.failing.len() < ACCOUNTS_FOR_AN_OUTAGE {
            state.failing.push(account.clone());
        }
        let outage = state.failing.len() >= ACCOUNTS_FOR_AN_OUTAGE;
        if state.open_reason.is_none() && !outage {
            return;
        }
        if state.open_reason.is_none() {
            tracing::error!(realm = %self.realm, detail, "renewals fail for several accounts; one trial at a time from now on");
            state.open_reason = Some(OpenReason::Unavailable { since: now, detail: detail.to_owned() });
        }
        state.extend_open(now, &self.realm);
    }

    /// Refusals that neither grants nor credentials explain.
    pub fn unexplained(&self, now: Timestamp) {
        let mut state = locked(&self.state);
        if state.open_reason.is_none() {
            let detail =
                "the token endpoint refuses refresh tokens and does not say whether our credentials are good";
            tracing::error!(realm = %self.realm, detail, "no grant is given up; one trial at a time from now on");
            state.open_reason = Some(OpenReason::Unavailable { since: now, detail: detail.to_owned() });
        }
        state.extend_open(now, &self.realm);
    }

    /// The platform refuses our client credentials. Alarms once, and returns the accounts whose refusal meant
    /// just that, with its time.
    pub fn credentials_are_bad(&self, now: Timestamp) -> Vec<(Timestamp, Arc<Account>)> {
        let mut state = locked(&self.state);
        if !matches!(state.open_reason, Some(OpenReason::BadCredentials { .. })) {
            tracing::error!(
                realm = %self.realm,
                "the platform refuses client_id or client_secret of this realm; all grants are kept, correct them and reload"
            );
            state.open_reason = Some(OpenReason::BadCredentials { since: now });
        }
        state.open_until = now + CREDENTIALS_OPEN;
        state.refusals.take_unproven()
    }

    /// A refresh token was refused. One account's refusal means its grant; the only account's, or several
    /// within a minute or in a row without a success between them (a small office's tokens expire minutes
    /// apart), may mean our credentials.
    ///
    /// The second value says whether it was refused together with others, within minutes.
    pub fn refused(
        &self,
        now: Timestamp,
        account: &Arc<Account>,
        only_one_at_work: bool,
    ) -> (LikelyCause, bool) {
        let mut state = locked(&self.state);
        let is_open = state.open_reason.is_some();
        let among = state.refusals.add(now, account);
        let ask = only_one_at_work || among.unproven || is_open;
        (if ask { LikelyCause::Credentials } else { LikelyCause::Grant }, among.together)
    }

    pub fn others_refused(&self, account: &Arc<Account>) -> Vec<Arc<Account>> {
        locked(&self.state).refusals.others(account)
    }

    /// Notes a verdict that fell while others were refused too; `false` where it was noted already.
    pub fn given_up(&self, now: Timestamp, account: &Arc<Account>) -> bool {
        locked(&self.state).refusals.give_up(now, account)
    }

    /// Until when nobody but an operator is let through.
    pub fn blocked_until(&self) -> Timestamp {
        let state = locked(&self.state);
        let open_until = if state.open_reason.is_some() { state.open_until } else { Timestamp::default() };
        open_until.max(state.retry_after_until)
    }

    /// When the realm should be asked again, although nobody calls.
    pub fn next_probe(&self) -> Option<Timestamp> {
        let state = locked(&self.state);
        let probe = state.open_reason.is_some().then(|| state.open_until.max(state.retry_after_until));
        let refused = state.refusals.next_probe().map(|at| at.max(state.open_until));
        probe.into_iter().chain(refused).min()
    }

    pub fn probe_is_due(&self, now: Timestamp) -> bool {
        let state = locked(&self.state);
        state.open_reason.is_some()
            && !state.probe_in_flight
            && now >= state.open_until.max(state.retry_after_until)
    }

    /// One of the accounts that were refused together, where it is time to see whether the realm takes it by
    /// now.
    pub fn take_refused(&self, now: Timestamp) -> Option<Arc<Account>> {
        let mut state = locked(&self.state);
        if state.open_reason.is_some() { None } else { state.refusals.probe(now) }
    }

    /// The probe found the credentials good: those refused so far had dead grants.
    pub fn credentials_are_good(&self) {
        let mut state = locked(&self.state);
        state.refusals.proven();
        if state.open_reason.take().is_some() {
            state.recover();
            tracing::info!(realm = %self.realm, "our credentials are good; the refused grants are dead");
        }
    }

    /// Whether an earlier probe still counts.
    pub fn is_recent(asked: Timestamp, now: Timestamp) -> bool {
        now.since(asked) < PROBE_VALIDITY
    }

    /// New credentials or addresses: everything starts afresh.
    pub async fn reset(&self) {
        *self.probed.lock().await = None;
        let mut state = locked(&self.state);
        state.open_reason = None;
        state.failing.clear();
        state.refusals.clear();
        state.retry_after_until = Timestamp::default();
        state.recover();
    }
}

impl State {
    fn extend_open(&mut self, now: Timestamp, realm: &RealmName) {
        self.times_opened = self.times_opened.saturating_add(1);
        self.open_until = now
            + backoff(
                self.times_opened,
                LONGEST_OPEN,
                stable_jitter(realm.as_str(), u64::from(self.times_opened)),
            );
    }

    fn recover(&mut self) {
        self.times_opened = 0;
        self.open_until = Timestamp::default();
        self.recoveries = self.recoveries.wrapping_add(1);
    }
}

impl OpenReason {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            OpenReason::BadCredentials { .. } => "credentials",
            OpenReason::Unavailable { .. } => "unavailable",
        }
    }

    pub fn sentence(&self, realm: &RealmName) -> String {
        match self {
            OpenReason::BadCredentials { since } => {
                format!("the platform refuses the client credentials of realm {realm} since {since}")
            }
            OpenReason::Unavailable { since, detail } => {
                format!("renewals in realm {realm} fail since {since}: {detail}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::doubles::timed_out;

    fn ailing() -> Arc<CircuitBreaker> {
        let breaker = Arc::new(CircuitBreaker::new("global".parse().unwrap()));
        for account in ["a1", "a2", "a3"] {
            assert!(breaker.try_acquire(at(0), Cause::NoToken).is_ok(), "two accounts are no outage");
            breaker.failed(at(0), &account.parse().unwrap(), &timed_out());
        }
        breaker
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn one_account_failing_again_and_again_is_not_the_realms_trouble() {
        let breaker = Arc::new(CircuitBreaker::new("global".parse().unwrap()));
        for _ in 0..100 {
            breaker.failed(at(0), &"a1".parse().unwrap(), &timed_out());
        }
        assert_eq!(breaker.open_reason(), None);
    }

    #[test]
    fn a_realm_in_trouble_admits_one_trial_at_a_time_after_its_hold_and_an_operator_always() {
        let breaker = ailing();
        assert!(breaker.try_acquire(at(0), Cause::NoToken).is_err());
        assert!(breaker.try_acquire(at(0), Cause::Operator).is_ok());
        let probe = breaker.try_acquire(at(2), Cause::NoToken).unwrap_or_else(|held| panic!("{held:?}"));
        assert!(breaker.try_acquire(at(2), Cause::BeforeExpiry).is_err(), "a trial is under way");
        drop(probe);
        assert!(breaker.try_acquire(at(2), Cause::BeforeExpiry).is_ok());
    }

    #[test]
    fn holds_grow_to_half_a_minute_and_a_success_ends_them_for_all() {
        let breaker = ailing();
        for _ in 0..20 {
            breaker.failed(at(0), &"a1".parse().unwrap(), &timed_out());
        }
        assert!(breaker.try_acquire(at(29), Cause::NoToken).is_err());
        assert!(breaker.try_acquire(at(38), Cause::NoToken).is_ok());
        let recoveries = breaker.recoveries();
        assert!(breaker.succeeded().is_empty());
        assert!(breaker.try_acquire(at(0), Cause::NoToken).is_ok());
        assert_eq!(breaker.recoveries(), recoveries + 1);
    }
}
