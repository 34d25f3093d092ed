//! Short windows, each entry in turn, round after round: the machine drifts within minutes, so only figures
//! of one round are compared.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use genapi_load::{LoadPlan, LoopMode, RequestSpec, RunProgress, Usage};
use http::{HeaderValue, Method, header};
use serde::Serialize;

use super::contestants::{Contestant, clinic};
use super::disorder;
use super::platform::{self, LARGE_TOKEN, PATH, SMALL_TOKEN};
use super::stage::BenchEnvironment;
use super::trouble::{Seen, Trouble};

/// What is asked for, and how.
#[derive(Clone, Debug)]
pub struct Workload {
    pub method: Method,
    /// Below the vendor's Path, with a query.
    pub path: &'static str,
    pub account: Account,
    pub body: usize,
    pub tls: bool,
    pub connections: usize,
    pub loop_mode: LoopMode,
    pub per: Per,
    /// Bytes of every response, where they are the same for every contestant.
    pub bytes: Option<u64>,
    /// Responses of 400 and above are part of the game.
    pub troubled: bool,
    /// What every window begins with.
    pub before: Option<Precondition>,
}

/// Many calls at once, which leave as many connections to the platform, and a pause, in which those grow old.
#[derive(Clone, Copy, Debug)]
pub struct Precondition {
    pub path: &'static str,
    pub connections: usize,
    pub pause: Duration,
}

/// Which accounts a job calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Account {
    Small,
    Large,
    /// Spread over this many.
    Many(usize),
    /// Its route leads to the slow region.
    Region,
    /// The n-th of those whose token has died.
    Dying(usize),
}

/// What processor time is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Per {
    Call,
    Gigabyte,
}

/// Someone to be measured: the same contestant may take part with several jobs.
pub struct Entry<'a> {
    pub label: String,
    pub contestant: &'a Contestant,
    pub job: Workload,
    /// What others go through meanwhile.
    pub beside: Option<&'static Trouble>,
}

/// How long to look, how often.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    pub count: usize,
    pub warm_up: Duration,
    pub window: Duration,
}

/// One window of one entry.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Microseconds per call, or milliseconds per gigabyte; none for the platform itself.
    pub cost: Option<f64>,
    pub calls_per_second: f64,
    pub megabytes_per_second: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// From 0 to 1: what callers saw fail.
    pub failed: f64,
    /// How busy the generator was, from 0 to 1.
    pub generator: f64,
    /// What those in trouble saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Seen>,
}

/// All windows of one entry, and what makes them worthless.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub label: String,
    pub samples: Vec<Sample>,
    pub memory: Option<u64>,
    pub faults: Vec<String>,
}

impl Workload {
    pub fn get(path: &'static str) -> Self {
        Self {
            method: Method::GET,
            path,
            account: Account::Small,
            body: 0,
            tls: false,
            connections: 32,
            loop_mode: LoopMode::Closed,
            per: Per::Call,
            bytes: Some(platform::SMALL_BYTES as u64),
            troubled: false,
            before: None,
        }
    }

    /// Returns when the window may begin.
    fn prepare(
        &self,
        contestant: &Contestant,
        stage: &BenchEnvironment,
        rounds: Rounds,
    ) -> anyhow::Result<()> {
        let Some(Precondition { path, connections, pause }) = self.before else { return Ok(()) };
        let short = Rounds { warm_up: Duration::ZERO, window: Duration::from_millis(200), ..rounds };
        let plan = Workload { connections, ..Self::get(path) }.plan(contestant, stage, short)?;
        genapi_load::run(&plan, &RunProgress::default())?;
        std::thread::sleep(pause);
        Ok(())
    }

    pub fn plan(
        &self,
        contestant: &Contestant,
        stage: &BenchEnvironment,
        rounds: Rounds,
    ) -> anyhow::Result<LoadPlan> {
        let (name, size) = match self.account {
            Account::Small => ("small".to_owned(), SMALL_TOKEN),
            Account::Large => ("large".to_owned(), LARGE_TOKEN),
            Account::Many(_) => ("{account}".to_owned(), SMALL_TOKEN),
            Account::Region => (disorder::REGION.to_owned(), SMALL_TOKEN),
            Account::Dying(number) => (disorder::dying(number), SMALL_TOKEN),
        };
        let separator = if self.path.contains('?') { '&' } else { '?' };
        // The platform compares the account that is named here with the bearer that comes along.
        let path = format!("{PATH}{}{separator}for={name}", self.path);
        let prefix = match self.account {
            _ if contestant.is_direct() => String::new(),
            Account::Many(_) => String::new(),
            _ => format!("/accounts/{name}"),
        };
        let body = Bytes::from(vec![b' '; self.body]);
        let mut call = RequestSpec::new(self.method.clone(), prefix + &path, body);
        if self.body > 0 {
            call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        call.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        call.headers.insert(header::USER_AGENT, HeaderValue::from_static("legacy-application/1.0"));
        if contestant.is_direct() {
            let bearer = format!("Bearer {}", platform::token(&name, size));
            call.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&bearer)?);
        }
        let accounts = match self.account {
            Account::Many(count) => (0..count).map(clinic).collect(),
            _ => Vec::new(),
        };
        Ok(LoadPlan {
            mix: vec![call],
            accounts,
            loop_mode: self.loop_mode,
            connections: self.connections,
            warm_up: rounds.warm_up,
            duration: rounds.window + Duration::from_millis(50),
            trust: Some(stage.trust.clone()),
            real_platform: true, // The platform is ours, and the generator's checks would be part of the figures.
            ..LoadPlan::new(contestant.url(self.tls)?)
        })
    }
}

