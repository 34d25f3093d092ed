//! What operators do to accounts without asking the platform: invite, export, hold and release, switch
//! between two grants.

use std::time::Duration;

use super::Pairing;
use super::start::{StartLinkError, StartRequest};
use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::store::{AccountRecord, StoreError};

/// Which accounts are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// A name, perhaps with `*`; an id; or `realm:id`.
    Pattern(String),
    NeedsLogin,
}

/// For a campaign: a link for each account that is meant.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    pub selection: Selection,
    /// Where the accounts are to be paired; absent: each where it is being moved to, else in its current
    /// realm.
    pub realm: Option<RealmName>,
    pub callback_url: Option<String>,
    pub valid_for: Duration,
}

/// A line of the campaign.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Invitation {
    pub name: AccountName,
    /// Absent where the account is not yet known in the realm.
    pub account_id: Option<AccountId>,
    pub realm: RealmName,
    pub link: String,
    pub expires_at: Timestamp,
}

/// A grant in the form that `import` reads.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct ExportedGrant {
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// It exists to be tested with; left out where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
}

/// What `pause` or `resume` did to an account.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PauseResult {
    pub name: AccountName,
    pub changed: bool,
    #[serde(flatten)]
    pub state: AccountState,
}

/// Why an operator's request about accounts is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("no account matches {0:?}")]
    NobodyMatches(String),
    #[error("no account needs a login")]
    NobodyNeedsLogin,
    #[error("account {0} is not known")]
    UnknownAccount(AccountName),
    #[error("account {name} has no grant in realm {realm}")]
    NoGrant { name: AccountName, realm: RealmName },
    #[error("account {name} is in use in realm {from}, and realm {to} is of another group")]
    OtherGroup { name: AccountName, from: RealmName, to: RealmName },
    #[error(transparent)]
    Start(#[from] StartLinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Selection {
    pub fn admits(&self, record: &AccountRecord) -> bool {
        match self {
            Selection::NeedsLogin => matches!(record.state, AccountState::NeedsLogin { .. }),
            Selection::Pattern(pattern) => {
                record.name.matches(pattern)
                    || record.grants.iter().any(|grant| match pattern.split_once(':') {
                        Some((realm, id)) => {
                            grant.realm.as_str() == realm && id.parse() == Ok(grant.account_id)
                        }
                        None => pattern.parse() == Ok(grant.account_id),
                    })
            }
        }
    }
}

impl Pairing {
    /// A start link per account, valid for days.
    pub async fn invite(&self, request: InviteRequest) -> Result<Vec<Invitation>, OperatorError> {
        let mut invitations = Vec::new();
        for record in self.selected(&request.selection).await? {
            let realm = request.realm.clone().or_else(|| record.moving_to.clone());
            let realm = realm.unwrap_or_else(|| record.current.clone());
            let account_id = record.grants.iter().find(|g| g.realm == realm).map(|grant| grant.account_id);
            let start = StartRequest {
                realm: realm.clone(),
                name: Some(record.name.clone()),
                account_id,
                callback_url: request.callback_url.clone(),
                valid_for: request.valid_for,
            };
            let link = self.start(start).await?;
            self.journal.record(
                &record.name,
                JournalEvent::Invited,
                format!("a link for realm {realm} until {}", link.expires_at),
            );
            let (name, expires_at) = (record.name, link.expires_at);
            invitations.push(Invitation { name, account_id, realm, link: link.url, expires_at });
        }
        Ok(invitations)
    }

    /// Every grant of the accounts, the way back out: with tokens it is
    /// written down in each account's journal.
    pub async fn export(
        &self,
        selection: &Selection,
        with_refresh_tokens: bool,
    ) -> Result<Vec<ExportedGrant>, OperatorError> {
        let mut exported = Vec::new();
        for record in self.selected(selection).await? {
            if with_refresh_tokens {
                self.journal.record(&record.name, JournalEvent::Exported, "with refresh tokens".to_owned());
            }
            exported.extend(record.grants.into_iter().map(|grant| ExportedGrant {
                name: record.name.clone(),
                realm: grant.realm,
                account_id: grant.account_id,
                refresh_token: with_refresh_tokens.then(|| grant.refresh.expose().to_owned()),
                test: record.is_test,
            }));
        }
        Ok(exported)
    }

    /// From now on somebody else refreshes these accounts.
    pub async fn pause(&self, selection: &Selection) -> Result<Vec<PauseResult>, OperatorError> {
        self.set_paused(selection, &AccountState::Ready, AccountState::Paused, JournalEvent::Paused).await
    }

    /// The gateway serves and refreshes them again. An account that needs a login is not cured by it.
    pub async fn resume(&self, selection: &Selection) -> Result<Vec<PauseResult>, OperatorError> {
        self.set_paused(selection, &AccountState::Paused, AccountState::Ready, JournalEvent::Resumed).await
    }

    /// Makes the grant of another realm the one that is used.
    pub async fn switch(&self, name: &AccountName, realm: &RealmName) -> Result<(), OperatorError> {
        let known = self.store.account(name).await?;
        let record = known.ok_or_else(|| OperatorError::UnknownAccount(name.clone()))?;
        if record.grants.iter().all(|grant| grant.realm != *realm) {
            return Err(OperatorError::NoGrant { name: name.clone(), realm: realm.clone() });
        }
        if self.walls().part(&record.current, realm) {
            let (name, from, to) = (name.clone(), record.current, realm.clone());
            return Err(OperatorError::OtherGroup { name, from, to });
        }
        self.use_grant(&record, realm).await?;
        self.journal.record(
            name,
            JournalEvent::Switched,
            format!("from realm {} to {realm}", record.current),
        );
        Ok(())
    }

    /// Calls go to the realm's grant from now on, which the account holds.
    pub(super) async fn use_grant(
        &self,
        record: &AccountRecord,
        realm: &RealmName,
    ) -> Result<(), StoreError> {
        self.store.set_current(&record.name, realm).await?;
        if matches!(record.state, AccountState::NeedsLogin { .. }) && record.current != *realm {
            // What is known of the old grant says nothing of this one.
            self.store.set_state(&record.name, &AccountState::Ready).await?;
        }
        self.republish(&record.name).await
    }

    async fn set_paused(
        &self,
        selection: &Selection,
        from: &AccountState,
        to: AccountState,
        event: JournalEvent,
    ) -> Result<Vec<PauseResult>, OperatorError> {
        let mut lines = Vec::new();
        for record in self.selected(selection).await? {
            let (name, changed) = (record.name, record.state == *from);
            if changed {
                self.store.set_state(&name, &to).await?;
                self.republish(&name).await?;
                // An export right after a pause must not miss the token that a refresh is just bringing.
                self.renewals.until_idle(&name).await;
                self.journal.record(&name, event, "by an operator".to_owned());
            }
            let state = if changed { to.clone() } else { record.state };
            lines.push(PauseResult { name, changed, state });
        }
        Ok(lines)
    }

    async fn selected(&self, selection: &Selection) -> Result<Vec<AccountRecord>, OperatorError> {
        let mut records = self.records().await?;
        records.retain(|record| selection.admits(record));
        match (records.is_empty(), selection) {
            (false, _) => Ok(records),
            (true, Selection::NeedsLogin) => Err(OperatorError::NobodyNeedsLogin),
            (true, Selection::Pattern(pattern)) => Err(OperatorError::NobodyMatches(pattern.clone())),
        }
    }
}
