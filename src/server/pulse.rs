//! The life signs of one connection: what it is doing, since when, and what that means by now. Pure but for waking.
//!
//! Shared by a connection and the sweep, both on one thread. A request costs a few stores
//! on a coarse clock; moments are rounded up by one sweep, so that no deadline ever comes early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use crate::http1::ConnectionObserver;

use super::limits::Limits;

/// The worker's coarse clock, moved by its sweep.
pub(super) struct Beat {
    pub(super) now: Cell<Moment>,
    pub(super) interval: Duration,
    /// Since when the worker drains.
    pub(super) draining: Cell<Option<Moment>>,
}

impl Beat {
    pub(super) fn new(interval: Duration) -> Self {
        Self { now: Cell::new(0), interval, draining: Cell::new(None) }
    }

    /// Now, rounded up: see the top of this file.
    fn stamp(&self) -> Moment {
        self.now.get() + millis(self.interval)
    }
}

/// What a connection is doing, as far as deadlines care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// PROXY header or TLS handshake; watched by a timer of its own.
    Opening,
    /// Open, and not one byte of a request yet.
    Fresh,
    /// Part of a head is here.
    Head,
    /// A request is being answered.
    Busy,
    /// Between requests.
    Idle,
    /// Out of HTTP's hands.
    Ending,
}

/// Why a connection has to end although it could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    SlowHead,
    KeepAliveOver,
    /// The rest of a request body does not come.
    SlowBody,
    /// The caller does not take its answer.
    Unread,
    /// Idle while the worker drains, or while others need the room.
    NotNeeded,
    Evicted,
    /// The drain's time is over.
    Stopped,
    /// The caller had shut down its sending side, and has reset the connection since.
    Reset,
}

/// How long a connection that was just accepted may take for its first byte, when the worker drains or others need the room.
const FRESH_GRACE: Duration = Duration::from_secs(1);

/// How long a kept connection may take for its next request when the worker drains: that one is answered, and told to be the last. Who
/// closes at once meets the request of a busy caller on its way, and then nobody can say what became of it.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// See the top of this file.
pub(super) struct Pulse {
    beat: Rc<Beat>,
    slot: usize,
    phase: Cell<Phase>,
    since: Cell<Moment>,
    last_read: Cell<Moment>,
    last_write: Cell<Moment>,
    /// Someone waits for the rest of a request's body.
    body_waits: Cell<bool>,
    reading_waits: Cell<bool>,
    writing_waits: Cell<bool>,
    /// The caller has shut down its sending side.
    half_closed: Cell<bool>,
    /// The socket is to be asked whether the connection still stands: reading from a half-closed one does not
    /// tell.
    reset_check_due: Cell<bool>,
    responding: Cell<bool>,
    verdict: Cell<Option<Verdict>>,
    waker: RefCell<Option<Waker>>,
}

/// Milliseconds on the worker's coarse clock.
pub(super) type Moment = u64;

