//! A clinic's browser as far as the gateway can tell: it keeps cookies and posts forms. Redirects are
//! followed by the story's hand.

use std::collections::BTreeMap;

use http::Method;

use crate::test_bed::{PASSWORD, Response, TestBed, USER};

/// A person's browser: it keeps cookies and follows links.
pub struct Browser<'a> {
    bed: &'a TestBed,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn new(bed: &'a TestBed) -> Self {
        Self { bed, cookies: BTreeMap::new() }
    }

    /// Opens a page of the gateway: a start link, or the URL that a login leads back to.
    pub async fn open(&mut self, url: &str) -> Response {
        self.send(Method::GET, url, None).await
    }

    pub async fn submit(&mut self, url: &str, fields: &[(&str, &str)]) -> Response {
        self.send(Method::POST, url, Some(fields)).await
    }

    /// Opens a start link and presses its button. Returns where the browser is sent: iTero's login.
    pub async fn begin(&mut self, link: &str) -> String {
        let offer = self.open(link).await;
        assert_eq!(offer.status, 200, "{}", offer.text());
        let sent = self.submit(link, &[]).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        sent.header("location").to_owned()
    }

    /// From the start link through the login of the usual user, up to the URL that leads back to the gateway.
    pub async fn log_in(&mut self, link: &str) -> String {
        self.log_in_as(link, USER).await
    }

    pub async fn log_in_as(&mut self, link: &str, email: &str) -> String {
        let authorize = self.begin(link).await;
        self.bed.sandbox.log_in(&authorize, email, PASSWORD).await.unwrap()
    }

    /// The whole way from a start link to the page behind the callback.
    pub async fn connect(&mut self, link: &str) -> Response {
        self.connect_as(link, USER).await
    }

    pub async fn connect_as(&mut self, link: &str, email: &str) -> Response {
        let back = self.log_in_as(link, email).await;
        self.open(&back).await
    }

    /// Presses the button of the choosing page.
    pub async fn choose(&mut self, page: &Response, account: u64) -> Response {
        let text = page.text();
        let choice = between(&text, "name=\"choice\" value=\"", "\"");
        let url = format!("{}/connect/choose", self.bed.admin);
        self.submit(&url, &[("choice", choice), ("account", &account.to_string())]).await
    }

    async fn send(&mut self, method: Method, url: &str, fields: Option<&[(&str, &str)]>) -> Response {
        let path = url.strip_prefix(&self.bed.admin);
        let path = path.unwrap_or_else(|| panic!("{url} does not lead to the gateway"));
        let mut request = self.bed.browse(method, path);
        if !self.cookies.is_empty() {
            let pairs: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", pairs.join("; "));
        }
        if let Some(fields) = fields {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let response = self.bed.send(request).await;
        self.keep_cookies(&response);
        response
    }

    fn keep_cookies(&mut self, response: &Response) {
        for line in response.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            let (pair, attributes) = line.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name)
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned())
            };
        }
    }
}

/// A page's heading: what it says in a few words.
pub fn heading(page: &Response) -> String {
    let text = page.text();
    let (_attributes, heading) = between(&text, "<h1", "</h1>").split_once('>').unwrap();
    heading.replace("&#39;", "'")
}

pub fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.unwrap_or_else(|| panic!("{before:?} does not stand in {text}")).0
}
