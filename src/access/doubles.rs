//! A scripted platform and a workbench around it, for the tests of this module and of those that stand on it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::journal::{Journal, JournalEvent, RecordedEvents};
use crate::model::account::{AccountId, AccountState, RealmName};
use crate::model::route::{HostPolicy, Route};
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{
    Blame, CredentialsCheck, PairResponse, PlatformError, PlatformErrorKind, RelatedAccount, TokenHint,
};
use crate::store::cluster::ReplicaId;
use crate::store::memory::MemoryStore;
use crate::store::{GrantRecord, NewGrant, Store, StoredAccess, StoredRoute};

use super::control_calls::{Call, CallFuture, ControlCalls};
use super::locked;
use super::registry::{Account, AccountRegistry, RouteRules};
use super::renewal::{RenewalParts, Renewals};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// A realm that answers as told, and well where nothing is told: a refresh brings tokens, and discovery
/// confirms the route that it is asked over.
pub struct ScriptedPlatform {
    pub rotates: bool,
    pub life: Duration,
    /// Refresh tokens that it takes, with the account's name.
    grants: Mutex<HashMap<String, String>>,
    minted: AtomicUsize,
    refresh_script: Mutex<VecDeque<PlatformError>>,
    route_script: Mutex<VecDeque<Result<Route, PlatformError>>>,
    proof_script: Mutex<VecDeque<Result<Route, PlatformError>>>,
    /// Over which route discovery was asked last.
    asked: Mutex<Option<Route>>,
    /// Routes that were asked for proof, in order.
    pub proofs: Mutex<Vec<Route>>,
    pub verdict: Mutex<CredentialsCheck>,
    /// Closed, calls stand still inside the platform.
    pub refresh_door: watch::Sender<bool>,
    pub discovery_door: watch::Sender<bool>,
    pub proof_door: watch::Sender<bool>,
    pub refreshes: watch::Sender<usize>,
    pub discoveries: AtomicUsize,
    pub probes: AtomicUsize,
}

impl ScriptedPlatform {
    pub fn new(rotates: bool) -> Self {
        Self {
            rotates,
            life: HOUR,
            grants: Mutex::default(),
            minted: AtomicUsize::new(0),
            refresh_script: Mutex::default(),
            route_script: Mutex::default(),
            proof_script: Mutex::default(),
            proofs: Mutex::default(),
            verdict: Mutex::new(CredentialsCheck::Good),
            refresh_door: watch::Sender::new(true),
            discovery_door: watch::Sender::new(true),
            proof_door: watch::Sender::new(true),
            asked: Mutex::default(),
            refreshes: watch::Sender::new(0),
            discoveries: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
        }
    }

    pub fn refreshes(&self) -> usize {
        *self.refreshes.borrow()
    }

    pub fn discoveries(&self) -> usize {
        self.discoveries.load(SeqCst)
    }

    pub fn probes(&self) -> usize {
        self.probes.load(SeqCst)
    }

