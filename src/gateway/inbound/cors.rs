//! CORS for the web pages that a caller lists in `origins` (Fetch, "CORS protocol"): preflight responses, and
//! the headers that let the page read a response. A page that is not listed gets none of it.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Response, StatusCode};

use crate::http1::{Headers, KnownHeader, RequestHead};

use crate::gateway::settings::GatewaySettings;

/// How long a browser may cache a preflight response.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The preflight response for a listed page; it names no key, so any caller's list
/// counts. What may be done is decided when the call itself comes.
pub fn preflight(settings: &GatewaySettings, head: &RequestHead) -> Option<Response<Bytes>> {
    if head.method != Method::OPTIONS || !has(&head.headers, "access-control-request-method") {
        return None;
    }
    let origin = head.headers.get_unique(KnownHeader::Origin).ok().flatten()?;
    if !settings.callers.iter().any(|caller| caller.allows_origin(origin)) {
        return None;
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_origin(&mut response, origin);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ANY);
    // The star does not stand for Authorization.
    let allowed = HeaderValue::from_static("*, authorization");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
    if has(&head.headers, "access-control-request-private-network") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Some(response)
}

/// Lets the page that called read this response.
pub fn allow_origin<B>(response: &mut Response<B>, origin: &[u8]) {
    let Ok(origin) = HeaderValue::from_bytes(origin) else { return };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// The platform's own CORS headers hold for pages that call the platform.
pub fn drop_platform_headers(headers: &mut Headers) {
    let is_cors =
        |name: &[u8]| name.get(..15).is_some_and(|begin| begin.eq_ignore_ascii_case(b"access-control-"));
    if headers.iter().any(|header| is_cors(header.raw_name)) {
        headers.retain(|header| !is_cors(header.raw_name));
    }
}

fn has(headers: &Headers, name: &str) -> bool {
    headers.iter().any(|header| header.raw_name.eq_ignore_ascii_case(name.as_bytes()))
}
