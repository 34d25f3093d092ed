//! Counts finished calls: in the metrics, and in the activity of the account and of the caller. What others
//! count is read at each scrape.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;

use crate::access::activity::Activity;
use crate::access::failure_streak::CallFailure;
use crate::access::last_seen_sync::CallerActivity;
use crate::access::registry::Account;
use crate::gateway::{BuiltDownload, CallObserver, LogEntry};
use crate::health::clock::Corrections;
use crate::model::account::{AccountState, RealmName};
use crate::model::endpoint;
use crate::store::unavailable::UnavailableKind;
use crate::telemetry::calls::{CallCells, EndpointSlot, NO_REALM, StatusClass};
use crate::telemetry::catalogue::{self, OLD_UNAVAILABLE, REALM_TROUBLES};
use crate::telemetry::log_queue::LogKind;
use crate::telemetry::metrics::{ExternalMetric, MetricReader, Metrics};

use super::RunningState;

/// Hands each worker an observer of its own, so that no two workers count in the same cells.
pub struct WorkerObservers {
    metrics: Arc<Metrics>,
    callers: Arc<CallerActivity>,
}

/// One worker's counting.
struct WorkerObserver {
    worker: usize,
    metrics: Arc<Metrics>,
    /// In the order of the endpoint table.
    slots: Vec<Option<EndpointSlot>>,
    /// A handful of realms: walking them is cheaper than hashing them.
    cells: ArcSwap<Vec<(RealmName, Arc<CallCells>)>>,
    callers: Arc<CallerActivity>,
    /// By name, which outlives a reload; few enough to walk.
    known_callers: ArcSwap<Vec<(String, Arc<Activity>)>>,
    nobody: Arc<CallCells>,
    refusals: Mutex<HashMap<&'static str, Counter>>,
    links: Counter,
    built_by_link: Counter,
    built_by_path: Counter,
    retries: Counter,
}

impl WorkerObservers {
    pub fn new(metrics: Arc<Metrics>, callers: Arc<CallerActivity>) -> Self {
        Self { metrics, callers }
    }

    pub fn of_worker(&self, worker: usize) -> Arc<dyn CallObserver> {
        let slots = endpoint::TABLE.iter().map(|row| self.metrics.endpoint(row.name)).collect();
        Arc::new(WorkerObserver {
            worker,
            slots,
            cells: ArcSwap::default(),
            callers: self.callers.clone(),
            known_callers: ArcSwap::default(),
            nobody: self.metrics.calls(NO_REALM, worker),
            refusals: Mutex::default(),
            links: self.metrics.links_rewritten(),
            built_by_link: self.metrics.built_downloads("link"),
            built_by_path: self.metrics.built_downloads("path"),
            retries: self.metrics.retries("platform_trouble"),
            metrics: self.metrics.clone(),
        })
    }
}

impl CallObserver for WorkerObserver {
    fn finished(&self, record: &LogEntry, account: Option<&Account>) {
        self.count(record);
        if let Some(account) = account {
            record_activity(record, &account.activity);
            let failure = match record.refusal {
                Some(code) => code.not_served().map(CallFailure::Refused),
                None => CallFailure::of_response(record.status, record.attempts > 0),
            };
            if let Some(failure) = failure {
                account.call_failed(failure, record.at);
            }
        }
        if let (Some(_), Some(caller)) = (record.built_download, &record.caller) {
            self.callers.built_download(&caller.name);
        }
        if let Some(caller) = &record.caller {
            self.with_caller(&caller.name, |activity| {
                activity.called(record.at);
                record_activity(record, activity);
            });
        }
    }
}

