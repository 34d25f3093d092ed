//! `GET /oauth2/authorize`: sends the browser on to where logins begin, at the redirect URI's origin. The
//! rule: nothing is decided about the login here, and a browser is sent nowhere but to the gateway's own
//! origin.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::gateway::LocalResponse;
use crate::http1::RequestHead;
use crate::model::endpoint;

use super::OAuthFacade;

impl OAuthFacade {
    /// The query goes on as it was sent; a form does as well (RFC 6749, 3.1).
    pub fn authorize(&self, head: &RequestHead, body: &[u8]) -> LocalResponse {
        let form = std::str::from_utf8(body).unwrap_or_default().trim();
        let query = if form.is_empty() { head.uri.query().unwrap_or_default() } else { form };
        let response = self.redirect_to_login(query);
        LocalResponse { response, caller: None, endpoint: endpoint::OTHER, account: None }
    }

    fn redirect_to_login(&self, query: &str) -> Response<Bytes> {
        let client_id = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "client_id");
        let endpoint = client_id.and_then(|(_, id)| self.pairing.authorize_endpoint(&id));
        let Some(endpoint) = endpoint else { return unknown_client() };
        match HeaderValue::from_str(&format!("{endpoint}?{query}")) {
            Ok(location) => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::FOUND;
                let headers = response.headers_mut();
                headers.insert(header::LOCATION, location);
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
            // A request target holds no byte that a header could not.
            Err(_) => unknown_client(),
        }
    }
}

/// A person sees this, in a browser (RFC 6749, 4.1.2.1: never a redirect).
fn unknown_client() -> Response<Bytes> {
    const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width\"><title>The application is not known here</title>\
        <body style=\"font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem\">\
        <h1 style=\"font-size:1.4rem\">The application is not known here</h1>\
        <p>The client_id that the application sent is none of this gateway's callers with redirect_uris.</p>\
        <p>The operator of this gateway has to write the application's client_id and redirect_uris into \
        <code>facade</code> of its caller.</p></body></html>\n";
    let mut response = Response::new(Bytes::from_static(PAGE.as_bytes()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
