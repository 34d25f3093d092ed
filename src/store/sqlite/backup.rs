//! A copy of a SQLite store as one file, taken beside a gateway that goes on working: it only reads, and takes no lock of ours.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::fault;
use crate::store::StoreError;
use crate::store::backup::{Backup, Unnamed};

/// Refuses to write over a file that exists.
pub async fn backup(database: &Path, into: &Path) -> Result<Backup, StoreError> {
    if !database.is_file() {
        return Err(StoreError::Refused(format!("{} is no database file", database.display())));
    }
    let (unnamed, file) = Unnamed::create(into)?;
    drop(file);
    let options = SqliteConnectOptions::new()
        .filename(database)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(fault)?;
    let text = unnamed.path().display().to_string();
    // One transaction: a copy of one moment, with what still stands in the write-ahead log.
    sqlx::query("VACUUM INTO ?").bind(text).execute(&mut connection).await.map_err(fault)?;
    connection.close().await.map_err(fault)?;
    let accounts = count_accounts(unnamed.path()).await?;
    Ok(Backup { accounts, bytes: unnamed.name()? })
}

/// Of the copy, so that it has been read once.
async fn count_accounts(copy: &Path) -> Result<u64, StoreError> {
    let options = SqliteConnectOptions::new().filename(copy).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(fault)?;
    let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts")
        .fetch_one(&mut connection)
        .await
        .map_err(fault)?;
    connection.close().await.map_err(fault)?;
    Ok(u64::try_from(accounts).unwrap_or_default())
}
