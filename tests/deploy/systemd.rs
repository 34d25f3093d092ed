//! The units are ones that systemd takes, and the program is a service as they promise: it tells when it is
//! ready, and takes sockets over.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use genapi_gateway::sandbox::gateway_files::{self, Addresses};
use genapi_gateway::sandbox::{Sandbox, SandboxOptions};

use crate::deployed;
use crate::process::{Gateway, PATIENCE, PROGRAM, PendingRequest, output};

/// What systemd itself makes of a unit's hardening, times ten: 0 would be a service that can do nothing, 100
/// one that may do everything.
const MOST_EXPOSED: &str = "15";

/// The shipped units with a program that exists.
fn units() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["genapi-gateway.service", "genapi-gateway.socket"] {
        let unit = deployed(name).replace("/usr/bin/genapi-gateway", PROGRAM);
        std::fs::write(folder.path().join(name), unit).unwrap();
    }
    folder
}

/// What stands behind the `=` of a line.
fn value(unit: &str, key: &str) -> String {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("{key} is missing")).to_owned()
}

#[test]
fn systemd_takes_the_units_without_a_remark() {
    let folder = units();
    for name in ["genapi-gateway.service", "genapi-gateway.socket"] {
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(folder.path().join(name))
            .output();
        let verified = verified.expect("systemd-analyze is needed: apt-get install systemd");
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{said}");
        // This machine's other units are not our business.
        let remarks: Vec<&str> = said.lines().filter(|line| line.contains("genapi-gateway")).collect();
        assert_eq!(remarks, [""; 0]);
    }
}

#[test]
fn systemd_finds_the_service_locked_in() {
    let folder = units();
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", "--threshold", MOST_EXPOSED]);
    output(security.arg(folder.path().join("genapi-gateway.service")));
}

#[test]
fn the_unit_gives_a_drain_the_time_that_it_may_take() {
    let seconds = value(&deployed("genapi-gateway.service"), "TimeoutStopSec");
    // The default of gateway.drain_timeout, and what the end waits for refreshes under way.
    assert!(seconds.parse::<u32>().unwrap() >= 30 + 15 + 5);
}

#[test]
fn a_crash_leaves_no_core_with_tokens_in_it() {
    assert_eq!(value(&deployed("genapi-gateway.service"), "LimitCORE"), "0");
}

#[test]
fn the_sockets_are_those_of_the_packaged_configuration() {
    let unit = deployed("genapi-gateway.socket");
    let sockets: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let config = deployed("config.toml");
    let listed: Vec<&str> = config
        .lines()
        .filter_map(|line| line.strip_prefix("listen = [\""))
        .map(|rest| rest.trim_end_matches("\"]"))
        .collect();
    assert_eq!(sockets, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_readiness_reload_life_and_the_end() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    gateway_files::write(&sandbox, folder.path(), &Addresses::new(any, any)).unwrap();
    let ear = folder.path().join("notify");
    let manager = UnixDatagram::bind(&ear).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |what: &str| {
        let mut buffer = [0; 4096];
        // Signs of life may come at any time between.
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            let said = String::from_utf8_lossy(&buffer[..length]);
            if said.lines().any(|line| line == what) {
                break;
            }
            assert!(said.starts_with("WATCHDOG=1"), "{what} is awaited, not {said}");
        }
    };
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "-c"]).arg(folder.path().join(gateway_files::CONFIG));
    serve.env("NOTIFY_SOCKET", &ear).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let gateway = Gateway::start(&mut serve);
    hear("READY=1");
    hear("WATCHDOG=1");
    gateway.process.signal("-HUP");
    hear("RELOADING=1");
    hear("READY=1");
    gateway.process.signal("-TERM");
    hear("STOPPING=1");
    assert_eq!(gateway.process.ended(), Some(0));
}

/// As systemd starts a service with a socket: descriptor 3, and its own process id beside it.
fn serve_on(socket: &TcpListener, config: &std::path::Path) -> Command {
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -c \"$1\"";
    let mut shell = Command::new("sh");
    let socket: OwnedFd = socket.try_clone().unwrap().into();
    shell.args(["-c", script, PROGRAM]).arg(config).stdin(Stdio::from(socket));
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_wait_at_a_socket_of_the_service_manager_while_the_gateway_is_restarted() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    gateway_files::write(&sandbox, folder.path(), &Addresses::new(address, "127.0.0.1:0".parse().unwrap()))
        .unwrap();
    let config = folder.path().join(gateway_files::CONFIG);
    let call = || PendingRequest::get(address, "/orders/lab").unwrap();
    for _ in 0..2 {
        // Nobody is there yet who could answer.
        let early = call();
        let gateway = Gateway::start(&mut serve_on(&socket, &config));
        assert_eq!(gateway.data, address);
        let (early, late) = (early.response().unwrap(), call().response().unwrap());
        for response in [early, late] {
            assert_eq!(response.status, 401, "{response:?}");
            assert!(response.head.contains("proxy-status: genapi-gateway"), "{response:?}");
        }
        gateway.process.signal("-TERM");
        assert_eq!(gateway.process.ended(), Some(0));
    }
}
