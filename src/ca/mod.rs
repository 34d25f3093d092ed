//! The private CA, for applications that have old host names compiled in: made by `ca init`, put into their
//! trust stores, and used by the running gateway to sign short leaves.
//!
//! The rule guarded here: no certificate for any other name. The CA's own certificate names the hosts that it
//! may sign for, as critical name constraints, and that list is the only one: leaves and listeners take it
//! from there (threats, row 34).
//!
//! Reading order: `host_names` → `certificate` (what a CA certificate says) → `authority` (made, read,
//! signing) → `files` → `leaves`, `resolver`; `trust_store` for what applications are given, `leaf_file` for
//! what a proxy in front is given.

mod authority;
mod certificate;
mod files;
mod host_names;
mod key_algorithm;
mod leaf_file;
mod leaves;
mod resolver;
mod trust_store;

use std::fmt;
use std::path::{Path, PathBuf};

pub use authority::{Authority, AuthoritySummary};
pub use files::{CA_CERTIFICATE, CA_KEY, init, load, load_summary};
pub use host_names::{HOST_NAME_RULE, HostNames};
pub use key_algorithm::KeyAlgorithm;
pub use leaf_file::{LEAF_FILE_LIFE, write_leaf};
pub use leaves::{LEAF_LIFE, LeafError, LeafSource};
pub use resolver::UnknownHost;
pub use trust_store::{TRUST_STORE_PASSWORD, TrustStoreFormat, encode};

/// Why a CA cannot be made or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaError {
    /// The file or folder that has to change.
    pub file: PathBuf,
    /// A sentence that begins with it.
    pub what: String,
    pub fix: String,
}

impl CaError {
    fn of(file: &Path, what: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self { file: file.to_owned(), what: format!("{} {what}", file.display()), fix: fix.into() }
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Fix: {}.", self.what, self.fix)
    }
}

impl std::error::Error for CaError {}
