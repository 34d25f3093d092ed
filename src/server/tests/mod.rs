//! Stories over real sockets: raw callers on one side, a scripted handler on the other. Nothing sleeps for
//! luck.

mod deadlines;
mod drain;
mod forward_proxy;
mod peers;
mod requests;
mod smuggling;

use std::future::{pending, ready};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use super::*;
use crate::http1::{ForwardedHeaders, Request, RequestHead};

/// The longest that any test waits for anything.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A server with one plain listener and a handler that does what the path says.
struct TestServer {
    workers: Workers,
    addr: SocketAddr,
    counters: Arc<ServerCounters>,
    script: Arc<HandlerScript>,
}

/// What the test and the handlers of all workers share.
struct HandlerScript {
    requests: AtomicUsize,
    cancelled: AtomicUsize,
    handlers_made: AtomicUsize,
    /// `/wait` answers when a permit comes.
    permits: Semaphore,
    /// Workers that have answered, by number.
    responded_by: std::sync::Mutex<std::collections::BTreeSet<usize>>,
}

impl HandlerScript {
    fn new() -> Self {
        Self {
            requests: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            handlers_made: AtomicUsize::new(0),
            permits: Semaphore::new(0),
            responded_by: Default::default(),
        }
    }
}

fn limits() -> ServerLimits {
    ServerLimits { drain_timeout: TEST_TIMEOUT, ..ServerLimits::for_tests() }
}

impl TestServer {
    fn start(limits: ServerLimits) -> Self {
        Self::with(1, |options| options.limits = limits)
    }

    fn with(workers: usize, adjust: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut listeners = Listeners::new(workers);
        listeners
            .listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Plain, &mut InheritedSockets::none())
            .unwrap();
        Self::on(listeners, adjust)
    }

    fn on(listeners: Listeners, adjust: impl FnOnce(&mut ServerOptions)) -> Self {
        let addr = [ListenerKind::Plain, ListenerKind::Tls, ListenerKind::ForwardProxy]
            .map(|kind| listeners.addrs(kind))
            .concat()[0];
        let counters = Arc::new(ServerCounters::default());
        let mut options = ServerOptions {
            name: "test",
            limits: limits(),
            trusted_proxies: Arc::new([]),
            tls: None,
            forward_proxy: None,
            counters: counters.clone(),
        };
        adjust(&mut options);
        let script = Arc::new(HandlerScript::new());
        let workers = Workers::start(listeners, options, Arc::new(MakeScripted(script.clone()))).unwrap();
        Self { workers, addr, counters, script }
    }

    fn caller(&self) -> TestCaller {
        TestCaller::to(self.addr)
    }

    /// One request on a connection of its own, to the end of the connection.
    fn ask(&self, request: &str) -> String {
        let mut caller = self.caller();
        caller.send(request);
        caller.rest()
    }

    fn drain(self) -> DrainReport {
        runtime().block_on(self.workers.run_until(ready(()), pending::<()>()))
    }

    fn requests(&self) -> usize {
        self.script.requests.load(Ordering::SeqCst)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for something that happens on another thread and can only be looked at.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < TEST_TIMEOUT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A raw TCP caller.
struct TestCaller(TcpStream);

impl TestCaller {
    fn to(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        socket.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(socket)
    }

    fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).unwrap();
    }

    /// Everything up to the end of the connection, which has to be an orderly one.
    fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// Everything up to the end of the connection, and whether that was a failure.
    fn rest_and_failure(&mut self) -> (Vec<u8>, Option<std::io::ErrorKind>) {
        let mut rest = Vec::new();
        let failure = self.0.read_to_end(&mut rest).err().map(|error| error.kind());
        (rest, failure)
    }

    /// Goes without a farewell, as the kernel does it for a program that leaves what it was sent unread.
    fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads one response that has a Content-Length: its head and its body.
    fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.0.read(&mut byte).unwrap();
            assert_ne!(read, 0, "the connection ended inside {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }
}

