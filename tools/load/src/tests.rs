//! The generator against a small server over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use super::*;

/// A server that answers every request with the same bytes and remembers the request lines.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn responding(response: &'static str) -> Self {
        Self::choosing(move |_| response)
    }

    fn choosing(response: impl Fn(&str) -> &'static str + Send + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, noted, response) = (stream.unwrap(), noted.clone(), response.clone());
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    let mut chunk = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut chunk) {
                        request.extend_from_slice(&chunk[..count]);
                        while let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
                            let head = String::from_utf8(request.drain(..end + 4).collect()).unwrap();
                            let line = head.lines().next().unwrap().to_owned();
                            let text = response(&line);
                            noted.lock().unwrap().push(line);
                            let _ = stream.write_all(text.as_bytes());
                            if text.contains("Connection: close") {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn plan(&self) -> LoadPlan {
        let target = format!("http://{}/lab-sw/v1/", self.address).parse().unwrap();
        LoadPlan {
            mix: vec![RequestSpec::get("/orders/lab")],
            duration: Duration::from_millis(300),
            connections: 2,
            ..LoadPlan::new(target)
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

const SANDBOX: &str = "HTTP/1.1 200 OK\r\nX-Sandbox: genapi-gateway\r\nContent-Length: 2\r\n\r\n{}";
const REAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
const REFUSED: &str =
    "HTTP/1.1 401 caller_unknown\r\nProxy-Status: genapi-gateway\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_target_without_a_sandbox_behind_it_gets_one_harmless_read_and_no_load() {
    let server = Server::responding(REAL);
    let error = run(&server.plan(), &RunProgress::default()).unwrap_err();
    assert!(matches!(error, LoadError::NotASandbox { status: 200, .. }), "{error}");
    assert_eq!(server.seen(), ["GET /lab-sw/v1/practice-configuration HTTP/1.1"]);
    let allowed = LoadPlan { real_platform: true, ..server.plan() };
    assert!(run(&allowed, &RunProgress::default()).unwrap().calls > 0);
}

#[test]
fn the_first_response_from_elsewhere_ends_the_run() {
    let server = Server::choosing(|line| if line.contains("orders") { REAL } else { SANDBOX });
    let plan = LoadPlan { duration: Duration::from_secs(60), ..server.plan() };
    let error = run(&plan, &RunProgress::default()).unwrap_err();
    assert!(matches!(error, LoadError::NotASandbox { .. }), "{error}");
    assert!(server.seen().len() <= 1 + 2 * plan.connections, "{:?}", server.seen());
}

#[test]
fn a_refusal_ahead_of_the_run_is_named_by_its_code() {
    let server = Server::responding(REFUSED);
    let error = run(&server.plan(), &RunProgress::default()).unwrap_err();
    assert!(matches!(&error, LoadError::Refused { code, .. } if code == "caller_unknown"), "{error}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_spreads_it_over_accounts_and_threads() {
    let server = Server::responding(SANDBOX);
    let plan = LoadPlan {
        accounts: vec!["smile".into(), "crown".into()],
        loop_mode: LoopMode::Open(200.0),
        threads: 2,
        duration: Duration::from_secs(1),
        ..server.plan()
    };
    let report = run(&plan, &RunProgress::default()).unwrap();
    assert_eq!((report.calls + report.unsent, report.failures), (200, 0), "{report}");
    let seen = server.seen();
    let of = |name: &str| {
        seen.iter().filter(|line| line.contains(&format!("/lab-sw/v1/accounts/{name}/orders/lab"))).count()
    };
    assert!((80..=120).contains(&of("smile")) && (80..=120).contains(&of("crown")), "{}", of("smile"));
}

#[test]
fn a_connection_that_the_target_closes_is_opened_anew() {
    let closing =
        "HTTP/1.1 200 OK\r\nX-Sandbox: genapi-gateway\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let server = Server::responding(closing);
    let report = run(&server.plan(), &RunProgress::default()).unwrap();
    assert!(report.calls > 4 && report.failures == 0, "{report}");
}

#[test]
fn a_silent_target_costs_time_outs_and_not_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let plan = LoadPlan {
        mix: vec![RequestSpec::get("/")],
        duration: Duration::from_millis(400),
        timeout: Duration::from_millis(50),
        real_platform: true,
        ..LoadPlan::new(target)
    };
    let report = run(&plan, &RunProgress::default()).unwrap();
    assert!(report.calls == 0 && report.errors["timed out"] >= 1, "{report}");
}

#[test]
fn stopping_ends_a_run_early_and_its_rate_is_that_of_the_time_it_had() {
    let server = Server::responding(SANDBOX);
    let plan =
        LoadPlan { loop_mode: LoopMode::Open(100.0), duration: Duration::from_secs(600), ..server.plan() };
    let progress = RunProgress::default();
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&plan, &progress));
        while progress.count().calls < 20 {
            std::thread::yield_now();
        }
        progress.stop();
        running.join().unwrap().unwrap()
    });
    assert!(report.seconds < 60.0 && report.calls >= 20, "{report}");
}

#[test]
fn idle_connections_stay_open_until_dropped() {
    let server = Server::responding(SANDBOX);
    let idle = IdleConnections::open(&LoadPlan { connections: 7, ..server.plan() }).unwrap();
    assert_eq!((idle.count(), server.seen().len()), (7, 7));
}
