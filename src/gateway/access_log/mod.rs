//! One line per call: who, which account, what, how it ended. No bodies, no query strings, no paths beyond
//! the row's template. A worker never waits for a line; a full buffer loses lines, and counts them.

mod format;
mod writer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};

use crate::access::registry;
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::endpoint::{self, Endpoint};

use super::inbound::limits::{CallLimiter, CallPermit};
use super::refusal::{Refusal, RefusalCode};
use super::settings::CallerRules;

pub use writer::{AccessLog, LogWriter};

/// What there is to say about one call.
#[derive(Debug, Clone)]
pub struct LogEntry {
    pub at: Timestamp,
    pub request_id: HeaderValue,
    pub method: Method,
    pub endpoint: &'static Endpoint,
    pub caller: Option<Arc<CallerRules>>,
    pub account: Option<AccountName>,
    pub realm: Option<RealmName>,
    pub account_id: Option<AccountId>,
    pub status: u16,
    /// The code of a refusal; `None` for the vendor's own responses.
    pub refusal: Option<RefusalCode>,
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
    /// Links to the platform in a form that is not changed.
    pub links_passed: u64,
    /// Why the response of an endpoint with links passed without being rewritten.
    pub unread: Option<&'static str>,
    /// A discovery call that spells the API's name as the vendor's table does, not as its examples do.
    pub odd_discovery_name: bool,
    /// How a download was served whose address the application has built by itself.
    pub built_download: Option<BuiltDownload>,
    /// The caller got all of it.
    pub complete: bool,
}

/// What a download went through whose address the application has built by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltDownload {
    /// The link that was last seen for its order.
    ByLink,
    /// Domain and Path, as it came.
    ByPath,
}

/// Receives finished calls, for metrics and activity. Called on the worker, so it must not
/// wait.
pub trait CallObserver: Send + Sync {
    /// `account` is the entry of the call's account, once that was known.
    fn finished(&self, entry: &LogEntry, account: Option<&registry::Account>);
}

/// Where a worker's finished calls go.
pub struct Sinks {
    pub observer: Arc<dyn CallObserver>,
    /// `None` where the access log is switched off.
    pub log_writer: Option<LogWriter>,
}

impl LogEntry {
    /// A new entry; only arrival time, id and method are known.
    pub fn begin(at: Timestamp, request_id: HeaderValue, method: Method) -> Self {
        Self {
            at,
            request_id,
            method,
            endpoint: endpoint::OTHER,
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
            links_passed: 0,
            unread: None,
            odd_discovery_name: false,
            built_download: None,
            complete: false,
        }
    }
}

/// A call's log entry while the call goes on; when it is dropped, observer and access log get the entry.
pub struct RequestLog {
    entry: Box<LogEntry>,
    /// From the one look-up of the call.
    account_entry: Option<Arc<registry::Account>>,
    started: Instant,
    sinks: Rc<Sinks>,
    /// Held until the response has been sent.
    permits: Vec<CallPermit>,
}

impl RequestLog {
    pub fn begin(entry: LogEntry, sinks: Rc<Sinks>) -> Self {
        let entry = Box::new(entry);
        Self { entry, account_entry: None, started: Instant::now(), sinks, permits: Vec::new() }
    }

    pub fn set_account(&mut self, account: &Arc<registry::Account>) {
        let (realm, id) = account.identity();
        self.entry.account = Some(account.name.clone());
        self.entry.realm = Some(realm);
        self.entry.account_id = Some(id);
        self.account_entry = Some(account.clone());
    }

    /// How many links became ours, and how many passed in a form that is not changed.
    pub fn set_links(&mut self, changed: u64, passed: u64) {
        self.entry.links = changed;
        self.entry.links_passed = passed;
    }

    /// Counts the call under a limit, where there is one.
    pub fn acquire(&mut self, limiter: Option<&Arc<CallLimiter>>, now: Timestamp) -> Result<(), Refusal> {
        if let Some(limiter) = limiter {
            self.permits.push(limiter.acquire(now).map_err(Refusal::TooManyRequests)?);
        }
        Ok(())
    }
}

impl std::ops::Deref for RequestLog {
    type Target = LogEntry;

    fn deref(&self) -> &LogEntry {
        &self.entry
    }
}

impl std::ops::DerefMut for RequestLog {
    fn deref_mut(&mut self) -> &mut LogEntry {
        &mut self.entry
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.entry.request = self.started.elapsed();
        self.sinks.observer.finished(&self.entry, self.account_entry.as_deref());
        if let Some(log_writer) = &self.sinks.log_writer {
            log_writer.write(&self.entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(u16, bool)>>);

    impl CallObserver for Recorder {
        fn finished(&self, entry: &LogEntry, _account: Option<&registry::Account>) {
            self.0.lock().unwrap().push((entry.status, entry.complete));
        }
    }

    fn log(sinks: &Rc<Sinks>) -> RequestLog {
        let entry = LogEntry::begin(Timestamp::default(), HeaderValue::from_static("r"), Method::GET);
        RequestLog::begin(entry, sinks.clone())
    }

    #[test]
    fn a_line_is_told_once_when_the_call_is_over_also_when_the_caller_hung_up() {
        let seen = Arc::new(Recorder::default());
        let sinks = Rc::new(Sinks { observer: seen.clone(), log_writer: None });
        let mut first = log(&sinks);
        first.status = 200;
        first.complete = true;
        drop(first);
        drop(log(&sinks));
        assert_eq!(*seen.0.lock().unwrap(), [(200, true), (0, false)]);
    }
}
