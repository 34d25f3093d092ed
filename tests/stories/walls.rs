//! Two groups of realms behind one gateway: whatever a caller of one tries, no token of the other moves, and
//! it learns nothing about who is there.

use std::collections::BTreeSet;
use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Fault, FaultRule, Platform, Region};
use http::Method;
use serde_json::json;

use crate::application::{Application, FIRST_DISCOVERY, caller};
use crate::browser::{Browser, heading};
use crate::path::key_line;
use crate::test_bed::{PASSWORD, Response, TestBed, TestBedBuilder, USER};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const WEST: u64 = 3001;
const CHINA: u64 = 3002;
const CHINA_KEY: &str = "key-of-china";
const WEST_NAME: &str = "acct-3001";
const CHINA_NAME: &str = "acct-3002";

/// `global` and `old` in the default group, `china` in its own, a caller of each for all accounts.
fn two_groups() -> TestBedBuilder {
    let china = format!(
        "\n[[callers]]\nname = \"cn\"\ngroup = \"china\"\naccounts = [\"*\"]\n{}",
        key_line(CHINA_KEY)
    );
    TestBedBuilder::new()
        .options(|options| {
            options.tls = true;
            options.host_names = true;
        })
        .account(AccountSpec::clinic(WEST, "West").with_user(USER, PASSWORD).with_orders(3))
        .account(
            AccountSpec::clinic(CHINA, "East")
                .on_platform(Platform::China)
                .with_user("east@sandbox.test", PASSWORD)
                .with_orders(3),
        )
        .config("[realms.china]", "[realms.china]\ngroup = \"china\"")
        .append(&china)
}

async fn as_china(bed: &TestBed, path: &str) -> Response {
    bed.send(bed.bare(Method::GET, path).header("X-Gateway-Key", CHINA_KEY)).await
}

