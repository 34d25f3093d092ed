//! Moving everything from one store to another: account by account, each together with its past, repeatable,
//! and read back to prove it.
//!
//! The rule guarded here: newer tokens are never overwritten by older ones, whichever store they are in.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::{
    AccountRecord, ApplicationGrantRecord, JournalEntry, PendingLogin, Store, StoreError, StoreFuture,
};
use crate::model::account::AccountName;

/// Everything that stands under one name, also when the account itself is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountBundle {
    pub name: AccountName,
    pub account: Option<AccountRecord>,
    /// How far the generations of removed grants went; 0 where none was removed.
    pub spent_generation: u64,
    /// In order.
    pub known_tokens: Vec<[u8; 32]>,
    /// By caller, revoked ones included.
    pub application_grants: Vec<ApplicationGrantRecord>,
    /// Oldest first.
    pub journal: Vec<JournalEntry>,
}

/// A store whose content can be moved.
pub trait Migratable: Store {
    /// Every name under which anything stands, in order.
    fn names(&self) -> StoreFuture<'_, Vec<AccountName>>;
    fn bundle<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, AccountBundle>;
    /// Makes what stands under the name the same as this, generations included. One transaction. A journal is
    /// only ever added to: where it holds other lines, this is `Refused`. The grants of applications are
    /// merged with those that are there ([`merged_grants`]); what comes back is the ones that stand.
    fn put_bundle<'a>(&'a self, bundle: &'a AccountBundle) -> StoreFuture<'a, Vec<ApplicationGrantRecord>>;
    /// Those that unseal; the others are as good as none.
    fn logins(&self) -> StoreFuture<'_, Vec<PendingLogin>>;
}

/// What came of moving.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MigrationReport {
    /// Written, read back and found equal.
    pub moved: usize,
    /// Were there already, equal: by an earlier run.
    pub already_there: usize,
    /// Of accounts that are gone: their journal and how far their generations went. Moved or there already.
    pub removed: usize,
    pub logins: usize,
    /// Left alone: the target has newer tokens than the source.
    pub ahead: Vec<AccountName>,
    /// Only the target knows them; left alone.
    pub only_in_target: Vec<AccountName>,
    /// Each with the reason, for people.
    pub failed: Vec<(AccountName, String)>,
}

impl MigrationReport {
    /// Whether the target can take over.
    pub fn complete(&self) -> bool {
        self.failed.is_empty() && self.ahead.is_empty()
    }
}

enum MoveOutcome {
    Moved,
    AlreadyThere,
    /// Either of the two, and there is no account of that name any more.
    Past,
    Ahead,
    Failed(String),
}

/// At once, so that a database across the network is not waited for account by account.
const CONCURRENT_MOVES: usize = 8;

