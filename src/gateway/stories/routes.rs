//! Calls over a route that is not proven, and over one that cannot be connected to.

use std::time::Duration;

use super::*;
use crate::gateway::testing::{access, on_trial};

const PROVEN: &str = "/itero-gen-api/v2";

/// A second platform, on trial beside the proven one.
async fn with_a_trial(world: &World) -> Rc<ScriptedPlatform> {
    let other = ScriptedPlatform::start().await;
    let proven = access(1, &world.platform.domain(), PROVEN);
    world.accounts.set(Availability::Ready(on_trial(&proven, &other.domain(), "/v3")));
    other
}

fn trials(world: &World) -> Vec<Option<String>> {
    world.accounts.trials.borrow().iter().map(|(_, failure)| failure.clone()).collect()
}

#[test]
fn a_call_that_tries_a_route_is_served_there_and_its_response_is_the_proof() {
    story(|world| async move {
        let other = with_a_trial(&world).await;
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        assert!(world.platform.requests.borrow().is_empty());
        assert!(other.requests.borrow()[0].starts_with("GET /v3/orders/lab "));
        assert_eq!(trials(&world), [None]);
    });
}

#[test]
fn a_call_whose_trial_fails_goes_over_the_proven_route_at_once() {
    let page = "HTTP/1.1 200 OK\nContent-Type: Text/HTML; charset=utf-8\nContent-Length: 2\n\nhi";
    let missing = "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n";
    let failed = "HTTP/1.1 500 No\nContent-Length: 0\n\n";
    for response in [page, missing, failed] {
        story(|world| async move {
            let other = with_a_trial(&world).await;
            other.script.borrow_mut().push_back(Act::Say(response.replace('\n', "\r\n").into_bytes()));
            let (head, body) = world.get("/orders/lab").await;
            assert_eq!((head.status().as_u16(), body.as_str()), (200, "{}"));
            assert_eq!(world.platform.requests.borrow().len(), 1);
            assert!(trials(&world)[0].as_ref().unwrap().starts_with("it answers a call with "));
        });
    }
    story(|world| async move {
        let proven = access(1, &world.platform.domain(), PROVEN);
        world.accounts.set(Availability::Ready(on_trial(&proven, "http://127.0.0.1:1", PROVEN)));
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        assert_eq!((trials(&world).len(), world.accounts.unreachable.borrow().len()), (1, 0));
    });
}

#[test]
fn a_call_that_creates_something_tries_no_route() {
    story(|world| async move {
        let other = with_a_trial(&world).await;
        assert_eq!(world.status("POST", "/scan-request", "{}").await, 200);
        assert!(other.requests.borrow().is_empty());
        assert!(trials(&world).is_empty());
    });
}

#[test]
fn a_response_over_a_first_route_proves_it_and_a_missing_page_does_not() {
    story(|world| async move {
        let only = access(1, &world.platform.domain(), PROVEN);
        world.accounts.set(Availability::Ready(on_trial(&only, &world.platform.domain(), PROVEN)));
        world.will_say("HTTP/1.1 404 Not Found\nContent-Length: 0\n\n");
        assert_eq!(world.get("/orders/lab").await.0.status(), 404);
        assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        assert_eq!(trials(&world), [Some("it answers a call with status 404".to_owned()), None]);
    });
}

#[test]
fn a_connection_that_fails_is_told_and_the_repeat_takes_the_route_that_was_found_meanwhile() {
    story(|world| async move {
        world.accounts.set(Availability::Ready(access(1, "http://127.0.0.1:1", PROVEN)));
        let call = world.get("/orders/lab");
        let found = async {
            world.until_waiting(1).await;
            let moved = access(1, &world.platform.domain(), PROVEN);
            world.accounts.set(Availability::Ready(moved));
            world.clock.advance(Duration::from_secs(2));
        };
        let ((head, _), ()) = tokio::join!(call, found);
        assert_eq!(head.status(), 200);
        assert_eq!(*world.accounts.unreachable.borrow(), ["http://127.0.0.1:1/itero-gen-api/v2"]);
    });
}
