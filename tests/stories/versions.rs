//! The version of the API is an account's own: discovery is asked for it, calls follow, and the way back is
//! the same command.

use genapi_gateway::sandbox::{Endpoint, RecordedCall};
use http::Method;
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB_NAME, TestBed, TestBedBuilder};

const V2: &str = "/itero-gen-api/v2";
const V3: &str = "/itero-gen-api/v3";

/// What came of it for one account.
async fn version(bed: &TestBed, pattern: &str, to: &str) -> Vec<Value> {
    bed.operate(&format!("/version?pattern={pattern}&to={to}"), Value::Null).await.lines()
}

/// Where the account's calls arrive.
async fn goes_to(bed: &TestBed, account: &str, list: &str) -> String {
    let response = bed.get(account, &format!("{V2}/orders/{list}")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let is_list = |call: &RecordedCall| call.target().ends_with(list);
    bed.sandbox.calls_where(is_list).pop().unwrap().target().replace(&format!("/orders/{list}"), "")
}

fn asked_versions(bed: &TestBed) -> Vec<String> {
    let of = |call: RecordedCall| call.target().rsplit("version=").next().unwrap().to_owned();
    bed.sandbox.calls_to(Endpoint::Discovery).into_iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_moves_to_v3_and_back_and_takes_its_version_with_it() {
    let bed = TestBed::new().await;
    assert_eq!(bed.account(CLINIC_NAME).await["version"], "2");
    let lines = version(&bed, CLINIC_NAME, "3").await;
    assert_eq!((&lines[0]["ok"], lines.len()), (&json!(true), 1), "{lines:?}");
    let detail = lines[0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("from version 2 to 3: ") && detail.ends_with(V3), "{detail}");
    assert_eq!(goes_to(&bed, CLINIC_NAME, "practice").await, V3);
    assert_eq!(goes_to(&bed, LAB_NAME, "lab").await, V2, "each account by itself");
    assert_eq!(bed.account(CLINIC_NAME).await["version"], "3");
    assert_eq!(bed.account(LAB_NAME).await["version"], "2");
    assert_eq!(bed.journal(CLINIC_NAME).await.first().unwrap(), "version_changed");
    assert_eq!(bed.audit().last().unwrap()["action"], "version");
    assert_eq!(
        version(&bed, CLINIC_NAME, "3").await[0]["detail"].as_str().unwrap().split(',').next(),
        Some("unchanged: version 3")
    );

    // Links of V3 lead back to V3, and V1 applications still get what they know.
    let list = bed.get(CLINIC_NAME, &format!("{V2}/orders/practice")).await.json();
    let link = list["Data"][0]["URLs"][0]["Url"].as_str().unwrap().to_owned();
    assert!(link.contains(V3), "{link}");
    assert_eq!(bed.follow(&link).await.status, 200);
    // The application may ask for the version that it knows, or for the account's.
    for asked in ["2", "3"] {
        let path =
            format!("{V2}/api-discovery-by-name-and-version?discoveryName=third-party&version={asked}");
        let api = &bed.get(CLINIC_NAME, &path).await.json()["APIs"][0];
        let path = format!("/accounts/{CLINIC_NAME}{V3}");
        assert_eq!((&api["Version"], &api["Path"]), (&json!(asked), &json!(path)));
    }

    let bed = bed.restart().await;
    bed.sandbox.clear_calls();
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(goes_to(&bed, CLINIC_NAME, "practice").await, V3);
    bed.operate(&format!("/renew?pattern={CLINIC_NAME}"), Value::Null).await;
    let asked = asked_versions(&bed);
    assert!(!asked.is_empty() && asked.iter().all(|version| version == "3"), "{asked:?}");

    let lines = version(&bed, CLINIC_NAME, "2").await;
    assert_eq!(lines[0]["ok"], true, "{lines:?}");
    assert_eq!(goes_to(&bed, CLINIC_NAME, "practice").await, V2);
    assert_eq!(bed.account(CLINIC_NAME).await["version"], "2");
    bed.sandbox.clear_calls();
    bed.operate(&format!("/renew?pattern={CLINIC_NAME}"), Value::Null).await;
    assert!(asked_versions(&bed).iter().all(|version| version == "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_v3_every_account_stays_as_it_is() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.v3_path = None).start().await;
    let lines = version(&bed, "*", "3").await;
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let detail = line["detail"].as_str().unwrap();
        assert_eq!(line["ok"], false, "{line}");
        assert!(detail.contains("stays at version 2") && detail.contains("no version 3"), "{detail}");
    }
    assert_eq!(goes_to(&bed, CLINIC_NAME, "practice").await, V2);
    assert_eq!(bed.account(CLINIC_NAME).await["version"], "2");
    assert!(!bed.journal(CLINIC_NAME).await.contains(&"version_changed".to_owned()));
    bed.sandbox.clear_calls();
    bed.operate(&format!("/renew?pattern={CLINIC_NAME}"), Value::Null).await;
    assert!(asked_versions(&bed).iter().all(|version| version == "2"));
    // One that answers nothing is no place to go to either.
    bed.sandbox.set_behavior(|behavior| behavior.v3_path = Some("/elsewhere/v3".into()));
    let moved = version(&bed, CLINIC_NAME, "3").await;
    assert_eq!(moved[0]["ok"], true, "the Path is discovery's to name: {moved:?}");
    assert_eq!(goes_to(&bed, CLINIC_NAME, "practice").await, "/elsewhere/v3");
    for bad in ["", "0", "x", "-1", "70000"] {
        let refused = bed.operate(&format!("/version?pattern=*&to={bad}"), Value::Null).await;
        assert_eq!(refused.status, 400, "{bad}");
    }
    let v1 = bed.call(Method::DELETE, CLINIC_NAME, "/lab-sw/v1/scan-request/7", "").await;
    assert_eq!(v1.code(), "not_in_v1");
    assert_eq!(bed.sandbox.creations(CLINIC), 0);
}
