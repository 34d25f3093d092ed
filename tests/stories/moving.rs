//! Accounts come over from another application and go back: import, export, pause, resume.

use genapi_gateway::sandbox::{Endpoint, Fault, FaultRule, Platform};
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const LAB_LIST: &str = "/itero-gen-api/v2/orders/lab";

/// The gateway knows no account; the other application has paired both.
async fn before_the_import() -> (TestBed, Value) {
    let bed = TestBedBuilder::new().unpaired().start().await;
    let entry = |name: &str, id: u64| {
        let token = bed.sandbox.grant(id).unwrap();
        json!({"name": name, "realm": "global", "account_id": id, "refresh_token": token})
    };
    let file = json!([entry(CLINIC_NAME, CLINIC), entry(LAB_NAME, LAB)]);
    (bed, file)
}

async fn import(bed: &TestBed, query: &str, file: &Value) -> Vec<Value> {
    bed.operate(&format!("/import{query}"), file.clone()).await.lines()
}

fn details(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["detail"].as_str().unwrap()).collect()
}

async fn pause(bed: &TestBed, pattern: &str) -> Vec<Value> {
    bed.operate(&format!("/pause?pattern={pattern}"), json!(null)).await.lines()
}

/// The application's own refresh, past the gateway: the token that it has then.
async fn refreshed_by_the_application(bed: &TestBed) -> String {
    let form = format!(
        "grant_type=refresh_token&refresh_token={}&client_id=sandbox-client-new&client_secret=sandbox-secret-new-platform",
        bed.sandbox.refresh_tokens(CLINIC)[0]
    );
    let url = format!("{}/oauth2/token", bed.sandbox.oauth_base(Platform::New));
    let request = bed.http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
    bed.send(request).await.json()["refresh_token"].as_str().unwrap().to_owned()
}

