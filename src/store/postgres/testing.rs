//! A PostgreSQL of our own for tests: one server per test process, one database and one role per test. It ends with the process,
//! however that ends: a watchdog waits for its pipe to close.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};

use super::PostgresStore;
use crate::clock::Clock;
use crate::config::SecretSource;
use crate::store::StoreError;

/// A database of a test's own, reached by a role that is no superuser.
pub struct Database {
    pub name: String,
    folder: tempfile::TempDir,
}

struct Server {
    folder: PathBuf,
    _alive: ChildStdin,
}

const SUPERUSER: &str = "postgres";
/// The sockets' name carries it; no port is taken, so nothing can collide.
const PORT: &str = "5432";

/// Starts a server, says so, and ends it when the standard input does.
const WATCHDOG: &str = r#"
    trap '' INT TERM HUP
    folder=$1 programs=$2
    "$programs/initdb" -D "$folder/data" -A trust -U postgres --no-sync -E UTF8 --locale=C >"$folder/log" 2>&1 &&
    "$programs/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/log" -o "-k $folder -h '' -F \
        -c full_page_writes=off -c shared_buffers=16MB -c max_connections=300 $3" start >>"$folder/log" 2>&1
    if [ $? -eq 0 ]; then echo ready; else cat "$folder/log"; fi
    exec 1>/dev/null 2>&1
    read -r _
    "$programs/pg_ctl" -D "$folder/data" -m immediate stop
    rm -rf "$folder"
"#;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start(""))
}

fn start(settings: &str) -> Server {
    let programs = programs();
    let folder = tempfile::Builder::new().prefix("gapi-pg-").tempdir().unwrap().keep();
    let mut command = as_somebody(&folder);
    command.args(["sh", "-c", WATCHDOG, "watchdog"]).arg(&folder).arg(&programs).arg(settings);
    command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut watchdog = command.spawn().expect("setpriv (util-linux) starts the server's watchdog");
    let said: Vec<String> = BufReader::new(watchdog.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .scan(false, |ended, line| {
            let go_on = !std::mem::replace(ended, line == "ready");
            go_on.then_some(line)
        })
        .collect();
    assert_eq!(said.last().map(String::as_str), Some("ready"), "PostgreSQL did not start: {said:#?}");
    Server { folder, _alive: watchdog.stdin.take().unwrap() }
}

/// PostgreSQL does not run as root.
fn as_somebody(folder: &Path) -> Command {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(folder).unwrap().uid() != 0 {
        return Command::new("env");
    }
    let given = Command::new("chown").arg("postgres:postgres").arg(folder).status().unwrap();
    assert!(given.success(), "the user postgres exists where Debian's package is installed");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|programs| programs.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("these tests need PostgreSQL's programs: apt-get install postgresql")
}

impl Database {
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        tokio::task::spawn_blocking(server).await.unwrap();
        let made = Self { name: name.clone(), folder: tempfile::tempdir().unwrap() };
        let mut admin = connect_as_superuser("postgres").await;
        for sql in [format!("CREATE ROLE {name} LOGIN"), format!("CREATE DATABASE {name} OWNER {name}")] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        }
        made
    }

    pub fn into_folder(self) -> tempfile::TempDir {
        self.folder
    }

    pub fn url(&self) -> String {
        let folder = server().folder.display().to_string().replace('/', "%2F");
        format!("postgres://{0}@{folder}:{PORT}/{0}", self.name)
    }

    pub fn socket(&self) -> PathBuf {
        server().folder.join(format!(".s.PGSQL.{PORT}"))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn key(&self) -> SecretSource {
        SecretSource::File(self.file("gateway.key"))
    }

    pub async fn open(&self, clock: Clock) -> Result<PostgresStore, StoreError> {
        self.open_at(&self.url(), clock).await
    }

    /// Hears of changes by notifications too.
    pub async fn open_listening(&self, clock: Clock) -> PostgresStore {
        let url = self.url();
        PostgresStore::open(&url, Some(&url), &self.key(), &|_| None, clock).await.unwrap()
    }

    pub async fn open_at(&self, url: &str, clock: Clock) -> Result<PostgresStore, StoreError> {
        PostgresStore::open(url, None, &self.key(), &|_| None, clock).await
    }

    /// What `open` refuses, in words.
    pub async fn refusal(&self) -> String {
        match self.open(Clock::system()).await {
            Ok(_) => panic!("it opened"),
            Err(StoreError::Refused(why)) => why,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The way in of an administrator with a shell.
    pub async fn shell(&self) -> PgConnection {
        let mut shell = connect_as_superuser(&self.name).await;
        sqlx::raw_sql("SET search_path = genapi_gateway").execute(&mut shell).await.unwrap();
        shell
    }

    pub async fn tamper(&self, sql: &str) {
        let changed = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.shell().await).await.unwrap();
        assert!(changed.rows_affected() > 0, "{sql}");
    }
}

async fn connect_as_superuser(database: &str) -> PgConnection {
    PgConnectOptions::new_without_pgpass()
        .socket(&server().folder)
        .port(PORT.parse().unwrap())
        .username(SUPERUSER)
        .database(database)
        .connect()
        .await
        .unwrap()
}
