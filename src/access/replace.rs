//! Puts another refresh token in the place of one that an account has, for an import. The rule: the old grant goes only after the
//! platform has taken the new token for a refresh; until then it stays, and its access token serves on.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::account::AccountState;
use crate::model::token::{RefreshToken, TokenSet};
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::cluster::{Lease, LeaseGuard};
use crate::store::{AccountRecord, GrantRecord, NewGrant, StoreError, StoredAccess, TrialRefresh};

use super::cause::{Cause, Landing, RenewProblem};
use super::cluster::LEASE;
use super::entry::Entry;
use super::gaps::{back_off, gap};
use super::kept_tokens;
use super::locked;
use super::realm::Tally;
use super::renewal::{Renewals, Shared};

/// Why the account has its own token still.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// The platform does not take the new token, or not from us.
    #[error("{0}")]
    Refused(String),
    /// The platform was not asked.
    #[error("{0}")]
    NotTried(String),
    /// The platform was asked and said nothing of the token.
    #[error("{0}")]
    Failed(String),
}

/// Sends of the refresh, with the documented pause between them (gen-api, section 2).
const SENDS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Another refresh of the account is waited for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_SAVE_PAUSE: Duration = Duration::from_secs(2);

impl Renewals {
    /// Tries `grant.refresh` at the platform, and stores the grant with what that brought. To be asked for a grant that exists; runs to
    /// its end on the control runtime even where the asker goes.
    pub async fn replace(&self, grant: NewGrant) -> Result<AccountRecord, ReplaceError> {
        let Some(entry) = self.shared().book.by_name(grant.name.as_str()) else {
            return Err(ReplaceError::NotTried("the account cannot be read".to_owned()));
        };
        let slot = Slot::take(self, &entry).await?;
        let renewals = self.clone();
        let replacing = self.shared().runtime.spawn(async move { slot.replace(&renewals, grant).await });
        replacing.await.unwrap_or_else(|_| Err(ReplaceError::Failed("the try was cut off".to_owned())))
    }
}

/// The account's one renewal at a time, held for the try. Who comes for a token meanwhile waits, as for any renewal.
struct Slot {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    land: watch::Sender<Option<Landing>>,
}

impl Slot {
    async fn take(renewals: &Renewals, entry: &Arc<Entry>) -> Result<Self, ReplaceError> {
        let shared = renewals.shared();
        let until = shared.clock.now() + LONGEST_WAIT;
        loop {
            let mut under_way = match try_take(entry) {
                Ok(land) => {
                    shared.in_flight.send_modify(|flights| *flights += 1);
                    return Ok(Self { shared: Arc::clone(shared), entry: Arc::clone(entry), land });
                }
                Err(under_way) => under_way,
            };
            tokio::select! {
                biased;
                _ = under_way.wait_for(Option::is_some) => {}
                () = shared.clock.sleep_until(until) => {
                    return Err(ReplaceError::NotTried("a refresh of the account is still under way".to_owned()));
                }
            }
        }
    }

