//! The access that a call is sent with: the account's own, or what a renewal brings.

use std::sync::Arc;

use super::retry;
use crate::access::Access;
use crate::access::registry::{Account, Availability};
use crate::access::renewal::{Cause, RenewError};
use crate::gateway::access_log::RequestLog;
use crate::gateway::refusal::Refusal;
use crate::gateway::worker::Gateway;
use crate::http1::client::Dial;

impl<D: Dial> Gateway<D> {
    /// The account's access, after a renewal where there is no live token.
    pub(in crate::gateway) async fn available_access(
        &self,
        account: &Arc<Account>,
        log: &mut RequestLog,
    ) -> Result<Access, Refusal> {
        let now = log.at;
        account.mark_used(now);
        let name = || account.name.clone();
        match account.availability(now) {
            Availability::Ready(access) => Ok(access),
            Availability::Refused { access, cause } => {
                Box::pin(self.join_renewal(account, access, cause, log)).await
            }
            Availability::Paused => Err(Refusal::AccountPaused(name())),
            Availability::NeedsLogin { since, remedy, .. } => {
                let realm = account.login_realm();
                Err(Refusal::AccountNeedsLogin { account: name(), realm, since, remedy })
            }
            Availability::Renewable { generation } => {
                log.renewals += 1;
                let renewal = self.accounts.renewals.renew(account, generation, Cause::NoToken);
                Box::pin(renewal).await.map_err(|error| {
                    let realm = account.login_realm();
                    retry::renewal_refusal(&error, self.shared.clock.now(), &name(), &realm)
                })
            }
        }
    }

    /// For a call that comes with a token which has just been refused to another one: sent at once, it could
    /// only be refused too.
    async fn join_renewal(
        &self,
        account: &Arc<Account>,
        refused: Access,
        cause: Cause,
        log: &mut RequestLog,
    ) -> Result<Access, Refusal> {
        log.renewals += 1;
        let error = match self.accounts.renewals.join(account).await {
            Some(Ok(newer)) => return Ok(newer),
            Some(Err(error)) => error,
            // It has landed between two looks.
            None => match account.availability(self.shared.clock.now()) {
                Availability::Ready(newer) => return Ok(newer),
                _ => return Ok(refused),
            },
        };
        // A 403 may have been meant for that one call: this one is not refused because the token endpoint
        // takes its time.
        if cause == Cause::Forbidden && error == RenewError::StillRunning {
            return Ok(refused);
        }
        let realm = account.login_realm();
        let now = self.shared.clock.now();
        retry::after_failed_renewal(refused, &error, cause, now, &account.name, &realm)
    }
}
