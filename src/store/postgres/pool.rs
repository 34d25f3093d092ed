//! The way to the database: a few connections, taken one per transaction. A connection in doubt is thrown
//! away, never handed on.
//!
//! Why not sqlx's own pool: decision 0019.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::store_error;
use super::target::DatabaseTarget;
use crate::clock::{Clock, Timestamp};
use crate::store::StoreError;

/// Connections per gateway: renewals are few, and a hundred gateways share one database.
const CONNECTIONS: usize = 8;
/// For a connection that has been idle to answer.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Older ones are replaced, so that a database that moved is found again, and load spreads.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
const MAX_IDLE: Duration = Duration::from_secs(5 * 60);

/// Everything lives in a schema of its own; what a session was set to before does not matter.
pub const SCHEMA: &str = "genapi_gateway";
const SHORT: &str = "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '1s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '5s'";
const LONG: &str = "SET LOCAL statement_timeout = '120s'; SET LOCAL lock_timeout = '30s'; \
                    SET LOCAL idle_in_transaction_session_timeout = '120s'";

/// At most [`CONNECTIONS`]; idle ones are tried by the statement that opens the transaction.
pub struct ConnectionPool {
    target: DatabaseTarget,
    /// Whether a commit waits for the disk by the server's own settings.
    durable: bool,
    /// Several gateways share the database, so its time is theirs.
    clock: Clock,
    permits: Semaphore,
    idle: Mutex<Vec<IdleConnection>>,
}

struct IdleConnection {
    connection: PgConnection,
    opened: Instant,
    since: Instant,
}

/// Several statements that happen together or not at all. Without `commit` nothing has happened: the
/// connection goes, and with it the work.
pub struct PgTransaction<'a> {
    connection: PgConnection,
    opened: Instant,
    pool: &'a ConnectionPool,
    _permit: SemaphorePermit<'a>,
}

/// What is known of a transaction as it begins.
pub struct TransactionStart {
    pub read_only: bool,
    /// By the database's clock.
    pub at: Timestamp,
}

/// The statements that open a transaction, and one row: whether it can only read, and the database's time.
/// Whatever a transaction needs it sets itself: a server, a database, a role or a pooler's session may have
/// any defaults.
fn begin_statement(mode: &str, limits: &str, durable: bool, version: u32) -> String {
    format!("BEGIN {mode}; {}", settings(limits, durable, version))
}

/// Statements see what others have committed by then, and whoever waits for a row sees its newest version.
const WORK: &str = "ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE";
/// Everything is of one moment.
const SNAPSHOT: &str = "ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE";

/// A server that replays another one's log refuses to promise writes; it can be read all the same.
fn begin_on_standby(limits: &str, durable: bool, version: u32) -> String {
    format!("ROLLBACK; BEGIN ISOLATION LEVEL READ COMMITTED; {}", settings(limits, durable, version))
}

/// The first version that ends whole transactions after a time.
const HAS_TRANSACTION_TIMEOUT: u32 = 170_000;
/// Other gateways hear of changes by triggers. Only a superuser may set it, and whoever is none and was given
/// another default is refused, since nobody would hear of its work.
const TRIGGERS: &str = "SELECT CASE WHEN current_setting('session_replication_role') <> 'origin' \
                        THEN set_config('session_replication_role', 'origin', true) END";

fn settings(limits: &str, durable: bool, version: u32) -> String {
    let durable = if durable { "" } else { "SET LOCAL synchronous_commit = on; " };
    let transaction_timeout =
        if version < HAS_TRANSACTION_TIMEOUT { "" } else { "SET LOCAL transaction_timeout = 0; " };
    format!(
        "SET LOCAL search_path = {SCHEMA}, pg_temp; SET LOCAL standard_conforming_strings = on; \
         SET LOCAL transform_null_equals = off; {transaction_timeout}{durable}{limits}; {TRIGGERS}; \
         SELECT current_setting('transaction_read_only'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint::text"
    )
}

impl ConnectionPool {
    pub fn new(target: DatabaseTarget, durable: bool, clock: Clock) -> Self {
        Self { target, durable, clock, permits: Semaphore::new(CONNECTIONS), idle: Mutex::default() }
    }

