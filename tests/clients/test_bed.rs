//! Two sandboxes that are alike and a gateway in front of the second, each a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plain;

const PROGRAM: &str = env!("CARGO_BIN_EXE_genapi-gateway");
/// The sandbox's first two accounts.
pub const CLINIC: u64 = 10_001;
pub const LAB: u64 = 10_002;
/// So many that the list has to be rewritten while it streams.
const LONG_LIST: u64 = 2_000;
/// A gateway that does not answer by then has failed.
const START: Duration = Duration::from_secs(60);

/// How the sandbox behaves in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformBehavior {
    /// What the documents print.
    Documented,
    /// JSON in chunks and compressed for whoever takes it, links in every
    /// form, large tokens, 403 for expired ones.
    Adverse,
}

/// One way to the platform.
pub struct Target {
    pub name: &'static str,
    control: String,
    /// Base URLs: what an application has in its configuration.
    pub clinic: String,
    pub lab: String,
    /// The accounts' region hosts, as the platform prints them.
    pub clinic_origin: String,
    pub storage_origin: String,
    /// Three links of the lab's order list, followed as they came.
    pub links: Vec<String>,
    /// How this way's own addresses are printed.
    pub addresses: Vec<String>,
}

/// What the clients call: the platform itself, and a gateway in front of it.
pub struct TestBed {
    pub dir: TempDir,
    pub behavior: PlatformBehavior,
    pub direct: Target,
    pub through: Target,
    /// The clinic's and the lab's true bearers on the direct way; what applications send on both.
    pub clinic_bearer: String,
    pub lab_bearer: String,
    _processes: [Process; 3],
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl TestBed {
    pub fn start(behavior: PlatformBehavior) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (bare, bare_control) = sandbox(dir.path(), &[]);
        let (gateway, admin) = (free_address(), free_address());
        let set = dir.path().join("set");
        let (fronted, fronted_control) = sandbox(
            dir.path(),
            &[
                "--write",
                &set.display().to_string(),
                "--gateway",
                &gateway.to_string(),
                "--admin",
                &admin.to_string(),
            ],
        );
        for control in [&bare_control, &fronted_control] {
            behavior.set(control);
        }
        let serving = serve(&set, admin);
        let bearer = |account: u64| {
            let token =
                plain::json("POST", &format!("{bare_control}/accounts/{account}/bearer"), "", &Value::Null);
            token["access_token"].as_str().expect("a token").to_owned()
        };
        let (clinic_bearer, lab_bearer) = (bearer(CLINIC), bearer(LAB));
        let mut direct = Target::direct(bare_control);
        let mut through = Target::through(fronted_control, gateway);
        for target in [&mut direct, &mut through] {
            target.find_links(&lab_bearer);
        }
        let bed = Self {
            dir,
            behavior,
            direct,
            through,
            clinic_bearer,
            lab_bearer,
            _processes: [bare, fronted, serving],
        };
        bed.arrange();
        bed
    }

    /// What the gateway has logged besides its calls, for a test that fails.
    pub fn gateway_log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("set/gateway.log")).unwrap_or_default();
        log.lines()
            .filter(|line| !line.contains("\"message\":\"call\""))
            .map(|line| line.to_owned() + "\n")
            .collect()
    }

    /// Errors that are passed on, a redirect, a long list; then the records begin anew.
    fn arrange(&self) {
        for target in [&self.direct, &self.through] {
            let fault = |endpoint: &str, fault: Value| {
                let script = json!({"endpoint": endpoint, "account": CLINIC, "times": 1, "fault": fault});
                target.steer("POST", "/faults", &script);
            };
            fault("practice_configuration", json!({"status": 503}));
            fault("practice_configuration", json!({"status": 429}));
            let moved = format!("{}/itero-gen-api/v2/orders/{}", target.clinic_origin, CLINIC * 100_000 + 1);
            fault("order", json!({"redirects": {"status": 302, "location": moved}}));
            target.steer("POST", &format!("/accounts/{CLINIC}/orders"), &json!({"count": LONG_LIST}));
            target.steer("DELETE", "/calls", &Value::Null);
        }
    }
}

impl PlatformBehavior {
    fn set(self, control: &str) {
        let switches = match self {
            PlatformBehavior::Documented => json!({}),
            PlatformBehavior::Adverse => json!({
                "token_size": 8192, "expiry_status": 403, "link_form": "mixed", "gzip_json": true, "chunked_json": 7000,
                "status_form": "text", "domain_form": "trailing_slash",
            }),
        };
        plain::json("POST", &format!("{control}/habits"), "", &switches);
    }
}

