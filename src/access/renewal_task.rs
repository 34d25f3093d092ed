//! One renewal of one account, from intent to route. It runs in a task of its own and tells its outcome to
//! whoever waits.
//!
//! The order guarded here: intent, refresh, commit, publish, discovery. Nothing is used before it is durable,
//! or loudly unsaved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::AccountState;
use crate::model::token::TokenSet;
use crate::platform::PlatformError;
use crate::store::{NewTokens, StoreError};

use super::cause::{Cause, RenewError, RenewalResult};
use super::circuit_breaker::{CircuitBreaker, Permit};
use super::commit::CommitOutcome;
use super::context::{ActiveTask, RenewalContext};
use super::control_calls::{Call, ControlCalls};
use super::locked;
use super::pacing::{MaybeSpent, lacks_only_a_route, refresh_gap, stable_jitter};
use super::refresh::{self, refresh_grant};
use super::registry::Account;
use super::single_flight::ResultSender;
use super::snapshot::Snapshot;

/// Sends of one control call within a renewal, with the documented pause between them.
const MAX_ATTEMPTS: u32 = 3;
/// The documented wait after 500 and 504 (gen-api, section 2), doubled for the last send.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// No new send later than this after the first: those who wait give up after 10 s.
const LAST_ATTEMPT: Duration = Duration::from_secs(8);
/// While the store takes no intent and the token still lives, waiting costs nothing and a refresh could cost
/// the login.
const STORE_RETRY: Duration = Duration::from_secs(30);

/// One renewal of one account, or one discovery.
pub(super) struct RenewalTask {
    pub(super) context: Arc<RenewalContext>,
    pub(super) account: Arc<Account>,
    pub(super) cause: Cause,
    permit: Permit,
    pub(super) breaker: Arc<CircuitBreaker>,
    /// Until when the right to refresh is ours, where several gateways share the store.
    pub(super) lease_ends: AtomicU64,
    /// Taken when the outcome is published.
    sender: Mutex<Option<ResultSender>>,
    _active: ActiveTask,
}

/// Whose tokens the registry holds after a refresh.
pub(super) enum TokenSource {
    Refreshed,
    /// Somebody else's, newer ones: they have done the rest too.
    FromStore,
}

impl RenewalTask {
    pub fn new(
        context: Arc<RenewalContext>,
        account: Arc<Account>,
        cause: Cause,
        permit: Permit,
        sender: Option<ResultSender>,
    ) -> Self {
        let active = ActiveTask::begin(&context);
        let breaker = context.breakers.get(&account.snapshot().realm);
        Self {
            context,
            account,
            cause,
            permit,
            breaker,
            lease_ends: AtomicU64::new(0),
            sender: Mutex::new(sender),
            _active: active,
        }
    }

    pub async fn run(self) {
        let result = self.renew().await;
        if let Err(RenewError::Unavailable { retry_at, .. }) = &result {
            self.account.block_renewals_until(*retry_at);
        }
        self.complete(result);
    }

    async fn renew(&self) -> RenewalResult {
        let refresh_permit = self.breaker.refresh_permits.acquire().await;
        self.until_saved().await?;
        let seen = self.account.snapshot();
        // A store that cannot be read gives no lease either, and the commit is fenced anyway.
        let _ = self.reload_from_store().await;
        let before = self.account.snapshot();
        if let Some(result) = self.overtaken(&seen, &before) {
            return result;
        }
        let platform = self.context.platform(&before.realm)?;
        if !lacks_only_a_route(&before, self.cause, self.now()) {
            let mut tokens = self.refresh_once_in_the_cluster(&before, &*platform).await?;
            let theirs = self.account.snapshot();
            if matches!(tokens, TokenSource::FromStore)
                && theirs.realm == before.realm
                && !self.is_live(&theirs)
            {
                // They came before the store was away for longer than they live.
                tokens = self.refresh_once_in_the_cluster(&theirs, &*platform).await?;
            }
            if matches!(tokens, TokenSource::FromStore) && self.account.snapshot().route.is_some() {
                return self.current();
            }
        }
        drop(refresh_permit);
        self.discover(&*platform).await
    }

    /// The store may know better than the registry: another replica, or a pairing that is not published yet.
    /// A store that cannot be read does not stop the renewal; its commit is fenced anyway. TokenSource that
    /// still wait to be saved are left to their saver.
    ///
    /// Returns when another gateway sent a refresh out whose response is not in the store; fails where the
    /// store cannot say.
    pub(super) async fn reload_from_store(&self) -> Result<Option<Timestamp>, StoreError> {
        if self.account.snapshot().unsaved {
            return Ok(None);
        }
        let mut open_intent = None;
        if let Some(record) = self.context.store.account(&self.account.name).await? {
            let known = self.account.snapshot();
            open_intent =
                record.current_grant().and_then(|grant| grant.intent).filter(|at| !self.account.is_ours(*at));
            let news = record.current != known.realm
                || record.state == AccountState::Paused
                || (record.state != known.state && self.context.store.is_shared())
                || record.current_grant().is_some_and(|grant| grant.generation > known.stored_generation);
            if news {
                self.context.registry.apply(record);
            }
        }
        Ok(open_intent)
    }

