//! Failures classified by whose fault they are: a dead grant, bad credentials, an outage, a lasting 403.

use std::sync::Arc;
use std::time::Duration;

use crate::access::circuit_breaker::OpenReason;
use crate::access::doubles::*;
use crate::access::locked;
use crate::access::pacing::MaybeSpent;
use crate::access::registry::{Account, Availability};
use crate::access::renewal::{Cause, RenewError};
use crate::access::scheduler;
use crate::clock::Clock;
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::{Blame, CredentialsCheck, PlatformErrorKind};
use crate::store::{NewTokens, Store, StoredAccess};

async fn renew(bench: &Workbench, account: &Arc<Account>, cause: Cause) -> Result<String, RenewError> {
    let outcome = bench.renewals.renew(account, account.generation(), cause).await;
    outcome.map(|access| token(&access).to_owned())
}

async fn stored_state(bench: &Workbench, name: &str) -> AccountState {
    bench.store.account(&name.parse().unwrap()).await.unwrap().unwrap().state
}

/// Lets a renewal go through its pauses between sends, each of which is announced by a sleeper more.
async fn through_pauses<T>(clock: &Clock, in_flight: impl Future<Output = T>) -> T {
    let mut in_flight = std::pin::pin!(in_flight);
    loop {
        tokio::select! {
            biased;
            outcome = &mut in_flight => return outcome,
            // The waiter and the renewal both sleep: nothing happens until time moves.
            () = clock.until_sleeping(2) => clock.advance(Duration::from_millis(250)),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_accounts_refusal_means_its_grant_and_leaves_the_others_alone() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["dead", "alive", "third"]).await;
    bench.platform.forgets("dead");
    let (dead, alive) = (bench.account("dead"), bench.account("alive"));
    let outcome = renew(&bench, &dead, Cause::Unauthorized).await;
    let Err(RenewError::NeedsLogin { why, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("401"), "{why}");
    assert_eq!(stored_state(&bench, "dead").await.word(), "needs_login");
    assert!(matches!(dead.availability(bench.clock.now()), Availability::NeedsLogin { .. }));
    assert_eq!(bench.grant("dead").await.refresh.expose(), "refresh-dead-0", "the grant is kept");
    assert_eq!(renew(&bench, &alive, Cause::Unauthorized).await.unwrap(), "access-alive-1");
    assert_eq!((bench.platform.refreshes(), bench.platform.probes()), (2, 0));
}

#[tokio::test]
async fn a_dead_account_is_journaled_once_and_stops_hammering() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["dead", "alive"]).await;
    bench.platform.forgets("dead");
    let dead = bench.account("dead");
    for _ in 0..100 {
        assert!(matches!(
            renew(&bench, &dead, Cause::Unauthorized).await,
            Err(RenewError::NeedsLogin { .. })
        ));
        bench.clock.advance(MINUTE);
    }
    assert_eq!(bench.platform.refreshes(), 1);
    assert_eq!(bench.events.of("dead", JournalEvent::NeedsLogin).len(), 1);
}

#[tokio::test]
async fn a_token_that_nobody_has_seen_fail_serves_on_although_the_grant_is_dead() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["dead", "alive"]).await;
    bench.platform.forgets("dead");
    let dead = bench.account("dead");
    assert!(renew(&bench, &dead, Cause::BeforeExpiry).await.is_err());
    assert!(matches!(dead.availability(bench.clock.now()), Availability::Ready(_)));
    assert!(matches!(renew(&bench, &dead, Cause::Unauthorized).await, Err(RenewError::NeedsLogin { .. })));
    assert!(matches!(dead.availability(bench.clock.now()), Availability::NeedsLogin { .. }));
}

