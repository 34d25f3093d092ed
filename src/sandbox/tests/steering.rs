//! The record, TLS, the control port, the matching set.

use super::*;
use crate::sandbox::{CallEnd, CertificateKind, Endpoint, gateway_files};

#[tokio::test]
async fn the_record_has_calls_as_they_came() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let body = "{ \"q\" : 1 }";
    let request = format!(
        "POST /itero-gen-api/v2/patient/search?a=%2F&b HTTP/1.1\r\nhOsT: HOST\r\nX-One: 1\r\nX-One: 2\r\nAuthorization: Bearer {access}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    fixture.raw(HostRole::Region(Region::Europe), &request, usize::MAX).await;
    let calls = fixture.sandbox.until_calls(1, |call| call.end == CallEnd::Complete).await;
    let call = &calls[0];
    assert_eq!(call.target(), "/itero-gen-api/v2/patient/search?a=%2F&b");
    assert_eq!(call.headers[0].0[..], b"hOsT"[..]);
    assert_eq!(call.headers.iter().filter(|(name, _)| &name[..] == b"X-One").count(), 2);
    assert_eq!((&call.body[..], call.body_length), (body.as_bytes(), body.len() as u64));
    assert_eq!((call.account, call.status), (Some(CLINIC), Some(200)));
    assert_eq!(call.endpoint, Some(Endpoint::PatientSearch));
    assert_eq!(call.role, HostRole::Region(Region::Europe));
    assert!(call.bearer.is_some());
    fixture.sandbox.clear_calls();
    assert!(fixture.sandbox.calls().is_empty());
}

