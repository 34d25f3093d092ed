//! The programs around the gateway as the demo plays them: a legacy application, a browser, an operator.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::Value;

use crate::app::Running;

/// The legacy applications that the demo plays.
pub struct Applications {
    pub(super) http: reqwest::Client,
    /// `http://127.0.0.1:…`
    pub gateway: String,
    pub admin: String,
    pub key: String,
    admin_token: String,
}

/// A response, read to its end.
pub struct CallResult {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: bytes::Bytes,
}

impl CallResult {
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {}: not JSON", self.status))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn location(&self) -> anyhow::Result<String> {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        Ok(location.with_context(|| format!("status {} without a Location", self.status))?.to_owned())
    }
}

impl CallResult {
    /// The cookie that was set, as it goes back.
    pub(super) fn cookie(&self) -> anyhow::Result<String> {
        let cookie = self.headers.get(SET_COOKIE).and_then(|value| value.to_str().ok());
        Ok(cookie.and_then(|cookie| cookie.split(';').next()).context("no cookie was set")?.to_owned())
    }
}

impl Applications {
    pub fn new(running: &Running, key: String, folder: &Path) -> anyhow::Result<Self> {
        let at = |address: Option<std::net::SocketAddr>| address.map(|address| format!("http://{address}"));
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()?;
        let admin_token = std::fs::read_to_string(folder.join("admin.token")).context("the admin token")?;
        Ok(Self {
            http,
            gateway: at(running.data_addr()).context("no data listener")?,
            admin: at(running.admin_addr()).context("no admin listener")?,
            key,
            admin_token: admin_token.trim().to_owned(),
        })
    }

    /// A legacy application: its old prefix, its old bearer, and the
    /// key that its base URL's proxy setting adds.
    pub async fn call(&self, account: &str, path: &str) -> anyhow::Result<CallResult> {
        let url = format!("{}/accounts/{account}{path}", self.gateway);
        read(self.http.get(url).header("X-Gateway-Key", &self.key).bearer_auth("an-old-align-token")).await
    }

    /// Follows a link as it stands in a response.
    pub async fn follow(&self, link: &str) -> anyhow::Result<CallResult> {
        read(self.http.get(link).header("X-Gateway-Key", &self.key)).await
    }

    pub async fn delete(&self, account: &str, path: &str) -> anyhow::Result<CallResult> {
        let url = format!("{}/accounts/{account}{path}", self.gateway);
        read(self.http.delete(url).header("X-Gateway-Key", &self.key)).await
    }

    pub async fn call_without_key(&self, path: &str) -> anyhow::Result<CallResult> {
        read(self.http.get(format!("{}{path}", self.gateway))).await
    }

    pub async fn call_with_bearer(&self, path: &str, bearer: &str) -> anyhow::Result<CallResult> {
        read(self.http.get(format!("{}{path}", self.gateway)).bearer_auth(bearer)).await
    }

    /// An application that refreshes by itself, as it would at Align's token endpoint.
    pub async fn refresh(&self, refresh_token: &str) -> anyhow::Result<CallResult> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token)
            .append_pair("client_id", "the-applications-own")
            .append_pair("client_secret", "the-applications-own")
            .finish();
        let request =
            self.http.post(format!("{}/oauth2/token", self.gateway)).header("X-Gateway-Key", &self.key);
        read(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
    }

    pub async fn operate(&self, path: &str, body: Value) -> anyhow::Result<CallResult> {
        let request = self.http.post(format!("{}/api{path}", self.admin)).bearer_auth(&self.admin_token);
        read(request.header("content-type", "application/json").body(body.to_string())).await
    }

    pub async fn look(&self, path: &str) -> anyhow::Result<CallResult> {
        read(self.http.get(format!("{}{path}", self.admin)).bearer_auth(&self.admin_token)).await
    }

    /// A browser opens a start link and presses the button: where it is sent, and the cookie that it got.
    pub async fn begin_login(&self, link: &str) -> anyhow::Result<(String, String)> {
        let page = read(self.http.get(link)).await?;
        ensure!(page.status == 200, "the start page answered {}", page.status);
        let pressed = read(self.http.post(link)).await?;
        Ok((pressed.location()?, pressed.cookie()?))
    }

    /// The browser comes back from the login page.
    pub async fn come_back(&self, redirected: &str, cookie: &str) -> anyhow::Result<CallResult> {
        read(self.http.get(redirected).header(COOKIE, cookie)).await
    }

    /// The browser submits the form of the choosing page for an account.
    pub async fn choose(&self, page: &CallResult, account: u64, cookie: &str) -> anyhow::Result<CallResult> {
        let text = page.text();
        let choice = between(&text, "name=\"choice\" value=\"", "\"").context("the page offers no choice")?;
        let cookies = page.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies: Vec<&str> =
            cookies.filter_map(|cookie| cookie.split(';').next()).chain([cookie]).collect();
        let form = format!("choice={choice}&account={account}");
        let request =
            self.http.post(format!("{}/connect/choose", self.admin)).header(COOKIE, cookies.join("; "));
        read(request.header("content-type", "application/x-www-form-urlencoded").body(form)).await
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = text[start..].find(after)?;
    Some(&text[start..start + end])
}

pub(super) async fn read(request: reqwest::RequestBuilder) -> anyhow::Result<CallResult> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => bail!("no answer: {:#}", anyhow::Error::from(error)),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.context("the answer broke off")?;
    Ok(CallResult { status, headers, body })
}
