//! kill -9: this test starts itself as a second process that commits rotating tokens in a loop, and kills
//! that at random moments.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::SqliteStore;
use crate::clock::Clock;
use crate::config::SecretSource;
use crate::store::contract::{at, grant, name, realm, tokens};
use crate::store::{Store, StoreError};

const FOLDER: &str = "GENAPI_GATEWAY_TEST_KILL_FOLDER";
const THIS_TEST: &str = "store::sqlite::kill_tests::what_was_acknowledged_survives_kill_9";

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return commit_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await.unwrap();
    store.put_grant(grant("smile", "global", 1)).await.unwrap();
    drop(store);
    let (mut acknowledged, mut in_flight) = (0, 0);
    for _ in 0..20 {
        let before = acknowledged;
        acknowledged = kill_at_a_random_moment(start(folder.path())).await;
        assert!(acknowledged > before, "the process committed before it was killed");

        let store = open(folder.path()).await.expect("opens after kill -9");
        let account = store.account(&name("smile")).await.unwrap().unwrap();
        let found = &account.grants[0];
        assert!((acknowledged..=acknowledged + 1).contains(&found.generation), "{acknowledged}: {found:?}");
        assert_eq!(found.refresh.expose(), format!("refresh-{}", found.generation), "tokens of one commit");
        // The mark of the window: an intent stands exactly where a refresh was under way.
        in_flight += usize::from(found.intent.is_some());
        if let Some(intent) = found.intent {
            assert_eq!(intent, at(found.generation));
        }
    }
    println!("{in_flight} of 20 kills fell between the intent and the commit");
}

async fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    let key = SecretSource::File(folder.join("gateway.key"));
    SqliteStore::open(&folder.join("gateway.db"), &key, &|_| None, Clock::system()).await
}

/// Says "ack N" after generation N was acknowledged, and never ends by itself while somebody listens.
async fn commit_until_killed(folder: &Path) {
    let store = open(folder).await.unwrap();
    let (smile, global) = (name("smile"), realm("global"));
    let account = store.account(&smile).await.unwrap().unwrap();
    let mut generation = account.grants[0].generation;
    loop {
        store.note_intent(&smile, &global, at(generation)).await.unwrap();
        let next = format!("refresh-{}", generation + 1);
        let brought = tokens(&"a".repeat(8 * 1024), Some(&next), generation);
        generation = store.commit_tokens(&smile, &global, generation, &brought).await.unwrap();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "ack {generation}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The last generation that the process acknowledged before it died.
async fn kill_at_a_random_moment(mut child: Child) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let acks = 1 + usize::from(random[0] % 20);
    let mut last = 0;
    let mut seen = 0;
    while seen < acks {
        let line = lines.next().expect("the process works until it is killed");
        if let Some(generation) = acknowledgement(&line) {
            (last, seen) = (generation, seen + 1);
        }
    }
    // Not waiting for anything: this spreads the kill over the steps of a commit.
    std::thread::sleep(Duration::from_micros(u64::from(random[1]) * 20));
    child.kill().unwrap();
    child.wait().unwrap();
    lines.filter_map(|line| acknowledgement(&line)).last().unwrap_or(last)
}

fn acknowledgement(line: &str) -> Option<u64> {
    line.strip_prefix("ack ")?.parse().ok()
}
