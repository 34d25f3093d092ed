//! The loop: an attempt, the next step, until there is an answer for the caller. It only does what `retry` decided.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};

use crate::access::Access;
use crate::access::book::Standing;
use crate::access::renewal::Cause;
use crate::clock::Timestamp;
use crate::http1::RequestHead;
use crate::model::endpoint::Endpoint;
use crate::model::route::Route;

use super::access_log::Line;
use super::account::Accounts;
use super::body::BodyError;
use super::budget::Budget;
use super::forward::{self, Attempt, Patience, UpstreamResponse, no_proof};
use super::headers::{Ours, Outbound};
use super::ingress::{self, Located};
use super::links;
use super::pool::{Dial, Place, Wire};
use super::refusal::Refusal;
use super::replay::Held;
use super::retry::{self, Facts, Seen, Step};
use super::settings::{CallerRules, RealmRules, Settings};
use super::{Gateway, permit};

/// A call whose caller, account and endpoint are known.
pub struct Call<'a, A: Accounts> {
    pub settings: &'a Settings,
    pub head: &'a RequestHead,
    pub rules: &'a Arc<CallerRules>,
    pub realm: &'a Arc<RealmRules>,
    pub account: A::Account,
    pub row: &'static Endpoint,
    located: Located<'a>,
    started: Timestamp,
}

/// What the loop came to, and the access that it was got with.
pub struct Carried<S: Wire> {
    pub response: UpstreamResponse<S>,
    pub access: Access,
}

/// What the loop remembers from one attempt to the next.
#[derive(Default)]
pub(super) struct Progress {
    sends: u32,
    renewed: Option<Cause>,
    repeated_silently: bool,
}

/// Where one attempt goes.
struct Target<'a> {
    /// Lower case, without the port.
    host: Cow<'a, str>,
    port: u16,
    /// Host and port as the Host header has them.
    authority: HeaderValue,
    path: [&'a str; 2],
}

/// Answers that are read before they are judged, so that a repeat finds the connection free.
const SMALL_RESPONSE: usize = 64 * 1024;

/// The old platform's V1 base (gen-api, section 1): where it is the route, V1 bodies are what the platform expects.
const V1_PATH: &str = "/lab-sw/v1";

impl<'a, A: Accounts> Call<'a, A> {
    /// Fixes the row now that the route's Path is known, and asks again whether the caller may.
    pub fn new(
        settings: &'a Settings,
        head: &'a RequestHead,
        rules: &'a Arc<CallerRules>,
        located: Located<'a>,
        account: A::Account,
        access: &Access,
        started: Timestamp,
    ) -> Result<Self, Refusal> {
        // An account's realm is gone only while a reload takes it away.
        let realm = settings.realm(access.realm()).ok_or(Refusal::AccountUnknown)?;
        let row = match located.link_host {
            Some(_) => located.endpoint,
            None => ingress::below(&head.method, located.rest, access.route().path(), located.endpoint).1,
        };
        permit(rules, row)?;
        if located.v1 && row.name == "create_rx" && access.route().path() != V1_PATH {
            return Err(Refusal::ProcedureUnknown);
        }
        Ok(Self { settings, head, rules, realm, account, row, located, started })
    }

    pub fn is_read(&self) -> bool {
        matches!(self.head.method, Method::GET | Method::HEAD)
    }

    pub(super) fn retryable(&self) -> bool {
        self.row.retryable(&self.head.method, self.settings.retry.scan_request)
    }

    /// Whether it goes to the account's route, and not to a link's host.
    pub fn takes_the_route(&self) -> bool {
        self.located.link_host.is_none()
    }

    /// Derived anew for each attempt: a renewal may have moved the account to another region.
    fn target<'r>(&'r self, route: &'r Route) -> Result<Target<'r>, Refusal> {
        let (host, port) = self.host(route)?;
        let authority = match self.located.link_host {
            Some(_) if (&*host, port) != (route.host(), route.port()) => {
                HeaderValue::try_from(route.authority_of(&host, port))
                    .map_err(|_| Refusal::BadRequest("odd link host"))?
            }
            _ => route.host_header().clone(),
        };
        Ok(Target { host, port, authority, path: self.path(route) })
    }

