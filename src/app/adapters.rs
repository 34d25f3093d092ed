//! What a pairing, an import or a pause changes in memory: the registry, the tokens that applications hold,
//! renewals.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::access::registry::AccountRegistry;
use crate::access::renewal::{Cause, RenewError, Renewals};
use crate::access::replace_grant::ReplaceError;
use crate::facade::KnownTokens;
use crate::journal::{Journal, JournalEvent};
use crate::model::account::AccountName;
use crate::pairing;
use crate::store::{AccountRecord, NewGrant};

/// What follows from a pairing, an import, a pause.
pub struct PairingAdapter {
    pub registry: Arc<AccountRegistry>,
    pub renewals: Renewals,
    pub journal: Journal,
    pub known: Arc<KnownTokens>,
}

impl pairing::Hooks for PairingAdapter {
    fn publish(&self, record: &AccountRecord) {
        for grant in &record.grants {
            self.known.learn(grant.refresh.expose(), &record.name);
        }
        self.registry.apply(record.clone());
    }

    fn withdraw(&self, name: &AccountName) {
        self.known.forget(name);
        self.renewals.withdraw(name);
    }

    fn rename(&self, from: &AccountName, record: &AccountRecord) {
        let before = self.registry.by_name(from.as_str());
        self.renewals.withdraw(from);
        self.known.rename(from, &record.name);
        self.publish(record);
        let after = self.registry.by_name(record.name.as_str());
        if let (Some(before), Some(after)) = (before, after) {
            after.activity.learn(&before.activity.read());
        }
    }

    fn until_idle<'a>(&'a self, account: &'a AccountName) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.renewals.until_idle(account))
    }

    fn is_unsaved(&self, account: &AccountName) -> bool {
        self.registry.by_name(account.as_str()).is_some_and(|entry| entry.summary().unsaved)
    }

    fn note(&self, account: &AccountName, event: JournalEvent, detail: String) {
        self.journal.record(account, event, detail);
    }

    fn replace<'a>(
        &'a self,
        grant: NewGrant,
    ) -> Pin<Box<dyn Future<Output = Result<AccountRecord, ReplaceError>> + Send + 'a>> {
        Box::pin(async move {
            let handed_in = grant.refresh.clone();
            let record = self.renewals.replace(grant).await?;
            self.known.learn(handed_in.expose(), &record.name);
            Ok(record)
        })
    }

    fn discover<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let entry = self.registry.by_name(account.as_str()).ok_or("the account is gone")?;
            self.renewals.rediscover(&entry).await.map(|_| ()).map_err(sentence)
        })
    }

    fn renew<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let entry = self.registry.by_name(account.as_str()).ok_or("the account is gone")?;
            let renewed = self.renewals.renew(&entry, entry.generation(), Cause::Operator).await;
            renewed.map(|_| ()).map_err(sentence)
        })
    }
}

fn sentence(problem: RenewError) -> String {
    match problem {
        RenewError::TooSoon { until } => {
            format!("refreshed a moment ago; the next refresh may go out at {until}")
        }
        RenewError::Paused => "the account is paused".to_owned(),
        RenewError::NeedsLogin { why, remedy, .. } => {
            format!("the account needs {}: {why}", remedy.need())
        }
        RenewError::Unavailable { detail, retry_at } => format!("{detail}; next try after {retry_at}"),
        RenewError::StillRunning => "the refresh is still under way".to_owned(),
    }
}
