//! A call over a route that is not proven: whether it suits, and what its answer proves. Where it proves
//! nothing, the call goes over the proven route, and its caller notices no more than a delay.

use std::time::Duration;

use crate::access::Access;

use super::Gateway;
use super::access_log::Line;
use super::account::Accounts;
use super::carry::{Call, Carried, Progress, carried};
use super::forward::no_proof;
use super::pool::Dial;
use super::refusal::Refusal;
use super::replay::Held;
use super::retry::Seen;

/// A caller that meets a trial waits for it before it is served over the proven route.
const LONGEST_TRIAL: Duration = Duration::from_secs(3);

impl<A: Accounts, D: Dial> Gateway<A, D> {
    /// Sends a call over a route that is not proven, where nothing is lost if that turns out to be a wrong
    /// one. `None`: over the proven one, then, and at once.
    pub(super) async fn try_route(
        &self,
        call: &Call<'_, A>,
        access: &Access,
        held: &Held,
        line: &mut Line,
    ) -> Result<Option<Carried<D::Stream>>, Refusal> {
        let Some(trial) = access.trial() else { return Ok(None) };
        let suits = trial.route() != access.route()
            && call.takes_the_route()
            && call.is_read()
            && call.retryable()
            && held.replayable();
        let Some(_turn) = suits.then(|| trial.begin()).flatten() else { return Ok(None) };
        let tried = access.over(trial.route());
        let mut progress = Progress::default();
        let attempt = self.attempt(call, &tried, held, &mut progress, line);
        let outcome = tokio::select! {
            biased;
            outcome = attempt => outcome?,
            () = tokio::time::sleep(LONGEST_TRIAL) => Err(Seen::TimedOut),
        };
        let failure = no_proof(&outcome);
        let failed = failure.is_some();
        self.accounts.trial_over(&call.account, trial, failure);
        match failed {
            true => Ok(None),
            false => carried(outcome, tried).map(Some),
        }
    }
}
