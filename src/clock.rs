//! Time as a value, so that tests can move it. Nothing else in the crate asks the system for the time of day.
//!
//! Tokio's paused time does not span runtimes, and the gateway runs several; this clock does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, rhs: Duration) -> Timestamp {
        let millis = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, rhs: Duration) -> Timestamp {
        let millis = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }
}

/// RFC 3339 in UTC with whole seconds: `2026-11-21T10:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        write!(f, "{}", humantime::format_rfc3339_seconds(time))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the program gets its time from: the system, or a test's hand.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

struct Manual {
    now: watch::Sender<Timestamp>,
    sleepers: watch::Sender<usize>,
    /// Counts only; `sleepers` tells how many wait right now.
    ever_slept: AtomicU64,
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual {
            now: watch::Sender::new(start),
            sleepers: watch::Sender::new(0),
            ever_slept: AtomicU64::new(0),
        })))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(manual) => *manual.now.borrow(),
        }
    }

    /// Returns once `pause` has gone by on this clock.
    pub async fn sleep(&self, pause: Duration) {
        match &self.0 {
            Source::System => tokio::time::sleep(pause).await,
            Source::Manual(manual) => {
                let until = *manual.now.borrow() + pause;
                manual.sleep_until(until).await;
            }
        }
    }

    /// Returns once this clock shows `moment` or later.
    pub async fn sleep_until(&self, moment: Timestamp) {
        match &self.0 {
            Source::System => tokio::time::sleep(moment.since(system_now())).await,
            Source::Manual(manual) => manual.sleep_until(moment).await,
        }
    }

    /// Moves a manual clock on and wakes whoever waited for the new time. A system clock refuses.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System => panic!("the system clock cannot be moved"),
            Source::Manual(manual) => manual.now.send_modify(|now| *now = *now + by),
        }
    }

    /// Waits until at least `count` tasks sleep on a manual clock: the moment at which a test may move it.
    pub async fn until_sleeping(&self, count: usize) {
        if let Source::Manual(manual) = &self.0 {
            let mut sleepers = manual.sleepers.subscribe();
            let _ = sleepers.wait_for(|waiting| *waiting >= count).await;
        }
    }

    /// How many sleeps a manual clock has seen begin; zero for the system clock.
    pub fn ever_slept(&self) -> u64 {
        match &self.0 {
            Source::System => 0,
            Source::Manual(manual) => manual.ever_slept.load(Ordering::SeqCst),
        }
    }
}

impl Manual {
    async fn sleep_until(&self, moment: Timestamp) {
        if *self.now.borrow() >= moment {
            return;
        }
        self.ever_slept.fetch_add(1, Ordering::SeqCst);
        let mut now = self.now.subscribe();
        let _sleeper = Sleeper::enter(&self.sleepers);
        let _ = now.wait_for(|now| *now >= moment).await;
    }
}

struct Sleeper<'a>(&'a watch::Sender<usize>);

impl<'a> Sleeper<'a> {
    fn enter(sleepers: &'a watch::Sender<usize>) -> Self {
        sleepers.send_modify(|count| *count += 1);
        Self(sleepers)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn system_now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_clock_is_moved_past_its_moment_and_not_before() {
        let clock = Clock::manual(Timestamp::from_millis(0));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(60)).await;
                clock.now()
            }
        });
        clock.until_sleeping(1).await;
        clock.advance(Duration::from_secs(59));
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), Timestamp::from_millis(60_000));
    }

    #[test]
    fn a_timestamp_reads_as_utc() {
        assert_eq!(Timestamp::from_millis(1_700_000_000_123).to_string(), "2023-11-14T22:13:20Z");
    }
}
