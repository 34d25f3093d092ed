//! What a browser gets, over the router itself.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use tower::ServiceExt;

use super::*;
use crate::pairing::doubles::{Scene, global, related, will};
use crate::pairing::{PAIR_LINK_VALID, StartRequest};

struct ReceivedPage {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl ReceivedPage {
    fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn cookies(&self) -> Vec<&str> {
        self.headers.get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// A browser as far as these pages need one.
struct Browser {
    router: Router,
    cookies: String,
}

impl Browser {
    fn of(scene: &Scene) -> Self {
        Self { router: router(scene.pairing.clone()), cookies: String::new() }
    }

    async fn send(&self, method: &str, path: &str, form: Option<&str>) -> ReceivedPage {
        let mut request = http::Request::builder().method(method).uri(path);
        if !self.cookies.is_empty() {
            request = request.header(COOKIE, &self.cookies);
        }
        if form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Body::from(form.unwrap_or_default().to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        ReceivedPage { status: head.status, headers: head.headers, text }
    }

    async fn get(&self, path: &str) -> ReceivedPage {
        self.send("GET", path, None).await
    }

    fn keep_cookie(&mut self, page: &ReceivedPage) {
        let cookies = page.cookies();
        let set = cookies.iter().find(|cookie| !cookie.contains("Max-Age=0")).unwrap();
        self.cookies = set.split(';').next().unwrap().to_owned();
    }

    /// Presses the button and returns the state.
    async fn begin(&mut self, start: &str) -> String {
        let page = self.send("POST", start, Some("")).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        self.keep_cookie(&page);
        page.header(LOCATION).split_once("state=").unwrap().1.to_owned()
    }
}

async fn start(scene: &Scene) -> String {
    let request = StartRequest {
        realm: global(),
        name: None,
        account_id: None,
        callback_url: None,
        valid_for: PAIR_LINK_VALID,
    };
    let url = scene.pairing.start(request).await.unwrap().url;
    url.strip_prefix("https://gateway.example.com").unwrap().to_owned()
}

fn assert_fixed_headers(page: &ReceivedPage) {
    let policy = page.header(CONTENT_SECURITY_POLICY);
    for directive in ["default-src 'self';", "script-src 'none';", "frame-ancestors 'none';", "form-action "]
    {
        assert!(policy.contains(directive), "{policy}");
    }
    assert_eq!(page.header(CACHE_CONTROL), "no-store");
    assert_eq!(page.header(REFERRER_POLICY), "no-referrer");
    assert_eq!(page.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(page.header(X_FRAME_OPTIONS), "DENY");
    assert_eq!(page.header(CONTENT_TYPE), "text/html; charset=utf-8");
}

/// The value of an attribute, unescaped as far as our pages escape it.
fn attribute<'a>(text: &'a str, before: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once('"').unwrap().0
}

#[tokio::test]
async fn the_way_of_a_browser_from_the_link_over_the_choice_to_a_connected_account() {
    let scene = Scene::new();
    let hostile = related(13, "<script>alert('Grin')</script>");
    will(&scene.global.lists, [Ok(vec![related(12, "Smile & Söhne"), hostile])]);
    let (mut browser, link) = (Browser::of(&scene), start(&scene).await);

    let offer = browser.get(&link).await;
    assert_eq!(offer.status, StatusCode::OK);
    assert_fixed_headers(&offer);
    assert!(offer.header(CONTENT_SECURITY_POLICY).ends_with("form-action 'self' https:"));
    assert_eq!(attribute(&offer.text, "method=\"post\" action=\""), link);

    let state = browser.begin(&link).await;
    let choosing = browser.get(&format!("/oauth2/callback?code=c&state={state}")).await;
    assert_eq!(choosing.status, StatusCode::OK);
    assert_fixed_headers(&choosing);
    assert!(choosing.header(CONTENT_SECURITY_POLICY).ends_with("form-action 'self'"));
    assert!(choosing.text.contains("Smile &#38; Söhne"), "{}", choosing.text);
    assert!(!choosing.text.contains("<script"), "{}", choosing.text);
    browser.keep_cookie(&choosing);

    let choice = attribute(&choosing.text, "name=\"choice\" value=\"");
    let form = format!("choice={choice}&account=12");
    let connected = browser.send("POST", "/connect/choose", Some(&form)).await;
    assert_eq!(connected.status, StatusCode::OK);
    assert_fixed_headers(&connected);
    assert!(connected.text.contains("smile-soehne"), "{}", connected.text);
    assert!(scene.record("smile-soehne").await.is_some());

    let used = browser.get(&link).await;
    assert_eq!(used.status, StatusCode::GONE);
    assert!(used.text.contains("already used") && used.text.contains("smile-soehne"));
}

#[tokio::test]
async fn looking_at_a_link_or_at_the_callback_without_being_the_browser_uses_nothing_up() {
    let scene = Scene::new();
    let (mut browser, link) = (Browser::of(&scene), start(&scene).await);
    for method in ["GET", "HEAD", "GET"] {
        assert_eq!(browser.send(method, &link, None).await.status, StatusCode::OK);
    }
    let state = browser.begin(&link).await;
    let callback = format!("/oauth2/callback?code=c&state={state}");
    assert_eq!(browser.send("HEAD", &callback, None).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(browser.send("POST", &callback, Some("")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let stranger = Browser::of(&scene).get(&callback).await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    assert!(stranger.text.contains("another browser"));
    let connected = browser.get(&callback).await;
    assert_eq!(connected.status, StatusCode::OK);
    assert!(connected.cookies().iter().all(|cookie| cookie.contains("Max-Age=0")));
    assert_eq!(browser.get(&callback).await.status, StatusCode::GONE);
}

#[tokio::test]
async fn another_sites_page_cannot_press_the_button() {
    let scene = Scene::new();
    let (router, link) = (router(scene.pairing.clone()), start(&scene).await);
    for (site, status) in [
        ("cross-site", StatusCode::OK),
        ("same-site", StatusCode::OK),
        ("same-origin", StatusCode::SEE_OTHER),
    ] {
        let request = http::Request::post(&link).header("sec-fetch-site", site).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{site}");
        assert_eq!(response.headers().contains_key(SET_COOKIE), status == StatusCode::SEE_OTHER, "{site}");
    }
}

#[tokio::test]
async fn the_cookie_is_host_bound_secure_http_only_and_lax() {
    let scene = Scene::new();
    let (browser, link) = (Browser::of(&scene), start(&scene).await);
    let begun = browser.send("POST", &link, Some("")).await;
    let [cookie] = begun.cookies()[..] else { panic!("one cookie") };
    assert!(cookie.starts_with("__Host-genapi-login-"));
    assert!(cookie.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"));
    assert!(begun.header(LOCATION).starts_with("https://identity.test/oauth2/authorize?state="));
}

#[tokio::test]
async fn nothing_of_a_request_is_reflected() {
    let scene = Scene::new();
    let (mut browser, link) = (Browser::of(&scene), start(&scene).await);
    let state = browser.begin(&link).await;
    for path in [
        "/connect/canary-4711".to_owned(),
        "/canary-4711?next=https://canary-4711.test".to_owned(),
        "/oauth2/callback?state=canary-4711&code=canary-4711".to_owned(),
        format!("/oauth2/callback?error=canary-4711%3Cb%3E&error_description=canary-4711&state={state}"),
    ] {
        let page = browser.get(&path).await;
        assert!(page.status.is_client_error(), "{path}");
        assert_fixed_headers(&page);
        assert!(!page.text.contains("canary-4711"), "{path}: {}", page.text);
        assert_eq!(page.header(LOCATION), "");
    }
}

#[tokio::test]
async fn a_cancelled_login_offers_to_start_again() {
    let scene = Scene::new();
    let (mut browser, link) = (Browser::of(&scene), start(&scene).await);
    let state = browser.begin(&link).await;
    let page = browser.get(&format!("/oauth2/callback?error=access_denied&state={state}")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(attribute(&page.text, "class=\"button\" href=\""), link);
}

#[tokio::test]
async fn a_form_that_is_no_form_or_names_a_field_twice_chooses_nothing() {
    let scene = Scene::new();
    let browser = Browser::of(&scene);
    let long = format!("choice={}", "a".repeat(5000));
    for form in ["", "choice=a", "account=12", "choice=a&account=1&account=2", &long] {
        let page = browser.send("POST", "/connect/choose", Some(form)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{form}");
    }
    let json = browser.send("POST", "/connect/choose", None).await;
    assert_eq!(json.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn trying_codes_is_slowed_down_while_a_code_that_exists_works() {
    let scene = Scene::new();
    let (browser, link) = (Browser::of(&scene), start(&scene).await);
    let mut refused = None;
    for _ in 0..100 {
        let page = browser.get("/connect/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
        if page.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(page);
            break;
        }
        assert_eq!(page.status, StatusCode::NOT_FOUND);
    }
    assert!(refused.unwrap().headers.contains_key("retry-after"));
    assert_eq!(browser.get(&link).await.status, StatusCode::OK);
    scene.clock.advance(Duration::from_secs(5));
    assert_eq!(browser.get("/connect/unknown").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn style_and_icon_are_served_from_here_and_other_paths_get_a_page() {
    let scene = Scene::new();
    let browser = Browser::of(&scene);
    let style = browser.get(pages::STYLE_PATH).await;
    assert_eq!((style.status, style.header(CONTENT_TYPE)), (StatusCode::OK, "text/css; charset=utf-8"));
    let icon = browser.get(pages::ICON_PATH).await;
    assert_eq!((icon.status, icon.header(CONTENT_TYPE)), (StatusCode::OK, "image/svg+xml"));
    let nowhere = browser.get("/").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_fixed_headers(&nowhere);
    assert!(nowhere.text.contains(pages::STYLE_PATH));
}

#[tokio::test]
async fn every_stop_has_a_page_of_its_own() {
    let name = || "smile".parse().unwrap();
    let realm = || "global".parse().unwrap();
    let id = crate::model::account::AccountId::new(12);
    let stops = [
        LoginError::Cancelled,
        LoginError::Expired,
        LoginError::LoginExpired,
        LoginError::AlreadyUsed { by: None },
        LoginError::AlreadyUsed { by: Some(name()) },
        LoginError::WrongBrowser,
        LoginError::BadCallback("x"),
        LoginError::BadChoice,
        LoginError::BadAuthorize("x"),
        LoginError::UnknownClient,
        LoginError::RedirectUriNotListed,
        LoginError::LoginRefused { error: "x".into() },
        LoginError::LoginNotAccepted,
        LoginError::LoginLost,
        LoginError::CredentialsRefused,
        LoginError::NotEnabled,
        LoginError::Forbidden { call: "pair" },
        LoginError::NoAccounts,
        LoginError::AccountNotListed { wanted: id, listed: 1 },
        LoginError::PairedElsewhere,
        LoginError::WrongAccountId,
        LoginError::NameTaken { name: name(), realm: realm(), id },
        LoginError::KnownAs { realm: realm(), id, name: name() },
        LoginError::RealmGone { realm: realm() },
        LoginError::RouteRefused { detail: "x".into() },
        LoginError::PlatformDown { detail: "x".into() },
        LoginError::PlatformMisbehaved { detail: "<b>".into() },
        LoginError::StoreDown,
        LoginError::Broken,
    ];
    let mut titles = std::collections::BTreeSet::new();
    for error in &stops {
        let response = pages::failed(error, None);
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains("<h1>") && !text.contains("<b>"), "{text}");
        titles.insert(error.message().title);
    }
    assert_eq!(titles.len(), stops.len(), "each has its own title");
}
