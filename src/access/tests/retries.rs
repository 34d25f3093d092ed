//! What is owed without a caller: trouble ends by itself, a mass of refusals is a signal before it is a
//! verdict, and refresh tokens of odd responses are not lost.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::*;
use crate::access::registry::{Account, Availability};
use crate::access::renewal::{Cause, RenewError};
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::RefreshToken;
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::Store;

async fn renew(bench: &Workbench, name: &str, cause: Cause) -> Result<String, RenewError> {
    let account: Arc<Account> = bench.account(name);
    let outcome = bench.renewals.renew(&account, account.generation(), cause).await;
    outcome.map(|access| token(&access).to_owned())
}

/// Time goes by while nobody calls.
async fn pass(bench: &Workbench, seconds: u64) {
    for _ in 0..seconds * 2 {
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        bench.clock.advance(Duration::from_millis(500));
    }
}

/// A renewal that may pause between its sends.
async fn renew_through_pauses(bench: &Workbench, name: &str) -> Result<String, RenewError> {
    let mut in_flight = std::pin::pin!(renew(bench, name, Cause::Unauthorized));
    loop {
        tokio::select! {
            biased;
            outcome = &mut in_flight => return outcome,
            () = pass(bench, 1) => {}
        }
    }
}

fn asked_to_wait(seconds: u64, status: u16) -> PlatformError {
    let retry_after = Some(Duration::from_secs(seconds));
    PlatformError { retry_after, ..error("refresh", Blame::Realm, PlatformErrorKind::Failed, Some(status)) }
}

fn states(bench: &Workbench, names: &[&str]) -> Vec<&'static str> {
    names.iter().map(|name| bench.account(name).state().word()).collect()
}

