//! Pending logins: single use, expiring, their payload sealed. One that does not unseal is as good as none:
//! the login is begun again. On a shared store any gateway may finish what another began.

use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, seal_failed, values};
use crate::clock::Timestamp;
use crate::store::rows::{kind_word, millis, payload_context, read_login};
use crate::store::{PendingKind, PendingLogin, StoreError};

pub async fn put<D: SqlDatabase>(db: &D, login: &PendingLogin) -> Result<(), StoreError> {
    let row = hex::encode(login.id);
    let sealed = db.keys().seal(payload_context(&row, login.kind), &login.payload).map_err(seal_failed)?;
    let mut tx = db.begin(Purpose::Write).await?;
    let sweep = "DELETE FROM pending_logins WHERE expires_at <= $1";
    tx.execute(sweep, values![millis(db.clock().now())]).await?;
    let sql = "INSERT INTO pending_logins (id, kind, expires_at, payload_sealed) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, expires_at = excluded.expires_at, \
               payload_sealed = excluded.payload_sealed";
    let values = values![login.id.as_slice(), kind_word(login.kind), millis(login.expires_at), &sealed];
    tx.execute(sql, values).await?;
    tx.commit().await
}

pub async fn peek<D: SqlDatabase>(
    db: &D,
    id: [u8; 32],
    kind: PendingKind,
    now: Timestamp,
) -> Result<Option<PendingLogin>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let found = find(db, &mut tx, id, kind, now).await?;
    tx.commit().await?;
    Ok(found)
}

/// Of two that take the same login at once, the database lets one delete it.
pub async fn take<D: SqlDatabase>(
    db: &D,
    id: [u8; 32],
    kind: PendingKind,
    now: Timestamp,
) -> Result<Option<PendingLogin>, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    let found = find(db, &mut tx, id, kind, now).await?;
    let sql = "DELETE FROM pending_logins WHERE id = $1 AND kind = $2 AND expires_at > $3";
    let deleted = tx.execute(sql, values![id.as_slice(), kind_word(kind), millis(now)]).await?;
    tx.commit().await?;
    Ok(found.filter(|_| deleted > 0))
}

async fn find<D: SqlDatabase>(
    db: &D,
    tx: &mut D::Transaction<'_>,
    id: [u8; 32],
    kind: PendingKind,
    now: Timestamp,
) -> Result<Option<PendingLogin>, StoreError> {
    let sql = "SELECT id, kind, expires_at, payload_sealed FROM pending_logins \
               WHERE id = $1 AND kind = $2 AND expires_at > $3";
    let rows = tx.fetch(sql, values![id.as_slice(), kind_word(kind), millis(now)]).await?;
    Ok(rows.first().and_then(|row| read_login(db.keys(), row)))
}

pub async fn all<D: SqlDatabase>(db: &D) -> Result<Vec<PendingLogin>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let sql = "SELECT id, kind, expires_at, payload_sealed FROM pending_logins ORDER BY id";
    let rows = tx.fetch(sql, values![]).await?;
    tx.commit().await?;
    Ok(rows.iter().filter_map(|row| read_login(db.keys(), row)).collect())
}
