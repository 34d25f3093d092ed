//! The journal, and the row that is written to see whether the database takes writes.

use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, values};
use crate::clock::Clock;
use crate::model::account::AccountName;
use crate::store::rows::read_journal;
use crate::store::{JournalEntry, StoreError};

pub async fn append<D: SqlDatabase>(db: &D, entry: &JournalEntry) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "INSERT INTO journal (at, account, event, detail) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, values![db.stored(entry.at), &entry.account, &*entry.event, &*entry.detail]).await?;
    tx.commit().await
}

/// Newest first. Lines that were moved from another store were written account by account, so over all
/// accounts the time decides.
pub async fn read<D: SqlDatabase>(
    db: &D,
    account: Option<&AccountName>,
    limit: u32,
) -> Result<Vec<JournalEntry>, StoreError> {
    let limit = i64::from(limit);
    let mut tx = db.begin(Purpose::Read).await?;
    let lines = match account {
        Some(account) => {
            let sql =
                "SELECT at, account, event, detail FROM journal WHERE account = $1 ORDER BY id DESC LIMIT $2";
            tx.fetch(sql, values![account, limit]).await?
        }
        None => {
            let sql = "SELECT at, account, event, detail FROM journal ORDER BY at DESC, id DESC LIMIT $1";
            tx.fetch(sql, values![limit]).await?
        }
    };
    tx.commit().await?;
    // A line that somebody changed so that it does not read is left out; the others still tell.
    Ok(lines.iter().filter_map(|row| read_journal(row, db.clock()).ok()).collect())
}

/// All of an account's lines, oldest first.
pub async fn of_account(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    clock: &Clock,
) -> Result<Vec<JournalEntry>, StoreError> {
    let sql = "SELECT at, account, event, detail FROM journal WHERE account = $1 ORDER BY id";
    let lines = tx.fetch(sql, values![name]).await?;
    Ok(lines.iter().filter_map(|row| read_journal(row, clock).ok()).collect())
}

pub async fn write_heartbeat<D: SqlDatabase>(db: &D) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "INSERT INTO heartbeat (only_row, at) VALUES (1, $1) \
               ON CONFLICT (only_row) DO UPDATE SET at = excluded.at";
    tx.execute(sql, values![db.stored(db.clock().now())]).await?;
    tx.commit().await
}
