//! A refresh that brought nothing: whose fault it is, and what follows for the account and its realm (threats, row 12).
//!
//! The rule guarded here: only a refusal that is the grant's own fault asks for a new login; bad credentials and outages keep every grant.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::account::AccountState;
use crate::platform::{Blame, CredentialsCheck, PlatformError};
use crate::store::StoreError;

use super::book::Entry;
use super::calls::ControlCalls;
use super::cause::{Cause, RenewProblem};
use super::flight::{Flight, Tokens};
use super::gaps::{MaybeSpent, share};
use super::realm::{Health, RealmTrouble, Suspect, Tally};
use super::snapshot::Snapshot;

/// How long after the first refusal among others a second one counts: the last of them is tried after two minutes.
const SECOND_LOOK: Duration = Duration::from_secs(30);

/// What the store has for a refused refresh token.
enum Better {
    Nothing,
    /// Newer tokens, from another refresh or another grant.
    Theirs,
    /// A refresh token that was kept, and is in its place now.
    Kept,
}

/// Apart from the others.
fn second_look(entry: &Entry, refused_at: Timestamp) -> Timestamp {
    refused_at + SECOND_LOOK.mul_f64(1.0 + 3.0 * share(entry.name.as_str(), 3))
}

impl Flight {
    /// A refresh that brought nothing, told apart by whose fault it is.
    pub(super) async fn not_refreshed(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
        trouble: PlatformError,
    ) -> Result<Tokens, RenewProblem> {
        match trouble.blame {
            Blame::Grant => self.grant_refused(before, platform, trouble).await,
            Blame::Credentials => {
                Tally::count(&self.health.tally.refusals);
                Err(self.credentials_refused(before).await)
            }
            Blame::Account | Blame::Realm => {
                Tally::count(&self.health.tally.refresh_failures);
                self.health.failed(self.now(), &self.entry.name, &trouble);
                tracing::warn!(account = %self.entry.name, realm = %before.realm, %trouble, "the refresh failed");
                if self.entry.pacing.lock().trouble().is_none() {
                    self.note("refresh_failed", format!("{trouble}; tried again until it succeeds"));
                }
                Err(self.back_off_as_asked(&trouble))
            }
        }
    }

    async fn grant_refused(
        &self,
        before: &Snapshot,
        platform: &dyn ControlCalls,
        trouble: PlatformError,
    ) -> Result<Tokens, RenewProblem> {
        Tally::count(&self.health.tally.refusals);
        match self.look_for_better(before).await {
            Ok(Better::Nothing) => {}
            Ok(Better::Theirs) => return Ok(Tokens::Theirs),
            Ok(Better::Kept) => {
                let adopted = self.entry.snapshot();
                return Box::pin(self.refresh(&adopted, platform)).await;
            }
            Err(store) => {
                let detail =
                    format!("{trouble}; whether a better refresh token is at hand cannot be told: {store}");
                return Err(self.back_off(&detail));
            }
        }
        let only_one = self.shared.book.is_only_one_at_work(&before.realm, &self.entry.name);
        let refused_at = self.now();
        let (suspect, together) = self.health.refused(refused_at, &self.entry, only_one);
        let verdict = match suspect {
            Suspect::Grant => CredentialsCheck::Good,
            Suspect::Credentials => self.probe(platform).await,
        };
        match verdict {
            CredentialsCheck::Bad => Err(self.credentials_refused(before).await),
            CredentialsCheck::Unknown if !trouble.named => {
                self.health.unexplained(self.now());
                Err(self
                    .back_off(&format!("{trouble}; it could not be told whether our credentials are good")))
            }
            // An OAuth word names the grant, so a probe that was not answered adds nothing but doubt.
            CredentialsCheck::Good | CredentialsCheck::Unknown => {
                let (suspected, interrupted) = {
                    let pacing = self.entry.pacing.lock();
                    (pacing.suspected, matches!(pacing.maybe_spent, Some(MaybeSpent::ProcessEnded(_))))
                };
                let doubtful = together || suspected.is_some() || verdict == CredentialsCheck::Unknown;
                if doubtful && before.state == AccountState::Ready {
                    // A second refusal, some time after the first, is the verdict. One that is explained by a refresh that was cut
                    // off needs no other signal, and whoever is to log in hears of it at once; it is looked at again all the same.
                    if interrupted {
                        let again = second_look(&self.entry, refused_at);
                        self.shared.retries.look_again(Arc::clone(&self.entry), again);
                    } else if suspected.is_none_or(|since| refused_at.since(since) < SECOND_LOOK) {
                        return Err(self.suspect(&trouble));
                    }
                    self.health.given_up(refused_at, &self.entry);
                }
                Err(self.needs_login(before, &trouble, refused_at).await)
            }
        }
    }

    /// Whether there is something better than the token that was refused: somebody has used it up, and the
    /// store holds its successor; or one was kept beside it. A store that cannot be asked has not said no.
    async fn look_for_better(&self, before: &Snapshot) -> Result<Better, StoreError> {
        if before.unsaved {
            // The newest there is stands in memory, and the store's is older.
            return Ok(Better::Nothing);
        }
        if self.moved_on(before, &mut None).await? {
            return Ok(Better::Theirs);
        }
        match self.adopted_fallback(before).await {
            Ok(false) => Ok(Better::Nothing),
            Ok(true) if self.moved_on(before, &mut None).await? => Ok(Better::Kept),
            Err(StoreError::Fenced(_)) if self.moved_on(before, &mut None).await? => Ok(Better::Theirs),
            Ok(true) => Err(StoreError::Unavailable("the account cannot be read back".into())),
            Err(trouble) => Err(trouble),
        }
    }

