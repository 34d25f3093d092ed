//! Decides whose fault a failed refresh is, and what follows for the account and its realm (threats, row 12).
//!
//! The rule guarded here: only a refusal that is the grant's own fault asks for a new login; bad credentials
//! and outages keep every grant.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::platform::{Blame, CredentialsCheck, PlatformError};
use crate::store::StoreError;

use super::cause::{Cause, RenewError};
use super::circuit_breaker::{CircuitBreaker, LikelyCause, OpenReason, RenewalCounters};
use super::control_calls::ControlCalls;
use super::pacing::{MaybeSpent, stable_jitter};
use super::registry::Account;
use super::renewal_task::{RenewalTask, TokenSource};
use super::snapshot::Snapshot;

/// How long after the first refusal among others a second one counts: the last of them is tried after two
/// minutes.
const SECOND_LOOK: Duration = Duration::from_secs(30);

/// What the store has for a refused refresh token.
enum Replacement {
    Nothing,
    /// Newer tokens, from another refresh or another grant.
    FromStore,
    /// A refresh token that was kept, and is in its place now.
    Fallback,
}

/// Apart from the others.
fn second_look(account: &Account, refused_at: Timestamp) -> Timestamp {
    refused_at + SECOND_LOOK.mul_f64(1.0 + 3.0 * stable_jitter(account.name.as_str(), 3))
}

impl RenewalTask {
    /// A refresh that brought nothing, classified by whose fault it is.
    pub(super) async fn not_refreshed(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
        error: PlatformError,
    ) -> Result<TokenSource, RenewError> {
        match error.blame {
            Blame::Grant => self.grant_refused(before, platform, error).await,
            Blame::Credentials => {
                RenewalCounters::increment(&self.breaker.counters.refusals);
                Err(self.credentials_refused(before).await)
            }
            Blame::Account | Blame::Realm => {
                RenewalCounters::increment(&self.breaker.counters.refresh_failures);
                self.breaker.failed(self.now(), &self.account.name, &error);
                tracing::warn!(account = %self.account.name, realm = %before.realm, trouble = %error, "the refresh failed");
                if self.account.pacing.lock().last_error().is_none() {
                    self.journal(
                        JournalEvent::RefreshFailed,
                        format!("{error}; tried again until it succeeds"),
                    );
                }
                Err(self.back_off_as_asked(&error))
            }
        }
    }

    async fn grant_refused(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
        error: PlatformError,
    ) -> Result<TokenSource, RenewError> {
        RenewalCounters::increment(&self.breaker.counters.refusals);
        match self.look_for_better(before).await {
            Ok(Replacement::Nothing) => {}
            Ok(Replacement::FromStore) => return Ok(TokenSource::FromStore),
            Ok(Replacement::Fallback) => {
                let adopted = self.account.snapshot();
                return Box::pin(self.refresh(&adopted, platform)).await;
            }
            Err(store) => {
                let detail =
                    format!("{error}; whether a better refresh token is at hand cannot be told: {store}");
                return Err(self.backoff(&detail));
            }
        }
        let only_one = self.context.registry.is_only_one_at_work(&before.realm, &self.account.name);
        let refused_at = self.now();
        let (suspect, together) = self.breaker.refused(refused_at, &self.account, only_one);
        let verdict = match suspect {
            LikelyCause::Grant => CredentialsCheck::Good,
            LikelyCause::Credentials => self.probe(platform).await,
        };
        match verdict {
            CredentialsCheck::Bad => Err(self.credentials_refused(before).await),
            CredentialsCheck::Unknown if !error.named => {
                self.breaker.unexplained(self.now());
                Err(self.backoff(&format!("{error}; it could not be told whether our credentials are good")))
            }
            // An OAuth word names the grant, so a probe that got no response adds nothing but doubt.
            CredentialsCheck::Good | CredentialsCheck::Unknown => {
                let (suspected, interrupted) = {
                    let pacing = self.account.pacing.lock();
                    (pacing.suspected, matches!(pacing.maybe_spent, Some(MaybeSpent::ProcessEnded(_))))
                };
                let doubtful = together || suspected.is_some() || verdict == CredentialsCheck::Unknown;
                // Align moves accounts many at a time, and their tokens end with it.
                let doubtful =
                    doubtful && (before.moving_to().is_none() || verdict == CredentialsCheck::Unknown);
                if doubtful && before.state == AccountState::Ready {
                    // A second refusal, some time after the first, is the verdict. One that is explained by a
                    // refresh that was cut off needs no other signal, and whoever is to log in hears of it at
                    // once; it is looked at again all the same.
                    if interrupted {
                        let again = second_look(&self.account, refused_at);
                        self.context.retries.second_try_at(Arc::clone(&self.account), again);
                    } else if suspected.is_none_or(|since| refused_at.since(since) < SECOND_LOOK) {
                        return Err(self.suspect(&error));
                    }
                    self.breaker.given_up(refused_at, &self.account);
                }
                Err(self.needs_login(before, &error, refused_at).await)
            }
        }
    }

