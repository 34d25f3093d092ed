//! A store that does not take what it should: nothing is lost as long as the process lives, and the alarm is
//! loud.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::*;
use crate::access::registry::Availability;
use crate::access::renewal::{Cause, RenewError};
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{NewTokens, Store, StoredAccess};

/// Lets the saver try once more.
async fn another_try(bench: &Workbench) {
    bench.clock.until_sleeping(1).await;
    let slept = bench.clock.ever_slept();
    bench.clock.advance(MINUTE);
    while bench.renewals.alarms().unsaved_accounts > 0 && bench.clock.ever_slept() == slept {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_disk_means_serving_from_memory_and_committing_until_it_succeeds() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_commits(true);
    let access = bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!(token(&access), "access-smile-1");
    assert!(smile.summary().unsaved);
    assert_eq!(bench.renewals.alarms().unsaved_accounts, 1);
    assert!(bench.renewals.alarms().failed_commits > 0);
    assert_eq!(bench.events.of("smile", JournalEvent::TokensUnsaved).len(), 1);
    another_try(&bench).await;
    assert_eq!(bench.renewals.alarms().unsaved_accounts, 1);
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-0");
    bench.store.fail_commits(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
    assert!(!smile.summary().unsaved);
    assert_eq!(bench.events.of("smile", JournalEvent::TokensSaved).len(), 1);
}

#[tokio::test]
async fn of_tokens_that_wait_the_newest_are_saved_and_renewals_go_on_from_memory() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_commits(true);
    let mut seen = smile.generation();
    for number in 1..=3 {
        let access = bench.renewals.renew(&smile, seen, Cause::Unauthorized).await.unwrap();
        assert_eq!(token(&access), format!("access-smile-{number}"));
        assert!(access.generation() > seen, "generations grow although the store's stand still");
        seen = access.generation();
        another_try(&bench).await;
    }
    bench.store.fail_commits(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-3");
    bench.clock.advance(HOUR);
    let next = bench.renewals.renew(&smile, seen, Cause::NoToken).await.unwrap();
    assert_eq!((token(&next), smile.summary().unsaved), ("access-smile-4", false));
}

/// The saver succeeds while a renewal asks the platform; then the store fails again, or does not, when the
/// response comes.
async fn saved_while_the_platform_is_asked(store_fails_again: bool) -> Workbench {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_commits(true);
    let first = bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    bench.platform.refresh_door.send_replace(false);
    bench.clock.until_sleeping(1).await;
    bench.clock.advance(MINUTE);
    let in_flight = tokio::spawn({
        let (renewals, smile) = (bench.renewals.clone(), Arc::clone(&smile));
        async move { renewals.renew(&smile, first.generation(), Cause::Unauthorized).await }
    });
    bench.platform.until_refreshes(2).await;
    bench.store.fail_commits(false);
    while bench.renewals.alarms().unsaved_accounts > 0 {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
    bench.store.fail_commits(store_fails_again);
    bench.platform.refresh_door.send_replace(true);
    let _ = in_flight.await.unwrap();
    let Availability::Ready(access) = smile.availability(bench.clock.now()) else { panic!("no access") };
    assert_eq!(token(&access), "access-smile-2");
    assert_eq!(smile.summary().unsaved, store_fails_again);
    bench
}

#[tokio::test]
async fn tokens_saved_while_the_platform_is_asked_are_not_taken_for_newer_than_its_response() {
    let bench = saved_while_the_platform_is_asked(false).await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-2");
    assert_eq!(bench.platform.refreshes(), 2);
}

#[tokio::test]
async fn a_store_that_fails_again_in_between_costs_nothing_either() {
    let bench = saved_while_the_platform_is_asked(true).await;
    bench.store.fail_commits(false);
    while bench.renewals.alarms().unsaved_accounts > 0 {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-2");
    let smile = bench.account("smile");
    bench.clock.advance(HOUR);
    let next = bench.renewals.renew(&smile, smile.generation(), Cause::NoToken).await.unwrap();
    assert_eq!(token(&next), "access-smile-3");
}

#[tokio::test]
async fn a_commit_that_went_through_although_it_was_reported_as_failed_does_not_fence_its_successor() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_commits(true);
    let expected = bench.grant("smile").await.generation;
    let access = bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    bench.store.fail_commits(false);
    let landed = NewTokens {
        access: StoredAccess { token: AccessToken::new("access-smile-1"), expires_at: access.expires_at() },
        refresh: Some(RefreshToken::new("refresh-smile-1")),
        refreshed_at: start_time(),
    };
    bench.store.commit_tokens(&smile.name, &global(), expected, &landed).await.unwrap();
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert!(!smile.summary().unsaved);
    let next = bench.renewals.renew(&smile, access.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!(token(&next), "access-smile-2");
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-2");
}

#[tokio::test]
async fn without_an_intent_the_keeper_waits_but_a_caller_without_a_token_does_not() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_writes(true);
    let postpone = bench.renewals.renew(&smile, smile.generation(), Cause::BeforeExpiry).await;
    assert!(matches!(postpone, Err(RenewError::Unavailable { .. })), "{postpone:?}");
    assert_eq!(bench.platform.refreshes(), 0, "with rotation a refresh could cost the login");
    bench.clock.advance(HOUR);
    let access = bench.renewals.renew(&smile, smile.generation(), Cause::NoToken).await.unwrap();
    assert_eq!(token(&access), "access-smile-1");
    assert_eq!(bench.renewals.alarms().unsaved_accounts, 1);
}

#[tokio::test]
async fn a_pairing_made_while_tokens_wait_wins() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.store.fail_commits(true);
    bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    let mut paired = new_grant("smile", &global(), 0, bench.clock.now());
    paired.refresh = RefreshToken::new("paired-anew");
    paired.access.as_mut().unwrap().token = AccessToken::new("paired-anew");
    paired.state = Some(AccountState::Ready);
    bench.registry.apply(bench.store.put_grant(paired).await.unwrap());
    bench.store.fail_commits(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "paired-anew");
    let Availability::Ready(access) = smile.availability(bench.clock.now()) else { panic!("no access") };
    assert_eq!(token(&access), "paired-anew");
}

/// A refresh whose response has no usable access token, while the store takes no writes.
async fn with_a_refresh_token_in_memory(came: &str) -> Workbench {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile", "other"]).await;
    let smile = bench.account("smile");
    bench.platform.refreshes_fail(without_access(came), 1);
    bench.store.fail_writes(true);
    assert!(bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.is_err());
    assert!(matches!(smile.availability(bench.clock.now()), Availability::Ready(_)), "serves on");
    assert!(smile.summary().unsaved);
    assert_eq!(bench.renewals.alarms().unsaved_accounts, 1);
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-0");
    bench
}

#[tokio::test]
async fn a_refresh_token_that_came_alone_waits_for_the_store_and_the_one_before_is_kept_beside_it() {
    let bench = with_a_refresh_token_in_memory("rotated").await;
    bench.platform.forgets("smile");
    bench.platform.takes("rotated", "smile");
    another_try(&bench).await;
    assert_eq!(bench.renewals.alarms().unsaved_accounts, 1);
    bench.store.fail_writes(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    let smile = bench.account("smile");
    assert!(!smile.summary().unsaved);
    assert_eq!(bench.grant("smile").await.refresh.expose(), "rotated", "it would outlive a crash");
    let generation = bench.grant("smile").await.generation;
    bench.store.adopt_fallback_token(&smile.name, &global(), generation).await.unwrap().unwrap();
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-0");
}

#[tokio::test]
async fn a_refresh_token_that_came_alone_is_used_from_memory() {
    let bench = with_a_refresh_token_in_memory("rotated").await;
    bench.platform.forgets("smile");
    bench.platform.takes("rotated", "smile");
    bench.clock.advance(MINUTE);
    let smile = bench.account("smile");
    let access = bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!(token(&access), "access-smile-1");
    bench.store.fail_writes(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
    let generation = bench.grant("smile").await.generation;
    let kept = bench.store.adopt_fallback_token(&smile.name, &global(), generation).await.unwrap();
    assert_eq!(kept, None, "proven");
}

#[tokio::test]
async fn a_refresh_token_in_memory_that_was_nobodys_gives_way_to_the_one_before() {
    let bench = with_a_refresh_token_in_memory("junk").await;
    bench.clock.advance(MINUTE);
    let smile = bench.account("smile");
    let access = bench.renewals.renew(&smile, smile.generation(), Cause::Unauthorized).await.unwrap();
    assert_eq!(token(&access), "access-smile-1");
    assert_eq!(smile.state(), AccountState::Ready);
    assert_eq!(bench.events.of("smile", JournalEvent::FallbackAdopted).len(), 1);
    bench.store.fail_writes(false);
    another_try(&bench).await;
    bench.renewals.finish().await;
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
}
