//! What SQLite owes beyond the contract: refusals at start, secrets on the disk, damage that stays small,
//! trouble that passes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::SqliteStore;
use crate::clock::{Clock, Timestamp};
use crate::config::SecretSource;
use crate::store::contract::{
    TestStore, access, application_grant, at, grant, name, realm, route, store_contract, tokens,
};
use crate::store::migrate::Migratable;
use crate::store::unavailable::UnavailableKind;
use crate::store::{JournalEntry, NewGrant, PendingKind, PendingLogin, Store, StoreError};

/// A folder with a database and its key.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// With a database in it, closed again: files can be changed at leisure.
    async fn made() -> Self {
        let home = Self::new();
        home.open().await.unwrap().close().await.unwrap();
        home
    }

    async fn open(&self) -> Result<SqliteStore, StoreError> {
        let key = SecretSource::File(self.file("gateway.key"));
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        SqliteStore::open(&self.file("gateway.db"), &key, &|_| None, clock).await
    }

    /// What `open` refuses, in words.
    async fn refusal(&self) -> String {
        match self.open().await {
            Ok(_) => panic!("it opened"),
            Err(StoreError::Refused(why) | StoreError::InUse(why)) => why,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The way in of somebody with a SQLite shell.
    async fn shell(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.file("gateway.db")).connect().await.unwrap()
    }

    async fn tamper(&self, sql: &'static str) {
        let changed = sqlx::raw_sql(sql).execute(&mut self.shell().await).await.unwrap();
        assert!(changed.rows_affected() > 0, "{sql}");
    }
}

async fn make(clock: Clock) -> TestStore {
    let home = Home::new();
    let key = SecretSource::File(home.file("gateway.key"));
    let store = SqliteStore::open(&home.file("gateway.db"), &key, &|_| None, clock.clone()).await.unwrap();
    TestStore { store: Arc::new(store), clock, folder: Some(home.0) }
}

store_contract!(make);

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    let put = NewGrant {
        access: Some(access("access", 99)),
        route: Some(route("https://eu.example.com")),
        ..grant("smile", "global", 1)
    };
    store.put_grant(put).await.unwrap();
    store.note_intent(&name("smile"), &realm("global"), at(30)).await.unwrap();
    let login = PendingLogin {
        id: [1; 32],
        kind: PendingKind::Start,
        expires_at: at(2_000_000),
        payload: "invited".into(),
    };
    store.put_login(login.clone()).await.unwrap();
    let line =
        JournalEntry { at: at(1), account: name("smile"), event: "paired".into(), detail: "by hand".into() };
    store.append_journal(line.clone()).await.unwrap();
    let before = store.accounts().await.unwrap();
    drop(store);

    let store = home.open().await.unwrap();
    assert_eq!(store.accounts().await.unwrap(), before);
    assert_eq!(store.take_login([1; 32], PendingKind::Start, at(5)).await.unwrap(), Some(login));
    assert_eq!(store.journal(None, 5).await.unwrap(), [line]);
}

#[tokio::test]
async fn no_secret_stands_readable_in_any_file() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    let put = NewGrant { access: Some(access("canary-access-0", 99)), ..grant("smile", "global", 1) };
    store
        .put_grant(NewGrant { refresh: crate::model::token::RefreshToken::new("canary-refresh-0"), ..put })
        .await
        .unwrap();
    let brought = tokens("canary-access-1", Some("canary-refresh-1"), 20);
    store.commit_tokens(&name("smile"), &realm("global"), 1, &brought).await.unwrap();
    let login = PendingLogin {
        id: [1; 32],
        kind: PendingKind::Choice,
        expires_at: at(2_000_000),
        payload: "canary-payload".into(),
    };
    store.put_login(login).await.unwrap();

    let scan = || {
        let mut bytes = Vec::new();
        for entry in fs::read_dir(home.0.path()).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
            bytes.extend(fs::read(path).unwrap());
        }
        let found = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(found("smile"), "the scan reads what it should");
        assert!(!found("canary-"), "a secret is readable");
    };
    assert!(home.file("gateway.db-wal").exists() && home.file("gateway.db-shm").exists());
    scan();
    store.close().await.unwrap();
    assert!(!home.file("gateway.db-wal").exists(), "folded into the main file");
    scan();
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_start_and_both_keys_are_named() {
    let home = Home::made().await;
    let stranger = Home::made().await;
    fs::copy(stranger.file("gateway.key"), home.file("gateway.key")).unwrap();
    let why = home.refusal().await;
    assert!(why.contains("the key does not belong to") && why.contains("gateway.db"), "{why}");
}