impl WorkerObserver {
    fn count(&self, record: &LogEntry) {
        if let Some(slot) = self.slots[record.endpoint.id as usize] {
            let class = StatusCode::from_u16(record.status).map_or(StatusClass::None, StatusClass::of);
            self.with_cells(record.realm.as_ref(), |cells| {
                cells.responded(slot, &record.method, class, record.request);
                if record.attempts > 0 {
                    cells.platform_responded(slot, class, record.platform);
                }
            });
        }
        if let Some(code) = record.refusal {
            self.refused(code.as_str());
        }
        if record.links > 0 {
            self.links.inc_by(record.links);
        }
        if record.retries > 0 {
            self.retries.inc_by(u64::from(record.retries));
        }
        if record.links_passed > 0 {
            self.metrics.links_passed().inc_by(record.links_passed);
        }
        match record.built_download {
            None => {}
            Some(BuiltDownload::ByLink) => {
                self.built_by_link.inc();
            }
            Some(BuiltDownload::ByPath) => {
                self.built_by_path.inc();
            }
        }
        if record.odd_discovery_name {
            self.metrics.odd_discovery_names().inc();
        }
        if let Some(encoding) = record.unread {
            self.metrics.link_bodies_passed(encoding).inc();
        }
    }

    fn with_cells(&self, realm: Option<&RealmName>, count: impl FnOnce(&CallCells)) {
        let Some(realm) = realm else { return count(&self.nobody) };
        let known = self.cells.load();
        if let Some((_, cells)) = known.iter().find(|(known, _)| known == realm) {
            return count(cells);
        }
        let cells = self.metrics.calls(realm.as_str(), self.worker);
        count(&cells);
        self.cells.store(Arc::new(known.iter().cloned().chain([(realm.clone(), cells)]).collect()));
    }

    fn with_caller(&self, name: &str, note: impl FnOnce(&Activity)) {
        let known = self.known_callers.load();
        if let Some((_, activity)) = known.iter().find(|(known, _)| known == name) {
            return note(activity);
        }
        let activity = self.callers.of(name);
        note(&activity);
        let all = known.iter().cloned().chain([(name.to_owned(), activity)]).collect();
        self.known_callers.store(Arc::new(all));
    }

    fn refused(&self, code: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.entry(code).or_insert_with(|| self.metrics.refusals(code)).inc();
    }
}

fn record_activity(record: &LogEntry, activity: &Activity) {
    match record.refusal {
        Some(code) => activity.refused(code.number(), record.at),
        None if (200..400).contains(&record.status) => activity.succeeded(record.at),
        None => {}
    }
    let success = record.refusal.is_none() && record.status == 200;
    if success && record.endpoint.lists_orders {
        activity.listed(usize::try_from(record.links).unwrap_or(usize::MAX), record.at);
    }
    if !record.complete && record.endpoint.is_download && record.refusal.is_none() {
        activity.download_unfinished(record.at);
    }
}

/// Registers what server, store and clock count by themselves.
pub fn watch(state: &RunningState, corrections: &Arc<Corrections>) {
    let metrics = &state.lifecycle.metrics;
    watch_store(state);
    corrections.watch(metrics);
    let counters = state.data.counters.clone();
    let series = |read: fn(&crate::server::ServerCounters) -> u64| -> Box<dyn Fn() -> u64 + Send + Sync> {
        let counters = counters.clone();
        Box::new(move || read(&counters))
    };
    metrics.register_external(ExternalMetric {
        family: &catalogue::CONNECTIONS,
        series: vec![("open", series(|counters| counters.open.get()))],
    });
    metrics.register_external(ExternalMetric {
        family: &catalogue::CONNECTION_EVENTS,
        series: vec![
            ("accepted", series(|counters| counters.accepted.get())),
            ("connection_limit", series(|counters| counters.connection_limit.get())),
            ("evicted", series(|counters| counters.evicted.get())),
            ("accept_error", series(|counters| counters.accept_errors.get())),
            ("tls_failure", series(|counters| counters.tls_failures.get())),
            ("proxy_header_failure", series(|counters| counters.proxy_header_failures.get())),
            ("handshake_timeout", series(|counters| counters.handshake_timeouts.get())),
            ("head_timeout", series(|counters| counters.head_timeouts.get())),
            ("keep_alive_timeout", series(|counters| counters.keep_alive_timeouts.get())),
            ("body_timeout", series(|counters| counters.body_timeouts.get())),
            ("write_timeout", series(|counters| counters.write_timeouts.get())),
            ("refused_request", series(|counters| counters.refused_requests.get())),
            ("client_disconnect", series(|counters| counters.client_disconnects.get())),
            ("aborted_response", series(|counters| counters.aborted_responses.get())),
            ("panic", series(|counters| counters.panics.get())),
            // The old names of three of them, for alarms that already use them.
            ("refused_full", series(|counters| counters.connection_limit.get())),
            ("hang_up", series(|counters| counters.client_disconnects.get())),
            ("aborted_answer", series(|counters| counters.aborted_responses.get())),
        ],
    });
}

