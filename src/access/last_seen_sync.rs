//! Activity of accounts and callers, exchanged through the store: what this gateway saw goes there every few
//! seconds, what the others saw comes from there. So any gateway answers for all of them, the scheduler knows
//! which accounts are in use, and a restart forgets nothing.
//!
//! The rule guarded here: never on the request path, which only ever sets atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Mutex;

use super::activity::Activity;
use super::registry::{Account, AccountRegistry};
use crate::clock::{Clock, Timestamp};
use crate::store::last_seen::{BATCH, LastSeen, LastSeenRecord, Subject};
use crate::store::{Store, StoreError};

/// What a crash may cost of it, where no more than one step has anything to tell.
const EVERY: Duration = Duration::from_secs(10);
/// Between two steps of [`BATCH`] accounts: where tens of thousands are in use, it is written over some
/// minutes, and calls do not feel it.
const PAUSE: Duration = Duration::from_millis(500);
/// At the earliest, between two writings. The scheduler looks at minutes, and operators who ask get it read
/// on the spot.
const READ_EVERY: Duration = Duration::from_secs(30);

pub struct LastSeenSync {
    store: Arc<dyn Store>,
    registry: Arc<AccountRegistry>,
    clock: Clock,
    pub callers: Arc<CallerActivity>,
    /// How far the others' was read. Held while it is read, so that many who ask cause one question.
    read_to: Mutex<Option<Timestamp>>,
}

/// Activity by the caller's name.
#[derive(Default)]
pub struct CallerActivity {
    activity: DashMap<String, Arc<Activity>>,
    /// Downloads whose address the caller built by itself, since this gateway started.
    built_downloads: DashMap<String, AtomicU64>,
}

impl CallerActivity {
    /// Looked up once per worker and caller.
    pub fn of(&self, name: &str) -> Arc<Activity> {
        if let Some(known) = self.activity.get(name) {
            return known.clone();
        }
        self.activity.entry(name.to_owned()).or_default().clone()
    }

    pub fn read(&self, name: &str) -> LastSeen {
        self.activity.get(name).map(|activity| activity.read()).unwrap_or_default()
    }

    /// Counts a download whose address the caller built by itself; few programs do.
    pub fn built_download(&self, name: &str) {
        match self.built_downloads.get(name) {
            Some(count) => count.fetch_add(1, Relaxed),
            None => self.built_downloads.entry(name.to_owned()).or_default().fetch_add(1, Relaxed),
        };
    }

    /// How many those were since this gateway started.
    pub fn built_downloads(&self, name: &str) -> u64 {
        self.built_downloads.get(name).map_or(0, |count| count.load(Relaxed))
    }
}

/// Something happened to it since it was last written. Small, since there may be as many as accounts.
enum ChangedActivity {
    Account(Arc<Account>),
    Caller(Box<(String, Arc<Activity>)>),
}

impl ChangedActivity {
    fn activity(&self) -> &Activity {
        match self {
            ChangedActivity::Account(entry) => &entry.activity,
            ChangedActivity::Caller(caller) => &caller.1,
        }
    }

    fn subject(&self) -> Subject {
        match self {
            ChangedActivity::Account(entry) => Subject::Account(entry.name.clone()),
            ChangedActivity::Caller(caller) => Subject::Caller(caller.0.clone()),
        }
    }
}

/// What is on its way to the store. Dropped before it arrived, it goes with the next writing.
struct PendingWrite<'a> {
    seen: Vec<LastSeenRecord>,
    from: Vec<&'a Activity>,
}

impl<'a> PendingWrite<'a> {
    fn take(changed: &'a [ChangedActivity]) -> Self {
        let (mut seen, mut from) = (Vec::with_capacity(changed.len()), Vec::with_capacity(changed.len()));
        for one in changed {
            if let Some(moments) = one.activity().take_changes() {
                seen.push(LastSeenRecord { subject: one.subject(), moments });
                from.push(one.activity());
            }
        }
        Self { seen, from }
    }

    fn confirm(mut self) {
        self.from.clear();
    }
}

impl Drop for PendingWrite<'_> {
    fn drop(&mut self) {
        self.from.iter().for_each(|activity| activity.put_back_changes());
    }
}

