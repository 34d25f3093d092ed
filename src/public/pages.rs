//! The pages, and the headers that every one of them carries (threats, row 10). Templates escape; nothing
//! bypasses them.

use askama::Template;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::clock::Timestamp;
use crate::model::account::AccountName;
use crate::pairing::{Choice, Code, Connected, Cookie, LoginError, StartOffer, UserMessage};

pub(super) const STYLE_PATH: &str = "/connect/static/style.css";
pub(super) const ICON_PATH: &str = "/connect/static/icon.svg";
/// A file that the pages use, and what makes it.
type StaticFile = (&'static str, fn() -> Response);
pub(super) const FILES: [StaticFile; 2] = [(STYLE_PATH, style), (ICON_PATH, icon)];
const STYLE: &str = include_str!("../../templates/pairing/style.css");
const ICON: &str = include_str!("../../templates/pairing/icon.svg");

#[derive(Template)]
#[template(path = "pairing/start.html")]
struct StartPage<'a> {
    offer: &'a StartOffer,
}

#[derive(Template)]
#[template(path = "pairing/choose.html")]
struct ChoosePage<'a> {
    choice: &'a Choice,
}

#[derive(Template)]
#[template(path = "pairing/connected.html")]
struct ConnectedPage<'a> {
    connected: &'a Connected,
}

#[derive(Template)]
#[template(path = "pairing/stopped.html")]
struct StoppedPage<'a> {
    message: &'a UserMessage,
    again: Option<&'a Code>,
}

/// Names of accounts come from the platform and may be empty.
impl ConnectedPage<'_> {
    fn shown(&self) -> &str {
        match self.connected.shown.trim() {
            "" => self.connected.name.as_str(),
            shown => shown,
        }
    }
}

impl StartPage<'_> {
    fn name(&self) -> Option<&AccountName> {
        self.offer.name.as_ref()
    }

    fn until(&self) -> String {
        for_people(self.offer.expires_at)
    }
}

impl ChoosePage<'_> {
    fn until(&self) -> String {
        for_people(self.choice.expires_at)
    }
}

/// `2026-11-21T10:00:00Z` as `21 November 2026, 10:00 UTC`. The clinic's own time is not known without a
/// script.
fn for_people(at: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let text = at.to_string();
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    match month {
        Some(month) => {
            format!("{} {month} {}, {} UTC", part(8..10).trim_start_matches('0'), part(0..4), part(11..16))
        }
        None => text,
    }
}

/// Chromium applies `form-action` to every redirect that follows a submitted form. The login page's way leads
/// over hosts that only Align knows, so any https address may follow; the page holds nothing that could be
/// led astray.
pub(super) fn start(offer: &StartOffer) -> Response {
    let targets = if offer.insecure { "'self' https: http:" } else { "'self' https:" };
    page(StatusCode::OK, &StartPage { offer }, targets)
}

pub(super) fn choose(choice: &Choice) -> Response {
    page(StatusCode::OK, &ChoosePage { choice }, "'self'")
}

pub(super) fn connected(connected: &Connected) -> Response {
    page(StatusCode::OK, &ConnectedPage { connected }, "'none'")
}

pub(super) fn failed(error: &LoginError, again: Option<&Code>) -> Response {
    let message = error.message();
    page(super::status(error), &StoppedPage { message: &message, again }, "'none'")
}

pub(super) fn not_found() -> Response {
    plain(
        StatusCode::NOT_FOUND,
        "There is no such page",
        "This address leads nowhere.",
        "Check that the link was copied completely.",
    )
}

pub(super) fn method_not_allowed() -> Response {
    plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "That is not how this page is used",
        "This address does not take this kind of request.",
        "Open the link that you were given in a browser.",
    )
}

