//! A call over a route that is not proven: whether it suits, and what its answer proves. Where it proves
//! nothing, the call goes over the proven route, and its caller notices no more than a delay.

use std::time::Duration;

use crate::access::Access;
use crate::http1::client::Dial;

use super::Gateway;
use super::access_log::RequestLog;
use super::forward::no_proof;
use super::inbound::account::Accounts;
use super::proxy::{ForwardedResponse, ResolvedRequest, RetryState, forwarded};
use super::refusal::Refusal;
use super::replay::ReplayableBody;
use super::retry::AttemptOutcome;

/// A caller that meets a trial waits for it before it is served over the proven route.
const LONGEST_TRIAL: Duration = Duration::from_secs(3);

impl<A: Accounts, D: Dial> Gateway<A, D> {
    /// Sends a call over a route that is not proven, where nothing is lost if that turns out to be a wrong
    /// one. `None`: over the proven one, then, and at once.
    pub(super) async fn try_route(
        &self,
        request: &ResolvedRequest<'_, A>,
        access: &Access,
        body: &ReplayableBody,
        log: &mut RequestLog,
    ) -> Result<Option<ForwardedResponse<D::Stream>>, Refusal> {
        let Some(trial) = access.trial() else { return Ok(None) };
        let suits = trial.route() != access.route()
            && request.takes_the_route()
            && request.is_read()
            && request.retryable()
            && body.replayable();
        let Some(_turn) = suits.then(|| trial.begin()).flatten() else { return Ok(None) };
        let tried = access.over(trial.route());
        let mut state = RetryState::default();
        let attempt = self.attempt(request, &tried, body, &mut state, log);
        let outcome = tokio::select! {
            biased;
            outcome = attempt => outcome?,
            () = tokio::time::sleep(LONGEST_TRIAL) => Err(AttemptOutcome::TimedOut),
        };
        let failure = no_proof(&outcome);
        let failed = failure.is_some();
        self.accounts.route_tried(&request.account, trial, failure);
        match failed {
            true => Ok(None),
            false => forwarded(outcome, tried).map(Some),
        }
    }
}
