//! What a pairing, an import or a removal changes in memory: the registry, the tokens that applications hold,
//! renewals. The rule: the registry takes over only what the store already holds.

use super::Pairing;
use crate::access::renewal::{Cause, RenewError};
use crate::access::replace_grant::ReplaceError;
use crate::model::account::AccountName;
use crate::store::{AccountRecord, NewGrant, StoreError};

impl Pairing {
    /// The registry takes over what the store now holds of an account.
    pub(super) fn publish(&self, record: &AccountRecord) {
        for grant in &record.grants {
            self.known_tokens.learn(&grant.refresh, &record.name);
        }
        self.registry.apply(record.clone());
    }

    /// The account's last grant is gone.
    pub(super) fn withdraw(&self, name: &AccountName) {
        self.known_tokens.forget(name);
        self.renewals.withdraw(name);
    }

    /// Publishes what the store now holds of an account, or that it is gone.
    pub(super) async fn republish(&self, name: &AccountName) -> Result<(), StoreError> {
        match self.store.account(name).await? {
            Some(record) => self.publish(&record),
            None => self.withdraw(name),
        }
        Ok(())
    }

    /// The account that was called `from` is called as the record says. Its tokens and its activity go along.
    pub(super) fn publish_renamed(&self, from: &AccountName, record: &AccountRecord) {
        let before = self.registry.by_name(from.as_str());
        self.renewals.withdraw(from);
        self.known_tokens.rename(from, &record.name);
        self.publish(record);
        let after = self.registry.by_name(record.name.as_str());
        if let (Some(before), Some(after)) = (before, after) {
            after.activity.learn(&before.activity.read());
        }
    }

    /// Whether the account's newest tokens are in memory only.
    pub(super) fn is_unsaved(&self, name: &AccountName) -> bool {
        self.registry.by_name(name.as_str()).is_some_and(|account| account.summary().unsaved)
    }

    /// Has the platform take a refresh token before it replaces the account's own, then stores and publishes
    /// it. Applications may go on with the token as it was handed in.
    pub(super) async fn replace_token(&self, grant: NewGrant) -> Result<AccountRecord, ReplaceError> {
        let handed_in = grant.refresh.clone();
        let record = self.renewals.replace(grant).await?;
        self.known_tokens.learn(&handed_in, &record.name);
        self.publish(&record);
        Ok(record)
    }

    /// Discovery alone, with the token at hand. The error is a sentence for people.
    pub(super) async fn rediscover(&self, name: &AccountName) -> Result<(), String> {
        let account = self.registry.by_name(name.as_str()).ok_or("the account is gone")?;
        self.renewals.rediscover(&account).await.map(|_| ()).map_err(sentence)
    }

    /// One renewal at an operator's wish: refresh, then discovery. The error is a sentence for people.
    pub(super) async fn renew(&self, name: &AccountName) -> Result<(), String> {
        let account = self.registry.by_name(name.as_str()).ok_or("the account is gone")?;
        let renewed = self.renewals.renew(&account, account.generation(), Cause::Operator).await;
        renewed.map(|_| ()).map_err(sentence)
    }
}

pub(super) fn sentence(problem: RenewError) -> String {
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
