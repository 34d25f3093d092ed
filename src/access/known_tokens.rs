//! The refresh tokens that applications hold: the platform's, by SHA-256, so that no token itself is kept
//! twice, and the gateway's own.

use std::sync::Arc;

use dashmap::DashMap;

use crate::model::account::AccountName;
use crate::model::token::RefreshToken;
use crate::store::token_hash;

use super::application_grants::ApplicationGrants;

/// Which refresh token opens which account.
#[derive(Default)]
pub struct KnownTokens {
    /// Those that were imported or paired, in whatever generation applications still hold them.
    of_platform: DashMap<[u8; 32], AccountName>,
    pub application_grants: Arc<ApplicationGrants>,
}

impl KnownTokens {
    pub fn load(
        known: impl IntoIterator<Item = ([u8; 32], AccountName)>,
        application_grants: ApplicationGrants,
    ) -> Self {
        let application_grants = Arc::new(application_grants);
        Self { of_platform: known.into_iter().collect(), application_grants }
    }

    pub fn extend(&self, known: impl IntoIterator<Item = ([u8; 32], AccountName)>) {
        known.into_iter().for_each(|(hash, name)| drop(self.of_platform.insert(hash, name)));
    }

    pub fn learn(&self, token: &RefreshToken, account: &AccountName) {
        self.of_platform.insert(token_hash(token), account.clone());
    }

    /// After an unpairing: no token of this account opens anything any more.
    pub fn forget(&self, account: &AccountName) {
        self.of_platform.retain(|_, known| known != account);
        self.application_grants.forget(account);
    }

    /// What opened one name opens the other.
    pub fn rename(&self, from: &AccountName, to: &AccountName) {
        let of_account = self.of_platform.iter_mut().filter(|known| known.value() == from);
        of_account.for_each(|mut known| *known = to.clone());
        self.application_grants.rename(from, to);
    }

    /// The account that a refresh token of the platform's opens.
    pub fn account_of(&self, token: &RefreshToken) -> Option<AccountName> {
        self.of_platform.get(&token_hash(token)).map(|found| found.clone())
    }
}
