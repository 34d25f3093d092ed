//! The ways on which a login goes no further: each ends in a page that
//! says what to do, and nothing is left behind.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Fault, FaultRule, Platform};
use serde_json::json;

use crate::browser::{Browser, heading};
use crate::test_bed::{CLINIC, LAB, PASSWORD, Response, TestBed, TestBedBuilder};

const SOLO: u64 = 1003;
const SOLO_USER: &str = "solo@sandbox.test";
const NOBODY: &str = "nobody@sandbox.test";
const CONNECTED: &str = "The account is connected";

async fn unpaired() -> TestBed {
    let solo = AccountSpec::clinic(SOLO, "Solo").with_user(SOLO_USER, PASSWORD);
    let bed = TestBedBuilder::new().account(solo).unpaired().start().await;
    bed.sandbox.add_user(NOBODY, PASSWORD);
    bed
}

async fn solo_link(bed: &TestBed) -> String {
    bed.start_link(json!({"name": "solo"})).await
}

/// The login of the user with one account, with the waits of the platform's troubles gone by.
async fn connect(bed: &TestBed) -> Response {
    let link = solo_link(bed).await;
    let mut browser = Browser::new(bed);
    let back = browser.log_in_as(&link, SOLO_USER).await;
    bed.while_time_flies(Duration::from_millis(100), browser.open(&back)).await
}

#[track_caller]
fn assert_page(page: &Response, status: u16, title: &str) {
    assert_eq!((page.status, heading(page).as_str()), (status, title), "{}", page.text());
}

async fn assert_nothing_happened(bed: &TestBed) {
    assert!(bed.sandbox.calls_to(Endpoint::Exchange).is_empty(), "no token call");
    assert!(bed.look("/api/accounts").await.json().as_array().unwrap().is_empty(), "no account");
}

