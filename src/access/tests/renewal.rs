//! The one entry point: how many refreshes go out, and what callers get.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::*;
use crate::access::registry::Availability;
use crate::access::renewal::{Cause, RenewError};
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::{Blame, PlatformErrorKind};
use crate::store::{NewTokens, Store, StoredAccess};

async fn fifty_callers(platform: ScriptedPlatform, cause: Cause) -> Workbench {
    let bench = Workbench::new(platform, &["smile", "other"]).await;
    let account = bench.account("smile");
    let seen = account.generation();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (renewals, account) = (bench.renewals.clone(), Arc::clone(&account));
            tokio::spawn(async move { renewals.renew(&account, seen, cause).await })
        })
        .collect();
    for caller in callers {
        let access = caller.await.unwrap().unwrap();
        assert_eq!(token(&access), "access-smile-1");
        assert!(access.generation() > seen);
    }
    assert_eq!((bench.platform.refreshes(), bench.platform.discoveries()), (1, 1));
    bench
}

#[tokio::test]
async fn fifty_callers_on_an_expired_token_cause_one_refresh_and_one_discovery() {
    fifty_callers(ScriptedPlatform::new(false), Cause::Unauthorized).await;
}

#[tokio::test]
async fn the_same_where_expiry_shows_as_403() {
    fifty_callers(ScriptedPlatform::new(false), Cause::Forbidden).await;
}

#[tokio::test]
async fn with_rotation_the_new_refresh_token_is_stored_and_used_next() {
    let bench = fifty_callers(ScriptedPlatform::new(true), Cause::Unauthorized).await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
    bench.clock.advance(2 * HOUR);
    let account = bench.account("smile");
    let access = bench.renewals.renew(&account, account.generation(), Cause::NoToken).await.unwrap();
    assert_eq!(token(&access), "access-smile-2");
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-2");
}

#[tokio::test]
async fn the_old_refresh_token_stays_where_the_response_has_none() {
    let bench = fifty_callers(ScriptedPlatform::new(false), Cause::Unauthorized).await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-0");
    assert_eq!(bench.grant("smile").await.access.unwrap().token.expose(), "access-smile-1");
}

#[tokio::test]
async fn tokens_are_durable_before_anybody_uses_them() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.discovery_door.send_replace(false);
    let renewals = bench.renewals.clone();
    let caller = tokio::spawn({
        let account = Arc::clone(&account);
        async move { renewals.renew(&account, account.generation(), Cause::Unauthorized).await }
    });
    // The waiter, and the renewal that waits for discovery: the tokens are out by now.
    bench.clock.until_sleeping(2).await;
    let Availability::Ready(access) = account.availability(bench.clock.now()) else { panic!("no access") };
    assert_eq!(token(&access), "access-smile-1");
    let stored = bench.grant("smile").await;
    assert_eq!(stored.access.unwrap().token.expose(), "access-smile-1");
    assert_eq!(stored.intent, None);
    caller.abort();
}

#[tokio::test]
async fn a_refresh_that_takes_five_seconds_serves_all_who_wait() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    let seen = account.generation();
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (renewals, account) = (bench.renewals.clone(), Arc::clone(&account));
            tokio::spawn(async move { renewals.renew(&account, seen, Cause::Unauthorized).await })
        })
        .collect();
    bench.clock.until_sleeping(3).await;
    bench.platform.until_refreshes(1).await;
    bench.clock.advance(Duration::from_secs(5));
    bench.platform.refresh_door.send_replace(true);
    for caller in callers {
        assert_eq!(token(&caller.await.unwrap().unwrap()), "access-smile-1");
    }
    assert_eq!(bench.platform.refreshes(), 1);
}

#[tokio::test]
async fn a_caller_waits_ten_seconds_at_most_and_the_flight_goes_on() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    let renewals = bench.renewals.clone();
    let caller = tokio::spawn({
        let account = Arc::clone(&account);
        async move { renewals.renew(&account, account.generation(), Cause::Unauthorized).await }
    });
    bench.clock.until_sleeping(1).await;
    bench.platform.until_refreshes(1).await;
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(caller.await.unwrap().unwrap_err(), RenewError::StillRunning);
    bench.platform.refresh_door.send_replace(true);
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.access.unwrap().token.expose(), "access-smile-1");
}

