//! How a login by a start link gets on, for the operator who waits for it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::code::Code;
use super::outcome::{LoginError, LoginOutcome};
use super::pending::{CodeStatus, PendingStart};
use super::{Pairing, RealmName};
use crate::clock::Timestamp;
use crate::model::account::AccountName;
use crate::store::StoreError;

/// Where a login by a start link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginProgress {
    /// Nobody has finished it; `last_failure` is why the last one who tried did not.
    Waiting {
        expires_at: Timestamp,
        last_failure: Option<LoginError>,
    },
    Paired {
        account: Option<AccountName>,
    },
    /// The link's time is over, or it is none of ours.
    Over {
        last_failure: Option<LoginError>,
    },
}

/// The last failure of each start link, the newest links at the back. Of this process alone: another
/// gateway's is not waited for.
#[derive(Default)]
pub(super) struct RecentFailures(Mutex<VecDeque<([u8; 32], LoginError)>>);

/// Whoever waits looks every second; of more logins at once the oldest lose their reason, not their link.
const MOST_FAILURES: usize = 1000;

impl RecentFailures {
    pub fn record(&self, start: Option<&Code>, outcome: &LoginOutcome) {
        let (Some(start), LoginOutcome::Failed { error, .. }) = (start, outcome) else { return };
        let hash = start.hash().as_bytes();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(other, _)| *other != hash);
        if held.len() >= MOST_FAILURES {
            held.pop_front();
        }
        held.push_back((hash, error.clone()));
    }

    fn last(&self, start: &Code) -> Option<LoginError> {
        let hash = start.hash().as_bytes();
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().find(|(other, _)| *other == hash).map(|(_, error)| error.clone())
    }
}

impl Pairing {
    /// Looks without using the link up.
    pub async fn progress(&self, code: &str) -> Result<LoginProgress, StoreError> {
        let Some(code) = Code::parse(code) else { return Ok(LoginProgress::Over { last_failure: None }) };
        let last_failure = self.failures.last(&code);
        Ok(match self.pending.peek::<PendingStart>(&code).await? {
            CodeStatus::Live { expires_at, .. } => LoginProgress::Waiting { expires_at, last_failure },
            CodeStatus::Used { by } => LoginProgress::Paired { account: by },
            CodeStatus::Unknown => LoginProgress::Over { last_failure },
        })
    }

    /// The realms of the configuration, by name.
    pub fn realm_names(&self) -> Vec<RealmName> {
        self.settings.load().realms.keys().cloned().collect()
    }
}
