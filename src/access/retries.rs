//! Retries renewals although no caller asks: what failed is tried again, a realm whose circuit breaker is
//! open is probed, and a refusal that may have been a mistake is tried once more.
//!
//! The rule guarded here: all of it goes through the one entry point and its waits, so that a realm in
//! trouble sees one probe at a time, and a dead account is not retried in a loop.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::account::{AccountState, RealmName};

use super::cause::{Cause, RenewError};
use super::circuit_breaker::CircuitBreaker;
use super::context::RenewalContext;
use super::pacing::refresh_gap;
use super::registry::Account;
use super::renewal::Renewals;
use super::starter::Starter;
use super::{locked, recent_refusals};

/// Between two looks, also where what was due could not begin.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Where something is owed and a probe is in flight, or nobody can make one.
const PAUSE_WITHOUT_WORK: Duration = Duration::from_secs(5);
/// Between two second looks at one account, where the first said nothing.
const PAUSE_BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// Ends with the control runtime. Sleeps without a timer while all is well.
pub(super) async fn run(renewals: &Renewals) {
    let starter = Starter::new(renewals);
    let context = renewals.context();
    remember_given_up(context);
    loop {
        let now = context.clock.now();
        match next(context) {
            None => context.retries.changed.notified().await,
            Some(at) if at > now => tokio::select! {
                () = context.clock.sleep_until(at) => {}
                () = context.retries.changed.notified() => {}
            },
            Some(_) => {
                let (owed, looks) = (due(context, now), second_tries_due(context, now));
                let pause =
                    if owed.is_empty() && looks.is_empty() { PAUSE_WITHOUT_WORK } else { SHORTEST_PAUSE };
                for (account, cause) in owed {
                    starter.renew(account, cause).await;
                }
                for account in looks {
                    starter.run(try_again_once(renewals.clone(), account)).await;
                }
                context.clock.sleep(pause).await;
            }
        }
    }
}

/// Accounts that need a login since a moment at which others were refused too: the process may have ended
/// before they were looked at again.
fn remember_given_up(context: &RenewalContext) {
    let mut refused: Vec<_> = context
        .registry
        .all()
        .into_iter()
        .filter_map(|account| {
            let snapshot = account.snapshot();
            match &snapshot.state {
                AccountState::NeedsLogin { since, .. } => Some((snapshot.realm.clone(), *since, account)),
                AccountState::Ready | AccountState::Paused => None,
            }
        })
        .collect();
    refused.sort_by(|(realm, since, _), (other, later, _)| (realm, since).cmp(&(other, later)));
    let together = |(realm, since, _): &(RealmName, Timestamp, _),
                    (other, later, _): &(RealmName, Timestamp, _)| {
        realm == other && later.since(*since) < recent_refusals::CORRELATION_WINDOW
    };
    for (at, refusal) in refused.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| refused.get(at));
        let among = before.is_some_and(|before| together(before, refusal))
            || refused.get(at + 1).is_some_and(|next| together(refusal, next));
        let (realm, since, account) = refusal;
        if among && context.clock.now().since(*since) < recent_refusals::LAST_PROBE {
            context.breakers.get(realm).given_up(*since, account);
        }
    }
}

/// The earliest moment at which something may be owed.
fn next(context: &RenewalContext) -> Option<Timestamp> {
    let failing = failing(context).into_iter().map(|(_, at)| at).min();
    let looks = locked(&context.retries.second_tries).values().map(|(_, at)| *at).min();
    let realms = context.breakers.all();
    let probes = realms.iter().filter_map(|breaker| breaker.next_probe()).min();
    [failing, looks, probes].into_iter().flatten().min()
}

/// What is owed now. Of a realm in trouble one account is enough.
fn due(context: &RenewalContext, now: Timestamp) -> Vec<(Arc<Account>, Cause)> {
    let mut owed = Vec::new();
    let mut tried: Vec<Arc<CircuitBreaker>> = Vec::new();
    for (account, at) in failing(context) {
        let snapshot = account.snapshot();
        let breaker = context.breakers.get(&snapshot.realm);
        if at > now || tried.iter().any(|realm| realm.realm == breaker.realm) {
            continue;
        }
        if breaker.is_open() {
            tried.push(breaker);
        }
        // With a living token only a route is wanting, and a refresh would be one too many.
        let only_a_route = snapshot.route.is_none() && snapshot.live_token(now).is_some();
        owed.push((account, if only_a_route { Cause::NoToken } else { Cause::BeforeExpiry }));
    }
    for breaker in context.breakers.all() {
        if tried.iter().any(|realm| realm.realm == breaker.realm) {
            continue;
        }
        if let Some(account) = breaker.take_refused(now) {
            owed.push((account, Cause::Operator));
        } else if breaker.probe_is_due(now)
            && let Some(account) = anybody(context, &breaker, now)
        {
            owed.push((account, Cause::BeforeExpiry));
        }
    }
    owed
}

