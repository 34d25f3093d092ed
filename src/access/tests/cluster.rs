//! Several gateways on one PostgreSQL: one of them refreshes, the others use what it brought.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::access::doubles::*;
use crate::access::lease::LEASE;
use crate::access::registry::{Account, AccountRegistry, RouteRules};
use crate::access::renewal::{Cause, RenewError, RenewalParts, Renewals};
use crate::access::renewal_task::RenewalTask;
use crate::clock::Clock;
use crate::journal::{Journal, JournalEvent, RecordedEvents};
use crate::store::Store;
use crate::store::cluster::{ClusterStore, Lease, ReplicaId};
use crate::store::postgres::testing::{Database, FaultyProxy, ProxyMode};

struct Replica {
    id: ReplicaId,
    registry: Arc<AccountRegistry>,
    renewals: Renewals,
    events: RecordedEvents,
}

impl Replica {
    async fn start(database: &Database, platform: &Arc<ScriptedPlatform>) -> Self {
        Self::start_at(database, &database.url(), platform).await
    }

    async fn start_at(database: &Database, url: &str, platform: &Arc<ScriptedPlatform>) -> Self {
        Self::start_with(database, url, platform, Clock::system()).await
    }

    async fn start_with(
        database: &Database,
        url: &str,
        platform: &Arc<ScriptedPlatform>,
        clock: Clock,
    ) -> Self {
        let id = ReplicaId::new("test").unwrap();
        let store: Arc<dyn Store> = Arc::new(database.open_at(url, clock.clone()).await.unwrap());
        let records = store.accounts().await.unwrap().accounts;
        let rules = HashMap::from([(global(), RouteRules { hosts: policy(), pinned: None, is_old: false })]);
        let registry = Arc::new(AccountRegistry::load(records, rules));
        let (journal, events) = Journal::recording(clock.clone());
        let renewals = Renewals::new(RenewalParts {
            clock,
            store,
            registry: Arc::clone(&registry),
            platforms: platforms(platform),
            journal,
            settings: settings(),
            runtime: Handle::current(),
            replica: id.clone(),
        });
        Self { id, registry, renewals, events }
    }

    fn account(&self) -> Arc<Account> {
        self.registry.by_name("smile").unwrap()
    }

    /// A caller that saw the first token fail.
    fn caller(&self) -> tokio::task::JoinHandle<Result<crate::access::Access, RenewError>> {
        let (renewals, account) = (self.renewals.clone(), self.account());
        let seen = account.generation();
        tokio::spawn(async move { renewals.renew(&account, seen, Cause::Unauthorized).await })
    }
}

