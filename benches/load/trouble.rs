//! Latency under trouble: while some callers go through one trouble each, do the others feel it? Quiet and
//! troubled windows take turns, and each trouble is compared to the quiet before and after it.
//!
//! The rule guarded here: a trouble that did not take place makes no figure. Whoever is in it counts what
//! came of it.

use std::fmt::{self, Write};
use std::time::Duration;

use anyhow::Context;
use genapi_load::LoopMode;
use serde::Serialize;
use serde_json::{Value, json};

use super::awake::CpuLatencyRequest;
use super::contest::{self, Account, Entry, Order, Rounds, Row, Sample, Workload};
use super::contestants::{Contestant, Entrant, Kind};
use super::disorder::{SLOW, SLOW_REFRESH};
use super::figures::{self, Spread};
use super::scenarios::SMALL;
use super::stage::BenchEnvironment;
use super::troubled::{self, Callers};

/// One trouble, and who is in it.
#[derive(Debug)]
pub struct Trouble {
    what: &'static str,
    account: Account,
    /// Taken in turn by the callers.
    paths: &'static [&'static str],
    callers: usize,
    pattern: CallPattern,
}

/// How the callers in trouble go about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CallPattern {
    /// Each asks again when it is answered, which takes at least this long.
    Again(Duration),
    /// Each asks once. One refresh answers all of them, after at least this long.
    Once(Duration),
    /// Nobody is ever answered completely.
    Never,
    /// A large response is read at so many bytes a second by every other
    /// caller, and left after as many by the rest.
    Slowly(u64),
}

/// What callers in trouble saw of one window.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    pub responded: u64,
    pub failed: u64,
    /// Callers with a call under way when the window was over.
    pub waiting: u64,
    pub shortest_ms: Option<u64>,
    pub bytes: u64,
    /// What the platform counted meanwhile.
    pub refreshes: u64,
    pub stalled: u64,
}

/// A trouble under way. Dropping it ends it.
pub struct Underway {
    trouble: &'static Trouble,
    callers: Callers,
    before: (u64, u64),
}

const MEGABYTE: u64 = 1_000_000;
/// Calls per second of those who are not in trouble: low enough to leave the core mostly idle, so that
/// waiting is what is seen.
const RATE: f64 = 1000.0;
/// The refresh has to fit in, and a p99 needs some thousand calls.
const WINDOW: Duration = Duration::from_secs(6);
/// A trouble has begun so long before the others are looked at: that dozens of callers connect in one instant
/// is not what is meant.
const SETTLING: Duration = Duration::from_secs(1);

static TROUBLES: [Trouble; 5] = [
    Trouble {
        what: "one slow account",
        account: Account::Large,
        paths: &["/practice-configuration?trouble=slow"],
        callers: 64,
        pattern: CallPattern::Again(SLOW),
    },
    Trouble {
        what: "one slow region",
        account: Account::Region,
        paths: &["/practice-configuration?trouble=slow"],
        // Each makes a connection that nobody else needs, in every window: more of them, and the work of
        // handshakes is what is seen.
        callers: 16,
        pattern: CallPattern::Again(SLOW),
    },
    Trouble {
        what: "stalled platform connections",
        account: Account::Large,
        paths: &["/practice-configuration?trouble=half-head", "/practice-configuration?trouble=half-body"],
        callers: 16,
        pattern: CallPattern::Never,
    },
    Trouble {
        what: "a refresh of 5 s",
        account: Account::Dying(0),
        paths: &["/practice-configuration?trouble=dead"],
        callers: 16,
        pattern: CallPattern::Once(SLOW_REFRESH),
    },
    Trouble {
        what: "two downloads by slow readers",
        account: Account::Large,
        paths: &["/order/1/download/IDE"],
        // One is read, one is left: what more of them cost is the work of moving them.
        callers: 2,
        pattern: CallPattern::Slowly(MEGABYTE),
    },
];

impl Trouble {
    /// Only a gateway knows more accounts than the two, and can refresh one.
    fn needs_gateway(&self) -> bool {
        matches!(self.account, Account::Region | Account::Dying(_))
    }

    pub fn begin(
        &'static self,
        contestant: &Contestant,
        stage: &BenchEnvironment,
        round: usize,
    ) -> anyhow::Result<Underway> {
        let account = match self.account {
            // One that was refreshed a moment ago is not refreshed again.
            Account::Dying(_) => Account::Dying(round),
            account => account,
        };
        let rounds = Rounds { count: 1, warm_up: Duration::ZERO, window: Duration::ZERO };
        let plans = self
            .paths
            .iter()
            .map(|path| Workload { account, ..Workload::get(path) }.plan(contestant, stage, rounds))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let before = counted(stage)?;
        let callers = troubled::start(&plans, self.callers, self.pattern)?;
        std::thread::sleep(SETTLING);
        Ok(Underway { trouble: self, callers, before })
    }

