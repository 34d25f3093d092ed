//! One refresh of one grant: the platform is asked, and whatever it hands out is kept. Current and standby
//! grants are refreshed by this alone; what a failure means is for the callers to say.
//!
//! The rule guarded here: nothing is used before it is durable, or loudly unsaved, and no refresh token that
//! came is dropped. One of a response that was not as documented is used, and the one before it is kept
//! beside it until a refresh has proven the new one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::token::TokenSet;
use crate::platform::PlatformError;
use crate::store::{NewTokens, StoredAccess};

use super::account::Account;
use super::circuit_breaker::RenewalCounters;
use super::commit::{CommitOutcome, hold_refresh_token, save};
use super::context::RenewalContext;
use super::fallback_tokens::{keep_the_one_before, put_in_place};
use super::snapshot::Snapshot;

/// A refresh that brought tokens.
pub(super) struct Refreshed {
    pub tokens: NewTokens,
    pub life: Duration,
    pub outcome: CommitOutcome,
}

/// Asks for new tokens on top of those in `before` and commits them. The intent is noted by the caller, who
/// also clears it after a failure.
pub(super) async fn refresh_grant(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
    ask: impl Future<Output = Result<TokenSet, PlatformError>>,
) -> Result<Refreshed, PlatformError> {
    let sent_at = context.clock.now();
    let response = match ask.await {
        Ok(response) => response,
        Err(error) => {
            keep_received_token(context, account, before, &error).await;
            return Err(error);
        }
    };
    RenewalCounters::increment(&context.breakers.get(&before.realm).counters.refreshes);
    let (life, odd) = (response.expires_in, response.oddity_line());
    let tokens = NewTokens {
        access: StoredAccess { token: response.access, expires_at: sent_at + life },
        refresh: response.refresh,
        refreshed_at: context.clock.now(),
    };
    let outcome = save(context, account, before, &tokens).await;
    match &outcome {
        CommitOutcome::Committed(generation) => {
            account.take_tokens(before, &tokens, Some(*generation));
            if odd.is_some() {
                let (store, now) = (&*context.store, context.clock.now());
                keep_the_one_before(store, now, &account.name, before, &tokens, *generation).await;
            }
        }
        CommitOutcome::Superseded(record) => {
            keep_as_fallback(context, account, before, &tokens).await;
            context.registry.apply(record.clone());
            let detail = "newer tokens were saved meanwhile and are used";
            context.journal.record(&account.name, JournalEvent::RefreshSuperseded, detail);
        }
        CommitOutcome::InMemory | CommitOutcome::AccountGone => {}
    }
    if let Some(odd) = odd.filter(|_| !matches!(outcome, CommitOutcome::AccountGone)) {
        context.journal.record(&account.name, JournalEvent::TokenAnswerOdd, odd);
    }
    Ok(Refreshed { tokens, life, outcome })
}

/// The refresh that was noted at `noted_at` is over and has spent nothing.
pub(super) async fn clear_intent(
    context: &RenewalContext,
    account: &Account,
    before: &Snapshot,
    noted_at: Timestamp,
) {
    let (name, owner, generation) = (&account.name, &context.replica, before.stored_generation);
    let cleared = context.store.clear_intent(name, &before.realm, owner, generation, noted_at).await;
    if let Err(error) = cleared {
        tracing::debug!(account = %name, trouble = %error, "an intent could not be cleared; the next refresh writes it anew");
    }
}

/// After a response whose access token could not be used. Its refresh token takes the place of the one that
/// was sent; the access token at hand goes on serving.
async fn keep_received_token(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
    error: &PlatformError,
) {
    let Some(came) = error.refresh.as_ref().filter(|came| **came != before.refresh) else { return };
    let key = (account.name.clone(), before.realm.clone());
    if context.pending_commits.get(&key).is_some() {
        hold_refresh_token(context, account, before, came);
    } else {
        match put_in_place(&*context.store, context.clock.now(), &account.name, before, came).await {
            Ok(Some(generation)) => account.take_refresh(before, came, Some(generation)),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(
                    account = %account.name, realm = %before.realm, trouble = %error,
                    "the refresh token of an odd answer could not be saved; it is used from memory and a crash now would cost the login"
                );
                let detail = format!("a new refresh token is in memory only: {error}");
                context.journal.record(&account.name, JournalEvent::TokensUnsaved, detail);
                hold_refresh_token(context, account, before, came);
            }
        }
    }
    let whose = if account.snapshot().realm == before.realm {
        String::new()
    } else {
        format!(" of realm {}, which is not in use", before.realm)
    };
    let detail = format!(
        "an answer without a usable access token brought a refresh token{whose}: it is tried next, and the one before it is kept \
         until then"
    );
    context.journal.record(&account.name, JournalEvent::RefreshTokenKept, detail);
}

/// A commit that came too late: its refresh token may be the one that lives, so it is kept beside the
/// winner's.
async fn keep_as_fallback(
    context: &RenewalContext,
    account: &Account,
    before: &Snapshot,
    tokens: &NewTokens,
) {
    let (name, generation) = (&account.name, before.stored_generation);
    match context.store.keep_fallback_token(name, &before.realm, generation, tokens).await {
        Ok(true) => {
            let detail = "two gateways refreshed at once; both refresh tokens are kept";
            context.journal.record(name, JournalEvent::FallbackKept, detail);
        }
        Ok(false) => {}
        Err(error) => {
            tracing::error!(account = %name, trouble = %error, "the refresh token of a commit that came too late could not be kept");
        }
    }
}
