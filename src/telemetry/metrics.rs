//! The metrics of the catalogue, made before any feature runs; features ask for their handles at start and
//! keep them. A handle is an atomic, and adding to it never looks anything up.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::calls::{CallCells, CallMetrics, EndpointSlot};
use super::catalogue::{self, ENCODINGS, MetricFamily, MetricKind, REALM_TROUBLES};

/// What `encode` writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
    calls: Arc<CallMetrics>,
    external: Arc<ExternalMetrics>,
    refusals: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    renewals: Family<Labels, Counter>,
    accounts: Family<Labels, Gauge>,
    earliest_expiry: Family<Labels, Gauge>,
    link_bodies_passed: Family<Labels, Counter>,
    links_rewritten: Counter,
    links_passed: Counter,
    built_downloads: Family<Labels, Counter>,
    odd_discovery_names: Counter,
    store_commit_failures: Counter,
    store_write_seconds: Gauge<f64, AtomicU64>,
    accounts_unsaved: Gauge,
    realm_trouble: Family<Labels, Gauge>,
    access_log_lines_lost: Counter,
    log_lines_lost: Counter,
    log_waiting_seconds: Gauge<f64, AtomicU64>,
    journal_entries_lost: Counter,
}

/// A figure that somebody else counts, read at each scrape.
pub struct ExternalMetric {
    pub family: &'static MetricFamily,
    /// A reader for each value of the family's one label.
    pub series: Vec<(&'static str, MetricReader)>,
}

pub type MetricReader = Box<dyn Fn() -> u64 + Send + Sync>;

impl Metrics {
    /// `endpoints` are the names that the endpoint label may have.
    pub fn new(endpoints: &[&'static str], version: &str) -> Self {
        let mut made = Self {
            registry: Registry::with_prefix("genapi_gateway"),
            calls: Arc::new(CallMetrics::new(endpoints)),
            external: Arc::default(),
            refusals: Family::default(),
            retries: Family::default(),
            renewals: Family::default(),
            accounts: Family::default(),
            earliest_expiry: Family::default(),
            link_bodies_passed: Family::default(),
            links_rewritten: Counter::default(),
            links_passed: Counter::default(),
            built_downloads: Family::default(),
            odd_discovery_names: Counter::default(),
            store_commit_failures: Counter::default(),
            store_write_seconds: Gauge::default(),
            accounts_unsaved: Gauge::default(),
            realm_trouble: Family::default(),
            access_log_lines_lost: Counter::default(),
            log_lines_lost: Counter::default(),
            log_waiting_seconds: Gauge::default(),
            journal_entries_lost: Counter::default(),
        };
        made.register(version);
        made
    }

    fn register(&mut self, version: &str) {
        self.registry.register_collector(Box::new(Arc::clone(&self.calls)));
        self.registry.register_collector(Box::new(Arc::clone(&self.external)));
        let registry = &mut self.registry;
        add(registry, &catalogue::BUILD, Info::new(vec![("version", version.to_owned())]));
        add(registry, &catalogue::REFUSALS, self.refusals.clone());
        add(registry, &catalogue::RETRIES, self.retries.clone());
        add(registry, &catalogue::RENEWALS, self.renewals.clone());
        add(registry, &catalogue::ACCOUNTS, self.accounts.clone());
        add(registry, &catalogue::EARLIEST_EXPIRY, self.earliest_expiry.clone());
        add(registry, &catalogue::LINKS_REWRITTEN, self.links_rewritten.clone());
        add(registry, &catalogue::LINK_BODIES_PASSED, self.link_bodies_passed.clone());
        add(registry, &catalogue::LINKS_PASSED, self.links_passed.clone());
        add(registry, &catalogue::BUILT_DOWNLOADS, self.built_downloads.clone());
        add(registry, &catalogue::ODD_DISCOVERY_NAMES, self.odd_discovery_names.clone());
        add(registry, &catalogue::STORE_COMMIT_FAILURES, self.store_commit_failures.clone());
        add(registry, &catalogue::STORE_WRITE_SECONDS, self.store_write_seconds.clone());
        add(registry, &catalogue::ACCOUNTS_UNSAVED, self.accounts_unsaved.clone());
        add(registry, &catalogue::REALM_TROUBLE, self.realm_trouble.clone());
        add(registry, &catalogue::ACCESS_LOG_LINES_LOST, self.access_log_lines_lost.clone());
        add(registry, &catalogue::LOG_LINES_LOST, self.log_lines_lost.clone());
        add(registry, &catalogue::LOG_WAITING_SECONDS, self.log_waiting_seconds.clone());
        add(registry, &catalogue::JOURNAL_ENTRIES_LOST, self.journal_entries_lost.clone());
    }

    /// The text of `/metrics`.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        // Writing into a String cannot fail; half a page would still be better than none.
        let _ = text::encode(&mut page, &self.registry);
        page
    }

    /// `None` where the name was not given to `new`.
    pub fn endpoint(&self, name: &str) -> Option<EndpointSlot> {
        self.calls.slot(name)
    }

