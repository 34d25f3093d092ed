//! PostgreSQL's sealed values, gone through for a new key.

use super::{PostgresStore, SHORT, fault, query, scalar, within};
use crate::store::rotate::{Column, Resealing, SealedValue, Statements};
use crate::store::{Pending, StoreError};

/// A page of values, and the way to replace one of them.
macro_rules! statements {
    ($table:literal, $row:literal, $realm:literal, $sealed:literal) => {
        Statements {
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

fn statements(column: Column) -> Statements {
    match column {
        Column::Refresh => statements!("grants", "account", "realm", "refresh_sealed"),
        Column::Access => statements!("grants", "account", "realm", "access_sealed"),
        Column::Login => statements!("pending_logins", "encode(id, 'hex')", "kind", "payload_sealed"),
        Column::Fallback => statements!("fallbacks", "account", "realm", "refresh_sealed"),
    }
}

impl Resealing for PostgresStore {
    fn sealed_otherwise<'a>(
        &'a self,
        column: Column,
        mark: &'a [u8],
        after: &'a SealedValue,
    ) -> Pending<'a, Vec<SealedValue>> {
        Box::pin(within(SHORT, self.read_sealed(column, mark, after)))
    }

    fn reseal<'a>(&'a self, column: Column, anew: &'a [(SealedValue, Vec<u8>)]) -> Pending<'a, usize> {
        Box::pin(within(SHORT, self.write_sealed(column, anew)))
    }

    fn retire_all_but<'a>(&'a self, key_id: &'a str) -> Pending<'a, Vec<String>> {
        Box::pin(within(SHORT, self.delete_canaries(key_id)))
    }
}

impl PostgresStore {
    async fn read_sealed(
        &self,
        column: Column,
        mark: &[u8],
        after: &SealedValue,
    ) -> Result<Vec<SealedValue>, StoreError> {
        let mut work = self.link.begin().await?;
        let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(statements(column).page)
            .persistent(false)
            .bind(mark)
            .bind(&*after.row)
            .bind(&*after.realm)
            .bind(&*after.sealed)
            .fetch_all(&mut *work)
            .await
            .map_err(fault)?;
        work.commit().await?;
        Ok(rows.into_iter().map(|(row, realm, sealed)| SealedValue { row, realm, sealed }).collect())
    }

    async fn write_sealed(
        &self,
        column: Column,
        anew: &[(SealedValue, Vec<u8>)],
    ) -> Result<usize, StoreError> {
        let mut work = self.link.begin().await?;
        let mut replaced = 0;
        for (old, sealed) in anew {
            let done = query(statements(column).replace)
                .bind(&**sealed)
                .bind(&*old.row)
                .bind(&*old.realm)
                .bind(&*old.sealed)
                .execute(&mut *work)
                .await
                .map_err(fault)?;
            replaced += usize::from(done.rows_affected() > 0);
        }
        work.commit().await?;
        Ok(replaced)
    }

    async fn delete_canaries(&self, but: &str) -> Result<Vec<String>, StoreError> {
        let mut work = self.link.begin().await?;
        let mut retired: Vec<String> = scalar("DELETE FROM seal_keys WHERE key_id <> $1 RETURNING key_id")
            .bind(but)
            .fetch_all(&mut *work)
            .await
            .map_err(fault)?;
        work.commit().await?;
        retired.sort();
        Ok(retired)
    }
}
