//! Tracks what a connection is doing and since when, and derives its timeouts. No I/O except waking the task.
//!
//! A connection and the sweep share it on one thread. A request costs a few stores on a coarse clock; times
//! are rounded up by one sweep, so that no timeout ever comes early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use crate::http1::ConnectionObserver;

use super::limits::ServerLimits;

/// The worker's coarse clock, moved by its sweep.
pub(super) struct CoarseClock {
    pub(super) now: Cell<Tick>,
    pub(super) interval: Duration,
    /// Since when the worker drains.
    pub(super) draining: Cell<Option<Tick>>,
}

impl CoarseClock {
    pub(super) fn new(interval: Duration) -> Self {
        Self { now: Cell::new(0), interval, draining: Cell::new(None) }
    }

    /// Now, rounded up by one sweep.
    fn rounded_up_now(&self) -> Tick {
        self.now.get() + millis(self.interval)
    }
}

/// What a connection is doing, as far as timeouts are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// PROXY header or TLS handshake; watched by a timer of its own.
    Handshake,
    /// Open, and not one byte of a request yet.
    AwaitingRequest,
    /// Part of a head is here.
    ReadingHead,
    /// A request is being handled.
    InFlight,
    /// Between requests.
    Idle,
    /// No longer serving HTTP.
    Closing,
}

/// Why the server closes a connection that could go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    HeadTimeout,
    KeepAliveTimeout,
    /// The rest of a request body does not come.
    BodyTimeout,
    /// The caller does not read its response.
    WriteTimeout,
    /// Idle while the worker drains, or while others need the room.
    Drained,
    Evicted,
    /// The drain's time is over.
    Shutdown,
    /// The caller had shut down its sending side, and has reset the connection since.
    Reset,
}

/// How long a connection that was just accepted may take for its first byte, when the worker drains or others
/// need the room.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How long a kept connection may take for its next request when the worker drains: that one is answered, and
/// told to be the last. Who closes at once meets the request of a busy caller on its way, and then nobody can
/// say what became of it.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// What one connection is doing, and since when.
pub(super) struct ConnectionActivity {
    clock: Rc<CoarseClock>,
    slot: usize,
    phase: Cell<Phase>,
    since: Cell<Tick>,
    last_read: Cell<Tick>,
    last_write: Cell<Tick>,
    /// Someone waits for the rest of a request's body.
    waiting_for_body: Cell<bool>,
    read_pending: Cell<bool>,
    write_pending: Cell<bool>,
    /// The caller has shut down its sending side.
    half_closed: Cell<bool>,
    /// The socket is to be asked whether the connection still stands: reading from a half-closed one does not
    /// tell.
    reset_check_due: Cell<bool>,
    is_responding: Cell<bool>,
    close_reason: Cell<Option<CloseReason>>,
    waker: RefCell<Option<Waker>>,
}

/// Milliseconds on the worker's coarse clock.
pub(super) type Tick = u64;

impl ConnectionActivity {
    /// In its handshake, from now on.
    pub(super) fn new(clock: Rc<CoarseClock>, slot: usize) -> Self {
        let rounded_up_now = clock.rounded_up_now();
        Self {
            clock,
            slot,
            phase: Cell::new(Phase::Handshake),
            since: Cell::new(rounded_up_now),
            last_read: Cell::new(rounded_up_now),
            last_write: Cell::new(rounded_up_now),
            waiting_for_body: Cell::new(false),
            read_pending: Cell::new(false),
            write_pending: Cell::new(false),
            half_closed: Cell::new(false),
            reset_check_due: Cell::new(false),
            is_responding: Cell::new(false),
            close_reason: Cell::new(None),
            waker: RefCell::new(None),
        }
    }

