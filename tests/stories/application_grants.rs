//! Applications that get refresh tokens of the gateway's own: theirs alone, the same one again, and revoked
//! by themselves without a word to the platform.

use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint};
use http::Method;
use serde_json::json;

use crate::facade::{LIST, imported, refused, with_bearer};
use crate::test_bed::{CLINIC, CLINIC_NAME, Response, TestBed, TestBedBuilder};

/// Two applications of one lab, each with client credentials of its own; the first exchanges what it brings.
fn two_applications() -> String {
    let secret = |word: &str| {
        crate::path::key_line(word).replace("key_sha256", "client_secret_sha256").trim().to_owned()
    };
    let application = |name: &str, more: &str| {
        format!(
            "\n[[callers]]\nname = \"{name}\"\naccounts = [\"*\"]\n\
             facade = {{ client_id = \"{name}\", {}{more} }}\n",
            secret(&format!("{name}-secret")),
        )
    };
    application("oldpms", ", adopt = true, token_life = \"10m\", token_size = 1200")
        + &application("labsync", ", adopt = true")
}

/// One OAuth request of an application.
async fn asks(bed: &TestBed, application: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("client_id", application).append_pair("client_secret", &format!("{application}-secret"));
    form.extend_pairs(fields);
    let request = bed
        .bare(Method::POST, path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.finish());
    bed.send(request).await
}

/// What a refresh brings: the access token and the refresh token.
async fn refreshes(bed: &TestBed, application: &str, token: &str) -> (String, String) {
    let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let response = asks(bed, application, "/oauth2/token", &fields).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let body = response.json();
    let text = |field: &str| body[field].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_token_becomes_the_gateways_and_the_platforms_never_comes_back() {
    let bed = TestBedBuilder::new().append(&two_applications()).start().await;
    let old = imported(&bed);
    let (bearer, ours) = refreshes(&bed, "oldpms", &old).await;
    assert_ne!(ours, old);
    assert!(ours.len() <= 40, "old tables have columns of that size: {ours}");
    assert!((1199..=1200).contains(&bearer.len()), "{}", bearer.len());
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 200);
    let (again, same) = refreshes(&bed, "oldpms", &old).await;
    assert_eq!(same, ours, "an application that asks again gets the same one");
    let (third, same) = refreshes(&bed, "oldpms", &ours).await;
    assert_eq!(same, ours);
    let bed = bed.restart().await;
    for bearer in [&bearer, &again, &third] {
        assert_eq!(with_bearer(&bed, LIST, bearer).await.status, 200, "it outlives a restart");
    }
    assert_eq!(refreshes(&bed, "oldpms", &ours).await.1, ours);
    bed.clock.advance(Duration::from_secs(601));
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 401, "token_life is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_application_revokes_ends_for_it_alone_and_the_account_stays_paired() {
    let bed = TestBedBuilder::new().append(&two_applications()).start().await;
    let old = imported(&bed);
    let (bearer, ours) = refreshes(&bed, "oldpms", &old).await;
    let (others_bearer, others) = refreshes(&bed, "labsync", &old).await;
    assert_ne!(ours, others);
    for (application, token) in [("labsync", &ours), ("oldpms", &others)] {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        refused(&asks(&bed, application, "/oauth2/token", &fields).await, 401, "invalid_grant");
        let fields = [("token", token.as_str()), ("token_type_hint", "refresh_token")];
        refused(&asks(&bed, application, "/oauth2/revoke", &fields).await, 401, "invalid_grant");
    }
    let control_calls = bed.sandbox.calls().len();
    let fields = [("token", bearer.as_str()), ("token_type_hint", "access_token")];
    assert_eq!(asks(&bed, "oldpms", "/oauth2/revoke", &fields).await.status, 200);
    assert_eq!(bed.sandbox.calls().len(), control_calls, "the platform hears nothing of it");
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.code(), "caller_unknown");
    let fields = [("grant_type", "refresh_token"), ("refresh_token", ours.as_str())];
    refused(&asks(&bed, "oldpms", "/oauth2/token", &fields).await, 401, "invalid_grant");
    assert_eq!(with_bearer(&bed, LIST, &others_bearer).await.status, 200);
    assert_eq!(refreshes(&bed, "labsync", &others).await.1, others);
    let bed = bed.restart().await;
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 401, "it stays revoked");
    let fields = [("token", old.as_str())];
    refused(&asks(&bed, "labsync", "/oauth2/revoke", &fields).await, 401, "invalid_grant");
}

