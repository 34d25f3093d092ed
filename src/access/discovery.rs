//! The second half of a renewal: asking the platform where the account lives, and proving what it says before
//! any call moves there.
//!
//! The rule guarded here: a discovery that failed, came late, found a place that is not allowed or named one
//! that does not answer never takes a good route away.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::JournalEvent;
use crate::model::route::Route;
use crate::model::token::AccessToken;
use crate::platform::{PlatformError, PlatformErrorKind};

use super::cause::{Cause, RenewError, RenewalResult};
use super::circuit_breaker::RenewalCounters;
use super::commit::save_route;
use super::control_calls::ControlCalls;
use super::renewal_task::RenewalTask;
use super::route_candidate::RouteTrial;
use super::snapshot::Snapshot;

/// How long callers wait for discovery once the token is there; then the last route is used (design, section
/// 5).
const DISCOVERY_WAIT: Duration = Duration::from_secs(2);
/// How long a route that is to be proven may take to answer: one that hangs is no better than the one in use.
const PROOF_WAIT: Duration = Duration::from_secs(10);

/// What the later discovery over a route showed.
enum Proof {
    Proven(Route),
    /// It answers, but discovery is not served there: the first response of its API decides.
    NotServed(Route, String),
    NotProven(Route, String),
}

impl RenewalTask {
    /// Discovery without a refresh before it.
    pub(super) async fn discover_only(self) -> Result<Arc<Route>, RenewError> {
        let before = self.account.snapshot();
        let platform = self.context.platform(&before.realm)?;
        let token = before.live_token(self.now());
        let token = token.ok_or_else(|| self.context.unavailable("the token ended meanwhile"))?;
        let named = match self.ask_for_route(&*platform, before.route.as_deref(), &token).await {
            Ok(named) => named,
            Err(error) => {
                RenewalCounters::increment(&self.breaker.counters.discovery_failures);
                return Err(self.context.unavailable(&error.to_string()));
            }
        };
        self.evaluate_route(&*platform, &before, named, &token).await;
        let candidate = self.account.pacing.lock().routes.candidate.clone();
        match (self.account.snapshot().route.clone(), candidate) {
            (Some(in_use), Some(candidate)) if candidate.route != in_use => Err(self.context.unavailable(
                &format!("{} is not used: {}; {in_use} stays in use", candidate.route, candidate.why),
            )),
            (Some(in_use), _) => Ok(in_use),
            (None, _) => Err(self.context.unavailable("no route is known")),
        }
    }

    /// Finds the route. Callers wait for it a little; then the last one is used, and what comes later is
    /// published when it comes.
    pub(super) async fn discover(&self, platform: &dyn ControlCalls) -> RenewalResult {
        let before = self.account.snapshot();
        let Some(token) = before.live_token(self.now()) else { return self.current() };
        let last = before.route.as_deref();
        let mut looking = pin!(async {
            let response = self.ask_for_route(platform, last, &token).await;
            self.take_discovery(platform, &before, response, &token).await
        });
        if last.is_none() {
            return looking.await;
        }
        tokio::select! {
            biased;
            result = looking.as_mut() => return result,
            () = self.context.clock.sleep(DISCOVERY_WAIT) => {}
        }
        self.complete(self.current());
        looking.await
    }

    /// One more question about the account's route, on nobody's behalf. `at_base`: past the route in use.
    pub(super) async fn recheck_route(&self, at_base: bool) {
        let before = self.account.snapshot();
        let (Ok(platform), Some(token)) =
            (self.context.platform(&before.realm), before.live_token(self.now()))
        else {
            return;
        };
        RenewalCounters::increment(&self.breaker.counters.discoveries);
        let last = before.route.as_deref().filter(|_| !at_base);
        let response = platform.discover(last, before.version, &token).await;
        // Without a route this is no renewal that failed: nobody waits, and the next call asks for itself.
        let _ = self.take_discovery(&*platform, &before, response, &token).await;
    }

    async fn ask_for_route(
        &self,
        platform: &dyn ControlCalls,
        last: Option<&Route>,
        token: &AccessToken,
    ) -> Result<Route, PlatformError> {
        RenewalCounters::increment(&self.breaker.counters.discoveries);
        let version = self.account.snapshot().version;
        self.repeat(|| platform.discover(last, version, token), |_| ()).await
    }

