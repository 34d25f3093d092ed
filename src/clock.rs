//! Time as a value, so that tests can move it. Nothing else in the crate asks the system for the time of day.
//!
//! The rule guarded here: within one process time is monotonic. It begins at the time of day at the start and
//! goes on by the monotonic clock, so that no gap, lease, back-off or token's end moves when the machine's
//! clock is set. What people read and what outlives the process is the time of day: moments are converted
//! where they are printed, serialized or stored.
//!
//! Tokio's paused time does not span runtimes, and the gateway runs several; this clock does.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;

/// A moment of this process, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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

    /// The time of day at this moment, as people and other programs know it.
    #[must_use]
    pub fn time_of_day(self) -> Timestamp {
        self.shifted(process_set_by())
    }

    fn shifted(self, by: i64) -> Timestamp {
        Timestamp(self.0.saturating_add_signed(by))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, rhs: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis_of(rhs)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, rhs: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis_of(rhs)))
    }
}

/// As the time of day, in milliseconds since the Unix epoch.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.time_of_day().0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Timestamp(u64::deserialize(deserializer)?).shifted(-process_set_by()))
    }
}

/// The time of day, RFC 3339 in UTC with whole seconds: `2026-11-21T10:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.time_of_day().0);
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
pub struct Clock(ClockSource);

#[derive(Clone)]
enum ClockSource {
    System(&'static SystemClock),
    Manual(Arc<ManualClock>),
}

/// The system's time, made monotonic.
struct SystemClock {
    started: Instant,
    /// The time of day at the start, in milliseconds.
    began: AtomicU64,
    /// By how much the time of day was set since, in milliseconds.
    set_by: AtomicI64,
    /// Whether a database says what the time of day is, since several gateways share it.
    follows_database: AtomicBool,
    /// By how much this machine's clock is wrong, for tests.
    wrong_by: i64,
}

struct ManualClock {
    now: watch::Sender<Timestamp>,
    set_by: AtomicI64,
    sleepers: watch::Sender<usize>,
    /// Counts only; `sleepers` tells how many wait right now.
    ever_slept: AtomicU64,
}

/// A time of day that is off by no more was not set: it drifts, or the response of a database took its time.
const DRIFT: Duration = Duration::from_secs(1);

/// One for the process: whoever prints a moment has no clock at hand.
static PROCESS: OnceLock<SystemClock> = OnceLock::new();

/// Like a time zone, how a moment is shown is the process's business and not the moment's.
fn process_set_by() -> i64 {
    PROCESS.get().map_or(0, |system| system.set_by.load(Ordering::Relaxed))
}

impl Clock {
    pub fn system() -> Self {
        Self(ClockSource::System(PROCESS.get_or_init(|| SystemClock::starting(0))))
    }

    /// The clock of a machine whose time of day is wrong, for tests of several machines.
    #[cfg(test)]
    pub fn wrong_by(millis: i64) -> Self {
        Self(ClockSource::System(Box::leak(Box::new(SystemClock::starting(millis)))))
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(ClockSource::Manual(Arc::new(ManualClock {
            now: watch::Sender::new(start),
            set_by: AtomicI64::new(0),
            sleepers: watch::Sender::new(0),
            ever_slept: AtomicU64::new(0),
        })))
    }

