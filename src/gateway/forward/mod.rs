//! Sends a call until there is a response for the caller: an attempt, then what `retry` decides.

mod access;
mod attempt;
pub(super) mod budget;
pub mod headers;
pub(super) mod replay;
pub(super) mod resolved_request;
pub mod retry;
mod route_trial;
pub(super) mod upstream_body;

use std::time::Duration;

use http::StatusCode;

use crate::access::Access;
use crate::access::registry::Availability;
use crate::access::renewal::Cause;
use crate::http1::client::{Dial, Io};

use super::access_log::RequestLog;
use super::refusal::Refusal;
use super::worker::Gateway;
use attempt::UpstreamResponse;
use budget::RetryBudget;
use replay::ReplayableBody;
use resolved_request::ResolvedRequest;
use retry::{AttemptError, RetryContext, RetryDecision};
use route_trial::no_proof;

/// What the loop came to, and the access that it was got with.
pub struct ForwardedResponse<S: Io> {
    pub response: UpstreamResponse<S>,
    pub access: Access,
}

/// What a renewal came to.
enum Renewed<S: Io> {
    Access(Access),
    /// No newer access: the response that asked for one passes.
    NoneBut(Box<UpstreamResponse<S>>),
}

/// What the loop remembers from one attempt to the next.
#[derive(Default)]
pub(super) struct RetryState {
    attempts: u32,
    renewed: Option<Cause>,
    retried_transparently: bool,
}

impl<D: Dial> Gateway<D> {
    pub(super) async fn forward_with_retries(
        &self,
        request: &ResolvedRequest<'_>,
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
                    self.accounts.renewals.renew_in_background(&request.account, access.generation(), cause);
                    return Ok(ForwardedResponse { response, access });
                }
                RetryDecision::Renew(response, cause) => {
                    match Box::pin(self.renew(request, &access, cause, response, log)).await? {
                        Renewed::Access(newer) => access = newer,
                        Renewed::NoneBut(response) => {
                            return Ok(ForwardedResponse { response: *response, access });
                        }
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
                    if connect_failed && let Some(newest) = self.newest_access(request, &access) {
                        access = newest;
                    }
                }
                RetryDecision::Refuse(refusal) => return Err(refusal),
            }
        }
    }

    /// The account's access as it is now, where it is still for the same realm.
    fn newest_access(&self, request: &ResolvedRequest<'_>, access: &Access) -> Option<Access> {
        let Availability::Ready(newest) = request.account.availability(self.shared.clock.now()) else {
            return None;
        };
        (newest.realm() == access.realm()).then_some(newest)
    }

    /// The vendor's response, which also proves the route that it came over, or shows that it is none.
    fn passed(
        &self,
        request: &ResolvedRequest<'_>,
        response: UpstreamResponse<D::Stream>,
        access: Access,
    ) -> ForwardedResponse<D::Stream> {
        if let Some(trial) = access.trial().filter(|trial| trial.route() == access.route()) {
            self.accounts.renewals.finish_route_trial(&request.account, trial, no_proof(&response));
        }
        ForwardedResponse { response, access }
    }

    fn context<'f>(
        &self,
        request: &'f ResolvedRequest<'_>,
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
            jitter: fastrand::f64(),
        }
    }

    /// Renews because of this response, and gives it back where that brings nothing and it is to pass.
    async fn renew(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        cause: Cause,
        response: UpstreamResponse<D::Stream>,
        log: &mut RequestLog,
    ) -> Result<Renewed<D::Stream>, Refusal> {
        log.renewals += 1;
        match self.accounts.renewals.renew(&request.account, access.generation(), cause).await {
            // The account may be of another group since.
            Ok(newer) if !request.rules.reaches(newer.realm()) => Err(Refusal::AccountNotAllowed),
            Ok(newer) => Ok(Renewed::Access(newer)),
            Err(error) => {
                let (now, account) = (self.shared.clock.now(), &request.account);
                let realm = account.login_realm();
                retry::after_failed_renewal(response, &error, cause, now, &account.name, &realm)
                    .map(|response| Renewed::NoneBut(Box::new(response)))
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
        request: &ResolvedRequest<'_>,
        access: &Access,
        state: &RetryState,
        outcome: &Result<UpstreamResponse<D::Stream>, AttemptError>,
    ) {
        match outcome {
            Ok(response) => {
                let status = response.head.status;
                if state.renewed == Some(Cause::Forbidden) && !status.is_server_error() {
                    let cured = !matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
                    self.accounts.renewals.report_forbidden(&request.account, cured);
                }
            }
            Err(AttemptError::ConnectFailed { reason, .. }) if request.takes_the_route() => {
                self.accounts.renewals.route_unreachable(&request.account, access.route(), reason);
            }
            Err(_) => {}
        }
    }
}
