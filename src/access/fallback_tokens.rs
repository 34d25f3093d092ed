//! Refresh tokens that are kept beside the one that a grant has: one of the two is good, and a refresh will
//! show which.

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::model::token::{AccessToken, RefreshToken};
use crate::store::{NewTokens, Store, StoreError, StoredAccess};

use super::snapshot::Snapshot;

/// After tokens of an odd response were committed as `generation`.
pub(super) async fn keep_the_one_before(
    store: &dyn Store,
    now: Timestamp,
    name: &AccountName,
    before: &Snapshot,
    tokens: &NewTokens,
    generation: u64,
) {
    if tokens.refresh.as_ref().is_none_or(|came| *came == before.refresh) {
        return;
    }
    if let Err(error) = keep_beside(store, now, name, &before.realm, &before.refresh, generation).await {
        tracing::error!(account = %name, trouble = %error, "the refresh token before an odd answer could not be kept");
    }
}

/// Puts a refresh token in the place of the one that a grant has, which is kept beside it. Returns the
/// grant's new generation; `None` where the store has moved on meanwhile.
pub(super) async fn put_in_place(
    store: &dyn Store,
    now: Timestamp,
    name: &AccountName,
    before: &Snapshot,
    came: &RefreshToken,
) -> Result<Option<u64>, StoreError> {
    let generation = before.stored_generation;
    if !keep_beside(store, now, name, &before.realm, came, generation).await? {
        return Ok(None);
    }
    let adopted = store.adopt_fallback_token(name, &before.realm, generation).await?;
    if let Some(generation) = adopted {
        keep_beside(store, now, name, &before.realm, &before.refresh, generation).await?;
    }
    Ok(adopted)
}

/// Keeps a refresh token beside the one that a grant has, or says that there was nothing to keep.
pub(super) async fn keep_beside(
    store: &dyn Store,
    now: Timestamp,
    name: &AccountName,
    realm: &RealmName,
    refresh: &RefreshToken,
    generation: u64,
) -> Result<bool, StoreError> {
    // Only the refresh token is kept.
    let access = StoredAccess { token: AccessToken::new(""), expires_at: Timestamp::default() };
    let kept = NewTokens { access, refresh: Some(refresh.clone()), refreshed_at: now };
    store.keep_fallback_token(name, realm, generation, &kept).await
}
