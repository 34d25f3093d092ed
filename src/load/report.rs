//! What a run has measured: counts, percentiles, a table and JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Counted while running; one per connection, added up at the end.
pub struct Tally {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub calls: u64,
    pub calls_per_second: f64,
    pub bytes: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// No answer at all, by what went wrong.
    pub errors: BTreeMap<String, u64>,
    pub latency_us: Latency,
}

/// Microseconds, from the moment at which a call was due to the last byte of its answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// A minute in microseconds: longer calls are counted as this.
const LONGEST: u64 = 60_000_000;

impl Tally {
    pub fn new() -> Self {
        let latency = Histogram::new_with_max(LONGEST, 3).expect("constant bounds that the library allows");
        Self { latency, statuses: BTreeMap::new(), errors: BTreeMap::new(), bytes: 0 }
    }

    pub fn record(&mut self, took: Duration, outcome: Result<(u16, u64), String>) {
        match outcome {
            Ok((status, bytes)) => {
                self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
                *self.statuses.entry(status).or_default() += 1;
                self.bytes += bytes;
            }
            Err(why) => *self.errors.entry(why).or_default() += 1,
        }
    }

    pub fn add(&mut self, other: &Tally) {
        // Equal bounds, so that nothing can be out of range.
        let _ = self.latency.add(&other.latency);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (why, count) in &other.errors {
            *self.errors.entry(why.clone()).or_default() += count;
        }
        self.bytes += other.bytes;
    }

    pub fn report(self, duration: Duration) -> Report {
        let at = |quantile: f64| self.latency.value_at_quantile(quantile);
        let calls = self.statuses.values().sum();
        Report {
            seconds: duration.as_secs_f64(),
            calls,
            calls_per_second: calls as f64 / duration.as_secs_f64(),
            bytes: self.bytes,
            latency_us: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: self.latency.max(),
            },
            statuses: self.statuses,
            errors: self.errors,
        }
    }
}

impl Report {
    /// Answers of 500 and above, and calls without an answer.
    pub fn failures(&self) -> u64 {
        let bad: u64 = self.statuses.range(500..).map(|(_, count)| count).sum();
        bad + self.errors.values().sum::<u64>()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} calls in {:.0} s: {:.0}/s, {:.1} MB/s",
            self.calls,
            self.seconds,
            self.calls_per_second,
            self.bytes as f64 / self.seconds / 1e6
        )?;
        let Latency { p50, p90, p99, p999, max } = self.latency_us;
        writeln!(f, "latency µs   p50 {p50}   p90 {p90}   p99 {p99}   p99.9 {p999}   max {max}")?;
        let statuses = self.statuses.iter().map(|(status, count)| format!("{status}: {count}"));
        writeln!(f, "statuses     {}", statuses.collect::<Vec<_>>().join("   "))?;
        for (why, count) in &self.errors {
            writeln!(f, "no answer    {count} × {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_failures_come_from_all_connections_together() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        for millis in 1..=99 {
            one.record(Duration::from_millis(millis), Ok((200, 10)));
        }
        two.record(Duration::from_millis(100), Ok((503, 0)));
        two.record(Duration::from_millis(1), Err("timed out".into()));
        one.add(&two);
        let report = one.report(Duration::from_secs(10));
        assert_eq!((report.calls, report.bytes, report.failures()), (100, 990, 2));
        assert!((49_900..=50_100).contains(&report.latency_us.p50), "{:?}", report.latency_us);
        assert!((99_900..=100_100).contains(&report.latency_us.max), "{:?}", report.latency_us);
    }
}
