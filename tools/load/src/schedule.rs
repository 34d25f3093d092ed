//! When each call goes out. Open loop is timed without coordinated omission: a call that found every
//! connection busy is timed from the moment at which it should have gone out.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::LoopMode;

/// One thread's share of the calls.
pub struct Schedule {
    share: ThreadShare,
    pub counted_from: Instant,
    pub ends: Instant,
    issued: Cell<u64>,
    /// This thread takes every `threads`-th number, so that the mix stays whole.
    thread: u64,
    threads: u64,
}

/// How this thread comes by its calls.
enum ThreadShare {
    Open {
        started: Instant,
        interval: Duration,
        /// A permit per call that is due, put in by a pacing thread: the
        /// runtime's own timer only knows milliseconds.
        due: Arc<Semaphore>,
        /// How many of them were taken: one that is promised to a connection counts as gone in the semaphore
        /// before it is used.
        taken: Arc<AtomicU64>,
    },
    Closed,
}

/// A call's turn: its number, and the moment from which it is timed.
pub struct DueCall {
    pub number: u64,
    pub timed_from: Instant,
    /// It was due earlier, but every connection was busy.
    pub delayed: bool,
}

impl Schedule {
    pub fn new(mode: LoopMode, window: &RunWindow, thread: usize, threads: usize) -> Self {
        let share = match mode {
            LoopMode::Closed => ThreadShare::Closed,
            LoopMode::Open(rate) => {
                let interval = Duration::from_secs_f64(threads as f64 / rate);
                // Threads take turns, so that their calls do not leave in pairs.
                let started = window.started + interval.mul_f64(thread as f64 / threads as f64);
                let due = Arc::new(Semaphore::new(0));
                let taken = Arc::new(AtomicU64::new(0));
                let pacer =
                    Pacer { started, interval, ends: window.ends, due: due.clone(), taken: taken.clone() };
                std::thread::spawn(move || pacer.run());
                ThreadShare::Open { started, interval, due, taken }
            }
        };
        let RunWindow { counted_from, ends, .. } = *window;
        let (thread, threads) = (thread as u64, threads as u64);
        Self { share, counted_from, ends, issued: Cell::new(0), thread, threads }
    }

    /// Waits for the next call to be due; `None` when the run is over.
    pub async fn next(&self) -> Option<DueCall> {
        let delayed = match &self.share {
            ThreadShare::Closed => false,
            ThreadShare::Open { due, taken, .. } => {
                let (permit, delayed) = match due.try_acquire() {
                    Ok(permit) => (permit, true),
                    Err(_) => (due.acquire().await.ok()?, false),
                };
                permit.forget();
                taken.fetch_add(1, Ordering::Relaxed);
                delayed
            }
        };
        let now = Instant::now();
        if now >= self.last_sending() {
            return None;
        }
        let nth = self.issued.get();
        self.issued.set(nth + 1);
        let timed_from = match &self.share {
            ThreadShare::Open { started, interval, .. } if delayed => at(*started, *interval, nth).min(now),
            // The pacer's lateness is ours, not the target's.
            _ => now,
        };
        Some(DueCall { number: nth * self.threads + self.thread, timed_from, delayed })
    }

    /// In open loop, calls that were due at the very end may still go out.
    fn last_sending(&self) -> Instant {
        match self.share {
            ThreadShare::Closed => self.ends,
            ThreadShare::Open { .. } => self.ends + GRACE,
        }
    }

    /// Calls that were due within the run and never went out.
    pub fn unsent(&self) -> u64 {
        match &self.share {
            ThreadShare::Closed => 0,
            ThreadShare::Open { due, .. } => due.available_permits() as u64,
        }
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        if let ThreadShare::Open { due, .. } = &self.share {
            due.close();
        }
    }
}

/// How long after the end a call that was due before it may still go out.
const GRACE: Duration = Duration::from_millis(500);

/// When a run begins, when its warm-up is over, when it ends.
#[derive(Clone, Copy)]
pub struct RunWindow {
    pub started: Instant,
    pub counted_from: Instant,
    pub ends: Instant,
}

/// The thread that makes calls due at a fixed rate.
struct Pacer {
    started: Instant,
    interval: Duration,
    ends: Instant,
    due: Arc<Semaphore>,
    taken: Arc<AtomicU64>,
}

impl Pacer {
    /// So that a slow schedule notices in time that its run was given up.
    const LONGEST_SLEEP: Duration = Duration::from_millis(100);

    fn run(&self) {
        let mut released = 0;
        while !self.due.is_closed() {
            let now = Instant::now();
            let next = at(self.started, self.interval, released);
            if next >= self.ends {
                break;
            }
            if next > now {
                std::thread::sleep((next - now).min(Self::LONGEST_SLEEP));
                continue;
            }
            let mut count = 1;
            while at(self.started, self.interval, released + count) <= now.min(self.ends) {
                count += 1;
            }
            self.due.add_permits(count as usize);
            released += count;
        }
        // The last calls may still be waiting for a connection.
        let taken = || self.taken.load(Ordering::Relaxed);
        while taken() < released && !self.due.is_closed() && Instant::now() < self.ends + GRACE {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.due.close();
    }
}

fn at(started: Instant, interval: Duration, number: u64) -> Instant {
    started + Duration::from_nanos((interval.as_nanos() as f64 * number as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(seconds: u64) -> RunWindow {
        let started = Instant::now();
        RunWindow { started, counted_from: started, ends: started + Duration::from_secs(seconds) }
    }

    #[tokio::test]
    async fn a_call_that_had_to_wait_is_timed_from_when_it_was_due() {
        let schedule = Schedule::new(LoopMode::Open(1000.0), &window(60), 0, 1);
        let first = schedule.next().await.unwrap();
        assert_eq!(first.number, 0);
        // Nobody takes a call until twenty more are due.
        while schedule.unsent() < 20 {
            tokio::task::yield_now().await;
        }
        let late = schedule.next().await.unwrap();
        assert!(late.delayed);
        assert!(late.timed_from.elapsed() >= Duration::from_millis(18), "{:?}", late.timed_from.elapsed());
        assert!(schedule.unsent() >= 19);
    }

    #[tokio::test]
    async fn threads_share_out_the_numbers() {
        let window = window(60);
        let of = |thread| Schedule::new(LoopMode::Closed, &window, thread, 2);
        let (even, odd) = (of(0), of(1));
        let mut numbers = Vec::new();
        for _ in 0..2 {
            numbers.push(even.next().await.unwrap().number);
            numbers.push(odd.next().await.unwrap().number);
        }
        assert_eq!(numbers, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_run_that_is_over_deals_no_more() {
        let started = Instant::now();
        let window = RunWindow { started, counted_from: started, ends: started };
        assert!(Schedule::new(LoopMode::Closed, &window, 0, 1).next().await.is_none());
        assert!(Schedule::new(LoopMode::Open(10.0), &window, 0, 1).next().await.is_none());
    }
}
