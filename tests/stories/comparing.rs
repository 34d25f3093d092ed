//! `accounts compare`: the same reads on two platforms, and only where they differ a line.

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Fault, FaultRule, Platform, RecordedCall};
use serde_json::{Value, json};

use crate::test_bed::{PASSWORD, TestBed, TestBedBuilder, USER};

const CLINIC: u64 = 4001;
const LAB: u64 = 4002;

/// A clinic and a lab that have a grant on each platform, as the same accounts.
async fn on_both_platforms() -> TestBed {
    let account =
        |account: AccountSpec| account.on_platform(Platform::Old).with_user(USER, PASSWORD).with_orders(3);
    let bed = TestBedBuilder::new()
        .without_usual_accounts()
        .behavior(|behavior| behavior.migration_keeps_tokens = true)
        .account(account(AccountSpec::clinic(CLINIC, "Smile Berlin")))
        .account(account(AccountSpec::lab(LAB, "Crown Lab")))
        .start()
        .await;
    for id in [CLINIC, LAB] {
        assert!(bed.sandbox.migrate(id, Platform::New));
        let token = bed.sandbox.grant(id).unwrap();
        let name = format!("acct-{id}");
        let entry = json!([{"name": name, "realm": "global", "account_id": id, "refresh_token": token}]);
        let imported = bed.operate("/import?paused=true", entry).await;
        assert!(!imported.text().contains("\"ok\":false"), "{}", imported.text());
    }
    bed.sandbox.clear_calls();
    bed
}

async fn compare(bed: &TestBed, account: u64, query: &str) -> Value {
    let response = bed.operate(&format!("/accounts/acct-{account}/compare{query}"), json!(null)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn kinds(report: &Value) -> Vec<&str> {
    report["differences"].as_array().unwrap().iter().map(|line| line["kind"].as_str().unwrap()).collect()
}

/// Of the API itself, without tokens and discovery.
fn data_calls(bed: &TestBed) -> Vec<RecordedCall> {
    let control = [Endpoint::Discovery, Endpoint::Refresh];
    bed.sandbox.calls_where(|call| call.endpoint.is_some_and(|endpoint| !control.contains(&endpoint)))
}

#[tokio::test(flavor = "multi_thread")]
async fn worlds_that_agree_have_no_line_and_nothing_but_reads_went_out() {
    let bed = on_both_platforms().await;
    let refused = bed.operate("/accounts/acct-4001/compare", json!(null)).await;
    assert_eq!(refused.status, 409, "it is no test account: {}", refused.text());
    assert_eq!(data_calls(&bed).len(), 0);
    let report = compare(&bed, CLINIC, "?force=true").await;
    assert_eq!(report["differences"], json!([]), "{report}");
    assert_eq!((&report["first"]["realm"], &report["second"]["realm"]), (&json!("old"), &json!("global")));
    assert_eq!(report["calls"], 2 + 3, "configuration, list, and each order");
    let calls = data_calls(&bed);
    assert_eq!(calls.len(), 2 * (2 + 3));
    assert!(
        calls.iter().all(|call| call.method == "GET" && call.endpoint != Some(Endpoint::Download)),
        "{calls:?}"
    );
    assert_eq!(bed.account("acct-4001").await["realm"], "old", "calls stay where they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_order_a_renamed_field_a_status_and_a_link_host_are_four_lines_without_a_value() {
    let bed = on_both_platforms().await;
    let missing = bed.sandbox.rx_ids(CLINIC)[1];
    bed.sandbox.set_behavior(|behavior| {
        behavior.new_platform_differs.lacks_rx = Some(missing);
        behavior.new_platform_differs.renames =
            Some(("PatientLastName".to_owned(), "PatientSurname".to_owned()));
        behavior.new_platform_differs.link_host = Some("files.elsewhere.test".to_owned());
    });
    let down = FaultRule::on(Endpoint::PracticeConfiguration, Fault::Status(500)).on_platform(Platform::New);
    bed.sandbox.inject(down);
    let report = compare(&bed, CLINIC, "?force=true&first=old&second=global").await;
    assert_eq!(kinds(&report), ["status", "entry", "renamed", "link_host"], "{report:#}");
    let lines = report["differences"].as_array().unwrap();
    assert_eq!((&lines[0]["first"], &lines[0]["second"]), (&json!("200"), &json!("500")));
    assert_eq!((&lines[1]["first"], &lines[1]["second"]), (&json!(missing.to_string()), &json!("")));
    assert_eq!(lines[2]["first"], "Data.PatientLastName");
    assert_eq!(lines[3]["second"], "files.elsewhere.test");
    let name = bed.get("acct-4001", "/itero-gen-api/v2/orders/practice").await.json();
    let name = name["Data"][0]["PatientLastName"].as_str().unwrap().to_owned();
    assert!(!report.to_string().contains(&name), "no value is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labs_list_is_read_only_when_asked_for() {
    let bed = on_both_platforms().await;
    let report = compare(&bed, LAB, "?force=true").await;
    assert_eq!(report["differences"], json!([]), "{report}");
    assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersLab).len(), 0);
    let report = compare(&bed, LAB, "?force=true&lists=true").await;
    assert_eq!(report["differences"], json!([]), "{report}");
    assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersLab).len(), 2);
    assert!(data_calls(&bed).iter().all(|call| call.method == "GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_one_platform_alone_has_nothing_to_be_compared_with() {
    let bed = TestBed::new().await;
    let refused = bed.operate("/accounts/acct-1001/compare?force=true", json!(null)).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (400, json!("bad_request")),
        "{}",
        refused.text()
    );
    let refused = bed.operate("/accounts/acct-1001/compare?force=true&second=old", json!(null)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}
