//! What PostgreSQL owes beyond the contract: refusals at start, secrets, damage that stays small.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::testing::Database;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, SecretSource, StoreUrl};
use crate::store::contract::{
    TestStore, access, application_grant, at, grant, name, realm, store_contract, tokens,
};
use crate::store::migrate::Migratable;
use crate::store::sql::grants::{sealed_access, sealed_refresh};
use crate::store::{JournalEntry, NewGrant, PendingKind, PendingLogin, Store, StoreError};

async fn make(clock: Clock) -> TestStore {
    let database = Database::new().await;
    let store = Arc::new(database.open(clock.clone()).await.unwrap());
    TestStore { store, clock, folder: Some(database.into_folder()) }
}

store_contract!(make);

/// The whole contract on a schema that a newer gateway has added to: during an upgrade this one may even
/// start on it.
mod beside_a_newer_gateway {
    use super::*;

    const ADDS: &str = "ALTER TABLE accounts ADD COLUMN nickname text; \
        ALTER TABLE grants ADD COLUMN scope text NOT NULL DEFAULT 'openid'; \
        ALTER TABLE fallbacks ADD COLUMN why text; ALTER TABLE generations ADD COLUMN why text; \
        ALTER TABLE known_tokens ADD COLUMN since bigint; ALTER TABLE pending_logins ADD COLUMN who text; \
        ALTER TABLE journal ADD COLUMN who text NOT NULL DEFAULT ''; ALTER TABLE heartbeat ADD COLUMN who text; \
        ALTER TABLE leases ADD COLUMN why text; ALTER TABLE leaders ADD COLUMN why text; \
        ALTER TABLE changes ADD COLUMN why text; ALTER TABLE seal_keys ADD COLUMN made_at bigint; \
        ALTER TABLE application_grants ADD COLUMN scope text NOT NULL DEFAULT 'openid'; \
        ALTER TABLE revoked_application_grants ADD COLUMN why text; \
        ALTER TABLE last_seen ADD COLUMN uploads bigint NOT NULL DEFAULT 0; \
        ALTER TABLE last_seen DROP CONSTRAINT last_seen_kind_check; \
        INSERT INTO last_seen (kind, name, noted_at) VALUES ('group', 'clinics', now()); \
        CREATE TABLE reports (day date PRIMARY KEY); \
        INSERT INTO schema_versions (version, name, checksum, oldest_beside) VALUES (70, 'adds', '', 1)";

    async fn make(clock: Clock) -> TestStore {
        let database = Database::new().await;
        database.open(clock.clone()).await.unwrap();
        let mut shell = database.shell().await;
        sqlx::raw_sql(ADDS).execute(&mut shell).await.unwrap();
        let grants = format!("GRANT ALL ON reports TO {}", database.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&mut shell).await.unwrap();
        let store = Arc::new(database.open(clock.clone()).await.unwrap());
        TestStore { store, clock, folder: Some(database.into_folder()) }
    }

    store_contract!(make);

