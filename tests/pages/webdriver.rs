//! A headless Chromium, steered over WebDriver: Debian's chromium and chromedriver, nothing else. It fails
//! where they are missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::test_bed::plain_http;

/// How long a page may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
const MISSING: &str =
    "the pages are tested in Chromium: apt-get install --no-install-recommends chromium chromium-driver";
/// WebDriver's name for an element in its JSON (W3C WebDriver, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The system's test machines run as root, and no test may speak to anybody but this machine.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    // The certificates are the test's own; nothing but loopback resolves.
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE gateway.localhost",
];

/// A browser without a window, driven by WebDriver.
pub struct Chromium {
    driver: Child,
    port: u16,
    session: String,
    http: reqwest::Client,
    _profile: tempfile::TempDir,
}

impl Chromium {
    pub async fn start() -> Self {
        Self::with_preferences(json!({})).await
    }

    pub async fn without_javascript() -> Self {
        Self::with_preferences(json!({"profile.managed_default_content_settings.javascript": 2})).await
    }

    async fn with_preferences(preferences: Value) -> Self {
        let (driver, port) = start_driver();
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "timeouts": {"implicit": 0, "pageLoad": 30_000, "script": 30_000},
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments, "prefs": preferences},
        }}});
        let mut chromium =
            Self { driver, port, session: String::new(), http: plain_http(), _profile: profile };
        let begun = chromium.command("POST", "", wanted).await;
        let begun = begun.unwrap_or_else(|error| panic!("chromium does not start: {error}; {MISSING}"));
        chromium.session = format!("/{}", begun["sessionId"].as_str().unwrap());
        chromium
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    pub async fn reload(&self) {
        self.post("/refresh", json!({})).await;
    }

    pub async fn back(&self) {
        self.post("/back", json!({})).await;
    }

    pub async fn url(&self) -> String {
        let url = self.command("GET", "/url", Value::Null).await.unwrap();
        url.as_str().unwrap().to_owned()
    }

    /// Waits until the page with that heading is there.
    pub async fn until_heading(&self, heading: &str) {
        let begun = Instant::now();
        loop {
            let shown = self.text("h1").await;
            if shown.as_deref() == Ok(heading) {
                return;
            }
            let at = self.url().await;
            assert!(begun.elapsed() < PATIENCE, "no page {heading:?}; {at} shows {shown:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The visible text of the first element that fits.
    pub async fn text(&self, css: &str) -> Result<String, String> {
        let element = self.find(css).await?;
        let text = self.command("GET", &format!("/element/{element}/text"), Value::Null).await?;
        Ok(text.as_str().unwrap().to_owned())
    }

    pub async fn click(&self, css: &str) {
        let element = self.find(css).await.unwrap();
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    pub async fn type_into(&self, css: &str, text: &str) {
        let element = self.find(css).await.unwrap();
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Keys for whatever has the focus.
    pub async fn press(&self, keys: &[char]) {
        let each =
            |key: &char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions: Vec<Value> = keys.iter().flat_map(each).collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]})).await;
    }

    pub async fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// A command of the developer tools' protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await;
    }

    /// What the console has said since it was last asked.
    pub async fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        log.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn screenshot(&self) -> Vec<u8> {
        let picture = self.command("GET", "/screenshot", Value::Null).await.unwrap();
        STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }

    async fn find(&self, css: &str) -> Result<String, String> {
        let found = self.command("POST", "/element", json!({"using": "css selector", "value": css})).await?;
        Ok(found[ELEMENT].as_str().unwrap().to_owned())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.command("POST", path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn command(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/session{}{path}", self.port, self.session);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if method == "POST" {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap().bytes().await.unwrap();
        let response: Value = serde_json::from_slice(&response).unwrap();
        match response["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", response["value"]["message"])),
            None => Ok(response["value"].clone()),
        }
    }
}

/// The driver and its browser are one process group, which ends as soon as nobody holds the shell's input any
/// more: however a test ends, killed from outside included, it leaves no browser behind.
const GROUP: &str = "chromedriver --port=0 & exec >&-; read -r _; kill -KILL 0";

fn end(group: &mut Child) {
    drop(group.stdin.take());
    let _ = group.wait();
}

/// Port 0 is bound for IPv4 first; where IPv6 has the same port taken, chromedriver gives up, and another try
/// has another port.
fn start_driver() -> (Child, u16) {
    let mut said = String::new();
    for _ in 0..5 {
        let driver = Command::new("sh")
            .args(["-c", GROUP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut driver = driver.unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.by_ref().inspect(|line| said.push_str(line)).find_map(|line| announced_port(&line));
        if let Some(port) = port {
            // The rest is read too, so that the pipe never fills.
            std::thread::spawn(move || lines.for_each(drop));
            return (driver, port);
        }
        end(&mut driver);
    }
    panic!("chromedriver does not start: {said}; {MISSING}");
}

/// "ChromeDriver was started successfully on port 40001."
fn announced_port(line: &str) -> Option<u16> {
    line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
}

impl Drop for Chromium {
    /// The session ends in good order where it can, the group in any case.
    fn drop(&mut self) {
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = driver.set_read_timeout(Some(Duration::from_secs(5)));
            let end = format!(
                "DELETE /session{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                self.session
            );
            let _ = driver.write_all(end.as_bytes()).and_then(|()| driver.read(&mut [0; 256]).map(drop));
        }
        end(&mut self.driver);
    }
}
