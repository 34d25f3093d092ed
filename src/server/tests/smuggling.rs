//! What has two meanings is refused, the connection closes behind it, and nothing of it becomes a request.

use super::*;

/// Sends `head` with a second request right behind it and returns everything that came back.
fn refused(server: &TestServer, first: &str) -> String {
    let before = server.requests();
    let response = server.ask(&format!("{first}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(server.requests(), before, "{first:?} was heard");
    response
}

#[test]
fn ambiguous_requests_are_refused_and_nothing_behind_them_is_heard() {
    let server = TestServer::start(limits());
    let table = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\n Content-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\nHost: a\n\n",
        "\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    ];
    for request in table {
        let response = refused(&server, request);
        assert!(response.starts_with("HTTP/1.1 400 "), "{request:?}: {response:?}");
        assert_eq!(response.matches("HTTP/1.").count(), 1, "{request:?}: {response:?}");
        assert!(response.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{response:?}");
        assert!(response.contains("content-type: text/plain"), "not in the handler's words: {response:?}");
    }
    eventually("all are counted", || server.counters.refused_requests.get() == table.len() as u64);
}

#[test]
fn no_way_leads_out_of_http_1() {
    let server = TestServer::start(limits());
    for request in ["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let response = refused(&server, request);
        assert!(response.starts_with("HTTP/1.1 405 "), "{request:?}: {response:?}");
    }
    let preface = refused(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(preface.starts_with("HTTP/1.1 400 "), "{preface:?}");

    let upgrade = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let mut caller = server.caller();
    for _ in 0..2 {
        caller.send(upgrade);
        assert!(caller.response().0.starts_with("HTTP/1.1 200 "));
    }

    let mut caller = server.caller();
    caller.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let (response, _) = caller.rest_and_failure();
    assert_eq!(String::from_utf8_lossy(&response), "", "101 never leaves");
}

#[test]
fn a_chunked_request_is_heard_and_the_connection_closes_behind_it() {
    let server = TestServer::start(limits());
    let response = server.ask(
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n1;ext=\"1\"\r\nd\r\n0\r\nX-Trailer: t\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(response.starts_with("HTTP/1.1 200 "), "{response:?}");
    assert!(response.contains("connection: close"), "{response:?}");
    assert!(response.ends_with("/c abcd"), "{response:?}");
    assert_eq!(server.requests(), 1);
}

#[test]
fn chunk_tricks_fail_the_body_and_close() {
    let server = TestServer::start(limits());
    for chunks in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
    ] {
        let head = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let response = server.ask(&format!("{head}{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(response.starts_with("HTTP/1.1 400 "), "{chunks:?}: {response:?}");
        assert!(response.ends_with("bad body"), "{chunks:?}: {response:?}");
    }
}

#[test]
fn requests_in_a_row_are_responded_in_order_up_to_the_first_bad_one() {
    let server = TestServer::start(limits());
    let response = server.ask(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab\
         GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nc\
         GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let one = response.find("/1 ab").unwrap();
    let two = response.find("/2 ").unwrap();
    let refused = response.find("HTTP/1.1 400 ").unwrap();
    assert!(one < two && two < refused, "{response:?}");
    assert_eq!(response.matches("HTTP/1.1 ").count(), 3, "{response:?}");
    assert_eq!(server.requests(), 2);
}
