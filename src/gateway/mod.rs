//! The hot path: one call of a legacy application, from its head to its line in the access log. One file per step, and each step is
//! either pure or one attempt at something; only the loop in `forward_with_retries` repeats.
//!
//! `caller::identify` → `target::parse` → `account::choose` → `check_allowed` → the account's access → `replay::buffer` → loop:
//! `forward::send`, then `retry::next_step` → `caller_response` (links, headers) → one line.
//!
//! Nothing here refreshes a token or speaks to a store: `access` does, and the gateway asks it through `account::Accounts`.

mod access_log;
pub mod budget;
mod forward;
pub mod headers;
pub mod inbound;
mod proxy;
pub mod refusal;
mod replay;
pub mod response;
pub mod retry;
pub mod settings;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
mod trial;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use bytes::{Bytes, BytesMut};
use dashmap::DashMap;
use http::{HeaderValue, Method, Response};

use crate::access::Access;
use crate::access::registry::Availability;
use crate::access::renewal::{Cause, RenewError};
use crate::clock::Clock;
use crate::http1::client::{Dial, Pool};
use crate::http1::{Headers, KnownHeader, Request, RequestBody, RequestHead};
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint::{Endpoint, EndpointId};

pub use access_log::{AccessLog, LogEntry, NoopObserver, Observer, RequestLog, Sinks};
pub use response::body::{ResponseBody, ResponseBodyError};

use budget::RetryBudget;
use headers::OutboundFraming;
use inbound::account::{self, Accounts};
use inbound::caller::{self, PeerInfo};
use inbound::limits::CallLimiter;
use inbound::token::TokenKey;
use inbound::{cors, target};
use proxy::ResolvedRequest;
use refusal::Refusal;
use replay::BufferState;
use response::discovery;
use response::links::LinkMatcher;
use settings::{CallerRules, GatewaySettings};

/// What all workers share.
pub struct GatewayShared {
    /// Swapped by a reload.
    pub settings: ArcSwap<GatewaySettings>,
    pub tokens: TokenKey,
    pub clock: Clock,
    /// Tells this gateway from others in `Via`: `[a-z0-9-]`, the same in all replicas that must not call each other.
    pub instance: String,
    /// The access log; `None` where it is switched off.
    pub access_log: Option<AccessLog>,
    budgets: Mutex<HashMap<RealmName, Arc<RetryBudget>>>,
    /// Filled only where accounts are limited.
    account_limiters: DashMap<AccountName, Arc<CallLimiter>>,
}

/// One worker's part: lives on one thread, with connections of its own.
pub struct Gateway<A: Accounts, D: Dial> {
    shared: Arc<GatewayShared>,
    accounts: A,
    dial: D,
    sinks: Rc<Sinks>,
    pool: Pool<D::Stream>,
    /// A handful of realms: walking them is cheaper than hashing them.
    budgets: RefCell<Vec<(RealmName, Arc<RetryBudget>)>>,
    /// This worker's own handle on the settings, so that workers do not count references to them in one place.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    settings: RefCell<Rc<Arc<GatewaySettings>>>,
    link_matchers: RefCell<HashMap<String, Rc<LinkMatcher>>>,
    via: HeaderValue,
    ids: RequestIds,
    rng: Cell<u64>,
}

/// Request ids of one worker: a random beginning and a count.
struct RequestIds {
    /// Sixteen hexadecimal digits and a dash.
    prefix: String,
    count: Cell<u64>,
    /// Where ids are written one behind the other: each is a part of it, and costs no memory of its own.
    buffer: RefCell<BytesMut>,
}

type GatewayResponse<D> = Response<ResponseBody<<D as Dial>::Stream>>;

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
            budgets: Mutex::default(),
            account_limiters: DashMap::new(),
        }
    }

    fn budget(&self, realm: &RealmName) -> Arc<RetryBudget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(realm.clone()).or_insert_with(|| Arc::new(RetryBudget::new(self.clock.now()))).clone()
    }
}

