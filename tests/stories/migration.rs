//! Accounts move from the old platform to the new one and back, while their callers keep calling.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use genapi_gateway::sandbox::{AccountSpec, Endpoint, Platform};
use serde_json::{Value, json};

use crate::browser::{Browser, heading};
use crate::test_bed::{PASSWORD, TestBed, TestBedBuilder};

/// What an old client asks: once as V1, once as V2.
const CALLS: [&str; 2] = ["/lab-sw/v1/orders/practice", "/itero-gen-api/v2/orders/practice"];
const FIRST: u64 = 3001;
/// Steps of the clock while the platform and the gateway work.
const STEP: Duration = Duration::from_millis(250);
/// Longer than refreshes on two platforms are kept apart.
const APART: Duration = Duration::from_secs(6 * 60);

fn name(id: u64) -> String {
    format!("acct-{id}")
}

fn user(id: u64) -> String {
    format!("user{id}@sandbox.test")
}

/// So many clinics on the old platform, each with a user of its own, behind a gateway that paces as usual.
async fn fleet(count: u64, keeps_tokens: bool) -> TestBed {
    let mut setup =
        TestBedBuilder::new().without_usual_accounts().config("min_gap = \"0s\"", "min_gap = \"60s\"");
    for id in FIRST..FIRST + count {
        let account = AccountSpec::clinic(id, &format!("Practice {id}")).on_platform(Platform::Old);
        setup = setup.account(account.with_user(&user(id), PASSWORD).with_orders(2));
    }
    let behavior = |behavior: &mut genapi_gateway::sandbox::Behavior| {
        (behavior.rotate_refresh, behavior.migration_keeps_tokens) = (true, keeps_tokens);
    };
    setup.behavior(behavior).start().await
}

async fn move_with(bed: &TestBed, order: Value) -> Vec<Value> {
    let response = bed.while_time_flies(STEP, bed.operate("/move", order)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.lines()
}

fn results(lines: &[Value]) -> BTreeMap<String, usize> {
    lines.iter().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line["result"].as_str().unwrap().to_owned()).or_default() += 1;
        counts
    })
}

async fn migration(bed: &TestBed) -> BTreeMap<String, Value> {
    let report = bed.look("/api/migration").await.json();
    let lines = report["accounts"].as_array().unwrap().clone();
    lines.into_iter().map(|line| (line["name"].as_str().unwrap().to_owned(), line)).collect()
}

fn states(lines: &BTreeMap<String, Value>) -> BTreeMap<String, usize> {
    lines.values().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line["migration"].as_str().unwrap().to_owned()).or_default() += 1;
        counts
    })
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

/// Align moves the accounts of these lines, and somebody of each logs in once with its link.
async fn align_moves_and_clinics_log_in(bed: &TestBed, lines: &[Value]) {
    for line in lines.iter().filter(|line| line["result"] == "moving") {
        let id: u64 = line["name"].as_str().unwrap().trim_start_matches("acct-").parse().unwrap();
        assert!(bed.sandbox.migrate(id, Platform::New));
        let page = Browser::new(bed).connect_as(line["link"].as_str().unwrap(), &user(id)).await;
        assert_eq!(heading(&page), "The account is connected", "{}", page.text());
    }
}

/// Old clients that do not stop: each asks as V1 and as V2 and compares with what it got at first.
struct OldClients {
    stop: Arc<AtomicBool>,
    /// Held by each call that is under way.
    between_calls: Arc<tokio::sync::RwLock<()>>,
    calls: Arc<AtomicUsize>,
    running: tokio::task::JoinHandle<Vec<String>>,
}

impl OldClients {
    async fn start(bed: &TestBed, ids: Vec<u64>) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut first = Vec::new();
        for id in ids {
            for path in CALLS {
                let response = bed.get(&name(id), path).await;
                assert_eq!(response.status, 200, "{}", response.text());
                first.push((format!("{}/accounts/{}{path}", bed.gateway, name(id)), response.body));
            }
        }
        let (http, key) = (bed.http.clone(), bed.key.clone());
        let between_calls = Arc::new(tokio::sync::RwLock::new(()));
        let (stopped, counter, held) = (Arc::clone(&stop), Arc::clone(&calls), Arc::clone(&between_calls));
        let running = tokio::spawn(async move {
            let mut differences = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for (url, wanted) in &first {
                    let _call = held.read().await;
                    let response = http.get(url).header("X-Gateway-Key", &key).send().await.unwrap();
                    let status = response.status();
                    let body = response.bytes().await.unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                    if body != *wanted {
                        differences.push(format!("{url}: {status} {}", String::from_utf8_lossy(&body)));
                    }
                }
            }
            differences
        });
        Self { stop, between_calls, calls, running }
    }

    /// Time goes by between two calls: one that is under way meanwhile would have taken as long.
    async fn time_goes_by(&self, bed: &TestBed, pause: Duration) {
        let _nobody_calls = self.between_calls.write().await;
        bed.clock.advance(pause);
    }

    /// Waits for a whole round of calls that began after this moment.
    async fn a_round(&self, accounts: usize) {
        let enough = self.calls.load(Ordering::Relaxed) + 2 * 2 * accounts;
        while self.calls.load(Ordering::Relaxed) < enough && !self.running.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self, bed: &TestBed) {
        self.stop.store(true, Ordering::Relaxed);
        let differences = self.running.await.unwrap();
        assert!(self.calls.load(Ordering::Relaxed) > 0);
        let Some(first) = differences.first() else { return };
        let name = first.split('/').nth(4).unwrap();
        let journal = bed.look(&format!("/api/accounts/{name}/journal")).await.text();
        let id: u64 = name.trim_start_matches("acct-").parse().unwrap();
        let calls = bed.sandbox.calls_where(|call| call.account == Some(id) && call.status != Some(200));
        let calls: Vec<_> = calls.iter().map(|call| (call.at, call.role, call.bearer, call.status)).collect();
        let refreshes: Vec<_> = bed.sandbox.refreshes(id).iter().map(|call| (call.at, call.role)).collect();
        panic!("{} of them: {first}\n{calls:?}\n{refreshes:?}\n{journal}", differences.len());
    }
}

