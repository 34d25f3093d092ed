//! Accounts and their grants. Every change is one transaction; new tokens are committed by one statement that also checks the generation.

use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteConnection;

use super::{SqliteStore, store_error};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;
use crate::store::rows::{
    AccountRows, access_context, refresh_context, select_accounts, signed, state_columns,
};
use crate::store::seal::SealError;
use crate::store::token_hash;
use crate::store::{AccountRecord, AccountSink, NewGrant, NewTokens, StoreError, StoredAccess, StoredRoute};

impl SqliteStore {
    pub(super) async fn read_accounts(
        &self,
        take: AccountSink<'_>,
    ) -> Result<Vec<(AccountName, String)>, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let mut rows = sqlx::query(select_accounts!("ORDER BY a.name, g.realm")).fetch(&mut *conn);
        let mut accounts = AccountRows::new(&self.keys, &self.clock);
        while let Some(row) = rows.try_next().await.map_err(store_error)? {
            accounts.add(&row);
            accounts.hand_over(take);
        }
        let last = accounts.finish();
        last.accounts.into_iter().for_each(take);
        Ok(last.broken)
    }

    pub(super) async fn read_account(&self, name: &AccountName) -> Result<Option<AccountRecord>, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let rows = sqlx::query(select_accounts!("WHERE a.name = ? ORDER BY g.realm"))
            .bind(name.as_str())
            .fetch_all(&mut *conn)
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

    pub(super) async fn write_grant(&self, grant: NewGrant) -> Result<AccountRecord, StoreError> {
        let refresh = self.sealed_refresh(&grant.name, &grant.realm, &grant.refresh)?;
        let access = self.sealed_access(&grant.name, &grant.realm, grant.access.as_ref())?;
        let old_is_readable = match self.read_account(&grant.name).await {
            Ok(_) => true,
            Err(StoreError::Unsealable { .. }) => false,
            Err(trouble) => return Err(trouble),
        };
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        if let Some(held_by) = holder(&mut tx, &grant.realm, grant.account_id, &grant.name).await? {
            return Err(StoreError::GrantTaken { realm: grant.realm, id: grant.account_id, held_by });
        }
        write_account(&mut tx, &grant, &self.clock).await?;
        let generation = generation_above_all(&mut tx, &grant.name).await?;
        let route = grant.route.as_ref();
        // Refreshes must not follow each other closely whoever paired in between, so the time of the last one stays (gen-api, section 2).
        sqlx::query(
            "INSERT INTO grants (account, realm, account_id, generation, refresh_sealed, access_sealed, access_expires_at, \
             obtained_at, route_domain, route_path, route_discovered_at, refreshed_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?13) \
             ON CONFLICT (account, realm) DO UPDATE SET account_id = ?3, generation = ?4, refresh_sealed = ?5, access_sealed = ?6, \
             access_expires_at = ?7, obtained_at = ?8, intent_at = NULL, \
             refreshed_at = coalesce(?13, iif(?12 AND account_id = ?3, refreshed_at, NULL)), \
             route_domain = iif(?12 AND account_id = ?3 AND ?9 IS NULL, route_domain, ?9), \
             route_path = iif(?12 AND account_id = ?3 AND ?9 IS NULL, route_path, ?10), \
             route_discovered_at = iif(?12 AND account_id = ?3 AND ?9 IS NULL, route_discovered_at, ?11)",
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
        .await
        .map_err(store_error)?;
        // A new grant starts clean.
        let forget = sqlx::query("DELETE FROM fallbacks WHERE account = ? AND realm = ?");
        forget
            .bind(grant.name.as_str())
            .bind(grant.realm.as_str())
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        learn_token(&mut tx, &grant).await?;
        tx.commit().await.map_err(store_error)?;
        let written = self.read_account(&grant.name).await?;
        written.ok_or(StoreError::UnknownAccount(grant.name))
    }

    pub(super) async fn write_state(
        &self,
        name: &AccountName,
        state: &AccountState,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        match update_state(&mut conn, name, state, &self.clock).await? {
            0 => Err(StoreError::UnknownAccount(name.clone())),
            _ => Ok(()),
        }
    }

    pub(super) async fn write_current(
        &self,
        name: &AccountName,
        realm: &RealmName,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let changed = sqlx::query(
            "UPDATE accounts SET current_realm = ?1 WHERE name = ?2 \
             AND EXISTS (SELECT 1 FROM grants WHERE account = ?2 AND realm = ?1)",
        )
        .bind(realm.as_str())
        .bind(name.as_str())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        found(changed.rows_affected(), &mut conn, name, realm).await
    }

    pub(super) async fn write_intent(
        &self,
        name: &AccountName,
        realm: &RealmName,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let changed = sqlx::query("UPDATE grants SET intent_at = ? WHERE account = ? AND realm = ?")
            .bind(self.stored(at))
            .bind(name.as_str())
            .bind(realm.as_str())
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
        found(changed.rows_affected(), &mut conn, name, realm).await
    }

    pub(super) async fn delete_intent(
        &self,
        name: &AccountName,
        realm: &RealmName,
        expected: u64,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let changed = sqlx::query(
            "UPDATE grants SET intent_at = NULL WHERE account = ? AND realm = ? AND generation = ? AND intent_at = ?",
        )
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(signed(expected))
        .bind(self.stored(noted_at))
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        Ok(changed.rows_affected() > 0)
    }

    /// One statement, one write to the disk: the generation is compared by the update itself, so no lost update fits in between.
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
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let changed = sqlx::query(
            "UPDATE grants SET generation = generation + 1, refresh_sealed = coalesce(?, refresh_sealed), access_sealed = ?, \
             access_expires_at = ?, refreshed_at = ?, intent_at = NULL WHERE account = ? AND realm = ? AND generation = ?",
        )
        .bind(refresh)
        .bind(access)
        .bind(self.stored(tokens.access.expires_at))
        .bind(self.stored(tokens.refreshed_at))
        .bind(name.as_str())
        .bind(realm.as_str())
        .bind(signed(expected))
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        if changed.rows_affected() > 0 {
            return Ok(expected + 1);
        }
        match generation_of(&mut conn, name, realm).await? {
            Some(generation) => Err(StoreError::Fenced(u64::try_from(generation).unwrap_or_default())),
            None => Err(missing(&mut conn, name, realm).await),
        }
    }

    pub(super) async fn write_route(
        &self,
        name: &AccountName,
        realm: &RealmName,
        route: &StoredRoute,
    ) -> Result<(), StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let changed = sqlx::query(
            "UPDATE grants SET route_domain = ?, route_path = ?, route_discovered_at = ? WHERE account = ? AND realm = ?",
        )
        .bind(&*route.domain)
        .bind(&*route.path)
        .bind(self.stored(route.discovered_at))
        .bind(name.as_str())
        .bind(realm.as_str())
        .execute(&mut *conn)
        .await
        .map_err(store_error)?;
        found(changed.rows_affected(), &mut conn, name, realm).await
    }

    pub(super) async fn delete_grant(&self, name: &AccountName, realm: &RealmName) -> Result<(), StoreError> {
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let Some(generation) = generation_of(&mut tx, name, realm).await? else {
            return Err(missing(&mut tx, name, realm).await);
        };
        let remember = sqlx::query(
            "INSERT INTO generations (account, last) VALUES (?, ?) \
             ON CONFLICT (account) DO UPDATE SET last = max(last, excluded.last)",
        );
        remember.bind(name.as_str()).bind(generation).execute(&mut *tx).await.map_err(store_error)?;
        let removed = sqlx::query("DELETE FROM grants WHERE account = ? AND realm = ?");
        removed.bind(name.as_str()).bind(realm.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        let next = sqlx::query(
            "UPDATE accounts SET current_realm = (SELECT realm FROM grants WHERE account = ?1 ORDER BY obtained_at DESC, realm LIMIT 1) \
             WHERE name = ?1 AND current_realm = ?2 AND EXISTS (SELECT 1 FROM grants WHERE account = ?1)",
        );
        next.bind(name.as_str()).bind(realm.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        let last = sqlx::query(
            "DELETE FROM accounts WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM grants WHERE account = ?1)",
        );
        last.bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        let tokens = sqlx::query(
            "DELETE FROM known_tokens WHERE account = ?1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = ?1)",
        );
        tokens.bind(name.as_str()).execute(&mut *tx).await.map_err(store_error)?;
        tx.commit().await.map_err(store_error)
    }

    pub(super) async fn read_known_tokens(&self) -> Result<Vec<([u8; 32], AccountName)>, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let mut rows = sqlx::query_as("SELECT hash, account FROM known_tokens").fetch(&mut *conn);
        // The table's own check sees to the length; a name that is not valid has been logged with its account.
        let known = |(hash, name): (Vec<u8>, String)| Some((hash.try_into().ok()?, name.parse().ok()?));
        let mut all = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(store_error)? {
            all.extend(known(row));
        }
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

/// Nothing is written unsealed.
pub(super) fn unsealed(why: SealError) -> StoreError {
    StoreError::Unavailable(why.to_string().into())
}

pub(super) async fn holder(
    connection: &mut SqliteConnection,
    realm: &RealmName,
    id: AccountId,
    but: &AccountName,
) -> Result<Option<AccountName>, StoreError> {
    let name: Option<String> =
        sqlx::query_scalar("SELECT account FROM grants WHERE realm = ? AND account_id = ? AND account <> ?")
            .bind(realm.as_str())
            .bind(id.to_string())
            .bind(but.as_str())
            .fetch_optional(connection)
            .await
            .map_err(store_error)?;
    let name = name.map(|name| name.parse()).transpose();
    name.map_err(|_| {
        StoreError::Refused(format!("account {id} of realm {realm} stands under a name that is not valid"))
    })
}

async fn write_account(
    connection: &mut SqliteConnection,
    grant: &NewGrant,
    clock: &Clock,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO accounts (name, current_realm, state) VALUES (?1, ?2, 'ready') \
         ON CONFLICT (name) DO UPDATE SET current_realm = iif(?3, excluded.current_realm, current_realm)",
    )
    .bind(grant.name.as_str())
    .bind(grant.realm.as_str())
    .bind(grant.make_current)
    .execute(&mut *connection)
    .await
    .map_err(store_error)?;
    if let Some(state) = &grant.state {
        update_state(connection, &grant.name, state, clock).await?;
    }
    Ok(())
}

async fn learn_token(connection: &mut SqliteConnection, grant: &NewGrant) -> Result<(), StoreError> {
    let handed_in = grant.trial.as_ref().map(|proof| &proof.handed_in);
    for token in handed_in.into_iter().chain([&grant.refresh]) {
        sqlx::query("INSERT INTO known_tokens (hash, account) VALUES (?1, ?2) ON CONFLICT (hash) DO UPDATE SET account = ?2")
            .bind(&token_hash(token)[..])
            .bind(grant.name.as_str())
            .execute(&mut *connection)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

async fn update_state(
    connection: &mut SqliteConnection,
    name: &AccountName,
    state: &AccountState,
    clock: &Clock,
) -> Result<u64, StoreError> {
    let (word, since, why) = state_columns(clock, state);
    let changed = sqlx::query("UPDATE accounts SET state = ?, since = ?, why = ? WHERE name = ?")
        .bind(word)
        .bind(since)
        .bind(why)
        .bind(name.as_str())
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(changed.rows_affected())
}

async fn generation_above_all(
    connection: &mut SqliteConnection,
    name: &AccountName,
) -> Result<i64, StoreError> {
    sqlx::query_scalar(
        "SELECT coalesce(max(generation), 0) + 1 FROM (SELECT generation FROM grants WHERE account = ?1 \
         UNION ALL SELECT last FROM generations WHERE account = ?1)",
    )
    .bind(name.as_str())
    .fetch_one(connection)
    .await
    .map_err(store_error)
}

pub(super) async fn generation_of(
    connection: &mut SqliteConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<Option<i64>, StoreError> {
    sqlx::query_scalar("SELECT generation FROM grants WHERE account = ? AND realm = ?")
        .bind(name.as_str())
        .bind(realm.as_str())
        .fetch_optional(connection)
        .await
        .map_err(store_error)
}

async fn found(
    changed: u64,
    connection: &mut SqliteConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<(), StoreError> {
    match changed {
        0 => Err(missing(connection, name, realm).await),
        _ => Ok(()),
    }
}

/// Which of the two it is that does not exist.
pub(super) async fn missing(
    connection: &mut SqliteConnection,
    name: &AccountName,
    realm: &RealmName,
) -> StoreError {
    let known = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE name = ?)")
        .bind(name.as_str())
        .fetch_one(connection)
        .await;
    match known {
        Ok(true) => StoreError::UnknownGrant { account: name.clone(), realm: realm.clone() },
        Ok(false) => StoreError::UnknownAccount(name.clone()),
        Err(error) => store_error(error),
    }
}
