//! When a renewal of one account may begin: the vendor's gap between refreshes, the back-off after trouble,
//! the growing wait after 403s that no renewal cured. Values and rules only; nothing here waits.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config;

use super::cause::{Cause, RenewError};
use super::failure_streak::FailureStreak;
use super::route_candidate::RouteNotes;
use super::snapshot::Snapshot;

/// "Several minutes apart" while an account is refreshed on both platforms (gen-api, section 2, which gives
/// no number).
pub(super) const BOTH_PLATFORMS_GAP: Duration = Duration::from_secs(300);

/// The documented wait before a repeat after 500 or 504 (gen-api, section 2).
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// With the jitter on top, an outage that ends is noticed within a minute, and 90 calls an hour hammer
/// nobody. Many accounts are held by their realm.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(40);

/// The least that the wait after an uncured 403 starts from, so that it grows with `min_gap = "0s"` too.
const FORBIDDEN_BASE: Duration = Duration::from_secs(1);

/// The documented life of an access token (gen-api, section 2), where an account's own is not known.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// What an account's next renewal has to respect. In peace there is nothing.
#[derive(Default, PartialEq)]
pub(super) struct Pacing {
    failures: u32,
    retry: Option<ScheduledRetry>,
    /// 403-caused renewals in a row that are not known to have cured anything.
    forbidden_streak: u32,
    forbidden_until: Timestamp,
    /// A refresh got no readable response: with rotation the refresh token that we hold may be spent.
    pub maybe_spent: Option<MaybeSpent>,
    /// Since when the refresh token is refused together with those of other accounts: it is tried once more
    /// before a login is asked for.
    pub suspected: Option<Timestamp>,
    /// So that a discovery that keeps failing is reported once.
    pub discovery_failing: bool,
    /// Routes that are not proven or cannot be connected to.
    pub routes: RouteNotes,
    /// Calls that failed in a row.
    pub streak: Option<FailureStreak>,
}

#[derive(PartialEq)]
struct ScheduledRetry {
    at: Timestamp,
    detail: Box<str>,
    /// How often the realm had recovered by then: a recovery ends every back-off that the trouble brought.
    recoveries: u32,
}

/// Why the refresh token in hand may no longer be the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaybeSpent {
    /// A response was lost at this time.
    ResponseLost(Timestamp),
    /// The process ended between asking and committing.
    ProcessEnded(Timestamp),
}

impl fmt::Display for MaybeSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaybeSpent::ResponseLost(at) => write!(f, "the answer to a refresh at {at} was lost"),
            MaybeSpent::ProcessEnded(at) => {
                write!(f, "a refresh of {at} was under way when the process ended")
            }
        }
    }
}

/// What the rules look at beside the pacing itself.
pub(super) struct PacingInput {
    pub last_refresh: Option<Timestamp>,
    pub on_both_platforms: bool,
    /// Whether a token is at hand and only a route is missing: then nothing is refreshed and the vendor's gap
    /// does not count.
    pub only_a_route: bool,
    /// Whether the token at hand is not past its end.
    pub token_lives: bool,
    /// Whether the realm is under a hold of its own, which then decides instead of the account's back-off.
    pub breaker_open: bool,
    pub recoveries: u32,
}

impl Pacing {
    /// An intent that was left behind is all that is known of a refresh which the process did not survive.
    pub fn after_restart(intent: Option<Timestamp>) -> Self {
        Self { maybe_spent: intent.map(MaybeSpent::ProcessEnded), ..Self::default() }
    }

