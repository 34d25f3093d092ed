//! The gateway between a caller and a platform that follows a script: its API over real sockets, its control
//! calls as real renewals make them. What a story does not say, the API responds with 200 and `{}`.

mod calls;
mod faults;
mod rewriting;
mod routes;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::access_log::{CallObserver, LogEntry};
use super::inbound::caller::PeerInfo;
use super::inbound::token::TokenKey;
use super::settings::GatewaySettings;
use super::testing;
use super::{AccountDirectory, Gateway, GatewayShared};
use crate::access::doubles::Workbench;
use crate::access::registry::Account;
use crate::clock::Clock;
use crate::config::Config;
use crate::http1::client::{Dial, DialError, PoolKey};
use crate::http1::{
    self, BodyDecoder, HeadLimits, KnownHeader, NoopConnectionObserver, ResponseContext, ServerConnection,
};
use crate::model::route::Route;

/// The Path of the account's route.
pub const PATH: &str = "/itero-gen-api/v2";

/// What the platform's API does with a request.
#[derive(Clone)]
pub enum Act {
    /// These bytes, and the connection stays.
    Say(Vec<u8>),
    /// These bytes, and the connection ends.
    SayAndClose(Vec<u8>),
    /// These bytes, then nothing more, ever.
    SayAndStall(Vec<u8>),
}

/// The platform's API: reads one request after the other and acts as the script says.
pub struct ScriptedApi {
    pub addr: SocketAddr,
    pub script: RefCell<VecDeque<Act>>,
    /// Requests as they came, head and body.
    pub requests: RefCell<Vec<String>>,
    pub connections: Cell<usize>,
    pub hung_up: Notify,
}

pub struct World {
    pub gateway: Rc<Gateway<Direct>>,
    /// The accounts, and how the platform answers renewals.
    pub bench: Workbench,
    /// Where the account's route leads.
    pub platform: Rc<ScriptedApi>,
    pub clock: Clock,
    pub records: Arc<Records>,
}

#[derive(Default)]
pub struct Records(pub Mutex<Vec<LogEntry>>);

pub struct Direct;

impl Dial for Direct {
    type Stream = TcpStream;

    async fn dial(&self, key: PoolKey<'_>) -> Result<TcpStream, DialError> {
        TcpStream::connect((key.host, key.port))
            .await
            .map_err(|error| DialError { reason: error.to_string(), permanent: false })
    }
}

impl CallObserver for Records {
    fn finished(&self, record: &LogEntry, _account: Option<&Account>) {
        self.0.lock().unwrap().push(record.clone());
    }
}

/// Runs a story on one thread, as a worker does.
pub fn story<F: Future<Output = ()>>(body: impl FnOnce(World) -> F) {
    with_config(|_| {}, body);
}

pub fn with_config<F: Future<Output = ()>>(change: impl FnOnce(&mut Config), body: impl FnOnce(World) -> F) {
    let mut config = testing::config();
    config.callers = vec![testing::caller("anyone").network("0.0.0.0/0").accounts(&["smile"]).build()];
    change(&mut config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async move {
        let world = World::new(&config).await;
        tokio::time::timeout(Duration::from_secs(20), body(world)).await.expect("a story ends");
    }));
}

impl World {
    async fn new(config: &Config) -> Self {
        let bench = testing::workbench().await;
        let clock = bench.clock.clone();
        let records = Arc::new(Records::default());
        let settings = GatewaySettings::compile(config);
        let shared =
            Arc::new(GatewayShared::new(settings, TokenKey::new(&[1; 32]), clock.clone(), "t1", None));
        let platform = ScriptedApi::start().await;
        bench.pair("smile", "global", 7, Some(&platform.route(PATH))).await;
        let accounts =
            AccountDirectory { registry: bench.registry.clone(), renewals: bench.renewals.clone() };
        let gateway = Rc::new(Gateway::new(shared, accounts, Direct, records.clone()));
        Self { gateway, bench, platform, clock, records }
    }

    pub fn account(&self) -> Arc<Account> {
        self.bench.account("smile")
    }

    /// The account's calls go there from now on.
    pub async fn move_to(&self, route: &Route) {
        self.bench.move_account("smile", route).await;
    }

    pub fn will(&self, act: Act) {
        self.platform.script.borrow_mut().push_back(act);
    }

    pub fn will_say(&self, response: &str) {
        self.will(Act::Say(response.replace('\n', "\r\n").into_bytes()));
    }

