//! The gateway's own refresh tokens for applications. The rule: of two that make the same grant at once, one
//! is first, and both get its token.

use super::accounts::{is_known, lock};
use super::{
    Purpose, SqlConnection, SqlDatabase, SqlTransaction, fetch_number, refuse, seal_failed, unsigned, values,
};
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::rows::{RowColumns, application_grant_context, callback_url_context, signed};
use crate::store::seal::SealKeys;
use crate::store::{ApplicationGrant, ApplicationGrantRecord, StoreError};

/// Adds the grant unless there is one; returns the one that stands. One that does not unseal is replaced.
pub async fn put<D: SqlDatabase>(db: &D, offered: &ApplicationGrant) -> Result<ApplicationGrant, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, &offered.account).await?;
    if !is_known(&mut tx, &offered.account).await? {
        return refuse(tx, StoreError::UnknownAccount(offered.account.clone())).await;
    }
    let there = records_of(&mut tx, db.keys(), &offered.account).await?;
    let there = there.into_iter().find(|record| record.caller == offered.caller);
    let before = there.as_ref().map_or(0, |record| record.generation);
    if let Some(standing) = there.and_then(|record| record.grant) {
        tx.rollback().await?;
        return Ok(standing);
    }
    delete(&mut tx, &offered.account, &offered.caller).await?;
    insert(&mut tx, db.keys(), offered, before + 1).await?;
    tx.commit().await?;
    Ok(offered.clone())
}

/// Says whether there is such a grant.
pub async fn set_callback_url<D: SqlDatabase>(
    db: &D,
    caller: &str,
    account: &AccountName,
    callback_url: Option<&str>,
) -> Result<bool, StoreError> {
    let sealed = sealed_callback_url(db.keys(), caller, account, callback_url)?;
    let mut tx = db.begin(Purpose::Write).await?;
    let sql = "UPDATE application_grants SET callback_url_sealed = $3 WHERE account = $1 AND caller = $2";
    let set = tx.execute(sql, values![account, caller, sealed.as_ref()]).await?;
    tx.commit().await?;
    Ok(set > 0)
}

/// Says whether it was there.
pub async fn remove<D: SqlDatabase>(db: &D, caller: &str, account: &AccountName) -> Result<bool, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, account).await?;
    let sql = "SELECT generation FROM application_grants WHERE account = $1 AND caller = $2";
    let live = fetch_number(&mut tx, sql, values![account, caller]).await?;
    let Some(live) = live else {
        tx.rollback().await?;
        return Ok(false);
    };
    let sql = "SELECT generation FROM revoked_application_grants WHERE account = $1 AND caller = $2";
    let revoked = fetch_number(&mut tx, sql, values![account, caller]).await?.unwrap_or_default();
    delete(&mut tx, account, caller).await?;
    insert_revoked(&mut tx, account, caller, unsigned(live.max(revoked)) + 1).await?;
    tx.commit().await?;
    Ok(true)
}

pub async fn all<D: SqlDatabase>(db: &D) -> Result<Vec<ApplicationGrant>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let sql = "SELECT account, caller, generation, refresh_sealed, callback_url_sealed \
               FROM application_grants ORDER BY account, caller";
    let rows = tx.fetch(sql, values![]).await?;
    tx.commit().await?;
    Ok(rows.iter().filter_map(|row| read(db.keys(), row)?.grant).collect())
}

pub async fn of<D: SqlDatabase>(db: &D, account: &AccountName) -> Result<Vec<ApplicationGrant>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let records = records_of(&mut tx, db.keys(), account).await?;
    tx.commit().await?;
    Ok(records.into_iter().filter_map(|record| record.grant).collect())
}

