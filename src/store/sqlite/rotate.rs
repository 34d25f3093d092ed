//! SQLite's sealed values, gone through for a new key.

use super::{SqliteStore, fault};
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

fn statements(column: Column) -> Option<Statements> {
    match column {
        Column::Refresh => Some(statements!("grants", "account", "realm", "refresh_sealed")),
        Column::Access => Some(statements!("grants", "account", "realm", "access_sealed")),
        Column::Login => Some(statements!("pending_logins", "lower(hex(id))", "kind", "payload_sealed")),
        Column::Fallback => Some(statements!("fallbacks", "account", "realm", "refresh_sealed")),
    }
}

impl Resealing for SqliteStore {
    fn sealed_otherwise<'a>(
        &'a self,
        column: Column,
        mark: &'a [u8],
        after: &'a SealedValue,
    ) -> Pending<'a, Vec<SealedValue>> {
        Box::pin(self.read_sealed(column, mark, after))
    }

    fn reseal<'a>(&'a self, column: Column, anew: &'a [(SealedValue, Vec<u8>)]) -> Pending<'a, usize> {
        Box::pin(self.write_sealed(column, anew))
    }

    fn retire_all_but<'a>(&'a self, key_id: &'a str) -> Pending<'a, Vec<String>> {
        Box::pin(self.delete_canaries(key_id))
    }
}

impl SqliteStore {
    async fn read_sealed(
        &self,
        column: Column,
        mark: &[u8],
        after: &SealedValue,
    ) -> Result<Vec<SealedValue>, StoreError> {
        let Some(Statements { page, .. }) = statements(column) else { return Ok(Vec::new()) };
        let mut turn = self.reader.turn().await.map_err(fault)?;
        let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(page)
            .bind(mark)
            .bind(&*after.row)
            .bind(&*after.realm)
            .bind(&*after.sealed)
            .fetch_all(&mut *turn)
            .await
            .map_err(fault)?;
        Ok(rows.into_iter().map(|(row, realm, sealed)| SealedValue { row, realm, sealed }).collect())
    }

    async fn write_sealed(
        &self,
        column: Column,
        anew: &[(SealedValue, Vec<u8>)],
    ) -> Result<usize, StoreError> {
        let Some(Statements { replace, .. }) = statements(column) else { return Ok(0) };
        let mut work = self.writer.begin().await.map_err(fault)?;
        let mut replaced = 0;
        for (old, sealed) in anew {
            let done = sqlx::query(replace)
                .bind(&**sealed)
                .bind(&*old.row)
                .bind(&*old.realm)
                .bind(&*old.sealed)
                .execute(&mut *work)
                .await
                .map_err(fault)?;
            replaced += usize::from(done.rows_affected() > 0);
        }
        work.commit().await.map_err(fault)?;
        Ok(replaced)
    }

    async fn delete_canaries(&self, but: &str) -> Result<Vec<String>, StoreError> {
        let mut work = self.writer.begin().await.map_err(fault)?;
        let retired: Vec<String> =
            sqlx::query_scalar("SELECT key_id FROM seal_keys WHERE key_id <> ? ORDER BY 1")
                .bind(but)
                .fetch_all(&mut *work)
                .await
                .map_err(fault)?;
        let delete = sqlx::query("DELETE FROM seal_keys WHERE key_id <> ?");
        delete.bind(but).execute(&mut *work).await.map_err(fault)?;
        work.commit().await.map_err(fault)?;
        Ok(retired)
    }
}
