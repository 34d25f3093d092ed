//! How long callers may take. One sweep per worker looks at all of its connections and wakes those that took too long.
//!
//! A timer per head costs about 7 % of a small request, and one per body would cost again. What a connection
//! notes for the sweep is in `pulse`. A deadline never comes early; it may come up to two sweeps late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::limits::Limits;
use super::pulse::{Beat, Pulse, Verdict, millis};

/// Sweeps come four times in the shortest deadline, within these bounds: a sweep over 10,000 idle connections takes
/// about a millisecond.
const SHORTEST_SWEEP: Duration = Duration::from_millis(5);
const LONGEST_SWEEP: Duration = Duration::from_millis(250);

/// All connections of one worker, and the coarse clock that they share.
pub(super) struct Rounds {
    limits: Limits,
    began: Instant,
    beat: Rc<Beat>,
    pulses: RefCell<Vec<Option<Rc<Pulse>>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<usize>,
    empty: Notify,
}

impl Rounds {
    pub(super) fn new(limits: Limits) -> Rc<Self> {
        let shortest = limits.head_timeout.min(limits.body_idle_timeout).min(limits.keep_alive_timeout);
        let interval = (shortest / 4).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
        Rc::new(Self {
            limits,
            began: Instant::now(),
            beat: Rc::new(Beat::new(interval)),
            pulses: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            empty: Notify::new(),
        })
    }

    /// Sweeps for as long as the worker lives.
    pub(super) async fn go_on(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(self.beat.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep();
        }
    }

    pub(super) fn admit(&self) -> Rc<Pulse> {
        let mut pulses = self.pulses.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or(pulses.len());
        let pulse = Rc::new(Pulse::new(self.beat.clone(), slot));
        if slot == pulses.len() {
            pulses.push(None);
        }
        pulses[slot] = Some(pulse.clone());
        self.open.set(self.open.get() + 1);
        pulse
    }

    pub(super) fn dismiss(&self, pulse: &Pulse) {
        self.pulses.borrow_mut()[pulse.slot()] = None;
        self.free.borrow_mut().push(pulse.slot());
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.empty.notify_waiters();
        }
    }

    /// Ends the connection that has been idle the longest. False if none is.
    pub(super) fn evict_idle(&self) -> bool {
        let pulses = self.pulses.borrow();
        let idle = pulses.iter().flatten().filter_map(|pulse| Some((pulse.idle_since()?, pulse)));
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, pulse)) => pulse.condemn(Verdict::Evicted),
            None => return false,
        }
        true
    }

    /// From here on answers close their connections, and idle ones go after a moment.
    pub(super) fn drain(&self) {
        self.beat.draining.set(Some(millis(self.began.elapsed())));
    }

    /// Ends all connections and returns how many of them were in the middle of a request.
    pub(super) fn stop_all(&self) -> usize {
        let pulses = self.pulses.borrow();
        pulses.iter().flatten().for_each(|pulse| pulse.condemn(Verdict::Stopped));
        pulses.iter().flatten().filter(|pulse| pulse.unfinished()).count()
    }

    /// Returns when the last connection has gone.
    pub(super) async fn until_empty(&self) {
        loop {
            let empty = self.empty.notified();
            if self.open.get() == 0 {
                return;
            }
            empty.await;
        }
    }

    fn sweep(&self) {
        self.beat.now.set(millis(self.began.elapsed()));
        for pulse in self.pulses.borrow().iter().flatten() {
            if let Some(verdict) = pulse.check(&self.limits) {
                pulse.condemn(verdict);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::pulse::Phase;

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room() {
        let rounds = Rounds::new(Limits::default());
        let first = rounds.admit();
        let second = rounds.admit();
        assert!(!rounds.evict_idle(), "none is idle");
        first.enter(Phase::Idle);
        rounds.beat.now.set(1000);
        second.enter(Phase::Idle);
        assert!(rounds.evict_idle());
        assert_eq!((first.verdict(), second.verdict()), (Some(Verdict::Evicted), None));
        rounds.dismiss(&first);
        rounds.dismiss(&second);
        rounds.until_empty().await;
        assert_eq!(rounds.admit().slot(), 1, "places are used again");
    }

    #[test]
    fn a_connection_that_says_nothing_makes_room_too_but_not_at_once() {
        let rounds = Rounds::new(Limits::default());
        let silent = rounds.admit();
        silent.enter(Phase::Fresh);
        assert!(!rounds.evict_idle(), "its first request may be on the way");
        rounds.beat.now.set(5000);
        assert!(rounds.evict_idle());
        assert_eq!(silent.verdict(), Some(Verdict::Evicted));
    }
}
