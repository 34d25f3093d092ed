//! Moving everything from one store to another: account by account, each together with its past, repeatable,
//! and read back to prove it.
//!
//! The rule guarded here: newer tokens are never overwritten by older ones, whichever store they are in.

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
    /// only ever added to: where it holds other lines, this is `Refused`.
    fn put_bundle<'a>(&'a self, bundle: &'a AccountBundle) -> StoreFuture<'a, ()>;
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
    let mut source = from.bundle(name).await?;
    // What the target cannot unseal is of no use to anybody, and is written over.
    let target = match to.bundle(name).await {
        Ok(target) => Some(target),
        Err(StoreError::Unsealable { .. }) => None,
        Err(trouble) => return Err(trouble),
    };
    let is_past = source.account.is_none();
    if let Some(target) = target.as_ref().filter(|target| target.account.is_some() && !is_past) {
        source.take_newer_application_grants(target);
    }
    if target.as_ref() == Some(&source) {
        return Ok(if is_past { MoveOutcome::Past } else { MoveOutcome::AlreadyThere });
    }
    if target.is_some_and(|target| target.newest_generation() > source.newest_generation()) {
        return Ok(MoveOutcome::Ahead);
    }
    to.put_bundle(&source).await?;
    if to.bundle(name).await? != source {
        let why = "it reads back differently from how it was written";
        return Ok(MoveOutcome::Failed(why.to_owned()));
    }
    Ok(if is_past { MoveOutcome::Past } else { MoveOutcome::Moved })
}

impl AccountBundle {
    fn newest_generation(&self) -> u64 {
        let grants = self.account.iter().flat_map(|account| &account.grants);
        grants.map(|grant| grant.generation).fold(self.spent_generation, u64::max)
    }

    /// Applications are granted and revoke without a new token of the account's. What the other store knows
    /// of one counts where it is newer; where both have gone on by themselves, what an application has got
    /// there last.
    fn take_newer_application_grants(&mut self, there: &Self) {
        for record in &there.application_grants {
            let mine = self.application_grants.iter_mut().find(|mine| mine.caller == record.caller);
            match mine {
                Some(mine) if mine.generation > record.generation => {}
                Some(mine) => *mine = record.clone(),
                None => self.application_grants.push(record.clone()),
            }
        }
        self.application_grants.sort_by(|a, b| a.caller.cmp(&b.caller));
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
    use crate::store::contract::{at, name};

    fn lines(numbers: std::ops::Range<u64>) -> Vec<JournalEntry> {
        let line = |number| JournalEntry {
            at: at(number),
            account: name("smile"),
            event: "refreshed".into(),
            detail: String::new(),
        };
        numbers.map(line).collect()
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
