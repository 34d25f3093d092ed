//! Single steps inside a transaction on accounts and grants. None of them commits.

use sqlx::postgres::PgConnection;

use super::{UNIQUE_VIOLATION, query, scalar, store_error};
use crate::clock::Clock;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::store::rows::state_columns;
use crate::store::seal::SealError;
use crate::store::{NewGrant, StoreError, token_hash};

/// Nothing is written unsealed.
pub(super) fn unsealed(why: SealError) -> StoreError {
    StoreError::Unavailable(why.to_string().into())
}

/// A grant that pairing or a later refresh has put in order needs no fallback.
pub(super) async fn forget_fallbacks(
    connection: &mut PgConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<(), StoreError> {
    query("DELETE FROM fallbacks WHERE account = $1 AND realm = $2")
        .bind(name.as_str())
        .bind(realm.as_str())
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}

/// Which of the two it is that does not exist.
pub(super) async fn missing(
    connection: &mut PgConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<StoreError, StoreError> {
    let known: bool = scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE name = $1)")
        .bind(name.as_str())
        .fetch_one(connection)
        .await
        .map_err(store_error)?;
    Ok(match known {
        true => StoreError::UnknownGrant { account: name.clone(), realm: realm.clone() },
        false => StoreError::UnknownAccount(name.clone()),
    })
}

pub(super) fn is_unique_violation(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refused| refused.code());
    code.is_some_and(|code| code == UNIQUE_VIOLATION)
}

pub(super) async fn holder(
    connection: &mut PgConnection,
    realm: &RealmName,
    id: AccountId,
    but: &AccountName,
) -> Result<Option<AccountName>, StoreError> {
    let name: Option<String> =
        scalar("SELECT account FROM grants WHERE realm = $1 AND account_id = $2 AND account <> $3")
            .bind(realm.as_str())
            .bind(id.to_string())
            .bind(but.as_str())
            .fetch_optional(connection)
            .await
            .map_err(store_error)?;
    let name = name.map(|name| name.parse()).transpose();
    name.map_err(|_| {
        StoreError::Refused(format!("account {id} of realm {realm} stands under a name that is not valid"))
    })
}

/// Also takes the account's row, so that whoever else changes its grants waits.
pub(super) async fn write_account(
    connection: &mut PgConnection,
    grant: &NewGrant,
    clock: &Clock,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO accounts AS old (name, current_realm, state) VALUES ($1, $2, 'ready') \
         ON CONFLICT (name) DO UPDATE SET current_realm = CASE WHEN $3 THEN excluded.current_realm ELSE old.current_realm END",
    )
    .bind(grant.name.as_str())
    .bind(grant.realm.as_str())
    .bind(grant.make_current)
    .execute(&mut *connection)
    .await
    .map_err(store_error)?;
    if let Some(state) = &grant.state {
        update_state(connection, &grant.name, state, clock).await?;
    }
    Ok(())
}

pub(super) async fn lock_account(
    connection: &mut PgConnection,
    name: &AccountName,
) -> Result<(), StoreError> {
    query("SELECT 1 FROM accounts WHERE name = $1 FOR UPDATE")
        .bind(name.as_str())
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}

pub(super) async fn learn_token(connection: &mut PgConnection, grant: &NewGrant) -> Result<(), StoreError> {
    let handed_in = grant.trial.as_ref().map(|proof| &proof.handed_in);
    for token in handed_in.into_iter().chain([&grant.refresh]) {
        query("INSERT INTO known_tokens (hash, account) VALUES ($1, $2) ON CONFLICT (hash) DO UPDATE SET account = $2")
            .bind(&token_hash(token)[..])
            .bind(grant.name.as_str())
            .execute(&mut *connection)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

pub(super) async fn update_state(
    connection: &mut PgConnection,
    name: &AccountName,
    state: &AccountState,
    clock: &Clock,
) -> Result<u64, StoreError> {
    let (word, since, why) = state_columns(clock, state);
    let changed = query("UPDATE accounts SET state = $1, since = $2, why = $3 WHERE name = $4")
        .bind(word)
        .bind(since)
        .bind(why)
        .bind(name.as_str())
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(changed.rows_affected())
}

pub(super) async fn generation_above_all(
    connection: &mut PgConnection,
    name: &AccountName,
) -> Result<i64, StoreError> {
    scalar(
        "SELECT coalesce(max(generation), 0) + 1 FROM (SELECT generation FROM grants WHERE account = $1 \
         UNION ALL SELECT last FROM generations WHERE account = $1) known",
    )
    .bind(name.as_str())
    .fetch_one(connection)
    .await
    .map_err(store_error)
}

/// Takes the grant's row: a commit under way is waited for.
pub(super) async fn generation_of(
    connection: &mut PgConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<Option<i64>, StoreError> {
    scalar("SELECT generation FROM grants WHERE account = $1 AND realm = $2 FOR NO KEY UPDATE")
        .bind(name.as_str())
        .bind(realm.as_str())
        .fetch_optional(connection)
        .await
        .map_err(store_error)
}

pub(super) async fn found(
    changed: u64,
    connection: &mut PgConnection,
    name: &AccountName,
    realm: &RealmName,
) -> Result<Result<(), StoreError>, StoreError> {
    match changed {
        0 => Ok(Err(missing(connection, name, realm).await?)),
        _ => Ok(Ok(())),
    }
}