impl<A: Accounts, D: Dial> Gateway<A, D> {
    /// Made on the worker's own thread, inside its runtime.
    pub fn new(shared: Arc<GatewayShared>, accounts: A, dial: D, observer: Arc<dyn Observer>) -> Self {
        let via = HeaderValue::try_from(format!("1.1 genapi-gateway-{}", shared.instance))
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 genapi-gateway"));
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
            rng: Cell::new(random()),
        }
    }

    /// One call. Dropped midway (the caller hung up), it takes its connection to the platform with it.
    pub async fn handle(&self, request: Request, peer: PeerInfo) -> GatewayResponse<D> {
        let Request { head, body } = request;
        let id = self.request_id(&head.headers);
        let mut log = self.begin_log(&head.method, id.clone());
        let outcome = self.serve(&head, body, &peer, &mut log).await;
        let mut response = outcome.unwrap_or_else(|refusal| {
            log.refusal = Some(refusal.code());
            refusal.response(&id, head.method == Method::HEAD, ResponseBody::full)
        });
        // A page that got as far as being a caller is a listed one.
        if let (Some(_), Some(origin)) = (&log.caller, head.headers.get(KnownHeader::Origin)) {
            cors::allow_origin(&mut response, origin);
        }
        log.status = response.status().as_u16();
        response.map(|body| body.with_log(log))
    }

    /// The id that the caller gave, where it is one that can be logged, else a new one.
    pub fn request_id(&self, headers: &Headers) -> HeaderValue {
        headers::request_id(headers).unwrap_or_else(|| self.ids.next())
    }

    /// What the server refuses before there is a request to handle.
    pub fn refuse(&self, refusal: &Refusal) -> Response<Bytes> {
        refusal.response(&self.ids.next(), false, |body| body)
    }

    /// Connections to the platform that lie idle on this worker.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle()
    }

    async fn serve(
        &self,
        head: &RequestHead,
        body: RequestBody,
        peer: &PeerInfo,
        log: &mut RequestLog,
    ) -> Result<GatewayResponse<D>, Refusal> {
        let settings = self.settings();
        refuse_tunnel_methods(&head.method)?;
        if let Some(response) = cors::preflight(&settings, head) {
            return Ok(response.map(ResponseBody::full));
        }
        headers::check_loop(&head.headers, &self.via)?;
        let now = log.at;
        let caller = caller::identify(&settings, &self.shared.tokens, &head.headers, peer, now)?;
        log.caller = Some(caller.rules.clone());
        log.acquire(caller.rules.limiter.as_ref(), now)?;
        let target = target::parse(&head.method, &head.uri, &caller.rules.url.path)?;
        log.endpoint = target.endpoint;
        let account = account::choose(&self.accounts, &caller, target.account.as_deref(), &head.headers)?;
        log.set_account::<A>(&account);
        log.acquire(self.account_limiter(&settings, A::name(&account)).as_ref(), now)?;
        check_allowed(&caller.rules, target.endpoint)?;
        let access = self.available_access(&account, log).await?;
        let request = ResolvedRequest::new(&settings, head, &caller.rules, target, account, &access, now)?;
        log.endpoint = request.endpoint;
        if request.endpoint.id == EndpointId::Discovery && request.is_read() {
            return Ok(self.discovery_response(&request, &access, log));
        }
        let body = match replay::buffer(body, request_framing(head), settings.replay_limit) {
            BufferState::Ready(body) => body,
            // Boxed, like all that few calls need, so that the others do not carry its size around.
            BufferState::Incomplete(buffering) => Box::pin(buffering.read(settings.body_idle)).await?,
        };
        let forwarded = self.forward_with_retries(&request, access, &body, log).await?;
        self.caller_response(&request, forwarded, log).await
    }

    /// The account's access, after a renewal where there is no live token.
    async fn available_access(&self, account: &A::Account, log: &mut RequestLog) -> Result<Access, Refusal> {
        let now = log.at;
        A::mark_used(account, now);
        let name = || A::name(account).clone();
        match A::availability(account, now) {
            Availability::Ready(access) => Ok(access),
            Availability::Refused { access, cause } => {
                Box::pin(self.join_renewal(account, access, cause, log)).await
            }
            Availability::Paused => Err(Refusal::AccountPaused(name())),
            Availability::NeedsLogin { since, remedy, .. } => {
                let realm = A::identity(account).0;
                Err(Refusal::AccountNeedsLogin { account: name(), realm, since, remedy })
            }
            Availability::Renewable { generation } => {
                log.renewals += 1;
                let renewal = self.accounts.renew(account, generation, Cause::NoToken);
                Box::pin(renewal).await.map_err(|error| {
                    let realm = A::identity(account).0;
                    retry::renewal_refusal(&error, self.shared.clock.now(), &name(), &realm)
                })
            }
        }
    }

    /// For a call that comes with a token which has just been refused to another one: sent at once, it could
    /// only be refused too.
    async fn join_renewal(
        &self,
        account: &A::Account,
        refused: Access,
        cause: Cause,
        log: &mut RequestLog,
    ) -> Result<Access, Refusal> {
        log.renewals += 1;
        let error = match self.accounts.join(account).await {
            Some(Ok(newer)) => return Ok(newer),
            Some(Err(error)) => error,
            // It has landed between two looks.
            None => match A::availability(account, self.shared.clock.now()) {
                Availability::Ready(newer) => return Ok(newer),
                _ => return Ok(refused),
            },
        };
        // A 403 may have been meant for that one call: this one is not refused because the token endpoint
        // takes its time.
        if cause == Cause::Forbidden && error == RenewError::StillRunning {
            return Ok(refused);
        }
        let realm = A::identity(account).0;
        let now = self.shared.clock.now();
        retry::after_failed_renewal(refused, &error, cause, now, A::name(account), &realm)
    }

    fn discovery_response(
        &self,
        request: &ResolvedRequest<'_, A>,
        access: &Access,
        log: &mut RequestLog,
    ) -> GatewayResponse<D> {
        let asked = discovery::parse_query(&request.realm.discovery, request.head.uri.query());
        log.odd_discovery_name = asked == discovery::DiscoveryQuery::MatchesOtherSpelling;
        let mut response = discovery::response(
            &request.realm.discovery,
            asked,
            &request.rules.url,
            A::name(&request.account),
            access.route(),
            ResponseBody::full,
            request.head.method == Method::HEAD,
        );
        response.headers_mut().insert(refusal::X_REQUEST_ID.clone(), log.request_id.clone());
        response
    }

    /// The settings in force now; a call keeps to those that it began with.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    fn settings(&self) -> Rc<Arc<GatewaySettings>> {
        let newest = self.shared.settings.load();
        let mut mine = self.settings.borrow_mut();
        if !Arc::ptr_eq(&newest, &mine) {
            *mine = Rc::new(Guard::into_inner(newest));
        }
        mine.clone()
    }

    fn with_budget<T>(&self, realm: &RealmName, ask: impl FnOnce(&RetryBudget) -> T) -> T {
        let mut mine = self.budgets.borrow_mut();
        let at = mine.iter().position(|(known, _)| known == realm).unwrap_or_else(|| {
            mine.push((realm.clone(), self.shared.budget(realm)));
            mine.len() - 1
        });
        ask(&mine[at].1)
    }

    fn account_limiter(&self, settings: &GatewaySettings, account: &AccountName) -> Option<Arc<CallLimiter>> {
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

    fn begin_log(&self, method: &Method, id: HeaderValue) -> RequestLog {
        let record = LogEntry::begin(self.shared.clock.now(), id, method.clone());
        RequestLog::begin(record, self.sinks.clone())
    }

    /// From 0 to 1; only spreads waits, so a plain generator will do (splitmix64).
    fn jitter(&self) -> f64 {
        let state = self.rng.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.rng.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Whether the caller may make this call at all. Decided before a token is looked for, and again when the route is known.
fn check_allowed(rules: &CallerRules, endpoint: &Endpoint) -> Result<(), Refusal> {
    if !endpoint.is_forwarded {
        return Err(Refusal::BadRequest("tokens are asked for by POST /oauth2/token, spelled just so"));
    }
    if rules.allow.contains(&endpoint.group) { Ok(()) } else { Err(Refusal::CallNotAllowed(endpoint.group)) }
}

/// No tunnel, ever, and no echo of our own headers (threats, row 2).
fn refuse_tunnel_methods(method: &Method) -> Result<(), Refusal> {
    match ["CONNECT", "TRACE", "TRACK"].iter().any(|tunnel| method.as_str().eq_ignore_ascii_case(tunnel)) {
        true => Err(Refusal::MethodNotAllowed),
        false => Ok(()),
    }
}

fn request_framing(head: &RequestHead) -> OutboundFraming {
    match head.headers.has(KnownHeader::TransferEncoding) {
        true => OutboundFraming::Chunked,
        false => OutboundFraming::AsReceived,
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // A failing generator leaves zeros: ids and jitter need no secrecy.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Room for some forty ids: a log line that waits keeps its neighbours' memory too.
const ID_BUFFER: usize = 1024;

impl RequestIds {
    fn new(prefix: u64) -> Self {
        Self { prefix: format!("{prefix:016x}-"), count: Cell::new(0), buffer: RefCell::default() }
    }

    fn next(&self) -> HeaderValue {
        self.count.set(self.count.get() + 1);
        let mut digits = [0; 20];
        let digits = decimal(self.count.get(), &mut digits);
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() < self.prefix.len() + digits.len() {
            *buffer = BytesMut::with_capacity(ID_BUFFER);
        }
        buffer.extend_from_slice(self.prefix.as_bytes());
        buffer.extend_from_slice(digits);
        HeaderValue::from_maybe_shared(buffer.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    }
}

/// A number's digits, without the formatter: every call needs an id.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_worker_count_up_from_a_random_beginning() {
        let ids = RequestIds::new(0xff);
        ids.count.set(8);
        let next = || ids.next().to_str().unwrap().to_owned();
        assert_eq!([next(), next()], ["00000000000000ff-9", "00000000000000ff-10"]);
        ids.count.set(u64::MAX - 1);
        assert_eq!(next(), format!("00000000000000ff-{}", u64::MAX));
    }
}
