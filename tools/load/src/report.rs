//! What a run has measured: counts, percentiles, a table and JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counted while running; one per thread, added up at the end.
pub struct Tally {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    refusals: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    bytes: u64,
    /// By place in the mix.
    calls: Vec<CallTally>,
    pub delayed: u64,
    pub unsent: u64,
    /// Processor time of the generator's own threads.
    pub processor: Duration,
}

/// The counts of one call of the mix.
struct CallTally {
    latency: Histogram<u64>,
    failures: u64,
}

/// How one call came out.
pub enum RequestOutcome {
    Responded { status: u16, bytes: u64, refusal: Option<String> },
    NoResponse(String),
}

/// What a run has measured; as JSON for programs, by `Display` for people.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    pub seconds: f64,
    /// Responses within the counted time.
    pub calls: u64,
    pub calls_per_second: f64,
    pub bytes: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// Responses that the gateway made up itself, by code; they are in `statuses` too.
    pub refusals: BTreeMap<String, u64>,
    /// No response at all, by what went wrong.
    pub errors: BTreeMap<String, u64>,
    /// Statuses of 400 and above, and calls without a response.
    pub failures: u64,
    /// Calls that were due while every connection was busy; their waiting is in their latency.
    #[serde(rename = "waited")]
    pub delayed: u64,
    /// Calls that were due and never went out: the target, or the generator, could not keep up.
    pub unsent: u64,
    pub latency_us: Latency,
    /// The same by call, in the order of the mix.
    pub by_call: Vec<RequestReport>,
    /// Percentile and microseconds, for a plot.
    pub curve: Vec<(f64, u64)>,
    /// How much of its processors the generator itself used, from 0 to 1.
    pub generator: f64,
}

/// The same for one call of the mix.
#[derive(Debug, Clone, Serialize)]
pub struct RequestReport {
    pub call: String,
    pub calls: u64,
    pub failures: u64,
    pub latency_us: Latency,
}

/// Microseconds, from the moment at which a call was due to the last byte of its response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// A minute in microseconds: longer calls are counted as this.
const LONGEST: u64 = 60_000_000;
/// Above this the generator is likely to be what is measured.
const BUSY: f64 = 0.9;

impl Tally {
    pub fn new(calls: usize) -> Self {
        Self {
            latency: histogram(),
            statuses: BTreeMap::new(),
            refusals: BTreeMap::new(),
            errors: BTreeMap::new(),
            bytes: 0,
            calls: (0..calls).map(|_| CallTally { latency: histogram(), failures: 0 }).collect(),
            delayed: 0,
            unsent: 0,
            processor: Duration::ZERO,
        }
    }

    /// `call` is the place in the mix.
    pub fn record(&mut self, call: usize, took: Duration, outcome: RequestOutcome) {
        match outcome {
            RequestOutcome::Responded { status, bytes, refusal } => {
                let took = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
                self.latency.saturating_record(took);
                self.calls[call].latency.saturating_record(took);
                self.calls[call].failures += u64::from(status >= 400);
                *self.statuses.entry(status).or_default() += 1;
                self.bytes += bytes;
                if let Some(code) = refusal {
                    *self.refusals.entry(code).or_default() += 1;
                }
            }
            RequestOutcome::NoResponse(why) => {
                self.calls[call].failures += 1;
                *self.errors.entry(why).or_default() += 1;
            }
        }
    }

    pub fn add(&mut self, other: &Tally) {
        // Equal bounds everywhere, so that nothing can be out of range.
        let _ = self.latency.add(&other.latency);
        for (mine, theirs) in self.calls.iter_mut().zip(&other.calls) {
            let _ = mine.latency.add(&theirs.latency);
            mine.failures += theirs.failures;
        }
        merge(&mut self.statuses, &other.statuses);
        merge(&mut self.refusals, &other.refusals);
        merge(&mut self.errors, &other.errors);
        self.bytes += other.bytes;
        self.delayed += other.delayed;
        self.unsent += other.unsent;
        self.processor += other.processor;
    }

    /// `names` are those of the calls; `available` is how much processor time the generator could have used.
    pub fn report(self, duration: Duration, names: Vec<String>, available: Duration) -> LoadReport {
        let by_call = names.into_iter().zip(&self.calls).map(|(call, tally)| RequestReport {
            call,
            calls: tally.latency.len(),
            failures: tally.failures,
            latency_us: Latency::of(&tally.latency),
        });
        let bad: u64 = self.statuses.range(400..).map(|(_, count)| count).sum();
        let calls = self.latency.len();
        LoadReport {
            seconds: duration.as_secs_f64(),
            calls,
            calls_per_second: calls as f64 / duration.as_secs_f64(),
            bytes: self.bytes,
            failures: bad + self.errors.values().sum::<u64>(),
            delayed: self.delayed,
            unsent: self.unsent,
            latency_us: Latency::of(&self.latency),
            by_call: by_call.collect(),
            curve: curve(&self.latency),
            generator: self.processor.as_secs_f64() / available.as_secs_f64(),
            statuses: self.statuses,
            refusals: self.refusals,
            errors: self.errors,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST, 3).expect("constant bounds that the library allows")
}

fn merge<K: Ord + Clone>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key.clone()).or_default() += count;
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() }
    }
}

