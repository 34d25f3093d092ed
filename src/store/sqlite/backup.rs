//! A copy of a SQLite store as one file, taken beside a gateway that goes on working: it only reads, and
//! takes no lock of ours. And the way back, for a store that does not exist yet.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{SqliteStore, start, store_error};
use crate::clock::Clock;
use crate::config::SecretSource;
use crate::store::backup::{Backup, BackupSink, PartialFile, incomplete, of_copy, unreadable, unwritable};
use crate::store::key_file::{self, EnvLookup};
use crate::store::{Store, StoreError, private_file};

/// Refuses to write over a file that exists.
pub async fn backup(database: &Path, into: &Path) -> Result<Backup, StoreError> {
    let (partial, accounts) = copy_beside(database, into).await?;
    Ok(Backup { accounts, bytes: partial.persist()? })
}

/// Puts a backup in the place of a database that does not exist yet. It is opened and read before it gets the
/// name.
pub async fn restore(
    database: &Path,
    key: &SecretSource,
    environment: EnvLookup<'_>,
    clock: Clock,
    from: &Path,
) -> Result<Backup, StoreError> {
    let start::Claimed { path, is_new, lock } = start::claim(database)?;
    if !is_new {
        return Err(StoreError::Refused(format!(
            "{0} holds a database already; a backup takes the place of none: move {0}, {0}-wal and {0}-shm away first",
            path.display()
        )));
    }
    key_file::must_be_there(key, &from.display().to_string(), environment)?;
    let scratch = path.with_added_extension("restored");
    let bytes = copy_private(from, &scratch)?;
    let proven = match count_accounts(&scratch).await {
        Ok(_) => {
            let proven = prove(&scratch, key, environment, clock).await;
            proven.map_err(|trouble| of_copy(&scratch, from, trouble))
        }
        Err(_) => Err(incomplete(from)),
    };
    let _ = fs::remove_file(scratch.with_added_extension("lock"));
    if proven.is_err() {
        let _ = fs::remove_file(&scratch);
    }
    let accounts = proven?;
    File::open(&scratch)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&scratch, &path))
        .and_then(|()| private_file::sync_folder_of(&path))
        .map_err(|error| unwritable(&path, &error))?;
    drop(lock);
    Ok(Backup { accounts, bytes })
}

/// Ours, of a schema we know, sealed under a key we hold, and read to its end.
async fn prove(
    scratch: &Path,
    key: &SecretSource,
    environment: EnvLookup<'_>,
    clock: Clock,
) -> Result<u64, StoreError> {
    let store = SqliteStore::open(scratch, key, environment, clock).await?;
    let loaded = store.accounts().await?;
    for (account, why) in &loaded.broken {
        tracing::error!(%account, why, "the account's record in the backup cannot be read");
    }
    // Folds the write-ahead log into the one file that is to be renamed.
    store.close().await?;
    Ok((loaded.accounts.len() + loaded.broken.len()) as u64)
}

fn copy_private(from: &Path, to: &Path) -> Result<u64, StoreError> {
    for leftover in ["", "-wal", "-shm"] {
        let mut name = to.as_os_str().to_owned();
        name.push(leftover);
        let _ = fs::remove_file(name);
    }
    let mut read = File::open(from).map_err(|error| unreadable(from, &error))?;
    let copied = private_file::create_new(to).and_then(|mut file| std::io::copy(&mut read, &mut file));
    copied.map_err(|error| unwritable(to, &error))
}

/// A copy beside a wanted name, with the number of its accounts.
async fn copy_beside(database: &Path, wanted: &Path) -> Result<(PartialFile, u64), StoreError> {
    if !database.is_file() {
        return Err(StoreError::Refused(format!("{} is no database file", database.display())));
    }
    let (partial, file) = PartialFile::create(wanted)?;
    drop(file);
    let options = SqliteConnectOptions::new()
        .filename(database)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(store_error)?;
    let text = partial.path().display().to_string();
    // One transaction: a copy of one moment, with what still stands in the write-ahead log.
    sqlx::query("VACUUM INTO ?").bind(text).execute(&mut connection).await.map_err(store_error)?;
    connection.close().await.map_err(store_error)?;
    let accounts = count_accounts(partial.path()).await?;
    Ok((partial, accounts))
}

/// Of a copy, so that it has been read once.
pub async fn count_accounts(copy: &Path) -> Result<u64, StoreError> {
    let options = SqliteConnectOptions::new().filename(copy).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(store_error)?;
    let sound: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await.map_err(store_error)?;
    if sound != "ok" {
        return Err(StoreError::Refused(format!("{} is damaged: {sound}", copy.display())));
    }
    let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts")
        .fetch_one(&mut connection)
        .await
        .map_err(store_error)?;
    connection.close().await.map_err(store_error)?;
    Ok(u64::try_from(accounts).unwrap_or_default())
}

impl SqliteStore {
    /// By way of a scratch file beside the database: SQLite writes copies to files only.
    pub(super) async fn send_copy(&self, out: BackupSink<'_>) -> Result<u64, StoreError> {
        let _one_at_a_time = self.copying.lock().await;
        let scratch = self.path.with_added_extension("copy");
        let (partial, accounts) = copy_beside(&self.path, &scratch).await?;
        let mut file = tokio::fs::File::open(partial.path())
            .await
            .map_err(|error| unreadable(partial.path(), &error))?;
        tokio::io::copy(&mut file, out).await.map_err(|error| {
            StoreError::Unavailable(format!("the backup could not be handed over: {error}").into())
        })?;
        Ok(accounts)
    }
}
