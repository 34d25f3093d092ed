//! Sealed values, gone through for a new key.

use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, texts, unreadable, values};
use crate::store::StoreError;
use crate::store::rotate::{RotationQueries, SealedColumn, SealedValue};
use crate::store::rows::RowColumns;

/// A page of values, and the way to replace one of them.
macro_rules! rotation_queries {
    ($table:literal, $row:literal, $realm:literal, $sealed:literal) => {
        $crate::store::rotate::RotationQueries {
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
                ", 1, 9) <> $1 AND (",
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
pub(in crate::store) use rotation_queries;

fn queries<D: SqlDatabase>(column: SealedColumn) -> RotationQueries {
    match column {
        SealedColumn::Refresh => rotation_queries!("grants", "account", "realm", "refresh_sealed"),
        SealedColumn::Access => rotation_queries!("grants", "account", "realm", "access_sealed"),
        SealedColumn::Fallback => rotation_queries!("fallbacks", "account", "realm", "refresh_sealed"),
        SealedColumn::Login => D::DIALECT.rotate_logins,
        SealedColumn::ApplicationGrant => {
            rotation_queries!("application_grants", "account", "caller", "refresh_sealed")
        }
        SealedColumn::CallbackUrl => {
            rotation_queries!("application_grants", "account", "caller", "callback_url_sealed")
        }
    }
}

pub async fn page<D: SqlDatabase>(
    db: &D,
    column: SealedColumn,
    prefix: &[u8],
    after: &SealedValue,
) -> Result<Vec<SealedValue>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let values = values![prefix, &*after.row, &*after.realm, &after.sealed];
    let rows = tx.fetch(queries::<D>(column).page, values).await?;
    tx.commit().await?;
    rows.iter().map(|row| sealed_value(row).map_err(unreadable)).collect()
}

fn sealed_value(row: &impl RowColumns) -> Result<SealedValue, String> {
    Ok(SealedValue {
        row: row.text(0)?.unwrap_or_default().to_owned(),
        realm: row.text(1)?.unwrap_or_default().to_owned(),
        sealed: row.bytes(2)?.unwrap_or_default().to_vec(),
    })
}

/// Says how many were still the same.
pub async fn replace<D: SqlDatabase>(
    db: &D,
    column: SealedColumn,
    anew: &[(SealedValue, Vec<u8>)],
) -> Result<usize, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    let mut replaced = 0;
    for (old, sealed) in anew {
        let values = values![sealed, &*old.row, &*old.realm, &old.sealed];
        replaced += usize::from(tx.execute(queries::<D>(column).replace, values).await? > 0);
    }
    tx.commit().await?;
    Ok(replaced)
}

/// Says which.
pub async fn retire_keys_except<D: SqlDatabase>(db: &D, key_id: &str) -> Result<Vec<String>, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    let sql = "SELECT key_id FROM seal_keys WHERE key_id <> $1 ORDER BY 1";
    let retired = tx.fetch(sql, values![key_id]).await?;
    tx.execute("DELETE FROM seal_keys WHERE key_id <> $1", values![key_id]).await?;
    tx.commit().await?;
    texts(&retired)
}