#[tokio::test]
async fn the_first_caller_hanging_up_loses_nothing() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    let seen = account.generation();
    let call = || {
        let (renewals, account) = (bench.renewals.clone(), Arc::clone(&account));
        tokio::spawn(async move { renewals.renew(&account, seen, Cause::Unauthorized).await })
    };
    let first = call();
    bench.platform.until_refreshes(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = call();
    bench.platform.refresh_door.send_replace(true);
    assert_eq!(token(&second.await.unwrap().unwrap()), "access-smile-1");
    assert_eq!(bench.platform.refreshes(), 1);
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
}

#[tokio::test]
async fn a_late_loser_uses_the_newer_generation_without_a_refresh() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    let seen = account.generation();
    let newer = bench.renewals.renew(&account, seen, Cause::Unauthorized).await.unwrap();
    let late = bench.renewals.renew(&account, seen, Cause::Forbidden).await.unwrap();
    assert_eq!(late.generation(), newer.generation());
    assert_eq!(bench.platform.refreshes(), 1);
}

#[tokio::test]
async fn a_call_that_comes_with_a_refused_generation_joins_the_flight_and_others_are_not_held() {
    for cause in [Cause::Unauthorized, Cause::Forbidden] {
        let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "crown"]).await;
        let (account, other) = (bench.account("smile"), bench.account("crown"));
        bench.platform.refresh_door.send_replace(false);
        bench.renewals.renew_in_background(&account, account.generation(), cause);
        let Availability::Refused { access, cause: how } = account.availability(bench.clock.now()) else {
            panic!("a refused token is handed out")
        };
        assert_eq!((token(&access), how), ("access-smile-0", cause));
        assert!(matches!(other.availability(bench.clock.now()), Availability::Ready(_)));
        bench.platform.refresh_door.send_replace(true);
        let newer = bench.renewals.join(&account).await.unwrap().unwrap();
        assert_eq!(token(&newer), "access-smile-1");
        assert!(matches!(account.availability(bench.clock.now()), Availability::Ready(_)));
        assert!(bench.renewals.join(&account).await.is_none());
    }
}

#[tokio::test]
async fn a_renewal_that_no_refusal_has_caused_holds_no_call_and_one_that_fails_lets_the_token_go_on() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    bench.renewals.renew_in_background(&account, account.generation(), Cause::BeforeExpiry);
    assert!(matches!(account.availability(bench.clock.now()), Availability::Ready(_)));
    bench.platform.refreshes_fail(refused(), 1);
    bench.renewals.renew_in_background(&account, account.generation(), Cause::Forbidden);
    assert!(
        matches!(account.availability(bench.clock.now()), Availability::Refused { .. }),
        "the same flight"
    );
    bench.platform.refresh_door.send_replace(true);
    assert!(bench.renewals.join(&account).await.unwrap().is_err());
    assert!(!matches!(account.availability(bench.clock.now()), Availability::Refused { .. }));
}

#[tokio::test]
async fn no_renewal_begins_within_the_gap_after_a_successful_one() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    let first = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    bench.clock.advance(Duration::from_secs(59));
    let again = bench.renewals.renew(&account, first.generation(), Cause::Unauthorized).await;
    assert_eq!(again.unwrap_err(), RenewError::TooSoon { until: start_time() + MINUTE });
    let asked = bench.renewals.renew(&account, first.generation(), Cause::Operator).await;
    assert_eq!(asked.unwrap_err(), RenewError::TooSoon { until: start_time() + MINUTE });
    bench.clock.advance(Duration::from_secs(1));
    assert!(bench.renewals.renew(&account, first.generation(), Cause::Unauthorized).await.is_ok());
    assert_eq!(bench.platform.refreshes(), 2);
}

#[tokio::test]
async fn pairing_does_not_count_as_a_refresh() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    assert!(bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.is_ok());
}

#[tokio::test]
async fn grants_on_both_platforms_keep_refreshes_minutes_apart() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let mut old = new_grant("smile", &"old".parse().unwrap(), 7, start_time());
    old.make_current = false;
    let record = bench.store.put_grant(old).await.unwrap();
    bench.registry.apply(record);
    let account = bench.account("smile");
    let first = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    bench.clock.advance(2 * MINUTE);
    let again = bench.renewals.renew(&account, first.generation(), Cause::Unauthorized).await;
    assert_eq!(again.unwrap_err(), RenewError::TooSoon { until: start_time() + 5 * MINUTE });
}

