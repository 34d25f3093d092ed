//! A route is proven before calls move to it, and asked about again when it cannot be connected to.

use std::sync::Arc;
use std::time::Duration;

use crate::access::doubles::*;
use crate::access::registry::{Account, Availability};
use crate::access::renewal::Cause;
use crate::access::{Access, locked};
use crate::journal::JournalEvent;
use crate::model::route::Route;
use crate::platform::{Blame, PlatformError, PlatformErrorKind};

fn responded(status: u16, kind: PlatformErrorKind) -> PlatformError {
    error("discovery", Blame::Realm, kind, Some(status))
}

fn access(bench: &Workbench, account: &Account) -> Access {
    match account.availability(bench.clock.now()) {
        Availability::Ready(access) => access,
        other => panic!("{other:?}"),
    }
}

async fn renew(bench: &Workbench, account: &Arc<Account>) -> Route {
    let access = bench.renewals.renew(account, account.generation(), Cause::Unauthorized).await.unwrap();
    bench.clock.advance(2 * MINUTE);
    Route::clone(access.route())
}

/// Lets the task that asks again do so once.
async fn until_asked_again(bench: &Workbench, discoveries: usize) {
    while bench.platform.discoveries() < discoveries {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    bench.renewals.finish().await;
}

/// An account whose platform names a first route, which answers as told.
async fn without_a_route(proof: Result<Route, PlatformError>) -> Workbench {
    let bench = Workbench::new(ScriptedPlatform::new(true), &[]).await;
    bench.pair("smile", "global", 1, None).await;
    bench.platform.next_proof(proof);
    bench
}

#[tokio::test]
async fn a_route_that_does_not_respond_as_the_api_does_is_not_used_stored_or_reported_twice() {
    let pages = || responded(200, PlatformErrorKind::Malformed);
    for wrong in [
        unreachable(),
        pages(),
        responded(500, PlatformErrorKind::Failed),
        responded(302, PlatformErrorKind::Unexpected),
        responded(401, PlatformErrorKind::Refused),
        responded(403, PlatformErrorKind::Forbidden),
        error("discovery", Blame::Realm, PlatformErrorKind::Lost, None),
        error("discovery", Blame::Account, PlatformErrorKind::NothingDiscovered, Some(200)),
    ] {
        let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
        let account = bench.account("smile");
        let named_wrongly = || {
            bench.platform.next_discovery(Ok(route("ap")));
            bench.platform.next_proof(Err(wrong.clone()));
        };
        named_wrongly();
        assert_eq!(renew(&bench, &account).await, route("eu"), "{wrong}");
        named_wrongly();
        until_asked_again(&bench, 2).await;
        let candidate = account.summary().candidate.unwrap();
        assert_eq!(*candidate.route, route("ap"));
        assert_eq!(candidate.why, wrong.to_string());
        assert_eq!(bench.events.of("smile", JournalEvent::RouteNotProven).len(), 1);
        assert!(
            bench.events.of("smile", JournalEvent::RouteNotProven)[0]
                .ends_with(&format!("{} stays in use", route("eu")))
        );
        assert_eq!(bench.grant("smile").await.route.unwrap().domain, route("eu").domain());
        assert_eq!(*access(&bench, &account).route().as_ref(), route("eu"));
    }
}

#[tokio::test]
async fn a_route_that_hangs_is_not_used() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.proof_door.send_replace(false);
    let renewals = bench.renewals.clone();
    let renewal = tokio::spawn({
        let account = Arc::clone(&account);
        async move { renewals.renew(&account, account.generation(), Cause::Unauthorized).await }
    });
    while !renewal.is_finished() {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(*renewal.await.unwrap().unwrap().route().as_ref(), route("eu"));
    while account.summary().candidate.is_none() {
        bench.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(*access(&bench, &account).route().as_ref(), route("eu"));
}

#[tokio::test]
async fn a_route_that_responds_later_is_followed_soon_and_one_that_discovery_forgets_is_forgotten() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.next_proof(Err(unreachable()));
    renew(&bench, &account).await;
    bench.platform.next_discovery(Ok(route("ap")));
    until_asked_again(&bench, 2).await;
    assert_eq!(*access(&bench, &account).route().as_ref(), route("ap"));
    assert_eq!((account.summary().candidate, bench.platform.refreshes()), (None, 1));
    assert_eq!(bench.grant("smile").await.route.unwrap().domain, route("ap").domain());

    bench.platform.next_discovery(Ok(route("us")));
    bench.platform.next_proof(Err(unreachable()));
    renew(&bench, &account).await;
    bench.platform.next_discovery(Ok(route("ap")));
    until_asked_again(&bench, 4).await;
    assert_eq!(*access(&bench, &account).route().as_ref(), route("ap"));
    assert_eq!(
        (account.summary().candidate, bench.events.of("smile", JournalEvent::RouteConfirmed).len()),
        (None, 1)
    );
}

#[tokio::test]
async fn a_discovery_that_flaps_between_two_routes_moves_nobody_back_and_forth() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    for _ in 0..5 {
        bench.platform.next_discovery(Ok(route("ap")));
        bench.platform.next_proof(Ok(route("eu")));
        assert_eq!(renew(&bench, &account).await, route("eu"));
        bench.platform.next_discovery(Ok(route("eu")));
        assert_eq!(renew(&bench, &account).await, route("eu"));
    }
    assert_eq!(bench.events.of("smile", JournalEvent::RouteChanged).len(), 0);
}

