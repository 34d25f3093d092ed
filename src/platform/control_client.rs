//! One HTTP call of the control kind: bounded in time and size, never redirected, never repeated. The only
//! user of reqwest, which is given our TLS, our look-up and our choice of proxy.

use std::error::Error;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, VIA};
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
    /// Lets this gateway know its own calls, should one arrive at itself.
    pub via: Option<HeaderValue>,
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
        Ok(Self { client, connector, limits, via: None })
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

    /// A read of which every status is a response.
    pub async fn read_whatever(
        &self,
        call: ControlCall,
        url: Url,
        bearer: &AccessToken,
    ) -> Result<(u16, Vec<u8>), PlatformError> {
        self.check_literal(call, &url).await?;
        let request = self.client.get(url.clone()).header(AUTHORIZATION, bearer.header());
        let request = match &self.via {
            Some(via) => request.header(VIA, via),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| self.broken(call, &url, &error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (body, end) = self.read(call, &url, &mut response, MAX_READ).await;
        end?;
        let (body, _) = decompress(&headers, body, MAX_READ).map_err(|error| not_unpacked(call, &error))?;
        Ok((status, body))
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
        let request = match &self.via {
            Some(via) => request.header(VIA, via),
            None => request,
        };
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

/// An order list of a large practice.
const MAX_READ: usize = 16 * 1024 * 1024;

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
mod tests;
