//! A person's browser, for logins that begin in an application: it follows redirects, keeps cookies, and
//! fills in the first form of a page when that asks for an e-mail address or a password.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use url::Url;

/// More pages than a login has, so that a circle of redirects ends.
const MOST_PAGES: usize = 20;

/// A browser with cookies of its own.
pub struct WebBrowser {
    http: reqwest::Client,
    /// By host: a browser's cookies do not tell ports apart.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// The first form of a page, as the person sends it.
struct Form {
    action: String,
    hidden: Vec<(String, String)>,
    asks_for: &'static str,
}

impl WebBrowser {
    /// `http` must follow no redirects by itself.
    pub fn new(http: reqwest::Client) -> Self {
        Self { http, cookies: BTreeMap::new() }
    }

    /// Opens an application's authorization URL and logs in. Returns the URL that leads back to the
    /// application's redirect URI, which is not fetched.
    pub async fn log_in(&mut self, url: &str, email: &str, password: &str, redirect_uri: &str) -> Url {
        let mut url: Url = url.parse().unwrap();
        let mut request = self.http.get(url.clone());
        for _ in 0..MOST_PAGES {
            let response = self.send(&url, request).await;
            let status = response.status();
            if let Some(next) = response.headers().get(LOCATION) {
                url = url.join(next.to_str().unwrap()).unwrap();
                if url.as_str().starts_with(redirect_uri) {
                    return url;
                }
                request = self.http.get(url.clone());
                continue;
            }
            let text = response.text().await.unwrap();
            let form = Form::first_of(&text).unwrap_or_else(|| panic!("{status} at {url}: {text}"));
            url = url.join(&form.action).unwrap();
            let given = if form.asks_for == "email" { email } else { password };
            let typed = (form.asks_for.to_owned(), given.to_owned());
            request = self.http.post(url.clone()).body(encoded(form.hidden.into_iter().chain([typed])));
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        panic!("the login goes in circles, at last to {url}")
    }

    async fn send(&mut self, url: &Url, request: reqwest::RequestBuilder) -> reqwest::Response {
        let jar = self.cookies.entry(url.host_str().unwrap().to_owned()).or_default();
        let pairs: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if pairs.is_empty() { request } else { request.header(COOKIE, pairs.join("; ")) };
        let response = request.send().await.unwrap();
        for line in response.headers().get_all(SET_COOKIE) {
            let (pair, attributes) = line.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                jar.remove(name)
            } else {
                jar.insert(name.to_owned(), value.to_owned())
            };
        }
        response
    }
}

impl Form {
    /// None where the page asks for neither an e-mail address nor a password.
    fn first_of(page: &str) -> Option<Self> {
        let form = page.split_once("<form")?.1.split_once("</form>")?.0;
        let asks_for =
            ["email", "password"].into_iter().find(|name| form.contains(&format!("name={name}")))?;
        let hidden = form.split("<input").filter(|input| input.contains("type=hidden"));
        let hidden = hidden.map(|input| (attribute(input, "name"), attribute(input, "value"))).collect();
        Some(Self { action: attribute(form, "action"), hidden, asks_for })
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let (_, rest) = tag.split_once(&format!("{name}=")).unwrap();
    let rest = rest.trim_start_matches('"');
    rest.split(['"', ' ', '>']).next().unwrap().to_owned()
}

fn encoded(fields: impl Iterator<Item = (String, String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
