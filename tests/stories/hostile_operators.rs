//! Strangers at the operators' door, and what of a call may be found afterwards.

use genapi_gateway::sandbox::Endpoint;
use http::Method;
use serde_json::Value;

use crate::hostile_callers::raw;
use crate::test_bed::{CLINIC_NAME, LAB_NAME, PASSWORD, TestBed, USER};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_admin_token_nothing_is_told_and_trying_locks_nobody_out() {
    let bed = TestBed::new().await;
    for path in [
        "/api/accounts",
        "/api//accounts",
        "/api/accounts/",
        "/api/%61ccounts",
        "/api/export?refresh_tokens=true",
    ] {
        assert_eq!(bed.send(bed.browse(Method::GET, path)).await.status, 401, "{path}");
    }
    let mut last = 0;
    for number in 0..40 {
        let guess = bed.browse(Method::GET, "/api/accounts").bearer_auth(format!("guess-{number}"));
        last = bed.send(guess).await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(bed.look("/api/accounts").await.status, 200, "the right holder is let in all the same");
    for (name, value) in [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")] {
        let page = bed.browse(Method::POST, "/api/pause").bearer_auth(&bed.admin_token).header(name, value);
        assert_eq!(bed.send(page).await.status, 403, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_are_told_is_kept_by_nobody_on_the_way() {
    let bed = TestBed::new().await;
    for path in ["/api/accounts", "/api/export?refresh_tokens=true", "/metrics", "/readyz?verbose"] {
        let response = bed.look(path).await;
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("cache-control"), "no-store", "{path}");
        assert_eq!(response.header("x-content-type-options"), "nosniff", "{path}");
        assert!(response.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_login_can_be_forged_replayed_or_taken_to_another_browser() {
    let bed = TestBed::new().await;
    let started =
        bed.operate("/pairings", serde_json::json!({"realm": "global", "paste": false})).await.json();
    let link = Value::as_str(&started["url"]).unwrap().to_owned();
    let path = &link[link.find("/connect/").unwrap()..];
    let begun = bed.send(bed.browse(Method::POST, path)).await;
    assert_eq!(begun.status, 303);
    let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
    let back = bed.sandbox.log_in(begun.header("location"), USER, PASSWORD).await.unwrap();
    let query = back.split_once('?').unwrap().1;
    let state = query.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap();
    bed.sandbox.clear_calls();
    let callback = |query: &str, cookie: &str| {
        let request = bed.browse(Method::GET, &format!("/oauth2/callback?{query}"));
        bed.send(request.header("cookie", cookie.to_owned()))
    };
    let forged = format!("code=x&state={}", "A".repeat(43));
    for (query, cookie, status) in [
        (query.to_owned(), "", 403),
        (query.to_owned(), "genapi-login-0000000000000000=x", 403),
        (forged, cookie.as_str(), 404),
        (format!("{query}&code=evil"), cookie.as_str(), 400),
        (format!("{query}&state={state}"), cookie.as_str(), 400),
        (format!("{query}&error=access_denied"), cookie.as_str(), 400),
        ("code=x".to_owned(), cookie.as_str(), 400),
        (format!("code=%0d%0a&state={state}"), cookie.as_str(), 400),
    ] {
        assert_eq!(callback(&query, cookie).await.status, status, "{query}");
    }
    assert!(bed.sandbox.calls().is_empty(), "the platform was asked nothing");
    let (one, two) = tokio::join!(callback(query, &cookie), callback(query, &cookie));
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [200, 410], "one goes on, the other is told that the login was used");
    assert_eq!(bed.sandbox.calls_to(Endpoint::Exchange).len(), 1);
    assert_eq!(callback(query, &cookie).await.status, 410);
}

/// Patient names travel in queries, paths, bodies and headers; none of
/// it may be found afterwards, nor any secret.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_call_carries_stays_in_metrics_journal_audit_or_on_disk() {
    const CANARY: &str = "Canarypatient";
    let bed = TestBed::new().await;
    let targets = [
        format!("/orders/practice?patient={CANARY}"),
        format!("/patient/{CANARY}/x"),
        format!("/orders/{CANARY}"),
        format!("/{CANARY}/../x"),
        format!("/@{CANARY}/x"),
        format!("/order/{CANARY}/download/{CANARY}"),
    ];
    for target in &targets {
        let response = bed.get(CLINIC_NAME, target).await;
        assert!(
            response.code().is_empty() || !response.text().contains(CANARY),
            "{target}: {}",
            response.text()
        );
    }
    bed.call(Method::POST, CLINIC_NAME, "/patient/search", format!("{{\"FirstName\":\"{CANARY}\"}}")).await;
    for (name, value) in [
        ("X-Gateway-Key", CANARY),
        ("X-Gateway-Account", CANARY),
        ("Authorization", CANARY),
        ("Cookie", CANARY),
        ("X-Request-Id", "Canarypatient with blanks"),
    ] {
        bed.send(bed.bare(Method::GET, "/x").header(name, value)).await;
    }
    let odd = format!(
        "{CANARY} /accounts/{LAB_NAME}/x HTTP/1.1\r\nHost: {CANARY}\r\nX-Gateway-Key: {}\r\nConnection: close\r\n\r\n",
        bed.key
    );
    raw(&bed.gateway, odd.as_bytes()).await;
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for path in ["/metrics", "/api/journal?lines=1000", "/api/accounts", "/readyz?verbose"] {
        found.push((path.to_owned(), bed.look(path).await.body.to_vec()));
    }
    for file in std::fs::read_dir(bed.folder()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("gateway.db") || name.ends_with(".log") {
            found.push((name, std::fs::read(path).unwrap()));
        }
    }
    assert!(found.iter().any(|(name, _)| name == "gateway.db"));
    let refresh_tokens = bed.sandbox.refresh_tokens(crate::test_bed::CLINIC);
    let secrets = [CANARY.to_owned(), bed.key.clone(), bed.admin_token.clone()];
    for (place, bytes) in &found {
        let text = String::from_utf8_lossy(bytes);
        for secret in secrets.iter().chain(&refresh_tokens) {
            assert!(!text.contains(secret.as_str()), "{place} holds {secret}");
        }
    }
}
