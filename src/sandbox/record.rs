//! Every call that the sandbox received, as it came, and what became of it.
//! The ledger is bounded and can be switched off: a load test must not measure it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use bytes::Bytes;
use tokio::sync::watch;

use super::endpoint::Endpoint;
use super::host_role::HostRole;
use super::request::SandboxRequest;
use crate::clock::Timestamp;

/// A call as it was received, and how it ended.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// Counts all calls of this sandbox, from 1.
    pub number: u64,
    pub at: Timestamp,
    pub role: HostRole,
    /// Counts connections; two calls with one number came over the same one.
    pub connection: u64,
    /// None where the path means nothing here.
    pub endpoint: Option<Endpoint>,
    pub method: String,
    /// Path and query, byte for byte.
    pub target: Bytes,
    /// In the order and letter case in which they came.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The first 64 KiB.
    pub body: Bytes,
    pub body_length: u64,
    /// Hex, for bodies that were longer than what was kept.
    pub body_sha256: Option<String>,
    /// Whose bearer or refresh token it was, dead ones included.
    pub account: Option<u64>,
    /// The serial number of the access token that came as bearer, if it was one of ours.
    pub bearer: Option<u64>,
    /// None until a response is on its way.
    pub status: Option<u16>,
    pub end: CallEnd,
}

impl RecordedCall {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) =
            self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(value).ok()
    }

    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.target).unwrap_or("")
    }

    /// Hex, over the whole body, however long it was.
    pub fn body_sha256(&self) -> String {
        let kept = || super::hex(digest::digest(&digest::SHA256, &self.body).as_ref());
        self.body_sha256.clone().unwrap_or_else(kept)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or("")
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// Still going on.
    Pending,
    /// The whole response was written.
    Complete,
    /// The sandbox cut it off on purpose.
    Cut,
    /// The caller left before the response was whole.
    PeerClosed,
}

impl CallEnd {
    /// As the control port prints it.
    pub fn name(self) -> &'static str {
        match self {
            CallEnd::Pending => "Pending",
            CallEnd::Complete => "Whole",
            CallEnd::Cut => "Cut",
            CallEnd::PeerClosed => "HungUp",
        }
    }
}

/// What is known when a call has been read.
pub struct Arrival<'a> {
    pub at: Timestamp,
    pub role: HostRole,
    pub connection: u64,
    pub endpoint: Option<Endpoint>,
    pub request: &'a SandboxRequest,
    pub account: Option<u64>,
    pub bearer: Option<u64>,
}

/// Records calls, and wakes who waits for some.
pub struct CallRecorder {
    keep: usize,
    record: Mutex<CallRecord>,
    changed: watch::Sender<u64>,
}

/// What was recorded since the start, or since it was cleared.
#[derive(Default)]
struct CallRecord {
    numbered: u64,
    calls: VecDeque<RecordedCall>,
    refreshing: HashMap<u64, usize>,
    overlapping: Vec<u64>,
    refused: Vec<(HostRole, &'static str)>,
    last_refresh: HashMap<u64, Timestamp>,
    smallest_gap: HashMap<u64, std::time::Duration>,
}

impl CallRecorder {
    pub fn new(keep: usize) -> Self {
        Self { keep, record: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Notes a call and returns its number.
    pub fn arrived(&self, arrival: &Arrival<'_>) -> u64 {
        let mut record = self.record();
        record.numbered += 1;
        let number = record.numbered;
        if arrival.endpoint == Some(Endpoint::Refresh)
            && let Some(account) = arrival.account
        {
            record.refresh_began(account, arrival.at);
        }
        if self.keep > 0 {
            if record.calls.len() == self.keep {
                record.calls.pop_front();
            }
            record.calls.push_back(call_of(number, arrival));
        }
        drop(record);
        self.changed.send_replace(number);
        number
    }

    /// A right or wrong response is about to be written.
    pub fn responding(&self, number: u64, refreshed: Option<u64>, status: u16) {
        let mut record = self.record();
        record.refresh_ended(refreshed);
        if let Some(call) = record.find(number) {
            call.status = Some(status);
        }
    }

    pub fn ended(&self, number: u64, refreshed: Option<u64>, status: Option<u16>, end: CallEnd) {
        let mut record = self.record();
        record.refresh_ended(refreshed);
        if let Some(call) = record.find(number) {
            call.status = status;
            call.end = end;
        }
        drop(record);
        self.changed.send_modify(|_| {});
    }

    pub fn calls(&self, wanted: impl Fn(&RecordedCall) -> bool) -> Vec<RecordedCall> {
        self.record().calls.iter().filter(|call| wanted(call)).cloned().collect()
    }

    /// Returns once `count` calls fit; they are looked at again with every arrival and every end.
    pub async fn until(&self, count: usize, wanted: impl Fn(&RecordedCall) -> bool) -> Vec<RecordedCall> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let found = self.calls(&wanted);
            if found.len() >= count || changed.changed().await.is_err() {
                return found;
            }
        }
    }

    pub fn clear(&self) {
        let mut record = self.record();
        let (numbered, refreshing) = (record.numbered, std::mem::take(&mut record.refreshing));
        *record = CallRecord { numbered, refreshing, ..CallRecord::default() };
    }

    /// Notes a request that could not be read. Bounded like the calls, since noise may be endless.
    pub fn refuse(&self, role: HostRole, why: &'static str) {
        let mut record = self.record();
        if record.refused.len() < self.keep {
            record.refused.push((role, why));
        }
    }

    pub fn refused(&self) -> Vec<(HostRole, &'static str)> {
        self.record().refused.clone()
    }

    pub fn received(&self) -> u64 {
        self.record().numbered
    }

    /// One entry per refresh that began while another of the same account was going on.
    pub fn overlapping_refreshes(&self) -> Vec<u64> {
        self.record().overlapping.clone()
    }

    pub fn smallest_refresh_gap(&self, account: u64) -> Option<std::time::Duration> {
        self.record().smallest_gap.get(&account).copied()
    }

    fn record(&self) -> MutexGuard<'_, CallRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallRecord {
    fn refresh_began(&mut self, account: u64, now: Timestamp) {
        let running = self.refreshing.entry(account).or_default();
        if *running > 0 {
            self.overlapping.push(account);
        }
        *running += 1;
        if let Some(last) = self.last_refresh.insert(account, now) {
            let gap = now.since(last);
            let smallest = self.smallest_gap.entry(account).or_insert(gap);
            *smallest = gap.min(*smallest);
        }
    }

    fn refresh_ended(&mut self, account: Option<u64>) {
        if let Some(running) = account.and_then(|account| self.refreshing.get_mut(&account)) {
            *running = running.saturating_sub(1);
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut RecordedCall> {
        let first = self.calls.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.calls.get_mut(index)
    }
}

fn call_of(number: u64, arrival: &Arrival<'_>) -> RecordedCall {
    let request = arrival.request;
    RecordedCall {
        number,
        at: arrival.at,
        role: arrival.role,
        connection: arrival.connection,
        endpoint: arrival.endpoint,
        method: request.method().to_owned(),
        target: request.target.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        body_length: request.body_length,
        body_sha256: request.body_sha256.clone(),
        account: arrival.account,
        bearer: arrival.bearer,
        status: None,
        end: CallEnd::Pending,
    }
}
