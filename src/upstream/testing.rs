//! Test doubles: a certificate authority, TLS and proxy servers on port 0, a realm.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config;
use crate::model::route::HostPolicy;
use crate::model::token::ClientSecret;

/// A CA that lives as long as its test; its PEM file disappears with it.
pub struct TestAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate for a test server and its key (PKCS#8).
pub type ServerIdentity = (CertificateDer<'static>, Vec<u8>);

impl TestAuthority {
    /// Two CAs differ in name, so that one's certificates are unknown to the other and not merely badly
    /// signed.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn issue(&self, host: &str) -> ServerIdentity {
        self.sign(CertificateParams::new(vec![host.to_owned()]).unwrap())
    }

    pub fn issue_expired(&self, host: &str) -> ServerIdentity {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> ServerIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key.serialize_der())
    }
}

/// A realm on loopback that may use plain http; tests tighten it.
pub fn realm() -> config::RealmConfig {
    config::RealmConfig {
        group: None,
        name: "global".parse().unwrap(),
        kind: config::RealmKind::New,
        oauth_base: "http://127.0.0.1:1".parse().unwrap(),
        base_url: "http://127.0.0.1:1".parse().unwrap(),
        login_page: "https://login.example.test/start?brand=1&lang=de".parse().unwrap(),
        scope: "openid".to_owned(),
        authorize_parameters: BTreeMap::new(),
        redirect_uri: "https://gateway.example.test/oauth2/callback".parse().unwrap(),
        client_id: "client 1".to_owned(),
        client_secret: ClientSecret::new("s3cret&="),
        hosts: HostPolicy { allowed: vec!["127.0.0.1".parse().unwrap()], allow_insecure: true },
        link_hosts: Vec::new(),
        discovery: config::Discovery {
            path: "/api/third-party/v2/api-discovery-by-name-and-version".to_owned(),
            name: "third-party".to_owned(),
            version: "2".to_owned(),
        },
        route: None,
        ca_file: None,
        resolve: BTreeMap::new(),
    }
}

pub fn upstream() -> config::UpstreamConfig {
    config::UpstreamConfig {
        connect_timeout: Duration::from_secs(20),
        response_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        max_idle_per_host: 1,
        proxy: config::ProxyChoice::None,
    }
}

fn acceptor((certificate, key): ServerIdentity) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A TLS server that sends back whatever it gets.
pub async fn tls_echo(identity: ServerIdentity) -> SocketAddr {
    let acceptor = acceptor(identity);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let (mut from, mut to) = tokio::io::split(tls);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        }
    });
    address
}

/// A TLS server that reads a request's head and answers with the same bytes each time.
pub async fn tls_responder(identity: ServerIdentity, response: &'static str) -> SocketAddr {
    let acceptor = acceptor(identity);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            read_head(&mut tls).await;
            let _ = tls.write_all(response.as_bytes()).await;
            let _ = tls.shutdown().await;
        }
    });
    address
}

/// An address that never responds to connect: a listener whose queue is full.
pub struct UnresponsiveAddress {
    pub address: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

/// The kernel drops what comes to a full queue, as a firewall does.
pub fn unresponsive_address() -> UnresponsiveAddress {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let queued = (0..8).map(|_| {
        let waiting = socket();
        waiting.set_nonblocking(true).unwrap();
        // Whether it is taken in or not, it stays: a queue of none holds one.
        let _ = waiting.connect(&address);
        waiting
    });
    let queued = queued.collect();
    UnresponsiveAddress { address: address.as_socket().unwrap(), _listener: listener, _queued: queued }
}

pub struct ConnectProxy {
    pub address: SocketAddr,
    /// The heads of all requests so far.
    pub heads: Arc<Mutex<Vec<String>>>,
}

/// A proxy that tunnels every CONNECT to `target`, or gives `refusal` instead and closes.
pub async fn connect_proxy(target: SocketAddr, refusal: Option<&'static str>) -> ConnectProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let head = read_head(&mut tcp).await;
            // Somebody only looked whether this address answers.
            if head.is_empty() {
                continue;
            }
            seen.lock().unwrap().push(head);
            if let Some(refusal) = refusal {
                tcp.write_all(refusal.as_bytes()).await.unwrap();
                continue;
            }
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\nX-Proxy: test\r\n\r\n").await.unwrap();
            let mut onward = TcpStream::connect(target).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut tcp, &mut onward).await;
        }
    });
    ConnectProxy { address, heads }
}

/// Reads a head byte by byte, so that nothing behind it is lost.
async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}
