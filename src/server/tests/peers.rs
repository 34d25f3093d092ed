//! Who the caller is: PROXY headers, TLS, client certificates; and routers behind the same sockets.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::server::proxy_protocol::header_v4;

#[test]
fn a_trusted_balancers_word_is_believed_and_nobody_elses() {
    let trusting = TestServer::with(1, |options| {
        options.trusted_proxies = Arc::new(["127.0.0.0/8".parse().unwrap()]);
    });
    let header = header_v4("203.0.113.9:4711".parse().unwrap());
    let mut caller = trusting.caller();
    // In pieces, as networks like it.
    caller.send(&header[..5]);
    caller.send(&header[5..20]);
    caller.send(&header[20..]);
    caller.send("GET /peer HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(caller.response().1, "203.0.113.9:4711 true false");

    let mut caller = trusting.caller();
    let own = caller.0.local_addr().unwrap();
    caller.send("GET /peer HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        caller.response().1,
        format!("{own} true false"),
        "without a header it is the balancer itself"
    );

    let mut broken = header.clone();
    broken[12] = 0x31;
    let mut caller = trusting.caller();
    caller.send(broken);
    caller.rest_and_failure();
    eventually("proxy_header_failures", || trusting.counters.proxy_header_failures.get() == 1);

    let mut caller = trusting.caller();
    caller.send("PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\nGET /peer HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = caller.rest();
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("version 1"), "{response:?}");
    eventually("proxy_header_failures", || trusting.counters.proxy_header_failures.get() == 2);

    let wary = TestServer::start(limits());
    let mut caller = wary.caller();
    caller.send("PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\nGET /peer HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = caller.rest();
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("trusted_proxies"), "{response:?}");
    let mut caller = wary.caller();
    caller.send([&header[..], b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert!(caller.rest().starts_with("HTTP/1.1 400 "));
    assert_eq!(wary.requests(), 0);
}

/// A CA with certificates made for the test, as files.
struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, dir: &Path, name: &str) {
        let (cert, key) = self.issue(name);
        std::fs::write(dir.join("cert.pem"), cert).unwrap();
        std::fs::write(dir.join("key.pem"), key).unwrap();
        std::fs::write(dir.join("ca.pem"), self.issuer.pem()).unwrap();
    }

    fn client(&self, identity: Option<(String, String)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some((cert, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn tls_site(dir: &Path, limits: ServerLimits) -> (TestServer, Arc<TlsCertificates>) {
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        client_ca: Some(dir.join("ca.pem")),
    };
    let certificates = TlsCertificates::load(files, provider()).unwrap();
    let mut listeners = Listeners::new(1);
    listeners
        .listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Tls, &mut InheritedSockets::none())
        .unwrap();
    let server = TestServer::on(listeners, |options| {
        options.tls = Some(certificates.clone());
        options.limits = limits;
    });
    (server, certificates)
}

fn connect(
    server: &TestServer,
    config: ClientConfig,
    name: &'static str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    StreamOwned::new(client, server.caller().0)
}

fn ask_tls(stream: &mut StreamOwned<ClientConnection, TcpStream>, path: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

#[test]
fn a_caller_over_tls_that_shuts_down_its_side_gets_its_response_however_long_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = TestCa::new();
    authority.write(dir.path(), "half.test");
    let (server, _) = tls_site(dir.path(), limits());
    // With the alert that ends a TLS direction, and as programs do it that close the socket below.
    for says_so in [true, false] {
        let mut caller = connect(&server, authority.client(None), "half.test");
        caller
            .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        if says_so {
            caller.conn.send_close_notify();
        }
        caller.flush().unwrap();
        caller.sock.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(1600));
        server.script.permits.add_permits(1);
        let mut response = String::new();
        caller.read_to_string(&mut response).unwrap();
        assert!(response.contains("waited") && response.ends_with("/next "), "{says_so}: {response:?}");
    }
    assert_eq!(
        (server.counters.client_disconnects.get(), server.script.cancelled.load(Ordering::SeqCst)),
        (0, 0)
    );
}

#[test]
fn a_reload_changes_what_new_callers_see_and_keeps_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let authority = TestCa::new();
    authority.write(dir.path(), "old.test");
    let (server, certificates) = tls_site(dir.path(), limits());

    let mut old = connect(&server, authority.client(None), "old.test");
    old.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut byte = [0];
    old.read_exact(&mut byte).unwrap();

    authority.write(dir.path(), "new.test");
    assert!(matches!(certificates.reload_if_changed(), Reload::Swapped));
    let mut new = connect(&server, authority.client(None), "new.test");
    assert!(ask_tls(&mut new, "/peer").unwrap().ends_with("false true"), "secure");
    assert!(ask_tls(&mut old, "/2").unwrap().ends_with("/2 "), "the old connection lives on");
    assert!(ask_tls(&mut connect(&server, authority.client(None), "old.test"), "/").is_err());
    eventually("the failed handshake is counted", || server.counters.tls_failures.get() == 1);
}

#[test]
fn a_client_certificate_is_optional_but_a_false_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = TestCa::new();
    authority.write(dir.path(), "site.test");
    let (server, _) = tls_site(dir.path(), limits());

    let mut none = connect(&server, authority.client(None), "site.test");
    assert!(ask_tls(&mut none, "/certificate").unwrap().ends_with("None"));

    let identity = authority.issue("lab.test");
    let der = CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(hash.as_ref());
    let expected = PeerCertificate { fingerprint, dns_names: vec!["lab.test".to_owned()] };
    let mut known = connect(&server, authority.client(Some(identity)), "site.test");
    assert!(ask_tls(&mut known, "/certificate").unwrap().ends_with(&format!("{:?}", Some(expected))));

    let stranger = TestCa::new().issue("lab.test");
    let mut stranger = connect(&server, authority.client(Some(stranger)), "site.test");
    assert!(ask_tls(&mut stranger, "/certificate").is_err());
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    TestCa::new().write(dir.path(), "site.test");
    let short = ServerLimits { handshake_timeout: Duration::from_millis(100), ..limits() };
    let (server, _) = tls_site(dir.path(), short);
    let mut caller = server.caller();
    caller.send([0x16, 3, 1]);
    caller.rest_and_failure();
    eventually("handshake_timeouts", || server.counters.handshake_timeouts.get() == 1);
}

#[test]
fn a_router_is_served_with_the_callers_address() {
    use axum::extract::ConnectInfo;
    use axum::routing::get;

    async fn who(ConnectInfo(addr): ConnectInfo<SocketAddr>) -> String {
        addr.to_string()
    }
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let mut listeners = Listeners::new(1);
    listeners
        .listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Plain, &mut InheritedSockets::none())
        .unwrap();
    let addr = listeners.addrs(ListenerKind::Plain)[0];
    let options = ServerOptions {
        name: "admin",
        limits: limits(),
        trusted_proxies: Arc::new([]),
        tls: None,
        forward_proxy: None,
        counters: Arc::default(),
    };
    let router = axum::Router::new().route("/who", get(who));
    let workers = serve_router(listeners, options, router, control.handle().clone()).unwrap();
    let mut caller = TestCaller::to(addr);
    caller.send("GET /who HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(caller.response().1, caller.0.local_addr().unwrap().to_string());
    caller.send("GET / HTTP/1.1\r\n\r\n");
    assert!(caller.rest().starts_with("HTTP/1.1 400 "));
    assert_eq!(control.block_on(workers.run_until(ready(()), pending::<()>())), DrainReport::default());
}
