//! The scheduler: who is due when, and that it never sends a herd.

use std::sync::Arc;
use std::time::Duration;

use crate::access::control_calls::ControlCalls;
use crate::access::doubles::*;
use crate::access::renewal::Cause;
use crate::access::scheduler::{ScheduleInput, due_by, next_due};
use crate::journal::JournalEvent;
use crate::model::account::{AccountState, RealmName};
use crate::model::token::RefreshToken;
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::{GrantRecord, Store};

fn facts() -> ScheduleInput {
    ScheduleInput {
        expires_at: Some(start_time() + HOUR),
        refreshed_at: Some(start_time()),
        obtained_at: start_time(),
        last_used: None,
        blocked_until: start_time(),
    }
}

#[test]
fn an_account_in_use_is_renewed_ahead_of_its_end_and_never_after_it() {
    let facts = ScheduleInput { last_used: Some(start_time() + MINUTE), ..facts() };
    for spread in [0.0, 0.5, 0.99] {
        let (due, cause) = next_due(start_time() + MINUTE, &facts, spread, &settings());
        assert_eq!(cause, Cause::BeforeExpiry);
        assert!(due <= start_time() + HOUR - 5 * MINUTE && due >= start_time() + HOUR - 10 * MINUTE, "{due}");
    }
}

#[test]
fn an_idle_account_is_refreshed_within_keep_alive() {
    let week = settings().idle_renewal;
    for spread in [0.0, 0.5, 0.99] {
        let (due, cause) = next_due(start_time() + 2 * HOUR, &facts(), spread, &settings());
        assert_eq!(cause, Cause::IdleRenewal);
        assert!(due <= start_time() + week && due >= start_time() + week * 7 / 8, "{due}");
    }
}

#[test]
fn an_office_that_went_home_is_renewed_no_longer() {
    let used = ScheduleInput { last_used: Some(start_time()), ..facts() };
    let later = ScheduleInput {
        refreshed_at: Some(start_time() + 2 * HOUR),
        expires_at: Some(start_time() + 3 * HOUR),
        ..used.clone()
    };
    assert_eq!(next_due(start_time() + HOUR / 2, &used, 0.0, &settings()).1, Cause::BeforeExpiry);
    assert_eq!(next_due(start_time() + 2 * HOUR, &later, 0.0, &settings()).1, Cause::IdleRenewal);
}

#[test]
fn a_token_that_lives_shorter_than_ahead_is_not_renewed_without_end() {
    let short = ScheduleInput {
        expires_at: Some(start_time() + Duration::from_secs(20)),
        last_used: Some(start_time()),
        ..facts()
    };
    let (due, _) = next_due(start_time(), &short, 0.99, &settings());
    assert!(due >= start_time() + Duration::from_secs(10), "{due}");
}

#[test]
fn a_back_off_puts_the_moment_off() {
    let held =
        ScheduleInput { blocked_until: start_time() + 2 * HOUR, last_used: Some(start_time()), ..facts() };
    assert_eq!(next_due(start_time(), &held, 0.5, &settings()).0, start_time() + 2 * HOUR);
}

#[tokio::test]
async fn accounts_renewed_together_are_due_apart() {
    let names: Vec<String> = (0..600).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Workbench::new(ScriptedPlatform::new(false), &names).await;
    for account in bench.registry.all() {
        account.mark_used(start_time());
    }
    let due = due_by(&bench.renewals, start_time(), start_time() + HOUR);
    assert_eq!(due.len(), 600);
    for second in 0..3600 {
        let from = start_time() + Duration::from_secs(second);
        let herd = due.iter().filter(|due| due.at >= from && due.at < from + Duration::from_secs(1)).count();
        assert!(herd <= 10, "{herd} in one second");
    }
}

