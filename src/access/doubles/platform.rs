//! One realm's platform as tests script it. Where nothing is scripted, all goes well: a login finds one
//! account, a refresh brings tokens, discovery confirms the route that it is asked over.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::watch;
use url::Url;

use super::HOUR;
use crate::access::control_calls::{Call, CallFuture, ControlCalls};
use crate::access::locked;
use crate::model::account::{AccountId, ApiVersion};
use crate::model::route::{HostPolicy, Route};
use crate::model::token::{AccessToken, AuthorizationCode, RefreshToken, TokenSet};
use crate::platform::{
    Blame, CredentialsCheck, PairResponse, PlatformError, PlatformErrorKind, RelatedAccount, TokenHint,
};

/// Responses that are still to come, in order.
pub type Script<T> = Mutex<VecDeque<Result<T, PlatformError>>>;

/// These are the next responses.
pub fn will<T>(script: &Script<T>, responses: impl IntoIterator<Item = Result<T, PlatformError>>) {
    locked(script).extend(responses);
}

/// One realm's platform. It takes the refresh tokens that it was told of or has handed out.
pub struct ScriptedPlatform {
    pub rotates: bool,
    pub life: Duration,
    /// Refresh tokens that it takes, with the account's name.
    grants: Mutex<HashMap<String, String>>,
    minted: AtomicUsize,
    refresh_script: Mutex<VecDeque<PlatformError>>,
    route_script: Script<Route>,
    proof_script: Script<Route>,
    pub exchanges: Script<TokenSet>,
    pub first_discoveries: Script<Route>,
    pub lists: Script<Vec<RelatedAccount>>,
    pub pairings: Script<PairResponse>,
    pub unpairings: Script<()>,
    pub revocations: Script<()>,
    /// What was sent, in order.
    calls: Mutex<Vec<String>>,
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
            exchanges: Mutex::default(),
            first_discoveries: Mutex::default(),
            lists: Mutex::default(),
            pairings: Mutex::default(),
            unpairings: Mutex::default(),
            revocations: Mutex::default(),
            calls: Mutex::default(),
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

    /// Every control call that was sent, in order, with its token.
    pub fn calls(&self) -> Vec<String> {
        locked(&self.calls).clone()
    }

    fn record(&self, call: String) {
        locked(&self.calls).push(call);
    }

    /// The script's next response, or `plain` where nothing is scripted.
    fn next<'a, T: Send + 'a>(&'a self, call: String, script: &Script<T>, plain: T) -> CallFuture<'a, T> {
        self.record(call);
        let response = locked(script).pop_front().unwrap_or(Ok(plain));
        Box::pin(std::future::ready(response))
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
            self.record(format!("refresh {}", refresh.expose()));
            self.refreshes.send_modify(|seen| *seen += 1);
            let _ = self.refresh_door.subscribe().wait_for(|open| *open).await;
            self.mint(refresh)
        })
    }

    fn discover<'a>(
        &'a self,
        last: Option<&'a Route>,
        _version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(async move {
            self.record(format!("discover {}", bearer.expose()));
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
        _version: Option<ApiVersion>,
        bearer: &'a AccessToken,
    ) -> Call<'a, Result<Route, PlatformError>> {
        Box::pin(async move {
            self.record(format!("prove {} {}", route.host(), bearer.expose()));
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

    fn authorize_url(&self, state: &str) -> Url {
        let mut url: Url = "https://identity.test/oauth2/authorize".parse().unwrap();
        url.query_pairs_mut().append_pair("state", state);
        url
    }

    fn exchange_code<'a>(&'a self, code: &'a AuthorizationCode) -> CallFuture<'a, TokenSet> {
        let call = format!("exchange {}", code.expose());
        self.next(call, &self.exchanges, tokens("login-access", "login-refresh"))
    }

    fn revoke<'a>(&'a self, token: &'a str, _: TokenHint) -> CallFuture<'a, ()> {
        if locked(&self.revocations).front().is_none_or(Result::is_ok) {
            locked(&self.grants).remove(token);
        }
        self.next(format!("revoke {token}"), &self.revocations, ())
    }

    fn discover_first<'a>(&'a self, bearer: &'a AccessToken) -> CallFuture<'a, Route> {
        self.next(format!("discover first {}", bearer.expose()), &self.first_discoveries, route("eu"))
    }

    fn read<'a>(
        &'a self,
        _: &'a Route,
        path: &'a str,
        bearer: &'a AccessToken,
    ) -> CallFuture<'a, crate::platform::ReadResponse> {
        self.record(format!("read {path} {}", bearer.expose()));
        let body = br#"{"Data": []}"#.to_vec();
        Box::pin(std::future::ready(Ok(crate::platform::ReadResponse { status: 200, body })))
    }

    fn related_accounts<'a>(
        &'a self,
        _: &'a Route,
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
    ) -> CallFuture<'a, PairResponse> {
        let callback = callback.map_or("-", Url::as_str);
        let call = format!("pair {account} {callback} {} {}", bearer.expose(), route.host());
        let refresh = format!("pair-refresh-{account}");
        self.takes(&refresh, &account.to_string());
        let tokens = tokens(&format!("pair-access-{account}"), &refresh);
        let plain = PairResponse { tokens, company_id: Some(account), warnings: Vec::new() };
        self.next(call, &self.pairings, plain)
    }

    fn unpair<'a>(&'a self, _: &'a Route, bearer: &'a AccessToken, account: AccountId) -> CallFuture<'a, ()> {
        self.next(format!("unpair {account} {}", bearer.expose()), &self.unpairings, ())
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

pub fn related(id: u64, name: &str) -> RelatedAccount {
    RelatedAccount { id: AccountId::new(id), name: name.to_owned(), address: String::new(), paired: false }
}

pub fn tokens(access: &str, refresh: &str) -> TokenSet {
    TokenSet {
        access: AccessToken::new(access),
        refresh: Some(RefreshToken::new(refresh)),
        expires_in: HOUR,
        oddities: Vec::new(),
    }
}