    /// Its place among the connections of its worker.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Since when it has been waiting for its next request, if it has, or for its first one longer than an
    /// honest caller takes to send it.
    pub(super) fn idle_since(&self) -> Option<Tick> {
        let since = self.since.get();
        let idle = match self.phase.get() {
            Phase::Idle => true,
            Phase::AwaitingRequest => {
                self.clock.now.get() >= since.saturating_add(millis(FIRST_REQUEST_GRACE))
            }
            Phase::Handshake | Phase::ReadingHead | Phase::InFlight | Phase::Closing => false,
        };
        (idle && self.close_reason.get().is_none()).then_some(since)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.rounded_up_now());
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get()
    }

    /// Remembers whom to wake when a verdict falls.
    pub(super) fn register_waker(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.get()
    }

    /// Whether the socket of a half-closed connection is to be asked for a reset; true once per sweep.
    pub(super) fn take_reset_check(&self) -> bool {
        self.reset_check_due.take()
    }

    /// A complete head is here, and valid.
    pub(super) fn begin_request(&self) {
        self.enter(Phase::InFlight);
        self.is_responding.set(false);
    }

    /// The handler has answered.
    pub(super) fn begin_response(&self) {
        self.is_responding.set(true);
    }

    pub(super) fn is_responding(&self) -> bool {
        self.is_responding.get()
    }

    /// The response is with the kernel to its last byte; perhaps the next request has begun already.
    pub(super) fn end_response(&self, next_has_begun: bool) {
        self.enter(if next_has_begun { Phase::ReadingHead } else { Phase::Idle });
    }

    /// A request is under way, or its response is not with the kernel to its last byte.
    pub(super) fn in_flight(&self) -> bool {
        self.phase.get() == Phase::InFlight
    }

    /// The connection is out of HTTP's hands, and nothing more is expected of it.
    pub(super) fn begin_close(&self) {
        self.enter(Phase::Closing);
    }

    pub(super) fn draining(&self) -> bool {
        self.clock.draining.get().is_some()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The first verdict counts.
    pub(super) fn close_with(&self, reason: CloseReason) {
        if self.close_reason.get().is_none() {
            self.close_reason.set(Some(reason));
            self.wake();
        }
    }

    /// What has become of this connection by now.
    pub(super) fn check(&self, limits: &ServerLimits) -> Option<CloseReason> {
        let (now, draining) = (self.clock.now.get(), self.draining());
        let passed = |since: Tick, limit: Duration| now >= since.saturating_add(millis(limit));
        let phase = self.phase.get();
        if matches!(phase, Phase::Handshake | Phase::Closing) {
            return None;
        }
        if self.write_pending.get() && passed(self.last_write.get(), limits.body_idle_timeout) {
            return Some(CloseReason::WriteTimeout);
        }
        if self.half_closed.get() && phase == Phase::InFlight {
            self.reset_check_due.set(true);
            self.wake();
        }
        match phase {
            Phase::AwaitingRequest if draining && passed(self.since.get(), FIRST_REQUEST_GRACE) => {
                Some(CloseReason::Drained)
            }
            Phase::AwaitingRequest | Phase::ReadingHead => {
                passed(self.since.get(), limits.head_timeout).then_some(CloseReason::HeadTimeout)
            }
            Phase::Idle
                if let Some(draining) = self.clock.draining.get()
                    && passed(self.since.get().max(draining), IDLE_GRACE) =>
            {
                Some(CloseReason::Drained)
            }
            Phase::Idle => {
                passed(self.since.get(), limits.keep_alive_timeout).then_some(CloseReason::KeepAliveTimeout)
            }
            Phase::InFlight => {
                let silent = self.read_pending.get()
                    && self.waiting_for_body.get()
                    && passed(self.last_read.get(), limits.body_idle_timeout);
                silent.then_some(CloseReason::BodyTimeout)
            }
            Phase::Handshake | Phase::Closing => None,
        }
    }
}

impl ConnectionObserver for Rc<ConnectionActivity> {
    fn on_read(&self, head_has_begun: bool) {
        self.read_pending.set(false);
        self.last_read.set(self.clock.rounded_up_now());
        if head_has_begun && matches!(self.phase.get(), Phase::AwaitingRequest | Phase::Idle) {
            self.enter(Phase::ReadingHead);
        }
    }

    fn on_read_pending(&self, of_body: bool) {
        self.waiting_for_body.set(of_body);
        if !self.read_pending.replace(true) {
            self.last_read.set(self.clock.rounded_up_now());
        }
    }

    fn on_write(&self) {
        self.write_pending.set(false);
        self.last_write.set(self.clock.rounded_up_now());
    }

    fn on_write_pending(&self) {
        if !self.write_pending.replace(true) {
            self.last_write.set(self.clock.rounded_up_now());
        }
    }

    /// A caller that has sent its complete request may shut down its sending side and wait for the response
    /// (RFC 9112, 9.6).
    fn on_peer_eof(&self, inside_body: bool) -> bool {
        self.half_closed.set(true);
        !self.in_flight() || inside_body
    }
}

