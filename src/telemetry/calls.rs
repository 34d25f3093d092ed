//! The two clocks that answer "is it us?", counted per call. No lock, no look-up and no shared cache line on
//! a call's way: each worker adds to cells of its own, and a scrape sums them.
//!
//! Not prometheus-client's histogram: it takes a mutex per observation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::catalogue::{self, METHODS, MetricFamily};

/// The realm label of a call that was refused before its account was known. No realm can have this name.
pub const NO_REALM: &str = "-";

/// Upper bounds in milliseconds: from a response out of our own memory to a download over a slow line.
const BOUNDS_MILLIS: [u64; 17] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 60_000, 120_000, 600_000];
const BUCKETS: usize = BOUNDS_MILLIS.len() + 1;

/// How a call ended, as far as a label may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    Success,
    Redirect,
    CallerFault,
    ServerFault,
    /// Nobody answered: a time-out, a broken connection, a caller that disconnected.
    None,
}

impl StatusClass {
    const ALL: [StatusClass; 5] = [
        StatusClass::Success,
        StatusClass::Redirect,
        StatusClass::CallerFault,
        StatusClass::ServerFault,
        StatusClass::None,
    ];

    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() / 100 {
            2 => StatusClass::Success,
            3 => StatusClass::Redirect,
            4 => StatusClass::CallerFault,
            5 => StatusClass::ServerFault,
            _ => StatusClass::None,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            StatusClass::Success => "2xx",
            StatusClass::Redirect => "3xx",
            StatusClass::CallerFault => "4xx",
            StatusClass::ServerFault => "5xx",
            StatusClass::None => "none",
        }
    }
}

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// An endpoint's place in the cells, resolved once at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointSlot(usize);

/// One worker's cells for one realm. Any thread may add; sharing costs time, not correctness.
pub struct CallCells {
    request: Box<[Histogram]>,
    platform: Box<[Histogram]>,
    requests: Box<[AtomicU64]>,
}

impl CallCells {
    fn new(endpoints: usize) -> Self {
        let histograms = || (0..endpoints * StatusClass::ALL.len()).map(|_| Histogram::default()).collect();
        let counters = endpoints * StatusClass::ALL.len() * METHODS.len();
        Self {
            request: histograms(),
            platform: histograms(),
            requests: (0..counters).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A call of a caller is over, and took this long as the caller sees it.
    pub fn responded(&self, endpoint: EndpointSlot, method: &Method, class: StatusClass, took: Duration) {
        let cell = cell(endpoint.0, class);
        self.request[cell].observe(took);
        self.requests[cell * METHODS.len() + method_index(method)].fetch_add(1, Ordering::Relaxed);
    }

    /// One send to the platform is over, and took this long from its first byte to the last of its response.
    pub fn platform_responded(&self, endpoint: EndpointSlot, class: StatusClass, took: Duration) {
        self.platform[cell(endpoint.0, class)].observe(took);
    }
}

fn cell(endpoint: usize, class: StatusClass) -> usize {
    endpoint * StatusClass::ALL.len() + class as usize
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MILLIS.partition_point(|bound| bound.saturating_mul(1_000_000) < nanos);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// A scrape's sum over workers.
#[derive(Default)]
struct HistogramSum {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl HistogramSum {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.nanos = self.nanos.wrapping_add(histogram.nanos.load(Ordering::Relaxed));
    }

    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS_MILLIS.iter().map(|millis| *millis as f64 / 1000.0).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.buckets).collect();
        let count = self.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.nanos as f64 / 1e9, count, &buckets, None)
    }
}

/// All cells there are.
pub(super) struct CallMetrics {
    endpoints: Vec<&'static str>,
    cells: Mutex<BTreeMap<String, BTreeMap<usize, Arc<CallCells>>>>,
}

impl CallMetrics {
    pub fn new(endpoints: &[&'static str]) -> Self {
        Self { endpoints: endpoints.to_vec(), cells: Mutex::default() }
    }

    pub fn slot(&self, endpoint: &str) -> Option<EndpointSlot> {
        self.endpoints.iter().position(|known| *known == endpoint).map(EndpointSlot)
    }

    /// The same cells each time for the same realm and worker, so that a reload loses nothing.
    pub fn cells(&self, realm: &str, worker: usize) -> Arc<CallCells> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let of_realm = cells.entry(realm.to_owned()).or_default();
        let made = of_realm.entry(worker).or_insert_with(|| Arc::new(CallCells::new(self.endpoints.len())));
        Arc::clone(made)
    }

    fn snapshot(&self) -> Vec<(String, Vec<Arc<CallCells>>)> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.iter().map(|(realm, cells)| (realm.clone(), cells.values().cloned().collect())).collect()
    }

    fn encode_seconds(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        family: &MetricFamily,
        clock: fn(&CallCells) -> &[Histogram],
    ) -> fmt::Result {
        let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
        for (realm, cells) in self.snapshot() {
            for (at, endpoint, class) in self.kinds() {
                let mut sum = HistogramSum::default();
                cells.iter().for_each(|cells| sum.add(&clock(cells)[at]));
                // What never happened is left out: most endpoints never end in most ways.
                if sum.buckets.iter().any(|count| *count > 0) {
                    let labels = [("realm", realm.as_str()), ("endpoint", endpoint), ("class", class.word())];
                    sum.encode(encoder.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let row = catalogue::REQUESTS;
        let mut encoder = encoder.encode_descriptor(row.name, row.help, None, MetricType::Counter)?;
        let cells: Vec<_> = self.snapshot().into_iter().flat_map(|(_, cells)| cells).collect();
        for (at, endpoint, class) in self.kinds() {
            for (method_at, method) in METHODS.into_iter().enumerate() {
                let of = |cells: &Arc<CallCells>| {
                    cells.requests[at * METHODS.len() + method_at].load(Ordering::Relaxed)
                };
                let total: u64 = cells.iter().map(of).sum();
                if total > 0 {
                    let labels = [("endpoint", endpoint), ("method", method), ("class", class.word())];
                    ConstCounter::new(total).encode(encoder.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    /// Every cell with its endpoint and class.
    fn kinds(&self) -> impl Iterator<Item = (usize, &'static str, StatusClass)> {
        let endpoints = self.endpoints.iter().enumerate();
        endpoints.flat_map(|(at, name)| StatusClass::ALL.map(|class| (cell(at, class), *name, class)))
    }
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Collector for CallMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_seconds(&mut encoder, &catalogue::REQUEST_SECONDS, |cells| &cells.request)?;
        self.encode_seconds(&mut encoder, &catalogue::PLATFORM_SECONDS, |cells| &cells.platform)?;
        self.encode_requests(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 600_000, 600_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        assert_eq!((sum.buckets[0], sum.buckets[1]), (2, 1));
        assert_eq!((sum.buckets[BUCKETS - 2], sum.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!(sum.nanos, 1_200_004 * 1_000_000);
    }

    #[test]
    fn every_class_has_a_cell_of_its_own() {
        for (at, class) in StatusClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at);
            assert!(catalogue::REQUESTS.allows("class", class.word()));
        }
        assert_eq!(StatusClass::of(StatusCode::NO_CONTENT), StatusClass::Success);
        assert_eq!(StatusClass::of(StatusCode::GATEWAY_TIMEOUT), StatusClass::ServerFault);
        assert_eq!(METHODS[method_index(&Method::from_bytes(b"BREW").unwrap())], "other");
    }
}
