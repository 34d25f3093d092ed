//! One thread of the generator: its connections, each sending a call whenever the schedule has one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{KeepAliveConnection, SharedReadBuffer};
use super::report::{RequestOutcome, Tally};
use super::request_mix::{RequestMix, RequestTemplate};
use super::response::ReceivedResponse;
use super::schedule::{DueCall, RunWindow, Schedule};
use super::target::ResolvedTarget;
use super::{LoadError, LoadPlan, LoopMode, RunProgress, guard, process, runtime};

/// What one thread has to do.
pub struct WorkerThread<'a> {
    pub plan: &'a LoadPlan,
    pub targets: &'a [ResolvedTarget],
    pub window: RunWindow,
    pub number: usize,
    pub progress: &'a RunProgress,
    pub fault: &'a OnceLock<LoadError>,
}

/// What its connections share.
struct WorkerContext<'a> {
    plan: &'a LoadPlan,
    progress: &'a RunProgress,
    fault: &'a OnceLock<LoadError>,
    schedule: Schedule,
    read_buffer: SharedReadBuffer,
    tally: RefCell<Tally>,
}

/// Between two calls that got no response, in closed loop: a target that is down must not be hammered.
const PAUSE: Duration = Duration::from_millis(20);

impl WorkerThread<'_> {
    pub fn run(self) -> Result<Tally, LoadError> {
        let before = process::thread_time();
        let context = WorkerContext {
            plan: self.plan,
            progress: self.progress,
            fault: self.fault,
            schedule: Schedule::new(self.plan.loop_mode, &self.window, self.number, self.plan.threads),
            read_buffer: SharedReadBuffer::new(),
            tally: RefCell::new(Tally::new(self.plan.mix.len())),
        };
        let loops = self.loops()?;
        runtime()?.block_on(async {
            let all = futures_util::future::join_all(loops.iter().map(|one| one.run(&context)));
            match self.plan.loop_mode {
                // What is under way at the end is not waited for: it could be a long download.
                LoopMode::Closed => {
                    let _ = tokio::time::timeout_at(self.window.ends.into(), all).await;
                }
                LoopMode::Open(_) => {
                    all.await;
                }
            }
        });
        let mut tally = context.tally.into_inner();
        if !self.progress.is_stopped() {
            tally.unsent = context.schedule.unsent();
        }
        tally.processor = process::thread_time().saturating_sub(before);
        Ok(tally)
    }

    /// This thread's connections, not yet opened.
    fn loops(&self) -> Result<Vec<ConnectionLoop<'_>>, LoadError> {
        let LoadPlan { keys, connections, threads, targets, .. } = self.plan;
        let accounts: Rc<[String]> = self.plan.accounts.as_slice().into();
        let mut mixes = std::collections::HashMap::new();
        let mut loops = Vec::new();
        for number in (self.number..*connections).step_by(*threads) {
            let key = (number % targets.len(), number % keys.len().max(1));
            let target = &self.targets[key.0];
            let mix = match mixes.entry(key) {
                std::collections::hash_map::Entry::Occupied(mix) => Rc::clone(mix.get()),
                std::collections::hash_map::Entry::Vacant(room) => {
                    let mix = RequestMix::new(self.plan, target, keys.get(key.1), accounts.clone())?;
                    Rc::clone(room.insert(Rc::new(mix)))
                }
            };
            loops.push(ConnectionLoop { target, url: &targets[key.0], mix });
        }
        Ok(loops)
    }
}

/// One connection's worth of work.
struct ConnectionLoop<'a> {
    target: &'a ResolvedTarget,
    url: &'a url::Url,
    mix: Rc<RequestMix>,
}

impl ConnectionLoop<'_> {
    async fn run(&self, context: &WorkerContext<'_>) {
        let mut connection: Option<KeepAliveConnection> = None;
        let mut request = Vec::new();
        while !context.progress.is_stopped() {
            let Some(due) = context.schedule.next().await else { return };
            let template = self.mix.next_request(due.number, &mut request);
            let call = self.send(&mut connection, template, &request, context);
            let result = match tokio::time::timeout(context.plan.timeout, call).await {
                Ok(result) => result,
                Err(_) => {
                    connection = None;
                    Err("timed out".to_owned())
                }
            };
            let without_response = result.is_err();
            self.record(template, due, result, context);
            if without_response && context.plan.loop_mode == LoopMode::Closed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One call, on the kept connection where it still works.
    async fn send(
        &self,
        connection: &mut Option<KeepAliveConnection>,
        template: &RequestTemplate,
        request: &[u8],
        context: &WorkerContext<'_>,
    ) -> Result<ReceivedResponse, String> {
        let on_body = |bytes| {
            context.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        if let Some(mut kept) = connection.take() {
            match kept.exchange(request, template.is_head, &context.read_buffer, on_body).await {
                Ok(response) => {
                    *connection = kept.usable.then_some(kept);
                    return Ok(response);
                }
                // The other side may close an idle connection at any time; that is no fault of it.
                Err(broken) if broken.before_response && template.repeatable => {}
                Err(broken) => return Err(broken.why),
            }
        }
        let mut fresh = KeepAliveConnection::open(self.target).await?;
        let response = fresh.exchange(request, template.is_head, &context.read_buffer, on_body).await;
        let response = response.map_err(|broken| broken.why)?;
        *connection = fresh.usable.then_some(fresh);
        Ok(response)
    }

    fn record(
        &self,
        template: &RequestTemplate,
        due: DueCall,
        result: Result<ReceivedResponse, String>,
        context: &WorkerContext<'_>,
    ) {
        let progress = context.progress;
        let failed = result.as_ref().map_or(true, |response| response.status >= 400);
        progress.calls.fetch_add(1, Ordering::Relaxed);
        progress.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        if let Ok(response) = &result
            && !context.plan.real_platform
            && let Err(error) = guard::require_sandbox(self.url, response)
        {
            let _ = context.fault.set(error);
            progress.stop();
        }
        let now = Instant::now();
        let Schedule { counted_from, ends, .. } = context.schedule;
        let counts = match context.plan.loop_mode {
            LoopMode::Closed => now >= counted_from && now <= ends,
            LoopMode::Open(_) => due.timed_from >= counted_from,
        };
        if counts {
            let outcome = match result {
                Ok(ReceivedResponse { status, bytes, refusal, .. }) => {
                    RequestOutcome::Responded { status, bytes, refusal }
                }
                Err(why) => RequestOutcome::NoResponse(why),
            };
            let mut tally = context.tally.borrow_mut();
            tally.delayed += u64::from(due.delayed);
            tally.record(template.index, now - due.timed_from, outcome);
        }
    }
}
