//! SQLite's sealed values, gone through for a new key.

use super::{SqliteStore, store_error};
use crate::store::rotate::{RotateSealed, RotationQueries, SealedColumn, SealedValue};
use crate::store::{StoreError, StoreFuture};

/// A page of values, and the way to replace one of them.
macro_rules! statements {
    ($table:literal, $row:literal, $realm:literal, $sealed:literal) => {
        RotationQueries {
            page: concat!(
                "SELECT ",
                $row,
                ", ",
                $realm,
                ", ",
                $sealed,
                " FROM ",
                $table,
                " WHERE ",
                $sealed,
                " IS NOT NULL AND substr(",
                $sealed,
                ", 1, 9) <> ?1",
                " AND (",
                $row,
                ", ",
                $realm,
                ", ",
                $sealed,
                ") > (?2, ?3, ?4) ORDER BY 1, 2, 3 LIMIT 200"
            ),
            replace: concat!(
                "UPDATE ",
                $table,
                " SET ",
                $sealed,
                " = ?1 WHERE ",
                $row,
                " = ?2 AND ",
                $realm,
                " = ?3 AND ",
                $sealed,
                " = ?4"
            ),
        }
    };
}

fn statements(column: SealedColumn) -> Option<RotationQueries> {
    match column {
        SealedColumn::Refresh => Some(statements!("grants", "account", "realm", "refresh_sealed")),
        SealedColumn::Access => Some(statements!("grants", "account", "realm", "access_sealed")),
        SealedColumn::Login => {
            Some(statements!("pending_logins", "lower(hex(id))", "kind", "payload_sealed"))
        }
        SealedColumn::Fallback => Some(statements!("fallbacks", "account", "realm", "refresh_sealed")),
    }
}

impl RotateSealed for SqliteStore {
    fn values_to_reseal<'a>(
        &'a self,
        column: SealedColumn,
        prefix: &'a [u8],
        after: &'a SealedValue,
    ) -> StoreFuture<'a, Vec<SealedValue>> {
        Box::pin(self.read_sealed(column, prefix, after))
    }

    fn reseal<'a>(
        &'a self,
        column: SealedColumn,
        anew: &'a [(SealedValue, Vec<u8>)],
    ) -> StoreFuture<'a, usize> {
        Box::pin(self.write_sealed(column, anew))
    }

    fn retire_keys_except<'a>(&'a self, key_id: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(self.retire_keys(key_id))
    }
}

impl SqliteStore {
    async fn read_sealed(
        &self,
        column: SealedColumn,
        prefix: &[u8],
        after: &SealedValue,
    ) -> Result<Vec<SealedValue>, StoreError> {
        let Some(RotationQueries { page, .. }) = statements(column) else { return Ok(Vec::new()) };
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(page)
            .bind(prefix)
            .bind(&*after.row)
            .bind(&*after.realm)
            .bind(&*after.sealed)
            .fetch_all(&mut *conn)
            .await
            .map_err(store_error)?;
        Ok(rows.into_iter().map(|(row, realm, sealed)| SealedValue { row, realm, sealed }).collect())
    }

    async fn write_sealed(
        &self,
        column: SealedColumn,
        anew: &[(SealedValue, Vec<u8>)],
    ) -> Result<usize, StoreError> {
        let Some(RotationQueries { replace, .. }) = statements(column) else { return Ok(0) };
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let mut replaced = 0;
        for (old, sealed) in anew {
            let done = sqlx::query(replace)
                .bind(&**sealed)
                .bind(&*old.row)
                .bind(&*old.realm)
                .bind(&*old.sealed)
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
            replaced += usize::from(done.rows_affected() > 0);
        }
        tx.commit().await.map_err(store_error)?;
        Ok(replaced)
    }

    async fn retire_keys(&self, but: &str) -> Result<Vec<String>, StoreError> {
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let retired: Vec<String> =
            sqlx::query_scalar("SELECT key_id FROM seal_keys WHERE key_id <> ? ORDER BY 1")
                .bind(but)
                .fetch_all(&mut *tx)
                .await
                .map_err(store_error)?;
        let delete = sqlx::query("DELETE FROM seal_keys WHERE key_id <> ?");
        delete.bind(but).execute(&mut *tx).await.map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(retired)
    }
}
