//! Refresh tokens kept beside a grant's own. The schema forgets them with the next tokens of the grant.

use super::grants::{generation_of, missing, unsealed};
use super::{SqliteStore, store_error};
use crate::model::account::{AccountName, RealmName};
use crate::model::token::RefreshToken;
use crate::store::rows::{fallback_context, millis, refresh_context, signed};
use crate::store::{NEWEST_FALLBACKS, NewTokens, StoreError};

impl SqliteStore {
    /// One process has no losers of a race, so what is kept belongs to the generation that is in force.
    pub(super) async fn write_fallback(
        &self,
        name: &AccountName,
        realm: &RealmName,
        seen_generation: u64,
        tokens: &NewTokens,
    ) -> Result<bool, StoreError> {
        let Some(refresh) = &tokens.refresh else { return Ok(false) };
        let sealed = self.keys.seal(fallback_context(name, realm), refresh.expose()).map_err(unsealed)?;
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let grant: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT generation, refresh_sealed FROM grants WHERE account = ? AND realm = ?")
                .bind(name.as_str())
                .bind(realm.as_str())
                .fetch_optional(&mut *tx)
                .await
                .map_err(store_error)?;
        let Some((generation, current)) = grant else {
            return Err(missing(&mut tx, name, realm).await);
        };
        let opened = self.keys.unseal(refresh_context(name, realm), &current);
        if generation != signed(seen_generation) || opened.is_ok_and(|current| current == refresh.expose()) {
            return Ok(false);
        }
        sqlx::query("INSERT INTO fallbacks (account, realm, refresh_sealed, kept_at) VALUES (?, ?, ?, ?)")
            .bind(name.as_str())
            .bind(realm.as_str())
            .bind(sealed)
            .bind(millis(tokens.refreshed_at))
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        sqlx::query(
            "DELETE FROM fallbacks WHERE account = ?1 AND realm = ?2 \
             AND id <> (SELECT min(id) FROM fallbacks WHERE account = ?1 AND realm = ?2) AND id NOT IN \
             (SELECT id FROM fallbacks WHERE account = ?1 AND realm = ?2 ORDER BY id DESC LIMIT ?3)",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(NEWEST_FALLBACKS)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(true)
    }

    pub(super) async fn use_fallback(
        &self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
    ) -> Result<Option<u64>, StoreError> {
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        match generation_of(&mut tx, name, realm).await? {
            Some(generation) if generation == signed(expected) => {}
            Some(generation) => {
                return Err(StoreError::Fenced(u64::try_from(generation).unwrap_or_default()));
            }
            None => return Err(missing(&mut tx, name, realm).await),
        }
        let kept: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT id, refresh_sealed FROM fallbacks WHERE account = ? AND realm = ? ORDER BY id DESC",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        let opened = kept.iter().find_map(|(id, sealed)| {
            let token = self.keys.unseal(fallback_context(name, realm), sealed).ok()?;
            Some((*id, RefreshToken::new(token)))
        });
        let Some((id, token)) = opened else { return Ok(None) };
        sqlx::query(
            "UPDATE grants SET generation = generation + 1, refresh_sealed = ?, access_sealed = NULL, access_expires_at = NULL, \
             intent_at = NULL WHERE account = ? AND realm = ?",
        )
        .bind(self.sealed_refresh(name, realm, &token)?)
        .bind(name.as_str())
        .bind(realm.as_str())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        let used = sqlx::query("DELETE FROM fallbacks WHERE id = ?");
        used.bind(id).execute(&mut *tx).await.map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(Some(expected + 1))
    }
}
