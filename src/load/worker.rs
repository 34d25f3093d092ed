//! One thread of the generator: its connections, each sending a call whenever the schedule has one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{Connection, Scratch};
use super::deck::{Card, Deck};
use super::report::{Outcome, Tally};
use super::response::ReceivedResponse;
use super::schedule::{Schedule, Turn, Window};
use super::target::Target;
use super::{LoadError, Pace, Plan, Progress, guard, process, runtime};

/// What one thread has to do.
pub struct Thread<'a> {
    pub plan: &'a Plan,
    pub targets: &'a [Target],
    pub window: Window,
    pub number: usize,
    pub progress: &'a Progress,
    pub fault: &'a OnceLock<LoadError>,
}

/// What its connections share.
struct Shared<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    fault: &'a OnceLock<LoadError>,
    schedule: Schedule,
    scratch: Scratch,
    tally: RefCell<Tally>,
}

/// Between two calls that got no answer, in closed loop: a target that is down must not be hammered.
const PAUSE: Duration = Duration::from_millis(20);

impl Thread<'_> {
    pub fn run(self) -> Result<Tally, LoadError> {
        let before = process::thread_time();
        let shared = Shared {
            plan: self.plan,
            progress: self.progress,
            fault: self.fault,
            schedule: Schedule::new(self.plan.pace, &self.window, self.number, self.plan.threads),
            scratch: Scratch::new(),
            tally: RefCell::new(Tally::new(self.plan.mix.len())),
        };
        let lines = self.lines()?;
        runtime()?.block_on(async {
            let all = futures_util::future::join_all(lines.iter().map(|line| line.work(&shared)));
            match self.plan.pace {
                // What is under way at the end is not waited for: it could be a long download.
                Pace::Closed => {
                    let _ = tokio::time::timeout_at(self.window.ends.into(), all).await;
                }
                Pace::Open(_) => {
                    all.await;
                }
            }
        });
        let mut tally = shared.tally.into_inner();
        if !self.progress.is_stopped() {
            tally.unsent = shared.schedule.unsent();
        }
        tally.processor = process::thread_time().saturating_sub(before);
        Ok(tally)
    }

    /// This thread's connections, not yet opened.
    fn lines(&self) -> Result<Vec<Line<'_>>, LoadError> {
        let Plan { keys, connections, threads, targets, .. } = self.plan;
        let accounts: Rc<[String]> = self.plan.accounts.as_slice().into();
        let mut decks = std::collections::HashMap::new();
        let mut lines = Vec::new();
        for number in (self.number..*connections).step_by(*threads) {
            let place = (number % targets.len(), number % keys.len().max(1));
            let target = &self.targets[place.0];
            let deck = match decks.entry(place) {
                std::collections::hash_map::Entry::Occupied(deck) => Rc::clone(deck.get()),
                std::collections::hash_map::Entry::Vacant(room) => {
                    let deck = Deck::new(self.plan, target, keys.get(place.1), accounts.clone())?;
                    Rc::clone(room.insert(Rc::new(deck)))
                }
            };
            lines.push(Line { target, url: &targets[place.0], deck });
        }
        Ok(lines)
    }
}

/// One connection's worth of work.
struct Line<'a> {
    target: &'a Target,
    url: &'a url::Url,
    deck: Rc<Deck>,
}

impl Line<'_> {
    async fn work(&self, shared: &Shared<'_>) {
        let mut connection: Option<Connection> = None;
        let mut request = Vec::new();
        while !shared.progress.is_stopped() {
            let Some(turn) = shared.schedule.next().await else { return };
            let card = self.deck.deal(turn.number, &mut request);
            let call = self.send(&mut connection, card, &request, shared);
            let result = match tokio::time::timeout(shared.plan.timeout, call).await {
                Ok(result) => result,
                Err(_) => {
                    connection = None;
                    Err("timed out".to_owned())
                }
            };
            let without_response = result.is_err();
            self.note(card, turn, result, shared);
            if without_response && shared.plan.pace == Pace::Closed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One call, on the kept connection where it still works.
    async fn send(
        &self,
        connection: &mut Option<Connection>,
        card: &Card,
        request: &[u8],
        shared: &Shared<'_>,
    ) -> Result<ReceivedResponse, String> {
        let grew = |bytes| {
            shared.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        if let Some(mut kept) = connection.take() {
            match kept.exchange(request, card.to_head, &shared.scratch, grew).await {
                Ok(response) => {
                    *connection = kept.usable.then_some(kept);
                    return Ok(response);
                }
                // The other side may close an idle connection at any time; that is no fault of it.
                Err(broken) if broken.before_response && card.repeatable => {}
                Err(broken) => return Err(broken.why),
            }
        }
        let mut fresh = Connection::open(self.target).await?;
        let response = fresh.exchange(request, card.to_head, &shared.scratch, grew).await;
        let response = response.map_err(|broken| broken.why)?;
        *connection = fresh.usable.then_some(fresh);
        Ok(response)
    }

    fn note(&self, card: &Card, turn: Turn, result: Result<ReceivedResponse, String>, shared: &Shared<'_>) {
        let progress = shared.progress;
        let failed = result.as_ref().map_or(true, |response| response.status >= 400);
        progress.calls.fetch_add(1, Ordering::Relaxed);
        progress.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
        if let Ok(response) = &result
            && !shared.plan.real_platform
            && let Err(error) = guard::judge(self.url, response)
        {
            let _ = shared.fault.set(error);
            progress.stop();
        }
        let now = Instant::now();
        let Schedule { counted_from, ends, .. } = shared.schedule;
        let counts = match shared.plan.pace {
            Pace::Closed => now >= counted_from && now <= ends,
            Pace::Open(_) => turn.timed_from >= counted_from,
        };
        if counts {
            let outcome = match result {
                Ok(ReceivedResponse { status, bytes, refusal, .. }) => {
                    Outcome::Responded { status, bytes, refusal }
                }
                Err(why) => Outcome::NoResponse(why),
            };
            let mut tally = shared.tally.borrow_mut();
            tally.waited += u64::from(turn.waited);
            tally.record(card.index, now - turn.timed_from, outcome);
        }
    }
}
