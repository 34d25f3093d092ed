//! What the gateway answers by itself: status line, every header and the whole body, as an application and
//! its log see them.

use std::time::Duration;

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule};
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, TestBed, TestBedBuilder};
use crate::wire::{Line, Raw};

/// `expected`: the body's fields beside `type`, `status`, `code` and `instance`, which follow from the rest.
fn check(response: &Raw, status: u16, code: &str, error: &str, further_head: &[&str], expected: Value) {
    assert_eq!(response.status_line, format!("HTTP/1.1 {status} {code}"), "{}", response.text());
    let id = response.header("x-request-id").expect("an id");
    let mut head = vec![
        "cache-control: no-store".to_owned(),
        format!("content-length: {}", response.body.len()),
        "content-type: application/problem+json".to_owned(),
        format!("proxy-status: genapi-gateway; error={error}"),
        format!("x-request-id: {id}"),
    ];
    head.extend(further_head.iter().map(|line| (*line).to_owned()));
    head.sort();
    assert_eq!(response.head_without(&[]), head, "{code}");
    let mut body = json!({
        "type": "about:blank", "status": status, "code": code, "instance": format!("urn:request:{id}"),
    });
    body.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
    assert_eq!(serde_json::from_slice::<Value>(&response.body).unwrap(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_understood() {
    let bed = TestBed::new().await;
    bed.sandbox.clear_calls();
    for (target, detail) in [
        ("/accounts/acct-1001/orders/../practice", "the path holds dot segments"),
        ("/accounts/acct-1001/orders/%2e%2E/practice", "the path holds dot segments"),
        ("/accounts/acct-1001/orders\\practice", "the path holds a backslash"),
        ("/accounts/acct-1001/orders%0d%0aX:%20y", "the path holds control characters"),
        ("//evil.test/accounts/acct-1001/orders", "the path begins with //"),
        ("/accounts/acct-1001/@evil.test/orders", "the link's host is not one of this account's"),
    ] {
        let response = bed.raw(&format!("GET {target}\nX-Request-Id: r-1"), "").await;
        let expected = json!({
            "title": "The request cannot be understood.",
            "hint": "See detail; nothing was sent to the platform.",
            "detail": detail,
        });
        check(&response, 400, "bad_request", "http_request_error", &["connection: close"], expected);
        assert_eq!(response.header("x-request-id"), Some("r-1"));
    }
    assert!(bed.sandbox.calls().is_empty(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_account_or_a_caller() {
    let bed = TestBed::new().await;
    let response = bed.raw("GET /itero-gen-api/v2/orders/practice", "").await;
    let expected = json!({
        "title": "The request does not say for which account it is.",
        "hint": "Use the base URL {gateway}/accounts/{name}, or send X-Gateway-Account; choices lists the names.",
        "choices": [CLINIC_NAME, LAB_NAME],
    });
    check(&response, 400, "account_not_chosen", "http_request_error", &[], expected);

    let nobody = "GET /accounts/acct-1001/orders/practice HTTP/1.1\r\nHost: x\r\n\r\n";
    let response = crate::wire::exchange(&bed.gateway, nobody).await;
    let expected = json!({
        "title": "The gateway does not know who is calling.",
        "hint": "Send the caller's key as X-Gateway-Key, Bearer or Basic password, or call from a configured network.",
        "detail": "no key, certificate or network of a configured caller",
    });
    let asks = "www-authenticate: Basic realm=\"genapi-gateway\", charset=\"UTF-8\"";
    check(&response, 401, "caller_unknown", "http_request_denied", &[asks], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_and_a_paused_account() {
    let bed = TestBed::new().await;
    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    let since = bed.now();
    for _ in 0..2 {
        let response = bed.raw("GET /accounts/acct-1001/orders/practice", "").await;
        let expected = json!({
            "title": "The platform no longer takes this account's grant; someone has to log in once.",
            "hint": "Somebody with a MyiTero login has to log in once: `genapi-gateway accounts pair --realm global --name acct-1001`, \
                     or `genapi-gateway accounts invite acct-1001` for a link to mail.",
            "detail": format!("account acct-1001, since {since}"),
            "fix": "genapi-gateway accounts pair --realm global --name acct-1001",
        });
        check(&response, 401, "account_needs_login", "http_request_denied", &[], expected);
    }
    bed.operate("/pause?pattern=acct-1002", json!(null)).await;
    let response = bed.raw("GET /accounts/acct-1002/orders/lab", "").await;
    let expected = json!({
        "title": "An operator has paused this account here.",
        "hint": "genapi-gateway accounts resume starts it again.",
        "detail": "account acct-1002",
    });
    check(&response, 503, "account_paused", "destination_unavailable", &[], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_may_not_do() {
    let caller = format!(
        "\n[[callers]]\nname = \"single\"\naccounts = [\"acct-1*\"]\n{}",
        crate::path::key_line("key-of-single")
    );
    let bed = TestBedBuilder::new().append(&caller).start().await;
    bed.sandbox.clear_calls();
    for (head, group) in [
        ("DELETE /accounts/acct-1001/itero-gen-api/v2/unpair-account\nContent-Length: 0", "group unpair"),
        ("DELETE /accounts/acct-1001/api/third-party/v2/unpair-account/\nContent-Length: 0", "group unpair"),
        ("PUT /accounts/acct-1001/pair-account\nContent-Length: 0", "group pair"),
        ("POST /accounts/acct-1001/oauth2/revoke\nContent-Length: 0", "group revoke"),
    ] {
        let expected = json!({
            "title": "This caller may not make this call.",
            "hint": "An operator adds the group named in detail to the caller's allow list in config.toml.",
            "detail": group,
        });
        check(&bed.raw(head, "").await, 403, "call_not_allowed", "http_request_denied", &[], expected);
    }
    for origin in ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site"] {
        let response = bed.raw(&format!("GET /accounts/acct-1001/orders/practice\n{origin}"), "").await;
        let expected = json!({
            "title": "Requests that a web page makes in a browser are refused.",
            "hint": "Call from a program; it must not send an Origin header.",
        });
        check(&response, 403, "origin_refused", "http_request_denied", &[], expected);
    }
    let response = bed.raw("GET /accounts/no-such-one/orders/practice", "").await;
    let expected = json!({
        "title": "There is no such account in this gateway.",
        "hint": "Check the name; an operator pairs or imports accounts with genapi-gateway accounts.",
    });
    check(&response, 404, "account_unknown", "http_request_error", &[], expected);
    let single =
        "GET /accounts/other/orders/practice HTTP/1.1\r\nHost: x\r\nX-Gateway-Key: key-of-single\r\n\r\n";
    let response = crate::wire::exchange(&bed.gateway, single).await;
    let expected = json!({
        "title": "This caller may not use this account.",
        "hint": "An operator adds the account to the caller's accounts in config.toml.",
    });
    check(&response, 403, "account_not_allowed", "http_request_denied", &[], expected);
    assert!(bed.sandbox.calls().is_empty(), "nothing of all this reached the platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_loops() {
    let bed = TestBed::new().await;
    for head in ["TRACE /accounts/acct-1001/orders/practice", "CONNECT evil.test:443"] {
        let expected = json!({
            "title": "CONNECT and TRACE are never forwarded.",
            "hint": "Use the method that the API documents.",
        });
        let response = bed.raw(head, "").await;
        check(&response, 405, "method_not_allowed", "http_request_denied", &["connection: close"], expected);
    }
    bed.get(CLINIC_NAME, "/orders/practice").await;
    let via = bed.sandbox.calls().pop().unwrap().header("via").unwrap().to_owned();
    let response =
        bed.raw(&format!("GET /accounts/acct-1001/orders/practice\nVia: 1.0 old-proxy, {via}"), "").await;
    let expected = json!({
        "title": "The request has already passed through this gateway.",
        "hint": "A route or proxy setting leads the gateway to itself.",
    });
    check(&response, 508, "loop", "proxy_loop_detected", &[], expected);
    let another =
        bed.raw("GET /accounts/acct-1001/orders/practice\nVia: 1.1 genapi-gateway-00000000", "").await;
    assert_eq!(another.status(), 200, "another gateway may stand before this one");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_or_too_slow() {
    let bed = TestBedBuilder::new()
        .config("[gateway]\n", "[gateway]\nbody_idle_timeout = \"1s\"\nmax_head = \"256KiB\"\n")
        .start()
        .await;
    let closes = &["connection: close"];
    let slow = "POST /accounts/acct-1001/patient/search\nContent-Length: 100";
    let expected = json!({
        "title": "The request did not arrive in time.",
        "hint": "Send the head and the body without long pauses.",
    });
    check(&bed.raw(slow, "{").await, 408, "request_timeout", "http_request_error", closes, expected);

    let form = "x".repeat(20_000);
    let head = "POST /oauth2/token\nContent-Type: application/x-www-form-urlencoded\nContent-Length: 20000";
    let response = bed.raw(head, form).await;
    assert_eq!(response.status_line, "HTTP/1.1 413 content_too_large");
    assert_eq!(response.header("proxy-status"), Some("genapi-gateway; error=http_request_error"));
    assert_eq!(response.header("connection"), Some("close"));
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["error"], "invalid_request", "token clients read OAuth's shape");

    let long = format!("GET /accounts/acct-1001/orders/practice?x={}", "x".repeat(70_000));
    let expected = json!({
        "title": "The request's target is longer than the gateway takes.",
        "hint": "Shorten the path or the query.",
    });
    check(&bed.raw(&long, "").await, 414, "uri_too_long", "http_request_error", closes, expected);

    let large = format!("GET /accounts/acct-1001/orders/practice\nX-Large: {}", "x".repeat(300_000));
    let many: String = (0..200).map(|number| format!("\nX-{number}: 1")).collect();
    for head in [large, format!("GET /accounts/acct-1001/orders/practice{many}")] {
        let expected = json!({
            "title": "The request's head is larger than the gateway takes.",
            "hint": "Send fewer or shorter headers; an operator may raise gateway.max_head.",
        });
        check(&bed.raw(&head, "").await, 431, "head_too_large", "http_request_error", closes, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_scan_request_is_refused_since_its_body_differs_and_a_v2_one_passes() {
    let bed = TestBed::new().await;
    let body = r#"{"Procedure":"Crown"}"#;
    for path in ["/lab-sw/v1/scan-request", "/itero-gen-api/v2/lab-sw/v1/scan-request"] {
        let head = format!("POST /accounts/acct-1001{path}\nContent-Length: {}", body.len());
        let expected = json!({
            "title": "A V1 scan-request cannot be translated to V2, whose body names the procedure differently.",
            "hint": "Send the V2 body to /scan-request without the V1 prefix; an operator lists V1 procedures with their MapID codes in [v1] procedures.",
            "detail": "no list of V1 procedures is configured",
        });
        check(&bed.raw(&head, body).await, 422, "procedure_unknown", "http_request_denied", &[], expected);
    }
    assert_eq!(bed.sandbox.creations(CLINIC), 0);
    let head =
        format!("POST /accounts/acct-1001/itero-gen-api/v2/scan-request\nContent-Length: {}", body.len());
    assert_eq!(bed.raw(&head, body).await.status(), 200);
    assert_eq!(bed.sandbox.creations(CLINIC), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_does_not_respond_as_it_should() {
    let bed = TestBedBuilder::new()
        .config("[[callers]]", "[upstream]\nresponse_timeout = \"1s\"\nconnect_timeout = \"1s\"\n[[callers]]")
        .start()
        .await;
    let ask = "GET /accounts/acct-1001/orders/practice";
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Garbage).once());
    let expected = json!({
        "title": "The platform's answer is not a valid one; the platform may have acted on the request.",
        "hint": "Check whether the call took effect before it is repeated.",
        "detail": "its answer is not HTTP, or its head is too large",
    });
    check(&bed.raw(ask, "").await, 502, "platform_misbehaved", "http_protocol_error", &[], expected);

    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::StallsForever).once());
    let expected = json!({
        "title": "The platform did not answer in time; it may have acted on the request.",
        "hint": "Check whether the call took effect before it is repeated.",
    });
    check(&bed.raw(ask, "").await, 504, "platform_timeout", "http_response_timeout", &[], expected);
    assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersPractice).len(), 2, "neither was repeated");

    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pinned = format!("route = {{ domain = \"http://{nowhere}\", path = \"/itero-gen-api/v2\" }}\n");
    bed.reconfigure("allow_insecure = true", &format!("allow_insecure = true\n{pinned}")).await;
    let response = bed.while_time_flies(Duration::from_millis(250), bed.raw(ask, "")).await;
    let detail = serde_json::from_slice::<Value>(&response.body).unwrap()["detail"].clone();
    assert!(detail.as_str().unwrap().contains("refused"), "{detail}");
    let expected = json!({
        "title": "The platform could not be reached.",
        "hint": "Try again; if it lasts, an operator runs genapi-gateway check --connect.",
        "detail": detail,
    });
    check(&response, 502, "platform_unreachable", "destination_unavailable", &[], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_at_the_moment_says_when_to_come_back() {
    let bed = TestBed::new().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Status(500)));
    bed.clock.advance(Duration::from_secs(7200));
    let ask = "GET /accounts/acct-1001/orders/practice";
    let first = bed.while_time_flies(Duration::from_millis(250), bed.raw(ask, "")).await;
    let asked = bed.sandbox.refreshes(CLINIC).len();
    let second = bed.raw(ask, "").await;
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), asked, "it is told without asking again");
    for response in [first, second] {
        let wait: u64 = response.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=300).contains(&wait), "{wait}");
        let expected = json!({
            "title": "There is no valid token for this account at the moment.",
            "hint": "Wait as Retry-After says; genapi-gateway explain ACCOUNT tells why.",
        });
        let retry_after = format!("retry-after: {wait}");
        check(&response, 503, "token_unavailable", "destination_unavailable", &[&retry_after], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_fit_for_the_next_call() {
    let bed = TestBed::new().await;
    let mut line = Line::to(&bed.gateway).await;
    let body = "y".repeat(3000);
    let refused = format!("PUT /accounts/acct-1001/pair-account\nContent-Length: {}", body.len());
    for _ in 0..3 {
        line.send(bed.request(&refused, &body)).await;
        assert_eq!(line.response(false).await.unwrap().status(), 403);
        line.send(bed.request("GET /accounts/acct-1001/orders/practice", "")).await;
        assert_eq!(line.response(false).await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_by_head_and_by_http_1_0_are_responded_and_let_go() {
    let bed = TestBed::new().await;
    for (probe, version) in [
        ("HEAD / HTTP/1.0\r\n\r\n", "HTTP/1.0"),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0"),
        ("OPTIONS * HTTP/1.0\r\n\r\n", "HTTP/1.0"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1"),
    ] {
        let mut line = Line::to(&bed.gateway).await;
        line.send(probe).await;
        let response = line.response(probe.starts_with("HEAD")).await.unwrap();
        assert_eq!(response.status_line, format!("{version} 401 caller_unknown"), "{probe:?}");
        assert_eq!(response.header("connection"), Some("close"), "{probe:?}");
        assert!(line.is_closed().await, "{probe:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_byte_that_is_refused_is_named_and_latin_1_is_not_refused() {
    let bed = TestBed::new().await;
    let path = "/accounts/acct-1001/itero-gen-api/v2/patients/M";
    let ask = async |target: &[u8]| {
        let head = format!(" HTTP/1.1\r\nHost: a\r\nX-Gateway-Key: {}\r\n\r\n", bed.key);
        crate::wire::exchange(&bed.gateway, [b"GET ", target, head.as_bytes()].concat()).await
    };
    for raw in [b"\xfcller?n=\xdf".as_slice(), "üller?n=ß".as_bytes()] {
        bed.sandbox.clear_calls();
        let response = ask(&[path.as_bytes(), raw].concat()).await;
        assert!(response.header("proxy-status").is_none(), "the platform's own answer: {}", response.text());
        if let Some(call) = bed.sandbox.calls().pop() {
            let decoded = percent_encoding::percent_decode_str(call.target()).collect::<Vec<_>>();
            assert!(decoded.ends_with(raw), "{}", call.target());
        }
    }
    bed.sandbox.clear_calls();
    let response = ask(format!("{path}<x").as_bytes()).await;
    assert_eq!(response.status_line, "HTTP/1.1 400 bad_request");
    let place = path.len() + 1;
    assert!(
        response.text().contains(&format!("byte 0x3c at position {place} of the request target")),
        "{}",
        response.text()
    );
    assert!(bed.sandbox.calls().is_empty());
}
