//! A worker's own connections to the platform. No task drives them: whoever uses a connection polls it, inside its request's future,
//! and an idle one is looked at when it is taken out again. What has misbehaved never comes back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;

use crate::http1::{BodyDecoder, BodyError, HeadError, HeadLimits, ReadBuffer, ResponseHead};
use crate::model::account::RealmName;

use super::alarm::Alarm;

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

/// What is needed of a stream, in one word.
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
    /// Spreads the greatest ages of connections.
    jitter: Cell<u64>,
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

/// One connection, and what has been read from it and not been used.
pub struct Link<S: Wire> {
    stream: S,
    read_buffer: ReadBuffer,
    /// Bytes that went over it: whether anything was sent, and whether anything came back.
    pub read: u64,
    pub written: u64,
    pub alarm: Alarm,
    /// The last exchange has left it between two messages.
    pub keeps: bool,
    /// How long it may lie idle, by what the platform says of it.
    pub max_idle: Duration,
    idle_since: Instant,
    /// From then on it is not used again.
    retired_at: Instant,
}

/// Below the 60 s after which many balancers drop an idle connection.
pub const MAX_IDLE: Duration = Duration::from_secs(55);
/// A connection grows between once and twice as old, however busy it is. Its successor looks the name up
/// anew, so that a platform that moves is followed.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// For calls that cannot be repeated: they must not be lost to a connection that dies as they are sent.
const MAX_IDLE_UNREPEATABLE: Duration = Duration::from_secs(3);
/// Answers' heads: a vendor head is a few hundred bytes, and an endless one must end.
const HEADS: HeadLimits = HeadLimits { max_bytes: 64 * 1024, max_headers: 200 };

impl<S: Wire> Default for Pool<S> {
    fn default() -> Self {
        Self { shelves: RefCell::default(), jitter: Cell::new(super::random()) }
    }
}

impl<S: Wire> Pool<S> {
    /// The most recently used connection that is still alive.
    pub fn take_out(&self, place: Place<'_>, retryable: bool, keep: usize, now: Instant) -> Option<Lease<S>> {
        let shelf = self.shelf(place);
        let max_idle = if retryable { MAX_IDLE } else { MAX_IDLE_UNREPEATABLE };
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
        let now = Instant::now();
        let link = Link {
            stream,
            read_buffer: ReadBuffer::default(),
            read: 0,
            written: 0,
            alarm: Alarm::default(),
            keeps: false,
            max_idle: MAX_IDLE,
            idle_since: now,
            retired_at: now + self.next_max_age(),
        };
        Ok(Lease { link: Box::new(link), reused: false, shelf: self.shelf(place), keep })
    }

    /// How many connections lie idle.
    pub fn idle(&self) -> usize {
        self.shelves.borrow().iter().map(|shelf| shelf.idle.borrow().len()).sum()
    }

