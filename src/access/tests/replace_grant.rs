//! Another token in the place of one that an account has.

use super::super::doubles::*;
use super::super::renewal::Cause;
use super::super::replace_grant::ReplaceError;
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::RefreshToken;
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::{NewGrant, Store};

fn newer(token: &str) -> NewGrant {
    NewGrant {
        refresh: RefreshToken::new(token),
        access: None,
        route: None,
        ..new_grant("smile", &global(), 0, start_time() + HOUR)
    }
}

#[tokio::test]
async fn a_token_that_is_taken_replaces_the_old_one_together_with_what_it_brought() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    bench.platform.takes("newer", "smile");
    let record = bench.renewals.replace(newer("newer")).await.unwrap();
    let grant = record.current_grant().unwrap();
    assert_eq!((grant.refresh.expose(), grant.refreshed_at), ("refresh-smile-1", Some(start_time())));
    let access = bench.account("smile").availability(bench.clock.now());
    assert!(format!("{access:?}").contains("Ready"), "{access:?}");
    assert_eq!(bench.events.of("smile", JournalEvent::TokenReplaced).len(), 1);
    let again = bench.renewals.replace(newer("newest")).await;
    assert!(matches!(again, Err(ReplaceError::NotTried(_))), "the vendor's gap holds: {again:?}");
    assert_eq!(bench.platform.refreshes(), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_changes_nothing_and_calls_are_served_meanwhile() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let before = bench.grant("smile").await;
    bench.platform.refresh_door.send_replace(false);
    let renewals = bench.renewals.clone();
    let replacing = tokio::spawn(async move { renewals.replace(newer("spent")).await });
    bench.platform.until_refreshes(1).await;
    let account = bench.account("smile");
    assert!(matches!(
        account.availability(bench.clock.now()),
        crate::access::registry::Availability::Ready(_)
    ));
    bench.platform.refresh_door.send_replace(true);
    assert!(matches!(replacing.await.unwrap(), Err(ReplaceError::Refused(_))));
    assert_eq!(bench.grant("smile").await, before);
    assert_eq!(account.state(), AccountState::Ready);
    bench.renewals.renew(&account, account.generation(), Cause::Operator).await.unwrap();
    bench.renewals.finish().await;
}

#[tokio::test]
async fn a_store_that_takes_no_writes_and_an_outage_leave_the_token_untried_or_open() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    bench.store.fail_writes(true);
    assert!(matches!(bench.renewals.replace(newer("newer")).await, Err(ReplaceError::NotTried(_))));
    assert_eq!(bench.platform.refreshes(), 0);
    bench.store.fail_writes(false);
    bench
        .platform
        .refreshes_fail(error("refresh", Blame::Account, PlatformErrorKind::Forbidden, Some(403)), 1);
    assert!(matches!(bench.renewals.replace(newer("newer")).await, Err(ReplaceError::Failed(_))));
    assert_eq!(bench.grant("smile").await.refresh.expose(), "refresh-smile-0");
}

#[tokio::test]
async fn an_operators_renewal_makes_no_tokens_that_the_store_does_not_take_unless_forced() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    bench.store.fail_writes(true);
    let account = bench.account("smile");
    assert!(bench.renewals.renew(&account, account.generation(), Cause::Operator).await.is_err());
    assert_eq!(bench.platform.refreshes(), 0);
    bench.renewals.renew(&account, account.generation(), Cause::Forced).await.unwrap();
    assert_eq!(bench.platform.refreshes(), 1);
    assert!(bench.store.account(&account.name).await.unwrap().is_some());
}

#[tokio::test]
async fn a_refresh_token_that_came_before_a_replacement_failed_is_kept_beside_the_old_one() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let odd = PlatformError {
        refresh: Some(RefreshToken::new("next")),
        ..error("refresh", Blame::Account, PlatformErrorKind::Forbidden, Some(403))
    };
    bench.platform.refreshes_fail(odd, 1);
    assert!(matches!(bench.renewals.replace(newer("newer")).await, Err(ReplaceError::Failed(_))));
    let old = bench.grant("smile").await;
    assert_eq!(old.refresh.expose(), "refresh-smile-0");
    let smile = "smile".parse().unwrap();
    assert!(bench.store.adopt_fallback_token(&smile, &global(), old.generation).await.unwrap().is_some());
    assert_eq!(bench.grant("smile").await.refresh.expose(), "next");
}