    /// Many grants are refused within minutes: a signal before it is a verdict. The account is tried once more, apart from the others,
    /// before anybody is told to log in. The first one, whose refusal looked like its own, is looked at again too.
    fn suspect(&self, trouble: &PlatformError) -> RenewProblem {
        let now = self.now();
        let retry_at = second_look(&self.entry, now);
        let detail = format!(
            "{trouble}; other accounts were refused within minutes, so it is tried once more before a login is asked for"
        );
        let first = {
            let mut pacing = self.entry.pacing.lock();
            pacing.put_off(retry_at, &detail, self.health.recoveries());
            let first = pacing.suspected.is_none();
            pacing.suspected.get_or_insert(now);
            first
        };
        if first {
            self.note("refusal_suspected", detail.clone());
        }
        self.shared.retries.add(&self.entry);
        for other in self.health.others_refused(&self.entry) {
            let told = matches!(other.state(), AccountState::NeedsLogin { .. });
            if told && self.health.given_up(now, &other) {
                let again = second_look(&other, now);
                self.shared.retries.look_again(other, again);
            }
        }
        RenewProblem::Unavailable { retry_at, detail }
    }

    /// A back-off, longer where the platform asks for it.
    fn back_off_as_asked(&self, trouble: &PlatformError) -> RenewProblem {
        let problem = self.back_off(&trouble.to_string());
        let (Some(asked), RenewProblem::Unavailable { retry_at, detail }) = (trouble.retry_after, &problem)
        else {
            return problem;
        };
        let retry_at = (*retry_at).max(self.now() + asked);
        self.entry.pacing.lock().not_before(retry_at);
        RenewProblem::Unavailable { retry_at, detail: detail.clone() }
    }

    /// Asks the token endpoint about our credentials, at most once a minute for the realm.
    async fn probe(&self, platform: &dyn ControlCalls) -> CredentialsCheck {
        let mut probed = self.health.probed.lock().await;
        let recent = probed.filter(|(asked, _)| Health::is_recent(*asked, self.now()));
        let verdict = match recent {
            Some((_, verdict)) => verdict,
            None => {
                let verdict = platform.probe_credentials().await;
                *probed = Some((self.now(), verdict));
                verdict
            }
        };
        if verdict == CredentialsCheck::Good {
            self.health.credentials_are_good();
        }
        verdict
    }

    async fn needs_login(
        &self,
        before: &Snapshot,
        trouble: &PlatformError,
        since: Timestamp,
    ) -> RenewProblem {
        if let AccountState::NeedsLogin { since, why } = &before.state {
            // Tried again on somebody's asking: nothing has changed, so nothing is told twice.
            return RenewProblem::NeedsLogin { since: *since, why: why.clone(), remedy: before.remedy() };
        }
        let spent = {
            let mut pacing = self.entry.pacing.lock();
            pacing.decided();
            pacing.maybe_spent
        };
        let status = trouble.status.map_or_else(|| "no status".to_owned(), |status| status.to_string());
        let mut why =
            format!("the platform no longer takes the refresh token ({status} at {})", trouble.call);
        if before.untried {
            why.push_str(
                "; it was imported and never used here, so the application has probably refreshed since",
            );
        }
        if let Some(spent) = spent {
            why.push_str(&format!("; {spent}, so the platform may have replaced it without our knowing"));
        }
        tracing::warn!(account = %self.entry.name, realm = %before.realm, why, "the account needs a new login");
        self.set_state(&self.entry, before, AccountState::NeedsLogin { since, why: why.clone() }).await;
        if !matches!(self.cause, Cause::Ahead | Cause::KeepAlive | Cause::Operator | Cause::Forced) {
            // A call has failed with this very token. Ahead of its end it may serve on.
            self.entry.drop_access(before.serial);
        }
        self.note("needs_login", why.clone());
        RenewProblem::NeedsLogin { since, why, remedy: before.remedy() }
    }

    /// Every grant is kept, also of those accounts whose refusal was taken for their grant's fault a moment ago.
    async fn credentials_refused(&self, before: &Snapshot) -> RenewProblem {
        let now = self.now();
        for (refused_at, entry) in self.health.credentials_are_bad(now) {
            let snapshot = entry.snapshot();
            let AccountState::NeedsLogin { since, .. } = snapshot.state else { continue };
            if since != refused_at || snapshot.realm != before.realm {
                continue;
            }
            self.set_state(&entry, &snapshot, AccountState::Ready).await;
            let detail = "the refusal was about our client credentials, not about the grant".to_owned();
            self.shared.chronicle.note(&entry.name, "login_restored", detail);
        }
        let trouble = RealmTrouble::BadCredentials { since: now };
        self.back_off(&self.health.trouble().unwrap_or(trouble).sentence(&before.realm))
    }
}