/// Whose second look is due: at its moment, and not while the realm is in trouble or wants to be left alone.
fn second_tries_due(context: &RenewalContext, now: Timestamp) -> Vec<Arc<Account>> {
    let mut looks = Vec::new();
    locked(&context.retries.second_tries).retain(|_, (account, at)| {
        let breaker = context.breakers.get(&account.snapshot().realm);
        let waits = *at > now || breaker.is_open() || breaker.blocked_until() > now;
        let is_owed = needs_login(account) && is_known(context, account);
        if !waits && is_owed {
            looks.push(Arc::clone(account));
        }
        waits && is_owed
    });
    looks
}

/// One look. Where nothing was said about the grant (the platform failed, the vendor's gap, a store that
/// takes no writes) it is still owed.
async fn try_again_once(renewals: Renewals, account: Arc<Account>) {
    let looked = renewals.renew(&account, account.generation(), Cause::Operator).await;
    let context = renewals.context();
    let again = match looked {
        Err(RenewError::Unavailable { retry_at, .. } | RenewError::TooSoon { until: retry_at }) => retry_at,
        Err(RenewError::StillRunning) => Timestamp::default(),
        Ok(_) | Err(RenewError::NeedsLogin { .. } | RenewError::Paused) => return,
    };
    if needs_login(&account) {
        context.retries.second_try_at(account, again.max(context.clock.now() + PAUSE_BETWEEN_LOOKS));
    }
}

/// Not removed or renamed since.
fn is_known(context: &RenewalContext, account: &Arc<Account>) -> bool {
    context.registry.by_name(account.name.as_str()).is_some_and(|known| Arc::ptr_eq(&known, account))
}

fn needs_login(account: &Account) -> bool {
    matches!(account.state(), AccountState::NeedsLogin { .. })
}

/// Those that still fail, each with the moment from which it may be tried; the others are forgotten.
fn failing(context: &RenewalContext) -> Vec<(Arc<Account>, Timestamp)> {
    let settings = context.settings.load();
    let mut failing = Vec::new();
    locked(&context.retries.failing).retain(|_, account| {
        let snapshot = account.snapshot();
        let breaker = context.breakers.get(&snapshot.realm);
        let retry_at = account.pacing.lock().retry_at(breaker.recoveries());
        let is_at_work = snapshot.state == AccountState::Ready && is_known(context, account);
        let Some(retry_at) = retry_at.filter(|_| is_at_work) else { return false };
        let own = if breaker.is_open() { Timestamp::default() } else { retry_at };
        let apart =
            snapshot.last_refresh().map(|last| last + refresh_gap(&settings, snapshot.on_both_platforms()));
        let at = own.max(breaker.blocked_until()).max(apart.unwrap_or_default());
        failing.push((Arc::clone(account), at));
        true
    });
    // The one that has waited longest first.
    failing.sort_by_key(|(account, at)| (*at, account.renewals_blocked_until()));
    failing
}

/// An account that may be refreshed now, where a realm in trouble has none that fails: they may have been
/// paused or removed since.
fn anybody(context: &RenewalContext, breaker: &CircuitBreaker, now: Timestamp) -> Option<Arc<Account>> {
    let settings = context.settings.load();
    let mut found = None;
    context.registry.for_each(|account| {
        if found.is_some() {
            return;
        }
        let snapshot = account.snapshot();
        let apart = refresh_gap(&settings, snapshot.on_both_platforms());
        let may = snapshot.last_refresh().is_none_or(|last| last + apart <= now);
        if may && snapshot.realm == breaker.realm && snapshot.state == AccountState::Ready {
            found = Some(Arc::clone(account));
        }
    });
    found
}
