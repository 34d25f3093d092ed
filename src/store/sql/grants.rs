//! Grants: put, used, removed. New tokens are committed by one statement that also checks the generation,
//! whoever else commits meanwhile.
//!
//! Order of locks, so that no two transactions wait for each other: account, grant, lease.

use super::accounts::{find, found, holder, lock, missing, update_state};
use super::{
    Purpose, SqlConnection, SqlDatabase, SqlTransaction, fetch_number, refuse, seal_failed, unsigned, values,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountName, RealmName};
use crate::model::token::RefreshToken;
use crate::store::rows::{access_context, refresh_context, signed};
use crate::store::seal::SealKeys;
use crate::store::{AccountRecord, NewGrant, NewTokens, StoreError, StoredAccess, StoredRoute, token_hash};

/// Where another gateway took the same id at the same moment, the second look finds it.
pub async fn put<D: SqlDatabase>(db: &D, grant: &NewGrant) -> Result<AccountRecord, StoreError> {
    if let Some(written) = try_put(db, grant).await? {
        return Ok(written);
    }
    try_put(db, grant).await?.ok_or_else(|| {
        StoreError::Unavailable(format!("account {} is being changed by others", grant.name).into())
    })
}

/// `None` where the grant's id was taken meanwhile.
async fn try_put<D: SqlDatabase>(db: &D, grant: &NewGrant) -> Result<Option<AccountRecord>, StoreError> {
    let (name, realm) = (&grant.name, &grant.realm);
    let refresh = sealed_refresh(db.keys(), name, realm, &grant.refresh)?;
    let access = sealed_access(db.keys(), name, realm, grant.access.as_ref())?;
    let mut tx = db.begin(Purpose::Write).await?;
    if let Some(held_by) = holder(&mut tx, realm, grant.account_id, name).await? {
        return refuse(tx, StoreError::GrantTaken { realm: realm.clone(), id: grant.account_id, held_by })
            .await;
    }
    lock::<D>(&mut tx, name).await?;
    let old_is_readable = match find(&mut tx, name, db.keys(), db.clock()).await {
        Ok(_) => true,
        Err(StoreError::Unsealable { .. }) => false,
        Err(error) => return Err(error),
    };
    write_account(&mut tx, grant, db.clock()).await?;
    let generation = generation_above_all(&mut tx, name).await?;
    let route = grant.route.as_ref();
    let account_id = grant.account_id.to_string();
    // Refreshes must not follow each other closely whoever paired in between, so the time of the last one
    // stays (gen-api, section 2).
    let values = values![
        name,
        realm,
        account_id.as_str(),
        generation,
        &refresh,
        access.as_ref(),
        grant.access.as_ref().map(|access| db.stored(access.expires_at)),
        db.stored(grant.at),
        route.map(|route| &*route.domain),
        route.map(|route| &*route.path),
        route.map(|route| db.stored(route.discovered_at)),
        old_is_readable,
        grant.trial.as_ref().map(|trial| db.stored(trial.refreshed_at)),
    ];
    if !tx.execute_unless_taken(D::DIALECT.put_grant, values).await? {
        return Ok(None);
    }
    forget_fallbacks(&mut tx, name, realm).await?;
    learn_tokens(&mut tx, grant).await?;
    let written = find(&mut tx, name, db.keys(), db.clock()).await;
    tx.commit().await?;
    written?.map_or_else(|| Err(StoreError::UnknownAccount(name.clone())), |written| Ok(Some(written)))
}

/// Makes the account where it is new. Also takes its row, so that whoever else changes its grants waits.
async fn write_account(
    tx: &mut impl SqlConnection,
    grant: &NewGrant,
    clock: &Clock,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO accounts AS old (name, current_realm, state) VALUES ($1, $2, 'ready') \
               ON CONFLICT (name) DO UPDATE SET \
               current_realm = CASE WHEN $3 THEN excluded.current_realm ELSE old.current_realm END, \
               moving_to = CASE WHEN $3 AND old.moving_to = excluded.current_realm THEN NULL ELSE old.moving_to END";
    tx.execute(sql, values![&grant.name, &grant.realm, grant.make_current]).await?;
    if let Some(state) = &grant.state {
        update_state(tx, &grant.name, state, clock).await?;
    }
    Ok(())
}

async fn generation_above_all(tx: &mut impl SqlConnection, name: &AccountName) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(generation), 0) + 1 FROM (SELECT generation FROM grants WHERE account = $1 \
               UNION ALL SELECT last FROM generations WHERE account = $1) known";
    Ok(fetch_number(tx, sql, values![name]).await?.unwrap_or(1))
}

async fn learn_tokens(tx: &mut impl SqlConnection, grant: &NewGrant) -> Result<(), StoreError> {
    let handed_in = grant.trial.as_ref().map(|trial| &trial.handed_in);
    let hashes: Vec<[u8; 32]> = handed_in.into_iter().chain([&grant.refresh]).map(token_hash).collect();
    tx.insert_known_tokens(&grant.name, &hashes).await
}

/// A grant that pairing or a later refresh has put in order needs no fallback.
async fn forget_fallbacks(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<(), StoreError> {
    tx.execute("DELETE FROM fallbacks WHERE account = $1 AND realm = $2", values![name, realm]).await?;
    Ok(())
}

pub async fn note_intent<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "UPDATE grants SET intent_at = $1 WHERE account = $2 AND realm = $3";
    let changed = tx.execute(sql, values![db.stored(at), name, realm]).await?;
    let found = found(changed, &mut tx, name, realm).await?;
    tx.commit().await?;
    found
}

