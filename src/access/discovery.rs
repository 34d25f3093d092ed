//! The second half of a renewal: asking the platform where the account lives.
//!
//! The rule guarded here: a discovery that failed, came late or found a place that is not allowed never takes a good route away.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::model::route::Route;
use crate::model::token::AccessToken;
use crate::platform::{Trouble, TroubleKind};

use super::calls::ControlCalls;
use super::flight::Flight;
use super::realm::Tally;
use super::renewal::{Landing, RenewProblem};
use super::snapshot::Snapshot;
use super::unsaved::save_route;

/// How long callers wait for discovery once the token is there; then the last route is used (design, section 5).
const DISCOVERY_WAIT: Duration = Duration::from_secs(2);

impl Flight {
    /// Discovery without a refresh before it.
    pub(super) async fn discover_only(self) -> Result<Arc<Route>, RenewProblem> {
        let before = self.entry.snapshot();
        let platform = self.shared.platform(&before.realm)?;
        let token = before.live_token(self.now());
        let token = token.ok_or_else(|| self.shared.unavailable("the token ended meanwhile"))?;
        match self.ask_for_route(&*platform, before.route.as_deref(), &token).await {
            Ok(route) => Ok(self.take_route(&before, route).await),
            Err(trouble) => {
                Tally::count(&self.health.tally.discovery_failures);
                Err(self.shared.unavailable(&trouble.to_string()))
            }
        }
    }

    /// Finds the route. Callers wait for it a little; then the last one is used, and what comes later is published when it comes.
    pub(super) async fn discover(&self, platform: &dyn ControlCalls) -> Landing {
        let before = self.entry.snapshot();
        let Some(token) = before.live_token(self.now()) else { return self.current() };
        let last = before.route.as_deref();
        let mut asking = pin!(self.ask_for_route(platform, last, &token));
        let in_time = match last {
            None => Some(asking.as_mut().await),
            Some(_) => tokio::select! {
                biased;
                answer = asking.as_mut() => Some(answer),
                () = self.shared.clock.sleep(DISCOVERY_WAIT) => None,
            },
        };
        let answer = match in_time {
            Some(answer) => answer,
            None => {
                self.tell(self.current());
                asking.await
            }
        };
        self.accept_route(&before, answer).await
    }

    async fn ask_for_route(
        &self,
        platform: &dyn ControlCalls,
        last: Option<&Route>,
        token: &AccessToken,
    ) -> Result<Route, Trouble> {
        Tally::count(&self.health.tally.discoveries);
        self.repeat(|| platform.discover(last, token), |_| ()).await
    }

    /// A failed or empty discovery keeps the last good route, and is told once.
    async fn accept_route(&self, before: &Snapshot, answer: Result<Route, Trouble>) -> Landing {
        let trouble = match answer {
            Ok(route) => {
                self.take_route(before, route).await;
                return self.current();
            }
            Err(trouble) => trouble,
        };
        Tally::count(&self.health.tally.discovery_failures);
        let told = std::mem::replace(&mut self.entry.pacing.lock().discovery_failing, true);
        if !told {
            match trouble.kind {
                TroubleKind::RouteRefused => tracing::error!(
                    account = %self.entry.name, realm = %before.realm, %trouble,
                    "discovery sends this account to a place that allowed_hosts does not have"
                ),
                _ => {
                    tracing::warn!(account = %self.entry.name, realm = %before.realm, %trouble, "discovery failed")
                }
            }
            let route = match &before.route {
                Some(route) => format!("{route} stays in use"),
                None => "no route is known, so no call can be made".to_owned(),
            };
            self.note("discovery_failed", format!("{trouble}; {route}"));
        }
        match before.route.is_some() {
            true => self.current(),
            false => Err(self.back_off(&format!("no route is known: {trouble}"))),
        }
    }

    /// Publishes and stores a route that was found, where it is news. One that a newer renewal has overtaken is left out.
    async fn take_route(&self, before: &Snapshot, route: Route) -> Arc<Route> {
        let route = self.shared.book.shared(route);
        self.entry.pacing.lock().discovery_failing = false;
        let now_known = self.entry.snapshot();
        if now_known.serial != before.serial || now_known.route.as_ref() == Some(&route) {
            return route;
        }
        self.entry.put_route(&before.realm, Some(Arc::clone(&route)));
        let detail = match &now_known.route {
            Some(last) => format!("from {last} to {route}"),
            None => format!("first found: {route}"),
        };
        self.note("route_changed", detail);
        save_route(&self.shared, &self.entry, &before.realm).await;
        route
    }
}
