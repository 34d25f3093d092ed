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

use super::lazy_deadline::LazyDeadline;

/// The way to the platform's hosts.
pub trait Dial: 'static {
    type Stream: Io;

    fn dial(
        &self,
        realm: &RealmName,
        host: &str,
        port: u16,
        secure: bool,
    ) -> impl Future<Output = Result<Self::Stream, DialError>>;
}

/// What is needed of a stream, in one word.
pub trait Io: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Io for S {}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    pub reason: String,
    /// A repeat will not help: a refused certificate or address.
    pub permanent: bool,
}

/// Where a connection leads. Realms never share one, even to the same host (threats, row 26).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolKey<'a> {
    pub realm: &'a RealmName,
    pub host: &'a str,
    pub port: u16,
    pub secure: bool,
}

/// All connections of one worker.
pub struct Pool<S: Io> {
    /// A handful of hosts: walking them is cheaper than hashing them.
    host_pools: RefCell<Vec<Rc<HostPool<S>>>>,
    /// Spreads the greatest ages of connections.
    jitter: Cell<u64>,
}

struct HostPool<S: Io> {
    realm: RealmName,
    host: String,
    port: u16,
    secure: bool,
    /// In the order in which they were put back.
    idle: RefCell<VecDeque<Box<UpstreamConnection<S>>>>,
}

/// A connection in somebody's hands. Dropping it closes it; only `checkin` keeps it.
pub struct Checkout<S: Io> {
    pub connection: Box<UpstreamConnection<S>>,
    pub reused: bool,
    host_pool: Rc<HostPool<S>>,
    max_idle_per_host: usize,
}

/// One connection, and what has been read from it and not been used.
pub struct UpstreamConnection<S: Io> {
    stream: S,
    read_buffer: ReadBuffer,
    /// Bytes that went over it: whether anything was sent, and whether anything came back.
    pub read: u64,
    pub written: u64,
    pub deadline: LazyDeadline,
    /// The last exchange has left it between two messages.
    pub reusable: bool,
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
const MAX_IDLE_NOT_RETRYABLE: Duration = Duration::from_secs(3);
/// Answers' heads: a vendor head is a few hundred bytes, and an endless one must end.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 64 * 1024, max_headers: 200 };

impl<S: Io> Default for Pool<S> {
    fn default() -> Self {
        Self { host_pools: RefCell::default(), jitter: Cell::new(super::random()) }
    }
}

impl<S: Io> Pool<S> {
    /// The most recently used connection that is still alive.
    pub fn checkout(
        &self,
        key: PoolKey<'_>,
        retryable: bool,
        max_idle_per_host: usize,
        now: Instant,
    ) -> Option<Checkout<S>> {
        let host_pool = self.host_pool(key);
        let max_idle = if retryable { MAX_IDLE } else { MAX_IDLE_NOT_RETRYABLE };
        loop {
            let mut connection = host_pool.pop_recent(max_idle, now)?;
            if connection.is_alive() {
                return Some(Checkout { connection, reused: true, host_pool, max_idle_per_host });
            }
        }
    }

    /// A new connection.
    pub async fn dial<D: Dial<Stream = S>>(
        &self,
        dial: &D,
        key: PoolKey<'_>,
        max_idle_per_host: usize,
    ) -> Result<Checkout<S>, DialError> {
        let stream = dial.dial(key.realm, key.host, key.port, key.secure).await?;
        let now = Instant::now();
        let connection = UpstreamConnection {
            stream,
            read_buffer: ReadBuffer::default(),
            read: 0,
            written: 0,
            deadline: LazyDeadline::default(),
            reusable: false,
            max_idle: MAX_IDLE,
            idle_since: now,
            retired_at: now + self.next_max_age(),
        };
        Ok(Checkout {
            connection: Box::new(connection),
            reused: false,
            host_pool: self.host_pool(key),
            max_idle_per_host,
        })
    }

    /// How many connections lie idle.
    pub fn idle(&self) -> usize {
        self.host_pools.borrow().iter().map(|host_pool| host_pool.idle.borrow().len()).sum()
    }

    /// Evenly spread, so that connections that were made together do not end together.
    fn next_max_age(&self) -> Duration {
        // The golden ratio as a fraction of 2^64: its multiples fill an interval without gathering anywhere.
        let step = self.jitter.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.jitter.set(step);
        MAX_AGE.mul_f64(1.0 + (step >> 11) as f64 / (1u64 << 53) as f64)
    }

    fn host_pool(&self, key: PoolKey<'_>) -> Rc<HostPool<S>> {
        let mut host_pools = self.host_pools.borrow_mut();
        if let Some(host_pool) = host_pools.iter().find(|host_pool| host_pool.key() == key) {
            return host_pool.clone();
        }
        // Hosts come and go with regions and link hosts: the empty ones make room.
        host_pools.retain(|host_pool| Rc::strong_count(host_pool) > 1 || !host_pool.idle.borrow().is_empty());
        let PoolKey { realm, host, port, secure } = key;
        let (realm, host) = (realm.clone(), host.to_owned());
        let host_pool = Rc::new(HostPool { realm, host, port, secure, idle: RefCell::default() });
        host_pools.push(host_pool.clone());
        host_pool
    }
}

impl<S: Io> HostPool<S> {
    fn key(&self) -> PoolKey<'_> {
        PoolKey { realm: &self.realm, host: &self.host, port: self.port, secure: self.secure }
    }

    /// The one that was used last, if that was recently enough; if it was not, none of the others was. Those
    /// past their time go.
    fn pop_recent(&self, limit: Duration, now: Instant) -> Option<Box<UpstreamConnection<S>>> {
        let mut idle = self.idle.borrow_mut();
        while idle.pop_front_if(|connection| connection.is_expired(now)).is_some() {}
        while idle.pop_back_if(|connection| connection.is_expired(now)).is_some() {}
        idle.pop_back_if(|connection| connection.idle(now) <= limit)
    }
}

