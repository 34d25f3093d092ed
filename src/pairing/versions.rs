//! Moves an account to another version of the vendor's API. The rule guarded here: an account has the version
//! for which discovery has found a place; where it has found none, everything stays as it was.

use std::sync::Arc;

use super::Pairing;
use super::publish::sentence;
use crate::access::registry::Account;
use crate::access::renewal::Cause;
use crate::journal::JournalEvent;
use crate::model::account::{AccountName, ApiVersion};

impl Pairing {
    /// Asks discovery for another version from now on, and says what came of it; the error is why the account
    /// stays as it is. `default` is the version of the account's realm.
    pub async fn set_version(
        &self,
        entry: &Arc<Account>,
        to: ApiVersion,
        default: &str,
    ) -> Result<String, String> {
        let before = entry.summary();
        let has = before.version.map_or_else(|| default.to_owned(), |version| version.to_string());
        if has == to.to_string() {
            let route =
                before.route.map_or_else(|| "no route is known".to_owned(), |route| route.to_string());
            return Ok(format!("unchanged: version {to}, {route}"));
        }
        // Discovery wants a live token; a renewal would hide what discovery says.
        if before.expires_at.is_none_or(|until| until <= self.clock.now()) {
            let renewed = self.renewals.renew(entry, entry.generation(), Cause::Operator).await;
            renewed.map_err(|problem| format!("stays at version {has}: {}", sentence(problem)))?;
        }
        self.put_version(&entry.name, Some(to).filter(|to| to.to_string() != default)).await?;
        match self.renewals.rediscover(entry).await {
            Ok(route) => {
                let detail = format!("from version {has} to {to}: {route}");
                self.journal.record(&entry.name, JournalEvent::VersionChanged, detail.clone());
                Ok(detail)
            }
            Err(problem) => {
                let why = sentence(problem);
                self.put_version(&entry.name, before.version).await?;
                // Whatever it has found meanwhile is asked about again under the old version.
                let _ = self.renewals.rediscover(entry).await;
                Err(format!("stays at version {has}: {why}"))
            }
        }
    }

    async fn put_version(&self, name: &AccountName, version: Option<ApiVersion>) -> Result<(), String> {
        let written = async {
            self.store.set_version(name, version).await?;
            self.store.account(name).await
        };
        let record = written.await.map_err(|trouble| trouble.to_string())?;
        self.registry.apply(record.ok_or("it was removed meanwhile")?);
        Ok(())
    }
}