pub(super) fn too_many() -> Response {
    let mut response = plain(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many attempts",
        "Too many links that do not exist were tried.",
        "Wait a minute. A link that is valid works all the same.",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

pub(super) fn see_other(location: &str, cookie: &Cookie) -> Response {
    let mut response = with_headers(StatusCode::SEE_OTHER, Body::empty(), "'none'");
    match HeaderValue::from_str(location) {
        Ok(location) => response.headers_mut().insert(header::LOCATION, location),
        // A parsed URL is plain ASCII.
        Err(_) => return failed(&LoginError::Broken, None),
    };
    set_cookies(&mut response, std::slice::from_ref(cookie));
    response
}

/// Back to an application.
pub(super) fn redirect(location: &str) -> Response {
    let mut response = with_headers(StatusCode::FOUND, Body::empty(), "'none'");
    match HeaderValue::from_str(location) {
        Ok(mut location) => {
            location.set_sensitive(true);
            response.headers_mut().insert(header::LOCATION, location);
        }
        // A redirect URI that was listed, and a query of our making, are plain ASCII.
        Err(_) => return failed(&LoginError::Broken, None),
    }
    response
}

pub(super) fn too_many_logins() -> Response {
    let mut response = plain(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many logins at once",
        "More logins are begun here than people could begin.",
        "Wait a minute, and begin again in your application.",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

pub(super) fn set_cookies(response: &mut Response, cookies: &[Cookie]) {
    for cookie in cookies {
        // Names and values are of our making: letters, digits, '-' and '_'.
        if let Ok(mut value) = HeaderValue::from_str(&cookie.header()) {
            value.set_sensitive(true);
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
}

fn style() -> Response {
    file(STYLE, "text/css; charset=utf-8")
}

fn icon() -> Response {
    file(ICON, "image/svg+xml")
}

fn file(content: &'static str, kind: &'static str) -> Response {
    let mut response = with_headers(StatusCode::OK, Body::from(content), "'none'");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    response
}

fn plain(status: StatusCode, title: &'static str, what: &str, todo: &str) -> Response {
    let message = UserMessage { title, what: what.to_owned(), todo: todo.to_owned() };
    page(status, &StoppedPage { message: &message, again: None }, "'none'")
}

fn page(status: StatusCode, template: &impl Template, form_targets: &str) -> Response {
    match template.render() {
        Ok(html) => with_headers(status, Body::from(html), form_targets),
        Err(problem) => {
            tracing::error!(%problem, "a page could not be made");
            with_headers(
                StatusCode::INTERNAL_SERVER_ERROR,
                Body::from("The page could not be made."),
                "'none'",
            )
        }
    }
}

fn with_headers(status: StatusCode, body: Body, form_targets: &str) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in FIXED_HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    let policy = format!(
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; \
         form-action {form_targets}"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

const FIXED_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG 2.2, 1.4.11 and its definition of relative luminance.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| {
            let digits = colour.trim_start_matches('#');
            // #fff is short for #ffffff.
            let short = digits.len() == 3;
            let channel = |at: usize| {
                let text =
                    if short { digits[at..=at].repeat(2) } else { digits[2 * at..2 * at + 2].to_owned() };
                let share = f64::from(u8::from_str_radix(&text, 16).unwrap()) / 255.0;
                if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
        };
        let (a, b) = (luminance(one) + 0.05, luminance(other) + 0.05);
        if a > b { a / b } else { b / a }
    }

    #[test]
    fn the_focus_ring_stands_out_from_all_that_it_may_lie_on_in_both_schemes() {
        assert!((contrast("#000", "#ffffff") - 21.0).abs() < 0.01);
        let schemes: Vec<&str> = STYLE.split(":root {").skip(1).collect();
        assert_eq!(schemes.len(), 2, "light and dark");
        for scheme in schemes {
            let colour = |name: &str| {
                let rest = scheme.split(&format!("--{name}: ")).nth(1).unwrap_or_else(|| panic!("{name}"));
                rest.split(';').next().unwrap()
            };
            for under in ["ground", "card", "soft", "amber-soft"] {
                let ratio = contrast(colour("ring"), colour(under));
                assert!(ratio >= 3.0, "{ratio:.2} on {under}");
            }
        }
        assert!(STYLE.contains("outline: 3px solid var(--ring)"), "the ring is what is drawn");
    }

    #[test]
    fn moments_are_written_as_people_write_them() {
        let at = |secs: u64| for_people(Timestamp::from_millis(secs * 1000));
        assert_eq!(at(0), "1 January 1970, 00:00 UTC");
        assert_eq!(at(1_795_260_910), "21 November 2026, 11:35 UTC");
    }
}
