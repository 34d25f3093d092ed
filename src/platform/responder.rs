//! A raw server for tests of the control calls: plays canned bytes, one play per connection, and keeps what
//! it was sent. It knows nothing of the vendor, so that it can send every kind of junk.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::config;
use crate::model::route::{HostPolicy, Route};
use crate::upstream::testing::{realm, upstream};
use crate::upstream::{Connector, ProxyVariables};

use super::PlatformClient;
use super::control_client::CallLimits;

#[derive(Clone)]
pub enum Play {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Closes without a response.
    Cut,
    /// Sends these bytes and keeps the connection open.
    Stall(Vec<u8>),
    /// Sends a body of so many bytes until nobody reads on.
    Flood(usize),
}

pub struct Responder {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    /// Whether the last flood ended before all of it was sent.
    cut: watch::Receiver<Option<bool>>,
}

#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    head: String,
    pub body: String,
}

pub fn json_response(body: &str) -> Play {
    status_response(200, body)
}

pub fn status_response(status: u16, body: &str) -> Play {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    // 204 has no body and no length.
    raw_response(&if status == 204 { "HTTP/1.1 204 X\r\n\r\n".to_owned() } else { head + body })
}

pub fn raw_response(bytes: &str) -> Play {
    Play::Bytes(bytes.as_bytes().to_vec())
}

/// A realm whose two bases are the responder.
pub fn realm_of(responder: &Responder) -> config::RealmConfig {
    let mut realm = realm();
    realm.oauth_base = responder.url().parse().unwrap();
    realm.base_url = responder.url().parse().unwrap();
    realm
}

pub fn platform(responder: &Responder) -> PlatformClient {
    bare_platform(&realm_of(responder))
}

pub fn bare_platform(realm: &config::RealmConfig) -> PlatformClient {
    PlatformClient::new(realm, Connector::new(realm, &upstream(), &ProxyVariables::default()).unwrap())
        .unwrap()
}

pub fn limited_platform(responder: &Responder, limits: CallLimits) -> PlatformClient {
    let realm = realm_of(responder);
    let connector = Connector::new(&realm, &upstream(), &ProxyVariables::default()).unwrap();
    PlatformClient::with_limits(&realm, connector, limits).unwrap()
}

impl Responder {
    pub async fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (cut_sender, cut) = watch::channel(None);
        let kept = requests.clone();
        tokio::spawn(async move {
            let mut stalled = Vec::new();
            for play in plays {
                let Ok((mut peer, _)) = listener.accept().await else { return };
                let request = read_request(&mut peer).await;
                kept.lock().unwrap().push(request);
                match play {
                    Play::Bytes(bytes) => {
                        let _ = peer.write_all(&bytes).await;
                        let _ = peer.shutdown().await;
                    }
                    Play::Cut => {}
                    Play::Stall(bytes) => {
                        let _ = peer.write_all(&bytes).await;
                        stalled.push(peer);
                    }
                    Play::Flood(size) => {
                        cut_sender.send_replace(Some(flood(&mut peer, size).await.is_err()));
                    }
                }
            }
            // Later connections wait unanswered in the backlog, and stalled ones stay open, until the test
            // ends.
            std::future::pending::<()>().await;
        });
        Self { address, requests, cut }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn route(&self, path: &str) -> Route {
        self.route_as("127.0.0.1", path)
    }

    /// A route here under another host name, as an older configuration may have allowed it.
    pub fn route_as(&self, host: &str, path: &str) -> Route {
        let allows = HostPolicy { allowed: vec![host.parse().unwrap()], allow_insecure: true };
        Route::parse(&format!("http://{host}:{}", self.address.port()), path, &allows).unwrap()
    }

    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.lock().unwrap().clone()
    }

    pub fn only_request(&self) -> ReceivedRequest {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    pub async fn flood_was_cut(mut self) -> bool {
        self.cut.wait_for(Option::is_some).await.unwrap().unwrap()
    }
}

impl ReceivedRequest {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Lower case, sorted, doubles included.
    pub fn header_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        names
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": "))
    }
}

async fn flood(peer: &mut TcpStream, size: usize) -> std::io::Result<()> {
    peer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await?;
    let chunk = vec![b' '; 64 * 1024];
    for _ in 0..size / chunk.len() {
        peer.write_all(&chunk).await?;
    }
    Ok(())
}

async fn read_request(peer: &mut TcpStream) -> ReceivedRequest {
    let mut bytes = Vec::new();
    let mut end = None;
    while end.is_none() && peer.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    }
    let head_end = end.map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut request = ReceivedRequest { head, body: String::new() };
    let length: usize = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + length && peer.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
    request.body = String::from_utf8_lossy(&bytes[head_end..]).into_owned();
    request
}
