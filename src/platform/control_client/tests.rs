//! Control calls against a platform that stalls, breaks off, redirects or lies, over TLS and through proxies.

use super::super::responder::{
    Play, Responder, bare_platform, json_response, limited_platform, platform, raw_response, realm_of,
    status_response,
};
use super::super::{PlatformClient, TokenHint};
use super::*;
use crate::config::ProxyChoice;
use crate::model::token::{RefreshToken, TokenSet};
use crate::upstream::ProxyVariables;
use crate::upstream::testing::{
    ServerIdentity, TestAuthority, connect_proxy, realm, tls_responder, upstream,
};

const TOKENS: &str = r#"{"access_token":"a","expires_in":3600}"#;
const TOKENS_RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 38\r\nConnection: close\r\n\r\n\
                             {\"access_token\":\"a\",\"expires_in\":3600}";

async fn refresh(platform: &PlatformClient) -> Result<TokenSet, PlatformError> {
    platform.refresh(&RefreshToken::new("canary-refresh")).await
}

async fn refreshed(play: Play) -> (PlatformError, Responder) {
    let responder = Responder::start(vec![play]).await;
    (refresh(&platform(&responder)).await.unwrap_err(), responder)
}

#[tokio::test]
async fn a_call_says_who_it_is_and_asks_for_nothing_packed() {
    let responder = Responder::start(vec![json_response(TOKENS)]).await;
    refresh(&platform(&responder)).await.unwrap();
    let request = responder.only_request();
    let names = request.header_names();
    let mut expected =
        vec!["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("user-agent"), Some(concat!("genapi-gateway/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_redirect_is_named_and_never_followed() {
    let target = Responder::start(vec![json_response(TOKENS)]).await;
    for status in [301, 302, 303, 307, 308] {
        let head =
            format!("HTTP/1.1 {status} Moved\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", target.url());
        let (error, _) = refreshed(raw_response(&head)).await;
        assert_eq!((error.kind, error.status), (PlatformErrorKind::Unexpected, Some(status)));
        assert!(error.detail.contains("redirect"), "{}", error.detail);
    }
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn an_announced_50_mb_response_is_cut_at_the_cap() {
    let (error, responder) = refreshed(Play::Flood(50 * 1024 * 1024)).await;
    assert_eq!(error.kind, PlatformErrorKind::Malformed);
    assert!(error.detail.contains("longer than 1048576"), "{}", error.detail);
    assert!(responder.flood_was_cut().await);
}

#[tokio::test]
async fn a_packed_response_is_read_and_one_that_cannot_be_read_names_its_coding() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, TOKENS.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
    let responder = Responder::start(vec![Play::Bytes([head.into_bytes(), packed].concat())]).await;
    assert_eq!(refresh(&platform(&responder)).await.unwrap().access.expose(), "a");

    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\n\x0b\x02aa";
    let (error, _) = refreshed(raw_response(head)).await;
    assert_eq!(error.kind, PlatformErrorKind::Malformed);
    assert!(error.detail.contains("packed with br"), "{}", error.detail);
}

#[tokio::test]
async fn a_response_whose_connection_breaks_behind_its_object_has_brought_it_all() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TOKENS}", TOKENS.len() + 7);
    let responder = Responder::start(vec![raw_response(&head)]).await;
    let tokens = refresh(&platform(&responder)).await.unwrap();
    assert!(tokens.oddities.iter().any(|oddity| oddity.contains("broke")), "{:?}", tokens.oddities);
}

#[tokio::test]
async fn a_refresh_token_that_came_before_the_connection_broke_is_kept() {
    let half =
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"refresh_token\":\"next\",\"access_token\":\"a";
    let (error, _) = refreshed(raw_response(half)).await;
    assert_eq!((error.kind, error.refresh), (PlatformErrorKind::Lost, Some(RefreshToken::new("next"))));
}

#[tokio::test]
async fn a_request_to_wait_is_told_with_the_refusal() {
    let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n";
    let (error, _) = refreshed(raw_response(busy)).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(20)));
}

