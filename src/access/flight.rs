//! One renewal of one account, from intent to route. It runs in a task of its own and tells its outcome to whoever waits.
//!
//! The order guarded here: intent, refresh, commit, publish, discovery. Nothing is used before it is durable, or loudly unsaved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::model::account::AccountState;
use crate::model::token::TokenSet;
use crate::platform::{PlatformError, PlatformErrorKind};
use crate::store::{NewTokens, StoreError, StoredAccess};

use super::book::Entry;
use super::calls::{Call, ControlCalls};
use super::cause::{Cause, Landing, RenewProblem};
use super::gaps::{MaybeSpent, gap, lacks_only_a_route, share};
use super::locked;
use super::realm::{Health, Tally, Ticket};
use super::renewal::Shared;
use super::snapshot::Snapshot;
use super::unsaved::{Saved, save};

/// Sends of one control call within a flight, with the documented pause between them.
const SENDS: u32 = 3;
/// The documented wait after 500 and 504 (gen-api, section 2), doubled for the last send.
const PAUSE: Duration = Duration::from_secs(1);
/// No new send later than this after the first: those who wait give up after 10 s.
const LAST_SEND: Duration = Duration::from_secs(8);
/// While the store takes no intent and the token still lives, waiting costs nothing and a refresh could cost the login.
const STORE_RETRY: Duration = Duration::from_secs(30);

pub(super) struct Flight {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) cause: Cause,
    ticket: Ticket,
    pub(super) health: Arc<Health>,
    /// Until when the right to refresh is ours, where several gateways share the store.
    pub(super) lease_ends: AtomicU64,
    /// Taken when the outcome is told.
    land: Mutex<Option<watch::Sender<Option<Landing>>>>,
}

/// Whose tokens the book holds after a refresh.
pub(super) enum Tokens {
    Ours,
    /// Somebody else's, newer ones: they have done the rest too.
    Theirs,
}

