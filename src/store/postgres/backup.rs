//! A copy of a PostgreSQL store as JSON lines: a head, one line per row, and a foot that shows whether the file is whole.
//! Rows stand as the database prints them, so a later version fills what it has added with its defaults.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tokio::io::AsyncWriteExt;

use super::link::Work;
use super::{PostgresStore, fault, query, scalar};
use crate::store::backup::{Backup, Out, unreadable};
use crate::store::{StoreError, canary};

/// In an order in which each refers to earlier ones only. Leases, leaders and the order of changes belong to the moment.
const TABLES: [&str; 8] = [
    "seal_keys",
    "accounts",
    "grants",
    "fallbacks",
    "generations",
    "known_tokens",
    "pending_logins",
    "journal",
];
/// What their triggers do was done when the rows were first written.
const TRIGGERED: [&str; 3] = ["accounts", "grants", "journal"];
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
enum Line {
    Head { format: u32, taken_at: u64 },
    Row { table: String, row: Value },
    Foot { rows: u64, sha256: String },
}

impl PostgresStore {
    /// Everything is of one moment; gateways go on meanwhile.
    pub(super) async fn write_backup(&self, out: Out<'_>) -> Result<u64, StoreError> {
        let mut out = Sum { out, pending: Vec::new(), sum: Context::new(&SHA256) };
        let head =
            Line::Head { format: FORMAT, taken_at: self.clock.time_of_day(self.clock.now()).as_millis() };
        out.write(&head).await?;
        let mut work = self.link.begin_snapshot(LIMITS).await?;
        let (mut rows, mut accounts) = (0, 0);
        for table in TABLES {
            let sql = format!("SELECT to_jsonb(it)::text FROM {table} it");
            let mut found = sqlx::query_scalar(AssertSqlSafe(sql)).persistent(false).fetch(&mut *work);
            while let Some(text) = found.try_next().await.map_err(fault)? {
                let text: String = text;
                let row = serde_json::from_str(&text).map_err(|error| lost(error.into()))?;
                out.write(&Line::Row { table: table.to_owned(), row }).await?;
                rows += 1;
                accounts += u64::from(table == "accounts");
            }
        }
        work.commit().await?;
        out.finish(rows).await?;
        Ok(accounts)
    }

