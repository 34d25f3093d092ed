//! The loop: an attempt, the next step, until there is an answer for the caller. It only does what `retry` decided.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};

use crate::access::Access;
use crate::access::registry::Availability;
use crate::access::renewal::Cause;
use crate::clock::Timestamp;
use crate::http1::RequestHead;
use crate::http1::client::{Dial, Io, PoolKey, Timeouts};
use crate::model::endpoint::Endpoint;
use crate::model::route::Route;

use super::access_log::RequestLog;
use super::budget::RetryBudget;
use super::forward::{self, Attempt, UpstreamResponse};
use super::headers::{GatewayHeaders, OutboundHead};
use super::inbound::account::Accounts;
use super::inbound::target::{self, ParsedTarget};
use super::refusal::Refusal;
use super::replay::ReplayableBody;
use super::response::body::ResponseBodyError;
use super::response::links;
use super::retry::{self, AttemptError, RetryContext, RetryDecision};
use super::settings::{CallerRules, GatewaySettings, RealmPolicy};
use super::trial::no_proof;
use super::{Gateway, check_allowed};

/// A call whose caller, account and endpoint are known.
pub struct ResolvedRequest<'a, A: Accounts> {
    pub settings: &'a GatewaySettings,
    pub head: &'a RequestHead,
    pub rules: &'a Arc<CallerRules>,
    pub realm: &'a Arc<RealmPolicy>,
    pub account: A::Account,
    pub endpoint: &'static Endpoint,
    target: ParsedTarget<'a>,
    started: Timestamp,
}

/// What the loop came to, and the access that it was got with.
pub struct ForwardedResponse<S: Io> {
    pub response: UpstreamResponse<S>,
    pub access: Access,
}

/// What a renewal came to.
enum Renewed<S: Io> {
    Access(Access),
    /// No newer access: the response that asked for one passes.
    NoneBut(UpstreamResponse<S>),
}

/// What the loop remembers from one attempt to the next.
#[derive(Default)]
pub(super) struct RetryState {
    attempts: u32,
    renewed: Option<Cause>,
    retried_transparently: bool,
}

/// Where one attempt goes.
struct UpstreamTarget<'a> {
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

impl<'a, A: Accounts> ResolvedRequest<'a, A> {
    /// Fixes the row now that the route's Path is known, and asks again whether the caller may.
    pub fn new(
        settings: &'a GatewaySettings,
        head: &'a RequestHead,
        rules: &'a Arc<CallerRules>,
        target: ParsedTarget<'a>,
        account: A::Account,
        access: &Access,
        started: Timestamp,
    ) -> Result<Self, Refusal> {
        // An account's realm is gone only while a reload takes it away.
        let realm = settings.realm(access.realm()).ok_or(Refusal::AccountUnknown)?;
        let endpoint = match target.link_host {
            Some(_) => target.endpoint,
            None => {
                target::strip_route_path(&head.method, target.rest, access.route().path(), target.endpoint).1
            }
        };
        check_allowed(rules, endpoint)?;
        if target.v1 && endpoint.differs_in_v1 && access.route().path() != V1_PATH {
            return Err(Refusal::ProcedureUnknown);
        }
        Ok(Self { settings, head, rules, realm, account, endpoint, target, started })
    }

    pub fn is_read(&self) -> bool {
        matches!(self.head.method, Method::GET | Method::HEAD)
    }

    pub(super) fn retryable(&self) -> bool {
        self.endpoint.retryable(&self.head.method, self.settings.retry.scan_request)
    }

    /// Whether it goes to the account's route, and not to a link's host.
    pub fn takes_the_route(&self) -> bool {
        self.target.link_host.is_none()
    }

    /// Derived anew for each attempt: a renewal may have moved the account to another region.
    fn target<'r>(&'r self, route: &'r Route) -> Result<UpstreamTarget<'r>, Refusal> {
        let (host, port) = self.host(route)?;
        let authority = match self.target.link_host {
            Some(_) if (&*host, port) != (route.host(), route.port()) => {
                HeaderValue::try_from(route.authority_of(&host, port))
                    .map_err(|_| Refusal::BadRequest("odd link host"))?
            }
            _ => route.host_header().clone(),
        };
        Ok(UpstreamTarget { host, port, authority, path: self.path(route) })
    }

