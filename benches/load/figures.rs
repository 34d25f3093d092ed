//! From samples to figures: medians and quartiles, ratios within a round, a table for the terminal and one
//! for the documentation.

use std::fmt::Write;

use serde_json::{Value, json};

use super::contest::{Per, Row, Sample};

/// A measured scenario, with what each entry is compared to.
pub struct Result {
    pub id: &'static str,
    pub what: String,
    pub per: Per,
    /// The label of the row that is 1.
    pub baseline: &'static str,
    pub rows: Vec<Row>,
    /// What else was found, a line each.
    pub notes: Vec<String>,
}

/// Lower quartile, median, upper quartile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread(pub f64, pub f64, pub f64);

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Some(Self(at(0.25), at(0.5), at(0.75)))
    }

    fn median(values: impl Iterator<Item = f64>) -> f64 {
        Self::of(values.collect()).map_or(f64::NAN, |spread| spread.1)
    }
}

/// Lines as a table; the first one has the headings.
pub fn ruled<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} "));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "|{}|", cells.collect::<Vec<_>>().join("|"));
        if number == 0 {
            let ruler = widths.iter().map(|width| "-".repeat(width + 2));
            let _ = writeln!(text, "|{}|", ruler.collect::<Vec<_>>().join("|"));
        }
    }
    text
}

impl Result {
    pub fn is_valid(&self) -> bool {
        self.rows.iter().all(|row| row.faults.is_empty())
    }

    fn row(&self, label: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.label == label)
    }

    /// Cost against the baseline's in the same round.
    pub fn ratio(&self, row: &Row) -> Option<Spread> {
        let baseline = self.row(self.baseline)?;
        let ratios = row.samples.iter().zip(&baseline.samples);
        Spread::of(ratios.filter_map(|(own, base)| Some(own.cost? / base.cost?)).collect())
    }

    /// Milliseconds on top of the direct way, each round's medians taken apart.
    fn added(&self, row: &Row) -> Option<f64> {
        let direct = self.row("direct")?;
        let added = row.samples.iter().zip(&direct.samples).map(|(own, direct)| own.p50 - direct.p50);
        Spread::of(added.collect()).map(|spread| spread.1)
    }

    /// A line per entry; `|` between the cells and a ruler make it a table for the documentation.
    pub fn table(&self) -> String {
        let unit = if self.per == Per::Call { "µs per call" } else { "CPU ms per GB" };
        let against = format!("against {}", self.baseline);
        let headings = [
            "contestant",
            unit,
            &against,
            "quartiles",
            "calls/s",
            "MB/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "added µs",
            "failed",
            "MiB",
        ];
        let mut lines = vec![headings.map(str::to_owned)];
        for row in &self.rows {
            lines.push(self.cells(row));
        }
        let mut text = format!("### {}: {}\n\n{}\n", self.id, self.what, ruled(&lines));
        for note in &self.notes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "- {note}");
        }
        for row in &self.rows {
            for fault in &row.faults {
                let _ = writeln!(text, "- **not valid**: {}: {fault}", row.label);
            }
        }
        text
    }

    fn cells(&self, row: &Row) -> [String; 12] {
        let median = |of: fn(&Sample) -> f64| Spread::median(row.samples.iter().map(of));
        let cost = Spread::of(row.samples.iter().filter_map(|sample| sample.cost).collect());
        let ratio = self.ratio(row);
        // A window holds too few downloads for percentiles.
        let per_call = self.per == Per::Call;
        let shown = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        [
            row.label.clone(),
            shown(cost.map(|cost| cost.1), 1),
            shown(ratio.map(|ratio| ratio.1), 2),
            ratio.map_or_else(|| "-".to_owned(), |Spread(low, _, high)| format!("{low:.2}-{high:.2}")),
            format!("{:.0}", median(|sample| sample.calls_per_second)),
            format!("{:.1}", median(|sample| sample.megabytes_per_second)),
            shown(per_call.then(|| median(|sample| sample.p50)), 3),
            shown(per_call.then(|| median(|sample| sample.p99)), 3),
            shown(per_call.then(|| median(|sample| sample.p999)), 3),
            shown(self.added(row).filter(|_| per_call).map(|added| added * 1e3), 0),
            format!("{:.2} %", median(|sample| sample.failed) * 100.0),
            shown(row.memory.map(|bytes| bytes as f64 / (1024.0 * 1024.0)), 1),
        ]
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let ratio = self.ratio(row).map(|Spread(low, median, high)| json!([low, median, high]));
            json!({"contestant": row.label, "ratio": ratio, "samples": row.samples, "memory": row.memory, "faults": row.faults})
        });
        json!({
            "scenario": self.id,
            "what": self.what,
            "baseline": self.baseline,
            "rows": rows.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}
