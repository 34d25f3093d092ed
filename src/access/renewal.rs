//! Renewal: refresh, then discovery, for one account, once. `renew` is the only door.

use std::sync::Arc;

use crate::clock::Timestamp;

use super::Access;
use super::book::Entry;

/// Why a renewal is asked for; decides which gaps apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A call with our bearer was answered 401.
    Unauthorized,
    /// A call with our bearer was answered 403.
    Forbidden,
    /// There is no live token.
    NoToken,
    /// The keeper, ahead of expiry.
    Ahead,
    /// The keeper, so that no idle pairing lapses.
    KeepAlive,
    /// An operator or an import.
    Operator,
}

/// Why there is no newer access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewProblem {
    /// Within the gap after the last refresh (or the 403 back-off): the vendor's answer passes through.
    TooSoon {
        until: Timestamp,
    },
    Paused,
    NeedsLogin {
        since: Timestamp,
        why: String,
    },
    /// The realm is in trouble; the last refresh failed and backs off.
    Unavailable {
        retry_at: Timestamp,
        detail: String,
    },
    /// The flight goes on, but this waiter has waited 10 s.
    StillRunning,
}

/// The one door.
pub struct Renewals {}

impl Renewals {
    /// Returns at once where the book already holds something newer than `seen_generation`; else joins or starts the account's one
    /// flight. Callable from any runtime: the flight runs on the control runtime and outlives its callers.
    pub async fn renew(
        &self,
        _entry: &Arc<Entry>,
        _seen_generation: u64,
        _cause: Cause,
    ) -> Result<Arc<Access>, RenewProblem> {
        unimplemented!()
    }

    /// What came of a repeat after a 403-caused renewal: a cure resets the back-off, none doubles it.
    pub fn report_forbidden(&self, _entry: &Arc<Entry>, _cured: bool) {
        unimplemented!()
    }
}
