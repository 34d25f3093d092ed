//! A database in trouble, seen by operators, balancers and callers: reported within seconds, calls go on, and
//! it is over by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{ConnectOptions, Connection};

use crate::postgres::{self, Server};
use crate::processes::{GatewayAndSandbox, write};

const CLINIC: &str = "acct-10001";
/// For a slow machine; nothing waits for it when all is well.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A gateway on a database that is reached by a role of its own, with all accounts imported.
fn gateway_on(server: &Server) -> GatewayAndSandbox {
    administer(server, "CREATE ROLE gateway LOGIN; CREATE DATABASE gateway OWNER gateway");
    let mut pair = GatewayAndSandbox::start(&[]);
    pair.stop();
    let config = pair.written("config.toml").replace("sqlite:gateway.db", &url(server));
    write(&pair.config(), &config);
    pair.start_again();
    assert_eq!(pair.import().code, 0);
    pair
}

fn url(server: &Server) -> String {
    server.url().replace("postgres://postgres@", "postgres://gateway@").replace("/postgres", "/gateway")
}

/// As a server answers that became a replica while the connection stood.
const BECOME_READ_ONLY: &str = "CREATE FUNCTION genapi_gateway.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ \
    BEGIN RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction' USING ERRCODE = '25006';END $$; \
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON genapi_gateway.heartbeat \
    FOR EACH ROW EXECUTE FUNCTION genapi_gateway.refuse()";

/// What an administrator of the database types.
fn administer(server: &Server, sql: &'static str) {
    run_sql(&server.url(), sql);
}

fn run_sql(url: &str, sql: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        let mut connection = options.connect().await.unwrap();
        for statement in sql.split("; ") {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    });
}

fn while_locked(server: &Server, act: impl FnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options: sqlx::postgres::PgConnectOptions = url(server).parse().unwrap();
    let mut connection = runtime.block_on(options.connect()).unwrap();
    let lock = "BEGIN; LOCK TABLE genapi_gateway.heartbeat";
    runtime.block_on(sqlx::raw_sql(lock).execute(&mut connection)).unwrap();
    act();
    runtime.block_on(connection.close()).unwrap();
}

fn hang_up(server: &Server) {
    administer(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'");
}

/// What somebody without a token may ask the admin listener.
fn fetch(pair: &GatewayAndSandbox, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(pair.admin.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn store_part(pair: &GatewayAndSandbox) -> Value {
    let (status, text) = fetch(pair, "/readyz?verbose");
    assert_eq!(status, 200, "{text}");
    let readiness: Value = serde_json::from_str(&text).unwrap();
    readiness["parts"].as_array().unwrap().iter().find(|part| part["name"] == "store").unwrap().clone()
}

/// Asks until the store is said to be like that.
fn until(pair: &GatewayAndSandbox, said: &str) {
    let end = Instant::now() + TIMEOUT;
    loop {
        let part = store_part(pair);
        let detail = part["detail"].as_str().unwrap();
        if detail.starts_with(said) {
            assert_eq!(part["ok"], said == "takes writes", "{part}");
            return;
        }
        assert!(Instant::now() < end, "{said} was never said, but {part}");
    }
}

/// The kinds of trouble that the metric shows.
fn metric(pair: &GatewayAndSandbox) -> Vec<String> {
    let page = fetch(pair, "/metrics").1;
    let series = page.lines().filter_map(|line| line.strip_prefix("genapi_gateway_store_trouble{kind=\""));
    let kinds: Vec<_> = series.map(|rest| rest.split_once("\"} ").unwrap()).collect();
    assert_eq!(kinds.len(), 6, "{page}");
    kinds.into_iter().filter(|(_, value)| *value == "1").map(|(kind, _)| kind.to_owned()).collect()
}

/// In trouble: said everywhere, and callers and balancers notice nothing.
fn ails(pair: &GatewayAndSandbox, kind: &str) {
    until(pair, &format!("{kind} since "));
    assert_eq!(metric(pair), [kind]);
    let asked = Instant::now();
    assert_eq!(fetch(pair, "/readyz"), (200, "ready\n".into()));
    assert!(asked.elapsed() < Duration::from_secs(1), "a balancer's question waits for no database");
    let said = pair.types(&format!("accounts call {CLINIC} GET /orders/practice"));
    assert_eq!(said.code, 0, "{}", said.all());
    pair.gateway.until("\"message\":\"the store is in trouble");
}

fn recovers(pair: &GatewayAndSandbox) {
    until(pair, "takes writes");
    assert_eq!(metric(pair), Vec::<String>::new());
    pair.gateway.until("\"message\":\"the store takes writes again\"");
}

#[test]
fn a_database_in_trouble_is_told_everywhere_while_calls_go_on() {
    let server = postgres::start("-h ''", |_| ());
    let pair = gateway_on(&server);
    until(&pair, "takes writes");

    run_sql(&url(&server), BECOME_READ_ONLY);
    ails(&pair, "read_only");
    run_sql(&url(&server), "DROP FUNCTION genapi_gateway.refuse CASCADE");
    recovers(&pair);

    administer(&server, "ALTER ROLE gateway CONNECTION LIMIT 0");
    hang_up(&server);
    ails(&pair, "too_many_connections");
    administer(&server, "ALTER ROLE gateway CONNECTION LIMIT -1");
    recovers(&pair);

    // Somebody's forgotten session holds what the gateway writes.
    while_locked(&server, || ails(&pair, "slow"));
    recovers(&pair);

    std::thread::scope(|threads| {
        let away = threads.spawn(|| server.restart("immediate", Duration::from_secs(12)));
        ails(&pair, "down");
        away.join().unwrap();
    });
    recovers(&pair);
    let said = pair.types(&format!("accounts renew {CLINIC}"));
    assert_eq!(said.code, 0, "what is written is written: {}", said.all());
}
