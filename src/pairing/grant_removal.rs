//! Unpair and revoke: they hit every user of the account, so each has a preview (threats, row 27). The rule:
//! a grant is forgotten only after the platform has said that it is gone; where that is in doubt it is kept.

use std::sync::Arc;
use std::time::Duration;

use super::retry::RetryPolicy;
use super::{Pairing, PairingRealm};
use crate::access::control_calls::CallFuture;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::route::Route;
use crate::model::token::AccessToken;
use crate::platform::{Blame, PlatformError, TokenHint};
use crate::store::{AccountRecord, GrantRecord, StoreError};

/// The two ways in which the platform ends a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantRemoval {
    Unpair,
    Revoke,
}

/// What it would do, and to whom. Nothing was done yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GrantRemovalPreview {
    #[serde(rename = "ending")]
    pub removal: GrantRemoval,
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    pub consequences: Vec<&'static str>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RemovedGrant {
    #[serde(rename = "ending")]
    pub removal: GrantRemoval,
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    /// The platform did not know the token any more: it had been dead before.
    pub was_dead: bool,
    /// False while the store does not take it; the gateway keeps trying.
    pub saved: bool,
}

/// Why a grant was not ended.
#[derive(Debug, thiserror::Error)]
pub enum GrantRemovalError {
    #[error("account {0} is not known")]
    UnknownAccount(AccountName),
    #[error("account {name} has no grant in realm {realm}")]
    NoGrant { name: AccountName, realm: RealmName },
    #[error("realm {0} is not configured")]
    UnknownRealm(RealmName),
    #[error("the account is paused: resume it first, so that the gateway may renew its token")]
    Paused,
    #[error("the grant of realm {0} is not the current one and its token has run out: make it current first")]
    NotCurrent(RealmName),
    #[error("the account's token cannot be renewed, which unpairing needs: {0}")]
    NoToken(String),
    /// A try got no response, and a later one was refused: it may have been carried out.
    #[error(
        "it is not known whether this was carried out: a try got no answer, the next one said \"{0}\". The grant is kept; \
         `accounts renew` shows whether it still works"
    )]
    Doubtful(PlatformError),
    #[error(transparent)]
    Platform(PlatformError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a fault of the gateway; its log has the details")]
    Broken,
}

/// An account's grant with what its realm needs to act on it.
struct GrantTarget {
    record: AccountRecord,
    grant: GrantRecord,
    realm: PairingRealm,
}

