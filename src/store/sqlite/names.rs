//! What happens to a whole account: it is forgotten, or gets another name. One transaction each.

use sqlx::sqlite::SqliteConnection;

use super::grants::unsealed;
use super::{SqliteStore, store_error};
use crate::model::account::{AccountName, RealmName};
use crate::store::rows::{AccountRows, fallback_context, select_accounts};
use crate::store::{AccountRecord, StoreError};

/// A refresh token that was kept beside a grant: its realm, itself, and when it was kept.
type Fallback = (String, Vec<u8>, i64);

impl SqliteStore {
    pub(super) async fn delete_account(&self, name: &AccountName) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        remember_generations(&mut tx, name).await?;
        let mut gone = 0;
        // The account itself is last.
        for sql in [
            "DELETE FROM grants WHERE account = ?",
            "DELETE FROM known_tokens WHERE account = ?",
            "DELETE FROM accounts WHERE name = ?",
        ] {
            let removed =
                sqlx::query(sql).bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
            gone = removed.rows_affected();
        }
        if gone == 0 {
            return Err(StoreError::UnknownAccount(name.clone()));
        }
        tx.commit().await.map_err(store_error)
    }

    /// What is sealed is sealed for its place, so the grants are written anew.
    pub(super) async fn move_account(
        &self,
        from: &AccountName,
        to: &AccountName,
    ) -> Result<AccountRecord, StoreError> {
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let mut account = self.find_account(&mut tx, from).await?;
        if is_known(&mut tx, to).await? {
            return Err(StoreError::NameTaken(to.clone()));
        }
        remember_generations(&mut tx, from).await?;
        let spent: Option<i64> = sqlx::query_scalar("SELECT last FROM generations WHERE account = ?")
            .bind(to.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(store_error)?;
        let above = u64::try_from(spent.unwrap_or_default()).unwrap_or_default() + 1;
        // They go with the grants.
        let fallbacks = fallbacks_of(&mut tx, from).await?;
        let grants = sqlx::query("DELETE FROM grants WHERE account = ?").bind(from.as_str());
        grants.execute(&mut *tx).await.map_err(store_error)?;
        for sql in [
            "UPDATE accounts SET name = ?2 WHERE name = ?1",
            "UPDATE known_tokens SET account = ?2 WHERE account = ?1",
            "UPDATE last_seen SET name = ?2 WHERE name = ?1 AND kind = 'account'",
        ] {
            let moved = sqlx::query(sql).bind(from.as_str()).bind(to.as_str());
            moved.execute(&mut *tx).await.map_err(store_error)?;
        }
        account.name = to.clone();
        for grant in &mut account.grants {
            grant.generation = grant.generation.max(above);
            self.insert_grant(&mut tx, to, grant).await?;
        }
        self.insert_fallbacks(&mut tx, from, to, fallbacks).await?;
        tx.commit().await.map_err(store_error)?;
        Ok(account)
    }

    /// One that does not unseal is as good as none.
    async fn insert_fallbacks(
        &self,
        connection: &mut SqliteConnection,
        from: &AccountName,
        to: &AccountName,
        fallbacks: Vec<Fallback>,
    ) -> Result<(), StoreError> {
        for (realm, sealed, kept_at) in fallbacks {
            let Ok(in_realm) = realm.parse::<RealmName>() else { continue };
            let Ok(token) = self.keys.unseal(fallback_context(from, &in_realm), &sealed) else { continue };
            let sealed = self.keys.seal(fallback_context(to, &in_realm), &token).map_err(unsealed)?;
            sqlx::query(
                "INSERT INTO fallbacks (account, realm, refresh_sealed, kept_at) VALUES (?, ?, ?, ?)",
            )
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

    async fn find_account(
        &self,
        connection: &mut SqliteConnection,
        name: &AccountName,
    ) -> Result<AccountRecord, StoreError> {
        let rows = sqlx::query(select_accounts!("WHERE a.name = ? ORDER BY g.realm"))
            .bind(name.as_str())
            .fetch_all(connection)
            .await
            .map_err(store_error)?;
        let mut accounts = AccountRows::new(&self.keys, &self.clock);
        rows.iter().for_each(|row| accounts.add(row));
        let mut loaded = accounts.finish();
        match loaded.broken.pop() {
            Some((account, why)) => Err(StoreError::Unsealable { account, why }),
            None => loaded.accounts.pop().ok_or_else(|| StoreError::UnknownAccount(name.clone())),
        }
    }
}

async fn fallbacks_of(
    connection: &mut SqliteConnection,
    name: &AccountName,
) -> Result<Vec<Fallback>, StoreError> {
    sqlx::query_as("SELECT realm, refresh_sealed, kept_at FROM fallbacks WHERE account = ? ORDER BY id")
        .bind(name.as_str())
        .fetch_all(connection)
        .await
        .map_err(store_error)
}

async fn is_known(connection: &mut SqliteConnection, name: &AccountName) -> Result<bool, StoreError> {
    let known = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE name = ?)");
    known.bind(name.as_str()).fetch_one(connection).await.map_err(store_error)
}

async fn remember_generations(
    connection: &mut SqliteConnection,
    name: &AccountName,
) -> Result<(), StoreError> {
    let highest: Option<i64> = sqlx::query_scalar("SELECT max(generation) FROM grants WHERE account = ?")
        .bind(name.as_str())
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    let Some(highest) = highest else { return Ok(()) };
    let remember = sqlx::query(
        "INSERT INTO generations (account, last) VALUES (?, ?) \
         ON CONFLICT (account) DO UPDATE SET last = max(last, excluded.last)",
    );
    remember.bind(name.as_str()).bind(highest).execute(connection).await.map_err(store_error)?;
    Ok(())
}
