//! What an application with a login or tokens of its own must not get, whatever it sends, and what must not
//! be lost to it over a detail.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint};
use http::Method;
use serde_json::{Value, json};

use crate::application::{Application, REDIRECT_URI, Tokens, asked, caller, param};
use crate::browser::{Browser, heading};
use crate::facade::refused;
use crate::test_bed::{CLINIC, LAB, PASSWORD, TestBed, TestBedBuilder, USER};

const LAB_LIST: &str = "/orders/lab";

async fn bench(more: &str) -> TestBed {
    TestBedBuilder::new().append(&(caller("oldpms", "\"*\"", "") + more)).unpaired().start().await
}

fn unpair(account: u64) -> Value {
    json!({"AccountId": account})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_calls_an_account_permits_nobody() {
    let solo = "solo@sandbox.test";
    let bed = TestBedBuilder::new()
        .account(AccountSpec::clinic(501, "Smile").with_user(solo, PASSWORD))
        .account(AccountSpec::clinic(502, "Smile").with_user(solo, PASSWORD))
        .append(&caller("named", "\"smile\", \"lab-*\"", ""))
        .append(&caller("by-id", "\"global:502\"", ""))
        .unpaired()
        .start()
        .await;
    for (name, offered) in [("named", json!([])), ("by-id", json!([502]))] {
        let application = Application::new(&bed, name);
        let back = application.logs_in_as(solo, &[]).await;
        let login = application.exchanges(&param(&back, "code"), &[]).await.json();
        let bearer = login["access_token"].as_str().unwrap().to_owned();
        let listed = application.get("/related-accounts", &bearer).await.json();
        let ids: Vec<Value> =
            listed["Data"].as_array().unwrap().iter().map(|row| row["AccountId"].clone()).collect();
        assert_eq!(Value::from(ids), offered, "{name}");
        assert_eq!(application.pairs("", &bearer, 501).await.status, 400, "{name}");
    }
    assert_eq!(asked(&bed, Endpoint::Pair), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_never_unpairs_for_everybody_whatever_its_caller_may_do() {
    let secret = crate::path::key_line("strong-secret").replace("key_sha256", "client_secret_sha256");
    let strong = format!(
        "\n[[callers]]\nname = \"strong\"\naccounts = [\"*\"]\nallow = [\"orders\", \"accounts\", \"discovery\", \"unpair\"]\n{}\
         facade = {{ client_id = \"strong\", {}, redirect_uris = [\"{REDIRECT_URI}\"], adopt = false }}\n",
        crate::path::key_line("key-of-strong"),
        secret.trim(),
    );
    let bed = bench(&strong).await;
    let application = Application::new(&bed, "strong");
    let first = application.connects(LAB).await;
    for path in
        ["/Unpair-Account", "/un%70air-account", "/lab-sw/v1/unpair-account/", "/accounts/x/unpair-account"]
    {
        let tokens = application.connects(LAB).await;
        let done = application.sends(Method::DELETE, path, &tokens.access, unpair(LAB)).await;
        assert_eq!(done.status, 200, "{path}: {}", done.text());
        let again = application.sends(Method::DELETE, path, &tokens.access, unpair(LAB)).await;
        assert_eq!(again.status, 200, "{path}, asked twice: {}", again.text());
    }
    let tokens = application.connects(LAB).await;
    let old = application.sends(Method::DELETE, "/unpair-account", &first.access, unpair(LAB)).await;
    assert_eq!(old.status, 401, "a token of an earlier grant");
    let with_key = bed.bare(Method::DELETE, "/unpair-account").header("x-gateway-key", "key-of-strong");
    let with_key = bed.send(with_key.bearer_auth(&tokens.access).body(unpair(LAB).to_string())).await;
    assert_eq!(with_key.status, 200, "{}", with_key.text());
    let tokens = application.connects(LAB).await;
    let bare = bed.send(bed.bare(Method::DELETE, "/unpair-account").bearer_auth(&tokens.access)).await;
    assert_eq!(bare.status, 200, "the token names the account");
    assert_eq!(asked(&bed, Endpoint::Unpair), 0);
    assert!(bed.sandbox.is_paired(LAB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_with_the_facade_that_it_came_of() {
    let bed = bench("").await;
    let application = Application::new(&bed, "oldpms");
    let login = application.logs_in().await;
    let mut browser = Browser::new(&bed);
    let authorize = application.begins(&mut browser, &[("state", "s1")]).await;
    let back = bed.sandbox.log_in(&authorize, USER, PASSWORD).await.unwrap();
    bed.reconfigure(REDIRECT_URI, "http://127.0.0.1:5000/elsewhere").await;
    let page = browser.open(&back).await;
    assert_eq!((page.status, &*heading(&page)), (400, "The application's address is not listed"));
    bed.reconfigure(&format!(", redirect_uris = [\"{}\"]", "http://127.0.0.1:5000/elsewhere"), "").await;
    let refused_pairing = application.pairs("", &login.access, CLINIC).await;
    assert_eq!((refused_pairing.status, &*refused_pairing.code()), (401, "caller_unknown"));
    refused(&application.refreshes(&login.refresh).await, 401, "invalid_grant");
    assert_eq!(asked(&bed, Endpoint::Pair), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_at_the_authorize_endpoint_keeps_nobody_from_logging_in() {
    let bed = bench("").await;
    let application = Application::new(&bed, "oldpms");
    for _ in 0..400 {
        let junk = bed.send(bed.browse(Method::GET, "/connect/authorize?junk")).await;
        assert_eq!(junk.status, 400);
    }
    application.logs_in().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_login_count_under_the_callers_limit() {
    let limited = caller("slow", "\"*\"", "") + "limit = { per_second = 1, burst = 2 }\n";
    let bed = bench(&limited).await;
    let application = Application::new(&bed, "slow");
    let login = application.logs_in().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(application.get("/related-accounts", &login.access).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_has_unpaired_at_the_platform_is_paired_anew() {
    let bed = bench("").await;
    let application = Application::new(&bed, "oldpms");
    application.connects(CLINIC).await;
    bed.sandbox.unpair(CLINIC);
    let tokens = application.connects(CLINIC).await;
    assert_eq!(asked(&bed, Endpoint::Pair), 2);
    assert_eq!(application.get("/orders/practice", &tokens.access).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oauth_endpoints_stand_behind_every_old_prefix_and_take_empty_parameters_for_none() {
    let bed = bench("").await;
    let application = Application::new(&bed, "oldpms");
    for prefix in ["", "/itero-gen-api/v2", "/api/third-party/v2", "/lab-sw/v1", "/accounts/x"] {
        let path = format!("{prefix}{}", application.authorize_path(&[]));
        assert_eq!(bed.send(bed.bare(Method::GET, &path)).await.status, 302, "{prefix}");
        assert_eq!(bed.send(bed.bare(Method::HEAD, &path)).await.status, 302, "{prefix}");
        let path = format!("{prefix}/oauth2/token");
        let wrong = application.asks(&path, &[("grant_type", "authorization_code"), ("code", "x")]);
        refused(&wrong.await, 400, "invalid_grant");
    }
    let posted = bed
        .bare(Method::POST, "/oauth2/authorize")
        .body(application.authorize_path(&[]).split_once('?').unwrap().1.to_owned() + "\r\n");
    assert_eq!(bed.send(posted).await.status, 302);
    let options = bed.send(bed.bare(Method::OPTIONS, "/oauth2/authorize")).await;
    assert_eq!((options.status, options.header("allow")), (405, "GET, HEAD, POST"));

    let empties = [("code_challenge", ""), ("response_type", ""), ("nonce", ""), ("state", "")];
    let back = application.logs_in_as(USER, &empties).await;
    assert_eq!(param(&back, "state"), "", "as it was sent");
    let exchanged = application.exchanges(&param(&back, "code"), &[("code_verifier", "")]).await;
    assert_eq!(exchanged.status, 200, "{}", exchanged.text());
    let login = exchanged.json();
    let access = login["access_token"].as_str().unwrap().to_owned();
    let odd = json!({"AccountId": CLINIC, "CallbackUrl": "javascript:alert(1)"});
    let paired = application.sends(Method::PUT, "/pair-account", &access, odd).await;
    assert_eq!(paired.status, 200, "{}", paired.text());
    assert!(paired.json()["Data"]["Warnings"][0].as_str().unwrap().contains("CallbackUrl"));
    assert_eq!(bed.sandbox.callback_url(CLINIC), None);
    assert_eq!(application.asks("/oauth2/revoke", &[("token", &access)]).await.status, 200);
    assert_eq!(application.get("/related-accounts", &access).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logins_token_counts_alone_and_with_its_own_caller() {
    let key = format!(
        "\n[[callers]]\nname = \"other\"\naccounts = [\"*\"]\n{}",
        crate::path::key_line("key-of-other")
    );
    let bed = bench(&key).await;
    let application = Application::new(&bed, "oldpms");
    let Tokens { access, .. } = application.logs_in().await;
    let two =
        bed.bare(Method::GET, "/related-accounts").bearer_auth(&access).header("authorization", "Bearer x");
    assert_eq!(bed.send(two).await.status, 401);
    let crossed = bed.bare(Method::GET, "/related-accounts").bearer_auth(&access);
    assert_eq!(bed.send(crossed.header("x-gateway-key", "key-of-other")).await.status, 401);
    let page = bed.bare(Method::GET, "/related-accounts").bearer_auth(&access);
    assert_eq!(bed.send(page.header("origin", "https://evil.test")).await.status, 403);
    let big = bed.bare(Method::PUT, "/pair-account").bearer_auth("gwlt_zzz").body("x".repeat(20_000));
    assert_eq!(bed.send(big).await.status, 401, "who it is comes first");
    assert_eq!(application.get(LAB_LIST, &access).await.code(), "account_not_chosen");
    bed.clock.advance(Duration::from_secs(1));
}