#[tokio::test]
async fn a_migration_that_kills_many_grants_is_no_outage() {
    let names = ["a1", "a2", "a3", "a4", "a5", "alive"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    for name in &names[..5] {
        bench.platform.forgets(name);
        assert!(renew(&bench, &bench.account(name), Cause::Unauthorized).await.is_err());
    }
    bench.clock.advance(3 * MINUTE);
    for name in &names[..5] {
        let outcome = renew(&bench, &bench.account(name), Cause::Unauthorized).await;
        assert!(matches!(outcome, Err(RenewError::NeedsLogin { .. })), "{name}: {outcome:?}");
    }
    assert!(bench.platform.probes() >= 1 && bench.platform.probes() <= 5);
    assert!(bench.renewals.alarms().realms.is_empty());
    assert!(renew(&bench, &bench.account("alive"), Cause::Unauthorized).await.is_ok());
}

/// Of many that are refused together, those whose refresh was cut off need no other signal: a login is asked
/// for at once, with the reason, and they are looked at again all the same.
#[tokio::test]
async fn an_interrupted_refresh_explains_a_refusal_among_others() {
    let names = ["a1", "a2", "a3", "cut"];
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    let sent_at = bench.clock.now() - MINUTE;
    bench.account("cut").pacing.lock().maybe_spent = Some(MaybeSpent::ProcessEnded(sent_at));
    for name in &names[..3] {
        bench.platform.forgets(name);
        assert!(renew(&bench, &bench.account(name), Cause::Unauthorized).await.is_err());
    }
    bench.platform.refreshes_fail(refused(), 1);
    let outcome = renew(&bench, &bench.account("cut"), Cause::Unauthorized).await;
    let Err(RenewError::NeedsLogin { why, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("was under way when the process ended"), "{why}");
    let keeping = bench.renewals.start_scheduler();
    while bench.account("cut").state() != AccountState::Ready {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
        assert!(bench.clock.now() < start_time() + 10 * MINUTE, "it is looked at once more");
    }
    keeping.abort();
}

#[tokio::test]
async fn bad_credentials_keep_every_grant_and_alarm_once() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["a1", "a2", "a3"]).await;
    *locked(&bench.platform.verdict) = CredentialsCheck::Bad;
    bench.platform.refreshes_fail(refused(), 3);
    // The first alone looks like a dead grant; the second shows that it was not.
    let first = renew(&bench, &bench.account("a1"), Cause::Unauthorized).await;
    assert!(matches!(first, Err(RenewError::NeedsLogin { .. })));
    // Minutes later: a small office's tokens do not expire together.
    bench.clock.advance(5 * MINUTE);
    let second = renew(&bench, &bench.account("a2"), Cause::Unauthorized).await;
    assert!(matches!(second, Err(RenewError::Unavailable { .. })), "{second:?}");
    let third = renew(&bench, &bench.account("a3"), Cause::Unauthorized).await;
    assert!(matches!(third, Err(RenewError::Unavailable { .. })), "{third:?}");
    for name in ["a1", "a2", "a3"] {
        assert_eq!(stored_state(&bench, name).await, AccountState::Ready, "{name}");
        assert_eq!(bench.account(name).state(), AccountState::Ready, "{name}");
    }
    assert_eq!(bench.platform.refreshes(), 2, "the third is held back by its realm");
    let since = start_time() + 5 * MINUTE;
    assert_eq!(bench.renewals.alarms().realms, [(global(), OpenReason::BadCredentials { since })]);
}

#[tokio::test]
async fn the_only_account_asks_before_it_gives_its_grant_up() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["only"]).await;
    *locked(&bench.platform.verdict) = CredentialsCheck::Bad;
    bench.platform.refreshes_fail(refused(), 1);
    let outcome = renew(&bench, &bench.account("only"), Cause::Unauthorized).await;
    assert!(matches!(outcome, Err(RenewError::Unavailable { .. })), "{outcome:?}");
    assert_eq!(bench.platform.probes(), 1);
    assert_eq!(bench.account("only").state(), AccountState::Ready);
}

#[tokio::test]
async fn refusals_that_nothing_explains_are_the_realms_trouble() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["only"]).await;
    *locked(&bench.platform.verdict) = CredentialsCheck::Unknown;
    bench.platform.refreshes_fail(refused(), 1);
    let outcome = renew(&bench, &bench.account("only"), Cause::Unauthorized).await;
    assert!(matches!(outcome, Err(RenewError::Unavailable { .. })), "{outcome:?}");
    assert!(matches!(bench.renewals.alarms().realms[..], [(_, OpenReason::Unavailable { .. })]));
}

#[tokio::test]
async fn a_response_that_names_the_client_needs_no_question() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["a1", "a2"]).await;
    let named = error("refresh", Blame::Credentials, PlatformErrorKind::Refused, Some(401));
    bench.platform.refreshes_fail(named, 1);
    let outcome = renew(&bench, &bench.account("a1"), Cause::Unauthorized).await;
    assert!(matches!(outcome, Err(RenewError::Unavailable { .. })), "{outcome:?}");
    assert_eq!(bench.platform.probes(), 0);
    assert!(matches!(bench.renewals.alarms().realms[..], [(_, OpenReason::BadCredentials { .. })]));
}