/// The milliseconds between the calls to one endpoint.
fn gaps(bed: &TestBed, endpoint: Endpoint) -> Vec<u128> {
    let at: Vec<_> = bed.sandbox.calls_to(endpoint).iter().map(|call| call.at).collect();
    at.windows(2).map(|two| two[1].since(two[0]).as_millis()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cancels_is_told_so_and_the_link_leads_further() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    let mut browser = Browser::new(&bed);
    let authorize = browser.begin(&link).await;
    let back = bed.sandbox.cancel_login(&authorize).await.unwrap();
    let page = browser.open(&back).await;
    assert_page(&page, 200, "Login cancelled");
    let path = link.strip_prefix(&bed.admin).unwrap();
    assert!(page.text().contains(&format!("href=\"{path}\"")), "{}", page.text());
    assert_nothing_happened(&bed).await;
    assert_page(&browser.connect_as(&link, SOLO_USER).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_stays_on_the_platforms_page_and_spends_nothing() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    let mut browser = Browser::new(&bed);
    let authorize = browser.begin(&link).await;
    assert!(bed.sandbox.log_in(&authorize, SOLO_USER, "wrong").await.is_err());
    assert_nothing_happened(&bed).await;
    let back = bed.sandbox.log_in(&authorize, SOLO_USER, PASSWORD).await.unwrap();
    assert_page(&browser.open(&back).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_browser_cannot_take_over_a_login_and_does_not_spoil_it() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    let mut browser = Browser::new(&bed);
    let back = browser.log_in_as(&link, SOLO_USER).await;
    let page = Browser::new(&bed).open(&back).await;
    assert_page(&page, 403, "This login began in another browser");
    assert_nothing_happened(&bed).await;
    assert_page(&browser.open(&back).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_took_longer_than_ten_minutes_is_begun_again_with_the_same_link() {
    let bed = TestBedBuilder::new().start().await;
    let invited = bed.operate("/invitations", json!({"pattern": "acct-1001"})).await.json();
    let link = invited[0]["link"].as_str().unwrap();
    let mut browser = Browser::new(&bed);
    let back = browser.log_in(link).await;
    bed.clock.advance(Duration::from_secs(601));
    assert_page(&browser.open(&back).await, 404, "This login has run out");
    assert!(bed.sandbox.calls_to(Endpoint::Exchange).is_empty(), "no token call");
    assert_page(&browser.connect(link).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_yesterday_asks_for_a_new_one() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    bed.clock.advance(Duration::from_secs(24 * 3600));
    let mut browser = Browser::new(&bed);
    assert_page(&browser.open(&link).await, 404, "This link is not valid");
    assert_page(&browser.submit(&link, &[]).await, 404, "This link is not valid");
    assert_nothing_happened(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_callback_makes_no_second_call() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    let mut browser = Browser::new(&bed);
    let back = browser.log_in_as(&link, SOLO_USER).await;
    assert_page(&browser.open(&back).await, 200, CONNECTED);
    for mut whoever in [browser, Browser::new(&bed)] {
        let page = whoever.open(&back).await;
        assert_page(&page, 410, "This login was already used");
    }
    assert_eq!(bed.sandbox.calls_to(Endpoint::Exchange).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_nobody_asked_for_leads_to_no_call_and_nothing_of_it_is_shown() {
    let bed = unpaired().await;
    let state = "A".repeat(43);
    let mut browser = Browser::new(&bed);
    for query in [
        format!("code=x&state={state}"),
        "code=x".to_owned(),
        format!("code=x&code=y&state={state}"),
        format!("code=x&state={state}&state={state}"),
        format!("error=%3Cscript%3E&error_description=%3Cscript%3E&state={state}"),
        format!("code=%0d%0aSet-Cookie:a&state={state}"),
        "code=<script>&state=<script>".to_owned(),
        String::new(),
    ] {
        let page = browser.open(&format!("{}/oauth2/callback?{query}", bed.admin)).await;
        assert!([400, 404].contains(&page.status), "{query}: {}", page.text());
        assert!(!page.text().contains("script"), "{}", page.text());
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    }
    assert_nothing_happened(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_of_one_browser_do_not_disturb_each_other() {
    let bed = unpaired().await;
    let (first, second) = (solo_link(&bed).await, bed.start_link(json!({"account_id": CLINIC})).await);
    let mut browser = Browser::new(&bed);
    let back_of_first = browser.log_in_as(&first, SOLO_USER).await;
    let back_of_second = browser.log_in(&second).await;
    assert_page(&browser.open(&back_of_first).await, 200, CONNECTED);
    assert_page(&browser.open(&back_of_second).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_on_one_link_connect_its_account_once() {
    let bed = unpaired().await;
    let link = solo_link(&bed).await;
    let mut browser = Browser::new(&bed);
    let first = browser.log_in_as(&link, SOLO_USER).await;
    let second = browser.log_in_as(&link, SOLO_USER).await;
    assert_page(&browser.open(&first).await, 200, CONNECTED);
    let late = browser.open(&second).await;
    assert_eq!(late.status, 410, "{}", late.text());
    assert!(late.text().contains("solo"), "{}", late.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_is_paired_elsewhere_has_to_be_unpaired_there_first() {
    let bed = unpaired().await;
    bed.sandbox.pair_elsewhere(LAB);
    let link = bed.start_link(json!({"name": "lab", "account_id": LAB})).await;
    let page = Browser::new(&bed).connect(&link).await;
    assert_page(&page, 409, "The account is connected to another application");
    assert!(page.text().contains("unpair"), "{}", page.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1, "a conflict is not repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_accounts_and_a_user_of_another_account_are_told_apart() {
    let bed = unpaired().await;
    let link = bed.start_link(json!({"account_id": SOLO})).await;
    let mut browser = Browser::new(&bed);
    assert_page(&browser.connect_as(&link, NOBODY).await, 403, "No account to connect");
    assert_page(&browser.connect(&link).await, 409, "A different account was expected");
    assert_page(&browser.connect_as(&link, SOLO_USER).await, 200, CONNECTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_the_old_platform_is_not_found_by_a_login_at_the_new_one() {
    let bed = unpaired().await;
    bed.sandbox.migrate(SOLO, Platform::Old);
    let page = connect(&bed).await;
    assert_page(&page, 403, "No account to connect");
    assert!(bed.sandbox.calls().iter().all(|call| call.role.platform() == Some(Platform::New)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_without_discovery_is_told_whom_to_ask() {
    let bed = unpaired().await;
    bed.sandbox.set_behavior(|behavior| behavior.discovery_enabled = false);
    let page = connect(&bed).await;
    assert_page(&page, 403, "iTero's services are not enabled for this integration");
    assert!(page.text().contains("iTeroAPISupport@aligntech.com"), "{}", page.text());
    assert!(bed.sandbox.calls_to(Endpoint::RelatedAccounts).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_trouble_at_any_step_is_waited_out_as_the_documents_advise() {
    for (endpoint, least) in [
        (Endpoint::Exchange, 1000),
        (Endpoint::Discovery, 1000),
        (Endpoint::RelatedAccounts, 1000),
        (Endpoint::Pair, 2000),
    ] {
        let bed = unpaired().await;
        bed.sandbox.inject(FaultRule::on(endpoint, Fault::Status(504)).once());
        bed.sandbox.inject(FaultRule::on(endpoint, Fault::Status(500)).once());
        assert_page(&connect(&bed).await, 200, CONNECTED);
        let gaps = gaps(&bed, endpoint);
        assert!(gaps[0] >= least && gaps[1] >= least, "{endpoint:?}: {gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_trouble_ends_after_three_tries_and_the_link_stays_good() {
    for endpoint in [Endpoint::Exchange, Endpoint::Discovery, Endpoint::RelatedAccounts, Endpoint::Pair] {
        let bed = unpaired().await;
        bed.sandbox.inject(FaultRule::on(endpoint, Fault::Status(500)));
        let page = connect(&bed).await;
        assert_page(&page, 504, "iTero does not answer");
        assert!(page.text().contains("Start again"), "{}", page.text());
        assert_eq!(bed.sandbox.calls_to(endpoint).len(), 3, "{endpoint:?}");
        bed.sandbox.clear_fault_rules();
        assert_page(&connect(&bed).await, 200, CONNECTED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_was_spent_by_a_lost_response_asks_for_a_new_login() {
    let bed = unpaired().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Exchange, Fault::Status(504)).carried_out().once());
    assert_page(&connect(&bed).await, 401, "The login was lost on the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_whose_response_was_lost_is_asked_for_again() {
    for fault in [Fault::Status(504), Fault::DropsMidBody, Fault::DropsBeforeHead] {
        let bed = unpaired().await;
        bed.sandbox.inject(FaultRule::on(Endpoint::Pair, fault).carried_out().once());
        assert_page(&connect(&bed).await, 200, CONNECTED);
        assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_the_gateways_fault_and_not_the_persons() {
    let bed = unpaired().await;
    bed.sandbox.set_client_secret(Platform::New, "another secret");
    let page = connect(&bed).await;
    assert_page(&page, 502, "iTero does not accept this gateway");
    assert!(page.text().contains("Your login is not at fault"), "{}", page.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::Exchange).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_that_leads_to_strangers_gets_no_token() {
    for domain in [
        "https://evil.test",
        "http://169.254.169.254",
        "https://127.0.0.1@evil.test",
        "https://127.0.0.1.evil.test",
    ] {
        let bed = unpaired().await;
        let fault = Fault::Discovers { domain: domain.to_owned(), path: "/itero-gen-api/v2".to_owned() };
        bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault));
        assert_page(&connect(&bed).await, 502, "iTero named an address that is not allowed");
        assert!(bed.sandbox.calls_to(Endpoint::RelatedAccounts).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_make_no_sense_store_nothing() {
    let junk = |body: &str| Fault::Responds { status: 200, body: body.to_owned() };
    for (endpoint, fault) in [
        (Endpoint::Exchange, Fault::HtmlInstead),
        (Endpoint::Exchange, junk("{\"access_token\": 5}")),
        (Endpoint::Discovery, Fault::HtmlInstead),
        (Endpoint::RelatedAccounts, Fault::HtmlInstead),
        (Endpoint::RelatedAccounts, junk("{\"Data\": [{\"AccountName\": \"no id\"}]}")),
        (Endpoint::RelatedAccounts, Fault::FailsInside200("no reason".to_owned())),
        (Endpoint::Pair, Fault::HtmlInstead),
        (Endpoint::Pair, Fault::FailsInside200("no reason".to_owned())),
        (Endpoint::Pair, junk("{\"Data\": {}, \"Status\": 1}")),
        (Endpoint::Pair, Fault::Redirects { status: 302, location: "https://evil.test/".to_owned() }),
    ] {
        let bed = unpaired().await;
        let what = format!("{endpoint:?} {fault:?}");
        bed.sandbox.inject(FaultRule::on(endpoint, fault));
        let page = connect(&bed).await;
        assert_eq!(
            (page.status, heading(&page).as_str()),
            (502, "iTero gave an answer that makes no sense"),
            "{what}"
        );
        assert!(bed.look("/api/accounts").await.json().as_array().unwrap().is_empty(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_the_platform_forbids_is_named() {
    let bed = unpaired().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Pair, Fault::Status(403)));
    let page = connect(&bed).await;
    assert_page(&page, 403, "iTero does not allow this");
    assert_eq!(bed.sandbox.calls_to(Endpoint::Pair).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_second_discovery_keeps_the_route_of_the_first() {
    let bed = unpaired().await;
    let place = genapi_gateway::sandbox::HostRole::Region(genapi_gateway::sandbox::Region::NorthAmerica);
    bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, Fault::EmptyArray).on_host(place));
    let page = connect(&bed).await;
    assert_page(&page, 200, CONNECTED);
    assert_eq!(bed.get("solo", "/itero-gen-api/v2/orders/practice").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_for_a_name_that_stands_for_another_account_changes_nothing() {
    let bed = TestBed::new().await;
    let contradiction = json!({"realm": "global", "name": "acct-1001", "account_id": LAB});
    let refused = bed.operate("/pairings", contradiction).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    // Nobody can know before the login which account this will be.
    let link = bed.start_link(json!({"name": "new-name"})).await;
    let mut browser = Browser::new(&bed);
    let choice = browser.connect(&link).await;
    let page = browser.choose(&choice, CLINIC).await;
    assert_page(&page, 409, "The account has another name already");
    assert!(bed.sandbox.calls_to(Endpoint::Pair).is_empty());
}
