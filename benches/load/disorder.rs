//! What goes wrong at the platform's stand-in when a call orders it: who is slow by how much, whose token is
//! dead, which call gets an error.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A response of the slow account or region, and a handshake of the region.
pub const SLOW: Duration = Duration::from_secs(2);
/// What is slow is so by up to this much more, so that calls which began together do not end together.
const SPREAD: Duration = Duration::from_millis(500);
/// How long the refresh of a token that has died takes.
pub const SLOW_REFRESH: Duration = Duration::from_secs(5);
/// The account whose route leads to the slow region.
pub const REGION: &str = "region";
const DYING: &str = "dying-";

/// The n-th account whose token is refused until it has been refreshed.
pub fn dying(number: usize) -> String {
    format!("{DYING}{number:03}")
}

pub fn is_dying(account: &str) -> bool {
    account.starts_with(DYING)
}

/// What goes wrong at the platform, and how often it was asked for.
#[derive(Default)]
pub struct FaultState {
    /// Numbers the calls that want an error now and then.
    errors: AtomicU64,
    /// Numbers what is slow.
    slow: AtomicU64,
    /// Responses that were begun and left.
    pub stalled: AtomicU64,
    /// From when on the new token of an account counts.
    revived: Mutex<HashMap<Vec<u8>, Instant>>,
}

impl FaultState {
    /// One call in a hundred: 500, 504 and 401 by turns.
    pub fn error(&self) -> Option<u16> {
        match self.errors.fetch_add(1, Ordering::Relaxed) % 300 {
            99 => Some(500),
            199 => Some(504),
            299 => Some(401),
            _ => None,
        }
    }

    /// How long the next slow thing takes.
    pub fn slowness(&self) -> Duration {
        let nth = self.slow.fetch_add(1, Ordering::Relaxed);
        // In steps of a hundredth, neighbours far apart.
        SLOW + SPREAD * (nth * 37 % 100) as u32 / 100
    }

    pub fn lives(&self, account: &[u8]) -> bool {
        self.revived().get(account).is_some_and(|from| *from <= Instant::now())
    }

    /// A refresh has been asked for: its response brings a token that is good.
    pub fn revive(&self, account: &str) {
        self.revived().insert(account.as_bytes().to_vec(), Instant::now() + SLOW_REFRESH);
    }

    fn revived(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Instant>> {
        self.revived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