impl Pairing {
    pub async fn preview_grant_removal(
        &self,
        removal: GrantRemoval,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<GrantRemovalPreview, GrantRemovalError> {
        let GrantTarget { grant, .. } = self.target(name, realm).await?;
        Ok(GrantRemovalPreview {
            removal,
            name: name.clone(),
            realm: grant.realm,
            account_id: grant.account_id,
            consequences: consequences(removal),
        })
    }

    /// Runs to its end even when the operator disconnects.
    pub async fn remove_grant(
        self: &Arc<Self>,
        removal: GrantRemoval,
        name: AccountName,
        realm: Option<RealmName>,
    ) -> Result<RemovedGrant, GrantRemovalError> {
        let pairing = self.clone();
        let task = tokio::spawn(async move {
            match removal {
                GrantRemoval::Unpair => pairing.unpair(&name, realm.as_ref()).await,
                GrantRemoval::Revoke => pairing.revoke(&name, realm.as_ref()).await,
            }
        });
        task.await.unwrap_or_else(|problem| {
            tracing::error!(panicked = problem.is_panic(), "an account's ending hit a fault of the gateway");
            Err(GrantRemovalError::Broken)
        })
    }

    /// `DELETE …/unpair-account` with the pair token (Authentication and
    /// Pairing V2, 4.3.2), then forgets the grant.
    async fn unpair(
        self: &Arc<Self>,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<RemovedGrant, GrantRemovalError> {
        let target = self.with_live_token(self.target(name, realm).await?).await?;
        let GrantTarget { record, grant, realm } = &target;
        let access = grant.access.as_ref().map(|access| access.token.clone());
        let access = access.ok_or_else(|| GrantRemovalError::NoToken("it has none".to_owned()))?;
        let route = match route_of(realm, grant) {
            Some(route) => route,
            None => realm.calls.discover_first(&access).await.map_err(GrantRemovalError::Platform)?,
        };
        self.unpair_at(realm, &route, &access, grant.account_id).await?;
        self.journal.record(
            name,
            JournalEvent::Unpaired,
            format!("account {} of realm {}", grant.account_id, grant.realm),
        );
        tracing::info!(account = %name, realm = %grant.realm, account_id = grant.account_id.as_u64(), "account unpaired");
        let other = record.grants.iter().find(|other| other.realm != grant.realm).map(|g| g.realm.clone());
        let other = other.filter(|_| record.current == grant.realm);
        let removal = StoredRemoval { name: name.clone(), realm: grant.realm.clone(), other };
        let saved = self.remove_from_store(removal).await;
        Ok(removed(GrantRemoval::Unpair, name, grant, false, saved))
    }

    async fn unpair_at(
        &self,
        realm: &PairingRealm,
        route: &Route,
        access: &AccessToken,
        id: AccountId,
    ) -> Result<(), GrantRemovalError> {
        let policy = RetryPolicy::of_pairing(&self.clock, &self.retry());
        self.call_with_retries(&policy, || realm.calls.unpair(route, access, id)).await
    }

    /// Kills the refresh token (Authentication and Pairing V2, 4.1.5).
    /// The account stays known and asks for a login.
    async fn revoke(
        self: &Arc<Self>,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<RemovedGrant, GrantRemovalError> {
        let GrantTarget { record, grant, realm } = self.target(name, realm).await?;
        let policy = RetryPolicy::of_login(&self.clock, &self.retry());
        let refresh = grant.refresh.expose();
        let was_dead =
            match self.call_with_retries(&policy, || realm.calls.revoke(refresh, TokenHint::Refresh)).await {
                Ok(()) => false,
                // 401: wrong token (gen-api, section 2, status table).
                Err(GrantRemovalError::Platform(trouble)) if trouble.blame == Blame::Grant => true,
                // After a lost response it was our own try that killed it.
                Err(GrantRemovalError::Doubtful(trouble)) if trouble.blame == Blame::Grant => false,
                Err(problem) => return Err(problem),
            };
        self.journal.record(
            name,
            JournalEvent::Revoked,
            format!("the refresh token of realm {}", grant.realm),
        );
        tracing::info!(account = %name, realm = %grant.realm, account_id = grant.account_id.as_u64(), "refresh token revoked");
        let saved = if record.current == grant.realm {
            self.mark_revoked(name).await
        } else {
            self.remove_from_store(StoredRemoval {
                name: name.clone(),
                realm: grant.realm.clone(),
                other: None,
            })
            .await
        };
        Ok(removed(GrantRemoval::Revoke, name, &grant, was_dead, saved))
    }

    /// A failure here heals itself: the next renewal meets the dead token and asks for a login.
    async fn mark_revoked(&self, name: &AccountName) -> bool {
        let why = "its refresh token was revoked by an operator".to_owned();
        let state = AccountState::NeedsLogin { since: self.clock.now(), why };
        let marked = match self.store.set_state(name, &state).await {
            Ok(()) => self.republish(name).await,
            Err(problem) => Err(problem),
        };
        marked
            .inspect_err(|problem| tracing::error!(%problem, account = %name, "a revocation was not stored"))
            .is_ok()
    }

    /// Repeats as advised, and says when a refusal may be the echo of an earlier success.
    async fn call_with_retries<'a>(
        &self,
        policy: &RetryPolicy,
        call: impl FnMut() -> CallFuture<'a, ()>,
    ) -> Result<(), GrantRemovalError> {
        let retried = policy.retry(call).await;
        let may_have_acted = retried.may_have_acted;
        retried.result.map_err(|trouble| match trouble.blame {
            Blame::Grant | Blame::Account if may_have_acted => GrantRemovalError::Doubtful(trouble),
            _ => GrantRemovalError::Platform(trouble),
        })
    }

    async fn target(
        &self,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<GrantTarget, GrantRemovalError> {
        let known = self.store.account(name).await?;
        let record = known.ok_or_else(|| GrantRemovalError::UnknownAccount(name.clone()))?;
        let wanted = realm.unwrap_or(&record.current).clone();
        let grant = record.grants.iter().find(|grant| grant.realm == wanted).cloned();
        let no_grant = || GrantRemovalError::NoGrant { name: name.clone(), realm: wanted.clone() };
        let grant = grant.ok_or_else(no_grant)?;
        let realm = self.realm(&wanted).ok_or(GrantRemovalError::UnknownRealm(wanted))?;
        Ok(GrantTarget { record, grant, realm })
    }

    /// Renews first where the token has run out or is about to.
    async fn with_live_token(&self, target: GrantTarget) -> Result<GrantTarget, GrantRemovalError> {
        let lives = self.clock.now() + CALL_TIME;
        if target.grant.access.as_ref().is_some_and(|access| access.expires_at > lives) {
            return Ok(target);
        }
        let (name, realm) = (&target.record.name, &target.grant.realm);
        if target.record.current != *realm {
            return Err(GrantRemovalError::NotCurrent(realm.clone()));
        }
        if target.record.state == AccountState::Paused {
            return Err(GrantRemovalError::Paused);
        }
        self.renew(name).await.map_err(GrantRemovalError::NoToken)?;
        self.target(name, Some(realm)).await
    }

    /// Forgets a grant whose end the platform has confirmed, however long the store takes.
    async fn remove_from_store(self: &Arc<Self>, removal: StoredRemoval) -> bool {
        match self.try_remove(&removal).await {
            Ok(()) => true,
            Err(problem) => {
                tracing::error!(%problem, account = %removal.name, "an ended grant could not be removed; tried again");
                tokio::spawn(self.clone().remove_in_background(removal));
                false
            }
        }
    }

    async fn remove_in_background(self: Arc<Self>, removal: StoredRemoval) {
        loop {
            self.clock.sleep(REMOVAL_RETRY_PAUSE).await;
            match self.try_remove(&removal).await {
                Ok(()) | Err(StoreError::UnknownAccount(_)) => return,
                Err(problem) => {
                    tracing::error!(%problem, account = %removal.name, "an ended grant is still there")
                }
            }
        }
    }

    async fn try_remove(&self, removal: &StoredRemoval) -> Result<(), StoreError> {
        let StoredRemoval { name, realm, other } = removal;
        if let Some(other) = other {
            self.store.set_current(name, other).await?;
        }
        self.store.remove_grant(name, realm).await?;
        self.republish(name).await
    }
}

/// A call and its retries fit in.
const CALL_TIME: Duration = Duration::from_secs(60);
const REMOVAL_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// A grant that has to leave the store.
struct StoredRemoval {
    name: AccountName,
    realm: RealmName,
    /// The grant that is used from now on.
    other: Option<RealmName>,
}

fn route_of(realm: &PairingRealm, grant: &GrantRecord) -> Option<Route> {
    let stored = grant.route.as_ref()?;
    realm.route(&stored.domain, &stored.path)
}

fn removed(
    removal: GrantRemoval,
    name: &AccountName,
    grant: &GrantRecord,
    was_dead: bool,
    saved: bool,
) -> RemovedGrant {
    let (name, realm, account_id) = (name.clone(), grant.realm.clone(), grant.account_id);
    RemovedGrant { removal, name, realm, account_id, was_dead, saved }
}

fn consequences(removal: GrantRemoval) -> Vec<&'static str> {
    match removal {
        GrantRemoval::Unpair => vec![
            "Every user of this iTero account loses the connection, in every application that uses this integration, not only behind \
             this gateway.",
            "The account's callback URL is deleted: no more scan notifications go there.",
            "The gateway forgets the account in this realm. Only a new login and pairing brings it back.",
            "Only authorised staff may do this.",
        ],
        GrantRemoval::Revoke => vec![
            "The refresh token dies. It is shared by all users of the account, so every application that uses it loses its access \
             when its present token ends (within an hour).",
            "The account stays known here and needs a new login and pairing.",
        ],
    }
}
