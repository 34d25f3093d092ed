//! Tokens run out: one renewal serves everybody, whatever the platform's habits are.

use std::time::Duration;

use futures_util::future::join_all;
use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, Gate};
use http::Method;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

/// 50 callers on an expired token: the whole point of the gateway.
async fn fifty_callers_one_refresh(bed: &TestBed) {
    bed.sandbox.expire_access(CLINIC);
    let responses = join_all((0..50).map(|_| bed.get(CLINIC_NAME, LIST))).await;
    assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), vec![200; 50]);
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "refreshes");
    assert_eq!(bed.sandbox.discoveries().len(), 1, "discoveries");
    assert!(bed.sandbox.overlapping_refreshes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_on_an_expired_token_cause_one_refresh_and_one_discovery() {
    fifty_callers_one_refresh(&TestBed::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_expiry_is_told_by_403() {
    fifty_callers_one_refresh(
        &TestBedBuilder::new().behavior(|behavior| behavior.expiry_status = 403).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_refresh_tokens_rotate_and_again_after_a_restart() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    fifty_callers_one_refresh(&bed).await;
    let bed = bed.restart().await;
    bed.sandbox.clear_calls();
    fifty_callers_one_refresh(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_tokens_of_8_k() {
    fifty_callers_one_refresh(
        &TestBedBuilder::new().behavior(|behavior| behavior.token_size = 8192).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_caller_hanging_up_does_not_lose_the_refresh() {
    let bed = TestBed::new().await;
    bed.sandbox.expire_access(CLINIC);
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::HeldBy(gate.clone())).once());
    let mut first = Box::pin(bed.get(CLINIC_NAME, LIST));
    tokio::select! {
        _ = &mut first => panic!("answered without a token"),
        () = gate.until_waiting(1) => {}
    }
    drop(first);
    let others = join_all((0..10).map(|_| bed.get(CLINIC_NAME, LIST)));
    let opened = async {
        bed.sandbox.until_calls(1, |call| call.endpoint == Some(Endpoint::OrdersPractice)).await;
        gate.open();
    };
    let (responses, ()) = tokio::join!(others, opened);
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_takes_five_seconds_is_waited_for() {
    let bed = TestBed::new().await;
    bed.sandbox.expire_access(CLINIC);
    bed.sandbox
        .inject(FaultRule::on(Endpoint::Refresh, Fault::DelayedThenNormal(Duration::from_secs(5))).once());
    let calls = join_all((0..50).map(|_| bed.get(CLINIC_NAME, LIST)));
    let responses = bed.while_time_flies(Duration::from_millis(250), calls).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repeat_of_a_call_whose_body_was_too_large_to_keep_waits_for_the_renewal_it_has_caused() {
    let bed =
        TestBedBuilder::new().config("[gateway]\n", "[gateway]\nreplay_limit = \"16KiB\"\n").start().await;
    let body = format!("{{\"PatientId\":\"{}\"}}", "x".repeat(20_000));
    let path = "/itero-gen-api/v2/scan-request";
    bed.sandbox.expire_access(CLINIC);
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::HeldBy(gate.clone())).once());
    let first = bed.call(Method::POST, CLINIC_NAME, path, body.clone()).await;
    assert_eq!(first.status, 401, "what was not kept cannot be sent again: {}", first.text());
    gate.until_waiting(1).await;
    let repeat = bed.call(Method::POST, CLINIC_NAME, path, body);
    let another = bed.get(CLINIC_NAME, LIST);
    let opened = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersPractice).len(), 0, "sent with the dead token");
        gate.open();
    };
    let (repeat, another, ()) = tokio::join!(repeat, another, opened);
    assert_eq!((repeat.status, another.status), (200, 200), "{}", repeat.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::ScanRequest).len(), 2, "nothing goes out with the dead token");
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_403_is_the_vendors_response_and_causes_one_refresh() {
    let bed = TestBed::new().await;
    bed.sandbox.deny(CLINIC, "/orders/practice");
    for _ in 0..20 {
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!(
            (response.status, response.code()),
            (403, String::new()),
            "the vendor's own answer passes through"
        );
    }
    assert!(bed.sandbox.refreshes(CLINIC).len() <= 1, "{}", bed.sandbox.refreshes(CLINIC).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_says_login_needed_once_and_leaves_the_platform_and_the_others_alone() {
    let bed = TestBed::new().await;
    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    for _ in 0..10 {
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!((response.status, response.code().as_str()), (401, "account_needs_login"));
        assert!(response.json()["fix"].as_str().unwrap().contains("accounts pair"));
    }
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "a dead grant is not hammered");
    let lab = bed.get(LAB_NAME, "/itero-gen-api/v2/orders/lab").await;
    assert_eq!(lab.status, 200);
}
