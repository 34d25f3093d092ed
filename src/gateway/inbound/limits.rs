//! Limits one caller, or all callers of one account: calls per second, and concurrent calls. Where no limit
//! is configured, nothing here runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::RateLimit;

/// What is left of one limit; shared by all workers.
#[derive(Debug)]
pub struct CallLimiter {
    limit: RateLimit,
    /// When the calls so far would have been made at the even rate, in microseconds (the generic cell rate
    /// algorithm).
    theoretical_arrival: AtomicU64,
    in_flight: AtomicU32,
}

/// Counts a call among the concurrent ones until it is dropped, which happens when its response has been
/// sent.
#[derive(Debug)]
pub struct CallPermit(Arc<CallLimiter>);

/// `Retry-After` of a call over the concurrency limit: nobody knows when one ends.
const RETRY_SOON: Duration = Duration::from_secs(1);

impl CallLimiter {
    pub fn new(limit: RateLimit) -> Arc<Self> {
        Arc::new(Self { limit, theoretical_arrival: AtomicU64::new(0), in_flight: AtomicU32::new(0) })
    }

    /// Lets a call through, or says after what time it is worth another try.
    pub fn acquire(self: &Arc<Self>, now: Timestamp) -> Result<CallPermit, Duration> {
        let permit = CallPermit(self.clone());
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if self.limit.max_concurrent.is_some_and(|most| in_flight >= most) {
            return Err(RETRY_SOON);
        }
        self.take_rate(now)?;
        Ok(permit)
    }

    /// Whether this is still the configured limit.
    pub fn has_limit(&self, limit: &RateLimit) -> bool {
        self.limit == *limit
    }

    fn take_rate(&self, now: Timestamp) -> Result<(), Duration> {
        let Some(per_second) = self.limit.per_second else { return Ok(()) };
        let step = 1_000_000 / u64::from(per_second.max(1));
        let slack = step * u64::from(self.limit.burst.max(1) - 1);
        let now = now.as_millis() * 1000;
        let next_arrival = |theoretical_arrival: u64| {
            let theoretical_arrival = theoretical_arrival.max(now);
            (theoretical_arrival <= now + slack).then_some(theoretical_arrival + step)
        };
        match self.theoretical_arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next_arrival) {
            Ok(_) => Ok(()),
            Err(theoretical_arrival) => Err(Duration::from_micros(theoretical_arrival - now - slack)),
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn limiter(per_second: Option<u32>, burst: u32, max_concurrent: Option<u32>) -> Arc<CallLimiter> {
        CallLimiter::new(RateLimit { per_second, burst, max_concurrent })
    }

    #[test]
    fn a_burst_passes_and_then_the_even_rate() {
        let limiter = limiter(Some(10), 3, None);
        for _ in 0..3 {
            assert!(limiter.acquire(NOW).is_ok());
        }
        assert_eq!(limiter.acquire(NOW).unwrap_err(), Duration::from_millis(100));
        assert_eq!(limiter.acquire(NOW + Duration::from_millis(60)).unwrap_err(), Duration::from_millis(40));
        assert!(limiter.acquire(NOW + Duration::from_millis(100)).is_ok());
        assert!(limiter.acquire(NOW + Duration::from_millis(100)).is_err());
    }

    #[test]
    fn whoever_waits_as_told_is_let_through() {
        let limiter = limiter(Some(7), 1, None);
        let mut now = NOW;
        for _ in 0..20 {
            now = match limiter.acquire(now) {
                Ok(_) => now,
                Err(wait) => now + wait + Duration::from_millis(1),
            };
        }
        assert!(limiter.acquire(now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_place_is_given_back_when_its_call_ends_and_a_refused_call_holds_none() {
        let limiter = limiter(None, 1, Some(2));
        let (first, _second) = (limiter.acquire(NOW).unwrap(), limiter.acquire(NOW).unwrap());
        for _ in 0..5 {
            assert_eq!(limiter.acquire(NOW).unwrap_err(), RETRY_SOON);
        }
        drop(first);
        assert!(limiter.acquire(NOW).is_ok());
    }
}
