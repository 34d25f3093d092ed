//! One test bed per test: sandbox, gateway and admin on port 0, and a clock that the test moves.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use genapi_gateway::app::{self, Running};
use genapi_gateway::clock::{Clock, Timestamp};
use genapi_gateway::config;
use genapi_gateway::sandbox::gateway_files::{self, Addresses};
use genapi_gateway::sandbox::{AccountSpec, Behavior, Platform, Sandbox, SandboxOptions};
use genapi_gateway::server::InheritedSockets;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

/// The accounts that every test bed begins with.
pub const CLINIC: u64 = 1001;
pub const LAB: u64 = 1002;
pub const CLINIC_NAME: &str = "acct-1001";
pub const LAB_NAME: &str = "acct-1002";
pub const USER: &str = "user@sandbox.test";
pub const PASSWORD: &str = "sandbox";

/// A sandbox, a gateway in front of it, and a clock that the test moves.
pub struct TestBed {
    pub sandbox: Sandbox,
    pub running: Running,
    pub clock: Clock,
    pub key: String,
    pub gateway: String,
    pub admin: String,
    pub admin_token: String,
    folder: tempfile::TempDir,
    pub http: reqwest::Client,
}

/// What a test wants different.
pub struct TestBedBuilder {
    options: SandboxOptions,
    accounts: Vec<AccountSpec>,
    config: Vec<(String, String)>,
    appended: String,
    files: Vec<(String, String)>,
    import: bool,
    clock: Clock,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("status {}: {}", self.status, self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Newline-delimited JSON, or the log's lines.
    pub fn lines(&self) -> Vec<Value> {
        json_lines(&self.text())
    }

    /// The gateway's own code, or nothing for the vendor's responses.
    pub fn code(&self) -> String {
        if self.headers.contains_key("proxy-status") {
            self.json()["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl TestBedBuilder {
    pub fn new() -> Self {
        // A moment that tokens and certificates of the sandbox can live in.
        let clock = Clock::manual(Clock::system().now());
        Self {
            options: SandboxOptions { clock: clock.clone(), ..SandboxOptions::default() },
            accounts: vec![
                AccountSpec::clinic(CLINIC, "Smile Berlin").with_user(USER, PASSWORD).with_orders(3),
                AccountSpec::lab(LAB, "Crown Lab").with_user(USER, PASSWORD).with_orders(3),
            ],
            config: Vec::new(),
            appended: String::new(),
            files: Vec::new(),
            import: true,
            clock,
        }
    }

    pub fn behavior(mut self, change: impl FnOnce(&mut Behavior)) -> Self {
        change(&mut self.options.behavior);
        self
    }

    pub fn options(mut self, change: impl FnOnce(&mut SandboxOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The system's clock for everything: for tests of real waits on the wire.
    pub fn real_clock(mut self) -> Self {
        self.clock = Clock::system();
        self.options.clock = Clock::system();
        self
    }

    /// Only the accounts that the test adds.
    pub fn without_usual_accounts(mut self) -> Self {
        self.accounts.clear();
        self
    }

    pub fn account(mut self, account: AccountSpec) -> Self {
        self.accounts.push(account);
        self
    }

    /// Replaces a text of the matching configuration.
    pub fn config(mut self, old: &str, new: &str) -> Self {
        self.config.push((old.to_owned(), new.to_owned()));
        self
    }

    /// Adds to the end of the configuration: a further caller, say.
    pub fn append(mut self, toml: &str) -> Self {
        self.appended.push_str(toml);
        self
    }

    /// A file beside the configuration.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Leaves the accounts unknown to the gateway, and unpaired at the platform.
    pub fn unpaired(mut self) -> Self {
        self.import = false;
        self
    }

    pub async fn start(self) -> TestBed {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(self.options).await.unwrap();
        // The matching set pairs whatever account it finds.
        let (paired, unpaired) = if self.import { (self.accounts, vec![]) } else { (vec![], self.accounts) };
        for account in paired {
            sandbox.add_account(account);
        }
        let any = || "127.0.0.1:0".to_owned();
        let redirect_uri = "http://127.0.0.1:0/oauth2/callback".to_owned();
        let addresses = Addresses { gateway: any(), admin: any(), redirect_uri };
        let key = gateway_files::write(&sandbox, folder.path(), &addresses).unwrap();
        for account in unpaired {
            sandbox.add_account(account);
        }
        for (name, text) in &self.files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        rewrite(&folder.path().join(gateway_files::CONFIG), &self.config, &self.appended);
        let running = start_gateway(folder.path(), self.clock.clone()).await;
        let mut bed = TestBed::around(sandbox, running, self.clock, key, folder);
        if self.import {
            bed.import_all().await;
        }
        bed.sandbox.clear_calls();
        bed
    }
}

/// Follows nothing, trusts nobody, asks no proxy: what is under test has to be right by itself.
pub fn plain_http() -> reqwest::Client {
    let tls =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // What takes longer hangs: the test shall say where.
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn rewrite(file: &Path, replacements: &[(String, String)], appended: &str) {
    let mut text = std::fs::read_to_string(file).unwrap();
    for (old, new) in replacements {
        assert!(text.contains(old.as_str()), "{old:?} does not stand in the configuration:\n{text}");
        text = text.replace(old.as_str(), new);
    }
    std::fs::write(file, text + appended).unwrap();
}

async fn start_gateway(folder: &Path, clock: Clock) -> Running {
    let loaded = config::load(&folder.join(gateway_files::CONFIG), &config::process_env);
    let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
    app::start(config, clock, &mut InheritedSockets::none()).await.unwrap()
}

impl TestBed {
    pub async fn new() -> Self {
        TestBedBuilder::new().start().await
    }

    fn around(
        sandbox: Sandbox,
        running: Running,
        clock: Clock,
        key: String,
        folder: tempfile::TempDir,
    ) -> Self {
        for realm in running.config().realms.values() {
            for platform in [Platform::New, Platform::Old, Platform::China] {
                sandbox.allow_redirect(platform, realm.redirect_uri.as_str());
            }
        }
        let at = |address: Option<std::net::SocketAddr>| format!("http://{}", address.unwrap());
        let http = plain_http();
        Self {
            gateway: at(running.data_addr()),
            admin: at(running.admin_addr()),
            admin_token: std::fs::read_to_string(folder.path().join("admin.token"))
                .unwrap()
                .trim()
                .to_owned(),
            sandbox,
            running,
            clock,
            key,
            folder,
            http,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Imports every account of the sandbox and renews each once.
    async fn import_all(&mut self) {
        let entries: Value = serde_json::from_str(&gateway_files::import_json(&self.sandbox)).unwrap();
        let imported = self.operate("/import?paused=true", entries).await;
        assert!(!imported.text().contains("\"ok\":false"), "{}", imported.text());
        // One by one, since between several the gateway would wait on a clock that stands still.
        for line in imported.lines() {
            let name = line["name"].as_str().unwrap();
            let resumed = self.operate(&format!("/resume?pattern={name}"), json!(null)).await;
            assert!(!resumed.text().contains("\"ok\":false"), "{}", resumed.text());
        }
    }

    /// A call with the caller's key: path as a legacy application writes it behind the account's base URL.
    pub async fn get(&self, account: &str, path: &str) -> Response {
        self.call(Method::GET, account, path, Bytes::new()).await
    }

    pub async fn call(&self, method: Method, account: &str, path: &str, body: impl Into<Bytes>) -> Response {
        let url = format!("{}/accounts/{account}{path}", self.gateway);
        self.send(self.http.request(method, url).header("X-Gateway-Key", &self.key).body(body.into())).await
    }

    /// Fetches a link as it stands in a response, with the caller's key and nothing else.
    pub async fn follow(&self, link: &str) -> Response {
        self.send(self.following(link)).await
    }

    pub fn following(&self, link: &str) -> reqwest::RequestBuilder {
        let url = if link.starts_with('/') { format!("{}{link}", self.gateway) } else { link.to_owned() };
        self.http.get(url).header("X-Gateway-Key", &self.key)
    }

    /// A request to the data listener as it is given: no key, no account.
    pub fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.gateway))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Response { status, headers, body: response.bytes().await.unwrap() }
    }

    /// A call of the admin API.
    pub async fn operate(&self, path: &str, body: Value) -> Response {
        let request = self.http.post(format!("{}/api{path}", self.admin)).bearer_auth(&self.admin_token);
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// A GET on the admin listener, with the admin token.
    pub async fn look(&self, path: &str) -> Response {
        self.send(self.http.get(format!("{}{path}", self.admin)).bearer_auth(&self.admin_token)).await
    }

    /// Any request on the admin listener: as a browser, without a token.
    pub fn browse(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.admin))
    }

    pub async fn journal(&self, account: &str) -> Vec<String> {
        self.running.journal().flush().await;
        let lines = self.look(&format!("/api/accounts/{account}/journal")).await.json();
        lines.as_array().unwrap().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
    }

    /// A start link for an order such as `{"name": "smile"}`, in realm "global" unless it names another.
    pub async fn start_link(&self, mut order: Value) -> String {
        if order.get("realm").is_none() {
            order["realm"] = json!("global");
        }
        let started = self.operate("/pairings", order).await;
        assert_eq!(started.status, 200, "{}", started.text());
        started.json()["url"].as_str().unwrap().to_owned()
    }

    /// An account as `accounts show` prints it; null where there is none.
    pub async fn account(&self, name: &str) -> Value {
        let response = self.look(&format!("/api/accounts/{name}")).await;
        if response.status == 200 { response.json() } else { Value::Null }
    }

    /// The audit log's lines.
    pub fn audit(&self) -> Vec<Value> {
        json_lines(&std::fs::read_to_string(&self.running.config().admin.audit).unwrap())
    }

    /// Lets waits of the retry loop and of the sandbox go by: moves the
    /// clock on in steps while `work` is under way.
    pub async fn while_time_flies<T>(&self, step: Duration, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_millis(5)) => self.clock.advance(step),
            }
        }
    }

    /// The value of a series in the metrics' text; 0 where there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.look("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Changes the configuration file and has the gateway read it again.
    pub async fn reconfigure(&self, old: &str, new: &str) {
        rewrite(&self.folder().join(gateway_files::CONFIG), &[(old.to_owned(), new.to_owned())], "");
        self.running.reload().await;
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Stops the gateway in good order and starts it again on the same files.
    pub async fn restart(self) -> Self {
        self.restart_after(async |_| {}).await
    }

    /// The same, with a pause between.
    pub async fn restart_later(self, pause: Duration) -> Self {
        let clock = self.clock.clone();
        self.restart_after(async move |_| clock.advance(pause)).await
    }

    /// The same, with something done to the files in between.
    pub async fn restart_after(mut self, change: impl AsyncFnOnce(&Path)) -> Self {
        self.running.stop().await;
        change(self.folder.path()).await;
        let running = start_gateway(self.folder.path(), self.clock.clone()).await;
        self = TestBed::around(self.sandbox, running, self.clock, self.key, self.folder);
        self
    }
}
