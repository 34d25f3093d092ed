//! The hot path: one call of a legacy application, from its head to its line in the access log. One file per step, and each step is
//! either pure or one attempt at something; only the loop in `carry` repeats.
//!
//! `caller::identify` → `ingress::locate` → `account::choose` → `permit` → the account's access → `replay::hold` → loop:
//! `forward::send`, then `retry::next_step` → `reply` (links, headers) → one line.
//!
//! Nothing here refreshes a token or speaks to a store: `access` does, and the gateway asks it through `account::Accounts`.

mod access_log;
pub mod account;
mod alarm;
mod body;
pub mod budget;
pub mod caller;
mod carry;
mod discovery;
mod forward;
pub mod headers;
pub mod ingress;
mod limits;
pub mod links;
pub mod oauth_error;
mod pages;
pub mod pool;
mod problem;
pub mod refusal;
mod replay;
mod reply;
pub mod retry;
mod rewrite;
mod sending;
pub mod settings;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod testing;
pub mod token;
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
use crate::access::book::Standing;
use crate::access::renewal::{Cause, RenewProblem};
use crate::clock::Clock;
use crate::http1::{Fields, Name, Request, RequestBody, RequestHead};
use crate::model::account::{AccountName, RealmName};
use crate::model::endpoint::{self, Endpoint, Group};

pub use access_log::{AccessLog, Line, Listeners, Observer, Record, Unobserved};
pub use body::{BodyError, ReplyBody};

use account::Accounts;
use budget::Budget;
use caller::Evidence;
use carry::Call;
use headers::Framing;
use limits::Limiter;
use links::Finder;
use pool::{Dial, Pool};
use refusal::Refusal;
use replay::Holding;
use settings::{CallerRules, Settings};
use token::TokenKey;

/// What all workers share.
pub struct Shared {
    /// Swapped by a reload.
    pub settings: ArcSwap<Settings>,
    pub tokens: TokenKey,
    pub clock: Clock,
    /// Tells this gateway from others in `Via`: `[a-z0-9-]`, the same in all replicas that must not call each other.
    pub instance: String,
    /// The access log; `None` where it is switched off.
    pub access_log: Option<AccessLog>,
    budgets: Mutex<HashMap<RealmName, Arc<Budget>>>,
    /// Filled only where accounts are limited.
    account_limiters: DashMap<AccountName, Arc<Limiter>>,
}

/// One worker's part: lives on one thread, with connections of its own.
pub struct Gateway<A: Accounts, D: Dial> {
    shared: Arc<Shared>,
    accounts: A,
    dial: D,
    listeners: Rc<Listeners>,
    pool: Pool<D::Stream>,
    /// A handful of realms: walking them is cheaper than hashing them.
    budgets: RefCell<Vec<(RealmName, Arc<Budget>)>>,
    /// This worker's own handle on the settings, so that workers do not count references to them in one place.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    settings: RefCell<Rc<Arc<Settings>>>,
    finders: RefCell<HashMap<String, Rc<Finder>>>,
    via: HeaderValue,
    ids: Ids,
    dice: Cell<u64>,
}

/// Request ids of one worker: a random beginning and a count.
struct Ids {
    /// Sixteen hexadecimal digits and a dash.
    beginning: String,
    count: Cell<u64>,
    /// Where ids are written one behind the other: each is a part of it, and costs no memory of its own.
    page: RefCell<BytesMut>,
}

type Reply<D> = Response<ReplyBody<<D as Dial>::Stream>>;

impl Shared {
    pub fn new(
        settings: Settings,
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

    fn budget(&self, realm: &RealmName) -> Arc<Budget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(realm.clone()).or_insert_with(|| Arc::new(Budget::new(self.clock.now()))).clone()
    }
}

impl<A: Accounts, D: Dial> Gateway<A, D> {
    /// Made on the worker's own thread, inside its runtime.
    pub fn new(shared: Arc<Shared>, accounts: A, dial: D, observer: Arc<dyn Observer>) -> Self {
        let via = HeaderValue::try_from(format!("1.1 genapi-gateway-{}", shared.instance))
            .unwrap_or_else(|_| HeaderValue::from_static("1.1 genapi-gateway"));
        let settings = RefCell::new(Rc::new(shared.settings.load_full()));
        let pen = shared.access_log.as_ref().map(AccessLog::pen);
        let listeners = Rc::new(Listeners { observer, pen });
        Self {
            settings,
            shared,
            accounts,
            dial,
            listeners,
            pool: Pool::default(),
            budgets: RefCell::default(),
            finders: RefCell::default(),
            via,
            ids: Ids::new(random()),
            dice: Cell::new(random()),
        }
    }

