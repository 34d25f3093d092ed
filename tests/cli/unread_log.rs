//! A gateway whose log nobody reads, or cannot be written: it renews,
//! serves, tells its figures and ends as ever.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::processes::{GatewayAndSandbox, PROGRAM};

const TIMEOUT: Duration = Duration::from_secs(60);
/// What a pipe holds on Linux.
const PIPE_BYTES: usize = 64 * 1024;

/// A gateway whose standard error is not read by anybody.
struct UnreadGateway {
    pair: GatewayAndSandbox,
    child: Child,
}

impl Drop for UnreadGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe into which not a byte more goes, and its other end.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'.'; PIPE_BYTES]).unwrap();
    (reader, writer.into())
}

impl UnreadGateway {
    /// Returns as soon as the gateway serves.
    fn start(log: Stdio) -> Self {
        let mut pair = GatewayAndSandbox::start(&["--accounts", "2"]);
        pair.stop();
        // Longer than any test waits: what ends sooner was not waited for.
        let config =
            pair.written("config.toml").replace("[gateway]\n", "[gateway]\ndrain_timeout = \"10m\"\n");
        std::fs::write(pair.config(), config).unwrap();
        let mut serve = Command::new(PROGRAM);
        serve.args(["serve", "-c"]).arg(pair.config()).env("GENAPI_GATEWAY_LOG", "debug").stderr(log);
        let child = serve.spawn().unwrap();
        let gateway = Self { pair, child };
        let end = Instant::now() + TIMEOUT;
        while gateway.ask(&gateway.pair.admin, "/livez", "").is_none() {
            assert!(Instant::now() < end, "it does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// One call; `None` where nobody answers.
    fn ask(&self, at: &str, path: &str, fields: &str) -> Option<String> {
        let host = at.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        response.starts_with("HTTP/1.1 ").then_some(response)
    }

    fn metrics(&self) -> String {
        let token = self.pair.written("admin.token");
        self.ask(&self.pair.admin, "/metrics", &format!("Authorization: Bearer {}\r\n", token.trim()))
            .unwrap()
    }

    /// Accounts come in, are renewed, and calls are served. Returns
    /// where to send one more, and its key's line.
    fn works(&self) -> (String, String) {
        let imported = self.pair.import();
        assert_eq!(imported.code, 0, "{}", imported.all());
        let renewed = self.pair.types("accounts renew *");
        assert_eq!(renewed.code, 0, "{}", renewed.all());
        let listed = self.pair.types("accounts list -o json");
        let accounts: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
        let name = accounts[0]["name"].as_str().unwrap();
        let key = format!("X-Gateway-Key: {}\r\n", self.pair.written("caller.key").trim());
        let path = format!("/accounts/{name}/practice-configuration");
        for _ in 0..20 {
            let response = self.ask(&self.pair.url, &path, &key).unwrap();
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        (format!("/accounts/{name}/patient/search"), key)
    }

    fn until_draining(&self) {
        let end = Instant::now() + TIMEOUT;
        while !self
            .ask(&self.pair.admin, "/readyz", "")
            .is_some_and(|response| response.starts_with("HTTP/1.1 503 "))
        {
            assert!(Instant::now() < end, "it does not drain");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, which it has to within a while.
    fn ends(&mut self) -> Option<i32> {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn nothing_waits_for_a_log_that_nobody_reads() {
    let (_unread, pipe) = full_pipe();
    let mut gateway = UnreadGateway::start(pipe);
    gateway.works();
    let figures = gateway.metrics();
    let waiting = figures.lines().find_map(|line| line.strip_prefix("genapi_gateway_log_waiting_seconds "));
    assert!(waiting.is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 0.0), "{waiting:?}");
    gateway.signal("-TERM");
    assert_eq!(gateway.ends(), Some(0));
}

#[test]
fn a_second_sigterm_ends_it_though_a_call_is_under_way_and_nobody_reads_the_log() {
    let (_unread, pipe) = full_pipe();
    let mut gateway = UnreadGateway::start(pipe);
    let (path, key) = gateway.works();
    let host = gateway.pair.url.strip_prefix("http://").unwrap();
    let mut half = TcpStream::connect(host).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{key}Content-Length: 9\r\n\r\n1");
    half.write_all(head.as_bytes()).unwrap();
    gateway.signal("-TERM");
    gateway.until_draining();
    gateway.signal("-TERM");
    gateway.ends();
}

#[test]
fn a_reader_that_went_away_and_a_full_disk_end_nothing_and_what_is_lost_is_counted() {
    let (reader, pipe) = full_pipe();
    drop(reader);
    for log in [pipe, File::create("/dev/full").unwrap().into()] {
        let mut gateway = UnreadGateway::start(log);
        gateway.works();
        let figures = gateway.metrics();
        for name in ["log_lines_lost_total", "access_log_lines_lost_total"] {
            let lost = figures.lines().find_map(|line| line.strip_prefix(&format!("genapi_gateway_{name} ")));
            assert!(lost.is_some_and(|lost| lost != "0"), "{name}: {lost:?}");
        }
        gateway.signal("-TERM");
        assert_eq!(gateway.ends(), Some(0));
    }
}

#[test]
fn a_start_that_fails_ends_though_nobody_reads_why() {
    let pair = GatewayAndSandbox::start(&[]);
    let (_unread, unread) = full_pipe();
    let (gone, closed) = full_pipe();
    drop(gone);
    for pipe in [unread, closed] {
        // The addresses are taken by the one that runs.
        let mut second = Command::new(PROGRAM);
        let mut child = second.args(["serve", "-c"]).arg(pair.config()).stderr(pipe).spawn().unwrap();
        let end = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.code().is_some_and(|code| code != 0 && code != 101), "{status}");
    }
}