impl<S: Io> Checkout<S> {
    /// Keeps the connection for the next call, if it is between two messages with nothing unread. Whether it
    /// is alive is asked when it is taken out. Where there are enough, the oldest goes: a call that cannot be
    /// repeated takes none but the younger ones, and would find none if old ones kept their places.
    pub fn checkin(mut self, now: Instant) {
        let connection = &mut self.connection;
        connection.idle_since = now;
        if self.max_idle_per_host == 0
            || !connection.reusable
            || !connection.read_buffer.is_empty()
            || connection.is_expired(now)
        {
            return;
        }
        connection.read_buffer.release_if_empty();
        let mut idle = self.host_pool.idle.borrow_mut();
        while idle.len() >= self.max_idle_per_host {
            idle.pop_front();
        }
        idle.push_back(self.connection);
    }
}

impl<S: Io> UpstreamConnection<S> {
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
            if let Some(head) = self.read_buffer.take_response(&HEAD_LIMITS)? {
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
    fn is_expired(&self, now: Instant) -> bool {
        now >= self.retired_at || self.max_idle.is_zero() || self.idle(now) > self.max_idle
    }

    /// Between two messages, with nothing unread, and not ended. No read is made while the runtime has seen nothing arrive.
    fn is_alive(&mut self) -> bool {
        self.reusable && self.read_buffer.is_empty() && has_nothing_to_read(&mut self.stream)
    }
}

fn has_nothing_to_read<S: Io>(stream: &mut S) -> bool {
    let mut probe = [0; 1];
    let mut probe = ReadBuf::new(&mut probe);
    let look = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut probe));
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
        let (remote, _) = listener.accept().await.unwrap();
        assert!(has_nothing_to_read(&mut stream));
        drop(remote);
        stream.readable().await.unwrap();
        while tokio::task::consume_budget().now_or_never().is_some() {}
        assert!(!has_nothing_to_read(&mut stream));
    }

    /// Connections to one place, all made now.
    struct Connections {
        pool: Pool<DuplexStream>,
        realm: RealmName,
        now: Instant,
        remote: Rc<RefCell<Vec<DuplexStream>>>,
    }

    struct InMemory(Rc<RefCell<Vec<DuplexStream>>>);

    impl Dial for InMemory {
        type Stream = DuplexStream;

        async fn dial(&self, _: &RealmName, _: &str, _: u16, _: bool) -> Result<DuplexStream, DialError> {
            let (local, remote) = tokio::io::duplex(64);
            self.0.borrow_mut().push(remote);
            Ok(local)
        }
    }

    const KEEP: usize = 4;

    impl Connections {
        fn new() -> Self {
            let realm = "global".parse().unwrap();
            Self { pool: Pool::default(), realm, now: Instant::now(), remote: Rc::default() }
        }

        fn key(&self) -> PoolKey<'_> {
            PoolKey { realm: &self.realm, host: "a.test", port: 443, secure: false }
        }

        fn at(&self, millis: u64) -> Instant {
            self.now + Duration::from_millis(millis)
        }

        async fn dial(&self) -> Checkout<DuplexStream> {
            let mut checkout =
                self.pool.dial(&InMemory(self.remote.clone()), self.key(), KEEP).await.unwrap();
            checkout.connection.reusable = true;
            checkout
        }

        fn take(&self, retryable: bool, millis: u64) -> Option<Checkout<DuplexStream>> {
            self.pool.checkout(self.key(), retryable, KEEP, self.at(millis))
        }
    }

    #[tokio::test]
    async fn a_returned_connection_pushes_out_the_oldest_so_that_calls_that_cannot_be_repeated_find_one() {
        let connections = Connections::new();
        let mut checkouts = Vec::new();
        for _ in 0..KEEP + 2 {
            checkouts.push(connections.dial().await);
        }
        checkouts.into_iter().for_each(|checkout| checkout.checkin(connections.at(0)));
        assert_eq!(connections.pool.idle(), KEEP);
        assert!(connections.take(false, 4_000).is_none(), "they have lain idle for too long");
        connections.dial().await.checkin(connections.at(4_000));
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
        let mut checkout = connections.dial().await;
        for second in 0..MAX_AGE.as_secs() {
            checkout.checkin(connections.at(1_000 * second));
            checkout = connections.take(true, 1_000 * second + 500).unwrap();
        }
        checkout.checkin(connections.at(2 * once + 1_000));
        assert_eq!(connections.pool.idle(), 0);
        let ages: Vec<Duration> = (0..100).map(|_| connections.pool.next_max_age()).collect();
        assert!(ages.iter().all(|age| (MAX_AGE..2 * MAX_AGE).contains(age)));
        assert!(ages.iter().filter(|age| **age < MAX_AGE.mul_f64(1.5)).count().abs_diff(50) < 5, "{ages:?}");
    }

    #[tokio::test]
    async fn a_connection_lies_idle_for_no_longer_than_the_platform_says() {
        let connections = Connections::new();
        let mut checkout = connections.dial().await;
        checkout.connection.max_idle = Duration::from_secs(4);
        checkout.checkin(connections.at(0));
        let checkout = connections.take(true, 3_900).unwrap();
        checkout.checkin(connections.at(3_900));
        assert!(connections.take(true, 8_000).is_none());
        assert_eq!(connections.pool.idle(), 0);
        let mut checkout = connections.dial().await;
        checkout.connection.max_idle = Duration::ZERO;
        checkout.checkin(connections.at(8_000));
        assert_eq!(connections.pool.idle(), 0);
    }
}