#[tokio::test]
async fn a_route_that_names_another_one_is_passed_over_for_that_where_it_responds() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.next_proof(Ok(route("us")));
    assert_eq!(renew(&bench, &account).await, route("us"));
    assert_eq!(*locked(&bench.platform.proofs), [route("ap"), route("us")]);
}

#[tokio::test]
async fn where_discovery_is_not_served_there_the_first_response_of_the_api_proves_the_route() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.next_proof(Err(not_served()));
    assert_eq!(renew(&bench, &account).await, route("eu"));
    let trying = access(&bench, &account);
    let trial = trying.trial().unwrap();
    assert_eq!(*trial.route().as_ref(), route("ap"));
    bench.renewals.finish_route_trial(&account, trial, Some("it answers a call with status 404".to_owned()));
    assert!(access(&bench, &account).trial().is_none(), "the others are spared");

    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.next_proof(Err(not_served()));
    until_asked_again(&bench, 2).await;
    let trying = access(&bench, &account);
    bench.renewals.finish_route_trial(&account, trying.trial().unwrap(), None);
    tokio::task::yield_now().await;
    bench.renewals.finish().await;
    let moved = access(&bench, &account);
    assert_eq!((moved.route().as_ref(), moved.trial().is_none()), (&route("ap"), true));
    assert_eq!(bench.grant("smile").await.route.unwrap().domain, route("ap").domain());
}

#[tokio::test]
async fn a_first_route_is_used_at_once_and_stored_once_it_is_proven() {
    for (proof, stored) in [(Ok(route("eu")), true), (Err(unreachable()), false), (Err(not_served()), false)]
    {
        let bench = without_a_route(proof).await;
        let account = bench.account("smile");
        let access = bench.renewals.renew(&account, account.generation(), Cause::NoToken).await.unwrap();
        assert_eq!(*access.route().as_ref(), route("eu"));
        bench.renewals.finish().await;
        let summary = account.summary();
        assert_eq!((summary.route_proven, bench.grant("smile").await.route.is_some()), (stored, stored));
    }
}

#[tokio::test]
async fn a_first_route_that_fails_is_asked_about_again_and_gives_way_at_once() {
    let bench = without_a_route(Err(unreachable())).await;
    let account = bench.account("smile");
    bench.renewals.renew(&account, account.generation(), Cause::NoToken).await.unwrap();
    bench.platform.next_discovery(Ok(route("us")));
    until_asked_again(&bench, 2).await;
    let summary = account.summary();
    assert_eq!((summary.route.as_deref(), summary.route_proven), (Some(&route("us")), true));
}

#[tokio::test]
async fn a_route_that_cannot_be_connected_to_has_discovery_asked_at_base_url_once_a_minute() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    let account = bench.account("smile");
    let fail = async |seconds| {
        bench.clock.advance(Duration::from_secs(seconds));
        let in_use = Arc::clone(access(&bench, &account).route());
        bench.renewals.route_unreachable(&account, &in_use, "connection refused");
        tokio::task::yield_now().await;
        bench.renewals.finish().await;
        (bench.platform.discoveries(), in_use)
    };
    assert_eq!(fail(0).await.0, 0, "a server may be restarting");
    assert_eq!(fail(4).await.0, 1);
    assert_eq!(bench.platform.last_asked(), None, "past the route that cannot be connected to");
    assert_eq!(fail(30).await.0, 1);
    assert_eq!(bench.events.of("smile", JournalEvent::RouteUnreachable).len(), 1);
    bench.platform.next_discovery(Ok(route("ap")));
    assert_eq!(fail(31).await.0, 2);
    assert_eq!((fail(1).await.1.as_ref(), bench.platform.refreshes()), (&route("ap"), 0));
}

#[tokio::test]
async fn whether_a_route_is_proven_survives_a_restart_and_a_candidate_does_not() {
    let bench = Workbench::new(ScriptedPlatform::new(true), &["smile"]).await;
    bench.platform.next_discovery(Ok(route("ap")));
    bench.platform.next_proof(Err(not_served()));
    renew(&bench, &bench.account("smile")).await;
    let again =
        Workbench::over(bench.clock.clone(), bench.store.clone(), bench.platform.clone(), settings()).await;
    let summary = again.account("smile").summary();
    assert_eq!((summary.route.as_deref(), summary.route_proven), (Some(&route("eu")), true));
    assert_eq!(summary.candidate, None);
}
