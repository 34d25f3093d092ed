//! The platform and the rest of the gateway as tests script them.
//! Unscripted calls succeed with plain answers.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use url::Url;

use super::ports::Hooks;
use super::{Pairing, PairingParts, PairingRealm};
use crate::access::control_calls::{Call, CallFuture, ControlCalls};
use crate::access::replace_grant::ReplaceError;
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, RealmName};
use crate::model::route::{HostPolicy, Route};
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{
    self, Blame, CredentialsCheck, PlatformError, PlatformErrorKind, RelatedAccount, TokenHint,
};
use crate::store::memory::MemoryStore;
use crate::store::{AccountRecord, NewGrant, NewTokens, Store, StoredAccess, TrialRefresh};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A clock, a store and two realms, `global` (https) and `china`.
pub(crate) struct Scene {
    pub clock: Clock,
    pub store: Arc<MemoryStore>,
    pub global: Arc<DoublePlatform>,
    pub china: Arc<DoublePlatform>,
    pub hooks: Arc<DoubleHooks>,
    pub pairing: Arc<Pairing>,
}

impl Scene {
    pub fn new() -> Self {
        let clock = Clock::manual(START);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let hooks =
            Arc::new(DoubleHooks { clock: clock.clone(), store: store.clone(), seen: Mutex::default() });
        let (global, china) =
            (Arc::new(DoublePlatform::new("global")), Arc::new(DoublePlatform::new("china")));
        let realm = |platform: &Arc<DoublePlatform>, host: &str| PairingRealm {
            redirect_uri: format!("https://{host}/oauth2/callback").parse().unwrap(),
            hosts: policy(),
            calls: platform.clone(),
        };
        let realms = BTreeMap::from([
            ("global".parse().unwrap(), realm(&global, "gateway.example.com")),
            ("china".parse().unwrap(), realm(&china, "gateway.example.com")),
        ]);
        let parts = PairingParts {
            clock: clock.clone(),
            store: store.clone(),
            realms,
            retry: retry(),
            hooks: hooks.clone(),
        };
        Self { clock, store, global, china, hooks, pairing: Pairing::new(parts) }
    }

    pub async fn record(&self, name: &str) -> Option<AccountRecord> {
        self.store.account(&name.parse().unwrap()).await.unwrap()
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

fn policy() -> HostPolicy {
    HostPolicy { allowed: vec!["*.iterocloud.com".parse().unwrap()], allow_insecure: false }
}

pub(crate) fn route(region: &str) -> Route {
    Route::parse(&format!("https://{region}.iterocloud.com"), "/itero-gen-api/v2", &policy()).unwrap()
}

pub(crate) fn trouble(kind: PlatformErrorKind, blame: Blame, status: u16) -> PlatformError {
    PlatformError::plain("scripted", blame, kind, Some(status), "a scripted trouble")
}

pub(crate) fn timed_out() -> PlatformError {
    trouble(PlatformErrorKind::TimedOut, Blame::Realm, 504)
}

pub(crate) fn related(id: u64, name: &str) -> RelatedAccount {
    RelatedAccount { id: AccountId::new(id), name: name.to_owned(), address: String::new(), paired: false }
}

pub(crate) fn tokens(access: &str, refresh: &str) -> TokenSet {
    TokenSet {
        access: AccessToken::new(access),
        refresh: Some(RefreshToken::new(refresh)),
        expires_in: Duration::from_secs(3600),
        oddities: Vec::new(),
    }
}

type ScriptedResponses<T> = Mutex<VecDeque<Result<T, PlatformError>>>;

/// One realm's platform. `calls` is what was sent, in order.
pub(crate) struct DoublePlatform {
    name: &'static str,
    pub exchanges: ScriptedResponses<TokenSet>,
    pub first_discoveries: ScriptedResponses<Route>,
    pub discoveries: ScriptedResponses<Route>,
    pub proofs: ScriptedResponses<Route>,
    pub lists: ScriptedResponses<Vec<RelatedAccount>>,
    pub pairings: ScriptedResponses<platform::PairResponse>,
    pub unpairings: ScriptedResponses<()>,
    pub revocations: ScriptedResponses<()>,
    calls: Mutex<Vec<String>>,
}

impl DoublePlatform {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            exchanges: Mutex::default(),
            first_discoveries: Mutex::default(),
            discoveries: Mutex::default(),
            proofs: Mutex::default(),
            lists: Mutex::default(),
            pairings: Mutex::default(),
            unpairings: Mutex::default(),
            revocations: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn next<'a, T: Send + 'a>(
        &'a self,
        call: String,
        script: &ScriptedResponses<T>,
        plain: T,
    ) -> CallFuture<'a, T> {
        self.calls.lock().unwrap().push(call);
        let response = script.lock().unwrap().pop_front().unwrap_or(Ok(plain));
        Box::pin(std::future::ready(response))
    }
}

pub(crate) fn will<T>(
    script: &ScriptedResponses<T>,
    responses: impl IntoIterator<Item = Result<T, PlatformError>>,
) {
    script.lock().unwrap().extend(responses);
}

impl ControlCalls for DoublePlatform {
    fn authorize_url(&self, state: &str) -> Url {
        let mut url: Url = format!("https://{}.identity.test/oauth2/authorize", self.name).parse().unwrap();
        url.query_pairs_mut().append_pair("state", state);
        url
    }

    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        let call = format!("exchange {}", code.expose());
        self.next(call, &self.exchanges, tokens("login-access", "login-refresh"))
    }

