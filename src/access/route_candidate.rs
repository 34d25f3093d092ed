//! A route that discovery names and that nobody has proven yet, as values. Who proves it: `discovery`; who
//! asks again: `following`.
//!
//! The rule guarded here: no call moves to a route of which nothing is known but that discovery has named it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::route::Route;

/// A route that cannot be proven by discovery, since the platform does not serve it there: the first response
/// of its API decides.
#[derive(Debug)]
pub struct RouteTrial {
    route: Arc<Route>,
    in_flight: AtomicBool,
}

/// The one call that tries the route at a time; the others keep to the proven one.
pub struct RouteTrialGuard(Arc<RouteTrial>);

/// Named by discovery and not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCandidate {
    pub route: Arc<Route>,
    pub since: Timestamp,
    /// What it answered when it was asked last.
    pub why: String,
}

/// Calls find no connection to the route in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreachableRoute {
    pub since: Timestamp,
    pub last: Timestamp,
    pub why: String,
}

/// What is noted about an account's routes beside the one in use. In peace there is nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RouteNotes {
    pub candidate: Option<RouteCandidate>,
    pub unreachable: Option<UnreachableRoute>,
    /// When discovery was last asked because of it.
    pub sent_at: Option<Timestamp>,
    /// A task asks again for this account.
    pub followed: bool,
}

/// A server that restarts is away for this long.
const SOME_SECONDS: Duration = Duration::from_secs(3);
/// Between two discoveries of one account that failed connections have caused.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl RouteTrial {
    pub(super) fn of(route: Arc<Route>) -> Arc<Self> {
        Arc::new(Self { route, in_flight: AtomicBool::new(false) })
    }

    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// `None` while another call is trying it.
    pub fn begin(self: &Arc<Self>) -> Option<RouteTrialGuard> {
        (!self.in_flight.swap(true, AcqRel)).then(|| RouteTrialGuard(Arc::clone(self)))
    }
}

impl Drop for RouteTrialGuard {
    fn drop(&mut self) {
        self.0.in_flight.store(false, Release);
    }
}

impl RouteNotes {
    /// Notes that no connection could be made. `responded_at` is when the platform last answered a call of
    /// this account. Returns whether this is news, and whether discovery is to be asked because of it.
    pub fn record_connect_failure(
        &mut self,
        now: Timestamp,
        responded_at: Option<Timestamp>,
        why: &str,
    ) -> (bool, bool) {
        let since = match &self.unreachable {
            // A moment that lies ahead was noted before the clock was set.
            Some(known) if responded_at.is_none_or(|at| at < known.since) && known.since <= now => {
                known.since
            }
            _ => now,
        };
        let is_news = self.unreachable.as_ref().is_none_or(|known| known.since != since);
        self.unreachable = Some(UnreachableRoute { since, last: now, why: why.to_owned() });
        let asked_lately = self.sent_at.is_some_and(|at| at <= now && now.since(at) < ASK_AGAIN);
        let ask = now.since(since) >= SOME_SECONDS && !asked_lately;
        if ask {
            self.sent_at = Some(now);
        }
        (is_news, ask)
    }

    /// Whether the route in use could not be connected to a moment ago.
    pub fn is_unreachable(&self, now: Timestamp, responded_at: Option<Timestamp>) -> bool {
        self.unreachable.as_ref().is_some_and(|known| {
            responded_at.is_none_or(|at| at < known.last)
                && known.last.since(known.since) >= SOME_SECONDS
                && now.since(known.last) < ASK_AGAIN
        })
    }

    /// Notes why a route is not used. Returns whether this route is news.
    pub fn record_unproven(&mut self, now: Timestamp, route: &Arc<Route>, why: String) -> bool {
        let known = self.candidate.as_ref().filter(|known| known.route == *route);
        let since = known.map(|known| known.since);
        self.candidate = Some(RouteCandidate { route: Arc::clone(route), since: since.unwrap_or(now), why });
        since.is_none()
    }

    /// The route in use is proven, and discovery names no other.
    pub fn clear(&mut self) -> Option<RouteCandidate> {
        self.unreachable = None;
        self.candidate.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn discovery_is_asked_after_some_seconds_without_a_connection_and_once_a_minute() {
        let mut notes = RouteNotes::default();
        assert_eq!(notes.record_connect_failure(at(0), None, "refused"), (true, false));
        assert_eq!(notes.record_connect_failure(at(2), None, "refused"), (false, false));
        assert_eq!(notes.record_connect_failure(at(3), None, "refused"), (false, true));
        assert_eq!(notes.record_connect_failure(at(62), None, "refused"), (false, false));
        assert_eq!(notes.record_connect_failure(at(63), None, "refused"), (false, true));
    }

    #[test]
    fn a_response_between_two_failures_begins_anew_and_so_does_a_clock_that_was_set_back() {
        let mut notes = RouteNotes::default();
        notes.record_connect_failure(at(0), None, "refused");
        assert_eq!(notes.record_connect_failure(at(10), Some(at(5)), "refused"), (true, false));
        assert_eq!(notes.record_connect_failure(at(14), Some(at(5)), "refused"), (false, true));
        let mut notes = RouteNotes::default();
        notes.record_connect_failure(at(900), None, "refused");
        assert_eq!(notes.record_connect_failure(at(10), None, "refused"), (true, false));
        assert_eq!(notes.record_connect_failure(at(13), None, "refused"), (false, true));
    }

    #[test]
    fn one_call_at_a_time_tries_a_route() {
        let policy = crate::model::route::HostPolicy {
            allowed: vec!["*.iterocloud.com".parse().unwrap()],
            allow_insecure: false,
        };
        let route = Route::parse("https://eu.iterocloud.com", "/v2", &policy).unwrap();
        let trial = RouteTrial::of(Arc::new(route));
        let turn = trial.begin().unwrap();
        assert!(trial.begin().is_none());
        drop(turn);
        assert!(trial.begin().is_some());
    }
}
