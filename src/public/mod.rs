//! Connect links and the OAuth callback, for the clinic's browser. The rule: every response is a readable
//! page, works without scripts, and holds nothing of the request's text. The same routes stand on the admin
//! listener.

mod limit;
mod pages;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::pairing::{
    AUTHORIZE_PATH, Authorization, CallbackResult, LoginError, LoginOutcome, LoginProof, Pairing,
};
use limit::RequestLimit;

/// The public listener: the routes below and a page for every other path.
pub fn router(pairing: Arc<Pairing>) -> Router {
    routes(pairing).fallback(async || pages::not_found())
}

/// The routes alone, to be merged into another listener's router. Callback paths are read once: a changed
/// `redirect_uri` needs a restart.
pub fn routes(pairing: Arc<Pairing>) -> Router {
    let callbacks = pairing.callback_paths();
    let pages_state = Arc::new(PublicPages {
        unknown_codes: RequestLimit::of_unknown_codes(pairing.clock().clone()),
        logins: RequestLimit::of_logins(pairing.clock().clone()),
        pairing,
    });
    let mut routes = Router::new()
        // Callback paths are taken literally, whatever their segments begin with.
        .without_v07_checks()
        .route("/connect/{code}", get(offer).post(begin))
        .route("/connect/choose", post(choose))
        .route(AUTHORIZE_PATH, get(authorize));
    for (path, file) in pages::FILES {
        if !callbacks.contains(path) {
            routes = routes.route(path, get(async move || file()));
        }
    }
    for path in callbacks {
        routes = routes.route(&path, get(callback));
    }
    routes.method_not_allowed_fallback(async || pages::method_not_allowed()).with_state(pages_state)
}

struct PublicPages {
    pairing: Arc<Pairing>,
    unknown_codes: RequestLimit,
    /// Logins that applications begin: each leaves a row in the store for ten minutes.
    logins: RequestLimit,
}

/// Shows what a link is for. Changes nothing: scanners and previews look, too.
async fn offer(State(pages_state): State<Arc<PublicPages>>, uri: Uri) -> Response {
    match pages_state.pairing.look(code_of(&uri)).await {
        Ok(offer) => pages::start(&offer),
        Err(error) => pages_state.failed(error),
    }
}

/// The button. 303, so that the browser asks the login page with GET. Another site's page cannot press it:
/// whoever comes from there sees the button instead. (`Origin` tells nothing: our own pages send `null`,
/// since they forbid referrers.)
async fn begin(state: State<Arc<PublicPages>>, headers: HeaderMap, uri: Uri) -> Response {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
        return offer(state, uri).await;
    }
    let State(pages_state) = state;
    match pages_state.pairing.begin(code_of(&uri)).await {
        Ok(begin) => pages::see_other(begin.authorize_url.as_str(), &begin.cookie),
        Err(error) => pages_state.failed(error),
    }
}

/// An application has sent the browser here to log in; it presses no button, since it asked for this.
async fn authorize(State(pages_state): State<Arc<PublicPages>>, method: Method, uri: Uri) -> Response {
    if method != Method::GET {
        return pages::method_not_allowed();
    }
    let query = uri.query().unwrap_or_default();
    if let Err(error) = pages_state.pairing.check_authorize(query) {
        return pages::failed(&error, None);
    }
    if !pages_state.logins.take_one() {
        return pages::too_many_logins();
    }
    match pages_state.pairing.authorize(query).await {
        Authorization::LogIn(begin) => pages::see_other(begin.authorize_url.as_str(), &begin.cookie),
        Authorization::Refused(location) => pages::redirect(&location),
        Authorization::Failed(error) => pages::failed(&error, None),
    }
}

async fn callback(
    State(pages_state): State<Arc<PublicPages>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    // A HEAD would spend the login and show nothing for it.
    if method != Method::GET {
        return pages::method_not_allowed();
    }
    let cookies = cookies(&headers);
    let proof = LoginProof::Browser { cookies: &cookies };
    let result = pages_state.pairing.callback(uri.query().unwrap_or_default(), proof).await;
    pages_state.page(result)
}

