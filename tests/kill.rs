//! kill -9 of the real process under load, twenty times, while the platform hands out a new refresh token
//! with every refresh.
//!
//! An account may need a login afterwards in exactly one case: the platform had carried a refresh out whose
//! tokens were not committed yet. The store names that window by the intent that was left behind, and the
//! sandbox's record tells whether the kill fell into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::gateway::Gateway;
use genapi_gateway::clock::Clock;
use genapi_gateway::config;
use genapi_gateway::sandbox::gateway_files::{self, Addresses};
use genapi_gateway::sandbox::{AccountSpec, Endpoint, RecordedCall, Sandbox, SandboxOptions};
use genapi_gateway::store;
use serde_json::{Value, json};

mod common {
    pub mod gateway;
    pub mod ready;
}

const KILLS: usize = 20;
const FIRST: u64 = 1001;
const ACCOUNTS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(60);

fn name_of(id: u64) -> String {
    format!("acct-{id}")
}

fn ids() -> impl Iterator<Item = u64> {
    FIRST..FIRST + ACCOUNTS
}

/// A gateway that may be killed, with its sandbox and its folder.
struct TestBed {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    key: String,
    http: reqwest::Client,
}

/// What the files of a dead gateway say about one account.
#[derive(Debug)]
struct GrantOnDisk {
    refresh: String,
    intent: bool,
}

impl TestBed {
    async fn new() -> Self {
        let mut options = SandboxOptions { keep_calls: 100_000, ..SandboxOptions::default() };
        options.behavior.rotate_refresh = true;
        let sandbox = Sandbox::start(options).await.unwrap();
        for id in ids() {
            sandbox.add_account(AccountSpec::clinic(id, "Smile").with_orders(1));
        }
        let folder = tempfile::tempdir().unwrap();
        let any = || "127.0.0.1:0".to_owned();
        let redirect_uri = "http://127.0.0.1:0/oauth2/callback".to_owned();
        let addresses = Addresses { gateway: any(), admin: any(), redirect_uri };
        let key = gateway_files::write(&sandbox, folder.path(), &addresses).unwrap();
        Self { sandbox, folder, key, http: common::gateway::caller(PATIENCE) }
    }

    async fn import(&self, gateway: &Gateway, id: u64, query: &str) {
        let token = self.sandbox.grant(id).unwrap();
        let entry =
            json!([{"name": name_of(id), "realm": "global", "account_id": id, "refresh_token": token}]);
        let admin_token = std::fs::read_to_string(self.folder.path().join("admin.token")).unwrap();
        let response = self
            .http
            .post(format!("{}/api/import{query}", gateway.admin))
            .bearer_auth(admin_token.trim())
            .header("content-type", "application/json")
            .body(entry.to_string())
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        assert!(text.contains("\"ok\":true"), "{text}");
    }

    /// Status and code of one call.
    async fn call(&self, gateway: &str, id: u64) -> Option<(u16, String)> {
        let url = format!("{gateway}/accounts/{}/orders/practice", name_of(id));
        let response = self.http.get(url).header("X-Gateway-Key", &self.key).send().await.ok()?;
        let (status, ours) = (response.status().as_u16(), response.headers().contains_key("proxy-status"));
        let body = response.bytes().await.ok()?;
        let code = if ours {
            serde_json::from_slice::<Value>(&body).unwrap()["code"].as_str().unwrap().to_owned()
        } else {
            String::new()
        };
        Some((status, code))
    }

