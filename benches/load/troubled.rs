//! The callers in trouble: on a thread of their own, so that the generator which measures the others never
//! waits for them.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use futures_util::future::join_all;
use genapi_load::LoadPlan;
use memchr::memmem;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::trouble::{CallPattern, Seen};

/// Callers on their thread. Dropping them ends it.
pub struct Callers {
    begun: Instant,
    /// Its end is the end.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Seen>,
}

/// What a caller sends, and where.
struct Request {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    bytes: Vec<u8>,
}

/// The first call of each plan, taken in turn by so many callers.
pub fn start(plans: &[LoadPlan], callers: usize, pattern: CallPattern) -> anyhow::Result<Callers> {
    let requests = plans.iter().map(Request::of).collect::<anyhow::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let seen = RefCell::default();
        runtime.block_on(async {
            let callers = (0..callers).map(|number| {
                let request = &requests[number % requests.len()];
                Caller { number, request, pattern, seen: &seen }.live()
            });
            let all = async {
                join_all(callers).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = all => {}
                _ = stopped => {}
            }
        });
        seen.into_inner()
    });
    Ok(Callers { begun: Instant::now(), stop, thread })
}

impl Callers {
    /// What they saw, and for how long.
    pub fn stop(self) -> anyhow::Result<(Seen, Duration)> {
        let lasted = self.begun.elapsed();
        drop(self.stop);
        let seen = self.thread.join().map_err(|_| anyhow!("the callers in trouble died"))?;
        Ok((seen, lasted))
    }
}

impl Request {
    fn of(plan: &LoadPlan) -> anyhow::Result<Self> {
        let (url, call) = (&plan.targets[0], &plan.mix[0]);
        let address = *url.socket_addrs(|| None)?.first().context("no address")?;
        let tls = (url.scheme() == "https").then(|| plan.trust.clone().map(TlsConnector::from)).flatten();
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: {address}\r\n", call.method, call.path).into_bytes();
        for (name, value) in &call.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        Ok(Self { address, tls, bytes })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(connector) => {
                Box::new(connector.connect(ServerName::from(self.address.ip()), stream).await?)
            }
        })
    }
}

/// Trait alias for the stream bounds.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// One caller who goes through the trouble.
struct Caller<'a> {
    number: usize,
    request: &'a Request,
    pattern: CallPattern,
    seen: &'a RefCell<Seen>,
}

impl Caller<'_> {
    async fn live(self) {
        self.seen.borrow_mut().waiting += 1;
        let ended = self.converse().await;
        let mut seen = self.seen.borrow_mut();
        seen.waiting -= 1;
        seen.failed += u64::from(ended.is_err());
    }

    async fn converse(&self) -> io::Result<()> {
        let mut stream = self.request.connect().await?;
        loop {
            let asked = Instant::now();
            stream.write_all(&self.request.bytes).await?;
            self.read(&mut *stream).await?;
            self.note(asked.elapsed());
            if !matches!(self.pattern, CallPattern::Again(_)) {
                return Ok(());
            }
        }
    }

    /// To the end of a good response.
    async fn read(&self, stream: &mut dyn Stream) -> io::Result<()> {
        let mut head = Vec::with_capacity(4096);
        let (end, length) = loop {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = memmem::find(&head, b"\r\n\r\n") {
                break (end + 4, expected(&head[..end]).ok_or(io::ErrorKind::InvalidData)?);
            }
        };
        let begun = Instant::now();
        let mut got = (head.len() - end) as u64;
        let mut chunk = vec![0; 64 * 1024];
        while got < length {
            match stream.read(&mut chunk).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    got += read as u64;
                    self.seen.borrow_mut().bytes += read as u64;
                }
            }
            self.pause(begun, got).await;
        }
        Ok(())
    }

    async fn pause(&self, begun: Instant, got: u64) {
        let CallPattern::Slowly(pace) = self.pattern else { return };
        if self.number % 2 == 1 && got >= pace {
            pending::<()>().await;
        }
        let due = begun + Duration::from_secs_f64(got as f64 / pace as f64);
        tokio::time::sleep_until(due.into()).await;
    }

    fn note(&self, took: Duration) {
        let took = took.as_millis() as u64;
        let mut seen = self.seen.borrow_mut();
        seen.responded += 1;
        seen.shortest_ms = Some(seen.shortest_ms.map_or(took, |shortest| shortest.min(took)));
    }
}

/// The length of the body behind a good head; none behind any other.
fn expected(head: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let (_, fields) = head.split_once("\r\n").filter(|(line, _)| line.starts_with("http/1.1 200"))?;
    fields.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
}
