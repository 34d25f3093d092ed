//! Unpair and revoke: they hit every user of the account, so each has a preview (threats, row 27). The rule: a grant is forgotten only
//! after the platform has said that it is gone; where that is in doubt it is kept.

use std::sync::Arc;
use std::time::Duration;

use super::repeat::Pace;
use super::seams::Call;
use super::{Pairing, PairingRealm};
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::route::Route;
use crate::model::token::AccessToken;
use crate::platform::{Blame, PlatformError, TokenHint};
use crate::store::{AccountRecord, GrantRecord, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Unpair,
    Revoke,
}

/// What it would do, and to whom. Nothing was done yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EndingPreview {
    pub ending: Ending,
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    pub consequences: Vec<&'static str>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ended {
    pub ending: Ending,
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    /// The platform did not know the token any more: it had been dead before.
    pub was_dead: bool,
    /// False while the store does not take it; the gateway keeps trying.
    pub saved: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EndingProblem {
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
    /// A try got no answer, and a later one was refused: it may have been carried out.
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
struct Target {
    record: AccountRecord,
    grant: GrantRecord,
    realm: PairingRealm,
}

impl Pairing {
    pub async fn preview_ending(
        &self,
        ending: Ending,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<EndingPreview, EndingProblem> {
        let Target { grant, .. } = self.target(name, realm).await?;
        Ok(EndingPreview {
            ending,
            name: name.clone(),
            realm: grant.realm,
            account_id: grant.account_id,
            consequences: consequences(ending),
        })
    }

    /// Runs to its end even when the operator hangs up.
    pub async fn end(
        self: &Arc<Self>,
        ending: Ending,
        name: AccountName,
        realm: Option<RealmName>,
    ) -> Result<Ended, EndingProblem> {
        let pairing = self.clone();
        let task = tokio::spawn(async move {
            match ending {
                Ending::Unpair => pairing.unpair(&name, realm.as_ref()).await,
                Ending::Revoke => pairing.revoke(&name, realm.as_ref()).await,
            }
        });
        task.await.unwrap_or_else(|problem| {
            tracing::error!(panicked = problem.is_panic(), "an account's ending hit a fault of the gateway");
            Err(EndingProblem::Broken)
        })
    }

    /// `DELETE …/unpair-account` with the pair token (Authentication and Pairing V2, 4.3.2), then forgets the grant.
    async fn unpair(
        self: &Arc<Self>,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<Ended, EndingProblem> {
        let target = self.with_live_token(self.target(name, realm).await?).await?;
        let Target { record, grant, realm } = &target;
        let access = grant.access.as_ref().map(|access| access.token.clone());
        let access = access.ok_or_else(|| EndingProblem::NoToken("it has none".to_owned()))?;
        let route = match route_of(realm, grant) {
            Some(route) => route,
            None => realm.calls.discover_first(&access).await.map_err(EndingProblem::Platform)?,
        };
        self.unpair_at(realm, &route, &access, grant.account_id).await?;
        self.hooks.note(name, "unpaired", format!("account {} of realm {}", grant.account_id, grant.realm));
        tracing::info!(account = %name, realm = %grant.realm, account_id = grant.account_id.as_u64(), "account unpaired");
        let other = record.grants.iter().find(|other| other.realm != grant.realm).map(|g| g.realm.clone());
        let other = other.filter(|_| record.current == grant.realm);
        let removal = Removal { name: name.clone(), realm: grant.realm.clone(), other };
        let saved = self.remove(removal).await;
        Ok(ended(Ending::Unpair, name, grant, false, saved))
    }

    async fn unpair_at(
        &self,
        realm: &PairingRealm,
        route: &Route,
        access: &AccessToken,
        id: AccountId,
    ) -> Result<(), EndingProblem> {
        let pace = Pace::of_pairing(&self.clock, &self.retry());
        self.conclude(&pace, || realm.calls.unpair(route, access, id)).await
    }

    /// Kills the refresh token (Authentication and Pairing V2, 4.1.5). The account stays known and asks for a login.
    async fn revoke(
        self: &Arc<Self>,
        name: &AccountName,
        realm: Option<&RealmName>,
    ) -> Result<Ended, EndingProblem> {
        let Target { record, grant, realm } = self.target(name, realm).await?;
        let pace = Pace::of_login(&self.clock, &self.retry());
        let refresh = grant.refresh.expose();
        let was_dead = match self.conclude(&pace, || realm.calls.revoke(refresh, TokenHint::Refresh)).await {
            Ok(()) => false,
            // 401: wrong token (gen-api, section 2, status table).
            Err(EndingProblem::Platform(trouble)) if trouble.blame == Blame::Grant => true,
            // After a lost answer it was our own try that killed it.
            Err(EndingProblem::Doubtful(trouble)) if trouble.blame == Blame::Grant => false,
            Err(problem) => return Err(problem),
        };
        self.hooks.note(name, "revoked", format!("the refresh token of realm {}", grant.realm));
        tracing::info!(account = %name, realm = %grant.realm, account_id = grant.account_id.as_u64(), "refresh token revoked");
        let saved = match record.current == grant.realm {
            true => self.mark_revoked(name).await,
            false => {
                self.remove(Removal { name: name.clone(), realm: grant.realm.clone(), other: None }).await
            }
        };
        Ok(ended(Ending::Revoke, name, &grant, was_dead, saved))
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
    async fn conclude<'a>(
        &self,
        pace: &Pace,
        call: impl FnMut() -> Call<'a, ()>,
    ) -> Result<(), EndingProblem> {
        let tried = pace.repeat(call).await;
        let doubtful = tried.doubtful;
        tried.result.map_err(|trouble| match trouble.blame {
            Blame::Grant | Blame::Account if doubtful => EndingProblem::Doubtful(trouble),
            _ => EndingProblem::Platform(trouble),
        })
    }

    async fn target(&self, name: &AccountName, realm: Option<&RealmName>) -> Result<Target, EndingProblem> {
        let known = self.store.account(name).await?;
        let record = known.ok_or_else(|| EndingProblem::UnknownAccount(name.clone()))?;
        let wanted = realm.unwrap_or(&record.current).clone();
        let grant = record.grants.iter().find(|grant| grant.realm == wanted).cloned();
        let no_grant = || EndingProblem::NoGrant { name: name.clone(), realm: wanted.clone() };
        let grant = grant.ok_or_else(no_grant)?;
        let realm = self.realm(&wanted).ok_or(EndingProblem::UnknownRealm(wanted))?;
        Ok(Target { record, grant, realm })
    }

    /// Renews first where the token has run out or is about to.
    async fn with_live_token(&self, target: Target) -> Result<Target, EndingProblem> {
        let lives = self.clock.now() + CALL_TIME;
        if target.grant.access.as_ref().is_some_and(|access| access.expires_at > lives) {
            return Ok(target);
        }
        let (name, realm) = (&target.record.name, &target.grant.realm);
        if target.record.current != *realm {
            return Err(EndingProblem::NotCurrent(realm.clone()));
        }
        if target.record.state == AccountState::Paused {
            return Err(EndingProblem::Paused);
        }
        self.hooks.renew(name).await.map_err(EndingProblem::NoToken)?;
        self.target(name, Some(realm)).await
    }

    /// Forgets a grant whose end the platform has confirmed, however long the store takes.
    async fn remove(self: &Arc<Self>, removal: Removal) -> bool {
        match self.try_remove(&removal).await {
            Ok(()) => true,
            Err(problem) => {
                tracing::error!(%problem, account = %removal.name, "an ended grant could not be removed; tried again");
                tokio::spawn(self.clone().keep_removing(removal));
                false
            }
        }
    }

    async fn keep_removing(self: Arc<Self>, removal: Removal) {
        loop {
            self.clock.sleep(REMOVAL_PAUSE).await;
            match self.try_remove(&removal).await {
                Ok(()) | Err(StoreError::UnknownAccount(_)) => return,
                Err(problem) => {
                    tracing::error!(%problem, account = %removal.name, "an ended grant is still there")
                }
            }
        }
    }

    async fn try_remove(&self, removal: &Removal) -> Result<(), StoreError> {
        let Removal { name, realm, other } = removal;
        if let Some(other) = other {
            self.store.set_current(name, other).await?;
        }
        self.store.remove_grant(name, realm).await?;
        self.republish(name).await
    }
}

/// A call and its repeats fit in.
const CALL_TIME: Duration = Duration::from_secs(60);
const REMOVAL_PAUSE: Duration = Duration::from_secs(10);

struct Removal {
    name: AccountName,
    realm: RealmName,
    /// The grant that is used from now on.
    other: Option<RealmName>,
}

fn route_of(realm: &PairingRealm, grant: &GrantRecord) -> Option<Route> {
    let stored = grant.route.as_ref()?;
    realm.route(&stored.domain, &stored.path)
}

fn ended(ending: Ending, name: &AccountName, grant: &GrantRecord, was_dead: bool, saved: bool) -> Ended {
    let (name, realm, account_id) = (name.clone(), grant.realm.clone(), grant.account_id);
    Ended { ending, name, realm, account_id, was_dead, saved }
}

fn consequences(ending: Ending) -> Vec<&'static str> {
    match ending {
        Ending::Unpair => vec![
            "Every user of this iTero account loses the connection, in every application that uses this integration, not only behind \
             this gateway.",
            "The account's callback URL is deleted: no more scan notifications go there.",
            "The gateway forgets the account in this realm. Only a new login and pairing brings it back.",
            "Only authorised staff may do this.",
        ],
        Ending::Revoke => vec![
            "The refresh token dies. It is shared by all users of the account, so every application that uses it loses its access \
             when its present token ends (within an hour).",
            "The account stays known here and needs a new login and pairing.",
        ],
    }
}
