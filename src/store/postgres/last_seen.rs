//! Last-seen rows: written by every gateway, each moment only ever forward.

use super::{PostgresStore, query, store_error};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::last_seen::{BATCH, LastSeenPage, LastSeenRecord, LastSeenRow};
use crate::store::rows::millis;

/// A row is seen by others when its transaction commits, which is later than the moment that it carries:
/// longer than any may take.
const OVERLAP_SECONDS: i32 = 15;

impl PostgresStore {
    /// In order of name, so that two gateways never wait for each other crosswise.
    pub(super) async fn write_last_seen(&self, seen: &[LastSeenRecord]) -> Result<(), StoreError> {
        let mut rows: Vec<LastSeenRow> = seen.iter().map(|seen| seen.row(&self.clock)).collect();
        rows.sort();
        for rows in rows.chunks(BATCH) {
            let text =
                |of: fn(&LastSeenRow) -> &String| rows.iter().map(|row| of(row).clone()).collect::<Vec<_>>();
            let number = |of: fn(&LastSeenRow) -> i64| rows.iter().map(of).collect::<Vec<_>>();
            let mut tx = self.pool.begin().await?;
            query(
                "INSERT INTO last_seen AS known (kind, name, call_at, success_at, refusal, refusal_at, list_links, list_at, download_at, noted_at) \
                 SELECT new.kind, new.name, call_at, success_at, refusal, refusal_at, list_links, list_at, download_at, clock_timestamp() \
                 FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) \
                 AS new (kind, name, call_at, success_at, refusal, refusal_at, list_links, list_at, download_at) \
                 WHERE new.kind <> 'account' OR EXISTS (SELECT 1 FROM accounts WHERE accounts.name = new.name COLLATE \"C\") \
                 ORDER BY new.kind COLLATE \"C\", new.name COLLATE \"C\" \
                 ON CONFLICT (kind, name) DO UPDATE SET \
                 call_at = greatest(known.call_at, excluded.call_at), success_at = greatest(known.success_at, excluded.success_at), \
                 refusal = CASE WHEN excluded.refusal_at > known.refusal_at THEN excluded.refusal ELSE known.refusal END, \
                 refusal_at = greatest(known.refusal_at, excluded.refusal_at), \
                 list_links = CASE WHEN excluded.list_at > known.list_at THEN excluded.list_links ELSE known.list_links END, \
                 list_at = greatest(known.list_at, excluded.list_at), download_at = greatest(known.download_at, excluded.download_at), \
                 noted_at = excluded.noted_at",
            )
            .bind(text(|row| &row.0))
            .bind(text(|row| &row.1))
            .bind(number(|row| row.2))
            .bind(number(|row| row.3))
            .bind(number(|row| row.4))
            .bind(number(|row| row.5))
            .bind(number(|row| row.6))
            .bind(number(|row| row.7))
            .bind(number(|row| row.8))
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
            tx.commit().await?;
        }
        Ok(())
    }

    pub(super) async fn read_last_seen(&self, since: Timestamp) -> Result<LastSeenPage, StoreError> {
        let mut tx = self.pool.begin_long().await?;
        let up_to: i64 = super::scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .fetch_one(&mut *tx)
            .await
            .map_err(store_error)?;
        // The database's clock was set back: what was noted since lies before what was read last, so all of
        // it is read again.
        let since = if millis(since) > up_to { Timestamp::default() } else { since };
        let rows: Vec<LastSeenRow> = sqlx::query_as(
            "SELECT kind, name, call_at, success_at, refusal::bigint, refusal_at, list_links::bigint, list_at, download_at FROM last_seen \
             WHERE noted_at > to_timestamp($1::double precision / 1000) - $2 * interval '1 second'",
        )
        .persistent(false)
        .bind(millis(since))
        .bind(OVERLAP_SECONDS)
        .fetch_all(&mut *tx)
        .await
        .map_err(store_error)?;
        tx.commit().await?;
        let up_to = Timestamp::from_millis(u64::try_from(up_to).unwrap_or_default());
        Ok(LastSeenPage {
            seen: rows.into_iter().filter_map(|row| LastSeenRecord::of_row(row, &self.clock)).collect(),
            up_to,
        })
    }
}
