//! The retry budget: a share of the calls plus a small reserve, per realm, shared by all workers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::Timestamp;

/// One realm's budget for retries after 500, 504 and failed connections. Counts in thousandths of a retry.
pub struct RetryBudget {
    balance: AtomicI64,
    refilled_at: AtomicU64,
}

const REPEAT: i64 = 1000;
/// Ten retries are free, so that an office with a handful of calls a day gets its retries too.
const RESERVE: i64 = 10 * REPEAT;
/// The reserve refills by one retry in six seconds: ten a minute in a lasting outage.
const REFILL_MILLIS: i64 = 6;
/// Saved up at most: a quiet morning must not pay for a storm at noon.
const CAP: i64 = 100 * REPEAT;

impl RetryBudget {
    pub fn new(now: Timestamp) -> Self {
        Self { balance: AtomicI64::new(RESERVE), refilled_at: AtomicU64::new(now.as_millis()) }
    }

    /// One call came in; `share` of it may be retried.
    pub fn deposit(&self, share: f64) {
        if self.balance.load(Ordering::Relaxed) < CAP {
            // A share lies between 0 and 1, checked at load.
            self.balance.fetch_add((share * REPEAT as f64) as i64, Ordering::Relaxed);
        }
    }

    /// Whether the budget allows a retry now.
    pub fn has_one(&self, now: Timestamp) -> bool {
        self.refill(now);
        self.balance.load(Ordering::Relaxed) >= REPEAT
    }

    /// Takes one retry from the budget.
    pub fn withdraw(&self) {
        self.balance.fetch_sub(REPEAT, Ordering::Relaxed);
    }

    /// Two workers may refill at once; whoever moves the time wins, the other adds nothing.
    fn refill(&self, now: Timestamp) {
        let last = self.refilled_at.load(Ordering::Relaxed);
        let balance = self.balance.load(Ordering::Relaxed);
        let gained = now.as_millis().saturating_sub(last) as i64 / REFILL_MILLIS;
        if gained == 0 {
            return;
        }
        let moved =
            self.refilled_at.compare_exchange(last, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && balance < RESERVE {
            self.balance.fetch_add(gained.min(RESERVE - balance), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn drain(budget: &RetryBudget, now: Timestamp) -> usize {
        let mut repeats = 0;
        while budget.has_one(now) {
            budget.withdraw();
            repeats += 1;
        }
        repeats
    }

    #[test]
    fn a_hundred_calls_pay_for_twenty_repeats_beyond_the_reserve() {
        let budget = RetryBudget::new(START);
        assert_eq!(drain(&budget, START), 10);
        (0..100).for_each(|_| budget.deposit(0.2));
        assert_eq!(drain(&budget, START), 20);
    }

    #[test]
    fn the_reserve_comes_back_with_time_and_not_beyond_itself() {
        let budget = RetryBudget::new(START);
        drain(&budget, START);
        assert_eq!(drain(&budget, START + Duration::from_secs(12)), 2);
        assert_eq!(drain(&budget, START + Duration::from_secs(36_000)), 10);
    }
}
