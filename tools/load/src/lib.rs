//! The load generator behind `load` and `benches/load`: open loop at a
//! fixed rate, or closed loop as fast as responses come.
//!
//! The rule guarded here: it sends nothing to the real platform unless the plan says so, since real patients'
//! offices are there.

mod connection;
mod guard;
mod idle;
pub mod plot;
mod process;
mod report;
mod request_mix;
mod response;
mod schedule;
mod target;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

pub use idle::IdleConnections;
pub use process::{Usage, thread_time};
pub use report::{Latency, LoadReport, RequestReport};

use report::Tally;
use schedule::RunWindow;
use target::ResolvedTarget;
use worker::WorkerThread;

/// The header by which every response of a sandbox can be distinguished from the real platform's.
pub const SANDBOX_MARK: (&str, &str) = ("X-Sandbox", "genapi-gateway");

/// What is sent, where, and how fast.
#[derive(Clone)]
pub struct LoadPlan {
    /// Connections are shared out among them.
    pub targets: Vec<Url>,
    /// Each call goes to `/accounts/{name}` + its path, for one account
    /// after the other; empty: the path as it is.
    pub accounts: Vec<String>,
    /// Values of `X-Gateway-Key`, shared out among the connections.
    pub keys: Vec<HeaderValue>,
    /// Taken in turn by weight.
    pub mix: Vec<RequestSpec>,
    pub loop_mode: LoopMode,
    pub connections: usize,
    /// Each runs a share of the connections and of the rate.
    pub threads: usize,
    /// Not counted.
    pub warm_up: Duration,
    pub duration: Duration,
    /// A call that takes longer counts as an error.
    pub timeout: Duration,
    /// For an https target: whom to trust.
    pub trust: Option<Arc<rustls::ClientConfig>>,
    /// Also where the real platform, with its real accounts, is behind the target.
    pub real_platform: bool,
}

/// One call of the mix. `{account}` in its path or body stands for the account's name.
#[derive(Clone)]
pub struct RequestSpec {
    pub method: Method,
    /// Path and query, put behind the target's path.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub weight: u32,
}

/// Without headers and body: they may hold what nobody should read.
impl std::fmt::Debug for RequestSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}*{} {}", self.weight, self.method, self.path)
    }
}

/// What decides when the next call goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoopMode {
    /// Calls per second, whatever the target does.
    Open(f64),
    /// Each connection sends its next call when the last response is complete.
    Closed,
}

/// Why a run ended without a report.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    #[error("{target} cannot be reached: {why}")]
    Unreachable { target: Url, why: String },
    #[error("{0}")]
    LoadPlan(String),
    /// Nothing more was sent after this.
    #[error(
        "behind {target} is no sandbox: its answer ({status}) lacks {}: {}. A load test of the real platform reaches real accounts; --real-platform says that this is meant",
        SANDBOX_MARK.0, SANDBOX_MARK.1
    )]
    NotASandbox { target: Url, status: u16 },
    #[error("{target} refuses the call: {status} {code}")]
    Refused { target: Url, status: u16, code: String },
    #[error("cannot start: {0}")]
    System(String),
}

impl LoadPlan {
    /// One connection, closed loop, ten seconds, nothing to send yet.
    pub fn new(target: Url) -> Self {
        Self {
            targets: vec![target],
            accounts: Vec::new(),
            keys: Vec::new(),
            mix: Vec::new(),
            loop_mode: LoopMode::Closed,
            connections: 1,
            threads: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            trust: None,
            real_platform: false,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let wrong = |what: &str| Err(LoadError::LoadPlan(what.to_owned()));
        if self.targets.is_empty() {
            return wrong("no target is named");
        }
        if self.connections < self.targets.len().max(self.threads) || self.threads == 0 {
            return wrong("there must be at least one connection per target and per thread");
        }
        if let LoopMode::Open(rate) = self.loop_mode
            && !(rate.is_finite() && rate > 0.0)
        {
            return wrong("the rate must be above zero");
        }
        let odd = |name: &&String| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
        match self.accounts.iter().find(odd) {
            Some(name) => Err(LoadError::LoadPlan(format!("{name:?} is no account's name or id"))),
            None => Ok(()),
        }
    }
}

impl RequestSpec {
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    pub fn new(method: Method, path: impl Into<String>, body: Bytes) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body, weight: 1 }
    }
}

/// What has come back so far, the warm-up included; also the way to end a run early.
#[derive(Default)]
pub struct RunProgress {
    calls: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    stopped: AtomicBool,
}

/// [`RunProgress`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressCount {
    pub calls: u64,
    pub failures: u64,
    pub bytes: u64,
}

impl RunProgress {
    pub fn count(&self) -> ProgressCount {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        ProgressCount { calls: read(&self.calls), failures: read(&self.failures), bytes: read(&self.bytes) }
    }

    /// No further call goes out.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Runs the plan on threads of its own, blocking the caller, and returns what was measured.
pub fn run(plan: &LoadPlan, progress: &RunProgress) -> Result<LoadReport, LoadError> {
    plan.check()?;
    let targets = prepare(plan)?;
    let started = Instant::now();
    let counted_from = started + plan.warm_up;
    let window = RunWindow { started, counted_from, ends: counted_from + plan.duration };
    let fault = OnceLock::new();
    let tally = std::thread::scope(|scope| {
        let threads = (0..plan.threads).map(|number| {
            let thread = WorkerThread { plan, targets: &targets, window, number, progress, fault: &fault };
            scope.spawn(move || thread.run())
        });
        let mut tally = Tally::new(plan.mix.len());
        for thread in threads.collect::<Vec<_>>() {
            match thread.join() {
                Ok(Ok(part)) => tally.add(&part),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(LoadError::System("a thread of the generator died".into())),
            }
        }
        Ok(tally)
    })?;
    if let Some(error) = fault.into_inner() {
        return Err(error);
    }
    let counted = window.ends.min(Instant::now()).saturating_duration_since(counted_from);
    let counted = counted.max(Duration::from_millis(1));
    let names = plan.mix.iter().map(|call| format!("{} {}", call.method, call.path));
    Ok(tally.report(counted, names.collect(), started.elapsed() * plan.threads as u32))
}

/// Looks the targets up, and sees that a sandbox is behind each.
fn prepare(plan: &LoadPlan) -> Result<Vec<ResolvedTarget>, LoadError> {
    runtime()?.block_on(async {
        let mut targets = Vec::new();
        for url in &plan.targets {
            let target = ResolvedTarget::find(url, plan.trust.as_ref()).await?;
            if !plan.real_platform {
                guard::probe(plan, url, &target).await?;
            }
            targets.push(target);
        }
        Ok(targets)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| LoadError::System(error.to_string()))
}

#[cfg(test)]
mod tests;