#[tokio::test]
async fn paused_accounts_and_those_that_need_a_login_are_left_alone() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["paused", "dead", "alive"]).await;
    let dead = AccountState::NeedsLogin { since: start_time(), why: "refused".to_owned() };
    for (name, state) in [("paused", AccountState::Paused), ("dead", dead)] {
        let name = name.parse().unwrap();
        bench.store.set_state(&name, &state).await.unwrap();
        bench.registry.apply(bench.store.account(&name).await.unwrap().unwrap());
    }
    let due = due_by(&bench.renewals, start_time(), start_time() + 365 * 24 * HOUR);
    let names: Vec<_> = due.iter().map(|due| due.account.name.as_str()).collect();
    assert_eq!(names, ["alive"]);
}

/// Moves time on in steps that every sleeper notices.
async fn live(bench: &Workbench, step: Duration, steps: usize) {
    for _ in 0..steps {
        bench.clock.until_sleeping(1).await;
        let slept = bench.clock.ever_slept();
        bench.clock.advance(step);
        while bench.clock.ever_slept() == slept {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn the_keeper_renews_before_a_caller_meets_an_expired_token() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["busy", "idle"]).await;
    let keeper = bench.renewals.start_scheduler();
    for _ in 0..3 * 60 {
        bench.account("busy").mark_used(bench.clock.now());
        live(&bench, MINUTE / 2, 2).await;
        let expires_at = bench.account("busy").summary().expires_at.unwrap();
        assert!(expires_at > bench.clock.now(), "{expires_at} at {}", bench.clock.now());
    }
    assert_eq!(bench.grant("idle").await.refresh.expose(), "refresh-idle-0");
    keeper.abort();
}

#[tokio::test]
async fn after_a_long_stop_overdue_accounts_are_renewed_a_few_at_a_time() {
    let names: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    bench.clock.advance(30 * 24 * HOUR);
    bench.platform.refresh_door.send_replace(false);
    let keeper = bench.renewals.start_scheduler();
    bench.platform.until_refreshes(1).await;
    live(&bench, Duration::from_millis(20), 7).await;
    bench.platform.until_refreshes(8).await;
    // All hands are taken: time alone starts nothing more, short of the waiters' ten seconds.
    for _ in 0..50 {
        bench.clock.advance(Duration::from_millis(20));
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.platform.refreshes(), 8);
    bench.platform.refresh_door.send_replace(true);
    while bench.platform.refreshes() < 100 {
        bench.clock.advance(Duration::from_millis(20));
        tokio::task::yield_now().await;
    }
    bench.renewals.finish().await;
    assert_eq!(
        bench.grant("a99").await.access.map(|access| access.expires_at > start_time() + HOUR),
        Some(true)
    );
    keeper.abort();
}

#[tokio::test]
async fn a_caller_that_renewed_meanwhile_spares_the_keeper_the_work() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["busy", "other"]).await;
    let busy = bench.account("busy");
    bench.clock.advance(HOUR - 4 * MINUTE);
    busy.mark_used(bench.clock.now());
    let renewals = bench.renewals.clone();
    let by_caller = tokio::spawn({
        let busy = Arc::clone(&busy);
        async move { renewals.renew(&busy, busy.generation(), Cause::Unauthorized).await.is_ok() }
    });
    assert!(by_caller.await.unwrap());
    let keeper = bench.renewals.start_scheduler();
    live(&bench, MINUTE, 10).await;
    assert_eq!(bench.platform.refreshes(), 1);
    keeper.abort();
}

/// An account that calls realm `global` and holds a grant in realm `old` as well.
async fn between_platforms() -> (Workbench, Arc<ScriptedPlatform>, RealmName) {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let (old, realm) = (Arc::new(ScriptedPlatform::new(true)), "old".parse::<RealmName>().unwrap());
    let mut aside = new_grant("smile", &realm, 7, start_time());
    aside.make_current = false;
    old.takes("refresh-smile-0", "smile");
    bench.registry.apply(bench.store.put_grant(aside).await.unwrap());
    let mut platforms = platforms(&bench.platform);
    platforms.insert(realm.clone(), Arc::clone(&old) as Arc<dyn ControlCalls>);
    bench.renewals.reload(settings(), platforms, &[]).await;
    (bench, old, realm)
}

async fn of_realm(bench: &Workbench, realm: &RealmName) -> GrantRecord {
    let record = bench.store.account(&"smile".parse().unwrap()).await.unwrap().unwrap();
    record.grants.into_iter().find(|grant| grant.realm == *realm).unwrap()
}

