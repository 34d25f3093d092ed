//! Whether the platform takes a grant that its account does not use at present: asked before calls move to
//! it.
//!
//! The rule guarded here: the account's state, its current grant and its calls are not touched, and refreshes
//! of one account stay minutes apart, whichever platform they go to.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::account::RealmName;
use crate::model::route::Route;
use crate::model::token::AccessToken;
use crate::store::cluster::Lease;
use crate::store::{GrantRecord, StoredRoute};

use super::account::Account;
use super::context::{ActiveTask, RenewalContext};
use super::control_calls::ControlCalls;
use super::lease::{self, LEASE};
use super::pacing::refresh_gap;
use super::renewal::{Cause, RenewError, Renewals};
use super::snapshot::Snapshot;
use super::standby_grants;

/// A token that ends sooner is refreshed instead of asked about.
const LIVES_LONG_ENOUGH: Duration = Duration::from_secs(60);

/// The platform takes the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenGrant {
    /// Whether it took a refresh to tell, so that the next one waits.
    pub refreshed: bool,
}

/// Why it is not known that the platform takes a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantProofError {
    #[error("the platform no longer takes it")]
    Refused,
    #[error(
        "the account was refreshed a moment ago, and refreshes on two platforms are kept minutes apart: try again after {until}"
    )]
    TooSoon { until: Timestamp },
    #[error("{0}")]
    Unavailable(String),
}

impl Renewals {
    /// Asks the platform about a grant that is not in use: by a discovery with its token where that lives,
    /// else by a refresh. What a discovery names is kept as the grant's route.
    pub async fn prove_grant(
        &self,
        account: &Arc<Account>,
        realm: &RealmName,
    ) -> Result<ProvenGrant, GrantProofError> {
        self.until_idle(&account.name).await;
        let (context, account) = (Arc::clone(self.context()), Arc::clone(account));
        let task = prove(context, account, realm.clone());
        let cut_off = |_| Err(unavailable("the look at it was cut off"));
        self.context().runtime.spawn(task).await.unwrap_or_else(cut_off)
    }
}

/// What reads as an account on one of its platforms are made with.
pub struct ReadAccess {
    platform: Arc<dyn ControlCalls>,
    route: Arc<Route>,
    token: AccessToken,
}

impl ReadAccess {
    /// Domain and Path.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// GET `path` below the route: status and body, whatever the status. The error is a sentence for people.
    pub async fn get(&self, path: &str) -> Result<(u16, Vec<u8>), String> {
        let response = self.platform.read(&self.route, path, &self.token).await;
        response.map(|response| (response.status, response.body)).map_err(|error| error.to_string())
    }
}

impl Renewals {
    /// A living token of the account in the realm, and its route there. Refreshes where it has to, and may.
    pub async fn read_access(
        &self,
        account: &Arc<Account>,
        realm: &RealmName,
    ) -> Result<ReadAccess, GrantProofError> {
        let context = self.context();
        let platform = context.platform(realm).map_err(|_| unavailable("its realm is not configured"))?;
        let snapshot = account.snapshot();
        let grant = if snapshot.realm != *realm {
            self.prove_grant(account, realm).await?;
            held(context, account, realm).await?
        } else {
            if snapshot.live_token(context.clock.now()).is_none() {
                let renewed = self.renew(account, snapshot.serial, Cause::Operator).await;
                renewed.map_err(not_renewed)?;
            }
            Snapshot::clone(&account.snapshot())
        };
        let token =
            grant.live_token(context.clock.now()).ok_or_else(|| unavailable("it has no living token"))?;
        let route = grant.route.clone().ok_or_else(|| unavailable("it has no route yet"))?;
        Ok(ReadAccess { platform, route, token })
    }
}

async fn prove(
    context: Arc<RenewalContext>,
    account: Arc<Account>,
    realm: RealmName,
) -> Result<ProvenGrant, GrantProofError> {
    let _active = ActiveTask::begin(&context);
    let platform = context.platform(&realm).map_err(|_| unavailable("its realm is not configured"))?;
    let before = held(&context, &account, &realm).await?;
    let lives =
        |token: &crate::store::StoredAccess| token.expires_at > context.clock.now() + LIVES_LONG_ENOUGH;
    let living = before.token.as_ref().filter(|token| lives(token));
    if let Some(token) = living
        && ask(&context, &account, &before, &*platform, &token.token).await?
    {
        return Ok(ProvenGrant { refreshed: false });
    }
    refresh(&context, &account, &before).await?;
    let after = held(&context, &account, &realm).await?;
    let Some(token) = &after.token else { return Err(unavailable("its refresh brought no access token")) };
    if ask(&context, &account, &after, &*platform, &token.token).await? {
        Ok(ProvenGrant { refreshed: true })
    } else {
        Err(unavailable("it can be refreshed, and its new token is refused by discovery"))
    }
}

