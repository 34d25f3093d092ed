//! From a path to a database that may be used: locked, private, of a schema we know, sealed under a key we
//! hold. Anything else is refused here.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr};

use super::super::key_check;
use super::super::private_file;
use super::super::seal::SealKeys;
use super::super::{SetupError, StoreError, process_lock::ProcessLock};
use super::connection::SharedConnection;
use super::{SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_PERM, SQLITE_READONLY, primary_code};

/// `application_id` in the file's head, written by the first migration.
const APPLICATION_ID: i64 = 1_734_439_017;

/// A database file that is ours alone, not yet opened.
pub struct Claimed {
    pub path: PathBuf,
    pub is_new: bool,
    pub lock: ProcessLock,
}

/// Locks the file and sees to its modes; SQLite gives `-wal` and `-shm` the mode of the main file.
pub fn claim(path: &Path) -> Result<Claimed, StoreError> {
    let path = real_path(path)?;
    let lock = ProcessLock::take(&path)?;
    let is_new = look(&path)?;
    let private = private_file::open_or_create(&path)
        .and_then(|_| tighten_all(&path))
        .and_then(|()| private_file::sync_folder_of(&path));
    private.map_err(|error| StoreError::Refused(format!("{} cannot be used: {error}", path.display())))?;
    Ok(Claimed { path, is_new, lock })
}

/// Looks at what `claim` will find; nothing is locked, made or changed. Says whether the database is new.
pub fn check(path: &Path) -> Result<bool, SetupError> {
    look(&real_path(path)?)
}

fn look(path: &Path) -> Result<bool, SetupError> {
    let shown = path.display();
    let is_new = is_empty(path);
    if is_new && !is_empty(&beside(path, "-wal")) {
        return Err(SetupError::new(
            format!("{shown}-wal is there without {shown}"),
            "the newest tokens are in it: put the main file back beside it, or move it away",
        ));
    }
    private_file::can_be_made(path).map_err(|error| {
        let folder = path.parent().unwrap_or(Path::new("."));
        let what = format!("the folder {} of the store cannot be written to: {error}", folder.display());
        SetupError::new(what, "let the gateway's user write to it")
    })?;
    for file in
        [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), path.with_added_extension("lock")]
    {
        private_file::can_be_written(&file).map_err(|error| {
            let what = format!("{} cannot be used: {error}", file.display());
            SetupError::new(what, "name a file that the gateway's user may write, or let it write this one")
        })?;
    }
    if !is_new {
        refuse_foreign_head(path)?;
    }
    Ok(is_new)
}

/// As far as the first bytes tell: SQLite's mark, and `application_id` where it is written
/// (sqlite.org/fileformat.html, 1.3).
fn refuse_foreign_head(path: &Path) -> Result<(), SetupError> {
    let mut head = [0; 72];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    if read.is_err() || !head.starts_with(b"SQLite format 3\0") {
        return Err(SetupError::new(
            format!("{} is damaged, or no SQLite database", path.display()),
            "restore a backup, or move it away and pair or import again",
        ));
    }
    let id = head.last_chunk().map_or(0, |id| i64::from(u32::from_be_bytes(*id)));
    // The number may still stand in the write-ahead log.
    if id == 0 || id == APPLICATION_ID { Ok(()) } else { Err(foreign(path)) }
}

fn foreign(path: &Path) -> SetupError {
    SetupError::new(
        format!("{} is another program's SQLite database", path.display()),
        "name another file in store.url",
    )
}

pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was acknowledged survives a power cut (WAL's usual NORMAL would not promise that).
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // In KiB: most inner pages of 100,000 accounts. The system keeps the rest, and once for both
        // connections.
        .pragma("cache_size", "-512")
        .busy_timeout(std::time::Duration::from_secs(5))
        .row_buffer_size(256)
        .disable_statement_logging()
}

pub async fn connect(options: SqliteConnectOptions, path: &Path) -> Result<SharedConnection, StoreError> {
    SharedConnection::open(options).await.map_err(|error| start_error(path, &error))
}

/// Ours, of a schema we know, sealed under a key we hold.
pub async fn prepare(writer: &SharedConnection, keys: &SealKeys, path: &Path) -> Result<(), StoreError> {
    let mut conn = writer.lock().await.map_err(|error| start_error(path, &error))?;
    refuse_foreign(&mut conn, path).await?;
    migrate(&mut conn, path).await?;
    check_keys(&mut conn, keys, path).await
}

async fn refuse_foreign(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| start_error(path, &error))?;
    // Our own file between its first two steps has no id yet, and no table but the migrations'.
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name NOT IN ('_sqlx_migrations', 'sqlite_sequence')",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| start_error(path, &error))?;
    if id == APPLICATION_ID || tables == 0 {
        return Ok(());
    }
    Err(foreign(path).into())
}

