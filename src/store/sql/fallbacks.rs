//! Refresh tokens kept beside a grant's own, for when the platform refuses that.

use super::accounts::missing;
use super::grants::{generation, sealed_refresh};
use super::{
    Purpose, SqlConnection, SqlDatabase, SqlTransaction, refuse, seal_failed, unreadable, unsigned, values,
};
use crate::model::account::{AccountName, RealmName};
use crate::model::token::RefreshToken;
use crate::store::rows::{RowColumns, fallback_context, refresh_context, signed};
use crate::store::{NEWEST_FALLBACKS, NewTokens, StoreError};

pub async fn keep<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
    seen_generation: u64,
    tokens: &NewTokens,
) -> Result<bool, StoreError> {
    let Some(refresh) = &tokens.refresh else { return Ok(false) };
    let sealed = db.keys().seal(fallback_context(name, realm), refresh.expose()).map_err(seal_failed)?;
    let mut tx = db.begin(Purpose::Write).await?;
    let grant = tx.fetch(D::DIALECT.fallback_base, values![name, realm, signed(seen_generation)]).await?;
    let Some(grant) = grant.first() else {
        let refusal = missing(&mut tx, name, realm).await?;
        return refuse(tx, refusal).await;
    };
    // A grant that began later may be another clinic's: its tokens and these are never mixed.
    let of_this_grant = grant.number(1).map_err(unreadable)? == Some(1);
    let current = grant.bytes(0).map_err(unreadable)?.unwrap_or_default();
    let current = db.keys().unseal(refresh_context(name, realm), current);
    if !of_this_grant || current.is_ok_and(|current| current == refresh.expose()) {
        tx.rollback().await?;
        return Ok(false);
    }
    let kept_at = db.stored(db.clock().now());
    let sql = "INSERT INTO fallbacks (account, realm, refresh_sealed, kept_at) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, values![name, realm, &sealed, kept_at]).await?;
    let sql = "DELETE FROM fallbacks WHERE account = $1 AND realm = $2 \
               AND id <> (SELECT min(id) FROM fallbacks WHERE account = $1 AND realm = $2) AND id NOT IN \
               (SELECT id FROM fallbacks WHERE account = $1 AND realm = $2 ORDER BY id DESC LIMIT $3)";
    tx.execute(sql, values![name, realm, NEWEST_FALLBACKS]).await?;
    tx.commit().await?;
    Ok(true)
}

pub async fn adopt<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
    expected: u64,
) -> Result<Option<u64>, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    let refusal = match generation::<D>(&mut tx, name, realm).await? {
        Some(generation) if generation == signed(expected) => None,
        Some(generation) => Some(StoreError::Fenced(unsigned(generation))),
        None => Some(missing(&mut tx, name, realm).await?),
    };
    if let Some(refusal) = refusal {
        return refuse(tx, refusal).await;
    }
    let sql = "SELECT id, refresh_sealed FROM fallbacks WHERE account = $1 AND realm = $2 ORDER BY id DESC";
    let kept = tx.fetch(sql, values![name, realm]).await?;
    let opened = kept.iter().find_map(|row| {
        let token = db.keys().unseal(fallback_context(name, realm), row.bytes(1).ok()??).ok()?;
        Some((row.number(0).ok()??, RefreshToken::new(token)))
    });
    let Some((id, token)) = opened else {
        tx.rollback().await?;
        return Ok(None);
    };
    let sealed = sealed_refresh(db.keys(), name, realm, &token)?;
    let sql = "UPDATE grants SET generation = generation + 1, refresh_sealed = $1, access_sealed = NULL, \
               access_expires_at = NULL, intent_at = NULL WHERE account = $2 AND realm = $3";
    tx.execute(sql, values![&sealed, name, realm]).await?;
    tx.execute("DELETE FROM fallbacks WHERE id = $1", values![id]).await?;
    tx.commit().await?;
    Ok(Some(expected + 1))
}
