//! Tries a call over a route that is not proven: which calls may, and what a response proves. Where it proves
//! nothing, the call goes over the proven route, and its caller notices no more than a delay.

use std::time::Duration;

use crate::access::Access;
use crate::http1::KnownHeader;
use crate::http1::client::{Dial, Io};

use super::attempt::UpstreamResponse;
use super::replay::ReplayableBody;
use super::resolved_request::ResolvedRequest;
use super::retry::AttemptError;
use super::{ForwardedResponse, RetryState};
use crate::gateway::access_log::RequestLog;
use crate::gateway::refusal::Refusal;
use crate::gateway::worker::Gateway;

/// A caller that meets a trial waits for it before it is served over the proven route.
const LONGEST_TRIAL: Duration = Duration::from_secs(3);

impl<D: Dial> Gateway<D> {
    /// Sends a call over a route that is not proven, where nothing is lost if that turns out to be a wrong
    /// one. `None`: over the proven one, then, and at once.
    pub(super) async fn try_route(
        &self,
        request: &ResolvedRequest<'_>,
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
            () = tokio::time::sleep(LONGEST_TRIAL) => Err(AttemptError::TimedOut),
        };
        let (forwarded, failure) = match outcome {
            Ok(response) => match no_proof(&response) {
                None => (Some(ForwardedResponse { response, access: tried }), None),
                failure => (None, failure),
            },
            Err(error) => (None, Some(failure_of(error))),
        };
        self.accounts.renewals.finish_route_trial(&request.account, trial, failure);
        Ok(forwarded)
    }
}

/// Why a response does not show that the vendor's API is there; `None` where it does. Only what was carried
/// out counts, and no web page: another product's host responds too.
pub(super) fn no_proof<S: Io>(response: &UpstreamResponse<S>) -> Option<String> {
    if !response.head.status.is_success() {
        return Some(format!("it answers a call with status {}", response.head.status.as_u16()));
    }
    let kind = response.head.headers.get(KnownHeader::ContentType).unwrap_or_default();
    let is_page = kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
    is_page.then(|| "it answers a call with a web page".to_owned())
}

fn failure_of(error: AttemptError) -> String {
    match error {
        AttemptError::ConnectFailed { reason, .. } => reason,
        AttemptError::TimedOut => "it does not answer a call in time".to_owned(),
        _ => "it answers a call with what is no valid answer".to_owned(),
    }
}
