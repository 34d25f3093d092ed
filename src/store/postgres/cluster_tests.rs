//! Several gateways on one database: two stores with the same key stand for two processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::PostgresStore;
use super::testing::Database;
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, AccountState};
use crate::store::cluster::{ClusterStore, Lease, LeaseGuard, ReplicaId};
use crate::store::contract::{application_grant, at, grant, name, realm, route, tokens};
use crate::store::{NewGrant, Store, StoreError};

const LIFE: Duration = Duration::from_secs(60);
/// A lease that has ended when the next statement runs: nobody waits in these tests.
const OVER: Duration = Duration::ZERO;

struct Cluster {
    database: Database,
    clock: Clock,
    one: Arc<PostgresStore>,
    other: Arc<PostgresStore>,
    first: ReplicaId,
    second: ReplicaId,
}

/// With the account `smile` at generation 1.
async fn cluster() -> Cluster {
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let database = Database::new().await;
    let one = Arc::new(database.open(clock.clone()).await.unwrap());
    let other = Arc::new(database.open(clock.clone()).await.unwrap());
    one.put_grant(grant("smile", "global", 1)).await.unwrap();
    let (first, second) = (ReplicaId::new("a").unwrap(), ReplicaId::new("b").unwrap());
    Cluster { database, clock, one, other, first, second }
}

async fn take(store: &PostgresStore, owner: &ReplicaId, seen: u64, life: Duration) -> Lease {
    store.take_lease(&name("smile"), &realm("global"), owner, seen, life).await.unwrap()
}

#[tokio::test]
async fn of_many_gateways_one_gets_the_lease_and_the_others_hear_who_and_until_when() {
    let it = cluster().await;
    let stores = [&it.one, &it.other];
    let replicas: Vec<ReplicaId> =
        (0..16).map(|number| ReplicaId::new(&format!("r{number}")).unwrap()).collect();
    let asked = replicas.iter().enumerate().map(|(number, owner)| take(stores[number % 2], owner, 1, LIFE));
    let outcomes = futures_util::future::join_all(asked).await;
    let takers: Vec<usize> = (0..16).filter(|number| outcomes[*number] == Lease::Taken).collect();
    let [winner] = takers[..] else { panic!("{outcomes:?}") };
    for outcome in outcomes.iter().filter(|outcome| **outcome != Lease::Taken) {
        let Lease::HeldBy { owner, until } = outcome else { panic!("{outcome:?}") };
        assert_eq!(*owner, replicas[winner]);
        let remaining = until.since(it.clock.now());
        assert!(remaining > LIFE / 2 && remaining <= LIFE, "{remaining:?}");
    }
}

#[tokio::test]
async fn a_lease_is_extended_and_released_by_its_owner_alone() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    assert_eq!(take(&it.one, &it.first, 1, LIFE).await, Lease::Taken);
    assert_eq!(take(&it.one, &it.first, 1, LIFE).await, Lease::Taken, "after an answer that got lost");
    assert!(it.one.extend_lease(&smile, &global, &it.first, LIFE).await.unwrap());
    assert!(!it.other.extend_lease(&smile, &global, &it.second, LIFE).await.unwrap());
    it.other.release_lease(&smile, &global, &it.second).await.unwrap();
    assert!(matches!(take(&it.other, &it.second, 1, LIFE).await, Lease::HeldBy { .. }));
    it.one.release_lease(&smile, &global, &it.first).await.unwrap();
    assert_eq!(take(&it.other, &it.second, 1, LIFE).await, Lease::Taken);
}

#[tokio::test]
async fn the_intent_of_whoever_holds_the_lease_is_left_alone() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    let intent = async || it.one.account(&smile).await.unwrap().unwrap().grants[0].intent;
    assert_eq!(take(&it.one, &it.first, 1, OVER).await, Lease::Taken);
    it.one.note_intent(&smile, &global, at(30)).await.unwrap();
    assert_eq!(take(&it.other, &it.second, 1, LIFE).await, Lease::Taken);
    it.other.note_intent(&smile, &global, at(30)).await.unwrap();
    assert!(!it.one.clear_intent(&smile, &global, &it.first, 1, at(30)).await.unwrap());
    assert_eq!(intent().await, Some(at(30)), "the second's refresh is under way, whatever the first heard");
    assert!(it.other.clear_intent(&smile, &global, &it.second, 1, at(30)).await.unwrap());
    assert_eq!(intent().await, None);
}