/// An application of one account alone, whose refresh token nobody has imported.
fn single(accounts: &str) -> String {
    let secret = crate::path::key_line("single-secret").replace("key_sha256", "client_secret_sha256");
    format!(
        "\n[[callers]]\nname = \"single\"\naccounts = [\"{accounts}\"]\n\
         facade = {{ client_id = \"single\", {}, adopt = true }}\n",
        secret.trim(),
    )
}

async fn flies<T>(bed: &TestBed, work: impl Future<Output = T>) -> T {
    bed.while_time_flies(Duration::from_millis(100), work).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_never_imported_becomes_the_gateways_where_only_one_account_can_be_meant() {
    let bed = TestBedBuilder::new()
        .append(&single("global:1001"))
        .append(&two_applications())
        .unpaired()
        .start()
        .await;
    let brought = bed.sandbox.grant(CLINIC).unwrap();
    refused(&asks_for(&bed, "oldpms", &brought).await, 401, "invalid_grant");
    let made_up = flies(&bed, asks_for(&bed, "single", "made-up-token")).await;
    refused(&made_up, 401, "invalid_grant");
    let hasty = asks_for(&bed, "single", &brought).await;
    refused(&hasty, 503, "temporarily_unavailable");
    assert_eq!(hasty.header("retry-after"), "60");
    let before = bed.sandbox.calls_to(Endpoint::Refresh).len();
    bed.clock.advance(Duration::from_secs(61));
    let taken = flies(&bed, asks_for(&bed, "single", &brought)).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert!(bed.sandbox.calls_to(Endpoint::Refresh).len() > before, "the platform has taken it");
    let ours = taken.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(ours, brought);
    let bearer = taken.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with_bearer(&bed, LIST, &bearer).await.status, 200);
    let asked = bed.sandbox.calls_to(Endpoint::Refresh).len();
    for held in [&brought, &ours] {
        assert_eq!(refreshes(&bed, "single", held).await.1, ours, "the one that it brought is known now");
    }
    refused(&asks_for(&bed, "single", "an-older-one").await, 401, "invalid_grant");
    assert_eq!(bed.sandbox.calls_to(Endpoint::Refresh).len(), asked, "nothing more goes to the platform");
    assert_eq!(asks(&bed, "single", "/oauth2/revoke", &[("token", &ours)]).await.status, 200);
    refused(&asks_for(&bed, "single", &ours).await, 401, "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_account_never_takes_the_place_of_a_grant_that_has_died() {
    let other = AccountSpec::clinic(501, "Another clinic").with_orders(2);
    let bed = TestBedBuilder::new().account(other).append(&single("global:1001")).start().await;
    let brought = bed.sandbox.grant(501).unwrap();
    let removed = bed.operate("/accounts/acct-501/remove?confirmed=true", json!(null)).await;
    assert_eq!(removed.status, 200, "{}", removed.text());
    bed.sandbox.forget_refresh(CLINIC);
    bed.sandbox.expire_access(CLINIC);
    bed.clock.advance(Duration::from_secs(3600));
    let dead = flies(&bed, bed.get(CLINIC_NAME, "/orders/practice")).await;
    assert_eq!((dead.status, &*dead.code()), (401, "account_needs_login"), "{}", dead.text());
    let before = bed.sandbox.calls_to(Endpoint::Refresh).len();
    for text in ["x", " ", "gwlt_abc", "gwr_abc"] {
        refused(&asks_for(&bed, "single", text).await, 401, "invalid_grant");
    }
    let foreign = asks_for(&bed, "single", &brought).await;
    assert_ne!(foreign.status, 200, "{}", foreign.text());
    assert_eq!(bed.sandbox.calls_to(Endpoint::Refresh).len(), before, "nobody asks the platform about it");
    let still = flies(&bed, bed.get(CLINIC_NAME, "/orders/practice")).await;
    assert_eq!((still.status, &*still.code()), (401, "account_needs_login"));
}

async fn asks_for(bed: &TestBed, application: &str, token: &str) -> Response {
    asks(bed, application, "/oauth2/token", &[("grant_type", "refresh_token"), ("refresh_token", token)])
        .await
}
