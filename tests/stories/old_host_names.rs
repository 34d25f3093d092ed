//! Applications with old host names compiled in: by a hosts entry and the private CA, and through the forward
//! proxy. No certificate for another name, and nothing is ever sent anywhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use genapi_gateway::ca::{self, HostNames, KeyAlgorithm};
use genapi_gateway::clock::Clock;
use genapi_gateway::model::legacy_host::LEGACY_HOSTS;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::test_bed::{CLINIC_NAME, TestBed, TestBedBuilder, plain_http};

const OAUTH: &str = "identity-cus.aligntech.com";
const API: &str = "api-proxy.aligntech.com";
const API_V1: &str = "gateway-cus.aligntech.com";
const ADDED: &str = "old-name.clinic.test";
const LIST: &str = "/accounts/acct-1001/itero-gen-api/v2/orders/practice";
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with a private CA, a TLS listener and a forward proxy, and what an application trusts.
struct OldHosts {
    bed: TestBed,
    folder: tempfile::TempDir,
    tls: SocketAddr,
    proxy: SocketAddr,
}

impl OldHosts {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(change: impl FnOnce(TestBedBuilder) -> TestBedBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        init(&folder.path().join("ca"));
        let ca = folder.path().join("ca").display().to_string();
        let listeners = format!(
            "[gateway]\ntls = {{ listen = [\"127.0.0.1:0\"], ca = {ca:?} }}\n\
             forward_proxy = {{ listen = [\"127.0.0.1:0\"] }}"
        );
        let bed = change(TestBedBuilder::new().config("[gateway]", &listeners)).start().await;
        let (tls, proxy) = (bed.running.bound.data_tls[0], bed.running.bound.forward_proxy[0]);
        Self { bed, folder, tls, proxy }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    /// Trusts the CA and nothing else, at the time of the test's clock.
    fn client(&self) -> ClientConfig {
        self.client_of(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
    }

    fn client_of(&self, provider: Arc<CryptoProvider>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(ca::load_summary(&self.ca()).unwrap().certificate).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let time = Arc::new(TestTime(self.bed.clock.clone()));
        ClientConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_webpki_verifier(verifier.build().unwrap())
            .with_no_client_auth()
    }

    async fn handshake(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        handshake(TcpStream::connect(self.tls).await.unwrap(), name, self.client()).await
    }

    /// The answer of the forward proxy, and the connection behind it.
    async fn ask_proxy(&self, request: &str) -> (String, TcpStream) {
        let mut tcp = TcpStream::connect(self.proxy).await.unwrap();
        tcp.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let Ok(byte) = tcp.read_u8().await else { break };
            answer.push(byte);
        }
        (String::from_utf8(answer).unwrap(), tcp)
    }

    async fn tunnel(&self, target: &str) -> TcpStream {
        let (answer, tcp) = self.ask_proxy(&format!("CONNECT {target} HTTP/1.1\nHost: {target}\n\n")).await;
        assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\n", "{target}");
        tcp
    }

    /// A request that proves who calls, and closes the connection.
    fn request(&self, target: &str, host: &str) -> String {
        let key = &self.bed.key;
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Gateway-Key: {key}\r\nConnection: close\r\n\r\n")
    }
}

/// The test's clock, as rustls asks for it.
struct TestTime(Clock);

impl TimeProvider for TestTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().as_secs())))
    }
}

impl std::fmt::Debug for TestTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestTime")
    }
}

fn init(folder: &std::path::Path) {
    let names = LEGACY_HOSTS.iter().map(|host| host.name).chain([ADDED]);
    let hosts = HostNames::new(names).unwrap();
    ca::init(folder, &hosts, KeyAlgorithm::Ecdsa, Clock::system().now()).unwrap();
}

async fn handshake(
    tcp: TcpStream,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    tokio::time::timeout(PATIENCE, connecting).await.expect("a handshake in time")
}

/// Status, code or body of the answer to one request.
async fn exchange<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    read.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{text:?}")), text)
}

fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// What rustls says of an alert that ended the handshake.
fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_an_old_name_works_by_a_hosts_entry_and_the_ca() {
    let hosts = OldHosts::new().await;
    for host in [API, API_V1, ADDED] {
        let stream = hosts.handshake(host).await.unwrap();
        let (status, text) = exchange(stream, &hosts.request(LIST, host)).await;
        assert_eq!(status, 200, "{host}: {text}");
    }
    // As a library does it: the name in the URL, another address behind it.
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(hosts.client())
        .no_proxy()
        .resolve(API, hosts.tls)
        .build()
        .unwrap();
    let url = format!("https://{API}:{}{LIST}", hosts.tls.port());
    let response = client.get(url).header("x-gateway-key", &hosts.bed.key).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_program_works_through_the_forward_proxy() {
    let hosts = OldHosts::new().await;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(hosts.client())
        .proxy(reqwest::Proxy::all(format!("http://{}", hosts.proxy)).unwrap())
        .build()
        .unwrap();
    for scheme in ["https", "http"] {
        let url = format!("{scheme}://{API}{LIST}");
        for _ in 0..2 {
            let response = client.get(&url).header("x-gateway-key", &hosts.bed.key).send().await.unwrap();
            assert_eq!(response.status(), 200, "{url}");
        }
    }
    for target in ["API-PROXY.ALIGNTECH.COM:443", "api-proxy.aligntech.com.:443"] {
        let stream = handshake(hosts.tunnel(target).await, API, hosts.client()).await.unwrap();
        assert_eq!(exchange(stream, &hosts.request(LIST, API)).await.0, 200, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_in_a_tunnel_is_known_as_everywhere_and_nobody_else_is_let_in() {
    let near = format!(
        "\n[[callers]]\nname = \"near\"\naccounts = [\"{CLINIC_NAME}\"]\nnetworks = [\"127.0.0.0/8\"]\n"
    );
    let known = OldHosts::with(|builder| builder.append(&near)).await;
    let unknown = OldHosts::new().await;
    let request = format!("GET {LIST} HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
    let by_url = format!("GET http://{API}{LIST} HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
    for (hosts, expected) in [(&known, 200), (&unknown, 401)] {
        let stream = handshake(hosts.tunnel(&format!("{API}:443")).await, API, hosts.client()).await.unwrap();
        assert_eq!(exchange(stream, &request).await.0, expected);
        assert_eq!(exchange(hosts.handshake(API).await.unwrap(), &request).await.0, expected);
        let tcp = TcpStream::connect(hosts.proxy).await.unwrap();
        assert_eq!(exchange(tcp, &by_url).await.0, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_another_name_gets_an_alert_and_no_certificate() {
    let hosts = OldHosts::new().await;
    for name in ["prod-identity.iterocloud.com", "aligntech.com", "x.api-proxy.aligntech.com", "localhost"] {
        let error = hosts.handshake(name).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{name}: {error}");
        let error =
            handshake(hosts.tunnel(&format!("{API}:443")).await, name, hosts.client()).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{name}: {error}");
    }
    // A host of ours, but not that of the tunnel.
    let error =
        handshake(hosts.tunnel(&format!("{API}:443")).await, OAUTH, hosts.client()).await.unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_program_that_sends_no_name_or_knows_rsa_alone_is_served() {
    let hosts = OldHosts::new().await;
    let mut nameless = hosts.client();
    nameless.enable_sni = false;
    let tcp = TcpStream::connect(hosts.tls).await.unwrap();
    let stream = handshake(tcp, API, nameless).await.unwrap();
    let certificate = leaf(&stream);
    let names = webpki::EndEntityCert::try_from(&certificate).unwrap();
    let names: Vec<String> = names.valid_dns_names().map(str::to_owned).collect();
    assert_eq!(names, [OAUTH, API, API_V1, ADDED]);
    assert_eq!(exchange(stream, &hosts.request(LIST, API)).await.0, 200);

    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    assert!(!provider.cipher_suites.is_empty());
    let provider = Arc::new(provider);
    let clients = (0..4).map(|_| async {
        let tcp = TcpStream::connect(hosts.tls).await.unwrap();
        let stream = handshake(tcp, API, hosts.client_of(provider.clone())).await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert!(format!("{suite:?}").contains("ECDHE_RSA"), "{suite:?}");
        exchange(stream, &hosts.request(LIST, API)).await.0
    });
    assert_eq!(futures_util::future::join_all(clients).await, [200; 4]);
    let stream = hosts.handshake(API).await.unwrap();
    assert_eq!(leaf(&stream), certificate, "all others have the usual one");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_and_the_connection_have_to_name_one_host_and_the_login_host_has_no_api() {
    let hosts = OldHosts::new().await;
    hosts.bed.sandbox.clear_calls();
    for (connected, host) in [(API, OAUTH), (OAUTH, API), (API, "evil.test"), (API, API_V1), (OAUTH, OAUTH)] {
        let stream = hosts.handshake(connected).await.unwrap();
        let (status, text) = exchange(stream, &hosts.request(LIST, host)).await;
        assert_eq!(status, 421, "{connected} {host}: {text}");
        assert!(text.contains("\"code\":\"misdirected\""), "{text}");
    }
    let by_url = hosts.request(&format!("http://{OAUTH}{LIST}"), OAUTH);
    let (status, text) = exchange(TcpStream::connect(hosts.proxy).await.unwrap(), &by_url).await;
    assert_eq!(status, 421, "{text}");
    assert!(hosts.bed.sandbox.calls().is_empty(), "nothing was sent");

    let form = format!(
        "POST /oauth2/token HTTP/1.1\r\nHost: {OAUTH}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (status, text) = exchange(hosts.handshake(OAUTH).await.unwrap(), &form).await;
    assert!(status < 500 && text.contains("\"error\""), "the token endpoint answers: {text}");
}

/// A place that must hear of nothing.
fn silent_place() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_sends_nothing_to_any_other_place() {
    let hosts = OldHosts::new().await;
    hosts.bed.sandbox.clear_calls();
    let place = silent_place();
    let port = place.local_addr().unwrap().port();
    let (data, admin) = (hosts.bed.running.data_addr().unwrap(), hosts.bed.running.admin_addr().unwrap());
    for target in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("{API}:{port}"),
        format!("{API}@127.0.0.1:{port}"),
        data.to_string(),
        admin.to_string(),
        hosts.proxy.to_string(),
        "169.254.169.254:80".to_owned(),
        "prod-iteroapi.iterocloud.com:443".to_owned(),
        "name-that-nobody-has.invalid:443".to_owned(),
    ] {
        let connect = format!("CONNECT {target} HTTP/1.1\nHost: {API}\n\n");
        let by_url = format!("GET http://{target}/ HTTP/1.1\nHost: {API}\nConnection: close\n\n");
        for request in [connect, by_url] {
            let tcp = TcpStream::connect(hosts.proxy).await.unwrap();
            let asked = std::time::Instant::now();
            let (status, text) = exchange(tcp, &request.replace('\n', "\r\n")).await;
            assert_eq!(status, 403, "{request}: {text}");
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["code"], "proxy_target_refused", "{request}");
            assert!(asked.elapsed() < Duration::from_secs(2), "no name was looked up: {request}");
        }
    }
    let heard = place.accept().map(|_| ()).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock, "nobody came");
    assert!(hosts.bed.sandbox.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_be_taken_for_another_gets_no_tunnel() {
    let hosts = OldHosts::new().await;
    for (request, expected) in [
        (format!("CONNECT {API}:443 HTTP/1.1\nHost: {API}\n\nGET / HTTP/1.1\n"), 400),
        (format!("CONNECT {API}:443 HTTP/1.1\nHost: {API}\nContent-Length: 5\n\n"), 400),
        (format!("CONNECT {API}:443 HTTP/1.1\nHost: {API}\nTransfer-Encoding: chunked\n\n"), 400),
        (format!("CONNECT {API}:443 HTTP/1.1\nHost: {API}\nHost: other.test\n\n"), 400),
        (format!("CONNECT {API}:443 HTTP/1.1\nHost: {API}\nBad Name: x\n\n"), 400),
        (format!("connect {API}:443 HTTP/1.1\nHost: {API}\n\n"), 405),
        (
            format!(
                "GET http://{API}/ HTTP/1.1\nHost: {API}\nContent-Length: 1\nTransfer-Encoding: chunked\n\n"
            ),
            400,
        ),
        (format!("TRACE http://{API}/ HTTP/1.1\nHost: {API}\n\n"), 405),
    ] {
        let tcp = TcpStream::connect(hosts.proxy).await.unwrap();
        let (status, text) = exchange(tcp, &request.replace('\n', "\r\n")).await;
        assert_eq!(status, expected, "{request}: {text}");
    }
    // No second tunnel inside of one, and none on the other listeners.
    let connect = format!("CONNECT {API}:443 HTTP/1.1\r\nHost: {API}\r\n\r\n");
    let stream = handshake(hosts.tunnel(&format!("{API}:443")).await, API, hosts.client()).await.unwrap();
    assert_eq!(exchange(stream, &connect).await.0, 405);
    let tcp = TcpStream::connect(hosts.bed.running.data_addr().unwrap()).await.unwrap();
    assert_eq!(exchange(tcp, &connect).await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_configuration_sends_old_names_to_the_proxy_and_nothing_else() {
    let hosts = OldHosts::new().await;
    let response = plain_http().get(format!("http://{}/proxy.pac", hosts.proxy)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ns-proxy-autoconfig");
    let script = response.text().await.unwrap();
    for host in [OAUTH, API, API_V1, ADDED] {
        assert!(script.contains(&format!("\"{host}\": 1")), "{script}");
    }
    assert!(script.contains(&format!("? \"PROXY {}\" : \"DIRECT\"", hosts.proxy)), "{script}");
    let on_data = hosts.bed.bare(http::Method::GET, "/proxy.pac");
    assert_eq!(hosts.bed.send(on_data).await.status, 401, "the data listener's paths are the vendor's");
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_are_renewed_by_the_running_gateway_before_they_end() {
    let hosts = OldHosts::new().await;
    let first = leaf(&hosts.handshake(API).await.unwrap());
    assert_eq!(leaf(&hosts.handshake(API_V1).await.unwrap()), first, "one for all hosts");
    hosts.bed.clock.advance(Duration::from_secs(3 * 86_400));
    assert_eq!(leaf(&hosts.handshake(API).await.unwrap()), first);
    hosts.bed.clock.advance(Duration::from_secs(86_400));
    let second = leaf(&hosts.handshake(API).await.unwrap());
    assert_ne!(second, first);
    // An idle gateway, asked again months later: the caller judges by the same clock.
    hosts.bed.clock.advance(Duration::from_secs(200 * 86_400));
    assert_ne!(leaf(&hosts.handshake(OAUTH).await.unwrap()), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_in_the_folder_is_taken_by_a_reload_and_a_broken_one_is_not() {
    let hosts = OldHosts::new().await;
    let old = hosts.client();
    let key = hosts.ca().join(ca::CA_KEY);
    let sound = std::fs::read(&key).unwrap();
    std::fs::write(&key, "nonsense").unwrap();
    hosts.bed.running.reload().await;
    hosts.handshake(API).await.unwrap();
    std::fs::write(&key, sound).unwrap();

    std::fs::rename(hosts.ca(), hosts.folder.path().join("former")).unwrap();
    init(&hosts.ca());
    hosts.bed.running.reload().await;
    hosts.handshake(API).await.unwrap();
    handshake(hosts.tunnel(&format!("{API}:443")).await, API, hosts.client()).await.unwrap();
    let tcp = TcpStream::connect(hosts.tls).await.unwrap();
    assert!(handshake(tcp, API, old).await.is_err(), "who trusts the former one does not trust this one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_gateway_that_arrives_at_itself_is_a_loop() {
    let hosts = OldHosts::new().await;
    let ca_file = hosts.ca().join(ca::CA_CERTIFICATE);
    let itself = format!(
        "allow_insecure = true\nca_file = {ca_file:?}\nresolve = {{ \"{API}\" = \"127.0.0.1\" }}\n\
         route = {{ domain = \"https://{API}:{}\", path = \"/itero-gen-api/v2\" }}\n",
        hosts.tls.port()
    );
    hosts.bed.reconfigure("allowed_hosts = [", &format!("allowed_hosts = [\"{API}\", ")).await;
    hosts.bed.reconfigure("allow_insecure = true", &itself).await;
    hosts.bed.sandbox.clear_calls();
    let request = hosts.request(LIST, API);
    let answered = hosts.bed.while_time_flies(Duration::from_millis(250), async {
        exchange(hosts.handshake(API).await.unwrap(), &request).await
    });
    let (status, text) = answered.await;
    assert_eq!(status, 508, "{text}");
    assert!(text.contains("\"code\":\"loop\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_arrives_at_the_gateway_itself_says_nothing_about_the_grant() {
    let hosts = OldHosts::new().await;
    let ca_file = hosts.ca().join(ca::CA_CERTIFICATE);
    let config = std::fs::read_to_string(&hosts.bed.running.config().file).unwrap();
    let realm = config.split("[realms.global]").nth(1).unwrap();
    let base = realm.lines().find(|line| line.starts_with("oauth_base")).unwrap();
    let itself = format!(
        "oauth_base = \"https://{OAUTH}:{}\"\nca_file = {ca_file:?}\nresolve = {{ \"{OAUTH}\" = \"127.0.0.1\" }}",
        hosts.tls.port()
    );
    hosts.bed.reconfigure(base, &itself).await;
    hosts.bed.clock.advance(Duration::from_secs(7200));
    let path = format!("/renew?pattern={CLINIC_NAME}");
    let renewing = hosts.bed.operate(&path, Value::Null);
    let renewed = hosts.bed.while_time_flies(Duration::from_millis(250), renewing).await;
    assert!(renewed.text().contains("508"), "{}", renewed.text());
    let account = hosts.bed.account(CLINIC_NAME).await;
    assert_ne!(account["state"], "needs_login", "{account}");
    let journal = hosts.bed.journal(CLINIC_NAME).await;
    assert!(!journal.iter().any(|event| event.contains("needs_login")), "{journal:?}");
}