#[tokio::test]
async fn html_with_200_is_malformed_and_its_type_is_told() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n\r\n<html>";
    let (error, _) = refreshed(raw_response(html)).await;
    assert_eq!(error.kind, PlatformErrorKind::Malformed);
    assert_eq!(error.detail, "the answer is not sound JSON (text/html, 6 bytes)");
}

#[tokio::test]
async fn lost_unreachable_and_not_http_are_told_apart() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"a\"";
    for (play, kind) in [
        (Play::Cut, PlatformErrorKind::Lost),
        (raw_response(half), PlatformErrorKind::Lost),
        (raw_response("SSH-2.0-OpenSSH_9.2\r\n\r\n"), PlatformErrorKind::Malformed),
        (raw_response("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), PlatformErrorKind::Malformed),
    ] {
        let (error, _) = refreshed(play).await;
        assert_eq!((error.kind, error.blame), (kind, Blame::Realm), "{error}");
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut realm = realm();
    realm.oauth_base = format!("http://{closed}").parse().unwrap();
    let error = refresh(&bare_platform(&realm)).await.unwrap_err();
    assert_eq!(error.kind, PlatformErrorKind::Unreachable, "{error}");
}

async fn stalled(sent: &str, total: Duration) -> PlatformError {
    let responder = Responder::start(vec![Play::Stall(sent.into())]).await;
    let limits = CallLimits { total, ..CallLimits::default() };
    refresh(&limited_platform(&responder, limits)).await.unwrap_err()
}

#[tokio::test]
async fn a_stall_ends_at_the_time_limit_wherever_it_happens() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{";
    for stall in ["", "HTTP/1.1 200", head] {
        let error = stalled(stall, Duration::from_millis(200)).await;
        assert_eq!(error.kind, PlatformErrorKind::TimedOut, "{stall}");
    }
    // What came counts; only the wait for the rest is cut.
    let refused = "HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\n{\"error\":\"invalid_grant\",";
    let error = stalled(refused, Duration::from_secs(2)).await;
    assert_eq!((error.kind, error.blame), (PlatformErrorKind::Refused, Blame::Grant));
}

#[tokio::test]
async fn a_handshake_that_stalls_is_unreachable_since_nothing_was_sent() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut realm = realm();
    realm.oauth_base = format!("https://{}", silent.local_addr().unwrap()).parse().unwrap();
    // A CA of its own, so that this runs on a machine without a CA store.
    let ours = TestAuthority::new("ours");
    realm.ca_file = Some(ours.ca_file());
    let connector = Connector::new(&realm, &upstream(), &ProxyVariables::default()).unwrap();
    let limits = CallLimits { connect: Duration::from_millis(100), ..CallLimits::default() };
    let platform = PlatformClient::with_limits(&realm, connector, limits).unwrap();
    let error = refresh(&platform).await.unwrap_err();
    assert_eq!(error.kind, PlatformErrorKind::Unreachable);
    assert!(error.detail.contains("nothing within 100 ms"), "{}", error.detail);
}

#[tokio::test]
async fn a_literal_address_is_not_called_without_allow_insecure() {
    let responder = Responder::start(vec![json_response(TOKENS)]).await;
    let ours = TestAuthority::new("ours");
    let mut realm = realm_of(&responder);
    realm.hosts.allow_insecure = false;
    realm.ca_file = Some(ours.ca_file());
    realm.oauth_base = responder.url().replace("http://", "https://").parse().unwrap();
    let error = refresh(&bare_platform(&realm)).await.unwrap_err();
    assert_eq!(error.kind, PlatformErrorKind::Unreachable);
    assert!(error.detail.contains("allow_insecure"), "{}", error.detail);
    assert!(responder.requests().is_empty());
}

#[tokio::test]
async fn a_name_with_a_private_address_is_not_called_without_allow_insecure() {
    let ours = TestAuthority::new("ours");
    let mut realm = realm();
    realm.hosts.allow_insecure = false;
    realm.ca_file = Some(ours.ca_file());
    realm.oauth_base = "https://localhost".parse().unwrap();
    let error = refresh(&bare_platform(&realm)).await.unwrap_err();
    assert!(error.detail.contains("a private address"), "{}", error.detail);
}

async fn over_tls(
    identity: ServerIdentity,
    trusted: Option<&TestAuthority>,
) -> Result<TokenSet, PlatformError> {
    let server = tls_responder(identity, TOKENS_RESPONSE).await;
    let mut realm = realm();
    realm.ca_file = trusted.map(TestAuthority::ca_file);
    realm.resolve.insert("identity.gateway.test".to_owned(), server.ip());
    realm.oauth_base = format!("https://identity.gateway.test:{}", server.port()).parse().unwrap();
    refresh(&bare_platform(&realm)).await
}

#[tokio::test]
async fn a_certificate_of_ca_file_is_accepted_and_every_bad_one_is_named() {
    let (ours, theirs) = (TestAuthority::new("ours"), TestAuthority::new("theirs"));
    let host = "identity.gateway.test";
    over_tls(ours.issue(host), Some(&ours)).await.unwrap();
    for (identity, told) in [
        (theirs.issue(host), "a CA that is not trusted"),
        (ours.issue("other.gateway.test"), "made out to another name"),
        (ours.issue_expired(host), "has expired"),
    ] {
        let error = over_tls(identity, Some(&ours)).await.unwrap_err();
        assert_eq!((error.kind, error.blame), (PlatformErrorKind::Unreachable, Blame::Realm));
        assert!(error.detail.contains(told) && error.detail.contains(host), "{}", error.detail);
    }
}

async fn through_proxy(refusal: Option<&'static str>) -> (Result<TokenSet, PlatformError>, Vec<String>) {
    let ours = TestAuthority::new("ours");
    let server = tls_responder(ours.issue("identity.gateway.test"), TOKENS_RESPONSE).await;
    let proxy = connect_proxy(server, refusal).await;
    let mut realm = realm();
    realm.hosts.allow_insecure = false;
    realm.ca_file = Some(ours.ca_file());
    realm.oauth_base = "https://identity.gateway.test".parse().unwrap();
    let mut way = upstream();
    way.proxy =
        ProxyChoice::Url(format!("http://us%40er:pw@localhost:{}", proxy.address.port()).parse().unwrap());
    let connector = Connector::new(&realm, &way, &ProxyVariables::default()).unwrap();
    let refreshed = refresh(&PlatformClient::new(&realm, connector).unwrap()).await;
    let heads = proxy.heads.lock().unwrap().clone();
    (refreshed, heads)
}

#[tokio::test]
async fn the_proxy_sees_connect_and_its_credentials_and_nothing_else() {
    let (refreshed, heads) = through_proxy(None).await;
    refreshed.unwrap();
    let [head] = &heads[..] else { panic!("{heads:?}") };
    assert!(head.starts_with("CONNECT identity.gateway.test:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nproxy-authorization: Basic dXNAZXI6cHc=\r\n"), "{head}");
    assert!(!head.contains("canary"), "{head}");
}

#[tokio::test]
async fn a_proxys_refusal_names_the_proxy() {
    let (refreshed, _) = through_proxy(Some("HTTP/1.1 407 No\r\n\r\n")).await;
    let error = refreshed.unwrap_err();
    assert_eq!(error.kind, PlatformErrorKind::Unreachable);
    assert!(error.detail.contains("through the proxy localhost"), "{}", error.detail);
}

#[tokio::test]
async fn no_trouble_repeats_what_was_sent_or_responded() {
    let echo = r#"{"error":"canary-refresh","error_description":"canary-refresh"}"#;
    for status in [200, 400, 401, 500] {
        let responder = Responder::start(vec![status_response(status, echo); 2]).await;
        let platform = platform(&responder);
        let refused = refresh(&platform).await.unwrap_err();
        let revoked = platform.revoke("canary-refresh", TokenHint::Refresh).await;
        assert!(!format!("{refused} {refused:?} {revoked:?}").contains("canary"), "{refused:?}");
    }
}
