//! Moving between kinds of stores, backups, and new keys: on both kinds, since that is what they are for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use super::PostgresStore;
use super::testing::Database;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, SecretSource, StoreUrl};
use crate::model::account::AccountState;
use crate::store::backup::to_file;

use crate::store::backup_receiver::BackupReceiver;
use crate::store::cluster::ClusterStore;
use crate::store::contract::{access, application_grant, at as moment, grant, name, realm, route, tokens};
use crate::store::migrate::{Migratable, copy};
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{
    self, ApplicationGrant, JournalEntry, NewGrant, PendingKind, PendingLogin, Store, StoreError,
};

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(1_000_000))
}

async fn sqlite(folder: &Path) -> SqliteStore {
    let key = SecretSource::File(folder.join("gateway.key"));
    SqliteStore::open(&folder.join("gateway.db"), &key, &|_| None, clock()).await.unwrap()
}

/// Everything that a store can hold: two realms, states, routes, intents, what is gone, logins, journals.
async fn fill(store: &dyn Store) {
    let (smile, global) = (name("smile"), realm("global"));
    let put = NewGrant {
        access: Some(access("access", 99)),
        route: Some(route("https://eu.example.com")),
        ..grant("smile", "global", 1)
    };
    store.put_grant(put).await.unwrap();
    store.put_grant(grant("smile", "old", 1)).await.unwrap();
    store.commit_tokens(&smile, &global, 1, &tokens("access-2", Some("rotated"), 20)).await.unwrap();
    store.note_intent(&smile, &global, moment(30)).await.unwrap();
    let state = AccountState::NeedsLogin { since: moment(7), why: "the grant is dead".into() };
    store.put_grant(NewGrant { state: Some(state), ..grant("lab", "global", 2) }).await.unwrap();
    store.put_grant(grant("gone", "global", 3)).await.unwrap();
    store.remove_grant(&name("gone"), &global).await.unwrap();
    for (account, number) in [("smile", 1), ("gone", 2), ("smile", 3)] {
        store.append_journal(line(account, number)).await.unwrap();
    }
    for caller in ["oldpms", "labsync"] {
        store.put_application_grant(&application_grant(caller, "smile", "of ours")).await.unwrap();
    }
    assert!(store.set_callback_url("oldpms", &smile, Some("https://pms/scans")).await.unwrap());
    store.put_application_grant(&application_grant("formerpms", "smile", "of ours once")).await.unwrap();
    assert!(store.remove_application_grant("formerpms", &smile).await.unwrap());
    let (id, kind, expires_at) = ([1; 32], PendingKind::Start, moment(2_000_000));
    store.put_login(PendingLogin { id, kind, expires_at, payload: "invited".into() }).await.unwrap();
}

fn line(account: &str, number: u64) -> JournalEntry {
    JournalEntry {
        at: moment(number),
        account: name(account),
        event: "e".into(),
        detail: format!("{number}"),
    }
}

async fn same(one: &dyn Migratable, other: &dyn Migratable) {
    let names = one.names().await.unwrap();
    assert_eq!(names, [name("gone"), name("lab"), name("smile")]);
    assert_eq!(other.names().await.unwrap(), names);
    for name in &names {
        assert_eq!(other.bundle(name).await.unwrap(), one.bundle(name).await.unwrap());
    }
    let granted = other.application_grants(None).await.unwrap();
    assert_eq!(granted, one.application_grants(None).await.unwrap());
    let callback_urls: Vec<_> = granted.into_iter().map(|grant| grant.callback_url).collect();
    assert_eq!(callback_urls, [None, Some("https://pms/scans".to_owned())]);
    let smile = other.bundle(&names[2]).await.unwrap();
    let generations = smile.application_grants.iter().map(|grant| (&*grant.caller, grant.generation));
    assert_eq!(generations.collect::<Vec<_>>(), [("formerpms", 2), ("labsync", 1), ("oldpms", 1)]);
    assert_eq!(other.logins().await.unwrap(), one.logins().await.unwrap());
    assert_eq!(other.journal(None, 10).await.unwrap(), one.journal(None, 10).await.unwrap());
    assert_eq!(other.known_tokens().await.unwrap().len(), one.known_tokens().await.unwrap().len());
}