    fn refresh<'a>(&'a self, refresh: &'a RefreshToken) -> CallFuture<'a, TokenSet> {
        self.next(
            format!("refresh {}", refresh.expose()),
            &self.exchanges,
            tokens("refreshed-access", "next-refresh"),
        )
    }

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        self.next(format!("discover first {}", bearer.expose()), &self.first_discoveries, route("eu"))
    }

    fn discover<'a>(&'a self, last: Option<&'a Route>, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        let plain = last.cloned().unwrap_or_else(|| route("eu"));
        self.next(format!("discover {}", bearer.expose()), &self.discoveries, plain)
    }

    fn prove<'a>(&'a self, route: &'a Route, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        self.next(format!("prove {} {}", route.host(), bearer.expose()), &self.proofs, route.clone())
    }

    fn related_accounts<'a>(
        &'a self,
        _route: &'a Route,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, Vec<RelatedAccount>> {
        self.next(format!("list {}", bearer.expose()), &self.lists, vec![related(12, "Smile Berlin")])
    }

    fn pair<'a>(
        &'a self,
        route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
        callback: Option<&'a Url>,
    ) -> CallFuture<'a, platform::PairResponse> {
        let callback = callback.map_or("-", Url::as_str);
        let call = format!("pair {account} {callback} {} {}", bearer.expose(), route.host());
        let tokens = tokens(&format!("pair-access-{account}"), &format!("pair-refresh-{account}"));
        let plain = platform::PairResponse { tokens, company_id: Some(account), warnings: Vec::new() };
        self.next(call, &self.pairings, plain)
    }

    fn unpair<'a>(
        &'a self,
        _route: &'a Route,
        bearer: &'a AccessToken,
        account: AccountId,
    ) -> CallFuture<'a, ()> {
        self.next(format!("unpair {account} {}", bearer.expose()), &self.unpairings, ())
    }

    fn revoke<'a>(&'a self, token: &'a str, _hint: TokenHint) -> CallFuture<'a, ()> {
        self.next(format!("revoke {token}"), &self.revocations, ())
    }

    fn probe_credentials(&self) -> Call<'_, CredentialsCheck> {
        unreachable!("pairing does not probe credentials")
    }
}

/// The rest of the gateway: what it was told, in order. A renewal commits new tokens to the store.
pub(crate) struct DoubleHooks {
    clock: Clock,
    store: Arc<MemoryStore>,
    seen: Mutex<Vec<String>>,
}

impl DoubleHooks {
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn see(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }

    async fn commit(&self, name: &AccountName) {
        let record = self.store.account(name).await.unwrap().unwrap();
        let grant = record.current_grant().unwrap();
        let now = self.clock.now();
        let access = StoredAccess {
            token: AccessToken::new("renewed-access"),
            expires_at: now + Duration::from_secs(3600),
        };
        let refresh = Some(RefreshToken::new(format!("rotated-{}", grant.account_id)));
        let tokens = NewTokens { access, refresh, refreshed_at: now };
        self.store.commit_tokens(name, &grant.realm, grant.generation, &tokens).await.unwrap();
    }
}

impl Hooks for DoubleHooks {
    fn publish(&self, record: &AccountRecord) {
        self.see(format!("publish {} {}", record.name, record.state.word()));
    }

    fn withdraw(&self, name: &AccountName) {
        self.see(format!("withdraw {name}"));
    }

    fn rename(&self, from: &AccountName, record: &AccountRecord) {
        self.see(format!("rename {from} {}", record.name));
    }

    fn until_idle<'a>(&'a self, _: &'a AccountName) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }

    /// An account whose name begins like this has tokens that the store did not take.
    fn is_unsaved(&self, account: &AccountName) -> bool {
        account.as_str().starts_with("unsaved")
    }

    fn note(&self, account: &AccountName, event: JournalEvent, detail: String) {
        self.see(format!("note {account} {event}: {detail}"));
    }

    fn replace<'a>(
        &'a self,
        mut grant: NewGrant,
    ) -> Pin<Box<dyn Future<Output = Result<AccountRecord, ReplaceError>> + Send + 'a>> {
        self.see(format!("replace {}", grant.name));
        Box::pin(async move {
            if grant.refresh.expose().starts_with("dead") {
                return Err(ReplaceError::Refused("401".to_owned()));
            }
            let (handed_in, now) = (grant.refresh.clone(), self.clock.now());
            grant.refresh = RefreshToken::new(format!("rotated-{}", grant.account_id));
            let token = AccessToken::new("renewed-access");
            grant.access = Some(StoredAccess { token, expires_at: now + Duration::from_secs(3600) });
            grant.trial = Some(TrialRefresh { handed_in, refreshed_at: now });
            Ok(self.store.put_grant(grant).await.unwrap())
        })
    }

    fn discover<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        self.see(format!("discover {account}"));
        Box::pin(std::future::ready(Ok(())))
    }

    fn renew<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        self.see(format!("renew {account}"));
        Box::pin(async move {
            if account.as_str().starts_with("dead") {
                return Err("the refresh token is not accepted".to_owned());
            }
            self.commit(account).await;
            Ok(())
        })
    }
}

/// The realm that most tests use.
pub(crate) fn global() -> RealmName {
    "global".parse().unwrap()
}
