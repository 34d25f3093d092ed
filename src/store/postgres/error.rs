//! What an error of the database means, by SQLSTATE: text changes with the server's language.

use crate::store::StoreError;
use crate::store::unavailable::{StoreUnavailable, UnavailableKind};

/// Trouble passes (down, slow, read-only, failing over, full); damage does not. Messages of PostgreSQL hold
/// no values, its details do: they are left out.
pub fn store_error(error: sqlx::Error) -> StoreError {
    let Some(refused) = error.as_database_error() else {
        return StoreError::Unavailable(StoreUnavailable::new(UnavailableKind::Down, error.to_string()));
    };
    let code = refused.code().unwrap_or_default();
    let why = match &*code {
        // postgresql.org/docs/current/errcodes-appendix.html: data_corrupted, index_corrupted
        "XX001" | "XX002" => {
            let why = format!("the database is damaged: {}; restore a backup", refused.message());
            return StoreError::Refused(why);
        }
        READ_ONLY => "the database takes no writes (read-only)".to_owned(),
        _ => format!("{} (SQLSTATE {code})", refused.message()),
    };
    let unavailable = StoreUnavailable::new(unavailable_kind(&code), why);
    StoreError::Unavailable(if ROLLED_BACK.contains(&&*code) {
        unavailable.rolled_back()
    } else {
        unavailable
    })
}

/// By SQLSTATE, which no language of the server changes.
fn unavailable_kind(code: &str) -> UnavailableKind {
    match code {
        READ_ONLY => UnavailableKind::ReadOnly,
        // too_many_connections
        "53300" => UnavailableKind::TooManyConnections,
        // disk_full
        "53100" => UnavailableKind::DiskFull,
        // query_canceled (a statement's time-out), lock_not_available
        "57014" | "55P03" => UnavailableKind::Slow,
        // connection_exception, operator_intervention (shut down, crashed, starting), system_error
        _ if ["08", "57", "58"].iter().any(|class| code.starts_with(class)) => UnavailableKind::Down,
        _ => UnavailableKind::Other,
    }
}

/// transaction_rollback, serialization_failure, deadlock_detected: nothing of it happened.
const ROLLED_BACK: [&str; 3] = ["40000", "40001", "40P01"];
const READ_ONLY: &str = "25006";
pub const UNIQUE_VIOLATION: &str = "23505";