#[tokio::test]
async fn the_lease_of_a_dead_gateway_is_taken_over_when_it_ends() {
    let it = cluster().await;
    assert_eq!(take(&it.one, &it.first, 1, OVER).await, Lease::Taken);
    assert_eq!(take(&it.other, &it.second, 1, LIFE).await, Lease::Taken);
    assert!(
        !it.one.extend_lease(&name("smile"), &realm("global"), &it.first, LIFE).await.unwrap(),
        "it learns"
    );
}

#[tokio::test]
async fn no_lease_is_given_for_a_generation_that_has_passed_and_an_old_one_holds_nobody_up() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    assert_eq!(take(&it.one, &it.first, 1, LIFE).await, Lease::Taken);
    it.one.commit_tokens(&smile, &global, 1, &tokens("access", None, 20)).await.unwrap();
    assert_eq!(take(&it.other, &it.second, 1, LIFE).await, Lease::Moved(2));
    // The first died before it released; its work was done all the same.
    assert_eq!(take(&it.other, &it.second, 2, LIFE).await, Lease::Taken);
    it.one.remove_grant(&smile, &global).await.unwrap();
    let refusal = it.other.take_lease(&smile, &global, &it.second, 2, LIFE).await.unwrap_err();
    assert!(matches!(refusal, StoreError::UnknownAccount(_)), "{refusal}");
}

#[tokio::test]
async fn a_lease_that_a_clock_two_days_ahead_gave_holds_nobody_up() {
    let it = cluster().await;
    assert_eq!(take(&it.one, &it.first, 1, LIFE).await, Lease::Taken);
    it.database.tamper("UPDATE leases SET ends_at = ends_at + interval '2 days'").await;
    assert_eq!(take(&it.other, &it.second, 1, LIFE).await, Lease::Taken);
    assert!(it.one.lead("keep", &it.first, LIFE).await.unwrap());
    it.database.tamper("UPDATE leaders SET ends_at = ends_at + interval '2 days'").await;
    assert!(it.other.lead("keep", &it.second, LIFE).await.unwrap());
}

#[tokio::test]
async fn a_lease_is_kept_alive_while_the_work_runs_and_ends_with_it() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    assert_eq!(take(&it.one, &it.first, 1, LIFE).await, Lease::Taken);
    it.database.tamper("UPDATE leases SET ends_at = now()").await;
    let (finish, finished) = oneshot::channel::<()>();
    let working = tokio::spawn({
        let (store, clock, owner) = (it.one.clone(), it.clock.clone(), it.first.clone());
        async move {
            let (name, realm) = (&name("smile"), &realm("global"));
            let ends = std::sync::atomic::AtomicU64::new(0);
            let held = LeaseGuard {
                store: &*store,
                clock: &clock,
                name,
                realm,
                owner: &owner,
                life: LIFE,
                ends: &ends,
            };
            held.during(finished).await.unwrap();
            held.release().await;
        }
    });
    it.clock.until_sleeping(1).await;
    it.clock.advance(LIFE / 3);
    // It sleeps again once the lease has been extended.
    while it.clock.ever_slept() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(take(&it.other, &it.second, 1, LIFE).await, Lease::HeldBy { .. }));
    finish.send(()).unwrap();
    working.await.unwrap();
    assert_eq!(it.other.take_lease(&smile, &global, &it.second, 1, LIFE).await.unwrap(), Lease::Taken);
}

#[tokio::test]
async fn the_token_of_a_fenced_loser_is_kept_and_used_when_the_winners_is_refused() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    it.other.commit_tokens(&smile, &global, 1, &tokens("access", Some("winner"), 20)).await.unwrap();
    let late = tokens("access", Some("loser"), 25);
    let fenced = it.one.commit_tokens(&smile, &global, 1, &late).await.unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced(2)), "{fenced}");
    assert!(it.one.keep_fallback_token(&smile, &global, 1, &late).await.unwrap());
    let account = it.one.account(&smile).await.unwrap().unwrap();
    assert_eq!(account.grants[0].refresh.expose(), "winner", "the winner's stays in use");

    let stale = it.other.adopt_fallback_token(&smile, &global, 1).await.unwrap_err();
    assert!(matches!(stale, StoreError::Fenced(2)), "{stale}");
    assert_eq!(it.other.adopt_fallback_token(&smile, &global, 2).await.unwrap(), Some(3));
    let account = it.one.account(&smile).await.unwrap().unwrap();
    let adopted = &account.grants[0];
    assert_eq!((adopted.refresh.expose(), adopted.generation, &adopted.access), ("loser", 3, &None));
    assert_eq!(it.other.adopt_fallback_token(&smile, &global, 3).await.unwrap(), None, "used once");
}

