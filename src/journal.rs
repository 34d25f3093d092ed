//! Per-account timeline of changes and why, not of every call. Noting something down never fails and never
//! waits: losses are counted instead.
//!
//! What is noted goes to the log at once and to the store as soon as that takes it. Beside it stands the log
//! of admin actions, in [`audit`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::{JournalEntry, Store};

pub mod audit;
pub mod catalogue;

pub use catalogue::JournalEvent;

/// Lines that wait for the store, at most: a burst of every account of a mid-sized vendor at once.
const QUEUE_LIMIT: usize = 4096;
/// How long the writer leaves a store alone that refused a line, unless another line comes.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A pen for the journal; every clone writes to the same one.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<JournalJob>,
    dropped: Arc<AtomicU64>,
    clock: Clock,
}

enum JournalJob {
    Write(JournalEntry),
    /// Answered when all that was noted before has been tried.
    Flush(oneshot::Sender<()>),
}

struct JournalWriter {
    store: Arc<dyn Store>,
    clock: Clock,
    dropped: Arc<AtomicU64>,
    /// What the store did not take yet, oldest first.
    backlog: VecDeque<JournalEntry>,
}

impl Journal {
    /// Starts the writer, a task of the current runtime. It ends with the last clone.
    pub fn start(store: Arc<dyn Store>, clock: Clock) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_LIMIT);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer =
            JournalWriter { store, clock: clock.clone(), dropped: dropped.clone(), backlog: VecDeque::new() };
        tokio::spawn(writer.run(jobs));
        Self { queue, dropped, clock }
    }

    /// `detail` is a sentence for people; no token, no patient.
    pub fn record(&self, account: &AccountName, event: JournalEvent, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::info!(target: "genapi_gateway::journal", %account, event = event.word(), detail);
        let entry = JournalEntry {
            at: self.clock.now(),
            account: account.clone(),
            event: event.word().to_owned(),
            detail,
        };
        if self.queue.try_send(JournalJob::Write(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines the store never got. The log has them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns when everything noted so far is in the store, or was tried in vain: before the process ends,
    /// and in tests.
    pub async fn flush(&self) {
        let (flushed, all) = oneshot::channel();
        if self.queue.send(JournalJob::Flush(flushed)).await.is_ok() {
            let _ = all.await;
        }
    }
}

/// A journal without a store, for tests of whoever writes into it.
#[cfg(test)]
pub struct RecordedEvents {
    jobs: std::sync::Mutex<mpsc::Receiver<JournalJob>>,
    entries: std::sync::Mutex<Vec<JournalEntry>>,
}

#[cfg(test)]
impl Journal {
    pub fn recording(clock: Clock) -> (Self, RecordedEvents) {
        let (queue, jobs) = mpsc::channel(QUEUE_LIMIT);
        let events = RecordedEvents { jobs: jobs.into(), entries: Vec::new().into() };
        (Self { queue, dropped: Arc::default(), clock }, events)
    }
}

#[cfg(test)]
impl RecordedEvents {
    /// The details of an account's events of this kind, in their order.
    pub fn of(&self, account: &str, event: JournalEvent) -> Vec<String> {
        let (mut jobs, mut entries) = (self.jobs.lock().unwrap(), self.entries.lock().unwrap());
        while let Ok(job) = jobs.try_recv() {
            match job {
                JournalJob::Write(entry) => entries.push(entry),
                JournalJob::Flush(flushed) => drop(flushed.send(())),
            }
        }
        let matching =
            entries.iter().filter(|entry| entry.account.as_str() == account && entry.event == event.word());
        matching.map(|entry| entry.detail.clone()).collect()
    }
}

impl JournalWriter {
    async fn run(mut self, mut jobs: mpsc::Receiver<JournalJob>) {
        loop {
            let job = tokio::select! {
                job = jobs.recv() => job,
                () = self.clock.sleep(RETRY_PAUSE), if !self.backlog.is_empty() => {
                    self.write_backlog().await;
                    continue;
                }
            };
            match job {
                Some(JournalJob::Write(entry)) => {
                    self.enqueue(entry);
                    self.write_backlog().await;
                }
                Some(JournalJob::Flush(flushed)) => {
                    self.write_backlog().await;
                    let _ = flushed.send(());
                }
                None => break,
            }
        }
        self.write_backlog().await;
        self.drop_lines(self.backlog.len());
    }

    /// Beyond the bound the oldest line goes: the newest tell why the store is in trouble.
    fn enqueue(&mut self, entry: JournalEntry) {
        if self.backlog.len() == QUEUE_LIMIT {
            self.backlog.pop_front();
            self.drop_lines(1);
        }
        self.backlog.push_back(entry);
    }

    async fn write_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            if let Err(error) = self.store.append_journal(entry.clone()).await {
                tracing::debug!(trouble = %error, waiting = self.backlog.len(), "the store does not take the journal; it is tried again");
                return;
            }
            self.backlog.pop_front();
        }
    }

    fn drop_lines(&self, lines: usize) {
        if lines > 0 {
            self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            tracing::warn!(lines, "lines of the journal did not reach the store; the log has them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::store::memory::MemoryStore;

    fn set_up() -> (Journal, Arc<MemoryStore>, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_000));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        (Journal::start(store.clone(), clock.clone()), store, clock)
    }

    fn smile() -> AccountName {
        "smile".parse().unwrap()
    }

    async fn events(store: &MemoryStore) -> Vec<String> {
        store.journal(None, 10).await.unwrap().into_iter().map(|line| line.event).collect()
    }

    #[tokio::test]
    async fn what_is_noted_reaches_the_store_in_its_order_and_with_its_time() {
        let (journal, store, clock) = set_up();
        journal.record(&smile(), JournalEvent::Paired, "by ada");
        clock.advance(Duration::from_secs(1));
        journal.clone().record(&smile(), JournalEvent::Refreshed, "ahead of expiry");
        journal.flush().await;
        let line = |millis, event: &str, detail: &str| JournalEntry {
            at: Timestamp::from_millis(millis),
            account: smile(),
            event: event.into(),
            detail: detail.into(),
        };
        let written = store.journal(None, 10).await.unwrap();
        assert_eq!(written, [line(2_000, "refreshed", "ahead of expiry"), line(1_000, "paired", "by ada")]);
        assert_eq!(journal.dropped(), 0);
    }

    #[tokio::test]
    async fn a_store_in_trouble_loses_nothing_and_gets_it_all_when_it_is_over() {
        let (journal, store, clock) = set_up();
        store.fail_writes(true);
        journal.record(&smile(), JournalEvent::Refreshed, "");
        journal.record(&smile(), JournalEvent::TokensUnsaved, "disk full");
        journal.flush().await;
        assert_eq!(events(&store).await, [""; 0]);
        store.fail_writes(false);
        clock.until_sleeping(1).await;
        clock.advance(RETRY_PAUSE);
        journal.flush().await;
        assert_eq!(events(&store).await, ["tokens_unsaved", "refreshed"]);
        assert_eq!(journal.dropped(), 0);
    }

    #[tokio::test]
    async fn lines_beyond_the_bound_are_counted_and_nobody_waits() {
        let (journal, store, _clock) = set_up();
        store.fail_writes(true);
        // The writer has no turn in between on this one thread, so the queue fills.
        for _ in 0..QUEUE_LIMIT + 5 {
            journal.record(&smile(), JournalEvent::Refreshed, "");
        }
        assert_eq!(journal.dropped(), 5);
        journal.flush().await;
        journal.record(&smile(), JournalEvent::NeedsLogin, "");
        journal.flush().await;
        assert_eq!(journal.dropped(), 6, "what the writer holds is bounded too");
        store.fail_writes(false);
        journal.flush().await;
        assert_eq!(events(&store).await[0], "needs_login");
    }

    #[tokio::test]
    async fn the_writer_ends_with_the_last_pen_and_counts_what_stays_unwritten() {
        let (journal, store, _clock) = set_up();
        store.fail_writes(true);
        journal.record(&smile(), JournalEvent::Refreshed, "");
        let dropped = journal.dropped.clone();
        drop(journal);
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }
}
