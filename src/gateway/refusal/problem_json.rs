//! A refusal as callers get it: RFC 9457's object, and the headers that go with it.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderName, HeaderValue};

use crate::http1::ReasonPhrase;

use crate::gateway::refusal::{ErrorInfo, ProcedureProblem, Refusal, X_REQUEST_ID};

static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

impl Refusal {
    /// The complete response. `head_only`: a HEAD request gets the same head and no body.
    pub fn response<B>(
        &self,
        request_id: &HeaderValue,
        head_only: bool,
        body: impl FnOnce(Bytes) -> B,
    ) -> Response<B> {
        let info = self.info();
        let text = self.problem(info, request_id);
        let mut response = Response::new(body(if head_only { Bytes::new() } else { text.clone() }));
        *response.status_mut() = info.status;
        response.extensions_mut().insert(ReasonPhrase(Bytes::from_static(info.code.as_bytes())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID.clone(), request_id.clone());
        if let Ok(status) = HeaderValue::try_from(format!("genapi-gateway; error={}", info.proxy_error)) {
            headers.insert(PROXY_STATUS.clone(), status);
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ceil_seconds(wait)));
        }
        if matches!(self, Refusal::CallerUnknown(_)) {
            let basic = HeaderValue::from_static("Basic realm=\"genapi-gateway\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        if info.closes_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// RFC 9457's object; `choices` and `fix` are ours.
    fn problem(&self, info: &ErrorInfo, request_id: &HeaderValue) -> Bytes {
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": info.title,
            "status": info.status.as_u16(),
            "code": info.code,
            "hint": info.hint,
            "instance": format!("urn:request:{}", request_id.to_str().unwrap_or_default()),
        });
        if let Some(detail) = self.detail() {
            problem["detail"] = detail.into();
        }
        match self {
            Refusal::AccountNotChosen(choices)
            | Refusal::ProcedureUnknown(ProcedureProblem::NotListed { known: choices, .. }) => {
                problem["choices"] = choices.clone().into();
            }
            Refusal::AccountNeedsLogin { account, realm, remedy, .. } => {
                problem["hint"] = remedy.advice(realm, account).into();
                problem["fix"] = remedy.fix(realm, account).into();
            }
            _ => {}
        }
        Bytes::from(problem.to_string())
    }
}

/// Seconds for `Retry-After`, rounded up, never zero: "0" would invite a hammering loop.
fn ceil_seconds(wait: Duration) -> u64 {
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    millis.div_ceil(1000).max(1)
}
