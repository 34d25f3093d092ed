//! A person's browser, for logins that begin in an application: it follows redirects, keeps cookies, and
//! fills in the forms of the login's two pages.

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

/// What the person in front of it does.
#[derive(Clone, Copy)]
pub enum Person<'a> {
    LogsIn { email: &'a str, password: &'a str },
    Cancels,
}

/// A form as it is sent.
struct FilledForm {
    action: String,
    fields: Vec<(String, String)>,
}

impl WebBrowser {
    /// `http` must follow no redirects by itself.
    pub fn new(http: reqwest::Client) -> Self {
        Self { http, cookies: BTreeMap::new() }
    }

    /// Opens an application's authorization URL. Returns the URL that leads back to the application's
    /// redirect URI, which is not fetched.
    pub async fn go_through_login(&mut self, url: &str, redirect_uri: &str, person: Person<'_>) -> Url {
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
            let page = response.text().await.unwrap();
            let form = person.fills_in(&page).unwrap_or_else(|| panic!("{status} at {url}: {page}"));
            url = url.join(&form.action).unwrap();
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form.fields).finish();
            request = self.http.post(url.clone()).body(body);
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

impl Person<'_> {
    /// The first form of a page that this person has something for.
    fn fills_in(self, page: &str) -> Option<FilledForm> {
        let forms = page.split("<form").skip(1).filter_map(|form| Some(form.split_once("</form>")?.0));
        forms.into_iter().find_map(|form| {
            let asks_for = |name: &str| form.contains(&format!("name={name}"));
            let typed = match self {
                Person::LogsIn { email, .. } if asks_for("email") => Some(("email", email)),
                Person::LogsIn { password, .. } if asks_for("password") => Some(("password", password)),
                Person::Cancels if form.contains(">Cancel<") => None,
                _ => return None,
            };
            let hidden = form.split("<input").filter(|input| input.contains("type=hidden"));
            let hidden = hidden.map(|input| (attribute(input, "name"), attribute(input, "value")));
            let typed = typed.map(|(name, text)| (name.to_owned(), text.to_owned()));
            Some(FilledForm { action: attribute(form, "action"), fields: hidden.chain(typed).collect() })
        })
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let (_, rest) = tag.split_once(&format!("{name}=")).unwrap();
    let rest = rest.trim_start_matches('"');
    rest.split(['"', ' ', '>']).next().unwrap().to_owned()
}