async fn hours_pass_until(bench: &Workbench, done: impl Fn() -> bool) {
    while !done() {
        bench.clock.advance(HOUR / 4);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_grant_that_is_not_in_use_is_kept_alive_too_and_touches_nothing_else() {
    let (bench, old, realm) = between_platforms().await;
    let keeping = bench.renewals.start_scheduler();
    for weeks in 1..=2 {
        hours_pass_until(&bench, || old.refreshes() == weeks).await;
        hours_pass_until(&bench, || {
            bench.events.of("smile", JournalEvent::Refreshed).iter().any(|line| line.contains("old"))
        })
        .await;
        let kept = of_realm(&bench, &realm).await;
        let refreshed_at = kept.refreshed_at.unwrap();
        assert!(bench.clock.now().since(refreshed_at) < 2 * HOUR, "{kept:?}");
        assert_eq!(
            kept.refresh.expose(),
            format!("refresh-smile-{weeks}"),
            "with rotation the newest is kept"
        );
        let most = start_time() + settings().idle_renewal * weeks as u32;
        assert!(refreshed_at <= most, "{refreshed_at} is later than {most}");
    }
    let summary = bench.account("smile").summary();
    assert_eq!((summary.realm, summary.state), (global(), AccountState::Ready));
    assert_eq!(bench.grant("smile").await.realm, global());
    keeping.abort();
}

#[tokio::test]
async fn a_dead_grant_that_is_not_in_use_is_told_once_and_costs_the_account_nothing() {
    let (bench, old, realm) = between_platforms().await;
    old.forgets("smile");
    let keeping = bench.renewals.start_scheduler();
    hours_pass_until(&bench, || old.refreshes() == 3).await;
    assert_eq!(bench.events.of("smile", JournalEvent::UnusedGrantRefused).len(), 1);
    while of_realm(&bench, &realm).await.intent.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.events.of("smile", JournalEvent::NeedsLogin).len(), 0);
    assert_eq!(bench.account("smile").state(), AccountState::Ready);
    assert!(
        bench.clock.now() >= start_time() + settings().idle_renewal * 7 / 8 + 2 * 24 * HOUR,
        "a day between two"
    );
    keeping.abort();
}

#[tokio::test]
async fn of_a_paused_account_no_grant_is_kept_alive() {
    let (bench, old, _) = between_platforms().await;
    let name = "smile".parse().unwrap();
    bench.store.set_state(&name, &AccountState::Paused).await.unwrap();
    bench.registry.apply(bench.store.account(&name).await.unwrap().unwrap());
    assert_eq!(due_by(&bench.renewals, start_time() + 1000 * HOUR, start_time() + 2000 * HOUR).len(), 0);
    assert_eq!(old.refreshes(), 0);
}

#[tokio::test]
async fn a_grant_that_is_not_in_use_loses_no_refresh_token_to_an_odd_response() {
    let (bench, old, realm) = between_platforms().await;
    let odd = PlatformError {
        refresh: Some(RefreshToken::new("invented")),
        ..error("refresh", Blame::Realm, PlatformErrorKind::Malformed, Some(200))
    };
    old.refreshes_fail(odd, 1);
    let keeping = bench.renewals.start_scheduler();
    hours_pass_until(&bench, || !bench.events.of("smile", JournalEvent::RefreshTokenKept).is_empty()).await;
    assert_eq!(of_realm(&bench, &realm).await.refresh.expose(), "invented");
    // Nobody's token: the platform refuses it, and the one before it takes its place again.
    hours_pass_until(&bench, || {
        bench.events.of("smile", JournalEvent::Refreshed).iter().any(|line| line.contains("old"))
    })
    .await;
    assert_eq!(bench.events.of("smile", JournalEvent::FallbackAdopted).len(), 1);
    assert_eq!(bench.events.of("smile", JournalEvent::UnusedGrantRefused).len(), 0);
    assert_eq!(of_realm(&bench, &realm).await.refresh.expose(), "refresh-smile-1");
    keeping.abort();
}