    /// Fills an empty store from a backup, wholly or not at all. The key that is held must be the backup's. For a database that no
    /// gateway works on yet.
    pub async fn restore(&self, from: &Path) -> Result<Backup, StoreError> {
        let Backup { bytes, .. } = check_backup(from)?;
        let mut work = self.link.begin_long().await?;
        self.check_empty(&mut work).await?;
        query("DELETE FROM seal_keys").execute(&mut *work).await.map_err(fault)?;
        switch_triggers(&mut work, "DISABLE").await?;
        let (mut batch, mut accounts) = (Batch::default(), 0);
        for line in lines(from)? {
            let Line::Row { table, row } = read(from, &line?)? else { continue };
            let known = TABLES.into_iter().find(|known| *known == table);
            let table = known.ok_or_else(|| not_whole(from, "it holds a table that is not known"))?;
            if batch.table != table || batch.rows.len() == BATCH {
                batch.write(&mut work).await?;
                batch.table = table;
            }
            batch.rows.push(row);
            accounts += u64::from(table == "accounts");
        }
        batch.write(&mut work).await?;
        switch_triggers(&mut work, "ENABLE").await?;
        for table in ["fallbacks", "journal"] {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), coalesce(max(id), 0) + 1, false) FROM {table}"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *work).await.map_err(fault)?;
        }
        self.prove_restored(&mut work).await?;
        work.commit().await?;
        Ok(Backup { accounts, bytes })
    }

    async fn check_empty(&self, work: &mut Work<'_>) -> Result<(), StoreError> {
        let filled: bool = scalar("SELECT EXISTS (SELECT 1 FROM accounts) OR EXISTS (SELECT 1 FROM journal)")
            .fetch_one(&mut **work)
            .await
            .map_err(fault)?;
        match filled {
            true => Err(StoreError::Refused(
                "the store is not empty; a backup is put back into an empty database".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// What the backup holds must open here.
    async fn prove_restored(&self, work: &mut Work<'_>) -> Result<(), StoreError> {
        let canaries: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT key_id, canary_sealed FROM seal_keys")
            .persistent(false)
            .fetch_all(&mut **work)
            .await
            .map_err(fault)?;
        if let Some(canary) = canary::prove(&self.keys, &canaries, true, "the backup")? {
            query("INSERT INTO seal_keys (key_id, canary_sealed) VALUES ($1, $2)")
                .bind(canary.key_id)
                .bind(canary.sealed)
                .execute(&mut **work)
                .await
                .map_err(fault)?;
        }
        Ok(())
    }
}

async fn switch_triggers(work: &mut Work<'_>, switch: &str) -> Result<(), StoreError> {
    for table in TRIGGERED {
        let sql = format!("ALTER TABLE {table} {switch} TRIGGER USER");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **work).await.map_err(fault)?;
    }
    Ok(())
}

/// Before anything is done with it: every line reads, and the foot knows them all.
pub fn check_backup(from: &Path) -> Result<Backup, StoreError> {
    let (mut sum, mut rows, mut bytes, mut whole) = (Context::new(&SHA256), 0, 0, false);
    let mut accounts = 0;
    for line in lines(from)? {
        let line = line?;
        match read(from, &line)? {
            Line::Head { format: FORMAT, .. } => {}
            Line::Head { .. } => return Err(not_whole(from, "it was written by a newer version")),
            Line::Row { table, .. } => {
                rows += 1;
                accounts += u64::from(table == "accounts");
            }
            Line::Foot { rows: counted, sha256 } => whole = counted == rows && sha256 == hex(&sum),
        }
        sum.update(line.as_bytes());
        sum.update(b"\n");
        bytes += line.len() as u64 + 1;
    }
    match whole {
        true => Ok(Backup { accounts, bytes }),
        false => Err(not_whole(from, "it ends early, or was changed")),
    }
}

fn lines(from: &Path) -> Result<impl Iterator<Item = Result<String, StoreError>>, StoreError> {
    let unreadable = |error: std::io::Error| unreadable(from, &error);
    let file = File::open(from).map_err(unreadable)?;
    Ok(BufReader::new(file).lines().map(move |line| line.map_err(unreadable)))
}

fn read(from: &Path, line: &str) -> Result<Line, StoreError> {
    serde_json::from_str(line).map_err(|_| not_whole(from, "a line does not read"))
}

fn not_whole(from: &Path, why: &str) -> StoreError {
    StoreError::Refused(format!("{} is no whole backup: {why}", from.display()))
}

/// Lines that are summed up while they are written.
struct Sum<'a> {
    out: Out<'a>,
    pending: Vec<u8>,
    sum: Context,
}

impl Sum<'_> {
    async fn write(&mut self, line: &Line) -> Result<(), StoreError> {
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
        let sha256 = hex(&self.sum);
        self.write(&Line::Foot { rows, sha256 }).await?;
        self.hand_over().await
    }

    async fn hand_over(&mut self) -> Result<(), StoreError> {
        let handed = self.out.write_all(&self.pending).await;
        self.pending.clear();
        handed.map_err(lost)
    }
}

fn lost(error: std::io::Error) -> StoreError {
    StoreError::OutOfOrder(format!("the backup could not be handed over: {error}").into())
}

/// Rows of one table that go in together.
#[derive(Default)]
struct Batch {
    table: &'static str,
    rows: Vec<Value>,
}

impl Batch {
    async fn write(&mut self, work: &mut Work<'_>) -> Result<(), StoreError> {
        let rows = Value::Array(std::mem::take(&mut self.rows));
        if rows == Value::Array(Vec::new()) {
            return Ok(());
        }
        let table = self.table;
        let sql = format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT filled.* FROM jsonb_array_elements($1::jsonb) AS line, \
             jsonb_populate_record(NULL::{table}, line) AS filled"
        );
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .bind(rows.to_string())
            .execute(&mut **work)
            .await
            .map_err(fault)?;
        Ok(())
    }
}

fn hex(sum: &Context) -> String {
    sum.clone().finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
