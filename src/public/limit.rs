//! Limits requests that anybody can send: a token bucket for everybody together.

use std::sync::{Mutex, PoisonError};

use crate::clock::{Clock, Timestamp};

pub(super) struct RequestLimit {
    clock: Clock,
    burst: u64,
    refill_millis: u64,
    state: Mutex<Bucket>,
}

struct Bucket {
    remaining: u64,
    filled_at: Timestamp,
}

impl RequestLimit {
    /// Codes have 256 bits and cannot be guessed; this keeps guessing from becoming a load.
    pub fn of_unknown_codes(clock: Clock) -> Self {
        Self::new(clock, 60, 1000)
    }

    /// Far more logins than people begin, and few enough for the store.
    pub fn of_logins(clock: Clock) -> Self {
        Self::new(clock, 300, 200)
    }

    fn new(clock: Clock, burst: u64, refill_millis: u64) -> Self {
        let filled_at = clock.now();
        Self { clock, burst, refill_millis, state: Mutex::new(Bucket { remaining: burst, filled_at }) }
    }

    pub fn take_one(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let drops = now.as_millis().saturating_sub(state.filled_at.as_millis()) / self.refill_millis;
        if drops > 0 {
            state.remaining = state.remaining.saturating_add(drops).min(self.burst);
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
        let limit = RequestLimit::of_unknown_codes(clock.clone());
        assert_eq!((0..100).filter(|_| limit.take_one()).count(), 60);
        clock.advance(Duration::from_secs(2));
        assert_eq!((0..10).filter(|_| limit.take_one()).count(), 2);
        clock.advance(Duration::from_secs(3600));
        assert_eq!((0..100).filter(|_| limit.take_one()).count(), 60);
    }
}