    /// A failed or empty discovery keeps the last good route, and is reported once.
    async fn take_discovery(
        &self,
        platform: &dyn ControlCalls,
        before: &Snapshot,
        response: Result<Route, PlatformError>,
        token: &AccessToken,
    ) -> RenewalResult {
        let error = match response {
            Ok(named) => {
                self.evaluate_route(platform, before, named, token).await;
                return self.current();
            }
            Err(error) => error,
        };
        RenewalCounters::increment(&self.breaker.counters.discovery_failures);
        let told = std::mem::replace(&mut self.account.pacing.lock().discovery_failing, true);
        let in_use = self.account.snapshot().route.clone();
        if !told {
            match error.kind {
                PlatformErrorKind::RouteRefused => tracing::error!(
                    account = %self.account.name, realm = %before.realm, trouble = %error,
                    "discovery sends this account to a place that allowed_hosts does not have"
                ),
                _ => {
                    tracing::warn!(account = %self.account.name, realm = %before.realm, trouble = %error, "discovery failed")
                }
            }
            let route = match &in_use {
                Some(route) => format!("{route} stays in use"),
                None => "no route is known, so no call can be made".to_owned(),
            };
            self.journal(JournalEvent::DiscoveryFailed, format!("{error}; {route}"));
        }
        if in_use.is_some() {
            return self.current();
        }
        Err(self.backoff(&format!("no route is known: {error}")))
    }

    /// Moves the account's calls to the route that discovery names, once that is proven. One that a newer
    /// renewal has overtaken is left out.
    async fn evaluate_route(
        &self,
        platform: &dyn ControlCalls,
        before: &Snapshot,
        named: Route,
        token: &AccessToken,
    ) {
        self.account.pacing.lock().discovery_failing = false;
        let known = self.account.snapshot();
        if known.serial != before.serial {
            return;
        }
        let in_use = match &known.route {
            Some(route) if known.is_proven() && **route == named => return self.confirm_route(before, route),
            Some(route) if known.is_proven() => Arc::clone(route),
            // Discovery is not served there: the next call decides, and asking again would tell nothing new.
            Some(route) if **route == named && !self.has_candidate() => return,
            // Nothing is proven yet, so there is nothing better.
            Some(_) | None => return self.use_unproven(platform, before, named, token).await,
        };
        match self.try_route(platform, &in_use, named, token).await {
            Proof::Proven(route) => self.publish_proven(before, &Arc::new(route)).await,
            Proof::NotServed(route, _) if self.is_unreachable() => {
                self.publish_unproven(before, &self.context.registry.intern_route(route));
            }
            Proof::NotServed(route, why) => {
                let route = Arc::new(route);
                self.keep_unproven(before, &in_use, &route, format!("{why}; a call of its API decides"));
                self.account.put_trial(&before.realm, Some(RouteTrial::of(route)));
            }
            Proof::NotProven(route, why) => {
                RenewalCounters::increment(&self.breaker.counters.discovery_failures);
                self.keep_unproven(before, &in_use, &Arc::new(route), why);
                self.account.put_trial(&before.realm, None);
            }
        }
    }

    /// The route in use is confirmed; whatever else discovery named before is forgotten.
    fn confirm_route(&self, before: &Snapshot, in_use: &Route) {
        let forgotten = self.account.pacing.lock().routes.candidate.take();
        self.account.put_trial(&before.realm, None);
        if let Some(candidate) = forgotten {
            let detail = format!("discovery names {in_use} again and no longer {}", candidate.route);
            self.journal(JournalEvent::RouteConfirmed, detail);
        }
    }

    /// A route is proven by the discovery over itself that names it. Where that names yet another one, this
    /// one is asked likewise.
    async fn try_route(
        &self,
        platform: &dyn ControlCalls,
        in_use: &Route,
        named: Route,
        token: &AccessToken,
    ) -> Proof {
        let says = match self.prove(platform, &named, token).await {
            Ok(says) => says,
            Err(error) if is_not_served(&error) => return Proof::NotServed(named, error.to_string()),
            Err(error) => return Proof::NotProven(named, error.to_string()),
        };
        if says == named || self.is_unreachable() {
            return Proof::Proven(named);
        }
        if says == *in_use {
            return Proof::NotProven(named, format!("it names {in_use} itself"));
        }
        match self.prove(platform, &says, token).await {
            Ok(next) if next == says => Proof::Proven(says),
            Ok(next) => Proof::NotProven(says, format!("it names {next} instead")),
            Err(error) => Proof::NotProven(says, error.to_string()),
        }
    }

