//! Refresh tokens of answers that were not as documented. One that came may have taken the place of the one that was sent, or it may be
//! nobody's.
//!
//! The rule guarded here: it is used, and the one before it is kept beside it until a refresh has proven the new one.

use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::model::token::{AccessToken, RefreshToken};
use crate::platform::Trouble;
use crate::store::{NewTokens, StoreError, StoredAccess};

use super::flight::Flight;
use super::renewal::Shared;
use super::snapshot::Snapshot;

impl Flight {
    /// After tokens of an odd answer were committed as `generation`.
    pub(super) async fn keep_the_one_before(&self, before: &Snapshot, tokens: &NewTokens, generation: u64) {
        if tokens.refresh.as_ref().is_none_or(|came| *came == before.refresh) {
            return;
        }
        if let Err(trouble) =
            keep_beside(&self.shared, &self.entry.name, &before.realm, &before.refresh, generation).await
        {
            tracing::error!(account = %self.entry.name, %trouble, "the refresh token before an odd answer could not be kept");
        }
    }

    /// After an answer whose access token could not be used. Its refresh token takes the place of the one that was sent; the access token
    /// at hand goes on serving.
    pub(super) async fn keep_what_came(&self, before: &Snapshot, trouble: &Trouble) {
        let Some(came) = trouble.refresh.as_ref().filter(|came| **came != before.refresh && !before.unsaved)
        else {
            return;
        };
        match self.put_in_place(before, came).await {
            Ok(Some(generation)) => {
                self.entry.take_refresh(before, came, generation);
                let detail = "an answer without a usable access token brought a refresh token: it is tried next, and the one before \
                              it is kept until then";
                self.note("refresh_token_kept", detail.to_owned());
            }
            Ok(None) => {}
            Err(trouble) => {
                tracing::error!(account = %self.entry.name, %trouble, "the refresh token of an odd answer could not be kept");
            }
        }
    }

    async fn put_in_place(&self, before: &Snapshot, came: &RefreshToken) -> Result<Option<u64>, StoreError> {
        let (store, name) = (&self.shared.store, &self.entry.name);
        let generation = before.stored_generation;
        if !keep_beside(&self.shared, name, &before.realm, came, generation).await? {
            return Ok(None);
        }
        let adopted = store.adopt_fallback(name, &before.realm, generation).await?;
        if let Some(generation) = adopted {
            keep_beside(&self.shared, &self.entry.name, &before.realm, &before.refresh, generation).await?;
        }
        Ok(adopted)
    }
}

/// Keeps a refresh token beside the one that a grant has, or says that there was nothing to keep.
pub(super) async fn keep_beside(
    shared: &Shared,
    name: &AccountName,
    realm: &RealmName,
    refresh: &RefreshToken,
    generation: u64,
) -> Result<bool, StoreError> {
    // Only the refresh token is kept.
    let access = StoredAccess { token: AccessToken::new(""), expires_at: Timestamp::default() };
    let kept = NewTokens { access, refresh: Some(refresh.clone()), refreshed_at: shared.clock.now() };
    shared.store.keep_fallback(name, realm, generation, &kept).await
}
