//! Limits requests with unknown codes: one token bucket for everybody together. Codes have 256 bits and
//! cannot be guessed; the bucket keeps guessing from becoming a load.

use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, Timestamp};

const BURST: u64 = 60;
const REFILL_MILLIS: u64 = 1000;

pub(super) struct UnknownCodeLimit {
    clock: Clock,
    state: Mutex<Bucket>,
}

struct Bucket {
    remaining: u64,
    filled_at: Timestamp,
}

impl UnknownCodeLimit {
    pub fn new(clock: Clock) -> Self {
        let filled_at = clock.now();
        Self { clock, state: Mutex::new(Bucket { remaining: BURST, filled_at }) }
    }

    pub fn take_one(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let drops = now.as_millis().saturating_sub(state.filled_at.as_millis()) / REFILL_MILLIS;
        if drops > 0 {
            state.remaining = state.remaining.saturating_add(drops).min(BURST);
            state.filled_at = now;
        }
        let taken = state.remaining > 0;
        state.remaining = state.remaining.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_bucket_empties_and_fills_again_by_one_a_second_up_to_its_size() {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let limit = UnknownCodeLimit::new(clock.clone());
        assert_eq!((0..100).filter(|_| limit.take_one()).count(), 60);
        clock.advance(Duration::from_secs(2));
        assert_eq!((0..10).filter(|_| limit.take_one()).count(), 2);
        clock.advance(Duration::from_secs(3600));
        assert_eq!((0..100).filter(|_| limit.take_one()).count(), 60);
    }
}