impl Pulse {
    /// Opening, from now.
    pub(super) fn new(beat: Rc<Beat>, slot: usize) -> Self {
        let stamp = beat.stamp();
        Self {
            beat,
            slot,
            phase: Cell::new(Phase::Opening),
            since: Cell::new(stamp),
            last_read: Cell::new(stamp),
            last_write: Cell::new(stamp),
            body_waits: Cell::new(false),
            reading_waits: Cell::new(false),
            writing_waits: Cell::new(false),
            half_closed: Cell::new(false),
            reset_check_due: Cell::new(false),
            responding: Cell::new(false),
            verdict: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// Its place among the connections of its worker.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Since when it has been waiting for its next request, if it has, or for its first one longer than an honest caller takes to send it.
    pub(super) fn idle_since(&self) -> Option<Moment> {
        let since = self.since.get();
        let idle = match self.phase.get() {
            Phase::Idle => true,
            Phase::Fresh => self.beat.now.get() >= since.saturating_add(millis(FRESH_GRACE)),
            Phase::Opening | Phase::Head | Phase::Busy | Phase::Ending => false,
        };
        (idle && self.verdict.get().is_none()).then_some(since)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.beat.stamp());
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }

    /// Remembers whom to wake when a verdict falls.
    pub(super) fn watched_by(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.get()
    }

    /// Whether the socket of a half-closed connection is to be asked for a reset; true once per sweep.
    pub(super) fn takes_reset_check(&self) -> bool {
        self.reset_check_due.take()
    }

    /// A whole head is here, and good.
    pub(super) fn begin_request(&self) {
        self.enter(Phase::Busy);
        self.responding.set(false);
    }

    /// The handler has answered.
    pub(super) fn begin_response(&self) {
        self.responding.set(true);
    }

    pub(super) fn responding(&self) -> bool {
        self.responding.get()
    }

    /// The answer is with the kernel to its last byte; perhaps the next request has begun already.
    pub(super) fn end_response(&self, next_has_begun: bool) {
        self.enter(if next_has_begun { Phase::Head } else { Phase::Idle });
    }

    /// A request is under way, or its answer is not with the kernel to its last byte.
    pub(super) fn unfinished(&self) -> bool {
        self.phase.get() == Phase::Busy
    }

    /// The connection is out of HTTP's hands, and nothing more is expected of it.
    pub(super) fn end(&self) {
        self.enter(Phase::Ending);
    }

    pub(super) fn draining(&self) -> bool {
        self.beat.draining.get().is_some()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The first verdict counts.
    pub(super) fn condemn(&self, verdict: Verdict) {
        if self.verdict.get().is_none() {
            self.verdict.set(Some(verdict));
            self.wake();
        }
    }

    /// What has become of this connection by now.
    pub(super) fn check(&self, limits: &Limits) -> Option<Verdict> {
        let (now, draining) = (self.beat.now.get(), self.draining());
        let passed = |since: Moment, limit: Duration| now >= since.saturating_add(millis(limit));
        let phase = self.phase.get();
        if matches!(phase, Phase::Opening | Phase::Ending) {
            return None;
        }
        if self.writing_waits.get() && passed(self.last_write.get(), limits.body_idle_timeout) {
            return Some(Verdict::Unread);
        }
        if self.half_closed.get() && phase == Phase::Busy {
            self.reset_check_due.set(true);
            self.wake();
        }
        match phase {
            Phase::Fresh if draining && passed(self.since.get(), FRESH_GRACE) => Some(Verdict::NotNeeded),
            Phase::Fresh | Phase::Head => {
                passed(self.since.get(), limits.head_timeout).then_some(Verdict::SlowHead)
            }
            Phase::Idle
                if let Some(draining) = self.beat.draining.get()
                    && passed(self.since.get().max(draining), IDLE_GRACE) =>
            {
                Some(Verdict::NotNeeded)
            }
            Phase::Idle => {
                passed(self.since.get(), limits.keep_alive_timeout).then_some(Verdict::KeepAliveOver)
            }
            Phase::Busy => {
                let silent = self.reading_waits.get()
                    && self.body_waits.get()
                    && passed(self.last_read.get(), limits.body_idle_timeout);
                silent.then_some(Verdict::SlowBody)
            }
            Phase::Opening | Phase::Ending => None,
        }
    }
}

impl ConnectionObserver for Rc<Pulse> {
    fn on_read(&self, head_has_begun: bool) {
        self.reading_waits.set(false);
        self.last_read.set(self.beat.stamp());
        if head_has_begun && matches!(self.phase.get(), Phase::Fresh | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    fn on_read_pending(&self, of_body: bool) {
        self.body_waits.set(of_body);
        if !self.reading_waits.replace(true) {
            self.last_read.set(self.beat.stamp());
        }
    }

    fn on_write(&self) {
        self.writing_waits.set(false);
        self.last_write.set(self.beat.stamp());
    }

    fn on_write_pending(&self) {
        if !self.writing_waits.replace(true) {
            self.last_write.set(self.beat.stamp());
        }
    }

    /// A caller that has sent its whole request may shut down its sending side and wait for the answer (RFC
    /// 9112, 9.6).
    fn on_peer_eof(&self, inside_body: bool) -> bool {
        self.half_closed.set(true);
        !self.unfinished() || inside_body
    }
}

pub(super) fn millis(duration: Duration) -> Moment {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head_timeout: Duration::from_millis(1000),
            body_idle_timeout: Duration::from_millis(2000),
            keep_alive_timeout: Duration::from_millis(4000),
            ..Limits::default()
        }
    }

    /// A connection that has just begun to wait for its first request, at time zero plus one interval.
    fn fresh() -> Rc<Pulse> {
        let pulse = Pulse::new(Rc::new(Beat::new(Duration::from_millis(250))), 0);
        pulse.enter(Phase::Fresh);
        Rc::new(pulse)
    }

    /// The verdict at `now`; the clock stands at zero again afterwards.
    fn at(pulse: &Pulse, now: Moment) -> Option<Verdict> {
        pulse.beat.now.set(now);
        let verdict = pulse.check(&limits());
        pulse.beat.now.set(0);
        verdict
    }

    #[test]
    fn a_head_has_its_time_from_accept_or_from_its_first_byte() {
        let pulse = fresh();
        assert_eq!(at(&pulse, 1249), None);
        assert_eq!(at(&pulse, 1250), Some(Verdict::SlowHead));
        pulse.begin_request();
        pulse.end_response(false);
        assert_eq!(pulse.phase.get(), Phase::Idle);
        pulse.on_read(false);
        assert_eq!(pulse.phase.get(), Phase::Idle, "a blank line is no request");
        assert_eq!(at(&pulse, 4249), None);
        assert_eq!(at(&pulse, 4250), Some(Verdict::KeepAliveOver));
        pulse.on_read(true);
        assert_eq!(at(&pulse, 1250), Some(Verdict::SlowHead));
    }

    #[test]
    fn a_body_is_slow_only_while_someone_waits_for_it() {
        let pulse = fresh();
        pulse.on_read(true);
        pulse.begin_request();
        assert_eq!(
            at(&pulse, 60_000),
            None,
            "the handler does not read: back-pressure is no fault of the caller"
        );
        pulse.on_read_pending(true);
        assert_eq!(at(&pulse, 2249), None);
        assert_eq!(at(&pulse, 2250), Some(Verdict::SlowBody));
        pulse.on_read(false);
        pulse.on_read_pending(false);
        assert_eq!(at(&pulse, 60_000), None, "the platform may take its time");
    }

    #[test]
    fn a_response_left_unread_ends_the_connection() {
        let pulse = fresh();
        pulse.on_read(true);
        pulse.begin_request();
        pulse.on_write_pending();
        assert_eq!(at(&pulse, 2249), None);
        assert_eq!(at(&pulse, 2250), Some(Verdict::Unread));
        pulse.on_write();
        assert_eq!(at(&pulse, 2250), None);
    }

    #[test]
    fn a_caller_that_shut_down_its_side_waits_as_long_as_the_response_takes() {
        let pulse = fresh();
        pulse.on_read(true);
        pulse.begin_request();
        assert!(pulse.on_peer_eof(true), "inside its request body it has gone");
        assert!(!pulse.on_peer_eof(false));
        assert!(!pulse.takes_reset_check());
        assert_eq!(at(&pulse, 3_600_000), None);
        assert!(
            pulse.takes_reset_check(),
            "each sweep has the socket asked whether the caller is still there"
        );
        assert!(!pulse.takes_reset_check() && !pulse.on_peer_eof(false));
        pulse.end_response(false);
        assert!(pulse.on_peer_eof(false), "after its last answer it has gone");
    }

    #[test]
    fn a_drain_spares_what_was_just_accepted_and_what_is_busy() {
        let pulse = fresh();
        pulse.beat.draining.set(Some(0));
        assert_eq!(at(&pulse, 999), None);
        pulse.on_read(true);
        pulse.begin_request();
        assert_eq!(at(&pulse, 60_000), None, "the end of its answer is still on its way");
        pulse.end_response(false);
        assert_eq!(at(&pulse, 1249), None, "its caller may be about to ask again");
        assert_eq!(at(&pulse, 1250), Some(Verdict::NotNeeded));
    }

    #[test]
    fn a_connection_that_was_idle_before_the_drain_has_a_second_too() {
        let pulse = fresh();
        pulse.on_read(true);
        pulse.begin_request();
        pulse.end_response(false);
        pulse.beat.draining.set(Some(500));
        assert_eq!(at(&pulse, 1499), None);
        assert_eq!(at(&pulse, 1500), Some(Verdict::NotNeeded));
    }
}
