//! Applications that nobody may touch log in, pair and refresh by themselves: the vendor's shapes on their
//! side, one pairing and one refresh on the platform's.

use std::time::Duration;

use genapi_gateway::sandbox::{Behavior, Endpoint, Fault, FaultRule};
use http::Method;
use serde_json::{Value, json};

use crate::application::{
    Application, DISCOVERY, FIRST_DISCOVERY, REDIRECT_URI, Tokens, asked, caller, param,
};
use crate::browser::{Browser, heading};
use crate::facade::refused;
use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, PASSWORD, TestBed, TestBedBuilder, USER};

const LAB_LIST: &str = "/orders/lab";

/// Three applications for all accounts, nothing paired yet.
fn bench() -> TestBedBuilder {
    let callers = ["oldpms", "labsync", "cadflow"].map(|name| caller(name, "\"*\"", ""));
    TestBedBuilder::new().append(&callers.concat()).unpaired()
}

/// No token of the platform's in what an application has got.
fn assert_no_platform_token(bed: &TestBed, texts: &[String]) {
    let mut secrets: Vec<String> = Vec::new();
    for account in [CLINIC, LAB] {
        secrets.extend(bed.sandbox.refresh_tokens(account));
        secrets.extend(bed.sandbox.bearer(account));
        secrets.extend(bed.sandbox.grant(account));
    }
    assert!(!secrets.is_empty());
    let bearers = bed.sandbox.calls();
    secrets.extend(bearers.iter().filter_map(|call| Some(call.header("authorization")?[7..].to_owned())));
    for text in texts {
        let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
        assert!(found.is_none(), "a token of the platform's stands in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_application_logs_in_pairs_and_works_in_the_vendors_shapes() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    let back = application.logs_in_as(USER, &[("state", "447")]).await;
    assert_eq!(back.as_str().split('?').next(), Some(REDIRECT_URI));
    assert_eq!(param(&back, "state"), "447", "the vendor's own sample has a constant one");
    assert!(!param(&back, "session_state").is_empty());

    let login = application.exchanges(&param(&back, "code"), &[]).await;
    assert_eq!((login.status, login.header("cache-control")), (200, "no-store"), "{}", login.text());
    let fields = login.json();
    let names: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!((&fields["token_type"], &fields["scope"]), (&json!("Bearer"), &json!("openid")));
    assert!((1..=3600).contains(&fields["expires_in"].as_u64().unwrap()));
    let first = Tokens { access: text(&fields["access_token"]), refresh: text(&fields["refresh_token"]) };
    assert!(first.refresh.len() <= 40);

    let path = application.discovers(FIRST_DISCOVERY, &first.access).await;
    let listed = application.get(&format!("{path}/related-accounts"), &first.access).await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    let accounts = listed.json();
    assert_eq!((&accounts["Status"], &accounts["Errors"]), (&json!("Success"), &json!([])));
    let ids: Vec<u64> =
        accounts["Data"].as_array().unwrap().iter().map(|row| row["AccountId"].as_u64().unwrap()).collect();
    assert_eq!(ids, [CLINIC, LAB]);
    assert_eq!(accounts["Data"][0].as_object().unwrap().len(), 4);

    let body = json!({"AccountId": CLINIC, "CallbackUrl": "https://pms.example.test/hook"});
    let paired = application.sends(Method::PUT, &format!("{path}/pair-account"), &first.access, body).await;
    assert_eq!(paired.status, 200, "{}", paired.text());
    let data = paired.json();
    assert_eq!((&data["Status"], &data["Data"]["CompanyId"]), (&json!(1), &json!(CLINIC)));
    let tokens = &data["Data"]["OAuthResponse"];
    let tokens = Tokens { access: text(&tokens["access_token"]), refresh: text(&tokens["refresh_token"]) };
    assert_ne!(tokens.refresh, first.refresh);
    assert_eq!(bed.sandbox.callback_url(CLINIC).as_deref(), Some("https://pms.example.test/hook"));

    let own_path = application.discovers(&path, &tokens.access).await;
    let list = application.get(&format!("{own_path}/orders/practice"), &tokens.access).await;
    assert_eq!(list.status, 200, "{}", list.text());
    let refreshed = application.refreshes(&tokens.refresh).await;
    assert_eq!(refreshed.json()["refresh_token"], json!(tokens.refresh), "the same one again");
    assert_eq!((asked(&bed, Endpoint::Exchange), asked(&bed, Endpoint::Pair)), (1, 1));
    let shown = bed.account(&account_name(&bed, CLINIC).await).await;
    assert_eq!(shown["applications"], json!(["oldpms"]), "{shown}");
    let texts = [back.to_string(), login.text(), listed.text(), paired.text(), list.text(), refreshed.text()];
    assert_no_platform_token(&bed, &texts);
    let journal = bed.journal(&account_name(&bed, CLINIC).await).await;
    assert!(journal.iter().any(|event| event == "application_connected"), "{journal:?}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// What the gateway calls an account that was paired without a name.
async fn account_name(bed: &TestBed, id: u64) -> String {
    let all = bed.look("/api/accounts").await.json();
    let is_it = |account: &&Value| account["account_id"] == json!(id);
    let found = all.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("{all}"));
    text(&found["name"])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_applications_of_one_lab_need_one_pairing_and_one_refresh_an_hour() {
    let bed = bench().start().await;
    let applications = ["oldpms", "labsync", "cadflow"].map(|name| Application::new(&bed, name));
    let mut held = Vec::new();
    for application in &applications {
        held.push(application.connects(LAB).await);
    }
    assert_eq!(asked(&bed, Endpoint::Pair), 1, "the platform would have answered the others 409");
    assert_eq!(applications[1].connects(LAB).await.refresh, held[1].refresh, "the same one again");
    assert!(held[0].refresh != held[1].refresh && held[1].refresh != held[2].refresh);
    bed.sandbox.clear_calls();
    for _hour in 0..24 {
        bed.clock.advance(Duration::from_secs(3600));
        for (application, tokens) in applications.iter().zip(&mut held) {
            let stale = application.get(LAB_LIST, &tokens.access).await;
            assert_eq!(stale.status, 401, "an hour is over");
            for _again in 0..3 {
                *tokens = application.refreshed(&tokens.refresh).await;
            }
            let list = bed
                .while_time_flies(Duration::from_millis(1), application.get(LAB_LIST, &tokens.access))
                .await;
            assert_eq!(list.status, 200, "{}", list.text());
        }
    }
    let refreshes = bed.sandbox.refreshes(LAB).len();
    assert!((20..=28).contains(&refreshes), "{refreshes} refreshes at the platform in a day");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_application_unpairs_it_unpairs_for_itself_alone() {
    let bed = bench().start().await;
    let [first, second] = ["oldpms", "labsync"].map(|name| Application::new(&bed, name));
    let (mine, others) = (first.connects(LAB).await, second.connects(LAB).await);
    let unpair = |id: u64| json!({"AccountId": id});
    let wrong = first.sends(Method::DELETE, "/itero-gen-api/v2/unpair-account", &mine.access, unpair(CLINIC));
    assert_eq!(wrong.await.status, 400, "wrong company id");
    let done =
        first.sends(Method::DELETE, "/itero-gen-api/v2/unpair-account", &mine.access, unpair(LAB)).await;
    assert_eq!((done.status, &done.json()["Status"]), (200, &json!(1)), "{}", done.text());
    assert_eq!(first.get(LAB_LIST, &mine.access).await.status, 401);
    refused(&first.refreshes(&mine.refresh).await, 401, "invalid_grant");
    assert_eq!(second.get(LAB_LIST, &others.access).await.status, 200);
    assert_eq!(asked(&bed, Endpoint::Unpair), 0);
    assert!(bed.sandbox.is_paired(LAB));
    let again = first.connects(LAB).await;
    assert_ne!(again.refresh, mine.refresh, "a new grant");
    assert_eq!(asked(&bed, Endpoint::Pair), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_counts_once_for_five_minutes_and_for_its_own_client_and_address() {
    let bed = bench().start().await;
    let [mine, other] = ["oldpms", "labsync"].map(|name| Application::new(&bed, name));
    let code = mine.code().await;
    refused(&other.exchanges(&code, &[]).await, 400, "invalid_grant");
    let elsewhere = Application {
        redirect_uri: "http://127.0.0.1:5001/cb".to_owned(),
        ..Application::new(&bed, "oldpms")
    };
    refused(&elsewhere.exchanges(&code, &[]).await, 400, "invalid_grant");
    let without = mine.asks("/oauth2/token", &[("grant_type", "authorization_code"), ("code", &code)]).await;
    refused(&without, 400, "invalid_grant");
    refused(&mine.exchanges(&code, &[("code_verifier", &"v".repeat(43))]).await, 400, "invalid_grant");
    let guessed = bed
        .bare(Method::POST, "/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("grant_type=authorization_code&code={code}&client_id=oldpms&client_secret=x&redirect_uri={REDIRECT_URI}"));
    refused(&bed.send(guessed).await, 401, "invalid_client");
    assert_eq!(mine.exchanges(&code, &[]).await.status, 200, "nobody has spent it");
    refused(&mine.exchanges(&code, &[]).await, 400, "invalid_grant");
    let late = mine.code().await;
    bed.clock.advance(Duration::from_secs(301));
    refused(&mine.exchanges(&late, &[]).await, 400, "invalid_grant");
    refused(&mine.exchanges("", &[]).await, 400, "invalid_request");
    refused(&mine.exchanges("made-up", &[]).await, 400, "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_challenge_is_honoured() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let sent = [("code_challenge", challenge), ("code_challenge_method", "S256"), ("scope", "openid")];
    let back = application.logs_in_as(USER, &sent).await;
    assert!(!back.query_pairs().any(|(name, _)| name == "state"), "none was sent");
    let code = param(&back, "code");
    refused(&application.exchanges(&code, &[]).await, 400, "invalid_grant");
    refused(&application.exchanges(&code, &[("code_verifier", challenge)]).await, 400, "invalid_grant");
    assert_eq!(application.exchanges(&code, &[("code_verifier", verifier)]).await.status, 200);
    let odd = [("code_challenge", challenge), ("code_challenge_method", "S512"), ("state", "a b")];
    let mut browser = Browser::new(&bed);
    let sent = bed.send(bed.bare(Method::GET, &application.authorize_path(&odd))).await;
    let returned = browser.open(sent.header("location")).await;
    let back: url::Url = returned.header("location").parse().unwrap();
    assert_eq!((param(&back, "error").as_str(), param(&back, "state").as_str()), ("invalid_request", "a b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_goes_back_to_a_listed_address_alone() {
    let bed = bench().start().await;
    let mut browser = Browser::new(&bed);
    for address in [
        "http://127.0.0.1:5000/other",
        "http://127.0.0.1.evil.test/cb",
        "https://evil.test/cb",
        "http://127.0.0.1:5000/cb#f",
    ] {
        let application =
            Application { redirect_uri: address.to_owned(), ..Application::new(&bed, "oldpms") };
        let sent = bed.send(bed.bare(Method::GET, &application.authorize_path(&[]))).await;
        let page = browser.open(sent.header("location")).await;
        assert_eq!(
            (page.status, &*heading(&page)),
            (400, "The application's address is not listed"),
            "{address}"
        );
        assert!(!page.text().contains("evil"), "nothing of the request stands in the page");
    }
    let unknown = Application::new(&bed, "nobody");
    let page = bed.send(bed.bare(Method::GET, &unknown.authorize_path(&[]))).await;
    assert_eq!((page.status, page.header("content-type")), (400, "text/html; charset=utf-8"));
    assert!(page.text().contains("The application is not known here"));
    let page = browser.open(&format!("{}/connect/authorize?client_id=nobody", bed.admin)).await;
    assert_eq!((page.status, &*heading(&page)), (400, "The application is not known here"));
    let twice = format!("{}/connect/authorize?client_id=oldpms&client_id=oldpms", bed.admin);
    assert_eq!(browser.open(&twice).await.status, 400);
    let any_port = "http://127.0.0.1:61234/cb".to_owned();
    let application = Application { redirect_uri: any_port, ..Application::new(&bed, "oldpms") };
    let back = application.logs_in_as(USER, &[]).await;
    assert_eq!(back.port(), Some(61234));
    assert_eq!(application.exchanges(&param(&back, "code"), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_comes_to_nothing_is_told_to_the_application() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    let error_of = |url: &str| {
        let back: url::Url = url.parse().unwrap();
        assert_eq!(param(&back, "state"), "s1");
        assert!(!param(&back, "error_description").is_empty());
        param(&back, "error")
    };
    let mut browser = Browser::new(&bed);
    let authorize = application.begins(&mut browser, &[("state", "s1")]).await;
    let cancelled = bed.sandbox.cancel_login(&authorize).await.unwrap();
    let returned = browser.open(&cancelled).await;
    assert_eq!((returned.status, &*error_of(returned.header("location"))), (302, "access_denied"));
    let again = browser.open(&cancelled).await;
    assert_eq!(again.status, 410, "a page: nobody knows whose it is");

    bed.sandbox.inject(FaultRule::on(Endpoint::Discovery, Fault::EmptyArray));
    let authorize = application.begins(&mut browser, &[("state", "s1")]).await;
    let back = bed.sandbox.log_in(&authorize, USER, PASSWORD).await.unwrap();
    let returned = browser.open(&back).await;
    assert_eq!(error_of(returned.header("location")), "server_error");

    let authorize = application.begins(&mut browser, &[("state", "s1")]).await;
    let back = bed.sandbox.log_in(&authorize, USER, PASSWORD).await.unwrap();
    let mut stranger = Browser::new(&bed);
    assert_eq!(stranger.open(&back).await.status, 403, "another browser has no part in it");

    let mut implicit = application.authorize_path(&[("state", "s1")]);
    implicit = implicit.replace("response_type=code", "response_type=token");
    let sent = bed.send(bed.bare(Method::GET, &implicit)).await;
    let returned = browser.open(sent.header("location")).await;
    assert_eq!(error_of(returned.header("location")), "unsupported_response_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_opens_the_list_and_the_pairing_and_nothing_else() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    let login = application.logs_in().await;
    for path in
        ["/orders/practice", "/itero-gen-api/v2/orders/lab", "/order/1/download/IDE", "/", "/accounts/x/y"]
    {
        let response = application.get(path, &login.access).await;
        assert_eq!((response.status, &*response.code()), (400, "account_not_chosen"), "{path}");
    }
    let unpaired =
        application.sends(Method::DELETE, "/unpair-account", &login.access, json!({"AccountId": LAB}));
    assert_eq!(unpaired.await.status, 401);
    let calls =
        asked(&bed, Endpoint::Unpair) + asked(&bed, Endpoint::OrdersLab) + asked(&bed, Endpoint::Download);
    assert_eq!(calls, 0);
    // Under every prefix of the old platform, and none.
    for prefix in
        ["", "/itero-gen-api/v2", "/lab-sw/v1", "/api/third-party/v2", "/itero-gen-api/v2/api/third-party/v2"]
    {
        for path in [DISCOVERY, "/related-accounts", "/related-accounts/"] {
            let response = application.get(&format!("{prefix}{path}"), &login.access).await;
            assert_eq!(response.status, 200, "{prefix}{path}: {}", response.text());
        }
    }
    let empty =
        application.get("/api-discovery-by-name-and-version?discoveryName=x&version=2", &login.access).await;
    assert_eq!(empty.json(), json!({"APIs": []}), "as the vendor's");
    let refreshed = application.refreshed(&login.refresh).await;
    assert_eq!(refreshed.refresh, login.refresh);
    assert_eq!(application.asks("/oauth2/revoke", &[("token", &login.refresh)]).await.status, 200);
    assert_eq!(application.get("/related-accounts", &refreshed.access).await.status, 401);
    refused(&application.refreshes(&login.refresh).await, 401, "invalid_grant");

    let late = application.logs_in().await;
    bed.clock.advance(Duration::from_secs(3601));
    assert_eq!(application.get("/related-accounts", &late.access).await.status, 401);
    refused(&application.refreshes(&late.refresh).await, 401, "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_pairs_what_its_person_and_its_operator_permit() {
    let solo = "solo@sandbox.test";
    let account = genapi_gateway::sandbox::AccountSpec::clinic(1003, "Solo").with_user(solo, PASSWORD);
    let bed = TestBedBuilder::new()
        .account(account)
        .append(&caller("narrow", &format!("\"{LAB_NAME}\", \"global:1003\""), ""))
        .append(&caller("wide", "\"*\"", ""))
        .start()
        .await;
    let narrow = Application::new(&bed, "narrow");
    let login = narrow.logs_in().await;
    let listed = narrow.get("/related-accounts", &login.access).await.json();
    let ids: Vec<&Value> = listed["Data"].as_array().unwrap().iter().map(|row| &row["AccountId"]).collect();
    assert_eq!(ids, [&json!(LAB)], "the clinic is not this caller's, the other not this person's");
    for foreign in [CLINIC, 1003, 4711] {
        let refused = narrow.pairs("", &login.access, foreign).await;
        assert_eq!((refused.status, &refused.json()["Status"]), (400, &json!("Failure")), "{foreign}");
    }
    let wide = Application::new(&bed, "wide");
    let back = wide.logs_in_as(solo, &[]).await;
    let login = Tokens {
        access: text(&wide.exchanges(&param(&back, "code"), &[]).await.json()["access_token"]),
        refresh: String::new(),
    };
    assert_eq!(wide.pairs("", &login.access, CLINIC).await.status, 400, "known here, and not this person's");
    assert_eq!(wide.pairs("", &login.access, 1003).await.status, 200);
    assert_eq!(asked(&bed, Endpoint::Pair), 0, "all are connected already");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_is_named_in_any_spelling_of_the_vendors_pages() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    let login = application.logs_in().await;
    let mut refresh = None;
    for body in [
        json!({"AccountId": CLINIC}),
        json!({"accountid": CLINIC.to_string()}),
        json!({"CompanyID": CLINIC, "CallbackUrl": ""}),
        json!({"companyId ": format!(" {CLINIC} "), "CallbackUrl": null}),
    ] {
        let paired =
            application.sends(Method::PUT, "/lab-sw/v1/pair-account", &login.access, body.clone()).await;
        assert_eq!(paired.status, 200, "{body}: {}", paired.text());
        let token = text(&paired.json()["Data"]["OAuthResponse"]["refresh_token"]);
        assert_eq!(refresh.get_or_insert(token.clone()), &token);
    }
    for body in
        [json!({}), json!({"AccountId": "x"}), json!([CLINIC]), json!({"AccountId": 1, "CompanyID": 2})]
    {
        let refused = application.sends(Method::PUT, "/pair-account", &login.access, body.clone()).await;
        assert_eq!(refused.status, 400, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_and_what_came_of_it_outlive_a_restart_at_every_step() {
    let bed = bench().start().await;
    let code = Application::new(&bed, "oldpms").code().await;
    let bed = bed.restart().await;
    let response = Application::new(&bed, "oldpms").exchanges(&code, &[]).await;
    let login = text(&response.json()["access_token"]);
    let bed = bed.restart().await;
    let application = Application::new(&bed, "oldpms");
    let paired = application.pairs("", &login, LAB).await;
    assert_eq!(paired.status, 200, "{}", paired.text());
    let tokens = paired.json()["Data"]["OAuthResponse"].clone();
    let bed = bed.restart().await;
    let application = Application::new(&bed, "oldpms");
    assert_eq!(application.get(LAB_LIST, &text(&tokens["access_token"])).await.status, 200);
    assert_eq!(
        application.refreshed(&text(&tokens["refresh_token"])).await.refresh,
        text(&tokens["refresh_token"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_grant_is_dead_is_paired_again_by_whoever_logs_in() {
    let bed = bench().start().await;
    let [first, second] = ["oldpms", "labsync"].map(|name| Application::new(&bed, name));
    let (mine, others) = (first.connects(LAB).await, second.connects(LAB).await);
    bed.sandbox.forget_refresh(LAB);
    bed.sandbox.expire_access(LAB);
    bed.clock.advance(Duration::from_secs(3600));
    let dead = bed.while_time_flies(Duration::from_millis(100), second.refreshes(&others.refresh)).await;
    if dead.status == 200 {
        // It is found out by the first call.
        let bearer = text(&dead.json()["access_token"]);
        let list = bed.while_time_flies(Duration::from_millis(100), second.get(LAB_LIST, &bearer)).await;
        assert_eq!((list.status, &*list.code()), (401, "account_needs_login"), "{}", list.text());
    }
    refused(&second.refreshes(&others.refresh).await, 401, "invalid_grant");
    let again = first.connects(LAB).await;
    assert_eq!(again.refresh, mine.refresh, "its grant stands; the account's was what had died");
    assert_eq!(asked(&bed, Endpoint::Pair), 2);
    let healed = second.refreshed(&others.refresh).await;
    assert_eq!(second.get(LAB_LIST, &healed.access).await.status, 200, "and the others work again too");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_trouble_has_the_vendors_status() {
    let bed = bench().start().await;
    let application = Application::new(&bed, "oldpms");
    let login = application.logs_in().await;
    bed.sandbox.inject(FaultRule::on(Endpoint::Pair, Fault::Status(504)).times(1));
    let paired =
        bed.while_time_flies(Duration::from_millis(100), application.pairs("", &login.access, CLINIC)).await;
    assert_eq!(paired.status, 200, "retried: {}", paired.text());
    bed.sandbox.pair_elsewhere(LAB);
    let elsewhere = application.pairs("", &login.access, LAB).await;
    assert_eq!(
        (elsewhere.status, &elsewhere.json()["Status"]),
        (409, &json!("Failure")),
        "{}",
        elsewhere.text()
    );
    bed.sandbox.inject(FaultRule::on(Endpoint::RelatedAccounts, Fault::Status(500)));
    let down = bed
        .while_time_flies(Duration::from_millis(100), application.get("/related-accounts", &login.access))
        .await;
    assert_eq!(down.status, 504, "{}", down.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_unknowns_do_not_matter_to_an_application() {
    let switches: [fn(&mut Behavior); 6] = [
        |behavior| behavior.rotate_refresh = true,
        |behavior| behavior.trailing_blanks = true,
        |behavior| behavior.account_id_as_string = true,
        |behavior| behavior.path = "/eu/gen/v7".to_owned(),
        |behavior| behavior.domain_form = genapi_gateway::sandbox::DomainForm::TrailingSlash,
        |behavior| behavior.status_form = genapi_gateway::sandbox::StatusForm::Text,
    ];
    for switch in switches {
        let bed = bench().behavior(switch).start().await;
        let application = Application::new(&bed, "oldpms");
        let tokens = application.connects(LAB).await;
        bed.sandbox.expire_access(LAB);
        bed.clock.advance(Duration::from_secs(120));
        assert_eq!(application.get(LAB_LIST, &tokens.access).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_is_made_here_and_signed_with_the_clients_own_secret() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let bed = TestBedBuilder::new()
        .append(&caller("oldpms", "\"*\"", ", id_token = true"))
        .unpaired()
        .start()
        .await;
    let application = Application::new(&bed, "oldpms");
    let back = application.logs_in_as(USER, &[("nonce", "n-1"), ("scope", "openid")]).await;
    let login = application.exchanges(&param(&back, "code"), &[]).await.json();
    let token = text(&login["id_token"]);
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    assert_eq!(read(parts[0])["alg"], json!("HS256"));
    let claims = read(parts[1]);
    assert_eq!((&claims["aud"], &claims["nonce"]), (&json!("oldpms"), &json!("n-1")));
    assert_eq!(claims["iss"], json!(bed.gateway));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"oldpms-secret");
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let signed = format!("{}.{}", parts[0], parts[1]);
    assert!(aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &signature).is_ok());
    assert_eq!(application.refreshes(&text(&login["refresh_token"])).await.json()["id_token"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_redirect_uris_has_no_logins_and_works_as_before() {
    let text = caller("oldpms", "\"*\"", "").replace(&format!(", redirect_uris = [\"{REDIRECT_URI}\"]"), "");
    let bed = TestBedBuilder::new().append(&text).start().await;
    let application = Application::new(&bed, "oldpms");
    let page = bed.send(bed.bare(Method::GET, &application.authorize_path(&[]))).await;
    assert_eq!(page.status, 400);
    let imported = crate::facade::imported(&bed);
    assert_eq!(application.refreshes(&imported).await.status, 200);
    assert_eq!(bed.account(CLINIC_NAME).await["name"], json!(CLINIC_NAME));
}
