//! Times of day that turned out to be wrong: stored moments that lie in the future are set down to now, once,
//! with a line in the journal.
//!
//! Nothing that waits within the process needs this (see `clock`); it is for what a restart, or another
//! gateway, reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::journal::{Journal, JournalEvent};
use crate::store::{ClampedAccount, Store, StoreError};
use crate::telemetry::catalogue;
use crate::telemetry::metrics::{ExternalMetric, MetricReader, Metrics};

/// How soon a clock that was set is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where several gateways write, one of an older version may still note moments by its own clock.
const SHARED_EVERY: Duration = Duration::from_secs(60);

/// What was corrected since the start.
#[derive(Default)]
pub struct Corrections {
    moments: AtomicU64,
    clock: AtomicU64,
    /// The last time that the time of day was set: when, and by how many milliseconds.
    last_set: Mutex<Option<(Timestamp, i64)>>,
}

/// How long it is shown to operators: a clock that was wrong once may be wrong again.
const LATELY: Duration = Duration::from_secs(3600);

impl Corrections {
    /// Sets down what lies in the future. Where the store takes no writes it is read as if it were set down,
    /// and tried again later.
    pub async fn clamp_future_times(&self, store: &dyn Store) -> Vec<ClampedAccount> {
        match store.clamp_future_times().await {
            Ok(brought_down) => {
                self.moments.fetch_add(brought_down.len() as u64, Relaxed);
                brought_down
            }
            Err(trouble) => {
                let tried_again = matches!(trouble, StoreError::Unavailable(_));
                tracing::warn!(%trouble, tried_again, "stored moments that lie in the future could not be set down to now");
                Vec::new()
            }
        }
    }

    /// For as long as the gateway lives.
    pub async fn run(self: Arc<Self>, store: Arc<dyn Store>, clock: Clock, journal: Journal) {
        let (mut set_by, mut done_at) = (clock.set_by(), clock.now());
        loop {
            clock.sleep(LOOK_EVERY).await;
            clock.look();
            let was_set = clock.set_by().saturating_sub(set_by);
            if was_set != 0 {
                self.clock.fetch_add(1, Relaxed);
                *self.last_set.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock.now(), was_set));
                tracing::warn!(
                    seconds = was_set / 1000,
                    "the time of day was set; gaps, back-offs and tokens' ends go on as they were"
                );
            }
            let is_due = store.is_shared() && clock.now().since(done_at) >= SHARED_EVERY;
            if was_set != 0 || is_due {
                (set_by, done_at) = (clock.set_by(), clock.now());
                note(&self.clamp_future_times(&*store).await, &journal);
            }
        }
    }

    /// That the clock was set within the last hour.
    pub fn recent_clock_change(&self, now: Timestamp) -> Option<String> {
        let (at, by) = (*self.last_set.lock().unwrap_or_else(PoisonError::into_inner))?;
        if now.since(at) > LATELY {
            return None;
        }
        let way = if by > 0 { "forward" } else { "back" };
        let by = humantime::format_duration(Duration::from_secs(by.unsigned_abs() / 1000));
        Some(format!("this machine's clock was set {way} by {by} while the gateway ran"))
    }

    pub fn watch(self: &Arc<Self>, metrics: &Metrics) {
        let series = |read: fn(&Corrections) -> &AtomicU64| -> MetricReader {
            let corrections = self.clone();
            Box::new(move || read(&corrections).load(Relaxed))
        };
        metrics.register_external(ExternalMetric {
            family: &catalogue::TIME_CORRECTIONS,
            series: vec![
                ("stored_moment", series(|corrections| &corrections.moments)),
                ("time_of_day", series(|corrections| &corrections.clock)),
            ],
        });
    }
}

/// Tells each account's journal of it.
pub fn note(brought_down: &[ClampedAccount], journal: &Journal) {
    for ClampedAccount { account, by } in brought_down {
        let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
        let detail = format!(
            "the grant's newest moment lay {by} in the future, noted by a wrong clock; it counts as now"
        );
        journal.record(account, JournalEvent::MomentCorrected, detail);
    }
}
