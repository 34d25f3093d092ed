//! A PostgreSQL of our own for tests: one server per test process, one database and one role per test; a gate that shuts the way to it,
//! and a pooler before it. All end with the process, however that ends: a watchdog waits for its pipe to close.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::PostgresStore;
use crate::clock::Clock;
use crate::config::SecretSource;
use crate::store::StoreError;

/// A database of a test's own, reached by a role that is no superuser.
pub struct Database {
    pub name: String,
    folder: tempfile::TempDir,
}

/// A server and its folder, both gone with the process.
pub struct Server {
    pub folder: PathBuf,
    /// Its standard input is what the watchdog watches.
    _watchdog: Child,
}

const SUPERUSER: &str = "postgres";
/// The sockets' name carries it; no port is taken, so nothing can collide.
const PORT: &str = "5432";

/// Starts a server, says so, and ends it when the standard input does.
const POSTGRES: &str = r#"
    trap '' INT TERM HUP PIPE
    folder=$1 programs=$2
    "$programs/initdb" -D "$folder/data" -A trust -U postgres --no-sync -E UTF8 --locale=C >"$folder/log" 2>&1 &&
    "$programs/pg_ctl" -D "$folder/data" -w -t 60 -l "$folder/log" -o "-k $folder -F \
        -c full_page_writes=off -c shared_buffers=16MB -c max_connections=300 $3" start >>"$folder/log" 2>&1
    if [ $? -eq 0 ]; then echo ready; else cat "$folder/log"; fi
    exec 1>/dev/null 2>&1
    read -r _
    "$programs/pg_ctl" -D "$folder/data" -m immediate stop
    rm -rf "$folder"
"#;

const POOLER: &str = r#"
    trap '' INT TERM HUP PIPE
    /usr/sbin/pgbouncer -d "$1/config" >"$1/out" 2>&1
    tries=0
    until [ -S "$1/.s.PGSQL.6432" ]; do
        tries=$((tries + 1)); if [ $tries -gt 300 ]; then cat "$1/out" "$1/log"; exit 1; fi
        sleep 0.1
    done
    echo ready
    exec 1>/dev/null 2>&1
    read -r _
    kill -INT "$(cat "$1/pid")"
    rm -rf "$1"
"#;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| start("-h ''", |_| ()))
}

/// A server besides the shared one. `settings` go to its command line, `prepare` fills its folder before.
pub fn start(settings: &str, prepare: impl FnOnce(&Path)) -> Server {
    let programs = programs();
    watched(POSTGRES, &[programs.as_os_str(), settings.as_ref()], prepare)
}

/// Runs a script that says "ready", in a folder that is its own.
fn watched(script: &str, arguments: &[&OsStr], prepare: impl FnOnce(&Path)) -> Server {
    let folder = tempfile::Builder::new().prefix("gapi-pg-").tempdir().unwrap().keep();
    prepare(&folder);
    let mut command = as_somebody(&folder);
    command.args(["sh", "-c", script, "watchdog"]).arg(&folder).args(arguments);
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
    assert_eq!(said.last().map(String::as_str), Some("ready"), "the server did not start: {said:#?}");
    Server { folder, _watchdog: watchdog }
}

/// PostgreSQL does not run as root.
fn as_somebody(folder: &Path) -> Command {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(folder).unwrap().uid() != 0 {
        return Command::new("env");
    }
    let given = Command::new("chown").args(["-R", "postgres:postgres"]).arg(folder).status().unwrap();
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

    /// The same database behind a gate.
    pub async fn behind_gate(&self) -> (Gate, String) {
        let gate = Gate::before(server().folder.join(format!(".s.PGSQL.{PORT}"))).await;
        let url = format!("postgres://{0}@{1}/{0}?sslmode=disable", self.name, gate.address);
        (gate, url)
    }

    /// The same database behind a pooler that gives each transaction whatever session is free; there are two.
    pub async fn behind_pooler(&self) -> (Server, String) {
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(program.exists(), "these tests need a pooler: apt-get install pgbouncer");
        let (name, to) = (self.name.clone(), server().folder.display().to_string());
        let pooler = tokio::task::spawn_blocking(move || {
            watched(POOLER, &[], |folder| {
                let folder_name = folder.display();
                let config = format!(
                    "[databases]\n{name} = host={to} port={PORT}\n[pgbouncer]\npool_mode = transaction\ndefault_pool_size = 2\n\
                     unix_socket_dir = {folder_name}\nlisten_port = 6432\nauth_type = trust\nauth_file = {folder_name}/users\n\
                     logfile = {folder_name}/log\npidfile = {folder_name}/pid\n"
                );
                std::fs::write(folder.join("config"), config).unwrap();
                std::fs::write(folder.join("users"), format!("\"{name}\" \"\"\n")).unwrap();
            })
        });
        let pooler = pooler.await.unwrap();
        let folder = pooler.folder.display().to_string().replace('/', "%2F");
        let url = format!("postgres://{0}@{folder}:6432/{0}", self.name);
        (pooler, url)
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

/// Stands before a server and shuts the way at will.
pub struct Gate {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    Free,
    /// Connections are cut, and new ones ended at once.
    Refuses,
    /// Nothing moves any more, and nothing says so.
    Silent,
}

impl Gate {
    async fn before(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, seen) = watch::channel(Way::Free);
        tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(caller, server.clone(), seen.clone()));
            }
        });
        Self { address, way }
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(mut caller: TcpStream, server: PathBuf, mut way: watch::Receiver<Way>) {
    let mut server = UnixStream::connect(server).await.unwrap();
    loop {
        let now = *way.borrow_and_update();
        if now == Way::Refuses {
            return;
        }
        let changed = tokio::select! {
            changed = way.changed() => changed,
            _ = tokio::io::copy_bidirectional(&mut caller, &mut server), if now == Way::Free => return,
        };
        // A connection that went silent stays so, as behind a router that forgot it.
        if changed.is_err() {
            return;
        }
        if now == Way::Silent {
            std::future::pending::<()>().await;
        }
    }
}
