//! How the gateway carries many accounts: time from start to ready, memory per account, the keeper's renewals
//! and how they are spread over time, and what a renewal costs the database. The figures of `docs/scale.md`
//! come from here.
//!
//! `cargo bench --bench scale --profile release`, `-- --accounts 10,1000` for
//! a shorter run, `-- --only start,keeper,database`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use genapi_gateway::access::control_calls::{Call, CallFuture, ControlCalls};
use genapi_gateway::access::registry::{AccountRegistry, RouteRules};
use genapi_gateway::access::renewal::{Cause, RenewalParts, Renewals};
use genapi_gateway::clock::{Clock, Timestamp};
use genapi_gateway::config::{self, SecretSource};
use genapi_gateway::journal::Journal;
use genapi_gateway::model::account::{AccountId, ApiVersion, RealmName};
use genapi_gateway::model::route::{HostPolicy, Route};
use genapi_gateway::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use genapi_gateway::platform::{
    CredentialsCheck, PairResponse, PlatformError, ReadResponse, RelatedAccount, TokenHint,
};
use genapi_gateway::store::cluster::ReplicaId;
use genapi_gateway::store::postgres::PostgresStore;
use genapi_gateway::store::sqlite::SqliteStore;
use genapi_gateway::store::{NewGrant, Store, StoredAccess, StoredRoute};
use tokio::runtime::Runtime;
use url::Url;

#[path = "../tests/common/postgres.rs"]
#[allow(dead_code, reason = "tests use the rest of it")]
mod postgres;

/// A JWT as platforms hand them out. The vendor allows up to 8 K.
const ACCESS_TOKEN: usize = 1500;
const REFRESH_TOKEN: usize = 36;
const HOUR: Duration = Duration::from_secs(3600);
const DOMAIN: &str = "https://eu-api.example.com";
const PATH: &str = "/itero-gen-api/v2";
/// How often a start is measured; the median counts.
const STARTS: usize = 5;
/// The keeper's own step.
const STEP: Duration = Duration::from_millis(20);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let accounts = given("--accounts").unwrap_or_else(|| "10,1000,100000".to_owned());
    let accounts: Vec<usize> = accounts.split(',').map(|count| count.parse().expect("a number")).collect();
    let only = given("--only").unwrap_or_else(|| "start,keeper,database".to_owned());
    let wanted = |part: &str| only.split(',').any(|word| word == part);
    if wanted("start") {
        starts(&accounts);
    }
    if wanted("keeper") {
        accounts.iter().for_each(|count| keeper(*count));
    }
    if wanted("database") {
        database(&accounts);
    }
}

// ---- start and memory

/// On each kind of store, each count of accounts in fresh processes;
/// memory is compared with the fewest accounts.
fn starts(accounts: &[usize]) {
    println!(
        "\n| store | accounts | start to ready | resident | per account | beyond its tokens |\n|---|---|---|---|---|---|"
    );
    let server = postgres::start("-h ''", |_| ());
    for kind in ["sqlite", "postgresql"] {
        let mut fewest = None;
        for count in accounts {
            let folder = folder();
            let url = match kind {
                "sqlite" => "sqlite:gateway.db".to_owned(),
                _ => own_database(&server, *count),
            };
            runtime().block_on(async {
                let store = open(&url, folder.path()).await;
                fill(&*store, *count, Clock::system().now()).await;
                store.close().await.expect("the store closes");
            });
            write_config(folder.path(), &url);
            let mut runs: Vec<(Duration, u64)> = (0..STARTS).map(|_| one_start(folder.path())).collect();
            runs.sort();
            let (time, resident) = runs[STARTS / 2];
            let (first, base) = *fewest.get_or_insert((*count, resident));
            let (each, beyond) = match count - first {
                0 => ("-".to_owned(), "-".to_owned()),
                more => {
                    let each = resident.saturating_sub(base) / more as u64;
                    let tokens = (ACCESS_TOKEN + REFRESH_TOKEN) as u64;
                    (format!("{each} B"), format!("{} B", each.saturating_sub(tokens)))
                }
            };
            println!(
                "| {kind} | {count} | {:.2} s | {:.1} MiB | {each} | {beyond} |",
                time.as_secs_f64(),
                resident as f64 / 1048576.0
            );
        }
    }
}

