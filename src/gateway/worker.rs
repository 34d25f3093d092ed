//! What all workers share, and what one worker owns: its connections, its handle on the settings, its request
//! ids.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use dashmap::DashMap;
use http::{HeaderValue, Method, Response};

use super::access_log::{AccessLog, CallObserver, LogEntry, RequestLog, Sinks};
use super::download_links::DownloadLinks;
use super::forward::budget::RetryBudget;
use super::forward::headers;
use super::inbound::limits::CallLimiter;
use super::inbound::token::TokenKey;
use super::refusal::Refusal;
use super::request_ids::RequestIds;
use super::response::body::ResponseBody;
use super::response::links::LinkMatcher;
use super::settings::GatewaySettings;
use crate::access::registry::AccountRegistry;
use crate::access::renewal::Renewals;
use crate::clock::Clock;
use crate::http1::client::{Dial, Pool};
use crate::http1::{Headers, RequestHead};
use crate::model::account::{AccountName, RealmName};

/// What all workers share.
pub struct GatewayShared {
    /// Swapped by a reload.
    pub settings: ArcSwap<GatewaySettings>,
    pub tokens: TokenKey,
    pub clock: Clock,
    /// Tells this gateway from others in `Via`: `[a-z0-9-]`, the same in all replicas that must not call each
    /// other.
    pub instance: String,
    /// The access log; `None` where it is switched off.
    pub access_log: Option<AccessLog>,
    pub(super) download_links: Arc<DownloadLinks>,
    budgets: Mutex<HashMap<RealmName, Arc<RetryBudget>>>,
    /// Filled only where accounts are limited.
    account_limiters: DashMap<AccountName, Arc<CallLimiter>>,
}

/// The accounts, and the one way to renew them.
pub struct AccountDirectory {
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
}

/// One worker's part: lives on one thread, with connections of its own.
pub struct Gateway<D: Dial> {
    pub(super) shared: Arc<GatewayShared>,
    pub(super) accounts: AccountDirectory,
    pub(super) dial: D,
    pub(super) sinks: Rc<Sinks>,
    pub(super) pool: Pool<D::Stream>,
    /// A handful of realms: walking them is cheaper than hashing them.
    pub(super) budgets: RefCell<Vec<(RealmName, Arc<RetryBudget>)>>,
    /// This worker's own handle on the settings, so that workers do not count references to them in one
    /// place.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    pub(super) settings: RefCell<Rc<Arc<GatewaySettings>>>,
    pub(super) link_matchers: RefCell<HashMap<String, Rc<LinkMatcher>>>,
    pub(super) via: HeaderValue,
    ids: RequestIds,
}

pub type GatewayResponse<D> = Response<ResponseBody<<D as Dial>::Stream>>;

impl GatewayShared {
    pub fn new(
        settings: GatewaySettings,
        tokens: TokenKey,
        clock: Clock,
        instance: &str,
        access_log: Option<AccessLog>,
    ) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            tokens,
            clock,
            instance: instance.to_owned(),
            access_log,
            download_links: Arc::default(),
            budgets: Mutex::default(),
            account_limiters: DashMap::new(),
        }
    }

    fn budget(&self, realm: &RealmName) -> Arc<RetryBudget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(realm.clone()).or_insert_with(|| Arc::new(RetryBudget::new(self.clock.now()))).clone()
    }
}

/// By which the gateway called `instance` knows what has passed through it.
pub fn via_header(instance: &str) -> HeaderValue {
    HeaderValue::try_from(format!("1.1 genapi-gateway-{instance}"))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 genapi-gateway"))
}

impl<D: Dial> Gateway<D> {
    /// Made on the worker's own thread, inside its runtime.
    pub fn new(
        shared: Arc<GatewayShared>,
        accounts: AccountDirectory,
        dial: D,
        observer: Arc<dyn CallObserver>,
    ) -> Self {
        let via = via_header(&shared.instance);
        let settings = RefCell::new(Rc::new(shared.settings.load_full()));
        let writer = shared.access_log.as_ref().map(AccessLog::writer);
        let sinks = Rc::new(Sinks { observer, log_writer: writer });
        Self {
            settings,
            shared,
            accounts,
            dial,
            sinks,
            pool: Pool::new(random()),
            budgets: RefCell::default(),
            link_matchers: RefCell::default(),
            via,
            ids: RequestIds::new(random()),
        }
    }

    /// The id that the caller gave, where it is one that can be logged, else a new one.
    pub fn request_id(&self, headers: &Headers) -> HeaderValue {
        headers::request_id(headers).unwrap_or_else(|| self.ids.next())
    }

    /// What the server refuses before there is a request to handle.
    pub fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        refusal.response(&self.ids.next(), false, |body| body)
    }

    /// Whether a request has passed through this gateway before.
    pub fn check_loop(&self, head: &RequestHead) -> Result<(), Refusal> {
        headers::check_loop(&head.headers, &self.via)
    }

    /// Connections to the platform that lie idle on this worker.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle()
    }

    /// The settings in force now; a call keeps to those that it began with.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    pub(super) fn settings(&self) -> Rc<Arc<GatewaySettings>> {
        let newest = self.shared.settings.load();
        let mut mine = self.settings.borrow_mut();
        if !Arc::ptr_eq(&newest, &mine) {
            *mine = Rc::new(Guard::into_inner(newest));
        }
        mine.clone()
    }

    pub(super) fn with_budget<T>(&self, realm: &RealmName, ask: impl FnOnce(&RetryBudget) -> T) -> T {
        let mut mine = self.budgets.borrow_mut();
        let at = mine.iter().position(|(known, _)| known == realm).unwrap_or_else(|| {
            mine.push((realm.clone(), self.shared.budget(realm)));
            mine.len() - 1
        });
        ask(&mine[at].1)
    }

    pub(super) fn account_limiter(
        &self,
        settings: &GatewaySettings,
        account: &AccountName,
    ) -> Option<Arc<CallLimiter>> {
        let limit = settings.account_limit?;
        if let Some(known) =
            self.shared.account_limiters.get(account.as_str()).filter(|known| known.has_limit(&limit))
        {
            return Some(known.clone());
        }
        let limiter = CallLimiter::new(limit);
        self.shared.account_limiters.insert(account.clone(), limiter.clone());
        Some(limiter)
    }

    pub(super) fn begin_log(&self, method: &Method, id: HeaderValue) -> RequestLog {
        let record = LogEntry::begin(self.shared.clock.now(), id, method.clone());
        RequestLog::begin(record, self.sinks.clone())
    }

    /// One automaton per Path and worker.
    pub(super) fn link_matcher(&self, route_path: &str) -> Option<Rc<LinkMatcher>> {
        let mut link_matchers = self.link_matchers.borrow_mut();
        if let Some(link_matcher) = link_matchers.get(route_path) {
            return Some(link_matcher.clone());
        }
        let link_matcher = Rc::new(LinkMatcher::new(route_path)?);
        link_matchers.insert(route_path.to_owned(), link_matcher.clone());
        Some(link_matcher)
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // A failing generator leaves zeros: ids need no secrecy.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
