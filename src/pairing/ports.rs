//! What pairing asks of the rest of the gateway. Nothing is decided here.

use std::future::Future;
use std::pin::Pin;

use crate::access::replace_grant::ReplaceError;
use crate::journal::JournalEvent;
use crate::model::account::AccountName;
use crate::store::{AccountRecord, NewGrant};

/// What the rest of the gateway does when an account changes.
pub trait Hooks: Send + Sync + 'static {
    /// The book takes over what the store now holds.
    fn publish(&self, record: &AccountRecord);
    /// The account's last grant is gone.
    fn withdraw(&self, name: &AccountName);
    /// The account that was called `from` is called as the record says.
    fn rename(&self, from: &AccountName, record: &AccountRecord);
    /// Returns when no refresh of the account is under way here.
    fn until_idle<'a>(&'a self, account: &'a AccountName) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// Whether the account's newest tokens are in memory only.
    fn is_unsaved(&self, account: &AccountName) -> bool;
    /// A line of the account's timeline; no token, no patient.
    fn note(&self, account: &AccountName, event: JournalEvent, detail: String);
    /// Has the platform take a refresh token before it stands in the
    /// place of the account's own, and stores it then.
    fn replace<'a>(
        &'a self,
        grant: NewGrant,
    ) -> Pin<Box<dyn Future<Output = Result<AccountRecord, ReplaceError>> + Send + 'a>>;
    /// Discovery alone, with the token at hand. The error is a sentence for people.
    fn discover<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
    /// One renewal at an operator's wish: refresh, then discovery. The error is a sentence for people.
    fn renew<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}