/// From the start of the process until it says that it is ready, and its memory a moment later.
fn one_start(folder: &Path) -> (Duration, u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_genapi-gateway"));
    command.args(["-c", "config.toml", "serve"]).current_dir(folder).env("BENCH_CLIENT_SECRET", "secret");
    let began = Instant::now();
    let mut gateway = Gateway(command.stderr(Stdio::piped()).spawn().expect("the gateway starts"));
    let mut said = String::new();
    let lines = BufReader::new(gateway.0.stderr.take().expect("its log")).lines();
    for line in lines.map_while(Result::ok) {
        said.push_str(&line);
        if line.contains("\"message\":\"ready\"") {
            let time = began.elapsed();
            std::thread::sleep(Duration::from_secs(1));
            return (time, resident(gateway.0.id()));
        }
    }
    panic!("it never was ready: {said}");
}

/// Ends with the measurement, however that ends.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory of its own; pages of files that it shares with everybody are not counted.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn write_config(folder: &Path, url: &str) {
    let text = format!(
        r#"
[gateway]
listen = ["127.0.0.1:0"]
url = "http://127.0.0.1:8080"
workers = 2
[admin]
listen = ["127.0.0.1:0"]
[store]
url = "{url}"
[realms.bench]
oauth_base = "http://127.0.0.1:1"
base_url = "http://127.0.0.1:1"
login_page = "http://127.0.0.1:1/login"
redirect_uri = "http://127.0.0.1:8081/oauth2/callback"
client_id = "bench"
client_secret = {{ env = "BENCH_CLIENT_SECRET" }}
allowed_hosts = ["*.example.com", "127.0.0.1"]
allow_insecure = true
[[callers]]
name = "legacy"
accounts = ["*"]
networks = ["127.0.0.0/8"]
[log]
format = "json"
"#
    );
    fs::write(folder.join("config.toml"), text).expect("the configuration is written");
}

// ---- the keeper over hours, on a clock that is moved

/// What it starts from.
struct Scenario {
    name: &'static str,
    /// How much of its life each token has left at the beginning.
    remaining: Duration,
    in_use: bool,
    hours: u32,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "all in use, after a long stop", remaining: Duration::ZERO, in_use: true, hours: 3 },
    Scenario { name: "all in use, tokens of one second", remaining: HOUR, in_use: true, hours: 3 },
    Scenario { name: "all idle, tokens of one second", remaining: HOUR, in_use: false, hours: 2 },
];

fn keeper(accounts: usize) {
    println!(
        "\n{accounts} accounts\n\n| scene | renewals | most in a second | mean of the busiest minute | late | CPU per renewal |\n|---|---|---|---|---|---|"
    );
    for scenario in &SCENARIOS {
        runtime().block_on(watch_keeper(accounts, scenario));
    }
}

async fn watch_keeper(accounts: usize, scenario: &Scenario) {
    let folder = folder();
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let store: Arc<dyn Store> = Arc::new(open_sqlite(folder.path(), clock.clone()).await);
    let obtained = clock.now() + scenario.remaining;
    fill(&*store, accounts, Timestamp::from_millis(obtained.as_millis() - HOUR.as_millis() as u64)).await;
    let bench = Bench::over(store, clock.clone()).await;
    let keeping = bench.renewals.start_scheduler();
    let cpu = cpu_time();
    let steps = scenario.hours * 3600 * 50;
    for step in 0..steps {
        if scenario.in_use && step % (50 * 300) == 0 {
            bench.registry.all().iter().for_each(|entry| entry.mark_used(clock.now()));
        }
        clock.advance(STEP);
        // The keeper wakes, boards a flight and sleeps again; then the flight runs to its end.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        bench.renewals.finish().await;
    }
    let cpu = cpu_time() - cpu;
    keeping.abort();
    let refreshed = bench.platform.refreshed.lock().expect("whole");
    let all: usize = refreshed.values().map(|(count, _)| count).sum();
    let late: usize = refreshed.values().map(|(_, late)| late).sum();
    let most = refreshed.values().map(|(count, _)| *count).max().unwrap_or_default();
    let mut minutes = BTreeMap::new();
    for (second, (count, _)) in refreshed.iter() {
        *minutes.entry(second / 60).or_insert(0) += count;
    }
    let busiest = minutes.values().max().copied().unwrap_or_default() as f64 / 60.0;
    // Few renewals drown in the steps of the clock.
    let each =
        if all < 10_000 { "-".to_owned() } else { format!("{:.2} ms", cpu.as_secs_f64() * 1e3 / all as f64) };
    println!(
        "| {} ({} h) | {all} | {most} | {busiest:.1} | {late} | {each} |",
        scenario.name, scenario.hours
    );
}

fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("our own figures");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

// ---- what a renewal costs a database

