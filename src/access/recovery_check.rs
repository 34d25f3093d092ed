//! Asks over the routes of accounts that failed and are called no more whether the platform works again, so
//! that an idle system notices by itself.
//!
//! The rule guarded here: one question per route and round, since thousands of accounts share a handful of
//! routes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Timestamp;
use crate::model::account::{AccountState, RealmName};
use crate::model::route::Route;

use super::registry::Account;
use super::renewal::Renewals;

const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// Whoever called a moment ago will see for itself.
const QUIET: Duration = Duration::from_secs(20);
/// What failed longer ago is reported as what it is.
const TOO_OLD: Duration = Duration::from_secs(24 * 3600);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Accounts that speak for a route: one may be refused for reasons of its own.
const ASKED: usize = 3;

impl Renewals {
    /// Starts the rounds on the control runtime, for as long as the gateway lives.
    pub fn watch_quiet_accounts(&self) -> JoinHandle<()> {
        let renewals = self.clone();
        self.context().runtime.spawn(async move {
            loop {
                renewals.context().clock.sleep(POLL_INTERVAL).await;
                renewals.look_at_quiet_accounts().await;
            }
        })
    }

    pub(super) async fn look_at_quiet_accounts(&self) {
        let now = self.context().clock.now();
        let mut routes: HashMap<(RealmName, Arc<Route>), Vec<Arc<Account>>> = HashMap::new();
        self.context().registry.for_each(|account| {
            if let Some(key) = waiting_for(account, now) {
                routes.entry(key).or_default().push(Arc::clone(account));
            }
        });
        for ((realm, route), entries) in routes {
            if self.responds(&realm, &route, &entries).await {
                let well_at = self.context().clock.now();
                entries.iter().for_each(|account| account.platform_is_well(well_at));
            }
        }
    }

    async fn responds(&self, realm: &RealmName, route: &Route, entries: &[Arc<Account>]) -> bool {
        let Ok(platform) = self.context().platform(realm) else { return false };
        for account in entries.iter().take(ASKED) {
            let snapshot = account.snapshot();
            let Some(token) = snapshot.live_token(self.context().clock.now()) else { continue };
            let responded = tokio::select! {
                biased;
                response = platform.prove(route, snapshot.version, &token) => response.is_ok(),
                () = self.context().clock.sleep(PROBE_TIMEOUT) => false,
            };
            if responded {
                return true;
            }
        }
        false
    }
}

/// Over which route an account waits to hear that the platform is well again.
fn waiting_for(account: &Account, now: Timestamp) -> Option<(RealmName, Arc<Route>)> {
    let streak = account.streak()?;
    let age = now.since(streak.last);
    let waits = streak.what.ends_with_discovery() && streak.well_at.is_none();
    let snapshot = account.snapshot();
    let is_due = waits && age >= QUIET && age < TOO_OLD && snapshot.state == AccountState::Ready;
    let route = snapshot.route.clone().filter(|_| is_due)?;
    Some((snapshot.realm.clone(), route))
}
