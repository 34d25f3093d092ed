//! A scripted platform and a workbench around it, for the tests of this module and of those that stand on it.

mod platform;

pub use platform::*;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::journal::{Journal, JournalEvent, RecordedEvents};
use crate::model::account::{AccountId, AccountState, RealmName};
use crate::model::route::{HostPolicy, Route};
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::cluster::ReplicaId;
use crate::store::memory::MemoryStore;
use crate::store::{GrantRecord, NewGrant, Store, StoredAccess, StoredRoute};

use super::control_calls::ControlCalls;
use super::registry::{Account, AccountRegistry, RouteRules};
use super::renewal::{RenewalParts, Renewals};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// Renewals over a store in memory, a scripted realm `global` and a clock that stands still.
pub struct Workbench {
    pub clock: Clock,
    pub store: Arc<MemoryStore>,
    pub registry: Arc<AccountRegistry>,
    pub platform: Arc<ScriptedPlatform>,
    pub events: RecordedEvents,
    pub renewals: Renewals,
}

pub fn settings() -> config::RenewalConfig {
    config::RenewalConfig { min_gap: MINUTE, renew_before_expiry: 5 * MINUTE, idle_renewal: 7 * 24 * HOUR }
}

pub fn global() -> RealmName {
    "global".parse().unwrap()
}

pub fn start_time() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

pub fn new_grant(name: &str, realm: &RealmName, number: u64, at: Timestamp) -> NewGrant {
    NewGrant {
        name: name.parse().unwrap(),
        realm: realm.clone(),
        account_id: AccountId::new(number),
        refresh: RefreshToken::new(format!("refresh-{name}-0")),
        access: Some(StoredAccess {
            token: AccessToken::new(format!("access-{name}-0")),
            expires_at: at + HOUR,
        }),
        route: Some(stored_route(&route("eu"), at)),
        at,
        make_current: true,
        state: None,
        trial: None,
    }
}

fn stored_route(route: &Route, discovered_at: Timestamp) -> StoredRoute {
    StoredRoute { domain: route.domain(), path: route.path().to_owned(), discovered_at }
}

impl Workbench {
    /// Accounts that were just paired.
    pub async fn new(platform: ScriptedPlatform, names: &[&str]) -> Self {
        let clock = Clock::manual(start_time());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        for (number, name) in names.iter().enumerate() {
            store.put_grant(new_grant(name, &global(), number as u64, start_time())).await.unwrap();
        }
        for name in names {
            platform.takes(&format!("refresh-{name}-0"), name);
        }
        Self::over(clock, store, Arc::new(platform), settings()).await
    }

    /// The same store and platform after a restart, or with other settings.
    pub async fn over(
        clock: Clock,
        store: Arc<MemoryStore>,
        platform: Arc<ScriptedPlatform>,
        settings: config::RenewalConfig,
    ) -> Self {
        let rules = HashMap::from([(global(), RouteRules { hosts: policy(), pinned: None, is_old: false })]);
        let records = store.accounts().await.unwrap().accounts;
        let registry = Arc::new(AccountRegistry::load(records, rules));
        let (journal, events) = Journal::recording(clock.clone());
        let renewals = Renewals::new(RenewalParts {
            clock: clock.clone(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            registry: Arc::clone(&registry),
            platforms: platforms(&platform),
            journal,
            settings,
            runtime: Handle::current(),
            replica: ReplicaId::new("test").unwrap(),
        });
        Self { clock, store, registry, platform, events, renewals }
    }

    pub fn account(&self, name: &str) -> Arc<Account> {
        self.registry.by_name(name).unwrap()
    }

    /// From now on routes of realm `global` may lead there, and only there.
    pub fn allow_hosts(&self, hosts: HostPolicy) {
        self.registry
            .set_rules(HashMap::from([(global(), RouteRules { hosts, pinned: None, is_old: false })]));
    }

    /// An account that was just paired, with its route where that is known.
    pub async fn pair(&self, name: &str, realm: &str, id: u64, route: Option<&Route>) -> Arc<Account> {
        let now = self.clock.now();
        let mut grant = new_grant(name, &realm.parse().unwrap(), id, now);
        grant.route = route.map(|route| stored_route(route, now));
        self.platform.takes(&format!("refresh-{name}-0"), name);
        self.registry.apply(self.store.put_grant(grant).await.unwrap()).unwrap()
    }

    /// Another gateway has proven this route of the account: the store has it, and the registry hears of it.
    pub async fn move_account(&self, name: &str, route: &Route) {
        let route = stored_route(route, self.clock.now());
        self.store.set_route(&name.parse().unwrap(), &global(), &route).await.unwrap();
        self.reload(name).await;
    }

    pub async fn pause(&self, name: &str) {
        self.store.set_state(&name.parse().unwrap(), &AccountState::Paused).await.unwrap();
        self.reload(name).await;
    }

    async fn reload(&self, name: &str) {
        let record = self.store.account(&name.parse().unwrap()).await.unwrap().unwrap();
        self.registry.apply(record);
    }

    /// Why the account's tokens were refreshed, each time, as its timeline says.
    pub fn reasons_of_refreshes(&self, name: &str) -> Vec<String> {
        let lines = self.events.of(name, JournalEvent::Refreshed);
        lines.iter().map(|line| line.split(';').next().unwrap_or_default().to_owned()).collect()
    }

    pub async fn grant(&self, name: &str) -> GrantRecord {
        let record = self.store.account(&name.parse().unwrap()).await.unwrap().unwrap();
        record.current_grant().unwrap().clone()
    }
}

pub fn platforms(platform: &Arc<ScriptedPlatform>) -> HashMap<RealmName, Arc<dyn ControlCalls>> {
    HashMap::from([(global(), Arc::clone(platform) as Arc<dyn ControlCalls>)])
}

/// The token in a bearer.
pub fn token(access: &super::Access) -> &str {
    access.expose_bearer().strip_prefix("Bearer ").unwrap()
}
