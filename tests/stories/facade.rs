//! Applications that refresh by themselves: the vendor's token endpoint answered in its shape, with tokens
//! that are worth nothing at the platform.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Behavior};
use http::Method;
use serde_json::{Value, json};

use crate::world::{CLINIC, CLINIC_NAME, LAB, LAB_NAME, Response, Setup, World};

const LIST: &str = "/itero-gen-api/v2/orders/practice";

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
fn refresh(world: &World, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token").extend_pairs(fields);
    world
        .bare(Method::POST, "/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish())
}

async fn by_client(world: &World, token: &str) -> Response {
    let fields = [("refresh_token", token), ("client_id", "legacy-app"), ("client_secret", "legacy-secret")];
    world.send(refresh(world, &fields)).await
}

async fn by_key(world: &World, key: &str, token: &str) -> Response {
    // An Align client id means nothing here, and goes nowhere.
    let fields = [("refresh_token", token), ("client_id", "align-gave-this"), ("client_secret", "and-this")];
    world.send(refresh(world, &fields).header("x-gateway-key", key)).await
}

async fn with_bearer(world: &World, path: &str, bearer: &str) -> Response {
    world.send(world.bare(Method::GET, path).bearer_auth(bearer)).await
}

fn refused(response: &Response, status: u16, error: &str) {
    let body = response.json();
    assert_eq!((response.status, body["error"].as_str()), (status, Some(error)), "{body}");
    assert!(body["error_description"].as_str().unwrap().len() > 20, "it says what to do");
    assert_eq!(body.as_object().unwrap().len(), 2);
}

/// The refresh token that was imported: what the application has in its own database.
fn imported(world: &World) -> String {
    let tokens = world.sandbox.refresh_tokens(CLINIC);
    assert_eq!(tokens.len(), 1);
    tokens[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_refresh_token_gets_a_gateway_token_in_the_vendors_shape() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    for response in [by_client(&world, &token).await, by_key(&world, &world.key, &token).await] {
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
        let calls = world.sandbox.calls().len();
        let list = with_bearer(&world, LIST, &bearer).await;
        assert_eq!(list.status, 200, "the token names caller and account by itself");
        let call = world.sandbox.calls().pop().unwrap();
        assert_eq!((call.account, world.sandbox.calls().len()), (Some(CLINIC), calls + 1));
        assert!(!call.header("authorization").unwrap().contains(&bearer), "ours goes nowhere");
        assert_eq!(with_bearer(&world, &format!("/accounts/{CLINIC_NAME}{LIST}"), &bearer).await.status, 200);
        let other = with_bearer(&world, &format!("/accounts/{LAB_NAME}/orders/lab"), &bearer).await;
        assert_eq!(other.code(), "account_not_allowed", "bound to its account, whatever the caller may use");
    }
    assert!(world.sandbox.refreshes(CLINIC).is_empty(), "nothing is refreshed for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_accounts_base_url_it_works_too() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    let request = world
        .bare(Method::POST, &format!("/accounts/{CLINIC_NAME}/oauth2/token"))
        .header("x-gateway-key", &world.key)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(world.send(request).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_token_works_on_while_the_platform_rotates_and_over_restarts() {
    let switches: [fn(&mut Behavior); 2] =
        [|behavior| behavior.rotate_refresh = true, |behavior| behavior.refresh_token_in_response = false];
    for switch in switches {
        let world = Setup::new().append(&callers()).behavior(switch).unpaired().start().await;
        // Where it rotates, the platform replaces the application's token at the very import.
        let old = world.sandbox.grant(CLINIC).unwrap();
        let entry =
            json!([{"name": CLINIC_NAME, "realm": "global", "account_id": CLINIC, "refresh_token": old}]);
        let import =
            world.while_time_flies(Duration::from_millis(100), world.operate("/import", entry)).await;
        assert!(import.text().contains("\"ok\":true"), "{}", import.text());
        let before = by_client(&world, &old).await.json()["access_token"].as_str().unwrap().to_owned();
        for _ in 0..3 {
            world.sandbox.expire_access(CLINIC);
            assert_eq!(with_bearer(&world, LIST, &before).await.status, 200);
        }
        let world = world.restart().await;
        assert_eq!(with_bearer(&world, LIST, &before).await.status, 200, "gateway tokens outlive a restart");
        let again = by_client(&world, &old).await;
        assert_eq!((again.status, &again.json()["refresh_token"]), (200, &json!(old)), "{}", again.text());
        world.sandbox.expire_access(CLINIC);
        let bearer = again.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(with_bearer(&world, LIST, &bearer).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_ends_no_gateway_token_while_the_old_key_is_held() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let before = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let old_key = std::fs::read_to_string(world.folder().join("gateway.key")).unwrap();
    let new_key = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleSE=\n";
    let keys = [format!("{old_key}{new_key}"), format!("{new_key}{old_key}")];
    let mut world = world;
    for held in keys {
        world = world
            .restart_after(async |folder| std::fs::write(folder.join("gateway.key"), held).unwrap())
            .await;
        assert_eq!(
            with_bearer(&world, LIST, &before).await.status,
            200,
            "the application knows nothing of keys"
        );
    }
    let after = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let rotation = world.running.store().rotate_key().await.unwrap();
    assert_eq!(rotation.retired.len(), 1, "{rotation:?}");
    let world = world
        .restart_after(async |folder| std::fs::write(folder.join("gateway.key"), new_key).unwrap())
        .await;
    assert_eq!(with_bearer(&world, LIST, &after).await.status, 200, "signed with the new key");
    let late = with_bearer(&world, LIST, &before).await;
    assert_eq!((late.status, late.code().as_str()), (401, "caller_unknown"), "its key is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_callers_tokens_and_grants_are_told_in_the_vendors_words() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let lab_token = world.sandbox.refresh_tokens(LAB)[0].clone();
    let wrong = [("refresh_token", &*token), ("client_id", "legacy-app"), ("client_secret", "guessed")];
    refused(&world.send(refresh(&world, &wrong)).await, 401, "invalid_client");
    let none = [("refresh_token", &*token), ("client_id", "legacy-app")];
    refused(&world.send(refresh(&world, &none)).await, 401, "invalid_client");
    refused(&by_client(&world, &lab_token).await, 401, "invalid_grant");
    refused(&by_key(&world, "key-of-stranger", &token).await, 401, "invalid_grant");
    assert_eq!(by_key(&world, "key-of-stranger", &lab_token).await.status, 200);
    refused(&by_key(&world, &world.key, "never-imported").await, 401, "invalid_grant");
    for unknown in [
        by_key(&world, "key-of-nobody", &token).await,
        world.send(refresh(&world, &[("refresh_token", &token)])).await,
    ] {
        refused(&unknown, 401, "invalid_client");
        assert!(unknown.text().contains("caller_unknown"), "{}", unknown.text());
        assert!(unknown.header("www-authenticate").starts_with("Basic "));
    }
    let doubled = [("refresh_token", &*token), ("refresh_token", &*token)];
    refused(
        &world.send(refresh(&world, &doubled).header("x-gateway-key", &world.key)).await,
        400,
        "invalid_request",
    );
    let code = world
        .bare(Method::POST, "/oauth2/token")
        .header("x-gateway-key", &world.key)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=authorization_code&code=x");
    refused(&world.send(code).await, 400, "unsupported_grant_type");
    let json = world
        .bare(Method::POST, "/oauth2/token")
        .header("x-gateway-key", &world.key)
        .header("content-type", "application/json")
        .body(json!({"grant_type": "refresh_token", "refresh_token": token}).to_string());
    refused(&world.send(json).await, 400, "invalid_request");
    assert!(world.sandbox.calls().is_empty(), "none of this reached the platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_and_dead_accounts_hand_nothing_out_and_come_back() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    world.operate(&format!("/pause?pattern={CLINIC_NAME}"), Value::Null).await;
    let paused = by_client(&world, &token).await;
    refused(&paused, 503, "temporarily_unavailable");
    assert_eq!(paused.header("retry-after"), "60");
    world.operate(&format!("/resume?pattern={CLINIC_NAME}"), Value::Null).await;
    assert_eq!(by_client(&world, &token).await.status, 200);

    world.sandbox.forget_refresh(CLINIC);
    world.sandbox.expire_access(CLINIC);
    let bearer = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with_bearer(&world, LIST, &bearer).await.code(), "account_needs_login");
    let dead = by_client(&world, &token).await;
    refused(&dead, 401, "invalid_grant");
    assert!(dead.text().contains("account_needs_login"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_sent_to_an_odd_spelling_of_the_endpoint_stays_here() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let form = format!("grant_type=refresh_token&refresh_token={token}");
    for (method, path) in [
        (Method::POST, "/oauth2//token"),
        (Method::POST, "/OAuth2/Token"),
        (Method::POST, "/accounts/acct-1001/itero-gen-api/v2/oauth2/token"),
    ] {
        let before = world.sandbox.calls().len();
        let request = world.bare(method, path).header("x-gateway-key", &world.key).body(form.clone());
        let response = world.send(request.header("x-gateway-account", CLINIC_NAME)).await;
        assert_eq!((response.status, response.code().as_str()), (400, "bad_request"), "{path}");
        assert_eq!(world.sandbox.calls().len(), before, "{path} went to the platform");
    }
}

fn basic(pair: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_come_by_basic_too_encoded_or_not() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let ask = async |pair: &str, fields: &[(&str, &str)]| {
        let fields = [&[("refresh_token", token.as_str())], fields].concat();
        world.send(refresh(&world, &fields).header("authorization", basic(pair))).await
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
    let key = ask(&format!("anybody:{}", world.key), &[("client_id", "align-gave-this")]).await;
    assert_eq!(key.status, 200, "a caller's key as the password, as at every other path");
    assert!(world.sandbox.calls().is_empty(), "none of this reached the platform");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_at_the_token_endpoint_has_oauths_shape() {
    let world = Setup::new().append(&callers()).start().await;
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = world.send(world.bare(method.clone(), "/oauth2/token")).await;
        refused(&response, 405, "invalid_request");
        assert_eq!(response.header("allow"), "POST", "{method}");
    }
    let form = "application/x-www-form-urlencoded";
    let post = || world.bare(Method::POST, "/oauth2/token").header("content-type", form);
    refused(&world.send(post().body("a=".repeat(10_000))).await, 413, "invalid_request");
    refused(
        &world
            .send(post().header("origin", "https://evil.test").body(
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
        let raw = crate::wire::exchange(&world.gateway, head).await;
        let body: Value = serde_json::from_slice(&raw.body).unwrap();
        assert_eq!((raw.status(), body["error"].as_str()), (status, Some("invalid_request")), "{head:?}");
        assert_eq!(raw.header("connection"), Some("close"), "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_token_lives_an_hour_and_a_forged_one_not_at_all() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let bearer = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    world.clock.advance(Duration::from_secs(3599));
    assert_eq!(with_bearer(&world, LIST, &bearer).await.status, 200);
    world.clock.advance(Duration::from_secs(2));
    let expired = with_bearer(&world, LIST, &bearer).await;
    assert_eq!((expired.status, expired.code().as_str()), (401, "caller_unknown"));
    assert!(expired.json()["detail"].as_str().unwrap().contains("expired"), "{}", expired.text());
    let fresh = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(
        with_bearer(&world, LIST, &fresh).await.status,
        200,
        "its habit of refreshing after a 401 helps"
    );
    for at in [5, fresh.len() / 2, fresh.len() - 2] {
        let mut forged = fresh.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let response = with_bearer(&world, LIST, str::from_utf8(&forged).unwrap()).await;
        assert_eq!(response.code(), "caller_unknown", "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_a_reload_took_away_or_moved_is_out_with_its_tokens() {
    let world = Setup::new().append(&callers()).start().await;
    let token = imported(&world);
    let bearer = by_client(&world, &token).await.json()["access_token"].as_str().unwrap().to_owned();
    let accounts = format!("name = \"legacy\"\naccounts = [\"{CLINIC_NAME}\"]");
    world.reconfigure(&accounts, &accounts.replace(CLINIC_NAME, LAB_NAME)).await;
    assert_eq!(with_bearer(&world, LIST, &bearer).await.code(), "account_not_allowed");
    world.reconfigure("name = \"legacy\"", "name = \"renamed\"").await;
    assert_eq!(with_bearer(&world, LIST, &bearer).await.code(), "caller_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_unpaired_hands_nothing_out_any_more() {
    let world = Setup::new().append(&callers()).account(AccountSpec::clinic(1003, "Third")).start().await;
    let token = imported(&world);
    let done = world.operate(&format!("/accounts/{CLINIC_NAME}/unpair?confirmed=true"), Value::Null).await;
    assert_eq!(done.status, 200, "{}", done.text());
    refused(&by_client(&world, &token).await, 401, "invalid_grant");
}
