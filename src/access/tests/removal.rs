//! Accounts that go, or get another name, while they are refreshed.

use super::super::doubles::*;
use super::super::renewal::{Cause, RenewError};
use crate::model::account::AccountName;
use crate::store::Store;

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

/// A refresh that stands inside the platform.
async fn in_flight(bench: &Workbench) -> tokio::task::JoinHandle<Result<super::super::Access, RenewError>> {
    bench.platform.refresh_door.send_replace(false);
    let (renewals, account) = (bench.renewals.clone(), bench.account("smile"));
    let generation = account.generation();
    let renewing = tokio::spawn(async move { renewals.renew(&account, generation, Cause::Operator).await });
    bench.platform.until_refreshes(1).await;
    renewing
}

#[tokio::test]
async fn a_refresh_that_was_under_way_at_a_rename_ends_under_the_new_name() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let renewing = in_flight(&bench).await;
    let record = bench.store.rename_account(&name("smile"), &name("grin")).await.unwrap();
    bench.renewals.withdraw(&name("smile"));
    bench.registry.apply(record);
    bench.platform.refresh_door.send_replace(true);
    assert!(renewing.await.unwrap().is_err(), "who waits under the old name is told");
    bench.renewals.finish().await;
    let grant = bench.grant("grin").await;
    assert_eq!(grant.refresh.expose(), "refresh-smile-1", "the rotated token is kept");
    let account = bench.account("grin");
    assert_eq!(account.summary().refreshed_at, Some(start_time()));
    assert!(bench.registry.by_name("smile").is_none());
    bench.clock.advance(HOUR);
    bench.renewals.renew(&account, account.generation(), Cause::Operator).await.unwrap();
}

#[tokio::test]
async fn a_refresh_that_was_under_way_at_a_removal_brings_nothing_back() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let renewing = in_flight(&bench).await;
    bench.store.remove_account(&name("smile")).await.unwrap();
    bench.renewals.withdraw(&name("smile"));
    bench.platform.refresh_door.send_replace(true);
    assert!(renewing.await.unwrap().is_err());
    bench.renewals.finish().await;
    assert!(bench.registry.by_name("smile").is_none());
    assert_eq!(bench.store.accounts().await.unwrap().accounts, []);
}

#[tokio::test]
async fn tokens_that_waited_in_memory_are_saved_under_the_new_name() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    bench.store.fail_commits(true);
    let account = bench.account("smile");
    bench.renewals.renew(&account, account.generation(), Cause::Operator).await.unwrap();
    bench.store.rename_account(&name("smile"), &name("grin")).await.unwrap();
    bench.renewals.withdraw(&name("smile"));
    bench.store.fail_commits(false);
    let renewals = bench.renewals.clone();
    let saved = tokio::spawn(async move { renewals.finish().await });
    while !saved.is_finished() {
        bench.clock.advance(MINUTE);
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.grant("grin").await.refresh.expose(), "refresh-smile-1");
}

#[tokio::test]
async fn a_pause_can_wait_for_the_refresh_under_way() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let renewing = in_flight(&bench).await;
    let renewals = bench.renewals.clone();
    let waiting = tokio::spawn(async move { renewals.until_idle(&name("smile")).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    bench.platform.refresh_door.send_replace(true);
    waiting.await.unwrap();
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-1");
    renewing.await.unwrap().unwrap();
}