#[tokio::test]
async fn an_operator_or_new_credentials_try_a_dead_account_again() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["dead", "alive"]).await;
    let dead = bench.account("dead");
    bench.platform.refreshes_fail(refused(), 1);
    assert!(renew(&bench, &dead, Cause::Unauthorized).await.is_err());
    assert_eq!(renew(&bench, &dead, Cause::Operator).await.unwrap(), "access-dead-1");
    assert_eq!(stored_state(&bench, "dead").await, AccountState::Ready);
    assert_eq!(bench.events.of("dead", JournalEvent::LoginRestored).len(), 1);

    bench.clock.advance(HOUR);
    bench.platform.refreshes_fail(refused(), 1);
    assert!(renew(&bench, &dead, Cause::NoToken).await.is_err());
    bench.renewals.reload(settings(), platforms(&bench.platform), &[global()]).await;
    bench.platform.until_refreshes(4).await;
    bench.renewals.finish().await;
    assert_eq!(stored_state(&bench, "dead").await, AccountState::Ready);
}

#[tokio::test]
async fn a_504_is_repeated_after_a_second_while_callers_wait() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    bench.platform.refreshes_fail(timed_out(), 1);
    let smile = bench.account("smile");
    let outcome = through_pauses(&bench.clock, renew(&bench, &smile, Cause::Unauthorized)).await;
    assert_eq!(outcome.unwrap(), "access-smile-1");
    assert_eq!(bench.platform.refreshes(), 2);
    assert!(bench.clock.now().since(start_time()) >= Duration::from_secs(1), "never sooner than documented");
}

