//! The platform stumbles: what is sent again, how late, how often, and what never is.

use std::time::Duration;

use genapi_gateway::clock::Timestamp;
use genapi_gateway::sandbox::{Behavior, CallEnd, Endpoint, Fault, FaultRule, Gate, RecordedCall};
use http::Method;
use serde_json::json;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, Response, TestBed, TestBedBuilder};
use crate::wire::Line;

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const STEP: Duration = Duration::from_millis(50);

async fn fly(bed: &TestBed, method: Method, path: &str, body: &str) -> Response {
    bed.while_time_flies(STEP, bed.call(method, CLINIC_NAME, path, body.to_owned())).await
}

fn sends(bed: &TestBed, endpoint: Endpoint) -> Vec<Timestamp> {
    bed.sandbox.calls_to(endpoint).iter().map(|call| call.at).collect()
}

fn waits(bed: &TestBed, endpoint: Endpoint) -> Vec<u64> {
    let sends = sends(bed, endpoint);
    sends.windows(2).map(|two| two[1].as_millis() - two[0].as_millis()).collect()
}

fn assert_documented(waits: &[u64], first: u64) {
    let mut least = first;
    for wait in waits {
        // A quarter of jitter, and the steps in which these tests move the clock; only upward.
        let most = least + least / 4 + 500;
        assert!((least..=most).contains(wait), "{wait} ms, wanted {least} to {most}");
        least *= 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_or_504_is_repeated_after_a_second_and_then_after_two() {
    for status in [500, 504] {
        let bed = TestBed::new().await;
        bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(status)).times(2));
        assert_eq!(fly(&bed, Method::GET, LIST, "").await.status, 200, "{status}");
        assert_eq!(sends(&bed, Endpoint::OrdersPractice).len(), 3);
        assert_documented(&waits(&bed, Endpoint::OrdersPractice), 1000);
        assert_eq!(bed.metric("genapi_gateway_retries_total{reason=\"platform_trouble\"}").await, 2.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_sends_the_vendors_own_response_passes_through() {
    let bed = TestBed::new().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(504)));
    let response = fly(&bed, Method::GET, LIST, "").await;
    assert_eq!((response.status, response.code()), (504, String::new()));
    assert_eq!(sends(&bed, Endpoint::OrdersPractice).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_renewal_there_is_one_send_more() {
    for expiry_status in [401, 403] {
        let bed =
            TestBedBuilder::new().behavior(|behavior| behavior.expiry_status = expiry_status).start().await;
        bed.sandbox.expire_access(CLINIC);
        let refused = FaultRule::on(Endpoint::OrdersPractice, Fault::Status(expiry_status)).once();
        bed.sandbox.inject(refused);
        bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(500)).times(2));
        assert_eq!(fly(&bed, Method::GET, LIST, "").await.status, 200);
        assert_eq!(sends(&bed, Endpoint::OrdersPractice).len(), 4);
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_new_send_later_than_the_deadline() {
    let bed = TestBedBuilder::new()
        .config("[[callers]]", "[retry]\nattempts = 10\ndeadline = \"5s\"\nbudget = 1.0\n[[callers]]")
        .start()
        .await;
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(500)));
    let start = bed.now();
    assert_eq!(fly(&bed, Method::GET, LIST, "").await.status, 500);
    let sends = sends(&bed, Endpoint::OrdersPractice);
    assert_eq!(sends.len(), 3, "at 0, 1 and 3 seconds; 7 would be too late");
    assert!(sends[2].since(start) <= Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_platform_is_not_buried_under_repeats() {
    let bed = TestBed::new().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(500)));
    let calls = (0..100).map(|_| bed.get(CLINIC_NAME, LIST));
    let all = futures_util::future::join_all(calls);
    let responses = bed.while_time_flies(STEP, all).await;
    assert!(responses.iter().all(|response| response.status == 500));
    let extra = sends(&bed, Endpoint::OrdersPractice).len() - 100;
    // 20 % and a reserve of ten, which grows by ten a minute; several
    // calls may see the last repeat that is left.
    assert!((10..=45).contains(&extra), "{extra} repeats for 100 calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_request_is_never_sent_twice_unless_configured() {
    let body = r#"{"Procedure":"FR"}"#;
    for fault in [Fault::Status(504), Fault::Status(500), Fault::DropsBeforeHead] {
        let bed = TestBed::new().await;
        bed.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, fault.clone()).once().carried_out());
        let response = fly(&bed, Method::POST, "/itero-gen-api/v2/scan-request", body).await;
        assert!([500, 502, 504].contains(&response.status), "{fault:?}: {}", response.status);
        assert_eq!(bed.sandbox.creations(CLINIC), 1, "{fault:?}");
        assert_eq!(sends(&bed, Endpoint::ScanRequest).len(), 1);
    }
    let configured = "[retry]\nscan_request = true\n[[callers]]";
    let bed = TestBedBuilder::new().config("[[callers]]", configured).start().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::ScanRequest, Fault::Status(504)).once());
    assert_eq!(fly(&bed, Method::POST, "/itero-gen-api/v2/scan-request", body).await.status, 200);
    assert_eq!(sends(&bed, Endpoint::ScanRequest).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_request_on_an_expired_token_is_created_once() {
    for expiry_status in [401, 403] {
        let bed =
            TestBedBuilder::new().behavior(|behavior| behavior.expiry_status = expiry_status).start().await;
        bed.sandbox.expire_access(CLINIC);
        let response =
            fly(&bed, Method::POST, "/itero-gen-api/v2/scan-request", r#"{"Procedure":"FR"}"#).await;
        assert_eq!(response.status, 200, "a refused call was not carried out and may be repeated");
        assert_eq!(bed.sandbox.creations(CLINIC), 1);
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn returning_a_scan_is_never_repeated_whatever_its_method() {
    let bed = TestBedBuilder::new()
        .config("[[callers]]", "[retry]\nscan_request = true\n[[callers]]")
        .start()
        .await;
    let order = bed.sandbox.order_ids(CLINIC)[0];
    for method in [Method::PUT, Method::POST, Method::GET] {
        bed.sandbox.clear_calls();
        bed.sandbox.inject(FaultRule::everywhere(Fault::Status(500)).for_account(CLINIC).once());
        let response = fly(&bed, method.clone(), &format!("/order/{order}/return"), "").await;
        let calls = bed.sandbox.calls();
        assert_eq!(calls.len(), 1, "{method}: {}", response.status);
        bed.sandbox.clear_fault_rules();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searching_a_patient_is_a_read_even_as_post_and_an_update_by_post_is_not() {
    let bed = TestBed::new().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::PatientSearch, Fault::Status(500)).times(2));
    assert_eq!(fly(&bed, Method::POST, "/patient/search", r#"{"Name":"a"}"#).await.status, 200);
    let bodies: Vec<_> = bed.sandbox.calls_to(Endpoint::PatientSearch).into_iter().map(|c| c.body).collect();
    assert_eq!(bodies, vec![r#"{"Name":"a"}"#; 3]);

    let update = r#"{"PatientGuid":"000003e9-5a4d-4000-8000-000000000001","LastName":"X"}"#;
    bed.sandbox.inject(FaultRule::on(Endpoint::Patients, Fault::Status(500)).once());
    assert_eq!(fly(&bed, Method::POST, "/patients", update).await.status, 500);
    assert_eq!(sends(&bed, Endpoint::Patients).len(), 1);
    bed.sandbox.inject(FaultRule::on(Endpoint::Patients, Fault::Status(500)).once());
    assert_eq!(fly(&bed, Method::PUT, "/patients", update).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_repeated_passes_its_401_through_and_the_next_call_finds_a_new_token() {
    let bed =
        TestBedBuilder::new().config("[gateway]\n", "[gateway]\nreplay_limit = \"16KiB\"\n").start().await;
    bed.sandbox.expire_access(CLINIC);
    let large = format!("{{\"pad\":\"{}\"}}", "x".repeat(100_000));
    let first = fly(&bed, Method::POST, "/scan-request", &large).await;
    assert_eq!((first.status, first.code()), (401, String::new()));
    bed.sandbox.until_calls(1, |call| call.endpoint == Some(Endpoint::Discovery)).await;
    let second = fly(&bed, Method::POST, "/scan-request", &large).await;
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(bed.sandbox.creations(CLINIC), 1);
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_unseen_is_replaced_without_a_word_for_reads_and_never_for_writes() {
    let bed = TestBedBuilder::new().config("[gateway]\n", "[gateway]\nworkers = 1\n").start().await;
    for round in 0..5 {
        bed.sandbox.inject(FaultRule::everywhere(Fault::ClosesAfterResponse).for_account(CLINIC).once());
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!(response.status, 200, "{round}: {}", response.text());
    }
    assert_eq!(sends(&bed, Endpoint::OrdersPractice).len(), 10);
    for round in 1..=5 {
        bed.sandbox.inject(FaultRule::everywhere(Fault::ClosesAfterResponse).for_account(CLINIC).once());
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        let response = bed.call(Method::POST, CLINIC_NAME, "/scan-request", r#"{"Procedure":"FR"}"#).await;
        assert_eq!(response.status, 200, "{round}: the end is seen before anything is sent");
        assert_eq!(bed.sandbox.creations(CLINIC), round);
    }
}

/// Responses come late or never: real waits on the wire.
fn impatient() -> TestBedBuilder {
    TestBedBuilder::new()
        .real_clock()
        .config("[[callers]]", "[upstream]\nresponse_timeout = \"1s\"\nidle_timeout = \"1s\"\n[[callers]]")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_stalls_is_a_504_and_one_that_stalls_midway_cuts_the_caller() {
    let bed = impatient().start().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::StallsForever).once());
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!((response.status, response.code().as_str()), (504, "platform_timeout"));

    let order = bed.sandbox.order_ids(CLINIC)[0];
    for fault in [Fault::StallsAfterHead, Fault::DropsMidBody] {
        bed.sandbox.inject(FaultRule::on(Endpoint::Download, fault.clone()).once());
        let mut line = Line::to(&bed.gateway).await;
        line.send(bed.request(&format!("GET /accounts/{CLINIC_NAME}/order/{order}/download/IDE"), "")).await;
        let cut = line.response(false).await.expect_err("cut short");
        assert_eq!(cut.status(), 200, "{fault:?}");
        assert!(line.is_closed().await);
    }
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::DropsMidBody).once());
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!(
        response.code(),
        "platform_misbehaved",
        "a list is read before its head goes out, so it can be told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_responses_never_reach_another_caller() {
    let bed = TestBedBuilder::new().config("[gateway]\n", "[gateway]\nworkers = 1\n").start().await;
    for fault in [
        Fault::BytesAfterBody,
        Fault::TwoLengths,
        Fault::LengthAndChunked,
        Fault::BodyAfter204,
        Fault::BodyAfter304,
        Fault::Unsolicited101,
        Fault::EndlessHead,
        Fault::Garbage,
    ] {
        let on = FaultRule::on(Endpoint::PracticeConfiguration, fault.clone()).for_account(CLINIC).once();
        bed.sandbox.inject(on);
        let _ = bed.get(CLINIC_NAME, "/practice-configuration").await;
        for (account, id) in [(LAB_NAME, 1002), (CLINIC_NAME, 1001)] {
            let other = bed.get(account, "/practice-configuration").await;
            assert_eq!((other.status, &other.json()["Data"]["CompanyId"]), (200, &json!(id)), "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_takes_its_call_to_the_platform_with_it() {
    let bed = TestBed::new().await;
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::HeldBy(gate.clone())).once());
    let mut line = Line::to(&bed.gateway).await;
    line.send(bed.request(&format!("GET /accounts/{CLINIC_NAME}/orders/practice"), "")).await;
    gate.until_waiting(1).await;
    line.reset();
    let ended = |call: &RecordedCall| {
        call.endpoint == Some(Endpoint::OrdersPractice) && call.end == CallEnd::PeerClosed
    };
    bed.sandbox.until_calls(1, ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_errors_pass_with_their_bodies_whatever_their_status() {
    let bed = TestBed::new().await;
    for status in [400, 402, 404, 409, 410, 418, 429, 501, 502, 503] {
        let body = format!("{{\"Errors\" : [\"{status}\" ]}}\n");
        let fault = Fault::Responds { status, body: body.clone() };
        bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, fault).once());
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!((response.status, response.text()), (status, body));
    }
    assert_eq!(sends(&bed, Endpoint::OrdersPractice).len(), 10, "none of them is repeated");
    assert_eq!(*bed.sandbox.behavior(), Behavior::default());
}
