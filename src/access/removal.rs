//! Removes accounts, or hands them to somebody else, while they may be refreshed. The rule: what was removed
//! does not come back.

use std::sync::Arc;
use std::time::Duration;

use crate::model::account::AccountName;

use super::renewal::Renewals;

/// A refresh in flight is waited for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Renewals {
    /// Takes an account out of the registry for good. A renewal in flight may put back what it read before,
    /// so it is looked at again after it.
    pub fn withdraw(&self, name: &AccountName) {
        let context = Arc::clone(self.context());
        let account = context.registry.by_name(name.as_str());
        context.registry.remove(name.as_str());
        let Some(mut in_flight) = account.and_then(|account| account.single_flight.in_flight()) else {
            return;
        };
        let name = name.clone();
        self.context().runtime.spawn(async move {
            let _ = in_flight.wait_for(Option::is_some).await;
            if let Ok(None) = context.store.account(&name).await {
                context.registry.remove(name.as_str());
            }
        });
    }

    /// Returns when no refresh of the account is in flight here, or after ten seconds.
    pub async fn until_idle(&self, name: &AccountName) {
        let Some(account) = self.context().registry.by_name(name.as_str()) else { return };
        let Some(mut in_flight) = account.single_flight.in_flight() else { return };
        tokio::select! {
            biased;
            _ = in_flight.wait_for(Option::is_some) => {}
            () = self.context().clock.sleep(LONGEST_WAIT) => {}
        }
    }
}
