//! The journal, which any replica writes and answers from, and the heartbeat that shows whether the database takes writes.

use super::{PostgresStore, query, store_error};
use crate::model::account::AccountName;
use crate::store::rows::read_journal;
use crate::store::{JournalEntry, StoreError};

impl PostgresStore {
    pub(super) async fn add_to_journal(&self, entry: JournalEntry) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        query("INSERT INTO journal (at, account, event, detail) VALUES ($1, $2, $3, $4)")
            .bind(self.stored(entry.at))
            .bind(entry.account.as_str())
            .bind(entry.event)
            .bind(entry.detail)
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await
    }

    pub(super) async fn read_journal(
        &self,
        account: Option<&AccountName>,
        limit: u32,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let query = match account {
            Some(account) => query(
                "SELECT at, account, event, detail FROM journal WHERE account = $1 ORDER BY id DESC LIMIT $2",
            )
            .bind(account.as_str()),
            None => {
                query("SELECT at, account, event, detail FROM journal ORDER BY at DESC, id DESC LIMIT $1")
            }
        };
        let mut tx = self.pool.begin().await?;
        let lines = query.bind(i64::from(limit)).fetch_all(&mut *tx).await.map_err(store_error)?;
        tx.commit().await?;
        // A line that somebody changed so that it does not read is left out; the others still tell.
        Ok(lines.iter().filter_map(|row| read_journal(row, &self.clock).ok()).collect())
    }

    pub(super) async fn write_heartbeat(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        query("INSERT INTO heartbeat (only_row, at) VALUES (1, $1) ON CONFLICT (only_row) DO UPDATE SET at = excluded.at")
            .bind(self.stored(self.clock.now()))
            .execute(&mut *tx)
            .await
            .map_err(store_error)?;
        tx.commit().await
    }
}
