//! Applications that refresh by themselves: the vendor's token endpoint answered in its shape, with tokens
//! that are worth nothing at the platform.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Behavior};
use http::Method;
use serde_json::{Value, json};

use crate::test_bed::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, TestBed, TestBedBuilder};

pub(crate) const LIST: &str = "/itero-gen-api/v2/orders/practice";

/// The SHA-256 of `legacy-secret`, as an operator has configured it.
fn callers() -> String {
    let secret = crate::path::key_line("legacy-secret").replace("key_sha256", "client_secret_sha256");
    format!(
        "\n[[callers]]\nname = \"legacy\"\naccounts = [\"{CLINIC_NAME}\"]\n\
         facade = {{ client_id = \"legacy-app\", {} }}\n\
         \n[[callers]]\nname = \"stranger\"\naccounts = [\"{LAB_NAME}\"]\n{}",
        secret.trim(),
        crate::path::key_line("key-of-stranger"),
    )
}

/// A refresh as the application always sent it, at its new auth base.
fn refresh(bed: &TestBed, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").extend_pairs(fields);
    bed.bare(Method::POST, "/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish())
}

async fn by_client(bed: &TestBed, token: &str) -> Response {
    let fields = [("refresh_token", token), ("client_id", "legacy-app"), ("client_secret", "legacy-secret")];
    bed.send(refresh(bed, &fields)).await
}

async fn by_key(bed: &TestBed, key: &str, token: &str) -> Response {
    // An Align client id means nothing here, and goes nowhere.
    let fields = [("refresh_token", token), ("client_id", "align-gave-this"), ("client_secret", "and-this")];
    bed.send(refresh(bed, &fields).header("x-gateway-key", key)).await
}

pub(crate) async fn with_bearer(bed: &TestBed, path: &str, bearer: &str) -> Response {
    bed.send(bed.bare(Method::GET, path).bearer_auth(bearer)).await
}

pub(crate) fn refused(response: &Response, status: u16, error: &str) {
    let body = response.json();
    assert_eq!((response.status, body["error"].as_str()), (status, Some(error)), "{body}");
    assert!(body["error_description"].as_str().unwrap().len() > 20, "it says what to do");
    assert_eq!(body.as_object().unwrap().len(), 2);
}

/// The refresh token that was imported: what the application has in its own database.
pub(crate) fn imported(bed: &TestBed) -> String {
    let tokens = bed.sandbox.refresh_tokens(CLINIC);
    assert_eq!(tokens.len(), 1);
    tokens[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_refresh_token_gets_a_gateway_token_in_the_vendors_shape() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    for response in [by_client(&bed, &token).await, by_key(&bed, &bed.key, &token).await] {
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("cache-control"), "no-store");
        let mut body = response.json();
        let bearer = body["access_token"].as_str().unwrap().to_owned();
        body["access_token"] = Value::Null;
        let expected = json!({
            "access_token": null, "refresh_token": token, "scope": "openid", "token_type": "Bearer", "expires_in": 3600,
        });
        assert_eq!(body, expected);
        let calls = bed.sandbox.calls().len();
        let list = with_bearer(&bed, LIST, &bearer).await;
        assert_eq!(list.status, 200, "the token names caller and account by itself");
        let call = bed.sandbox.calls().pop().unwrap();
        assert_eq!((call.account, bed.sandbox.calls().len()), (Some(CLINIC), calls + 1));
        assert!(!call.header("authorization").unwrap().contains(&bearer), "ours goes nowhere");
        assert_eq!(with_bearer(&bed, &format!("/accounts/{CLINIC_NAME}{LIST}"), &bearer).await.status, 200);
        let other = with_bearer(&bed, &format!("/accounts/{LAB_NAME}/orders/lab"), &bearer).await;
        assert_eq!(other.code(), "account_not_allowed", "bound to its account, whatever the caller may use");
    }
    assert!(bed.sandbox.refreshes(CLINIC).is_empty(), "nothing is refreshed for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_accounts_base_url_it_works_too() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    let request = bed
        .bare(Method::POST, &format!("/accounts/{CLINIC_NAME}/oauth2/token"))
        .header("x-gateway-key", &bed.key)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(bed.send(request).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_token_works_on_while_the_platform_rotates_and_over_restarts() {
    let switches: [fn(&mut Behavior); 2] =
        [|behavior| behavior.rotate_refresh = true, |behavior| behavior.refresh_token_in_response = false];
    for switch in switches {
        let bed = TestBedBuilder::new().append(&callers()).behavior(switch).unpaired().start().await;
        // Where it rotates, the platform replaces the application's token at the very import.
        let old = bed.sandbox.grant(CLINIC).unwrap();
        let entry =
            json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": old}]);
        let import = bed.while_time_flies(Duration::from_millis(100), bed.operate("/import", entry)).await;
        assert!(import.text().contains("\"ok\":true"), "{}", import.text());
        let before = by_client(&bed, &old).await.json()["access_token"].as_str().unwrap().to_owned();
        for _ in 0..3 {
            bed.sandbox.expire_access(CLINIC);
            assert_eq!(with_bearer(&bed, LIST, &before).await.status, 200);
        }
        let bed = bed.restart().await;
        assert_eq!(with_bearer(&bed, LIST, &before).await.status, 200, "gateway tokens outlive a restart");
        let again = by_client(&bed, &old).await;
        assert_eq!((again.status, &again.json()["refresh_token"]), (200, &json!(old)), "{}", again.text());
        bed.sandbox.expire_access(CLINIC);
        let bearer = again.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_ends_no_gateway_token_while_the_old_key_is_held() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let before = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let old_key = std::fs::read_to_string(bed.folder().join("gateway.key")).unwrap();
    let new_key = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleSE=\n";
    let keys = [format!("{old_key}{new_key}"), format!("{new_key}{old_key}")];
    let mut bed = bed;
    for held in keys {
        bed =
            bed.restart_after(async |folder| std::fs::write(folder.join("gateway.key"), held).unwrap()).await;
        assert_eq!(
            with_bearer(&bed, LIST, &before).await.status,
            200,
            "the application knows nothing of keys"
        );
    }
    let after = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let rotation = bed.running.store().rotate_key().await.unwrap();
    assert_eq!(rotation.retired.len(), 1, "{rotation:?}");
    let bed =
        bed.restart_after(async |folder| std::fs::write(folder.join("gateway.key"), new_key).unwrap()).await;
    assert_eq!(with_bearer(&bed, LIST, &after).await.status, 200, "signed with the new key");
    let late = with_bearer(&bed, LIST, &before).await;
    assert_eq!((late.status, late.code().as_str()), (401, "caller_unknown"), "its key is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_callers_tokens_and_grants_are_told_in_the_vendors_words() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let lab_token = bed.sandbox.refresh_tokens(LAB)[0].clone();
    let wrong = [("refresh_token", &*token), ("client_id", "legacy-app"), ("client_secret", "guessed")];
    refused(&bed.send(refresh(&bed, &wrong)).await, 401, "invalid_client");
    let none = [("refresh_token", &*token), ("client_id", "legacy-app")];
    refused(&bed.send(refresh(&bed, &none)).await, 401, "invalid_client");
    refused(&by_client(&bed, &lab_token).await, 401, "invalid_grant");
    refused(&by_key(&bed, "key-of-stranger", &token).await, 401, "invalid_grant");
    assert_eq!(by_key(&bed, "key-of-stranger", &lab_token).await.status, 200);
    refused(&by_key(&bed, &bed.key, "never-imported").await, 401, "invalid_grant");
    for unknown in [
        by_key(&bed, "key-of-nobody", &token).await,
        bed.send(refresh(&bed, &[("refresh_token", &token)])).await,
    ] {
        refused(&unknown, 401, "invalid_client");
        assert!(unknown.text().contains("caller_unknown"), "{}", unknown.text());
        assert!(unknown.header("www-authenticate").starts_with("Basic "));
    }
    let doubled = [("refresh_token", &*token), ("refresh_token", &*token)];
    refused(
        &bed.send(refresh(&bed, &doubled).header("x-gateway-key", &bed.key)).await,
        400,
        "invalid_request",
    );
    let code = bed
        .bare(Method::POST, "/oauth2/token")
        .header("x-gateway-key", &bed.key)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=authorization_code&code=x");
    refused(&bed.send(code).await, 400, "unsupported_grant_type");
    let json = bed
        .bare(Method::POST, "/oauth2/token")
        .header("x-gateway-key", &bed.key)
        .header("content-type", "application/json")
        .body(json!({"grant_type": "refresh_token", "refresh_token": token}).to_string());
    refused(&bed.send(json).await, 400, "invalid_request");
    assert!(bed.sandbox.calls().is_empty(), "none of this reached the platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_and_dead_accounts_hand_nothing_out_and_come_back() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    bed.operate(&format!("/pause?pattern={CLINIC_NAME}"), Value::Null).await;
    let paused = by_client(&bed, &token).await;
    refused(&paused, 503, "temporarily_unavailable");
    assert_eq!(paused.header("retry-after"), "60");
    bed.operate(&format!("/resume?pattern={CLINIC_NAME}"), Value::Null).await;
    assert_eq!(by_client(&bed, &token).await.status, 200);

    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    let bearer = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.code(), "account_needs_login");
    let dead = by_client(&bed, &token).await;
    refused(&dead, 401, "invalid_grant");
    assert!(dead.text().contains("account_needs_login"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_sent_to_an_odd_spelling_of_the_endpoint_stays_here() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    for (method, path) in [
        (Method::POST, "/oauth2//token"),
        (Method::POST, "/OAuth2/Token"),
        (Method::POST, "/accounts/acct-1001/itero-gen-api/v2/oauth2/Token"),
    ] {
        let before = bed.sandbox.calls().len();
        let request = bed.bare(method, path).header("x-gateway-key", &bed.key).body(form.clone());
        let response = bed.send(request.header("x-gateway-account", CLINIC_NAME)).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_request"), "{path}");
        assert_eq!(bed.sandbox.calls().len(), before, "{path} went to the platform");
    }
}

fn basic(pair: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_come_by_basic_too_encoded_or_not() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let ask = async |pair: &str, fields: &[(&str, &str)]| {
        let fields = [&[("refresh_token", token.as_str())], fields].concat();
        bed.send(refresh(&bed, &fields).header("authorization", basic(pair))).await
    };
    for pair in ["legacy-app:legacy-secret", "legacy%2Dapp:legacy%2dsecret"] {
        assert_eq!(ask(pair, &[]).await.status, 200, "{pair}");
        assert_eq!(ask(pair, &[("client_id", "legacy-app")]).await.status, 200, "{pair}");
        let both = [("client_id", "legacy-app"), ("client_secret", "legacy-secret")];
        assert_eq!(ask(pair, &both).await.status, 200, "{pair}");
    }
    for (pair, fields) in [
        ("legacy-app:legacy-secret", &[("client_id", "legacy-app"), ("client_secret", "other")][..]),
        ("legacy-app:other", &[("client_id", "legacy-app"), ("client_secret", "legacy-secret")]),
        ("legacy-app:legacy-secret", &[("client_id", "other")]),
        ("other:other", &[("client_id", "legacy-app"), ("client_secret", "legacy-secret")]),
    ] {
        refused(&ask(pair, fields).await, 400, "invalid_request");
    }
    for pair in ["legacy-app:guessed", "legacy-app:", "nobody:legacy-secret"] {
        let response = ask(pair, &[]).await;
        refused(&response, 401, "invalid_client");
        assert!(response.header("www-authenticate").starts_with("Basic realm="), "{pair}");
    }
    let key = ask(&format!("anybody:{}", bed.key), &[("client_id", "align-gave-this")]).await;
    assert_eq!(key.status, 200, "a caller's key as the password, as at every other path");
    assert!(bed.sandbox.calls().is_empty(), "none of this reached the platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_at_the_token_endpoint_has_oauths_shape() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = bed.send(bed.bare(method.clone(), "/oauth2/token")).await;
        refused(&response, 405, "invalid_request");
        assert_eq!(response.header("allow"), "POST", "{method}");
    }
    let form = "application/x-www-form-urlencoded";
    let post = || bed.bare(Method::POST, "/oauth2/token").header("content-type", form);
    refused(&bed.send(post().body("a=".repeat(10_000))).await, 413, "invalid_request");
    refused(
        &bed.send(post().header("origin", "https://evil.test").body(
            "grant_type=refresh_token&refresh_token=x&client_id=legacy-app&client_secret=legacy-secret",
        ))
        .await,
        403,
        "unauthorized_client",
    );
    for (head, status) in [
        (
            "POST /oauth2/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST /oauth2/token HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST /oauth2/token HTTP/1.1\r\n\r\n", 400),
        ("TRACE /oauth2/token HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("POST /oauth2/token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ] {
        let raw = crate::wire::exchange(&bed.gateway, head).await;
        let body: Value = serde_json::from_slice(&raw.body).unwrap();
        assert_eq!((raw.status(), body["error"].as_str()), (status, Some("invalid_request")), "{head:?}");
        assert_eq!(raw.header("connection"), Some("close"), "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_token_lives_an_hour_and_a_forged_one_not_at_all() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let bearer = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    bed.clock.advance(Duration::from_secs(3599));
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 200);
    bed.clock.advance(Duration::from_secs(2));
    let expired = with_bearer(&bed, LIST, &bearer).await;
    assert_eq!((expired.status, expired.code().as_str()), (401, "caller_unknown"));
    assert!(expired.json()["detail"].as_str().unwrap().contains("expired"), "{}", expired.text());
    let fresh = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        with_bearer(&bed, LIST, &fresh).await.status,
        200,
        "its habit of refreshing after a 401 helps"
    );
    for at in [5, fresh.len() / 2, fresh.len() - 2] {
        let mut forged = fresh.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let response = with_bearer(&bed, LIST, str::from_utf8(&forged).unwrap()).await;
        assert_eq!(response.code(), "caller_unknown", "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_a_reload_took_away_or_moved_is_out_with_its_tokens() {
    let bed = TestBedBuilder::new().append(&callers()).start().await;
    let token = imported(&bed);
    let bearer = by_client(&bed, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let accounts = format!("name = \"legacy\"\naccounts = [\"{CLINIC_NAME}\"]");
    bed.reconfigure(&accounts, &accounts.replace(CLINIC_NAME, LAB_NAME)).await;
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.code(), "account_not_allowed");
    bed.reconfigure("name = \"legacy\"", "name = \"renamed\"").await;
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.code(), "caller_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_unpaired_hands_nothing_out_any_more() {
    let bed =
        TestBedBuilder::new().append(&callers()).account(AccountSpec::clinic(1003, "Third")).start().await;
    let token = imported(&bed);
    let done = bed.operate(&format!("/accounts/{CLINIC_NAME}/unpair?confirmed=true"), Value::Null).await;
    assert_eq!(done.status, 200, "{}", done.text());
    refused(&by_client(&bed, &token).await, 401, "invalid_grant");
}
