//! Forgets an account, or gives it another name: both here alone, nothing is asked of the platform. The rule:
//! tokens that are only in memory are not lost by the way, and links that were handed out follow the account.

use super::Pairing;
use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::store::{AccountRecord, StoreError};

/// What removing an account would do. Nothing was done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRemovalPreview {
    pub name: AccountName,
    /// Empty where the account's record cannot be read.
    pub grants: Vec<(RealmName, AccountId)>,
    pub consequences: Vec<String>,
}

/// What another name would change. Nothing was done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenamePreview {
    pub from: AccountName,
    pub to: AccountName,
    pub consequences: Vec<String>,
}

/// Why an account was neither removed nor renamed.
#[derive(Debug, thiserror::Error)]
pub enum AccountChangeError {
    #[error("account {0} is not known")]
    UnknownAccount(AccountName),
    #[error("the name {0} is taken by another account")]
    NameTaken(AccountName),
    #[error("the account is called {0} already")]
    SameName(AccountName),
    /// The store has an older token than the platform.
    #[error(
        "the newest tokens of {0} are in memory only, since the store did not take them: what the store and an export have is older, and \
         with rotation it is dead"
    )]
    Unsaved(AccountName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pairing {
    pub async fn preview_removal(
        &self,
        name: &AccountName,
    ) -> Result<AccountRemovalPreview, AccountChangeError> {
        let record = self.record_to_remove(name).await?;
        let links = self.pending.count_of(name).await?;
        let mut consequences = vec![
            "The gateway forgets the account, with its refresh tokens; calls for it are refused from then on.".to_owned(),
            "Nothing is done at the platform: nothing is revoked, nothing is unpaired, and other users of the account notice nothing. Its \
             grant ends there only by `accounts revoke` or `accounts unpair`, before this, or when it has not been used for three months."
                .to_owned(),
            format!(
                "`accounts export {name} --with-refresh-tokens --yes` shows its present token now; with that, `accounts import` brings \
                 it back. Without it, it takes a login."
            ),
        ];
        let Some(record) = record else {
            consequences.push("Its record cannot be read here, so there is nothing to export.".to_owned());
            return Ok(AccountRemovalPreview { name: name.clone(), grants: Vec::new(), consequences });
        };
        let now = self.clock.now();
        consequences.extend(live_token_warning(&record, now));
        consequences.extend((links > 0).then(|| format!("{links} login links for it stop working.")));
        if self.is_unsaved(name) {
            consequences.push(format!(
                "{}. It is refused without --force.",
                AccountChangeError::Unsaved(name.clone())
            ));
        }
        let grants = record.grants.into_iter().map(|grant| (grant.realm, grant.account_id)).collect();
        Ok(AccountRemovalPreview { name: name.clone(), grants, consequences })
    }

    /// Forgets the account. `force` does so also where its newest tokens are in memory only.
    pub async fn remove_account(&self, name: &AccountName, force: bool) -> Result<(), AccountChangeError> {
        let _saving = self.saving.lock().await;
        self.record_to_remove(name).await?;
        if !force && self.is_unsaved(name) {
            return Err(AccountChangeError::Unsaved(name.clone()));
        }
        self.store.remove_account(name).await.map_err(known_or(name))?;
        self.withdraw(name);
        let detail = "by an operator, here alone: nothing was revoked or unpaired at the platform".to_owned();
        self.journal.record(name, JournalEvent::Removed, detail);
        // One that stays leads to a login that pairs the account anew, which somebody has to want.
        if let Err(problem) = self.pending.cancel(name).await {
            tracing::warn!(%problem, account = %name, "login links of a removed account could not be taken back");
        }
        Ok(())
    }

    /// Forgets an account that was never connected: the platform has refused the only token that it ever had.
    pub(super) async fn discard_refused(&self, name: &AccountName) -> Result<(), AccountChangeError> {
        let _saving = self.saving.lock().await;
        self.store.remove_account(name).await.map_err(known_or(name))?;
        self.withdraw(name);
        let detail = "the platform has refused the token that an application had brought for it".to_owned();
        self.journal.record(name, JournalEvent::Removed, detail);
        Ok(())
    }

    /// Says that an account exists to be tested with, or that it does not.
    pub async fn set_test(&self, name: &AccountName, is_test: bool) -> Result<(), StoreError> {
        self.store.set_test(name, is_test).await?;
        let detail = if is_test { "a test account from now on" } else { "no test account any more" };
        self.journal.record(name, JournalEvent::TestAccount, detail.to_owned());
        Ok(())
    }

    /// `None` where the account is known and its record cannot be read.
    async fn record_to_remove(
        &self,
        name: &AccountName,
    ) -> Result<Option<AccountRecord>, AccountChangeError> {
        match self.store.account(name).await {
            Ok(Some(record)) => Ok(Some(record)),
            Ok(None) => Err(AccountChangeError::UnknownAccount(name.clone())),
            Err(StoreError::Unsealable { .. }) => Ok(None),
            Err(problem) => Err(problem.into()),
        }
    }

    pub async fn preview_rename(
        &self,
        from: &AccountName,
        to: &AccountName,
    ) -> Result<RenamePreview, AccountChangeError> {
        self.may_rename(from, to).await?;
        let links = self.pending.count_of(from).await?;
        let mut consequences = vec![
            format!("Calls to /accounts/{from}, and with X-Gateway-Account: {from}, are refused from then on; /accounts/{to} takes them."),
            "Its grants, tokens and routes stay as they are, and nothing changes at the platform. Gateway tokens that an application got \
             from /oauth2/token end: it asks for a new one."
                .to_owned(),
            format!("Its journal until now stays under {from}; the one of {to} begins with a line that says so."),
        ];
        consequences
            .extend((links > 0).then(|| format!("{links} login links for it go on under the new name.")));
        Ok(RenamePreview { from: from.clone(), to: to.clone(), consequences })
    }

    pub async fn rename_account(
        &self,
        from: &AccountName,
        to: &AccountName,
    ) -> Result<(), AccountChangeError> {
        let _saving = self.saving.lock().await;
        self.may_rename(from, to).await?;
        let record = self.store.rename_account(from, to).await.map_err(|problem| match problem {
            StoreError::NameTaken(name) => AccountChangeError::NameTaken(name),
            problem => known_or(from)(problem),
        })?;
        self.publish_renamed(from, &record);
        self.journal.record(from, JournalEvent::Renamed, format!("to {to}, by an operator"));
        self.journal.record(
            to,
            JournalEvent::Renamed,
            format!("from {from}, by an operator; what was before stands under {from}"),
        );
        if let Err(problem) = self.pending.rename(from, to).await {
            tracing::warn!(%problem, account = %to, "login links of a renamed account keep its old name");
        }
        Ok(())
    }

    async fn may_rename(&self, from: &AccountName, to: &AccountName) -> Result<(), AccountChangeError> {
        if from == to {
            return Err(AccountChangeError::SameName(to.clone()));
        }
        if self.store.account(from).await?.is_none() {
            return Err(AccountChangeError::UnknownAccount(from.clone()));
        }
        match self.store.account(to).await {
            Ok(None) => {}
            Ok(Some(_)) | Err(StoreError::Unsealable { .. }) => {
                return Err(AccountChangeError::NameTaken(to.clone()));
            }
            Err(problem) => return Err(problem.into()),
        }
        if self.is_unsaved(from) {
            return Err(AccountChangeError::Unsaved(from.clone()));
        }
        Ok(())
    }
}

fn live_token_warning(record: &AccountRecord, now: Timestamp) -> Option<String> {
    let until = record.current_grant()?.access.as_ref().map(|access| access.expires_at);
    let until = until.filter(|until| *until > now && record.state == AccountState::Ready)?;
    Some(format!("It is served at present: its access token is good until {until}."))
}

fn known_or(name: &AccountName) -> impl Fn(StoreError) -> AccountChangeError {
    move |problem| match problem {
        StoreError::UnknownAccount(_) => AccountChangeError::UnknownAccount(name.clone()),
        problem => AccountChangeError::Store(problem),
    }
}
