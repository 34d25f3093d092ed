//! The sandbox over real sockets, checked against the vendor's documents by hand-made calls.

mod api;
mod downloads;
mod faults;
mod login;
mod steering;
mod tokens;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{AccountSpec, Behavior, HostRole, Platform, Region, Sandbox, SandboxOptions};
use crate::clock::{Clock, Timestamp};

pub const EMAIL: &str = "sandra@sandbox.test";
pub const PASSWORD: &str = "correct horse";
pub const CLINIC: u64 = 7;
pub const LAB: u64 = 8;
pub const DISCOVERY: &str = "api-discovery-by-name-and-version?discoveryName=third-party&version=2";

/// A sandbox on a clock of its own, with a clinic in Europe and a lab in Asia Pacific.
pub struct Fixture {
    pub clock: Clock,
    pub sandbox: Sandbox,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(SandboxOptions::default()).await
    }

    pub async fn with_behavior(behavior: Behavior) -> Self {
        Self::with(SandboxOptions { behavior, ..SandboxOptions::default() }).await
    }

    pub async fn with(options: SandboxOptions) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let sandbox = Sandbox::start(SandboxOptions { clock: clock.clone(), ..options }).await.unwrap();
        let clinic = AccountSpec::clinic(CLINIC, "Smile").in_region(Region::Europe);
        sandbox.add_account(clinic.with_user(EMAIL, PASSWORD));
        let lab = AccountSpec::lab(LAB, "Crown & Co").in_region(Region::AsiaPacific);
        sandbox.add_account(lab.with_user(EMAIL, PASSWORD));
        Self { clock, sandbox }
    }

    pub async fn get(&self, url: &str, bearer: &str) -> TestResponse {
        self.call("GET", url, bearer, "").await
    }

    pub async fn call(&self, method: &str, url: &str, bearer: &str, json: &str) -> TestResponse {
        let request = http::Request::builder().method(method).uri(url);
        let request = request.header("authorization", format!("Bearer {bearer}"));
        let request = request.header("content-type", "application/json");
        self.send(request.body(Full::from(json.to_owned())).unwrap()).await
    }

    pub async fn post_form(&self, url: &str, form: &[(&str, &str)]) -> TestResponse {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = http::Request::post(url).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Full::from(body)).unwrap()).await
    }

    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> TestResponse {
        let inner = self.sandbox.send(request).await.unwrap();
        TestResponse { status: inner.status().as_u16(), inner }
    }

    pub async fn refresh(&self, platform: Platform, token: &str) -> TestResponse {
        let client = self.sandbox.client(platform);
        let url = format!("{}/oauth2/token", self.sandbox.oauth_base(platform));
        let form = [
            ("refresh_token", token),
            ("grant_type", "refresh_token"),
            ("client_id", &client.id),
            ("client_secret", &client.secret),
        ];
        self.post_form(&url, &form).await
    }

    pub fn authorize_url(&self, platform: Platform, state: &str) -> String {
        let client = self.sandbox.client(platform);
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("client_id", client.id.as_str()),
                ("response_type", "code"),
                ("state", state),
                ("redirect_uri", client.redirect_uris[0].as_str()),
                ("loginPage", self.sandbox.login_page(platform).as_str()),
                ("scope", "openid"),
            ])
            .finish();
        format!("{}/oauth2/authorize?{query}", self.sandbox.oauth_base(platform))
    }

    pub async fn exchange(&self, platform: Platform, code: &str) -> TestResponse {
        let client = self.sandbox.client(platform);
        let url = format!("{}/oauth2/token", self.sandbox.oauth_base(platform));
        let form = [
            ("code", code),
            ("grant_type", "authorization_code"),
            ("client_id", &client.id),
            ("client_secret", &client.secret),
            ("redirect_uri", &client.redirect_uris[0]),
        ];
        self.post_form(&url, &form).await
    }

    /// The first token set of a real login.
    pub async fn login_token(&self, platform: Platform) -> String {
        let back = self.sandbox.log_in(&self.authorize_url(platform, "s"), EMAIL, PASSWORD).await.unwrap();
        let response = self.exchange(platform, &parameter(&back, "code").unwrap()).await;
        response.text_at("/access_token")
    }

    /// What a raw request gets, up to the end of the connection or until `until` bytes have come.
    pub async fn raw(&self, role: HostRole, request: &str, until: usize) -> String {
        let address = self.sandbox.address(role).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.replace("HOST", &address.to_string()).as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < until && stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A response, read to its end.
pub struct TestResponse {
    pub status: u16,
    pub inner: http::Response<Bytes>,
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.inner.body()).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(self.inner.body()).unwrap()
    }

    pub fn text_at(&self, pointer: &str) -> String {
        let json = self.json();
        json.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {json}"))
            .to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.inner.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Every link of a response, as a JSON reader sees it.
    pub fn links(&self) -> Vec<String> {
        fn collect(value: &Value, links: &mut Vec<String>) {
            match value {
                Value::String(text) if text.contains("/download/") => links.push(text.clone()),
                Value::Array(items) => items.iter().for_each(|item| collect(item, links)),
                Value::Object(fields) => fields.values().for_each(|field| collect(field, links)),
                _ => {}
            }
        }
        let mut links = Vec::new();
        collect(&self.json(), &mut links);
        links
    }
}

pub fn parameter(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(given, _)| given == name).map(|(_, value)| value.into_owned())
}
