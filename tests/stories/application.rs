//! A legacy application that runs the vendor's OAuth flow by itself, as the vendor's documents describe it.
//! It knows the gateway as its auth URL and its base URL, and nothing else of it.

use genapi_gateway::sandbox::Endpoint;
use http::Method;
use serde_json::{Value, json};
use url::Url;

use crate::browser::Browser;
use crate::test_bed::{PASSWORD, Response, TestBed, USER};

pub const REDIRECT_URI: &str = "http://127.0.0.1:5000/cb";
/// Discovery as the vendor prints it (Authentication and Pairing V2, 4.2.2).
pub const DISCOVERY: &str = "/api-discovery-by-name-and-version?discoveryName=third-party&version=2";
/// Its path below `base_url`.
pub const FIRST_DISCOVERY: &str = "/api/third-party/v2";

/// A `[[callers]]` section for an application; `more` goes into its facade.
pub fn caller(name: &str, accounts: &str, more: &str) -> String {
    let secret = crate::path::key_line(&format!("{name}-secret"));
    let secret = secret.replace("key_sha256", "client_secret_sha256");
    format!(
        "\n[[callers]]\nname = \"{name}\"\naccounts = [{accounts}]\n\
         facade = {{ client_id = \"{name}\", {}, redirect_uris = [\"{REDIRECT_URI}\"]{more} }}\n",
        secret.trim(),
    )
}

/// One application, and the person in front of it.
pub struct Application<'a> {
    pub bed: &'a TestBed,
    pub name: &'a str,
    pub redirect_uri: String,
}

/// A token set that an application holds.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    fn of(fields: &Value) -> Self {
        let text = |name: &str| fields[name].as_str().unwrap_or_else(|| panic!("{fields}")).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

impl<'a> Application<'a> {
    pub fn new(bed: &'a TestBed, name: &'a str) -> Self {
        Self { bed, name, redirect_uri: REDIRECT_URI.to_owned() }
    }

    /// The authorize address as the vendor's sample has it, constant state and no scope included.
    pub fn authorize_path(&self, more: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("client_id", self.name).append_pair("response_type", "code");
        query.append_pair("redirect_uri", &self.redirect_uri);
        query.append_pair("loginPage", "https://login.example.com/start?x=1").extend_pairs(more);
        format!("/oauth2/authorize?{}", query.finish())
    }

    /// Where the browser is sent, from the application's own link on: the platform's authorize address.
    pub async fn begins(&self, browser: &mut Browser<'_>, more: &[(&str, &str)]) -> String {
        let sent = self.bed.send(self.bed.bare(Method::GET, &self.authorize_path(more))).await;
        assert_eq!(sent.status, 302, "{}", sent.text());
        let there = browser.open(sent.header("location")).await;
        assert_eq!(there.status, 303, "{}", there.text());
        there.header("location").to_owned()
    }

    /// The whole login; what comes back to the application.
    pub async fn logs_in_as(&self, email: &str, more: &[(&str, &str)]) -> Url {
        let mut browser = Browser::new(self.bed);
        let authorize = self.begins(&mut browser, more).await;
        let back = self.bed.sandbox.log_in(&authorize, email, PASSWORD).await.unwrap();
        let returned = browser.open(&back).await;
        assert_eq!(returned.status, 302, "{}", returned.text());
        returned.header("location").parse().unwrap()
    }

    /// A login, up to the code.
    pub async fn code(&self) -> String {
        param(&self.logs_in_as(USER, &[("state", "447")]).await, "code")
    }

    /// One request to an OAuth endpoint.
    pub async fn asks(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", self.name);
        form.append_pair("client_secret", &format!("{}-secret", self.name)).extend_pairs(fields);
        let request = self.bed.bare(Method::POST, path);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.bed.send(request.body(form.finish())).await
    }

    pub async fn exchanges(&self, code: &str, more: &[(&str, &str)]) -> Response {
        let mut fields = vec![("code", code), ("grant_type", "authorization_code")];
        fields.push(("redirect_uri", &self.redirect_uri));
        fields.extend_from_slice(more);
        self.asks("/oauth2/token", &fields).await
    }

    /// From the first click to the tokens of the login.
    pub async fn logs_in(&self) -> Tokens {
        let response = self.exchanges(&self.code().await, &[]).await;
        assert_eq!(response.status, 200, "{}", response.text());
        Tokens::of(&response.json())
    }

    pub async fn refreshes(&self, refresh: &str) -> Response {
        self.asks("/oauth2/token", &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await
    }

    /// A refresh that brings what it should.
    pub async fn refreshed(&self, refresh: &str) -> Tokens {
        let response = self.refreshes(refresh).await;
        assert_eq!(response.status, 200, "{}", response.text());
        Tokens::of(&response.json())
    }

    pub async fn get(&self, path: &str, bearer: &str) -> Response {
        self.bed.send(self.bed.bare(Method::GET, path).bearer_auth(bearer)).await
    }

    pub async fn sends(&self, method: Method, path: &str, bearer: &str, body: Value) -> Response {
        let request = self.bed.bare(method, path).bearer_auth(bearer);
        self.bed.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// Where discovery says that calls go, without the gateway's own origin.
    pub async fn discovers(&self, below: &str, bearer: &str) -> String {
        let response = self.get(&format!("{below}{DISCOVERY}"), bearer).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let found = response.json()["APIs"][0].clone();
        assert_eq!(found["Domain"], json!(self.bed.gateway));
        found["Path"].as_str().unwrap().to_owned()
    }

    /// Pairs an account with the tokens of a login.
    pub async fn pairs(&self, path: &str, bearer: &str, account: u64) -> Response {
        self.sends(Method::PUT, &format!("{path}/pair-account"), bearer, json!({"AccountId": account})).await
    }

    /// Login, discovery and pairing, up to the tokens to work with.
    pub async fn connects(&self, account: u64) -> Tokens {
        let login = self.logs_in().await;
        let path = self.discovers(FIRST_DISCOVERY, &login.access).await;
        let paired = self.pairs(&path, &login.access, account).await;
        assert_eq!(paired.status, 200, "{}", paired.text());
        Tokens::of(&paired.json()["Data"]["OAuthResponse"])
    }
}

pub fn param(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("{url} has no {name}")).1.into_owned()
}

/// How often the platform was asked.
pub fn asked(bed: &TestBed, endpoint: Endpoint) -> usize {
    bed.sandbox.calls_to(endpoint).len()
}
