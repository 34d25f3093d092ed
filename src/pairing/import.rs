//! Brings accounts over from an application that paired them, line by line, repeatable. The rule: an account
//! that works is never broken by an old token.
//!
//! Which token wins, where the account is known with another one: tokens carry no date, and on a platform
//! that rotates them the file's is the older one as soon as the gateway has refreshed. So a token that has
//! proved itself stays unless the operator says `replace`, and whatever is stored stays until the platform
//! has taken the file's token for a refresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Pairing;
use super::import_plan::{
    EntryPlan, ImportEntry, ImportOptions, ImportResult, StoreAction, TokenOwners, never_proved, new_grant,
};
use super::naming;
use crate::access::replace_grant::ReplaceError;
use crate::journal::JournalEvent;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;
use crate::store::{AccountRecord, NewGrant, StoreError};

/// Between two refreshes that operators ask for, by `import`, `resume` or `renew`: ten a second at the most.
/// Hundreds of accounts at once would look like an attack to the platform.
pub const OPERATOR_PACE: Duration = Duration::from_millis(100);

/// So many tokens refused one after the other, where they were to replace others, are an old file: it is not
/// worked through further.
const REFUSALS_IN_A_ROW: u32 = 3;

/// What became of one element.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImportLine {
    /// Counted from 1.
    pub line: usize,
    /// How many elements the file has.
    pub of: usize,
    /// Absent where the element could not be read.
    pub name: Option<AccountName>,
    #[serde(flatten)]
    pub result: ImportResult,
}

/// What came of an element, and whether the platform refused its token.
struct EntryResult {
    result: ImportResult,
    refused: bool,
}

impl From<ImportResult> for EntryResult {
    fn from(result: ImportResult) -> Self {
        Self { result, refused: false }
    }
}

impl Pairing {
    /// Works through a file; the lines come as they are done. Hanging up stops it after the line in hand: it
    /// can be repeated.
    pub fn import(
        self: &Arc<Self>,
        entries: Vec<Result<ImportEntry, String>>,
        options: ImportOptions,
    ) -> mpsc::Receiver<ImportLine> {
        let (lines, received) = mpsc::channel(1);
        tokio::spawn(self.clone().import_all(entries, options, lines));
        received
    }

    /// Takes a refresh token that an application has brought for an account of its own, where the platform
    /// takes it. `None` where it does not, or where the account cannot have it.
    pub async fn import_first_seen(
        self: &Arc<Self>,
        realm: RealmName,
        account_id: AccountId,
        refresh_token: RefreshToken,
    ) -> Option<AccountName> {
        let records = self.records().await.ok()?;
        let name = naming::fallback(&records, &realm, account_id, "");
        let entry = ImportEntry { name: name.clone(), realm, account_id, refresh_token, test: None };
        let line = self.import(vec![Ok(entry)], ImportOptions::default()).recv().await?;
        let (result, detail) = (line.result.word(), line.result.detail());
        tracing::info!(account = %name, result, detail, "an application has brought a refresh token that was not imported");
        if !matches!(line.result, ImportResult::Failed(_)) {
            return Some(name);
        }
        // One that the platform could not be asked about is tried again like any other.
        let account = self.registry.by_name(name.as_str());
        if account.is_some_and(|account| matches!(account.state(), AccountState::NeedsLogin { .. }))
            && let Err(problem) = self.discard_refused(&name).await
        {
            tracing::warn!(account = %name, %problem, "an account whose first token was refused is not removed");
        }
        None
    }

    async fn import_all(
        self: Arc<Self>,
        entries: Vec<Result<ImportEntry, String>>,
        options: ImportOptions,
        lines: mpsc::Sender<ImportLine>,
    ) {
        let of = entries.len();
        let mut owners = match self.records().await {
            Ok(records) => TokenOwners::of(&records),
            Err(problem) => {
                let result = ImportResult::Failed(problem.to_string());
                let _ = lines.send(ImportLine { line: 1, of, name: None, result }).await;
                return;
            }
        };
        let mut refusals = 0;
        for (index, entry) in entries.into_iter().enumerate() {
            let entry = owners.unswapped(entry);
            let name = entry.as_ref().ok().map(|entry| entry.name.clone());
            let failed = options.replace && refusals >= REFUSALS_IN_A_ROW;
            let done = match entry {
                Ok(_) if failed => ImportResult::Failed(STOPPED.to_owned()).into(),
                Ok(entry) => {
                    let done = self.import_one(&entry, options, &mut owners).await;
                    self.mark_test(&entry).await;
                    done
                }
                Err(why) => ImportResult::Failed(why).into(),
            };
            match done.result {
                ImportResult::Imported(_) | ImportResult::Replaced(_) if !failed => refusals = 0,
                _ => refusals += u32::from(done.refused),
            }
            if lines.send(ImportLine { line: index + 1, of, name, result: done.result }).await.is_err() {
                return;
            }
        }
    }

