//! Which account a refresh token stands for that an application holds: by its SHA-256, so that the token itself is not kept twice.

use aws_lc_rs::digest;
use dashmap::DashMap;

use crate::model::account::AccountName;

/// The refresh tokens that were imported or paired, in whatever generation applications still hold them.
#[derive(Default)]
pub struct KnownTokens(DashMap<[u8; 32], AccountName>);

impl KnownTokens {
    pub fn load(known: impl IntoIterator<Item = ([u8; 32], AccountName)>) -> Self {
        Self(known.into_iter().collect())
    }

    pub fn learn(&self, refresh_token: &str, account: &AccountName) {
        self.0.insert(sha256(refresh_token), account.clone());
    }

    /// After an unpairing: no token of this account opens anything any more.
    pub fn forget(&self, account: &AccountName) {
        self.0.retain(|_, known| known != account);
    }

    pub fn account_of(&self, refresh_token: &str) -> Option<AccountName> {
        self.0.get(&sha256(refresh_token)).map(|found| found.clone())
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}
