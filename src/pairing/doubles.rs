//! Pairing on a real registry and real renewals, over a store in memory and two scripted platforms.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Pairing, PairingParts, PairingRealm};
use crate::access::account::Account;
use crate::access::control_calls::ControlCalls;
use crate::access::doubles::{self, ScriptedPlatform};
use crate::access::known_tokens::KnownTokens;
use crate::access::registry::{AccountRegistry, RouteRules};
use crate::access::renewal::{RenewalParts, Renewals};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::journal::{Journal, RecordedEvents};
use crate::model::account::RealmName;
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::cluster::ReplicaId;
use crate::store::memory::MemoryStore;
use crate::store::{AccountRecord, Store};

pub(crate) use crate::access::doubles::{global, related, route, timed_out, tokens, will};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A clock, a store and two realms, `global` and `china`. Refreshes may follow each other at once.
pub(crate) struct Scene {
    pub clock: Clock,
    pub store: Arc<MemoryStore>,
    pub global: Arc<ScriptedPlatform>,
    pub china: Arc<ScriptedPlatform>,
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub known_tokens: Arc<KnownTokens>,
    pub events: RecordedEvents,
    pub pairing: Arc<Pairing>,
}

impl Scene {
    /// Needs a runtime, where the renewals run.
    pub fn new() -> Self {
        let clock = Clock::manual(START);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let global = Arc::new(ScriptedPlatform::new(true));
        let china = Arc::new(ScriptedPlatform::new(true));
        let platforms: BTreeMap<RealmName, Arc<dyn ControlCalls>> = BTreeMap::from([
            (doubles::global(), global.clone() as Arc<dyn ControlCalls>),
            ("china".parse().unwrap(), china.clone() as Arc<dyn ControlCalls>),
        ]);
        let rules = || RouteRules { hosts: doubles::policy(), pinned: None, is_old: false };
        let rules = platforms.keys().map(|realm| (realm.clone(), rules())).collect();
        let registry = Arc::new(AccountRegistry::new(rules));
        let (journal, events) = Journal::recording(clock.clone());
        let renewals = Renewals::new(RenewalParts {
            clock: clock.clone(),
            store: store.clone(),
            registry: registry.clone(),
            platforms: platforms.clone().into_iter().collect::<HashMap<_, _>>(),
            journal: journal.clone(),
            settings: config::RenewalConfig { min_gap: Duration::ZERO, ..doubles::settings() },
            runtime: Handle::current(),
            replica: ReplicaId::new("test").unwrap(),
        });
        let realm = |calls| PairingRealm {
            group: None,
            kind: config::RealmKind::New,
            redirect_uri: "https://gateway.example.com/oauth2/callback".parse().unwrap(),
            hosts: doubles::policy(),
            calls,
        };
        let known_tokens = Arc::new(KnownTokens::default());
        let pairing = Pairing::new(PairingParts {
            clock: clock.clone(),
            store: store.clone(),
            realms: platforms.into_iter().map(|(name, calls)| (name, realm(calls))).collect(),
            applications: Vec::new(),
            retry: retry(),
            registry: registry.clone(),
            renewals: renewals.clone(),
            journal,
            known_tokens: known_tokens.clone(),
        });
        Self { clock, store, global, china, registry, renewals, known_tokens, events, pairing }
    }

    pub async fn record(&self, name: &str) -> Option<AccountRecord> {
        self.store.account(&name.parse().unwrap()).await.unwrap()
    }

    /// What the request path sees of an account.
    pub fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.registry.by_name(name)
    }
}

fn retry() -> config::RetryConfig {
    config::RetryConfig {
        attempts: 3,
        initial_backoff: Duration::from_secs(1),
        pairing_backoff: Duration::from_secs(2),
        deadline: Duration::from_secs(20),
        budget: 0.2,
        scan_request: false,
    }
}

pub(crate) fn trouble(kind: PlatformErrorKind, blame: Blame, status: u16) -> PlatformError {
    PlatformError::plain("scripted", blame, kind, Some(status), "a scripted trouble")
}