    /// Whether there is something better than the token that was refused: somebody has used it up, and the
    /// store holds its successor; or one was kept beside it. A store that cannot be asked has not said no.
    async fn look_for_better(&self, before: &Snapshot) -> Result<Replacement, StoreError> {
        if before.unsaved {
            // The newest there is stands in memory, and the store's is older.
            return Ok(self.adopted_from_memory(before));
        }
        if self.store_has_newer(before, &mut None).await? {
            return Ok(Replacement::FromStore);
        }
        match self.adopted_fallback(before).await {
            Ok(false) => Ok(Replacement::Nothing),
            Ok(true) if self.store_has_newer(before, &mut None).await? => Ok(Replacement::Fallback),
            Err(StoreError::Fenced(_)) if self.store_has_newer(before, &mut None).await? => {
                Ok(Replacement::FromStore)
            }
            Ok(true) => Err(StoreError::Unavailable("the account cannot be read back".into())),
            Err(error) => Err(error),
        }
    }

    /// Where the refused token came alone and waits for the store, the one before it is tried again.
    fn adopted_from_memory(&self, before: &Snapshot) -> Replacement {
        let key = (self.account.name.clone(), before.realm.clone());
        let Some(one_before) = self.context.pending_commits.take_one_before(&key) else {
            return Replacement::Nothing;
        };
        self.account.take_refresh(before, &one_before, None);
        let detail = "the refresh token in use was refused; one that was kept beside it is tried".to_owned();
        self.journal(JournalEvent::FallbackAdopted, detail);
        Replacement::Fallback
    }

    /// Many grants are refused within minutes: a signal before it is a verdict. The account is tried once
    /// more, apart from the others, before anybody is told to log in. The first one, whose refusal looked
    /// like its own, is looked at again too.
    fn suspect(&self, error: &PlatformError) -> RenewError {
        let now = self.now();
        let retry_at = second_look(&self.account, now);
        let detail = format!(
            "{error}; other accounts were refused within minutes, so it is tried once more before a login is asked for"
        );
        let first = {
            let mut pacing = self.account.pacing.lock();
            pacing.postpone(retry_at, &detail, self.breaker.recoveries());
            let first = pacing.suspected.is_none();
            pacing.suspected.get_or_insert(now);
            first
        };
        if first {
            self.journal(JournalEvent::RefusalSuspected, detail.clone());
        }
        self.context.retries.add(&self.account);
        for other in self.breaker.others_refused(&self.account) {
            let told = matches!(other.state(), AccountState::NeedsLogin { .. });
            if told && self.breaker.given_up(now, &other) {
                let again = second_look(&other, now);
                self.context.retries.second_try_at(other, again);
            }
        }
        RenewError::Unavailable { retry_at, detail }
    }

