//! Moments that lie in the future, set down to now.

use super::{SqliteStore, store_error};
use crate::store::rows::{FUTURE_MILLIS, clamped_accounts};
use crate::store::sql::SqlDatabase;
use crate::store::{ClampedAccount, StoreError};

impl SqliteStore {
    pub(super) async fn clamp_future_rows(&self) -> Result<Vec<ClampedAccount>, StoreError> {
        let now = self.stored(self.clock.now());
        let beyond = now.saturating_add(FUTURE_MILLIS);
        let mut tx = self.writer.begin().await.map_err(store_error)?;
        let ahead: Vec<(String, i64)> = sqlx::query_as(
            "SELECT account, max(obtained_at, ifnull(refreshed_at, 0)) - ?1 FROM grants WHERE obtained_at > ?2 OR refreshed_at > ?2",
        )
        .bind(now)
        .bind(beyond)
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        for sql in [
            "UPDATE grants SET \
             access_expires_at = max(0, access_expires_at - (max(obtained_at, ifnull(refreshed_at, 0)) - ?1)), \
             obtained_at = min(obtained_at, ?1), refreshed_at = min(refreshed_at, ?1), intent_at = min(intent_at, ?1), \
             route_discovered_at = min(route_discovered_at, ?1) WHERE obtained_at > ?2 OR refreshed_at > ?2",
            "UPDATE accounts SET since = ?1 WHERE since > ?2",
            "UPDATE last_seen SET call_at = min(call_at, ?1), success_at = min(success_at, ?1), refusal_at = min(refusal_at, ?1), \
             list_at = min(list_at, ?1), download_at = min(download_at, ?1) \
             WHERE max(call_at, success_at, refusal_at, list_at, download_at) > ?2",
        ] {
            sqlx::query(sql).bind(now).bind(beyond).execute(&mut *tx).await.map_err(store_error)?;
        }
        tx.commit().await.map_err(store_error)?;
        Ok(clamped_accounts(ahead))
    }
}