#[tokio::test]
async fn a_fallback_is_forgotten_once_the_grants_own_token_has_proved_itself() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    it.other.commit_tokens(&smile, &global, 1, &tokens("access", Some("winner"), 20)).await.unwrap();
    assert!(
        it.one.keep_fallback_token(&smile, &global, 1, &tokens("access", Some("loser"), 25)).await.unwrap()
    );
    it.other.commit_tokens(&smile, &global, 2, &tokens("access", Some("next"), 30)).await.unwrap();
    assert_eq!(it.other.adopt_fallback_token(&smile, &global, 3).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_is_kept_that_is_no_news_or_belongs_to_an_earlier_pairing() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    it.other.commit_tokens(&smile, &global, 1, &tokens("access", None, 20)).await.unwrap();
    for same in [None, Some("refresh-smile-global")] {
        assert!(
            !it.one.keep_fallback_token(&smile, &global, 1, &tokens("access", same, 25)).await.unwrap(),
            "{same:?}"
        );
    }
    it.other.put_grant(grant("smile", "global", 77)).await.unwrap();
    let of_the_old = tokens("access", Some("of account 1"), 25);
    assert!(!it.one.keep_fallback_token(&smile, &global, 2, &of_the_old).await.unwrap());
    assert!(it.one.keep_fallback_token(&smile, &global, 3, &of_the_old).await.unwrap());
    it.other.put_grant(grant("smile", "global", 78)).await.unwrap();
    assert_eq!(
        it.one.adopt_fallback_token(&smile, &global, 4).await.unwrap(),
        None,
        "a new pairing starts clean"
    );
}

#[tokio::test]
async fn changes_name_each_account_once_and_leave_out_what_is_nobody_elses_business() {
    let it = cluster().await;
    let (smile, global) = (name("smile"), realm("global"));
    let start = it.other.newest_change().await.unwrap();
    assert_eq!(it.other.changes_since(start).await.unwrap().accounts, []);
    it.one.note_intent(&smile, &global, at(30)).await.unwrap();
    it.one
        .append_journal(crate::store::JournalEntry {
            at: at(1),
            account: smile.clone(),
            event: "x".into(),
            detail: "".into(),
        })
        .await
        .unwrap();
    assert_eq!(it.other.newest_change().await.unwrap(), start);

    it.one.put_grant(grant("lab", "global", 2)).await.unwrap();
    it.one.set_state(&smile, &AccountState::Paused).await.unwrap();
    it.one.set_route(&smile, &global, &route("https://eu.example.com")).await.unwrap();
    let changes = it.other.changes_since(start).await.unwrap();
    assert_eq!(changes.accounts, [name("lab"), smile.clone()]);
    let granted = application_grant("oldpms", "smile", "of ours");
    it.one.put_application_grant(&granted).await.unwrap();
    let connected = it.other.changes_since(changes.newest).await.unwrap();
    assert_eq!(connected.accounts, std::slice::from_ref(&smile));
    assert_eq!(it.other.application_grants(Some(&smile)).await.unwrap(), [granted]);
    assert!(it.other.set_callback_url("oldpms", &smile, Some("https://pms/scans")).await.unwrap());
    let called = it.one.changes_since(connected.newest).await.unwrap();
    assert_eq!(called.accounts, std::slice::from_ref(&smile));
    assert!(it.other.remove_application_grant("oldpms", &smile).await.unwrap());
    let changes = it.one.changes_since(called.newest).await.unwrap();
    assert_eq!(changes.accounts, std::slice::from_ref(&smile));
    it.one.commit_tokens(&smile, &global, 1, &tokens("access", None, 20)).await.unwrap();
    it.one.remove_grant(&name("lab"), &global).await.unwrap();
    let later = it.other.changes_since(changes.newest).await.unwrap();
    assert_eq!(later.accounts, [smile, name("lab")], "what went is a change too");
    assert_eq!(it.other.changes_since(later.newest).await.unwrap().accounts, []);
}