    fn host<'r>(&self, route: &'r Route) -> Result<(Cow<'r, str>, u16), Refusal> {
        let own = || (Cow::Borrowed(route.host()), route.port());
        match self.target.link_host {
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
        let ParsedTarget { link_host, rest, .. } = self.target;
        match link_host {
            Some(_) => ["", rest],
            None => {
                let (rest, _) =
                    target::strip_route_path(&self.head.method, rest, route.path(), self.endpoint);
                [route.path(), rest]
            }
        }
    }
}

impl<A: Accounts, D: Dial> Gateway<A, D> {
    pub(super) async fn forward_with_retries(
        &self,
        request: &ResolvedRequest<'_, A>,
        mut access: Access,
        body: &ReplayableBody,
        log: &mut RequestLog,
    ) -> Result<ForwardedResponse<D::Stream>, Refusal> {
        if access.trial().is_some()
            && let Some(forwarded) = Box::pin(self.try_route(request, &access, body, log)).await?
        {
            return Ok(forwarded);
        }
        let mut state = RetryState::default();
        self.with_budget(access.realm(), |budget| budget.deposit(request.settings.retry.budget));
        loop {
            let outcome = self.attempt(request, &access, body, &mut state, log).await?;
            self.report(request, &access, &state, &outcome);
            let outcome = match outcome {
                // Nearly all: what passes in any case needs no facts to be gathered.
                Ok(response) if retry::is_final(response.head.status) => {
                    return Ok(self.passed(request, response, access));
                }
                outcome => outcome.map(|response| (response.head.status, response)),
            };
            let connect_failed = matches!(outcome, Err(AttemptError::ConnectFailed { .. }));
            match retry::next_step(&self.context(request, &access, body, &state), outcome) {
                RetryDecision::PassThrough(response) => return Ok(self.passed(request, response, access)),
                RetryDecision::PassThroughAndRenew(response, cause) => {
                    self.accounts.renew_in_background(&request.account, access.generation(), cause);
                    return Ok(ForwardedResponse { response, access });
                }
                RetryDecision::Renew(response, cause) => {
                    match Box::pin(self.renew(request, &access, cause, response, log)).await? {
                        Renewed::Access(newer) => access = newer,
                        Renewed::NoneBut(response) => return Ok(ForwardedResponse { response, access }),
                    }
                    state.renewed = Some(cause);
                    // The account may have moved to where no discovery is served, and the old region
                    // refuses it.
                    if access.trial().is_some()
                        && let Some(forwarded) = Box::pin(self.try_route(request, &access, body, log)).await?
                    {
                        return Ok(forwarded);
                    }
                }
                RetryDecision::RetryAfter(pause) => {
                    Box::pin(self.wait(pause, &access, &mut state, log)).await;
                    // Where no connection can be had, another route may have been found meanwhile.
                    if connect_failed
                        && let Availability::Ready(newest) =
                            A::availability(&request.account, self.shared.clock.now())
                        && newest.realm() == access.realm()
                    {
                        access = newest;
                    }
                }
                RetryDecision::Refuse(refusal) => return Err(refusal),
            }
        }
    }

    /// The vendor's response, which also proves the route that it came over, or shows that it is none.
    fn passed(
        &self,
        request: &ResolvedRequest<'_, A>,
        response: UpstreamResponse<D::Stream>,
        access: Access,
    ) -> ForwardedResponse<D::Stream> {
        if let Some(trial) = access.trial().filter(|trial| trial.route() == access.route()) {
            self.accounts.route_tried(&request.account, trial, no_proof(&response));
        }
        ForwardedResponse { response, access }
    }