    /// A worker's own cells for a realm (or `calls::NO_REALM`); for start and reload, not per call.
    pub fn calls(&self, realm: &str, worker: usize) -> Arc<CallCells> {
        self.calls.cells(realm, worker)
    }

    pub fn refusals(&self, code: &'static str) -> Counter {
        self.refusals.get_or_create_owned(&vec![("code", code.to_owned())])
    }

    pub fn retries(&self, reason: &'static str) -> Counter {
        debug_assert!(catalogue::RETRIES.allows("reason", reason));
        self.retries.get_or_create_owned(&vec![("reason", reason.to_owned())])
    }

    pub fn renewals(&self, realm: &str, outcome: &'static str) -> Counter {
        debug_assert!(catalogue::RENEWALS.allows("outcome", outcome));
        self.renewals.get_or_create_owned(&vec![("realm", realm.to_owned()), ("outcome", outcome.to_owned())])
    }

    pub fn accounts(&self, realm: &str, state: &'static str) -> Gauge {
        debug_assert!(catalogue::ACCOUNTS.allows("state", state));
        self.accounts.get_or_create_owned(&vec![("realm", realm.to_owned()), ("state", state.to_owned())])
    }

    pub fn earliest_expiry(&self, realm: &str) -> Gauge {
        self.earliest_expiry.get_or_create_owned(&vec![("realm", realm.to_owned())])
    }

    /// `kind` is one of [`REALM_TROUBLES`].
    pub fn realm_trouble(&self, realm: &str, kind: &'static str) -> Gauge {
        debug_assert!(catalogue::REALM_TROUBLE.allows("kind", kind));
        self.realm_trouble.get_or_create_owned(&vec![("realm", realm.to_owned()), ("kind", kind.to_owned())])
    }

    pub fn accounts_unsaved(&self) -> Gauge {
        self.accounts_unsaved.clone()
    }

    pub fn store_write_seconds(&self) -> Gauge<f64, AtomicU64> {
        self.store_write_seconds.clone()
    }

    /// Takes a realm that the configuration no longer has off the page.
    pub fn forget_realm(&self, realm: &str, states: &[&'static str]) {
        for state in states {
            self.accounts.remove(&vec![("realm", realm.to_owned()), ("state", (*state).to_owned())]);
        }
        self.earliest_expiry.remove(&vec![("realm", realm.to_owned())]);
        for kind in REALM_TROUBLES {
            self.realm_trouble.remove(&vec![("realm", realm.to_owned()), ("kind", kind.to_owned())]);
        }
    }

    pub fn links_rewritten(&self) -> Counter {
        self.links_rewritten.clone()
    }

    /// The label is one of a few words, whatever the platform invents.
    pub fn link_bodies_passed(&self, encoding: &str) -> Counter {
        let known = ENCODINGS.into_iter().find(|known| known.eq_ignore_ascii_case(encoding.trim()));
        let word = known.unwrap_or("other");
        self.link_bodies_passed.get_or_create_owned(&vec![("encoding", word.to_owned())])
    }

    pub fn links_passed(&self) -> Counter {
        self.links_passed.clone()
    }

    pub fn built_downloads(&self, served: &str) -> Counter {
        self.built_downloads.get_or_create_owned(&vec![("served", served.to_owned())])
    }

    pub fn odd_discovery_names(&self) -> Counter {
        self.odd_discovery_names.clone()
    }

    pub fn store_commit_failures(&self) -> Counter {
        self.store_commit_failures.clone()
    }

    pub fn access_log_lines_lost(&self) -> Counter {
        self.access_log_lines_lost.clone()
    }

    pub fn log_lines_lost(&self) -> Counter {
        self.log_lines_lost.clone()
    }

    pub fn log_waiting_seconds(&self) -> Gauge<f64, AtomicU64> {
        self.log_waiting_seconds.clone()
    }

    pub fn journal_entries_lost(&self) -> Counter {
        self.journal_entries_lost.clone()
    }

    /// Shows figures that are counted elsewhere: the server's connections, for one. A name belongs to one
    /// watcher.
    pub fn register_external(&self, external: ExternalMetric) {
        debug_assert!(
            external.series.iter().all(|(value, _)| external
                .family
                .labels
                .iter()
                .any(|it| it.values.contains(value))),
            "{} has a series that its row does not list",
            external.family.name
        );
        self.external.0.lock().unwrap_or_else(PoisonError::into_inner).push(external);
    }
}

fn add(registry: &mut Registry, row: &MetricFamily, metric: impl Metric) {
    registry.register(row.name, row.help, metric);
}

#[derive(Default)]
struct ExternalMetrics(Mutex<Vec<ExternalMetric>>);

impl fmt::Debug for ExternalMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalMetrics")
    }
}