#[tokio::test]
async fn everything_moves_to_the_other_kind_and_back_and_a_second_run_has_nothing_to_do() {
    let (database, folder, back) =
        (Database::new().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (sqlite(folder.path()).await, database.open(clock()).await.unwrap());
    fill(&from).await;
    let heard = Mutex::new(Vec::new());
    let moved = copy(&from, &to, &|done, all| heard.lock().unwrap().push((done, all))).await.unwrap();
    assert!(moved.complete(), "{moved:?}");
    assert_eq!((moved.moved, moved.already_there, moved.removed, moved.logins), (2, 0, 1, 1));
    assert_eq!(heard.into_inner().unwrap(), [(1, 3), (2, 3), (3, 3)]);
    same(&from, &to).await;
    let again = copy(&from, &to, &|_, _| ()).await.unwrap();
    assert_eq!((again.moved, again.already_there, again.removed), (0, 2, 1));

    let returned = sqlite(back.path()).await;
    assert!(copy(&to, &returned, &|_, _| ()).await.unwrap().complete());
    same(&from, &returned).await;
    // Generations go on from where they were.
    let account = returned.put_grant(grant("gone", "global", 3)).await.unwrap();
    assert_eq!(account.grants[0].generation, 2);
}

#[tokio::test]
async fn what_applications_have_got_and_given_back_at_the_target_stays_so() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let (from, to) = (sqlite(folder.path()).await, database.open(clock()).await.unwrap());
    fill(&from).await;
    copy(&from, &to, &|_, _| ()).await.unwrap();
    let smile = name("smile");
    // Nothing of this is a refresh of the account's.
    to.remove_application_grant("oldpms", &smile).await.unwrap();
    to.put_application_grant(&application_grant("cadflow", "smile", "given out there")).await.unwrap();
    to.remove_application_grant("labsync", &smile).await.unwrap();
    to.put_application_grant(&application_grant("labsync", "smile", "given out again")).await.unwrap();
    to.set_callback_url("labsync", &smile, Some("https://lab.example.test/hook")).await.unwrap();
    let held = to.application_grants(None).await.unwrap();
    assert_eq!(held.len(), 2);
    for _run in 0..2 {
        let again = copy(&from, &to, &|_, _| ()).await.unwrap();
        assert!(again.complete(), "{again:?}");
        assert_eq!(to.application_grants(None).await.unwrap(), held);
    }
    // What is newer at the source comes along all the same.
    from.remove_application_grant("oldpms", &smile).await.unwrap();
    let third = application_grant("oldpms", "smile", "the third");
    from.put_application_grant(&third).await.unwrap();
    copy(&from, &to, &|_, _| ()).await.unwrap();
    let after = to.application_grants(None).await.unwrap();
    assert_eq!(after, [held[0].clone(), held[1].clone(), third]);
}

#[tokio::test]
async fn what_was_revoked_at_the_target_stays_so_although_the_accounts_record_there_is_broken() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let (from, to) = (sqlite(folder.path()).await, database.open(clock()).await.unwrap());
    fill(&from).await;
    copy(&from, &to, &|_, _| ()).await.unwrap();
    assert!(to.remove_application_grant("oldpms", &name("smile")).await.unwrap());
    database.tamper("UPDATE grants SET refresh_sealed = '\\x00' WHERE account = 'smile'").await;
    let again = copy(&from, &to, &|_, _| ()).await.unwrap();
    assert!(again.complete() && again.moved == 1, "{again:?}");
    let held = to.application_grants(None).await.unwrap();
    assert_eq!(held, [application_grant("labsync", "smile", "of ours")]);
}

const KEYS: [&str; 3] = [
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n",
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n",
    "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n",
];

