//! Maps the refresh tokens that applications hold to accounts, by SHA-256, so that no token itself is kept
//! twice.

use dashmap::DashMap;

use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::token_hash;

/// The refresh tokens that were imported or paired, in whatever generation applications still hold them.
#[derive(Default)]
pub struct KnownTokens(DashMap<[u8; 32], AccountName>);

impl KnownTokens {
    pub fn load(known: impl IntoIterator<Item = ([u8; 32], AccountName)>) -> Self {
        Self(known.into_iter().collect())
    }

    pub fn extend(&self, known: impl IntoIterator<Item = ([u8; 32], AccountName)>) {
        known.into_iter().for_each(|(hash, name)| drop(self.0.insert(hash, name)));
    }

    pub fn learn(&self, token: &RefreshToken, account: &AccountName) {
        self.0.insert(token_hash(token), account.clone());
    }

    /// After an unpairing: no token of this account opens anything any more.
    pub fn forget(&self, account: &AccountName) {
        self.0.retain(|_, known| known != account);
    }

    /// What opened one name opens the other.
    pub fn rename(&self, from: &AccountName, to: &AccountName) {
        self.0.iter_mut().filter(|known| known.value() == from).for_each(|mut known| *known = to.clone());
    }

    pub fn account_of(&self, token: &RefreshToken) -> Option<AccountName> {
        self.0.get(&token_hash(token)).map(|found| found.clone())
    }
}
