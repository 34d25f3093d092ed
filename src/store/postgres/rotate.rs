//! PostgreSQL's sealed values, gone through for a new key.

use super::{PostgresStore, SHORT, query, scalar, store_error, within};
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
                " IS NOT NULL AND substring(",
                $sealed,
                " FROM 1 FOR 9) <> $1",
                " AND (",
                $row,
                ", ",
                $realm,
                ", ",
                $sealed,
                ") > ($2, $3, $4) ORDER BY 1, 2, 3 LIMIT 200"
            ),
            replace: concat!(
                "UPDATE ",
                $table,
                " SET ",
                $sealed,
                " = $1 WHERE ",
                $row,
                " = $2 AND ",
                $realm,
                " = $3 AND ",
                $sealed,
                " = $4"
            ),
        }
    };
}

fn statements(column: SealedColumn) -> RotationQueries {
    match column {
        SealedColumn::Refresh => statements!("grants", "account", "realm", "refresh_sealed"),
        SealedColumn::Access => statements!("grants", "account", "realm", "access_sealed"),
        SealedColumn::Login => statements!("pending_logins", "encode(id, 'hex')", "kind", "payload_sealed"),
        SealedColumn::Fallback => statements!("fallbacks", "account", "realm", "refresh_sealed"),
    }
}

impl RotateSealed for PostgresStore {
    fn values_to_reseal<'a>(
        &'a self,
        column: SealedColumn,
        prefix: &'a [u8],
        after: &'a SealedValue,
    ) -> StoreFuture<'a, Vec<SealedValue>> {
        Box::pin(within(SHORT, self.read_sealed(column, prefix, after)))
    }

    fn reseal<'a>(
        &'a self,
        column: SealedColumn,
        anew: &'a [(SealedValue, Vec<u8>)],
    ) -> StoreFuture<'a, usize> {
        Box::pin(within(SHORT, self.write_sealed(column, anew)))
    }

    fn retire_keys_except<'a>(&'a self, key_id: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(within(SHORT, self.retire_keys(key_id)))
    }
}

impl PostgresStore {
    async fn read_sealed(
        &self,
        column: SealedColumn,
        prefix: &[u8],
        after: &SealedValue,
    ) -> Result<Vec<SealedValue>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(statements(column).page)
            .persistent(false)
            .bind(prefix)
            .bind(&*after.row)
            .bind(&*after.realm)
            .bind(&*after.sealed)
            .fetch_all(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(rows.into_iter().map(|(row, realm, sealed)| SealedValue { row, realm, sealed }).collect())
    }

    async fn write_sealed(
        &self,
        column: SealedColumn,
        anew: &[(SealedValue, Vec<u8>)],
    ) -> Result<usize, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut replaced = 0;
        for (old, sealed) in anew {
            let done = query(statements(column).replace)
                .bind(&**sealed)
                .bind(&*old.row)
                .bind(&*old.realm)
                .bind(&*old.sealed)
                .execute(&mut *tx)
                .await
                .map_err(store_error)?;
            replaced += usize::from(done.rows_affected() > 0);
        }
        tx.commit().await?;
        Ok(replaced)
    }

    async fn retire_keys(&self, but: &str) -> Result<Vec<String>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut retired: Vec<String> = scalar("DELETE FROM seal_keys WHERE key_id <> $1 RETURNING key_id")
            .bind(but)
            .fetch_all(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        retired.sort();
        Ok(retired)
    }
}