fn set_keys(folder: &Path, keys: &[&str]) {
    let file = folder.join("gateway.key");
    fs::write(&file, keys.concat()).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A store whose application grant is sealed under the first key, and everything else under the second, which
/// alone is held.
async fn store_with_an_unreadable_grant(folder: &Path) -> SqliteStore {
    set_keys(folder, &KEYS[..1]);
    let store = sqlite(folder).await;
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    store.put_application_grant(&application_grant("oldpms", "smile", "of ours")).await.unwrap();
    store.set_callback_url("oldpms", &name("smile"), Some("https://pms/scans")).await.unwrap();
    drop(store);
    set_keys(folder, &[KEYS[1], KEYS[0]]);
    sqlite(folder).await.put_grant(grant("smile", "global", 1)).await.unwrap();
    set_keys(folder, &KEYS[1..2]);
    sqlite(folder).await
}

#[tokio::test]
async fn an_application_grant_that_cannot_be_read_moves_as_it_is_and_opens_where_its_key_is() {
    let [folder, without_key, with_key] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let from = store_with_an_unreadable_grant(folder.path()).await;
    assert_eq!(from.application_grants(None).await.unwrap(), []);
    set_keys(with_key.path(), &KEYS[..1]);
    set_keys(without_key.path(), &KEYS[2..]);
    let expected = ApplicationGrant {
        callback_url: Some("https://pms/scans".into()),
        ..application_grant("oldpms", "smile", "of ours")
    };
    for (folder, held) in [(&with_key, vec![expected.clone()]), (&without_key, vec![])] {
        let to = sqlite(folder.path()).await;
        for moved in [1, 0] {
            let report = copy(&from, &to, &|_, _| ()).await.unwrap();
            assert!(report.complete() && report.moved == moved, "{report:?}");
            assert_eq!(to.application_grants(None).await.unwrap(), held);
        }
    }
    set_keys(without_key.path(), &[KEYS[2], KEYS[0]]);
    let opened = sqlite(without_key.path()).await.application_grants(None).await.unwrap();
    assert_eq!(opened, [expected]);
}

#[tokio::test]
async fn a_run_that_was_broken_off_is_finished_by_the_next_and_takes_what_changed_since() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let (from, to) = (sqlite(folder.path()).await, database.open(clock()).await.unwrap());
    fill(&from).await;
    to.put_bundle(&from.bundle(&name("smile")).await.unwrap()).await.unwrap();
    let brought = tokens("access-3", Some("rotated again"), 40);
    from.commit_tokens(&name("smile"), &realm("global"), 2, &brought).await.unwrap();
    from.append_journal(line("smile", 9)).await.unwrap();
    let moved = copy(&from, &to, &|_, _| ()).await.unwrap();
    assert!(moved.complete() && (moved.moved, moved.removed) == (2, 1), "{moved:?}");
    same(&from, &to).await;
}

#[tokio::test]
async fn newer_tokens_in_the_target_are_never_written_over_and_what_cannot_be_moved_is_named() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let (from, to) = (sqlite(folder.path()).await, database.open(clock()).await.unwrap());
    fill(&from).await;
    copy(&from, &to, &|_, _| ()).await.unwrap();
    let newer = tokens("access-3", Some("newer"), 40);
    to.commit_tokens(&name("smile"), &realm("global"), 2, &newer).await.unwrap();
    to.put_grant(grant("of-the-target", "old", 2)).await.unwrap();
    from.put_grant(grant("lab", "old", 2)).await.unwrap();
    let moved = copy(&from, &to, &|_, _| ()).await.unwrap();
    assert!(!moved.complete());
    assert_eq!((moved.moved, moved.already_there, moved.removed), (0, 0, 1));
    assert_eq!(moved.ahead, [name("smile")]);
    assert_eq!(moved.only_in_target, [name("of-the-target")]);
    let [(lab, why)] = &moved.failed[..] else { panic!("{:?}", moved.failed) };
    assert!(*lab == name("lab") && why.contains("of-the-target"), "{why}");
    let kept = to.account(&name("smile")).await.unwrap().unwrap();
    assert_eq!(kept.grants[0].refresh.expose(), "newer");
}