    #[tokio::test]
    async fn an_event_that_only_a_newer_gateway_knows_is_told_as_it_stands() {
        let subject = make(clock()).await;
        let line = JournalEntry {
            at: at(5),
            account: name("smile"),
            event: "an_event_of_tomorrow".into(),
            detail: "happened".into(),
        };
        subject.store.append_journal(line.clone()).await.unwrap();
        assert_eq!(subject.store.journal(None, 10).await.unwrap(), [line]);
    }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

/// With a store in it, closed again.
async fn made() -> Database {
    let database = Database::new().await;
    database.open(clock()).await.unwrap();
    database
}

fn login(kind: PendingKind, payload: &str) -> PendingLogin {
    PendingLogin { id: [1; 32], kind, expires_at: at(2_000_000), payload: payload.into() }
}

#[tokio::test]
async fn one_gateway_sees_what_another_did_and_a_restart_loses_nothing() {
    let database = Database::new().await;
    let (one, other) = (database.open(clock()).await.unwrap(), database.open(clock()).await.unwrap());
    one.put_grant(NewGrant { access: Some(access("access", 99)), ..grant("smile", "global", 1) })
        .await
        .unwrap();
    one.note_intent(&name("smile"), &realm("global"), at(30)).await.unwrap();
    one.put_login(login(PendingKind::State, "begun at one")).await.unwrap();
    let line =
        JournalEntry { at: at(1), account: name("smile"), event: "paired".into(), detail: "by hand".into() };
    one.append_journal(line.clone()).await.unwrap();
    let before = one.accounts().await.unwrap();
    drop(one);
    assert_eq!(other.accounts().await.unwrap(), before);
    assert_eq!(other.journal(None, 5).await.unwrap(), [line]);
    let taken = other.take_login([1; 32], PendingKind::State, at(5)).await.unwrap();
    assert_eq!(taken, Some(login(PendingKind::State, "begun at one")));
}

#[tokio::test]
async fn two_gateways_that_start_on_an_empty_database_agree() {
    let database = Database::new().await;
    fs::write(database.file("gateway.key"), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n").unwrap();
    fs::set_permissions(database.file("gateway.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let opened = futures_util::future::join_all((0..4).map(|_| database.open(clock()))).await;
    for store in &opened {
        store.as_ref().unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn no_secret_stands_readable_in_the_database() {
    let database = Database::new().await;
    let store = database.open(clock()).await.unwrap();
    store
        .put_grant(NewGrant { access: Some(access("canary-access-0", 99)), ..grant("smile", "global", 1) })
        .await
        .unwrap();
    let brought = tokens("canary-access-1", Some("canary-refresh-1"), 20);
    store.commit_tokens(&name("smile"), &realm("global"), 1, &brought).await.unwrap();
    store.put_login(login(PendingKind::Choice, "canary-payload")).await.unwrap();
    let mut shell = database.shell().await;
    let mut all = String::new();
    for table in ["accounts", "grants", "pending_logins", "seal_keys", "known_tokens", "changes"] {
        let sql = format!(
            "SELECT string_agg(encode(convert_to(t::text, 'UTF8'), 'hex') || t::text, ' ') FROM {table} t"
        );
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut shell).await.unwrap();
        all.push_str(&rows);
    }
    let hex = hex::encode("canary-");
    assert!(all.contains("smile"), "the scan reads what it should");
    assert!(!all.contains("canary-") && !all.contains(&hex), "a secret is readable");
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_start_even_where_the_proof_was_taken_away() {
    let (database, stranger) = (made().await, made().await);
    fs::copy(stranger.file("gateway.key"), database.file("gateway.key")).unwrap();
    let why = database.refusal().await;
    assert!(why.contains("the key does not belong to the database t"), "{why}");

    let database = made().await;
    let store = database.open(clock()).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    database.tamper("DELETE FROM seal_keys").await;
    fs::copy(stranger.file("gateway.key"), database.file("gateway.key")).unwrap();
    assert!(database.refusal().await.contains("the key does not belong to"));
}

#[tokio::test]
async fn a_second_machine_without_the_key_is_refused_and_makes_none() {
    let database = made().await;
    fs::remove_file(database.file("gateway.key")).unwrap();
    let why = database.refusal().await;
    assert!(why.contains("gateway.key is missing"), "{why}");
    assert!(!database.file("gateway.key").exists());
}

#[tokio::test]
async fn a_newer_schema_is_used_where_it_allows_that_and_refused_where_it_does_not() {
    let database = made().await;
    database
        .tamper("INSERT INTO schema_versions (version, name, checksum, oldest_beside) VALUES (70, 'adds a column', '', 1)")
        .await;
    database.open(clock()).await.unwrap().ping().await.unwrap();
    database.tamper("UPDATE schema_versions SET oldest_beside = 69 WHERE version = 70").await;
    let why = database.refusal().await;
    assert!(
        why.contains("newer gateway (schema 70, which works beside 69 or newer; this one knows 7)"),
        "{why}"
    );
}

/// Sets the schema back by its fourth step.
const BEFORE_APPLICATION_LOGINS: &str = "DROP TABLE revoked_application_grants; \
    ALTER TABLE application_grants DROP COLUMN generation, DROP COLUMN callback_url_sealed; \
    ALTER TABLE pending_logins DROP CONSTRAINT pending_logins_kind_check; \
    ALTER TABLE pending_logins ADD CONSTRAINT pending_logins_kind_check \
        CHECK (kind IN ('start', 'state', 'choice')); \
    DELETE FROM schema_versions WHERE version = 4";

#[tokio::test]
async fn a_database_of_before_application_logins_keeps_its_logins_and_grants_and_takes_new_ones() {
    let database = made().await;
    let granted = application_grant("oldpms", "smile", "of ours");
    {
        let store = database.open(clock()).await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap();
        store.put_application_grant(&granted).await.unwrap();
        store.put_login(login(PendingKind::Choice, "begun before")).await.unwrap();
    }
    database.tamper(BEFORE_APPLICATION_LOGINS).await;
    let store = database.open(clock()).await.unwrap();
    assert_eq!(store.pending_logins().await.unwrap(), [login(PendingKind::Choice, "begun before")]);
    assert_eq!(store.application_grants(None).await.unwrap(), [granted]);
    let bundle = store.bundle(&name("smile")).await.unwrap();
    assert_eq!(bundle.application_grants[0].generation, 1);
    let newer = login(PendingKind::ApplicationLogin, "begun by an application");
    store.put_login(newer.clone()).await.unwrap();
    assert_eq!(store.take_login([1; 32], newer.kind, at(5)).await.unwrap(), Some(newer));
}

#[tokio::test]
async fn a_database_of_before_application_grants_keeps_its_accounts_and_takes_them() {
    let database = made().await;
    let before = {
        let store = database.open(clock()).await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap()
    };
    let sql = "DROP TABLE application_grants; DELETE FROM schema_versions WHERE version = 3";
    database.tamper(&format!("{BEFORE_APPLICATION_LOGINS}; {sql}")).await;
    let store = database.open(clock()).await.unwrap();
    assert_eq!(store.account(&before.name).await.unwrap(), Some(before));
    let first = application_grant("oldpms", "smile", "first");
    assert_eq!(store.put_application_grant(&first).await.unwrap(), first);
}

/// What the program of before its fourth step does to rows of this one, statement by statement.
#[tokio::test]
async fn an_older_gateway_beside_this_one_brings_no_revoked_grant_back() {
    let database = made().await;
    let store = database.open(clock()).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    for caller in ["labsync", "oldpms"] {
        store.put_application_grant(&application_grant(caller, "smile", "of ours")).await.unwrap();
    }
    assert!(store.remove_application_grant("oldpms", &name("smile")).await.unwrap());
    let rows: i64 = super::scalar("SELECT count(*) FROM application_grants WHERE caller = 'oldpms'")
        .fetch_one(&mut database.shell().await)
        .await
        .unwrap();
    assert_eq!(rows, 0, "it finds none");
    database
        .tamper(
            "INSERT INTO application_grants (account, caller, refresh_sealed) \
             SELECT account, 'oldpms', refresh_sealed FROM application_grants",
        )
        .await;
    database.tamper("DELETE FROM application_grants WHERE caller = 'labsync'").await;
    let bundle = store.bundle(&name("smile")).await.unwrap();
    let [issued] = &bundle.application_grants[..] else { panic!("{bundle:?}") };
    assert_eq!((&*issued.caller, issued.generation), ("oldpms", 3), "above the revocation");
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_refused() {
    let changed = made().await;
    changed.tamper("UPDATE schema_versions SET checksum = ''").await;
    assert!(changed.refusal().await.contains("step 1 of the schema"));

    let foreign = Database::new().await;
    let role = &foreign.name;
    let sql = format!(
        "CREATE SCHEMA genapi_gateway AUTHORIZATION {role}; CREATE TABLE genapi_gateway.notes (text text)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut foreign.shell().await).await.unwrap();
    assert!(foreign.refusal().await.contains("another program's tables"));
}

#[tokio::test]
async fn a_role_that_may_make_no_schema_takes_one_that_was_made_for_it() {
    let database = Database::new().await;
    let role = &database.name;
    let mut shell = database.shell().await;
    let sql = format!("ALTER DATABASE {role} OWNER TO postgres; REVOKE ALL ON DATABASE {role} FROM {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut shell).await.unwrap();
    let why = database.refusal().await;
    assert!(why.contains("permission denied"), "{why}");
    let sql = format!("CREATE SCHEMA genapi_gateway AUTHORIZATION {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut shell).await.unwrap();
    database.open(clock()).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn who_is_not_let_in_is_told_at_once_and_without_the_password() {
    let database = made().await;
    let url = database.url().replace(&format!("//{}@", database.name), "//nobody:s3cret@");
    let Err(StoreError::Refused(why)) = database.open_at(&url, clock()).await else { panic!("it opened") };
    assert!(why.contains("nobody") && !why.contains("s3cret"), "{why}");
    let config = config::StoreConfig {
        url: StoreUrl::Postgres { url: "postgres://u:s3cret@127.0.0.1:1/gateway".into(), listen_url: None },
        key: SecretSource::Env("KEY".into()),
    };
    let trouble = crate::store::open(&config, clock()).await.err().unwrap();
    let StoreError::Unavailable(unavailable) = trouble else { panic!("{trouble}") };
    let why = unavailable.to_string();
    assert!(why.contains("127.0.0.1:1") && !why.contains("s3cret"), "{why}");
}

#[tokio::test]
async fn a_tampered_record_refuses_its_account_and_no_other_until_a_new_grant_mends_it() {
    for sql in [
        "UPDATE grants SET refresh_sealed = decode(repeat('00', 60), 'hex') WHERE account = 'b'",
        "UPDATE grants SET refresh_sealed = (SELECT refresh_sealed FROM grants WHERE account = 'a') WHERE account = 'b'",
        "UPDATE grants SET generation = 5, obtained_at = -1 WHERE account = 'b'",
        "UPDATE grants SET account_id = 'x' WHERE account = 'b'",
        "DELETE FROM grants WHERE account = 'b'",
        "UPDATE accounts SET current_realm = 'gone' WHERE name = 'b'",
    ] {
        let database = Database::new().await;
        let store = database.open(clock()).await.unwrap();
        for (account, id) in [("a", 1), ("b", 2), ("c", 3)] {
            store.put_grant(grant(account, "global", id)).await.unwrap();
        }
        database.tamper(sql).await;
        let loaded = store.accounts().await.unwrap();
        let intact: Vec<_> = loaded.accounts.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(intact, ["a", "c"], "{sql}");
        assert_eq!(loaded.broken.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"], "{sql}");
        let refusal = store.account(&name("b")).await.unwrap_err();
        assert!(
            matches!(&refusal, StoreError::Unsealable { account, .. } if *account == name("b")),
            "{refusal}"
        );
        store.put_grant(NewGrant { make_current: true, ..grant("b", "global", 2) }).await.unwrap();
        assert_eq!(store.accounts().await.unwrap().accounts.len(), 3, "{sql}");
    }
}

#[tokio::test]
async fn the_journal_cannot_be_rewritten() {
    let database = Database::new().await;
    let store = database.open(clock()).await.unwrap();
    let line = JournalEntry { at: at(1), account: name("a"), event: "paired".into(), detail: "d".into() };
    store.append_journal(line).await.unwrap();
    for sql in ["UPDATE journal SET detail = 'x'", "DELETE FROM journal"] {
        let refusal = sqlx::raw_sql(sql).execute(&mut database.shell().await).await.unwrap_err();
        assert!(refusal.to_string().contains("append-only"), "{refusal}");
    }
}

#[tokio::test]
async fn of_two_gateways_that_pair_one_account_under_two_names_one_is_refused() {
    let database = Database::new().await;
    let stores = [database.open(clock()).await.unwrap(), database.open(clock()).await.unwrap()];
    for id in 1..=10 {
        let (one, other) =
            (grant(&format!("one{id}"), "global", id), grant(&format!("other{id}"), "global", id));
        let outcomes = tokio::join!(stores[0].put_grant(one), stores[1].put_grant(other));
        let (made, refused) = match outcomes {
            (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
            both => panic!("{both:?}"),
        };
        assert!(matches!(refused, StoreError::GrantTaken { held_by, .. } if held_by == made.name));
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let database = Database::new().await;
    let store = database.open(clock()).await.unwrap();
    for turns in 0..40 {
        let mut put = store.put_grant(grant("smile", "global", 1));
        for _ in 0..turns {
            let polled =
                std::future::poll_fn(|context| std::task::Poll::Ready(put.as_mut().poll(context))).await;
            if polled.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(put);
        store.put_grant(grant("lab", "global", 2)).await.unwrap();
        let loaded = store.accounts().await.unwrap();
        assert!(loaded.broken.is_empty() && loaded.accounts[0].name == name("lab"), "{loaded:?}");
    }
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_although_the_server_was_told_not_to() {
    let database = Database::new().await;
    let sql = format!("ALTER ROLE {} SET synchronous_commit = off", database.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database.shell().await).await.unwrap();
    let store = database.open(clock()).await.unwrap();
    let mut tx = store.pool.begin().await.unwrap();
    let setting: String =
        super::scalar("SELECT current_setting('synchronous_commit')").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(setting, "on");
}

#[tokio::test]
async fn ten_thousand_accounts_load_in_one_go() {
    let database = Database::new().await;
    let store = database.open(clock()).await.unwrap();
    fill(&store, 10_000).await;
    let started = Instant::now();
    let loaded = store.accounts().await.unwrap();
    let took = started.elapsed();
    assert_eq!((loaded.accounts.len(), loaded.broken.len()), (10_000, 0));
    // Unoptimised and on a busy machine; a query per account would take minutes.
    println!("10000 accounts in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// In two statements, each row sealed for its own place.
async fn fill(store: &super::PostgresStore, count: u64) {
    let (mut names, mut refresh, mut bearers) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let account = name(&format!("a{number}"));
        let put = grant(account.as_str(), "global", number);
        refresh.push(sealed_refresh(&store.keys, &account, &put.realm, &put.refresh).unwrap());
        let bearer = access(&"a".repeat(1500), 99);
        bearers.push(sealed_access(&store.keys, &account, &put.realm, Some(&bearer)).unwrap().unwrap());
        names.push(account.as_str().to_owned());
    }
    let mut tx = store.pool.begin_long().await.unwrap();
    super::query("INSERT INTO accounts (name, current_realm, state) SELECT name, 'global', 'ready' FROM unnest($1::text[]) AS name")
        .bind(names.clone())
        .execute(&mut *tx)
        .await
        .unwrap();
    super::query(
        "INSERT INTO grants (account, realm, account_id, generation, first_generation, refresh_sealed, access_sealed, access_expires_at, \
         obtained_at) SELECT name, 'global', number, 1, 1, refresh, access, 99, 10 \
         FROM unnest($1::text[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS given (name, refresh, access, number)",
    )
    .bind(names)
    .bind(refresh)
    .bind(bearers)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

/// By the database's clock: two days from now, and where a token ends that came then.
const TWO_DAYS: u64 = 2 * 86_400_000;

#[tokio::test]
async fn stored_moments_that_lie_in_the_future_come_down_to_now_once() {
    let database = Database::new().await;
    let clock = Clock::system();
    let store = database.open(clock.clone()).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let mut fresh = tokens("access", None, 20);
    fresh.refreshed_at = clock.now() + Duration::from_millis(TWO_DAYS);
    fresh.access.expires_at = fresh.refreshed_at + Duration::from_secs(3600);
    store.commit_tokens(&name("smile"), &realm("global"), 1, &fresh).await.unwrap();
    let believed = async || {
        let record = store.account(&name("smile")).await.unwrap().unwrap();
        let grant = record.current_grant().unwrap().clone();
        (grant.refreshed_at.unwrap(), grant.access.unwrap().expires_at)
    };
    let (refreshed_at, ends) = believed().await;
    assert!(
        refreshed_at <= clock.now() && ends <= clock.now() + Duration::from_secs(3600),
        "read as if set down"
    );
    let brought_down = store.clamp_future_times().await.unwrap();
    assert_eq!(brought_down.len(), 1);
    assert!(brought_down[0].by > Duration::from_millis(TWO_DAYS - 60_000), "{brought_down:?}");
    let set = believed().await;
    assert!(set.0 <= clock.now() && set.1 == set.0 + Duration::from_secs(3600), "{set:?}");
    assert_eq!(store.clamp_future_times().await.unwrap(), []);
    assert_eq!(believed().await, set, "it does not move along");
}

#[tokio::test]
async fn of_two_gateways_whose_clocks_are_five_minutes_apart_the_databases_time_is_both_ones() {
    let database = Database::new().await;
    let (ahead, behind) = (Clock::wrong_by(300_000), Clock::wrong_by(-300_000));
    let one = database.open(ahead.clone()).await.unwrap();
    let other = database.open(behind.clone()).await.unwrap();
    let apart = ahead.now().as_millis().abs_diff(behind.now().as_millis());
    assert!(apart < 5000, "{apart} ms");
    one.put_grant(NewGrant { at: ahead.now(), ..grant("smile", "global", 1) }).await.unwrap();
    let record = other.account(&name("smile")).await.unwrap().unwrap();
    let obtained_at = record.current_grant().unwrap().obtained_at;
    assert!(behind.now().since(obtained_at) < Duration::from_secs(60) && obtained_at <= behind.now());
}