    pub async fn until_refreshes(&self, count: usize) {
        self.refreshes.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// The next refreshes fail like this.
    pub fn refreshes_fail(&self, error: PlatformError, times: usize) {
        locked(&self.refresh_script).extend(std::iter::repeat_n(error, times));
    }

    /// What was scripted for refreshes is over.
    pub fn recovers(&self) {
        locked(&self.refresh_script).clear();
    }

    pub fn next_discovery(&self, response: Result<Route, PlatformError>) {
        locked(&self.route_script).push_back(response);
    }

    pub fn last_asked(&self) -> Option<Route> {
        locked(&self.asked).clone()
    }

    /// What a route answers that is to be proven; one that nothing is told of names itself.
    pub fn next_proof(&self, response: Result<Route, PlatformError>) {
        locked(&self.proof_script).push_back(response);
    }

    pub fn takes(&self, refresh_token: &str, name: &str) {
        locked(&self.grants).insert(refresh_token.to_owned(), name.to_owned());
    }

    pub fn forgets(&self, name: &str) {
        locked(&self.grants).retain(|_, holder| holder != name);
    }

    /// A response that was carried out and lost: with rotation the old token is spent.
    pub fn loses_a_response_of(&self, name: &str) {
        self.refreshes_fail(error("refresh", Blame::Realm, PlatformErrorKind::Lost, None), 1);
        if self.rotates {
            self.forgets(name);
        }
    }

    fn mint(&self, refresh: &RefreshToken) -> Result<TokenSet, PlatformError> {
        if let Some(error) = locked(&self.refresh_script).pop_front() {
            return Err(error);
        }
        let mut grants = locked(&self.grants);
        let Some(name) = grants.get(refresh.expose()).cloned() else {
            return Err(refused());
        };
        let number = self.minted.fetch_add(1, SeqCst) + 1;
        let rotated = format!("refresh-{name}-{number}");
        if self.rotates {
            grants.remove(refresh.expose());
            grants.insert(rotated.clone(), name.clone());
        }
        Ok(TokenSet {
            access: AccessToken::new(format!("access-{name}-{number}")),
            refresh: self.rotates.then(|| RefreshToken::new(rotated)),
            expires_in: self.life,
            oddities: Vec::new(),
        })
    }
}

impl ControlCalls for ScriptedPlatform {
    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> Call<'a, Result<TokenSet, PlatformError>> {
        Box::pin(async move {
            self.refreshes.send_modify(|seen| *seen += 1);
            let _ = self.refresh_door.subscribe().wait_for(|open| *open).await;
            self.mint(refresh)
        })
    }

    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        _bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(async move {
            *locked(&self.asked) = last.cloned();
            self.discoveries.fetch_add(1, SeqCst);
            let _ = self.discovery_door.subscribe().wait_for(|open| *open).await;
            let scripted = locked(&self.route_script).pop_front();
            scripted.unwrap_or_else(|| Ok(last.cloned().unwrap_or_else(|| route("eu"))))
        })
    }

    fn prove<'a>(
        &'a self,
        route: &'a Route,
        _bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(async move {
            locked(&self.proofs).push(route.clone());
            let _ = self.proof_door.subscribe().wait_for(|open| *open).await;
            locked(&self.proof_script).pop_front().unwrap_or_else(|| Ok(route.clone()))
        })
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        Box::pin(async move {
            self.probes.fetch_add(1, SeqCst);
            *locked(&self.verdict)
        })
    }

    fn authorize_url(&self, _: &str) -> Url {
        unreachable!("renewal makes no such call")
    }

    fn exchange_code<'a>(&'a self, _: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        unreachable!("renewal makes no such call")
    }

    fn revoke<'a>(&'a self, _: &'a str, _: TokenHint) -> CallFuture<'a, ()> {
        unreachable!("renewal makes no such call")
    }

    fn discover_first<'a>(&'a self, _: &'a AccessToken) -> CallFuture<'a, Route> {
        unreachable!("renewal makes no such call")
    }

    fn related_accounts<'a>(
        &'a self,
        _: &'a Route,
        _: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>> {
        unreachable!("renewal makes no such call")
    }

    fn pair<'a>(
        &'a self,
        _: &'a Route,
        _: &'a AccessToken,
        _: AccountId,
        _: Option<&'a Url>,
    ) -> CallFuture<'a, PairResponse> {
        unreachable!("renewal makes no such call")
    }

    fn unpair<'a>(&'a self, _: &'a Route, _: &'a AccessToken, _: AccountId) -> CallFuture<'a, ()> {
        unreachable!("renewal makes no such call")
    }
}

pub fn error(
    call: &'static str,
    blame: Blame,
    kind: PlatformErrorKind,
    status: Option<u16>,
) -> PlatformError {
    PlatformError::plain(call, blame, kind, status, format!("{kind:?}"))
}

pub fn refused() -> PlatformError {
    error("refresh", Blame::Grant, PlatformErrorKind::Refused, Some(401))
}

/// A response whose access token cannot be used and that brings a refresh token.
pub fn without_access(refresh: &str) -> PlatformError {
    let refresh = Some(RefreshToken::new(refresh));
    PlatformError { refresh, ..error("refresh", Blame::Realm, PlatformErrorKind::Malformed, Some(200)) }
}

pub fn timed_out() -> PlatformError {
    error("refresh", Blame::Realm, PlatformErrorKind::TimedOut, Some(504))
}

pub fn unreachable() -> PlatformError {
    error("refresh", Blame::Realm, PlatformErrorKind::Unreachable, None)
}

/// Somebody answers there, and knows no discovery.
pub fn not_served() -> PlatformError {
    error("discovery", Blame::Realm, PlatformErrorKind::Unexpected, Some(404))
}

pub fn policy() -> HostPolicy {
    HostPolicy { allowed: vec!["*.iterocloud.com".parse().unwrap()], allow_insecure: false }
}

pub fn route(region: &str) -> Route {
    Route::parse(&format!("https://{region}.iterocloud.com"), "/itero-gen-api/v2", &policy()).unwrap()
}

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
            locked(&platform.grants).insert(format!("refresh-{name}-0"), (*name).to_owned());
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
        let rules = HashMap::from([(global(), RouteRules { hosts: policy(), pinned: None })]);
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
        self.registry.set_rules(HashMap::from([(global(), RouteRules { hosts, pinned: None })]));
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
