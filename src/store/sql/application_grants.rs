//! The gateway's own refresh tokens for applications. The rule: of two that make the same grant at once, one
//! is first, and both get its token.

use super::accounts::{is_known, lock};
use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, refuse, seal_failed, values};
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::rows::{RowColumns, application_grant_context};
use crate::store::seal::SealKeys;
use crate::store::{ApplicationGrant, StoreError};

/// Adds the grant unless there is one; returns the one that stands. One that does not unseal is replaced.
pub async fn put<D: SqlDatabase>(db: &D, offered: &ApplicationGrant) -> Result<ApplicationGrant, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, &offered.account).await?;
    if !is_known(&mut tx, &offered.account).await? {
        return refuse(tx, StoreError::UnknownAccount(offered.account.clone())).await;
    }
    let there = of_account(&mut tx, db.keys(), &offered.account).await?;
    if let Some(standing) = there.into_iter().find(|grant| grant.caller == offered.caller) {
        tx.rollback().await?;
        return Ok(standing);
    }
    delete(&mut tx, offered).await?;
    insert(&mut tx, db.keys(), offered).await?;
    tx.commit().await?;
    Ok(offered.clone())
}

/// Says whether it was there.
pub async fn remove<D: SqlDatabase>(db: &D, caller: &str, account: &AccountName) -> Result<bool, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    let sql = "DELETE FROM application_grants WHERE account = $1 AND caller = $2";
    let removed = tx.execute(sql, values![account, caller]).await?;
    tx.commit().await?;
    Ok(removed > 0)
}

pub async fn all<D: SqlDatabase>(db: &D) -> Result<Vec<ApplicationGrant>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let sql = "SELECT account, caller, refresh_sealed FROM application_grants ORDER BY account, caller";
    let rows = tx.fetch(sql, values![]).await?;
    tx.commit().await?;
    Ok(rows.iter().filter_map(|row| read(db.keys(), row)).collect())
}

pub async fn of<D: SqlDatabase>(db: &D, account: &AccountName) -> Result<Vec<ApplicationGrant>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let grants = of_account(&mut tx, db.keys(), account).await?;
    tx.commit().await?;
    Ok(grants)
}

/// By caller; those that do not unseal are left out.
pub async fn of_account(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
) -> Result<Vec<ApplicationGrant>, StoreError> {
    let sql =
        "SELECT account, caller, refresh_sealed FROM application_grants WHERE account = $1 ORDER BY caller";
    let rows = tx.fetch(sql, values![account]).await?;
    Ok(rows.iter().filter_map(|row| read(keys, row)).collect())
}

/// Makes these the account's only ones. They are sealed for the account's name, so this also moves them to
/// another.
pub async fn replace_of_account(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
    grants: &[ApplicationGrant],
) -> Result<(), StoreError> {
    tx.execute("DELETE FROM application_grants WHERE account = $1", values![account]).await?;
    for grant in grants {
        insert(tx, keys, &ApplicationGrant { account: account.clone(), ..grant.clone() }).await?;
    }
    Ok(())
}

async fn delete(tx: &mut impl SqlConnection, grant: &ApplicationGrant) -> Result<(), StoreError> {
    let sql = "DELETE FROM application_grants WHERE account = $1 AND caller = $2";
    tx.execute(sql, values![&grant.account, &*grant.caller]).await?;
    Ok(())
}

async fn insert(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    grant: &ApplicationGrant,
) -> Result<(), StoreError> {
    let context = application_grant_context(&grant.account, &grant.caller);
    let sealed = keys.seal(context, grant.refresh.expose()).map_err(seal_failed)?;
    let sql = "INSERT INTO application_grants (account, caller, refresh_sealed) VALUES ($1, $2, $3)";
    tx.execute(sql, values![&grant.account, &*grant.caller, &sealed]).await?;
    Ok(())
}

/// One that cannot be read costs its application a new token, and nobody else anything.
fn read(keys: &SealKeys, row: &impl RowColumns) -> Option<ApplicationGrant> {
    let account: AccountName = row.text(0).ok()??.parse().ok()?;
    let caller = row.text(1).ok()??.to_owned();
    match keys.unseal(application_grant_context(&account, &caller), row.bytes(2).ok()??) {
        Ok(token) => Some(ApplicationGrant { caller, account, refresh: RefreshToken::new(token) }),
        Err(problem) => {
            tracing::error!(%account, caller, %problem, "an application's grant cannot be read; it counts as revoked");
            None
        }
    }
}