/// Nobody's token was seen by the other platform.
fn assert_nothing_crossed(bed: &TestBed) {
    for call in bed.sandbox.calls() {
        let at_china = call.role.platform() == Some(Platform::China);
        if let Some(account) = call.account {
            assert_eq!(at_china, account == CHINA, "{call:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_reaches_its_own_group_and_learns_nothing_of_the_other() {
    let bed = two_groups().start().await;
    assert_eq!(bed.get(WEST_NAME, LIST).await.status, 200);
    assert_eq!(as_china(&bed, &format!("/accounts/{CHINA_NAME}{LIST}")).await.status, 200);
    bed.sandbox.clear_calls();

    let mut told = BTreeSet::new();
    for wanted in [CHINA_NAME, "3002", "china:3002", "ACCT-3002", "acct-9999", "9999", "china:9999"] {
        let by_path = bed.get(wanted, LIST).await;
        let by_header = bed.bare(Method::GET, LIST).header("X-Gateway-Key", &bed.key);
        let by_header = bed.send(by_header.header("X-Gateway-Account", wanted)).await;
        for response in [by_path, by_header] {
            assert_eq!((response.status, response.code().as_str()), (403, "account_not_allowed"), "{wanted}");
            told.insert(response.json()["detail"].to_string());
        }
    }
    for wanted in [WEST_NAME, "3001", "global:3001", "old:3001", "acct-9999"] {
        let response = as_china(&bed, &format!("/accounts/{wanted}{LIST}")).await;
        assert_eq!(response.code(), "account_not_allowed", "{wanted}");
        told.insert(response.json()["detail"].to_string());
    }
    assert_eq!(told.len(), 1, "whatever is behind the wall, and whatever is nowhere: {told:?}");
    let unnamed = as_china(&bed, LIST).await;
    assert_eq!(unnamed.code(), "account_not_chosen");
    assert!(!unnamed.text().contains(WEST_NAME), "{}", unnamed.text());
    assert!(unnamed.text().contains(CHINA_NAME), "{}", unnamed.text());
    assert!(bed.sandbox.calls().is_empty(), "none of it got to a platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_or_a_spelling_of_it_leads_no_token_to_the_other_group() {
    let bed = two_groups().start().await;
    let theirs = as_china(&bed, &format!("/accounts/{CHINA_NAME}{LIST}")).await;
    let list = theirs.json();
    let link = list["Data"][0]["URLs"][0]["Url"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned();
    let path = link.strip_prefix(bed.gateway.as_str()).unwrap_or(&link).to_owned();
    bed.sandbox.clear_calls();
    let refused = bed.follow(&path).await;
    assert_eq!(refused.code(), "account_not_allowed", "{}", refused.text());
    let host = "cn.api.china.sandbox.test";
    for path in [
        format!("/accounts/{WEST_NAME}/@{host}/itero-gen-api/v2/orders/practice"),
        format!("/accounts/{WEST_NAME}/@{host}:443/x"),
        format!("/accounts/{WEST_NAME}/@CN.API.china.sandbox.test./x"),
        format!("/accounts/{WEST_NAME}/accounts/{CHINA_NAME}{LIST}"),
        format!("/accounts/{WEST_NAME}/..%2f{CHINA_NAME}{LIST}"),
        format!("/accounts/{CHINA_NAME}/accounts/{WEST_NAME}{LIST}"),
    ] {
        let response = bed.follow(&path).await;
        assert_ne!(response.status, 200, "{path}: {}", response.text());
    }
    let own = bed.bare(Method::GET, &path).header("X-Gateway-Key", CHINA_KEY);
    assert_eq!(bed.send(own).await.status, 200);
    assert_nothing_crossed(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_answer_that_names_the_other_group_is_not_followed() {
    let bed = two_groups().start().await;
    let named = bed.sandbox.region_url(Region::China);
    let domain = named.trim_end_matches("/itero-gen-api/v2").to_owned();
    let fault = Fault::Discovers { domain, path: "/itero-gen-api/v2".to_owned() };
    bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault));
    let ask = bed.operate("/discover?pattern=acct-3001", json!(null));
    let asked = bed.while_time_flies(Duration::from_millis(50), ask).await;
    assert!(asked.text().contains("allowed_hosts"), "{}", asked.text());
    bed.sandbox.clear_calls();
    assert_eq!(bed.get(WEST_NAME, LIST).await.status, 200, "over the route that it had");
    assert_nothing_crossed(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pairing_import_switch_or_rename_takes_an_account_over_the_wall() {
    let bed = two_groups().start().await;
    // Pairing: the name is another group's.
    let order = json!({"realm": "china", "name": WEST_NAME});
    let refused = bed.operate("/pairings", order).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("another group"), "{}", refused.text());
    let invited = bed.operate("/invitations", json!({"pattern": WEST_NAME, "realm": "china"})).await;
    assert_eq!(invited.status, 400, "{}", invited.text());
    // Import, switch.
    let token = bed.sandbox.grant(CHINA).unwrap();
    let entry = json!([{"name": WEST_NAME, "realm": "china", "account_id": CHINA, "refresh_token": token}]);
    let imported = bed.operate("/import", entry).await;
    assert!(imported.text().contains("another group"), "{}", imported.text());
    assert_eq!(bed.account(WEST_NAME).await["grants"].as_array().unwrap().len(), 1);
    let switched = bed.operate(&format!("/accounts/{WEST_NAME}/switch?realm=china"), json!(null)).await;
    assert_ne!(switched.status, 200, "{}", switched.text());
    // Rename: the account goes on being of its realm's group.
    let renamed = format!("/accounts/{CHINA_NAME}/rename?to=west-of-it&confirmed=true");
    let renamed = bed.operate(&renamed, json!(null)).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text());
    assert_eq!(bed.get("west-of-it", LIST).await.code(), "account_not_allowed");
    assert_eq!(as_china(&bed, &format!("/accounts/west-of-it{LIST}")).await.status, 200);
    assert_nothing_crossed(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_had_grants_on_both_sides_before_the_wall_is_not_switched_across() {
    let bed = TestBedBuilder::new()
        .account(AccountSpec::clinic(WEST, "West").with_user(USER, PASSWORD))
        .account(AccountSpec::clinic(CHINA, "East").on_platform(Platform::China).with_user(USER, PASSWORD))
        .unpaired()
        .start()
        .await;
    for (realm, id) in [("china", CHINA), ("global", WEST)] {
        let link = bed.start_link(json!({"realm": realm, "name": "smile", "account_id": id})).await;
        let page = Browser::new(&bed).connect(&link).await;
        assert_eq!(heading(&page), "The account is connected", "{}", page.text());
    }
    bed.reconfigure("[realms.china]", "[realms.china]\ngroup = \"china\"").await;
    let switched = bed.operate("/accounts/smile/switch?realm=china", json!(null)).await;
    assert_eq!((switched.status, switched.json()["code"].as_str()), (409, Some("other_group")));
    assert_eq!(bed.account("smile").await["realm"], "global");
    let explained = bed.look("/api/accounts/smile/explain").await.text();
    assert!(explained.contains("which is of another group than realm global"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_login_and_its_tokens_stay_in_its_group() {
    let west = caller("west", "\"*\"", "");
    let east = caller("east", "\"*\"", "").replacen("accounts", "group = \"china\"\naccounts", 1);
    let bed = two_groups().append(&west).append(&east).start().await;
    let application = Application::new(&bed, "east");
    let mut browser = Browser::new(&bed);
    let authorize = application.begins(&mut browser, &[("state", "1")]).await;
    assert!(authorize.starts_with(&bed.sandbox.oauth_base(Platform::China)), "{authorize}");
    // A refresh token that was imported for the other group's account is an unknown one.
    let token = bed.sandbox.refresh_tokens(CHINA).pop().unwrap();
    let crossed = Application::new(&bed, "west");
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
    let refused = crossed.asks("/oauth2/token", &fields).await;
    assert_ne!(refused.status, 200, "{}", refused.text());
    let own = application.asks("/oauth2/token", &fields).await;
    assert_eq!(own.status, 200, "{}", own.text());
    // And its bearer opens nothing on the other side, whatever is named.
    let bearer = own.json()["access_token"].as_str().unwrap().to_owned();
    for path in [format!("/accounts/{WEST_NAME}{LIST}"), format!("/accounts/3001{LIST}")] {
        let response = bed.send(bed.bare(Method::GET, &path).bearer_auth(&bearer)).await;
        assert_eq!(response.code(), "account_not_allowed", "{}", response.text());
    }
    assert_nothing_crossed(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_a_reload_puts_into_another_group_keeps_no_login_and_no_token_of_the_old_one() {
    let bed = two_groups().append(&caller("app", "\"*\"", "")).start().await;
    let application = Application::new(&bed, "app");
    let connected = application.connects(WEST).await;
    let login = application.logs_in().await.access;
    let list = format!("{FIRST_DISCOVERY}/related-accounts");
    assert_eq!(application.get(&list, &login).await.status, 200);
    assert_eq!(application.get("/orders/practice", &connected.access).await.status, 200);

    bed.reconfigure("name = \"app\"", "name = \"app\"\ngroup = \"china\"").await;
    bed.sandbox.clear_calls();
    let listed = application.get(&list, &login).await;
    assert_eq!(listed.status, 401, "{}", listed.text());
    assert!(!listed.text().contains("3001"), "{}", listed.text());
    let used = application.get("/orders/practice", &connected.access).await;
    assert_eq!(used.code(), "account_not_allowed", "{}", used.text());
    let fields = [("grant_type", "refresh_token"), ("refresh_token", connected.refresh.as_str())];
    assert_ne!(application.asks("/oauth2/token", &fields).await.status, 200);
    assert!(bed.sandbox.calls().is_empty(), "none of it got to a platform");
}
