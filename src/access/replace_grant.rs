//! Puts another refresh token in the place of one that an account has, for an import. The rule: the old grant
//! goes only after the platform has taken the new token for a refresh; until then it stays, and its access
//! token serves on.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::{RefreshToken, TokenSet};
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::cluster::Lease;
use crate::store::{AccountRecord, GrantRecord, NewGrant, StoreError, StoredAccess, TrialRefresh};

use super::account::Account;
use super::cause::{Cause, RenewError};
use super::circuit_breaker::RenewalCounters;
use super::context::{ActiveTask, RenewalContext};
use super::fallback_tokens;
use super::lease::{self, LEASE};
use super::pacing::refresh_gap;
use super::renewal::Renewals;
use super::save_retry::SaveRetry;
use super::single_flight::{ResultReceiver, ResultSender};

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
const MAX_ATTEMPTS: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Another refresh of the account is waited for so long.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_SAVE_PAUSE: Duration = Duration::from_secs(2);

impl Renewals {
    /// Tries `grant.refresh` at the platform, and stores the grant with what that brought. To be asked for a
    /// grant that exists; runs to its end on the control runtime even where the asker goes.
    pub async fn replace(&self, grant: NewGrant) -> Result<AccountRecord, ReplaceError> {
        let Some(account) = self.context().registry.by_name(grant.name.as_str()) else {
            return Err(ReplaceError::NotTried("the account cannot be read".to_owned()));
        };
        let slot = FlightSlot::take(self, &account).await?;
        let renewals = self.clone();
        let replacing = self.context().runtime.spawn(async move { slot.replace(&renewals, grant).await });
        replacing.await.unwrap_or_else(|_| Err(ReplaceError::Failed("the try was cut off".to_owned())))
    }
}

/// The account's one renewal at a time, held for the try. Who comes for a token meanwhile waits, as for any
/// renewal.
struct FlightSlot {
    context: Arc<RenewalContext>,
    account: Arc<Account>,
    sender: ResultSender,
    _active: ActiveTask,
}

impl FlightSlot {
    async fn take(renewals: &Renewals, account: &Arc<Account>) -> Result<Self, ReplaceError> {
        let context = renewals.context();
        let until = context.clock.now() + LONGEST_WAIT;
        loop {
            let mut in_flight = match try_take(account) {
                Ok(sender) => {
                    let _active = ActiveTask::begin(context);
                    let (context, account) = (Arc::clone(context), Arc::clone(account));
                    return Ok(Self { context, account, sender, _active });
                }
                Err(in_flight) => in_flight,
            };
            tokio::select! {
                biased;
                _ = in_flight.wait_for(Option::is_some) => {}
                () = context.clock.sleep_until(until) => {
                    return Err(ReplaceError::NotTried("a refresh of the account is still under way".to_owned()));
                }
            }
        }
    }

    async fn replace(self, renewals: &Renewals, grant: NewGrant) -> Result<AccountRecord, ReplaceError> {
        let account = &self.account;
        let snapshot = account.snapshot();
        let not_tried = |problem: RenewError| ReplaceError::NotTried(reason(&problem));
        let permit = renewals.take_permit(account, &snapshot, Cause::Operator, self.context.clock.now());
        let _ticket = permit.map_err(not_tried)?;
        let breaker = self.context.breakers.get(&grant.realm);
        let _refresh_permit = breaker.refresh_permits.acquire().await;
        let store = &*self.context.store;
        // With rotation, a try spends the token of the file: what it brings has to be kept.
        store
            .ping()
            .await
            .map_err(|error| ReplaceError::NotTried(format!("the store takes no writes: {error}")))?;
        let record =
            store.account(&grant.name).await.map_err(|error| ReplaceError::NotTried(error.to_string()))?;
        let old =
            record.as_ref().and_then(|record| record.grants.iter().find(|old| old.realm == grant.realm));
        let Some(old) = old else {
            return Err(ReplaceError::NotTried("the account was removed meanwhile".to_owned()));
        };
        let (name, realm, owner) = (&grant.name.clone(), &grant.realm.clone(), &self.context.replica);
        match store.take_lease(name, realm, owner, old.generation, LEASE).await {
            Ok(Lease::Taken) => {}
            Ok(Lease::HeldBy { .. } | Lease::Moved(_)) => {
                return Err(ReplaceError::NotTried("another gateway refreshes the account".to_owned()));
            }
            Err(error) => return Err(ReplaceError::NotTried(error.to_string())),
        }
        let ends = &AtomicU64::new(0);
        let held = lease::guard(&self.context, name, realm, ends);
        let replaced = held.during(self.try_and_store(grant, old)).await;
        held.release().await;
        replaced
    }

