//! How the shared statements reach PostgreSQL, and what it spells differently.

use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

use super::error::{UNIQUE_VIOLATION, store_error};
use super::pool::PgTransaction;
use super::{PostgresStore, query};
use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::seal::SealKeys;
use crate::store::sql::grants::replace_grant;
use crate::store::sql::rotation::rotation_queries;
use crate::store::sql::{Dialect, Purpose, SqlConnection, SqlDatabase, SqlTransaction, SqlValue};
use crate::store::{JournalEntry, StoreError};

impl SqlDatabase for PostgresStore {
    type Transaction<'a> = PgTransaction<'a>;

    const DIALECT: Dialect = Dialect {
        lock_account: &[
            "SELECT 1 FROM accounts WHERE name = $1 FOR UPDATE",
            "SELECT 1 FROM grants WHERE account = $1 FOR UPDATE",
        ],
        generation: "SELECT generation FROM grants WHERE account = $1 AND realm = $2 FOR NO KEY UPDATE",
        put_grant: concat!(
            "INSERT INTO grants AS old (account, realm, account_id, generation, first_generation, refresh_sealed, ",
            "access_sealed, access_expires_at, obtained_at, route_domain, route_path, route_discovered_at, refreshed_at) ",
            "VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $13) ",
            "ON CONFLICT (account, realm) DO UPDATE SET first_generation = $4, ",
            replace_grant!()
        ),
        insert_grant: "INSERT INTO grants (account, realm, account_id, generation, first_generation, refresh_sealed, \
                       access_sealed, access_expires_at, refreshed_at, obtained_at, route_domain, route_path, \
                       route_discovered_at, intent_at) \
                       VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        fallback_base: "SELECT refresh_sealed, CASE WHEN first_generation <= $3 THEN 1::bigint ELSE 0 END FROM grants \
                        WHERE account = $1 AND realm = $2 FOR NO KEY UPDATE",
        forgets_fallbacks: false,
        // Noted anew, so that every gateway reads it.
        rename_last_seen: "UPDATE last_seen SET name = $2, noted_at = clock_timestamp() \
                           WHERE name = $1 AND kind = 'account'",
        rotate_logins: rotation_queries!("pending_logins", "encode(id, 'hex')", "kind", "payload_sealed"),
    };

    async fn begin(&self, purpose: Purpose) -> Result<PgTransaction<'_>, StoreError> {
        match purpose {
            Purpose::Write | Purpose::WriteOnce | Purpose::Read => self.pool.begin().await,
            Purpose::ReadAll => self.pool.begin_long().await,
        }
    }

    fn keys(&self) -> &SealKeys {
        &self.keys
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl SqlConnection for PgTransaction<'_> {
    type Row = PgRow;

    async fn execute(&mut self, sql: &'static str, values: &[SqlValue<'_>]) -> Result<u64, StoreError> {
        let done = bound(sql, values).execute(&mut **self).await.map_err(store_error)?;
        Ok(done.rows_affected())
    }

    async fn execute_unless_taken(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> Result<bool, StoreError> {
        match bound(sql, values).execute(&mut **self).await {
            Ok(_) => Ok(true),
            Err(error) if is_unique_violation(&error) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn fetch(&mut self, sql: &'static str, values: &[SqlValue<'_>]) -> Result<Vec<PgRow>, StoreError> {
        bound(sql, values).fetch_all(&mut **self).await.map_err(store_error)
    }

    async fn fetch_each(
        &mut self,
        sql: &'static str,
        take: &mut (dyn FnMut(&PgRow) + Send),
    ) -> Result<(), StoreError> {
        let mut rows = query(sql).fetch(&mut **self);
        while let Some(row) = rows.try_next().await.map_err(store_error)? {
            take(&row);
        }
        Ok(())
    }

    async fn insert_known_tokens(
        &mut self,
        account: &AccountName,
        hashes: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO known_tokens (hash, account) SELECT DISTINCT hash, $1::text FROM unnest($2::bytea[]) AS hash \
             ON CONFLICT (hash) DO UPDATE SET account = excluded.account",
        )
        .bind(account.as_str())
        .bind(hashes.iter().map(|hash| hash.to_vec()).collect::<Vec<_>>())
        .execute(&mut **self)
        .await
        .map_err(store_error)?;
        Ok(())
    }

    async fn insert_journal(
        &mut self,
        account: &AccountName,
        lines: &[(i64, &JournalEntry)],
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO journal (at, account, event, detail) SELECT line.at, $1, line.event, line.detail \
             FROM unnest($2::bigint[], $3::text[], $4::text[]) WITH ORDINALITY \
             AS line (at, event, detail, number) ORDER BY line.number",
        )
        .bind(account.as_str())
        .bind(lines.iter().map(|(at, _)| *at).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, line)| line.event.clone()).collect::<Vec<_>>())
        .bind(lines.iter().map(|(_, line)| line.detail.clone()).collect::<Vec<_>>())
        .execute(&mut **self)
        .await
        .map_err(store_error)?;
        Ok(())
    }
}

impl SqlTransaction for PgTransaction<'_> {
    async fn commit(self) -> Result<(), StoreError> {
        PgTransaction::commit(self).await
    }

    async fn rollback(self) -> Result<(), StoreError> {
        PgTransaction::rollback(self).await
    }
}

fn bound(sql: &'static str, values: &[SqlValue<'_>]) -> Query<'static, Postgres, PgArguments> {
    values.iter().fold(query(sql), |query, value| match *value {
        SqlValue::Text(text) => query.bind(text.map(str::to_owned)),
        SqlValue::Number(number) => query.bind(number),
        SqlValue::Bytes(bytes) => query.bind(bytes.map(<[u8]>::to_vec)),
        SqlValue::Flag(flag) => query.bind(flag),
    })
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refused| refused.code());
    code.is_some_and(|code| code == UNIQUE_VIOLATION)
}