impl Collector for ExternalMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let external = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ExternalMetric { family, series } in external.iter() {
            let is_counter = family.kind == MetricKind::Counter;
            let kind = if is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            let label = family.labels.first().map_or("", |label| label.name);
            for (value, read) in series {
                let labels = [(label, *value)];
                let series = encoder.encode_family(&labels)?;
                if is_counter {
                    ConstCounter::new(read()).encode(series)?;
                } else {
                    ConstGauge::new(i64::try_from(read()).unwrap_or(i64::MAX)).encode(series)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::telemetry::calls::{NO_REALM, StatusClass};
    use crate::telemetry::catalogue::CATALOGUE;

    fn metrics() -> Metrics {
        Metrics::new(&["lab_orders", "other"], "1.2.3")
    }

    #[test]
    fn the_page_shows_the_families_of_the_catalogue_and_no_others() {
        let metrics = metrics();
        metrics.refusals("draining");
        metrics.retries("platform_trouble");
        metrics.renewals("global", "refreshed");
        metrics.accounts("global", "ready");
        metrics.earliest_expiry("global");
        metrics.link_bodies_passed("br");
        metrics.built_downloads("link");
        metrics.realm_trouble("global", "credentials");
        let page = metrics.encode();
        let shown: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE genapi_gateway_")).collect();
        let elsewhere = ["connections", "connection_events", "store_trouble", "time_corrections"];
        let rows = CATALOGUE.iter().filter(|row| !elsewhere.contains(&row.name));
        let listed: Vec<String> =
            rows.map(|row| format!("{} {}", row.name, format!("{:?}", row.kind).to_lowercase())).collect();
        assert_eq!(shown, listed.iter().map(String::as_str).collect());
        assert!(page.contains("genapi_gateway_build_info{version=\"1.2.3\"} 1\n"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_scrape_sums_what_the_workers_counted_apart() {
        let metrics = metrics();
        let orders = metrics.endpoint("lab_orders").unwrap();
        for worker in 0..2 {
            let cells = metrics.calls("global", worker);
            let class = StatusClass::of(StatusCode::OK);
            cells.responded(orders, &Method::GET, class, Duration::from_millis(3));
            cells.platform_responded(orders, class, Duration::from_millis(2));
        }
        let none = metrics.calls(NO_REALM, 0);
        none.responded(orders, &Method::GET, StatusClass::of(StatusCode::UNAUTHORIZED), Duration::ZERO);
        let page = metrics.encode();
        for line in [
            "genapi_gateway_request_seconds_sum{realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 0.006",
            "genapi_gateway_request_seconds_count{realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 2",
            "genapi_gateway_request_seconds_bucket{le=\"0.002\",realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 0",
            "genapi_gateway_request_seconds_bucket{le=\"0.005\",realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 2",
            "genapi_gateway_request_seconds_bucket{le=\"+Inf\",realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 2",
            "genapi_gateway_request_seconds_count{realm=\"-\",endpoint=\"lab_orders\",class=\"4xx\"} 1",
            "genapi_gateway_platform_seconds_bucket{le=\"0.002\",realm=\"global\",endpoint=\"lab_orders\",class=\"2xx\"} 2",
            "genapi_gateway_requests_total{endpoint=\"lab_orders\",method=\"GET\",class=\"2xx\"} 2",
            "genapi_gateway_requests_total{endpoint=\"lab_orders\",method=\"GET\",class=\"4xx\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("endpoint=\"other\""), "what never happened is left out");
        assert_eq!(metrics.endpoint("nonsense"), None);
    }

    #[test]
    fn handles_of_the_same_series_count_together_and_survive_a_reload() {
        let metrics = metrics();
        metrics.renewals("global", "refreshed").inc();
        metrics.renewals("global", "refreshed").inc();
        metrics.accounts("global", "ready").set(7);
        metrics.refusals("caller_unknown").inc();
        metrics.link_bodies_passed("x-invented").inc();
        metrics.link_bodies_passed("BR").inc();
        assert!(Arc::ptr_eq(&metrics.calls("global", 0), &metrics.calls("global", 0)));
        let page = metrics.encode();
        for line in [
            "genapi_gateway_renewals_total{realm=\"global\",outcome=\"refreshed\"} 2",
            "genapi_gateway_accounts{realm=\"global\",state=\"ready\"} 7",
            "genapi_gateway_refusals_total{code=\"caller_unknown\"} 1",
            "genapi_gateway_link_bodies_passed_total{encoding=\"other\"} 1",
            "genapi_gateway_link_bodies_passed_total{encoding=\"br\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        metrics.forget_realm("global", &["ready"]);
        assert!(!metrics.encode().contains("state=\"ready\""));
    }

    #[test]
    fn figures_of_others_are_read_at_each_scrape() {
        let metrics = metrics();
        let open = Arc::new(AtomicU64::new(3));
        let read = Arc::clone(&open);
        metrics.register_external(ExternalMetric {
            family: &catalogue::CONNECTIONS,
            series: vec![("open", Box::new(move || read.load(Ordering::Relaxed)))],
        });
        assert!(metrics.encode().contains("genapi_gateway_connections{state=\"open\"} 3\n"));
        open.store(4, Ordering::Relaxed);
        assert!(metrics.encode().contains("genapi_gateway_connections{state=\"open\"} 4\n"));
    }
}
