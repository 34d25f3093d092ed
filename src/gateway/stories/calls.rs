//! Calls that go well, and tokens that do not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::access::doubles::{HOUR, MINUTE};
use crate::gateway::refusal::RefusalCode;

const EXPIRED: &str = "HTTP/1.1 401 Unauthorized\ncontent-length: 3\n\nold";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\ncontent-length: 2\n\nno";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error\ncontent-length: 0\n\n";

#[test]
fn a_legacy_call_reaches_the_platform_with_our_bearer_and_comes_back_untouched() {
    story(|world| async move {
        world.will_say("HTTP/1.1 299 Very Fine\nDate: Sat, 21 Nov 2026 10:00:00 GMT\nX-VENDOR-Id: 1\nSet-Cookie: a=1\nSet-Cookie: b=2\nContent-Length: 5\n\nhello");
        let mut caller = world.connect();
        let sent = "GET /lab-sw/v1/practice-configuration?q=%41&r=/x HTTP/1.1\r\nHost: old.test\r\nX-OLD-Thing: 1\r\nAuthorization: Bearer stale\r\nX-Request-Id: r-1\r\nConnection: close\r\n\r\n";
        caller.write_all(sent.as_bytes()).await.unwrap();
        let mut response = String::new();
        caller.read_to_string(&mut response).await.unwrap();
        assert_eq!(
            world.platform.requests.borrow()[0],
            format!(
                "GET /itero-gen-api/v2/practice-configuration?q=%41&r=/x HTTP/1.1\r\nHost: {}\r\nX-OLD-Thing: 1\r\nX-Request-Id: r-1\r\nvia: 1.1 genapi-gateway-t1\r\nAuthorization: Bearer access-smile-0\r\n\r\n",
                world.platform.addr
            )
        );
        assert_eq!(
            response,
            "HTTP/1.1 299 Very Fine\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nX-VENDOR-Id: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\nx-request-id: r-1\r\nconnection: close\r\n\r\nhello"
        );
    });
}

#[test]
fn one_connection_serves_call_after_call() {
    story(|world| async move {
        for _ in 0..3 {
            assert_eq!(world.get("/orders/lab").await.0.status(), 200);
        }
        assert_eq!(world.platform.connections.get(), 1);
        assert_eq!(world.gateway.idle_connections(), 1);
    });
}

