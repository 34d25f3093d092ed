//! Renewals meet trouble: whose fault it is decides, no grant is given up that could live, and whoever has a
//! living token is served.

use std::time::Duration;

use genapi_gateway::model::account::{AccountName, AccountState};
use genapi_gateway::sandbox::{
    AccountSpec, Behavior, Endpoint, Fault, FaultRule, HostRole, InvalidTokens, Platform, RecordedCall,
    Region,
};
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, TestBed, TestBedBuilder};

const LIST: &str = "/itero-gen-api/v2/orders/practice";
const LAB_LIST: &str = "/itero-gen-api/v2/orders/lab";
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The vendor's unknowns that a renewal meets, each with its name.
type Variant = (&'static str, fn(&mut Behavior));

const VARIANTS: [Variant; 4] = [
    ("401", |_| {}),
    ("403", |behavior| behavior.expiry_status = 403),
    ("rotation", |behavior| (behavior.rotate_refresh, behavior.expiry_status) = (true, 403)),
    ("no refresh token in the answer", |behavior| behavior.refresh_token_in_response = false),
];

async fn get(bed: &TestBed, account: &str, path: &str) -> Response {
    bed.while_time_flies(Duration::from_millis(100), bed.get(account, path)).await
}

/// Served again by itself, within the documented waits and our longest hold after the end of the trouble.
async fn assert_recovers(bed: &TestBed, account: &str, path: &str) {
    let mut last = None;
    for _ in 0..40 {
        let response = get(bed, account, path).await;
        if response.status == 200 {
            return;
        }
        last = Some((response.status, response.text()));
        bed.clock.advance(Duration::from_secs(5));
    }
    panic!("{account} does not recover: {last:?}");
}

async fn state(bed: &TestBed, account: &str) -> String {
    bed.account(account).await["state"].as_str().unwrap().to_owned()
}

async fn count(bed: &TestBed, account: &str, event: &str) -> usize {
    bed.journal(account).await.iter().filter(|line| *line == event).count()
}

/// What `/readyz?verbose` says about the realm.
async fn realm_health(bed: &TestBed, realm: &str) -> (bool, String) {
    let readiness = bed.look("/readyz?verbose").await;
    assert_eq!(readiness.status, 200, "trouble of a realm does not take the gateway out of service");
    let parts = readiness.json()["parts"].clone();
    let of_realm = |part: &&Value| part["detail"].as_str().unwrap().starts_with(&format!("{realm}: "));
    let part = parts.as_array().unwrap().iter().find(of_realm).unwrap().clone();
    (part["ok"].as_bool().unwrap(), part["detail"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_that_fails_or_lies_keeps_the_last_good_route_and_tells_it_once() {
    let hostile =
        |domain: &str| Fault::Discovers { domain: domain.to_owned(), path: "/itero-gen-api/v2".to_owned() };
    let odd_path =
        |path: &str| Fault::Discovers { domain: "http://127.0.0.1".to_owned(), path: path.to_owned() };
    let faults = [
        Fault::EmptyArray,
        hostile("https://evil.test"),
        hostile("https://127.0.0.1.evil.test"),
        hostile("http://user:pw@127.0.0.1"),
        hostile("http://169.254.169.254"),
        hostile("http://127.0.0.1/../x"),
        hostile("ftp://127.0.0.1"),
        hostile(""),
        odd_path("/../admin"),
        odd_path("itero-gen-api"),
        odd_path("/a?b=c"),
        odd_path("/a\r\nX: y"),
        Fault::Redirects { status: 302, location: "https://evil.test/".to_owned() },
        Fault::HtmlInstead,
        Fault::Responds { status: 200, body: "[]".to_owned() },
        Fault::Responds { status: 200, body: "{\"APIs\":null}".to_owned() },
        Fault::Responds { status: 200, body: "{\"APIs\":[{\"Domain\":5}]}".to_owned() },
        Fault::Status(400),
        Fault::Status(401),
        Fault::DropsMidBody,
        Fault::Garbage,
    ];
    let bed = TestBed::new().await;
    let route = bed.account(CLINIC_NAME).await["route"].clone();
    for fault in faults {
        bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, fault.clone()));
        let told = count(&bed, CLINIC_NAME, "discovery_failed").await;
        for _ in 0..2 {
            bed.sandbox.expire_access(CLINIC);
            assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200, "{fault:?}");
            assert_eq!(bed.account(CLINIC_NAME).await["route"], route, "{fault:?}");
        }
        assert_eq!(count(&bed, CLINIC_NAME, "discovery_failed").await, told + 1, "{fault:?}");
        bed.sandbox.clear_fault_rules();
        bed.operate(&format!("/discover?pattern={CLINIC_NAME}"), Value::Null).await;
    }
    let series = "genapi_gateway_renewals_total{realm=\"global\",outcome=\"discovery_failed\"}";
    assert!(bed.metric(series).await >= 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_works_where_only_base_url_serves_it() {
    let bed = TestBedBuilder::new().behavior(|behavior| behavior.discovery_at_domain = false).start().await;
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
    let places: Vec<HostRole> = bed.sandbox.discoveries().iter().map(|call| call.role).collect();
    assert_eq!(
        places,
        [HostRole::Region(Region::NorthAmerica), HostRole::Base(Platform::New)],
        "Domain first"
    );
    assert_eq!(count(&bed, CLINIC_NAME, "discovery_failed").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_moved_to_another_region_is_followed_whatever_tells_it() {
    for (name, behavior) in VARIANTS {
        let bed = TestBedBuilder::new()
            .behavior(behavior)
            .behavior(|behavior| behavior.wrong_region_status = behavior.expiry_status)
            .start()
            .await;
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        bed.sandbox.move_region(CLINIC, Region::AsiaPacific);
        assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200, "{name}");
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "{name}");
        assert_eq!(
            bed.sandbox.calls_to(Endpoint::OrdersPractice).pop().unwrap().role,
            HostRole::Region(Region::AsiaPacific)
        );
        assert_eq!(count(&bed, CLINIC_NAME, "route_changed").await, 2, "{name}: first found, then moved");
        bed.sandbox.move_region(CLINIC, Region::Europe);
        bed.operate(&format!("/discover?pattern={CLINIC_NAME}"), Value::Null).await;
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "{name}: discovery alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_from_the_token_endpoint_changes_nothing_and_the_account_recovers_by_itself() {
    let junk = [
        InvalidTokens::NoAccessToken,
        InvalidTokens::AccessTokenIsNull,
        InvalidTokens::AccessTokenIsNumber,
        InvalidTokens::EmptyAccessToken,
        InvalidTokens::LineBreakInAccessToken,
        InvalidTokens::AccessTokenOfLength(60_000),
        InvalidTokens::HalfOfTheJson,
        InvalidTokens::Huge(5 * 1024 * 1024),
        InvalidTokens::GzipBomb(20 * 1024 * 1024),
    ];
    let mut faults: Vec<Fault> = junk.into_iter().map(Fault::JunkToken).collect();
    faults.extend([
        Fault::HtmlInstead,
        Fault::Redirects { status: 302, location: "https://evil.test/oauth2/token".to_owned() },
        Fault::Responds { status: 200, body: String::new() },
        Fault::Responds { status: 204, body: String::new() },
        Fault::Garbage,
        Fault::Unsolicited101,
    ]);
    let bed = TestBed::new().await;
    let name: AccountName = CLINIC_NAME.parse().unwrap();
    for fault in faults {
        let before = bed.running.store().account(&name).await.unwrap().unwrap();
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, fault.clone()).for_account(CLINIC));
        bed.sandbox.expire_access(CLINIC);
        let response = get(&bed, CLINIC_NAME, LIST).await;
        assert_eq!((response.status, response.code().as_str()), (503, "token_unavailable"), "{fault:?}");
        let after = bed.running.store().account(&name).await.unwrap().unwrap();
        let grant = |record: &genapi_gateway::store::AccountRecord| {
            let grant = record.current_grant().unwrap();
            (grant.generation, grant.refresh.expose().to_owned())
        };
        // A refresh token that came without a usable access token is kept, with the one before it beside it.
        if !matches!(fault, Fault::JunkToken(_)) {
            assert_eq!(grant(&before), grant(&after), "{fault:?}");
        }
        assert_eq!(after.state, AccountState::Ready);
        assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200, "{fault:?}: the others are untouched");
        bed.sandbox.clear_fault_rules();
        assert_recovers(&bed, CLINIC_NAME, LIST).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_client_credentials_keep_every_grant_and_heal_with_a_reload() {
    for (name, behavior) in VARIANTS {
        let bed = TestBedBuilder::new()
            .behavior(behavior)
            .account(AccountSpec::clinic(1003, "Third"))
            .account(AccountSpec::clinic(1004, "Fourth"))
            .start()
            .await;
        bed.sandbox.set_client_secret(Platform::New, "another-secret");
        let accounts = [
            (1001, "acct-1001", LIST),
            (1002, "acct-1002", LAB_LIST),
            (1003, "acct-1003", LIST),
            (1004, "acct-1004", LIST),
        ];
        for (id, account, path) in accounts {
            bed.sandbox.expire_access(id);
            let response = get(&bed, account, path).await;
            assert!([401, 403, 503].contains(&response.status), "{name} {account}: {}", response.text());
        }
        // A 403 may mean what it says, so it passes where nothing better can be had.
        let codes = if bed.sandbox.behavior().expiry_status == 403 { "" } else { "token_unavailable" };
        for (_, account, path) in accounts {
            assert_eq!(state(&bed, account).await, "ready", "{name} {account}");
            assert_eq!(get(&bed, account, path).await.code(), codes, "{name} {account}");
        }
        let (ok, detail) = realm_health(&bed, "global").await;
        assert!(!ok && detail.contains("client credentials"), "{name}: {detail}");
        assert!(bed.sandbox.calls_to(Endpoint::Refresh).len() <= 5, "{name}: nothing is hammered");

        std::fs::write(bed.folder().join("client-global.secret"), "another-secret").unwrap();
        bed.running.reload().await;
        for (_, account, path) in accounts {
            assert_recovers(&bed, account, path).await;
        }
        assert_eq!(realm_health(&bed, "global").await.1, "global: in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_credentials_that_the_vendor_puts_right_heal_by_themselves() {
    let bed = TestBed::new().await;
    bed.sandbox.set_client_secret(Platform::New, "a-mistake");
    bed.sandbox.expire_access(CLINIC);
    bed.sandbox.expire_access(LAB);
    get(&bed, CLINIC_NAME, LIST).await;
    get(&bed, LAB_NAME, LAB_LIST).await;
    assert!(!realm_health(&bed, "global").await.0);
    bed.sandbox.set_client_secret(Platform::New, "sandbox-secret-new-platform");
    bed.clock.advance(6 * MINUTE);
    assert_recovers(&bed, CLINIC_NAME, LIST).await;
    assert_recovers(&bed, LAB_NAME, LAB_LIST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_token_endpoint_is_not_felt_while_tokens_live_and_ends_for_all() {
    for fault in [Fault::Status(500), Fault::Status(504), Fault::DropsBeforeHead, Fault::HtmlInstead] {
        let bed = TestBedBuilder::new().account(AccountSpec::clinic(1003, "Third")).start().await;
        let accounts = [("acct-1001", LIST), ("acct-1002", LAB_LIST), ("acct-1003", LIST)];
        bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, fault.clone()));
        for _ in 0..59 {
            for (account, path) in accounts {
                assert_eq!(bed.get(account, path).await.status, 200, "{fault:?}");
            }
            bed.clock.advance(MINUTE);
        }
        bed.clock.advance(2 * MINUTE);
        for (account, path) in accounts {
            let response = get(&bed, account, path).await;
            assert_eq!((response.status, response.code().as_str()), (503, "token_unavailable"), "{fault:?}");
            assert_eq!(state(&bed, account).await, "ready");
        }
        // 24 minutes of trying at most since the keeper began, by three accounts at first and by one trial at
        // a time then.
        let tries = bed.sandbox.calls_to(Endpoint::Refresh).len();
        assert!(tries < 120, "{fault:?}: {tries} tries");
        bed.sandbox.clear_fault_rules();
        bed.clock.advance(MINUTE);
        for (account, path) in accounts {
            assert_recovers(&bed, account, path).await;
        }
        assert_eq!(realm_health(&bed, "global").await.1, "global: in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_one_platform_is_none_of_the_others() {
    let bed = TestBedBuilder::new()
        .account(AccountSpec::clinic(2001, "Old").on_platform(Platform::Old))
        .account(AccountSpec::clinic(3001, "China").on_platform(Platform::China))
        .start()
        .await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::Status(500)).on_platform(Platform::Old));
    for id in [CLINIC, 2001, 3001] {
        bed.sandbox.expire_access(id);
    }
    assert_eq!(get(&bed, "acct-2001", LIST).await.code(), "token_unavailable");
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(get(&bed, "acct-3001", LIST).await.status, 200);
    for call in bed.sandbox.calls() {
        if let (Some(account), Some(platform)) = (call.account, call.role.platform()) {
            let home = bed.sandbox.account(account).unwrap().platform;
            assert_eq!(platform, home, "a token crossed realms: {call:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_was_lost_is_asked_for_again_and_where_tokens_rotate_the_loss_is_named() {
    let bed = TestBed::new().await;
    bed.sandbox.expire_access(CLINIC);
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::LostTokenResponse).once());
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200, "the refresh token is still good");

    let bed = TestBedBuilder::new().behavior(|behavior| behavior.rotate_refresh = true).start().await;
    bed.sandbox.expire_access(CLINIC);
    bed.sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::LostTokenResponse).once());
    let response = get(&bed, CLINIC_NAME, LIST).await;
    assert_eq!((response.status, response.code().as_str()), (401, "account_needs_login"));
    let why = bed.account(CLINIC_NAME).await["why"].as_str().unwrap().to_owned();
    assert!(why.contains("was lost") && why.contains("replaced it"), "{why}");
    assert_eq!(get(&bed, LAB_NAME, LAB_LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_needs_a_login_for_each_account_and_is_no_outage() {
    for (name, behavior) in VARIANTS {
        let mut setup = TestBedBuilder::new().behavior(behavior);
        for id in 1100..1112 {
            setup = setup.account(AccountSpec::clinic(id, "Moved"));
        }
        let bed = setup.start().await;
        for id in 1100..1112 {
            bed.sandbox.migrate(id, Platform::Old);
        }
        // Refused together, they are tried once more before anybody is told to log in.
        let mut rounds = 0;
        loop {
            let calls =
                (1100..1112).map(|id| bed.get(Box::leak(format!("acct-{id}").into_boxed_str()), LIST));
            let all = futures_util::future::join_all(calls);
            let responses = bed.while_time_flies(Duration::from_millis(100), all).await;
            let codes: Vec<_> = responses.iter().map(|response| (response.status, response.code())).collect();
            if codes.iter().all(|code| *code == (401, "account_needs_login".to_owned())) {
                break;
            }
            let ours = |code: &str| matches!(code, "account_needs_login" | "token_unavailable");
            let is_expected = |(status, code): &(u16, String)| {
                ours(code) || (code.is_empty() && matches!(status, 401 | 403))
            };
            assert!(codes.iter().all(is_expected), "{name}: {codes:?}");
            rounds += 1;
            assert!(rounds <= 5, "{name}: {codes:?}");
            bed.clock.advance(MINUTE);
        }
        assert_eq!(realm_health(&bed, "global").await, (true, "global: in order".to_owned()), "{name}");
        for id in 1100..1112 {
            let refreshes = bed.sandbox.refreshes(id).len();
            assert!((1..=3).contains(&refreshes), "{name}: a dead grant was tried {refreshes} times");
            assert_eq!(count(&bed, &format!("acct-{id}"), "needs_login").await, 1, "{name}");
        }
        let probes = bed.sandbox.calls_to(Endpoint::Exchange).len();
        assert!((1..=3).contains(&probes), "{name}: our credentials were asked about {probes} times");
        assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
        let series = "genapi_gateway_accounts{realm=\"global\",state=\"needs_login\"}";
        assert_eq!(bed.metric(series).await, 12.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_grant_by_import_ends_the_need_for_a_login() {
    let bed = TestBed::new().await;
    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.code(), "account_needs_login");
    let grant = bed.sandbox.grant(CLINIC).unwrap();
    let entry =
        json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": grant}]);
    let imported = bed.while_time_flies(Duration::from_millis(100), bed.operate("/import", entry)).await;
    assert!(imported.text().contains("\"ok\":true"), "{}", imported.text());
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_within_the_vendors_gap_is_judged_by_the_platform_and_renewed_after_it() {
    let bed = TestBedBuilder::new()
        .behavior(|behavior| behavior.access_token_life = Duration::from_secs(20))
        .config("min_gap = \"0s\"", "min_gap = \"60s\"")
        .start()
        .await;
    assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200);
    bed.clock.advance(Duration::from_secs(30));
    // Its own clock may know better than ours, so it is asked; where both say that the token has ended, the
    // caller hears when to come back.
    bed.sandbox.clear_calls();
    let response = bed.get(CLINIC_NAME, LIST).await;
    assert_eq!((response.status, response.code().as_str()), (503, "token_unavailable"));
    assert!(!response.header("retry-after").is_empty());
    assert_eq!(bed.sandbox.calls_to(Endpoint::OrdersPractice).len(), 1);
    assert!(bed.sandbox.refreshes(CLINIC).is_empty());
    bed.clock.advance(Duration::from_secs(30));
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
    assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_within_the_gap_passes_through_and_one_after_it_is_cured() {
    for (name, behavior) in VARIANTS {
        let bed = TestBedBuilder::new()
            .behavior(behavior)
            .config("min_gap = \"0s\"", "min_gap = \"60s\"")
            .start()
            .await;
        let expiry_status = bed.sandbox.behavior().expiry_status;
        bed.sandbox.expire_access(CLINIC);
        let response = bed.get(CLINIC_NAME, LIST).await;
        assert_eq!((response.status, response.code()), (expiry_status, String::new()), "{name}");
        bed.clock.advance(MINUTE);
        assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200, "{name}");
        assert_eq!(bed.sandbox.refreshes(CLINIC).len(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_polling_into_a_lasting_403_costs_a_handful_of_refreshes_beyond_the_hourly_ones() {
    for (name, behavior) in VARIANTS {
        let bed = TestBedBuilder::new()
            .behavior(behavior)
            .options(|options| options.keep_calls = 20_000)
            .config("min_gap = \"0s\"", "min_gap = \"60s\"")
            .start()
            .await;
        bed.sandbox.deny(CLINIC, "/orders/practice");
        for _ in 0..24 * 60 {
            bed.clock.advance(MINUTE);
            let response = bed.get(CLINIC_NAME, LIST).await;
            assert_eq!((response.status, response.code()), (403, String::new()), "{name}");
            assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200, "{name}");
        }
        let unserved =
            |call: &RecordedCall| call.endpoint == Some(Endpoint::OrdersLab) && call.status != Some(200);
        assert!(
            bed.sandbox.calls_where(unserved).is_empty(),
            "{name}: the keeper renews ahead, no call meets an expired token"
        );
        let (denied, healthy) = (bed.sandbox.refreshes(CLINIC).len(), bed.sandbox.refreshes(LAB).len());
        assert!((23..=30).contains(&healthy), "{name}: {healthy} refreshes of an account that is well");
        assert!(
            denied <= healthy + 8,
            "{name}: {denied} refreshes of the denied account, {healthy} of the other"
        );
        assert!(bed.sandbox.smallest_refresh_gap(CLINIC).unwrap() >= MINUTE, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_nobody_uses_is_kept_alive_for_a_year() {
    for (name, behavior) in [VARIANTS[0], VARIANTS[2]] {
        let bed = TestBedBuilder::new().behavior(behavior).start().await;
        let start = bed.now();
        let mut last = start;
        while bed.now() < start + 365 * DAY {
            let mut due = false;
            for account in [CLINIC_NAME, LAB_NAME] {
                let refreshed_at = bed.account(account).await["refreshed_at"].as_u64().unwrap();
                due |= bed.now().as_millis() - refreshed_at > (7 * DAY).as_millis() as u64;
            }
            // The keeper looks around twice a minute; days only go by when it has nothing to do.
            bed.clock.advance(if due { MINUTE } else { DAY });
        }
        let refreshes = bed.sandbox.refreshes(CLINIC);
        // Every seven days or a little earlier, by a clock that moves in days.
        assert!((40..=60).contains(&refreshes.len()), "{name}: {} refreshes", refreshes.len());
        for call in &refreshes {
            assert!(call.at.since(last) <= 10 * DAY, "{name}: a gap of {:?}", call.at.since(last));
            last = call.at;
        }
        assert_eq!(state(&bed, CLINIC_NAME).await, "ready", "{name}");
        assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_off_for_three_months_says_login_needed_and_for_two_it_goes_on() {
    let bed = TestBed::new().await.restart_later(60 * DAY).await;
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
    let bed = bed.restart_later(100 * DAY).await;
    // Both accounts are refused at once, so each is tried a second time before it is said.
    for _ in 0..5 {
        if get(&bed, CLINIC_NAME, LIST).await.code() == "account_needs_login" {
            break;
        }
        bed.clock.advance(MINUTE);
    }
    assert_eq!(get(&bed, CLINIC_NAME, LIST).await.code(), "account_needs_login");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_stored_token_serves_and_nothing_is_refreshed() {
    for (name, behavior) in VARIANTS {
        let bed = TestBedBuilder::new().behavior(behavior).start().await;
        bed.sandbox.expire_access(CLINIC);
        assert_eq!(get(&bed, CLINIC_NAME, LIST).await.status, 200);
        let bed = bed.restart().await;
        bed.sandbox.clear_calls();
        assert_eq!(bed.get(CLINIC_NAME, LIST).await.status, 200, "{name}");
        assert_eq!(bed.get(LAB_NAME, LAB_LIST).await.status, 200, "{name}");
        let control =
            |call: &RecordedCall| matches!(call.endpoint, Some(Endpoint::Refresh | Endpoint::Discovery));
        assert!(bed.sandbox.calls_where(control).is_empty(), "{name}");
    }
}