    async fn replace(self, renewals: &Renewals, grant: NewGrant) -> Result<AccountRecord, ReplaceError> {
        let entry = &self.entry;
        let snapshot = entry.snapshot();
        let not_tried = |problem: RenewProblem| ReplaceError::NotTried(reason(&problem));
        let ticket = renewals.permit(entry, &snapshot, Cause::Operator, self.shared.clock.now());
        let _ticket = ticket.map_err(not_tried)?;
        let health = self.shared.realms.get(&grant.realm);
        let _seat = health.seats.acquire().await;
        let store = &*self.shared.store;
        // With rotation, a try spends the token of the file: what it brings has to be kept.
        store
            .ping()
            .await
            .map_err(|trouble| ReplaceError::NotTried(format!("the store takes no writes: {trouble}")))?;
        let record = store
            .account(&grant.name)
            .await
            .map_err(|trouble| ReplaceError::NotTried(trouble.to_string()))?;
        let old =
            record.as_ref().and_then(|record| record.grants.iter().find(|old| old.realm == grant.realm));
        let Some(old) = old else {
            return Err(ReplaceError::NotTried("the account was removed meanwhile".to_owned()));
        };
        let (name, realm, owner) = (&grant.name.clone(), &grant.realm.clone(), &self.shared.replica);
        match store.take_lease(name, realm, owner, old.generation, LEASE).await {
            Ok(Lease::Taken) => {}
            Ok(Lease::HeldBy { .. } | Lease::Moved(_)) => {
                return Err(ReplaceError::NotTried("another gateway refreshes the account".to_owned()));
            }
            Err(trouble) => return Err(ReplaceError::NotTried(trouble.to_string())),
        }
        let ends = &AtomicU64::new(0);
        let held = LeaseGuard { store, clock: &self.shared.clock, name, realm, owner, life: LEASE, ends };
        let replaced = held.during(self.try_and_store(grant, old)).await;
        held.release().await;
        replaced
    }

    async fn try_and_store(
        &self,
        mut grant: NewGrant,
        old: &GrantRecord,
    ) -> Result<AccountRecord, ReplaceError> {
        let shared = &self.shared;
        let health = shared.realms.get(&grant.realm);
        let asked_at = shared.clock.now();
        let response = match self.ask(&grant).await {
            Ok(response) => response,
            Err((trouble, came)) => {
                if let Some(came) = came {
                    self.keep_what_came(&grant, old, &came).await;
                }
                return Err(match trouble.blame {
                    Blame::Grant | Blame::Credentials => {
                        Tally::count(&health.tally.refusals);
                        ReplaceError::Refused(trouble.to_string())
                    }
                    Blame::Account | Blame::Realm => {
                        Tally::count(&health.tally.refresh_failures);
                        health.failed(shared.clock.now(), &grant.name, &trouble);
                        ReplaceError::Failed(trouble.to_string())
                    }
                });
            }
        };
        Tally::count(&health.tally.refreshes);
        shared.realm_works(&health);
        if let Some(odd) = response.oddity_line() {
            shared.chronicle.note(&grant.name, "token_answer_odd", odd);
        }
        let expires_at = asked_at + response.expires_in;
        grant.access = Some(StoredAccess { token: response.access, expires_at });
        let handed_in = std::mem::replace(&mut grant.refresh, RefreshToken::new(""));
        grant.refresh = response.refresh.unwrap_or_else(|| handed_in.clone());
        grant.trial = Some(TrialRefresh { handed_in, refreshed_at: shared.clock.now() });
        let record = self.store_until_it_is(&grant).await?;
        self.publish(&record, &grant);
        Ok(record)
    }

    fn publish(&self, record: &AccountRecord, grant: &NewGrant) {
        let shared = &self.shared;
        shared.book.apply(record.clone());
        if record.current == grant.realm {
            let settings = shared.settings.load();
            self.entry.hold(shared.clock.now() + gap(&settings, record.grants.len() > 1));
        }
        let detail = format!(
            "the token of an import was taken by the platform in realm {} and stands in the place of the one before",
            grant.realm
        );
        shared.chronicle.note(&grant.name, "token_replaced", detail);
    }

    /// Answers without a usable access token replaced the token of the file, and then the platform said nothing
    /// more: the newest is kept beside the account's own, where both are of one account at the platform.
    async fn keep_what_came(&self, grant: &NewGrant, old: &GrantRecord, came: &RefreshToken) {
        if old.account_id != grant.account_id {
            return;
        }
        let kept = kept_tokens::keep_beside(
            &*self.shared.store,
            self.shared.clock.now(),
            &grant.name,
            &grant.realm,
            came,
            old.generation,
        )
        .await;
        if let Err(trouble) = kept {
            tracing::error!(account = %grant.name, %trouble, "the refresh token of an odd answer to an import could not be kept");
        }
    }

