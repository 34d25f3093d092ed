//! Calls of an account that failed in a row, as its callers got it: what `explain` rests on.
//!
//! The rule guarded here: a call that succeeds costs nothing for it. A row is over once a success is newer
//! than its last failure.

use crate::clock::Timestamp;

/// Failures in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureStreak {
    pub count: u32,
    pub since: Timestamp,
    pub last: Timestamp,
    /// What the last one was.
    pub what: CallFailure,
    /// When the platform answered over the account's route again, asked without a caller.
    pub well_at: Option<Timestamp>,
}

/// What a caller got instead of a good response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailure {
    /// The platform's own response.
    Status(u16),
    /// The gateway's, since there was none to pass on.
    Refused(&'static str),
}

/// Refusals that say that an account is not served. The others are about the caller or its request.
const NOT_SERVED: [&str; 5] = [
    "platform_unreachable",
    "platform_misbehaved",
    "platform_timeout",
    "token_unavailable",
    "account_needs_login",
];

impl CallFailure {
    /// What a finished call came to for its caller; `None` where that says nothing about the account.
    pub fn of(refusal: Option<&'static str>, status: u16, asked_platform: bool) -> Option<Self> {
        match refusal {
            Some(code) => NOT_SERVED.contains(&code).then_some(Self::Refused(code)),
            None if asked_platform && status >= 400 => Some(Self::Status(status)),
            None => None,
        }
    }

    /// Whether a platform that answers discovery again has shown that this is over.
    pub fn ends_with_discovery(self) -> bool {
        match self {
            Self::Status(status) => status >= 500,
            Self::Refused(code) => code.starts_with("platform_"),
        }
    }

    /// Whether new tokens have shown that this is over.
    pub fn ends_with_tokens(self) -> bool {
        matches!(self, Self::Status(401) | Self::Refused("token_unavailable" | "account_needs_login"))
    }
}

impl FailureStreak {
    /// One failure more. `good_at` is when a call was last answered well.
    pub fn after(known: Option<Self>, what: CallFailure, at: Timestamp, good_at: Option<Timestamp>) -> Self {
        let goes_on = known.filter(|known| known.goes_on(good_at));
        let (count, since) = goes_on.map_or((0, at), |known| (known.count, known.since));
        Self { count: count.saturating_add(1), since, last: at, what, well_at: None }
    }

    pub fn goes_on(&self, good_at: Option<Timestamp>) -> bool {
        good_at.is_none_or(|good| good < self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn failures_are_counted_from_the_first_after_a_success() {
        let first = FailureStreak::after(None, CallFailure::Status(500), at(0), None);
        let second = FailureStreak::after(Some(first), CallFailure::Status(403), at(5), None);
        assert_eq!((second.count, second.since, second.what), (2, at(0), CallFailure::Status(403)));
        let anew = FailureStreak::after(Some(second), CallFailure::Status(500), at(9), Some(at(7)));
        assert_eq!((anew.count, anew.since), (1, at(9)));
        assert!(!anew.goes_on(Some(at(10))));
    }

    #[test]
    fn what_a_caller_did_wrong_is_no_failure_of_the_account() {
        for code in ["bad_request", "call_not_allowed", "too_many_requests", "account_paused"] {
            assert_eq!(CallFailure::of(Some(code), 400, false), None);
        }
        assert_eq!(CallFailure::of(None, 404, false), None, "answered by the gateway itself");
        assert_eq!(CallFailure::of(None, 404, true), Some(CallFailure::Status(404)));
        assert_eq!(CallFailure::of(None, 302, true), None);
        let refused = Some(CallFailure::Refused("token_unavailable"));
        assert_eq!(CallFailure::of(Some("token_unavailable"), 503, false), refused);
    }
}
