//! Between rows and records. A row that does not read or does not unseal names its account and stops nobody else.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::super::seal::{Place, SealFault, SealKeys};
use super::super::{
    AccountRecord, GrantRecord, JournalEntry, Loaded, PendingKind, StoredAccess, StoredRoute,
};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::model::token::{AccessToken, RefreshToken};

/// What [`Accounts::add`] reads, one row per grant; the order is its columns' order.
macro_rules! select_accounts {
    ($rest:literal) => {
        concat!(
            "SELECT a.name, a.current_realm, a.state, a.since, a.why, g.realm, g.account_id, g.generation, ",
            "g.refresh_sealed, g.access_sealed, g.access_expires_at, g.refreshed_at, g.obtained_at, ",
            "g.route_domain, g.route_path, g.route_discovered_at, g.intent_at ",
            "FROM accounts a LEFT JOIN grants g ON g.account = a.name ",
            $rest
        )
    };
}
pub(super) use select_accounts;

/// Gathers rows, those of one account in succession, into accounts.
pub struct Accounts<'a> {
    keys: &'a SealKeys,
    loaded: Loaded,
    open: Option<(AccountName, Result<AccountRecord, String>)>,
}

impl<'a> Accounts<'a> {
    pub fn new(keys: &'a SealKeys) -> Self {
        Self { keys, loaded: Loaded::default(), open: None }
    }

    pub fn add(&mut self, row: &SqliteRow) {
        let name = match read_name(row) {
            Ok(name) => name,
            Err(why) => {
                // Nobody can ask for it by name, so nobody is refused: it can only be told.
                tracing::error!(why, "the store holds an account whose name is not valid; it is left out");
                return;
            }
        };
        if self.open.as_ref().is_some_and(|(open, _)| *open != name) {
            self.finish_open();
        }
        let account = match self.open.take() {
            Some((_, account)) => account,
            None => read_account(row, &name),
        };
        let account = account.and_then(|mut account| {
            account.grants.extend(read_grant(row, &name, self.keys)?);
            Ok(account)
        });
        self.open = Some((name, account));
    }

    pub fn finish(mut self) -> Loaded {
        self.finish_open();
        self.loaded
    }

    fn finish_open(&mut self) {
        match self.open.take() {
            None => {}
            Some((name, Err(why))) => self.loaded.broken.push((name, why)),
            Some((name, Ok(account))) if account.current_grant().is_none() => {
                let why = format!("its grant in realm {} is missing", account.current);
                self.loaded.broken.push((name, why));
            }
            Some((_, Ok(account))) => self.loaded.accounts.push(account),
        }
    }
}

pub fn refresh_place<'a>(account: &'a AccountName, realm: &'a RealmName) -> Place<'a> {
    Place { table: "grants", row: account.as_str(), realm: realm.as_str(), column: "refresh" }
}

pub fn access_place<'a>(account: &'a AccountName, realm: &'a RealmName) -> Place<'a> {
    Place { table: "grants", row: account.as_str(), realm: realm.as_str(), column: "access" }
}

/// `id` in hexadecimal; a payload of one kind does not open as another.
pub fn payload_place(id: &str, kind: PendingKind) -> Place<'_> {
    Place { table: "pending_logins", row: id, realm: kind_word(kind), column: "payload" }
}

pub fn kind_word(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Start => "start",
        PendingKind::State => "state",
        PendingKind::Choice => "choice",
    }
}

/// The columns `state`, `since`, `why`.
pub fn state_columns(state: &AccountState) -> (&'static str, Option<i64>, Option<&str>) {
    match state {
        AccountState::Ready | AccountState::Paused => (state.word(), None, None),
        AccountState::NeedsLogin { since, why } => (state.word(), Some(millis(*since)), Some(why)),
    }
}

/// SQLite's integers are signed; what lies beyond them is 292 million years off.
pub fn millis(at: Timestamp) -> i64 {
    signed(at.as_millis())
}

pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn read_journal(row: &SqliteRow) -> Result<JournalEntry, String> {
    Ok(JournalEntry {
        at: moment(column(row, 0)?)?,
        account: parsed(row, 1)?,
        event: column(row, 2)?,
        detail: column(row, 3)?,
    })
}

fn read_name(row: &SqliteRow) -> Result<AccountName, String> {
    parsed(row, 0)
}

fn read_account(row: &SqliteRow, name: &AccountName) -> Result<AccountRecord, String> {
    let state = match column::<&str>(row, 2)? {
        "ready" => AccountState::Ready,
        "paused" => AccountState::Paused,
        "needs_login" => AccountState::NeedsLogin { since: moment(column(row, 3)?)?, why: column(row, 4)? },
        _ => return Err("its state is not known".to_owned()),
    };
    Ok(AccountRecord { name: name.clone(), current: parsed(row, 1)?, state, grants: Vec::new() })
}

fn read_grant(row: &SqliteRow, name: &AccountName, keys: &SealKeys) -> Result<Option<GrantRecord>, String> {
    if column::<Option<&str>>(row, 5)?.is_none() {
        return Ok(None);
    }
    let realm: RealmName = parsed(row, 5)?;
    let unsealed = |what, place, sealed: &[u8]| {
        keys.unseal(place, sealed)
            .map_err(|why: SealFault| format!("its {what} token in realm {realm}: {why}"))
    };
    let refresh = unsealed("refresh", refresh_place(name, &realm), column(row, 8)?)?;
    let access = match (column::<Option<&[u8]>>(row, 9)?, column::<Option<i64>>(row, 10)?) {
        (Some(sealed), Some(expires_at)) => Some(StoredAccess {
            token: AccessToken::new(unsealed("access", access_place(name, &realm), sealed)?),
            expires_at: moment(expires_at)?,
        }),
        _ => None,
    };
    let route = match (column::<Option<String>>(row, 13)?, column::<Option<String>>(row, 14)?) {
        (Some(domain), Some(path)) => {
            Some(StoredRoute { domain, path, discovered_at: moment(column(row, 15)?)? })
        }
        _ => None,
    };
    Ok(Some(GrantRecord {
        account_id: parsed(row, 6)?,
        refresh: RefreshToken::new(refresh),
        access,
        generation: unsigned(column(row, 7)?)?,
        refreshed_at: column::<Option<i64>>(row, 11)?.map(moment).transpose()?,
        obtained_at: moment(column(row, 12)?)?,
        route,
        intent: column::<Option<i64>>(row, 16)?.map(moment).transpose()?,
        realm,
    }))
}

fn column<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, String>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(|_| format!("its column {index} does not read"))
}

fn parsed<T: std::str::FromStr>(row: &SqliteRow, index: usize) -> Result<T, String> {
    column::<&str>(row, index)?.parse().map_err(|_| format!("its column {index} is not valid"))
}

fn moment(millis: i64) -> Result<Timestamp, String> {
    unsigned(millis).map(Timestamp::from_millis)
}

fn unsigned(number: i64) -> Result<u64, String> {
    u64::try_from(number).map_err(|_| "a number is negative".to_owned())
}
