//! One SQLite connection, taken in turns. A call that was dropped or failed half-way leaves nothing behind for the next one.
//!
//! sqlx's own `Transaction` is not used: SQLite rolls back by itself on a full disk, sqlx then loses count of its depth,
//! and every later transaction would be a savepoint of nothing.

use std::ops::{Deref, DerefMut};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection as _};
use tokio::sync::{Mutex, MutexGuard};

pub struct Connection {
    options: SqliteConnectOptions,
    slot: Mutex<Slot>,
}

struct Slot {
    connection: SqliteConnection,
    /// A transaction was begun and its end is not known.
    unfinished: bool,
}

/// The connection, for statements that stand alone: each is a transaction of its own.
pub struct Turn<'a>(MutexGuard<'a, Slot>);

/// Several statements that happen together or not at all. Without `commit` nothing has happened.
pub struct Transaction<'a>(Turn<'a>);

impl Connection {
    pub async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self { options, slot: Mutex::new(Slot { connection, unfinished: false }) })
    }

    pub async fn turn(&self) -> Result<Turn<'_>, sqlx::Error> {
        let mut slot = self.slot.lock().await;
        if slot.connection.ping().await.is_err() {
            // Its thread has ended; a new one starts clean.
            slot.connection = self.options.connect().await?;
            slot.unfinished = false;
        }
        if slot.unfinished {
            // Fails where SQLite has rolled back already, which is as good.
            let _ = sqlx::query("ROLLBACK").execute(&mut slot.connection).await;
            slot.unfinished = false;
        }
        Ok(Turn(slot))
    }

    /// Takes the write lock at once, so that what is read inside stays true until the commit.
    pub async fn begin(&self) -> Result<Transaction<'_>, sqlx::Error> {
        let mut turn = self.turn().await?;
        turn.0.unfinished = true;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *turn).await?;
        Ok(Transaction(turn))
    }
}

impl Transaction<'_> {
    /// One write to the disk, and the only one.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut *self.0).await?;
        self.0.0.unfinished = false;
        Ok(())
    }
}

impl Deref for Turn<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0.connection
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.connection
    }
}

impl Deref for Transaction<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }
}
