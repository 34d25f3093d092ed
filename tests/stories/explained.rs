//! `explain` and `/readyz?verbose` tell what callers get: the
//! verdict first, and nothing below contradicts it.

use std::time::Duration;

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule};
use http::Method;
use serde_json::Value;

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, Response, TestBed};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

/// Level and sentence of each finding.
async fn findings(bed: &TestBed) -> Vec<(String, String)> {
    let explained = bed.look(&format!("/api/accounts/{CLINIC_NAME}/explain")).await.json();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = explained["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(finding, "level"), text(finding, "what"))).collect()
}

/// The first finding, once it is seen that no other contradicts it.
async fn verdict(bed: &TestBed) -> (String, String) {
    let findings = findings(bed).await;
    let first = findings[0].clone();
    if first.0 != "ok" {
        assert!(findings.iter().all(|(level, _)| level != "ok"), "{findings:#?}");
    } else {
        assert!(findings.iter().all(|(level, _)| level != "trouble"), "{findings:#?}");
    }
    first
}

#[track_caller]
fn assert_says(verdict: &(String, String), level: &str, words: &[&str]) {
    let (found, what) = verdict;
    assert!(found == level && words.iter().all(|word| what.contains(word)), "{verdict:?}");
}

/// A call is noted once its response is over, which its caller may see a moment before.
async fn noted(bed: &TestBed, calls: u64) {
    let seen = async {
        while bed.account(CLINIC_NAME).await["failing"]["calls"].as_u64().unwrap_or(0) != calls {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the call is noted");
}

async fn get(bed: &TestBed) -> Response {
    bed.while_time_flies(Duration::from_millis(200), bed.get(CLINIC_NAME, LIST)).await
}

async fn part(bed: &TestBed, name: &str) -> (bool, String) {
    let readiness = bed.send(bed.browse(Method::GET, "/readyz?verbose")).await;
    assert_eq!(readiness.status, 200);
    let parts = readiness.json()["parts"].clone();
    let part = parts.as_array().unwrap().iter().find(|part| part["name"] == name).unwrap().clone();
    (part["ok"].as_bool().unwrap(), part["detail"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_fails_every_call_is_the_verdict_until_a_call_succeeds() {
    let bed = TestBed::new().await;
    assert_eq!(get(&bed).await.status, 200);
    assert_says(&verdict(&bed).await, "ok", &["served"]);
    bed.clock.advance(Duration::from_secs(1));
    for status in [500, 403, 404] {
        bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::Status(status)));
        for _ in 0..3 {
            assert_eq!(get(&bed).await.status, status);
        }
        noted(&bed, 3).await;
        let told = verdict(&bed).await;
        assert_says(&told, "trouble", &[&format!("answers {status} to every call: 3 in a row since ")]);
        bed.sandbox.clear_fault_rules();
        bed.clock.advance(Duration::from_secs(1));
        assert_eq!(get(&bed).await.status, 200);
        noted(&bed, 0).await;
        assert_says(&verdict(&bed).await, "ok", &["served"]);
        bed.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_is_told_with_what_callers_get() {
    let bed = TestBed::new().await;
    assert_eq!(get(&bed).await.status, 200);
    // A success of the same millisecond would be the later one.
    bed.clock.advance(Duration::from_secs(1));
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Status(500)));
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(get(&bed).await.code(), "token_unavailable");
    noted(&bed, 1).await;
    assert_says(&verdict(&bed).await, "trouble", &["503 token_unavailable", "status 500"]);
    let told = findings(&bed).await;
    let contradicts = |what: &str| what.contains("Calls are served") || what.contains("is good until");
    assert!(!told.iter().any(|(_, what)| contradicts(what)), "the token at hand was refused: {told:#?}");
    assert!(told.iter().any(|(_, what)| what.contains("has refused it")), "{told:#?}");
    assert_eq!(told.iter().filter(|(level, _)| level == "trouble").count(), 1, "it is said once: {told:#?}");
    bed.clock.advance(Duration::from_secs(600));
    let late = findings(&bed).await;
    assert!(late.iter().all(|(_, what)| !what.contains("Next try after")), "{late:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_recovers_is_told_without_a_caller_within_two_minutes() {
    let bed = TestBed::new().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::OrdersPractice, Fault::DropsBeforeHead));
    for _ in 0..2 {
        assert_eq!(get(&bed).await.code(), "platform_misbehaved");
    }
    noted(&bed, 2).await;
    assert_says(&verdict(&bed).await, "trouble", &["platform_misbehaved"]);
    bed.sandbox.clear_fault_rules();
    let well = async {
        while verdict(&bed).await.0 != "ok" {
            tokio::task::yield_now().await;
        }
    };
    bed.while_time_flies(Duration::from_millis(500), well).await;
    let notes = findings(&bed).await;
    assert!(notes.iter().any(|(_, what)| what.starts_with("2 calls failed in a row")), "{notes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_is_told_first_for_an_hour() {
    let bed = TestBed::new().await;
    assert_eq!(get(&bed).await.status, 200);
    bed.clock.set_time_of_day_by(2 * 24 * 3600 * 1000);
    let told = async {
        while verdict(&bed).await.0 == "ok" {
            tokio::task::yield_now().await;
        }
    };
    bed.while_time_flies(Duration::from_millis(500), told).await;
    assert_says(&verdict(&bed).await, "note", &["A clock is or was wrong", "set forward by 2days"]);
    bed.clock.advance(Duration::from_secs(3601));
    assert_eq!(get(&bed).await.status, 200);
    assert_says(&verdict(&bed).await, "ok", &["served"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_all_dead_are_not_in_order() {
    let bed = TestBed::new().await;
    assert_eq!(part(&bed, "accounts").await, (true, "2 ready, 0 need a login, 0 paused".to_owned()));
    assert!(part(&bed, "logs").await.0);
    for id in [CLINIC, LAB] {
        bed.sandbox.forget_refresh(id);
    }
    let dead = async {
        while part(&bed, "accounts").await.0 {
            for name in ["acct-1001", "acct-1002"] {
                bed.operate(&format!("/renew?pattern={name}"), Value::Null).await;
            }
        }
    };
    bed.while_time_flies(Duration::from_millis(500), dead).await;
    assert!(part(&bed, "accounts").await.1.contains("`genapi-gateway accounts list` names them"));
}