/// The generation is compared by the update itself, so no lost update fits in between. Tokens that came by a
/// later refresh prove that the chain of refresh tokens lives, so what was kept beside it is no longer
/// needed.
pub async fn commit_tokens<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
    expected: u64,
    tokens: &NewTokens,
) -> Result<u64, StoreError> {
    let access = sealed_access(db.keys(), name, realm, Some(&tokens.access))?;
    let refresh = tokens.refresh.as_ref();
    let refresh = refresh.map(|token| sealed_refresh(db.keys(), name, realm, token)).transpose()?;
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "UPDATE grants SET generation = generation + 1, refresh_sealed = coalesce($1, refresh_sealed), \
               access_sealed = $2, access_expires_at = $3, refreshed_at = $4, intent_at = NULL \
               WHERE account = $5 AND realm = $6 AND generation = $7";
    let values = values![
        refresh.as_ref(),
        access.as_ref(),
        db.stored(tokens.access.expires_at),
        db.stored(tokens.refreshed_at),
        name,
        realm,
        signed(expected),
    ];
    if tx.execute(sql, values).await? > 0 {
        if !D::DIALECT.forgets_fallbacks {
            forget_fallbacks(&mut tx, name, realm).await?;
        }
        tx.commit().await?;
        return Ok(expected + 1);
    }
    let refusal = match generation::<D>(&mut tx, name, realm).await? {
        Some(generation) => StoreError::Fenced(unsigned(generation)),
        None => missing(&mut tx, name, realm).await?,
    };
    refuse(tx, refusal).await
}

pub async fn set_route<D: SqlDatabase>(
    db: &D,
    name: &AccountName,
    realm: &RealmName,
    route: &StoredRoute,
) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::WriteOnce).await?;
    let sql = "UPDATE grants SET route_domain = $1, route_path = $2, route_discovered_at = $3 \
               WHERE account = $4 AND realm = $5";
    let discovered_at = db.stored(route.discovered_at);
    let values = values![&*route.domain, &*route.path, discovered_at, name, realm];
    let changed = tx.execute(sql, values).await?;
    let found = found(changed, &mut tx, name, realm).await?;
    tx.commit().await?;
    found
}

pub async fn remove<D: SqlDatabase>(db: &D, name: &AccountName, realm: &RealmName) -> Result<(), StoreError> {
    let mut tx = db.begin(Purpose::Write).await?;
    lock::<D>(&mut tx, name).await?;
    if generation::<D>(&mut tx, name, realm).await?.is_none() {
        let refusal = missing(&mut tx, name, realm).await?;
        return refuse(tx, refusal).await;
    }
    for sql in [
        "INSERT INTO generations AS known (account, last) \
         SELECT account, generation FROM grants WHERE account = $1 AND realm = $2 \
         ON CONFLICT (account) DO UPDATE SET \
         last = CASE WHEN excluded.last > known.last THEN excluded.last ELSE known.last END",
        "DELETE FROM grants WHERE account = $1 AND realm = $2",
        "UPDATE accounts SET current_realm = \
         (SELECT realm FROM grants WHERE account = $1 ORDER BY obtained_at DESC, realm LIMIT 1) \
         WHERE name = $1 AND current_realm = $2 AND EXISTS (SELECT 1 FROM grants WHERE account = $1)",
    ] {
        tx.execute(sql, values![name, realm]).await?;
    }
    for sql in [
        "DELETE FROM accounts WHERE name = $1 AND NOT EXISTS (SELECT 1 FROM grants WHERE account = $1)",
        "DELETE FROM known_tokens WHERE account = $1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = $1)",
    ] {
        tx.execute(sql, values![name]).await?;
    }
    tx.commit().await
}

/// Takes the grant's row: a commit under way is waited for.
pub async fn generation<D: SqlDatabase>(
    tx: &mut impl SqlConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<Option<i64>, StoreError> {
    fetch_number(tx, D::DIALECT.generation, values![name, realm]).await
}

pub fn sealed_refresh(
    keys: &SealKeys,
    name: &AccountName,
    realm: &RealmName,
    token: &RefreshToken,
) -> Result<Vec<u8>, StoreError> {
    keys.seal(refresh_context(name, realm), token.expose()).map_err(seal_failed)
}

pub fn sealed_access(
    keys: &SealKeys,
    name: &AccountName,
    realm: &RealmName,
    access: Option<&StoredAccess>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sealed = access.map(|access| keys.seal(access_context(name, realm), access.token.expose()));
    sealed.transpose().map_err(seal_failed)
}

/// What replaces a grant by a new one, from its columns on: the last refresh and the route stay where the
/// account id does and the old record could be read ($12).
macro_rules! replace_grant {
    () => {
        "account_id = $3, generation = $4, refresh_sealed = $5, access_sealed = $6, access_expires_at = $7, \
         obtained_at = $8, intent_at = NULL, \
         refreshed_at = coalesce($13, CASE WHEN $12 AND old.account_id = $3 THEN old.refreshed_at END), \
         route_domain = CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_domain ELSE $9 END, \
         route_path = CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_path ELSE $10 END, \
         route_discovered_at = \
         CASE WHEN $12 AND old.account_id = $3 AND $9 IS NULL THEN old.route_discovered_at ELSE $11 END"
    };
}
pub(in crate::store) use replace_grant;
