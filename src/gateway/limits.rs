//! How much one caller, or all callers of one account, may ask for: calls a second and calls at once. Off unless configured, and then
//! nothing of this is touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::RateLimit;

/// What is left of one limit; shared by all workers.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    /// When the calls so far would have been made at the even rate, in microseconds (the generic cell rate algorithm).
    even: AtomicU64,
    under_way: AtomicU32,
}

/// A call's place among those at once; given back when its answer is done with.
#[derive(Debug)]
pub struct Permit(Arc<Limiter>);

/// How long callers wait who found too many calls under way: nobody knows when one ends.
const SOON: Duration = Duration::from_secs(1);

impl Limiter {
    pub fn new(limit: RateLimit) -> Arc<Self> {
        Arc::new(Self { limit, even: AtomicU64::new(0), under_way: AtomicU32::new(0) })
    }

    /// Lets a call through, or says after what time it is worth another try.
    pub fn admit(self: &Arc<Self>, now: Timestamp) -> Result<Permit, Duration> {
        let permit = Permit(self.clone());
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed);
        if self.limit.max_concurrent.is_some_and(|most| under_way >= most) {
            return Err(SOON);
        }
        self.take_turn(now)?;
        Ok(permit)
    }

    /// Whether this is still the configured limit.
    pub fn is(&self, limit: &RateLimit) -> bool {
        self.limit == *limit
    }

    fn take_turn(&self, now: Timestamp) -> Result<(), Duration> {
        let Some(per_second) = self.limit.per_second else { return Ok(()) };
        let step = 1_000_000 / u64::from(per_second.max(1));
        let slack = step * u64::from(self.limit.burst.max(1) - 1);
        let now = now.as_millis() * 1000;
        let turn = |even: u64| {
            let even = even.max(now);
            (even <= now + slack).then_some(even + step)
        };
        match self.even.fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn) {
            Ok(_) => Ok(()),
            Err(even) => Err(Duration::from_micros(even - now - slack)),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn limiter(per_second: Option<u32>, burst: u32, max_concurrent: Option<u32>) -> Arc<Limiter> {
        Limiter::new(RateLimit { per_second, burst, max_concurrent })
    }

    #[test]
    fn a_burst_passes_and_then_the_even_rate() {
        let limiter = limiter(Some(10), 3, None);
        for _ in 0..3 {
            assert!(limiter.admit(NOW).is_ok());
        }
        assert_eq!(limiter.admit(NOW).unwrap_err(), Duration::from_millis(100));
        assert_eq!(limiter.admit(NOW + Duration::from_millis(60)).unwrap_err(), Duration::from_millis(40));
        assert!(limiter.admit(NOW + Duration::from_millis(100)).is_ok());
        assert!(limiter.admit(NOW + Duration::from_millis(100)).is_err());
    }

    #[test]
    fn whoever_waits_as_told_is_let_through() {
        let limiter = limiter(Some(7), 1, None);
        let mut now = NOW;
        for _ in 0..20 {
            now = match limiter.admit(now) {
                Ok(_) => now,
                Err(wait) => now + wait + Duration::from_millis(1),
            };
        }
        assert!(limiter.admit(now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_place_is_given_back_when_its_call_ends_and_a_refused_call_holds_none() {
        let limiter = limiter(None, 1, Some(2));
        let (first, _second) = (limiter.admit(NOW).unwrap(), limiter.admit(NOW).unwrap());
        for _ in 0..5 {
            assert_eq!(limiter.admit(NOW).unwrap_err(), SOON);
        }
        drop(first);
        assert!(limiter.admit(NOW).is_ok());
    }
}
