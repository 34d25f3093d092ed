//! Errors of the admin API: `application/problem+json` (RFC 9457) with what is wrong and what to do, always
//! both.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::model::account::AccountName;
use crate::store::StoreError;

use super::view::ProblemDetails;

#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    code: &'static str,
    pub detail: String,
    fix: String,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fix: String::new() }
    }

    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// `nearest`: an account that may have been meant.
    pub fn unknown_account(name: &str, nearest: Option<&AccountName>) -> Self {
        let detail = if name.contains('*') {
            format!("No account matches {name:?}.")
        } else {
            format!("There is no account {name:?}.")
        };
        Self::new(StatusCode::NOT_FOUND, "account_unknown", detail).fix(match nearest {
            Some(nearest) => format!("Is {nearest} meant? `accounts list` shows them all."),
            None => "`accounts list` shows them all.".to_owned(),
        })
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ProblemDetails {
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: as_sentence(self.detail),
            fix: as_sentence(if self.fix.is_empty() { usual_fix(self.status).to_owned() } else { self.fix }),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Two sentences stand one behind the other in what a command prints.
fn as_sentence(mut text: String) -> String {
    if !text.ends_with(['.', '!', '?', ':']) {
        text.push('.');
    }
    text
}

/// Where nothing better is known.
fn usual_fix(status: StatusCode) -> &'static str {
    if status.is_server_error() {
        "Try again in some minutes; the gateway's log and `/readyz?verbose` say what ails it."
    } else {
        "docs/admin-api.json describes each call with its parameters."
    }
}

impl ApiError {
    pub fn of_store(error: StoreError) -> Self {
        let status = match &error {
            StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. } => StatusCode::NOT_FOUND,
            StoreError::GrantTaken { .. } | StoreError::NameTaken(_) | StoreError::Fenced(_) => {
                StatusCode::CONFLICT
            }
            StoreError::Unsealable { .. }
            | StoreError::Unavailable(_)
            | StoreError::InUse(_)
            | StoreError::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, "store", format!("{error}."))
    }
}