/// Whether the store is in trouble, a series for each kind.
fn watch_store(state: &RunningState) {
    let in_trouble = |kind: UnavailableKind| -> MetricReader {
        let health = state.lifecycle.health.store().clone();
        Box::new(move || u64::from(health.trouble().is_some_and(|trouble| trouble.kind == kind)))
    };
    state.lifecycle.metrics.register_external(ExternalMetric {
        family: &catalogue::STORE_TROUBLE,
        series: UnavailableKind::ALL.map(|kind| (kind.word(), in_trouble(kind))).into(),
    });
}

/// The text exposition of all metrics.
pub fn encode(state: &RunningState) -> String {
    refresh_gauges(state);
    state.lifecycle.metrics.encode()
}

/// Gauges that are cheaper to work out at a scrape than to keep.
fn refresh_gauges(state: &RunningState) {
    refresh_accounts(state);
    refresh_renewals(state);
    refresh_logs(state);
}

fn refresh_accounts(state: &RunningState) {
    let (metrics, control, health) = (&state.lifecycle.metrics, &state.control, &state.lifecycle.health);
    for (realm, realm_stats) in control.registry.realm_stats() {
        let states = [
            (AccountState::Ready.word(), realm_stats.ready),
            (AccountState::Paused.word(), realm_stats.paused),
            ("needs_login", realm_stats.needs_login),
        ];
        for (state, count) in states {
            metrics.accounts(realm.as_str(), state).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let earliest = realm_stats.earliest_expiry.map_or(0, |at| at.time_of_day().as_secs());
        metrics.earliest_expiry(realm.as_str()).set(i64::try_from(earliest).unwrap_or(i64::MAX));
    }
    metrics.accounts_unsaved().set(i64::try_from(health.unsaved_accounts()).unwrap_or(i64::MAX));
}

fn refresh_renewals(state: &RunningState) {
    let (metrics, renewals) = (&state.lifecycle.metrics, &state.control.renewals);
    for (realm, tally) in renewals.renewal_counters() {
        use std::sync::atomic::Ordering::Relaxed;
        for (outcome, count) in [
            ("refreshed", tally.refreshes.load(Relaxed)),
            ("refresh_failed", tally.refresh_failures.load(Relaxed)),
            ("refused", tally.refusals.load(Relaxed)),
            ("discovered", tally.discoveries.load(Relaxed)),
            ("discovery_failed", tally.discovery_failures.load(Relaxed)),
        ] {
            let counter = metrics.renewals(realm.as_str(), outcome);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
    let alarms = renewals.alarms();
    metrics.store_write_seconds().set(state.lifecycle.health.store().last_write().as_secs_f64());
    let counter = metrics.store_commit_failures();
    counter.inc_by(alarms.failed_commits.saturating_sub(counter.get()));
    for realm in state.lifecycle.config.load().realms.keys() {
        let trouble = alarms.realms.iter().find(|(name, _)| name == realm).map(|(_, trouble)| trouble.word());
        for kind in REALM_TROUBLES {
            let is_old_name = kind == OLD_UNAVAILABLE && trouble == Some("unavailable");
            metrics.realm_trouble(realm.as_str(), kind).set(i64::from(trouble == Some(kind) || is_old_name));
        }
    }
}

fn refresh_logs(state: &RunningState) {
    let (metrics, logs) = (&state.lifecycle.metrics, &state.lifecycle.logs);
    for (counter, kind) in
        [(metrics.access_log_lines_lost(), LogKind::AccessLog), (metrics.log_lines_lost(), LogKind::Event)]
    {
        counter.inc_by(logs.dropped(kind).saturating_sub(counter.get()));
    }
    metrics.log_waiting_seconds().set(logs.blocked_for().as_secs_f64());
    let counter = metrics.journal_entries_lost();
    counter.inc_by(state.control.journal.dropped().saturating_sub(counter.get()));
}