#[tokio::test]
async fn a_wrong_key_is_refused_even_where_the_proof_was_taken_away() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    home.tamper("DELETE FROM seal_keys").await;
    let why = home.refusal().await;
    assert!(why.contains("the key does not belong to"), "{why}");
}

#[tokio::test]
async fn a_changed_proof_is_refused() {
    let home = Home::made().await;
    home.tamper("UPDATE seal_keys SET canary_sealed = zeroblob(60)").await;
    let why = home.refusal().await;
    assert!(why.contains("does not open"), "{why}");
}

#[tokio::test]
async fn a_new_key_before_the_old_one_seals_from_now_on_and_the_old_one_still_opens() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    drop(store);
    let stranger = Home::made().await;
    let keys = [stranger.file("gateway.key"), home.file("gateway.key")]
        .map(|file| fs::read_to_string(file).unwrap());
    fs::write(home.file("gateway.key"), keys.concat()).unwrap();

    let store = home.open().await.unwrap();
    store.put_grant(grant("lab", "global", 2)).await.unwrap();
    let brought = tokens("access", None, 20);
    store.commit_tokens(&name("smile"), &realm("global"), 1, &brought).await.unwrap();
    assert_eq!(store.accounts().await.unwrap().accounts.len(), 2);
    drop(store);

    fs::write(home.file("gateway.key"), &keys[0]).unwrap();
    let loaded = home.open().await.unwrap().accounts().await.unwrap();
    assert_eq!(loaded.accounts.len(), 1);
    let [(account, why)] = &loaded.broken[..] else { panic!("{loaded:?}") };
    assert!(*account == name("smile") && why.contains("which is not held"), "{why}");
}