/// Once there, by a canary first: the first time by logins, later by the grants that are kept.
async fn there(bed: &TestBed, clients: &OldClients, count: usize) {
    let canary = move_with(bed, json!({"accounts": ["*"], "share": 5.0, "to": "global"})).await;
    assert_eq!(canary.len(), count.div_ceil(20), "{canary:?}");
    assert!(canary.iter().all(|line| line["ok"] == true), "{canary:?}");
    align_moves_and_clinics_log_in(bed, &canary).await;
    clients.a_round(count).await;
    assert_eq!(
        states(&migration(bed).await),
        counts(&[("on_new", canary.len()), ("on_old", count - canary.len())])
    );
    let all = move_with(bed, json!({"accounts": ["*"], "to": "global"})).await;
    assert!(all.iter().all(|line| line["ok"] == true), "{all:?}");
    assert_eq!(results(&all)["unchanged"], canary.len(), "the canary has come already");
    align_moves_and_clinics_log_in(bed, &all).await;
    clients.a_round(count).await;
    assert_eq!(states(&migration(bed).await), counts(&[("on_new", count)]));
}

async fn back(bed: &TestBed, clients: &OldClients, count: usize) {
    let all = move_with(bed, json!({"accounts": ["*"], "back": true})).await;
    assert_eq!(results(&all), counts(&[("back", count)]), "{all:?}");
    clients.a_round(count).await;
    assert_eq!(states(&migration(bed).await), counts(&[("on_old", count)]));
    let again = move_with(bed, json!({"accounts": ["*"], "back": true})).await;
    assert_eq!(results(&again), counts(&[("unchanged", count)]), "{again:?}");
}