impl LastSeenSync {
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<AccountRegistry>,
        clock: Clock,
        callers: Arc<CallerActivity>,
    ) -> Self {
        Self { store, registry, clock, callers, read_to: Mutex::default() }
    }

    /// For as long as the gateway lives.
    pub async fn run(self: Arc<Self>) {
        let mut read_at = None;
        loop {
            let now = self.clock.now();
            // Where nobody else writes, once is enough. A clock that was set back makes it due too.
            let is_due = |at| self.store.is_shared() && (now < at || now.since(at) >= READ_EVERY);
            if read_at.is_none_or(is_due) {
                self.read().await;
                read_at = Some(now);
            }
            self.clock.sleep(EVERY).await;
            self.write(PAUSE).await;
        }
    }

    /// Takes everything that happened here to the store, before the end.
    pub async fn write_at_once(&self) {
        self.write(Duration::ZERO).await;
    }

    /// Where the store does not take it, it goes with the next writing.
    async fn write(&self, pause: Duration) {
        for (number, step) in self.changed().chunks(BATCH).enumerate() {
            if number > 0 && !pause.is_zero() {
                self.clock.sleep(pause).await;
            }
            let pending_write = PendingWrite::take(step);
            if let Err(trouble) = self.store.merge_last_seen(&pending_write.seen).await {
                tracing::debug!(%trouble, "when accounts were last used could not be saved; it is tried again");
                return;
            }
            pending_write.confirm();
        }
    }

    fn changed(&self) -> Vec<ChangedActivity> {
        let mut changed = Vec::new();
        for caller in &self.callers.activity {
            if caller.value().has_changed() {
                let known = (caller.key().clone(), caller.value().clone());
                changed.push(ChangedActivity::Caller(Box::new(known)));
            }
        }
        self.registry.for_each(|entry| {
            if entry.activity.has_changed() {
                changed.push(ChangedActivity::Account(entry.clone()));
            }
        });
        changed
    }

    /// Brings in what others saw since the last time.
    pub async fn read(&self) {
        let mut read_to = self.read_to.lock().await;
        match self.take_in(read_to.unwrap_or_default()).await {
            Ok(up_to) => *read_to = Some(up_to),
            Err(trouble) => {
                tracing::debug!(%trouble, "when accounts were last used cannot be read; what is known here counts");
            }
        }
    }

    /// What an operator sees is as new as the store has it.
    pub async fn catch_up(&self) {
        let never_read = self.read_to.lock().await.is_none();
        if never_read || self.store.is_shared() {
            self.read().await;
        }
    }

    async fn take_in(&self, since: Timestamp) -> Result<Timestamp, StoreError> {
        let noted = self.store.last_seen(since).await?;
        for LastSeenRecord { subject, moments } in noted.seen {
            match subject {
                Subject::Account(name) => {
                    if let Some(entry) = self.registry.by_name(name.as_str()) {
                        entry.activity.learn(&moments);
                    }
                }
                Subject::Caller(name) => self.callers.of(&name).learn(&moments),
            }
        }
        Ok(noted.up_to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::store::memory::MemoryStore;

    struct Bench {
        clock: Clock,
        store: Arc<MemoryStore>,
        exchange: LastSeenSync,
    }

    /// So many callers have called just now.
    fn bench(callers: usize) -> Bench {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let known = Arc::new(CallerActivity::default());
        (0..callers).for_each(|number| known.of(&number.to_string()).called(clock.now()));
        let registry = Arc::new(AccountRegistry::new(HashMap::new()));
        let exchange =
            LastSeenSync::new(Arc::clone(&store) as Arc<dyn Store>, registry, clock.clone(), known);
        Bench { clock, store, exchange }
    }

    async fn noted(bench: &Bench) -> usize {
        bench.store.last_seen(Timestamp::default()).await.unwrap().seen.len()
    }

    #[tokio::test]
    async fn many_are_told_step_by_step_so_that_calls_do_not_feel_it() {
        let bench = bench(2 * BATCH + 1);
        let mut writing = pin!(bench.exchange.write(PAUSE));
        for told in [BATCH, 2 * BATCH] {
            assert!(writing.as_mut().now_or_never().is_none());
            assert_eq!(noted(&bench).await, told);
            bench.clock.advance(PAUSE);
        }
        writing.await;
        assert_eq!(noted(&bench).await, 2 * BATCH + 1);
    }

    #[tokio::test]
    async fn before_the_end_everything_is_told_without_a_pause() {
        let bench = bench(2 * BATCH + 1);
        bench.exchange.write_at_once().now_or_never().unwrap();
        assert_eq!(noted(&bench).await, 2 * BATCH + 1);
    }

    #[tokio::test]
    async fn what_did_not_arrive_goes_with_the_next_writing() {
        let bench = bench(BATCH + 1);
        bench.store.fail_writes(true);
        bench.exchange.write_at_once().await;
        bench.store.fail_writes(false);
        // Given up between two steps.
        assert!(bench.exchange.write(PAUSE).now_or_never().is_none());
        assert_eq!(noted(&bench).await, BATCH);
        // Given up with a step on its way.
        let changed = bench.exchange.changed();
        assert_eq!(PendingWrite::take(&changed).seen.len(), 1);
        bench.exchange.write_at_once().await;
        assert_eq!(noted(&bench).await, BATCH + 1);
        assert!(bench.exchange.changed().is_empty());
    }
}