fn database(accounts: &[usize]) {
    println!(
        "\n| accounts | renewals | transactions each | rows written each | log written each | time each |\n|---|---|---|---|---|---|"
    );
    let server = postgres::start("-h ''", |_| ());
    for count in accounts {
        let url = own_database(&server, *count);
        runtime().block_on(async {
            let folder = folder();
            let store: Arc<dyn Store> = Arc::from(open(&url, folder.path()).await);
            let clock = Clock::system();
            let long_ago = Timestamp::from_millis(clock.now().as_millis() - 2 * HOUR.as_millis() as u64);
            fill(&*store, *count, long_ago).await;
            let bench = Bench::over(store, clock).await;
            let before = pressure(&url).await;
            let began = Instant::now();
            let renewed = bench.registry.all().into_iter().take(1000).collect::<Vec<_>>();
            for entry in &renewed {
                let renewal = bench.renewals.renew(entry, entry.generation(), Cause::NoToken).await;
                assert!(renewal.is_ok(), "{renewal:?}");
            }
            let time = began.elapsed().as_secs_f64();
            // A session hands its counts in when it ends.
            bench.store.close().await.expect("the store closes");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = pressure(&url).await;
            let each = |at: usize| (after[at] - before[at]) / renewed.len() as f64;
            println!(
                "| {count} | {} | {:.1} | {:.1} | {:.0} B | {:.2} ms |",
                renewed.len(),
                each(0),
                each(1),
                each(2),
                time * 1e3 / renewed.len() as f64
            );
        });
    }
}

/// Transactions, rows written, bytes of log, since the server began to count.
async fn pressure(url: &str) -> [f64; 3] {
    use sqlx::{ConnectOptions, Row};
    let options: sqlx::postgres::PgConnectOptions = url.parse().expect("an address");
    let mut connection = options.connect().await.expect("a connection");
    let row = sqlx::query(
        "SELECT xact_commit::float8, (tup_inserted + tup_updated + tup_deleted)::float8, \
         pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 FROM pg_stat_database WHERE datname = current_database()",
    )
    .fetch_one(&mut connection)
    .await
    .expect("figures");
    [row.get(0), row.get(1), row.get(2)]
}

fn own_database(server: &postgres::Server, number: usize) -> String {
    use sqlx::ConnectOptions;
    let name = format!("n{number}");
    runtime().block_on(async {
        let options: sqlx::postgres::PgConnectOptions = server.url().parse().expect("an address");
        let mut connection = options.connect().await.expect("a connection");
        let sql = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("a database");
    });
    let url = server.url();
    format!("{}{name}", url.strip_suffix("postgres").expect("the superuser's database"))
}

// ---- what they share

/// Everything that a renewal needs, around a platform that answers at once.
struct Bench {
    store: Arc<dyn Store>,
    registry: Arc<AccountRegistry>,
    renewals: Renewals,
    platform: Arc<InstantPlatform>,
}

impl Bench {
    async fn over(store: Arc<dyn Store>, clock: Clock) -> Self {
        let policy =
            HostPolicy { allowed: vec!["*.example.com".parse().expect("a pattern")], allow_insecure: false };
        let route = Route::parse(DOMAIN, PATH, &policy).expect("a route");
        let records = store.accounts().await.expect("accounts").accounts;
        let ends = records
            .iter()
            .filter_map(|record| {
                let grant = record.current_grant()?;
                Some((grant.refresh.expose().to_owned(), grant.access.as_ref()?.expires_at))
            })
            .collect();
        let platform = Arc::new(InstantPlatform {
            clock: clock.clone(),
            route,
            ends: Mutex::new(ends),
            began: clock.now(),
            refreshed: Mutex::default(),
        });
        let rules = HashMap::from([(realm(), RouteRules { hosts: policy, pinned: None, is_old: false })]);
        let registry = Arc::new(AccountRegistry::load(records, rules));
        let renewals = Renewals::new(RenewalParts {
            clock: clock.clone(),
            store: store.clone(),
            registry: registry.clone(),
            platforms: HashMap::from([(realm(), platform.clone() as Arc<dyn ControlCalls>)]),
            journal: Journal::start(store.clone(), clock),
            settings: config::RenewalConfig {
                min_gap: config::defaults::MIN_GAP,
                renew_before_expiry: config::defaults::RENEW_BEFORE_EXPIRY,
                idle_renewal: config::defaults::IDLE_RENEWAL,
            },
            runtime: tokio::runtime::Handle::current(),
            replica: ReplicaId::new("bench").expect("a name"),
        });
        Self { store, registry, renewals, platform }
    }
}

/// Takes down when it was asked, and whether the token had ended by then.
struct InstantPlatform {
    clock: Clock,
    route: Route,
    ends: Mutex<HashMap<String, Timestamp>>,
    began: Timestamp,
    /// By second: how many, and how many of them late.
    refreshed: Mutex<BTreeMap<u64, (usize, usize)>>,
}

