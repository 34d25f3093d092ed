//! Saves new tokens. Where the store does not take them they are published from memory, saving is tried until
//! they are durable, and the alarm is loud (threats, row 21).
//!
//! The rule guarded here: only tokens that are truly newer are written over the store's.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{AccountRecord, GrantRecord, NewTokens, StoreError, StoredAccess, StoredRoute};

use super::account::Account;
use super::context::RenewalContext;
use super::fallback_tokens::keep_beside;
use super::lease::LEASE;
use super::pending_commits::PendingCommit;
use super::save_retry::SaveRetry;
use super::snapshot::Snapshot;

/// What became of new tokens.
pub(super) enum CommitOutcome {
    /// Durable, under this generation.
    Committed(u64),
    /// Published from memory, tried until the store takes them.
    InMemory,
    /// Somebody committed in between; this is what the store holds now.
    Superseded(AccountRecord),
    /// The account is no longer in the store.
    AccountGone,
}

/// A database that comes back must hear of these tokens before another gateway asks for new ones.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The alarm is repeated in the log every half minute, not with every try.
const TRIES_PER_ALARM: u32 = 16;

/// Commits what a refresh brought, before anybody uses it. One commit: it is the only window in which a kill
/// can cost a login.
pub(super) async fn save(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
    tokens: &NewTokens,
) -> CommitOutcome {
    let key = (account.name.clone(), before.realm.clone());
    if context.pending_commits.get(&key).is_some() {
        // While older tokens wait, their saver alone commits for this grant: two would fence each other, and
        // the older could win. Published first, so that the saver never reports as saved what the registry
        // does not have yet.
        account.take_tokens(before, tokens, None);
        if context.pending_commits.replace(&key, &before.refresh, tokens) {
            return CommitOutcome::InMemory;
        }
    }
    let error = match commit(context, account, before, tokens).await {
        Ok(saved) => return saved,
        Err(error) => error,
    };
    context.pending_commits.failures.fetch_add(1, Relaxed);
    tracing::error!(
        account = %account.name, realm = %before.realm, trouble = %error,
        "new tokens could not be saved; they are used from memory and a crash now would cost the login"
    );
    let detail = format!("new tokens are in memory only: {error}");
    context.journal.record(&account.name, JournalEvent::TokensUnsaved, detail);
    let pending = PendingCommit {
        expected: before.stored_generation,
        tokens: tokens.clone(),
        ancestors: vec![before.refresh.clone()],
        version: 0,
        one_before: None,
    };
    account.take_tokens(before, tokens, None);
    save_later(context, account, key, pending);
    CommitOutcome::InMemory
}

/// Publishes a refresh token that came without an access token from memory, until the store takes it. The
/// access token at hand stays, and the refresh token before it is kept beside the new one.
pub(super) fn hold_refresh_token(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    before: &Snapshot,
    came: &RefreshToken,
) {
    let key = (account.name.clone(), before.realm.clone());
    let none = || StoredAccess { token: AccessToken::new(""), expires_at: Timestamp::default() };
    let tokens = NewTokens {
        access: before.token.clone().unwrap_or_else(none),
        refresh: Some(came.clone()),
        refreshed_at: before.refreshed_at.unwrap_or(before.obtained_at),
    };
    // Published first, so that the saver never reports as saved what the registry does not have yet.
    account.take_refresh(before, came, None);
    let one_before = Some(before.refresh.clone());
    if context.pending_commits.replace_refresh(&key, &tokens, one_before.clone()) {
        return;
    }
    context.pending_commits.failures.fetch_add(1, Relaxed);
    let ancestors = vec![before.refresh.clone(), came.clone()];
    let pending =
        PendingCommit { expected: before.stored_generation, tokens, ancestors, version: 0, one_before };
    save_later(context, account, key, pending);
}

fn save_later(
    context: &Arc<RenewalContext>,
    account: &Arc<Account>,
    key: (AccountName, RealmName),
    pending: PendingCommit,
) {
    context.pending_commits.add(&key, pending);
    context.runtime.spawn(keep_saving(Arc::clone(context), Arc::clone(account), key));
}

