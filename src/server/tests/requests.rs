//! What callers send and get when nothing is wrong with them, and the sizes that they may have.

use super::*;

#[test]
fn callers_of_either_version_keep_their_connection_or_not_as_they_ask() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    for number in 0..3 {
        caller.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (head, body) = caller.response();
        assert_eq!(body, format!("/{number} "));
        assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", "no header of the server's own");
    }
    caller.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(caller.rest().ends_with("/last "));

    let old = server.ask("GET /old HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("/old "), "{old:?}");
    let mut caller = server.caller();
    caller.send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(caller.response().0.contains("keep-alive"));
    caller.send("GET http://a/absolute HTTP/1.0\r\n\r\n");
    assert!(caller.rest().ends_with("/absolute "));
}

#[test]
fn a_caller_that_asks_first_is_told_to_continue() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    let (interim, _) = caller.response();
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.send("ab");
    assert_eq!(caller.response().1, "/e ab");
}

#[test]
fn a_head_that_comes_in_pieces_is_one_head() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    for chunk in ["\r\nGE", "T /p HTT", "P/1.1\r", "\nHost: a\r\nA: b\r", "\n\r", "\n"] {
        caller.send(chunk);
    }
    assert_eq!(caller.response().1, "/p ");
}

#[test]
fn an_8_k_bearer_passes_and_a_head_beyond_the_limit_does_not() {
    let server = TestServer::start(limits());
    let request = |size: usize| {
        format!("GET /b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(size))
    };
    let mut caller = server.caller();
    caller.send(request(8 * 1024));
    assert_eq!(caller.response().1, "/b ");

    let response = server.ask(&request(256 * 1024));
    assert!(response.starts_with("HTTP/1.1 431 ") && response.contains("text/plain"), "{response:?}");

    let many = "A: b\r\n".repeat(10_000);
    let response = server.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
    assert!(response.starts_with("HTTP/1.1 431 "), "{response:?}");
    let some = "A: b\r\n".repeat(99);
    let response = server.ask(&format!("GET / HTTP/1.0\r\nHost: a\r\n{some}\r\n"));
    assert!(response.starts_with("HTTP/1.0 200 "), "{response:?}");

    let response = server.ask(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)));
    assert!(response.starts_with("HTTP/1.1 414 "), "{response:?}");
    assert_eq!(server.requests(), 2);
}

#[test]
fn limits_hold_across_reads() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let line = format!("A: {}\r\n", "x".repeat(997));
    let mut sent = 0;
    // The response comes somewhere on the way; what is sent after it is taken in until the caller has seen
    // it.
    while sent < 200 * 1024 && caller.0.write_all(line.as_bytes()).is_ok() {
        sent += line.len();
    }
    let response = caller.rest();
    assert!(response.starts_with("HTTP/1.1 431 "), "{response:?}");
}

#[test]
fn a_small_refusal_of_the_handlers_own_is_left_alone() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    for _ in 0..2 {
        caller.send("GET /empty-400 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(caller.response().0, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    }
    assert_eq!(server.counters.refused_requests.get(), 0);
}

#[test]
fn a_broken_body_breaks_the_connection_so_that_it_never_looks_complete() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    let (response, failure) = caller.rest_and_failure();
    assert!(!response.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&response));
    assert!(failure.is_some());

    // An old caller takes the end of the connection for the end of the response: only a reset tells it.
    let mut caller = server.caller();
    caller.send("GET /half HTTP/1.0\r\n\r\n");
    assert_eq!(caller.rest_and_failure().1, Some(std::io::ErrorKind::ConnectionReset));
    eventually("aborted_responses", || server.counters.aborted_responses.get() == 2);
}

#[test]
fn a_panic_costs_one_request_and_nothing_else() {
    let server = TestServer::start(limits());
    let response = server.ask("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 500 "), "{response:?}");
    assert!(server.ask("GET /on HTTP/1.0\r\n\r\n").ends_with("/on "));
    eventually("panics", || server.counters.panics.get() == 1);
}

#[test]
fn an_early_refusal_reaches_a_caller_that_is_still_sending() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("POST /unread-body HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
    let block = [b'x'; 10_000];
    for _ in 0..300 {
        if caller.0.write_all(&block).is_err() {
            break;
        }
    }
    let response = caller.rest();
    assert!(response.starts_with("HTTP/1.1 413 ") && response.ends_with("enough"), "{response:?}");
}

#[test]
fn a_large_response_arrives_complete() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET /big HTTP/1.0\r\n\r\n");
    let (response, failure) = caller.rest_and_failure();
    assert_eq!(failure, None);
    let head = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(response.len() - head, BIG);
}

#[test]
fn a_caller_that_shuts_down_its_side_still_gets_its_response() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET /half-closed HTTP/1.1\r\nHost: a\r\n\r\n");
    caller.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(caller.rest().ends_with("/half-closed "));

    let mut caller = server.caller();
    caller.send("GET /big HTTP/1.0\r\n\r\n");
    caller.0.shutdown(std::net::Shutdown::Write).unwrap();
    let (response, failure) = caller.rest_and_failure();
    assert_eq!(failure, None);
    assert!(response.len() > BIG);
}

/// Longer than any grace after which a half-closed connection was once given up.
const LONG: Duration = Duration::from_millis(1600);

#[test]
fn a_half_closed_connection_waits_for_its_responses_however_long_they_take() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    // A body behind the first request, and two requests that came before they were asked for.
    caller.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    caller.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /third HTTP/1.1\r\nHost: a\r\n\r\n");
    caller.0.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..2 {
        std::thread::sleep(LONG);
        assert_eq!(server.script.cancelled.load(Ordering::SeqCst), 0);
        server.script.permits.add_permits(1);
        assert_eq!(caller.response().1, "waited");
    }
    assert!(caller.rest().ends_with("/third "));
    assert_eq!(server.counters.client_disconnects.get(), 0);
    eventually("the connection is gone", || server.counters.open.get() == 0);
}

#[test]
fn a_half_closed_connection_that_is_reset_cancels_its_request() {
    let server = TestServer::start(limits());
    for path in ["/never", "/stalls"] {
        let requests = server.requests();
        let mut caller = server.caller();
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        caller.0.shutdown(std::net::Shutdown::Write).unwrap();
        eventually("the request is heard", || server.requests() == requests + 1);
        caller.reset();
        eventually("the connection is gone", || server.counters.open.get() == 0);
    }
    assert_eq!(
        server.script.cancelled.load(Ordering::SeqCst),
        1,
        "the other one was answered, though not to its end"
    );
    assert_eq!(server.counters.client_disconnects.get(), 2);
}

#[test]
fn a_caller_that_leaves_inside_its_body_is_not_waited_for() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    caller.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(!caller.rest().contains("/whole"), "half a request is none");
    eventually("the connection is gone", || server.counters.open.get() == 0);
}

#[test]
fn a_caller_that_hangs_up_cancels_its_request() {
    let server = TestServer::start(limits());
    let mut caller = server.caller();
    caller.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is heard", || server.requests() == 1);
    caller.reset();
    eventually("the request is cancelled", || server.script.cancelled.load(Ordering::SeqCst) == 1);
    eventually("the hang-up is counted", || server.counters.client_disconnects.get() == 1);
    eventually("the connection is gone", || server.counters.open.get() == 0);
}
