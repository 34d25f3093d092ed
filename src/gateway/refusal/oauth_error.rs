//! Refusals at the token endpoint, in the only shape that token clients read (RFC 6749, 5.2). The status is
//! the refusal's own; the gateway's code stands in the description, so that an operator finds it in the
//! tables.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::gateway::refusal::{Refusal, X_REQUEST_ID};

/// One refusal of a token request.
pub struct OAuthError {
    pub status: StatusCode,
    /// One of RFC 6749's words.
    pub error: &'static str,
    pub description: String,
    /// The methods that the endpoint takes, where it is about that.
    pub allowed: Option<&'static str>,
}

impl OAuthError {
    pub fn of(refusal: &Refusal) -> Self {
        let info = refusal.info();
        let detail = refusal.detail().unwrap_or_else(|| info.title.to_owned());
        let description = format!("{}: {detail}", info.code);
        Self { status: info.status, error: info.oauth_error, description, allowed: None }
    }

    /// For another method than these, as `Allow` has them.
    pub fn method(allowed: &'static str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            error: "invalid_request",
            description: format!(
                "method_not_allowed: this endpoint takes {allowed}; tokens are asked for by POST, with a form"
            ),
            allowed: Some(allowed),
        }
    }

    /// `head_only`: a HEAD request gets the same head and no body.
    pub fn response(&self, request_id: &HeaderValue, head_only: bool) -> Response<Bytes> {
        let body = serde_json::json!({ "error": self.error, "error_description": self.description });
        let text = Bytes::from(body.to_string());
        let length = HeaderValue::from(text.len());
        let mut response = Response::new(if head_only { Bytes::new() } else { text });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value| headers.insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        set(header::CONTENT_LENGTH, length);
        set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        set(X_REQUEST_ID.clone(), request_id.clone());
        if self.error == "invalid_client" {
            // RFC 6749, 5.2: a client that sent `Authorization` is told the scheme; the others lose nothing
            // by it.
            let basic = HeaderValue::from_static("Basic realm=\"genapi-gateway\", charset=\"UTF-8\"");
            set(header::WWW_AUTHENTICATE, basic);
        }
        if let Some(allowed) = self.allowed {
            set(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

impl Refusal {
    /// The same refusal for a client that asked for a token: what stands in the head, the code as reason
    /// phrase included, is the same.
    pub fn oauth_response(&self, request_id: &HeaderValue, head_only: bool) -> Response<Bytes> {
        let (mut parts, ()) = self.response(request_id, true, drop).into_parts();
        let (oauth, body) = OAuthError::of(self).response(request_id, head_only).into_parts();
        parts.headers.extend(oauth.headers);
        Response::from_parts(parts, body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_client_reads_a_word_of_the_standard_and_the_gateways_code() {
        let id = HeaderValue::from_static("r-1");
        for (refusal, status, error, code) in [
            (Refusal::CallerUnknown("no key"), 401, "invalid_client", "caller_unknown"),
            (Refusal::OriginRefused, 403, "unauthorized_client", "origin_refused"),
            (Refusal::ContentTooLarge, 413, "invalid_request", "content_too_large"),
            (Refusal::BadFraming("the body broke off"), 400, "invalid_request", "bad_request"),
            (
                Refusal::TooManyRequests(Duration::from_secs(3)),
                429,
                "temporarily_unavailable",
                "too_many_requests",
            ),
        ] {
            let response = refusal.oauth_response(&id, false);
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!((response.status().as_u16(), body["error"].as_str()), (status, Some(error)));
            assert!(body["error_description"].as_str().unwrap().starts_with(&format!("{code}: ")), "{body}");
            assert_eq!(body.as_object().unwrap().len(), 2);
            assert_eq!(response.headers().contains_key("www-authenticate"), error == "invalid_client");
            assert_eq!(response.headers().contains_key("retry-after"), status == 429);
        }
        assert!(Refusal::ContentTooLarge.oauth_response(&id, false).headers().contains_key("connection"));
        assert_eq!(OAuthError::method("POST").response(&id, true).headers()["allow"], "POST");
    }
}
