//! How the shared statements reach SQLite, and what it spells differently.
//!
//! Statements whose success matters run to their end by `execute`: a `RETURNING` read with `fetch_optional`
//! is reset early, and the failure of its commit would go unseen.

use futures_util::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteRow};

use super::connection::SqliteTransaction;
use super::{SqliteStore, store_error};
use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::seal::SealKeys;
use crate::store::sql::grants::replace_grant;
use crate::store::sql::rotation::rotation_queries;
use crate::store::sql::{Dialect, Purpose, SqlConnection, SqlDatabase, SqlTransaction, SqlValue, values};
use crate::store::{JournalEntry, StoreError};

impl SqlDatabase for SqliteStore {
    type Transaction<'a> = SqliteTransaction<'a>;

    const DIALECT: Dialect = Dialect {
        // The write lock is taken with `BEGIN`.
        lock_account: &[],
        generation: "SELECT generation FROM grants WHERE account = $1 AND realm = $2",
        put_grant: concat!(
            "INSERT INTO grants AS old (account, realm, account_id, generation, refresh_sealed, access_sealed, ",
            "access_expires_at, obtained_at, route_domain, route_path, route_discovered_at, refreshed_at) ",
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13) ",
            "ON CONFLICT (account, realm) DO UPDATE SET ",
            replace_grant!()
        ),
        insert_grant: "INSERT INTO grants (account, realm, account_id, generation, refresh_sealed, access_sealed, \
                       access_expires_at, refreshed_at, obtained_at, route_domain, route_path, route_discovered_at, \
                       intent_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        // One process has no losers of a race, so what is kept belongs to the generation that is in force.
        fallback_base: "SELECT refresh_sealed, CASE WHEN generation = $3 THEN 1 ELSE 0 END FROM grants \
                        WHERE account = $1 AND realm = $2",
        forgets_fallbacks: true,
        rename_last_seen: "UPDATE last_seen SET name = $2 WHERE name = $1 AND kind = 'account'",
        rotate_logins: rotation_queries!("pending_logins", "lower(hex(id))", "kind", "payload_sealed"),
    };

    async fn begin(&self, purpose: Purpose) -> Result<SqliteTransaction<'_>, StoreError> {
        let begun = match purpose {
            Purpose::Write => self.writer.begin().await,
            Purpose::WriteOnce => self.writer.begin_single().await,
            Purpose::Read | Purpose::ReadAll => self.reader.begin_single().await,
        };
        begun.map_err(store_error)
    }

    fn keys(&self) -> &SealKeys {
        &self.keys
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl SqlConnection for SqliteTransaction<'_> {
    type Row = SqliteRow;

    async fn execute(&mut self, sql: &'static str, values: &[SqlValue<'_>]) -> Result<u64, StoreError> {
        let done = bound(sql, values).execute(&mut **self).await.map_err(store_error)?;
        Ok(done.rows_affected())
    }

    /// Nobody else writes at the same moment.
    async fn execute_unless_taken(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> Result<bool, StoreError> {
        self.execute(sql, values).await.map(|_| true)
    }

    async fn fetch(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        bound(sql, values).fetch_all(&mut **self).await.map_err(store_error)
    }

    async fn fetch_each(
        &mut self,
        sql: &'static str,
        take: &mut (dyn FnMut(&SqliteRow) + Send),
    ) -> Result<(), StoreError> {
        let mut rows = sqlx::query(sql).fetch(&mut **self);
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
        for hash in hashes {
            let sql = "INSERT INTO known_tokens (hash, account) VALUES ($1, $2) \
                       ON CONFLICT (hash) DO UPDATE SET account = excluded.account";
            self.execute(sql, values![hash.as_slice(), account]).await?;
        }
        Ok(())
    }

    async fn insert_journal(
        &mut self,
        account: &AccountName,
        lines: &[(i64, &JournalEntry)],
    ) -> Result<(), StoreError> {
        for (at, line) in lines {
            let sql = "INSERT INTO journal (at, account, event, detail) VALUES ($1, $2, $3, $4)";
            self.execute(sql, values![*at, account, &*line.event, &*line.detail]).await?;
        }
        Ok(())
    }
}

impl SqlTransaction for SqliteTransaction<'_> {
    async fn commit(self) -> Result<(), StoreError> {
        SqliteTransaction::commit(self).await.map_err(store_error)
    }

    async fn rollback(self) -> Result<(), StoreError> {
        // Whoever takes the connection next does it.
        drop(self);
        Ok(())
    }
}

fn bound(sql: &'static str, values: &[SqlValue<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    values.iter().fold(sqlx::query(sql), |query, value| match *value {
        SqlValue::Text(text) => query.bind(text.map(str::to_owned)),
        SqlValue::Number(number) => query.bind(number),
        SqlValue::Bytes(bytes) => query.bind(bytes.map(<[u8]>::to_vec)),
        SqlValue::Flag(flag) => query.bind(flag),
    })
}