    /// Never goes back, and never jumps, whatever is done to the time of day.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System(system) => system.now(),
            ClockSource::Manual(manual) => *manual.now.borrow(),
        }
    }

    /// What the time of day was, is or will be at a moment of this process: for what outlives it.
    pub fn time_of_day(&self, at: Timestamp) -> Timestamp {
        self.look();
        at.shifted(self.set_by())
    }

    /// The moment of this process at a time of day, which may have been noted by another one, by a clock that
    /// was wrong.
    pub fn at_time_of_day(&self, time: Timestamp) -> Timestamp {
        self.look();
        time.shifted(-self.set_by())
    }

    /// By how much the time of day was set since the start, in milliseconds.
    pub fn set_by(&self) -> i64 {
        match &self.0 {
            ClockSource::System(system) => system.set_by.load(Ordering::Relaxed),
            ClockSource::Manual(manual) => manual.set_by.load(Ordering::Relaxed),
        }
    }

    /// Notices when the machine's clock was set. Not asked where a database says what the time is.
    pub fn look(&self) {
        if let ClockSource::System(system) = &self.0
            && !system.follows_database.load(Ordering::Relaxed)
        {
            system.take(system.machine());
        }
    }

    /// From now on a database says what the time of day is, and this is what it says. A clock in a test's
    /// hand stays there.
    pub fn follow_database(&self, time: Timestamp) {
        if let ClockSource::System(system) = &self.0 {
            if !system.follows_database.swap(true, Ordering::Relaxed) {
                // Nothing has been noted yet that would have to move with it.
                let off = system.off_by(time, 0);
                if off.unsigned_abs() > millis_of(DRIFT) {
                    let began = system.began.load(Ordering::Relaxed).saturating_add_signed(off);
                    system.began.store(began, Ordering::Relaxed);
                }
            }
            system.take(time);
        }
    }

    /// Returns once `pause` has gone by on this clock.
    pub async fn sleep(&self, pause: Duration) {
        match &self.0 {
            ClockSource::System(_) => tokio::time::sleep(pause).await,
            ClockSource::Manual(manual) => {
                let until = *manual.now.borrow() + pause;
                manual.sleep_until(until).await;
            }
        }
    }

    /// Returns once this clock shows `moment` or later.
    pub async fn sleep_until(&self, moment: Timestamp) {
        match &self.0 {
            ClockSource::System(system) => tokio::time::sleep(moment.since(system.now())).await,
            ClockSource::Manual(manual) => manual.sleep_until(moment).await,
        }
    }

    /// Moves a manual clock on and wakes whoever waited for the new time. A system clock refuses.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            ClockSource::System(_) => panic!("the system clock cannot be moved"),
            ClockSource::Manual(manual) => manual.now.send_modify(|now| *now = *now + by),
        }
    }

    /// Sets the time of day of a manual clock by so many milliseconds, as somebody does who corrects it:
    /// monotonic time goes on.
    pub fn set_time_of_day_by(&self, millis: i64) {
        match &self.0 {
            ClockSource::System(_) => panic!("the system clock cannot be set"),
            ClockSource::Manual(manual) => drop(manual.set_by.fetch_add(millis, Ordering::Relaxed)),
        }
    }

    /// Waits until at least `count` tasks sleep on a manual clock: the moment at which a test may move it.
    pub async fn until_sleeping(&self, count: usize) {
        if let ClockSource::Manual(manual) = &self.0 {
            let mut sleepers = manual.sleepers.subscribe();
            let _ = sleepers.wait_for(|waiting| *waiting >= count).await;
        }
    }

    /// How many sleeps a manual clock has seen begin; zero for the system clock.
    pub fn ever_slept(&self) -> u64 {
        match &self.0 {
            ClockSource::System(_) => 0,
            ClockSource::Manual(manual) => manual.ever_slept.load(Ordering::SeqCst),
        }
    }
}

impl SystemClock {
    fn starting(wrong_by: i64) -> Self {
        let now = system_now().shifted(wrong_by);
        Self {
            started: Instant::now(),
            began: AtomicU64::new(now.as_millis()),
            set_by: AtomicI64::new(0),
            follows_database: AtomicBool::new(false),
            wrong_by,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.began.load(Ordering::Relaxed).saturating_add(millis_of(self.started.elapsed())))
    }

    fn machine(&self) -> Timestamp {
        system_now().shifted(self.wrong_by)
    }

    fn off_by(&self, time: Timestamp, set_by: i64) -> i64 {
        time.0.wrapping_sub(self.now().shifted(set_by).0).cast_signed()
    }

    /// Takes this for the time of day, where it is not what was expected. Of two that notice at once, one
    /// does.
    fn take(&self, time: Timestamp) {
        let set_by = self.set_by.load(Ordering::Relaxed);
        let off = self.off_by(time, set_by);
        if off.unsigned_abs() > millis_of(DRIFT) {
            let set_to = set_by.saturating_add(off);
            let _ = self.set_by.compare_exchange(set_by, set_to, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl ManualClock {
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
    Timestamp(millis_of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

    #[test]
    fn a_time_of_day_that_is_set_moves_no_moment_and_is_noticed_once() {
        let clock = Clock::wrong_by(2 * 86_400_000);
        let ClockSource::System(system) = clock.0 else { unreachable!() };
        let (before, ends) = (clock.now(), clock.now() + Duration::from_secs(60));
        assert_eq!(clock.time_of_day(ends), ends, "as long as nobody sets it");
        system.take(system.machine().shifted(-2 * 86_400_000));
        assert!(clock.now() >= before && clock.now() < ends, "the wait goes on as it was");
        let by = clock.set_by();
        assert!(by.abs_diff(-2 * 86_400_000) < 1000, "{by}");
        system.take(system.now().shifted(by));
        assert_eq!(clock.set_by(), by);
    }

    #[test]
    fn a_machine_whose_clock_is_wrong_begins_with_its_databases_time() {
        let (database, clock) = (Clock::system(), Clock::wrong_by(300_000));
        clock.follow_database(database.now());
        assert!(clock.now().as_millis().abs_diff(database.now().as_millis()) < 1000);
        assert_eq!(clock.set_by(), 0, "nothing was noted by the wrong time");
        clock.follow_database(database.now() + Duration::from_secs(60));
        assert!(clock.set_by().abs_diff(60_000) < 1000, "the database's own clock was set");
    }

    #[test]
    fn a_manual_clocks_time_of_day_is_set_apart_from_its_monotonic_time() {
        let clock = Clock::manual(Timestamp::from_millis(5000));
        clock.set_time_of_day_by(-3000);
        assert_eq!(clock.now(), Timestamp::from_millis(5000));
        assert_eq!(clock.time_of_day(clock.now()), Timestamp::from_millis(2000));
        assert_eq!(clock.at_time_of_day(Timestamp::from_millis(2000)), clock.now());
    }
}