async fn resume(bed: &TestBed, pattern: &str) -> Vec<Value> {
    bed.operate(&format!("/resume?pattern={pattern}"), json!(null)).await.lines()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_renews_discovers_and_proves_the_route_of_each_account_once_and_a_repetition_changes_nothing()
 {
    let (bed, file) = before_the_import().await;
    let paced = std::time::Duration::from_millis(250);
    let lines = bed.while_time_flies(paced, import(&bed, "", &file)).await;
    assert_eq!(details(&lines), ["refreshed and discovered"; 2]);
    let lines = bed.while_time_flies(paced, import(&bed, "", &file)).await;
    assert_eq!(details(&lines), ["this token is stored already"; 2]);
    assert_eq!((bed.sandbox.refreshes(CLINIC).len(), bed.sandbox.discoveries().len()), (1, 4));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_import_leaves_the_refreshing_to_the_other_application_until_it_is_resumed() {
    let (bed, file) = before_the_import().await;
    let lines = import(&bed, "?paused=true", &file).await;
    assert_eq!(details(&lines), ["paused, not refreshed"; 2]);
    let refused = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "account_paused"));
    assert_eq!(bed.sandbox.calls().len(), 0, "the platform was not asked for anything");

    let resumed = resume(&bed, CLINIC_NAME).await;
    assert_eq!((resumed.len(), &resumed[0]["ok"]), (1, &json!(true)), "{resumed:?}");
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "resuming renews once");
    assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.code(), "account_paused");
    assert_eq!(resume(&bed, CLINIC_NAME).await[0]["detail"], "unchanged: was not paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_account_makes_no_refresh_even_days_later_and_over_a_restart() {
    let bed = TestBed::new().await;
    assert_eq!(pause(&bed, CLINIC_NAME).await[0]["detail"], "paused");
    assert_eq!(pause(&bed, CLINIC_NAME).await[0]["detail"], "unchanged: paused");
    let bed = bed.restart().await;
    bed.clock.advance(std::time::Duration::from_secs(30 * 24 * 3600));
    // The lab, which is not held, is renewed for being asked.
    assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_paused");
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 0);
    let nobody = bed.operate("/pause?pattern=nobody-*", json!(null)).await;
    assert_eq!(nobody.status, 404, "{}", nobody.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_line_of_a_file_fails_alone_and_no_token_is_repeated() {
    let (bed, file) = before_the_import().await;
    let token = file[0]["refresh_token"].clone();
    let lines = json!([
        {"name": "Bad Name!", "realm": "global", "account_id": 1, "refresh_token": "s3cret-a"},
        {"name": "no-realm", "realm": "mars", "account_id": 2, "refresh_token": "s3cret-b"},
        {"name": "no-id", "realm": "global", "refresh_token": "s3cret-c"},
        {"name": "no-token", "realm": "global", "account_id": 4},
        {"name": "dead", "realm": "global", "account_id": 5, "refresh_token": "s3cret-d"},
        "s3cret-e",
        file[0],
        // The same token for another account would mix their patients.
        {"name": "twin", "realm": "global", "account_id": 6, "refresh_token": token},
        {"name": CLINIC_NAME, "realm": "global", "account_id": 7, "refresh_token": "s3cret-f"},
        file[1],
    ]);
    let paced = std::time::Duration::from_millis(250);
    let response = bed.while_time_flies(paced, bed.operate("/import", lines)).await;
    let good: Vec<bool> = response.lines().iter().map(|line| line["ok"].as_bool().unwrap()).collect();
    assert_eq!(
        good,
        [false, false, false, false, false, false, true, false, false, true],
        "{}",
        response.text()
    );
    assert!(!response.text().contains("s3cret") && !response.text().contains(token.as_str().unwrap()));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200);
    assert_eq!(bed.account("twin").await, Value::Null);

    for nonsense in [json!({"name": "x"}), json!("s3cret")] {
        let refused = bed.operate("/import", nonsense).await;
        assert_eq!((refused.status, refused.text().contains("s3cret")), (400, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_token_does_not_replace_one_that_works_unless_the_operator_says_so() {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| behavior.rotate_refresh = true)
        .config("min_gap = \"0s\"", "min_gap = \"60s\"")
        .start()
        .await;
    let stale = json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": "an-older-token"}]);
    let kept = import(&bed, "", &stale).await;
    assert!(kept[0]["result"] == "kept" && kept[0]["ok"] == true, "{kept:?}");
    bed.clock.advance(std::time::Duration::from_secs(61));
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    let paced = std::time::Duration::from_millis(250);
    let preview = bed.operate("/import?replace=true", stale.clone()).await.json();
    assert_eq!((&preview["hits"][0]["name"], &preview["done"]), (&json!(CLINIC_NAME), &json!(false)));
    assert_eq!([&preview["proven"], &preview["ready"], &preview["living"]], [&json!(1); 3]);
    let refreshes = bed.sandbox.refreshes(CLINIC).len();
    let replace = "?replace=true&confirmed=true";
    // Slowly: what is refused now is let through after a minute.
    let slowly = std::time::Duration::from_millis(10);
    let early = bed.while_time_flies(slowly, import(&bed, replace, &stale)).await;
    assert!(details(&early)[0].starts_with("not tried: the account was refreshed a moment ago"), "{early:?}");
    bed.clock.advance(std::time::Duration::from_secs(61));
    let refused = bed.while_time_flies(paced, import(&bed, replace, &stale)).await;
    assert_eq!(refused[0]["result"], "failed", "{refused:?}");
    assert_eq!(bed.account(CLINIC_NAME).await["state"], "ready", "the account keeps its own");
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    bed.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "its own token lives on");
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), refreshes + 1);
    bed.clock.advance(std::time::Duration::from_secs(61));
    let right = json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC,
        "refresh_token": bed.sandbox.refresh_tokens(CLINIC)[0]}]);
    let kept = bed.while_time_flies(paced, import(&bed, replace, &right)).await;
    assert_eq!(details(&kept), ["this token is stored already"]);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_while_the_platform_is_down_stores_the_tokens_and_says_so() {
    let (bed, file) = before_the_import().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Status(500)).on_platform(Platform::New));
    let paced = std::time::Duration::from_millis(250);
    let lines = bed.while_time_flies(paced, import(&bed, "", &file)).await;
    assert!(lines.iter().all(|line| line["ok"] == false && line["of"] == 2), "{lines:?}");
    assert!(details(&lines)[0].starts_with("stored, but the first refresh failed"), "{lines:?}");
    bed.sandbox.clear_fault_rules();
    bed.clock.advance(std::time::Duration::from_secs(3600));
    // What failed is tried again by itself, one account at a time;
    // whoever calls in that moment is told to come back.
    let mut status = 0;
    for _ in 0..30 {
        status = bed.get(CLINIC_NAME, LIST).await.status;
        if status == 200 {
            break;
        }
        bed.clock.advance(std::time::Duration::from_secs(2));
    }
    assert_eq!(status, 200, "nobody has to log in for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_way_back_and_shows_tokens_only_when_asked_to() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    let token = bed.sandbox.refresh_tokens(CLINIC).remove(0);
    let without = bed.look("/api/export").await;
    assert!(!without.text().contains(&token) && !without.text().contains("refresh_token"));
    pause(&bed, "*").await;
    let with = bed.look("/api/export?refresh_tokens=true").await.json();
    let line = json!({"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": token});
    assert_eq!(with[0], line, "the newest token after rotation");
    assert!(bed.journal(CLINIC_NAME).await.contains(&"exported".to_owned()));
    let acts: Vec<Value> = bed.audit().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(acts[acts.len() - 2..], ["export_with_refresh_tokens", "export_with_refresh_tokens"]);

    // A second gateway takes over with that file.
    let other = TestBedBuilder::new().unpaired().start().await;
    assert_eq!(import(&other, "?paused=true", &with).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_is_proven_by_a_refresh_and_both_it_and_its_successor_are_known() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    let newer = refreshed_by_the_application(&bed).await;
    let file =
        json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": newer}]);
    let replaced = import(&bed, "?replace=true&confirmed=true", &file);
    let replaced = bed.while_time_flies(std::time::Duration::from_millis(100), replaced).await;
    assert_eq!(
        (&replaced[0]["result"], details(&replaced)),
        (&json!("replaced"), vec!["refreshed; discovered"])
    );
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert!(bed.journal(CLINIC_NAME).await.contains(&"token_replaced".to_owned()));
    let exported = bed.look("/api/export?refresh_tokens=true").await.json();
    assert_ne!(exported[0]["refresh_token"], file[0]["refresh_token"], "its successor is stored");
    let again = import(&bed, "", &json!([exported[0]])).await;
    assert_eq!(details(&again), ["this token is stored already"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_succeeds_where_calls_are_served_also_right_after_a_refresh() {
    let bed = TestBedBuilder::new().config("min_gap = \"0s\"", "min_gap = \"60s\"").start().await;
    bed.clock.advance(std::time::Duration::from_secs(61));
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    pause(&bed, CLINIC_NAME).await;
    let resumed = resume(&bed, CLINIC_NAME).await;
    assert_eq!(resumed[0]["ok"], true, "{resumed:?}");
    let detail = resumed[0]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("served, good until") && detail.contains("refreshed a moment ago"),
        "{detail}"
    );
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}