    pub async fn begin(&self) -> Result<PgTransaction<'_>, StoreError> {
        self.begin_with(WORK, SHORT).await
    }

    /// With time for reading everything.
    pub async fn begin_long(&self) -> Result<PgTransaction<'_>, StoreError> {
        self.begin_with(WORK, LONG).await
    }

    /// For reading everything as it is at one moment.
    pub async fn begin_snapshot(&self, limits: &str) -> Result<PgTransaction<'_>, StoreError> {
        self.begin_with(SNAPSHOT, limits).await
    }

    async fn begin_with(&self, mode: &str, limits: &str) -> Result<PgTransaction<'_>, StoreError> {
        let permit = self.permits.acquire().await.map_err(|_| closed())?;
        while let Some(IdleConnection { mut connection, opened, since }) = self.take_idle() {
            if opened.elapsed() > MAX_AGE || since.elapsed() > MAX_IDLE {
                continue;
            }
            // Nothing has been asked for yet, so a connection that died, or one to a server that has become a
            // replica, costs nothing.
            match tokio::time::timeout(BEGIN_TIMEOUT, self.begin_on(&mut connection, mode, limits)).await {
                Ok(Ok(false)) => {
                    return Ok(PgTransaction { connection, opened, pool: self, _permit: permit });
                }
                Ok(_) => {}
                // The network forgot it, and the others with it: they are not tried one by one.
                Err(_) => self.forget_idle(),
            }
        }
        let mut connection = self.target.connect().await.map_err(|error| self.target.unreachable(error))?;
        self.begin_on(&mut connection, mode, limits).await.map_err(store_error)?;
        Ok(PgTransaction { connection, opened: Instant::now(), pool: self, _permit: permit })
    }

    /// Opens a transaction; says whether it is for work and can only read.
    async fn begin_on(
        &self,
        connection: &mut PgConnection,
        mode: &str,
        limits: &str,
    ) -> Result<bool, sqlx::Error> {
        let opened = begin_as(connection, mode, limits, self.durable).await?;
        self.clock.follow_database(opened.at);
        Ok(opened.read_only && mode == WORK)
    }

    /// For good: later work fails.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.permits.close();
        while let Some(IdleConnection { connection, .. }) = self.take_idle() {
            connection.close().await.map_err(store_error)?;
        }
        Ok(())
    }

    fn take_idle(&self) -> Option<IdleConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn checkin(&self, connection: PgConnection, opened: Instant) {
        if self.permits.is_closed() {
            return;
        }
        let idle = IdleConnection { connection, opened, since: Instant::now() };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }
}

impl PgTransaction<'_> {
    /// What returns `Ok` is on the database's disk. After another result it may have happened all the same.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(store_error)?;
        self.pool.checkin(self.connection, self.opened);
        Ok(())
    }

    /// Ends work that turned out to be impossible, and keeps the connection.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await.map_err(store_error)?;
        self.pool.checkin(self.connection, self.opened);
        Ok(())
    }
}

impl Deref for PgTransaction<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PgTransaction<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Opens a transaction for work on a connection that is in none.
pub async fn begin(
    connection: &mut PgConnection,
    limits: &str,
    durable: bool,
) -> Result<TransactionStart, sqlx::Error> {
    begin_as(connection, WORK, limits, durable).await
}

async fn begin_as(
    connection: &mut PgConnection,
    mode: &str,
    limits: &str,
    durable: bool,
) -> Result<TransactionStart, sqlx::Error> {
    let version = connection.server_version_num().unwrap_or_default();
    let begin = begin_statement(mode, limits, durable, version);
    let opened = match sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(&mut *connection).await {
        Err(error) if is_standby(&error) => {
            let begin = begin_on_standby(limits, durable, version);
            sqlx::raw_sql(AssertSqlSafe(begin)).fetch_all(connection).await?
        }
        opened => opened?,
    };
    let row = opened.last().ok_or(sqlx::Error::RowNotFound)?;
    let (read_only, millis): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let millis = millis.parse().map_err(|_| sqlx::Error::RowNotFound)?;
    Ok(TransactionStart { read_only: read_only == "on", at: Timestamp::from_millis(millis) })
}

/// `feature_not_supported` is how a server in recovery refuses READ WRITE.
fn is_standby(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|refused| refused.code()).is_some_and(|code| code == "0A000")
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_transaction_ends_by_the_servers_own_limit_where_it_knows_one() {
        let knows = |version| {
            begin_statement(WORK, SHORT, true, version).contains("SET LOCAL transaction_timeout = 0;")
        };
        assert!(knows(170_000) && knows(180_001));
        assert!(!knows(169_999) && !knows(130_000) && !knows(0), "an older one would refuse the name");
    }
}
