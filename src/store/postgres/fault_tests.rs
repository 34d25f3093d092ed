//! A database in trouble: reported within seconds, nothing done by halves, and over when it is over. And what
//! may stand before it: a pooler, TLS.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use tokio::sync::mpsc;

use super::PostgresStore;
use super::testing::{Database, ProxyMode, start};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, StoreUrl};
use crate::model::account::AccountState;
use crate::store::cluster::{ClusterStore, Lease, ReplicaId};
use crate::store::contract::{TestStore, at, grant, name, realm, store_contract, tokens};
use crate::store::unavailable::{StoreUnavailable, UnavailableKind};
use crate::store::{JournalEntry, Store, StoreError};

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn with_smile(database: &Database, url: &str) -> PostgresStore {
    let store = database.open_at(url, clock()).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store
}

async fn commit(store: &PostgresStore, expected: u64) -> Result<u64, StoreError> {
    store.commit_tokens(&name("smile"), &realm("global"), expected, &tokens("access", None, 20)).await
}

/// Unavailable, and reported before a caller times out.
async fn trouble(store: &PostgresStore) -> StoreUnavailable {
    let asked = Instant::now();
    let told = commit(store, 1).await.unwrap_err();
    // The longest time-out is 5 s; the rest is for a busy machine.
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    match told {
        StoreError::Unavailable(unavailable) => unavailable,
        other => panic!("{other:?}"),
    }
}

async fn administer(database: &Database, sql: &str) {
    let sql = sql.replace("$role", &database.name);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut database.shell().await).await.unwrap();
}

/// Ends the gateways' sessions, as a failover does.
async fn hang_up(database: &Database) {
    let sql =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = current_database()";
    database.tamper(sql).await;
}

#[tokio::test]
async fn a_database_that_is_down_is_told_at_once_and_works_again_when_it_is_up() {
    let database = Database::new().await;
    let (proxy, url) = database.behind_proxy().await;
    let store = with_smile(&database, &url).await;
    proxy.set(ProxyMode::Refuse);
    for _ in 0..3 {
        assert_eq!(trouble(&store).await.kind, UnavailableKind::Down);
        assert!(store.ping().await.is_err() && store.accounts().await.is_err());
    }
    proxy.set(ProxyMode::Forward);
    store.ping().await.unwrap();
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn a_network_that_swallows_everything_holds_nobody_up_for_long() {
    let database = Database::new().await;
    let (proxy, url) = database.behind_proxy().await;
    let store = with_smile(&database, &url).await;
    proxy.set(ProxyMode::Blackhole);
    // More at once than there are connections.
    let asked = Instant::now();
    let outcomes = futures_util::future::join_all((0..20).map(|_| store.ping())).await;
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable(_)))),
        "{outcomes:?}"
    );
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    proxy.set(ProxyMode::Forward);
    store.ping().await.unwrap();
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn one_call_finds_out_that_all_idle_connections_went_silent() {
    let database = Database::new().await;
    let (proxy, url) = database.behind_proxy().await;
    let store = with_smile(&database, &url).await;
    for outcome in futures_util::future::join_all((0..6).map(|_| store.ping())).await {
        outcome.unwrap();
    }
    proxy.set(ProxyMode::Blackhole);
    trouble(&store).await;
    proxy.set(ProxyMode::Forward);
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn a_failover_between_two_calls_is_not_even_felt() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    hang_up(&database).await;
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn a_row_that_somebody_holds_delays_a_commit_by_a_second_and_loses_nothing() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    let mut shell = database.shell().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE grants").execute(&mut shell).await.unwrap();
    let unavailable = trouble(&store).await;
    assert!(
        unavailable.kind == UnavailableKind::Slow && unavailable.to_string().contains("lock timeout"),
        "{unavailable}"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut shell).await.unwrap();
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

/// As a server answers that became a replica while the connection stood.
const READ_ONLY: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN RAISE EXCEPTION 'cannot execute UPDATE' USING ERRCODE = '25006'; END $$; \
    CREATE TRIGGER refuse BEFORE UPDATE ON grants FOR EACH ROW EXECUTE FUNCTION refuse()";

#[tokio::test]
async fn a_read_only_database_is_read_and_writes_are_taken_again_when_it_is_over() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    administer(&database, READ_ONLY).await;
    let unavailable = trouble(&store).await;
    assert!(
        unavailable.kind == UnavailableKind::ReadOnly && unavailable.to_string().contains("read-only"),
        "{unavailable}"
    );
    assert_eq!(store.accounts().await.unwrap().accounts.len(), 1, "reading goes on");
    administer(&database, "DROP TRIGGER refuse ON grants").await;
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

/// None of them is what a transaction of ours needs.
const ODD_DEFAULTS: [&str; 12] = [
    "default_transaction_isolation = serializable",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "idle_in_transaction_session_timeout = '50ms'",
    "lock_timeout = '1ms'",
    "search_path = nowhere",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'German'",
    "intervalstyle = 'iso_8601'",
    "bytea_output = escape",
];

#[tokio::test]
async fn whatever_the_servers_defaults_are_a_transaction_sets_what_it_needs() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    for default in ODD_DEFAULTS {
        administer(&database, &format!("ALTER ROLE $role SET {default}")).await;
    }
    hang_up(&database).await;
    let (_pooler, pooled) = database.behind_pooler().await;
    let reopened = database.open_at(&pooled, clock()).await.unwrap();
    for (number, store) in [&store, &reopened].into_iter().enumerate() {
        assert_eq!(commit(store, 1 + number as u64).await.unwrap(), 2 + number as u64);
        store.ping().await.unwrap();
        let mut tx = store.pool.begin().await.unwrap();
        let isolation: String =
            super::scalar("SHOW transaction_isolation").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(isolation, "read committed");
        tx.rollback().await.unwrap();
    }
}

