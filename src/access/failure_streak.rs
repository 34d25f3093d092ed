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
    Refused(NotServed),
}

/// Refusals that say that an account is not served. The others are about the caller or its request: the
/// gateway's catalogue says of each code which of these it is, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    PlatformUnreachable,
    PlatformMisbehaved,
    PlatformTimeout,
    TokenUnavailable,
    AccountNeedsLogin,
}

impl NotServed {
    /// The refusal code that callers saw.
    pub fn code(self) -> &'static str {
        match self {
            Self::PlatformUnreachable => "platform_unreachable",
            Self::PlatformMisbehaved => "platform_misbehaved",
            Self::PlatformTimeout => "platform_timeout",
            Self::TokenUnavailable => "token_unavailable",
            Self::AccountNeedsLogin => "account_needs_login",
        }
    }
}

impl CallFailure {
    /// What a response means that the gateway did not make by way of refusal; `None` where it says nothing
    /// about the account, as one that never asked the platform.
    pub fn of_response(status: u16, asked_platform: bool) -> Option<Self> {
        (asked_platform && status >= 400).then_some(Self::Status(status))
    }

    /// Whether a platform that answers discovery again has shown that this is over.
    pub fn ends_with_discovery(self) -> bool {
        match self {
            Self::Status(status) => status >= 500,
            Self::Refused(why) => match why {
                NotServed::PlatformUnreachable
                | NotServed::PlatformMisbehaved
                | NotServed::PlatformTimeout => true,
                NotServed::TokenUnavailable | NotServed::AccountNeedsLogin => false,
            },
        }
    }

    /// Whether new tokens have shown that this is over.
    pub fn ends_with_tokens(self) -> bool {
        matches!(
            self,
            Self::Status(401) | Self::Refused(NotServed::TokenUnavailable | NotServed::AccountNeedsLogin)
        )
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
    fn only_an_error_of_the_platform_is_a_failure_of_the_account() {
        assert_eq!(CallFailure::of_response(404, false), None, "answered by the gateway itself");
        assert_eq!(CallFailure::of_response(404, true), Some(CallFailure::Status(404)));
        assert_eq!(CallFailure::of_response(302, true), None);
    }
}