/// By caller, revoked ones included; those that do not unseal are left out.
pub async fn records_of(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
) -> Result<Vec<ApplicationGrantRecord>, StoreError> {
    let sql = "SELECT account, caller, generation, refresh_sealed, callback_url_sealed \
               FROM application_grants WHERE account = $1 ORDER BY caller";
    let rows = tx.fetch(sql, values![account]).await?;
    let mut records: Vec<_> = rows.iter().filter_map(|row| read(keys, row)).collect();
    let sql = "SELECT caller, generation FROM revoked_application_grants WHERE account = $1 ORDER BY caller";
    let rows = tx.fetch(sql, values![account]).await?;
    let revoked = rows.iter().filter_map(|row| {
        let (caller, generation) = (row.text(0).ok()??.to_owned(), unsigned(row.number(1).ok()??));
        Some(ApplicationGrantRecord { caller, generation, grant: None })
    });
    let revoked: Vec<_> = revoked.collect();
    records.extend(revoked);
    // Both stand there only where an older gateway has issued one after a revocation.
    records.sort_by(|a, b| a.caller.cmp(&b.caller).then(b.grant.is_some().cmp(&a.grant.is_some())));
    records.dedup_by(|later, kept| {
        let is_same = later.caller == kept.caller;
        if is_same {
            kept.generation = kept.generation.max(later.generation + 1);
        }
        is_same
    });
    Ok(records)
}

/// Makes these the account's only ones. They are sealed for the account's name, so this also moves them to
/// another.
pub async fn replace_of_account(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
    records: &[ApplicationGrantRecord],
) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM application_grants WHERE account = $1",
        "DELETE FROM revoked_application_grants WHERE account = $1",
    ] {
        tx.execute(sql, values![account]).await?;
    }
    for record in records {
        match &record.grant {
            Some(grant) => {
                let grant = ApplicationGrant { account: account.clone(), ..grant.clone() };
                insert(tx, keys, &grant, record.generation).await?;
            }
            None => insert_revoked(tx, account, &record.caller, record.generation).await?,
        }
    }
    Ok(())
}

async fn delete(tx: &mut impl SqlConnection, account: &AccountName, caller: &str) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM application_grants WHERE account = $1 AND caller = $2",
        "DELETE FROM revoked_application_grants WHERE account = $1 AND caller = $2",
    ] {
        tx.execute(sql, values![account, caller]).await?;
    }
    Ok(())
}

async fn insert(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    grant: &ApplicationGrant,
    generation: u64,
) -> Result<(), StoreError> {
    let ApplicationGrant { caller, account, refresh, callback_url } = grant;
    let context = application_grant_context(account, caller);
    let sealed = keys.seal(context, refresh.expose()).map_err(seal_failed)?;
    let url = sealed_callback_url(keys, caller, account, callback_url.as_deref())?;
    let sql = "INSERT INTO application_grants (account, caller, generation, refresh_sealed, callback_url_sealed) \
               VALUES ($1, $2, $3, $4, $5)";
    tx.execute(sql, values![account, &**caller, signed(generation), &sealed, url.as_ref()]).await?;
    Ok(())
}

async fn insert_revoked(
    tx: &mut impl SqlConnection,
    account: &AccountName,
    caller: &str,
    generation: u64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO revoked_application_grants (account, caller, generation) VALUES ($1, $2, $3)";
    tx.execute(sql, values![account, caller, signed(generation)]).await?;
    Ok(())
}

fn sealed_callback_url(
    keys: &SealKeys,
    caller: &str,
    account: &AccountName,
    callback_url: Option<&str>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let seal = |url| keys.seal(callback_url_context(account, caller), url).map_err(seal_failed);
    callback_url.map(seal).transpose()
}

/// One that cannot be read costs its application a new token, and nobody else anything. A callback URL that
/// cannot be read is as good as none.
fn read(keys: &SealKeys, row: &impl RowColumns) -> Option<ApplicationGrantRecord> {
    let account: AccountName = row.text(0).ok()??.parse().ok()?;
    let caller = row.text(1).ok()??.to_owned();
    let generation = unsigned(row.number(2).ok()??);
    let token = match keys.unseal(application_grant_context(&account, &caller), row.bytes(3).ok()??) {
        Ok(token) => token,
        Err(problem) => {
            tracing::error!(%account, caller, %problem, "an application's grant cannot be read; it counts as revoked");
            return None;
        }
    };
    let url = row.bytes(4).ok()?;
    let callback_url = url.and_then(|sealed| {
        let unsealed = keys.unseal(callback_url_context(&account, &caller), sealed);
        let warn = |problem: &_| {
            tracing::error!(%account, caller, %problem, "an application's callback URL cannot be read; it has none");
        };
        unsealed.inspect_err(warn).ok()
    });
    let refresh = RefreshToken::new(token);
    let grant = ApplicationGrant { caller: caller.clone(), account, refresh, callback_url };
    Some(ApplicationGrantRecord { caller, generation, grant: Some(grant) })
}
