//! The ways that lead to a connected account: a real login through
//! the sandbox, from the link to the first call.

use std::time::Duration;

use genapi_gateway::sandbox::{
    AccountSpec, DomainForm, Endpoint, Fault, FaultRule, Gate, HostRole, RecordedCall, StatusForm,
};
use http::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, between, heading};
use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, PASSWORD, TestBed, TestBedBuilder, USER};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
/// Belongs to one account only.
const SOLO: u64 = 1003;
const SOLO_USER: &str = "solo@sandbox.test";

/// Nothing is paired yet; one user has two accounts, another has one.
fn unpaired() -> TestBedBuilder {
    let solo = AccountSpec::clinic(SOLO, "Söhne & Töchter").with_user(SOLO_USER, PASSWORD);
    TestBedBuilder::new().account(solo).unpaired()
}

/// The calls of a login that the gateway makes itself, in their order.
fn control_calls(bed: &TestBed) -> Vec<RecordedCall> {
    let browsers = [Some(Endpoint::Authorize), Some(Endpoint::LoginPage)];
    bed.sandbox.calls_where(|call| !browsers.contains(&call.endpoint))
}

async fn pair_solo(bed: &TestBed) -> Value {
    let link = bed.start_link(json!({"callback_url": "https://lab.example.com/scans"})).await;
    let page = Browser::new(bed).connect_as(&link, SOLO_USER).await;
    assert_eq!((page.status, heading(&page).as_str()), (200, "The account is connected"), "{}", page.text());
    assert!(page.text().contains("Söhne &#38; Töchter"), "{}", page.text());
    let account = bed.account("soehne-toechter").await;
    assert_eq!(account["state"], "ready", "{account}");
    account
}

