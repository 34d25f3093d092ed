//! One HTTP call of the control kind: bounded in time and size, never redirected, never repeated. The only
//! user of reqwest, which is given our TLS, our look-up and our choice of proxy.

use std::error::Error;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::Value;
use url::{Host, Url};

use crate::model::token::AccessToken;
use crate::upstream::{ConnectError, Connector};

use super::control_call::ControlCall;
use super::decompress::{DecompressError, decompress};
use super::documented_outcome::{DocumentedOutcome, documented_outcome, failure};
use super::oauth_errors::ErrorResponse;
use super::retry_after::retry_after;
use super::{Blame, PlatformError, PlatformErrorKind, strict_json};

/// How long a call may take and how large its response may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallLimits {
    pub connect: Duration,
    /// From the start to the last byte of the response.
    pub total: Duration,
    /// The largest body in bytes (threats, row 16).
    pub body: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30), body: 1024 * 1024 }
    }
}

pub(super) struct ControlClient {
    client: reqwest::Client,
    connector: Connector,
    limits: CallLimits,
}

/// The body of a response whose status says that the call was carried out.
pub(super) struct RawResponse {
    pub status: u16,
    pub media: Option<String>,
    pub body: Vec<u8>,
    /// What was odd about the transfer.
    pub oddities: Vec<String>,
    /// The connection broke before the announced end; only of calls that bring tokens, since all that is
    /// needed may have come.
    pub broken: Option<PlatformError>,
}

impl RawResponse {
    pub fn is_empty(&self) -> bool {
        self.body.iter().all(u8::is_ascii_whitespace)
    }

    /// The response as strictly read JSON. One that was cut short is reported as that, so that it can be
    /// asked for again.
    pub fn json(&self, call: ControlCall) -> Result<Value, PlatformError> {
        strict_json::parse(&self.body)
            .ok_or_else(|| self.broken.clone().unwrap_or_else(|| self.no_json(call)))
    }

    pub fn no_json(&self, call: ControlCall) -> PlatformError {
        let media = self.media.as_deref().unwrap_or("no content type");
        let detail = format!("the answer is not sound JSON ({media}, {} bytes)", self.body.len());
        PlatformError { status: Some(self.status), ..PlatformError::malformed(call, detail) }
    }
}