    /// A caller's connection: what is written there is a request to the gateway.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let gateway = self.gateway.clone();
        spawn_local(async move {
            let served = ServerConnection::new(
                theirs,
                NoopConnectionObserver,
                HeadLimits { max_bytes: 64 * 1024, max_headers: 100 },
            );
            let peer = PeerInfo {
                addr: "10.0.0.1".parse().unwrap(),
                via_trusted_proxy: false,
                certificate: None,
                secure: false,
            };
            while let Ok(Some(head)) = served.next_head().await {
                let length = head
                    .headers
                    .get(KnownHeader::ContentLength)
                    .map(|digits| http1::parse_content_length(digits).unwrap());
                let body = if head.headers.has(KnownHeader::TransferEncoding) {
                    BodyDecoder::chunked()
                } else {
                    BodyDecoder::Length(length.unwrap_or_default())
                };
                let asked = ResponseContext::for_request(&head);
                let mut handled = pin!(gateway.handle(served.start_request(head, body), peer));
                let response = poll_fn(|cx| match handled.as_mut().poll(cx) {
                    Poll::Ready(response) => Poll::Ready(Some(response)),
                    Poll::Pending => served.poll_peer_closed(cx).map(|()| None),
                });
                // A caller that is cut off is what some stories are about.
                let Some(response) = response.await else { return };
                if !matches!(served.write_response(asked, response).await, Ok(true)) {
                    return;
                }
            }
        });
        ours
    }

    /// One call on a connection of its own; the body is an error where it was cut short.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> (Response<()>, Result<Bytes, hyper::Error>) {
        self.try_call(request).await.unwrap()
    }

    /// An error where not even a head came.
    pub async fn try_call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<()>, Result<Bytes, hyper::Error>), hyper::Error> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect())).await?;
        spawn_local(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes());
        Ok((Response::from_parts(head, ()), body))
    }

    pub async fn get(&self, path: &str) -> (Response<()>, String) {
        let (head, body) = self.call(request("GET", path, "")).await;
        (head, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    pub async fn status(&self, method: &str, path: &str, body: &str) -> u16 {
        self.call(request(method, path, body)).await.0.status().as_u16()
    }

    /// Returns when the gateway has begun its `nth` wait on the clock.
    pub async fn until_waiting(&self, nth: u64) {
        while self.clock.ever_slept() < nth {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when the account's route is this one and proven.
    pub async fn until_proven(&self, account: &Account, route: &Route) {
        loop {
            let summary = account.summary();
            if summary.route_proven && summary.route.as_deref() == Some(route) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The first lines of what the platform was sent.
    pub fn sent(&self) -> Vec<String> {
        let requests = self.platform.requests.borrow();
        requests.iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

pub fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", "gateway.test");
    builder.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// A response with a length.
pub fn response(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\ncontent-type: {kind}\ncontent-length: {}\n\n{body}", body.len())
}

impl ScriptedApi {
    async fn start() -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let platform = Rc::new(Self {
            addr: listener.local_addr().unwrap(),
            script: RefCell::default(),
            requests: RefCell::default(),
            connections: Cell::new(0),
            hung_up: Notify::new(),
        });
        let serving = platform.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.set(serving.connections.get() + 1);
                spawn_local(serving.clone().serve(stream));
            }
        });
        platform
    }

    pub fn domain(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn route(&self, path: &str) -> Route {
        testing::route(&self.domain(), path)
    }

    /// `{}`, or the target itself where it asks for an echo.
    fn unscripted(&self) -> Act {
        let requests = self.requests.borrow();
        let target =
            requests.last().and_then(|text| text.split(' ').nth(1)).filter(|target| target.contains("echo"));
        let body = target.unwrap_or("{}");
        Act::Say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    async fn serve(self: Rc<Self>, mut stream: TcpStream) {
        let mut held = Vec::new();
        while let Some(text) = next_request(&mut stream, &mut held).await {
            self.requests.borrow_mut().push(text);
            let act = self.script.borrow_mut().pop_front().unwrap_or_else(|| self.unscripted());
            let (bytes, stay) = match act {
                Act::Say(bytes) => (bytes, true),
                Act::SayAndClose(bytes) => (bytes, false),
                Act::SayAndStall(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.read(&mut [0; 1]).await;
                    break;
                }
            };
            if stream.write_all(&bytes).await.is_err() || !stay {
                return;
            }
        }
        self.hung_up.notify_one();
    }
}

/// Head and body of one request; chunked bodies stay as they are on the wire.
async fn next_request(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(length) = request_length(held) {
            let text = String::from_utf8_lossy(&held[..length]).into_owned();
            held.drain(..length);
            return Some(text);
        }
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => held.extend_from_slice(&chunk[..read]),
        }
    }
}

fn request_length(held: &[u8]) -> Option<usize> {
    let find = |needle: &[u8], from: usize| {
        held[from..].windows(needle.len()).position(|w| w == needle).map(|at| from + at)
    };
    let body = find(b"\r\n\r\n", 0)? + 4;
    let head = String::from_utf8_lossy(&held[..body]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return find(b"0\r\n\r\n", body).map(|at| at + 5);
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |text| text.parse().unwrap());
    (held.len() >= body + length).then_some(body + length)
}
