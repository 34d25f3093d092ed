//! One line per call: who, which account, what, how it ended. No bodies, no query strings, no paths beyond the row's template. A
//! worker hands its line over and goes on; a full queue loses lines, and counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};

use crate::access::book;
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::endpoint::{self, Endpoint};

use crate::telemetry::{self, ACCESS_LOG};

use super::account::Accounts;
use super::limits::{Limiter, Permit};
use super::refusal::Refusal;
use super::settings::CallerRules;

/// What there is to say about one call.
#[derive(Debug, Clone)]
pub struct Record {
    pub at: Timestamp,
    pub request_id: HeaderValue,
    pub method: Method,
    pub endpoint: &'static Endpoint,
    pub caller: Option<Arc<CallerRules>>,
    pub account: Option<AccountName>,
    pub realm: Option<RealmName>,
    pub account_id: Option<AccountId>,
    pub status: u16,
    /// The code of a refusal; `None` for the vendor's own answers.
    pub refusal: Option<&'static str>,
    /// Sends to the platform.
    pub attempts: u32,
    pub renewals: u32,
    pub retries: u32,
    pub request: Duration,
    /// Of it, spent waiting for the platform's heads.
    pub platform: Duration,
    /// Body bytes handed to the caller.
    pub bytes: u64,
    /// Links that became ours.
    pub links: u64,
    /// Why an answer of a link row passed unread.
    pub unread: Option<&'static str>,
    /// The caller got all of it.
    pub whole: bool,
}

/// Whoever wants to know of finished calls: metrics, last-seen signals. Called on the worker, so it must not wait.
pub trait Observer: Send + Sync {
    /// `account` is the entry of the call's account, once that was known.
    fn finished(&self, record: &Record, account: Option<&book::Entry>);
}

/// For tests and benches.
pub struct Unobserved;

impl Observer for Unobserved {
    fn finished(&self, _record: &Record, _account: Option<&book::Entry>) {}
}

/// The queue to the writer's thread.
#[derive(Clone)]
pub struct Sink {
    queue: SyncSender<Record>,
    lost: Arc<AtomicU64>,
}

/// How long a line waits for others.
const GATHERING: Duration = Duration::from_millis(10);

/// Lines that wait to be written, over all workers.
const QUEUE: usize = 16 * 1024;

impl Sink {
    /// Starts the writer. It ends when the last sink is dropped and the queue is written out.
    pub fn start() -> std::io::Result<(Sink, JoinHandle<()>)> {
        let (queue, lines) = sync_channel(QUEUE);
        let writer =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&lines))?;
        Ok((Sink { queue, lost: Arc::default() }, writer))
    }

    /// Lines that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn put(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(lines: &Receiver<Record>) {
    while let Ok(first) = lines.recv() {
        // A worker that finds nobody waiting has nobody to wake, which would cost it more than the line.
        std::thread::sleep(GATHERING);
        telemetry::gather::gathered(|| {
            write(&first);
            lines.try_iter().for_each(|record| write(&record));
        });
    }
}

fn write(record: &Record) {
    tracing::info!(
        target: ACCESS_LOG,
        at_ms = record.at.as_millis(),
        caller = record.caller.as_ref().map(|caller| caller.name.as_str()),
        account = record.account.as_ref().map(AccountName::as_str),
        realm = record.realm.as_ref().map(RealmName::as_str),
        account_id = record.account_id.map(AccountId::as_u64),
        method = method_word(&record.method),
        endpoint = record.endpoint.name,
        path = record.endpoint.template(),
        status = record.status,
        refusal = record.refusal,
        attempts = record.attempts,
        renewals = record.renewals,
        request_seconds = record.request.as_secs_f64(),
        platform_seconds = record.platform.as_secs_f64(),
        bytes = record.bytes,
        links = record.links,
        whole = record.whole,
        request_id = record.request_id.to_str().unwrap_or_default(),
        "call"
    );
}

/// A method that somebody made up may be as long as a head, and hold anything.
fn method_word(method: &Method) -> &str {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    if known.contains(method) { method.as_str() } else { "other" }
}

/// A call's record while the call goes on; dropped, it is told to whoever wants to know.
pub struct Line {
    record: Box<Record>,
    /// Kept from the one look-up of the call.
    entry: Option<Arc<book::Entry>>,
    started: Instant,
    sink: Option<Sink>,
    observer: Arc<dyn Observer>,
    /// Places under limits, given back when the answer is done with.
    permits: Vec<Permit>,
}

impl Line {
    pub fn begin(
        at: Timestamp,
        request_id: HeaderValue,
        method: Method,
        sink: Option<Sink>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let record = Box::new(Record {
            at,
            request_id,
            method,
            endpoint: &endpoint::OTHER,
            caller: None,
            account: None,
            realm: None,
            account_id: None,
            status: 0,
            refusal: None,
            attempts: 0,
            renewals: 0,
            retries: 0,
            request: Duration::ZERO,
            platform: Duration::ZERO,
            bytes: 0,
            links: 0,
            unread: None,
            whole: false,
        });
        Self { record, entry: None, started: Instant::now(), sink, observer, permits: Vec::new() }
    }

    pub fn note_account<A: Accounts>(&mut self, account: &A::Account) {
        let (realm, id) = A::identity(account);
        self.record.account = Some(A::name(account).clone());
        self.record.realm = Some(realm);
        self.record.account_id = Some(id);
        self.entry = A::entry(account);
    }

    /// Takes a place under a limit, where there is one.
    pub fn admit(&mut self, limiter: Option<&Arc<Limiter>>, now: Timestamp) -> Result<(), Refusal> {
        if let Some(limiter) = limiter {
            self.permits.push(limiter.admit(now).map_err(Refusal::TooManyRequests)?);
        }
        Ok(())
    }
}

impl std::ops::Deref for Line {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl std::ops::DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.record
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.record.request = self.started.elapsed();
        self.observer.finished(&self.record, self.entry.as_deref());
        if let Some(sink) = self.sink.take() {
            sink.put((*self.record).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<(u16, bool)>>);

    impl Observer for Seen {
        fn finished(&self, record: &Record, _account: Option<&book::Entry>) {
            self.0.lock().unwrap().push((record.status, record.whole));
        }
    }

    fn line(sink: Option<Sink>, observer: Arc<dyn Observer>) -> Line {
        Line::begin(Timestamp::default(), HeaderValue::from_static("r"), Method::GET, sink, observer)
    }

    #[test]
    fn a_line_is_told_once_when_the_call_is_over_also_when_the_caller_hung_up() {
        let seen = Arc::new(Seen::default());
        let mut first = line(None, seen.clone());
        first.status = 200;
        first.whole = true;
        drop(first);
        drop(line(None, seen.clone()));
        assert_eq!(*seen.0.lock().unwrap(), [(200, true), (0, false)]);
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them_and_nobody_waits() {
        let (queue, _lines) = sync_channel(1);
        let sink = Sink { queue, lost: Arc::default() };
        for _ in 0..3 {
            drop(line(Some(sink.clone()), Arc::new(Unobserved)));
        }
        assert_eq!(sink.lost(), 2);
    }

    #[test]
    fn the_writer_ends_with_the_last_sink() {
        let (sink, writer) = Sink::start().unwrap();
        drop(line(Some(sink.clone()), Arc::new(Unobserved)));
        drop(sink);
        writer.join().unwrap();
    }
}