    fn is_live(&self, snapshot: &Snapshot) -> bool {
        snapshot.live_token(self.now()).is_some()
    }

    fn overtaken(&self, seen: &Snapshot, now: &Snapshot) -> Option<RenewalResult> {
        match &now.state {
            AccountState::Paused => Some(Err(RenewError::Paused)),
            // Another gateway has just been refused.
            AccountState::NeedsLogin { since, why } if seen.state == AccountState::Ready => {
                let (why, remedy) = (why.clone(), now.remedy());
                Some(Err(RenewError::NeedsLogin { since: *since, why, remedy }))
            }
            _ if now.realm != seen.realm => Some(self.current()),
            _ if now.serial > seen.serial && now.is_complete() && self.is_live(now) => Some(self.current()),
            _ => None,
        }
    }

    pub(super) async fn refresh(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSource, RenewError> {
        self.check_lease()?;
        let noted_at = self.note_intent(before).await?;
        if let Err(problem) = self.check_lease() {
            self.clear_intent(before, noted_at, &problem).await;
            return Err(problem);
        }
        let ask = async {
            let response = self.ask_for_tokens(before, platform).await;
            if response.is_ok() {
                self.context.realm_works(&self.breaker);
            }
            response
        };
        let refreshed = match refresh_grant(&self.context, &self.account, before, ask).await {
            Ok(refreshed) => refreshed,
            Err(error) => {
                let outcome = self.not_refreshed(before, platform, error).await;
                if let Err(problem) = &outcome {
                    self.clear_intent(before, noted_at, problem).await;
                }
                return outcome;
            }
        };
        match refreshed.outcome {
            CommitOutcome::Committed(_) | CommitOutcome::InMemory => {}
            CommitOutcome::Superseded(_) => return Ok(TokenSource::FromStore),
            CommitOutcome::AccountGone => {
                return Err(self.context.unavailable("the account is no longer known"));
            }
        }
        self.record_success(before, &refreshed.tokens, refreshed.life).await;
        Ok(TokenSource::Refreshed)
    }

    /// A process that stood still (a stopped container, a machine that was moved) may wake up after its lease
    /// has gone to another gateway, which has spent the refresh token by then.
    fn check_lease(&self) -> Result<(), RenewError> {
        if self.context.store.is_shared() && self.now().as_millis() >= self.lease_ends.load(Relaxed) {
            return Err(
                self.postpone("this gateway stood still, and another one may have refreshed meanwhile")
            );
        }
        Ok(())
    }

    /// Writes down that a refresh goes out. Where the store is unavailable and the token still lives, the
    /// refresh is put off: with rotation it would spend a refresh token whose successor cannot be kept. Where
    /// a caller would otherwise stand without a token, it goes out all the same, and the tokens are served
    /// from memory.
    async fn note_intent(&self, before: &Snapshot) -> Result<Timestamp, RenewError> {
        let now = self.now();
        self.account.record_refresh_sent(now);
        let noted = self.context.store.note_intent(&self.account.name, &before.realm, now).await;
        let error = match noted {
            Ok(()) => return Ok(now),
            Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {
                return Err(self.context.unavailable("the account is no longer known"));
            }
            Err(error) => error,
        };
        if self.context.store.is_shared() || self.cause == Cause::Operator {
            // The others would learn nothing of it, neither that it is going on nor that it was cut off. And
            // no caller waits for what an operator asks: the tokens would be in memory only for nothing.
            return Err(self.postpone(&format!("the store takes no writes: {error}")));
        }
        let can_wait = matches!(self.cause, Cause::BeforeExpiry | Cause::IdleRenewal);
        if can_wait {
            let retry_at = now + STORE_RETRY;
            let detail = format!("put off while the store takes no writes: {error}");
            self.account.pacing.lock().postpone(retry_at, &detail, self.breaker.recoveries());
            self.context.retries.add(&self.account);
            return Err(RenewError::Unavailable { retry_at, detail });
        }
        tracing::error!(
            account = %self.account.name, realm = %before.realm, trouble = %error,
            "no intent could be written; the refresh goes out all the same, since callers have no token"
        );
        Ok(now)
    }

    /// After a response that spent nothing, the refresh is not in flight any more. As long as one response
    /// was lost, the intent is what a restart knows of it; it goes once the reason for a new login has named
    /// it.
    async fn clear_intent(&self, before: &Snapshot, noted_at: Timestamp, problem: &RenewError) {
        let told = matches!(problem, RenewError::NeedsLogin { .. });
        if !told && self.account.pacing.lock().maybe_spent.is_some() {
            return;
        }
        refresh::clear_intent(&self.context, &self.account, before, noted_at).await;
    }

    async fn ask_for_tokens(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSet, PlatformError> {
        self.repeat(|| platform.refresh(&before.refresh), |error| self.remember_lost_response(error)).await
    }

    /// With rotation, a response that we could not read may have spent the refresh token that we hold. It is
    /// tried again, and should it be refused, the reason is known.
    fn remember_lost_response(&self, error: &PlatformError) {
        if error.may_have_spent_token() {
            self.account.pacing.lock().maybe_spent.get_or_insert(MaybeSpent::ResponseLost(self.now()));
        }
    }

    /// Sends a call again after passing trouble, with the documented pause, while those who wait can still
    /// profit.
    pub(super) async fn repeat<'a, T>(
        &self,
        call: impl Fn() -> Call<'a, Result<T, PlatformError>>,
        on_error: impl Fn(&PlatformError),
    ) -> Result<T, PlatformError> {
        let started = self.now();
        let mut attempts = 1;
        loop {
            let error = match call().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            on_error(&error);
            let jitter = stable_jitter(self.account.name.as_str(), u64::from(attempts));
            let pause = (RETRY_PAUSE * 2u32.pow(attempts - 1)).mul_f64(1.0 + jitter / 4.0);
            let pause = pause.max(error.retry_after.unwrap_or_default());
            let pointless = !error.is_transient()
                // What came instead of the token that was sent is tried next.
                || error.refresh.is_some()
                || attempts >= MAX_ATTEMPTS
                || self.now() + pause > started + LAST_ATTEMPT
                || self.permit.is_probe
                || self.breaker.is_open();
            if pointless {
                return Err(error);
            }
            self.context.clock.sleep(pause).await;
            attempts += 1;
        }
    }

    /// Bookkeeping after a successful refresh.
    async fn record_success(&self, before: &Snapshot, tokens: &NewTokens, life: Duration) {
        let settings = self.context.settings.load_full();
        self.account.pacing.lock().refreshed(tokens.refreshed_at, self.cause, life, &settings);
        self.account
            .block_renewals_until(tokens.refreshed_at + refresh_gap(&settings, before.on_both_platforms()));
        if let AccountState::NeedsLogin { .. } = before.state {
            self.set_state(&self.account, before, AccountState::Ready).await;
            self.journal(JournalEvent::LoginRestored, "the platform takes the grant again".to_owned());
        }
        let detail = format!("{}; the token lives until {}", why(self.cause), tokens.access.expires_at);
        self.journal(JournalEvent::Refreshed, detail);
    }

    /// Keeps a new state in the store and the registry. What an operator has decided meanwhile stands.
    pub(super) async fn set_state(&self, account: &Account, before: &Snapshot, state: AccountState) {
        if account.snapshot().state == AccountState::Paused {
            return;
        }
        account.take_state(&before.realm, &state);
        if let Err(error) = self.context.store.set_state(&account.name, &state).await {
            tracing::error!(account = %account.name, state = state.word(), trouble = %error, "the state could not be saved");
        }
    }

    pub(super) fn backoff(&self, detail: &str) -> RenewError {
        let recoveries = self.breaker.recoveries();
        let mut pacing = self.account.pacing.lock();
        let retry_at = pacing.failed(self.now(), self.account.name.as_str(), detail, recoveries);
        drop(pacing);
        self.context.retries.add(&self.account);
        RenewError::Unavailable { retry_at, detail: detail.to_owned() }
    }

    pub(super) fn journal(&self, event: JournalEvent, detail: String) {
        self.context.journal.record(&self.account.name, event, detail);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// The best there is now.
    pub(super) fn current(&self) -> RenewalResult {
        let access = self.account.snapshot().access();
        access.ok_or_else(|| self.context.unavailable("no route is known yet"))
    }

    /// Tells those who wait, once. The renewal leaves the account's slot first: who asks again after hearing
    /// a failure must not join a renewal that has ended.
    pub(super) fn complete(&self, result: RenewalResult) {
        if let Some(sender) = locked(&self.sender).take() {
            self.account.clear_in_flight();
            sender.send_replace(Some(result));
        }
    }
}

impl Drop for RenewalTask {
    fn drop(&mut self) {
        // A renewal that was cut off tells nothing; those who wait see the channel close.
        if locked(&self.sender).take().is_some() {
            self.account.clear_in_flight();
        }
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Unauthorized => "a call was answered 401",
        Cause::Forbidden => "a call was answered 403",
        Cause::NoToken => "a call found no live token",
        Cause::BeforeExpiry => "ahead of its end",
        Cause::IdleRenewal => "so that the pairing does not lapse",
        Cause::Operator | Cause::Forced => "an operator or an import asked",
    }
}