/// Brings the schema up to date; one that is newer than this program is left alone.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let migrations = migrations();
    let newest = migrations.iter().map(|migration| migration.version).max().unwrap_or_default();
    let migrator = Migrator::with_migrations(migrations);
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::Refused(format!(
            "{} was written by a newer gateway (schema {version}; this one knows {newest}): \
             run that version, or restore a backup from before the upgrade",
            path.display(),
        )),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => start_error(path, &error),
        other => StoreError::Refused(format!("the schema of {} is not as expected: {other}", path.display())),
    })
}

fn migrations() -> Vec<Migration> {
    let init = include_str!("../../../migrations/sqlite/0001_init.sql");
    let known_tokens = include_str!("../../../migrations/sqlite/0002_known_tokens.sql");
    let journal_by_time = include_str!("../../../migrations/sqlite/0003_journal_by_time.sql");
    let last_seen = include_str!("../../../migrations/sqlite/0004_last_seen.sql");
    let fallbacks = include_str!("../../../migrations/sqlite/0005_fallbacks.sql");
    let application_grants = include_str!("../../../migrations/sqlite/0006_application_grants.sql");
    let application_logins = include_str!("../../../migrations/sqlite/0007_application_logins.sql");
    let test_accounts = include_str!("../../../migrations/sqlite/0008_test_accounts.sql");
    let account_version = include_str!("../../../migrations/sqlite/0009_account_version.sql");
    let moving = include_str!("../../../migrations/sqlite/0010_moving.sql");
    vec![
        Migration::new(1, "init".into(), MigrationType::Simple, init.into_sql_str(), false),
        Migration::new(2, "known_tokens".into(), MigrationType::Simple, known_tokens.into_sql_str(), false),
        Migration::new(
            3,
            "journal_by_time".into(),
            MigrationType::Simple,
            journal_by_time.into_sql_str(),
            false,
        ),
        Migration::new(4, "last_seen".into(), MigrationType::Simple, last_seen.into_sql_str(), false),
        Migration::new(5, "fallbacks".into(), MigrationType::Simple, fallbacks.into_sql_str(), false),
        Migration::new(
            6,
            "application_grants".into(),
            MigrationType::Simple,
            application_grants.into_sql_str(),
            false,
        ),
        Migration::new(
            7,
            "application_logins".into(),
            MigrationType::Simple,
            application_logins.into_sql_str(),
            false,
        ),
        Migration::new(8, "test_accounts".into(), MigrationType::Simple, test_accounts.into_sql_str(), false),
        Migration::new(
            9,
            "account_version".into(),
            MigrationType::Simple,
            account_version.into_sql_str(),
            false,
        ),
        Migration::new(10, "moving".into(), MigrationType::Simple, moving.into_sql_str(), false),
    ]
}

/// A key that is new to the database is taken in beside a proven one.
async fn check_keys(
    connection: &mut SqliteConnection,
    keys: &SealKeys,
    path: &Path,
) -> Result<(), StoreError> {
    let key_checks: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT key_id, canary_sealed FROM seal_keys")
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| start_error(path, &error))?;
    let holds_grants = holds_grants(connection, path).await?;
    let Some(key_check) = key_check::verify(keys, &key_checks, holds_grants, &path.display().to_string())?
    else {
        return Ok(());
    };
    sqlx::query("INSERT INTO seal_keys (key_id, canary_sealed) VALUES (?, ?)")
        .bind(key_check.key_id)
        .bind(key_check.sealed)
        .execute(connection)
        .await
        .map_err(|error| start_error(path, &error))?;
    Ok(())
}

async fn holds_grants(connection: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM grants)")
        .fetch_one(connection)
        .await
        .map_err(|error| start_error(path, &error))
}

/// At start more is final than later: a file that cannot be opened will not open by waiting.
fn start_error(path: &Path, error: &sqlx::Error) -> StoreError {
    let path = path.display();
    match primary_code(error) {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => StoreError::Refused(format!(
            "{path} is damaged, or no SQLite database: {error}; restore a backup, or move it away and pair or import again"
        )),
        Some(SQLITE_PERM | SQLITE_READONLY | SQLITE_CANTOPEN) => StoreError::Refused(format!(
            "{path} cannot be written: {error}; the gateway's user needs the file and its folder"
        )),
        _ => StoreError::Unavailable(format!("{path}: {error}").into()),
    }
}

/// Links resolved, so that two names of one file meet in one lock.
fn real_path(path: &Path) -> Result<PathBuf, SetupError> {
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| SetupError::new(format!("store.url names no file: {}", path.display()), "name one"))?;
    fs::canonicalize(folder).map(|folder| folder.join(name)).map_err(|error| {
        let what = format!("the folder {} of the store cannot be used: {error}", folder.display());
        SetupError::new(what, "make it, or write another store.url")
    })
}

fn is_empty(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.len() == 0)
}

fn tighten_all(path: &Path) -> std::io::Result<()> {
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        match private_file::tighten(&file) {
            Ok(true) => {
                tracing::warn!(file = %file.display(), "others could read this file of the store; its mode is 0600 now");
            }
            Ok(false) => {}
            // SQLite takes its own two away when somebody else, a backup say, is done with them.
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