struct MakeScripted(Arc<HandlerScript>);

impl MakeHandler for MakeScripted {
    type Handler = ScriptedHandler;

    fn make(&self, worker: usize) -> ScriptedHandler {
        self.0.handlers_made.fetch_add(1, Ordering::SeqCst);
        ScriptedHandler { script: self.0.clone(), worker }
    }
}

struct ScriptedHandler {
    script: Arc<HandlerScript>,
    worker: usize,
}

/// Counts requests whose handling was dropped half-way.
struct CountIfCancelled<'a>(Option<&'a HandlerScript>);

impl Drop for CountIfCancelled<'_> {
    fn drop(&mut self) {
        if let Some(script) = self.0 {
            script.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Handler for ScriptedHandler {
    type Body = ScriptedBody;

    async fn handle(&self, request: Request, peer: Rc<Peer>) -> Response<ScriptedBody> {
        self.script.requests.fetch_add(1, Ordering::SeqCst);
        self.script.responded_by.lock().unwrap().insert(self.worker);
        let mut guard = CountIfCancelled(Some(&self.script));
        let path = request.head.uri.path().to_owned();
        let response = match path.as_str() {
            "/wait" => {
                self.script.permits.acquire().await.unwrap().forget();
                Response::new(ScriptedBody::text("waited"))
            }
            "/never" => pending().await,
            "/stalls" => Response::new(ScriptedBody { stalls: true, ..ScriptedBody::text("begun") }),
            "/empty-400" => {
                let mut response = Response::new(ScriptedBody::text(""));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
            "/half" => Response::new(ScriptedBody {
                parts: vec![Err("broken"), Ok("part")],
                ..ScriptedBody::text("")
            }),
            "/big" => Response::new(ScriptedBody { repeat: BIG / BLOCK.len(), ..ScriptedBody::text("") }),
            "/unread-body" => {
                let mut response = Response::new(ScriptedBody::text("enough"));
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
            "/panic" => panic!("as the test asked"),
            "/tunnel" => {
                let mut response = Response::new(ScriptedBody::text(""));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response
            }
            "/peer" => Response::new(ScriptedBody::text(format!(
                "{} {} {}",
                peer.addr, peer.via_trusted_proxy, peer.secure
            ))),
            "/certificate" => Response::new(ScriptedBody::text(format!("{:?}", peer.certificate))),
            _ => match request.body.collect().await {
                Ok(body) => {
                    let body = body.to_bytes();
                    Response::new(ScriptedBody::text(format!("{path} {}", String::from_utf8_lossy(&body))))
                }
                Err(_) => {
                    let mut response = Response::new(ScriptedBody::text("bad body"));
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            },
        };
        guard.0 = None;
        response
    }

    fn refuse(&self, refusal: ServerRefusal, _head: Option<&RequestHead>) -> Response<Bytes> {
        refusal.plain()
    }
}

const BLOCK: &[u8] = &[b'x'; 16 * 1024];
const BIG: usize = 32 * 1024 * 1024;

/// A body sent part by part, last one first.
struct ScriptedBody {
    parts: Vec<Result<&'static str, &'static str>>,
    repeat: usize,
    /// Says no more, and does not end either.
    stalls: bool,
}

impl ScriptedBody {
    fn text(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self { parts: if text.is_empty() { vec![] } else { vec![Ok(text.leak())] }, repeat: 0, stalls: false }
    }
}

impl ForwardedHeaders for ScriptedBody {}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.repeat > 0 {
            self.repeat -= 1;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BLOCK)))));
        }
        if self.stalls && self.parts.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(self.parts.pop().map(|part| match part {
            Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.repeat == 0 && self.parts.is_empty() && !self.stalls
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.parts.as_slice() {
            [Ok(text)] if !self.stalls => http_body::SizeHint::with_exact(text.len() as u64),
            [] if self.repeat == 0 && !self.stalls => http_body::SizeHint::with_exact(0),
            _ => http_body::SizeHint::default(),
        }
    }
}