    /// Fails with the newest refresh token that came, too, where one did.
    async fn ask(&self, grant: &NewGrant) -> Result<TokenSet, (PlatformError, Option<RefreshToken>)> {
        let shared = &self.shared;
        let unconfigured = |_| {
            let detail = format!("the configuration has no realm {}", grant.realm);
            (
                PlatformError::plain("refresh", Blame::Realm, PlatformErrorKind::Unreachable, None, detail),
                None,
            )
        };
        let platform = shared.platform(&grant.realm).map_err(unconfigured)?;
        let (mut token, mut sends) = (grant.refresh.clone(), 1);
        loop {
            let trouble = match platform.refresh(&token).await {
                Ok(mut response) => {
                    response.refresh.get_or_insert(token);
                    return Ok(response);
                }
                Err(trouble) => trouble,
            };
            let in_trouble = shared.realms.get(&grant.realm).in_trouble();
            let pause = (PAUSE * 2u32.pow(sends - 1)).max(trouble.retry_after.unwrap_or_default());
            // An answer whose access token is of no use may still have replaced the refresh token.
            token = trouble.refresh.clone().unwrap_or(token);
            if !trouble.is_transient() || sends >= SENDS || in_trouble || pause > LONGEST_WAIT {
                let came = (token != grant.refresh).then_some(token);
                return Err((trouble, came));
            }
            shared.clock.sleep(pause).await;
            sends += 1;
        }
    }

    /// The store took a write a moment ago. Where it does not take this one, giving up would lose what the platform has handed out.
    async fn store_until_it_is(&self, grant: &NewGrant) -> Result<AccountRecord, ReplaceError> {
        let mut failures = 0;
        loop {
            let trouble = match self.shared.store.put_grant(grant.clone()).await {
                Ok(record) => return Ok(record),
                Err(trouble @ StoreError::Unavailable(_)) => trouble,
                Err(trouble) => return Err(ReplaceError::Failed(trouble.to_string())),
            };
            tracing::error!(
                account = %grant.name, realm = %grant.realm, %trouble,
                "the tokens of an import are in memory only and storing is tried again; a crash now would cost the login"
            );
            failures += 1;
            self.shared.clock.sleep(back_off(failures, LONGEST_SAVE_PAUSE, 0.0)).await;
        }
    }
}

impl Drop for Slot {
    /// Tells those who wait what there is now: the new token, or the account's own.
    fn drop(&mut self) {
        self.entry.end_flight();
        let snapshot = self.entry.snapshot();
        let live = snapshot.access().filter(|access| access.expires_at() > self.shared.clock.now());
        let servable = live.filter(|_| snapshot.state != AccountState::Paused);
        let landing =
            servable.ok_or_else(|| self.shared.unavailable("another token was tried for the account"));
        self.land.send_replace(Some(landing));
        self.shared.in_flight.send_modify(|flights| *flights -= 1);
    }
}

fn try_take(entry: &Entry) -> Result<watch::Sender<Option<Landing>>, watch::Receiver<Option<Landing>>> {
    let mut under_way = locked(&entry.flight);
    if let Some(flight) = under_way.as_ref() {
        return Err(watch::Receiver::clone(flight));
    }
    let (land, landing) = watch::channel(None);
    *under_way = Some(Box::new(landing));
    Ok(land)
}

fn reason(problem: &RenewProblem) -> String {
    match problem {
        RenewProblem::TooSoon { until } => {
            format!("the account was refreshed a moment ago, and its next refresh may go out at {until}")
        }
        RenewProblem::Unavailable { detail, .. } => detail.clone(),
        RenewProblem::Paused => "the account is paused".to_owned(),
        RenewProblem::NeedsLogin { why, .. } => why.clone(),
        RenewProblem::StillRunning => "a refresh is still under way".to_owned(),
    }
}