impl ControlCalls for InstantPlatform {
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> Call<'a, Result<TokenSet, PlatformError>> {
        let now = self.clock.now();
        let ended = self.ends.lock().expect("whole").insert(refresh.expose().to_owned(), now + HOUR);
        let mut refreshed = self.refreshed.lock().expect("whole");
        let second = refreshed.entry(now.since(self.began).as_secs()).or_default();
        second.0 += 1;
        second.1 += usize::from(ended.is_some_and(|ended| ended < now));
        let tokens =
            TokenSet { access: access_token(), refresh: None, expires_in: HOUR, oddities: Vec::new() };
        Box::pin(std::future::ready(Ok(tokens)))
    }

    fn discover<'a>(
        &'a self,
        _: Option<&'a Route>,
        _: Option<ApiVersion>,
        _: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(std::future::ready(Ok(self.route.clone())))
    }

    fn prove<'a>(
        &'a self,
        route: &'a Route,
        _: Option<ApiVersion>,
        _: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(std::future::ready(Ok(route.clone())))
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        Box::pin(std::future::ready(CredentialsCheck::Good))
    }

    fn authorize_url(&self, _: &str) -> Url {
        unreachable!("renewal makes no such call")
    }

    fn exchange_code<'a>(&'a self, _: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        unreachable!("renewal makes no such call")
    }

    fn revoke<'a>(&'a self, _: &'a str, _: TokenHint) -> CallFuture<'a, ()> {
        unreachable!("renewal makes no such call")
    }

    fn discover_first<'a>(&'a self, _: &'a AccessToken) -> CallFuture<'a, Route> {
        unreachable!("renewal makes no such call")
    }

    fn read<'a>(&'a self, _: &'a Route, _: &'a str, _: &'a AccessToken) -> CallFuture<'a, ReadResponse> {
        unreachable!("renewal makes no such call")
    }

    fn related_accounts<'a>(
        &'a self,
        _: &'a Route,
        _: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>> {
        unreachable!("renewal makes no such call")
    }

    fn pair<'a>(
        &'a self,
        _: &'a Route,
        _: &'a AccessToken,
        _: AccountId,
        _: Option<&'a Url>,
    ) -> CallFuture<'a, PairResponse> {
        unreachable!("renewal makes no such call")
    }

    fn unpair<'a>(&'a self, _: &'a Route, _: &'a AccessToken, _: AccountId) -> CallFuture<'a, ()> {
        unreachable!("renewal makes no such call")
    }
}

async fn fill(store: &dyn Store, accounts: usize, obtained: Timestamp) {
    use futures_util::{StreamExt, TryStreamExt, stream};
    let put = stream::iter(0..accounts).map(|number| store.put_grant(grant(number, obtained)));
    put.buffer_unordered(8).try_for_each(async |_| Ok(())).await.expect("an account is put");
}

fn grant(number: usize, obtained: Timestamp) -> NewGrant {
    NewGrant {
        name: format!("clinic-{number:06}").parse().expect("a name"),
        realm: realm(),
        account_id: AccountId::new(100_000 + number as u64),
        refresh: RefreshToken::new(format!("{number:0width$}", width = REFRESH_TOKEN)),
        access: Some(StoredAccess { token: access_token(), expires_at: obtained + HOUR }),
        route: Some(StoredRoute { domain: DOMAIN.into(), path: PATH.into(), discovered_at: obtained }),
        at: obtained,
        make_current: true,
        state: None,
        trial: None,
    }
}

fn access_token() -> AccessToken {
    AccessToken::new("t".repeat(ACCESS_TOKEN))
}

fn realm() -> RealmName {
    "bench".parse().expect("a name")
}

async fn open(url: &str, folder: &Path) -> Box<dyn Store> {
    if url.starts_with("sqlite:") {
        Box::new(open_sqlite(folder, Clock::system()).await)
    } else {
        let key = SecretSource::File(folder.join("gateway.key"));
        let store = PostgresStore::open(url, None, &key, &|_| None, Clock::system()).await;
        Box::new(store.expect("the database opens"))
    }
}

async fn open_sqlite(folder: &Path, clock: Clock) -> SqliteStore {
    let key = SecretSource::File(folder.join("gateway.key"));
    let store = SqliteStore::open(&folder.join("gateway.db"), &key, &|_| None, clock).await;
    store.expect("the database opens")
}

/// In memory where there is such a folder: filling waits for no disk, and
/// a start reads from the page cache either way.
fn folder() -> tempfile::TempDir {
    let shared = PathBuf::from("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
