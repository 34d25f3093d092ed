//! Opens the store that the configuration names, and what else `check`, `store backup` and `store restore` do
//! with one: each chooses between the kinds of store, and leaves the rest to that kind.

use std::path::Path;
use std::sync::Arc;

use super::{SetupError, Store, StoreError, backup, key_file, migrate, postgres, sqlite};
use crate::clock::Clock;
use crate::config;

/// Opens the store that the configuration names; what it refuses needs a human.
pub async fn open(config: &config::StoreConfig, clock: Clock) -> Result<Arc<dyn Store>, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => {
            Ok(Arc::new(sqlite::SqliteStore::open(path, &config.key, &environment, clock).await?))
        }
        config::StoreUrl::Postgres { url, listen_url } => {
            let listen_url = listen_url.as_deref();
            let opened = postgres::PostgresStore::open(url, listen_url, &config.key, &environment, clock);
            Ok(Arc::new(opened.await?))
        }
    }
}

/// Opens the store for what `store …` does to a whole one: moving and key rotation. A SQLite file must not be
/// in use.
pub async fn open_migratable(
    config: &config::StoreConfig,
    clock: Clock,
) -> Result<Box<dyn migrate::Migratable>, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => {
            Ok(Box::new(sqlite::SqliteStore::open(path, &config.key, &environment, clock).await?))
        }
        config::StoreUrl::Postgres { url, .. } => {
            Ok(Box::new(postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?))
        }
    }
}

/// Looks at what `open` will need, each with its key. Opens no database and makes nothing.
pub fn check(config: &config::StoreConfig) -> Vec<(&'static str, SetupError)> {
    let environment = |name: &str| std::env::var_os(name);
    let mut found = Vec::new();
    let (database, may_be_new) = match &config.url {
        config::StoreUrl::Sqlite(path) => {
            let looked = sqlite::check(path);
            let is_new = looked.as_ref().is_ok_and(|is_new| *is_new);
            found.extend(looked.err().map(|error| ("store.url", error)));
            (path.display().to_string(), is_new)
        }
        config::StoreUrl::Postgres { url, listen_url } => {
            let both = [("store.url", Some(url)), ("store.listen_url", listen_url.as_ref())];
            for (key, url) in both {
                let looked = url.map(|url| postgres::check_address(url, key));
                found.extend(looked.and_then(Result::err).map(|error| (key, error)));
            }
            // Whether the database is new is known when it is opened.
            ("the database".to_owned(), true)
        }
    };
    // Where the database cannot be looked at, nobody knows whether its key has to be there.
    let unknown = found.iter().any(|(key, _)| *key == "store.url");
    let key = key_file::check(&config.key, &database, may_be_new || unknown, &environment);
    found.extend(key.err().map(|error| ("store.key", error)));
    found
}

/// Copies a store that may be in use into a new, private file.
pub async fn back_up(
    config: &config::StoreConfig,
    clock: Clock,
    into: &Path,
) -> Result<backup::Backup, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    match &config.url {
        config::StoreUrl::Sqlite(path) => sqlite::backup(path, into).await,
        config::StoreUrl::Postgres { url, .. } => {
            let store = postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?;
            backup::to_file(&store, into).await
        }
    }
}

/// Puts a backup into a store that holds nothing yet. No gateway may be at work on it.
pub async fn restore(
    config: &config::StoreConfig,
    clock: Clock,
    from: &Path,
) -> Result<backup::Backup, StoreError> {
    let environment = |name: &str| std::env::var_os(name);
    let kind = backup::kind_of(from)?;
    match (&config.url, kind) {
        (config::StoreUrl::Sqlite(path), backup::BackupKind::Sqlite) => {
            sqlite::restore(path, &config.key, &environment, clock, from).await
        }
        (config::StoreUrl::Postgres { url, .. }, backup::BackupKind::Postgres) => {
            // Opening an empty database would make a key that is none of the backup's.
            key_file::must_be_there(&config.key, &from.display().to_string(), &environment)?;
            let store = postgres::PostgresStore::open(url, None, &config.key, &environment, clock).await?;
            store.restore(from).await
        }
        (url, kind) => Err(StoreError::Refused(format!(
            "{} is a backup of {}, and store.url is {}: put it back into a store of its own kind, and move that with `store migrate`",
            from.display(),
            if kind == backup::BackupKind::Sqlite { "a SQLite file" } else { "a PostgreSQL database" },
            if matches!(url, config::StoreUrl::Sqlite(_)) {
                "a SQLite file"
            } else {
                "a PostgreSQL database"
            },
        ))),
    }
}
