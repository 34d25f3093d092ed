//! The right to call, kept alive: the book of snapshots, renewal through one door, the keeper.

pub mod book;
pub mod renewal;

use std::sync::Arc;

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::model::account::RealmName;
use crate::model::route::Route;

/// What a call needs right now. A snapshot: never changed, only replaced.
#[derive(Debug, Clone)]
pub struct Access {
    /// Prebuilt and sensitive; a reference count per call.
    pub bearer: HeaderValue,
    pub route: Arc<Route>,
    /// Grows with every renewal; a caller of `renew` says which one it saw fail.
    pub generation: u64,
    pub realm: RealmName,
    pub expires_at: Timestamp,
}
