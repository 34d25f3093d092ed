//! An application on a stock OAuth library (the `oauth2` crate), unmodified: it logs in, pairs, and lives a
//! day of refreshes. Those of other languages are in tests/oauth_libraries.

use std::time::Duration;

use genapi_gateway::sandbox::Platform;
use http::Method;
use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, PkceCodeChallenge, RedirectUrl, Scope, TokenResponse as _, TokenUrl,
};
use serde_json::{Value, json};

use crate::application::{DISCOVERY, FIRST_DISCOVERY, REDIRECT_URI, caller};
use crate::test_bed::{LAB, PASSWORD, TestBed, TestBedBuilder, USER};
use crate::web_browser::{Person, WebBrowser};

const USERS_LOGIN: Person = Person::LogsIn { email: USER, password: PASSWORD };
const HOUR: Duration = Duration::from_secs(3600);

type Client = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// A legacy application: what it is configured with, and what it has learned.
struct Application<'a> {
    bed: &'a TestBed,
    library: Client,
    login_page: String,
    api_base: String,
    /// Domain and Path, once discovery has said them.
    place: Option<String>,
    tokens: Option<BasicTokenResponse>,
}

impl<'a> Application<'a> {
    /// With the vendor's own addresses, and credentials in the form as the vendor prints it.
    fn at_the_vendor(bed: &'a TestBed) -> Self {
        let sandbox = &bed.sandbox;
        let client = sandbox.client(Platform::New);
        let library = library(&sandbox.oauth_base(Platform::New), &client.id, &client.secret);
        Self {
            bed,
            library: library.set_auth_type(AuthType::RequestBody),
            login_page: sandbox.login_page(Platform::New),
            api_base: sandbox.base_url(Platform::New),
            place: None,
            tokens: None,
        }
    }

    /// With nothing changed but two addresses and its credentials, which go the library's own way.
    fn at_the_gateway(bed: &'a TestBed) -> Self {
        Self {
            library: library(&bed.gateway, "oldpms", "oldpms-secret"),
            api_base: bed.gateway.clone(),
            ..Self::at_the_vendor(bed)
        }
    }

    async fn logs_in(&mut self) {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state) = self
            .library
            .authorize_url(CsrfToken::new_random)
            .add_scope(Scope::new("openid".to_owned()))
            .add_extra_param("loginPage", &self.login_page)
            .set_pkce_challenge(challenge)
            .url();
        let mut browser = WebBrowser::new(self.bed.http.clone());
        let back = browser.go_through_login(url.as_str(), REDIRECT_URI, USERS_LOGIN).await;
        let parameter = |name: &str| back.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        assert_eq!(parameter("state"), *state.secret());
        let exchange = self.library.exchange_code(AuthorizationCode::new(parameter("code")));
        let exchange = exchange.set_pkce_verifier(verifier);
        self.tokens = Some(exchange.request_async(&|request| sent(self.bed, request)).await.unwrap());
    }

    async fn discovers(&mut self) {
        // The first call goes to the base URL, later ones to where it led.
        let first = || format!("{}{FIRST_DISCOVERY}", self.api_base);
        let base = self.place.clone().unwrap_or_else(first);
        let found = self.asks(Method::GET, &(base + DISCOVERY), Value::Null).await;
        let api = &found["APIs"][0];
        let domain = api["Domain"].as_str().unwrap().trim_end_matches('/');
        self.place = Some(format!("{domain}{}", api["Path"].as_str().unwrap()));
    }

    /// Takes the pair tokens for its own from then on.
    async fn pairs(&mut self, account: u64) {
        let accounts = self.asks_at_place(Method::GET, "/related-accounts", Value::Null).await;
        let listed = accounts["Data"].as_array().unwrap();
        assert!(listed.iter().any(|entry| entry["AccountId"] == account), "{accounts}");
        let body = json!({"AccountId": account, "CallbackUrl": "https://application.test/notifications"});
        let mut paired = self.asks_at_place(Method::PUT, "/pair-account", body).await;
        let tokens = paired["Data"]["OAuthResponse"].take();
        self.tokens = Some(serde_json::from_value(tokens).unwrap());
    }

    async fn refreshes(&mut self) {
        let old = self.tokens.take().unwrap();
        let old = old.refresh_token().unwrap();
        let refresh = self.library.exchange_refresh_token(old);
        let fresh = refresh.request_async(&|request| sent(self.bed, request)).await.unwrap();
        assert_eq!(
            fresh.refresh_token().unwrap().secret(),
            old.secret(),
            "the refresh token remains the same"
        );
        assert!((1..=3600).contains(&fresh.expires_in().unwrap().as_secs()));
        self.tokens = Some(fresh);
        self.discovers().await;
    }

    async fn lists_its_orders(&self) -> Vec<Value> {
        let list = self.asks_at_place(Method::GET, "/orders/lab", Value::Null).await;
        list["Data"].as_array().unwrap().clone()
    }

    async fn asks_at_place(&self, method: Method, path: &str, body: Value) -> Value {
        self.asks(method, &format!("{}{path}", self.place.as_ref().unwrap()), body).await
    }

    async fn asks(&self, method: Method, url: &str, body: Value) -> Value {
        let mut request = self.bed.http.request(method, url);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let bearer = self.tokens.as_ref().unwrap().access_token().secret();
        let response = self.bed.send(request.bearer_auth(bearer)).await;
        assert_eq!(response.status, 200, "{url}: {}", response.text());
        response.json()
    }
}

/// The library as its guide sets it up: client credentials go by Basic unless it is told otherwise.
fn library(oauth_base: &str, id: &str, secret: &str) -> Client {
    BasicClient::new(ClientId::new(id.to_owned()))
        .set_client_secret(ClientSecret::new(secret.to_owned()))
        .set_auth_uri(AuthUrl::new(format!("{oauth_base}/oauth2/authorize")).unwrap())
        .set_token_uri(TokenUrl::new(format!("{oauth_base}/oauth2/token")).unwrap())
        .set_redirect_uri(RedirectUrl::new(REDIRECT_URI.to_owned()).unwrap())
}

/// The library leaves the way of its requests to the application.
async fn sent(bed: &TestBed, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let response = bed.http.execute(request.try_into()?).await?;
    let mut built = http::Response::builder().status(response.status());
    *built.headers_mut().unwrap() = response.headers().clone();
    Ok(built.body(response.bytes().await?.to_vec()).unwrap())
}

/// From the first page to the last refresh of the day.
async fn completes(application: &mut Application<'_>) {
    application.logs_in().await;
    application.discovers().await;
    application.pairs(LAB).await;
    for _ in 0..24 {
        application.bed.clock.advance(HOUR);
        application.refreshes().await;
        assert!(!application.lists_its_orders().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_on_a_stock_library_completes_at_the_vendor() {
    let bed = TestBedBuilder::new().unpaired().start().await;
    bed.sandbox.allow_redirect(Platform::New, REDIRECT_URI);
    completes(&mut Application::at_the_vendor(&bed)).await;
    assert_eq!(bed.sandbox.refreshes(LAB).len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_on_a_stock_library_completes_at_the_gateway_unmodified() {
    let bed = TestBedBuilder::new().append(&caller("oldpms", "\"*\"", "")).unpaired().start().await;
    completes(&mut Application::at_the_gateway(&bed)).await;
    assert_eq!(bed.sandbox.refreshes(LAB).len(), 24);
    assert_eq!(bed.sandbox.smallest_refresh_gap(LAB), Some(HOUR));
}