    /// One call. Dropped midway (the caller hung up), it takes its connection to the platform with it.
    pub async fn handle(&self, request: Request, evidence: Evidence) -> Reply<D> {
        let Request { head, body } = request;
        let id = self.request_id(&head.fields);
        let mut line = self.begin_line(&head.method, id.clone());
        let outcome = self.serve(&head, body, &evidence, &mut line).await;
        let mut response = outcome.unwrap_or_else(|refusal| {
            line.refusal = Some(refusal.code());
            refusal.response(&id, head.method == Method::HEAD, ReplyBody::full)
        });
        // A page that got as far as being a caller is a listed one.
        if let (Some(_), Some(origin)) = (&line.caller, head.fields.get(Name::Origin)) {
            pages::open_to(&mut response, origin);
        }
        line.status = response.status().as_u16();
        response.map(|body| body.with_line(line))
    }

    /// The id that the caller gave, where it is one that can be logged, else a new one.
    pub fn request_id(&self, fields: &Fields) -> HeaderValue {
        headers::request_id(fields).unwrap_or_else(|| self.ids.next())
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
        evidence: &Evidence,
        line: &mut Line,
    ) -> Result<Reply<D>, Refusal> {
        let settings = self.settings();
        refuse_tunnels(&head.method)?;
        if let Some(response) = pages::preflight(&settings, head) {
            return Ok(response.map(ReplyBody::full));
        }
        headers::check_loop(&head.fields, &self.via)?;
        let now = line.at;
        let caller = caller::identify(&settings, &self.shared.tokens, &head.fields, evidence, now)?;
        line.caller = Some(caller.rules.clone());
        line.admit(caller.rules.limiter.as_ref(), now)?;
        let located = ingress::locate(&head.method, &head.uri, &caller.rules.url.path)?;
        line.endpoint = located.endpoint;
        let account = account::choose(&self.accounts, &caller, located.account.as_deref(), &head.fields)?;
        line.note_account::<A>(&account);
        line.admit(self.account_limiter(&settings, A::name(&account)).as_ref(), now)?;
        permit(&caller.rules, located.endpoint)?;
        let access = self.ready(&account, line).await?;
        let call = Call::new(&settings, head, &caller.rules, located, account, &access, now)?;
        line.endpoint = call.row;
        if call.row.group == Group::Discovery && call.is_read() {
            return Ok(self.discovered(&call, &access, line));
        }
        let held = match replay::hold(body, framing(head), settings.replay_limit) {
            Holding::Done(held) => held,
            // Boxed, like all that few calls need, so that the others do not carry its size around.
            Holding::ToRead(reading) => Box::pin(reading.read(settings.body_idle)).await?,
        };
        let carried = self.carry(&call, access, &held, line).await?;
        self.reply(&call, carried, line).await
    }

    /// The account's access, after a renewal where there is no live token.
    async fn ready(&self, account: &A::Account, line: &mut Line) -> Result<Access, Refusal> {
        let now = line.at;
        A::touch(account, now);
        let name = || A::name(account).clone();
        match A::standing(account, now) {
            Standing::Ready(access) => Ok(access),
            Standing::Refused { access, cause } => {
                Box::pin(self.successor(account, access, cause, line)).await
            }
            Standing::Paused => Err(Refusal::AccountPaused(name())),
            Standing::NeedsLogin { since, remedy, .. } => {
                let realm = A::identity(account).0;
                Err(Refusal::AccountNeedsLogin { account: name(), realm, since, remedy })
            }
            Standing::Renewable { generation } => {
                line.renewals += 1;
                let renewal = self.accounts.renew(account, generation, Cause::NoToken);
                Box::pin(renewal).await.map_err(|problem| {
                    let realm = A::identity(account).0;
                    // Without an answer at hand, a renewal that came to nothing is always a refusal.
                    retry::without_renewal(&problem, Cause::NoToken, self.shared.clock.now(), &name(), &realm)
                        .unwrap_or(Refusal::TokenUnavailable(std::time::Duration::from_secs(1)))
                })
            }
        }
    }

    /// For a call that comes with a token which has just been refused to another one: sent at once, it could
    /// only be refused too.
    async fn successor(
        &self,
        account: &A::Account,
        refused: Access,
        cause: Cause,
        line: &mut Line,
    ) -> Result<Access, Refusal> {
        line.renewals += 1;
        let problem = match self.accounts.join(account).await {
            Some(Ok(newer)) => return Ok(newer),
            Some(Err(problem)) => problem,
            // It has landed between two looks.
            None => match A::standing(account, self.shared.clock.now()) {
                Standing::Ready(newer) => return Ok(newer),
                _ => return Ok(refused),
            },
        };
        // A 403 may have been meant for that one call: this one is not refused because the token endpoint
        // takes its time.
        if cause == Cause::Forbidden && problem == RenewProblem::StillRunning {
            return Ok(refused);
        }
        let realm = A::identity(account).0;
        let now = self.shared.clock.now();
        match retry::without_renewal(&problem, cause, now, A::name(account), &realm) {
            Some(refusal) => Err(refusal),
            None => Ok(refused),
        }
    }

