//! A PostgreSQL of our own for tests: one server per test process, one database and one role per test; a gate
//! that shuts the way to it, and a pooler before it. All end with the process, however that ends: a watchdog
//! waits for its pipe to close.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
use server::{PORT, SUPERUSER, watched};
pub use server::{Server, start};

/// Tests of whole processes start the same server.
#[path = "../../../tests/common/postgres.rs"]
mod server;

/// A database of a test's own, reached by a role that is no superuser.
pub struct Database {
    pub name: String,
    folder: tempfile::TempDir,
}

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
    pub async fn behind_proxy(&self) -> (FaultyProxy, String) {
        let proxy = FaultyProxy::before(server().folder.join(format!(".s.PGSQL.{PORT}"))).await;
        let url = format!("postgres://{0}@{1}/{0}?sslmode=disable", self.name, proxy.address);
        (proxy, url)
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
pub struct FaultyProxy {
    pub address: SocketAddr,
    mode: watch::Sender<ProxyMode>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum ProxyMode {
    Forward,
    /// Connections are cut, and new ones ended at once.
    Refuse,
    /// Nothing moves any more, and nothing says so.
    Blackhole,
}

impl FaultyProxy {
    async fn before(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(ProxyMode::Forward);
        tokio::spawn(async move {
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(caller, server.clone(), seen.clone()));
            }
        });
        Self { address, mode }
    }

    pub fn set(&self, mode: ProxyMode) {
        self.mode.send_replace(mode);
    }
}

async fn forward(mut caller: TcpStream, server: PathBuf, mut mode: watch::Receiver<ProxyMode>) {
    let mut server = UnixStream::connect(server).await.unwrap();
    loop {
        let now = *mode.borrow_and_update();
        if now == ProxyMode::Refuse {
            return;
        }
        let changed = tokio::select! {
            changed = mode.changed() => changed,
            _ = tokio::io::copy_bidirectional(&mut caller, &mut server), if now == ProxyMode::Forward => return,
        };
        // A connection that went silent stays so, as behind a router that forgot it.
        if changed.is_err() {
            return;
        }
        if now == ProxyMode::Blackhole {
            std::future::pending::<()>().await;
        }
    }
}
