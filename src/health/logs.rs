//! Tells log lines that are being lost now from those that were lost a while ago.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// After this long without a loss, all is well again.
const LATELY: Duration = Duration::from_secs(100);

/// The losses that were known at the last look, and when they last grew.
#[derive(Default)]
pub struct RecentLosses(Mutex<(u64, Option<Timestamp>)>);

impl RecentLosses {
    /// `lost` is the count since the start.
    pub fn are_recent(&self, lost: u64, now: Timestamp) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lost > known.0 {
            *known = (lost, Some(now));
        }
        known.1.is_some_and(|at| now.since(at) < LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_recent_for_a_while_and_a_further_one_begins_it_anew() {
        let (losses, start) = (RecentLosses::default(), Timestamp::from_millis(1_000_000));
        assert!(!losses.are_recent(0, start));
        assert!(losses.are_recent(1, start));
        assert!(losses.are_recent(1, start + (LATELY - Duration::from_secs(1))));
        assert!(!losses.are_recent(1, start + LATELY));
        assert!(losses.are_recent(2, start + LATELY));
    }
}