#[tokio::test]
async fn loose_permissions_of_the_key_are_refused_and_those_of_the_database_tightened() {
    let home = Home::made().await;
    let set = |file: &str, mode| {
        fs::set_permissions(home.file(file), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("gateway.key", 0o644);
    let why = home.refusal().await;
    assert!(why.contains("type: chmod 600") && why.contains("gateway.key"), "{why}");
    set("gateway.key", 0o600);
    set("gateway.db", 0o666);
    let _store = home.open().await.unwrap();
    assert_eq!(fs::metadata(home.file("gateway.db")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_missing_key_beside_an_old_database_is_refused_and_a_missing_folder_too() {
    let home = Home::made().await;
    fs::remove_file(home.file("gateway.key")).unwrap();
    let why = home.refusal().await;
    assert!(why.contains("gateway.key is missing"), "{why}");
    assert!(!home.file("gateway.key").exists());

    let key = SecretSource::File(home.file("gateway.key"));
    let opened =
        SqliteStore::open(&home.file("no/gateway.db"), &key, &|_| None, Clock::system()).await.err().unwrap();
    assert!(opened.to_string().contains("the folder"), "{opened}");
}

#[tokio::test]
async fn a_second_opener_is_refused_while_the_first_lives_even_through_a_link() {
    let home = Home::new();
    let first = home.open().await.unwrap();
    std::os::unix::fs::symlink(home.file("gateway.db"), home.file("link.db")).unwrap();
    let key = SecretSource::File(home.file("gateway.key"));
    for name in ["gateway.db", "link.db"] {
        let second = SqliteStore::open(&home.file(name), &key, &|_| None, Clock::system()).await;
        let why = second.err().unwrap().to_string();
        assert!(why.contains(&format!("process {}", std::process::id())), "{why}");
    }
    first.ping().await.unwrap();
    drop(first);
    home.open().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let home = Home::made().await;
    home.tamper(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (70, 'later', true, x'00', 0)",
    )
    .await;
    let why = home.refusal().await;
    assert!(why.contains("newer gateway (schema 70; this one knows 10)"), "{why}");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let garbage = Home::made().await;
    fs::write(garbage.file("gateway.db"), "no database ".repeat(1000)).unwrap();
    let why = garbage.refusal().await;
    assert!(why.contains("damaged"), "{why}");

    let foreign = Home::made().await;
    fs::remove_file(foreign.file("gateway.db")).unwrap();
    sqlx::raw_sql("CREATE TABLE notes (text TEXT)")
        .execute(
            &mut SqliteConnectOptions::new()
                .filename(foreign.file("gateway.db"))
                .create_if_missing(true)
                .connect()
                .await
                .unwrap(),
        )
        .await
        .unwrap();
    let why = foreign.refusal().await;
    assert!(why.contains("another program's"), "{why}");
}

#[tokio::test]
async fn a_log_without_its_database_is_refused_rather_than_thrown_away() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let wal = fs::read(home.file("gateway.db-wal")).unwrap();
    let other = Home::new();
    fs::write(other.file("gateway.db-wal"), wal).unwrap();
    fs::copy(home.file("gateway.key"), other.file("gateway.key")).unwrap();
    let why = other.refusal().await;
    assert!(why.contains("gateway.db-wal is there without"), "{why}");
}

#[tokio::test]
async fn a_stored_token_that_cannot_stand_on_the_wire_is_none_and_the_grant_stays() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    let injected = Some(access("a\r\nX-Other: y", 5_000_000));
    store.put_grant(NewGrant { access: injected, ..grant("smile", "global", 1) }).await.unwrap();
    let read = store.account(&name("smile")).await.unwrap().unwrap();
    assert_eq!(read.grants[0].access, None);
    assert_eq!(read.grants[0].refresh.expose(), "refresh-smile-global");
}

#[tokio::test]
async fn a_tampered_record_refuses_its_account_and_no_other_until_a_new_grant_mends_it() {
    for sql in [
        "UPDATE grants SET refresh_sealed = zeroblob(60) WHERE account = 'b'",
        "UPDATE grants SET refresh_sealed = (SELECT refresh_sealed FROM grants WHERE account = 'a') WHERE account = 'b'",
        "UPDATE grants SET access_sealed = (SELECT refresh_sealed FROM grants WHERE account = 'b'), access_expires_at = 1 WHERE account = 'b'",
        "UPDATE grants SET generation = 5, obtained_at = -1 WHERE account = 'b'",
        "UPDATE grants SET account_id = 'x' WHERE account = 'b'",
        "UPDATE grants SET route_domain = cast(x'ff' AS TEXT), route_path = '/', route_discovered_at = 1 WHERE account = 'b'",
        "DELETE FROM grants WHERE account = 'b'",
        "UPDATE accounts SET current_realm = 'gone' WHERE name = 'b'",
    ] {
        let home = Home::new();
        let store = home.open().await.unwrap();
        for (account, id) in [("a", 1), ("b", 2), ("c", 3)] {
            store.put_grant(grant(account, "global", id)).await.unwrap();
        }
        store.close().await.unwrap();
        drop(store);
        home.tamper(sql).await;

        let store = home.open().await.unwrap();
        let loaded = store.accounts().await.unwrap();
        let intact: Vec<_> = loaded.accounts.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(intact, ["a", "c"], "{sql}");
        assert_eq!(loaded.broken.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"], "{sql}");
        let refusal = store.account(&name("b")).await.unwrap_err();
        assert!(
            matches!(&refusal, StoreError::Unsealable { account, .. } if *account == name("b")),
            "{refusal}"
        );
        assert!(store.account(&name("a")).await.unwrap().is_some());

        store.put_grant(NewGrant { make_current: true, ..grant("b", "global", 2) }).await.unwrap();
        assert_eq!(store.accounts().await.unwrap().accounts.len(), 3, "{sql}");
    }
}

#[tokio::test]
async fn a_tampered_application_grant_is_left_out_and_the_next_one_takes_its_place() {
    let home = Home::made().await;
    let offered = |caller: &str, token: &str| application_grant(caller, "smile", token);
    {
        let store = home.open().await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap();
        for caller in ["labsync", "oldpms"] {
            store.put_application_grant(&offered(caller, "first")).await.unwrap();
        }
    }
    home.tamper("UPDATE application_grants SET refresh_sealed = zeroblob(60) WHERE caller = 'oldpms'").await;
    let store = home.open().await.unwrap();
    assert_eq!(store.application_grants(None).await.unwrap(), [offered("labsync", "first")]);
    let next = offered("oldpms", "next");
    assert_eq!(store.put_application_grant(&next).await.unwrap(), next);
    assert_eq!(store.application_grants(None).await.unwrap(), [offered("labsync", "first"), next]);
    assert_eq!(generations(&store, "smile").await, [("labsync".into(), 1), ("oldpms".into(), 2)]);
}

/// Of the account's grants for applications.
async fn generations(store: &SqliteStore, account: &str) -> Vec<(String, u64)> {
    let records = store.bundle(&name(account)).await.unwrap().application_grants;
    records.into_iter().map(|record| (record.caller, record.generation)).collect()
}

#[tokio::test]
async fn an_application_grant_that_cannot_be_read_ends_where_its_account_gets_another_name() {
    let home = Home::made().await;
    {
        let store = home.open().await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap();
        for caller in ["labsync", "oldpms"] {
            store.put_application_grant(&application_grant(caller, "smile", "of ours")).await.unwrap();
        }
    }
    home.tamper("UPDATE application_grants SET refresh_sealed = zeroblob(60) WHERE caller = 'oldpms'").await;
    let store = home.open().await.unwrap();
    assert!(!store.set_callback_url("oldpms", &name("smile"), Some("https://pms/a")).await.unwrap());
    store.rename_account(&name("smile"), &name("grin")).await.unwrap();
    let held = store.application_grants(None).await.unwrap();
    assert_eq!(held, [application_grant("labsync", "grin", "of ours")]);
    assert_eq!(generations(&store, "grin").await, [("labsync".into(), 1), ("oldpms".into(), 2)]);
    let [line] = &store.journal(None, 10).await.unwrap()[..] else { panic!("one line is written") };
    assert_eq!((&line.account, &*line.event), (&name("grin"), "application_detached"));
    assert!(line.detail.contains("oldpms") && line.detail.contains("smile"), "{line:?}");
    assert!(store.rotate_key().await.unwrap().broken.is_empty(), "nothing holds a new key up");
}

#[tokio::test]
async fn a_database_of_before_application_grants_keeps_its_accounts_and_takes_them() {
    let home = Home::made().await;
    let before = {
        let store = home.open().await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap()
    };
    home.tamper(
        "DROP TABLE revoked_application_grants; DROP TABLE application_grants; \
         ALTER TABLE accounts DROP COLUMN is_test; ALTER TABLE accounts DROP COLUMN api_version; \
         ALTER TABLE accounts DROP COLUMN moving_to; \
         DELETE FROM _sqlx_migrations WHERE version >= 6",
    )
    .await;
    let store = home.open().await.unwrap();
    assert_eq!(store.account(&before.name).await.unwrap(), Some(before));
    let first = application_grant("oldpms", "smile", "first");
    assert_eq!(store.put_application_grant(&first).await.unwrap(), first);
}

#[tokio::test]
async fn a_database_of_before_moves_keeps_its_accounts_and_takes_them() {
    let home = Home::made().await;
    let before = home.open().await.unwrap().put_grant(grant("smile", "old", 1)).await.unwrap();
    home.tamper(
        "ALTER TABLE accounts DROP COLUMN moving_to; DELETE FROM _sqlx_migrations WHERE version = 10",
    )
    .await;
    let store = home.open().await.unwrap();
    assert_eq!(store.account(&before.name).await.unwrap().as_ref(), Some(&before));
    let global = "global".parse().unwrap();
    store.set_moving(&before.name, Some(&global)).await.unwrap();
    assert_eq!(store.account(&before.name).await.unwrap().unwrap().moving_to, Some(global));
}

/// Sets the schema back by its seventh step.
const BEFORE_APPLICATION_LOGINS: &str = "DROP TABLE revoked_application_grants; \
    ALTER TABLE application_grants DROP COLUMN generation; \
    ALTER TABLE application_grants DROP COLUMN callback_url_sealed; \
    CREATE TABLE older (id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 32), \
        kind TEXT NOT NULL CHECK (kind IN ('start', 'state', 'choice')), \
        expires_at INTEGER NOT NULL, payload_sealed BLOB NOT NULL) STRICT; \
    INSERT INTO older SELECT * FROM pending_logins; \
    DROP TABLE pending_logins; ALTER TABLE older RENAME TO pending_logins; \
    CREATE INDEX pending_logins_by_expiry ON pending_logins (expires_at); \
    DELETE FROM _sqlx_migrations WHERE version = 7";

#[tokio::test]
async fn a_database_of_before_application_logins_keeps_its_logins_and_grants_and_takes_new_ones() {
    let home = Home::made().await;
    let login = |id: u8, kind| PendingLogin {
        id: [id; 32],
        kind,
        expires_at: at(2_000_000),
        payload: format!("login {id}"),
    };
    let kinds = [PendingKind::Start, PendingKind::State, PendingKind::Choice];
    let older: Vec<_> = (1..).zip(kinds).map(|(id, kind)| login(id, kind)).collect();
    let granted = ["labsync", "oldpms"].map(|caller| application_grant(caller, "smile", "of ours"));
    {
        let store = home.open().await.unwrap();
        store.put_grant(grant("smile", "global", 1)).await.unwrap();
        for grant in &granted {
            store.put_application_grant(grant).await.unwrap();
        }
        for login in &older {
            store.put_login(login.clone()).await.unwrap();
        }
        store.close().await.unwrap();
    }
    home.tamper(BEFORE_APPLICATION_LOGINS).await;
    let store = home.open().await.unwrap();
    assert_eq!(store.pending_logins().await.unwrap(), older);
    assert_eq!(store.application_grants(None).await.unwrap(), granted);
    assert_eq!(generations(&store, "smile").await, [("labsync".into(), 1), ("oldpms".into(), 1)]);
    let newer = login(7, PendingKind::ApplicationCode);
    store.put_login(newer.clone()).await.unwrap();
    assert_eq!(store.take_login([7; 32], newer.kind, at(5)).await.unwrap(), Some(newer));
    let index = "SELECT count(*) FROM sqlite_master WHERE name = 'pending_logins_by_expiry' \
                 AND tbl_name = 'pending_logins'";
    let found: i64 = sqlx::query_scalar(index).fetch_one(&mut home.shell().await).await.unwrap();
    assert_eq!(found, 1);
}

#[tokio::test]
async fn a_tampered_login_is_none_and_the_journal_cannot_be_rewritten() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    let login = PendingLogin {
        id: [1; 32],
        kind: PendingKind::State,
        expires_at: at(2_000_000),
        payload: "x".into(),
    };
    store.put_login(login).await.unwrap();
    let line = JournalEntry { at: at(1), account: name("a"), event: "paired".into(), detail: "d".into() };
    store.append_journal(line).await.unwrap();
    drop(store);
    home.tamper("UPDATE pending_logins SET payload_sealed = zeroblob(40)").await;
    for sql in ["UPDATE journal SET detail = 'x'", "DELETE FROM journal"] {
        let refusal = sqlx::raw_sql(sql).execute(&mut home.shell().await).await.unwrap_err();
        assert!(refusal.to_string().contains("append-only"), "{refusal}");
    }
    let store = home.open().await.unwrap();
    assert_eq!(store.take_login([1; 32], PendingKind::State, at(5)).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_on_a_full_disk_is_unavailable_until_there_is_room() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let limit = |pages: u32| {
        let sql = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        async { sqlx::raw_sql(sql).execute(&mut *store.writer.lock().await.unwrap()).await.unwrap() }
    };
    // SQLite takes the present size where it is asked for less.
    limit(1).await;
    let big = tokens(&"a".repeat(16 * 1024), Some("rotated"), 20);
    let (smile, global) = (name("smile"), realm("global"));
    for _ in 0..3 {
        let trouble = store.commit_tokens(&smile, &global, 1, &big).await.unwrap_err();
        assert!(
            matches!(&trouble, StoreError::Unavailable(unavailable) if unavailable.kind == UnavailableKind::DiskFull),
            "{trouble}"
        );
        let large = NewGrant { access: Some(big.access.clone()), ..grant("lab", "global", 2) };
        let trouble = store.put_grant(large).await.unwrap_err();
        assert!(matches!(trouble, StoreError::Unavailable(_)), "{trouble}");
    }
    let before = store.account(&smile).await.unwrap().unwrap();
    assert_eq!(before.grants[0].refresh.expose(), "refresh-smile-global", "nothing of it was done");
    assert_eq!(store.account(&name("lab")).await.unwrap(), None);

    limit(100_000).await;
    assert_eq!(store.commit_tokens(&smile, &global, 1, &big).await.unwrap(), 2);
    store.put_grant(grant("lab", "global", 2)).await.unwrap();
    drop(store);
    assert_eq!(home.open().await.unwrap().accounts().await.unwrap().accounts.len(), 2);
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_and_a_lost_one_is_found_by_ping() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    let (smile, global, brought) = (name("smile"), realm("global"), tokens("access", None, 20));
    for (only_reads, works) in [("PRAGMA query_only = on", false), ("PRAGMA query_only = off", true)] {
        sqlx::raw_sql(only_reads).execute(&mut *store.writer.lock().await.unwrap()).await.unwrap();
        assert_eq!(store.ping().await.is_ok(), works);
        let outcome = store.commit_tokens(&smile, &global, 1, &brought).await;
        assert_eq!(outcome.is_ok(), works, "{outcome:?}");
    }
    fs::rename(home.file("gateway.db"), home.file("moved.db")).unwrap();
    let trouble = store.ping().await.unwrap_err();
    assert!(
        matches!(&trouble, StoreError::Unavailable(unavailable) if unavailable.to_string().contains("is gone")),
        "{trouble}"
    );
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let home = Home::new();
    let store = home.open().await.unwrap();
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
async fn ten_thousand_accounts_load_in_one_go() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    store
        .put_grant(NewGrant { access: Some(access("access", 99)), ..grant("a0", "global", 1) })
        .await
        .unwrap();
    let sealed = store.sealed_copies("a0", 10_000).await;
    let started = Instant::now();
    let loaded = store.accounts().await.unwrap();
    let took = started.elapsed();
    assert_eq!((loaded.accounts.len(), loaded.broken.len()), (sealed, 0));
    // Unoptimised and on a busy machine; a query or a flush per account would take minutes.
    println!("{sealed} accounts in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

impl SqliteStore {
    /// Fills the store in one transaction, each row sealed for its own place.
    async fn sealed_copies(&self, like: &str, count: usize) -> usize {
        let mut tx = self.writer.begin().await.unwrap();
        for number in 1..count {
            let account = name(&format!("a{number}"));
            let refresh = crate::model::token::RefreshToken::new(format!("refresh-{number}"));
            let sealed = self
                .keys
                .seal(crate::store::rows::refresh_context(&account, &realm("global")), refresh.expose())
                .unwrap();
            let bearer = self
                .keys
                .seal(crate::store::rows::access_context(&account, &realm("global")), &"a".repeat(1500))
                .unwrap();
            sqlx::query("INSERT INTO accounts (name, current_realm, state) SELECT ?, current_realm, state FROM accounts WHERE name = ?")
                .bind(account.as_str())
                .bind(like)
                .execute(&mut *tx)
                .await
                .unwrap();
            sqlx::query(
                "INSERT INTO grants SELECT ?, realm, ?, generation, ?, ?, access_expires_at, refreshed_at, obtained_at, \
                 route_domain, route_path, route_discovered_at, intent_at FROM grants WHERE account = ?",
            )
            .bind(account.as_str())
            .bind((number + 1).to_string())
            .bind(sealed)
            .bind(bearer)
            .bind(like)
            .execute(&mut *tx)
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
        count
    }
}

#[tokio::test]
async fn stored_moments_that_lie_in_the_future_come_down_to_now_once() {
    let home = Home::new();
    let store = home.open().await.unwrap();
    let now = Timestamp::from_millis(1_000_000);
    let later = now + Duration::from_secs(2 * 86_400);
    store.put_grant(NewGrant { at: now, ..grant("smile", "global", 1) }).await.unwrap();
    let mut fresh = tokens("access", None, 20);
    (fresh.refreshed_at, fresh.access.expires_at) = (later, later + Duration::from_secs(3600));
    store.commit_tokens(&name("smile"), &realm("global"), 1, &fresh).await.unwrap();
    let brought_down = store.clamp_future_times().await.unwrap();
    assert_eq!(brought_down.len(), 1);
    assert_eq!(brought_down[0].by, Duration::from_secs(2 * 86_400));
    assert_eq!(store.clamp_future_times().await.unwrap(), []);
    let record = store.account(&name("smile")).await.unwrap().unwrap();
    let held = record.current_grant().unwrap();
    assert_eq!(held.refreshed_at, Some(now));
    assert_eq!(held.access.as_ref().unwrap().expires_at, now + Duration::from_secs(3600));
}

#[tokio::test]
async fn what_a_gateway_notes_after_its_clock_was_set_right_is_kept_by_the_right_time() {
    let home = Home::new();
    let key = SecretSource::File(home.file("gateway.key"));
    let two_days = 2 * 86_400_000;
    let ahead = Clock::manual(Timestamp::from_millis(1_000_000 + two_days));
    let store = SqliteStore::open(&home.file("gateway.db"), &key, &|_| None, ahead.clone()).await.unwrap();
    ahead.set_time_of_day_by(-two_days.cast_signed());
    store.put_grant(NewGrant { at: ahead.now(), ..grant("smile", "global", 1) }).await.unwrap();
    let told = store.account(&name("smile")).await.unwrap().unwrap();
    assert_eq!(told.current_grant().unwrap().obtained_at, ahead.now(), "within the process nothing moves");
    store.close().await.unwrap();
    let reopened = home.open().await.unwrap();
    let told = reopened.account(&name("smile")).await.unwrap().unwrap();
    assert_eq!(told.current_grant().unwrap().obtained_at, Timestamp::from_millis(1_000_000));
}
