//! The operators' listener: health and metrics open, the JSON API behind the admin token. Tokens are never
//! shown, acts are audited.

mod accounts;
mod acts;
mod compare;
mod error;
mod explain;
mod explain_calls;
mod explain_inputs;
mod extract;
mod guard;
mod health;
mod json_differences;
mod local_acts;
mod logins;
mod moves;
mod nearest;
mod operator_calls;
mod store;
mod versions;
pub mod view;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts};
use axum::handler::Handler;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use crate::access::last_seen_sync::LastSeenSync;
use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::clock::Clock;
use crate::config::Config;
use crate::health::Health;
use crate::journal::audit::{AuditLog, AuditOutcome, AuditRecord};
use crate::journal::catalogue::AuditAct;
use crate::pairing::Pairing;
use crate::store::{Store, StoreError};

use error::ApiError;
pub use guard::Guard;
pub use operator_calls::{OperatorCall, OperatorCalls};

/// What the admin listener is made of.
pub struct Admin {
    pub clock: Clock,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub store: Arc<dyn Store>,
    pub pairing: Arc<Pairing>,
    pub last_seen: Arc<LastSeenSync>,
    pub health: Arc<Health>,
    pub audit: Arc<AuditLog>,
    pub operator: OperatorCalls,
    /// The code of a refusal by its number in an account's activity.
    pub refusal_code: fn(u16) -> &'static str,
    /// The text exposition of all metrics.
    pub scrape: Box<dyn Fn() -> String + Send + Sync>,
    /// Before a rotation: the first key of the file is the one that this gateway seals with.
    pub refuse_stale_key: Box<dyn Fn() -> Result<(), StoreError> + Send + Sync>,
}

/// One call of the API. `docs/admin-api.json` has the same ones, which a test sees to.
struct ApiRoute {
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Arc<Admin>>,
}

fn get<T: 'static>(path: &'static str, handler: impl Handler<T, Arc<Admin>>) -> ApiRoute {
    ApiRoute { method: "get", path, handler: routing::get(handler) }
}

fn post<T: 'static>(path: &'static str, handler: impl Handler<T, Arc<Admin>>) -> ApiRoute {
    ApiRoute { method: "post", path, handler: routing::post(handler) }
}

/// Every call of the API, below `/api`.
fn api_routes() -> Vec<ApiRoute> {
    vec![
        get("/openapi.json", describe),
        get("/accounts", accounts::list),
        get("/accounts/{account}", accounts::show),
        get("/accounts/{account}/explain", explain::explain),
        get("/accounts/{account}/journal", accounts::journal),
        post("/accounts/{account}/call", acts::call),
        post("/accounts/{account}/compare", compare::compare),
        post("/accounts/{account}/unpair", acts::unpair),
        post("/accounts/{account}/revoke", acts::revoke),
        post("/accounts/{account}/switch", acts::switch),
        post("/accounts/{account}/remove", local_acts::remove),
        post("/accounts/{account}/rename", local_acts::rename),
        post("/accounts/{account}/test", local_acts::test),
        get("/migration", moves::migration),
        post("/move", moves::move_accounts),
        get("/callers", accounts::callers),
        get("/journal", accounts::complete_journal),
        post("/pause", acts::pause),
        post("/resume", acts::resume),
        post("/renew", acts::renew),
        post("/discover", acts::discover),
        post("/version", versions::set),
        post("/pairings", logins::start),
        post("/pairings/status", logins::status),
        post("/pairings/finish", logins::finish),
        post("/invitations", logins::invite),
        post("/import", logins::import),
        get("/export", logins::export),
        post("/store/backup", store::back_up),
        post("/store/rotate-key", store::rotate_key),
    ]
}

/// What is open to balancers and scrapers.
fn probes() -> Vec<ApiRoute> {
    vec![get("/healthz", health::alive), get("/readyz", health::ready), get("/metrics", health::metrics)]
}

/// Every call of the listener as `method path`. A test holds `docs/admin-api.json` to it.
pub fn routes() -> Vec<String> {
    let api = api_routes().into_iter().map(|route| format!("{} /api{}", route.method, route.path));
    api.chain(probes().into_iter().map(|route| format!("{} {}", route.method, route.path))).collect()
}

/// The admin listener's routes, without the pages that it shares with the public one.
pub fn router(admin: Arc<Admin>, guard: Arc<Guard>) -> Router {
    let with = |router: Router<Arc<Admin>>, call: ApiRoute| {
        // An import of 100,000 accounts is about 15 MB.
        let largest = if call.path == "/import" { LARGEST_IMPORT } else { LARGEST_BODY };
        router.route(call.path, call.handler.layer(DefaultBodyLimit::max(largest)))
    };
    let api = api_routes()
        .into_iter()
        .fold(Router::new(), with)
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_call)
        .layer(middleware::from_fn_with_state(guard, guard::require_token));
    probes()
        .into_iter()
        .fold(Router::new(), with)
        .method_not_allowed_fallback(wrong_method)
        .nest("/api", api)
        .fallback(unknown_call)
        .layer(middleware::map_response(forbid_caching_and_framing))
        .with_state(admin)
}

/// The API's description (OpenAPI 3.1).
async fn describe() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

const OPENAPI: &str = include_str!("../../docs/admin-api.json");

async fn unknown_call() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "The admin listener has no such path.")
        .fix("docs/admin-api.json lists all calls; `/api/openapi.json` serves it.")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not take that method.",
    )
    .fix("The Allow header names the methods that it takes.")
}

/// Account names and states, and refresh tokens where they are exported: nobody on the way keeps a copy, and
/// no page shows them.
async fn forbid_caching_and_framing(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    response
}

const LARGEST_BODY: usize = 1024 * 1024;
const LARGEST_IMPORT: usize = 64 * 1024 * 1024;

/// Whose act it is, for the audit log: the admin token has one holder as far as the gateway can tell.
pub(crate) struct Actor {
    from: Option<IpAddr>,
    request_id: String,
}

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Ok(Self { from, request_id: fresh_id() })
    }
}

/// Links the lines of one act.
fn fresh_id() -> String {
    let mut bytes = [0u8; 8];
    // Without random numbers the id is all zeros; the line is still written.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    hex::encode(bytes)
}

impl Admin {
    /// Writes an act into the audit log, does it, and writes down what came of it. An act that cannot be
    /// written down is not done.
    async fn audited<T>(
        &self,
        actor: &Actor,
        action: AuditAct,
        account: Option<&str>,
        act: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let line = |outcome| AuditRecord {
            who: "admin token".to_owned(),
            from: actor.from,
            action,
            account: account.map(str::to_owned),
            outcome,
            request_id: actor.request_id.clone(),
        };
        self.audit.append(&line(AuditOutcome::Asked)).await.map_err(|error| {
            let detail = format!("{error}, so nothing was done.");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", detail)
                .fix("Make room on its disk, or correct [admin] audit.")
        })?;
        let result = act.await;
        let outcome = match &result {
            Ok(_) => AuditOutcome::Done,
            Err(error) if error.status.is_server_error() => AuditOutcome::Failed(error.detail.clone()),
            Err(error) => AuditOutcome::Refused(error.detail.clone()),
        };
        if let Err(error) = self.audit.append(&line(outcome)).await {
            tracing::error!(%error, action = action.word(), "what came of an admin action could not be written down");
        }
        result
    }
}
