//! Accounts as such: read, in which state, with which grant in use, whether one of that name is known at all.

use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, texts, unsigned, values};
use crate::clock::Clock;
use crate::model::account::{AccountId, AccountName, AccountState, ApiVersion, RealmName};
use crate::store::rows::{AccountRows, RowColumns, select_accounts, state_columns};
use crate::store::seal::SealKeys;
use crate::store::{AccountRecord, AccountSink, StoreError};

pub async fn each<D: SqlDatabase>(
    db: &D,
    take: AccountSink<'_>,
) -> Result<Vec<(AccountName, String)>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let mut accounts = AccountRows::new(db.keys(), db.clock());
    let mut add = |row: &<D::Transaction<'_> as SqlConnection>::Row| {
        accounts.add(row);
        accounts.hand_over(&mut *take);
    };
    tx.fetch_each(select_accounts!("ORDER BY a.name, g.realm"), &mut add).await?;
    tx.commit().await?;
    let last = accounts.finish();
    last.accounts.into_iter().for_each(take);
    Ok(last.broken)
}

pub async fn read<D: SqlDatabase>(db: &D, name: &AccountName) -> Result<Option<AccountRecord>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let found = find(&mut tx, name, db.keys(), db.clock()).await;
    tx.commit().await?;
    found
}

/// Within a transaction. `Unsealable` where its record does not read.
pub async fn find(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    keys: &SealKeys,
    clock: &Clock,
) -> Result<Option<AccountRecord>, StoreError> {
    let rows = tx.fetch(select_accounts!("WHERE a.name = $1 ORDER BY g.realm"), values![name]).await?;
    let mut accounts = AccountRows::new(keys, clock);
    rows.iter().for_each(|row| accounts.add(row));
    let mut loaded = accounts.finish();
    match loaded.broken.pop() {
        Some((account, why)) => Err(StoreError::Unsealable { account, why }),
        None => Ok(loaded.accounts.pop()),
    }
}

pub async fn set_state<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    state: &AccountState,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let changed = update_state(&mut tx, name, state, db.clock()).await?;
    tx.commit().await?;
    if changed == 0 { Err(StoreError::UnknownAccount(name.clone())) } else { Ok(()) }
}

pub async fn update_state(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    state: &AccountState,
    clock: &Clock,
) -> Result<u64, StoreError> {
    let (word, since, why) = state_columns(clock, state);
    let sql = "UPDATE accounts SET state = $1, since = $2, why = $3 WHERE name = $4";
    tx.execute(sql, values![word, since, why, name]).await
}

pub async fn set_test<D: SqlDatabase>(db: &D, name: &AccountName, is_test: bool) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "UPDATE accounts SET is_test = $1 WHERE name = $2";
    let changed = tx.execute(sql, values![i64::from(is_test), name]).await?;
    tx.commit().await?;
    if changed == 0 { Err(StoreError::UnknownAccount(name.clone())) } else { Ok(()) }
}

pub async fn set_version<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    version: Option<ApiVersion>,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let number = version.map(|version| i64::from(version.number()));
    let changed =
        tx.execute("UPDATE accounts SET api_version = $1 WHERE name = $2", values![number, name]).await?;
    tx.commit().await?;
    if changed == 0 { Err(StoreError::UnknownAccount(name.clone())) } else { Ok(()) }
}

pub async fn set_current<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    // Whoever removes that grant at this moment is waited for; the next statement sees what came of it.
    lock::<D>(&mut tx, name).await?;
    let sql = "UPDATE accounts SET current_realm = $1, \
               moving_to = CASE WHEN moving_to IN ($1, current_realm) THEN NULL ELSE moving_to END \
               WHERE name = $2 \
               AND EXISTS (SELECT 1 FROM grants WHERE account = $2 AND realm = $1)";
    let changed = tx.execute(sql, values![realm, name]).await?;
    let found = found(changed, &mut tx, name, realm).await?;
    tx.commit().await?;
    found
}