#[tokio::test]
async fn lasting_trouble_backs_off_and_the_living_token_serves_on() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    bench.platform.refreshes_fail(unreachable(), 3);
    let smile = bench.account("smile");
    let outcome = through_pauses(&bench.clock, renew(&bench, &smile, Cause::BeforeExpiry)).await;
    let Err(RenewError::Unavailable { retry_at, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(bench.platform.refreshes(), 3);
    assert!(retry_at > bench.clock.now());
    assert!(matches!(smile.availability(bench.clock.now()), Availability::Ready(_)));
    assert!(renew(&bench, &smile, Cause::Unauthorized).await.is_err());
    assert_eq!(bench.platform.refreshes(), 3, "backing off");
    assert!(
        renew(&bench, &bench.account("other"), Cause::Unauthorized).await.is_ok(),
        "others do not feel it"
    );
    bench.clock.advance(retry_at.since(bench.clock.now()));
    assert!(renew(&bench, &smile, Cause::Unauthorized).await.is_ok());
}

#[tokio::test]
async fn an_outage_is_met_by_one_trial_at_a_time_and_ends_for_all_together() {
    let names: Vec<String> = (0..40).map(|number| format!("a{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bench = Workbench::new(ScriptedPlatform::new(true), &names).await;
    bench.clock.advance(HOUR);
    bench.platform.refreshes_fail(unreachable(), 10_000);
    for name in &names {
        let _ = through_pauses(&bench.clock, renew(&bench, &bench.account(name), Cause::Unauthorized)).await;
    }
    let until_noticed = bench.platform.refreshes();
    assert!(until_noticed <= 15, "{until_noticed}");
    assert!(matches!(bench.renewals.alarms().realms[..], [(_, OpenReason::Unavailable { .. })]));
    // An hour of every account asking every second.
    for _ in 0..3600 {
        bench.clock.advance(Duration::from_secs(1));
        for name in names.iter().take(5) {
            let _ = renew(&bench, &bench.account(name), Cause::NoToken).await;
        }
    }
    let trials = bench.platform.refreshes() - until_noticed;
    assert!((60..=140).contains(&trials), "{trials}");
    bench.platform.recovers();
    bench.clock.advance(MINUTE);
    for name in &names {
        assert!(renew(&bench, &bench.account(name), Cause::NoToken).await.is_ok(), "{name}");
    }
    assert!(bench.renewals.alarms().realms.is_empty());
}

#[tokio::test]
async fn a_lost_response_is_tried_again_with_the_token_at_hand() {
    let bench = Workbench::new(ScriptedPlatform::new(false), &["smile", "other"]).await;
    bench.platform.loses_a_response_of("smile");
    let smile = bench.account("smile");
    let outcome = through_pauses(&bench.clock, renew(&bench, &smile, Cause::Unauthorized)).await;
    assert_eq!(outcome.unwrap(), "access-smile-1");
}

#[tokio::test]
async fn a_login_lost_with_a_response_under_rotation_says_so() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    bench.platform.loses_a_response_of("smile");
    let smile = bench.account("smile");
    let outcome = through_pauses(&bench.clock, renew(&bench, &smile, Cause::Unauthorized)).await;
    let Err(RenewError::NeedsLogin { why, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("the answer to a refresh at") && why.contains("was lost"), "{why}");
}

#[tokio::test]
async fn a_refresh_that_was_responded_is_not_under_way_any_more() {
    let responses = [
        refused(),
        error("refresh", Blame::Realm, PlatformErrorKind::Failed, Some(500)),
        error("refresh", Blame::Credentials, PlatformErrorKind::Refused, Some(401)),
        unreachable(),
    ];
    for response in responses {
        let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
        let smile = bench.account("smile");
        bench.platform.refreshes_fail(response.clone(), 9);
        let in_flight = renew(&bench, &smile, Cause::Unauthorized);
        through_pauses(&bench.clock, in_flight).await.unwrap_err();
        bench.renewals.finish().await;
        assert!(bench.platform.refreshes() > 0, "it did go out");
        assert_eq!(bench.grant("smile").await.intent, None, "{response:?}");
    }
}

#[tokio::test]
async fn a_lost_response_stays_on_record_until_it_has_told_why_a_login_is_gone() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.platform.refreshes_fail(timed_out(), 9);
    through_pauses(&bench.clock, renew(&bench, &smile, Cause::Unauthorized)).await.unwrap_err();
    assert!(bench.grant("smile").await.intent.is_some(), "the token may be spent: a restart has to know");
    bench.platform.recovers();
    bench.platform.forgets("smile");
    bench.clock.advance(HOUR);
    let lost = renew(&bench, &smile, Cause::NoToken).await.unwrap_err();
    assert!(matches!(&lost, RenewError::NeedsLogin { why, .. } if why.contains("was lost")), "{lost:?}");
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.intent, None);
}

#[tokio::test]
async fn a_poller_whose_every_call_is_a_lasting_403_causes_a_handful_of_refreshes_a_day() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    let mut caused = 0;
    for _ in 0..24 * 360 {
        bench.clock.advance(Duration::from_secs(10));
        let now = bench.clock.now();
        smile.mark_used(now);
        for due in scheduler::due_by(&bench.renewals, now, now) {
            bench.renewals.renew(&due.account, due.account.generation(), due.cause).await.unwrap();
        }
        let Availability::Ready(access) = smile.availability(now) else {
            panic!("the keeper keeps it ready")
        };
        if bench.renewals.renew(&smile, access.generation(), Cause::Forbidden).await.is_ok() {
            caused += 1;
            bench.renewals.report_forbidden(&smile, false);
        }
    }
    assert!((1..=8).contains(&caused), "{caused} caused by 403");
    let all = bench.platform.refreshes();
    assert!(all <= caused + 30, "{all} in all: the hourly ones and these");
}

#[tokio::test]
async fn a_403_that_a_renewal_cures_costs_nothing_the_next_time() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    for _ in 0..5 {
        assert!(renew(&bench, &smile, Cause::Forbidden).await.is_ok());
        for _ in 0..50 {
            bench.renewals.report_forbidden(&smile, true);
        }
        bench.clock.advance(MINUTE);
    }
    assert_eq!(bench.platform.refreshes(), 5);
}

#[tokio::test]
async fn a_token_refused_because_somebody_else_has_used_it_up_gives_way_to_its_successor() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    let in_flight = tokio::spawn({
        let (renewals, smile) = (bench.renewals.clone(), Arc::clone(&smile));
        async move { renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await }
    });
    bench.platform.until_refreshes(1).await;
    let tokens = NewTokens {
        access: StoredAccess { token: AccessToken::new("theirs"), expires_at: start_time() + HOUR },
        refresh: Some(RefreshToken::new("their-successor")),
        refreshed_at: start_time(),
    };
    let known = bench.grant("smile").await.generation;
    bench.store.commit_tokens(&smile.name, &global(), known, &tokens).await.unwrap();
    bench.platform.forgets("smile");
    bench.platform.refresh_door.send_replace(true);
    assert_eq!(token(&in_flight.await.unwrap().unwrap()), "theirs");
    assert_eq!(smile.state(), AccountState::Ready);
}
