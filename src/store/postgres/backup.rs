//! A copy of a PostgreSQL store as JSON lines: a head, one line per row, and a foot that shows whether the
//! file is whole. Rows stand as the database prints them, so a later version fills what it has added with its
//! defaults.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::io::AsyncWriteExt;

use super::pool::PgTransaction;
use super::{PostgresStore, query, scalar, store_error};
use crate::store::backup::{Backup, BackupSink, unreadable};
use crate::store::{StoreError, key_check};

/// In an order in which each refers to earlier ones only. Leases, leaders and the order of changes belong to
/// the moment.
const TABLES: [&str; 10] = [
    "seal_keys",
    "accounts",
    "grants",
    "fallbacks",
    "application_grants",
    "revoked_application_grants",
    "generations",
    "known_tokens",
    "pending_logins",
    "journal",
];
/// What their triggers do was done when the rows were first written.
const TRIGGERED: [&str; 4] = ["accounts", "grants", "application_grants", "journal"];
const FORMAT: u32 = 1;
/// A slow reader must not break it off; everybody else's work goes on beside it.
const LIMITS: &str = "SET LOCAL statement_timeout = '4h'; SET LOCAL lock_timeout = '30s'; \
                      SET LOCAL idle_in_transaction_session_timeout = '10min'";
/// What is written at once.
const CHUNK: usize = 64 * 1024;
/// Rows per statement when they are put back.
const BATCH: usize = 500;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BackupLine {
    Head {
        format: u32,
        taken_at: u64,
    },
    /// The other word was written by builds between 0.1.0 and 0.2.0.
    #[serde(alias = "last_seen_row")]
    Row {
        table: String,
        row: Value,
    },
    Foot {
        rows: u64,
        sha256: String,
    },
}

impl PostgresStore {
    /// Everything is of one moment; gateways go on meanwhile.
    pub(super) async fn write_backup(&self, out: BackupSink<'_>) -> Result<u64, StoreError> {
        let mut out = ChecksumWriter { out, pending: Vec::new(), sum: Context::new(&SHA256) };
        let head = BackupLine::Head {
            format: FORMAT,
            taken_at: self.clock.time_of_day(self.clock.now()).as_millis(),
        };
        out.write(&head).await?;
        let mut tx = self.pool.begin_snapshot(LIMITS).await?;
        let (mut rows, mut accounts) = (0, 0);
        for table in TABLES {
            let sql = format!("SELECT to_jsonb(it)::text FROM {table} it");
            let mut found = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch(&mut *tx);
            while let Some(text) = found.try_next().await.map_err(store_error)? {
                let text: String = text;
                let row = serde_json::from_str(&text).map_err(|error| lost(error.into()))?;
                out.write(&BackupLine::Row { table: table.to_owned(), row }).await?;
                rows += 1;
                accounts += u64::from(table == "accounts");
            }
        }
        tx.commit().await?;
        out.finish(rows).await?;
        Ok(accounts)
    }

    /// Fills an empty store from a backup, wholly or not at all. The key that is held must be the backup's.
    /// For a database that no gateway works on yet.
    pub async fn restore(&self, from: &Path) -> Result<Backup, StoreError> {
        let Backup { bytes, .. } = check_backup(from)?;
        let mut tx = self.pool.begin_long().await?;
        self.check_empty(&mut tx).await?;
        query("DELETE FROM seal_keys").execute(&mut *tx).await.map_err(store_error)?;
        switch_triggers(&mut tx, "DISABLE").await?;
        let (mut batch, mut accounts) = (RowBatch::default(), 0);
        for line in lines(from)? {
            let BackupLine::Row { table, row } = read(from, &line?)? else { continue };
            let known = TABLES.into_iter().find(|known| *known == table);
            let table = known.ok_or_else(|| incomplete(from, "it holds a table that is not known"))?;
            if batch.table != table || batch.rows.len() == BATCH {
                batch.write(&mut tx).await?;
                batch.table = table;
            }
            batch.rows.push(row);
            accounts += u64::from(table == "accounts");
        }
        batch.write(&mut tx).await?;
        switch_triggers(&mut tx, "ENABLE").await?;
        for table in ["fallbacks", "journal"] {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), coalesce(max(id), 0) + 1, false) FROM {table}"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.map_err(store_error)?;
        }
        self.verify_restored(&mut tx).await?;
        tx.commit().await?;
        Ok(Backup { accounts, bytes })
    }

    async fn check_empty(&self, tx: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        let filled: bool = scalar("SELECT EXISTS (SELECT 1 FROM accounts) OR EXISTS (SELECT 1 FROM journal)")
            .fetch_one(&mut **tx)
            .await
            .map_err(store_error)?;
        if filled {
            let why = "the store is not empty; a backup is put back into an empty database";
            return Err(StoreError::Refused(why.to_owned()));
        }
        Ok(())
    }

    /// What the backup holds must open here.
    async fn verify_restored(&self, tx: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        let key_checks: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT key_id, canary_sealed FROM seal_keys")
                .persistent(false)
                .fetch_all(&mut **tx)
                .await
                .map_err(store_error)?;
        if let Some(key_check) = key_check::verify(&self.keys, &key_checks, true, "the backup")? {
            query("INSERT INTO seal_keys (key_id, canary_sealed) VALUES ($1, $2)")
                .bind(key_check.key_id)
                .bind(key_check.sealed)
                .execute(&mut **tx)
                .await
                .map_err(store_error)?;
        }
        Ok(())
    }
}