pub async fn set_moving<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    to: Option<&RealmName>,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "UPDATE accounts SET moving_to = $1 WHERE name = $2";
    let changed = tx.execute(sql, values![to.map(|realm| realm.as_str()), name]).await?;
    tx.commit().await?;
    if changed == 0 { Err(StoreError::UnknownAccount(name.clone())) } else { Ok(()) }
}

/// Takes the account's rows, so that whoever else changes it waits.
pub async fn lock<D: SqlDatabase>(tx: &mut impl SqlConnection, name: &AccountName) -> Result<(), StoreError> {
    for sql in D::DIALECT.lock_account {
        tx.execute(sql, values![name]).await?;
    }
    Ok(())
}

pub async fn is_known(tx: &mut impl SqlConnection, name: &AccountName) -> Result<bool, StoreError> {
    Ok(!tx.fetch("SELECT name FROM accounts WHERE name = $1", values![name]).await?.is_empty())
}

/// Which of the two it is that does not exist.
pub async fn missing(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<StoreError, StoreError> {
    Ok(if is_known(tx, name).await? {
        StoreError::UnknownGrant { account: name.clone(), realm: realm.clone() }
    } else {
        StoreError::UnknownAccount(name.clone())
    })
}

/// Of a statement that changes one grant: whether that was there. The outer error is the database's.
pub async fn found(
    changed: u64,
    tx: &mut impl SqlConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<Result<(), StoreError>, StoreError> {
    Ok(if changed == 0 { Err(missing(tx, name, realm).await?) } else { Ok(()) })
}

/// Which other account has the grant of this account id.
pub async fn holder(
    tx: &mut impl SqlConnection,
    realm: &RealmName,
    id: AccountId,
    but: &AccountName,
) -> Result<Option<AccountName>, StoreError> {
    let sql = "SELECT account FROM grants WHERE realm = $1 AND account_id = $2 AND account <> $3";
    let rows = tx.fetch(sql, values![realm, id.to_string().as_str(), but]).await?;
    let name = texts(&rows)?.pop().map(|name| name.parse()).transpose();
    name.map_err(|_| {
        StoreError::Refused(format!("account {id} of realm {realm} stands under a name that is not valid"))
    })
}

/// SHA-256 of refresh tokens, each with the account that it was given for.
pub async fn known_tokens<D: SqlDatabase>(db: &D) -> Result<Vec<([u8; 32], AccountName)>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let mut all = Vec::new();
    // The table's own check sees to the length; a name that is not valid has been logged with its account.
    let mut add = |row: &<D::Transaction<'_> as SqlConnection>::Row| all.extend(known_token(row));
    tx.fetch_each("SELECT hash, account FROM known_tokens", &mut add).await?;
    tx.commit().await?;
    Ok(all)
}

fn known_token(row: &impl RowColumns) -> Option<([u8; 32], AccountName)> {
    let hash = row.bytes(0).ok()??.try_into().ok()?;
    Some((hash, row.text(1).ok()??.parse().ok()?))
}

/// What the highest generation of an account was; 0 where it had no grant.
pub async fn spent_generation(tx: &mut impl SqlConnection, name: &AccountName) -> Result<u64, StoreError> {
    let sql = "SELECT last FROM generations WHERE account = $1";
    Ok(unsigned(super::fetch_number(tx, sql, values![name]).await?.unwrap_or_default()))
}

/// Keeps how far the generations of its grants went, so that no later grant begins below.
pub async fn remember_generations(tx: &mut impl SqlConnection, name: &AccountName) -> Result<(), StoreError> {
    let sql = "INSERT INTO generations AS known (account, last) \
               SELECT account, max(generation) FROM grants WHERE account = $1 GROUP BY account \
               ON CONFLICT (account) DO UPDATE SET \
               last = CASE WHEN excluded.last > known.last THEN excluded.last ELSE known.last END";
    tx.execute(sql, values![name]).await?;
    Ok(())
}