    /// Why this was not the trouble that was meant.
    fn fault(&self, seen: &Seen, lasted: Duration) -> Option<String> {
        let callers = self.callers as u64;
        let took = |least: Duration| {
            seen.shortest_ms.is_some_and(|shortest| u128::from(shortest) + EARLY >= least.as_millis())
        };
        let happened = match self.pattern {
            CallPattern::Again(least) => took(least) && seen.responded >= callers && seen.waiting == callers,
            CallPattern::Once(least) => took(least) && seen.responded == callers && seen.refreshes == 1,
            CallPattern::Never => seen.responded == 0 && seen.waiting == callers && seen.stalled == callers,
            CallPattern::Slowly(bytes_per_sec) => {
                let read = callers / 2 * (bytes_per_sec as f64 * lasted.as_secs_f64()) as u64;
                seen.responded == 0 && seen.waiting == callers && seen.bytes * 10 >= read * 9
            }
        };
        let is_fault = !happened || seen.failed > 0;
        is_fault.then(|| format!("the trouble was not what was meant: {callers} callers, {seen:?}"))
    }
}

/// Milliseconds: whoever joins a refresh a little later waits that much less.
const EARLY: u128 = 100;

impl Underway {
    /// What was seen, and why it does not count if it does not.
    pub fn end(self, stage: &BenchEnvironment) -> anyhow::Result<(Seen, Option<String>)> {
        let Self { trouble, callers, before } = self;
        // Asked before the callers hang up.
        let after = counted(stage)?;
        let (mut seen, lasted) = callers.stop()?;
        (seen.refreshes, seen.stalled) = (after.0 - before.0, after.1 - before.1);
        let fault = trouble.fault(&seen, lasted);
        Ok((seen, fault))
    }
}

/// Refreshes and stalls.
fn counted(stage: &BenchEnvironment) -> anyhow::Result<(u64, u64)> {
    let counters = stage.counters()?;
    let of = |name: &str| counters[name].as_u64().with_context(|| format!("no count of {name}"));
    Ok((of("refreshes")?, of("stalled")?))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered", self.responded)?;
        if let Some(shortest) = self.shortest_ms {
            write!(f, " after {:.1} s or more", shortest as f64 / 1e3)?;
        }
        write!(f, ", {} waiting at the end, {:.1} MB", self.waiting, self.bytes as f64 / 1e6)?;
        write!(f, ", {} refreshes, {} stalls", self.refreshes, self.stalled)
    }
}

/// One contestant's windows: every other row is a quiet one, the first and the last among them.
pub struct Figures {
    contestant: String,
    rows: Vec<Row>,
    rounds: Rounds,
    note: String,
}

/// A row with the quiet ones before and after it.
struct Compared<'a> {
    before: &'a Row,
    row: &'a Row,
    after: &'a Row,
}

/// Gateways, and whoever else was named: most proxies know only some of the troubles.
pub fn measure(
    entrants: &[Entrant],
    named: &[String],
    stage: &BenchEnvironment,
    rounds: Rounds,
) -> anyhow::Result<Vec<Figures>> {
    let rounds = Rounds { window: rounds.window.max(WINDOW), ..rounds };
    let is_gateway = |entrant: &Entrant| matches!(entrant.kind, Kind::Gateway(_));
    let taking_part = entrants.iter().filter(|entrant| is_gateway(entrant) || named.contains(&entrant.name));
    let awake = CpuLatencyRequest::ask();
    let each = taking_part.map(|entrant| {
        let dying = if is_gateway(entrant) { rounds.count } else { 0 };
        // Whatever wakes another core is felt in a p99, and so is a virtual machine whose second core has to
        // be found time for.
        let running = Entrant { dying, beside_generator: true, ..entrant.clone() }.start(stage)?;
        let entries = entries(&running, is_gateway(entrant));
        Ok(Figures {
            contestant: running.name.clone(),
            rows: contest::run(&entries, stage, rounds, Order::AsGiven)?,
            rounds,
            note: awake.note(),
        })
    });
    each.collect()
}

/// One of them is no trouble at all: how far it lies from the quiet around it is what no trouble explains.
fn entries(contestant: &Contestant, is_gateway: bool) -> Vec<Entry<'_>> {
    let job = Workload { loop_mode: LoopMode::Open(RATE), ..Workload::get(SMALL) };
    let entry = |label: &str, beside| Entry { label: label.to_owned(), contestant, job: job.clone(), beside };
    let quiet = || entry(QUIET, None);
    let troubles = TROUBLES
        .iter()
        .filter(|trouble| is_gateway || !trouble.needs_gateway())
        .map(|trouble| entry(trouble.what, Some(trouble)));
    let each = std::iter::once(entry("no trouble", None)).chain(troubles);
    std::iter::once(quiet()).chain(each.flat_map(|entry| [entry, quiet()])).collect()
}