    /// Whether a renewal may begin now. The vendor's gap holds for everybody, operators included, since it is
    /// the vendor's; an operator passes over the waits that are ours.
    pub fn check(
        &self,
        now: Timestamp,
        cause: Cause,
        input: &PacingInput,
        settings: &config::RenewalConfig,
    ) -> Result<(), RenewError> {
        let refresh_gap = refresh_gap(settings, input.on_both_platforms);
        if let Some(last) = input.last_refresh.filter(|last| !input.only_a_route && now < *last + refresh_gap)
        {
            return Err(too_soon(cause, input.token_lives, last, last + refresh_gap));
        }
        if cause.is_operators() {
            return Ok(());
        }
        if cause == Cause::Forbidden && now < self.forbidden_until {
            return Err(RenewError::TooSoon { until: self.forbidden_until });
        }
        match &self.retry {
            Some(retry) if now < retry.at && retry.recoveries == input.recoveries && !input.breaker_open => {
                Err(RenewError::Unavailable { retry_at: retry.at, detail: retry.detail.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// A refresh brought tokens that live for `life`. A 403-caused one is taken for no cure until
    /// [`Pacing::cured`] says so: the caller may have disconnected, and 50 callers of one renewal must not
    /// double the wait 50 times.
    pub fn refreshed(
        &mut self,
        now: Timestamp,
        cause: Cause,
        life: Duration,
        settings: &config::RenewalConfig,
    ) {
        self.failures = 0;
        self.retry = None;
        self.maybe_spent = None;
        self.suspected = None;
        if cause == Cause::Forbidden {
            self.forbidden_streak = (self.forbidden_streak + 1).min(16);
        }
        if self.forbidden_streak > 0 {
            // Counted from the last refresh of any cause: a fresh token that is refused with 403 was refused
            // for good reason.
            let base = settings.min_gap.max(FORBIDDEN_BASE);
            self.forbidden_until = now + (base * 2u32.pow(self.forbidden_streak)).min(life);
        }
    }

    pub fn cured(&mut self) {
        self.forbidden_streak = 0;
        self.forbidden_until = Timestamp::default();
    }

    /// Notes a failure that may pass, and returns when to try again.
    pub fn failed(&mut self, now: Timestamp, name: &str, detail: &str, recoveries: u32) -> Timestamp {
        self.failures = self.failures.saturating_add(1);
        let at =
            now + backoff(self.failures, LONGEST_BACK_OFF, stable_jitter(name, u64::from(self.failures)));
        self.retry = Some(ScheduledRetry { at, detail: detail.into(), recoveries });
        at
    }

    /// Puts a renewal off without counting a failure of the platform's.
    pub fn postpone(&mut self, until: Timestamp, detail: &str, recoveries: u32) {
        self.retry = Some(ScheduledRetry { at: until, detail: detail.into(), recoveries });
    }

    /// The platform asks to be left alone for longer than our own wait.
    pub fn not_before(&mut self, moment: Timestamp) {
        if let Some(retry) = &mut self.retry {
            retry.at = retry.at.max(moment);
        }
    }

    /// The platform has had its last word on this refresh token.
    pub fn decided(&mut self) {
        self.retry = None;
        self.suspected = None;
    }

    /// When what failed may be tried again; at once where the realm has recovered since.
    pub fn retry_at(&self, recoveries: u32) -> Option<Timestamp> {
        let retry = self.retry.as_ref()?;
        Some(if retry.recoveries == recoveries { retry.at } else { Timestamp::default() })
    }

    pub fn last_error(&self) -> Option<(String, Timestamp)> {
        self.retry.as_ref().map(|retry| (retry.detail.to_string(), retry.at))
    }
}

/// A live token without a route: discovery alone is wanting, and a refresh would be one too many.
pub(super) fn lacks_only_a_route(snapshot: &Snapshot, cause: Cause, now: Timestamp) -> bool {
    cause == Cause::NoToken && snapshot.route.is_none() && snapshot.live_token(now).is_some()
}

/// The gap between two refreshes of an account. `"0s"` is for demo and tests and turns both gaps off.
pub(super) fn refresh_gap(settings: &config::RenewalConfig, on_both_platforms: bool) -> Duration {
    if on_both_platforms && !settings.min_gap.is_zero() {
        settings.min_gap.max(BOTH_PLATFORMS_GAP)
    } else {
        settings.min_gap
    }
}

/// Doubled with each failure, up to `longest`; then up to a quarter more, so that accounts that failed
/// together do not return together.
pub(super) fn backoff(failures: u32, longest: Duration, stable_jitter: f64) -> Duration {
    let doubled = FIRST_BACK_OFF * 2u32.pow(failures.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(1.0 + stable_jitter / 4.0)
}

/// Jitter in 0..1 that is always the same for an account and differs between accounts. Not random: a restart
/// moves nobody's turn, and tests can rely on it.
pub(super) fn stable_jitter(name: &str, salt: u64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (name, salt).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// A call that was answered can have its response; one that has no token at all can only be told when to come
/// back. A token that was past its end is none: the platform's 401 says nothing that the caller could mend.
fn too_soon(cause: Cause, token_lives: bool, last: Timestamp, until: Timestamp) -> RenewError {
    let come_back = || RenewError::Unavailable {
        retry_at: until,
        detail: format!("the token was last renewed at {last}, and the platform wants renewals apart"),
    };
    match cause {
        Cause::NoToken => come_back(),
        Cause::Unauthorized if !token_lives => come_back(),
        Cause::Unauthorized
        | Cause::Forbidden
        | Cause::BeforeExpiry
        | Cause::IdleRenewal
        | Cause::Operator
        | Cause::Forced => RenewError::TooSoon { until },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_CAUSE: [Cause; 6] = [
        Cause::Unauthorized,
        Cause::Forbidden,
        Cause::NoToken,
        Cause::BeforeExpiry,
        Cause::IdleRenewal,
        Cause::Operator,
    ];

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn settings(min_gap: u64) -> config::RenewalConfig {
        config::RenewalConfig {
            min_gap: Duration::from_secs(min_gap),
            renew_before_expiry: Duration::from_secs(300),
            idle_renewal: Duration::from_secs(7 * 86_400),
        }
    }

    fn input(last_refresh: Option<Timestamp>) -> PacingInput {
        PacingInput {
            last_refresh,
            on_both_platforms: false,
            only_a_route: false,
            token_lives: true,
            breaker_open: false,
            recoveries: 0,
        }
    }

    #[test]
    fn the_vendors_gap_holds_for_every_cause_and_ends_on_time() {
        for cause in EVERY_CAUSE {
            let pacing = Pacing::default();
            let input = input(Some(at(0)));
            assert!(pacing.check(at(59), cause, &input, &settings(60)).is_err(), "{cause:?}");
            assert!(pacing.check(at(60), cause, &input, &settings(60)).is_ok(), "{cause:?}");
        }
    }

    #[test]
    fn a_gap_of_zero_lets_renewals_follow_each_other_even_on_both_platforms() {
        let input = PacingInput { on_both_platforms: true, ..input(Some(at(0))) };
        assert!(Pacing::default().check(at(0), Cause::Unauthorized, &input, &settings(0)).is_ok());
    }

    #[test]
    fn grants_on_both_platforms_stretch_the_gap_to_minutes() {
        let input = PacingInput { on_both_platforms: true, ..input(Some(at(0))) };
        let denied = Pacing::default().check(at(299), Cause::Unauthorized, &input, &settings(60));
        assert_eq!(denied, Err(RenewError::TooSoon { until: at(300) }));
        assert!(Pacing::default().check(at(300), Cause::Unauthorized, &input, &settings(60)).is_ok());
    }

    #[test]
    fn without_any_token_the_gap_is_told_as_a_time_to_come_back() {
        let denied = Pacing::default().check(at(1), Cause::NoToken, &input(Some(at(0))), &settings(60));
        assert!(matches!(denied, Err(RenewError::Unavailable { retry_at, .. }) if retry_at == at(60)));
    }

    #[test]
    fn a_401_to_a_token_past_its_end_is_told_as_a_time_to_come_back() {
        let past_its_end = PacingInput { token_lives: false, ..input(Some(at(0))) };
        let denied = Pacing::default().check(at(1), Cause::Unauthorized, &past_its_end, &settings(60));
        assert!(matches!(denied, Err(RenewError::Unavailable { retry_at, .. }) if retry_at == at(60)));
    }

    #[test]
    fn a_missing_route_is_looked_for_within_the_gap_since_nothing_is_refreshed() {
        let input = PacingInput { only_a_route: true, ..input(Some(at(0))) };
        assert!(Pacing::default().check(at(1), Cause::NoToken, &input, &settings(60)).is_ok());
    }

    #[test]
    fn failures_double_the_wait_from_a_second_to_less_than_a_minute_and_jitter_only_upward() {
        let mut pacing = Pacing::default();
        for expected in [1, 2, 4, 8, 16, 32, 40, 40] {
            let wait = pacing.failed(at(0), "smile", "504", 0).since(at(0)).as_secs_f64();
            assert!((expected as f64..=expected as f64 * 1.25).contains(&wait), "{wait} for {expected}");
        }
    }

    #[test]
    fn an_operator_passes_over_our_waits_and_a_recovered_realm_ends_them() {
        let mut pacing = Pacing::default();
        pacing.failed(at(0), "smile", "504", 0);
        assert!(pacing.check(at(0), Cause::NoToken, &input(None), &settings(60)).is_err());
        assert!(pacing.check(at(0), Cause::Operator, &input(None), &settings(60)).is_ok());
        let recovered = PacingInput { recoveries: 1, ..input(None) };
        assert!(pacing.check(at(0), Cause::NoToken, &recovered, &settings(60)).is_ok());
    }

    #[test]
    fn an_uncured_403_doubles_the_wait_up_to_the_tokens_life_and_a_cure_resets_it() {
        let mut pacing = Pacing::default();
        let mut now = at(0);
        for expected in [120, 240, 480, 960, 1920, 3600, 3600] {
            pacing.refreshed(now, Cause::Forbidden, TOKEN_LIFE, &settings(60));
            let held = pacing.check(
                now + Duration::from_secs(61),
                Cause::Forbidden,
                &input(Some(now)),
                &settings(60),
            );
            let until = now + Duration::from_secs(expected);
            assert_eq!(held, Err(RenewError::TooSoon { until }));
            let unauthorized = now + Duration::from_secs(61);
            assert!(
                pacing.check(unauthorized, Cause::Unauthorized, &input(Some(now)), &settings(60)).is_ok()
            );
            now = until;
        }
        pacing.cured();
        assert!(pacing.check(now, Cause::Forbidden, &input(None), &settings(60)).is_ok());
    }
}