async fn switch_triggers(tx: &mut PgTransaction<'_>, switch: &str) -> Result<(), StoreError> {
    for table in TRIGGERED {
        let sql = format!("ALTER TABLE {table} {switch} TRIGGER USER");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await.map_err(store_error)?;
    }
    Ok(())
}

/// Before anything is done with it: every line reads, and the foot knows them all.
pub fn check_backup(from: &Path) -> Result<Backup, StoreError> {
    let (mut sum, mut rows, mut bytes, mut complete) = (Context::new(&SHA256), 0, 0, false);
    let mut accounts = 0;
    for line in lines(from)? {
        let line = line?;
        match read(from, &line)? {
            BackupLine::Head { format: FORMAT, .. } => {}
            BackupLine::Head { .. } => return Err(incomplete(from, "it was written by a newer version")),
            BackupLine::Row { table, .. } => {
                rows += 1;
                accounts += u64::from(table == "accounts");
            }
            BackupLine::Foot { rows: counted, sha256 } => {
                complete = counted == rows && sha256 == sha256_hex(&sum)
            }
        }
        sum.update(line.as_bytes());
        sum.update(b"\n");
        bytes += line.len() as u64 + 1;
    }
    if complete {
        Ok(Backup { accounts, bytes })
    } else {
        Err(incomplete(from, "it ends early, or was changed"))
    }
}

fn lines(from: &Path) -> Result<impl Iterator<Item = Result<String, StoreError>>, StoreError> {
    let unreadable = |error: std::io::Error| unreadable(from, &error);
    let file = File::open(from).map_err(unreadable)?;
    Ok(BufReader::new(file).lines().map(move |line| line.map_err(unreadable)))
}

fn read(from: &Path, line: &str) -> Result<BackupLine, StoreError> {
    serde_json::from_str(line).map_err(|_| incomplete(from, "a line does not read"))
}

fn incomplete(from: &Path, why: &str) -> StoreError {
    StoreError::Refused(format!("{} is no whole backup: {why}", from.display()))
}

/// Lines that are summed up while they are written.
struct ChecksumWriter<'a> {
    out: BackupSink<'a>,
    pending: Vec<u8>,
    sum: Context,
}

impl ChecksumWriter<'_> {
    async fn write(&mut self, line: &BackupLine) -> Result<(), StoreError> {
        let from = self.pending.len();
        serde_json::to_writer(&mut self.pending, line).map_err(|error| lost(error.into()))?;
        self.pending.push(b'\n');
        self.sum.update(&self.pending[from..]);
        match self.pending.len() {
            0..CHUNK => Ok(()),
            _ => self.hand_over().await,
        }
    }

    async fn finish(mut self, rows: u64) -> Result<(), StoreError> {
        let sha256 = sha256_hex(&self.sum);
        self.write(&BackupLine::Foot { rows, sha256 }).await?;
        self.hand_over().await
    }

    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let handed = self.out.write_all(&self.pending).await;
        self.pending.clear();
        handed.map_err(lost)
    }
}

fn lost(error: std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("the backup could not be handed over: {error}").into())
}

/// Rows of one table that go in together.
#[derive(Default)]
struct RowBatch {
    table: &'static str,
    rows: Vec<Value>,
}

impl RowBatch {
    async fn write(&mut self, tx: &mut PgTransaction<'_>) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        let Some(first) = rows.first() else { return Ok(()) };
        let table = self.table;
        let columns = shared_columns(tx, table, first).await?;
        let (into, filled) = (columns.join(", "), columns.join(", filled."));
        let sql = format!(
            "INSERT INTO {table} ({into}) OVERRIDING SYSTEM VALUE SELECT filled.{filled} \
             FROM jsonb_array_elements($1::jsonb) AS line, jsonb_populate_record(NULL::{table}, line) AS filled"
        );
        let rows = Value::Array(rows);
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .bind(rows.to_string())
            .execute(&mut **tx)
            .await
            .map_err(store_error)?;
        Ok(())
    }
}

/// The table's columns that a backup's rows have too, quoted; all rows of a table have the same. The others
/// get their defaults.
async fn shared_columns(
    tx: &mut PgTransaction<'_>,
    table: &'static str,
    row: &Value,
) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT quote_ident(attname::text) FROM pg_attribute WHERE attrelid = $1::text::regclass \
               AND attnum > 0 AND NOT attisdropped AND jsonb_exists($2::jsonb, attname::text) ORDER BY attnum";
    let found = sqlx::query_scalar(sql).persistent(false).bind(table).bind(row.to_string());
    found.fetch_all(&mut **tx).await.map_err(store_error)
}

fn sha256_hex(sum: &Context) -> String {
    hex::encode(sum.clone().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_backup_are_those_of_the_first_version() {
        let row = BackupLine::Row { table: "accounts".to_owned(), row: serde_json::json!({"name": "smile"}) };
        let first = r#"{"row":{"table":"accounts","row":{"name":"smile"}}}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), first);
        for (text, word) in
            [(first.to_owned(), "row"), (first.replacen("row", "last_seen_row", 1), "last_seen_row")]
        {
            let read = serde_json::from_str(&text).unwrap();
            assert!(matches!(read, BackupLine::Row { table, .. } if table == "accounts"), "{word}");
        }
        for (text, is_head) in
            [(r#"{"head":{"format":1,"taken_at":7}}"#, true), (r#"{"foot":{"rows":1,"sha256":""}}"#, false)]
        {
            let read: BackupLine = serde_json::from_str(text).unwrap();
            assert_eq!(matches!(read, BackupLine::Head { format: FORMAT, .. }), is_head);
        }
    }
}