    async fn try_and_store(
        &self,
        mut grant: NewGrant,
        old: &GrantRecord,
    ) -> Result<AccountRecord, ReplaceError> {
        let context = &self.context;
        let breaker = context.breakers.get(&grant.realm);
        let sent_at = context.clock.now();
        let response = match self.ask(&grant).await {
            Ok(response) => response,
            Err((error, came)) => {
                if let Some(came) = came {
                    self.keep_received_token(&grant, old, &came).await;
                }
                return Err(match error.blame {
                    Blame::Grant | Blame::Credentials => {
                        RenewalCounters::increment(&breaker.counters.refusals);
                        ReplaceError::Refused(error.to_string())
                    }
                    Blame::Account | Blame::Realm => {
                        RenewalCounters::increment(&breaker.counters.refresh_failures);
                        breaker.failed(context.clock.now(), &grant.name, &error);
                        ReplaceError::Failed(error.to_string())
                    }
                });
            }
        };
        RenewalCounters::increment(&breaker.counters.refreshes);
        context.realm_works(&breaker);
        if let Some(odd) = response.oddity_line() {
            context.journal.record(&grant.name, JournalEvent::TokenAnswerOdd, odd);
        }
        let expires_at = sent_at + response.expires_in;
        grant.access = Some(StoredAccess { token: response.access, expires_at });
        let handed_in = std::mem::replace(&mut grant.refresh, RefreshToken::new(""));
        grant.refresh = response.refresh.unwrap_or_else(|| handed_in.clone());
        grant.trial = Some(TrialRefresh { handed_in, refreshed_at: context.clock.now() });
        let record = self.store_until_it_is(&grant).await?;
        self.publish(&record, &grant);
        Ok(record)
    }

    fn publish(&self, record: &AccountRecord, grant: &NewGrant) {
        let context = &self.context;
        context.registry.apply(record.clone());
        if record.current == grant.realm {
            let settings = context.settings.load();
            self.account
                .block_renewals_until(context.clock.now() + refresh_gap(&settings, record.grants.len() > 1));
        }
        let detail = format!(
            "the token of an import was taken by the platform in realm {} and stands in the place of the one before",
            grant.realm
        );
        context.journal.record(&grant.name, JournalEvent::TokenReplaced, detail);
    }

    /// Responses without a usable access token replaced the token of the file, and then the platform said
    /// nothing more: the newest is kept beside the account's own, where both are of one account at the
    /// platform.
    async fn keep_received_token(&self, grant: &NewGrant, old: &GrantRecord, came: &RefreshToken) {
        if old.account_id != grant.account_id {
            return;
        }
        let kept = fallback_tokens::keep_beside(
            &*self.context.store,
            self.context.clock.now(),
            &grant.name,
            &grant.realm,
            came,
            old.generation,
        )
        .await;
        if let Err(error) = kept {
            tracing::error!(account = %grant.name, trouble = %error, "the refresh token of an odd answer to an import could not be kept");
        }
    }

    /// Fails with the newest refresh token that came, too, where one did.
    async fn ask(&self, grant: &NewGrant) -> Result<TokenSet, (PlatformError, Option<RefreshToken>)> {
        let context = &self.context;
        let unconfigured = |_| {
            let detail = format!("the configuration has no realm {}", grant.realm);
            (
                PlatformError::plain("refresh", Blame::Realm, PlatformErrorKind::Unreachable, None, detail),
                None,
            )
        };
        let platform = context.platform(&grant.realm).map_err(unconfigured)?;
        let (mut token, mut attempts) = (grant.refresh.clone(), 1);
        loop {
            let error = match platform.refresh(&token).await {
                Ok(mut response) => {
                    response.refresh.get_or_insert(token);
                    return Ok(response);
                }
                Err(error) => error,
            };
            let is_open = context.breakers.get(&grant.realm).is_open();
            let pause = (RETRY_PAUSE * 2u32.pow(attempts - 1)).max(error.retry_after.unwrap_or_default());
            // A response whose access token is of no use may still have replaced the refresh token.
            token = error.refresh.clone().unwrap_or(token);
            if !error.is_transient() || attempts >= MAX_ATTEMPTS || is_open || pause > LONGEST_WAIT {
                let came = (token != grant.refresh).then_some(token);
                return Err((error, came));
            }
            context.clock.sleep(pause).await;
            attempts += 1;
        }
    }

    /// The store took a write a moment ago. Where it does not take this one, giving up would lose what the
    /// platform has handed out.
    async fn store_until_it_is(&self, grant: &NewGrant) -> Result<AccountRecord, ReplaceError> {
        let save = |_| async {
            match self.context.store.put_grant(grant.clone()).await {
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::error!(
                        account = %grant.name, realm = %grant.realm, trouble = %error,
                        "the tokens of an import are in memory only and storing is tried again; a crash now would cost the login"
                    );
                    None
                }
                put => Some(put.map_err(|error| ReplaceError::Failed(error.to_string()))),
            }
        };
        SaveRetry::new(&self.context.clock, LONGEST_SAVE_PAUSE).until_saved(save).await
    }
}

impl Drop for FlightSlot {
    /// Tells those who wait what there is now: the new token, or the account's own.
    fn drop(&mut self) {
        self.account.clear_in_flight();
        let snapshot = self.account.snapshot();
        let live = snapshot.access().filter(|access| access.expires_at() > self.context.clock.now());
        let servable = live.filter(|_| snapshot.state != AccountState::Paused);
        let result =
            servable.ok_or_else(|| self.context.unavailable("another token was tried for the account"));
        self.sender.send_replace(Some(result));
    }
}

fn try_take(account: &Account) -> Result<ResultSender, ResultReceiver> {
    let mut slot = account.single_flight.lock();
    match slot.in_flight() {
        Some(in_flight) => Err(in_flight),
        None => Ok(slot.occupy().0),
    }
}

fn reason(problem: &RenewError) -> String {
    match problem {
        RenewError::TooSoon { until } => {
            format!("the account was refreshed a moment ago, and its next refresh may go out at {until}")
        }
        RenewError::Unavailable { detail, .. } => detail.clone(),
        RenewError::Paused => "the account is paused".to_owned(),
        RenewError::NeedsLogin { why, .. } => why.clone(),
        RenewError::StillRunning => "a refresh is still under way".to_owned(),
    }
}