/// By `replica` no trigger fires, and the other gateways hear of changes by triggers.
#[tokio::test]
async fn triggers_fire_whatever_role_in_replication_a_session_is_given() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    administer(&database, "ALTER ROLE $role SET session_replication_role = replica").await;
    hang_up(&database).await;
    let told = commit(&store, 1).await.unwrap_err();
    assert!(told.to_string().contains("session_replication_role"), "{told}");
    administer(&database, "ALTER ROLE $role SUPERUSER").await;
    let before = store.read_newest_change().await.unwrap();
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
    assert_eq!(store.read_changes(before).await.unwrap().accounts.len(), 1);
}

/// Between two of its statements the start reads and writes files.
#[tokio::test]
async fn a_start_outlives_the_servers_limit_for_idle_transactions() {
    let database = Database::new().await;
    administer(&database, "ALTER ROLE $role SET idle_in_transaction_session_timeout = '50ms'").await;
    let target = super::target::DatabaseTarget::parse(&database.url(), "store.url").unwrap();
    let mut connection = target.connect().await.unwrap();
    super::pool::begin(&mut connection, super::start::LIMITS, true).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let one: i32 = super::scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
}

/// The first two attempts at anything fail as they do when somebody else came in between.
const ROLLS_BACK_TWICE: &str = "CREATE SEQUENCE attempts MINVALUE -1000 START WITH 1; GRANT ALL ON SEQUENCE attempts TO $role; \
    CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
    IF nextval('genapi_gateway.attempts') <= 2 THEN RAISE EXCEPTION 'in between' USING ERRCODE = '$code'; END IF; RETURN NEW; END $$; \
    CREATE TRIGGER fail_twice BEFORE UPDATE ON grants FOR EACH ROW EXECUTE FUNCTION fail_twice()";

#[tokio::test]
async fn what_the_database_rolled_back_for_somebody_else_is_done_again() {
    for code in ["40001", "40P01"] {
        let database = Database::new().await;
        let store = with_smile(&database, &database.url()).await;
        administer(&database, &ROLLS_BACK_TWICE.replace("$code", code)).await;
        assert_eq!(commit(&store, 1).await.unwrap(), 2);
        // It does not go on for ever.
        administer(&database, "ALTER SEQUENCE attempts RESTART WITH -1000").await;
        let told = commit(&store, 2).await.unwrap_err();
        assert!(told.to_string().contains(code), "{told}");
    }
}