/// Eight points per nine, as far as the number of calls carries.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, u64)> {
    let calls = latency.len() as f64;
    let quantiles = (0..).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 8.0));
    quantiles
        .take_while(|quantile| (1.0 - quantile) * calls >= 1.0)
        .map(|quantile| (quantile * 100.0, latency.value_at_quantile(quantile)))
        .collect()
}

impl LoadReport {
    /// Failed and unsent calls as a share of all.
    pub fn failure_share(&self) -> f64 {
        let without_response: u64 = self.errors.values().sum();
        let failed = self.failures + self.unsent;
        failed as f64 / ((self.calls + without_response + self.unsent).max(1)) as f64
    }

    /// The generator was so busy that its own limit may have been measured.
    pub fn is_doubtful(&self) -> bool {
        self.generator > BUSY
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / self.seconds / 1e6;
        let Self { calls, seconds, calls_per_second, .. } = self;
        writeln!(f, "{calls} calls in {seconds:.0} s: {calls_per_second:.0}/s, {megabytes:.1} MB/s")?;
        let total = RequestReport {
            call: "all calls".into(),
            calls: *calls,
            failures: self.failures,
            latency_us: self.latency_us,
        };
        let rows: Vec<&RequestReport> = match self.by_call.as_slice() {
            [_] => vec![&total],
            several => several.iter().chain([&total]).collect(),
        };
        let width = rows.iter().map(|row| row.call.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>7}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "", "calls", "failed", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for row in rows {
            write!(f, "{:width$}  {:>9}  {:>7}", row.call, row.calls, row.failures)?;
            let Latency { p50, p90, p99, p999, max } = row.latency_us;
            for microseconds in [p50, p90, p99, p999, max] {
                write!(f, "  {:>9.3}", microseconds as f64 / 1e3)?;
            }
            writeln!(f)?;
        }
        let statuses = self.statuses.iter().map(|(status, count)| format!("{status}: {count}"));
        writeln!(f, "statuses     {}", statuses.collect::<Vec<_>>().join("   "))?;
        for (code, count) in &self.refusals {
            writeln!(f, "refused      {count} × {code}")?;
        }
        for (why, count) in &self.errors {
            writeln!(f, "no answer    {count} × {why}")?;
        }
        if self.delayed > 0 {
            writeln!(
                f,
                "waited       {} calls found every connection busy; more --connections would show whether the target is the limit",
                self.delayed
            )?;
        }
        if self.unsent > 0 {
            writeln!(f, "unsent       {} calls were due and never went out", self.unsent)?;
        }
        if self.is_doubtful() {
            let share = self.generator * 100.0;
            writeln!(
                f,
                "doubtful     the generator used {share:.0} % of its own processor: it may be the limit; try --threads"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn responded(status: u16, bytes: u64) -> RequestOutcome {
        RequestOutcome::Responded { status, bytes, refusal: None }
    }

    #[test]
    fn percentiles_and_failures_come_from_all_threads_and_calls_together() {
        let (mut one, mut two) = (Tally::new(2), Tally::new(2));
        for millis in 1..=99 {
            one.record(0, Duration::from_millis(millis), responded(200, 10));
        }
        two.record(1, Duration::from_millis(100), responded(403, 0));
        two.record(1, Duration::from_millis(1), RequestOutcome::NoResponse("timed out".into()));
        two.unsent = 1;
        one.add(&two);
        let names = vec!["GET /a".to_owned(), "GET /b".to_owned()];
        let report = one.report(Duration::from_secs(10), names, Duration::from_secs(10));
        assert_eq!((report.calls, report.bytes, report.failures), (100, 990, 2));
        assert!((report.failure_share() - 3.0 / 102.0).abs() < 1e-9);
        assert!((49_900..=50_100).contains(&report.latency_us.p50), "{:?}", report.latency_us);
        assert_eq!((report.by_call[0].failures, report.by_call[1].failures), (0, 2));
        let (percentile, last) = *report.curve.last().unwrap();
        assert!(percentile <= 99.001 && (98_900..=100_100).contains(&last), "{percentile} {last}");
        assert!(report.to_string().contains("GET /b"), "{report}");
    }

    #[test]
    fn a_run_without_any_response_still_makes_a_report() {
        let mut tally = Tally::new(1);
        tally.record(0, Duration::ZERO, RequestOutcome::NoResponse("refused".into()));
        let report = tally.report(Duration::from_secs(1), vec!["GET /".into()], Duration::from_secs(1));
        assert_eq!((report.calls, report.failures, report.curve.len()), (0, 1, 0));
        assert_eq!(report.failure_share(), 1.0);
    }
}