#[tokio::test]
async fn a_slow_discovery_is_waited_for_two_seconds_then_the_last_route_is_used_and_the_new_one_published_later()
 {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.discovery_door.send_replace(false);
    bench.platform.next_discovery(Ok(route("us")));
    let renewals = bench.renewals.clone();
    let caller = tokio::spawn({
        let account = Arc::clone(&account);
        async move { renewals.renew(&account, account.generation(), Cause::Unauthorized).await }
    });
    bench.clock.until_sleeping(2).await;
    bench.clock.advance(Duration::from_secs(2));
    let access = caller.await.unwrap().unwrap();
    assert_eq!((token(&access), &**access.route()), ("access-smile-1", &route("eu")));
    bench.platform.discovery_door.send_replace(true);
    bench.renewals.finish().await;
    let Availability::Ready(later) = account.availability(bench.clock.now()) else { panic!("no access") };
    assert_eq!((token(&later), &**later.route()), ("access-smile-1", &route("us")));
    assert_eq!(later.generation(), access.generation());
    assert_eq!(bench.grant("smile").await.route.unwrap().domain, route("us").domain());
    assert_eq!(bench.events.of("smile", JournalEvent::RouteChanged).len(), 1);
}

#[tokio::test]
async fn a_moved_region_comes_with_the_renewal_and_is_journaled() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("ap")));
    let access = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!(**access.route(), route("ap"));
    let lines = bench.events.of("smile", JournalEvent::RouteChanged);
    assert!(lines[0].contains("eu.iterocloud.com") && lines[0].contains("ap.iterocloud.com"), "{lines:?}");
}

#[tokio::test]
async fn a_failed_or_empty_discovery_keeps_the_last_good_route_and_is_told_once() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    for _ in 0..3 {
        let empty = error("discovery", Blame::Account, PlatformErrorKind::NothingDiscovered, Some(200));
        bench.platform.next_discovery(Err(empty));
        let access = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
        assert_eq!(**access.route(), route("eu"));
        bench.clock.advance(HOUR);
    }
    assert_eq!(bench.grant("smile").await.route.unwrap().domain, route("eu").domain());
    assert_eq!(bench.events.of("smile", JournalEvent::DiscoveryFailed).len(), 1);
}

#[tokio::test]
async fn without_any_route_the_token_is_kept_and_only_discovery_is_repeated() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &[]).await;
    let mut grant = new_grant("smile", &global(), 1, start_time());
    grant.route = None;
    bench.registry.apply(bench.store.put_grant(grant).await.unwrap());
    let account = bench.account("smile");
    let Availability::Renewable { generation } = account.availability(bench.clock.now()) else {
        panic!("ready")
    };
    let refused = error("discovery", Blame::Account, PlatformErrorKind::NothingDiscovered, Some(200));
    bench.platform.next_discovery(Err(refused));
    let none = bench.renewals.renew(&account, generation, Cause::NoToken).await;
    let Err(RenewError::Unavailable { retry_at, .. }) = none else { panic!("{none:?}") };
    bench.clock.advance(retry_at.since(bench.clock.now()));
    let access = bench.renewals.renew(&account, generation, Cause::NoToken).await.unwrap();
    assert_eq!((token(&access), bench.platform.refreshes()), ("access-smile-0", 0));
}

#[tokio::test]
async fn discovery_alone_publishes_a_route_without_a_refresh() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("us")));
    assert_eq!(*bench.renewals.rediscover(&account).await.unwrap(), route("us"));
    let Availability::Ready(access) = account.availability(bench.clock.now()) else { panic!("no access") };
    assert_eq!((&**access.route(), bench.platform.refreshes()), (&route("us"), 0));
}

#[tokio::test]
async fn newer_tokens_in_the_store_are_used_instead_of_a_refresh() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    let tokens = NewTokens {
        access: StoredAccess { token: AccessToken::new("from-elsewhere"), expires_at: start_time() + HOUR },
        refresh: Some(RefreshToken::new("rotated-elsewhere")),
        refreshed_at: start_time(),
    };
    let known = bench.grant("smile").await.generation;
    bench.store.commit_tokens(&account.name, &global(), known, &tokens).await.unwrap();
    let access = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!((token(&access), bench.platform.refreshes()), ("from-elsewhere", 0));
}

