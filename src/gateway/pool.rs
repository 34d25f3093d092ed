//! A worker's own connections to the platform. No task drives them: whoever uses a connection polls it, inside its request's future,
//! and an idle one is looked at when it is taken out again. What has misbehaved never comes back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::account::RealmName;

use super::replay::OutBody;

/// The way to the platform's hosts.
pub trait Dial: 'static {
    type Stream: Wire;

    fn dial(
        &self,
        realm: &RealmName,
        host: &str,
        port: u16,
        secure: bool,
    ) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// What hyper needs of a stream, in one word.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Wire for S {}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    pub why: String,
    /// A repeat will not help: a refused certificate or address.
    pub lasting: bool,
}

/// Where a connection leads. Realms never share one, even to the same host (threats, row 26).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub realm: &'a RealmName,
    pub host: &'a str,
    pub port: u16,
    pub secure: bool,
}

/// All connections of one worker.
pub struct Pool<S: Wire> {
    /// A handful of hosts: walking them is cheaper than hashing them.
    shelves: RefCell<Vec<Rc<Shelf<S>>>>,
}

struct Shelf<S: Wire> {
    realm: RealmName,
    host: String,
    port: u16,
    secure: bool,
    /// In the order in which they were put back.
    idle: RefCell<VecDeque<Box<Link<S>>>>,
}

/// A connection in somebody's hands. Dropping it closes it; only `put_back` keeps it.
pub struct Lease<S: Wire> {
    pub link: Box<Link<S>>,
    pub reused: bool,
    shelf: Rc<Shelf<S>>,
    keep: usize,
}

/// One connection.
pub struct Link<S: Wire> {
    pub sender: SendRequest<OutBody>,
    connection: Connection<TokioIo<Metered<S>>, OutBody>,
    ended: Option<Result<(), hyper::Error>>,
    pub meter: Rc<Meter>,
    idle_since: Instant,
}

/// Bytes that went over a connection: whether anything was sent, and whether anything came back.
#[derive(Default)]
pub struct Meter {
    pub read: Cell<u64>,
    pub written: Cell<u64>,
}

/// Below the 60 s after which many balancers drop an idle connection.
const MAX_IDLE: Duration = Duration::from_secs(55);
/// For calls that cannot be repeated: they must not be lost to a connection that dies as they are sent.
const MAX_IDLE_UNREPEATABLE: Duration = Duration::from_secs(3);
/// Answers' heads: a vendor head is a few hundred bytes, and an endless one must end.
const MAX_HEAD: usize = 64 * 1024;
/// Also the largest piece of a body that is read at once.
const MAX_BUFFER: usize = 256 * 1024;

impl<S: Wire> Default for Pool<S> {
    fn default() -> Self {
        Self { shelves: RefCell::default() }
    }
}

impl<S: Wire> Pool<S> {
    /// The most recently used connection that is still alive.
    pub fn take_out(
        &self,
        place: Place<'_>,
        repeatable: bool,
        keep: usize,
        now: Instant,
    ) -> Option<Lease<S>> {
        let shelf = self.shelf(place);
        let max_idle = if repeatable { MAX_IDLE } else { MAX_IDLE_UNREPEATABLE };
        loop {
            let mut link = shelf.pop_younger_than(max_idle, now)?;
            if link.is_alive() {
                return Some(Lease { link, reused: true, shelf, keep });
            }
        }
    }

    /// A new connection.
    pub async fn dial<D: Dial<Stream = S>>(
        &self,
        dial: &D,
        place: Place<'_>,
        keep: usize,
    ) -> Result<Lease<S>, DialError> {
        let stream = dial.dial(place.realm, place.host, place.port, place.secure).await?;
        let meter = Rc::new(Meter::default());
        let io = TokioIo::new(Metered { stream, meter: meter.clone() });
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_BUFFER)
            .handshake(io)
            .await
            .map_err(|error| DialError { why: error.to_string(), lasting: false })?;
        let link = Box::new(Link { sender, connection, ended: None, meter, idle_since: Instant::now() });
        Ok(Lease { link, reused: false, shelf: self.shelf(place), keep })
    }

    /// How many connections lie idle.
    pub fn idle(&self) -> usize {
        self.shelves.borrow().iter().map(|shelf| shelf.idle.borrow().len()).sum()
    }

    fn shelf(&self, place: Place<'_>) -> Rc<Shelf<S>> {
        let mut shelves = self.shelves.borrow_mut();
        if let Some(shelf) = shelves.iter().find(|shelf| shelf.place() == place) {
            return shelf.clone();
        }
        // Hosts come and go with regions and link hosts: the empty ones make room.
        shelves.retain(|shelf| Rc::strong_count(shelf) > 1 || !shelf.idle.borrow().is_empty());
        let Place { realm, host, port, secure } = place;
        let (realm, host) = (realm.clone(), host.to_owned());
        let shelf = Rc::new(Shelf { realm, host, port, secure, idle: RefCell::default() });
        shelves.push(shelf.clone());
        shelf
    }
}

impl<S: Wire> Shelf<S> {
    fn place(&self) -> Place<'_> {
        Place { realm: &self.realm, host: &self.host, port: self.port, secure: self.secure }
    }

    /// The youngest, if it is young enough; if it is not, none of the others is. Those past their time for any call go.
    fn pop_younger_than(&self, limit: Duration, now: Instant) -> Option<Box<Link<S>>> {
        let age = |link: &mut Box<Link<S>>| now.saturating_duration_since(link.idle_since);
        let mut idle = self.idle.borrow_mut();
        while idle.pop_front_if(|link| age(link) > MAX_IDLE).is_some() {}
        idle.pop_back_if(|link| age(link) <= limit)
    }
}

impl<S: Wire> Lease<S> {
    /// Keeps the connection for the next call, if it is between two messages with nothing unread.
    pub fn put_back(mut self) {
        if !self.link.is_alive() || self.shelf.idle.borrow().len() >= self.keep {
            return;
        }
        self.link.idle_since = Instant::now();
        self.shelf.idle.borrow_mut().push_back(self.link);
    }
}

impl<S: Wire> Link<S> {
    /// Moves the connection on. Ready when it has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.is_none() {
            match Pin::new(&mut self.connection).poll(cx) {
                Poll::Ready(end) => self.ended = Some(end),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The platform sent bytes that belong to no message. A broken network is something else.
    pub fn spoke_out_of_turn(&self) -> bool {
        let Some(Err(error)) = &self.ended else { return false };
        let cause = std::error::Error::source(error);
        // An early end is none of it: the platform may answer and hang up before it has read all of a request.
        !error.is_incomplete_message() && !cause.is_some_and(|cause| cause.is::<io::Error>())
    }

    /// hyper refuses a connection with unread bytes, and sees an end that has come in the meantime; no read is made for it while the
    /// runtime has seen nothing arrive.
    fn is_alive(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }
}

/// Counts what passes.
pub struct Metered<S> {
    stream: S,
    meter: Rc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = pin!(&mut this.stream).poll_read(cx, buf);
        let came = (buf.filled().len() - before) as u64;
        this.meter.read.set(this.meter.read.get() + came);
        polled
    }
}

impl<S: AsyncWrite + Unpin> Metered<S> {
    fn count(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(went)) = &polled {
            self.meter.written.set(self.meter.written.get() + *went as u64);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = pin!(&mut self.stream).poll_write(cx, buf);
        self.count(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = pin!(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
}
