//! Everything under a name, read and written together, for moving between stores.

use super::accounts::{find, holder, lock, spent_generation};
use super::application_grants;
use super::grants::{sealed_access, sealed_refresh};
use super::journal::of_account;
use super::{Purpose, SqlConnection, SqlDatabase, SqlTransaction, texts, values};
use crate::model::account::AccountName;
use crate::store::migrate::AccountBundle;
use crate::store::rows::{RowColumns, signed, state_columns};
use crate::store::{AccountRecord, ApplicationGrantRecord, GrantRecord, StoreError};

/// Every name under which anything stands, in order.
pub async fn names<D: SqlDatabase>(db: &D) -> Result<Vec<AccountName>, StoreError> {
    let mut tx = db.begin(Purpose::ReadAll).await?;
    let sql = "SELECT name FROM accounts UNION SELECT account FROM generations \
               UNION SELECT account FROM known_tokens UNION SELECT account FROM journal ORDER BY 1";
    let rows = tx.fetch(sql, values![]).await?;
    tx.commit().await?;
    // A name that is not valid has been logged when the accounts were read.
    Ok(texts(&rows)?.iter().filter_map(|name| name.parse().ok()).collect())
}

pub async fn read<D: SqlDatabase>(db: &D, name: &AccountName) -> Result<AccountBundle, StoreError> {
    let mut tx = db.begin(Purpose::Read).await?;
    let account = find(&mut tx, name, db.keys(), db.clock()).await?;
    let spent_generation = spent_generation(&mut tx, name).await?;
    let sql = "SELECT hash FROM known_tokens WHERE account = $1 ORDER BY hash";
    let hashes = tx.fetch(sql, values![name]).await?;
    let hash = |row: &<D::Transaction<'_> as SqlConnection>::Row| row.bytes(0).ok()??.try_into().ok();
    let known_tokens = hashes.iter().filter_map(hash).collect();
    let application_grants = application_grants::records_of(&mut tx, db.keys(), name).await?;
    let journal = of_account(&mut tx, name, db.clock()).await?;
    tx.commit().await?;
    let name = name.clone();
    Ok(AccountBundle { name, account, spent_generation, known_tokens, application_grants, journal })
}

/// Says which grants of applications stand then.
pub async fn write<D: SqlDatabase>(
    db: &D,
    bundle: &AccountBundle,
) -> Result<Vec<ApplicationGrantRecord>, StoreError> {
    let name = &bundle.name;
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, name).await?;
    let there = of_account(&mut tx, name, db.clock()).await?;
    let lines = bundle.lines_beyond(&there)?;
    for sql in [
        "DELETE FROM grants WHERE account = $1",
        "DELETE FROM generations WHERE account = $1",
        "DELETE FROM known_tokens WHERE account = $1",
    ] {
        tx.execute(sql, values![name]).await?;
    }
    let application_grants = match &bundle.account {
        Some(account) => {
            insert_account(db, &mut tx, account).await?;
            application_grants::merge(&mut tx, db.keys(), name, &bundle.application_grants).await?
        }
        None => {
            tx.execute("DELETE FROM accounts WHERE name = $1", values![name]).await?;
            Vec::new()
        }
    };
    if bundle.spent_generation > 0 {
        let sql = "INSERT INTO generations (account, last) VALUES ($1, $2)";
        tx.execute(sql, values![name, signed(bundle.spent_generation)]).await?;
    }
    tx.insert_known_tokens(name, &bundle.known_tokens).await?;
    let lines: Vec<_> = lines.iter().map(|line| (db.stored(line.at), line)).collect();
    tx.insert_journal(name, &lines).await?;
    tx.commit().await?;
    Ok(application_grants)
}

async fn insert_account<D: SqlDatabase>(
    db: &D,
    tx: &mut D::Transaction<'_>,
    account: &AccountRecord,
) -> Result<(), StoreError> {
    let (word, since, why) = state_columns(db.clock(), &account.state);
    let version = account.version.map(|version| i64::from(version.number()));
    let moving_to = account.moving_to.as_ref().map(|realm| realm.as_str());
    let sql = "INSERT INTO accounts (name, current_realm, state, since, why, is_test, api_version, moving_to) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
               ON CONFLICT (name) DO UPDATE SET current_realm = excluded.current_realm, state = excluded.state, \
               since = excluded.since, why = excluded.why, is_test = excluded.is_test, \
               api_version = excluded.api_version, moving_to = excluded.moving_to";
    let is_test = i64::from(account.is_test);
    let values = values![&account.name, &account.current, word, since, why, is_test, version, moving_to];
    tx.execute(sql, values).await?;
    for grant in &account.grants {
        insert_grant(db, tx, &account.name, grant).await?;
    }
    Ok(())
}

/// A grant with its past.
pub async fn insert_grant<D: SqlDatabase>(
    db: &D,
    tx: &mut D::Transaction<'_>,
    name: &AccountName,
    grant: &GrantRecord,
) -> Result<(), StoreError> {
    if let Some(held_by) = holder(tx, &grant.realm, grant.account_id, name).await? {
        return Err(StoreError::GrantTaken { realm: grant.realm.clone(), id: grant.account_id, held_by });
    }
    let route = grant.route.as_ref();
    let account_id = grant.account_id.to_string();
    let refresh = sealed_refresh(db.keys(), name, &grant.realm, &grant.refresh)?;
    let access = sealed_access(db.keys(), name, &grant.realm, grant.access.as_ref())?;
    let values = values![
        name,
        &grant.realm,
        account_id.as_str(),
        signed(grant.generation),
        &refresh,
        access.as_ref(),
        grant.access.as_ref().map(|access| db.stored(access.expires_at)),
        grant.refreshed_at.map(|at| db.stored(at)),
        db.stored(grant.obtained_at),
        route.map(|route| &*route.domain),
        route.map(|route| &*route.path),
        route.map(|route| db.stored(route.discovered_at)),
        grant.intent.map(|at| db.stored(at)),
    ];
    tx.execute(D::DIALECT.insert_grant, values).await?;
    Ok(())
}
