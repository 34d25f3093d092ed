//! The kinds of clients: which program, what it needs, what it cannot do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::plan::{self, Call};
use crate::test_bed::{PlatformBehavior, Target, TestBed};

/// A kind of HTTP client, and how to run it.
pub struct Kind {
    pub name: &'static str,
    /// What runs the program, and the Debian package that has it.
    interpreter: (&'static str, &'static str),
    /// A Debian package of modules, and a command that fails without it.
    modules: Option<(&'static str, &'static [&'static str])>,
    program: &'static str,
    /// How the program behaves, on the direct way and through the gateway.
    modes: (&'static str, &'static str),
    /// Calls that this client cannot make.
    cannot: &'static [&'static str],
    /// One connection does for all calls, save for those after which a side closes.
    keeps_connections: bool,
}

const PLAIN: Kind = Kind {
    name: "",
    interpreter: ("sh", "dash"),
    modules: None,
    program: "",
    modes: ("", ""),
    cannot: &[],
    keeps_connections: false,
};

const fn curl(name: &'static str, mode: &'static str) -> Kind {
    Kind { name, interpreter: ("curl", "curl"), program: "curl.sh", modes: (mode, mode), ..PLAIN }
}

const fn raw(name: &'static str, modes: (&'static str, &'static str)) -> Kind {
    Kind { name, interpreter: ("python3", "python3"), program: "raw_socket.py", modes, ..PLAIN }
}

const fn run_by(
    name: &'static str,
    command: &'static str,
    package: &'static str,
    program: &'static str,
) -> Kind {
    Kind { name, interpreter: (command, package), program, ..PLAIN }
}

pub const CURL: Kind = curl("curl", "");
pub const CURL_10: Kind = curl("curl, HTTP/1.0", "http1.0");
pub const CURL_CHUNKED: Kind = curl("curl, chunked upload", "chunked");
pub const CURL_EXPECT: Kind = curl("curl, Expect: 100-continue", "expect");
pub const CURL_H2C: Kind = curl("curl, upgrade to HTTP/2 offered", "h2c");
pub const CURL_COMPRESSED: Kind = curl("curl, compressed", "compressed");
pub const WGET: Kind = Kind {
    // It takes a 206 for an error unless it asked for the rest of a file, a 416 for the end of one, and waits
    // for a 304's body.
    cannot: &["part", "part of nothing", "unchanged"],
    ..run_by("wget", "wget", "wget", "wget.sh")
};
pub const URLLIB: Kind = run_by("Python urllib", "python3", "python3", "urllib_client.py");
pub const HTTP_CLIENT: Kind = run_by("Python http.client", "python3", "python3", "http_client.py");
pub const URL_CONNECTION: Kind = Kind {
    // "Invalid HTTP method: PATCH"
    cannot: &["patch"],
    ..run_by("Java HttpURLConnection", "java", "default-jdk-headless", "UrlConnection.java")
};
pub const JAVA_CLIENT: Kind = run_by("Java HttpClient", "java", "default-jdk-headless", "JavaClient.java");
pub const NODE_HTTP: Kind = run_by("Node http", "node", "nodejs", "node_http.js");
pub const NODE_FETCH: Kind = run_by("Node fetch", "node", "nodejs", "node_fetch.js");
pub const HTTP_TINY: Kind = run_by("Perl HTTP::Tiny", "perl", "perl", "http_tiny.pl");
pub const LWP: Kind = Kind {
    modules: Some(("libwww-perl", &["perl", "-MLWP", "-e", "1"])),
    ..run_by("Perl LWP", "perl", "perl", "lwp.pl")
};
pub const PHP_STREAMS: Kind = run_by("PHP streams", "php", "php-cli", "streams.php");
pub const PHP_CURL: Kind = Kind {
    modules: Some(("php-curl", &["php", "-r", "curl_init();"])),
    ..run_by("PHP curl", "php", "php-cli", "curl.php")
};
pub const NETCAT: Kind = run_by("netcat, HTTP/1.0", "nc", "netcat-openbsd", "nc.sh");
pub const RAW_KEEP_ALIVE: Kind =
    Kind { keeps_connections: true, ..raw("by hand, HTTP/1.1", ("keep-alive", "keep-alive")) };
pub const RAW_DRIBBLE: Kind = raw("by hand, line by line", ("dribble", "dribble"));
pub const RAW_10_KEEP_ALIVE: Kind = Kind {
    keeps_connections: true,
    ..raw("by hand, HTTP/1.0 with keep-alive", ("1.0-keep-alive", "1.0-keep-alive"))
};
/// The sandbox takes no absolute targets, so the direct way has plain ones.
pub const RAW_ABSOLUTE: Kind = raw("by hand, absolute targets", ("keep-alive", "absolute"));

/// Where one run has left its responses.
pub struct Run {
    pub out: PathBuf,
    pub calls: Vec<Call>,
}

impl Kind {
    /// Panics with the line that installs what is missing.
    pub fn is_installed(&self) {
        let (command, package) = self.interpreter;
        let found = |program: &str| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths).any(|path| path.join(program).is_file())
        };
        assert!(found(command), "{command} is missing: apt-get install {package}");
        if let Some((package, check)) = self.modules {
            let done = Command::new(check[0]).args(&check[1..]).output().expect("it was found");
            assert!(done.status.success(), "modules are missing: apt-get install {package}");
        }
    }

    /// Makes all calls on one way.
    pub fn run(&self, bed: &TestBed, target: &Target) -> Run {
        let out = bed.dir.path().join(target.name);
        std::fs::create_dir(&out).expect("a folder");
        plan::write_bodies(bed.dir.path());
        let mut calls = plan::calls(bed, target);
        calls.retain(|call| !self.cannot.contains(&call.name));
        let plan = out.join("plan");
        std::fs::write(&plan, plan::text(bed.dir.path(), &calls)).expect("the plan");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs").join(self.program);
        let interpreter = if self.program.ends_with(".sh") { "sh" } else { self.interpreter.0 };
        let mode = if target.name == "direct" { self.modes.0 } else { self.modes.1 };
        let mut command = Command::new(interpreter);
        command.arg(program).arg(&plan).arg(&out).arg(mode);
        // A proxy of this machine's is none of the platform's.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let done = command.output().expect("the program runs");
        assert!(
            done.status.success(),
            "{} {}: {}{}\n{}",
            self.name,
            target.name,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
            bed.gateway_log()
        );
        Run { out, calls }
    }

    /// A client that keeps its connections could do so through the gateway too.
    pub fn connections(&self, bed: &TestBed, direct: &Run, through: &Run) -> Option<String> {
        // In chunks, a response has no end that an HTTP/1.0 caller could see but the connection's.
        if !self.keeps_connections || bed.behavior == PlatformBehavior::Adverse {
            return None;
        }
        let opened = |run: &Run| {
            let text = std::fs::read_to_string(run.out.join("connections")).expect("a count");
            text.parse::<u32>().expect("a count")
        };
        let (direct, through) = (opened(direct), opened(through));
        (through > 3).then(|| format!("{through} connections through the gateway, {direct} directly"))
    }
}
