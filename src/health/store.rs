//! The state of the store: probed every few seconds, shown by `/readyz?verbose`, metrics and log. Nothing
//! waits for it: calls go on with the access that is held in memory, and what could not be saved is tried
//! again by whoever tried it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::store::unavailable::UnavailableKind;
use crate::store::{Store, StoreError};

/// A write each time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A write that takes longer holds renewals up.
const SLOW: Duration = Duration::from_secs(1);

/// What was found last.
#[derive(Default)]
pub struct StoreHealth {
    trouble: ArcSwapOption<StoreIncident>,
    last_write_micros: AtomicU64,
    /// One look at a time: while nothing answers, they would pile up.
    looking: Mutex<()>,
    /// When the look under way began.
    asked: std::sync::Mutex<Option<Instant>>,
}

pub struct StoreIncident {
    pub kind: UnavailableKind,
    pub why: String,
    pub since: Timestamp,
}

pub async fn watch(health: Arc<StoreHealth>, store: Arc<dyn Store>, clock: Clock) {
    let mut due = tokio::time::interval(LOOK_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        health.look(&*store, &clock).await;
    }
}

impl StoreHealth {
    /// Tries a write and takes down what came of it; the log hears of changes only.
    pub async fn look(&self, store: &dyn Store, clock: &Clock) {
        let Ok(_one_at_a_time) = self.looking.try_lock() else { return };
        let asked = Instant::now();
        let _asking = ProbeGuard::begin(&self.asked, asked);
        let outcome = store.ping().await;
        let took = asked.elapsed();
        if outcome.is_ok() {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.last_write_micros.store(micros, Ordering::Relaxed);
        }
        self.record(classify(outcome, took), clock.now());
    }

    pub fn trouble(&self) -> Option<Arc<StoreIncident>> {
        self.trouble.load_full()
    }

    /// How long the last write that succeeded took.
    pub fn last_write(&self) -> Duration {
        Duration::from_micros(self.last_write_micros.load(Ordering::Relaxed))
    }

    /// What ails it: what was found last, or that a look under way has had no result for too long. `None`
    /// where it is well.
    pub fn describe_trouble(&self) -> Option<String> {
        if let Some(trouble) = self.trouble() {
            let StoreIncident { kind, why, since } = &*trouble;
            return Some(format!("{} since {since}: {why}", kind.word()));
        }
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = asked.map(|asked| asked.elapsed()).filter(|waits| *waits >= SLOW)?;
        Some(format!("it has not answered a write for {:.1} s (locked or down)", waits.as_secs_f64()))
    }

    fn record(&self, found: Option<(UnavailableKind, String)>, now: Timestamp) {
        let before = self.trouble();
        let Some((kind, why)) = found else {
            if let Some(over) = before {
                self.trouble.store(None);
                let for_seconds = now.since(over.since).as_secs();
                tracing::info!(for_seconds, "the store takes writes again");
            }
            return;
        };
        if before.as_ref().is_none_or(|before| before.kind != kind) {
            tracing::error!(
                ailment = kind.word(),
                why,
                "the store is in trouble; calls go on with what is held in memory, and it is tried again"
            );
        }
        let since = before.map_or(now, |before| before.since);
        self.trouble.store(Some(Arc::new(StoreIncident { kind, why, since })));
    }
}

/// Forgets the look's beginning at its end, also where it is given up.
struct ProbeGuard<'a>(&'a std::sync::Mutex<Option<Instant>>);

impl<'a> ProbeGuard<'a> {
    fn begin(place: &'a std::sync::Mutex<Option<Instant>>, at: Instant) -> Self {
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        Self(place)
    }
}

impl Drop for ProbeGuard<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn classify(outcome: Result<(), StoreError>, took: Duration) -> Option<(UnavailableKind, String)> {
    match outcome {
        Ok(()) if took < SLOW => None,
        Ok(()) => Some((UnavailableKind::Slow, format!("a write took {:.1} s", took.as_secs_f64()))),
        Err(StoreError::Unavailable(unavailable)) => Some((unavailable.kind, unavailable.to_string())),
        Err(other) => Some((UnavailableKind::Other, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_millis(1_000_000))
    }

    #[tokio::test]
    async fn trouble_is_told_with_its_beginning_and_is_over_with_the_next_write() {
        let (clock, health) = (clock(), StoreHealth::default());
        let store = MemoryStore::new(clock.clone());
        health.look(&store, &clock).await;
        assert_eq!(health.describe_trouble(), None);
        store.fail_writes(true);
        let began = clock.now();
        for _ in 0..3 {
            health.look(&store, &clock).await;
            clock.advance(Duration::from_secs(60));
        }
        let trouble = health.trouble().unwrap();
        assert_eq!((trouble.kind, trouble.since), (UnavailableKind::Other, began));
        assert!(
            health
                .describe_trouble()
                .is_some_and(|told| told.starts_with(&format!("other since {began}: told to fail"))),
            "{:?}",
            health.describe_trouble()
        );
        store.fail_writes(false);
        health.look(&store, &clock).await;
        assert!(health.trouble().is_none());
    }

    #[test]
    fn a_write_that_succeeds_late_is_trouble_too() {
        assert_eq!(classify(Ok(()), SLOW - Duration::from_millis(1)), None);
        assert_eq!(
            classify(Ok(()), Duration::from_millis(2500)),
            Some((UnavailableKind::Slow, "a write took 2.5 s".into()))
        );
        let full = StoreError::Unavailable(crate::store::unavailable::StoreUnavailable::new(
            UnavailableKind::DiskFull,
            "no room",
        ));
        assert_eq!(classify(Err(full), Duration::ZERO), Some((UnavailableKind::DiskFull, "no room".into())));
    }
}
