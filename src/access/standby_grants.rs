//! Grants that their accounts do not use at present, say while one moves between platforms: refreshed often
//! enough that no pairing lapses, since the way back, or the way ahead, may be needed one day.
//!
//! The rule guarded here: whatever comes of it, the account's state, its current grant and its calls are not
//! touched.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config;
use crate::journal::JournalEvent;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::platform::{Blame, PlatformError};
use crate::store::cluster::Lease;
use crate::store::{GrantRecord, StoreError};

use super::account::Account;
use super::circuit_breaker::RenewalCounters;
use super::context::{ActiveTask, RenewalContext};
use super::lease::{self, LEASE};
use super::pacing::{refresh_gap, stable_jitter};
use super::refresh::{clear_intent, refresh_grant};
use super::retry_queue::RetryAt;
use super::snapshot::Snapshot;

/// There are weeks to go: an outage is waited out, and nobody is hammered.
const AFTER_TROUBLE: Duration = Duration::from_secs(3600);
/// A dead grant is tried now and then, since the platform may undo a mistake of its own.
const AFTER_REFUSAL: Duration = Duration::from_secs(24 * 3600);

/// When each of the account's grants that are not in use is due.
pub(super) fn due(
    context: &RenewalContext,
    account: &Account,
    snapshot: &Snapshot,
) -> Vec<(RealmName, Timestamp)> {
    if snapshot.standby_grants.is_empty() || snapshot.state == AccountState::Paused {
        return Vec::new();
    }
    let settings = context.settings.load();
    // "Several minutes apart", on whatever platform (gen-api, section 2).
    let earliest =
        snapshot.last_refresh().map_or(Timestamp::default(), |last| last + refresh_gap(&settings, true));
    let moment = |realm: &RealmName, fresh_at| {
        let postpone =
            context.standby_retries.get(&account.name, realm).map_or(Timestamp::default(), |again| again.at);
        lapses(&account.name, fresh_at, &settings).max(earliest).max(postpone)
    };
    let grants = snapshot.standby_grants.iter();
    grants.map(|other| (other.realm.clone(), moment(&other.realm, other.fresh_at()))).collect()
}

/// A little ahead of `idle_renewal`, and not all on one day.
fn lapses(name: &AccountName, fresh_at: Timestamp, settings: &config::RenewalConfig) -> Timestamp {
    let early = (settings.idle_renewal / 8).mul_f64(stable_jitter(name.as_str(), 1));
    fresh_at + (settings.idle_renewal - early)
}

/// Refreshes a grant that is not in use, once.
pub(super) async fn refresh_standby(context: Arc<RenewalContext>, account: Arc<Account>, realm: RealmName) {
    let _active = ActiveTask::begin(&context);
    let again = attempt(&context, &account, &realm).await.err();
    context.standby_retries.set(&account.name, &realm, again);
}

async fn attempt(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    realm: &RealmName,
) -> Result<(), RetryAt> {
    let later = || RetryAt { at: context.clock.now() + AFTER_TROUBLE, refused: false };
    let breaker = context.breakers.get(realm);
    let key = (account.name.clone(), realm.clone());
    // Tokens that wait for the store are newer than what it holds.
    if breaker.is_open() || context.pending_commits.get(&key).is_some() {
        return Err(later());
    }
    let _refresh_permit = breaker.refresh_permits.acquire().await;
    let record = context.store.account(&account.name).await.map_err(|_| later())?;
    let Some(record) = record else { return Ok(()) };
    let not_in_use = |grant: &&GrantRecord| grant.realm == *realm && record.current != *realm;
    let Some(grant) = record.grants.iter().find(not_in_use) else { return Ok(()) };
    let settings = context.settings.load_full();
    let fresh_at = grant.refreshed_at.max(Some(grant.obtained_at)).unwrap_or(grant.obtained_at);
    let not_due = lapses(&account.name, fresh_at, &settings) > context.clock.now();
    if not_due || record.state == AccountState::Paused {
        // Another gateway was here, or an operator.
        context.registry.apply(record);
        return Ok(());
    }
    let (store, owner) = (&*context.store, &context.replica);
    let lease = store.take_lease(&account.name, realm, owner, grant.generation, LEASE).await;
    if !matches!(lease, Ok(Lease::Taken)) {
        return Err(later());
    }
    let before = context.registry.snapshot_of(&record, grant);
    let ends = &AtomicU64::new(0);
    let held = lease::guard(context, &account.name, realm, ends);
    let came_to = held.during(refresh(context, account, &before)).await;
    // While tokens wait for the store the others must not ask: whoever saves them keeps the lease.
    if context.pending_commits.get(&key).is_none() {
        held.release().await;
    }
    came_to.map_err(|refused| RetryAt {
        at: context.clock.now() + if refused { AFTER_REFUSAL } else { AFTER_TROUBLE },
        refused,
    })
}

/// Fails with whether the platform refused it.
pub(super) async fn refresh(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
) -> Result<(), bool> {
    let (realm, sent_at) = (&before.realm, context.clock.now());
    let platform = context.platform(realm).map_err(|_| false)?;
    // Without a note of it in the store nothing goes out: there is time.
    context.store.note_intent(&account.name, realm, sent_at).await.map_err(|_| false)?;
    if let Err(error) = refresh_grant(context, account, before, platform.refresh(&before.refresh)).await {
        if !error.may_have_spent_token() {
            clear_intent(context, account, before, sent_at).await;
        }
        return Err(failed(context, account, before, &error).await);
    }
    let detail =
        format!("the grant in realm {realm}, which is not in use, so that its pairing does not lapse");
    context.journal.record(&account.name, JournalEvent::Refreshed, detail);
    if let Ok(Some(record)) = context.store.account(&account.name).await {
        context.registry.apply(record);
    }
    Ok(())
}

/// Returns whether the platform refused the grant. One that has another token kept beside it is not given up:
/// that is tried next.
async fn failed(
    context: &RenewalContext,
    account: &Account,
    before: &Snapshot,
    error: &PlatformError,
) -> bool {
    let realm = &before.realm;
    let breaker = context.breakers.get(realm);
    let refused = error.blame == Blame::Grant;
    RenewalCounters::increment(if refused {
        &breaker.counters.refusals
    } else {
        &breaker.counters.refresh_failures
    });
    tracing::warn!(account = %account.name, %realm, trouble = %error, "a grant that is not in use could not be refreshed");
    if !refused {
        return false;
    }
    match context.store.adopt_fallback_token(&account.name, realm, before.stored_generation).await {
        Ok(Some(_)) => {
            let detail = format!(
                "the refresh token of realm {realm} was refused; one that was kept beside it is tried"
            );
            context.journal.record(&account.name, JournalEvent::FallbackAdopted, detail);
            return false;
        }
        Ok(None) | Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {}
        // A store that cannot say whether a better token is kept is no verdict.
        Err(_) => return false,
    }
    let told = context.standby_retries.get(&account.name, realm).is_some_and(|again| again.refused);
    if !told {
        let registry = &context.registry;
        let has_left = registry.is_old(realm) && !registry.is_old(&account.snapshot().realm);
        let (event, detail) = if has_left {
            let what = "as is expected once Align has moved the account, so the way back there is closed";
            let detail = format!(
                "the platform no longer takes the token of realm {realm}, {what}; calls are not affected"
            );
            (JournalEvent::OldTokenEnded, detail)
        } else {
            let what = "which is not in use";
            let detail = format!("the grant in realm {realm}, {what}: {error}; calls are not affected");
            (JournalEvent::UnusedGrantRefused, detail)
        };
        context.journal.record(&account.name, event, detail);
    }
    true
}