    fn host<'r>(&self, route: &'r Route) -> Result<(Cow<'r, str>, u16), Refusal> {
        let own = || (Cow::Borrowed(route.host()), route.port());
        match self.located.link_host {
            None => Ok(own()),
            Some(authority) if links::is_authority_of(authority, route) => Ok(own()),
            // Checked again on the way in: whoever made up this link does not decide where the bearer goes.
            Some(authority) => links::link_host(authority, route, self.realm)
                .map(|(host, port)| (Cow::Owned(host), port))
                .ok_or(Refusal::BadRequest("the link's host is not one of this account's")),
        }
    }

    /// The route's Path, and what goes behind it.
    fn path<'r>(&'r self, route: &'r Route) -> [&'r str; 2] {
        let Located { link_host, rest, .. } = self.located;
        match link_host {
            Some(_) => ["", rest],
            None => {
                let (rest, _) = ingress::below(&self.head.method, rest, route.path(), self.row);
                [route.path(), rest]
            }
        }
    }
}

impl<A: Accounts, D: Dial> Gateway<A, D> {
    pub(super) async fn carry(
        &self,
        call: &Call<'_, A>,
        mut access: Access,
        held: &Held,
        line: &mut Line,
    ) -> Result<Carried<D::Stream>, Refusal> {
        if access.trial().is_some()
            && let Some(carried) = Box::pin(self.try_route(call, &access, held, line)).await?
        {
            return Ok(carried);
        }
        let mut progress = Progress::default();
        self.with_budget(access.realm(), |budget| budget.deposit(call.settings.retry.budget));
        loop {
            let outcome = self.attempt(call, &access, held, &mut progress, line).await?;
            let seen = seen(&outcome);
            self.report(call, &access, &progress, &seen);
            match self.next_step(call, &access, held, &progress, &seen) {
                Step::Reply => {
                    if let Some(trial) = access.trial().filter(|trial| trial.route() == access.route()) {
                        self.accounts.trial_over(&call.account, trial, no_proof(&outcome));
                    }
                    return carried(outcome, access);
                }
                Step::ReplyAndRenew(cause) => {
                    self.accounts.renew_behind(&call.account, access.generation(), cause);
                    return carried(outcome, access);
                }
                Step::Renew(cause) => match Box::pin(self.renew(call, &access, cause, line)).await? {
                    Some(newer) => {
                        access = newer;
                        progress.renewed = Some(cause);
                        // The account may have moved to where no discovery is served, and the old region
                        // refuses it.
                        if access.trial().is_some()
                            && let Some(carried) = Box::pin(self.try_route(call, &access, held, line)).await?
                        {
                            return Ok(carried);
                        }
                    }
                    None => return carried(outcome, access),
                },
                Step::Wait(pause) => {
                    Box::pin(self.wait(pause, &access, &mut progress, line)).await;
                    // Where no connection can be had, another route may have been found meanwhile.
                    if matches!(seen, Seen::NotSent { .. })
                        && let Standing::Ready(newest) = A::standing(&call.account, self.shared.clock.now())
                        && newest.realm() == access.realm()
                    {
                        access = newest;
                    }
                }
                Step::Refuse(refusal) => return Err(refusal),
            }
        }
    }

    /// One send with this access.
    pub(super) async fn attempt(
        &self,
        call: &Call<'_, A>,
        access: &Access,
        held: &Held,
        progress: &mut Progress,
        line: &mut Line,
    ) -> Result<Result<UpstreamResponse<D::Stream>, Seen>, Refusal> {
        let route = access.route();
        let target = call.target(route)?;
        let settings = call.settings;
        let patience = Patience {
            response: settings.response_timeout,
            idle: settings.idle_timeout,
            caller: settings.body_idle,
        };
        progress.sends += 1;
        line.attempts += 1;
        let Target { host, port, authority, path } = target;
        let head = Outbound {
            caller: call.head,
            path,
            query: call.located.query,
            ours: Ours {
                host: authority,
                bearer: access.expose_bearer(),
                via: &self.via,
                request_id: &line.request_id,
                framing: held.framing(),
                links: call.row.links,
            },
        };
        let began = Instant::now();
        let attempt = Attempt {
            head,
            body: held.send(),
            place: Place { realm: access.realm(), host: &host, port, secure: route.secure() },
            began,
            retryable: call.retryable() && held.replayable(),
            fresh: progress.repeated_silently,
            keep: settings.pool,
            patience,
        };
        let mut outcome = forward::send(&self.pool, &self.dial, attempt).await;
        let ended = outcome.as_ref().map_or_else(|_| Instant::now(), |response| response.came);
        line.platform += ended.saturating_duration_since(began);
        if let Ok(response) = &mut outcome
            && may_be_repeated(response.head.status)
            && let Err(error) = Box::pin(response.body.settle(SMALL_RESPONSE)).await
        {
            outcome = Err(unsettled(error));
        }
        Ok(outcome)
    }

