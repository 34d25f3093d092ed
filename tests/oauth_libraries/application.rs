//! A legacy application as a process of its own: it knows its settings, prints what it has done, and does
//! what it is told, a line at a time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::library::Library;

/// A virtual machine starts, compiles and runs within it on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What stands in the application's configuration.
pub struct Settings {
    pub oauth_base: String,
    pub api_base: String,
    pub client_id: String,
    pub client_secret: String,
    /// The vendor's login page, as it was given to the application; empty: none is sent.
    pub login_page: String,
    /// Client credentials go by `Authorization: Basic`, not in the form.
    pub basic: bool,
    pub pkce: bool,
    /// It is set up for OpenID Connect, where the library can be: a login without an `id_token` by this
    /// algorithm fails. Empty: it is set up for OAuth.
    pub id_token: &'static str,
}

/// A running application.
pub struct Application {
    name: &'static str,
    process: Child,
    input: ChildStdin,
    output: UnboundedReceiver<String>,
    _folder: tempfile::TempDir,
}

/// What a step tells, by name.
pub type Facts = BTreeMap<String, String>;

/// Should a test fail, its process goes with it.
impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Application {
    /// It wants to pair the lab, and has a redirect URI of its own on this machine.
    pub fn start(library: &Library, settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" };
        let mut command = library.command(folder.path());
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            // A proxy of this machine's is none of the application's.
            command.env_remove(name);
        }
        command
            .env("OAUTH_BASE", &settings.oauth_base)
            .env("API_BASE", &settings.api_base)
            .env("CLIENT_ID", &settings.client_id)
            .env("CLIENT_SECRET", &settings.client_secret)
            .env("CLIENT_AUTH", if settings.basic { "basic" } else { "post" })
            .env("LOGIN_PAGE", &settings.login_page)
            .env("SCOPE", "openid")
            .env("PKCE", yes_or_no(settings.pkce))
            .env("ID_TOKEN", settings.id_token)
            .env("REDIRECT_URI", "http://127.0.0.1:0/cb")
            .env("ACCOUNT_ID", crate::LAB.to_string())
            .env("CALLBACK_URL", "https://application.test/notifications")
            .env("ORDERS_PATH", "/orders/lab")
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}"));
        let (lines, output) = unbounded_channel();
        let said = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || said.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
        let input = process.stdin.take().unwrap();
        Self { name: library.name, process, input, output, _folder: folder }
    }

    /// Where it sends the person's browser.
    pub async fn authorization_url(&mut self) -> String {
        let line = self.line().await;
        line.strip_prefix("AUTHORIZE ").unwrap_or_else(|| panic!("{}: {line}", self.name)).to_owned()
    }

    /// Tells it what to do, which it must bring to an end.
    pub async fn does(&mut self, command: &str) -> Facts {
        writeln!(self.input, "{command}").unwrap();
        self.completes(command).await
    }

    /// Tells it what it must not be able to do. Returns what its library says.
    pub async fn fails(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.is_refused(command).await
    }

    /// Awaits the failure of a step that it does by itself. Returns what its library says.
    pub async fn is_refused(&mut self, step: &str) -> String {
        let line = self.line().await;
        let message = line.strip_prefix(&format!("STEP {step} failed "));
        message.unwrap_or_else(|| panic!("{}: {line}", self.name)).to_owned()
    }

    /// Awaits the end of a step that it does by itself.
    pub async fn completes(&mut self, step: &str) -> Facts {
        let line = self.line().await;
        let facts = line.strip_prefix(&format!("STEP {step} ok "));
        let facts = facts.unwrap_or_else(|| panic!("{}, {step}: {line}", self.name));
        let pairs = facts.split(' ').map(|fact| fact.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(TIMEOUT, self.output.recv()).await;
        let line = line.unwrap_or_else(|_| panic!("{} says nothing", self.name));
        line.unwrap_or_else(|| panic!("{} has ended", self.name))
    }
}