    /// Evenly spread, so that connections that were made together do not end together.
    fn next_max_age(&self) -> Duration {
        // The golden ratio as a fraction of 2^64: its multiples fill an interval without gathering anywhere.
        let step = self.jitter.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.jitter.set(step);
        MAX_AGE.mul_f64(1.0 + (step >> 11) as f64 / (1u64 << 53) as f64)
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

    /// The one that was used last, if that was recently enough; if it was not, none of the others was. Those
    /// past their time go.
    fn pop_younger_than(&self, limit: Duration, now: Instant) -> Option<Box<Link<S>>> {
        let mut idle = self.idle.borrow_mut();
        while idle.pop_front_if(|link| link.is_past_its_time(now)).is_some() {}
        while idle.pop_back_if(|link| link.is_past_its_time(now)).is_some() {}
        idle.pop_back_if(|link| link.idle(now) <= limit)
    }
}

impl<S: Wire> Lease<S> {
    /// Keeps the connection for the next call, if it is between two messages with nothing unread. Whether it
    /// is alive is asked when it is taken out. Where there are enough, the oldest goes: a call that cannot be
    /// repeated takes none but the younger ones, and would find none if old ones kept their places.
    pub fn put_back(mut self, now: Instant) {
        let link = &mut self.link;
        link.idle_since = now;
        if self.keep == 0 || !link.keeps || !link.read_buffer.is_empty() || link.is_past_its_time(now) {
            return;
        }
        link.read_buffer.release_if_empty();
        let mut idle = self.shelf.idle.borrow_mut();
        while idle.len() >= self.keep {
            idle.pop_front();
        }
        idle.push_back(self.link);
    }
}

impl<S: Wire> Link<S> {
    /// Writes what it can of these parts, in their order, and tells how much that was.
    pub fn poll_write<const N: usize>(
        &mut self,
        parts: &[&[u8]; N],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut used = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            slices[used] = IoSlice::new(part);
            used += 1;
        }
        let written = ready!(match &slices[..used] {
            [] => Poll::Ready(Ok(0)),
            [only] => Pin::new(&mut self.stream).poll_write(cx, only),
            several => Pin::new(&mut self.stream).poll_write_vectored(cx, several),
        })?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    /// TLS keeps what the kernel does not take.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The next head, once it is here. `Ok(None)` is the end of the connection.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ResponseHead>, HeadError>> {
        loop {
            if let Some(head) = self.read_buffer.take_response(&HEADS)? {
                return Poll::Ready(Ok(Some(head)));
            }
            // A broken connection says no more than one that has ended.
            match ready!(self.read_buffer.poll_fill(&mut self.stream, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Ok(None)),
                Ok(read) => self.read += read as u64,
            }
        }
    }

    /// The next piece of a body; `None` at its end.
    pub fn poll_chunk(
        &mut self,
        body: &mut BodyDecoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            if let Some(chunk) = self.read_buffer.take_chunk(body)? {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if body.has_ended() {
                return Poll::Ready(Ok(None));
            }
            let remaining = body.remaining().unwrap_or(u64::MAX);
            match ready!(self.read_buffer.poll_fill_body(&mut self.stream, remaining, cx)) {
                // TLS that ends without its own farewell could have been cut by anyone.
                Err(_) => return Poll::Ready(Err(BodyError::Truncated)),
                Ok(0) => body.end()?,
                Ok(read) => self.read += read as u64,
            }
        }
    }

    /// What has come of a body.
    pub fn take_chunk(&mut self, body: &mut BodyDecoder) -> Result<Option<Bytes>, BodyError> {
        self.read_buffer.take_chunk(body)
    }

    /// How many bytes have come that nobody has used.
    pub fn unread(&self) -> usize {
        self.read_buffer.len()
    }

    fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }

    /// No call takes it any more.
    fn is_past_its_time(&self, now: Instant) -> bool {
        now >= self.retired_at || self.max_idle.is_zero() || self.idle(now) > self.max_idle
    }

    /// Between two messages, with nothing unread, and not ended. No read is made while the runtime has seen nothing arrive.
    fn is_alive(&mut self) -> bool {
        self.keeps && self.read_buffer.is_empty() && is_quiet(&mut self.stream)
    }
}

