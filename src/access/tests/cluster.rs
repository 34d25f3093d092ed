//! Several gateways on one PostgreSQL: one of them refreshes, the others use what it brought.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::access::book::{Book, Entry, RealmRules};
use crate::access::calls::Chronicle;
use crate::access::doubles::*;
use crate::access::renewal::{Cause, Parts, RenewProblem, Renewals};
use crate::clock::Clock;
use crate::store::Store;
use crate::store::cluster::ReplicaId;
use crate::store::postgres::testing::{Database, Way};

struct Replica {
    book: Arc<Book>,
    renewals: Renewals,
    lines: Arc<Lines>,
}

impl Replica {
    async fn start(database: &Database, platform: &Arc<Scripted>) -> Self {
        Self::start_at(database, &database.url(), platform).await
    }

    async fn start_at(database: &Database, url: &str, platform: &Arc<Scripted>) -> Self {
        let clock = Clock::system();
        let store: Arc<dyn Store> = Arc::new(database.open_at(url, clock.clone()).await.unwrap());
        let records = store.accounts().await.unwrap().accounts;
        let rules = HashMap::from([(global(), RealmRules { hosts: policy(), pinned: None })]);
        let book = Arc::new(Book::load(records, rules));
        let lines = Arc::new(Lines::default());
        let renewals = Renewals::new(Parts {
            clock,
            store,
            book: Arc::clone(&book),
            platforms: platforms(platform),
            chronicle: Arc::clone(&lines) as Arc<dyn Chronicle>,
            settings: settings(),
            runtime: Handle::current(),
            replica: ReplicaId::new("test").unwrap(),
        });
        Self { book, renewals, lines }
    }

    fn entry(&self) -> Arc<Entry> {
        self.book.by_name("smile").unwrap()
    }

    /// A caller that saw the first token fail.
    fn caller(&self) -> tokio::task::JoinHandle<Result<Arc<crate::access::Access>, RenewProblem>> {
        let (renewals, entry) = (self.renewals.clone(), self.entry());
        let seen = entry.generation();
        tokio::spawn(async move { renewals.renew(&entry, seen, Cause::Unauthorized).await })
    }
}

async fn paired(platform: &Scripted) -> Database {
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
        let platform = Arc::new(Scripted::new(rotates));
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
            replicas.iter().map(|replica| replica.lines.of("smile", "refreshed").len()).sum();
        assert_eq!(refreshed, 1, "one of them tells of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_gone_nobody_asks_the_platform_and_callers_hear_when_to_come_again() {
    let platform = Arc::new(Scripted::new(true));
    let database = paired(&platform).await;
    let (gate, url) = database.behind_gate().await;
    let replica = Replica::start_at(&database, &url, &platform).await;
    gate.set(Way::Refuses);
    let refused = replica.caller().await.unwrap();
    assert!(matches!(refused, Err(RenewProblem::Unavailable { .. })), "{refused:?}");
    assert_eq!(platform.refreshes(), 0);
}
