//! Two and three real gateways on one real PostgreSQL, while the platform's tokens
//! live seconds and are rotated: one gateway is killed with -9 every few seconds and
//! started again, and the database restarts in between.
//!
//! What is owed: a caller gets its own account's response, or a 503 that says when to come again. No two
//! refreshes of one account overlap, and a refresh token is sent a second time only where the gateway that
//! sent it first died before its commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use genapi_gateway::clock::{Clock, Timestamp};
use genapi_gateway::sandbox::gateway_files::{self, Addresses};
use genapi_gateway::sandbox::{
    AccountSpec, Endpoint, Fault, FaultRule, HostRole, Platform, RecordedCall, Sandbox, SandboxOptions,
};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use common::gateway::Gateway;
use common::postgres::Server;

mod common {
    pub mod gateway;
    pub mod postgres;
    pub mod ready;
}

const FIRST: u64 = 1001;
const ACCOUNTS: u64 = 12;
/// An account that no gateway knows at first.
const SOLO: u64 = 2001;
const CALLERS_EACH: usize = 2;
/// Longer than the five seconds for which a commit may wait for a database
/// that is away: what is over by then helps nobody.
const TOKEN_LIFE: Duration = Duration::from_secs(6);
/// The platform takes its time for a refresh, so that kills fall into some.
const REFRESH_TAKES: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two calls of one caller.
const BREATH: Duration = Duration::from_millis(60);
/// Until every gateway has heard what another one stored; they look
/// every half second, and the database may be away.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

fn ids() -> impl Iterator<Item = u64> {
    FIRST..FIRST + ACCOUNTS
}

fn name_of(id: u64) -> String {
    format!("acct-{id}")
}

/// How a call ended.
enum CallOutcome {
    Right,
    RetryLater,
    NeedsLogin,
}

/// Gateways behind a balancer: callers go to one that is up.
struct Cluster {
    sandbox: Sandbox,
    server: Server,
    folder: tempfile::TempDir,
    key: String,
    http: reqwest::Client,
    /// Where each gateway listens; nowhere while it is down.
    up: Vec<Mutex<Option<RunningGateway>>>,
    deaths: Mutex<Vec<(usize, Timestamp)>>,
    right: AtomicUsize,
    retry_later: AtomicUsize,
    logins: AtomicUsize,
    /// A gateway that was told to end: it takes no new connections and loses no call.
    leaving: AtomicUsize,
    /// One account is logged in anew by one caller.
    mending: Mutex<()>,
}

/// One gateway of the cluster that is running.
#[derive(Clone, PartialEq)]
struct RunningGateway {
    data: String,
    admin: String,
}

impl Cluster {
    async fn new(gateways: usize) -> Self {
        let mut options = SandboxOptions { keep_calls: 200_000, ..SandboxOptions::default() };
        options.behavior.rotate_refresh = true;
        options.behavior.access_token_life = TOKEN_LIFE;
        let sandbox = Sandbox::start(options).await.unwrap();
        sandbox.inject(FaultRule::on(Endpoint::Refresh, Fault::DelayedThenNormal(REFRESH_TAKES)));
        for id in ids() {
            sandbox.add_account(AccountSpec::clinic(id, "Smile").with_orders(2));
        }
        let server = tokio::task::spawn_blocking(|| common::postgres::start("-h ''", |_| ())).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let any = || "127.0.0.1:0".to_owned();
        let redirect_uri = "http://127.0.0.1:0/oauth2/callback".to_owned();
        let addresses = Addresses { gateway: any(), admin: any(), redirect_uri };
        let key = gateway_files::write(&sandbox, folder.path(), &addresses).unwrap();
        for number in 0..gateways {
            equip(folder.path(), number, &server.url(), &sandbox);
        }
        Self {
            sandbox,
            server,
            folder,
            key,
            http: common::gateway::caller(PATIENCE),
            up: (0..gateways).map(|_| Mutex::default()).collect(),
            deaths: Mutex::default(),
            right: AtomicUsize::new(0),
            retry_later: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            leaving: AtomicUsize::new(usize::MAX),
            mending: Mutex::default(),
        }
    }

