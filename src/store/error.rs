//! What can go wrong with a store, by what helps: wait, read again, use another name, or call somebody.

use super::unavailable::StoreUnavailable;
use crate::model::account::{AccountId, AccountName, RealmName};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("account {0} is not known")]
    UnknownAccount(AccountName),
    #[error("account {account} has no grant in realm {realm}")]
    UnknownGrant { account: AccountName, realm: RealmName },
    /// (realm, account id) is unique, so that nothing is refreshed by two.
    #[error("account {id} of realm {realm} is already known as {held_by}")]
    GrantTaken { realm: RealmName, id: AccountId, held_by: AccountName },
    /// A name stands for one account.
    #[error("the name {0} is taken")]
    NameTaken(AccountName),
    /// Somebody committed newer tokens in between; re-read and use theirs.
    #[error("newer tokens were committed meanwhile (generation {0})")]
    Fenced(u64),
    /// The row was tampered with or sealed under another key; only its account is affected.
    #[error("a record of {account} cannot be unsealed: {why}")]
    Unsealable { account: AccountName, why: String },
    /// Full disk, lost database, locked file: transient, tried again.
    #[error("the store is unavailable: {0}")]
    Unavailable(StoreUnavailable),
    /// Another gateway has it; that one may be about to end.
    #[error("{0}")]
    InUse(String),
    /// Found at start: needs a human.
    #[error("{0}")]
    Refused(String),
}

/// What keeps a store from being opened and can be seen without opening it: the fault and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct SetupError {
    pub what: String,
    pub fix: String,
}

impl SetupError {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

impl From<SetupError> for StoreError {
    fn from(error: SetupError) -> Self {
        StoreError::Refused(error.to_string())
    }
}