#[tokio::test]
async fn a_realm_in_trouble_is_well_within_a_minute_of_its_end_although_nobody_calls() {
    let names = ["a1", "a2", "a3", "a4"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.clock.advance(HOUR);
    bench.platform.refreshes_fail(unreachable(), 10_000);
    for name in &names[..3] {
        assert!(renew_through_pauses(&bench, name).await.is_err());
    }
    assert_eq!(bench.renewals.alarms().realms.len(), 1);
    let before = bench.platform.refreshes();
    pass(&bench, 600).await;
    let trials = bench.platform.refreshes() - before;
    assert!((10..=40).contains(&trials), "{trials} trials in ten minutes");
    bench.platform.recovers();
    pass(&bench, 60).await;
    assert!(bench.renewals.alarms().realms.is_empty());
    for name in &names[..3] {
        assert_eq!(bench.account(name).summary().last_error, None, "{name}");
        assert!(
            matches!(bench.account(name).availability(bench.clock.now()), Availability::Ready(_)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn one_accounts_next_try_comes_without_a_call() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(unreachable(), 20);
    assert!(renew_through_pauses(&bench, "smile").await.is_err());
    pass(&bench, 300).await;
    bench.platform.recovers();
    pass(&bench, 60).await;
    assert_eq!(bench.account("smile").summary().last_error, None);
    let refreshes = bench.platform.refreshes();
    pass(&bench, 300).await;
    assert_eq!(bench.platform.refreshes(), refreshes, "and then there is peace");
}

#[tokio::test]
async fn a_platform_that_asks_to_be_left_alone_is_left_alone_by_all() {
    let names = ["a1", "a2", "a3"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(asked_to_wait(20, 503), 1);
    for name in names {
        let outcome = renew(&bench, name, Cause::Unauthorized).await;
        let Err(RenewError::Unavailable { retry_at, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(retry_at, start_time() + Duration::from_secs(20), "{name}");
    }
    pass(&bench, 19).await;
    assert_eq!(bench.platform.refreshes(), 1);
    pass(&bench, 10).await;
    assert_eq!(bench.account("a1").summary().last_error, None);
}

#[tokio::test]
async fn a_request_to_wait_for_one_call_holds_its_account_alone() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["a1", "a2"]).await;
    bench.platform.refreshes_fail(asked_to_wait(20, 500), 1);
    assert!(renew(&bench, "a1", Cause::Unauthorized).await.is_err());
    assert!(renew(&bench, "a2", Cause::Unauthorized).await.is_ok());
    bench.clock.advance(Duration::from_secs(19));
    assert!(renew(&bench, "a1", Cause::Unauthorized).await.is_err());
    bench.clock.advance(Duration::from_secs(1));
    assert!(renew(&bench, "a1", Cause::Unauthorized).await.is_ok());
}

#[tokio::test]
async fn a_fleet_that_is_refused_for_a_moment_is_told_nothing_and_serves_again() {
    let names = ["a1", "a2", "a3", "a4", "a5"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(refused(), names.len());
    for name in names {
        assert!(renew(&bench, name, Cause::Unauthorized).await.is_err());
    }
    // The first one's refusal looked like its own.
    assert_eq!(states(&bench, &names), ["needs_login", "ready", "ready", "ready", "ready"]);
    assert_eq!(bench.events.of("a5", JournalEvent::RefusalSuspected).len(), 1);
    pass(&bench, 180).await;
    assert_eq!(states(&bench, &names), ["ready"; 5]);
    assert_eq!(bench.platform.refreshes(), 2 * names.len(), "each was tried once more");
    for name in names {
        assert_eq!(
            bench.events.of(name, JournalEvent::NeedsLogin).len(),
            usize::from(name == "a1"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn grants_that_really_died_together_are_told_after_a_second_try_and_not_hammered() {
    let names = ["a1", "a2", "a3", "a4"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let _keeper = bench.renewals.start_scheduler();
    names.iter().for_each(|name| bench.platform.forgets(name));
    for name in names {
        assert!(renew(&bench, name, Cause::Unauthorized).await.is_err());
    }
    pass(&bench, 180).await;
    assert_eq!(states(&bench, &names), ["needs_login"; 4]);
    let told = bench.platform.refreshes();
    assert!(told <= 3 * names.len(), "{told}");
    pass(&bench, 3600).await;
    let probes = bench.platform.refreshes() - told;
    assert!((1..=20).contains(&probes), "{probes} probes for the whole realm in an hour");
    for name in names {
        assert_eq!(bench.events.of(name, JournalEvent::NeedsLogin).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_mass_refusal_that_lasted_too_long_is_taken_back_when_the_realm_works_again() {
    let names = ["a1", "a2", "a3", "a4"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(refused(), 10_000);
    for name in names {
        assert!(renew(&bench, name, Cause::Unauthorized).await.is_err());
    }
    pass(&bench, 300).await;
    assert_eq!(states(&bench, &names), ["needs_login"; 4]);
    bench.platform.recovers();
    pass(&bench, 240).await;
    assert_eq!(states(&bench, &names), ["ready"; 4]);
    assert_eq!(bench.events.of("a4", JournalEvent::LoginRestored).len(), 1);
}

#[tokio::test]
async fn a_refresh_token_without_an_access_token_is_used_next() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    bench.platform.forgets("smile");
    bench.platform.takes("rotated", "smile");
    bench.platform.refreshes_fail(without_access("rotated"), 1);
    assert!(renew(&bench, "smile", Cause::BeforeExpiry).await.is_err());
    assert!(
        matches!(bench.account("smile").availability(bench.clock.now()), Availability::Ready(_)),
        "serves on"
    );
    assert_eq!(bench.grant("smile").await.refresh.expose(), "rotated", "it would outlive a crash");
    bench.clock.advance(MINUTE);
    assert_eq!(renew(&bench, "smile", Cause::BeforeExpiry).await.unwrap(), "access-smile-1");
    assert_eq!(bench.account("smile").state(), AccountState::Ready);
}

#[tokio::test]
async fn a_refresh_token_that_was_nobodys_gives_way_to_the_one_before() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    for junk in ["junk-1", "junk-2", "junk-2"] {
        bench.platform.refreshes_fail(without_access(junk), 1);
        assert!(renew(&bench, "smile", Cause::Operator).await.is_err());
    }
    assert_eq!(renew(&bench, "smile", Cause::Operator).await.unwrap(), "access-smile-1");
    assert!(bench.events.of("smile", JournalEvent::NeedsLogin).is_empty());
    let smile = "smile".parse().unwrap();
    let generation = bench.grant("smile").await.generation;
    assert_eq!(
        bench.store.adopt_fallback_token(&smile, &global(), generation).await.unwrap(),
        None,
        "proven"
    );
}

#[tokio::test]
async fn a_second_look_that_meets_trouble_is_still_owed() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(refused(), 1);
    assert!(renew(&bench, "smile", Cause::Unauthorized).await.is_err());
    assert_eq!(states(&bench, &["smile"]), ["needs_login"]);
    let soon = bench.clock.now() + Duration::from_secs(10);
    bench.renewals.context().retries.second_try_at(bench.account("smile"), soon);
    bench.platform.refreshes_fail(unreachable(), 3);
    pass(&bench, 25).await;
    assert_eq!((states(&bench, &["smile"]), bench.platform.refreshes()), (vec!["needs_login"], 4));
    pass(&bench, 60).await;
    assert_eq!(states(&bench, &["smile"]), ["ready"]);
}

#[tokio::test]
async fn an_account_that_was_removed_while_it_failed_is_owed_nothing() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let _keeper = bench.renewals.start_scheduler();
    bench.platform.refreshes_fail(unreachable(), 3);
    assert!(renew_through_pauses(&bench, "smile").await.is_err());
    let account = bench.account("smile");
    let held = account.renewals_blocked_until();
    bench.store.remove_account(&account.name).await.unwrap();
    bench.renewals.withdraw(&account.name);
    pass(&bench, 120).await;
    assert_eq!(account.renewals_blocked_until(), held, "no flight has begun");
    assert_eq!(bench.platform.refreshes(), 3);
}

#[tokio::test]
async fn a_store_that_cannot_say_whether_a_better_token_is_kept_costs_no_login() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    bench.platform.forgets("smile");
    bench.platform.takes("kept", "smile");
    let (smile, access) = ("smile".parse().unwrap(), crate::model::token::AccessToken::new(""));
    let access = crate::store::StoredAccess { token: access, expires_at: start_time() };
    let refresh = Some(RefreshToken::new("kept"));
    let kept = crate::store::NewTokens { access, refresh, refreshed_at: start_time() };
    let generation = bench.grant("smile").await.generation;
    assert!(bench.store.keep_fallback_token(&smile, &global(), generation, &kept).await.unwrap());
    bench.store.fail_writes(true);
    let refused = renew(&bench, "smile", Cause::Unauthorized).await;
    assert!(matches!(refused, Err(RenewError::Unavailable { .. })), "{refused:?}");
    bench.store.fail_writes(false);
    bench.clock.advance(MINUTE);
    assert_eq!(renew(&bench, "smile", Cause::Unauthorized).await.unwrap(), "access-smile-1");
    assert!(bench.events.of("smile", JournalEvent::NeedsLogin).is_empty());
}

#[tokio::test]
async fn accounts_refused_together_are_looked_at_again_after_a_restart() {
    let names = ["a1", "a2", "a3"];
    let before = Workbench::new(ScriptedPlatform::new(true), &names).await;
    for (name, minutes) in [("a1", 0), ("a2", 2), ("a3", 60)] {
        let since = start_time() + MINUTE * minutes;
        let state = AccountState::NeedsLogin { since, why: "refused".to_owned() };
        before.store.set_state(&name.parse().unwrap(), &state).await.unwrap();
    }
    before.clock.advance(2 * HOUR);
    let Workbench { clock, store, platform, .. } = before;
    let bench = Workbench::over(clock, store, platform, settings()).await;
    let _keeper = bench.renewals.start_scheduler();
    pass(&bench, 180).await;
    assert_eq!(states(&bench, &names), ["ready", "ready", "needs_login"], "the last one was refused alone");
}