    fn next_step(
        &self,
        call: &Call<'_, A>,
        access: &Access,
        held: &Held,
        progress: &Progress,
        seen: &Seen,
    ) -> Step {
        match seen {
            // Nearly all: what passes in any case needs no facts to be gathered.
            Seen::Status(status) if !may_be_repeated(*status) => Step::Reply,
            seen => retry::next_step(&self.facts(call, access, held, progress), seen),
        }
    }

    fn facts<'f>(
        &self,
        call: &'f Call<'_, A>,
        access: &Access,
        held: &Held,
        progress: &Progress,
    ) -> Facts<'f> {
        let now = self.shared.clock.now();
        Facts {
            row: call.row,
            limits: &call.settings.retry,
            retryable: call.retryable(),
            replayable: held.replayable(),
            sends: progress.sends - u32::from(progress.repeated_silently),
            renewed: progress.renewed.is_some(),
            repeated_silently: progress.repeated_silently,
            elapsed: now.since(call.started),
            budget: self.with_budget(access.realm(), |budget| budget.has_one(now)),
            jitter: self.jitter(),
        }
    }

    /// A newer access, or `None` where the answer at hand is to pass.
    async fn renew(
        &self,
        call: &Call<'_, A>,
        access: &Access,
        cause: Cause,
        line: &mut Line,
    ) -> Result<Option<Access>, Refusal> {
        line.renewals += 1;
        match self.accounts.renew(&call.account, access.generation(), cause).await {
            Ok(newer) => Ok(Some(newer)),
            Err(problem) => {
                let now = self.shared.clock.now();
                match retry::without_renewal(&problem, cause, now, A::name(&call.account), access.realm()) {
                    Some(refusal) => Err(refusal),
                    None => Ok(None),
                }
            }
        }
    }

    async fn wait(&self, pause: Duration, access: &Access, progress: &mut Progress, line: &mut Line) {
        line.retries += 1;
        if pause.is_zero() {
            progress.repeated_silently = true;
            return;
        }
        self.with_budget(access.realm(), Budget::withdraw);
        self.shared.clock.sleep(pause).await;
    }

    /// Tells `access` what a 403-caused renewal was good for, of which a 5xx says nothing, and that no
    /// connection could be made.
    fn report(&self, call: &Call<'_, A>, access: &Access, progress: &Progress, seen: &Seen) {
        if let Seen::NotSent { why, .. } = seen
            && call.takes_the_route()
        {
            self.accounts.route_unreachable(&call.account, access.route(), why);
        }
        let (Some(Cause::Forbidden), Seen::Status(status)) = (progress.renewed, seen) else { return };
        if !status.is_server_error() {
            let cured = !matches!(*status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
            self.accounts.report_forbidden(&call.account, cured);
        }
    }

    /// One automaton per Path and worker.
    pub(super) fn finder(&self, route_path: &str) -> Option<Rc<links::Finder>> {
        let mut finders = self.finders.borrow_mut();
        if let Some(finder) = finders.get(route_path) {
            return Some(finder.clone());
        }
        let finder = Rc::new(links::Finder::new(route_path)?);
        finders.insert(route_path.to_owned(), finder.clone());
        Some(finder)
    }
}

fn seen<S: Wire>(outcome: &Result<UpstreamResponse<S>, Seen>) -> Seen {
    match outcome {
        Ok(response) => Seen::Status(response.head.status),
        Err(seen) => seen.clone(),
    }
}

pub(super) fn carried<S: Wire>(
    outcome: Result<UpstreamResponse<S>, Seen>,
    access: Access,
) -> Result<Carried<S>, Refusal> {
    match outcome {
        Ok(response) => Ok(Carried { response, access }),
        // `next_step` lets only answers pass.
        Err(_) => Err(Refusal::PlatformMisbehaved("there is no answer to pass on")),
    }
}

fn may_be_repeated(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn unsettled(error: BodyError) -> Seen {
    match error {
        BodyError::Stalled => Seen::TimedOut,
        BodyError::BrokenOff | BodyError::Damaged => Seen::Lost,
    }
}
