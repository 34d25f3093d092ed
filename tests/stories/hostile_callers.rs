//! Callers that mean harm, over raw sockets: one request accepted is one request sent, and nobody gets where
//! they may not.

use std::time::Duration;

use genapi_gateway::sandbox::Endpoint;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, TestBed, TestBedBuilder};

/// The key of `sneak`, whose SHA-256 stands in `WITH_SNEAK`.
const SNEAK_KEY: &str = "foo";
const WITH_SNEAK: &str = "\n[[callers]]\nname = \"sneak\"\naccounts = [\"acct-1001\"]\n\
     key_sha256 = \"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"\n";

/// Sends bytes and returns everything that comes until the other side closes, which it has to.
pub async fn raw(origin: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(origin.strip_prefix("http://").unwrap()).await.unwrap();
    // A refusal may close while the rest is still on its way.
    let _ = stream.write_all(bytes).await;
    let mut response = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut response)).await;
    assert!(read.is_ok(), "the connection stays open behind {:?}", String::from_utf8_lossy(&response));
    String::from_utf8_lossy(&response).into_owned()
}

/// Statuses of all responses in a text.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").filter_map(|(at, _)| text.get(at + 9..at + 12)).collect()
}

fn search(bed: &TestBed, fields: &str, body: &str) -> String {
    format!(
        "POST /accounts/{CLINIC_NAME}/patient/search HTTP/1.1\r\nHost: gateway\r\nX-Gateway-Key: {}\r\n{fields}\r\n{body}",
        bed.key
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_framing_trick_smuggles_a_second_request_to_the_platform() {
    let bed = TestBed::new().await;
    let smuggled = format!(
        "GET /accounts/{LAB_NAME}/orders/lab?smuggled HTTP/1.1\r\nHost: gateway\r\nX-Gateway-Key: {}\r\n\r\n",
        bed.key
    );
    const TE: &str = "Transfer-Encoding: chunked\r\n";
    let long_extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(200_000));
    let refused = [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        ("Content-Length: 2\r\nContent-Length: 40\r\n", "{}"),
        ("Content-Length: +2\r\n", "{}"),
        ("Content-Length: 2, 2\r\n", "{}"),
        ("Content-Length: 18446744073709551618\r\n", "{}"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("X: a\0b\r\n", ""),
        (TE, "2\n{}\r\n0\r\n\r\n"),
        (TE, "2\r\n{}\n0\r\n\r\n"),
        (TE, "0x2\r\n{}\r\n0\r\n\r\n"),
        (TE, "-2\r\n{}\r\n0\r\n\r\n"),
        (TE, "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        (TE, "2\r\n{}{}\r\n0\r\n\r\n"),
        (TE, &long_extension),
    ];
    for (fields, body) in refused {
        let response = raw(&bed.gateway, (search(&bed, fields, body) + &smuggled).as_bytes()).await;
        assert_eq!(statuses(&response), ["400"], "{fields:?} {:.20?}", body);
    }
    assert!(bed.sandbox.calls().is_empty(), "{}", bed.sandbox.calls().len());
    let trailers = "2;a=b\r\n{}\r\n0\r\nX-Gateway-Account: acct-1002\r\nContent-Length: 3\r\n\r\n";
    let response = raw(&bed.gateway, (search(&bed, TE, trailers) + &smuggled).as_bytes()).await;
    assert_eq!(statuses(&response), ["200"], "a chunked request is the last of its connection");
    let calls = bed.sandbox.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].account, &calls[0].body[..]), (Some(CLINIC), &b"{}"[..]));
    assert!(!calls[0].headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"content-length")));
    assert!(bed.sandbox.refused().is_empty(), "{:?}", bed.sandbox.refused());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_http_request_is_refused_and_closed() {
    let bed = TestBed::new().await;
    let (key, path) = (&bed.key, format!("/accounts/{CLINIC_NAME}/orders/practice"));
    let many: String = (0..10_000).map(|number| format!("X{number}: y\r\n")).collect();
    let large = format!("X: {}\r\n", "a".repeat(256 * 1024));
    let long = format!("GET {path}?{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100_000));
    let get = |fields: &str| format!("GET {path} HTTP/1.1\r\nX-Gateway-Key: {key}\r\n{fields}\r\n");
    let table = [
        (format!("GET {path}\r\n\r\n"), "400"),
        (get(""), "400"),
        (get("Host: a\r\nHost: b\r\n"), "400"),
        (get("Host: a@b\r\n"), "400"),
        (get("Host: a b\r\n"), "400"),
        (get(&format!("Host: a\r\n{many}")), "431"),
        (get(&format!("Host: a\r\n{large}")), "431"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400"),
        (format!("CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\nX-Gateway-Key: {key}\r\n\r\n"), "405"),
        (format!("TRACE {path} HTTP/1.1\r\nHost: a\r\nX-Gateway-Key: {key}\r\n\r\n"), "405"),
        (format!("track {path} HTTP/1.1\r\nHost: a\r\nX-Gateway-Key: {key}\r\n\r\n"), "405"),
        (format!("GET /..{path} HTTP/1.1\r\nHost: a\r\nX-Gateway-Key: {key}\r\n\r\n"), "400"),
        (
            format!("POST {path} HTTP/1.0\r\nX-Gateway-Key: {key}\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "400",
        ),
    ];
    for (request, status) in table {
        let response = raw(&bed.gateway, (request.clone() + &get("Host: a\r\n")).as_bytes()).await;
        assert_eq!(statuses(&response), [status], "{request:.80?}");
    }
    assert_eq!(statuses(&raw(&bed.gateway, long.as_bytes()).await), ["414"]);
    assert!(bed.sandbox.calls().is_empty());
    let bearer = format!("Host: a\r\nConnection: close\r\nAuthorization: Bearer {}\r\n", "a".repeat(8192));
    assert_eq!(statuses(&raw(&bed.gateway, get(&bearer).as_bytes()).await), ["200"], "8 K pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_chunk_that_stalls_is_given_up_on_every_listener() {
    let bed =
        TestBedBuilder::new().config("[gateway]", "[gateway]\nbody_idle_timeout = \"1s\"").start().await;
    let stalled = |target: &str, fields: String| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"
        )
    };
    let search = format!("/accounts/{CLINIC_NAME}/patient/search");
    let key = format!("X-Gateway-Key: {}\r\n", bed.key);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n".to_owned();
    let token = format!("Authorization: Bearer {}\r\n", bed.admin_token);
    for (origin, request) in [
        (&bed.gateway, stalled(&search, key)),
        (&bed.admin, stalled("/connect/choose", form)),
        (&bed.admin, stalled("/api/import", token)),
    ] {
        assert_eq!(statuses(&raw(origin, request.as_bytes()).await), ["408"], "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_or_header_leads_a_caller_to_another_account_or_host() {
    let bed = TestBedBuilder::new().append(WITH_SNEAK).start().await;
    let elsewhere = [
        format!("/accounts/{LAB_NAME}/orders/lab"),
        format!("/accounts/{LAB}/orders/lab"),
        format!("/accounts/global:{LAB}/orders/lab"),
        format!("/accounts//{LAB_NAME}/orders/lab"),
        "/accounts/acct%2d1002/orders/lab".to_owned(),
        format!("/accounts/{CLINIC_NAME}%2f..%2f{LAB_NAME}/orders/lab"),
        format!("/accounts/{CLINIC_NAME}/%c0%ae%c0%ae/{LAB_NAME}/orders/lab"),
        format!("/accounts/{CLINIC_NAME}/@evil.test/x"),
        format!("/accounts/{CLINIC_NAME}/@169.254.169.254/x"),
        format!("/accounts/{CLINIC_NAME}/@127.0.0.1:1/x"),
    ];
    for path in elsewhere {
        let response = bed.send(bed.bare(Method::GET, &path).header("X-Gateway-Key", SNEAK_KEY)).await;
        assert!(matches!(response.status, 400 | 403), "{path}: {}", response.text());
    }
    for (name, value) in [("X-Gateway-Account", LAB_NAME), ("Connection", "x-gateway-account")] {
        let request = bed.bare(Method::GET, "/orders/lab").header("X-Gateway-Key", SNEAK_KEY);
        let request = request.header(name, value).header("X-Gateway-Account", LAB_NAME);
        assert!(matches!(bed.send(request).await.status, 400 | 403), "{name}");
    }
    assert!(bed.sandbox.calls().is_empty());
    let request = bed.bare(Method::GET, "/practice-configuration").header("X-Gateway-Key", SNEAK_KEY);
    let request = request
        .header("Host", "acct-1002")
        .header("X-Forwarded-Host", "evil.test")
        .header("X_Gateway_Account", LAB_NAME)
        .header("Forwarded", "host=evil.test")
        .header("Connection", "authorization, host, content-length")
        .header("Authorization", "Bearer old")
        .header("Proxy-Authorization", "Basic x");
    assert_eq!(bed.send(request).await.status, 200);
    let [call] = &bed.sandbox.calls()[..] else { panic!("one call") };
    assert_eq!(call.account, Some(CLINIC));
    let named = |wanted: &str| {
        call.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).count()
    };
    for (name, times) in [
        ("authorization", 1),
        ("host", 1),
        ("proxy-authorization", 0),
        ("x-forwarded-host", 0),
        ("forwarded", 0),
        ("x_gateway_account", 0),
        ("x-gateway-key", 0),
        ("connection", 0),
    ] {
        assert_eq!(named(name), times, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unpairing_is_refused_in_every_spelling_and_by_every_way() {
    let bed = TestBed::new().await;
    let region = bed.sandbox.region_url(genapi_gateway::sandbox::Region::NorthAmerica);
    let authority = region.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let spellings = [
        "unpair-account",
        "Unpair-Account/",
        "/unpair-account",
        "unpair-account;x=y",
        "unpair-account%20",
        "unpair-account%3f",
        "unpair-account%23",
        "unpair-account%c2%a0",
        "unpair-account/1001",
        "%75npair-account",
        "%2575npair-account",
        "unpair%u002daccount",
        "unpair%c0%adaccount",
        "%2funpair-account",
        "x/..%2funpair-account",
        "lab-sw/v1/unpair-account",
        "itero-gen-api/v2/api/third-party/v2/unpair-account",
        "oauth2/revoke",
        "pair-account%3f",
        &format!("@{authority}/itero-gen-api/v2/unpair-account"),
        &format!("@{authority}//itero-gen-api//v2//unpair-account"),
    ]
    .map(str::to_owned);
    for spelling in spellings {
        for method in [Method::DELETE, Method::POST, Method::GET, Method::PUT] {
            let body = format!("{{\"AccountId\":{CLINIC}}}");
            let response = bed.call(method.clone(), CLINIC_NAME, &format!("/{spelling}"), body).await;
            assert!(matches!(response.status, 400 | 403), "{method} {spelling}: {}", response.status);
        }
    }
    assert!(bed.sandbox.calls_to(Endpoint::Unpair).is_empty());
    assert!(bed.sandbox.calls().is_empty(), "nothing of it reached the platform");
    assert!(bed.sandbox.is_paired(CLINIC));
}