#[tokio::test]
async fn after_the_database_was_put_back_every_account_is_named() {
    let it = cluster().await;
    it.one.put_grant(grant("lab", "global", 2)).await.unwrap();
    let changes = it.one.changes_since(1_000).await.unwrap();
    assert_eq!(changes.accounts, [name("lab"), name("smile")]);
    assert!(changes.newest < 1_000);
}

#[tokio::test]
async fn no_change_is_missed_however_commits_overlap() {
    let it = cluster().await;
    let accounts: Vec<AccountName> = (0..6).map(|number| name(&format!("a{number}"))).collect();
    for (number, account) in accounts.iter().enumerate() {
        it.one.put_grant(grant(account.as_str(), "global", 100 + number as u64)).await.unwrap();
    }
    let writers: Vec<_> = accounts
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, account)| {
            let store = if number % 2 == 0 { it.one.clone() } else { it.other.clone() };
            tokio::spawn(async move {
                for generation in 1..15 {
                    let brought = tokens("access", None, generation);
                    store.commit_tokens(&account, &realm("global"), generation, &brought).await.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut known) = (0, BTreeMap::new());
    loop {
        let last_round = writers.iter().all(|writer| writer.is_finished());
        let changes = it.other.changes_since(seen).await.unwrap();
        seen = changes.newest;
        for changed in changes.accounts {
            let account = it.other.account(&changed).await.unwrap().unwrap();
            known.insert(changed, account.grants[0].generation);
        }
        if last_round {
            break;
        }
    }
    for account in &accounts {
        assert_eq!(known[account], 15, "{account}");
    }
}

#[tokio::test]
async fn a_notification_tells_others_although_their_clock_stands_still() {
    let it = cluster().await;
    let listening = Arc::new(it.database.open_listening(it.clock.clone()).await);
    let (told, mut hears) = mpsc::channel(16);
    let seen = listening.newest_change().await.unwrap();
    let watching = tokio::spawn(async move { listening.watch(seen, told).await });
    it.clock.until_sleeping(1).await;
    it.one.set_state(&name("smile"), &AccountState::Paused).await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), [name("smile")]);

    // The connection that listens dies, and with it what is notified meanwhile; it is found out and mended
    // without the clock.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    it.database.tamper(sql).await;
    it.one.set_state(&name("smile"), &AccountState::Ready).await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), [name("smile")]);
    it.one.put_grant(NewGrant { make_current: true, ..grant("smile", "old", 9) }).await.unwrap();
    assert_eq!(hears.recv().await.unwrap(), [name("smile")]);
    drop(hears);
    watching.await.unwrap();
}

#[tokio::test]
async fn without_notifications_others_are_told_within_half_a_second() {
    let it = cluster().await;
    let (told, mut hears) = mpsc::channel(16);
    let seen = it.other.newest_change().await.unwrap();
    let watching = tokio::spawn({
        let other = it.other.clone();
        async move { other.watch(seen, told).await }
    });
    it.clock.until_sleeping(1).await;
    it.one.set_state(&name("smile"), &AccountState::Paused).await.unwrap();
    it.clock.advance(Duration::from_millis(500));
    assert_eq!(hears.recv().await.unwrap(), [name("smile")]);
    drop(hears);
    watching.await.unwrap();
}

#[tokio::test]
async fn a_background_job_runs_once_per_cluster_and_moves_on_when_its_gateway_goes() {
    let it = cluster().await;
    assert!(it.one.lead("keeper", &it.first, LIFE).await.unwrap());
    assert!(it.one.lead("keeper", &it.first, LIFE).await.unwrap(), "goes on");
    assert!(!it.other.lead("keeper", &it.second, LIFE).await.unwrap());
    assert!(it.other.lead("another job", &it.second, LIFE).await.unwrap());
    it.other.step_down("keeper", &it.second).await.unwrap();
    assert!(!it.other.lead("keeper", &it.second, LIFE).await.unwrap(), "nobody deposes another");
    it.one.step_down("keeper", &it.first).await.unwrap();
    assert!(it.other.lead("keeper", &it.second, OVER).await.unwrap());
    assert!(it.one.lead("keeper", &it.first, LIFE).await.unwrap(), "the other died");
}
