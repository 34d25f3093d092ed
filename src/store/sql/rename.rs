//! What happens to a whole account: it is forgotten, or gets another name. One transaction each.

use super::accounts::{find, is_known, lock, remember_generations, spent_generation};
use super::application_grants;
use super::bundles::insert_grant;
use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, refuse, seal_failed, values};
use crate::clock::Timestamp;
use crate::model::account::{AccountName, RealmName};
use crate::store::rows::{RowColumns, fallback_context};
use crate::store::seal::SealKeys;
use crate::store::{
    APPLICATION_DETACHED, AccountRecord, ApplicationGrantRecord, ApplicationGrantState, JournalEntry,
    StoreError,
};

/// A refresh token that was kept beside a grant: its realm, itself, and when it was kept.
type KeptToken = (RealmName, Vec<u8>, i64);

pub async fn remove<D: SqlDatabase>(db: &D, name: &AccountName) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, name).await?;
    remember_generations(&mut tx, name).await?;
    for sql in ["DELETE FROM grants WHERE account = $1", "DELETE FROM known_tokens WHERE account = $1"] {
        tx.execute(sql, values![name]).await?;
    }
    if tx.execute("DELETE FROM accounts WHERE name = $1", values![name]).await? == 0 {
        return refuse(tx, StoreError::UnknownAccount(name.clone())).await;
    }
    tx.commit().await
}

/// What is sealed is sealed for its place, so the grants are written anew. Their rows are taken first: a
/// commit of tokens that came in between would be undone.
pub async fn rename<D: SqlDatabase>(
    db: &D,
    from: &AccountName,
    to: &AccountName,
) -> Result<AccountRecord, StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, from).await?;
    let Some(mut account) = find(&mut tx, from, db.keys(), db.clock()).await? else {
        return refuse(tx, StoreError::UnknownAccount(from.clone())).await;
    };
    if is_known(&mut tx, to).await? {
        return refuse(tx, StoreError::NameTaken(to.clone())).await;
    }
    remember_generations(&mut tx, from).await?;
    let above = spent_generation(&mut tx, to).await? + 1;
    // They go with the grants.
    let kept = kept_tokens(&mut tx, from).await?;
    let mut application_grants = application_grants::records_of(&mut tx, db.keys(), from).await?;
    let ended = end_unreadable(&mut application_grants, from, to, db.clock().now());
    application_grants::replace_of_account(&mut tx, db.keys(), from, &[]).await?;
    tx.execute("DELETE FROM grants WHERE account = $1", values![from]).await?;
    for sql in [
        "UPDATE accounts SET name = $2 WHERE name = $1",
        "UPDATE known_tokens SET account = $2 WHERE account = $1",
        D::DIALECT.rename_last_seen,
    ] {
        tx.execute(sql, values![from, to]).await?;
    }
    account.name = to.clone();
    for grant in &mut account.grants {
        grant.generation = grant.generation.max(above);
        insert_grant(db, &mut tx, to, grant).await?;
    }
    put_kept_tokens(&mut tx, db.keys(), from, to, kept).await?;
    application_grants::replace_of_account(&mut tx, db.keys(), to, &application_grants).await?;
    let ended: Vec<_> = ended.iter().map(|line| (db.stored(line.at), line)).collect();
    tx.insert_journal(to, &ended).await?;
    tx.commit().await?;
    Ok(account)
}

/// What is sealed opens under the account's name only: an application's grant that does not unseal now could
/// not be read under the next name either, whatever key comes back. So it ends here. Says so in lines for the
/// journal.
fn end_unreadable(
    records: &mut [ApplicationGrantRecord],
    from: &AccountName,
    to: &AccountName,
    at: Timestamp,
) -> Vec<JournalEntry> {
    let unreadable = records.iter_mut().filter(|record| record.is_unreadable());
    let end = |record: &mut ApplicationGrantRecord| {
        record.generation += 1;
        record.state = ApplicationGrantState::Revoked;
        let caller = &record.caller;
        tracing::error!(%from, account = %to, caller, "an application's grant ends with the rename; it could not be read");
        let detail = format!("the grant of {caller} could not be read and ended when {from} became {to}");
        JournalEntry { at, account: to.clone(), event: APPLICATION_DETACHED.to_owned(), detail }
    };
    unreadable.map(end).collect()
}

async fn kept_tokens(tx: &mut impl SqlConnection, name: &AccountName) -> Result<Vec<KeptToken>, StoreError> {
    let sql = "SELECT realm, refresh_sealed, kept_at FROM fallbacks WHERE account = $1 ORDER BY id";
    let rows = tx.fetch(sql, values![name]).await?;
    let kept = |row: &_| kept_token(row);
    Ok(rows.iter().filter_map(kept).collect())
}

fn kept_token(row: &impl RowColumns) -> Option<KeptToken> {
    let realm = row.text(0).ok()??.parse().ok()?;
    Some((realm, row.bytes(1).ok()??.to_vec(), row.number(2).ok()??))
}

/// One that does not unseal is as good as none.
async fn put_kept_tokens(
    tx: &mut impl SqlConnection,
    keys: &SealKeys,
    from: &AccountName,
    to: &AccountName,
    kept: Vec<KeptToken>,
) -> Result<(), StoreError> {
    for (realm, sealed, kept_at) in kept {
        let Ok(token) = keys.unseal(fallback_context(from, &realm), &sealed) else { continue };
        let sealed = keys.seal(fallback_context(to, &realm), &token).map_err(seal_failed)?;
        let sql = "INSERT INTO fallbacks (account, realm, refresh_sealed, kept_at) VALUES ($1, $2, $3, $4)";
        tx.execute(sql, values![to, &realm, &sealed, kept_at]).await?;
    }
    Ok(())
}
