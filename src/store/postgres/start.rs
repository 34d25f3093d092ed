//! From an address to a database that may be used: of a schema we can live with, sealed under a key we hold.
//! Anything else is refused here.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::super::StoreError;
use super::super::key_check;
use super::super::key_file::{self, EnvLookup};
use super::super::seal::SealKeys;
use super::pool::{SCHEMA, begin};
use super::target::{DatabaseTarget, is_tls};
use super::{query, scalar, store_error};
use crate::clock::{Clock, Timestamp};
use crate::config::SecretSource;

/// A step of the schema. During a rolling upgrade gateways of two versions work on one schema, so a step only
/// adds, and an older gateway that restarts meanwhile must still come up: it does where every step allows it.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
    /// The newest schema that a gateway must know to work beside this one. A step that takes something away
    /// raises it, one release after nothing needs that any more.
    oldest_beside: i64,
}

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "init",
        sql: include_str!("../../../migrations/postgres/0001_init.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 2,
        name: "last_seen",
        sql: include_str!("../../../migrations/postgres/0002_last_seen.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 3,
        name: "application_grants",
        sql: include_str!("../../../migrations/postgres/0003_application_grants.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 4,
        name: "application_logins",
        sql: include_str!("../../../migrations/postgres/0004_application_logins.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 5,
        name: "test_accounts",
        sql: include_str!("../../../migrations/postgres/0005_test_accounts.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 6,
        name: "account_version",
        sql: include_str!("../../../migrations/postgres/0006_account_version.sql"),
        oldest_beside: 1,
    },
    Migration {
        version: 7,
        name: "moving",
        sql: include_str!("../../../migrations/postgres/0007_moving.sql"),
        oldest_beside: 1,
    },
];

/// `xid8` and `pg_current_xact_id` came with it.
const OLDEST_SERVER: i32 = 130_000;
/// "gapi": replicas that start together take turns. Held by the transaction, not the session.
const START_LOCK: i64 = 1_734_439_017;
pub(super) const LIMITS: &str = "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '60s'; \
                      SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// One transaction: schema, key, proof. Also says whether the server's commits wait for its disk, and takes
/// its time for ours.
pub async fn prepare(
    target: &DatabaseTarget,
    key: &SecretSource,
    environment: EnvLookup<'_>,
    clock: &Clock,
) -> Result<(SealKeys, bool), StoreError> {
    let at_start = |error: sqlx::Error| start_error(target, error);
    let mut connection = target.connect().await.map_err(at_start)?;
    begin(&mut connection, LIMITS, true).await.map_err(at_start)?;
    check_server(&mut connection, target).await?;
    query("SELECT pg_advisory_xact_lock($1)")
        .bind(START_LOCK)
        .execute(&mut connection)
        .await
        .map_err(at_start)?;
    migrate(&mut connection, target, MIGRATIONS).await?;
    let keys = check_keys(&mut connection, target, key, environment).await?;
    let row = query("SELECT current_setting('synchronous_commit'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut connection)
        .await
        .map_err(at_start)?;
    let (durable, now): (String, i64) = (get(&row, 0)?, get(&row, 1)?);
    clock.follow_database(Timestamp::from_millis(u64::try_from(now).unwrap_or_default()));
    sqlx::raw_sql("COMMIT").execute(&mut connection).await.map_err(at_start)?;
    Ok((keys, durable != "off"))
}

async fn check_server(connection: &mut PgConnection, target: &DatabaseTarget) -> Result<(), StoreError> {
    let row = query("SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync')")
        .fetch_one(connection)
        .await
        .map_err(store_error)?;
    let (number, name, fsync): (i32, String, String) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    if number < OLDEST_SERVER {
        return Err(StoreError::Refused(format!(
            "{} is PostgreSQL {name}; 13 or newer is needed",
            target.label()
        )));
    }
    if fsync == "off" {
        tracing::warn!(
            database = target.label(),
            "the database runs with fsync = off: a power cut can cost logins"
        );
    }
    Ok(())
}

/// Brings the schema up to date. One that is newer is used where it allows that.
async fn migrate(
    connection: &mut PgConnection,
    target: &DatabaseTarget,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let at_start = |error: sqlx::Error| start_error(target, error);
    let has_schema: bool = scalar("SELECT to_regnamespace($1) IS NOT NULL")
        .bind(SCHEMA)
        .fetch_one(&mut *connection)
        .await
        .map_err(at_start)?;
    let has_versions: bool = scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{SCHEMA}.schema_versions"))
        .fetch_one(&mut *connection)
        .await
        .map_err(at_start)?;
    if !has_versions {
        make_schema(connection, target, has_schema).await?;
    }
    let applied = query("SELECT version, checksum, oldest_beside FROM schema_versions ORDER BY version")
        .fetch_all(&mut *connection)
        .await
        .map_err(at_start)?;
    let newest_known = migrations.iter().map(|migration| migration.version).max().unwrap_or_default();
    for row in &applied {
        let (version, checksum, oldest_beside): (i64, Vec<u8>, i64) =
            (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        if oldest_beside > newest_known {
            return Err(StoreError::Refused(format!(
                "{} was changed by a newer gateway (schema {version}, which works beside {oldest_beside} or newer; this one knows \
                 {newest_known}): run a newer version, or restore a backup from before the upgrade",
                target.label()
            )));
        }
        let known = migrations.iter().find(|migration| migration.version == version);
        if known.is_some_and(|known| known.checksum() != checksum[..]) {
            return Err(StoreError::Refused(format!(
                "step {version} of the schema of {} is not the one that this version knows",
                target.label()
            )));
        }
    }
    let done =
        |version: i64| applied.iter().any(|row| row.try_get::<i64, _>(0).is_ok_and(|done| done == version));
    for migration in migrations.iter().filter(|migration| !done(migration.version)) {
        sqlx::raw_sql(migration.sql).execute(&mut *connection).await.map_err(at_start)?;
        query("INSERT INTO schema_versions (version, name, checksum, oldest_beside) VALUES ($1, $2, $3, $4)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(&migration.checksum()[..])
            .bind(migration.oldest_beside)
            .execute(&mut *connection)
            .await
            .map_err(at_start)?;
    }
    Ok(())
}

/// A schema that an administrator made for us beforehand is taken where it is empty.
async fn make_schema(
    connection: &mut PgConnection,
    target: &DatabaseTarget,
    exists: bool,
) -> Result<(), StoreError> {
    let at_start = |error: sqlx::Error| start_error(target, error);
    if exists {
        let tables: i64 = scalar("SELECT count(*) FROM pg_tables WHERE schemaname = $1")
            .bind(SCHEMA)
            .fetch_one(&mut *connection)
            .await
            .map_err(at_start)?;
        if tables > 0 {
            return Err(StoreError::Refused(format!(
                "the schema {SCHEMA} in {} holds another program's tables; name another database in store.url",
                target.label()
            )));
        }
    } else {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {SCHEMA}")))
            .execute(&mut *connection)
            .await
            .map_err(at_start)?;
    }
    sqlx::raw_sql(
        "CREATE TABLE schema_versions (version bigint PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL, \
         oldest_beside bigint NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .execute(connection)
    .await
    .map_err(at_start)?;
    Ok(())
}

impl Migration {
    fn checksum(&self) -> [u8; 32] {
        let mut sum = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.sql.as_bytes());
        sum.copy_from_slice(digest.as_ref());
        sum
    }
}

/// Several gateways share one key: only the very first start may make one.
async fn check_keys(
    connection: &mut PgConnection,
    target: &DatabaseTarget,
    key: &SecretSource,
    environment: EnvLookup<'_>,
) -> Result<SealKeys, StoreError> {
    let key_checks = query("SELECT key_id, canary_sealed FROM seal_keys")
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?
        .iter()
        .map(|row| Ok((get(row, 0)?, get(row, 1)?)))
        .collect::<Result<Vec<(String, Vec<u8>)>, StoreError>>()?;
    let holds_grants: bool = scalar("SELECT EXISTS (SELECT 1 FROM grants)")
        .fetch_one(&mut *connection)
        .await
        .map_err(store_error)?;
    let is_new = key_checks.is_empty() && !holds_grants;
    let keys = key_file::load(key, target.label(), is_new, environment)?;
    if let Some(key_check) = key_check::verify(&keys, &key_checks, holds_grants, target.label())? {
        query("INSERT INTO seal_keys (key_id, canary_sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(key_check.key_id)
            .bind(key_check.sealed)
            .execute(connection)
            .await
            .map_err(|error| start_error(target, error))?;
    }
    Ok(keys)
}

fn get<'r, T>(row: &'r sqlx::postgres::PgRow, index: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(store_error)
}

/// At start more is final than later: a wrong password or a missing right does not pass by waiting.
fn start_error(target: &DatabaseTarget, error: sqlx::Error) -> StoreError {
    // invalid_authorization_specification, invalid_password, invalid_catalog_name, insufficient_privilege
    const FINAL: [&str; 4] = ["28000", "28P01", "3D000", "42501"];
    let code = error.as_database_error().and_then(|refused| refused.code());
    let is_final = is_tls(&error) || code.is_some_and(|code| FINAL.contains(&code.as_ref()));
    match target.unreachable(error) {
        StoreError::Unavailable(unavailable) if is_final => StoreError::Refused(unavailable.to_string()),
        other => other,
    }
}