fn is_quiet<S: Wire>(stream: &mut S) -> bool {
    let mut nothing = [0; 1];
    let mut nothing = ReadBuf::new(&mut nothing);
    let look = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut nothing));
    // A task that has used up its turn would be told to wait without a look.
    pin!(unconstrained(look)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::DuplexStream;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_ended_is_seen_even_by_a_task_whose_turn_is_used_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        assert!(is_quiet(&mut stream));
        drop(far);
        stream.readable().await.unwrap();
        while tokio::task::consume_budget().now_or_never().is_some() {}
        assert!(!is_quiet(&mut stream));
    }

    /// Connections to one place, all made now.
    struct Connections {
        pool: Pool<DuplexStream>,
        realm: RealmName,
        now: Instant,
        far: Rc<RefCell<Vec<DuplexStream>>>,
    }

    struct InMemory(Rc<RefCell<Vec<DuplexStream>>>);

    impl Dial for InMemory {
        type Stream = DuplexStream;

        async fn dial(&self, _: &RealmName, _: &str, _: u16, _: bool) -> Result<DuplexStream, DialError> {
            let (near, far) = tokio::io::duplex(64);
            self.0.borrow_mut().push(far);
            Ok(near)
        }
    }

    const KEEP: usize = 4;

    impl Connections {
        fn new() -> Self {
            let realm = "global".parse().unwrap();
            Self { pool: Pool::default(), realm, now: Instant::now(), far: Rc::default() }
        }

        fn place(&self) -> Place<'_> {
            Place { realm: &self.realm, host: "a.test", port: 443, secure: false }
        }

        fn at(&self, millis: u64) -> Instant {
            self.now + Duration::from_millis(millis)
        }

        async fn dial(&self) -> Lease<DuplexStream> {
            let mut lease = self.pool.dial(&InMemory(self.far.clone()), self.place(), KEEP).await.unwrap();
            lease.link.keeps = true;
            lease
        }

        fn take(&self, retryable: bool, millis: u64) -> Option<Lease<DuplexStream>> {
            self.pool.take_out(self.place(), retryable, KEEP, self.at(millis))
        }
    }

    #[tokio::test]
    async fn a_returned_connection_pushes_out_the_oldest_so_that_calls_that_cannot_be_repeated_find_one() {
        let connections = Connections::new();
        let mut leases = Vec::new();
        for _ in 0..KEEP + 2 {
            leases.push(connections.dial().await);
        }
        leases.into_iter().for_each(|lease| lease.put_back(connections.at(0)));
        assert_eq!(connections.pool.idle(), KEEP);
        assert!(connections.take(false, 4_000).is_none(), "they have lain idle for too long");
        connections.dial().await.put_back(connections.at(4_000));
        assert_eq!(connections.pool.idle(), KEEP);
        let found = connections.take(false, 4_100).expect("the one that was used last");
        assert!(found.reused);
        assert!(connections.take(false, 4_100).is_none(), "the others are as old as they were");
        assert!(connections.take(true, 4_100).is_some());
    }

    #[tokio::test]
    async fn a_connection_has_a_greatest_age_however_busy_it_is() {
        let connections = Connections::new();
        let once = 1_000 * MAX_AGE.as_secs();
        let mut lease = connections.dial().await;
        for second in 0..MAX_AGE.as_secs() {
            lease.put_back(connections.at(1_000 * second));
            lease = connections.take(true, 1_000 * second + 500).unwrap();
        }
        lease.put_back(connections.at(2 * once + 1_000));
        assert_eq!(connections.pool.idle(), 0);
        let ages: Vec<Duration> = (0..100).map(|_| connections.pool.next_max_age()).collect();
        assert!(ages.iter().all(|age| (MAX_AGE..2 * MAX_AGE).contains(age)));
        assert!(ages.iter().filter(|age| **age < MAX_AGE.mul_f64(1.5)).count().abs_diff(50) < 5, "{ages:?}");
    }

    #[tokio::test]
    async fn a_connection_lies_idle_for_no_longer_than_the_platform_says() {
        let connections = Connections::new();
        let mut lease = connections.dial().await;
        lease.link.max_idle = Duration::from_secs(4);
        lease.put_back(connections.at(0));
        let lease = connections.take(true, 3_900).unwrap();
        lease.put_back(connections.at(3_900));
        assert!(connections.take(true, 8_000).is_none());
        assert_eq!(connections.pool.idle(), 0);
        let mut lease = connections.dial().await;
        lease.link.max_idle = Duration::ZERO;
        lease.put_back(connections.at(8_000));
        assert_eq!(connections.pool.idle(), 0);
    }
}
