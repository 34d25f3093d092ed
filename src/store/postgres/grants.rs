//! Accounts and their grants. New tokens are committed by one statement that also checks the generation, whoever else commits meanwhile.
//!
//! Order of locks, so that no two transactions wait for each other: account, grant, lease.

use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;

use super::queries::{
    forget_fallbacks, found, generation_above_all, generation_of, holder, is_unique_violation, learn_token,
    lock_account, missing, unsealed, update_state, write_account,
};
use super::{PostgresStore, query, store_error};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;
use crate::store::rows::{AccountRows, access_context, refresh_context, select_accounts, signed};
use crate::store::{AccountRecord, AccountSink, NewGrant, NewTokens, StoreError, StoredAccess, StoredRoute};

impl PostgresStore {
    pub(super) async fn read_accounts(
        &self,
        take: AccountSink<'_>,
    ) -> Result<Vec<(AccountName, String)>, StoreError> {
        let mut tx = self.pool.begin_long().await?;
        let mut accounts = AccountRows::new(&self.keys, &self.clock);
        {
            let mut rows = query(select_accounts!("ORDER BY a.name, g.realm")).fetch(&mut *tx);
            while let Some(row) = rows.try_next().await.map_err(store_error)? {
                accounts.add(&row);
                accounts.hand_over(take);
            }
        }
        tx.commit().await?;
        let last = accounts.finish();
        last.accounts.into_iter().for_each(take);
        Ok(last.broken)
    }