    async fn import_one(
        &self,
        entry: &ImportEntry,
        options: ImportOptions,
        owners: &mut TokenOwners,
    ) -> EntryResult {
        let of_store = |problem: StoreError| EntryResult::from(ImportResult::Failed(problem.to_string()));
        // Held to the end of a try too: a token that the platform has just taken must find its account under
        // the same name.
        let saving = self.saving.lock().await;
        let known = match self.store.account(&entry.name).await {
            Ok(known) => known,
            Err(problem) => return of_store(problem),
        };
        let plan = match self.plan(entry, known.as_ref(), options, owners) {
            Ok(plan) => plan,
            Err(result) => return result.into(),
        };
        let grant = new_grant(entry, known.as_ref(), options, self.clock.now());
        match (plan, known) {
            (EntryPlan::Prove, Some(record)) => self.prove(&record, grant).await,
            (EntryPlan::Same, Some(record)) => {
                drop(saving);
                self.renew_again(entry, &record, options).await
            }
            (plan, _) => {
                let record = match self.store.put_grant(grant).await {
                    Ok(record) => record,
                    Err(problem) => return of_store(problem),
                };
                self.publish(&record);
                let detail = format!("account {} of realm {}", entry.account_id, entry.realm);
                self.journal.record(&entry.name, JournalEvent::Imported, detail);
                drop(saving);
                let stored = if let EntryPlan::Store(stored) = plan { stored } else { StoreAction::New };
                self.renew_first(entry, &record, stored, options).await
            }
        }
    }

    /// What the file says of whether the account is to be tested with, where this is the account.
    async fn mark_test(&self, entry: &ImportEntry) {
        let Some(is_test) = entry.test else { return };
        let Ok(Some(record)) = self.store.account(&entry.name).await else { return };
        let is_it = naming::id_of(std::slice::from_ref(&record), &entry.name, &entry.realm);
        if is_it != Some(entry.account_id) || record.is_test == is_test {
            return;
        }
        if let Err(problem) = self.set_test(&entry.name, is_test).await {
            tracing::warn!(account = %entry.name, %problem, "it is not noted whether this is a test account");
        }
    }

    /// Has the platform take the file's token for a refresh; until it
    /// has, the account's own stays, and serves on.
    async fn prove(&self, before: &AccountRecord, grant: NewGrant) -> EntryResult {
        let (name, realm) = (grant.name.clone(), grant.realm.clone());
        let replaced = self.replace_token(grant).await;
        let result = match replaced {
            Ok(record) => {
                let discovered = if before.state == AccountState::Paused {
                    format!("still paused: `accounts resume {name}`")
                } else if record.current != realm {
                    format!("not in use: calls go to realm {}", record.current)
                } else {
                    match self.rediscover(&name).await {
                        Ok(()) => "discovered".to_owned(),
                        Err(why) => format!("but discovery failed: {why}"),
                    }
                };
                ImportResult::Replaced(format!("refreshed; {discovered}")).into()
            }
            Err(ReplaceError::Refused(why)) => EntryResult {
                result: ImportResult::Failed(format!(
                    "the platform does not take this token ({why}); the account keeps its own"
                )),
                refused: true,
            },
            Err(ReplaceError::NotTried(why)) => {
                ImportResult::Failed(format!("not tried: {why}; the account keeps its own token")).into()
            }
            Err(ReplaceError::Failed(why)) => {
                ImportResult::Failed(format!("{why}; the account keeps its own token")).into()
            }
        };
        self.clock.sleep(OPERATOR_PACE).await;
        result
    }

    /// The first refresh of what was just stored.
    async fn renew_first(
        &self,
        entry: &ImportEntry,
        record: &AccountRecord,
        stored: StoreAction,
        options: ImportOptions,
    ) -> EntryResult {
        let good = |detail: String| match stored {
            StoreAction::New => ImportResult::Imported(detail),
            StoreAction::Replaced => ImportResult::Replaced(detail),
        };
        if options.paused || record.state == AccountState::Paused {
            return good("paused, not refreshed".to_owned()).into();
        }
        if record.current != entry.realm {
            return good(format!("not refreshed: calls go to realm {}", record.current)).into();
        }
        match self.renew_paced(&entry.name).await {
            Ok(()) => good("refreshed and discovered".to_owned()).into(),
            Err((why, refused)) => EntryResult {
                result: ImportResult::Failed(format!("stored, but the first refresh failed: {why}")),
                refused,
            },
        }
    }

    /// A token that is stored already is not refreshed without need (gen-api, section 2); where it never
    /// proved itself, or the account needs a login, an operator's asking is the need.
    async fn renew_again(
        &self,
        entry: &ImportEntry,
        record: &AccountRecord,
        options: ImportOptions,
    ) -> EntryResult {
        let stored = "this token is stored already";
        let is_proven = record.current_grant().is_some_and(|grant| !never_proved(grant));
        let is_in_use = record.current == entry.realm && record.state != AccountState::Paused;
        if options.paused || !is_in_use || (record.state == AccountState::Ready && is_proven) {
            return ImportResult::Kept(stored.to_owned()).into();
        }
        match self.renew_paced(&entry.name).await {
            Ok(()) => ImportResult::Kept(format!("{stored}; refreshed and discovered")).into(),
            Err((why, refused)) => EntryResult {
                result: ImportResult::Failed(format!("{stored}, but its refresh failed: {why}")),
                refused,
            },
        }
    }

    /// Fails with why, and whether the platform refused the token.
    async fn renew_paced(&self, name: &AccountName) -> Result<(), (String, bool)> {
        let renewed = self.renew(name).await;
        self.clock.sleep(OPERATOR_PACE).await;
        let Err(why) = renewed else { return Ok(()) };
        let record = self.store.account(name).await.ok().flatten();
        let refused = record.is_some_and(|record| matches!(record.state, AccountState::NeedsLogin { .. }));
        Err((why, refused))
    }
}

const STOPPED: &str =
    "not tried: three tokens in a row were refused, so the file looks older than what is stored here";
