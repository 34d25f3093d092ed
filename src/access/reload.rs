//! Puts new settings, credentials and addresses in force while the process runs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config;
use crate::model::account::{AccountState, RealmName};

use super::account::Account;
use super::cause::Cause;
use super::control_calls::ControlCalls;
use super::renewal::Renewals;
use super::starter::Starter;

impl Renewals {
    /// Puts new settings in force. Realms in `changed` have new credentials or addresses: their waits end,
    /// and accounts that needed a login are tried once more, since the credentials may have been why.
    pub async fn reload(
        &self,
        settings: config::RenewalConfig,
        platforms: HashMap<RealmName, Arc<dyn ControlCalls>>,
        changed: &[RealmName],
    ) {
        self.context().settings.store(Arc::new(settings));
        self.context().platforms.store(Arc::new(platforms));
        for realm in changed {
            self.context().breakers.get(realm).reset().await;
        }
        let refused = |account: &Arc<Account>| {
            let snapshot = account.snapshot();
            matches!(snapshot.state, AccountState::NeedsLogin { .. }) && changed.contains(&snapshot.realm)
        };
        let again: Vec<_> = self.context().registry.all().into_iter().filter(refused).collect();
        if !again.is_empty() {
            let starter = Starter::new(self);
            self.context().runtime.spawn(async move {
                for account in again {
                    starter.renew(account, Cause::Operator).await;
                }
            });
        }
    }
}