/// There and back, twice, while old clients keep calling. Logins: one for each account, the first time.
async fn a_fleet_goes_there_and_back_twice(count: u64) {
    let bed = fleet(count, true).await;
    let ids: Vec<u64> = (FIRST..FIRST + count).collect();
    let accounts = ids.len();
    let clients = OldClients::start(&bed, ids.clone()).await;
    assert_eq!(states(&migration(&bed).await), counts(&[("on_old", accounts)]));
    there(&bed, &clients, accounts).await;
    bed.sandbox.clear_calls();
    back(&bed, &clients, accounts).await;
    // Every access token ends: what the second time rests on are refreshes, and they are kept apart.
    for pause in [Duration::from_secs(3600), APART] {
        clients.time_goes_by(&bed, pause).await;
        bed.while_time_flies(STEP, clients.a_round(accounts)).await;
    }
    clients.time_goes_by(&bed, APART).await;
    there(&bed, &clients, accounts).await;
    clients.time_goes_by(&bed, APART).await;
    back(&bed, &clients, accounts).await;
    clients.end(&bed).await;

    assert_eq!(bed.sandbox.calls_to(Endpoint::Exchange).len(), 0, "nobody logged in a second time");
    assert_eq!(bed.sandbox.overlapping_refreshes(), Vec::<u64>::new());
    for id in ids {
        let gap = bed.sandbox.smallest_refresh_gap(id);
        assert!(gap.is_none_or(|gap| gap >= Duration::from_secs(300)), "{id}: {gap:?}");
        assert!(bed.sandbox.is_paired(id));
        let journal = bed.journal(&name(id)).await;
        for trouble in ["needs_login", "unused_grant_refused", "old_token_ended", "refresh_failed"] {
            assert!(!journal.contains(&trouble.to_owned()), "{id}: {journal:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_moved_there_and_back_twice_while_its_old_clients_keep_calling() {
    a_fleet_goes_there_and_back_twice(40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: cargo test --test stories -- --ignored three_hundred_accounts"]
async fn three_hundred_accounts_are_moved_there_and_back_twice() {
    a_fleet_goes_there_and_back_twice(300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_tokens_death_is_expected_and_leads_to_the_login_on_the_new_platform() {
    let bed = fleet(2, false).await;
    let [moving, staying] = [name(FIRST), name(FIRST + 1)];
    let dry = move_with(&bed, json!({"accounts": [moving], "to": "global", "dry_run": true})).await;
    assert!(dry[0]["result"] == "moving" && dry[0]["link"] == Value::Null, "{dry:?}");
    assert_eq!(states(&migration(&bed).await), counts(&[("on_old", 2)]), "nothing was done");
    let lines = move_with(&bed, json!({"accounts": [moving, "nobody-*"], "to": "global"})).await;
    assert_eq!(results(&lines), counts(&[("failed", 1), ("moving", 1)]), "{lines:?}");
    let link = lines[1]["link"].as_str().unwrap().to_owned();
    let overview = migration(&bed).await;
    assert_eq!(
        (&overview[&moving]["migration"], &overview[&moving]["next_by"]),
        (&json!("moving"), &json!("align"))
    );
    assert_eq!(overview[&staying]["next_by"], "operator");
    assert_eq!(bed.get(&moving, CALLS[0]).await.status, 200, "calls stay where they are");

    bed.clock.advance(Duration::from_secs(61));
    assert!(bed.sandbox.migrate(FIRST, Platform::New));
    let refused = bed.while_time_flies(STEP, bed.get(&moving, CALLS[1])).await;
    assert_eq!(refused.code(), "account_needs_login", "{}", refused.text());
    let fix = refused.json()["fix"].as_str().unwrap().to_owned();
    assert_eq!(fix, format!("genapi-gateway accounts pair --realm global --name {moving}"));
    let journal = bed.journal(&moving).await;
    assert!(journal.contains(&"old_token_ended".to_owned()) && !journal.contains(&"needs_login".to_owned()));
    let explained = bed.look(&format!("/api/accounts/{moving}/explain")).await.json();
    let finding = &explained["findings"][0];
    assert!(
        finding["what"].as_str().unwrap().contains("move to realm global waits for its login"),
        "{finding}"
    );
    assert!(finding["fix"].as_str().unwrap().contains("--realm global"), "{finding}");
    let overview = migration(&bed).await;
    assert_eq!(
        (&overview[&moving]["migration"], &overview[&moving]["next_by"]),
        (&json!("needs_login"), &json!("clinic"))
    );
    assert_eq!(bed.get(&staying, CALLS[0]).await.status, 200);

    let page = Browser::new(&bed).connect_as(&link, &user(FIRST)).await;
    assert_eq!(heading(&page), "The account is connected", "{}", page.text());
    assert_eq!(bed.get(&moving, CALLS[0]).await.status, 200);
    assert_eq!(bed.get(&moving, CALLS[1]).await.status, 200);
    assert_eq!(migration(&bed).await[&moving]["migration"], "on_new");
    assert!(bed.journal(&moving).await.contains(&"moved".to_owned()));

    // The way back is closed, and calls do not go into nothing.
    bed.clock.advance(APART);
    let closed = move_with(&bed, json!({"accounts": [moving], "back": true})).await;
    assert_eq!(results(&closed), counts(&[("failed", 1)]), "{closed:?}");
    assert!(closed[0]["detail"].as_str().unwrap().contains("calls stay on realm global"), "{closed:?}");
    let journal = bed.journal(&moving).await;
    assert_eq!(journal.iter().filter(|event| *event == "old_token_ended").count(), 2, "{journal:?}");
    assert!(!journal.contains(&"unused_grant_refused".to_owned()), "{journal:?}");
    assert_eq!(bed.get(&moving, CALLS[1]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_has_only_begun_is_taken_back_with_its_link() {
    let bed = fleet(1, false).await;
    let lines = move_with(&bed, json!({"accounts": ["*"], "to": "global"})).await;
    let link = lines[0]["link"].as_str().unwrap().to_owned();
    let bed = bed.restart().await;
    assert_eq!(states(&migration(&bed).await), counts(&[("moving", 1)]), "the mark outlives the process");
    let back = move_with(&bed, json!({"accounts": ["*"], "back": true})).await;
    assert_eq!(results(&back), counts(&[("back", 1)]), "{back:?}");
    assert_eq!(states(&migration(&bed).await), counts(&[("on_old", 1)]));
    let path = link.split_once("/connect/").unwrap().1;
    let page = Browser::new(&bed).open(&format!("{}/connect/{path}", bed.admin)).await;
    assert_ne!(page.status, 200, "{}", page.text());
    let acts: Vec<Value> = bed.audit().iter().map(|line| line["action"].clone()).collect();
    assert!(acts.contains(&json!("move")) && acts.contains(&json!("move_back")), "{acts:?}");
    let nowhere = bed.operate("/move", json!({"accounts": ["*"], "to": "mars"})).await;
    assert_eq!(nowhere.status, 400, "{}", nowhere.text());
}