#[tokio::test]
async fn a_connection_limit_is_told_and_passes() {
    let database = Database::new().await;
    let store = with_smile(&database, &database.url()).await;
    hang_up(&database).await;
    administer(&database, "ALTER ROLE $role CONNECTION LIMIT 0").await;
    let unavailable = trouble(&store).await;
    assert!(unavailable.kind == UnavailableKind::TooManyConnections, "{unavailable}");
    assert!(unavailable.to_string().contains("too many connections"), "{unavailable}");
    administer(&database, "ALTER ROLE $role CONNECTION LIMIT -1").await;
    assert_eq!(commit(&store, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn a_gateway_holds_eight_connections_at_most_and_gives_them_back() {
    let database = Database::new().await;
    administer(&database, "ALTER ROLE $role CONNECTION LIMIT 8").await;
    let store = with_smile(&database, &database.url()).await;
    for outcome in futures_util::future::join_all((0..100).map(|_| store.ping())).await {
        outcome.unwrap();
    }
    store.close().await.unwrap();
    let other = database.open(clock()).await.unwrap();
    other.ping().await.unwrap();
}

/// The whole contract, with a pooler between that hands sessions around: two for everybody.
mod pooled {
    use super::*;
    use std::sync::Arc;

    async fn make(clock: Clock) -> TestStore {
        let database = Database::new().await;
        let (pooler, url) = database.behind_pooler().await;
        let store = Arc::new(database.open_at(&url, clock.clone()).await.unwrap());
        // It ends with the process; each test has one of its own.
        std::mem::forget(pooler);
        TestStore { store, clock, folder: Some(database.into_folder()) }
    }

    store_contract!(make);

    /// As the gateway opens it: calls go through the pooler, and only the ear goes around it.
    #[tokio::test]
    async fn a_listening_address_around_the_pooler_brings_notifications() {
        let database = Database::new().await;
        let (_pooler, pooled) = database.behind_pooler().await;
        let config = |listen_url: Option<String>| config::StoreConfig {
            url: StoreUrl::Postgres { url: pooled.clone(), listen_url },
            key: database.key(),
        };
        let clock = clock();
        let other = with_smile(&database, &pooled).await;
        let store = crate::store::open(&config(Some(database.url())), clock.clone()).await.unwrap();
        let (told, mut hears) = mpsc::channel(16);
        let seen = store.cluster().unwrap().newest_change().await.unwrap();
        let watching = tokio::spawn(async move { store.cluster().unwrap().watch(seen, told).await });
        clock.until_sleeping(1).await;
        other.set_state(&name("smile"), &AccountState::Paused).await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), [name("smile")], "the clock stands still, so nobody looked");
        drop(hears);
        watching.await.unwrap();
        let wrong = crate::store::open(&config(Some("nonsense".into())), clock.clone()).await;
        assert!(wrong.err().unwrap().to_string().contains("store.listen_url"));
    }

    #[tokio::test]
    async fn leases_and_changes_work_through_a_pooler_and_no_session_keeps_anything() {
        let database = Database::new().await;
        let (_pooler, url) = database.behind_pooler().await;
        let (one, other) =
            (with_smile(&database, &url).await, database.open_at(&url, clock()).await.unwrap());
        let (first, second) = (ReplicaId::new("a").unwrap(), ReplicaId::new("b").unwrap());
        let (smile, global, life) = (name("smile"), realm("global"), Duration::from_secs(60));
        let seen = other.newest_change().await.unwrap();
        assert_eq!(one.take_lease(&smile, &global, &first, 1, life).await.unwrap(), Lease::Taken);
        let told = other.take_lease(&smile, &global, &second, 1, life).await.unwrap();
        assert!(matches!(told, Lease::HeldBy { owner, .. } if owner == first));
        let line = JournalEntry { at: at(1), account: smile.clone(), event: "e".into(), detail: "d".into() };
        for generation in 1..20 {
            let brought = tokens("access", None, 20);
            let (committed, noted, loaded) = tokio::join!(
                one.commit_tokens(&smile, &global, generation, &brought),
                other.append_journal(line.clone()),
                other.accounts()
            );
            assert_eq!(committed.unwrap(), generation + 1);
            noted.unwrap();
            assert_eq!(loaded.unwrap().accounts.len(), 1);
        }
        assert_eq!(other.changes_since(seen).await.unwrap().accounts, [smile]);
        let kept: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database \
             WHERE locktype = 'advisory' AND datname = current_database()",
        )
        .fetch_one(&mut database.shell().await)
        .await
        .unwrap();
        assert_eq!(kept, 0);
    }
}

#[tokio::test]
async fn a_database_elsewhere_is_reached_by_tls_with_its_certificate_checked() {
    let port = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port()
    };
    let certificates = tempfile::tempdir().unwrap();
    let authority = certificates.path().join("ca.pem");
    let server = {
        let authority = authority.clone();
        tokio::task::spawn_blocking(move || {
            let settings = format!(
                "-h 127.0.0.1 -p {port} -c ssl=on -c ssl_cert_file=../server.pem -c ssl_key_file=../server.key"
            );
            start(&settings, |folder| make_certificates(folder, &authority))
        })
    };
    let _server = server.await.unwrap();
    let key = crate::config::SecretSource::File(certificates.path().join("gateway.key"));
    let open = async |host: &str, rest: &str| {
        let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode=verify-full{rest}");
        PostgresStore::open(&url, None, &key, &|_| None, clock()).await
    };
    let trusting = format!("&sslrootcert={}", authority.display());
    let store = open("127.0.0.1", &trusting).await.unwrap();
    let mut tx = store.pool.begin().await.unwrap();
    let encrypted: bool = super::scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert!(encrypted);
    for (host, rest) in [("127.0.0.1", ""), ("localhost", trusting.as_str())] {
        let Err(StoreError::Refused(why)) = open(host, rest).await else { panic!("{host}{rest}") };
        assert!(why.contains("TLS") && why.contains("sslrootcert"), "{why}");
    }
}

/// For 127.0.0.1 alone, signed by a CA of its own.
fn make_certificates(server: &std::path::Path, authority: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    std::fs::write(authority, ca_certificate.pem()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(server.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(server.join("server.key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(server.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
}
