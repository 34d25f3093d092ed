//! One refresh per account in the whole cluster: a lease says who asks the platform, everybody else waits for
//! what it brings.
//!
//! The rule guarded here: nothing of the database is held while the platform is asked, and a lease that is
//! lost costs a second refresh at most, never a login (the commit's generation sees to that).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::store::StoreError;
use crate::store::cluster::Lease;

use super::cause::RenewError;
use super::control_calls::ControlCalls;
use super::lease::{self, LEASE};
use super::pacing::MaybeSpent;
use super::renewal_task::{RenewalTask, TokenSource};
use super::snapshot::Snapshot;

/// How often a waiting replica looks for the winner's tokens, which it also hears of through the store's
/// watch.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Grace period before taking over a refresh from a silent replica: it may live and hold tokens that the
/// store did not take, since the store was away. Its saver tries every two seconds.
const TAKEOVER_GRACE: Duration = Duration::from_secs(5);
/// When to try again while nobody can say who may refresh.
const STORE_RETRY: Duration = Duration::from_secs(2);

impl RenewalTask {
    /// Refreshes where no other replica does, else takes over what the other one brought.
    pub(super) async fn refresh_once_in_the_cluster(
        &self,
        before: &Arc<Snapshot>,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSource, RenewError> {
        let context = &self.context;
        loop {
            let (store, owner, name) = (&*context.store, &context.replica, &self.account.name);
            // Ours counts from before the question, the store's from after it: ours ends first.
            let ends = self.now() + LEASE;
            let asked = store.take_lease(name, &before.realm, owner, before.stored_generation, LEASE).await;
            match asked {
                Ok(Lease::Taken) => {
                    let realm = &before.realm;
                    self.lease_ends.store(ends.as_millis(), Relaxed);
                    let ends = &self.lease_ends;
                    let held = lease::guard(context, name, realm, ends);
                    let came_to = held.during(self.refresh_under_lease(before, platform)).await;
                    // While tokens wait for the store the others must not ask: whoever saves them keeps the
                    // lease.
                    if !self.account.snapshot().unsaved {
                        held.release().await;
                    }
                    return came_to;
                }
                Ok(Lease::Moved(_)) => return self.adopt_stored_tokens(before).await,
                Ok(Lease::HeldBy { until, .. }) => {
                    if self.wait_for_holder(before, until, &mut None).await? {
                        return Ok(TokenSource::FromStore);
                    }
                }
                // Two replicas that cannot ask each other must not both ask the platform; tokens that live
                // are served meanwhile.
                Err(error) => return Err(self.postpone(&error.to_string())),
            }
        }
    }

    /// The store is looked at under the lease: whoever held it before may have sent a refresh out since the
    /// last look, and what cannot be read is not known.
    async fn refresh_under_lease(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSource, RenewError> {
        if !self.context.store.is_shared() {
            return self.refresh(before, platform).await;
        }
        let mut open_intent = None;
        match self.store_has_newer(before, &mut open_intent).await {
            Ok(true) => return Ok(TokenSource::FromStore),
            Ok(false) => self.check_not_refused(before)?,
            Err(error) => return Err(self.postpone(&error.to_string())),
        }
        match open_intent {
            Some(sent_at) => self.take_over_refresh(before, sent_at, platform).await,
            None => self.refresh(before, platform).await,
        }
    }

    /// Another gateway asked the platform, and the store has nothing of it. It died, or the store was away
    /// when its tokens came: then they are on their way, and ours is the refresh that would be refused.
    async fn take_over_refresh(
        &self,
        before: &Snapshot,
        sent_at: Timestamp,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSource, RenewError> {
        let mut open_intent = Some(sent_at);
        if self.wait_for_holder(before, self.now() + TAKEOVER_GRACE, &mut open_intent).await? {
            return Ok(TokenSource::FromStore);
        }
        let spent = open_intent.map(MaybeSpent::ProcessEnded);
        if let Some(spent) = spent {
            self.journal(
                JournalEvent::RefreshInterrupted,
                format!("{spent}; the refresh token at hand is tried as it is"),
            );
        }
        let known = std::mem::replace(&mut self.account.pacing.lock().maybe_spent, spent);
        if let Some(MaybeSpent::ResponseLost(_)) = known {
            self.account.pacing.lock().maybe_spent = known;
        }
        self.refresh(before, platform).await
    }

    /// Nobody refreshes on top of tokens that others cannot see yet: as soon as those are saved, another
    /// gateway would take them for the newest and spend them a second time.
    pub(super) async fn until_saved(&self) -> Result<(), RenewError> {
        if !self.context.store.is_shared() {
            return Ok(());
        }
        let until = self.now() + TAKEOVER_GRACE;
        while self.account.snapshot().unsaved {
            if self.now() >= until {
                return Err(self.postpone("the newest tokens wait for the store"));
            }
            self.context.clock.sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Puts a refresh token that was kept in the place of one that the platform refuses. `true`: refresh
    /// again with it.
    pub(super) async fn adopted_fallback(&self, before: &Snapshot) -> Result<bool, StoreError> {
        let name = &self.account.name;
        match self.context.store.adopt_fallback_token(name, &before.realm, before.stored_generation).await {
            Ok(Some(_)) => {
                self.journal(
                    JournalEvent::FallbackAdopted,
                    "the refresh token in use was refused; one that was kept beside it is tried".into(),
                );
                Ok(true)
            }
            // What was removed has nothing kept either.
            Ok(None) | Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn adopt_stored_tokens(&self, before: &Snapshot) -> Result<TokenSource, RenewError> {
        match self.store_has_newer(before, &mut None).await {
            Ok(true) => Ok(TokenSource::FromStore),
            Ok(false) | Err(_) => {
                Err(self.postpone("another gateway has newer tokens that cannot be read yet"))
            }
        }
    }

    /// Waits for the holder of the lease; `false` when its time is over and nothing came. Where the platform
    /// refused it, it would refuse us too. A store that cannot be read has not said that nothing came.
    async fn wait_for_holder(
        &self,
        before: &Snapshot,
        until: Timestamp,
        open_intent: &mut Option<Timestamp>,
    ) -> Result<bool, RenewError> {
        while self.now() < until {
            self.context.clock.sleep(POLL_INTERVAL).await;
            match self.store_has_newer(before, open_intent).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => return Err(self.postpone(&error.to_string())),
            }
            self.check_not_refused(before)?;
        }
        Ok(false)
    }

    /// Where the platform has refused another gateway meanwhile, it would refuse us too.
    fn check_not_refused(&self, before: &Snapshot) -> Result<(), RenewError> {
        match (&before.state, self.account.state()) {
            (AccountState::Ready, AccountState::NeedsLogin { since, why }) => {
                let remedy = self.account.snapshot().remedy();
                Err(RenewError::NeedsLogin { since, why, remedy })
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn store_has_newer(
        &self,
        before: &Snapshot,
        open_intent: &mut Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        *open_intent = self.reload_from_store().await?;
        let now = self.account.snapshot();
        Ok(now.realm != before.realm || now.stored_generation > before.stored_generation)
    }

    pub(super) fn postpone(&self, why: &str) -> RenewError {
        RenewError::Unavailable { retry_at: self.now() + STORE_RETRY, detail: why.to_owned() }
    }
}
