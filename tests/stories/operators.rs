//! What operators ask and do: look, explain, renew, discover, call, unpair, revoke; who may, and what is
//! written down of it.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Fault, FaultRule, Region};
use http::Method;
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

async fn act(bed: &TestBed, act: &str, pattern: &str) -> Value {
    let response = bed.operate(&format!("/{act}?pattern={pattern}"), json!(null)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.lines().remove(0)
}

async fn findings(bed: &TestBed, account: &str) -> Vec<String> {
    let explained = bed.look(&format!("/api/accounts/{account}/explain")).await.json();
    let findings = explained["findings"].as_array().unwrap();
    let line = |finding: &Value| {
        format!("{}: {}", finding["level"].as_str().unwrap(), finding["what"].as_str().unwrap())
    };
    findings.iter().map(line).collect()
}

#[track_caller]
fn assert_found(findings: &[String], begins: &str, holds: &str) {
    let fits = |line: &&String| line.starts_with(begins) && line.contains(holds);
    assert!(findings.iter().any(|line| fits(&line)), "no {begins:?} with {holds:?} in {findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_by_hand_refreshes_and_discovers_once_and_says_until_when_the_token_is_good() {
    let bed = TestBed::new().await;
    bed.clock.advance(Duration::from_secs(5));
    let before = bed.account(CLINIC_NAME).await["generation"].as_u64().unwrap();
    let done = act(&bed, "renew", CLINIC_NAME).await;
    assert_eq!(done["ok"], true, "{done}");
    assert!(done["detail"].as_str().unwrap().starts_with("good until "), "{done}");
    assert_eq!((bed.sandbox.refreshes(CLINIC).len(), bed.sandbox.discoveries().len()), (1, 1));
    assert!(bed.account(CLINIC_NAME).await["generation"].as_u64().unwrap() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovering_by_hand_finds_the_new_region_without_a_refresh() {
    let bed = TestBed::new().await;
    bed.sandbox.move_region(CLINIC, Region::Europe);
    let done = act(&bed, "discover", CLINIC_NAME).await;
    let europe = bed.sandbox.region_url(Region::Europe);
    assert_eq!((&done["ok"], done["detail"].as_str().unwrap()), (&json!(true), europe.as_str()));
    assert_eq!(bed.account(CLINIC_NAME).await["route"], europe);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_discovery_by_hand_keeps_the_route_and_says_why() {
    let bed = TestBed::new().await;
    let before = bed.account(CLINIC_NAME).await["route"].clone();
    bed.sandbox.set_behavior(|behavior| behavior.discovery_enabled = false);
    let done = act(&bed, "discover", CLINIC_NAME).await;
    assert_eq!(done["ok"], false, "{done}");
    assert_eq!(bed.account(CLINIC_NAME).await["route"], before);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_as_an_account_reports_its_status_size_and_links_and_shows_the_body_only_when_asked() {
    let bed = TestBed::new().await;
    let path = format!("/accounts/{CLINIC_NAME}/call");
    let report = bed.operate(&path, json!({"method": "GET", "path": "/orders/practice"})).await.json();
    assert_eq!(
        (&report["status"], &report["body"], &report["code"]),
        (&json!(200), &json!(null), &json!(null))
    );
    assert!(report["links"].as_u64().unwrap() >= 3 && report["bytes"].as_u64().unwrap() > 100, "{report}");
    let with_body = json!({"method": "GET", "path": "/orders/practice", "with_body": true});
    let report = bed.operate(&path, with_body).await.json();
    assert!(report["body"].as_str().unwrap().contains(&bed.gateway), "links lead through the gateway");
    let denied =
        bed.operate(&path, json!({"method": "DELETE", "path": "/unpair-account", "body": "{}"})).await;
    assert_eq!(denied.json()["code"], "call_not_allowed", "{}", denied.text());
    assert!(bed.sandbox.calls_to(Endpoint::Unpair).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_a_healthy_a_paused_a_dead_and_a_troubled_account_apart() {
    let bed = TestBed::new().await;
    bed.get(CLINIC_NAME, LIST).await;
    let healthy = findings(&bed, CLINIC_NAME).await;
    assert_found(&healthy, "ok", "served");
    assert_found(&healthy, "ok", "good until");
    assert!(!healthy.iter().any(|line| line.starts_with("trouble")), "{healthy:#?}");
    assert_found(&findings(&bed, LAB_NAME).await, "note", "No call has come in");

    act(&bed, "pause", LAB_NAME).await;
    assert_found(&findings(&bed, LAB_NAME).await, "note", "paused");
    // Before the token's life is over, so that the keeper's own renewal finds the trouble too.
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Status(500)));
    bed.clock.advance(Duration::from_secs(4 * 24 * 3600));
    assert_found(&findings(&bed, CLINIC_NAME).await, "note", "gone quiet");

    bed.while_time_flies(Duration::from_millis(250), act(&bed, "renew", CLINIC_NAME)).await;
    assert_found(&findings(&bed, CLINIC_NAME).await, "trouble", "renewal failed");

    bed.sandbox.clear_fault_rules();
    bed.sandbox.forget_refresh(CLINIC);
    bed.clock.advance(Duration::from_secs(3600));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_needs_login");
    let dead = findings(&bed, CLINIC_NAME).await;
    assert_found(&dead, "trouble", "The account's grant no longer works, since ");
    assert!(!dead.iter().any(|line| line.contains("account_needs_login")), "it is said once: {dead:#?}");
    let explained = bed.look(&format!("/api/accounts/{CLINIC_NAME}/explain")).await.json();
    let fixes = explained["findings"].to_string();
    assert!(fixes.contains("accounts pair --realm global --name acct-1001"), "{fixes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_order_list_and_a_broken_download_show_in_explain() {
    let idle = AccountSpec::clinic(1003, "Idle").with_orders(0);
    let bed = TestBedBuilder::new().account(idle).start().await;
    assert_eq!(bed.get("acct-1003", LIST).await.status, 200);
    assert_found(&findings(&bed, "acct-1003").await, "note", "order list was empty");

    let order = bed.sandbox.order_ids(CLINIC)[0];
    bed.sandbox.inject(FaultRule::on(Endpoint::Download, Fault::DropsMidBody).once());
    let url = format!("{}/accounts/{CLINIC_NAME}/itero-gen-api/v2/order/{order}/download/IDE", bed.gateway);
    let cut =
        bed.bare(Method::GET, url.strip_prefix(&bed.gateway).unwrap()).header("X-Gateway-Key", &bed.key);
    let response = cut.send().await.unwrap();
    assert!(response.bytes().await.is_err(), "a short file never looks whole");
    assert_found(&findings(&bed, CLINIC_NAME).await, "trouble", "download ended before its last byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn unpairing_says_whom_it_hits_and_does_nothing_until_it_is_confirmed() {
    let bed = TestBed::new().await;
    let path = format!("/accounts/{CLINIC_NAME}/unpair");
    let preview = bed.operate(&path, json!(null)).await.json();
    assert_eq!((&preview["done"], &preview["account_id"]), (&json!(false), &json!(CLINIC)));
    assert!(preview["hits"].to_string().contains("Every user"), "{preview}");
    assert!(bed.sandbox.calls_to(Endpoint::Unpair).is_empty() && bed.sandbox.is_paired(CLINIC));

    let done = bed.operate(&format!("{path}?confirmed=true"), json!(null)).await.json();
    assert_eq!((&done["done"], &done["detail"]), (&json!(true), &json!("Done.")), "{done}");
    assert!(!bed.sandbox.is_paired(CLINIC) && bed.sandbox.is_paired(LAB));
    let sent = bed.sandbox.calls_to(Endpoint::Unpair);
    assert_eq!(sent[0].body, format!("{{\"AccountId\":{CLINIC}}}"), "the body goes with the DELETE");
    assert_eq!(bed.account(CLINIC_NAME).await, Value::Null);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_unknown");
    assert_eq!(bed.get(LAB_NAME, "/itero-gen-api/v2/orders/lab").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_kills_the_grant_and_keeps_the_account_known() {
    let bed = TestBed::new().await;
    let path = format!("/accounts/{CLINIC_NAME}/revoke");
    assert_eq!(bed.operate(&path, json!(null)).await.json()["done"], false);
    assert!(bed.sandbox.calls_to(Endpoint::Revoke).is_empty());
    let done = bed.operate(&format!("{path}?confirmed=true"), json!(null)).await.json();
    assert_eq!(done["done"], true, "{done}");
    assert!(bed.sandbox.refresh_tokens(CLINIC).is_empty());
    assert_eq!(bed.account(CLINIC_NAME).await["state"], "needs_login");
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_needs_login");
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 0, "nobody tries a token that is known to be dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_for_holders_of_its_token_and_not_for_web_pages() {
    let bed = TestBed::new().await;
    let token = format!("Bearer {}", bed.admin_token);
    for (path, header) in [
        ("/api/accounts", None),
        ("/api/accounts", Some(("authorization", "Bearer wrong"))),
        ("/api/export?refresh_tokens=true", Some(("authorization", "Basic x"))),
    ] {
        let mut request = bed.browse(Method::GET, path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        assert_eq!(bed.send(request).await.status, 401, "{path} {header:?}");
    }
    let page = bed.browse(Method::POST, "/api/pause?pattern=*").header("authorization", &token);
    let refused = bed.send(page.header("origin", "https://evil.test")).await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("origin_refused")));
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "nothing was paused");
    for open in ["/healthz", "/readyz", "/metrics"] {
        let response = bed.send(bed.browse(Method::GET, open)).await;
        assert_eq!(response.status, 200, "{open}");
        assert!(!response.text().contains(CLINIC_NAME), "{open} names nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_leaves_a_line_before_and_after_it_and_a_refused_one_says_why() {
    let bed = TestBed::new().await;
    let already = bed.audit().len();
    act(&bed, "pause", CLINIC_NAME).await;
    act(&bed, "resume", CLINIC_NAME).await;
    act(&bed, "renew", CLINIC_NAME).await;
    act(&bed, "discover", CLINIC_NAME).await;
    bed.operate(
        &format!("/accounts/{CLINIC_NAME}/call"),
        json!({"method": "GET", "path": "/orders/practice"}),
    )
    .await;
    bed.operate("/invitations", json!({"pattern": CLINIC_NAME})).await;
    bed.start_link(json!({"name": CLINIC_NAME})).await;
    bed.look("/api/export").await;
    bed.operate("/import", json!([])).await;
    bed.operate(&format!("/accounts/{CLINIC_NAME}/switch?realm=mars"), json!(null)).await;
    bed.operate(&format!("/accounts/{CLINIC_NAME}/revoke"), json!(null)).await;
    bed.operate(&format!("/accounts/{CLINIC_NAME}/revoke?confirmed=true"), json!(null)).await;
    let lines = bed.audit().split_off(already);
    let written: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {}", line["action"].as_str().unwrap(), line["outcome"].as_str().unwrap()))
        .collect();
    let mut expected = Vec::new();
    for action in ["pause", "resume", "renew", "discover", "call", "invite", "pair", "export", "import"] {
        expected.extend([format!("{action} asked"), format!("{action} done")]);
    }
    expected.extend(["switch asked", "switch refused", "revoke asked", "revoke done"].map(str::to_owned));
    assert_eq!(written, expected, "a preview is no act");
    for pair in lines.chunks(2) {
        assert_eq!(pair[0]["request_id"], pair[1]["request_id"]);
        assert_eq!(pair[0]["from"], "127.0.0.1");
    }
    assert!(!std::fs::read_to_string(&bed.running.config().admin.audit).unwrap().contains("/connect/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_accounts_and_callers_were_last_seen_outlives_a_restart() {
    let bed = TestBed::new().await;
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(bed.get("nobody", LIST).await.status, 404);
    let before = bed.account(CLINIC_NAME).await["signals"].clone();
    let callers = bed.look("/api/callers").await.json();
    assert_eq!((&before["last_list_links"], &callers[0]["name"]), (&json!(6), &json!("sandbox-caller")));
    assert_eq!(callers[0]["signals"]["last_success_at"], before["last_success_at"]);
    assert_eq!(callers[0]["signals"]["last_refusal"], "account_unknown");
    assert_eq!(callers[0]["signals"]["last_call_at"], json!(bed.now()));
    let bed = bed.restart().await;
    assert_eq!(bed.account(CLINIC_NAME).await["signals"], before);
    assert_eq!(bed.look("/api/callers").await.json(), callers);
    let never = bed.account(LAB_NAME).await["signals"].clone();
    assert!(never.as_object().unwrap().values().all(Value::is_null), "{never}");
}
