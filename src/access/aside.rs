//! Grants that their accounts do not use at present, say while one moves between platforms: refreshed often enough that no pairing lapses,
//! since the way back, or the way ahead, may be needed one day.
//!
//! The rule guarded here: whatever comes of it, the account's state, its current grant and its calls are not touched.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::platform::{Blame, PlatformError, PlatformErrorKind};
use crate::store::cluster::{Lease, LeaseGuard};
use crate::store::{GrantRecord, NewTokens, StoreError, StoredAccess};

use super::cluster::LEASE;
use super::entry::Entry;
use super::gaps::{gap, share};
use super::kept_tokens::{keep_the_one_before, put_in_place};
use super::locked;
use super::realm::Tally;
use super::renewal::Shared;
use super::snapshot::Snapshot;
use super::unsaved::{Saved, save};

/// There are weeks to go: an outage is waited out, and nobody is hammered.
const AFTER_TROUBLE: Duration = Duration::from_secs(3600);
/// A dead grant is tried now and then, since the platform may undo a mistake of its own.
const AFTER_REFUSAL: Duration = Duration::from_secs(24 * 3600);

/// Grants that could not be refreshed the last time.
#[derive(Default)]
pub(super) struct PutOff(Mutex<HashMap<(AccountName, RealmName), Again>>);

#[derive(Clone, Copy)]
struct Again {
    at: Timestamp,
    refused: bool,
}

impl PutOff {
    fn get(&self, name: &AccountName, realm: &RealmName) -> Option<Again> {
        let all = locked(&self.0);
        // Nearly always there is none at all, and then nothing is copied.
        if all.is_empty() { None } else { all.get(&(name.clone(), realm.clone())).copied() }
    }

    fn set(&self, name: &AccountName, realm: &RealmName, again: Option<Again>) {
        let key = (name.clone(), realm.clone());
        match again {
            Some(again) => locked(&self.0).insert(key, again),
            None => locked(&self.0).remove(&key),
        };
    }
}

/// When each of the account's grants that are not in use is due.
pub(super) fn due(shared: &Shared, entry: &Entry, snapshot: &Snapshot) -> Vec<(RealmName, Timestamp)> {
    if snapshot.elsewhere.is_empty() || snapshot.state == AccountState::Paused {
        return Vec::new();
    }
    let settings = shared.settings.load();
    // "Several minutes apart", on whatever platform (gen-api, section 2).
    let earliest = snapshot.last_refresh().map_or(Timestamp::default(), |last| last + gap(&settings, true));
    let moment = |realm: &RealmName, fresh_at| {
        let put_off = shared.put_off.get(&entry.name, realm).map_or(Timestamp::default(), |again| again.at);
        lapses(&entry.name, fresh_at, &settings).max(earliest).max(put_off)
    };
    let grants = snapshot.elsewhere.iter();
    grants.map(|other| (other.realm.clone(), moment(&other.realm, other.fresh_at()))).collect()
}

/// A little ahead of `idle_renewal`, and not all on one day.
fn lapses(name: &AccountName, fresh_at: Timestamp, settings: &config::RenewalConfig) -> Timestamp {
    let early = (settings.idle_renewal / 8).mul_f64(share(name.as_str(), 1));
    fresh_at + (settings.idle_renewal - early)
}

/// Refreshes a grant that is not in use, once.
pub(super) async fn keep_alive(shared: Arc<Shared>, entry: Arc<Entry>, realm: RealmName) {
    let _under_way = UnderWay::count(&shared);
    let again = attempt(&shared, &entry, &realm).await.err();
    shared.put_off.set(&entry.name, &realm, again);
}

/// The process does not end before this does.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.in_flight.send_modify(|flights| *flights += 1);
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|flights| *flights -= 1);
    }
}

async fn attempt(shared: &Arc<Shared>, entry: &Arc<Entry>, realm: &RealmName) -> Result<(), Again> {
    let later = || Again { at: shared.clock.now() + AFTER_TROUBLE, refused: false };
    let health = shared.realms.get(realm);
    if health.in_trouble() {
        return Err(later());
    }
    let _seat = health.seats.acquire().await;
    let record = shared.store.account(&entry.name).await.map_err(|_| later())?;
    let Some(record) = record else { return Ok(()) };
    let not_in_use = |grant: &&GrantRecord| grant.realm == *realm && record.current != *realm;
    let Some(grant) = record.grants.iter().find(not_in_use) else { return Ok(()) };
    let settings = shared.settings.load_full();
    let fresh_at = grant.refreshed_at.max(Some(grant.obtained_at)).unwrap_or(grant.obtained_at);
    let not_due = lapses(&entry.name, fresh_at, &settings) > shared.clock.now();
    if not_due || record.state == AccountState::Paused {
        // Another gateway was here, or an operator.
        shared.book.apply(record);
        return Ok(());
    }
    let (store, owner) = (&*shared.store, &shared.replica);
    let lease = store.take_lease(&entry.name, realm, owner, grant.generation, LEASE).await;
    if !matches!(lease, Ok(Lease::Taken)) {
        return Err(later());
    }
    let before = shared.book.snapshot_of(&record, grant);
    let ends = &AtomicU64::new(0);
    let held = LeaseGuard { store, clock: &shared.clock, name: &entry.name, realm, owner, life: LEASE, ends };
    let came_to = held.during(refresh(shared, entry, &before)).await;
    if came_to != Ok(Kept::InMemory) {
        held.release().await;
    }
    came_to.map(|_| ()).map_err(|refused| Again {
        at: shared.clock.now() + if refused { AFTER_REFUSAL } else { AFTER_TROUBLE },
        refused,
    })
}