async fn choose(State(pages_state): State<Arc<PublicPages>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(form) = read_form(&head.headers, body).await else {
        return pages_state.failed(LoginError::BadChoice);
    };
    let field = |wanted: &str| {
        let mut values = form.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (Some(value), None) => Some(value),
            _ => None,
        }
    };
    let (Some(choice), Some(account)) = (field("choice"), field("account")) else {
        return pages_state.failed(LoginError::BadChoice);
    };
    let cookies = cookies(&head.headers);
    let result = pages_state.pairing.choose(choice, LoginProof::Browser { cookies: &cookies }, account).await;
    pages_state.page(result)
}

impl PublicPages {
    fn page(&self, result: CallbackResult) -> Response {
        let mut response = match result.outcome {
            LoginOutcome::Connected(connected) => pages::connected(&connected),
            LoginOutcome::Choose(choice) => pages::choose(&choice),
            LoginOutcome::ReturnToApplication { location } => pages::redirect(location.expose()),
            LoginOutcome::Failed { error: LoginError::LoginExpired, .. } => {
                self.failed(LoginError::LoginExpired)
            }
            LoginOutcome::Failed { error, again } => pages::failed(&error, again.as_ref()),
        };
        pages::set_cookies(&mut response, &result.cookies);
        response
    }

    /// Whoever tries codes is slowed down; a code that exists works all the same, so that nobody is locked
    /// out by a stranger.
    fn failed(&self, error: LoginError) -> Response {
        if matches!(error, LoginError::Expired | LoginError::LoginExpired) && !self.unknown_codes.take_one() {
            return pages::too_many();
        }
        pages::failed(&error, None)
    }
}

/// Codes hold no character that would be encoded, so the path is compared as it is.
fn code_of(uri: &Uri) -> &str {
    uri.path().strip_prefix("/connect/").unwrap_or_default()
}

fn cookies(headers: &HeaderMap) -> String {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.collect::<Vec<_>>().join("; ")
}

const LONGEST_FORM: usize = 4 * 1024;
const FORM: &str = "application/x-www-form-urlencoded";

async fn read_form(headers: &HeaderMap, body: Body) -> Option<Vec<(String, String)>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !kind.split(';').next()?.trim().eq_ignore_ascii_case(FORM) {
        return None;
    }
    let bytes = axum::body::to_bytes(body, LONGEST_FORM).await.ok()?;
    Some(form_urlencoded::parse(&bytes).into_owned().collect())
}

/// What a program in front of the page sees; people read the page.
fn status(error: &LoginError) -> StatusCode {
    match error {
        LoginError::Cancelled => StatusCode::OK,
        LoginError::Expired | LoginError::LoginExpired => StatusCode::NOT_FOUND,
        LoginError::AlreadyUsed { .. } | LoginError::RealmGone { .. } => StatusCode::GONE,
        LoginError::WrongBrowser
        | LoginError::Forbidden { .. }
        | LoginError::NotEnabled
        | LoginError::NoAccounts => StatusCode::FORBIDDEN,
        LoginError::BadCallback(_)
        | LoginError::BadAuthorize(_)
        | LoginError::UnknownClient
        | LoginError::RedirectUriNotListed
        | LoginError::BadChoice
        | LoginError::LoginRefused { .. }
        | LoginError::WrongAccountId => StatusCode::BAD_REQUEST,
        LoginError::LoginNotAccepted | LoginError::LoginLost => StatusCode::UNAUTHORIZED,
        LoginError::AccountNotListed { .. }
        | LoginError::PairedElsewhere
        | LoginError::NameTaken { .. }
        | LoginError::KnownAs { .. } => StatusCode::CONFLICT,
        LoginError::CredentialsRefused
        | LoginError::RouteRefused { .. }
        | LoginError::PlatformMisbehaved { .. } => StatusCode::BAD_GATEWAY,
        LoginError::PlatformDown { .. } => StatusCode::GATEWAY_TIMEOUT,
        LoginError::StoreDown | LoginError::PairedNotSaved => StatusCode::SERVICE_UNAVAILABLE,
        LoginError::Broken => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