pub(super) fn millis(duration: Duration) -> Tick {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ServerLimits {
        ServerLimits {
            head_timeout: Duration::from_millis(1000),
            body_idle_timeout: Duration::from_millis(2000),
            keep_alive_timeout: Duration::from_millis(4000),
            ..ServerLimits::for_tests()
        }
    }

    /// A connection that has just begun to wait for its first request, at time zero plus one interval.
    fn fresh() -> Rc<ConnectionActivity> {
        let activity = ConnectionActivity::new(Rc::new(CoarseClock::new(Duration::from_millis(250))), 0);
        activity.enter(Phase::AwaitingRequest);
        Rc::new(activity)
    }

    /// The verdict at `now`; the clock stands at zero again afterwards.
    fn at(activity: &ConnectionActivity, now: Tick) -> Option<CloseReason> {
        activity.clock.now.set(now);
        let reason = activity.check(&limits());
        activity.clock.now.set(0);
        reason
    }

    #[test]
    fn a_head_has_its_time_from_accept_or_from_its_first_byte() {
        let activity = fresh();
        assert_eq!(at(&activity, 1249), None);
        assert_eq!(at(&activity, 1250), Some(CloseReason::HeadTimeout));
        activity.begin_request();
        activity.end_response(false);
        assert_eq!(activity.phase.get(), Phase::Idle);
        activity.on_read(false);
        assert_eq!(activity.phase.get(), Phase::Idle, "a blank line is no request");
        assert_eq!(at(&activity, 4249), None);
        assert_eq!(at(&activity, 4250), Some(CloseReason::KeepAliveTimeout));
        activity.on_read(true);
        assert_eq!(at(&activity, 1250), Some(CloseReason::HeadTimeout));
    }

    #[test]
    fn a_body_is_slow_only_while_someone_waits_for_it() {
        let activity = fresh();
        activity.on_read(true);
        activity.begin_request();
        assert_eq!(
            at(&activity, 60_000),
            None,
            "the handler does not read: back-pressure is no fault of the caller"
        );
        activity.on_read_pending(true);
        assert_eq!(at(&activity, 2249), None);
        assert_eq!(at(&activity, 2250), Some(CloseReason::BodyTimeout));
        activity.on_read(false);
        activity.on_read_pending(false);
        assert_eq!(at(&activity, 60_000), None, "the platform may take its time");
    }

    #[test]
    fn an_unread_response_ends_the_connection() {
        let activity = fresh();
        activity.on_read(true);
        activity.begin_request();
        activity.on_write_pending();
        assert_eq!(at(&activity, 2249), None);
        assert_eq!(at(&activity, 2250), Some(CloseReason::WriteTimeout));
        activity.on_write();
        assert_eq!(at(&activity, 2250), None);
    }

    #[test]
    fn a_caller_that_shut_down_its_side_waits_as_long_as_the_response_takes() {
        let activity = fresh();
        activity.on_read(true);
        activity.begin_request();
        assert!(activity.on_peer_eof(true), "inside its request body it has gone");
        assert!(!activity.on_peer_eof(false));
        assert!(!activity.take_reset_check());
        assert_eq!(at(&activity, 3_600_000), None);
        assert!(
            activity.take_reset_check(),
            "each sweep has the socket asked whether the caller is still there"
        );
        assert!(!activity.take_reset_check() && !activity.on_peer_eof(false));
        activity.end_response(false);
        assert!(activity.on_peer_eof(false), "after its last answer it has gone");
    }

    #[test]
    fn a_drain_spares_what_was_just_accepted_and_what_is_busy() {
        let activity = fresh();
        activity.clock.draining.set(Some(0));
        assert_eq!(at(&activity, 999), None);
        activity.on_read(true);
        activity.begin_request();
        assert_eq!(at(&activity, 60_000), None, "the end of its answer is still on its way");
        activity.end_response(false);
        assert_eq!(at(&activity, 1249), None, "its caller may be about to ask again");
        assert_eq!(at(&activity, 1250), Some(CloseReason::Drained));
    }

    #[test]
    fn a_connection_that_was_idle_before_the_drain_has_a_second_too() {
        let activity = fresh();
        activity.on_read(true);
        activity.begin_request();
        activity.end_response(false);
        activity.clock.draining.set(Some(500));
        assert_eq!(at(&activity, 1499), None);
        assert_eq!(at(&activity, 1500), Some(CloseReason::Drained));
    }
}