    pub(super) async fn read_account(&self, name: &AccountName) -> Result<Option<AccountRecord>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let found = self.find_account(&mut tx, name).await;
        tx.commit().await?;
        found
    }

    pub(super) async fn find_account(
        &self,
        connection: &mut PgConnection,
        name: &AccountName,
    ) -> Result<Option<AccountRecord>, StoreError> {
        let rows = query(select_accounts!("WHERE a.name = $1 ORDER BY g.realm"))
            .bind(name.as_str())
            .fetch_all(connection)
            .await
            .map_err(store_error)?;
        let mut accounts = AccountRows::new(&self.keys, &self.clock);
        rows.iter().for_each(|row| accounts.add(row));
        let mut loaded = accounts.finish();
        match loaded.broken.pop() {
            Some((account, why)) => Err(StoreError::Unsealable { account, why }),
            None => Ok(loaded.accounts.pop()),
        }
    }

    /// Where another gateway took the same id at the same moment, the second look finds it.
    pub(super) async fn write_grant(&self, grant: NewGrant) -> Result<AccountRecord, StoreError> {
        match self.try_write_grant(&grant).await? {
            Some(written) => Ok(written),
            None => self.try_write_grant(&grant).await?.ok_or_else(|| {
                StoreError::Unavailable(format!("account {} is being changed by others", grant.name).into())
            }),
        }
    }

    /// `None` where the grant's id was taken meanwhile.
    async fn try_write_grant(&self, grant: &NewGrant) -> Result<Option<AccountRecord>, StoreError> {
        let refresh = self.sealed_refresh(&grant.name, &grant.realm, &grant.refresh)?;
        let access = self.sealed_access(&grant.name, &grant.realm, grant.access.as_ref())?;
        let mut tx = self.pool.begin().await?;
        if let Some(held_by) = holder(&mut tx, &grant.realm, grant.account_id, &grant.name).await? {
            tx.rollback().await?;
            let (realm, id) = (grant.realm.clone(), grant.account_id);
            return Err(StoreError::GrantTaken { realm, id, held_by });
        }
        lock_account(&mut tx, &grant.name).await?;
        let old_is_readable = match self.find_account(&mut tx, &grant.name).await {
            Ok(_) => true,
            Err(StoreError::Unsealable { .. }) => false,
            Err(trouble) => return Err(trouble),
        };
        write_account(&mut tx, grant, &self.clock).await?;
        let generation = generation_above_all(&mut tx, &grant.name).await?;
        let route = grant.route.as_ref();
        // Refreshes must not follow each other closely whoever paired in between, so the time of the last one stays (gen-api, section 2).
        let written = query(
            "INSERT INTO grants AS old (account, realm, account_id, generation, first_generation, refresh_sealed, access_sealed, \
             access_expires_at, obtained_at, route_domain, route_path, route_discovered_at, refreshed_at) \
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $13) \
             ON CONFLICT (account, realm) DO UPDATE SET account_id = $3, generation = $4, first_generation = $4, refresh_sealed = $5, \
             access_sealed = $6, access_expires_at = $7, obtained_at = $8, intent_at = NULL, \
             refreshed_at = coalesce($13, CASE WHEN $12 AND old.account_id = $3 THEN old.refreshed_at END), \
             route_domain = CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_domain ELSE $9 END, \
             route_path = CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_path ELSE $10 END, \
             route_discovered_at = CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_discovered_at ELSE $11 END",
        )
        .bind(grant.name.as_str())
        .bind(grant.realm.as_str())
        .bind(grant.account_id.to_string())
        .bind(generation)
        .bind(refresh)
        .bind(access)
        .bind(grant.access.as_ref().map(|access| self.stored(access.expires_at)))
        .bind(self.stored(grant.at))
        .bind(route.map(|route| &*route.domain))
        .bind(route.map(|route| &*route.path))
        .bind(route.map(|route| self.stored(route.discovered_at)))
        .bind(old_is_readable)
        .bind(grant.trial.as_ref().map(|proof| self.stored(proof.refreshed_at)))
        .execute(&mut *tx)
        .await;
        match written {
            Ok(_) => {}
            Err(error) if is_unique_violation(&error) => return Ok(None),
            Err(error) => return Err(store_error(error)),
        }
        forget_fallbacks(&mut tx, &grant.name, &grant.realm).await?;
        learn_token(&mut tx, grant).await?;
        let written = self.find_account(&mut tx, &grant.name).await;
        tx.commit().await?;
        match written? {
            Some(written) => Ok(Some(written)),
            None => Err(StoreError::UnknownAccount(grant.name.clone())),
        }
    }

    pub(super) async fn write_state(
        &self,
        name: &AccountName,
        state: &AccountState,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = update_state(&mut tx, name, state, &self.clock).await?;
        tx.commit().await?;
        match changed {
            0 => Err(StoreError::UnknownAccount(name.clone())),
            _ => Ok(()),
        }
    }

    pub(super) async fn write_current(
        &self,
        name: &AccountName,
        realm: &RealmName,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        // Whoever removes that grant at this moment is waited for; the next statement sees what came of it.
        lock_account(&mut tx, name).await?;
        let changed = query(
            "UPDATE accounts SET current_realm = $1 WHERE name = $2 \
             AND EXISTS (SELECT 1 FROM grants WHERE account = $2 AND realm = $1)",
        )
        .bind(realm.as_str())
        .bind(name.as_str())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        let found = found(changed.rows_affected(), &mut tx, name, realm).await?;
        tx.commit().await?;
        found
    }

    pub(super) async fn write_intent(
        &self,
        name: &AccountName,
        realm: &RealmName,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = query("UPDATE grants SET intent_at = $1 WHERE account = $2 AND realm = $3")
            .bind(self.stored(at))
            .bind(name.as_str())
            .bind(realm.as_str())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        let found = found(changed.rows_affected(), &mut tx, name, realm).await?;
        tx.commit().await?;
        found
    }

    /// The generation is compared by the update itself, so no lost update fits in between. Tokens that came by a later refresh prove
    /// that the chain of refresh tokens lives, so what was kept beside it is no longer needed.
    pub(super) async fn write_tokens(
        &self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
        tokens: &NewTokens,
    ) -> Result<u64, StoreError> {
        let access = self.sealed_access(name, realm, Some(&tokens.access))?;
        let refresh = match &tokens.refresh {
            Some(token) => Some(self.sealed_refresh(name, realm, token)?),
            None => None,
        };
        let mut tx = self.pool.begin().await?;
        let changed = query(
            "UPDATE grants SET generation = generation + 1, refresh_sealed = coalesce($1, refresh_sealed), access_sealed = $2, \
             access_expires_at = $3, refreshed_at = $4, intent_at = NULL WHERE account = $5 AND realm = $6 AND generation = $7",
        )
        .bind(refresh)
        .bind(access)
        .bind(self.stored(tokens.access.expires_at))
        .bind(self.stored(tokens.refreshed_at))
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(signed(expected))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        if changed.rows_affected() > 0 {
            forget_fallbacks(&mut tx, name, realm).await?;
            tx.commit().await?;
            return Ok(expected + 1);
        }
        let refusal = match generation_of(&mut tx, name, realm).await? {
            Some(generation) => StoreError::Fenced(u64::try_from(generation).unwrap_or_default()),
            None => missing(&mut tx, name, realm).await?,
        };
        tx.rollback().await?;
        Err(refusal)
    }

    pub(super) async fn write_route(
        &self,
        name: &AccountName,
        realm: &RealmName,
        route: &StoredRoute,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let changed = query(
            "UPDATE grants SET route_domain = $1, route_path = $2, route_discovered_at = $3 WHERE account = $4 AND realm = $5",
        )
        .bind(&*route.domain)
        .bind(&*route.path)
        .bind(self.stored(route.discovered_at))
        .bind(name.as_str())
        .bind(realm.as_str())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        let found = found(changed.rows_affected(), &mut tx, name, realm).await?;
        tx.commit().await?;
        found
    }

    pub(super) async fn delete_grant(&self, name: &AccountName, realm: &RealmName) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_account(&mut tx, name).await?;
        let Some(generation) = generation_of(&mut tx, name, realm).await? else {
            let refusal = missing(&mut tx, name, realm).await?;
            tx.rollback().await?;
            return Err(refusal);
        };
        query(
            "INSERT INTO generations AS known (account, last) VALUES ($1, $2) \
             ON CONFLICT (account) DO UPDATE SET last = greatest(known.last, excluded.last)",
        )
        .bind(name.as_str())
        .bind(generation)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        query("DELETE FROM grants WHERE account = $1 AND realm = $2")
            .bind(name.as_str())
            .bind(realm.as_str())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        query(
            "UPDATE accounts SET current_realm = (SELECT realm FROM grants WHERE account = $1 ORDER BY obtained_at DESC, realm LIMIT 1) \
             WHERE name = $1 AND current_realm = $2 AND EXISTS (SELECT 1 FROM grants WHERE account = $1)",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        for sql in [
            "DELETE FROM accounts WHERE name = $1 AND NOT EXISTS (SELECT 1 FROM grants WHERE account = $1)",
            "DELETE FROM known_tokens WHERE account = $1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = $1)",
        ] {
            query(sql).bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        }
        tx.commit().await
    }

    pub(super) async fn read_known_tokens(&self) -> Result<Vec<([u8; 32], AccountName)>, StoreError> {
        let mut tx = self.pool.begin_long().await?;
        // The table's own check sees to the length; a name that is not valid has been logged with its account.
        let known = |(hash, name): (Vec<u8>, String)| Some((hash.try_into().ok()?, name.parse().ok()?));
        let mut all = Vec::new();
        {
            let sql = "SELECT hash, account FROM known_tokens";
            let mut rows = sqlx::query_as(sql).persistent(false).fetch(&mut *tx);
            while let Some(row) = rows.try_next().await.map_err(store_error)? {
                all.extend(known(row));
            }
        }
        tx.commit().await?;
        Ok(all)
    }

    pub(super) fn sealed_refresh(
        &self,
        name: &AccountName,
        realm: &RealmName,
        token: &RefreshToken,
    ) -> Result<Vec<u8>, StoreError> {
        self.keys.seal(refresh_context(name, realm), token.expose()).map_err(unsealed)
    }

    pub(super) fn sealed_access(
        &self,
        name: &AccountName,
        realm: &RealmName,
        access: Option<&StoredAccess>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = access.map(|access| self.keys.seal(access_context(name, realm), access.token.expose()));
        sealed.transpose().map_err(unsealed)
    }
}
