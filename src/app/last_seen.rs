//! Signs of life, exchanged through the store: what this gateway saw goes there every few seconds, what the others saw comes from there.
//! So any gateway answers for all of them, the keeper knows which accounts are in use, and a restart forgets nothing.
//!
//! The rule guarded here: never on the request path, which only ever sets atomics.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::Mutex;

use crate::access::book::{Book, Entry};
use crate::access::signals::Signals;
use crate::clock::{Clock, Timestamp};
use crate::store::last_seen::{LastSeen, Moments, Subject};
use crate::store::{Store, StoreError};

/// What a crash may cost of it.
const EVERY: Duration = Duration::from_secs(10);
/// In writings: the keeper looks at minutes, and operators who ask get it read on the spot.
const READ_EVERY: u32 = 3;

pub struct Exchange {
    store: Arc<dyn Store>,
    book: Arc<Book>,
    clock: Clock,
    pub callers: Arc<Callers>,
    /// How far the others' was read. Held while it is read, so that many who ask cause one question.
    read_to: Mutex<Option<Timestamp>>,
}

/// Signs of life by the caller's name.
#[derive(Default)]
pub struct Callers(DashMap<String, Arc<Signals>>);

impl Callers {
    /// Looked up once per worker and caller.
    pub fn of(&self, name: &str) -> Arc<Signals> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        self.0.entry(name.to_owned()).or_default().clone()
    }

    pub fn read(&self, name: &str) -> Moments {
        self.0.get(name).map(|signals| signals.read()).unwrap_or_default()
    }
}

enum Source {
    Account(Arc<Entry>),
    Caller(Arc<Signals>),
}

impl Source {
    fn signals(&self) -> &Signals {
        match self {
            Source::Account(entry) => &entry.signals,
            Source::Caller(signals) => signals,
        }
    }
}

impl Exchange {
    pub fn new(store: Arc<dyn Store>, book: Arc<Book>, clock: Clock, callers: Arc<Callers>) -> Self {
        Self { store, book, clock, callers, read_to: Mutex::default() }
    }

    /// For as long as the gateway lives.
    pub async fn run(self: Arc<Self>) {
        for round in 0u32.. {
            // Where nobody else writes, once is enough.
            if round == 0 || (self.store.is_shared() && round % READ_EVERY == 0) {
                self.read().await;
            }
            self.clock.sleep(EVERY).await;
            self.write().await;
        }
    }

    /// Takes what happened here to the store. Where that does not take it, it goes with the next one.
    pub async fn write(&self) {
        let (mut seen, mut sources) = (Vec::new(), Vec::new());
        self.book.for_each(|entry| {
            if let Some(moments) = entry.signals.take_changes() {
                seen.push(LastSeen { subject: Subject::Account(entry.name.clone()), moments });
                sources.push(Source::Account(entry.clone()));
            }
        });
        for caller in &self.callers.0 {
            if let Some(moments) = caller.value().take_changes() {
                seen.push(LastSeen { subject: Subject::Caller(caller.key().clone()), moments });
                sources.push(Source::Caller(caller.value().clone()));
            }
        }
        if seen.is_empty() {
            return;
        }
        if let Err(trouble) = self.store.note_last_seen(&seen).await {
            tracing::debug!(%trouble, "when accounts were last used could not be saved; it is tried again");
            sources.iter().for_each(|source| source.signals().put_back_changes());
        }
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

    /// What an operator is told is as new as the store has it.
    pub async fn catch_up(&self) {
        let never_read = self.read_to.lock().await.is_none();
        if never_read || self.store.is_shared() {
            self.read().await;
        }
    }

    async fn take_in(&self, since: Timestamp) -> Result<Timestamp, StoreError> {
        let noted = self.store.last_seen(since).await?;
        for LastSeen { subject, moments } in noted.seen {
            match subject {
                Subject::Account(name) => {
                    if let Some(entry) = self.book.by_name(name.as_str()) {
                        entry.signals.learn(&moments);
                    }
                }
                Subject::Caller(name) => self.callers.of(&name).learn(&moments),
            }
        }
        Ok(noted.up_to)
    }
}
