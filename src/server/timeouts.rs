//! The connections of one worker, and the sweep that closes those past a timeout. A timeout never comes
//! early; it may come up to two sweeps late.
//!
//! One sweep per worker instead of timers: a timer per head costs about 7 % of a small request, and one per
//! body would cost again. What a connection records for the sweep is in `activity`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::activity::{CloseReason, CoarseClock, ConnectionActivity, millis};
use super::limits::ServerLimits;

/// Sweeps come four times in the shortest deadline, within these bounds: a sweep over 10,000 idle connections
/// takes about a millisecond.
const SHORTEST_SWEEP: Duration = Duration::from_millis(5);
const LONGEST_SWEEP: Duration = Duration::from_millis(250);

/// All connections of one worker, and the coarse clock that they share.
pub(super) struct ConnectionTable {
    limits: ServerLimits,
    began: Instant,
    clock: Rc<CoarseClock>,
    activities: RefCell<Vec<Option<Rc<ConnectionActivity>>>>,
    free: RefCell<Vec<usize>>,
    open: Cell<usize>,
    empty: Notify,
}

impl ConnectionTable {
    pub(super) fn new(limits: ServerLimits) -> Rc<Self> {
        let shortest = limits.head_timeout.min(limits.body_idle_timeout).min(limits.keep_alive_timeout);
        let interval = (shortest / 4).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
        Rc::new(Self {
            limits,
            began: Instant::now(),
            clock: Rc::new(CoarseClock::new(interval)),
            activities: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            empty: Notify::new(),
        })
    }

    /// Sweeps for as long as the worker lives.
    pub(super) async fn run(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(self.clock.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep();
        }
    }

    pub(super) fn insert(&self) -> Rc<ConnectionActivity> {
        let mut activities = self.activities.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or(activities.len());
        let activity = Rc::new(ConnectionActivity::new(self.clock.clone(), slot));
        if slot == activities.len() {
            activities.push(None);
        }
        activities[slot] = Some(activity.clone());
        self.open.set(self.open.get() + 1);
        activity
    }

    pub(super) fn remove(&self, activity: &ConnectionActivity) {
        self.activities.borrow_mut()[activity.slot()] = None;
        self.free.borrow_mut().push(activity.slot());
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.empty.notify_waiters();
        }
    }

    /// Closes the connection that has been idle the longest. False if none is.
    pub(super) fn evict_idle(&self) -> bool {
        let activities = self.activities.borrow();
        let idle =
            activities.iter().flatten().filter_map(|activity| Some((activity.idle_since()?, activity)));
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, activity)) => activity.close_with(CloseReason::Evicted),
            None => return false,
        }
        true
    }

    /// From here on responses close their connections, and idle connections are closed after a moment.
    pub(super) fn drain(&self) {
        self.clock.draining.set(Some(millis(self.began.elapsed())));
    }

    /// Closes all connections and returns how many of them had a request in flight.
    pub(super) fn stop_all(&self) -> usize {
        let activities = self.activities.borrow();
        activities.iter().flatten().for_each(|activity| activity.close_with(CloseReason::Shutdown));
        activities.iter().flatten().filter(|activity| activity.in_flight()).count()
    }

    /// Returns when the last connection is closed.
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
        self.clock.now.set(millis(self.began.elapsed()));
        for activity in self.activities.borrow().iter().flatten() {
            if let Some(reason) = activity.check(&self.limits) {
                activity.close_with(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::activity::Phase;

    #[tokio::test]
    async fn the_longest_idle_connection_makes_room() {
        let connections = ConnectionTable::new(ServerLimits::for_tests());
        let first = connections.insert();
        let second = connections.insert();
        assert!(!connections.evict_idle(), "none is idle");
        first.enter(Phase::Idle);
        connections.clock.now.set(1000);
        second.enter(Phase::Idle);
        assert!(connections.evict_idle());
        assert_eq!((first.close_reason(), second.close_reason()), (Some(CloseReason::Evicted), None));
        connections.remove(&first);
        connections.remove(&second);
        connections.until_empty().await;
        assert_eq!(connections.insert().slot(), 1, "places are used again");
    }

    #[test]
    fn a_connection_that_says_nothing_makes_room_too_but_not_at_once() {
        let connections = ConnectionTable::new(ServerLimits::for_tests());
        let silent = connections.insert();
        silent.enter(Phase::AwaitingRequest);
        assert!(!connections.evict_idle(), "its first request may be on the way");
        connections.clock.now.set(5000);
        assert!(connections.evict_idle());
        assert_eq!(silent.close_reason(), Some(CloseReason::Evicted));
    }
}
