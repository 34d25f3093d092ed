//! The request path: what a legacy application sends arrives byte for byte, and what the platform responds
//! comes back the same.

use std::fmt::Write;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, LinkForm, RecordedCall, Region};
use http::Method;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, TestBed, TestBedBuilder};
use crate::wire::{Line, Raw, exchange};

/// Odd on purpose: whoever parses and prints it again changes it.
const ODD_JSON: &str = "{ \"b\":1.50,\t\"a\" : [1E2,-0 , 1e400],\n\"dup\":1,\"dup\":2, \"n\":\"Bj\\u00f6rn \\/ O'Neill\", \"Ñ\": null }\r\n";

/// The last call that the sandbox got.
fn last_call(bed: &TestBed) -> RecordedCall {
    bed.sandbox.calls().pop().expect("a call at the platform")
}

fn head_of(call: &RecordedCall) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    call.headers.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
}

fn region(bed: &TestBed) -> String {
    bed.sandbox.region_url(Region::NorthAmerica)
}

fn domain(bed: &TestBed) -> String {
    region(bed).trim_end_matches("/itero-gen-api/v2").to_owned()
}

/// The same call without the gateway, as the vendor would answer it.
async fn direct(bed: &TestBed, account: u64, head: &str, body: &str) -> Raw {
    let (request_line, fields) = head.split_once('\n').unwrap_or((head, ""));
    let bearer = bed.sandbox.bearer(account).unwrap();
    let host = domain(bed).trim_start_matches("http://").to_owned();
    let mut request =
        format!("{request_line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {bearer}\r\n");
    for line in fields.lines() {
        let _ = write!(request, "{}\r\n", line.trim_start());
    }
    exchange(&domain(bed), format!("{request}\r\n{body}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_gets_the_callers_bytes_and_exactly_this_head() {
    let bed = TestBed::new().await;
    let head = format!(
        "POST /accounts/{CLINIC_NAME}/itero-gen-api/v2/patient/search?q=%41%2fb&&x=+;y=%C3%B6&q=2
         User-Agent: Old/1.0 (Windows NT 5.1)
         X-ODD-Case: one
         x-odd-case: two
         COOKIE: a=b; c=d
         content-TYPE: application/json;charset=UTF-8
         Accept-Encoding: gzip;q=0.3, deflate
         Authorization: Bearer old-align-token
         X-Forwarded-For: 10.0.0.1
         X-Request-Id: app-4711
         Connection: keep-alive, X-Hop
         X-Hop: 1
         Content-Length: {}",
        ODD_JSON.len()
    );
    let response = bed.raw(&head, ODD_JSON).await;
    assert_eq!(response.header("x-request-id"), Some("app-4711"));
    let call = last_call(&bed);
    assert_eq!(call.target(), "/itero-gen-api/v2/patient/search?q=%41%2fb&&x=+;y=%C3%B6&q=2");
    assert_eq!(call.body, ODD_JSON);
    let (mut lines, bearer): (Vec<_>, Vec<_>) =
        head_of(&call).into_iter().partition(|line| !line.to_lowercase().starts_with("authorization:"));
    assert_eq!(bearer.len(), 1, "exactly one Authorization");
    assert!(!bearer[0].contains("old-align-token"));
    let via = lines.iter().position(|line| line.to_lowercase().starts_with("via: 1.1 genapi-gateway-"));
    lines.remove(via.expect("a Via of ours"));
    lines.sort_by_key(|line| line.to_lowercase());
    let mut expected = vec![
        format!("Host: {}", domain(&bed).trim_start_matches("http://")),
        "User-Agent: Old/1.0 (Windows NT 5.1)".to_owned(),
        "X-ODD-Case: one".to_owned(),
        "x-odd-case: two".to_owned(),
        "COOKIE: a=b; c=d".to_owned(),
        "content-TYPE: application/json;charset=UTF-8".to_owned(),
        "Accept-Encoding: gzip;q=0.3, deflate".to_owned(),
        "X-Request-Id: app-4711".to_owned(),
        format!("Content-Length: {}", ODD_JSON.len()),
    ];
    expected.sort_by_key(|line| line.to_lowercase());
    assert_eq!(lines, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_gets_the_response_that_it_gets_without_the_gateway() {
    let bed =
        TestBedBuilder::new().behavior(|behavior| behavior.link_form = LinkForm::ForeignHost).start().await;
    let json = "\nContent-Type: application/json\nContent-Length: ";
    let update = r#"{"PatientGuid":"000003e9-5a4d-4000-8000-000000000001","LastName":"Müller-Lüdenscheidt"}"#;
    let search = r#"{"Name":"a"}"#;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    let rx = bed.sandbox.rx_ids(CLINIC)[0];
    let table = [
        ("GET /practice-configuration".to_owned(), ""),
        ("HEAD /practice-configuration".to_owned(), ""),
        ("GET /practice-configuration\nAccept-Encoding: gzip".to_owned(), ""),
        (format!("POST /patient/search{json}{}", search.len()), search),
        ("GET /patient/search?name=Anna%20S&x=%2f".to_owned(), ""),
        (format!("PUT /patients{json}{}", update.len()), update),
        (format!("PATCH /patients{json}{}", update.len()), update),
        (format!("PUT /patients{json}3"), "odd"),
        ("GET /orders/practice".to_owned(), ""),
        ("GET /orders/lab".to_owned(), ""),
        (format!("GET /orders/{rx}"), ""),
        ("GET /orders/77".to_owned(), ""),
        ("GET /orders/12%2f3".to_owned(), ""),
        (format!("GET /order/{order}/download/IDE"), ""),
        (format!("HEAD /order/{order}/download/IDE"), ""),
        (format!("GET /order/{order}/download/IDE\nRange: bytes=1000-1999"), ""),
        (format!("GET /order/{order}/download/IDE\nRange: bytes=-1"), ""),
        (format!("GET /order/{order}/download/IDE\nRange: bytes=999999999-"), ""),
        (format!("GET /order/{order}/download/NONE"), ""),
        (format!("PUT /order/{order}/return\nContent-Length: 0"), ""),
        ("DELETE /scan-request/1\nContent-Length: 9".to_owned(), "{\"a\": 1 }"),
        ("POST /orders/practice\nContent-Length: 0".to_owned(), ""),
        ("OPTIONS /orders/practice".to_owned(), ""),
        ("GET /no/such/thing?x=1".to_owned(), ""),
        ("BREW /coffee".to_owned(), ""),
    ];
    // Belongs to one exchange, or is ours to add.
    let apart = ["Date", "X-Request-Id", "Connection"];
    for (head, body) in table {
        let (method, rest) = head.split_once(' ').unwrap();
        let through = bed.raw(&format!("{method} /accounts/{CLINIC_NAME}{rest}"), body).await;
        // A lasting 403 may have renewed the token; the direct call uses whatever is good now.
        let alone = direct(&bed, CLINIC, &format!("{method} /itero-gen-api/v2{rest}"), body).await;
        assert_eq!(through.status_line, alone.status_line, "{head}");
        assert_eq!(through.body, alone.body, "{head}");
        assert_eq!(through.head_without(&apart), alone.head_without(&apart), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_and_framing_arrive_complete_and_framed_as_they_came() {
    let bed =
        TestBedBuilder::new().config("[gateway]\n", "[gateway]\nreplay_limit = \"64KiB\"\n").start().await;
    for size in [1, 5000, 64 * 1024, 64 * 1024 + 1, 700_000] {
        let body = format!("{{\"pad\":\"{}\"}}", "x".repeat(size));
        let sha = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes()).as_ref());
        let path = format!("POST /accounts/{CLINIC_NAME}/scan-request");
        let declared = bed.raw(&format!("{path}\nContent-Length: {}", body.len()), &body).await;
        assert_eq!(declared.status(), 200, "{size}: {}", declared.text());
        check_body(&last_call(&bed), &body, &sha);
        assert_eq!(last_call(&bed).header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(last_call(&bed).header("transfer-encoding"), None);

        let mut chunked = String::new();
        for chunk in body.as_bytes().chunks(7001) {
            let _ = write!(chunked, "{:X};ext=1\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap());
        }
        chunked.push_str("0\r\nX-Trailer: gone\r\n\r\n");
        let sent = bed.raw(&format!("{path}\nTransfer-Encoding: chunked"), &chunked).await;
        assert_eq!(sent.status(), 200, "{size}: {}", sent.text());
        check_body(&last_call(&bed), &body, &sha);
        assert_eq!(last_call(&bed).header("transfer-encoding"), Some("chunked"));
        assert_eq!(last_call(&bed).header("content-length"), None);
        assert_eq!(last_call(&bed).header("x-trailer"), None);
    }
    assert_eq!(bed.sandbox.creations(CLINIC), 10, "one platform request for each accepted one");
}

fn check_body(call: &RecordedCall, body: &str, sha: &str) {
    assert_eq!(call.body_length, body.len() as u64);
    match &call.body_sha256 {
        Some(found) => assert_eq!(found, sha),
        None => assert_eq!(call.body, body),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_keeps_its_body() {
    let bed = TestBed::new().await;
    let body = "{\"why\" : \"wrong patient\"}";
    let head = format!(
        "DELETE /accounts/{CLINIC_NAME}/api/third-party/v2/scan-request/7\nContent-Length: {}",
        body.len()
    );
    bed.raw(&head, body).await;
    let call = last_call(&bed);
    assert_eq!((call.method.as_str(), call.target()), ("DELETE", "/itero-gen-api/v2/scan-request/7"));
    assert_eq!(call.body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_expects_100_continue_gets_it_before_its_body() {
    let bed = TestBed::new().await;
    let body = r#"{"Name":"Anna"}"#;
    let head = format!(
        "POST /accounts/{CLINIC_NAME}/patient/search\nExpect: 100-continue\nContent-Length: {}",
        body.len()
    );
    let mut line = Line::to(&bed.gateway).await;
    line.send(bed.request(&head, "")).await;
    assert_eq!(line.response(false).await.unwrap().status_line, "HTTP/1.1 100 Continue");
    line.send(body).await;
    assert_eq!(line.response(false).await.unwrap().status(), 200);
    assert_eq!(last_call(&bed).body, body);
    assert_eq!(last_call(&bed).header("expect"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_calls_and_an_http_1_0_program_is_responded_in_its_way() {
    let bed = TestBed::new().await;
    let mut line = Line::to(&bed.gateway).await;
    for _ in 0..3 {
        line.send(bed.request(&format!("GET /accounts/{CLINIC_NAME}/practice-configuration"), "")).await;
        assert_eq!(line.response(false).await.unwrap().status(), 200);
    }
    let old = format!(
        "GET /accounts/{CLINIC_NAME}/practice-configuration HTTP/1.0\r\nX-Gateway-Key: {}\r\n\r\n",
        bed.key
    );
    let mut line = Line::to(&bed.gateway).await;
    line.send(old).await;
    let response = line.response(false).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.header("transfer-encoding").is_none());
    assert!(line.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_prefixes_come_off_in_every_stack() {
    let bed = TestBed::new().await;
    let prefixes = ["", "/itero-gen-api/v2", "/lab-sw/v1", "/api/third-party/v2"];
    for first in prefixes {
        for second in prefixes {
            for target in [
                format!("/accounts/{CLINIC_NAME}{first}{second}/orders/practice?a=%2f"),
                format!("http://elsewhere.test/accounts/{CLINIC_NAME}{first}{second}/orders/practice?a=%2f"),
                format!("/accounts/{CLINIC}{first}/{second}/orders/practice?a=%2f"),
            ] {
                let response = bed.raw(&format!("GET {target}"), "").await;
                assert_eq!(response.status(), 200, "{target}: {}", response.text());
                assert_eq!(last_call(&bed).target(), "/itero-gen-api/v2/orders/practice?a=%2f", "{target}");
                assert_eq!(last_call(&bed).account, Some(CLINIC));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_named_by_path_header_or_id_and_the_path_wins() {
    let bed = TestBed::new().await;
    let table = [
        (format!("GET /accounts/{CLINIC_NAME}/orders/practice"), Some(CLINIC)),
        (format!("GET /accounts/{CLINIC}/orders/practice"), Some(CLINIC)),
        (format!("GET /accounts/global:{CLINIC}/orders/practice"), Some(CLINIC)),
        (format!("GET /accounts/global%3a{CLINIC}/orders/practice"), Some(CLINIC)),
        (format!("GET /orders/practice\nX-Gateway-Account: {CLINIC_NAME}"), Some(CLINIC)),
        (format!("GET /orders/practice\nX-Gateway-Account: {CLINIC}"), Some(CLINIC)),
        (format!("GET /orders/practice\nX-Gateway-Account: global:{CLINIC}"), Some(CLINIC)),
        (format!("GET /accounts/{CLINIC_NAME}/orders/practice\nX-Gateway-Account: {LAB_NAME}"), Some(CLINIC)),
        (format!("GET /accounts/{CLINIC_NAME}/accounts/{CLINIC_NAME}/orders/practice"), Some(CLINIC)),
        ("GET /orders/practice".to_owned(), None),
    ];
    for (head, account) in table {
        bed.sandbox.clear_calls();
        let response = bed.raw(&head, "").await;
        match account {
            Some(account) => {
                assert_eq!(response.status(), 200, "{head}: {}", response.text());
                assert_eq!(last_call(&bed).account, Some(account), "{head}");
            }
            None => {
                assert_eq!(response.status_line, "HTTP/1.1 400 account_not_chosen", "{head}");
                assert!(bed.sandbox.calls().is_empty());
            }
        }
    }
}

/// A key and its hash, as `callers new-key` would make them.
pub fn key_line(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    format!("key_sha256 = \"{}\"\n", hex(digest.as_ref()))
}

async fn as_caller(bed: &TestBed, key: &str, path: &str) -> Response {
    bed.send(bed.bare(Method::GET, path).header("x-gateway-key", key)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_reaches_the_accounts_of_its_patterns_and_learns_nothing_about_others() {
    let callers = format!(
        "\n[[callers]]\nname = \"single\"\naccounts = [\"{CLINIC_NAME}\"]\n{}\n\
         [[callers]]\nname = \"some\"\naccounts = [\"acct-1*\", \"global:7\"]\n{}\n\
         [[callers]]\nname = \"by-id\"\naccounts = [\"{LAB}\"]\nallow = [\"orders\"]\n{}",
        key_line("key-of-single"),
        key_line("key-of-some"),
        key_line("key-of-by-id"),
    );
    let bed = TestBedBuilder::new().append(&callers).start().await;
    let table = [
        ("key-of-single", "/orders/practice", 200, ""),
        ("key-of-single", "/accounts/acct-1001/orders/practice", 200, ""),
        ("key-of-single", "/accounts/1001/orders/practice", 200, ""),
        ("key-of-single", "/accounts/acct-1002/orders/lab", 403, "account_not_allowed"),
        ("key-of-single", "/accounts/no-such-one/orders/lab", 403, "account_not_allowed"),
        ("key-of-single", "/accounts/UPPER/orders/lab", 403, "account_not_allowed"),
        ("key-of-some", "/orders/practice", 400, "account_not_chosen"),
        ("key-of-some", "/accounts/acct-1002/orders/lab", 200, ""),
        ("key-of-some", "/accounts/acct-1999/orders/lab", 404, "account_unknown"),
        ("key-of-some", "/accounts/7/orders/lab", 404, "account_unknown"),
        ("key-of-some", "/accounts/other/orders/lab", 403, "account_not_allowed"),
        ("key-of-by-id", "/orders/lab", 200, ""),
        ("key-of-by-id", "/practice-configuration", 403, "call_not_allowed"),
        ("key-of-nobody", "/orders/lab", 401, "caller_unknown"),
    ];
    for (key, path, status, code) in table {
        let response = as_caller(&bed, key, path).await;
        assert_eq!(
            (response.status, response.code().as_str()),
            (status, code),
            "{key} {path}: {}",
            response.text()
        );
    }
    let choices = as_caller(&bed, "key-of-some", "/orders/lab").await.json()["choices"].clone();
    assert_eq!(choices, serde_json::json!([CLINIC_NAME, LAB_NAME]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_two_realms_have_wants_its_realm() {
    let bed = TestBed::new().await;
    let twin = serde_json::json!([{"name": "twin", "realm": "old", "account_id": CLINIC, "refresh_token": "r".repeat(36)}]);
    let imported = bed.operate("/import?paused=true", twin).await;
    assert!(imported.text().contains("\"ok\":true"), "{}", imported.text());
    let response = bed.get(&CLINIC.to_string(), "/orders/practice").await;
    assert_eq!((response.status, response.code().as_str()), (400, "account_not_chosen"));
    assert_eq!(response.json()["choices"], serde_json::json!(["global:1001", "old:1001"]));
    assert_eq!(bed.get("global:1001", "/orders/practice").await.status, 200);
    assert_eq!(bed.get("old:1001", "/orders/practice").await.code(), "account_paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_known_by_network_and_an_old_bearer_is_dropped_but_a_wrong_key_is_told() {
    let caller = format!(
        "\n[[callers]]\nname = \"old-app\"\naccounts = [\"{CLINIC_NAME}\"]\nnetworks = [\"127.0.0.0/8\"]\n"
    );
    let bed = TestBedBuilder::new().append(&caller).start().await;
    let ask = || bed.bare(Method::GET, "/itero-gen-api/v2/orders/practice");
    assert_eq!(bed.send(ask()).await.status, 200);
    assert_eq!(bed.send(ask().bearer_auth("eyJ.an.old-align-bearer")).await.status, 200);
    assert!(!last_call(&bed).header("authorization").unwrap().contains("old-align"));
    assert_eq!(bed.send(ask().basic_auth("app", Some("some password of theirs"))).await.status, 200);
    let wrong = bed.send(ask().header("x-gateway-key", "mistyped")).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "caller_unknown"));
    let forwarded = bed.send(ask().header("x-forwarded-for", "203.0.113.9")).await;
    assert_eq!(forwarded.status, 200, "nobody is trusted to forward");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_come_as_header_bearer_or_basic_password() {
    let bed = TestBed::new().await;
    let path = format!("/accounts/{CLINIC_NAME}/orders/practice");
    let ask = || bed.bare(Method::GET, &path);
    assert_eq!(bed.send(ask().bearer_auth(&bed.key)).await.status, 200);
    assert_eq!(bed.send(ask().basic_auth("anything", Some(&bed.key))).await.status, 200);
    assert_eq!(bed.send(ask()).await.code(), "caller_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_leads_to_us_and_an_application_that_follows_it_stays_with_us_and_its_account() {
    let bed = TestBed::new().await;
    for stack in ["/api/third-party/v2", "/itero-gen-api/v2", "/itero-gen-api/v2/api/third-party/v2", ""] {
        bed.sandbox.clear_calls();
        let path = format!("{stack}/api-discovery-by-name-and-version?discoveryName=third-party&version=2");
        let found = bed.get(CLINIC_NAME, &path).await;
        assert_eq!(found.status, 200);
        let expected = serde_json::json!({"APIs": [{
            "Name": "third-party", "Version": "2",
            "Domain": bed.gateway, "Path": format!("/accounts/{CLINIC_NAME}/itero-gen-api/v2"),
        }]});
        assert_eq!(found.json(), expected, "{stack}");
        assert!(bed.sandbox.calls().is_empty(), "it is answered here");

        let entry = &found.json()["APIs"][0];
        let base = format!("{}{}", entry["Domain"].as_str().unwrap(), entry["Path"].as_str().unwrap());
        let orders = bed.follow(&format!("{base}/orders/practice")).await;
        assert_eq!(orders.status, 200);
        assert_eq!(last_call(&bed).target(), "/itero-gen-api/v2/orders/practice");
        let later = format!("{base}/api-discovery-by-name-and-version?discoveryName=third-party&version=2");
        assert_eq!(bed.follow(&later).await.json(), expected, "the later form of the call too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_a_later_version_brings_is_followed_too() {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| behavior.path = "/itero-gen-api/v3".to_owned())
        .start()
        .await;
    let orders = bed.get(CLINIC_NAME, "/itero-gen-api/v2/orders/practice").await;
    assert_eq!(orders.status, 200);
    assert_eq!(last_call(&bed).target(), "/itero-gen-api/v3/orders/practice");
    let orders = bed.get(CLINIC_NAME, "/itero-gen-api/v3/orders/practice").await;
    assert_eq!(orders.status, 200);
    assert_eq!(last_call(&bed).target(), "/itero-gen-api/v3/orders/practice");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_8_k_pass_and_belong_to_their_own_account() {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| behavior.token_size = 8192)
        .account(AccountSpec::clinic(1003, "Europe").in_region(Region::Europe))
        .start()
        .await;
    for (name, id, path) in [
        (CLINIC_NAME, CLINIC, "/orders/practice"),
        (LAB_NAME, LAB, "/orders/lab"),
        ("acct-1003", 1003, "/orders/practice"),
    ] {
        assert_eq!(bed.get(name, path).await.status, 200);
        let call = last_call(&bed);
        assert_eq!(call.account, Some(id));
        assert_eq!(call.header("authorization").unwrap().len(), "Bearer ".len() + 8192);
    }
    assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersPractice).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_and_a_discovery_are_the_same_in_every_spelling() {
    let bed = TestBed::new().await;
    let upper = CLINIC_NAME.to_uppercase();
    for target in [
        format!("/accounts/{upper}/itero-gen-api/v2/orders/practice"),
        format!("/accounts/{upper}//orders/practice"),
        format!("//accounts/{CLINIC_NAME}//orders/practice"),
        format!("/accounts/GLOBAL:{CLINIC}/orders/practice"),
    ] {
        let response = bed.raw(&format!("GET {target}"), "").await;
        assert_eq!(response.status(), 200, "{target}: {}", response.text());
        assert_eq!(last_call(&bed).target(), "/itero-gen-api/v2/orders/practice", "{target}");
    }
    let discover = async |name: &str| {
        let path = "/api/third-party/v2/api-discovery-by-name-and-version";
        bed.raw(&format!("GET /accounts/{upper}{path}?discoveryName={name}&version=2"), "").await.text()
    };
    let plain = discover("third-party").await;
    assert!(plain.contains(&format!("/accounts/{CLINIC_NAME}/")), "{plain}");
    assert_eq!(discover("thirdparty").await, plain);
    assert_eq!(discover("fourth-party").await, r#"{"APIs":[]}"#);
}