/// Moves everything that `from` holds to `to`; `progress` hears how many of how many accounts are done. No
/// gateway should run on either, or what changes meanwhile takes another run. Interrupted, it is simply run
/// again.
pub async fn copy(
    from: &dyn Migratable,
    to: &dyn Migratable,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<MigrationReport, StoreError> {
    let names = from.names().await?;
    let mut report = MigrationReport::default();
    let mut moving = stream::iter(&names)
        .map(|name| async move { (name, move_one(from, to, name).await) })
        .buffer_unordered(CONCURRENT_MOVES);
    let mut done = 0;
    while let Some((name, outcome)) = moving.next().await {
        match outcome {
            MoveOutcome::Moved => report.moved += 1,
            MoveOutcome::AlreadyThere => report.already_there += 1,
            MoveOutcome::Past => report.removed += 1,
            MoveOutcome::Ahead => report.ahead.push(name.clone()),
            MoveOutcome::Failed(why) => report.failed.push((name.clone(), why)),
        }
        done += 1;
        progress(done, names.len());
    }
    for login in from.logins().await? {
        to.put_login(login).await?;
        report.logins += 1;
    }
    let known = to.names().await?;
    report.only_in_target = known.into_iter().filter(|name| names.binary_search(name).is_err()).collect();
    report.ahead.sort();
    report.failed.sort();
    Ok(report)
}

async fn move_one(from: &dyn Migratable, to: &dyn Migratable, name: &AccountName) -> MoveOutcome {
    match try_move(from, to, name).await {
        Ok(outcome) => outcome,
        Err(trouble) => MoveOutcome::Failed(trouble.to_string()),
    }
}

async fn try_move(
    from: &dyn Migratable,
    to: &dyn Migratable,
    name: &AccountName,
) -> Result<MoveOutcome, StoreError> {
    let source = from.bundle(name).await?;
    // What the target cannot unseal is of no use to anybody, and is written over.
    let target = match to.bundle(name).await {
        Ok(target) => Some(target),
        Err(StoreError::Unsealable { .. }) => None,
        Err(trouble) => return Err(trouble),
    };
    let is_past = source.account.is_none();
    if target.as_ref().is_some_and(|target| target.lacks_nothing_of(&source)) {
        return Ok(if is_past { MoveOutcome::Past } else { MoveOutcome::AlreadyThere });
    }
    if target.is_some_and(|target| target.newest_generation() > source.newest_generation()) {
        return Ok(MoveOutcome::Ahead);
    }
    let application_grants = to.put_bundle(&source).await?;
    if to.bundle(name).await? != (AccountBundle { application_grants, ..source }) {
        let why = "it reads back differently from how it was written";
        return Ok(MoveOutcome::Failed(why.to_owned()));
    }
    Ok(if is_past { MoveOutcome::Past } else { MoveOutcome::Moved })
}

/// What stands after `arriving` came to `there`, by caller: of each caller the higher generation, and of two
/// of one generation the one that is there, unless it alone cannot be read. Applications get grants and
/// revoke them without a new token of the account's, so its generations tell nothing about them.
pub(super) fn merged_grants(
    arriving: &[ApplicationGrantRecord],
    there: &[ApplicationGrantRecord],
) -> Vec<ApplicationGrantRecord> {
    let mut merged: BTreeMap<&str, _> = there.iter().map(|record| (&*record.caller, record)).collect();
    for record in arriving {
        let standing = merged.entry(&record.caller).or_insert(record);
        let is_readable_again = standing.is_unreadable() && !record.is_unreadable();
        if (record.generation, is_readable_again) > (standing.generation, false) {
            *standing = record;
        }
    }
    merged.into_values().cloned().collect()
}

impl AccountBundle {
    fn newest_generation(&self) -> u64 {
        let grants = self.account.iter().flat_map(|account| &account.grants);
        grants.map(|grant| grant.generation).fold(self.spent_generation, u64::max)
    }

    /// Whether it would stand as it does after `source` was written over it.
    fn lacks_nothing_of(&self, source: &Self) -> bool {
        let arriving = &source.application_grants;
        let application_grants = match source.account {
            Some(_) => merged_grants(arriving, &self.application_grants),
            None => arriving.clone(),
        };
        *self == (Self { application_grants, ..source.clone() })
    }

    /// The lines that a journal lacks which holds `there`: it may have been trimmed at the old end.
    pub(super) fn lines_beyond(&self, there: &[JournalEntry]) -> Result<&[JournalEntry], StoreError> {
        let longest = there.len().min(self.journal.len());
        let shared = (0..=longest).rev().find(|shared| there.ends_with(&self.journal[..*shared]));
        match shared {
            Some(shared) if shared > 0 || there.is_empty() || self.journal.is_empty() => {
                Ok(&self.journal[shared..])
            }
            _ => Err(StoreError::Refused(format!(
                "the journal of {} goes on differently in the other store",
                self.name
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ApplicationGrantState::{self, Live, Revoked, Unreadable};
    use crate::store::contract::{application_grant, at, name};

    fn lines(numbers: std::ops::Range<u64>) -> Vec<JournalEntry> {
        let line = |number| JournalEntry {
            at: at(number),
            account: name("smile"),
            event: "refreshed".into(),
            detail: String::new(),
        };
        numbers.map(line).collect()
    }

    fn record(caller: &str, generation: u64, state: ApplicationGrantState) -> ApplicationGrantRecord {
        ApplicationGrantRecord { caller: caller.into(), generation, state }
    }

    #[test]
    fn of_two_grants_of_an_application_the_later_one_stands_and_otherwise_the_targets() {
        let live = |token: &str| Live(application_grant("oldpms", "smile", token));
        let sealed = |byte| Unreadable { refresh_sealed: vec![byte], callback_url_sealed: None };
        for (arriving, there, arrives) in [
            ((2, Revoked), (1, live("a")), true),
            ((1, live("a")), (2, Revoked), false),
            ((3, live("b")), (2, Revoked), true),
            ((1, live("a")), (3, live("b")), false),
            ((1, live("a")), (1, live("b")), false),
            ((1, live("a")), (1, sealed(1)), true),
            ((1, live("a")), (2, sealed(1)), false),
            ((1, sealed(1)), (1, live("a")), false),
            ((1, sealed(1)), (1, sealed(2)), false),
            ((2, sealed(1)), (1, live("a")), true),
        ] {
            let arriving = record("oldpms", arriving.0, arriving.1);
            let there = record("oldpms", there.0, there.1);
            let expected = if arrives { &arriving } else { &there };
            let merged = merged_grants(std::slice::from_ref(&arriving), std::slice::from_ref(&there));
            assert_eq!(merged, std::slice::from_ref(expected), "{arriving:?} {there:?}");
        }
        let [a, b, c] = ["a", "b", "c"].map(|caller| record(caller, 1, Revoked));
        assert_eq!(merged_grants(&[c.clone(), a.clone()], std::slice::from_ref(&b)), [a, b, c]);
    }

    #[test]
    fn a_journal_is_only_added_to() {
        let bundle = AccountBundle {
            name: name("smile"),
            account: None,
            spent_generation: 0,
            known_tokens: vec![],
            application_grants: vec![],
            journal: lines(3..8),
        };
        for (there, lacking) in [(0..0, 3..8), (3..5, 5..8), (1..5, 5..8), (3..8, 8..8), (1..8, 8..8)] {
            assert_eq!(bundle.lines_beyond(&lines(there)).unwrap(), lines(lacking));
        }
        for there in [1..2, 4..6, 3..9, 9..11] {
            assert!(bundle.lines_beyond(&lines(there)).is_err());
        }
    }
}