impl Target {
    fn direct(control: String) -> Self {
        let mut target = Self::new("direct", control);
        let regions = target.steer("GET", "/urls", &Value::Null)["regions"].clone();
        let region = |account: u64| regions[REGIONS[(account % 3) as usize]].as_str().expect("a region");
        target.clinic = region(CLINIC).to_owned();
        target.lab = region(LAB).to_owned();
        target.addresses = [CLINIC, LAB].map(|account| origin(region(account)).to_owned()).to_vec();
        target
    }

    fn through(control: String, gateway: SocketAddr) -> Self {
        let mut target = Self::new("through", control);
        let base = |account: u64| format!("http://{gateway}/accounts/acct-{account}");
        target.clinic = base(CLINIC) + "/itero-gen-api/v2";
        target.lab = base(LAB) + "/itero-gen-api/v2";
        target.addresses = [CLINIC, LAB].map(base).to_vec();
        target
    }

    fn new(name: &'static str, control: String) -> Self {
        let urls = plain::json("GET", &format!("{control}/urls"), "", &Value::Null);
        let text = |value: &Value| value.as_str().expect("a URL").to_owned();
        let clinic_region = &urls["regions"][REGIONS[(CLINIC % 3) as usize]];
        Self {
            name,
            control,
            clinic: String::new(),
            lab: String::new(),
            clinic_origin: origin(&text(clinic_region)).to_owned(),
            storage_origin: origin(&text(&urls["storage"])).to_owned(),
            links: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// One errand at the sandbox's control port.
    pub fn steer(&self, method: &str, path: &str, body: &Value) -> Value {
        plain::json(method, &format!("{}{path}", self.control), "", body)
    }

    fn find_links(&mut self, bearer: &str) {
        let list = plain::json("GET", &format!("{}/orders/lab", self.lab), bearer, &Value::Null);
        let orders = list["Data"].as_array().expect("orders");
        let urls = orders.iter().flat_map(|order| order["URLs"].as_array().expect("links"));
        self.links =
            urls.map(|entry| entry["Url"].as_str().expect("a link"))
                .filter(|link| !link.starts_with(&self.storage_origin))
                .map(|link| {
                    if link.starts_with('/') { origin(&self.lab).to_owned() + link } else { link.to_owned() }
                })
                .take(3)
                .collect();
        assert_eq!(self.links.len(), 3);
    }
}

/// Where `populate` puts an account, by the rest of its number divided by three, in the order in which
/// `/urls` prints the regions.
const REGIONS: [usize; 3] = [0, 1, 2];

fn origin(url: &str) -> &str {
    let end = url["http://".len()..].find('/').map_or(url.len(), |at| at + "http://".len());
    &url[..end]
}

/// The process and its control port.
fn sandbox(dir: &Path, more: &[&str]) -> (Process, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["sandbox", "--port", "0", "--accounts", "2"]).args(more).current_dir(dir);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the sandbox starts");
    let said = BufReader::new(child.stdout.take().expect("its output"));
    let process = Process(child);
    let mut control = None;
    for line in said.lines() {
        let line = line.expect("its output is text");
        if line.starts_with("control port") {
            control = line.split_whitespace().last().map(str::to_owned);
        }
        if line.starts_with("ready") {
            return (process, control.expect("a control port"));
        }
    }
    panic!("the sandbox has ended");
}

/// A gateway with the sandbox's configuration, and callers that are known by where they stand: they send what
/// they always sent.
fn serve(set: &Path, admin: SocketAddr) -> Process {
    let config = set.join("config.toml");
    let mut file = File::options().append(true).open(&config).expect("the configuration");
    let caller = "\n[[callers]]\nname = \"legacy\"\naccounts = [\"*\"]\nnetworks = [\"127.0.0.0/8\"]\n";
    file.write_all(caller.as_bytes()).expect("one more caller");
    let log = File::create(set.join("gateway.log")).expect("a log");
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(&config).arg("serve");
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    let mut process = Process(command.spawn().expect("the gateway starts"));
    let begin = Instant::now();
    while !matches!(plain::call("GET", &format!("http://{admin}/healthz"), "", &Value::Null), Ok((200, _))) {
        let ended = process.0.try_wait().expect("its state");
        let log = || std::fs::read_to_string(set.join("gateway.log")).unwrap_or_default();
        assert!(ended.is_none() && begin.elapsed() < START, "the gateway does not serve: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let import: PathBuf = set.join("accounts.json");
    let done = Command::new(PROGRAM).arg("-c").arg(&config).args(["accounts", "import"]).arg(import).output();
    let done = done.expect("import runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    process
}

/// Free until the gateway takes it: nobody else uses this process's own
/// loopback address, not even for outgoing connections.
fn free_address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 77, high, low.max(1));
    let listener = TcpListener::bind((own, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
