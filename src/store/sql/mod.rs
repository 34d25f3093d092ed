//! What SQLite and PostgreSQL do alike, written once. Each statement here means the same to both: `$1`
//! placeholders, CASE instead of the one's or the other's functions, and explicit deletes where only one of
//! them has a trigger. What they say differently is a [`Dialect`]; what they do differently stays with them:
//! leases, backups, last-seen rows, the start.

use std::future::Future;

use super::JournalEntry;
use super::StoreError;
use super::rotate::RotationQueries;
use super::rows::RowColumns;
use super::seal::{SealError, SealKeys};
use crate::clock::{Clock, Timestamp};
use crate::model::account::AccountName;

pub mod accounts;
pub mod application_grants;
pub mod bundles;
pub mod fallbacks;
pub mod grants;
pub mod journal;
pub mod logins;
pub mod rename;
pub mod rotation;

/// A value that is bound to a statement. An absent one has a type too: PostgreSQL asks for it.
#[derive(Debug, Clone, Copy)]
pub enum SqlValue<'a> {
    Text(Option<&'a str>),
    Number(Option<i64>),
    Bytes(Option<&'a [u8]>),
    Flag(bool),
}

/// What a transaction is begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Several statements that happen together or not at all.
    Write,
    /// One statement that writes; what follows it only reads.
    WriteOnce,
    Read,
    /// Reads everything, and may take minutes.
    ReadAll,
}

/// Statements that the two databases spell differently.
pub struct Dialect {
    /// Takes the account's row and those of its grants, so that whoever else changes them waits.
    pub lock_account: &'static [&'static str],
    /// The generation of grant ($1, $2); its row is taken.
    pub generation: &'static str,
    /// Adds or replaces a grant; [`grants::put`] binds it.
    pub put_grant: &'static str,
    /// Adds a grant with its past; [`bundles::insert_grant`] binds it.
    pub insert_grant: &'static str,
    /// The sealed refresh token of grant ($1, $2), and 1 where it belongs to generation $3, else 0; its row
    /// is taken.
    pub fallback_base: &'static str,
    /// Whether the statement that brings new tokens forgets by itself what was kept beside the grant's own.
    pub forgets_fallbacks: bool,
    /// Moves what was last seen of account $1 to the name $2.
    pub rename_last_seen: &'static str,
    /// How a new key goes through the payloads of pending logins, whose row is the id in hexadecimal.
    pub rotate_logins: RotationQueries,
}

/// An open connection. Errors are classified by what an operator can do about them.
pub trait SqlConnection: Send {
    type Row: RowColumns + Send + Sync;

    /// Runs to its end; says how many rows it changed.
    fn execute(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Likewise; `false` where somebody else took a key at the same moment that may stand only once.
    fn execute_unless_taken(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    fn fetch(
        &mut self,
        sql: &'static str,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Hands over each row as it comes, so that not all of them are in memory.
    fn fetch_each(
        &mut self,
        sql: &'static str,
        take: &mut (dyn FnMut(&Self::Row) + Send),
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// In one statement: they may be many.
    fn insert_known_tokens(
        &mut self,
        account: &AccountName,
        hashes: &[[u8; 32]],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// In one statement and in order; each with its moment as it is kept.
    fn insert_journal(
        &mut self,
        account: &AccountName,
        lines: &[(i64, &JournalEntry)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Without `commit` nothing has happened.
pub trait SqlTransaction: SqlConnection {
    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Ends work that turned out to be impossible, and keeps the connection.
    fn rollback(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

pub trait SqlDatabase: Sync {
    type Transaction<'a>: SqlTransaction
    where
        Self: 'a;
    const DIALECT: Dialect;

    fn begin(
        &self,
        purpose: Purpose,
    ) -> impl Future<Output = Result<Self::Transaction<'_>, StoreError>> + Send;
    fn keys(&self) -> &SealKeys;
    fn clock(&self) -> &Clock;

    /// A moment as it is kept here.
    fn stored(&self, at: Timestamp) -> i64 {
        super::rows::stored(self.clock(), at)
    }
}

/// Ends a transaction that came to nothing.
async fn refuse<T>(tx: impl SqlTransaction, refusal: StoreError) -> Result<T, StoreError> {
    tx.rollback().await?;
    Err(refusal)
}

/// Nothing is written unsealed.
fn seal_failed(error: SealError) -> StoreError {
    StoreError::Unavailable(error.to_string().into())
}

/// The one number that a statement brings, if it brings a row.
async fn fetch_number(
    tx: &mut impl SqlConnection,
    sql: &'static str,
    values: &[SqlValue<'_>],
) -> Result<Option<i64>, StoreError> {
    let rows = tx.fetch(sql, values).await?;
    rows.first().map_or(Ok(None), |row| row.number(0).map_err(unreadable))
}

/// The one text of each row.
fn texts(rows: &[impl RowColumns]) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| Ok(row.text(0).map_err(unreadable)?.unwrap_or_default().to_owned())).collect()
}

fn unreadable(why: String) -> StoreError {
    StoreError::Unavailable(format!("the database answers otherwise than it was asked: {why}").into())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

impl<'a> From<&'a str> for SqlValue<'a> {
    fn from(text: &'a str) -> Self {
        SqlValue::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for SqlValue<'a> {
    fn from(text: Option<&'a str>) -> Self {
        SqlValue::Text(text)
    }
}

impl<'a> From<&'a AccountName> for SqlValue<'a> {
    fn from(name: &'a AccountName) -> Self {
        SqlValue::Text(Some(name.as_str()))
    }
}

impl<'a> From<&'a crate::model::account::RealmName> for SqlValue<'a> {
    fn from(name: &'a crate::model::account::RealmName) -> Self {
        SqlValue::Text(Some(name.as_str()))
    }
}

impl From<i64> for SqlValue<'_> {
    fn from(number: i64) -> Self {
        SqlValue::Number(Some(number))
    }
}

impl From<Option<i64>> for SqlValue<'_> {
    fn from(number: Option<i64>) -> Self {
        SqlValue::Number(number)
    }
}

impl<'a> From<&'a [u8]> for SqlValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        SqlValue::Bytes(Some(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for SqlValue<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        SqlValue::Bytes(Some(bytes))
    }
}

impl<'a> From<Option<&'a Vec<u8>>> for SqlValue<'a> {
    fn from(bytes: Option<&'a Vec<u8>>) -> Self {
        SqlValue::Bytes(bytes.map(Vec::as_slice))
    }
}

impl From<bool> for SqlValue<'_> {
    fn from(flag: bool) -> Self {
        SqlValue::Flag(flag)
    }
}

/// The values of a statement, in order.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::SqlValue::from($value)),*] };
}
pub(in crate::store) use values;