async fn paired(platform: &ScriptedPlatform) -> Database {
    let database = Database::new().await;
    let store = database.open(Clock::system()).await.unwrap();
    // Long enough ago that the gap after the last refresh is over.
    let at = Clock::system().now() - Duration::from_secs(600);
    store.put_grant(new_grant("smile", &global(), 1, at)).await.unwrap();
    platform.takes("refresh-smile-0", "smile");
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_three_gateways_cause_one_refresh() {
    for rotates in [false, true] {
        let platform = Arc::new(ScriptedPlatform::new(rotates));
        let database = paired(&platform).await;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(Replica::start(&database, &platform).await);
        }
        platform.refresh_door.send_replace(false);
        let callers: Vec<_> = replicas.iter().flat_map(|replica| (0..10).map(|_| replica.caller())).collect();
        platform.until_refreshes(1).await;
        platform.refresh_door.send_replace(true);
        for caller in callers {
            assert_eq!(token(&caller.await.unwrap().unwrap()), "access-smile-1");
        }
        assert_eq!(platform.refreshes(), 1);
        let refreshed: usize =
            replicas.iter().map(|replica| replica.events.of("smile", JournalEvent::Refreshed).len()).sum();
        assert_eq!(refreshed, 1, "one of them tells of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_gone_nobody_asks_the_platform_and_callers_hear_when_to_come_again() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let (proxy, url) = database.behind_proxy().await;
    let replica = Replica::start_at(&database, &url, &platform).await;
    proxy.set(ProxyMode::Refuse);
    let refused = replica.caller().await.unwrap();
    assert!(matches!(refused, Err(RenewError::Unavailable { .. })), "{refused:?}");
    assert_eq!(platform.refreshes(), 0);
}

/// Two gateways, the first of which asked the platform; the database went out of its reach before the
/// response came.
struct Cut {
    platform: Arc<ScriptedPlatform>,
    database: Database,
    proxy: FaultyProxy,
    one: Replica,
    other: Replica,
}

async fn cut_off_while_refreshing() -> Cut {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let (proxy, url) = database.behind_proxy().await;
    let one = Replica::start_at(&database, &url, &platform).await;
    let other = Replica::start(&database, &platform).await;
    platform.refresh_door.send_replace(false);
    let caller = one.caller();
    platform.until_refreshes(1).await;
    proxy.set(ProxyMode::Refuse);
    platform.refresh_door.send_replace(true);
    assert_eq!(token(&caller.await.unwrap().unwrap()), "access-smile-1", "served from memory");
    assert!(one.account().summary().unsaved);
    Cut { platform, database, proxy, one, other }
}

/// Commits of tokens fail from here on, and everything else goes on.
const FULL: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$; \
    CREATE TRIGGER full_disk BEFORE UPDATE OF refresh_sealed ON grants FOR EACH ROW EXECUTE FUNCTION refuse()";
const NOT_FULL: &str = "DROP TRIGGER full_disk ON grants";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_refreshes_on_top_of_tokens_that_the_others_cannot_see() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let replica = Replica::start(&database, &platform).await;
    let no_gap = crate::config::RenewalConfig { min_gap: Duration::ZERO, ..settings() };
    replica.renewals.reload(no_gap, platforms(&platform), &[]).await;
    let mut shell = database.shell().await;
    sqlx::raw_sql(FULL).execute(&mut shell).await.unwrap();
    assert_eq!(token(&replica.caller().await.unwrap().unwrap()), "access-smile-1");
    let postpone = replica.caller().await.unwrap();
    assert!(matches!(postpone, Err(RenewError::Unavailable { .. })), "{postpone:?}");
    assert_eq!(platform.refreshes(), 1);
    sqlx::raw_sql(NOT_FULL).execute(&mut shell).await.unwrap();
    until(&database, "SELECT generation = 2 FROM grants").await;
    while replica.account().summary().unsaved {
        tokio::task::yield_now().await;
    }
    replica
        .renewals
        .renew(&replica.account(), replica.account().generation(), Cause::Operator)
        .await
        .unwrap();
    assert_eq!(platform.refreshes(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_note_that_the_others_can_read_no_refresh_goes_out() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let replica = Replica::start(&database, &platform).await;
    let no_intent = FULL.replace("UPDATE OF refresh_sealed", "UPDATE OF intent_at");
    sqlx::raw_sql(sqlx::AssertSqlSafe(no_intent)).execute(&mut database.shell().await).await.unwrap();
    let postpone = replica.caller().await.unwrap();
    assert!(matches!(postpone, Err(RenewError::Unavailable { .. })), "{postpone:?}");
    assert_eq!(platform.refreshes(), 0);
}

const END_OF_LEASES: &str = "UPDATE leases SET ends_at = clock_timestamp()";

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_waits_for_tokens_that_only_wait_for_the_database() {
    let it = cut_off_while_refreshing().await;
    it.database.tamper(END_OF_LEASES).await;
    let caller = it.other.caller();
    it.proxy.set(ProxyMode::Forward);
    assert_eq!(token(&caller.await.unwrap().unwrap()), "access-smile-1");
    assert_eq!(it.platform.refreshes(), 1, "nobody died, so nobody asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_tokens_wait_for_the_database_nobody_else_is_given_the_lease() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let replica = Replica::start(&database, &platform).await;
    let mut shell = database.shell().await;
    sqlx::raw_sql(FULL).execute(&mut shell).await.unwrap();
    assert_eq!(token(&replica.caller().await.unwrap().unwrap()), "access-smile-1");
    let store = database.open(Clock::system()).await.unwrap();
    let (name, stranger) = ("smile".parse().unwrap(), ReplicaId::new("stranger").unwrap());
    for _ in 0..2 {
        let asked = store.take_lease(&name, &global(), &stranger, 1, Duration::from_secs(10)).await.unwrap();
        assert!(matches!(asked, Lease::HeldBy { .. }), "{asked:?}");
        // Who saves them brings it up again.
        let life = "UPDATE leases SET ends_at = clock_timestamp() + interval '5 seconds'";
        sqlx::raw_sql(life).execute(&mut shell).await.unwrap();
        until(&database, "SELECT ends_at > clock_timestamp() + interval '8 seconds' FROM leases").await;
    }
    sqlx::raw_sql(NOT_FULL).execute(&mut shell).await.unwrap();
    until(&database, "SELECT generation = 2 FROM grants").await;
    assert_eq!(platform.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_reach_the_database_late_take_a_need_for_a_login_back() {
    let it = cut_off_while_refreshing().await;
    it.database.tamper(END_OF_LEASES).await;
    let refused = it.other.caller().await.unwrap();
    assert!(matches!(refused, Err(RenewError::NeedsLogin { .. })), "{refused:?}");
    it.proxy.set(ProxyMode::Forward);
    until(&it.database, "SELECT state = 'ready' FROM accounts").await;
    assert_eq!(it.one.events.of("smile", JournalEvent::LoginRestored).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_names_the_refresh_that_another_gateway_did_not_finish() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let store = database.open(Clock::system()).await.unwrap();
    let (name, sent_at) = ("smile".parse().unwrap(), Clock::system().now());
    store.note_intent(&name, &global(), sent_at).await.unwrap();
    platform.forgets("smile");
    let replica = Replica::start(&database, &platform).await;
    assert!(
        replica.events.of("smile", JournalEvent::RefreshInterrupted).is_empty(),
        "the other one may be at it still"
    );
    let refused = replica.caller().await.unwrap();
    let words = format!("a refresh of {sent_at} was under way when the process ended");
    assert!(
        matches!(&refused, Err(RenewError::NeedsLogin { why, .. }) if why.contains(&words)),
        "{refused:?}"
    );
    let named = replica.events.of("smile", JournalEvent::RefreshInterrupted);
    assert!(named.len() == 1 && named[0].contains(&words), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_one_gateway_met_is_not_asked_for_again_by_those_who_waited() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    platform.forgets("smile");
    let (one, other) =
        (Replica::start(&database, &platform).await, Replica::start(&database, &platform).await);
    platform.refresh_door.send_replace(false);
    let first = one.caller();
    platform.until_refreshes(1).await;
    let second = other.caller();
    platform.refresh_door.send_replace(true);
    for caller in [first, second] {
        let refused = caller.await.unwrap();
        assert!(matches!(refused, Err(RenewError::NeedsLogin { .. })), "{refused:?}");
    }
    assert_eq!(platform.refreshes(), 1);
}

/// A gateway that has taken the lease and stands still for longer than that lasts, before or while the intent
/// is written.
async fn refresh_that_outlives_its_lease(
    stands_still_at_intent: bool,
    how_intents_go: &'static str,
) -> String {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let clock = Clock::manual(Clock::system().now());
    let replica = Replica::start_with(&database, &database.url(), &platform, clock.clone()).await;
    sqlx::raw_sql(how_intents_go).execute(&mut database.shell().await).await.unwrap();
    let (context, account) = (Arc::clone(replica.renewals.context()), replica.account());
    let permit = context.try_acquire(&global(), Cause::Unauthorized).unwrap();
    let before = account.snapshot();
    let in_flight = RenewalTask::new(context, account, Cause::Unauthorized, permit, None);
    in_flight.lease_ends.store((clock.now() + LEASE).as_millis(), Relaxed);
    if !stands_still_at_intent {
        clock.advance(LEASE);
    }
    let thaw = async {
        if stands_still_at_intent {
            until(&database, "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
                .await;
            clock.advance(LEASE);
        }
    };
    let (came_to, ()) = tokio::join!(in_flight.refresh(&before, &*platform), thaw);
    let Err(RenewError::Unavailable { detail, .. }) = came_to else {
        panic!("another one may have refreshed")
    };
    assert_eq!(platform.refreshes(), 0);
    until(&database, "SELECT intent_at IS NULL FROM grants").await;
    detail
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stood_still_for_longer_than_its_lease_writes_no_intent() {
    let refused = "CREATE FUNCTION genapi_gateway.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
        CREATE TRIGGER no BEFORE UPDATE OF intent_at ON genapi_gateway.grants FOR EACH ROW EXECUTE FUNCTION genapi_gateway.refuse()";
    let why = refresh_that_outlives_its_lease(false, refused).await;
    assert!(why.contains("stood still"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stood_still_while_the_intent_was_written_takes_it_back_and_sends_nothing() {
    let slow = "CREATE FUNCTION genapi_gateway.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.2); RETURN NEW; END $$; \
        CREATE TRIGGER slow BEFORE UPDATE OF intent_at ON genapi_gateway.grants FOR EACH ROW WHEN (NEW.intent_at IS NOT NULL) \
        EXECUTE FUNCTION genapi_gateway.slow()";
    let why = refresh_that_outlives_its_lease(true, slow).await;
    assert!(why.contains("stood still"), "{why}");
}

/// Minute after minute, until the platform was asked that often; slowly enough that the leader can ask the
/// database in between.
async fn time_passes(clock: &Clock, platform: &ScriptedPlatform, refreshes: usize) {
    while platform.refreshes() < refreshes {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_keeps_for_all_and_another_takes_over_when_it_is_gone() {
    let mut platform = ScriptedPlatform::new(true);
    platform.life = 4 * MINUTE;
    let platform = Arc::new(platform);
    let database = paired(&platform).await;
    // The hour of the first token is nearly over.
    let clock = Clock::manual(Clock::system().now() + 40 * MINUTE);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let replica = Replica::start_with(&database, &database.url(), &platform, clock.clone()).await;
        let keeping = replica.renewals.start_scheduler();
        replicas.push((replica, keeping));
    }
    let mut before = 0;
    while !replicas.is_empty() {
        until(&database, "SELECT count(*) = 1 FROM leaders WHERE ends_at > clock_timestamp()").await;
        let question = "SELECT owner FROM leaders";
        let leader: String =
            sqlx::query_scalar(question).fetch_one(&mut database.shell().await).await.unwrap();
        let at = replicas.iter().position(|(replica, _)| replica.id.as_str() == leader).unwrap();
        for (replica, _) in &replicas {
            replica.account().mark_used(clock.now());
        }
        time_passes(&clock, &platform, before + 1).await;
        let (replica, keeping) = replicas.remove(at);
        while replica.events.of("smile", JournalEvent::Refreshed).is_empty() {
            tokio::task::yield_now().await;
        }
        for (other, _) in &replicas {
            assert!(other.events.of("smile", JournalEvent::Refreshed).is_empty(), "another one kept too");
        }
        before = platform.refreshes();
        // It dies, or it leaves in good order.
        keeping.abort();
        let _ = keeping.await;
        match replicas.len() {
            2 => database.tamper("UPDATE leaders SET ends_at = clock_timestamp()").await,
            _ => replica.renewals.stop_scheduler().await,
        }
        clock.advance(crate::store::leader_election::TERM);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_reach_the_database_stops_before_another_may_begin() {
    let platform = Arc::new(ScriptedPlatform::new(true));
    let database = paired(&platform).await;
    let (proxy, url) = database.behind_proxy().await;
    let clock = Clock::manual(Clock::system().now());
    let replica = Replica::start_with(&database, &url, &platform, clock.clone()).await;
    let keeping = replica.renewals.start_scheduler();
    let lead = &replica.renewals.context().lead;
    lead.wait_elected().await;
    proxy.set(ProxyMode::Refuse);
    clock.advance(crate::store::leader_election::TERM - Duration::from_millis(1));
    assert!(lead.is_leader());
    clock.advance(Duration::from_millis(1));
    assert!(!lead.is_leader());
    keeping.abort();
}

async fn until(database: &Database, question: &'static str) {
    let mut shell = database.shell().await;
    while !sqlx::query_scalar::<_, bool>(question).fetch_one(&mut shell).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