#[tokio::test]
async fn a_backup_of_a_live_sqlite_store_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path()).await;
    fill(&store).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("gateway.db");
    let taken = sqlite::backup(&folder.path().join("gateway.db"), &file).await.unwrap();
    assert_eq!((taken.accounts, taken.bytes), (2, fs::metadata(&file).unwrap().len()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let refusal = sqlite::backup(&folder.path().join("gateway.db"), &file).await.unwrap_err();
    assert!(refusal.to_string().contains("exists already"), "{refusal}");
    fs::copy(folder.path().join("gateway.key"), elsewhere.path().join("gateway.key")).unwrap();
    same(&store, &sqlite(elsewhere.path()).await).await;
    store.ping().await.unwrap();
}

/// A configuration as the commands have it.
fn at(url: StoreUrl, folder: &Path) -> config::StoreConfig {
    config::StoreConfig { url, key: SecretSource::File(folder.join("gateway.key")) }
}

#[tokio::test]
async fn what_a_live_sqlite_store_hands_over_goes_back_into_a_place_where_none_is() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = sqlite(folder.path()).await;
    fill(&store).await;
    let file = elsewhere.path().join("backup");
    let taken = to_file(&store, &file).await.unwrap();
    assert_eq!(taken.accounts, 2);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "nothing half-done stays");
    let there = at(StoreUrl::Sqlite(elsewhere.path().join("gateway.db")), elsewhere.path());
    let refusal = store::restore(&there, clock(), &file).await.unwrap_err().to_string();
    assert!(refusal.contains("gateway.key is missing"), "{refusal}");
    assert!(!elsewhere.path().join("gateway.key").exists(), "no other key is made");
    fs::write(elsewhere.path().join("gateway.key"), "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n")
        .unwrap();
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(elsewhere.path().join("gateway.key"), private).unwrap();
    let refusal = store::restore(&there, clock(), &file).await.unwrap_err().to_string();
    assert!(refusal.contains("the key does not belong to"), "{refusal}");
    assert_eq!(fs::metadata(elsewhere.path().join("gateway.db")).unwrap().len(), 0, "nothing took its place");

    fs::copy(folder.path().join("gateway.key"), elsewhere.path().join("gateway.key")).unwrap();
    assert_eq!(store::restore(&there, clock(), &file).await.unwrap().accounts, 2);
    let mode = fs::metadata(elsewhere.path().join("gateway.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    {
        let restored = sqlite(elsewhere.path()).await;
        same(&store, &restored).await;
        let refusal = store::restore(&there, clock(), &file).await.unwrap_err().to_string();
        assert!(refusal.contains("in use by another gateway"), "{refusal}");
        restored.close().await.unwrap();
    }
    let refusal = store::restore(&there, clock(), &file).await.unwrap_err().to_string();
    assert!(refusal.contains("holds a database already"), "{refusal}");
    let mut remaining: Vec<_> =
        fs::read_dir(elsewhere.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    remaining.sort();
    assert_eq!(remaining, ["backup", "gateway.db", "gateway.db.lock", "gateway.key"]);
}

#[tokio::test]
async fn a_backup_goes_back_into_its_own_kind_only_and_anything_else_is_no_backup() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let store = sqlite(folder.path()).await;
    fill(&store).await;
    let postgres = || StoreUrl::Postgres { url: database.url(), listen_url: None };
    let (of_sqlite, of_postgres) =
        (folder.path().join("sqlite.backup"), folder.path().join("postgres.backup"));
    to_file(&store, &of_sqlite).await.unwrap();
    to_file(&database.open(clock()).await.unwrap(), &of_postgres).await.unwrap();
    let elsewhere = || StoreUrl::Sqlite(folder.path().join("other.db"));
    let text = folder.path().join("text");
    fs::write(&text, "{\"name\": \"something else entirely\"}").unwrap();
    for (url, file, says) in [
        (postgres(), &of_sqlite, "a backup of a SQLite file, and store.url is a PostgreSQL database"),
        (elsewhere(), &of_postgres, "a backup of a PostgreSQL database, and store.url is a SQLite file"),
        (elsewhere(), &text, "is no backup"),
        (elsewhere(), &folder.path().join("nothing"), "cannot be read"),
    ] {
        let refusal = store::restore(&at(url, folder.path()), clock(), file).await.unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
    }
    let complete = fs::read(&of_sqlite).unwrap();
    fs::write(&text, &complete[..complete.len() / 2]).unwrap();
    let refusal = store::restore(&at(elsewhere(), folder.path()), clock(), &text).await.unwrap_err();
    assert!(matches!(&refusal, StoreError::Refused(why) if why.contains("damaged")), "{refusal:?}");
}

#[tokio::test]
async fn a_postgresql_backup_is_put_back_only_where_its_key_is() {
    let (database, other) = (Database::new().await, Database::new().await);
    let store = database.open(clock()).await.unwrap();
    fill(&store).await;
    let file = database.file("backup");
    to_file(&store, &file).await.unwrap();
    let there = config::StoreConfig {
        url: StoreUrl::Postgres { url: other.url(), listen_url: None },
        key: other.key(),
    };
    let refusal = store::restore(&there, clock(), &file).await.unwrap_err().to_string();
    assert!(refusal.contains("gateway.key is missing") && !other.file("gateway.key").exists(), "{refusal}");
    fs::copy(database.file("gateway.key"), other.file("gateway.key")).unwrap();
    assert_eq!(store::restore(&there, clock(), &file).await.unwrap().accounts, 2);
    same(&store, &other.open(clock()).await.unwrap()).await;
}