#[derive(PartialEq)]
enum Kept {
    InStore,
    InMemory,
}

/// Fails with whether the platform refused it.
async fn refresh(shared: &Arc<Shared>, entry: &Arc<Entry>, before: &Snapshot) -> Result<Kept, bool> {
    let (realm, asked_at) = (&before.realm, shared.clock.now());
    let tally = &shared.realms.get(realm).tally;
    let platform = shared.platform(realm).map_err(|_| false)?;
    // Without a note of it in the store nothing goes out: there is time.
    shared.store.note_intent(&entry.name, realm, asked_at).await.map_err(|_| false)?;
    let response = match platform.refresh(&before.refresh).await {
        Ok(response) => response,
        Err(trouble) => {
            // After an answer that spent nothing, the refresh is not under way any more.
            if !matches!(
                trouble.kind,
                PlatformErrorKind::Lost | PlatformErrorKind::TimedOut | PlatformErrorKind::Malformed
            ) {
                let (store, generation) = (&shared.store, before.stored_generation);
                let ended =
                    store.clear_intent(&entry.name, realm, &shared.replica, generation, asked_at).await;
                if let Err(trouble) = ended {
                    tracing::debug!(account = %entry.name, %trouble, "an intent could not be cleared; the next refresh writes it anew");
                }
            }
            keep_what_came(shared, entry, before, &trouble).await;
            return Err(failed(shared, entry, before, &trouble).await);
        }
    };
    Tally::count(&tally.refreshes);
    let odd = response.oddity_line();
    let is_odd = odd.is_some();
    if let Some(odd) = odd {
        shared.chronicle.note(&entry.name, "token_answer_odd", odd);
    }
    let tokens = NewTokens {
        access: StoredAccess { token: response.access, expires_at: asked_at + response.expires_in },
        refresh: response.refresh,
        refreshed_at: shared.clock.now(),
    };
    let saved = save(shared, entry, before, &tokens).await;
    if let (true, Saved::Committed(generation)) = (is_odd, &saved) {
        keep_the_one_before(&*shared.store, shared.clock.now(), &entry.name, before, &tokens, *generation)
            .await;
    }
    let detail =
        format!("the grant in realm {realm}, which is not in use, so that its pairing does not lapse");
    shared.chronicle.note(&entry.name, "refreshed", detail);
    if let Ok(Some(record)) = shared.store.account(&entry.name).await {
        shared.book.apply(record);
    }
    match saved {
        Saved::Committed(_) | Saved::Overtaken(_) | Saved::Gone => Ok(Kept::InStore),
        Saved::InMemory => Ok(Kept::InMemory),
    }
}

/// An answer without a usable access token may have brought a refresh token: it is tried next.
async fn keep_what_came(shared: &Shared, entry: &Entry, before: &Snapshot, trouble: &PlatformError) {
    let Some(came) = trouble.refresh.as_ref().filter(|came| **came != before.refresh) else { return };
    match put_in_place(&*shared.store, shared.clock.now(), &entry.name, before, came).await {
        Ok(Some(_)) => {
            let detail = format!(
                "an answer without a usable access token brought a refresh token of realm {}, which is not in use: it is tried next, \
                 and the one before it is kept until then",
                before.realm
            );
            shared.chronicle.note(&entry.name, "refresh_token_kept", detail);
        }
        Ok(None) => {}
        Err(trouble) => {
            tracing::error!(account = %entry.name, %trouble, "the refresh token of an odd answer could not be kept");
        }
    }
}

/// Returns whether the platform refused the grant. One that has another token kept beside it is not given up: that is tried next.
async fn failed(shared: &Shared, entry: &Entry, before: &Snapshot, trouble: &PlatformError) -> bool {
    let realm = &before.realm;
    let health = shared.realms.get(realm);
    let refused = trouble.blame == Blame::Grant;
    Tally::count(if refused { &health.tally.refusals } else { &health.tally.refresh_failures });
    tracing::warn!(account = %entry.name, %realm, %trouble, "a grant that is not in use could not be refreshed");
    if !refused {
        return false;
    }
    match shared.store.adopt_fallback_token(&entry.name, realm, before.stored_generation).await {
        Ok(Some(_)) => {
            let detail = format!(
                "the refresh token of realm {realm} was refused; one that was kept beside it is tried"
            );
            shared.chronicle.note(&entry.name, "fallback_adopted", detail);
            return false;
        }
        Ok(None) | Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {}
        // A store that cannot say whether a better token is kept is no verdict.
        Err(_) => return false,
    }
    let told = shared.put_off.get(&entry.name, realm).is_some_and(|again| again.refused);
    if !told {
        let detail =
            format!("the grant in realm {realm}, which is not in use: {trouble}; calls are not affected");
        shared.chronicle.note(&entry.name, "unused_grant_refused", detail);
    }
    true
}
