//! The binary as a process: one that ends, and ones that stay up and are ended with the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_genapi-gateway");
/// Long enough for a slow machine under load; nothing waits for it when all is well.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a command printed and how it ended.
pub struct CommandOutput {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    /// Both streams, for messages and for looking things up.
    pub fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    // Whatever the developer's shell has set must not decide.
    for variable in
        ["GENAPI_GATEWAY_CONFIG", "GENAPI_GATEWAY_LOG", "ITERO_CLIENT_SECRET", "CREDENTIALS_DIRECTORY"]
    {
        command.env_remove(variable);
    }
    command
}

pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> CommandOutput {
    said(command().args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// The same with something typed in.
pub fn run_with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, typed: &str) -> CommandOutput {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    said(child.wait_with_output().unwrap())
}

fn said(output: Output) -> CommandOutput {
    CommandOutput {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that stays up. Its lines can be waited for; it ends with the test.
pub struct RunningProcess {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl RunningProcess {
    /// A command that asks for something.
    pub fn typed(pair: &GatewayAndSandbox, words: &str) -> Self {
        Self::start(pair.words(words))
    }

    fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            });
        }
        Self { child, lines }
    }

    /// The first line with `words` in it, and everything that was said until then.
    pub fn until(&self, words: &str) -> String {
        self.until_any(&[words])
    }

    fn until_any(&self, words: &[&str]) -> String {
        let end = Instant::now() + TIMEOUT;
        let mut heard = String::new();
        loop {
            let remaining = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(remaining);
            let line = line.unwrap_or_else(|_| panic!("{words:?} was never said, but:\n{heard}"));
            heard.push_str(&line);
            heard.push('\n');
            if words.iter().any(|words| line.contains(words)) {
                return heard;
            }
        }
    }

    pub fn types(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn exit_code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sandbox with a matching gateway beside it, both running; nothing is imported yet.
pub struct GatewayAndSandbox {
    pub folder: tempfile::TempDir,
    pub gateway: RunningProcess,
    sandbox: RunningProcess,
    /// Everything that the sandbox printed until it was ready.
    pub sandbox_said: String,
    pub url: String,
    pub admin: String,
}

impl GatewayAndSandbox {
    pub fn start(sandbox_options: &[&str]) -> Self {
        (0..5).find_map(|_| Self::try_start(sandbox_options)).expect("five times somebody was quicker")
    }

    /// `None` where another program took one of the addresses in between.
    fn try_start(sandbox_options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [gateway_at, admin_at] = free_addresses();
        let dir = folder.path().to_str().unwrap().to_owned();
        let mut arguments =
            vec!["sandbox", "--port", "0", "--gateway", &gateway_at, "--admin", &admin_at, "--write", &dir];
        arguments.extend(sandbox_options);
        let sandbox = RunningProcess::start(arguments);
        let sandbox_said = sandbox.until("ready; stop with Ctrl-C");
        let config = folder.path().join("config.toml");
        let gateway = RunningProcess::start(["-c", config.to_str().unwrap(), "serve"]);
        if !gateway.until_any(&["\"message\":\"ready\"", "already in use"]).contains("\"ready\"") {
            return None;
        }
        let [url, admin] = [gateway_at, admin_at].map(|at| format!("http://{at}"));
        Some(Self { folder, gateway, sandbox, sandbox_said, url, admin })
    }

    /// Ends the sandbox and starts it on what it wrote. Returns what it says.
    pub fn restart_sandbox(&mut self, options: &[&str]) -> String {
        self.sandbox.signal("-TERM");
        assert_eq!(self.sandbox.exit_code(), 0);
        let folder = self.folder.path().to_str().unwrap();
        let mut arguments = vec!["sandbox", "--port", "0", "--write", folder];
        arguments.extend(options);
        self.sandbox = RunningProcess::start(arguments);
        self.sandbox.until("ready; stop with Ctrl-C")
    }

    /// Ends the gateway in good order; the sandbox stays.
    pub fn stop(&mut self) {
        self.gateway.signal("-TERM");
        assert_eq!(self.gateway.exit_code(), 0);
    }

    /// Starts it again on the same files.
    pub fn start_again(&mut self) {
        self.gateway = RunningProcess::start(self.words("serve"));
        self.gateway.until("\"message\":\"ready\"");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// What stands in a file of the set that the sandbox wrote.
    pub fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    /// `genapi-gateway -c its/config.toml WORDS`
    pub fn types(&self, words: &str) -> CommandOutput {
        run(self.words(words))
    }

    /// The same, typed in a folder where a bare name is a file of that folder.
    pub fn types_in(&self, folder: &Path, words: &str) -> CommandOutput {
        said(command().args(self.words(words)).current_dir(folder).stdin(Stdio::null()).output().unwrap())
    }

    pub fn types_with(&self, words: &str, typed: &str) -> CommandOutput {
        run_with(self.words(words), typed)
    }

    fn words(&self, words: &str) -> Vec<String> {
        let config = self.config().to_str().unwrap().to_owned();
        [String::from("-c"), config].into_iter().chain(words.split(' ').map(str::to_owned)).collect()
    }

    pub fn import(&self) -> CommandOutput {
        let file = self.folder.path().join("accounts.json");
        self.types(&format!("accounts import {}", file.display()))
    }
}

/// Two that nobody has. They are let go before the gateway takes them: another program may be quicker.
fn free_addresses() -> [String; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().to_string())
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