#[tokio::test]
async fn newer_tokens_that_have_run_out_before_they_were_heard_of_are_not_handed_out() {
    for heard_of in [false, true] {
        let bench = Workbench::new(ScriptedPlatform::new(false), &["smile"]).await;
        let account = bench.account("smile");
        let seen = account.generation();
        let tokens = NewTokens {
            access: StoredAccess {
                token: AccessToken::new("from-elsewhere"),
                expires_at: start_time() + HOUR,
            },
            refresh: None,
            refreshed_at: start_time(),
        };
        bench.store.commit_tokens(&account.name, &global(), seen, &tokens).await.unwrap();
        if heard_of {
            bench.registry.apply(bench.store.account(&account.name).await.unwrap().unwrap());
        }
        bench.clock.advance(2 * HOUR);
        let access = bench.renewals.renew(&account, seen, Cause::Unauthorized).await.unwrap();
        assert_eq!((token(&access), bench.platform.refreshes()), ("access-smile-1", 1), "{heard_of}");
    }
}

#[tokio::test]
async fn a_fenced_commit_gives_way_to_the_newer_tokens_in_the_store() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.refresh_door.send_replace(false);
    let renewals = bench.renewals.clone();
    let caller = tokio::spawn({
        let account = Arc::clone(&account);
        async move { renewals.renew(&account, account.generation(), Cause::Unauthorized).await }
    });
    bench.platform.until_refreshes(1).await;
    let mut paired = new_grant("smile", &global(), 0, start_time());
    paired.refresh = RefreshToken::new("paired-anew");
    paired.access =
        Some(StoredAccess { token: AccessToken::new("paired-anew"), expires_at: start_time() + HOUR });
    bench.store.put_grant(paired).await.unwrap();
    bench.platform.refresh_door.send_replace(true);
    assert_eq!(token(&caller.await.unwrap().unwrap()), "paired-anew");
    assert_eq!(bench.grant("smile").await.refresh.expose(), "paired-anew");
    assert_eq!(bench.events.of("smile", JournalEvent::RefreshSuperseded).len(), 1);
}

#[tokio::test]
async fn a_paused_account_is_refreshed_by_nobody() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.store.set_state(&account.name, &AccountState::Paused).await.unwrap();
    bench.registry.apply(bench.store.account(&account.name).await.unwrap().unwrap());
    for cause in [Cause::Unauthorized, Cause::NoToken, Cause::BeforeExpiry, Cause::Operator] {
        let denied = bench.renewals.renew(&account, account.generation(), cause).await;
        assert_eq!(denied.unwrap_err(), RenewError::Paused);
    }
    assert!(matches!(account.availability(bench.clock.now()), Availability::Paused));
    assert_eq!(bench.platform.refreshes(), 0);
}

#[tokio::test]
async fn a_refresh_left_behind_by_a_killed_process_is_journaled_and_named_should_the_login_be_lost() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let name = bench.account("smile").name.clone();
    bench.store.note_intent(&name, &global(), start_time()).await.unwrap();
    bench.platform.forgets("smile");
    let Workbench { clock, store, platform, .. } = bench;
    let bench = Workbench::over(clock, store, platform, settings()).await;
    let lines = bench.events.of("smile", JournalEvent::RefreshInterrupted);
    assert!(lines.len() == 1 && lines[0].contains("was under way when the process ended"), "{lines:?}");
    assert!(bench.events.of("other", JournalEvent::RefreshInterrupted).is_empty());
    let account = bench.account("smile");
    let lost = bench.renewals.renew(&account, account.generation(), Cause::Unauthorized).await;
    let Err(RenewError::NeedsLogin { why, .. }) = lost else { panic!("{lost:?}") };
    assert!(why.contains("was under way when the process ended"), "{why}");
    let Workbench { clock, store, platform, .. } = bench;
    let bench = Workbench::over(clock, store, platform, settings()).await;
    assert!(bench.events.of("smile", JournalEvent::RefreshInterrupted).is_empty(), "told once is enough");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_runtimes_of_their_own_share_the_flight_on_the_control_runtime() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let account = bench.account("smile");
    let seen = account.generation();
    bench.platform.refresh_door.send_replace(false);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (renewals, account) = (bench.renewals.clone(), Arc::clone(&account));
            std::thread::spawn(move || {
                let worker = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                worker.block_on(async {
                    for _ in 0..10 {
                        let access = renewals.renew(&account, seen, Cause::Unauthorized).await.unwrap();
                        assert_eq!(token(&access), "access-smile-1");
                    }
                });
            })
        })
        .collect();
    bench.platform.until_refreshes(1).await;
    bench.platform.refresh_door.send_replace(true);
    for worker in workers {
        tokio::task::spawn_blocking(move || worker.join().unwrap()).await.unwrap();
    }
    assert_eq!((bench.platform.refreshes(), bench.platform.discoveries()), (1, 1));
}
