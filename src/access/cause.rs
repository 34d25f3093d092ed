//! Why a renewal is asked for, and what its callers are told. Plain values: whatever takes part in a renewal
//! may look here.

use crate::clock::Timestamp;
use crate::model::account::Remedy;

use super::Access;

/// Why a renewal is asked for; decides which gaps apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A call with our bearer was answered 401.
    Unauthorized,
    /// A call with our bearer was answered 403.
    Forbidden,
    /// There is no live token.
    NoToken,
    /// The scheduler, ahead of expiry.
    BeforeExpiry,
    /// The scheduler, so that no idle pairing lapses.
    IdleRenewal,
    /// An operator or an import.
    Operator,
    /// An operator who wants it although the store takes no writes.
    Forced,
}

impl Cause {
    /// Whether a person waits for it, who passes over the waits that are ours.
    pub fn is_operators(self) -> bool {
        matches!(self, Cause::Operator | Cause::Forced)
    }
}

/// Why there is no newer access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewError {
    /// Within the gap after the last refresh (or the 403 back-off): the vendor's response passes through.
    TooSoon {
        until: Timestamp,
    },
    Paused,
    NeedsLogin {
        since: Timestamp,
        why: String,
        remedy: Remedy,
    },
    /// The realm is in trouble; the last refresh failed and backs off.
    Unavailable {
        retry_at: Timestamp,
        detail: String,
    },
    /// The renewal goes on, but this waiter has waited 10 s.
    StillRunning,
}

/// What a renewal came to.
pub(super) type RenewalResult = Result<Access, RenewError>;
