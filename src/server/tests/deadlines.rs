//! Slow and vanishing callers, and too many of them.

use super::*;

const SHORT: Duration = Duration::from_millis(120);

#[test]
fn a_head_that_drips_is_responded_408_and_closed() {
    let server = TestServer::start(ServerLimits { head_timeout: SHORT, ..limits() });
    let mut caller = server.caller();
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let began = Instant::now();
    caller.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut response = Vec::new();
    // One byte now and then never counts as progress.
    while response.is_empty() && began.elapsed() < TEST_TIMEOUT {
        let _ = caller.0.write_all(b"x");
        let mut chunk = [0; 1024];
        if let Ok(read) = caller.0.read(&mut chunk) {
            response.extend_from_slice(&chunk[..read]);
        }
    }
    assert!(response.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&response));
    assert!(began.elapsed() >= SHORT);
    eventually("head_timeouts", || server.counters.head_timeouts.get() == 1);
}

#[test]
fn a_connection_without_a_request_is_closed_without_a_word() {
    let server = TestServer::start(ServerLimits { head_timeout: SHORT, ..limits() });
    let mut caller = server.caller();
    assert_eq!(caller.rest(), "");
    eventually("head_timeouts", || server.counters.head_timeouts.get() == 1);
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let server = TestServer::start(ServerLimits { keep_alive_timeout: SHORT, ..limits() });
    let mut caller = server.caller();
    caller.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    caller.response();
    let began = Instant::now();
    assert_eq!(caller.rest(), "");
    assert!(began.elapsed() >= SHORT / 2, "closed after {:?}", began.elapsed());
    eventually("keep_alive_timeouts", || server.counters.keep_alive_timeouts.get() == 1);
}

#[test]
fn a_body_that_stops_is_responded_408_and_its_request_cancelled() {
    let server = TestServer::start(ServerLimits { body_idle_timeout: SHORT, ..limits() });
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let response = server.ask(&format!("POST /b HTTP/1.1\r\nHost: a\r\n{framing}"));
        assert!(response.starts_with("HTTP/1.1 408 "), "{response:?}");
    }
    eventually("body_timeouts", || server.counters.body_timeouts.get() == 2);
    assert_eq!(server.script.cancelled.load(Ordering::SeqCst), 2);
}

#[test]
fn a_slow_platform_is_no_fault_of_the_caller() {
    let short =
        ServerLimits { head_timeout: SHORT, body_idle_timeout: SHORT, keep_alive_timeout: SHORT, ..limits() };
    let server = TestServer::start(short);
    let mut waiting = server.caller();
    waiting.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    // Another connection outlives every deadline meanwhile.
    let mut other = server.caller();
    assert_eq!(other.rest(), "");
    let mut other = server.caller();
    assert_eq!(other.rest(), "");
    server.script.permits.add_permits(1);
    assert_eq!(waiting.response().1, "waited");
}

#[test]
fn an_unread_response_is_cut() {
    let server = TestServer::start(ServerLimits { body_idle_timeout: SHORT, ..limits() });
    let mut caller = server.caller();
    caller.send("GET /big HTTP/1.0\r\n\r\n");
    eventually("the answer is given up", || server.counters.write_timeouts.get() == 1);
    let (response, failure) = caller.rest_and_failure();
    assert!(response.len() < BIG);
    assert_eq!(failure, Some(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn beyond_the_cap_idle_connections_make_room_and_busy_ones_do_not() {
    let server = TestServer::start(ServerLimits { max_connections: 2, ..limits() });
    let mut busy = server.caller();
    busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("one is busy", || server.requests() == 1);
    let mut idle = server.caller();
    idle.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    idle.response();

    let mut newcomer = server.caller();
    newcomer.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(idle.rest(), "", "the idle one goes");
    eventually("the newcomer is heard", || server.requests() == 3);
    eventually("evicted", || server.counters.evicted.get() == 1);
    eventually("the idle one is gone", || server.counters.open.get() == 2);

    let response = server.ask("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 503 "), "{response:?}");
    eventually("connection_limit", || server.counters.connection_limit.get() == 1);

    server.script.permits.add_permits(2);
    assert_eq!(busy.response().1, "waited");
    assert_eq!(newcomer.response().1, "waited");
}