    async fn start(&self, number: usize) -> Gateway {
        let folder = self.folder.path().join(number.to_string());
        let gateway = tokio::task::spawn_blocking(move || Gateway::start(&folder)).await.unwrap();
        *self.up[number].lock().await =
            Some(RunningGateway { data: gateway.data.clone(), admin: gateway.admin.clone() });
        gateway
    }

    /// Callers are sent elsewhere first, as a balancer would do after the first failed connection.
    async fn kill(&self, number: usize, gateway: Gateway) {
        *self.up[number].lock().await = None;
        gateway.kill();
        self.deaths.lock().await.push((number, Clock::system().now()));
    }

    /// As a service manager ends it; callers learn of it by themselves.
    async fn end(&self, number: usize, mut gateway: Gateway) {
        self.leaving.store(number, Relaxed);
        let told = Command::new("kill").args(["-TERM", &gateway.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let ended = tokio::task::spawn_blocking(move || gateway.child.wait().unwrap()).await.unwrap();
        assert!(ended.success(), "{ended:?}");
        *self.up[number].lock().await = None;
        self.leaving.store(usize::MAX, Relaxed);
    }

    async fn any_up(&self, turn: usize) -> (usize, RunningGateway) {
        for number in (0..self.up.len()).map(|step| (turn + step) % self.up.len()) {
            if let Some(up) = &*self.up[number].lock().await {
                return (number, up.clone());
            }
        }
        panic!("no gateway is up");
    }

    async fn admin(&self, method: reqwest::Method, up: &RunningGateway, path: &str, body: &str) -> String {
        self.try_admin(method, up, path, body).await.unwrap()
    }

    async fn try_admin(
        &self,
        method: reqwest::Method,
        up: &RunningGateway,
        path: &str,
        body: &str,
    ) -> reqwest::Result<String> {
        let token = std::fs::read_to_string(self.folder.path().join("admin.token")).unwrap();
        let request = self.http.request(method, format!("{}{path}", up.admin)).bearer_auth(token.trim());
        let request = request.header("content-type", "application/json").body(body.to_owned());
        request.send().await?.text().await
    }

    async fn import(&self, up: &RunningGateway, id: u64, query: &str) {
        let token = self.sandbox.grant(id).unwrap();
        let entry =
            json!([{"name": name_of(id), "realm": "global", "account_id": id, "refresh_token": token}]);
        let path = format!("/api/import{query}");
        let told = self.admin(reqwest::Method::POST, up, &path, &entry.to_string()).await;
        assert!(told.contains("\"ok\":true"), "{told}");
    }

    /// An import by whatever gateway is up: one may be killed in the middle of it, and the database may be
    /// away.
    async fn import_anew(&self, id: u64, turn: usize) {
        let end = Instant::now() + PATIENCE;
        let token = self.sandbox.grant(id).unwrap();
        let entry =
            json!([{"name": name_of(id), "realm": "global", "account_id": id, "refresh_token": token}]);
        let body = entry.to_string();
        for step in 0.. {
            let (_, up) = self.any_up(turn + step).await;
            match self
                .try_admin(reqwest::Method::POST, &up, "/api/import?replace=true&confirmed=true", &body)
                .await
            {
                Ok(told) if told.contains("\"ok\":true") => return,
                told => assert!(Instant::now() < end, "{id} cannot be imported anew: {told:?}"),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// One call of one caller, by whatever gateway is up.
    async fn call(&self, id: u64, turn: usize) -> CallOutcome {
        for step in 0.. {
            let (number, up) = self.any_up(turn + step).await;
            let url = format!("{}/accounts/{}/orders/practice", up.data, name_of(id));
            let asked = self.http.get(url).header("X-Gateway-Key", &self.key).send().await;
            let response = match asked {
                Ok(response) => {
                    Ok((response.status().as_u16(), response.headers().clone(), response.bytes().await))
                }
                Err(broken) => Err(broken),
            };
            match response {
                Ok((status, headers, Ok(body))) => return told(id, status, &headers, &body),
                Ok((_, _, Err(broken))) | Err(broken) => {
                    let goes = broken.is_connect() && self.leaving.load(Relaxed) == number;
                    let still_up = *self.up[number].lock().await == Some(up);
                    assert!(goes || !still_up, "{id}: a gateway that nobody killed lost a call: {broken:?}");
                }
            }
        }
        unreachable!()
    }

    /// A refresh of the last second may be on its way.
    async fn responds_again(self: &Arc<Self>, id: u64) {
        let end = Instant::now() + PATIENCE;
        while !matches!(self.call(id, 0).await, CallOutcome::Right) {
            assert!(Instant::now() < end, "{id} is not answered any more");
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn caller(self: Arc<Self>, id: u64, mut turn: usize, stop: Arc<AtomicBool>) {
        while !stop.load(Relaxed) {
            turn += 1;
            match self.call(id, turn).await {
                CallOutcome::Right => self.right.fetch_add(1, Relaxed),
                CallOutcome::RetryLater => self.retry_later.fetch_add(1, Relaxed),
                CallOutcome::NeedsLogin => self.log_in(id, turn).await,
            };
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The platform had spent the refresh token, and who knew its successor was killed before the commit: the
    /// one window there is.
    async fn log_in(&self, id: u64, turn: usize) -> usize {
        let _one = self.mending.lock().await;
        // Another caller may have mended it.
        if !matches!(self.call(id, turn).await, CallOutcome::NeedsLogin) {
            return 0;
        }
        let refreshes = self.refreshes(id);
        let refused = refreshes.last().unwrap_or_else(|| panic!("{id}: nobody was refused"));
        let ago = Clock::system().now().since(refused.at);
        if refused.status == Some(200) && ago < HEARD_WITHIN {
            // It was mended by way of another gateway, and the one that was asked has not heard of it yet.
            return 0;
        }
        let spent =
            refreshes.iter().rev().find(|sent| sent.token == refused.token && sent.status == Some(200));
        let deaths = self.deaths.lock().await.clone();
        let excused = refused.status == Some(401)
            && spent.is_some_and(|spent| died(&deaths, spent.gateway, spent.at, refused.at));
        assert!(
            excused,
            "{id}: needs a login although nobody died with its token: {refreshes:#?}\n{deaths:?}"
        );
        self.journal_names_the_window(id, turn).await;
        self.import_anew(id, turn).await;
        self.logins.fetch_add(1, Relaxed)
    }

    /// It is written beside the calls, by whichever gateway met the refusal; any gateway answers for it.
    async fn journal_names_the_window(&self, id: u64, turn: usize) {
        let path = format!("/api/accounts/{}/journal", name_of(id));
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, up) = self.any_up(turn).await;
            let journal = self.try_admin(reqwest::Method::GET, &up, &path, "").await.unwrap_or_default();
            if journal.contains("was under way when the process ended, so the platform may have replaced it")
            {
                return;
            }
            assert!(Instant::now() < end, "{id}: the journal does not name the window: {journal}");
            tokio::time::sleep(BREATH).await;
        }
    }

    /// What the platform saw of an account's refreshes, by order of arrival.
    fn refreshes(&self, id: u64) -> Vec<RecordedRefresh> {
        self.sandbox.refreshes(id).iter().map(RecordedRefresh::of).collect()
    }
}

/// A folder with the configuration of one gateway. All of them share the database, its key and the admin
/// token; each calls the token endpoint by one of the names that it answers to, so that the platform's record
/// tells them apart.
fn equip(base: &Path, number: usize, database: &str, sandbox: &Sandbox) {
    let folder = base.join(number.to_string());
    std::fs::create_dir(&folder).unwrap();
    for file in std::fs::read_dir(base).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    let config = std::fs::read_to_string(base.join(gateway_files::CONFIG)).unwrap();
    let endpoint = sandbox.oauth_base(Platform::New);
    let named = endpoint.replace("127.0.0.1", host_of(number));
    let shared = |file: &str| base.join(file).display().to_string();
    let mut config = config
        .replace("sqlite:gateway.db", database)
        .replace("gateway.key", &shared("gateway.key"))
        .replace("admin.token", &shared("admin.token"))
        .replace(&format!("oauth_base = \"{endpoint}\""), &format!("oauth_base = \"{named}\""));
    if number > 0 {
        let resolved = format!("[realms.global]\nresolve = {{ {:?} = \"127.0.0.1\" }}", host_of(number));
        config = config.replace("[realms.global]", &resolved);
    }
    config += AN_APPLICATION;
    std::fs::write(folder.join(gateway_files::CONFIG), config).unwrap();
}

/// Its secret is `oldpms-secret`.
const AN_APPLICATION: &str = "
[[callers]]
name = \"oldpms\"
accounts = [\"*\"]
facade = { client_id = \"oldpms\", client_secret_sha256 = \"0ae3cf79147bd309151ee3a4227e92e123e526389f40d1a1694733c7e3c42816\", adopt = true, \
redirect_uris = [\"http://127.0.0.1:5000/cb\"], realm = \"global\" }
";

/// The sandbox knows no others.
fn host_of(number: usize) -> &'static str {
    match number {
        0 => "127.0.0.1",
        1 => "localhost",
        _ => HostRole::Identity(Platform::New).host_name(),
    }
}

fn told(id: u64, status: u16, headers: &http::HeaderMap, body: &[u8]) -> CallOutcome {
    let json = || serde_json::from_slice::<Value>(body).unwrap();
    match (status, headers.get("proxy-status").is_some()) {
        (200, false) => {
            let response = json();
            let orders = response["Data"].as_array().unwrap();
            assert_eq!(orders.len(), 2, "{orders:?}");
            for order in orders {
                // Whose an order is can be read off its number.
                assert_eq!(order["RxId"].as_u64().unwrap() / 100_000, id, "another account's answer");
            }
            CallOutcome::Right
        }
        (503, true) => {
            assert_eq!(json()["code"], "token_unavailable");
            let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait} s");
            CallOutcome::RetryLater
        }
        (401, true) => {
            assert_eq!(json()["code"], "account_needs_login");
            CallOutcome::NeedsLogin
        }
        _ => panic!("{id}: {status} {}", String::from_utf8_lossy(body)),
    }
}

/// A refresh as the platform saw it.
#[derive(Debug)]
struct RecordedRefresh {
    at: Timestamp,
    gateway: usize,
    token: String,
    status: Option<u16>,
}

impl RecordedRefresh {
    fn of(call: &RecordedCall) -> Self {
        let (host, _) = call.header("host").unwrap().rsplit_once(':').unwrap();
        let gateway = (0..3).find(|number| host_of(*number) == host).unwrap();
        let mut fields = form_urlencoded::parse(&call.body);
        let (_, token) = fields.find(|(field, _)| field == "refresh_token").unwrap();
        Self { at: call.at, gateway, token: token.into_owned(), status: call.status }
    }
}

fn died(deaths: &[(usize, Timestamp)], gateway: usize, from: Timestamp, to: Timestamp) -> bool {
    deaths.iter().any(|(number, at)| *number == gateway && (from..=to).contains(at))
}

/// Something between `least` and three times that; nothing depends on which.
fn random_pause(least: Duration) -> Duration {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).unwrap();
    least.mul_f64(1.0 + f64::from(byte[0]) / 127.5)
}

/// Commits of tokens take their time, so that kills fall between the platform's response and its commit.
const SLOW_COMMITS: &str = "SET search_path = genapi_gateway; \
    CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$; \
    CREATE TRIGGER slow BEFORE UPDATE OF refresh_sealed ON grants FOR EACH ROW EXECUTE FUNCTION take_time()";

async fn tell_database(cluster: &Cluster, sql: &'static str) {
    let mut shell: PgConnection =
        cluster.server.url().parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut shell).await.unwrap();
}

/// Kills and restarts gateways in turn, and the database now and then;
/// returns once every account is refreshed again.
async fn kill_one_after_the_other(
    cluster: &Arc<Cluster>,
    running: &mut [Option<Gateway>],
    kills: usize,
    mut outages: impl Iterator<Item = Duration>,
) {
    for kill in 0..kills {
        tokio::time::sleep(random_pause(Duration::from_millis(800))).await;
        let victim = kill % running.len();
        cluster.kill(victim, running[victim].take().unwrap()).await;
        if kill % 3 == 1 {
            let cluster = cluster.clone();
            let mode = if kill % 2 == 0 { "fast" } else { "immediate" };
            let away = outages.next().unwrap_or_default();
            tokio::task::spawn_blocking(move || cluster.server.restart(mode, away)).await.unwrap();
        }
        running[victim] = Some(cluster.start(victim).await);
    }
    // Whatever the last one left behind is taken over.
    let last_death = cluster.deaths.lock().await.last().unwrap().1;
    for id in ids() {
        let refreshed = |call: &RecordedCall| {
            call.endpoint == Some(Endpoint::Refresh)
                && (call.account, call.status) == (Some(id), Some(200))
                && call.at > last_death
        };
        let again = tokio::time::timeout(PATIENCE, cluster.sandbox.until_calls(1, refreshed));
        again.await.unwrap_or_else(|_| panic!("{id} is refreshed no more"));
    }
}

/// Never two refreshes at once, and never two with one token unless its gateway died: how many there were,
/// and how many were taken over from a dead gateway.
fn check_refreshes(cluster: &Cluster, deaths: &[(usize, Timestamp)]) -> (usize, usize) {
    let overlapping = cluster.sandbox.overlapping_refreshes();
    assert!(overlapping.is_empty(), "two refreshes at once of {overlapping:?}");
    let (mut refreshes, mut taken_over) = (0, 0);
    for id in ids() {
        let mut last: BTreeMap<String, RecordedRefresh> = BTreeMap::new();
        for sent in cluster.refreshes(id) {
            refreshes += 1;
            if let Some(before) = last.get(&sent.token) {
                taken_over += 1;
                assert!(
                    died(deaths, before.gateway, before.at, sent.at),
                    "{id}: refreshed twice with one token, and nobody died: {before:?} {sent:?} {deaths:?}"
                );
            }
            last.insert(sent.token.clone(), sent);
        }
    }
    (refreshes, taken_over)
}

async fn every_gateway_says_ready(cluster: &Cluster, gateways: usize) {
    for number in 0..gateways {
        let (_, up) = cluster.any_up(number).await;
        // What was imported or mended a moment ago, by way of another gateway, is heard of soon.
        let end = Instant::now() + HEARD_WITHIN;
        loop {
            let list = cluster.admin(reqwest::Method::GET, &up, "/api/accounts", "").await;
            let list: Vec<Value> = serde_json::from_str(&list).unwrap();
            let ready = list.iter().filter(|account| account["state"] == "ready").count();
            if ready == ids().count() {
                break;
            }
            assert!(Instant::now() < end, "gateway {number}: {ready} of {list:?} are ready");
            tokio::time::sleep(BREATH).await;
        }
    }
}

/// `outages`: for how long the database stays away, each time it is restarted.
async fn kills_and_restarts(gateways: usize, kills: usize, outages: &[u64]) {
    let outages = outages.iter().copied().map(Duration::from_secs);
    let began = Instant::now();
    let cluster = Arc::new(Cluster::new(gateways).await);
    let mut running = Vec::new();
    for number in 0..gateways {
        running.push(Some(cluster.start(number).await));
    }
    let (_, up) = cluster.any_up(0).await;
    for id in ids() {
        cluster.import(&up, id, "").await;
    }
    every_gateway_says_ready(&cluster, gateways).await;
    tell_database(&cluster, SLOW_COMMITS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for (id, number) in ids().flat_map(|id| (0..CALLERS_EACH).map(move |number| (id, number))) {
        callers.spawn(cluster.clone().caller(id, number, stop.clone()));
    }
    let trouble = async {
        kill_one_after_the_other(&cluster, &mut running, kills, outages).await;
    };
    tokio::select! {
        () = trouble => stop.store(true, Relaxed),
        early = callers.join_next() => panic!("a caller has something to say: {early:?}"),
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }

    let deaths = cluster.deaths.lock().await.clone();
    let (refreshes, taken_over) = check_refreshes(&cluster, &deaths);
    for id in ids() {
        cluster.responds_again(id).await;
    }
    every_gateway_says_ready(&cluster, gateways).await;
    let (right, retry_later) = (cluster.right.load(Relaxed), cluster.retry_later.load(Relaxed));
    let logins = cluster.logins.load(Relaxed);
    println!(
        "{gateways} gateways, {kills} kills in {:.0?}: {right} right answers, {retry_later} times come again, {refreshes} refreshes, \
         {taken_over} of them after a dead gateway, {logins} logins lost in the window.",
        began.elapsed()
    );
    assert!(right > 500 && refreshes > 30, "{right} right answers, {refreshes} refreshes: no load");
}

/// One after the other: two clusters at once would only measure the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_survive_each_others_deaths_and_the_databases_restarts() {
    let _turn = ONE_AT_A_TIME.lock().await;
    kills_and_restarts(2, 4, &[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_survive_each_others_deaths_and_the_databases_restarts() {
    let _turn = ONE_AT_A_TIME.lock().await;
    kills_and_restarts(3, 5, &[0, 11]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_serves_all_of_them() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Arc::new(Cluster::new(2).await);
    let _running = [cluster.start(0).await, cluster.start(1).await];
    let ((_, one), (_, other)) = (cluster.any_up(0).await, cluster.any_up(1).await);
    cluster.import(&one, FIRST, "").await;
    cluster.responds_again(FIRST).await;
    let look = async |up: &RunningGateway, path: &str| {
        serde_json::from_str::<Value>(&cluster.admin(reqwest::Method::GET, up, path, "").await).unwrap()
    };
    let account = format!("/api/accounts/{}", name_of(FIRST));
    let journal = format!("{account}/journal");
    assert_eq!(look(&one, &journal).await, look(&other, &journal).await);
    assert_eq!(look(&other, &journal).await.as_array().unwrap().last().unwrap()["event"], "imported");

    // The call went to the first one, which tells the others within ten seconds.
    let seen = look(&one, &account).await["signals"].clone();
    assert_eq!(seen["last_list_links"], 4);
    let end = Instant::now() + PATIENCE;
    loop {
        let known = look(&other, &account).await;
        if known["signals"] == seen {
            break;
        }
        assert!(Instant::now() < end, "{seen} is known to one gateway only; the other has {known}");
        tokio::time::sleep(BREATH).await;
    }
    let callers = look(&other, "/api/callers").await;
    assert_eq!(callers[0]["signals"]["last_success_at"], seen["last_success_at"]);
    assert_eq!(look(&one, "/api/callers").await, callers);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_gets_from_one_gateway_counts_at_the_others_at_once() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Arc::new(Cluster::new(2).await);
    let _running = [cluster.start(0).await, cluster.start(1).await];
    let ((_, one), (_, other)) = (cluster.any_up(0).await, cluster.any_up(1).await);
    let old = cluster.sandbox.grant(FIRST).unwrap();
    cluster.import(&one, FIRST, "").await;
    cluster.responds_again(FIRST).await;
    let ask = async |up: &RunningGateway, path: &str, fields: &[(&str, &str)]| {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("client_id", "oldpms"), ("client_secret", "oldpms-secret")]);
        form.extend_pairs(fields);
        let request = cluster.http.post(format!("{}{path}", up.data)).body(form.finish());
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap())
    };
    let refresh = async |up: &RunningGateway, token: &str| {
        ask(up, "/oauth2/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    };
    let list = async |up: &RunningGateway, bearer: &str| {
        let url = format!("{}/itero-gen-api/v2/orders/practice", up.data);
        cluster.http.get(url).bearer_auth(bearer).send().await.unwrap().status().as_u16()
    };
    let end = Instant::now() + HEARD_WITHIN;
    while !cluster.admin(reqwest::Method::GET, &other, "/api/accounts", "").await.contains(&name_of(FIRST)) {
        assert!(Instant::now() < end, "the other gateway never hears of the import");
        tokio::time::sleep(BREATH).await;
    }
    let (status, first) = refresh(&one, &old).await;
    assert_eq!(status, 200, "{first}");
    let ours = first["refresh_token"].as_str().unwrap();
    assert_ne!(ours, old);
    assert_eq!(list(&other, first["access_token"].as_str().unwrap()).await, 200, "before it has heard of it");
    let (status, second) = refresh(&other, ours).await;
    assert_eq!((status, second["refresh_token"].as_str()), (200, Some(ours)), "{second}");
    assert_eq!(refresh(&other, &old).await.1["refresh_token"].as_str(), Some(ours), "the same one again");

    assert_eq!(ask(&other, "/oauth2/revoke", &[("token", ours)]).await.0, 200);
    let end = Instant::now() + PATIENCE;
    while refresh(&one, ours).await.0 != 401 {
        assert!(Instant::now() < end, "one gateway never hears of the revocation");
        tokio::time::sleep(BREATH).await;
    }
}

/// The value of a parameter.
fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_logs_in_at_one_gateway_and_goes_on_at_the_other() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Arc::new(Cluster::new(2).await);
    let _running = [cluster.start(0).await, cluster.start(1).await];
    let ((_, one), (_, other)) = (cluster.any_up(0).await, cluster.any_up(1).await);
    cluster.sandbox.set_behavior(|behavior| behavior.access_token_life = Duration::from_secs(3600));
    let solo = AccountSpec::clinic(SOLO, "Solo").with_orders(2).with_user("solo@sandbox.test", "sandbox");
    cluster.sandbox.add_account(solo);
    cluster.sandbox.allow_redirect(Platform::New, &format!("{}/oauth2/callback", one.admin));
    let location = |response: &reqwest::Response| response.headers()["location"].to_str().unwrap().to_owned();
    let asked = "client_id=oldpms&response_type=code&state=447&redirect_uri=http://127.0.0.1:5000/cb";
    let sent = cluster.http.get(format!("{}/oauth2/authorize?{asked}", one.data)).send().await.unwrap();
    let begun = cluster.http.get(location(&sent)).send().await.unwrap();
    let cookie = begun.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let back = cluster.sandbox.log_in(&location(&begun), "solo@sandbox.test", "sandbox").await.unwrap();
    let returned = cluster.http.get(back).header("cookie", cookie).send().await.unwrap();
    let code = parameter(&location(&returned), "code");

    let form = format!(
        "client_id=oldpms&client_secret=oldpms-secret&grant_type=authorization_code&code={code}\
         &redirect_uri=http://127.0.0.1:5000/cb"
    );
    let exchange = cluster.http.post(format!("{}/oauth2/token", other.data)).body(form);
    let exchange = exchange.header("content-type", "application/x-www-form-urlencoded");
    let login: Value = serde_json::from_str(&exchange.send().await.unwrap().text().await.unwrap()).unwrap();
    let login = login["access_token"].as_str().unwrap_or_else(|| panic!("{login}"));
    let listed = cluster.http.get(format!("{}/related-accounts", one.data)).bearer_auth(login).send().await;
    assert_eq!(listed.unwrap().status(), 200);
    let pair = cluster.http.put(format!("{}/pair-account", other.data)).bearer_auth(login);
    let pair = pair.header("content-type", "application/json").body(format!("{{\"AccountId\":{SOLO}}}"));
    let paired: Value = serde_json::from_str(&pair.send().await.unwrap().text().await.unwrap()).unwrap();
    let bearer = paired["Data"]["OAuthResponse"]["access_token"].as_str();
    let bearer = bearer.unwrap_or_else(|| panic!("{paired}"));
    let list = format!("{}/itero-gen-api/v2/orders/practice", one.data);
    assert_eq!(cluster.http.get(list).bearer_auth(bearer).send().await.unwrap().status(), 200, "at once");
}

/// What a newer gateway may do to the schema while older ones work on it: it only adds.
const A_NEWER_GATEWAY_WAS_HERE: &str = "SET search_path = genapi_gateway; \
    ALTER TABLE accounts ADD COLUMN nickname text; ALTER TABLE grants ADD COLUMN scope text NOT NULL DEFAULT 'openid'; \
    ALTER TABLE journal ADD COLUMN who text; ALTER TABLE last_seen ADD COLUMN uploads bigint NOT NULL DEFAULT 0; \
    ALTER TABLE leases ADD COLUMN why text; CREATE TABLE reports (day date PRIMARY KEY); \
    INSERT INTO journal (at, account, event, detail, who) VALUES (1, 'acct-1001', 'an_event_of_tomorrow', 'happened', 'somebody'); \
    INSERT INTO schema_versions (version, name, checksum, oldest_beside) VALUES (70, 'adds', '', 1)";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_one_gateway_after_the_other_loses_no_call() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Arc::new(Cluster::new(2).await);
    let mut running = [Some(cluster.start(0).await), Some(cluster.start(1).await)];
    let (_, up) = cluster.any_up(0).await;
    for id in ids() {
        cluster.import(&up, id, "").await;
    }
    every_gateway_says_ready(&cluster, 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for (id, number) in ids().flat_map(|id| (0..CALLERS_EACH).map(move |number| (id, number))) {
        callers.spawn(cluster.clone().caller(id, number, stop.clone()));
    }
    let upgrade = async {
        cluster.responds_again(FIRST).await;
        tell_database(&cluster, A_NEWER_GATEWAY_WAS_HERE).await;
        for round in 0..6 {
            tokio::time::sleep(random_pause(Duration::from_millis(300))).await;
            let number = round % 2;
            cluster.end(number, running[number].take().unwrap()).await;
            running[number] = Some(cluster.start(number).await);
        }
    };
    tokio::select! {
        () = upgrade => stop.store(true, Relaxed),
        early = callers.join_next() => panic!("a caller has something to say: {early:?}"),
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let (_, up) = cluster.any_up(0).await;
    let path = format!("/api/accounts/{}/journal", name_of(FIRST));
    let journal = cluster.admin(reqwest::Method::GET, &up, &path, "").await;
    assert!(journal.contains("an_event_of_tomorrow"), "{journal}");
    assert_eq!(cluster.logins.load(Relaxed), 0);
    println!(
        "6 drains: {} right answers, {} times come again, none lost.",
        cluster.right.load(Relaxed),
        cluster.retry_later.load(Relaxed)
    );
    assert!(cluster.right.load(Relaxed) > 300, "no load");
}