    /// A first route: in use from now on, and proven as soon as it answers.
    async fn use_unproven(
        &self,
        platform: &dyn ControlCalls,
        before: &Snapshot,
        named: Route,
        token: &AccessToken,
    ) {
        let route = self.context.registry.intern_route(named);
        self.publish_unproven(before, &route);
        if self.cause != Cause::Operator {
            // Callers need not wait for what changes nothing for them.
            self.complete(self.current());
        }
        match self.prove(platform, &route, token).await {
            Ok(says) if says == *route => self.publish_proven(before, &route).await,
            Ok(says) => match self.prove(platform, &says, token).await {
                Ok(next) if next == says => self.publish_proven(before, &Arc::new(says)).await,
                // It has answered as an API does, which the other one has not.
                Ok(_) | Err(_) => self.publish_proven(before, &route).await,
            },
            Err(error) if is_not_served(&error) => {}
            Err(error) => self.keep_unproven(before, &route, &route, error.to_string()),
        }
    }

    /// Publishes a route that is not proven. It is not stored: a stored route is a proven one.
    fn publish_unproven(&self, before: &Snapshot, route: &Arc<Route>) {
        let known = self.account.snapshot();
        if known.serial != before.serial || known.route.as_ref() == Some(route) {
            return;
        }
        self.account.put_unproven(&before.realm, route);
        self.note_change(&known, route);
    }

    /// Publishes and stores a proven route.
    pub(super) async fn publish_proven(&self, before: &Snapshot, route: &Arc<Route>) {
        let known = self.account.snapshot();
        if known.serial != before.serial || known.realm != before.realm {
            return;
        }
        let route = self.context.registry.intern_route(Route::clone(route));
        self.account.put_route(&before.realm, Some(Arc::clone(&route)));
        self.account.pacing.lock().routes.clear();
        if known.route.as_ref() != Some(&route) {
            self.note_change(&known, &route);
        }
        save_route(&self.context, &self.account, &before.realm).await;
    }

    fn note_change(&self, known: &Snapshot, route: &Route) {
        let detail = match &known.route {
            Some(last) => format!("from {last} to {route}"),
            None => format!("first found: {route}"),
        };
        self.journal(JournalEvent::RouteChanged, detail);
    }

    /// Notes a route that is not proven, tells it once, and has it asked again.
    fn keep_unproven(&self, before: &Snapshot, in_use: &Arc<Route>, route: &Arc<Route>, why: String) {
        let is_news = self.account.pacing.lock().routes.record_unproven(self.now(), route, why.clone());
        if is_news {
            tracing::warn!(
                account = %self.account.name, realm = %before.realm, %route, %in_use, why,
                "discovery names a route that is not proven"
            );
            let what_is_used = if in_use == route {
                "it is used all the same, since no other is known".to_owned()
            } else {
                format!("{in_use} stays in use")
            };
            self.journal(JournalEvent::RouteNotProven, format!("{route}: {why}; {what_is_used}"));
        }
        self.context.follow(&self.account);
    }

    fn has_candidate(&self) -> bool {
        self.account.pacing.lock().routes.candidate.is_some()
    }

    fn is_unreachable(&self) -> bool {
        let responded_at = self.account.responded_at();
        self.account.pacing.lock().routes.is_unreachable(self.now(), responded_at)
    }

    async fn prove(
        &self,
        platform: &dyn ControlCalls,
        route: &Route,
        token: &AccessToken,
    ) -> Result<Route, PlatformError> {
        let version = self.account.snapshot().version;
        tokio::select! {
            biased;
            response = platform.prove(route, version, token) => response,
            () = self.context.clock.sleep(PROOF_WAIT) => Err(PlatformError::no_response("discovery", PROOF_WAIT)),
        }
    }
}

/// 404 and 405: somebody answers there, over TLS where the realm asks for it, and knows no discovery.
fn is_not_served(error: &PlatformError) -> bool {
    matches!(error.status, Some(404 | 405))
}