impl Flight {
    pub fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        cause: Cause,
        ticket: Ticket,
        land: Option<watch::Sender<Option<Landing>>>,
    ) -> Self {
        shared.in_flight.send_modify(|flights| *flights += 1);
        let health = shared.realms.get(&entry.snapshot().realm);
        Self { shared, entry, cause, ticket, health, lease_ends: AtomicU64::new(0), land: Mutex::new(land) }
    }

    pub async fn fly(self) {
        let landing = self.renew().await;
        if let Err(RenewProblem::Unavailable { retry_at, .. }) = &landing {
            self.entry.hold(*retry_at);
        }
        self.tell(landing);
    }

    async fn renew(&self) -> Landing {
        let seat = self.health.seats.acquire().await;
        self.until_saved().await?;
        let seen = self.entry.snapshot();
        // A store that cannot be read gives no lease either, and the commit is fenced anyway.
        let _ = self.catch_up().await;
        let before = self.entry.snapshot();
        if let Some(landing) = self.overtaken(&seen, &before) {
            return landing;
        }
        let platform = self.shared.platform(&before.realm)?;
        if !lacks_only_a_route(&before, self.cause, self.now()) {
            let mut tokens = self.refresh_once_in_the_cluster(&before, &*platform).await?;
            let theirs = self.entry.snapshot();
            if matches!(tokens, Tokens::Theirs) && theirs.realm == before.realm && !self.is_live(&theirs) {
                // They came before the store was away for longer than they live.
                tokens = self.refresh_once_in_the_cluster(&theirs, &*platform).await?;
            }
            if matches!(tokens, Tokens::Theirs) && self.entry.snapshot().route.is_some() {
                return self.current();
            }
        }
        drop(seat);
        self.discover(&*platform).await
    }

    /// The store may know better than the book: another replica, or a pairing that is not published yet. A store that cannot be read
    /// does not stop the renewal; its commit is fenced anyway. Tokens that still wait to be saved are left to their saver.
    ///
    /// Returns when another gateway sent a refresh out whose answer is not in the store; fails where the
    /// store cannot say.
    pub(super) async fn catch_up(&self) -> Result<Option<Timestamp>, StoreError> {
        if self.entry.snapshot().unsaved {
            return Ok(None);
        }
        let mut open_intent = None;
        if let Some(record) = self.shared.store.account(&self.entry.name).await? {
            let known = self.entry.snapshot();
            open_intent =
                record.current_grant().and_then(|grant| grant.intent).filter(|at| !self.entry.is_ours(*at));
            let news = record.current != known.realm
                || record.state == AccountState::Paused
                || (record.state != known.state && self.shared.store.is_shared())
                || record.current_grant().is_some_and(|grant| grant.generation > known.stored_generation);
            if news {
                self.shared.book.apply(record);
            }
        }
        Ok(open_intent)
    }

    fn is_live(&self, snapshot: &Snapshot) -> bool {
        snapshot.live_token(self.now()).is_some()
    }

    fn overtaken(&self, seen: &Snapshot, now: &Snapshot) -> Option<Landing> {
        match &now.state {
            AccountState::Paused => Some(Err(RenewProblem::Paused)),
            // Another gateway has just been refused.
            AccountState::NeedsLogin { since, why } if seen.state == AccountState::Ready => {
                let (why, remedy) = (why.clone(), now.remedy());
                Some(Err(RenewProblem::NeedsLogin { since: *since, why, remedy }))
            }
            _ if now.realm != seen.realm => Some(self.current()),
            _ if now.serial > seen.serial && now.is_whole() && self.is_live(now) => Some(self.current()),
            _ => None,
        }
    }

    pub(super) async fn refresh(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
    ) -> Result<Tokens, RenewProblem> {
        self.still_ours()?;
        let noted_at = self.note_intent(before).await?;
        if let Err(problem) = self.still_ours() {
            self.clear_intent(before, noted_at, &problem).await;
            return Err(problem);
        }
        let asked_at = self.now();
        let response = match self.ask_for_tokens(before, platform).await {
            Ok(response) => response,
            Err(trouble) => {
                self.keep_what_came(before, &trouble).await;
                let outcome = self.not_refreshed(before, platform, trouble).await;
                if let Err(problem) = &outcome {
                    self.clear_intent(before, noted_at, problem).await;
                }
                return outcome;
            }
        };
        Tally::count(&self.health.tally.refreshes);
        self.shared.realm_works(&self.health);
        let life = response.expires_in;
        let odd = response.oddity_line();
        let tokens = NewTokens {
            access: StoredAccess { token: response.access, expires_at: asked_at + life },
            refresh: response.refresh,
            refreshed_at: self.now(),
        };
        match save(&self.shared, &self.entry, before, &tokens).await {
            Saved::Committed(generation) => {
                self.entry.take_tokens(before, &tokens, Some(generation));
                if odd.is_some() {
                    self.keep_the_one_before(before, &tokens, generation).await;
                }
            }
            Saved::InMemory => {}
            Saved::Overtaken(record) => {
                self.keep_as_fallback(before, &tokens).await;
                self.shared.book.apply(record);
                self.note("refresh_superseded", "newer tokens were saved meanwhile and are used".to_owned());
                return Ok(Tokens::Theirs);
            }
            Saved::Gone => return Err(self.shared.unavailable("the account is no longer known")),
        }
        self.settle(before, &tokens, life).await;
        if let Some(odd) = odd {
            self.note("token_answer_odd", odd);
        }
        Ok(Tokens::Ours)
    }

    /// A process that stood still (a stopped container, a machine that was moved) may wake up after its lease
    /// has gone to another gateway, which has spent the refresh token by then.
    fn still_ours(&self) -> Result<(), RenewProblem> {
        if self.shared.store.is_shared() && self.now().as_millis() >= self.lease_ends.load(Relaxed) {
            return Err(
                self.put_off("this gateway stood still, and another one may have refreshed meanwhile")
            );
        }
        Ok(())
    }

    /// Writes down that a refresh goes out. Where the store is out of order and the token still lives, the refresh is put off: with
    /// rotation it would spend a refresh token whose successor cannot be kept. Where a caller would otherwise stand without a token,
    /// it goes out all the same, and the tokens are served from memory.
    async fn note_intent(&self, before: &Snapshot) -> Result<Timestamp, RenewProblem> {
        let now = self.now();
        self.entry.refresh_asked(now);
        let noted = self.shared.store.note_intent(&self.entry.name, &before.realm, now).await;
        let trouble = match noted {
            Ok(()) => return Ok(now),
            Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {
                return Err(self.shared.unavailable("the account is no longer known"));
            }
            Err(trouble) => trouble,
        };
        if self.shared.store.is_shared() || self.cause == Cause::Operator {
            // The others would learn nothing of it, neither that it is going on nor that it was cut off. And no caller waits for what
            // an operator asks: the tokens would be in memory only for nothing.
            return Err(self.put_off(&format!("the store takes no writes: {trouble}")));
        }
        let can_wait = matches!(self.cause, Cause::Ahead | Cause::KeepAlive);
        if can_wait {
            let retry_at = now + STORE_RETRY;
            let detail = format!("put off while the store takes no writes: {trouble}");
            self.entry.pacing.lock().put_off(retry_at, &detail, self.health.recoveries());
            self.shared.retries.add(&self.entry);
            return Err(RenewProblem::Unavailable { retry_at, detail });
        }
        tracing::error!(
            account = %self.entry.name, realm = %before.realm, %trouble,
            "no intent could be written; the refresh goes out all the same, since callers have no token"
        );
        Ok(now)
    }

    /// After an answer that spent nothing, the refresh is not under way any more. As long as one answer was lost, the intent is what a
    /// restart knows of it; it goes once the reason for a new login has named it.
    async fn clear_intent(&self, before: &Snapshot, noted_at: Timestamp, problem: &RenewProblem) {
        let told = matches!(problem, RenewProblem::NeedsLogin { .. });
        if !told && self.entry.pacing.lock().maybe_spent.is_some() {
            return;
        }
        let (name, owner) = (&self.entry.name, &self.shared.replica);
        let generation = before.stored_generation;
        if let Err(trouble) =
            self.shared.store.clear_intent(name, &before.realm, owner, generation, noted_at).await
        {
            tracing::debug!(account = %name, %trouble, "an intent could not be cleared; the next refresh writes it anew");
        }
    }

    async fn ask_for_tokens(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
    ) -> Result<TokenSet, PlatformError> {
        self.repeat(|| platform.refresh(&before.refresh), |trouble| self.remember_lost_response(trouble))
            .await
    }

    /// With rotation, an answer that we could not read may have spent the refresh token that we hold. It is tried again, and should it
    /// be refused, the reason is known.
    fn remember_lost_response(&self, trouble: &PlatformError) {
        if matches!(
            trouble.kind,
            PlatformErrorKind::Lost | PlatformErrorKind::TimedOut | PlatformErrorKind::Malformed
        ) {
            self.entry.pacing.lock().maybe_spent.get_or_insert(MaybeSpent::ResponseLost(self.now()));
        }
    }

    /// Sends a call again after passing trouble, with the documented pause, while those who wait can still profit.
    pub(super) async fn repeat<'a, T>(
        &self,
        call: impl Fn() -> Call<'a, Result<T, PlatformError>>,
        note: impl Fn(&PlatformError),
    ) -> Result<T, PlatformError> {
        let started = self.now();
        let mut sends = 1;
        loop {
            let trouble = match call().await {
                Ok(response) => return Ok(response),
                Err(trouble) => trouble,
            };
            note(&trouble);
            let jitter = share(self.entry.name.as_str(), u64::from(sends));
            let pause = (PAUSE * 2u32.pow(sends - 1)).mul_f64(1.0 + jitter / 4.0);
            let pause = pause.max(trouble.retry_after.unwrap_or_default());
            let pointless = !trouble.is_transient()
                // What came instead of the token that was sent is tried next.
                || trouble.refresh.is_some()
                || sends >= SENDS
                || self.now() + pause > started + LAST_SEND
                || self.ticket.trial
                || self.health.in_trouble();
            if pointless {
                return Err(trouble);
            }
            self.shared.clock.sleep(pause).await;
            sends += 1;
        }
    }

    /// What the books say after a refresh that brought tokens.
    async fn settle(&self, before: &Snapshot, tokens: &NewTokens, life: Duration) {
        let settings = self.shared.settings.load_full();
        self.entry.pacing.lock().refreshed(tokens.refreshed_at, self.cause, life, &settings);
        self.entry.hold(tokens.refreshed_at + gap(&settings, before.on_both_platforms()));
        if let AccountState::NeedsLogin { .. } = before.state {
            self.set_state(&self.entry, before, AccountState::Ready).await;
            self.note("login_restored", "the platform takes the grant again".to_owned());
        }
        let detail = format!("{}; the token lives until {}", why(self.cause), tokens.access.expires_at);
        self.note("refreshed", detail);
    }

    /// Keeps a new state in the store and the book. What an operator has decided meanwhile stands.
    pub(super) async fn set_state(&self, entry: &Entry, before: &Snapshot, state: AccountState) {
        if entry.snapshot().state == AccountState::Paused {
            return;
        }
        entry.take_state(&before.realm, &state);
        if let Err(trouble) = self.shared.store.set_state(&entry.name, &state).await {
            tracing::error!(account = %entry.name, state = state.word(), %trouble, "the state could not be saved");
        }
    }

    pub(super) fn back_off(&self, detail: &str) -> RenewProblem {
        let recoveries = self.health.recoveries();
        let mut pacing = self.entry.pacing.lock();
        let retry_at = pacing.failed(self.now(), self.entry.name.as_str(), detail, recoveries);
        drop(pacing);
        self.shared.retries.add(&self.entry);
        RenewProblem::Unavailable { retry_at, detail: detail.to_owned() }
    }

    pub(super) fn note(&self, event: &'static str, detail: String) {
        self.shared.chronicle.note(&self.entry.name, event, detail);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The best there is now.
    pub(super) fn current(&self) -> Landing {
        let access = self.entry.snapshot().access();
        access.ok_or_else(|| self.shared.unavailable("no route is known yet"))
    }

    /// Tells those who wait, once. The flight leaves the account's slot first: who asks again after hearing a failure must not board a
    /// flight that has landed.
    pub(super) fn tell(&self, landing: Landing) {
        if let Some(land) = locked(&self.land).take() {
            self.entry.end_flight();
            land.send_replace(Some(landing));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // A flight that was cut off tells nothing; those who wait see the channel close.
        if locked(&self.land).take().is_some() {
            self.entry.end_flight();
        }
        self.shared.in_flight.send_modify(|flights| *flights -= 1);
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Unauthorized => "a call was answered 401",
        Cause::Forbidden => "a call was answered 403",
        Cause::NoToken => "a call found no live token",
        Cause::Ahead => "ahead of its end",
        Cause::KeepAlive => "so that the pairing does not lapse",
        Cause::Operator | Cause::Forced => "an operator or an import asked",
    }
}
