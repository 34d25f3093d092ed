//! One SQLite connection, taken in turns. A call that was dropped or failed half-way leaves nothing behind
//! for the next one.
//!
//! sqlx's own `SqliteTransaction` is not used: SQLite rolls back by itself on a full disk, sqlx then loses
//! count of its depth, and every later transaction would be a savepoint of nothing.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

pub struct SharedConnection {
    options: SqliteConnectOptions,
    slot: Mutex<Option<SqliteConnection>>,
    /// A transaction was begun and its end is not known. Touched only while the slot is held.
    unfinished: AtomicBool,
    /// Never opened again. Touched only while the slot is held.
    closed: AtomicBool,
}

/// The connection, for statements that stand alone: each is a transaction of its own.
pub type SqliteGuard<'a> = MappedMutexGuard<'a, SqliteConnection>;

/// Several statements that happen together or not at all. Without `commit` nothing has happened; the next one
/// to take the connection rolls back.
pub struct SqliteTransaction<'a> {
    conn: SqliteGuard<'a>,
    /// `None` for statements that stand alone, of which nothing has to be committed.
    unfinished: Option<&'a AtomicBool>,
}

impl SharedConnection {
    pub async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self {
            options,
            slot: Mutex::new(Some(connection)),
            unfinished: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    pub async fn lock(&self) -> Result<SqliteGuard<'_>, sqlx::Error> {
        let mut slot = self.slot.lock().await;
        if self.closed.load(Ordering::Relaxed) {
            return Err(sqlx::Error::PoolClosed);
        }
        let alive = match slot.as_mut() {
            Some(connection) => connection.ping().await.is_ok(),
            None => false,
        };
        if !alive {
            // Closed, or its thread has ended; a new one starts clean.
            *slot = Some(self.options.connect().await?);
            self.unfinished.store(false, Ordering::Relaxed);
        }
        let mut conn = MutexGuard::try_map(slot, Option::as_mut).map_err(|_| sqlx::Error::WorkerCrashed)?;
        if self.unfinished.load(Ordering::Relaxed) {
            // Fails where SQLite has rolled back already, which is as good.
            let _ = sqlx::query("ROLLBACK").execute(&mut *conn).await;
            self.unfinished.store(false, Ordering::Relaxed);
        }
        Ok(conn)
    }

    /// Takes the write lock at once, so that what is read inside stays true until the commit.
    pub async fn begin(&self) -> Result<SqliteTransaction<'_>, sqlx::Error> {
        let mut conn = self.lock().await?;
        self.unfinished.store(true, Ordering::Relaxed);
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
        Ok(SqliteTransaction { conn, unfinished: Some(&self.unfinished) })
    }

    /// For statements that stand alone: each is a transaction of its own.
    pub async fn begin_single(&self) -> Result<SqliteTransaction<'_>, sqlx::Error> {
        Ok(SqliteTransaction { conn: self.lock().await?, unfinished: None })
    }

    /// For good.
    pub async fn close(&self) -> Result<(), sqlx::Error> {
        let mut slot = self.slot.lock().await;
        self.closed.store(true, Ordering::Relaxed);
        match slot.take() {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

impl SqliteTransaction<'_> {
    /// One write to the disk, and the only one.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        if let Some(unfinished) = self.unfinished {
            sqlx::query("COMMIT").execute(&mut *self.conn).await?;
            unfinished.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Deref for SqliteTransaction<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.conn
    }
}

impl DerefMut for SqliteTransaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }
}
