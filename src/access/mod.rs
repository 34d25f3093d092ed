//! The right to call, kept alive: the registry of snapshots, renewal through one entry point, the scheduler.
//!
//! The rule guarded here: the request path only ever reads a snapshot; whatever waits, writes or speaks to
//! the platform runs on the control runtime.

pub mod account;
pub mod activity;
pub mod application_grant_issuer;
pub mod application_grants;
pub mod cause;
pub mod circuit_breaker;
pub mod control_calls;
pub mod failure_streak;
pub mod grant_proof;
pub mod known_tokens;
pub mod last_seen_sync;
pub mod registry;
pub mod renewal;
pub mod replace_grant;
pub mod route_candidate;
pub mod save_retry;
pub mod scheduler;
pub mod stats;

mod cluster;
mod commit;
mod context;
mod discovery;
mod fallback_tokens;
mod lease;
mod pacing;
mod pacing_cell;
mod pending_commits;
mod recent_refusals;
mod recovery_check;
mod refresh;
mod refresh_errors;
mod reload;
mod removal;
mod renewal_task;
mod retries;
mod retry_queue;
mod route_recheck;
mod single_flight;
mod snapshot;
mod standby_grants;
mod starter;

#[cfg(test)]
pub(crate) mod doubles;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use snapshot::Access;

/// Every lock in here guards plain values that are complete after each statement, so a panic elsewhere does
/// not spoil them.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
