//! Calls over a route that is not proven, and over one that cannot be connected to.

use std::time::Duration;

use super::*;
use crate::access::doubles::not_served;
use crate::access::registry::Availability;
use crate::access::route_candidate::RouteTrial;

/// Has the platform name a route where it does not serve discovery: a call is to try it.
async fn put_on_trial(world: &World, route: Route) {
    world.bench.platform.next_discovery(Ok(route));
    world.bench.platform.next_proof(Err(not_served()));
    world.bench.renewals.rediscover(&world.account()).await.expect_err("it is not used yet");
    assert!(trial(world).is_some());
}

/// The route that the next call is to try.
fn trial(world: &World) -> Option<Arc<RouteTrial>> {
    match world.account().availability(world.clock.now()) {
        Availability::Ready(access) => access.trial().cloned(),
        other => panic!("{other:?}"),
    }
}

/// Why a route is not used that discovery names.
fn why_unused(account: &Account) -> String {
    account.summary().candidate.expect("discovery names another route").why
}

#[test]
fn a_call_that_tries_a_route_is_served_there_and_its_response_is_the_proof() {
    story(|world| async move {
        let other = ScriptedApi::start().await;
        put_on_trial(&world, other.route("/v3")).await;
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        assert!(world.platform.requests.borrow().is_empty());
        assert!(other.requests.borrow()[0].starts_with("GET /v3/orders/lab "));
        world.until_proven(&world.account(), &other.route("/v3")).await;
        assert!(world.account().summary().candidate.is_none());
    });
}

#[test]
fn a_call_whose_trial_fails_goes_over_the_proven_route_at_once() {
    let page = "HTTP/1.1 200 OK\nContent-Type: Text/HTML; charset=utf-8\nContent-Length: 2\n\nhi";
    let missing = "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n";
    let failed = "HTTP/1.1 500 No\nContent-Length: 0\n\n";
    for response in [page, missing, failed] {
        story(|world| async move {
            let other = ScriptedApi::start().await;
            put_on_trial(&world, other.route("/v3")).await;
            other.script.borrow_mut().push_back(Act::Say(response.replace('\n', "\r\n").into_bytes()));
            let (head, body) = world.get("/orders/lab").await;
            assert_eq!((head.status().as_u16(), body.as_str()), (200, "{}"));
            assert_eq!((other.requests.borrow().len(), world.platform.requests.borrow().len()), (1, 1));
            assert!(why_unused(&world.account()).starts_with("it answers a call with "));
            assert!(trial(&world).is_none(), "the next call is spared");
        });
    }
    story(|world| async move {
        put_on_trial(&world, testing::route("http://127.0.0.1:1", PATH)).await;
        let told = why_unused(&world.account());
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        assert_ne!(why_unused(&world.account()), told, "that no connection could be made");
        assert!(world.account().summary().unreachable.is_none(), "which says nothing of the proven route");
    });
}

#[test]
fn a_call_that_creates_something_tries_no_route() {
    story(|world| async move {
        let other = ScriptedApi::start().await;
        put_on_trial(&world, other.route("/v3")).await;
        assert_eq!(world.status("POST", "/scan-request", "{}").await, 200);
        assert!(other.requests.borrow().is_empty());
        assert!(trial(&world).is_some(), "it waits for a call that may try it");
    });
}

#[test]
fn a_response_over_a_first_route_proves_it_and_a_missing_page_does_not() {
    let new_account = |config: &mut Config| {
        config.callers = vec![testing::caller("anyone").network("0.0.0.0/0").accounts(&["new"]).build()];
    };
    with_config(new_account, |world| async move {
        let account = world.bench.pair("new", "global", 8, None).await;
        world.bench.platform.next_discovery(Ok(world.platform.route(PATH)));
        world.bench.platform.next_proof(Err(not_served()));
        world.will_say("HTTP/1.1 404 Not Found\nContent-Length: 0\n\n");
        assert_eq!(world.get("/orders/lab").await.0.status(), 404);
        assert_eq!(why_unused(&account), "it answers a call with status 404");
        assert!(!account.summary().route_proven);
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        world.until_proven(&account, &world.platform.route(PATH)).await;
        assert_eq!(world.bench.platform.refreshes(), 0, "only a route was missing");
    });
}

#[test]
fn connections_that_fail_have_discovery_asked_and_the_repeat_takes_the_route_that_it_finds() {
    story(|world| async move {
        world.move_to(&testing::route("http://127.0.0.1:1", PATH)).await;
        let found = world.platform.route(PATH);
        world.bench.platform.next_discovery(Ok(found.clone()));
        let call = world.get("/orders/lab");
        let time = async {
            world.until_waiting(1).await;
            assert!(world.account().summary().unreachable.is_some());
            assert_eq!(world.bench.platform.discoveries(), 0, "a server may be restarting");
            world.clock.advance(Duration::from_secs(3));
            world.until_waiting(2).await;
            world.until_proven(&world.account(), &found).await;
            world.clock.advance(Duration::from_secs(3));
        };
        let ((head, _), ()) = tokio::join!(call, time);
        assert_eq!(head.status(), 200);
        assert_eq!(world.bench.platform.last_asked(), None, "past the route that cannot be connected to");
    });
}
