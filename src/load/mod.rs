//! The load generator behind `load` and `benches/load`: open loop at a fixed rate, or closed loop as fast as answers come.
//!
//! Open loop measures without coordinated omission: a call that had to wait because every connection was busy is timed from
//! the moment at which it should have gone out.

mod connection;
mod process;
mod report;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

pub use process::Usage;
pub use report::Report;

use connection::{Connection, Way};
use report::Tally;

/// What is sent, where, and how fast.
#[derive(Clone)]
pub struct Plan {
    pub target: Url,
    /// Taken in turn by weight.
    pub mix: Vec<Call>,
    pub pace: Pace,
    pub connections: usize,
    /// Not counted.
    pub warm_up: Duration,
    pub duration: Duration,
    /// A call that takes longer counts as an error.
    pub timeout: Duration,
    /// For an https target: whom to trust.
    pub tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

#[derive(Clone)]
pub struct Call {
    pub method: Method,
    /// Path and query, put behind the target's path.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub weight: u32,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            weight: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Calls per second, whatever the target does.
    Open(f64),
    /// Each connection sends its next call when the last answer is complete.
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{target} cannot be reached: {why}")]
    Unreachable { target: Url, why: String },
    #[error("{0}")]
    Plan(String),
}

/// Runs the plan on the calling thread and returns what was measured.
pub async fn run(plan: Plan) -> Result<Report, LoadError> {
    let way = Way::find(&plan).await?;
    let deck = Deck::new(&plan, &way)?;
    let started = Instant::now();
    let schedule = Rc::new(Schedule {
        pace: plan.pace,
        started,
        counted_from: started + plan.warm_up,
        ends: started + plan.warm_up + plan.duration,
        tickets: Cell::new(0),
    });
    let local = tokio::task::LocalSet::new();
    let tally = local
        .run_until(async {
            let workers = (0..plan.connections.max(1)).map(|_| {
                let work = work(schedule.clone(), deck.clone(), way.clone(), plan.timeout);
                tokio::task::spawn_local(work)
            });
            let mut tally = Tally::new();
            for worker in workers.collect::<Vec<_>>() {
                if let Ok(part) = worker.await {
                    tally.add(&part);
                }
            }
            tally
        })
        .await;
    Ok(tally.report(plan.duration))
}

/// When each call goes out.
struct Schedule {
    pace: Pace,
    started: Instant,
    counted_from: Instant,
    ends: Instant,
    tickets: Cell<u64>,
}

/// A call's turn: its number, and the moment from which it is timed.
struct Turn {
    number: u64,
    timed_from: Instant,
}

impl Schedule {
    async fn next(&self) -> Option<Turn> {
        let number = self.tickets.get();
        self.tickets.set(number + 1);
        let now = Instant::now();
        let due = match self.pace {
            Pace::Closed => now,
            Pace::Open(rate) => self.started + Duration::from_secs_f64(number as f64 / rate),
        };
        if due >= self.ends || now >= self.ends {
            return None;
        }
        if due <= now {
            return Some(Turn { number, timed_from: due });
        }
        tokio::time::sleep_until(due.into()).await;
        // The timer wakes in steps of a millisecond: that lateness is ours, not the target's.
        Some(Turn { number, timed_from: Instant::now() })
    }
}

/// The mix, dealt out by weight in a fixed order.
struct Deck {
    cards: Vec<Rc<connection::Prepared>>,
}

impl Deck {
    fn new(plan: &Plan, way: &Way) -> Result<Rc<Self>, LoadError> {
        let mut cards = Vec::new();
        for call in &plan.mix {
            let prepared = Rc::new(way.prepare(call).map_err(LoadError::Plan)?);
            cards.extend(std::iter::repeat_n(prepared, call.weight as usize));
        }
        if cards.is_empty() {
            return Err(LoadError::Plan("the mix is empty: name at least one call".into()));
        }
        Ok(Rc::new(Self { cards }))
    }

    fn deal(&self, number: u64) -> &connection::Prepared {
        &self.cards[(number % self.cards.len() as u64) as usize]
    }
}

async fn work(schedule: Rc<Schedule>, deck: Rc<Deck>, way: Rc<Way>, timeout: Duration) -> Tally {
    let mut tally = Tally::new();
    let mut connection: Option<Connection> = None;
    while let Some(turn) = schedule.next().await {
        let outcome =
            match tokio::time::timeout(timeout, one(&mut connection, &way, deck.deal(turn.number))).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    connection = None;
                    Err("timed out".to_owned())
                }
            };
        if turn.timed_from >= schedule.counted_from {
            tally.record(turn.timed_from.elapsed(), outcome);
        }
    }
    tally
}

/// One call: status and bytes of the answer.
async fn one(
    connection: &mut Option<Connection>,
    way: &Way,
    call: &connection::Prepared,
) -> Result<(u16, u64), String> {
    let mut open = match connection.take() {
        Some(open) if open.is_usable() => open,
        _ => way.connect().await?,
    };
    let answer = open.exchange(call).await?;
    *connection = Some(open);
    Ok(answer)
}