#[tokio::test]
async fn the_record_is_bounded_and_can_be_off() {
    for keep in [0, 2] {
        let fixture = Fixture::with(SandboxOptions { keep_calls: keep, ..SandboxOptions::default() }).await;
        let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
        for _ in 0..4 {
            fixture.get(&url, "x").await;
        }
        assert_eq!((fixture.sandbox.calls().len(), fixture.sandbox.received()), (keep, 4));
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_call_and_both_are_told_apart() {
    let fixture = Fixture::new().await;
    let call = "GET /itero-gen-api/v2/none HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let last = "GET /itero-gen-api/v2/none HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
    let both = fixture.raw(HostRole::Region(Region::Europe), &format!("{call}{last}"), usize::MAX).await;
    assert_eq!(both.matches("HTTP/1.1 404").count(), 2);
    let calls = fixture.sandbox.calls();
    assert_eq!(calls[0].connection, calls[1].connection);
}

#[tokio::test]
async fn a_refused_head_never_becomes_a_call() {
    let fixture = Fixture::new().await;
    let smuggled = "POST /itero-gen-api/v2/none HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let response = fixture.raw(HostRole::Region(Region::Europe), smuggled, usize::MAX).await;
    assert_eq!(response.matches("HTTP/1.1 400").count(), 1);
    assert!(fixture.sandbox.calls().is_empty());
    assert_eq!(fixture.sandbox.refused(), [(HostRole::Region(Region::Europe), "doubtful framing")]);
}

#[tokio::test]
async fn expect_continue_is_responded_before_the_body() {
    let fixture = Fixture::new().await;
    let request = "POST /itero-gen-api/v2/none HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n{}";
    let response = fixture.raw(HostRole::Region(Region::Europe), request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404"), "{response}");
}

#[tokio::test]
async fn everything_works_over_tls_with_host_names() {
    let options = SandboxOptions { tls: true, host_names: true, ..SandboxOptions::default() };
    let fixture = Fixture::with(options).await;
    let login = fixture.login_token(Platform::New).await;
    let base = fixture.sandbox.base_url(Platform::New);
    assert!(base.starts_with("https://iteroapi.sandbox.test:"));
    let found = fixture.get(&format!("{base}/api/third-party/v2/{DISCOVERY}"), &login).await;
    assert!(found.text_at("/APIs/0/Domain").starts_with("https://eu.iteroapi.sandbox.test:"));
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
    assert_eq!(fixture.get(&url, &access).await.status, 200);
}

#[tokio::test]
async fn bad_certificates_are_refused_and_the_right_one_is_not() {
    let accepted = async |certificate| {
        let fixture =
            Fixture::with(SandboxOptions { tls: true, certificate, ..SandboxOptions::default() }).await;
        let url = format!("{}/orders/practice", fixture.sandbox.region_url(Region::Europe));
        fixture.sandbox.send(http::Request::get(url).body(Full::default()).unwrap()).await.is_ok()
    };
    assert!(accepted(CertificateKind::Right).await);
    assert!(!accepted(CertificateKind::Expired).await);
    assert!(!accepted(CertificateKind::OtherName).await);
    assert!(!accepted(CertificateKind::OtherAuthority).await);
}

#[tokio::test]
async fn people_steer_it_over_http() {
    let fixture = Fixture::with(SandboxOptions { control: true, ..SandboxOptions::default() }).await;
    let control = fixture.sandbox.control_url().unwrap();
    let post =
        async |path: &str, json: &str| fixture.call("POST", &format!("{control}{path}"), "", json).await;
    let page = fixture.get(&format!("{control}/"), "").await;
    assert!(page.text().contains("Crown &amp; Co") && page.text().contains("/accounts/{id}/expire"));
    let added = post("/accounts", r#"{"id":9,"name":"Added","kind":"lab","region":"europe"}"#).await;
    assert_eq!(added.status, 200);
    let granted = post("/accounts/9/grant", "").await;
    assert_eq!(fixture.refresh(Platform::New, &granted.text_at("/refresh_token")).await.status, 200);
    assert_eq!(post("/accounts/9/move", r#"{"to":"asia_pacific"}"#).await.status, 200);
    assert_eq!(fixture.sandbox.account(9).unwrap().region, Region::AsiaPacific);
    assert_eq!(post("/accounts/9/migrate", r#"{"to":"old"}"#).await.status, 200);
    assert!(!fixture.sandbox.is_paired(9));
    assert_eq!(post("/accounts/99/expire", "").await.status, 400);
    let behavior = post("/habits", r#"{"rotate_refresh":true,"access_token_life":"90s"}"#).await;
    assert_eq!((behavior.status, fixture.sandbox.behavior().rotate_refresh), (200, true));
    assert_eq!(post("/habits", r#"{"rotate":true}"#).await.status, 400);
    assert_eq!(post("/faults", r#"{"endpoint":"orders_lab","fault":"garbage","times":1}"#).await.status, 200);
    assert_eq!(fixture.sandbox.fault_rules().len(), 1);
    assert_eq!(fixture.call("DELETE", &format!("{control}/faults"), "", "").await.status, 200);
    assert!(fixture.sandbox.fault_rules().is_empty());
    let calls = fixture.get(&format!("{control}/calls?account=9"), "").await;
    assert_eq!(calls.json()[0]["endpoint"], "refresh");
    let bearer = post("/accounts/9/bearer", "").await.text_at("/access_token");
    fixture.call("POST", &format!("{}/x", fixture.sandbox.base_url(Platform::Old)), &bearer, "abc").await;
    let calls = fixture.get(&format!("{control}/calls?account=9&heads=1"), "").await;
    let last = calls.json().as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["body_length"], 3);
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(last["body_sha256"], sha256);
    assert!(last["headers"].to_string().contains("host") && !last["headers"].to_string().contains(&bearer));
    let foreign =
        http::Request::post(format!("{control}/accounts/9/forget")).header("origin", "https://x.test");
    assert_eq!(fixture.send(foreign.body(Full::default()).unwrap()).await.status, 403);
}

#[tokio::test]
async fn a_matching_set_holds_a_configuration_and_living_grants() {
    let options = SandboxOptions { tls: true, host_names: true, ..SandboxOptions::default() };
    let fixture = Fixture::with(options).await;
    fixture.sandbox.populate(4);
    let dir = tempfile::tempdir().unwrap();
    let addresses =
        gateway_files::Addresses::new("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:8081".parse().unwrap());
    assert_eq!(addresses.redirect_uri, crate::sandbox::DEFAULT_REDIRECT);
    let key = gateway_files::write(&fixture.sandbox, dir.path(), &addresses).unwrap();
    let text = std::fs::read_to_string(dir.path().join(gateway_files::CONFIG)).unwrap();
    let config: toml::Table = text.parse().unwrap();
    let realms = config["realms"].as_table().unwrap();
    assert_eq!(realms.keys().collect::<Vec<_>>(), ["china", "global", "old"]);
    let global = realms["global"].as_table().unwrap();
    assert_eq!(global["base_url"].as_str().unwrap(), fixture.sandbox.base_url(Platform::New));
    assert_eq!(global["resolve"]["eu.iteroapi.sandbox.test"].as_str().unwrap(), "127.0.0.1");
    assert!(dir.path().join(global["ca_file"].as_str().unwrap()).exists());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let expected = crate::sandbox::hex(digest.as_ref());
    assert_eq!(config["callers"][0]["key_sha256"].as_str().unwrap(), expected);
    let import = std::fs::read_to_string(dir.path().join(gateway_files::IMPORT)).unwrap();
    let import: Value = serde_json::from_str(&import).unwrap();
    let entries = import.as_array().unwrap();
    assert_eq!(entries.len(), 6);
    for entry in entries {
        assert_eq!(entry["realm"], "global");
        let token = entry["refresh_token"].as_str().unwrap();
        assert_eq!(fixture.refresh(Platform::New, token).await.status, 200);
    }
}

#[tokio::test]
async fn a_stopped_sandbox_has_closed_its_sockets() {
    let fixture = Fixture::new().await;
    let address = fixture.sandbox.address(HostRole::Storage).unwrap();
    fixture.sandbox.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn bound_to_any_address_it_prints_loopback_and_takes_any_name() {
    let fixture =
        Fixture::with(SandboxOptions { bind: "0.0.0.0".parse().unwrap(), ..SandboxOptions::default() }).await;
    assert!(fixture.sandbox.base_url(Platform::New).starts_with("http://127.0.0.1:"));
    let port = fixture.sandbox.address(HostRole::Region(Region::Europe)).unwrap().port();
    let access = fixture.sandbox.bearer(CLINIC).unwrap();
    let request = format!(
        "GET /itero-gen-api/v2/orders/practice HTTP/1.1\r\nHost: sandbox.internal:{port}\r\nAuthorization: Bearer {access}\r\nConnection: close\r\n\r\n"
    );
    let response = fixture.raw(HostRole::Region(Region::Europe), &request, usize::MAX).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_look_at_next_is_noted_before_its_response_is_out() {
    let fixture = Fixture::new().await;
    fixture.sandbox.add_account(AccountSpec::lab(9, "Busy").with_orders(100).with_asset_bytes(1000));
    let access = fixture.sandbox.bearer(9).unwrap();
    let refresh = fixture.sandbox.grant(9).unwrap();
    let api = fixture.sandbox.region_url(Region::NorthAmerica);
    for order in fixture.sandbox.order_ids(9) {
        fixture.get(&format!("{api}/order/{order}/download/IDE"), &access).await;
        assert!(fixture.sandbox.is_downloaded(order));
        assert_eq!(fixture.sandbox.calls().last().unwrap().status, Some(200));
        fixture.refresh(Platform::New, &refresh).await;
    }
    assert!(fixture.sandbox.overlapping_refreshes().is_empty());
}

#[tokio::test]
async fn every_response_says_that_it_comes_from_a_sandbox() {
    let fixture = Fixture::new().await;
    let access = fixture.sandbox.bearer(LAB).unwrap();
    let api = fixture.sandbox.region_url(Region::AsiaPacific);
    let identity = fixture.sandbox.oauth_base(Platform::New);
    for url in [
        format!("{api}/orders/lab"),
        format!("{api}/{DISCOVERY}"),
        format!("{api}/no-such-call"),
        format!("{identity}/oauth2/token"),
        fixture.sandbox.login_page(Platform::New),
    ] {
        assert_eq!(fixture.get(&url, &access).await.header("x-sandbox"), "genapi-gateway", "{url}");
    }
    let refused = fixture.raw(HostRole::Region(Region::Europe), "GET / HTTP/9\r\n\r\n", usize::MAX).await;
    assert!(refused.contains("X-Sandbox: genapi-gateway\r\n"), "{refused}");
}
