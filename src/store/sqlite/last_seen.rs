//! Last-seen rows: they outlive a restart, so that an account gone quiet shows as such.

use super::{SqliteStore, store_error};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::last_seen::{BATCH, LastSeenPage, LastSeenRecord, LastSeenRow};

impl SqliteStore {
    pub(super) async fn write_last_seen(&self, seen: &[LastSeenRecord]) -> Result<(), StoreError> {
        for seen in seen.chunks(BATCH) {
            let rows: Vec<LastSeenRow> = seen.iter().map(|seen| seen.row(&self.clock)).collect();
            let rows = serde_json::to_string(&rows)
                .map_err(|error| StoreError::Unavailable(error.to_string().into()))?;
            // One statement for all: each costs a way to SQLite's own thread and back.
            sqlx::query(
                "INSERT INTO last_seen (kind, name, call_at, success_at, refusal, refusal_at, list_links, list_at, download_at) \
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8 \
                 FROM json_each(?1) \
                 WHERE value ->> 0 <> 'account' OR EXISTS (SELECT 1 FROM accounts WHERE name = value ->> 1) \
                 ON CONFLICT (kind, name) DO UPDATE SET \
                 call_at = max(call_at, excluded.call_at), success_at = max(success_at, excluded.success_at), \
                 refusal = CASE WHEN excluded.refusal_at > refusal_at THEN excluded.refusal ELSE refusal END, \
                 refusal_at = max(refusal_at, excluded.refusal_at), \
                 list_links = CASE WHEN excluded.list_at > list_at THEN excluded.list_links ELSE list_links END, \
                 list_at = max(list_at, excluded.list_at), download_at = max(download_at, excluded.download_at)",
            )
            .bind(rows)
            .execute(&mut *self.writer.lock().await.map_err(store_error)?)
            .await
            .map_err(store_error)?;
        }
        Ok(())
    }

    /// All of it: nobody else writes here, so it is asked once.
    pub(super) async fn read_last_seen(&self) -> Result<LastSeenPage, StoreError> {
        let mut conn = self.reader.lock().await.map_err(store_error)?;
        let rows: Vec<LastSeenRow> = sqlx::query_as(
            "SELECT kind, name, call_at, success_at, refusal, refusal_at, list_links, list_at, download_at FROM last_seen",
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(store_error)?;
        let seen = rows.into_iter().filter_map(|row| LastSeenRecord::of_row(row, &self.clock)).collect();
        Ok(LastSeenPage { seen, up_to: Timestamp::default() })
    }
}