/// Commits over whatever the store holds, as long as that is what these tokens came from: the saver may have
/// brought it there while the platform was being asked, and taking it for newer would lose the login.
async fn commit(
    context: &RenewalContext,
    account: &Account,
    before: &Snapshot,
    tokens: &NewTokens,
) -> Result<CommitOutcome, StoreError> {
    let mut expected = before.stored_generation;
    loop {
        match context.store.commit_tokens(&account.name, &before.realm, expected, tokens).await {
            Ok(generation) => return Ok(CommitOutcome::Committed(generation)),
            Err(StoreError::UnknownAccount(_)) => {
                commit_under_new_name(context, account, &before.realm, &[&before.refresh], tokens).await?;
                return Ok(CommitOutcome::AccountGone);
            }
            Err(StoreError::Fenced(_) | StoreError::UnknownGrant { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(record) = context.store.account(&account.name).await? else {
            return Ok(CommitOutcome::AccountGone);
        };
        let grant = record.grants.iter().find(|grant| grant.realm == before.realm);
        match grant {
            Some(grant) if grant.refresh == before.refresh && grant.generation > expected => {
                expected = grant.generation;
            }
            _ => return Ok(CommitOutcome::Superseded(record)),
        }
    }
}

/// An account that was renamed while the platform was asked has the grant under its new name: the tokens are
/// committed there. `ancestors` are the refresh tokens that they came from.
async fn commit_under_new_name(
    context: &RenewalContext,
    account: &Account,
    realm: &RealmName,
    ancestors: &[&RefreshToken],
    tokens: &NewTokens,
) -> Result<(), StoreError> {
    let records = context.store.accounts().await?.accounts;
    let held = records.iter().filter(|record| record.name != account.name).find_map(|record| {
        let is_it = |grant: &&GrantRecord| grant.realm == *realm && ancestors.contains(&&grant.refresh);
        record.grants.iter().find(is_it).map(|grant| (&record.name, grant.generation))
    });
    let Some((name, generation)) = held else { return Ok(()) };
    match context.store.commit_tokens(name, realm, generation, tokens).await {
        Ok(_) => {
            tracing::info!(account = %name, was = %account.name, "a refresh ended under the account's new name")
        }
        // It was removed, or refreshed under its new name.
        Err(StoreError::Fenced(_) | StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {}
        Err(error) => return Err(error),
    }
    if let Some(record) = context.store.account(name).await? {
        context.registry.apply(record);
    }
    Ok(())
}

async fn keep_saving(context: Arc<RenewalContext>, account: Arc<Account>, key: (AccountName, RealmName)) {
    let mut retry = SaveRetry::new(&context.clock, LONGEST_PAUSE);
    retry.pause().await;
    let (context, account, key) = (&context, &account, &key);
    let save = |failures: u32| async move {
        let Some(waiting) = context.pending_commits.get(key) else { return Some(()) };
        // Until they are saved, nobody else is to refresh; what becomes of the lease shows when the store is
        // there again.
        let _ = context.store.extend_lease(&key.0, &key.1, &context.replica, LEASE).await;
        let loud = failures % TRIES_PER_ALARM == 1;
        try_to_save(context, account, key, &waiting, loud).await.then_some(())
    };
    retry.until_saved(save).await;
}

/// `true` when nothing is left to save.
async fn try_to_save(
    context: &RenewalContext,
    account: &Account,
    key: &(AccountName, RealmName),
    waiting: &PendingCommit,
    loud: bool,
) -> bool {
    let (name, realm) = key;
    match context.store.commit_tokens(name, realm, waiting.expected, &waiting.tokens).await {
        Ok(generation) => saved(context, account, key, waiting, generation).await,
        Err(StoreError::Fenced(_)) => reconcile(context, account, key, waiting).await,
        Err(StoreError::UnknownAccount(_) | StoreError::UnknownGrant { .. }) => {
            let ancestors: Vec<_> = waiting.ancestors.iter().collect();
            let moved = commit_under_new_name(context, account, realm, &ancestors, &waiting.tokens).await;
            moved.is_ok() && context.pending_commits.drop_if(key, waiting.version)
        }
        Err(error) => {
            context.pending_commits.failures.fetch_add(1, Relaxed);
            if loud {
                tracing::error!(account = %name, %realm, trouble = %error, "new tokens are still in memory only");
            }
            false
        }
    }
}

/// `false` where newer tokens have come to wait meanwhile.
async fn saved(
    context: &RenewalContext,
    account: &Account,
    key: &(AccountName, RealmName),
    waiting: &PendingCommit,
    generation: u64,
) -> bool {
    let (name, realm) = key;
    if !context.pending_commits.saved(key, waiting.version, generation) {
        return false;
    }
    account.tokens_saved(realm, generation);
    if let Some(one_before) = &waiting.one_before {
        let (store, now) = (&*context.store, context.clock.now());
        if let Err(error) = keep_beside(store, now, name, realm, one_before, generation).await {
            tracing::error!(account = %name, trouble = %error, "the refresh token before an odd answer could not be kept");
        }
    }
    save_route(context, account, realm).await;
    restore_login(context, account, realm).await;
    context.journal.record(
        name,
        JournalEvent::TokensSaved,
        "the tokens that waited in memory are durable now".to_owned(),
    );
    true
}

/// While these tokens waited, another gateway may have been refused with those that the store held.
async fn restore_login(context: &RenewalContext, account: &Account, realm: &RealmName) {
    let Ok(Some(record)) = context.store.account(&account.name).await else { return };
    if record.current != *realm
        || !matches!(record.state, AccountState::NeedsLogin { .. })
        || account.state() != AccountState::Ready
    {
        return;
    }
    match context.store.set_state(&account.name, &AccountState::Ready).await {
        Ok(()) => {
            let detail = "another gateway was refused with a token that has a successor".to_owned();
            context.journal.record(&account.name, JournalEvent::LoginRestored, detail);
        }
        Err(error) => {
            tracing::error!(account = %account.name, trouble = %error, "the state could not be saved");
        }
    }
}

/// The store moved on. Either an earlier commit of ours went through although its response said otherwise
/// (then it holds these tokens, or an ancestor of theirs that they go on top of), or somebody paired anew
/// (then theirs are newer).
async fn reconcile(
    context: &RenewalContext,
    account: &Account,
    key: &(AccountName, RealmName),
    waiting: &PendingCommit,
) -> bool {
    let (name, realm) = key;
    let Ok(found) = context.store.account(name).await else { return false };
    let grant = found.as_ref().and_then(|record| record.grants.iter().find(|grant| grant.realm == *realm));
    let (ours, refresh) = (&waiting.tokens.access.token, &waiting.tokens.refresh);
    // A refresh token that came alone stands beside an access token that the store has had before.
    let is_saved = |grant: &&GrantRecord| {
        grant.access.as_ref().is_some_and(|held| held.token == *ours)
            && refresh.as_ref().is_none_or(|refresh| grant.refresh == *refresh)
    };
    if let Some(grant) = grant.filter(is_saved) {
        return saved(context, account, key, waiting, grant.generation).await;
    }
    if let Some(grant) = grant.filter(|grant| waiting.ancestors.contains(&grant.refresh)) {
        context.pending_commits.expect(key, grant.generation);
        return false;
    }
    if !context.pending_commits.drop_if(key, waiting.version) {
        return false;
    }
    if let Some(record) = found {
        tracing::warn!(account = %name, %realm, "the store has newer tokens than those that waited in memory");
        context.registry.apply(record);
    }
    true
}

/// Stores the route that is in use, where it is proven; also one that was found while the store was
/// unavailable.
pub(super) async fn save_route(context: &RenewalContext, account: &Account, realm: &RealmName) {
    let snapshot = account.snapshot();
    if let Some(route) = snapshot.route.as_ref().filter(|_| snapshot.realm == *realm && snapshot.is_proven())
    {
        let stored = StoredRoute {
            domain: route.domain(),
            path: route.path().to_owned(),
            discovered_at: context.clock.now(),
        };
        if let Err(error) = context.store.set_route(&account.name, realm, &stored).await {
            tracing::warn!(account = %account.name, %realm, trouble = %error, "the route could not be saved");
        }
    }
}