    /// A back-off, longer where the platform asks for it.
    fn back_off_as_asked(&self, error: &PlatformError) -> RenewError {
        let problem = self.backoff(&error.to_string());
        let (Some(asked), RenewError::Unavailable { retry_at, detail }) = (error.retry_after, &problem)
        else {
            return problem;
        };
        let retry_at = (*retry_at).max(self.now() + asked);
        self.account.pacing.lock().not_before(retry_at);
        RenewError::Unavailable { retry_at, detail: detail.clone() }
    }

    /// Asks the token endpoint about our credentials, at most once a minute for the realm.
    async fn probe(&self, platform: &dyn ControlCalls) -> CredentialsCheck {
        let mut probed = self.breaker.probed.lock().await;
        let recent = probed.filter(|(asked, _)| CircuitBreaker::is_recent(*asked, self.now()));
        let verdict = match recent {
            Some((_, verdict)) => verdict,
            None => {
                let verdict = platform.probe_credentials().await;
                *probed = Some((self.now(), verdict));
                verdict
            }
        };
        if verdict == CredentialsCheck::Good {
            self.breaker.credentials_are_good();
        }
        verdict
    }

    async fn needs_login(&self, before: &Snapshot, error: &PlatformError, since: Timestamp) -> RenewError {
        if let AccountState::NeedsLogin { since, why } = &before.state {
            // Tried again on somebody's asking: nothing has changed, so nothing is reported twice.
            return RenewError::NeedsLogin { since: *since, why: why.clone(), remedy: before.remedy() };
        }
        let spent = {
            let mut pacing = self.account.pacing.lock();
            pacing.decided();
            pacing.maybe_spent
        };
        let status = error.status.map_or_else(|| "no status".to_owned(), |status| status.to_string());
        let mut why = format!("the platform no longer takes the refresh token ({status} at {})", error.call);
        if let Some(to) = before.moving_to() {
            why = format!(
                "the account is moving to realm {to}, and the platform no longer takes its token of realm {} ({status} at {}): \
                 expected once Align has moved it",
                before.realm, error.call
            );
        } else if before.untried {
            why.push_str(
                "; it was imported and never used here, so the application has probably refreshed since",
            );
        }
        if let Some(spent) = spent {
            why.push_str(&format!("; {spent}, so the platform may have replaced it without our knowing"));
        }
        let event = match before.moving_to() {
            Some(_) => JournalEvent::OldTokenEnded,
            None => JournalEvent::NeedsLogin,
        };
        tracing::warn!(account = %self.account.name, realm = %before.realm, why, "the account needs a new login");
        self.set_state(&self.account, before, AccountState::NeedsLogin { since, why: why.clone() }).await;
        if !matches!(self.cause, Cause::BeforeExpiry | Cause::IdleRenewal | Cause::Operator | Cause::Forced) {
            // A call has failed with this very token. Ahead of its end it may serve on.
            self.account.drop_access(before.serial);
        }
        self.journal(event, why.clone());
        RenewError::NeedsLogin { since, why, remedy: before.remedy() }
    }

    /// Every grant is kept, also of those accounts whose refusal was taken for their grant's fault a moment
    /// ago.
    async fn credentials_refused(&self, before: &Snapshot) -> RenewError {
        let now = self.now();
        for (refused_at, account) in self.breaker.credentials_are_bad(now) {
            let snapshot = account.snapshot();
            let AccountState::NeedsLogin { since, .. } = snapshot.state else { continue };
            if since != refused_at || snapshot.realm != before.realm {
                continue;
            }
            self.set_state(&account, &snapshot, AccountState::Ready).await;
            let detail = "the refusal was about our client credentials, not about the grant".to_owned();
            self.context.journal.record(&account.name, JournalEvent::LoginRestored, detail);
        }
        let error = OpenReason::BadCredentials { since: now };
        self.backoff(&self.breaker.open_reason().unwrap_or(error).sentence(&before.realm))
    }
}