/// The grant as the store has it.
async fn held(
    context: &RenewalContext,
    account: &Account,
    realm: &RealmName,
) -> Result<Snapshot, GrantProofError> {
    let record =
        context.store.account(&account.name).await.map_err(|error| unavailable(&error.to_string()))?;
    let record = record.ok_or_else(|| unavailable("the account is gone"))?;
    let is_its = |grant: &&GrantRecord| grant.realm == *realm;
    let grant = record.grants.iter().find(is_its).ok_or_else(|| unavailable("the grant is gone"))?;
    Ok(context.registry.snapshot_of(&record, grant))
}

/// Whether discovery takes the token; says no only where the token is refused.
async fn ask(
    context: &RenewalContext,
    account: &Account,
    grant: &Snapshot,
    platform: &dyn ControlCalls,
    token: &AccessToken,
) -> Result<bool, GrantProofError> {
    match platform.discover(grant.route.as_deref(), grant.version, token).await {
        Ok(route) => {
            keep_route(context, account, grant, platform, token, &route).await;
            Ok(true)
        }
        Err(error) if matches!(error.status, Some(401 | 403)) => Ok(false),
        // Discovery that names nothing has taken the token all the same.
        Err(error) if error.status == Some(200) && grant.route.is_some() => Ok(true),
        Err(error) => Err(unavailable(&error.to_string())),
    }
}

/// Keeps a route that has answered as the API does; the one known before stays otherwise.
async fn keep_route(
    context: &RenewalContext,
    account: &Account,
    grant: &Snapshot,
    platform: &dyn ControlCalls,
    token: &AccessToken,
    route: &Route,
) {
    if grant.route.as_deref() == Some(route)
        || platform.prove(route, grant.version, token).await.as_ref() != Ok(route)
    {
        return;
    }
    let stored = StoredRoute {
        domain: route.domain(),
        path: route.path().to_owned(),
        discovered_at: context.clock.now(),
    };
    if let Err(error) = context.store.set_route(&account.name, &grant.realm, &stored).await {
        tracing::debug!(account = %account.name, trouble = %error, "a route could not be kept; the next renewal finds it");
    }
}

async fn refresh(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
) -> Result<(), GrantProofError> {
    let realm = &before.realm;
    let key = (account.name.clone(), realm.clone());
    let breaker = context.breakers.get(realm);
    if breaker.is_open() || context.pending_commits.get(&key).is_some() {
        return Err(unavailable("its realm is in trouble, or its tokens wait for the store"));
    }
    let _refresh_permit = breaker.refresh_permits.acquire().await;
    let gap = refresh_gap(&context.settings.load(), true);
    let last = before.last_refresh().max(account.snapshot().last_refresh());
    if let Some(until) = last.map(|last| last + gap).filter(|until| *until > context.clock.now()) {
        return Err(GrantProofError::TooSoon { until });
    }
    let lease = context
        .store
        .take_lease(&account.name, realm, &context.replica, before.stored_generation, LEASE)
        .await;
    if !matches!(lease, Ok(Lease::Taken)) {
        return Err(unavailable("another gateway is refreshing it"));
    }
    let ends = &AtomicU64::new(0);
    let held = lease::guard(context, &account.name, realm, ends);
    let came_to = held.during(standby_grants::refresh(context, account, before)).await;
    if context.pending_commits.get(&key).is_none() {
        held.release().await;
    }
    came_to.map_err(|refused| {
        if refused {
            GrantProofError::Refused
        } else {
            unavailable("its refresh failed, and the log says why")
        }
    })
}

fn not_renewed(error: RenewError) -> GrantProofError {
    match error {
        RenewError::TooSoon { until } => GrantProofError::TooSoon { until },
        RenewError::Paused => unavailable("the account is paused"),
        RenewError::NeedsLogin { why, .. } => unavailable(&format!("the account needs a login: {why}")),
        RenewError::Unavailable { detail, .. } => unavailable(&detail),
        RenewError::StillRunning => unavailable("its refresh is still under way"),
    }
}

fn unavailable(why: &str) -> GrantProofError {
    GrantProofError::Unavailable(why.to_owned())
}
