//! Moments that lie in the future of the database's clock, set down to now.

use super::{PostgresStore, query, scalar, store_error};
use crate::store::rows::{FUTURE_MILLIS, clamped_accounts};
use crate::store::{ClampedAccount, StoreError};

impl PostgresStore {
    /// Accounts before grants, in order of name: no two gateways that start together wait for each other
    /// crosswise.
    pub(super) async fn clamp_future_rows(&self) -> Result<Vec<ClampedAccount>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let now: i64 = scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&mut *tx)
            .await
            .map_err(store_error)?;
        let beyond = now.saturating_add(FUTURE_MILLIS);
        query("UPDATE accounts SET since = $1 WHERE since > $2")
            .bind(now)
            .bind(beyond)
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        let ahead: Vec<(String, i64)> = sqlx::query_as(
            "SELECT account, greatest(obtained_at, refreshed_at) - $1 FROM grants WHERE obtained_at > $2 OR refreshed_at > $2 \
             ORDER BY account, realm FOR NO KEY UPDATE",
        )
        .persistent(false)
        .bind(now)
        .bind(beyond)
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        for sql in [
            // least() and greatest() pass over NULL, which must stay.
            "UPDATE grants SET access_expires_at = CASE WHEN access_expires_at IS NOT NULL \
             THEN greatest(0, access_expires_at - (greatest(obtained_at, refreshed_at) - $1)) END, \
             obtained_at = least(obtained_at, $1), refreshed_at = CASE WHEN refreshed_at > $1 THEN $1 ELSE refreshed_at END, \
             intent_at = CASE WHEN intent_at > $1 THEN $1 ELSE intent_at END, \
             route_discovered_at = CASE WHEN route_discovered_at > $1 THEN $1 ELSE route_discovered_at END \
             WHERE obtained_at > $2 OR refreshed_at > $2",
            "UPDATE last_seen SET call_at = least(call_at, $1), success_at = least(success_at, $1), refusal_at = least(refusal_at, $1), \
             list_at = least(list_at, $1), download_at = least(download_at, $1), noted_at = least(noted_at, clock_timestamp()) \
             WHERE greatest(call_at, success_at, refusal_at, list_at, download_at) > $2 \
             OR noted_at > to_timestamp($2::double precision / 1000)",
        ] {
            query(sql).bind(now).bind(beyond).execute(&mut *tx).await.map_err(store_error)?;
        }
        tx.commit().await?;
        Ok(clamped_accounts(ahead))
    }
}