#[tokio::test]
async fn what_comes_from_elsewhere_gets_its_name_only_when_it_is_complete() {
    let database = Database::new().await;
    let store = database.open(clock()).await.unwrap();
    fill(&store).await;
    let (file, copy) = (database.file("backup"), database.file("copy"));
    let taken = to_file(&store, &file).await.unwrap();
    let complete = fs::read(&file).unwrap();
    for (chunk, ok) in [(&complete[..complete.len() - 40], false), (&complete[..], true)] {
        let mut incoming = BackupReceiver::create(&copy).unwrap();
        incoming.write(chunk).await.unwrap();
        let finished = incoming.finish().await;
        assert_eq!((finished.is_ok(), copy.exists()), (ok, ok), "{finished:?}");
        assert!(!database.file("copy.partial").exists());
    }
    assert_eq!(fs::read(&copy).unwrap().len() as u64, taken.bytes);
    assert!(BackupReceiver::create(&copy).err().unwrap().to_string().contains("exists already"));
}

#[tokio::test]
async fn a_backup_of_postgresql_holds_no_secret_and_fills_an_empty_database() {
    let (database, other) = (Database::new().await, Database::new().await);
    let store = database.open(clock()).await.unwrap();
    fill(&store).await;
    store
        .keep_fallback_token(&name("smile"), &realm("global"), 2, &tokens("a", Some("kept"), 25))
        .await
        .unwrap();
    let file = database.file("backup.jsonl");
    let taken = to_file(&store, &file).await.unwrap();
    assert_eq!((taken.accounts, taken.bytes), (2, fs::metadata(&file).unwrap().len()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("smile")
            && !text.contains("rotated")
            && !text.contains("invited")
            && !text.contains("of ours")
            && !text.contains("pms/scans")
    );
    assert!(matches!(to_file(&store, &file).await, Err(StoreError::Refused(_))), "never over another");
    assert!(store.restore(&file).await.unwrap_err().to_string().contains("not empty"));

    fs::copy(database.file("gateway.key"), other.file("gateway.key")).unwrap();
    let restored = other.open(clock()).await.unwrap();
    assert_eq!(restored.restore(&file).await.unwrap(), taken);
    same(&store, &restored).await;
    assert_eq!(restored.adopt_fallback_token(&name("smile"), &realm("global"), 2).await.unwrap(), Some(3));
    restored.append_journal(line("smile", 11)).await.unwrap();
    let seen = restored.newest_change().await.unwrap();
    restored.set_state(&name("lab"), &AccountState::Ready).await.unwrap();
    assert_eq!(
        restored.changes_since(seen).await.unwrap().accounts,
        [name("lab")],
        "its triggers work again"
    );
}

#[tokio::test]
async fn a_backup_of_before_application_logins_goes_back_with_its_grants() {
    let (database, other) = (Database::new().await, Database::new().await);
    let store = database.open(clock()).await.unwrap();
    fill(&store).await;
    // As the program of before would find it.
    let older = "ALTER TABLE application_grants DROP COLUMN generation, DROP COLUMN callback_url_sealed; \
                 DELETE FROM revoked_application_grants";
    sqlx::raw_sql(older).execute(&mut database.shell().await).await.unwrap();
    let file = database.file("backup.jsonl");
    to_file(&store, &file).await.unwrap();
    fs::copy(database.file("gateway.key"), other.file("gateway.key")).unwrap();
    let restored = other.open(clock()).await.unwrap();
    restored.restore(&file).await.unwrap();
    let granted = ["labsync", "oldpms"].map(|caller| application_grant(caller, "smile", "of ours"));
    assert_eq!(restored.application_grants(None).await.unwrap(), granted);
    let bundle = restored.bundle(&name("smile")).await.unwrap();
    assert!(bundle.application_grants.iter().all(|record| record.generation == 1), "{bundle:?}");
}

#[tokio::test]
async fn a_backup_that_is_cut_or_of_another_key_changes_nothing() {
    let (database, other) = (Database::new().await, Database::new().await);
    let store = database.open(clock()).await.unwrap();
    fill(&store).await;
    let file = database.file("backup.jsonl");
    to_file(&store, &file).await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let target = other.open(clock()).await.unwrap();
    let cut = text.lines().count() - 1;
    let short: String = text.lines().take(cut).map(|line| format!("{line}\n")).collect();
    for (damaged, says) in [
        (short, "no whole backup"),
        (
            text.replacen("needs_login", "ready", 1).replacen(
                "\"why\":\"the grant is dead\"",
                "\"why\":null",
                1,
            ),
            "no whole",
        ),
        (text.replacen("\"format\":1", "\"format\":2", 1), "newer version"),
        (text.clone(), "the key does not belong to the backup"),
    ] {
        fs::write(&file, damaged).unwrap();
        let refusal = target.restore(&file).await.unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
        assert_eq!(target.names().await.unwrap(), []);
    }
    target.put_grant(grant("smile", "global", 1)).await.unwrap();
    assert_eq!(target.accounts().await.unwrap().accounts.len(), 1);
}

/// The newest change that other gateways hear of; `None` where a store serves one gateway alone.
async fn newest_change(store: &dyn Migratable) -> Option<u64> {
    match store.cluster() {
        Some(cluster) => Some(cluster.newest_change().await.unwrap()),
        None => None,
    }
}

/// Puts a new key before the old one, and then takes the old one away.
async fn rotates(key: &Path, open: impl AsyncFn() -> Box<dyn Migratable>) {
    let before = {
        let store = open().await;
        fill(&*store).await;
        store
            .keep_fallback_token(&name("smile"), &realm("global"), 2, &tokens("a", Some("kept"), 25))
            .await
            .unwrap();
        store.accounts().await.unwrap()
    };
    let old = fs::read_to_string(key).unwrap();
    let new = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    fs::write(key, format!("{new}{old}")).unwrap();
    {
        let store = open().await;
        // One of them was re-encrypted already, as after an interrupted run.
        store
            .commit_tokens(&name("smile"), &realm("global"), 2, &tokens("access-2", None, 20))
            .await
            .unwrap();
        let changes = newest_change(&*store).await;
        let done = store.rotate_key().await.unwrap();
        assert_eq!((done.broken.len(), done.retired.len(), done.complete), (0, 1, true), "{done:?}");
        // The refresh tokens of three grants and of two applications, a callback URL, and the login; a commit
        // forgets the fallback and seals the access token.
        assert_eq!(done.resealed, 7);
        assert_eq!(newest_change(&*store).await, changes, "no other gateway need hear of it");
        let again = store.rotate_key().await.unwrap();
        assert_eq!((again.resealed, again.retired.len(), again.complete), (0, 0, true));
    }
    fs::write(key, new).unwrap();
    let store = open().await;
    let after = store.accounts().await.unwrap();
    assert_eq!(after.accounts.len(), before.accounts.len());
    assert_eq!(after.accounts[0], before.accounts[0]);
    assert_eq!(store.logins().await.unwrap().len(), 1);
    let granted = store.application_grants(None).await.unwrap();
    assert_eq!(granted.len(), 2);
    assert_eq!(granted[1].callback_url.as_deref(), Some("https://pms/scans"));
}

#[tokio::test]
async fn a_new_key_takes_over_in_sqlite_and_the_old_one_can_go() {
    let folder = tempfile::tempdir().unwrap();
    rotates(&folder.path().join("gateway.key"), async || {
        Box::new(sqlite(folder.path()).await) as Box<dyn Migratable>
    })
    .await;
}

#[tokio::test]
async fn a_new_key_takes_over_in_postgresql_and_the_old_one_can_go() {
    let database = Database::new().await;
    rotates(&database.file("gateway.key"), async || {
        Box::new(database.open(clock()).await.unwrap()) as Box<dyn Migratable>
    })
    .await;
}

#[tokio::test]
async fn while_something_does_not_open_no_key_is_retired() {
    let database = Database::new().await;
    let store: PostgresStore = database.open(clock()).await.unwrap();
    fill(&store).await;
    drop(store);
    database
        .tamper("UPDATE grants SET refresh_sealed = decode(repeat('00', 60), 'hex') WHERE account = 'lab'")
        .await;
    let old = fs::read_to_string(database.file("gateway.key")).unwrap();
    fs::write(database.file("gateway.key"), format!("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n{old}"))
        .unwrap();
    let done = database.open(clock()).await.unwrap().rotate_key().await.unwrap();
    assert!(done.retired.is_empty() && !done.complete, "{done:?}");
    let [broken] = &done.broken[..] else { panic!("{done:?}") };
    assert!(broken.contains("lab"), "{broken}");
}
