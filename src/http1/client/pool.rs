//! A worker's own idle connections to upstream hosts. An idle one is looked at when it is checked out again;
//! what has misbehaved never comes back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::UpstreamConnection;
use super::dial::{Dial, DialError, Io, PoolKey};
use super::keep_alive::MAX_IDLE;

/// All connections of one worker.
pub struct Pool<S: Io> {
    /// A handful of hosts: walking them is cheaper than hashing them.
    host_pools: RefCell<Vec<Rc<HostPool<S>>>>,
    /// Spreads the greatest ages of connections.
    jitter: Cell<u64>,
}

struct HostPool<S: Io> {
    partition: String,
    host: String,
    port: u16,
    secure: bool,
    /// In the order in which they were checked in.
    idle: RefCell<VecDeque<Box<UpstreamConnection<S>>>>,
}

/// A connection in use. Dropping it closes it; `checkin` returns it to the pool.
pub struct Checkout<S: Io> {
    pub connection: Box<UpstreamConnection<S>>,
    pub reused: bool,
    host_pool: Rc<HostPool<S>>,
    max_idle_per_host: usize,
}

/// A connection lives between once and twice as long, however busy it is. Its successor resolves the name
/// anew, so that an upstream that moves is followed.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// For calls that cannot be repeated: they must not be lost to a connection that dies as they are sent.
const MAX_IDLE_NOT_RETRYABLE: Duration = Duration::from_secs(3);

impl<S: Io> Pool<S> {
    /// Empty. `seed` spreads the greatest ages; it needs no secrecy.
    pub fn new(seed: u64) -> Self {
        Self { host_pools: RefCell::default(), jitter: Cell::new(seed) }
    }

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
        let stream = dial.dial(key).await?;
        let now = Instant::now();
        let connection = UpstreamConnection::new(stream, now, now + self.next_max_age());
        Ok(Checkout {
            connection: Box::new(connection),
            reused: false,
            host_pool: self.host_pool(key),
            max_idle_per_host,
        })
    }

    /// How many connections are idle.
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
        let PoolKey { partition, host, port, secure } = key;
        let (partition, host) = (partition.to_owned(), host.to_owned());
        let host_pool = Rc::new(HostPool { partition, host, port, secure, idle: RefCell::default() });
        host_pools.push(host_pool.clone());
        host_pool
    }
}

impl<S: Io> HostPool<S> {
    fn key(&self) -> PoolKey<'_> {
        PoolKey { partition: &self.partition, host: &self.host, port: self.port, secure: self.secure }
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

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// Connections to one place, all made now.
    struct Connections {
        pool: Pool<DuplexStream>,
        now: Instant,
        remote: Rc<RefCell<Vec<DuplexStream>>>,
    }

    struct InMemory(Rc<RefCell<Vec<DuplexStream>>>);

    impl Dial for InMemory {
        type Stream = DuplexStream;

        async fn dial(&self, _: PoolKey<'_>) -> Result<DuplexStream, DialError> {
            let (local, remote) = tokio::io::duplex(64);
            self.0.borrow_mut().push(remote);
            Ok(local)
        }
    }

    const KEEP: usize = 4;

    impl Connections {
        fn new() -> Self {
            Self { pool: Pool::new(7), now: Instant::now(), remote: Rc::default() }
        }

        fn key(&self) -> PoolKey<'_> {
            PoolKey { partition: "global", host: "a.test", port: 443, secure: false }
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
