//! New platform, old platform and China side by side: accounts of each
//! are paired and served, and no token crosses.

use std::collections::{BTreeMap, BTreeSet};

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Platform};
use http::Method;
use serde_json::json;

use crate::browser::{Browser, heading};
use crate::test_bed::{PASSWORD, TestBed, TestBedBuilder, USER};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const NEW: u64 = 2001;
const OLD: u64 = 2002;
const CHINA: u64 = 2003;
const REALMS: [(&str, u64, Platform); 3] =
    [("global", NEW, Platform::New), ("old", OLD, Platform::Old), ("china", CHINA, Platform::China)];

async fn three_realms() -> TestBed {
    let mut setup = TestBedBuilder::new().unpaired();
    for (realm, id, platform) in REALMS {
        let account = AccountSpec::clinic(id, realm).on_platform(platform);
        setup = setup.account(account.with_user(&format!("{realm}@sandbox.test"), PASSWORD));
    }
    setup.start().await
}

async fn pair(bed: &TestBed, realm: &str, name: &str) {
    let link = bed.start_link(json!({"realm": realm, "name": name})).await;
    let page = Browser::new(bed).connect_as(&link, &format!("{realm}@sandbox.test")).await;
    assert_eq!(heading(&page), "The account is connected", "{realm}: {}", page.text());
}

/// Whose calls reached which platform, and that each platform saw tokens and credentials of its own alone.
fn assert_nothing_crossed(bed: &TestBed) {
    let mut bearers: BTreeMap<Platform, BTreeSet<u64>> = BTreeMap::new();
    for call in bed.sandbox.calls() {
        let Some(platform) = call.role.platform() else { continue };
        bearers.entry(platform).or_default().extend(call.bearer);
        for (realm, id, home) in REALMS {
            assert!(
                call.account != Some(id) || home == platform,
                "{realm}'s token came to {platform:?}: {call:?}"
            );
        }
        let foreign = Platform::ALL.into_iter().filter(|other| *other != platform);
        for client in foreign.map(|other| bed.sandbox.client(other)) {
            let body = String::from_utf8_lossy(&call.body);
            assert!(!body.contains(&client.id) && !body.contains(&client.secret), "{call:?}");
        }
    }
    let all: Vec<u64> = bearers.values().flatten().copied().collect();
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "a bearer came to two platforms");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_three_realms_are_paired_served_and_renewed_and_no_token_crosses() {
    let bed = three_realms().await;
    for (realm, ..) in REALMS {
        pair(&bed, realm, realm).await;
    }
    for (realm, id, platform) in REALMS {
        assert_eq!(bed.get(realm, LIST).await.status, 200, "{realm}");
        bed.sandbox.expire_access(id);
        assert_eq!(bed.get(realm, LIST).await.status, 200, "{realm}");
        assert_eq!(bed.sandbox.refreshes(id).len(), 1);
        let lists = bed.sandbox.calls_where(|call| call.endpoint == Some(Endpoint::OrdersPractice));
        assert_eq!(lists.last().unwrap().role.platform(), Some(platform));
    }
    assert_nothing_crossed(&bed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_belongs_to_the_realm_of_its_link() {
    let bed = three_realms().await;
    let link = bed.start_link(json!({"realm": "china"})).await;
    let mut browser = Browser::new(&bed);
    let authorize = browser.begin(&link).await;
    assert!(authorize.starts_with(&bed.sandbox.oauth_base(Platform::China)), "{authorize}");
    // The user exists and has no account there.
    let back = bed.sandbox.log_in(&authorize, "global@sandbox.test", PASSWORD).await.unwrap();
    assert_eq!(heading(&browser.open(&back).await), "No account to connect");
    let sent = bed.sandbox.calls_to(Endpoint::Exchange);
    assert!(sent.iter().all(|call| call.role.platform() == Some(Platform::China)), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_grant_in_two_realms_is_switched_there_and_back() {
    let bed = three_realms().await;
    pair(&bed, "old", "smile").await;
    pair(&bed, "global", "smile").await;
    let account = bed.account("smile").await;
    assert_eq!(account["realm"], "global", "the newest pairing is in use");
    assert_eq!(account["grants"].as_array().unwrap().len(), 2);
    for (realm, platform) in [("old", Platform::Old), ("global", Platform::New)] {
        let switched = bed.operate(&format!("/accounts/smile/switch?realm={realm}"), json!(null)).await;
        assert_eq!(switched.status, 200, "{}", switched.text());
        assert_eq!(bed.account("smile").await["realm"], realm);
        assert_eq!(bed.get("smile", LIST).await.status, 200);
        let lists = bed.sandbox.calls_to(Endpoint::OrdersPractice);
        assert_eq!(lists.last().unwrap().role.platform(), Some(platform));
    }
    let refused = bed.operate("/accounts/smile/switch?realm=china", json!(null)).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    let restarted = bed.restart().await;
    assert_eq!(restarted.get("smile", LIST).await.status, 200);
    assert_nothing_crossed(&restarted);
}

#[tokio::test(flavor = "multi_thread")]
async fn unpairing_one_realms_grant_leaves_the_other_in_use() {
    let bed = three_realms().await;
    pair(&bed, "old", "smile").await;
    pair(&bed, "global", "smile").await;
    let ended = bed.operate("/accounts/smile/unpair?realm=global&confirmed=true", json!(null)).await;
    assert_eq!(ended.json()["done"], true, "{}", ended.text());
    assert!(!bed.sandbox.is_paired(NEW) && bed.sandbox.is_paired(OLD));
    assert_eq!(bed.account("smile").await["realm"], "old");
    assert_eq!(bed.get("smile", LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_align_migrates_is_invited_logs_in_once_and_keeps_its_name() {
    let old = AccountSpec::clinic(OLD, "Moving").on_platform(Platform::Old).with_user(USER, PASSWORD);
    let bed = TestBedBuilder::new().account(old).start().await;
    assert_eq!(bed.get("acct-2002", LIST).await.status, 200);
    bed.sandbox.migrate(OLD, Platform::New);
    let response = bed.get("acct-2002", LIST).await;
    assert_eq!((response.status, response.code().as_str()), (401, "account_needs_login"));
    let invited = bed.operate("/invitations", json!({"needs_login": true, "realm": "global"})).await.json();
    assert_eq!(invited.as_array().unwrap().len(), 1, "{invited}");
    let mut browser = Browser::new(&bed);
    let choice = browser.connect(invited[0]["link"].as_str().unwrap()).await;
    let page = browser.choose(&choice, OLD).await;
    assert_eq!(heading(&page), "The account is connected", "{}", page.text());
    // The application goes on with the calls and the base URL that it always had.
    let response = bed.call(Method::GET, "acct-2002", LIST, "").await;
    assert_eq!(response.status, 200, "{}", response.text());
    let account = bed.account("acct-2002").await;
    assert_eq!((&account["realm"], &account["state"]), (&json!("global"), &json!("ready")));
}