const QUIET: &str = "quiet";

impl Compared<'_> {
    /// Against the mean of the two quiet windows around it.
    fn ratio(&self, of: fn(&Sample) -> f64) -> Option<Spread> {
        let around = self.before.samples.iter().zip(&self.after.samples);
        let quiet = around.map(|(before, after)| (of(before) + of(after)) / 2.0);
        Spread::of(self.row.samples.iter().zip(quiet).map(|(own, quiet)| of(own) / quiet).collect())
    }
}

impl Figures {
    pub fn is_valid(&self) -> bool {
        self.rows.iter().all(|row| row.faults.is_empty())
    }

    fn compared(&self) -> impl Iterator<Item = Compared<'_>> {
        let threes = self.rows.windows(3).step_by(2);
        threes.filter_map(|rows| match rows {
            [before, row, after] => Some(Compared { before, row, after }),
            _ => None,
        })
    }

    fn quiet(&self) -> impl Iterator<Item = &Sample> {
        self.rows.iter().step_by(2).flat_map(|row| &row.samples)
    }

    /// Against all quiet windows.
    fn calm_ratio(&self, row: &Row) -> Option<f64> {
        Some(calm(row.samples.iter())? / calm(self.quiet())?)
    }

    pub fn table(&self) -> String {
        let headings = ["trouble", "p50 ms", "p99 ms", "p50 against quiet", "p99 against quiet", CALM];
        let mut lines = vec![headings.map(str::to_owned)];
        let ratio = |spread: Option<Spread>| {
            let shown = |Spread(low, median, high): Spread| format!("{median:.2} ({low:.2}-{high:.2})");
            spread.map_or_else(|| "-".to_owned(), shown)
        };
        lines.push(cells(QUIET, self.quiet(), ["-", "-", "-"].map(str::to_owned)));
        lines.extend(self.compared().map(|compared| {
            let row = compared.row;
            let ratios = [
                ratio(compared.ratio(|sample| sample.p50)),
                ratio(compared.ratio(|sample| sample.p99)),
                self.calm_ratio(row).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            ];
            cells(&row.label, row.samples.iter(), ratios)
        }));
        let (name, Rounds { count, window, .. }) = (&self.contestant, self.rounds);
        let mut text = format!(
            "### trouble: {name}, {RATE} small GETs/s beside one trouble each, {count} windows of {window:?}\n\n"
        );
        text += &figures::ruled(&lines);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n- {}", self.note);
        for row in &self.rows {
            if let Some(seen) = row.samples.last().and_then(|sample| sample.beside.as_ref()) {
                let _ = writeln!(text, "- {}, in the last window: {seen}", row.label);
            }
            for fault in &row.faults {
                let _ = writeln!(text, "- **not valid**: {}: {fault}", row.label);
            }
        }
        text
    }

    /// All rows in the order in which they were measured; ratios on those that are compared.
    pub fn json(&self) -> Value {
        let plain = |row: &Row| {
            json!({
                "trouble": row.label,
                "samples": row.samples,
                "memory": row.memory,
                "faults": row.faults,
            })
        };
        let mut rows: Vec<Value> = self.rows.iter().map(plain).collect();
        for (row, compared) in rows.iter_mut().skip(1).step_by(2).zip(self.compared()) {
            let spread = |of| compared.ratio(of).map(|Spread(low, median, high)| json!([low, median, high]));
            row["p50_ratio"] = json!(spread(|sample| sample.p50));
            row["p99_ratio"] = json!(spread(|sample| sample.p99));
            row["calm_p99_ratio"] = json!(self.calm_ratio(compared.row));
        }
        json!({"scenario": "trouble", "contestant": self.contestant, "rows": rows})
    }
}

const CALM: &str = "p99 of calm windows against quiet";

/// The p99 that only a quarter of the windows stay below. What the machine itself does to a window only ever
/// adds to it, and not to each one; what a trouble does is in all of them.
fn calm<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<f64> {
    Spread::of(samples.map(|sample| sample.p99).collect()).map(|Spread(low, ..)| low)
}

fn cells<'a>(label: &str, samples: impl Iterator<Item = &'a Sample>, ratios: [String; 3]) -> [String; 6] {
    let samples: Vec<&Sample> = samples.collect();
    let milliseconds = |of: fn(&Sample) -> f64| {
        let median = Spread::of(samples.iter().map(|sample| of(sample)).collect());
        median.map_or_else(|| "-".to_owned(), |Spread(_, median, _)| format!("{median:.3}"))
    };
    let [p50, p99, calm] = ratios;
    [label.to_owned(), milliseconds(|sample| sample.p50), milliseconds(|sample| sample.p99), p50, p99, calm]
}
