//! The book: one entry per account, read on the request path without waiting. Nothing here does I/O.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, RealmName};

use super::Access;

/// All accounts that the gateway knows.
pub struct Book {}

/// One account in the book.
pub struct Entry {
    pub name: AccountName,
}

/// What an account allows right now.
#[derive(Debug, Clone)]
pub enum Standing {
    Ready(Arc<Access>),
    /// Known and willing, but without a live token or a route: renew first.
    Renewable {
        generation: u64,
    },
    Paused,
    NeedsLogin {
        since: Timestamp,
        why: String,
    },
}

/// The result of a look-up by the vendor's id.
pub enum Found {
    One(Arc<Entry>),
    /// The id exists in several realms.
    Ambiguous(Vec<RealmName>),
    Nobody,
}

impl Book {
    pub fn by_name(&self, _name: &str) -> Option<Arc<Entry>> {
        unimplemented!()
    }

    pub fn by_id(&self, _realm: Option<&RealmName>, _id: AccountId) -> Found {
        unimplemented!()
    }

    /// In order of name.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        unimplemented!()
    }
}

impl Entry {
    /// The vendor's id and realm of the current grant.
    pub fn identity(&self) -> (RealmName, AccountId) {
        unimplemented!()
    }

    /// `Ready` also while the token is past its end by our clock but nothing better can be had: the platform decides then.
    pub fn standing(&self, _now: Timestamp) -> Standing {
        unimplemented!()
    }

    /// Remembers that a caller used the account; the keeper looks at it. An atomic store.
    pub fn touch(&self, _now: Timestamp) {
        unimplemented!()
    }
}
