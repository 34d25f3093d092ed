//! The keeper: who is due when, and that it never sends a herd.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::*;
use crate::access::keeper::{Facts, due_by, next_due};
use crate::access::renewal::Cause;
use crate::model::account::AccountState;
use crate::store::Store;

fn facts() -> Facts {
    Facts {
        expires_at: Some(start_time() + HOUR),
        refreshed_at: Some(start_time()),
        obtained_at: start_time(),
        last_used: None,
        held_until: start_time(),
    }
}

#[test]
fn an_account_in_use_is_renewed_ahead_of_its_end_and_never_after_it() {
    let facts = Facts { last_used: Some(start_time() + MINUTE), ..facts() };
    for spread in [0.0, 0.5, 0.99] {
        let (due, cause) = next_due(start_time() + MINUTE, &facts, spread, &settings());
        assert_eq!(cause, Cause::Ahead);
        assert!(due <= start_time() + HOUR - 5 * MINUTE && due >= start_time() + HOUR - 10 * MINUTE, "{due}");
    }
}

#[test]
fn an_idle_account_is_refreshed_within_keep_alive() {
    let week = settings().keep_alive;
    for spread in [0.0, 0.5, 0.99] {
        let (due, cause) = next_due(start_time() + 2 * HOUR, &facts(), spread, &settings());
        assert_eq!(cause, Cause::KeepAlive);
        assert!(due <= start_time() + week && due >= start_time() + week * 7 / 8, "{due}");
    }
}

#[test]
fn an_office_that_went_home_is_renewed_no_longer() {
    let used = Facts { last_used: Some(start_time()), ..facts() };
    let later = Facts {
        refreshed_at: Some(start_time() + 2 * HOUR),
        expires_at: Some(start_time() + 3 * HOUR),
        ..used.clone()
    };
    assert_eq!(next_due(start_time() + HOUR / 2, &used, 0.0, &settings()).1, Cause::Ahead);
    assert_eq!(next_due(start_time() + 2 * HOUR, &later, 0.0, &settings()).1, Cause::KeepAlive);
}

#[test]
fn a_token_that_lives_shorter_than_ahead_is_not_renewed_without_end() {
    let short = Facts {
        expires_at: Some(start_time() + Duration::from_secs(20)),
        last_used: Some(start_time()),
        ..facts()
    };
    let (due, _) = next_due(start_time(), &short, 0.99, &settings());
    assert!(due >= start_time() + Duration::from_secs(10), "{due}");
}

#[test]
fn a_back_off_puts_the_moment_off() {
    let held = Facts { held_until: start_time() + 2 * HOUR, last_used: Some(start_time()), ..facts() };
    assert_eq!(next_due(start_time(), &held, 0.5, &settings()).0, start_time() + 2 * HOUR);
}

#[tokio::test]
async fn accounts_renewed_together_are_due_apart() {
    let names: Vec<String> = (0..600).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Workbench::new(Scripted::new(false), &names).await;
    for entry in bench.book.all() {
        entry.touch(start_time());
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
    let bench = Workbench::new(Scripted::new(false), &["paused", "dead", "alive"]).await;
    let dead = AccountState::NeedsLogin { since: start_time(), why: "refused".to_owned() };
    for (name, state) in [("paused", AccountState::Paused), ("dead", dead)] {
        let name = name.parse().unwrap();
        bench.store.set_state(&name, &state).await.unwrap();
        bench.book.apply(bench.store.account(&name).await.unwrap().unwrap());
    }
    let due = due_by(&bench.renewals, start_time(), start_time() + 365 * 24 * HOUR);
    let names: Vec<_> = due.iter().map(|due| due.entry.name.as_str()).collect();
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
    let bench = Workbench::new(Scripted::new(true), &["busy", "idle"]).await;
    let keeper = bench.renewals.keep();
    for _ in 0..3 * 60 {
        bench.entry("busy").touch(bench.clock.now());
        live(&bench, MINUTE / 2, 2).await;
        let expires_at = bench.entry("busy").summary().expires_at.unwrap();
        assert!(expires_at > bench.clock.now(), "{expires_at} at {}", bench.clock.now());
    }
    assert_eq!(bench.grant("idle").await.refresh.expose(), "refresh-idle-0");
    keeper.abort();
}

#[tokio::test]
async fn after_a_long_stop_overdue_accounts_are_renewed_a_few_at_a_time() {
    let names: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Workbench::new(Scripted::new(true), &names).await;
    bench.clock.advance(30 * 24 * HOUR);
    bench.platform.refresh_door.send_replace(false);
    let keeper = bench.renewals.keep();
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
    let bench = Workbench::new(Scripted::new(true), &["busy", "other"]).await;
    let busy = bench.entry("busy");
    bench.clock.advance(HOUR - 4 * MINUTE);
    busy.touch(bench.clock.now());
    let renewals = bench.renewals.clone();
    let by_caller = tokio::spawn({
        let busy = Arc::clone(&busy);
        async move { renewals.renew(&busy, busy.generation(), Cause::Unauthorized).await.is_ok() }
    });
    assert!(by_caller.await.unwrap());
    let keeper = bench.renewals.keep();
    live(&bench, MINUTE, 10).await;
    assert_eq!(bench.platform.refreshes(), 1);
    keeper.abort();
}
