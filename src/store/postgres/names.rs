//! What happens to a whole account: it is forgotten, or gets another name. One transaction each.

use sqlx::postgres::PgConnection;

use super::queries::{lock_account, unsealed};
use super::{PostgresStore, query, scalar, store_error};
use crate::model::account::{AccountName, RealmName};
use crate::store::rows::fallback_context;
use crate::store::{AccountRecord, StoreError};

/// A refresh token that was kept beside a grant: its realm, itself, and when it was kept.
type Fallback = (String, Vec<u8>, i64);

impl PostgresStore {
    pub(super) async fn delete_account(&self, name: &AccountName) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_account(&mut tx, name).await?;
        lock_grants(&mut tx, name).await?;
        remember_generations(&mut tx, name).await?;
        let mut gone = 0;
        // The account itself is last.
        for sql in [
            "DELETE FROM grants WHERE account = $1",
            "DELETE FROM known_tokens WHERE account = $1",
            "DELETE FROM accounts WHERE name = $1",
        ] {
            let removed = query(sql).bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
            gone = removed.rows_affected();
        }
        if gone == 0 {
            tx.rollback().await?;
            return Err(StoreError::UnknownAccount(name.clone()));
        }
        tx.commit().await
    }

    /// What is sealed is sealed for its place, so the grants are written anew. Their rows are held first: a commit of tokens that came in
    /// between would be undone.
    pub(super) async fn move_account(
        &self,
        from: &AccountName,
        to: &AccountName,
    ) -> Result<AccountRecord, StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_account(&mut tx, from).await?;
        lock_grants(&mut tx, from).await?;
        let Some(mut account) = self.find_account(&mut tx, from).await? else {
            tx.rollback().await?;
            return Err(StoreError::UnknownAccount(from.clone()));
        };
        let taken: bool = scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE name = $1)")
            .bind(to.as_str())
            .fetch_one(&mut *tx)
            .await
            .map_err(store_error)?;
        if taken {
            tx.rollback().await?;
            return Err(StoreError::NameTaken(to.clone()));
        }
        remember_generations(&mut tx, from).await?;
        let spent: Option<i64> = scalar("SELECT last FROM generations WHERE account = $1")
            .bind(to.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(store_error)?;
        let above = u64::try_from(spent.unwrap_or_default()).unwrap_or_default() + 1;
        let fallbacks = fallbacks_of(&mut tx, from).await?;
        let grants = query("DELETE FROM grants WHERE account = $1").bind(from.as_str());
        grants.execute(&mut *tx).await.map_err(store_error)?;
        for sql in [
            "UPDATE accounts SET name = $2 WHERE name = $1",
            "UPDATE known_tokens SET account = $2 WHERE account = $1",
            // Noted anew, so that every gateway reads it.
            "UPDATE last_seen SET name = $2, noted_at = clock_timestamp() WHERE name = $1 AND kind = 'account'",
        ] {
            query(sql).bind(from.as_str()).bind(to.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        }
        account.name = to.clone();
        for grant in &mut account.grants {
            grant.generation = grant.generation.max(above);
            self.insert_grant(&mut tx, to, grant).await?;
        }
        self.insert_fallbacks(&mut tx, from, to, fallbacks).await?;
        tx.commit().await?;
        Ok(account)
    }

    /// One that does not unseal is as good as none.
    async fn insert_fallbacks(
        &self,
        connection: &mut PgConnection,
        from: &AccountName,
        to: &AccountName,
        fallbacks: Vec<Fallback>,
    ) -> Result<(), StoreError> {
        for (realm, sealed, kept_at) in fallbacks {
            let Ok(in_realm) = realm.parse::<RealmName>() else { continue };
            let Ok(token) = self.keys.unseal(fallback_context(from, &in_realm), &sealed) else { continue };
            let sealed = self.keys.seal(fallback_context(to, &in_realm), &token).map_err(unsealed)?;
            query("INSERT INTO fallbacks (account, realm, refresh_sealed, kept_at) VALUES ($1, $2, $3, $4)")
                .bind(to.as_str())
                .bind(realm)
                .bind(sealed)
                .bind(kept_at)
                .execute(&mut *connection)
                .await
                .map_err(store_error)?;
        }
        Ok(())
    }
}

async fn fallbacks_of(
    connection: &mut PgConnection,
    name: &AccountName,
) -> Result<Vec<Fallback>, StoreError> {
    sqlx::query_as("SELECT realm, refresh_sealed, kept_at FROM fallbacks WHERE account = $1 ORDER BY id")
        .persistent(false)
        .bind(name.as_str())
        .fetch_all(connection)
        .await
        .map_err(store_error)
}

async fn lock_grants(connection: &mut PgConnection, name: &AccountName) -> Result<(), StoreError> {
    query("SELECT 1 FROM grants WHERE account = $1 FOR UPDATE")
        .bind(name.as_str())
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}

async fn remember_generations(connection: &mut PgConnection, name: &AccountName) -> Result<(), StoreError> {
    query(
        "INSERT INTO generations AS known (account, last) \
         SELECT $1, max(generation) FROM grants WHERE account = $1 HAVING count(*) > 0 \
         ON CONFLICT (account) DO UPDATE SET last = greatest(known.last, excluded.last)",
    )
    .bind(name.as_str())
    .execute(connection)
    .await
    .map_err(store_error)?;
    Ok(())
}
