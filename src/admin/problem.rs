//! Errors of the admin API: `application/problem+json` with what is wrong and what to do.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::store::StoreError;

use super::view::ApiProblem;

#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    code: &'static str,
    pub detail: String,
    fix: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fix: String::new() }
    }

    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    pub fn unknown_account(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "account_unknown", format!("There is no account {name:?}."))
            .fix("`accounts list` shows them all.")
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ApiProblem {
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            fix: self.fix,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl Problem {
    pub fn of_store(error: StoreError) -> Self {
        let status = match &error {
            StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. } => StatusCode::NOT_FOUND,
            StoreError::GrantTaken { .. } | StoreError::Fenced(_) => StatusCode::CONFLICT,
            StoreError::Unsealable { .. } | StoreError::OutOfOrder(_) | StoreError::Refused(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, "store", format!("{error}."))
    }
}
