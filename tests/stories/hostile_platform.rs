//! A platform that misbehaves: the caller gets an honest response,
//! nobody gets another's, and all heals by itself.

use std::time::Duration;

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, InvalidTokens};
use http::Method;

use crate::hostile_callers::raw;
use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, Response, TestBed, TestBedBuilder};

const LIST: &str = "/orders/practice";

async fn impatient() -> TestBed {
    let short = "\n[upstream]\nresponse_timeout = \"1s\"\nidle_timeout = \"1s\"\n";
    TestBedBuilder::new().append(short).start().await
}

/// Whether a response is this account's own list.
fn is_own(response: &Response) -> bool {
    response.status == 200 && response.text().contains("\"PracticeName\": \"Smile Berlin\"")
}

/// Whether the account serves again, without anybody's doing but that time passes.
async fn heals(bed: &TestBed) -> bool {
    for _ in 0..100 {
        bed.clock.advance(Duration::from_secs(60));
        if is_own(&bed.while_time_flies(Duration::from_secs(1), bed.get(CLINIC_NAME, LIST)).await) {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_response_is_refused_with_its_connection_and_the_next_call_gets_its_own() {
    let bed = impatient().await;
    assert!(is_own(&bed.get(CLINIC_NAME, LIST).await), "{}", bed.get(CLINIC_NAME, LIST).await.text());
    let table = [
        (Fault::BytesAfterBody, 502),
        (Fault::TwoLengths, 502),
        (Fault::LengthAndChunked, 502),
        (Fault::BodyAfter204, 502),
        (Fault::BodyAfter304, 502),
        (Fault::Unsolicited101, 502),
        (Fault::EndlessHead, 502),
        (Fault::Garbage, 502),
        (Fault::DropsMidBody, 502),
        (Fault::StallsAfterHead, 504),
        (Fault::StallsForever, 504),
    ];
    for (fault, status) in table {
        bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, fault.clone()).once());
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!(response.status, status, "{fault:?}");
        assert!(response.code().starts_with("platform_"), "{fault:?}: {}", response.code());
        let faulty = bed.sandbox.calls().last().unwrap().connection;
        assert!(is_own(&bed.get(CLINIC_NAME, LIST).await), "after {fault:?}");
        assert_ne!(bed.sandbox.calls().last().unwrap().connection, faulty, "{fault:?}");
        assert_eq!(bed.get(LAB_NAME, "/orders/lab").await.status, 200, "after {fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_cut_short_never_looks_complete() {
    let bed = impatient().await;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    for fault in [Fault::DropsMidBody, Fault::StallsAfterHead] {
        bed.sandbox.inject(FaultRule::on(Endpoint::Download, fault.clone()).once());
        let target = format!("/accounts/{CLINIC_NAME}/order/{order}/download/IDE");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nX-Gateway-Key: {}\r\nConnection: close\r\n\r\n",
            bed.key
        );
        let response = raw(&bed.gateway, request.as_bytes()).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        let length = head.to_ascii_lowercase();
        let length =
            length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).map(str::to_owned);
        if let Some(length) = length {
            assert!(body.len() < length.parse().unwrap(), "{fault:?}");
        }
    }
    assert_eq!(bed.get(CLINIC_NAME, &format!("/order/{order}/download/IDE")).await.status, 200);
    // The old name of the event counts the same for those who already watch it.
    for event in ["aborted_response", "aborted_answer"] {
        let series = format!("genapi_gateway_connection_events_total{{event=\"{event}\"}}");
        assert_eq!(bed.metric(&series).await, 2.0, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_from_the_token_endpoint_is_not_believed_and_costs_no_login() {
    let bed = impatient().await;
    let junk = [
        InvalidTokens::NoAccessToken,
        InvalidTokens::AccessTokenIsNull,
        InvalidTokens::AccessTokenIsNumber,
        InvalidTokens::EmptyAccessToken,
        InvalidTokens::LineBreakInAccessToken,
        InvalidTokens::AccessTokenOfLength(100_000),
        InvalidTokens::HalfOfTheJson,
        InvalidTokens::Huge(2_000_000),
        InvalidTokens::GzipBomb(20_000_000),
    ];
    let good = bed.sandbox.refresh_tokens(CLINIC);
    for junk in junk {
        bed.sandbox.expire_access(CLINIC);
        bed.sandbox
            .inject(FaultRule::on(Endpoint::Refresh, Fault::JunkToken(junk.clone())).for_account(CLINIC));
        let response = bed.while_time_flies(Duration::from_secs(1), bed.get(CLINIC_NAME, LIST)).await;
        assert_eq!((response.status, response.code().as_str()), (503, "token_unavailable"), "{junk:?}");
        assert!(!response.header("retry-after").is_empty(), "{junk:?}");
        bed.sandbox.clear_fault_rules();
        assert!(heals(&bed).await, "after {junk:?}");
    }
    assert_eq!(bed.sandbox.refresh_tokens(CLINIC), good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_discovery_moves_nobody() {
    let bed = impatient().await;
    let places = [
        ("https://evil.test", "/x"),
        ("http://169.254.169.254", "/latest"),
        ("http://127.0.0.1:1@evil.test", "/x"),
        ("http://user:secret@127.0.0.1:1", "/x"),
        ("http://127.0.0.1.evil.test", "/x"),
        ("http://2130706433", "/../x"),
        ("javascript:alert(1)", "/x"),
        ("", ""),
        ("http://127.0.0.1:1", "/x\r\nHost: evil"),
        ("http://127.0.0.1:1", "//evil.test"),
        ("http://127.0.0.1:1", "/%2e%2e/x"),
    ];
    for (domain, path) in places {
        let fault = Fault::Discovers { domain: domain.to_owned(), path: path.to_owned() };
        bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault));
        bed.sandbox.expire_access(CLINIC);
        // Slower than elsewhere: on a busy machine the control calls must end before their timeouts.
        let response = bed.while_time_flies(Duration::from_millis(50), bed.get(CLINIC_NAME, LIST)).await;
        assert!(is_own(&response), "{domain}{path}: {}", response.text());
        bed.sandbox.clear_fault_rules();
        bed.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_kept_connection_dies_midway_is_not_sent_again_and_says_so() {
    let bed = impatient().await;
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    bed.sandbox.clear_calls();
    bed.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, Fault::DropsBeforeHead).once());
    let response = bed.call(Method::POST, CLINIC_NAME, "/scan-request", "{}").await;
    assert_eq!((response.status, response.code().as_str()), (502, "platform_misbehaved"));
    assert!(response.json()["hint"].as_str().unwrap().contains("took effect"), "{}", response.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::ScanRequest).len(), 1);
}
