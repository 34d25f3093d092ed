//! Logins under way: single use, expiring, their payload sealed; any replica may finish what another began.

use super::queries::unsealed;
use super::{PostgresStore, query, store_error};
use crate::clock::Timestamp;
use crate::store::rows::{hex, kind_word, millis, payload_context, read_login};
use crate::store::{PendingKind, PendingLogin, StoreError};

impl PostgresStore {
    pub(super) async fn write_login(&self, login: PendingLogin) -> Result<(), StoreError> {
        let context = hex(&login.id);
        let sealed =
            self.keys.seal(payload_context(&context, login.kind), &login.payload).map_err(unsealed)?;
        let mut tx = self.pool.begin().await?;
        query("DELETE FROM pending_logins WHERE expires_at <= $1")
            .bind(millis(self.clock.now()))
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        query(
            "INSERT INTO pending_logins (id, kind, expires_at, payload_sealed) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE \
             SET kind = excluded.kind, expires_at = excluded.expires_at, payload_sealed = excluded.payload_sealed",
        )
        .bind(login.id.as_slice())
        .bind(kind_word(login.kind))
        .bind(millis(login.expires_at))
        .bind(sealed)
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await
    }

    pub(super) async fn read_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let sql = "SELECT id, kind, expires_at, payload_sealed FROM pending_logins WHERE id = $1 AND kind = $2 AND expires_at > $3";
        self.find_login(sql, id, kind, now).await
    }

    /// Of two replicas that take the same login, the database gives it to one.
    pub(super) async fn delete_login(
        &self,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let sql = "DELETE FROM pending_logins WHERE id = $1 AND kind = $2 AND expires_at > $3 \
                   RETURNING id, kind, expires_at, payload_sealed";
        self.find_login(sql, id, kind, now).await
    }

    async fn find_login(
        &self,
        sql: &'static str,
        id: [u8; 32],
        kind: PendingKind,
        now: Timestamp,
    ) -> Result<Option<PendingLogin>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut found: Vec<(Vec<u8>, String, i64, Vec<u8>)> = sqlx::query_as(sql)
            .persistent(false)
            .bind(id.as_slice())
            .bind(kind_word(kind))
            .bind(millis(now))
            .fetch_all(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await?;
        Ok(found.pop().and_then(|row| read_login(&self.keys, row)))
    }
}
