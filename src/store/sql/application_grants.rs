//! The gateway's own refresh tokens for applications. The rule: of two that make the same grant at once, one
//! is first, and both get its token.
//!
//! A row is replaced, not updated: other gateways hear of rows that come and go, and a value sealed anew is
//! no change.

use super::accounts::{is_known, lock};
use super::{
    Purpose, SqlConnection, SqlDatabase, SqlTransaction, fetch_number, refuse, seal_failed, unsigned, values,
};
use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::migrate::merged_grants;
use crate::store::rows::{RowColumns, application_grant_context, callback_url_context, signed};
use crate::store::seal::SealKeys;
use crate::store::{ApplicationGrant, ApplicationGrantRecord, ApplicationGrantState, StoreError};

/// Adds the grant unless there is one; returns the one that stands. One that does not unseal is replaced.
pub async fn put<D: SqlDatabase>(db: &D, offered: &ApplicationGrant) -> Result<ApplicationGrant, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, &offered.account).await?;
    if !is_known(&mut tx, &offered.account).await? {
        return refuse(tx, StoreError::UnknownAccount(offered.account.clone())).await;
    }
    let there = find(&mut tx, db.keys(), &offered.account, &offered.caller).await?;
    if let Some(standing) = there.as_ref().and_then(ApplicationGrantRecord::live) {
        tx.rollback().await?;
        return Ok(standing.clone());
    }
    let before = there.map_or(0, |record| record.generation);
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
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, account).await?;
    let there = find(&mut tx, db.keys(), account, caller).await?;
    let Some((standing, generation)) = there.as_ref().and_then(|it| Some((it.live()?, it.generation))) else {
        tx.rollback().await?;
        return Ok(false);
    };
    let grant = ApplicationGrant { callback_url: callback_url.map(str::to_owned), ..standing.clone() };
    delete(&mut tx, account, caller).await?;
    insert(&mut tx, db.keys(), &grant, generation).await?;
    tx.commit().await?;
    Ok(true)
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
    Ok(rows.iter().filter_map(|row| read(db.keys(), row)?.live().cloned()).collect())
}

pub async fn of<D: SqlDatabase>(db: &D, account: &AccountName) -> Result<Vec<ApplicationGrant>, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let records = records_of(&mut tx, db.keys(), account).await?;
    tx.commit().await?;
    Ok(records.iter().filter_map(|record| record.live().cloned()).collect())
}

/// By caller; also those that were revoked or do not unseal.
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
        Some(ApplicationGrantRecord { caller, generation, state: ApplicationGrantState::Revoked })
    });
    let revoked: Vec<_> = revoked.collect();
    records.extend(revoked);
    // Both stand there only where an older gateway has issued one after a revocation.
    let is_revoked = |record: &ApplicationGrantRecord| record.state == ApplicationGrantState::Revoked;
    records.sort_by(|a, b| a.caller.cmp(&b.caller).then(is_revoked(a).cmp(&is_revoked(b))));
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
        let (caller, generation) = (&record.caller, record.generation);
        match &record.state {
            ApplicationGrantState::Live(grant) => {
                let grant = ApplicationGrant { account: account.clone(), ..grant.clone() };
                insert(tx, keys, &grant, generation).await?;
            }
            ApplicationGrantState::Revoked => insert_revoked(tx, account, caller, generation).await?,
            ApplicationGrantState::Unreadable { refresh_sealed, callback_url_sealed } => {
                let sealed = (refresh_sealed, callback_url_sealed.as_ref());
                insert_sealed(tx, account, caller, generation, sealed).await?;
            }
        }
    }
    Ok(())
}

/// Takes in what another store holds for the account; says what stands then. What was sealed under a key that
/// is held here opens again.
pub async fn merge(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
    arriving: &[ApplicationGrantRecord],
) -> Result<Vec<ApplicationGrantRecord>, StoreError> {
    let mut arriving = arriving.to_vec();
    for record in &mut arriving {
        if let ApplicationGrantState::Unreadable { refresh_sealed, callback_url_sealed } = &record.state {
            let url = callback_url_sealed.as_deref();
            record.state = opened(keys, account, &record.caller, refresh_sealed, url);
        }
    }
    let merged = merged_grants(&arriving, &records_of(tx, keys, account).await?);
    replace_of_account(tx, keys, account, &merged).await?;
    Ok(merged)
}

async fn find(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    account: &AccountName,
    caller: &str,
) -> Result<Option<ApplicationGrantRecord>, StoreError> {
    let there = records_of(tx, keys, account).await?;
    Ok(there.into_iter().find(|record| record.caller == caller))
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
    insert_sealed(tx, account, caller, generation, (&sealed, url.as_ref())).await
}

/// The token and the callback URL, as they are.
async fn insert_sealed(
    tx: &mut impl SqlConnection,
    account: &AccountName,
    caller: &str,
    generation: u64,
    (refresh, url): (&Vec<u8>, Option<&Vec<u8>>),
) -> Result<(), StoreError> {
    let sql = "INSERT INTO application_grants (account, caller, generation, refresh_sealed, callback_url_sealed) \
               VALUES ($1, $2, $3, $4, $5)";
    tx.execute(sql, values![account, caller, signed(generation), refresh, url]).await?;
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

fn read(keys: &SealKeys, row: &impl RowColumns) -> Option<ApplicationGrantRecord> {
    let account: AccountName = row.text(0).ok()??.parse().ok()?;
    let caller = row.text(1).ok()??.to_owned();
    let generation = unsigned(row.number(2).ok()??);
    let state = opened(keys, &account, &caller, row.bytes(3).ok()??, row.bytes(4).ok()?);
    Some(ApplicationGrantRecord { caller, generation, state })
}

/// One that cannot be read costs its application a new token, and nobody else anything. A callback URL that
/// cannot be read is as good as none.
fn opened(
    keys: &SealKeys,
    account: &AccountName,
    caller: &str,
    refresh_sealed: &[u8],
    callback_url_sealed: Option<&[u8]>,
) -> ApplicationGrantState {
    let token = match keys.unseal(application_grant_context(account, caller), refresh_sealed) {
        Ok(token) => token,
        Err(problem) => {
            tracing::error!(%account, caller, %problem, "an application's grant cannot be read; it counts as revoked");
            return ApplicationGrantState::Unreadable {
                refresh_sealed: refresh_sealed.to_vec(),
                callback_url_sealed: callback_url_sealed.map(<[u8]>::to_vec),
            };
        }
    };
    let callback_url = callback_url_sealed.and_then(|sealed| {
        let unsealed = keys.unseal(callback_url_context(account, caller), sealed);
        let warn = |problem: &_| {
            tracing::error!(%account, caller, %problem, "an application's callback URL cannot be read; it has none");
        };
        unsealed.inspect_err(warn).ok()
    });
    let (caller, account, refresh) = (caller.to_owned(), account.clone(), RefreshToken::new(token));
    ApplicationGrantState::Live(ApplicationGrant { caller, account, refresh, callback_url })
}