    /// Every account's token ends again and again while callers ask, until the gateway is gone.
    async fn load(self: &Arc<Self>, gateway: &str, stop: &Arc<AtomicBool>, right: &Arc<AtomicU64>) {
        let work = ids().map(|id| {
            let (bed, gateway, stop, right) = (self.clone(), gateway.to_owned(), stop.clone(), right.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    bed.sandbox.expire_access(id);
                    for _ in 0..3 {
                        match bed.call(&gateway, id).await {
                            Some((200, _)) => right.fetch_add(1, Relaxed),
                            // Another round has just ended its token: the repeat was refused too.
                            Some((401, code)) if code.is_empty() => 0,
                            Some(other) => panic!("{id}: {other:?}"),
                            None => break,
                        };
                    }
                }
            })
        });
        for task in work.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }

    /// Reads the store of a gateway that is no more.
    async fn grants_on_disk(&self) -> BTreeMap<u64, GrantOnDisk> {
        let file = self.folder.path().join(gateway_files::CONFIG);
        let config = config::load(&file, &config::process_env).unwrap().config;
        let store = store::open(&config.store, Clock::system()).await.expect("opens after kill -9");
        let mut found = BTreeMap::new();
        for id in ids() {
            let account = store.account(&name_of(id).parse().unwrap()).await.unwrap().unwrap();
            let grant = account.current_grant().unwrap();
            let refresh = grant.refresh.expose().to_owned();
            found.insert(id, GrantOnDisk { refresh, intent: grant.intent.is_some() });
        }
        store.close().await.unwrap();
        found
    }

    /// Whether the platform has carried out a refresh with this token, by its record.
    fn spent(&self, id: u64, refresh: &str) -> bool {
        let with_it = |call: &RecordedCall| {
            call.endpoint == Some(Endpoint::Refresh)
                && call.account == Some(id)
                && call.status == Some(200)
                && form_urlencoded::parse(&call.body)
                    .any(|(field, value)| field == "refresh_token" && value == refresh)
        };
        !self.sandbox.calls_where(with_it).is_empty()
    }

    async fn journal(&self, gateway: &Gateway, id: u64) -> String {
        let admin_token = std::fs::read_to_string(self.folder.path().join("admin.token")).unwrap();
        let url = format!("{}/api/accounts/{}/journal", gateway.admin, name_of(id));
        self.http.get(url).bearer_auth(admin_token.trim()).send().await.unwrap().text().await.unwrap()
    }

    /// Milliseconds from each refresh's arrival at the platform to that of the discovery behind it, which
    /// follows the commit: an upper bound for the window, since both ways through the network are in it.
    fn windows(&self) -> Vec<u64> {
        let mut asked: BTreeMap<u64, u64> = BTreeMap::new();
        let mut widths = Vec::new();
        for call in self.sandbox.calls() {
            let Some(account) = call.account else { continue };
            match call.endpoint {
                Some(Endpoint::Refresh) if call.status == Some(200) => {
                    asked.insert(account, call.at.as_millis());
                }
                Some(Endpoint::Discovery) => {
                    widths.extend(asked.remove(&account).map(|at| call.at.as_millis().saturating_sub(at)));
                }
                _ => {}
            }
        }
        widths.sort_unstable();
        widths
    }
}

/// Up to 600 ms, another one each time; nothing depends on which.
fn random_moment() -> Duration {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).unwrap();
    Duration::from_millis(20 + u64::from(byte[0]) * 580 / 255)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_costs_a_login_only_between_the_platforms_response_and_the_commit() {
    let bed = Arc::new(TestBed::new().await);
    let began = Instant::now();
    let mut gateway = Gateway::start(bed.folder.path());
    for id in ids() {
        bed.import(&gateway, id, "").await;
    }
    let (right, mut intents, mut lost) = (Arc::new(AtomicU64::new(0)), 0, 0);
    for kill in 1..=KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let data = gateway.data.clone();
        let load = bed.load(&data, &stop, &right);
        let killing = async {
            tokio::time::sleep(random_moment()).await;
            // Callers see the connection break, and look for a new one in vain.
            gateway.kill();
            stop.store(true, Relaxed);
        };
        tokio::join!(load, killing);

        let after_kill = bed.grants_on_disk().await;
        gateway = Gateway::start(bed.folder.path());
        for (id, after_kill) in &after_kill {
            let spent = bed.spent(*id, &after_kill.refresh);
            bed.sandbox.expire_access(*id);
            let response = bed.call(&gateway.data, *id).await.unwrap();
            let needs_login = response == (401, "account_needs_login".to_owned());
            assert!(needs_login || response == (200, String::new()), "kill {kill}, {id}: {response:?}");
            assert_eq!(needs_login, spent, "kill {kill}, {id}: a login is lost in the window and only there");
            assert!(after_kill.intent || !spent, "kill {kill}, {id}: the intent names the window");
            intents += usize::from(after_kill.intent);
            if needs_login {
                lost += 1;
                let journal = bed.journal(&gateway, *id).await;
                assert!(journal.contains("refresh_interrupted"), "{journal}");
                assert!(journal.contains("was under way when the process ended"), "{journal}");
                bed.import(&gateway, *id, "?replace=true&confirmed=true").await;
                assert_eq!(bed.call(&gateway.data, *id).await.unwrap().0, 200);
            }
        }
    }
    assert!(bed.sandbox.overlapping_refreshes().is_empty(), "{:?}", bed.sandbox.overlapping_refreshes());
    let windows = bed.windows();
    let at = |share: usize| windows.get(windows.len() * share / 100).copied().unwrap_or_default();
    assert!(windows.len() > 50, "{} refreshes", windows.len());
    println!(
        "{KILLS} kills in {:.0?}: {} right answers, {} refreshes, {intents} of {} accounts were between intent and commit, {lost} lost. \
         From the refresh at the platform to the discovery behind the commit: median {} ms, 90 % {} ms, longest {} ms.",
        began.elapsed(),
        right.load(Relaxed),
        windows.len(),
        KILLS * ACCOUNTS as usize,
        at(50),
        at(90),
        windows.last().unwrap(),
    );
}