    fn discovered(&self, call: &Call<'_, A>, access: &Access, line: &mut Line) -> Reply<D> {
        let asked = discovery::asked(&call.realm.discovery, call.head.uri.query());
        line.odd_discovery_name = asked == discovery::Asked::InAnotherSpelling;
        let mut response = discovery::response(
            &call.realm.discovery,
            asked,
            &call.rules.url,
            A::name(&call.account),
            access.route(),
            ReplyBody::full,
            call.head.method == Method::HEAD,
        );
        response.headers_mut().insert(refusal::X_REQUEST_ID.clone(), line.request_id.clone());
        response
    }

    /// The settings in force now; a call keeps to those that it began with.
    #[expect(
        clippy::redundant_allocation,
        reason = "the inner count is shared by all threads, the outer is this worker's own"
    )]
    fn settings(&self) -> Rc<Arc<Settings>> {
        let newest = self.shared.settings.load();
        let mut mine = self.settings.borrow_mut();
        if !Arc::ptr_eq(&newest, &mine) {
            *mine = Rc::new(Guard::into_inner(newest));
        }
        mine.clone()
    }

    fn with_budget<T>(&self, realm: &RealmName, ask: impl FnOnce(&Budget) -> T) -> T {
        let mut mine = self.budgets.borrow_mut();
        let at = mine.iter().position(|(known, _)| known == realm).unwrap_or_else(|| {
            mine.push((realm.clone(), self.shared.budget(realm)));
            mine.len() - 1
        });
        ask(&mine[at].1)
    }

    fn account_limiter(&self, settings: &Settings, account: &AccountName) -> Option<Arc<Limiter>> {
        let limit = settings.account_limit?;
        if let Some(known) =
            self.shared.account_limiters.get(account.as_str()).filter(|known| known.is(&limit))
        {
            return Some(known.clone());
        }
        let limiter = Limiter::new(limit);
        self.shared.account_limiters.insert(account.clone(), limiter.clone());
        Some(limiter)
    }

    fn begin_line(&self, method: &Method, id: HeaderValue) -> Line {
        let record = Record::begin(self.shared.clock.now(), id, method.clone());
        Line::begin(record, self.listeners.clone())
    }

    /// From 0 to 1; only spreads waits, so a plain generator will do (splitmix64).
    fn jitter(&self) -> f64 {
        let state = self.dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.dice.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Whether the caller may make this call at all. Decided before a token is looked for, and again when the route is known.
fn permit(rules: &CallerRules, row: &Endpoint) -> Result<(), Refusal> {
    match rules.allow.contains(&row.group) {
        _ if std::ptr::eq(row, &endpoint::TOKEN) => {
            Err(Refusal::BadRequest("tokens are asked for by POST /oauth2/token, spelled just so"))
        }
        true => Ok(()),
        false => Err(Refusal::CallNotAllowed(row.group)),
    }
}

/// No tunnel, ever, and no echo of our own headers (threats, row 2).
fn refuse_tunnels(method: &Method) -> Result<(), Refusal> {
    match ["CONNECT", "TRACE", "TRACK"].iter().any(|tunnel| method.as_str().eq_ignore_ascii_case(tunnel)) {
        true => Err(Refusal::MethodNotAllowed),
        false => Ok(()),
    }
}

fn framing(head: &RequestHead) -> Framing {
    match head.fields.has(Name::TransferEncoding) {
        true => Framing::Chunked,
        false => Framing::AsDeclared,
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // A failing generator leaves zeros: ids and jitter need no secrecy.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Room for some forty ids: a log line that waits keeps its neighbours' memory too.
const PAGE_OF_IDS: usize = 1024;

impl Ids {
    fn new(beginning: u64) -> Self {
        Self { beginning: format!("{beginning:016x}-"), count: Cell::new(0), page: RefCell::default() }
    }

    fn next(&self) -> HeaderValue {
        self.count.set(self.count.get() + 1);
        let mut digits = [0; 20];
        let digits = decimal(self.count.get(), &mut digits);
        let mut page = self.page.borrow_mut();
        if page.capacity() < self.beginning.len() + digits.len() {
            *page = BytesMut::with_capacity(PAGE_OF_IDS);
        }
        page.extend_from_slice(self.beginning.as_bytes());
        page.extend_from_slice(digits);
        HeaderValue::from_maybe_shared(page.split().freeze())
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
        let ids = Ids::new(0xff);
        ids.count.set(8);
        let next = || ids.next().to_str().unwrap().to_owned();
        assert_eq!([next(), next()], ["00000000000000ff-9", "00000000000000ff-10"]);
        ids.count.set(u64::MAX - 1);
        assert_eq!(next(), format!("00000000000000ff-{}", u64::MAX));
    }
}
