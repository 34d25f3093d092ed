//! Logins under way: single use, expiring, their payload sealed. One that does not unseal is as good as none: the login is begun again.

use super::grants::unsealed;
use super::{SqliteStore, store_error};
use crate::clock::Timestamp;
use crate::store::rows::{hex, kind_word, millis, payload_context, read_login};
use crate::store::{PendingKind, PendingLogin, StoreError};
use sqlx::sqlite::SqliteConnection;

impl SqliteStore {
    pub(super) async fn write_login(&self, login: PendingLogin) -> Result<(), StoreError> {
        let context = hex(&login.id);
        let sealed =
            self.keys.seal(payload_context(&context, login.kind), &login.payload).map_err(unsealed)?;
        let now = self.clock.now();
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let sweep = sqlx::query("DELETE FROM pending_logins WHERE expires_at <= ?");
        sweep.bind(millis(now)).execute(&mut *tx).await.map_err(store_error)?;
        sqlx::query(
            "INSERT INTO pending_logins (id, kind, expires_at, payload_sealed) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE \
             SET kind = excluded.kind, expires_at = excluded.expires_at, payload_sealed = excluded.payload_sealed",
        )
        .bind(login.id.as_slice())
        .bind(kind_word(login.kind))
        .bind(millis(login.expires_at))
        .bind(sealed)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await.map_err(store_error)
    }

    pub(super) async fn read_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        self.find(&mut conn, id, kind, now).await
    }

    /// Whoever's delete hits the row has it; the turn lets nobody in between.
    pub(super) async fn read_and_delete_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let mut conn = self.writer.lock().await.map_err(store_error)?;
        let login = self.find(&mut conn, id, kind, now).await?;
        let taken = sqlx::query("DELETE FROM pending_logins WHERE id = ? AND kind = ? AND expires_at > ?")
            .bind(id.as_slice())
            .bind(kind_word(kind))
            .bind(millis(now))
            .execute(&mut *conn)
            .await
            .map_err(store_error)?;
        Ok(login.filter(|_| taken.rows_affected() > 0))
    }

    async fn find(
        &self,
        connection: &mut SqliteConnection,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let found: Option<(Vec<u8>, String, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT id, kind, expires_at, payload_sealed FROM pending_logins WHERE id = ? AND kind = ? AND expires_at > ?",
        )
        .bind(id.as_slice())
        .bind(kind_word(kind))
        .bind(millis(now))
        .fetch_optional(connection)
        .await
        .map_err(store_error)?;
        Ok(found.and_then(|row| read_login(&self.keys, row)))
    }
}
