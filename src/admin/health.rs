//! `/healthz`, `/readyz`, `/metrics`: for balancers and scrapers, without a token and without a name of
//! anybody.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::Admin;

#[derive(Deserialize)]
pub struct Verbosity {
    verbose: Option<String>,
}

/// The process is alive.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Whether calls can be taken. Neither a store in trouble nor one account that needs a login makes the
/// gateway unready, and a balancer's question waits for no database.
pub async fn ready(State(admin): State<Arc<Admin>>, Query(verbosity): Query<Verbosity>) -> Response {
    if verbosity.verbose.is_some() {
        let readiness = admin.health.readiness().await;
        return (status(readiness.ready), axum::Json(readiness)).into_response();
    }
    let ready = admin.health.is_ready();
    (status(ready), if ready { "ready\n" } else { "not ready: ask /readyz?verbose\n" }).into_response()
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut response = (admin.scrape)().into_response();
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