impl ControlClient {
    pub fn new(connector: Connector, limits: CallLimits, allow_insecure: bool) -> Result<Self, String> {
        let proxies = connector.clone();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // What is not packed cannot explode (threats, row 16).
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*connector.tls()).clone())
            .dns_resolver(Lookup(connector.clone()))
            .proxy(reqwest::Proxy::custom(move |url| proxies.proxy_for(url).cloned()))
            .https_only(!allow_insecure)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(concat!("genapi-gateway/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            // A pooled connection may die just as a refresh is written to it, and a refresh whose response is
            // lost can cost a login. These calls are few; a fresh connection resumes its TLS session.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| cause(&error))?;
        Ok(Self { client, connector, limits })
    }

    /// The OAuth endpoints take forms alone (S1 4.1.2, 4.1.3, 4.1.5).
    pub async fn post_form(
        &self,
        call: ControlCall,
        url: Url,
        fields: &[(&str, &str)],
    ) -> Result<RawResponse, PlatformError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.client.post(url.clone());
        self.send(call, &url, request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body))
            .await
    }

    pub async fn get(
        &self,
        call: ControlCall,
        url: Url,
        bearer: &AccessToken,
    ) -> Result<RawResponse, PlatformError> {
        let request = self.client.get(url.clone()).header(AUTHORIZATION, bearer.header());
        self.send(call, &url, request).await
    }

    pub async fn send_json(
        &self,
        call: ControlCall,
        method: Method,
        url: Url,
        bearer: &AccessToken,
        body: &Value,
    ) -> Result<RawResponse, PlatformError> {
        let request = self.client.request(method, url.clone()).header(AUTHORIZATION, bearer.header());
        self.send(call, &url, request.header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    async fn send(
        &self,
        call: ControlCall,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<RawResponse, PlatformError> {
        self.check_literal(call, url).await?;
        let mut response = request.send().await.map_err(|error| self.broken(call, url, &error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if let DocumentedOutcome::Failure(blame, kind, says) = documented_outcome(call, status) {
            // Whatever is wrong with the body of a failure, the status counts; what could be read of it is.
            let (body, _) = self.read(call, url, &mut response, MAX_FAILURE).await;
            let body = decompress(&headers, body, MAX_FAILURE).map(|(body, _)| body).unwrap_or_default();
            let error = failure(call, status, &ErrorResponse::of(&headers, &body), (blame, kind, says));
            return Err(PlatformError { retry_after: retry_after(&headers), ..error });
        }
        let (body, end) = self.read(call, url, &mut response, self.limits.body).await;
        let broken = end.err();
        if let Some(error) = broken.clone().filter(|error| !call.brings_tokens() || is_too_long(error)) {
            return Err(error);
        }
        let (body, packed) =
            decompress(&headers, body, self.limits.body).map_err(|error| not_unpacked(call, &error))?;
        let media = media_type(&headers);
        Ok(RawResponse { status, oddities: oddities(status, media.as_deref(), packed), media, body, broken })
    }

    /// Stops reading at the cap, whatever length was announced. What came before trouble comes back beside
    /// it.
    async fn read(
        &self,
        call: ControlCall,
        url: &Url,
        response: &mut reqwest::Response,
        most: usize,
    ) -> (Vec<u8>, Result<(), PlatformError>) {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return (body, Ok(())),
                Ok(Some(chunk)) if body.len() + chunk.len() > most => {
                    body.extend_from_slice(&chunk[..most - body.len()]);
                    return (body, Err(too_long(call, most)));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Err(error) => return (body, Err(self.broken(call, url, &error))),
            }
        }
    }

    /// reqwest looks only names up, so an address written into a URL is checked here.
    async fn check_literal(&self, call: ControlCall, url: &Url) -> Result<(), PlatformError> {
        match (url.host(), url.host_str(), url.port_or_known_default()) {
            (Some(Host::Ipv4(_) | Host::Ipv6(_)), Some(host), Some(port)) => {
                match self.connector.addresses(host, port).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(unreachable(call, error.to_string())),
                }
            }
            _ => Ok(()),
        }
    }

    /// Where the call broke decides whether it may have been carried out.
    fn broken(&self, call: ControlCall, url: &Url, error: &reqwest::Error) -> PlatformError {
        let host = url.host_str().unwrap_or_default();
        if error.is_connect() || error.is_builder() {
            return unreachable(call, self.no_connection(host, url, error));
        }
        let (kind, detail) = if error.is_timeout() {
            (
                PlatformErrorKind::TimedOut,
                format!("{host} did not answer within {} ms", self.limits.total.as_millis()),
            )
        } else if is_not_http(error) {
            (PlatformErrorKind::Malformed, format!("{host} did not answer with HTTP/1.1"))
        } else {
            (PlatformErrorKind::Lost, format!("the connection to {host} broke before the answer was whole"))
        };
        PlatformError::new(call, Blame::Realm, kind, None, detail)
    }

    fn no_connection(&self, host: &str, url: &Url, error: &reqwest::Error) -> String {
        if let Some(known) = ConnectError::found_in(host, error) {
            return known.to_string();
        }
        let why = if error.is_timeout() {
            format!("nothing within {} ms", self.limits.connect.as_millis())
        } else {
            cause(error)
        };
        match self.connector.proxy_for(url).and_then(Url::host_str) {
            Some(proxy) => format!("no connection to {host} through the proxy {proxy} ({why})"),
            None => format!("no connection to {host} ({why})"),
        }
    }
}

/// Adapts our resolver to reqwest: private addresses are refused here as on the data path, and one that does
/// not answer holds nothing up.
struct Lookup(Connector);

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let connector = self.0.clone();
        Box::pin(async move {
            let addresses = connector.addresses_fastest_first(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// `base` with `path` appended to its own; query and fragment do not belong to a base.
pub(super) fn append_path(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Enough for `{"error": …, "error_description": …}`.
const MAX_FAILURE: usize = 16 * 1024;

fn unreachable(call: ControlCall, detail: String) -> PlatformError {
    PlatformError::new(call, Blame::Realm, PlatformErrorKind::Unreachable, None, detail)
}

fn too_long(call: ControlCall, most: usize) -> PlatformError {
    PlatformError::malformed(call, format!("the answer is longer than {most} bytes"))
}

fn is_too_long(error: &PlatformError) -> bool {
    error.kind == PlatformErrorKind::Malformed
}

fn not_unpacked(call: ControlCall, error: &DecompressError) -> PlatformError {
    let why = match error {
        DecompressError::Unknown(coding) => {
            format!(
                "the answer is packed with {coding} although none was asked for, and that is not read here"
            )
        }
        DecompressError::TooLong => "the answer unpacks to more than an answer may have".to_owned(),
    };
    PlatformError::malformed(call, why)
}

fn oddities(status: u16, media: Option<&str>, packed: bool) -> Vec<String> {
    let mut found = Vec::new();
    if status != 200 {
        found.push(format!("its status is {status}"));
    }
    match media {
        Some(media) if media == "application/json" || media.ends_with("+json") => {}
        Some(media) => found.push(format!("it is called {media}")),
        None => found.push("it has no content type".to_owned()),
    }
    if packed {
        found.push("it is packed although none was asked for".to_owned());
    }
    found
}

/// The content type for people, without parameters; odd ones are left out.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next()?.trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'+' | b'.');
    (media.len() <= 64 && media.bytes().all(plain)).then_some(media)
}

fn is_not_http(error: &reqwest::Error) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The innermost reason; the outer ones repeat the URL.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
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
        let html =
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n\r\n<html>";
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
        way.proxy = ProxyChoice::Url(
            format!("http://us%40er:pw@localhost:{}", proxy.address.port()).parse().unwrap(),
        );
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
}
