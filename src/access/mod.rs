//! The right to call, kept alive: the book of snapshots, renewal through one door, the keeper.
//!
//! The rule guarded here: the request path only ever reads a snapshot; whatever waits, writes or speaks to the platform runs on the
//! control runtime.

pub mod book;
pub mod calls;
pub mod candidate;
pub mod cause;
pub mod census;
pub mod entry;
pub mod keeper;
pub mod realm;
pub mod renewal;
pub mod replace;
pub mod signals;
pub mod streak;

mod aside;
mod blame;
mod cluster;
mod discovery;
mod doubtful;
mod flight;
mod following;
mod gaps;
mod kept_tokens;
mod leaving;
mod pacing_cell;
mod quiet;
mod refusals;
mod retries;
mod snapshot;
mod unsaved;

#[cfg(test)]
mod doubles;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use snapshot::Access;

/// Every lock in here guards plain values that are whole after each statement, so a panic elsewhere does not spoil them.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