#[test]
fn fifty_callers_at_once_each_get_their_own_response() {
    story(|world| async move {
        let world = Rc::new(world);
        let calls: Vec<_> = (0..50)
            .map(|caller| {
                let world = world.clone();
                spawn_local(async move {
                    for call in 0..20 {
                        let target = format!("/practice-configuration?echo={caller}-{call}");
                        assert_eq!(world.get(&target).await.1, format!("/itero-gen-api/v2{target}"));
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        assert!(world.gateway.idle_connections() <= 8, "no more than the pool keeps");
    });
}

#[test]
fn an_expired_token_is_renewed_once_and_the_call_repeated_on_the_new_route() {
    story(|world| async move {
        world.will_say(EXPIRED);
        world.bench.platform.next_discovery(Ok(world.platform.route("/v3")));
        let (head, body) = world.call(request("POST", "/scan-request", "{\"rx\":1}")).await;
        assert_eq!((head.status().as_u16(), body.unwrap().as_ref()), (200, b"{}".as_slice()));
        assert_eq!(world.bench.platform.refreshes(), 1);
        assert_eq!(world.bench.reasons_of_refreshes("smile"), ["a call was answered 401"]);
        let requests = world.platform.requests.borrow();
        assert!(requests[0].starts_with("POST /itero-gen-api/v2/scan-request "));
        assert!(requests[1].starts_with("POST /v3/scan-request "));
        assert!(requests[1].contains("Bearer access-smile-1\r\n"));
        assert!(requests.iter().all(|text| text.ends_with("\r\n\r\n{\"rx\":1}")));
        assert_eq!(
            world.platform.connections.get(),
            1,
            "the 401 was read, so its connection serves the repeat"
        );
    });
}

#[test]
fn a_call_that_comes_while_a_refused_token_is_renewed_waits_and_is_sent_once() {
    story(|world| async move {
        world.bench.platform.refresh_door.send_replace(false);
        world.will_say(EXPIRED);
        let late = async {
            world.bench.platform.until_refreshes(1).await;
            world.get("/orders/lab").await
        };
        let renewal = async {
            world.until_waiting(2).await;
            world.bench.platform.refresh_door.send_replace(true);
        };
        let (first, late, ()) = tokio::join!(world.get("/orders/lab"), late, renewal);
        assert_eq!((first.0.status().as_u16(), late.0.status().as_u16()), (200, 200));
        assert_eq!(world.bench.platform.refreshes(), 1);
        let requests = world.platform.requests.borrow();
        let refused = requests.iter().filter(|text| text.contains("Bearer access-smile-0\r\n")).count();
        assert_eq!((requests.len(), refused), (3, 1));
    });
}

#[test]
fn a_403_that_a_renewal_does_not_cure_passes_and_holds_back_the_next_renewal() {
    story(|world| async move {
        let call = async |responses: &[&str]| {
            responses.iter().for_each(|response| world.will_say(response));
            let (head, body) = world.get("/orders/lab").await;
            (head.status().as_u16(), body, world.bench.platform.refreshes())
        };
        assert_eq!(call(&[FORBIDDEN, FORBIDDEN]).await, (403, "no".to_owned(), 1));
        world.clock.advance(MINUTE);
        assert_eq!(call(&[FORBIDDEN]).await, (403, "no".to_owned(), 1), "the last renewal was no cure");
        world.clock.advance(MINUTE);
        assert_eq!(call(&[FORBIDDEN]).await, (200, "{}".to_owned(), 2));
        world.clock.advance(MINUTE);
        assert_eq!(call(&[FORBIDDEN]).await, (200, "{}".to_owned(), 3), "the last renewal was a cure");
        assert_eq!(world.bench.reasons_of_refreshes("smile"), ["a call was answered 403"; 3]);
    });
}

#[test]
fn within_the_gap_the_vendors_401_passes_and_a_dead_grant_says_what_to_do() {
    story(|world| async move {
        world.will_say(EXPIRED);
        assert_eq!(world.get("/orders/lab").await.1, "{}");
        world.will_say(EXPIRED);
        assert_eq!(world.get("/orders/lab").await.1, "old");
        assert_eq!(world.bench.platform.refreshes(), 1);
        world.clock.advance(MINUTE);
        world.bench.platform.forgets("smile");
        world.will_say(EXPIRED);
        let (head, body) = world.get("/orders/lab").await;
        assert_eq!(head.status(), 401);
        assert!(
            body.contains("account_needs_login")
                && body.contains("accounts pair --realm global --name smile")
        );
        let records = world.records.0.lock().unwrap();
        assert_eq!(records[2].refusal, Some(RefusalCode::AccountNeedsLogin));
    });
}

#[test]
fn an_account_without_a_token_is_renewed_first_and_a_paused_one_is_not_touched() {
    story(|world| async move {
        world.clock.advance(HOUR);
        assert_eq!(world.account().activity.last_call_at(), None);
        assert_eq!(world.status("GET", "/orders/lab", "").await, 200);
        assert_eq!(world.account().activity.last_call_at(), Some(world.clock.now()));
        assert_eq!(world.bench.reasons_of_refreshes("smile"), ["a call found no live token"]);
        world.bench.pause("smile").await;
        assert_eq!(world.status("GET", "/orders/lab", "").await, 503);
        assert_eq!((world.platform.requests.borrow().len(), world.bench.platform.refreshes()), (1, 1));
    });
}

#[test]
fn a_body_too_large_to_keep_streams_and_its_401_passes_while_the_renewal_starts() {
    story(|world| async move {
        let large = "x".repeat(200 * 1024);
        world.bench.platform.refresh_door.send_replace(false);
        world.will_say(EXPIRED);
        assert_eq!(world.status("PUT", "/patients", &large).await, 401);
        world.bench.platform.refresh_door.send_replace(true);
        world.bench.platform.until_refreshes(1).await;
        world.bench.renewals.finish().await;
        assert_eq!(world.bench.reasons_of_refreshes("smile"), ["a call was answered 401"]);
        let requests = world.platform.requests.borrow();
        assert_eq!(requests.len(), 1);
        assert!(requests[0].contains("content-length: 204800\r\n") && requests[0].ends_with(&large));
    });
}

#[test]
fn a_500_is_repeated_after_the_documented_waits_and_then_passes() {
    story(|world| async move {
        (0..3).for_each(|_| world.will_say(FAILED));
        let call = world.status("GET", "/orders/lab", "");
        let time = async {
            for sends in 1..3 {
                world.until_waiting(sends).await;
                assert_eq!(world.platform.requests.borrow().len() as u64, sends);
                world.clock.advance(Duration::from_millis(999));
                tokio::task::yield_now().await;
                assert_eq!(
                    world.platform.requests.borrow().len() as u64,
                    sends,
                    "not before its second is over"
                );
                world.clock.advance(Duration::from_secs(4));
            }
        };
        let (status, ()) = tokio::join!(call, time);
        assert_eq!((status, world.platform.requests.borrow().len()), (500, 3));
        let records = world.records.0.lock().unwrap();
        assert_eq!((records[0].attempts, records[0].retries), (3, 2));
    });
}

#[test]
fn bodies_go_out_framed_as_they_came_in() {
    story(|world| async move {
        assert_eq!(world.status("DELETE", "/scan-request/1", "{\"a\":1}").await, 200);
        let mut caller = world.connect();
        let chunked = "POST /patient/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
        caller.write_all(chunked.as_bytes()).await.unwrap();
        caller.read_to_end(&mut Vec::new()).await.unwrap();
        let requests = world.platform.requests.borrow();
        assert!(requests[0].contains("content-length: 7\r\n") && requests[0].ends_with("{\"a\":1}"));
        assert!(requests[1].contains("Transfer-Encoding: chunked\r\n"));
        assert!(requests[1].ends_with("\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"), "{}", requests[1]);
        assert!(!requests[1].to_ascii_lowercase().contains("trailer") && !requests[1].contains("T: 1"));
    });
}

#[test]
fn what_is_refused_never_reaches_the_platform() {
    story(|world| async move {
        for (method, path, status, code) in [
            ("DELETE", "/unpair-account", 403, "call_not_allowed"),
            (
                "GET",
                "/accounts/smile/@127.0.0.1:1/itero-gen-api/v2/unpair%2Daccount",
                403,
                "call_not_allowed",
            ),
            ("GET", "/accounts/smile/@evil.test/x", 400, "bad_request"),
            ("GET", "/accounts/nobody/x", 403, "account_not_allowed"),
            ("GET", "/a/%2e%2e/b", 400, "bad_request"),
            ("TRACE", "/orders/lab", 405, "method_not_allowed"),
            ("POST", "/lab-sw/v1/scan-request", 422, "procedure_unknown"),
        ] {
            let path = if path.starts_with("/accounts") {
                path.to_owned()
            } else {
                format!("/accounts/smile{path}")
            };
            let (head, body) = world.call(request(method, &path, "")).await;
            let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
            assert_eq!(head.status(), status, "{method} {path} {body}");
            assert!(body.contains(code), "{body}");
        }
        assert_eq!(world.platform.connections.get(), 0);
    });
}

#[test]
fn a_discovery_call_is_responded_here() {
    story(|world| async move {
        let path = "/itero-gen-api/v2/api-discovery-by-name-and-version?discoveryName=third-party&version=2";
        let (head, body) = world.get(path).await;
        assert_eq!(head.status(), 200);
        assert!(
            body.contains("\"Path\":\"/accounts/smile/itero-gen-api/v2\"")
                && body.contains("http://gateway.test")
        );
        assert_eq!(world.platform.connections.get(), 0);
    });
}