/// Connects an account whatever the platform's habits are, serves a call, renews, serves another.
async fn pairs_serves_and_renews(bed: TestBed) {
    pair_solo(&bed).await;
    assert_eq!(bed.get("soehne-toechter", LIST).await.status, 200);
    bed.sandbox.expire_access(SOLO);
    assert_eq!(bed.get("soehne-toechter", LIST).await.status, 200);
    assert_eq!(bed.sandbox.refreshes(SOLO).len(), 1);
    let bed = bed.restart().await;
    bed.sandbox.expire_access(SOLO);
    assert_eq!(bed.get("soehne-toechter", LIST).await.status, 200, "after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_account_is_connected_in_the_documented_order_and_served_at_once() {
    let bed = unpaired().start().await;
    pair_solo(&bed).await;
    let made: Vec<(Endpoint, HostRole)> =
        control_calls(&bed).iter().map(|call| (call.endpoint.unwrap(), call.role)).collect();
    use genapi_gateway::sandbox::{Platform::New, Region::NorthAmerica};
    let region = HostRole::Region(NorthAmerica);
    let expected = [
        (Endpoint::Exchange, HostRole::Identity(New)),
        (Endpoint::Discovery, HostRole::Base(New)),
        (Endpoint::RelatedAccounts, region),
        (Endpoint::Pair, region),
        (Endpoint::Discovery, region),
    ];
    assert_eq!(made, expected);
    assert_eq!(bed.get("soehne-toechter", LIST).await.status, 200);
    assert_eq!(bed.sandbox.refreshes(SOLO).len(), 0, "the pair tokens are fresh");
    assert_eq!(bed.sandbox.callback_url(SOLO).as_deref(), Some("https://lab.example.com/scans"));
    assert_eq!(bed.journal("soehne-toechter").await, ["paired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn login_tokens_serve_the_pairing_alone_and_are_forgotten_without_a_revocation() {
    let bed = unpaired().start().await;
    pair_solo(&bed).await;
    bed.get("soehne-toechter", LIST).await;
    let calls = control_calls(&bed);
    let bearers: Vec<u64> = calls.iter().filter_map(|call| call.bearer).collect();
    let [login, pair] = [bearers[0], bearers[3]];
    assert_ne!(login, pair);
    assert_eq!(bearers, [login, login, login, pair, pair]);
    assert!(bed.sandbox.calls_to(Endpoint::Revoke).is_empty());
    let stored = bed.running.store().accounts().await.unwrap().accounts;
    let grants: Vec<&str> = stored.iter().flat_map(|a| &a.grants).map(|g| g.refresh.expose()).collect();
    assert_eq!(grants, bed.sandbox.refresh_tokens(SOLO), "only the pair token is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_for_an_account_connects_it_without_asking_which() {
    let bed = unpaired().start().await;
    let link = bed.start_link(json!({"name": "berlin", "account_id": CLINIC})).await;
    let page = Browser::new(&bed).connect(&link).await;
    assert_eq!((page.status, heading(&page).as_str()), (200, "The account is connected"));
    assert_eq!(bed.account("berlin").await["account_id"], json!(CLINIC));
    assert!(!bed.sandbox.is_paired(LAB));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_accounts_the_person_chooses_once() {
    let bed = unpaired().start().await;
    let link = bed.start_link(json!({})).await;
    let mut browser = Browser::new(&bed);
    let page = browser.connect(&link).await;
    assert_eq!(heading(&page), "Which account is to be connected?");
    assert!(page.text().contains("Smile Berlin") && page.text().contains("Crown Lab"), "{}", page.text());
    assert!(bed.sandbox.calls_to(Endpoint::Pair).is_empty(), "nothing is paired before somebody chose");

    let stranger = Browser::new(&bed).choose(&page, CLINIC).await;
    assert_eq!((stranger.status, bed.sandbox.calls_to(Endpoint::Pair).len()), (403, 0));
    let done = browser.choose(&page, LAB).await;
    assert_eq!((done.status, heading(&done).as_str()), (200, "The account is connected"));
    assert_eq!(bed.account("crown-lab").await["account_id"], json!(LAB));
    assert!(!bed.sandbox.is_paired(CLINIC));
    let again = browser.choose(&page, CLINIC).await;
    assert_eq!(again.status, 410, "{}", again.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_callback_url_is_warned_of_and_a_bad_one_is_refused_before_anybody_logs_in() {
    let bed = unpaired().start().await;
    let started = bed.operate("/pairings", json!({"realm": "global", "name": "solo"})).await.json();
    let warning = started["warnings"][0].as_str().unwrap();
    assert!(warning.contains("callback URL") && warning.contains("unpairing"), "{warning}");
    let order = json!({"realm": "global", "callback_url": "https://lab.example.com/scans"});
    assert_eq!(bed.operate("/pairings", order).await.json()["warnings"], json!([]));
    for bad in
        ["ftp://lab.example.com/", "lab.example.com", "https://a:b@lab.example.com/", "https://x.example/#y"]
    {
        let refused = bed.operate("/pairings", json!({"realm": "global", "callback_url": bad})).await;
        assert_eq!(refused.status, 400, "{bad}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("callback URL"), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_number_warnings_are_shown_to_the_person_and_stay_out_of_the_journal() {
    let clinic = AccountSpec {
        chart_trouble: true,
        ..AccountSpec::clinic(1004, "Charts").with_user("c@sandbox.test", PASSWORD)
    };
    let bed = TestBedBuilder::new().account(clinic).unpaired().start().await;
    let link = bed.start_link(json!({"name": "charts"})).await;
    let page = Browser::new(&bed).connect_as(&link, "c@sandbox.test").await;
    assert_eq!(heading(&page), "The account is connected");
    let warning = between(&page.text(), "<li>", "</li>").to_lowercase();
    assert!(warning.contains("chart"), "{warning}");
    bed.running.journal().flush().await;
    let journal = bed.look("/api/accounts/charts/journal").await.json();
    let line = journal[0]["detail"].as_str().unwrap();
    assert!(line.contains("iTero warns"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_gateway_no_browser_reaches_pastes_the_redirected_url_and_chooses() {
    let bed = unpaired().start().await;
    let started = bed.operate("/pairings", json!({"realm": "global", "paste": true})).await.json();
    let ticket = started["ticket"].as_str().unwrap();
    let back = bed.sandbox.log_in(started["authorize_url"].as_str().unwrap(), USER, PASSWORD).await.unwrap();
    assert!(
        back.starts_with(started["url"].as_str().unwrap()),
        "the answer says how the URL to paste begins"
    );

    let nonsense =
        bed.operate("/pairings/finish", json!({"ticket": ticket, "redirected_url": "https://evil.test/"}));
    assert_eq!(nonsense.await.json()["outcome"], "failed");
    let by_browser = Browser::new(&bed).open(&back).await;
    assert_eq!(by_browser.status, 403, "a pasted login is the operator's alone");
    let pasted = format!("  \"{back}\"\n");
    let choice =
        bed.operate("/pairings/finish", json!({"ticket": ticket, "redirected_url": pasted})).await.json();
    assert_eq!(
        (&choice["outcome"], choice["accounts"].as_array().unwrap().len()),
        (&json!("choose"), 2),
        "{choice}"
    );
    let chosen = json!({"ticket": choice["ticket"], "account_id": CLINIC});
    let done = bed.operate("/pairings/finish", chosen).await.json();
    assert_eq!((&done["outcome"], &done["account"]), (&json!("paired"), &json!("smile-berlin")), "{done}");
    let again =
        bed.operate("/pairings/finish", json!({"ticket": ticket, "redirected_url": back})).await.json();
    assert_eq!((&again["outcome"], bed.sandbox.calls_to(Endpoint::Exchange).len()), (&json!("failed"), 1));
    assert_eq!(bed.get("smile-berlin", LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_login_heals_an_account_that_needs_one_under_its_old_name() {
    let bed = TestBed::new().await;
    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_needs_login");
    let invited = bed.operate("/invitations", json!({"needs_login": true})).await.json();
    assert_eq!(invited.as_array().unwrap().len(), 1, "{invited}");
    // Mailed, and opened days later.
    bed.clock.advance(Duration::from_secs(5 * 24 * 3600));
    let page = Browser::new(&bed).connect(invited[0]["link"].as_str().unwrap()).await;
    assert!(page.text().contains("connected again"), "{}", page.text());
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.account(CLINIC_NAME).await["state"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_account_that_is_paired_again_stays_paused_until_it_is_resumed() {
    let bed = TestBed::new().await;
    bed.operate(&format!("/pause?pattern={CLINIC_NAME}"), json!(null)).await;
    let link = bed.start_link(json!({"name": CLINIC_NAME})).await;
    let page = Browser::new(&bed).connect(&link).await;
    assert!(page.text().contains("paused"), "{}", page.text());
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.code(), "account_paused");
    bed.operate(&format!("/resume?pattern={CLINIC_NAME}"), json!(null)).await;
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_hangs_up_while_the_platform_pairs_does_not_lose_the_tokens() {
    let bed = unpaired().start().await;
    let link = bed.start_link(json!({"name": "solo"})).await;
    let mut browser = Browser::new(&bed);
    let back = browser.log_in_as(&link, SOLO_USER).await;
    let gate = Gate::new();
    bed.sandbox.inject(FaultRule::on(Endpoint::Pair, Fault::HeldBy(gate.clone())).once());
    {
        let opened = browser.open(&back);
        tokio::pin!(opened);
        tokio::select! {
            _ = &mut opened => panic!("answered before the platform did"),
            () = gate.until_waiting(1) => {}
        }
    }
    gate.open();
    // The second discovery comes after the tokens were written.
    bed.sandbox.until_calls(2, |call| call.endpoint == Some(Endpoint::Discovery)).await;
    assert_eq!(bed.get("solo", LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_scanners_that_open_a_link_use_nothing_up() {
    let bed = unpaired().start().await;
    let link = bed.start_link(json!({"name": "solo"})).await;
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let path = link.strip_prefix(&bed.admin).unwrap();
        assert_eq!(bed.send(bed.browse(method, path)).await.status, 200);
    }
    let page = Browser::new(&bed).connect_as(&link, SOLO_USER).await;
    assert_eq!(heading(&page), "The account is connected");
    let used = Browser::new(&bed).open(&link).await;
    assert_eq!(used.status, 410, "{}", used.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_field_names_have_trailing_blanks() {
    pairs_serves_and_renews(unpaired().behavior(|behavior| behavior.trailing_blanks = true).start().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_account_ids_are_strings() {
    pairs_serves_and_renews(
        unpaired().behavior(|behavior| behavior.account_id_as_string = true).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_domains_have_no_scheme() {
    // Without a scheme https is meant, so the sandbox has to speak it.
    let setup = unpaired().options(|options| options.tls = true);
    pairs_serves_and_renews(setup.behavior(|behavior| behavior.domain_form = DomainForm::Bare).start().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_domains_end_with_a_slash() {
    pairs_serves_and_renews(
        unpaired().behavior(|behavior| behavior.domain_form = DomainForm::TrailingSlash).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_status_is_a_word() {
    pairs_serves_and_renews(
        unpaired().behavior(|behavior| behavior.status_form = StatusForm::Text).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_refresh_tokens_rotate() {
    pairs_serves_and_renews(unpaired().behavior(|behavior| behavior.rotate_refresh = true).start().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_where_only_base_url_serves_discovery() {
    pairs_serves_and_renews(
        unpaired().behavior(|behavior| behavior.discovery_at_domain = false).start().await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_holds_with_tokens_of_8_k_and_another_path() {
    let behavior = |behavior: &mut genapi_gateway::sandbox::Behavior| {
        behavior.token_size = 8192;
        behavior.path = "/itero-gen-api/v3".to_owned();
    };
    pairs_serves_and_renews(unpaired().behavior(behavior).start().await).await;
}