/// In which order a round takes its entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Each round begins with another one, so that nobody has the best place.
    Rotating,
    /// As given: each is compared with those before and after it.
    AsGiven,
}

/// Measures all entries in turn.
pub fn run(
    entries: &[Entry],
    stage: &BenchEnvironment,
    rounds: Rounds,
    order: Order,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = entries
        .iter()
        .map(|entry| Row {
            label: entry.label.clone(),
            samples: Vec::new(),
            memory: None,
            faults: Vec::new(),
        })
        .collect();
    for round in 0..rounds.count {
        for step in 0..entries.len() {
            let at = match order {
                Order::Rotating => (round + step) % entries.len(),
                Order::AsGiven => step,
            };
            let wrong = stage.wrong()?;
            let (sample, faults) = window(&entries[at], stage, rounds, round)?;
            rows[at].samples.push(sample);
            rows[at].faults.extend(faults);
            let wrong = stage.wrong()? - wrong;
            if wrong > 0 {
                rows[at].faults.push(format!("{wrong} requests reached the platform wrong"));
            }
        }
    }
    for (row, entry) in rows.iter_mut().zip(entries) {
        row.memory = entry.contestant.memory();
    }
    Ok(rows)
}

fn window(
    entry: &Entry,
    stage: &BenchEnvironment,
    rounds: Rounds,
    round: usize,
) -> anyhow::Result<(Sample, Vec<String>)> {
    let Entry { contestant, job, label, beside } = entry;
    let plan = job.plan(contestant, stage, rounds)?;
    job.prepare(contestant, stage, rounds)?;
    let beside = beside.map(|trouble| trouble.begin(contestant, stage, round)).transpose()?;
    let progress = RunProgress::default();
    let (report, cost) = std::thread::scope(|scope| {
        let running = scope.spawn(|| genapi_load::run(&plan, &progress));
        std::thread::sleep(rounds.warm_up);
        let begin = (progress.count(), contestant.pid().and_then(Usage::processor_of_tree));
        std::thread::sleep(rounds.window);
        let end = (progress.count(), contestant.pid().and_then(Usage::processor_of_tree));
        let report = running.join().map_err(|_| anyhow::anyhow!("the generator died"))?;
        let spent = end.1.zip(begin.1).map(|(end, begin)| end.saturating_sub(begin));
        let cost = spent.map(|spent| match job.per {
            Per::Call => spent.as_secs_f64() * 1e6 / (end.0.calls - begin.0.calls).max(1) as f64,
            Per::Gigabyte => spent.as_secs_f64() * 1e3 / ((end.0.bytes - begin.0.bytes).max(1) as f64 / 1e9),
        });
        let seconds = rounds.window.as_secs_f64();
        let megabytes = (end.0.bytes - begin.0.bytes) as f64 / seconds / 1e6;
        anyhow::Ok((report, (cost, megabytes)))
    })?;
    let report = report.with_context(|| label.clone())?;
    let mut faults = Vec::new();
    let beside = beside.map(|trouble| trouble.end(stage)).transpose()?;
    if let Some((_, Some(fault))) = &beside {
        faults.push(fault.clone());
    }
    if report.calls == 0 && job.per == Per::Call {
        faults.push("no call was answered".to_owned());
    }
    if report.failures + report.unsent > 0 && !job.troubled {
        let (statuses, errors) = (&report.statuses, &report.errors);
        faults.push(format!("{} failed, {} unsent: {statuses:?} {errors:?}", report.failures, report.unsent));
    }
    if let Some(bytes) = job.bytes
        && report.failures == 0
        && report.bytes != report.calls * bytes
    {
        faults.push(format!("{} answers had {} bytes, not {bytes} each", report.calls, report.bytes));
    }
    let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
    let sample = Sample {
        cost: cost.0,
        calls_per_second: report.calls_per_second,
        megabytes_per_second: cost.1,
        p50: milliseconds(report.latency_us.p50),
        p99: milliseconds(report.latency_us.p99),
        p999: milliseconds(report.latency_us.p999),
        failed: report.failure_share(),
        generator: report.generator,
        beside: beside.map(|(seen, _)| seen),
    };
    Ok((sample, faults))
}