    /// One send with this access.
    pub(super) async fn attempt(
        &self,
        request: &ResolvedRequest<'_, A>,
        access: &Access,
        body: &ReplayableBody,
        state: &mut RetryState,
        log: &mut RequestLog,
    ) -> Result<Result<UpstreamResponse<D::Stream>, AttemptError>, Refusal> {
        let route = access.route();
        let target = request.target(route)?;
        let settings = request.settings;
        let timeouts = Timeouts {
            response: settings.response_timeout,
            idle: settings.idle_timeout,
            caller: settings.body_idle,
        };
        state.attempts += 1;
        log.attempts += 1;
        let UpstreamTarget { host, port, authority, path } = target;
        let head = OutboundHead {
            caller: request.head,
            path,
            query: request.target.query,
            gateway_headers: GatewayHeaders {
                host: authority,
                bearer: access.expose_bearer(),
                via: &self.via,
                request_id: &log.request_id,
                framing: body.framing(),
                links: request.endpoint.links,
            },
        };
        let started_at = Instant::now();
        let attempt = Attempt {
            head,
            body: body.attempt_body(),
            key: PoolKey { partition: access.realm().as_str(), host: &host, port, secure: route.secure() },
            started_at,
            retryable: request.retryable() && body.replayable(),
            fresh: state.retried_transparently,
            max_idle_per_host: settings.pool,
            timeouts,
        };
        let mut outcome = forward::send(&self.pool, &self.dial, attempt).await;
        let ended = outcome.as_ref().map_or_else(|_| Instant::now(), |response| response.received_at);
        log.platform += ended.saturating_duration_since(started_at);
        if let Ok(response) = &mut outcome
            && !retry::is_final(response.head.status)
            && let Err(error) = Box::pin(response.body.buffer_up_to(SMALL_RESPONSE)).await
        {
            outcome = Err(buffering_failed(error));
        }
        Ok(outcome)
    }

    fn context<'f>(
        &self,
        request: &'f ResolvedRequest<'_, A>,
        access: &Access,
        body: &ReplayableBody,
        state: &RetryState,
    ) -> RetryContext<'f> {
        let now = self.shared.clock.now();
        RetryContext {
            endpoint: request.endpoint,
            limits: &request.settings.retry,
            retryable: request.retryable(),
            replayable: body.replayable(),
            attempts: state.attempts - u32::from(state.retried_transparently),
            renewed: state.renewed.is_some(),
            retried_transparently: state.retried_transparently,
            elapsed: now.since(request.started),
            budget: self.with_budget(access.realm(), |budget| budget.has_one(now)),
            jitter: self.jitter(),
        }
    }

    /// Renews because of this response, and gives it back where that brings nothing and it is to pass.
    async fn renew(
        &self,
        request: &ResolvedRequest<'_, A>,
        access: &Access,
        cause: Cause,
        response: UpstreamResponse<D::Stream>,
        log: &mut RequestLog,
    ) -> Result<Renewed<D::Stream>, Refusal> {
        log.renewals += 1;
        match self.accounts.renew(&request.account, access.generation(), cause).await {
            Ok(newer) => Ok(Renewed::Access(newer)),
            Err(error) => {
                let (now, account) = (self.shared.clock.now(), A::name(&request.account));
                retry::after_failed_renewal(response, &error, cause, now, account, access.realm())
                    .map(Renewed::NoneBut)
            }
        }
    }

    async fn wait(&self, pause: Duration, access: &Access, state: &mut RetryState, log: &mut RequestLog) {
        log.retries += 1;
        if pause.is_zero() {
            state.retried_transparently = true;
            return;
        }
        self.with_budget(access.realm(), RetryBudget::withdraw);
        self.shared.clock.sleep(pause).await;
    }

    /// Tells `access` what a 403-caused renewal was good for, of which a 5xx says nothing, and that no
    /// connection could be made.
    fn report(
        &self,
        request: &ResolvedRequest<'_, A>,
        access: &Access,
        state: &RetryState,
        outcome: &Result<UpstreamResponse<D::Stream>, AttemptError>,
    ) {
        match outcome {
            Ok(response) => {
                let status = response.head.status;
                if state.renewed == Some(Cause::Forbidden) && !status.is_server_error() {
                    let cured = !matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
                    self.accounts.report_forbidden(&request.account, cured);
                }
            }
            Err(AttemptError::ConnectFailed { reason, .. }) if request.takes_the_route() => {
                self.accounts.route_unreachable(&request.account, access.route(), reason);
            }
            Err(_) => {}
        }
    }

    /// One automaton per Path and worker.
    pub(super) fn link_matcher(&self, route_path: &str) -> Option<Rc<links::LinkMatcher>> {
        let mut link_matchers = self.link_matchers.borrow_mut();
        if let Some(link_matcher) = link_matchers.get(route_path) {
            return Some(link_matcher.clone());
        }
        let link_matcher = Rc::new(links::LinkMatcher::new(route_path)?);
        link_matchers.insert(route_path.to_owned(), link_matcher.clone());
        Some(link_matcher)
    }
}

fn buffering_failed(error: ResponseBodyError) -> AttemptError {
    match error {
        ResponseBodyError::Stalled => AttemptError::TimedOut,
        ResponseBodyError::Truncated | ResponseBodyError::Damaged => AttemptError::ConnectionLost,
    }
}
