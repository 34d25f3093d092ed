//! The forward proxy's connections: slow ones, too many of them, and whose address counts.

use super::*;
use crate::ca::{self, HostNames, KeyAlgorithm};
use crate::clock::Clock;

const SHORT: Duration = Duration::from_millis(120);
const CONNECT: &str = "CONNECT api.old.test:443 HTTP/1.1\r\nHost: api.old.test:443\r\n\r\n";

fn proxy(folder: &tempfile::TempDir, adjust: impl FnOnce(&mut ServerOptions)) -> TestServer {
    let clock = Clock::system();
    let ca = folder.path().join("ca");
    let hosts = HostNames::new(["api.old.test"]).unwrap();
    ca::init(&ca, &hosts, KeyAlgorithm::Ecdsa, clock.now()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let ca = CaFolder { folder: ca, client_ca: None };
    let certificates = TlsCertificates::load_ca(ca, clock, provider).unwrap();
    let mut listeners = Listeners::new(1);
    let any = "127.0.0.1:0".parse().unwrap();
    listeners.listen(any, ListenerKind::ForwardProxy, &mut InheritedSockets::none()).unwrap();
    TestServer::on(listeners, |options| {
        options.forward_proxy = Some(certificates);
        adjust(options);
    })
}

#[test]
fn a_proxy_without_a_ca_does_not_start() {
    let mut listeners = Listeners::new(1);
    let any = "127.0.0.1:0".parse().unwrap();
    listeners.listen(any, ListenerKind::ForwardProxy, &mut InheritedSockets::none()).unwrap();
    let options = ServerOptions {
        name: "test",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        forward_proxy: None,
        counters: Arc::default(),
    };
    let started = Workers::start(listeners, options, Arc::new(MakeScripted(Arc::new(HandlerScript::new()))));
    assert!(matches!(started, Err(ServerStartError::NoCertificate)));
}

#[test]
fn a_caller_that_says_nothing_half_a_connect_or_nothing_in_its_tunnel_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = proxy(&folder, |options| options.limits.handshake_timeout = SHORT);
    for (number, said) in
        ["", "CONN", "CONNECT api.old.test:443 HTTP/1.1\r\nHost: a\r\n", CONNECT].iter().enumerate()
    {
        let mut caller = server.caller();
        caller.send(said);
        let (answer, _) = caller.rest_and_failure();
        let established = answer.starts_with(b"HTTP/1.1 200 ");
        assert_eq!(established, *said == CONNECT, "{said:?}: {:?}", String::from_utf8_lossy(&answer));
        let expected = number as u64 + 1;
        eventually("handshake_timeouts", || server.counters.handshake_timeouts.get() == expected);
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn a_head_beyond_the_limit_is_refused_whichever_way_the_host_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = proxy(&folder, |options| options.limits.max_head = 16 << 10);
    let long = format!("X-Long: {}\r\n\r\n", "x".repeat(20_000));
    for begin in ["CONNECT api.old.test:443", "GET http://api.old.test/"] {
        let mut caller = server.caller();
        caller.send(format!("{begin} HTTP/1.1\r\nHost: api.old.test\r\n{long}"));
        let (answer, _) = caller.rest_and_failure();
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{begin}: {:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn the_connection_cap_holds_and_the_newcomer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = proxy(&folder, |options| options.limits.max_connections = 1);
    let mut first = server.caller();
    first.send("CONN");
    eventually("the first is in", || server.counters.open.get() == 1);
    let refused = server.caller().rest();
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
}

#[test]
fn requests_by_url_share_a_connection_and_another_host_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = proxy(&folder, |_| {});
    let mut caller = server.caller();
    for path in ["/a", "/b"] {
        caller.send(format!("GET http://api.old.test{path} HTTP/1.1\r\nHost: api.old.test\r\n\r\n"));
        assert!(caller.response().0.starts_with("HTTP/1.1 200 "));
    }
    caller.send("GET http://other.test/c HTTP/1.1\r\nHost: other.test\r\n\r\n");
    let rest = caller.rest();
    assert!(rest.starts_with("HTTP/1.1 403 "), "{rest}");
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_trusted_balancer_says_whose_call_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        proxy(&folder, |options| options.trusted_proxies = Arc::new(["127.0.0.0/8".parse().unwrap()]));
    let mut caller = server.caller();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 7, 192, 0, 2, 1, 0x10, 0, 0x01, 0xbb]);
    caller.send(header);
    caller.send("GET http://api.old.test/peer HTTP/1.1\r\nHost: api.old.test\r\n\r\n");
    let (_, body) = caller.response();
    assert!(body.starts_with("192.0.2.7:4096 true false"), "{body}");
}
