//! What is gone through value by value or account by account: moving between stores, and a new seal key.

use super::{LONG, PostgresStore, SHORT, within};
use crate::model::account::AccountName;
use crate::store::migrate::{AccountBundle, Migratable};
use crate::store::rotate::{RotateSealed, SealedColumn, SealedValue};
use crate::store::sql::{bundles, logins, rotation};
use crate::store::{ApplicationGrantRecord, PendingLogin, StoreFuture};

impl Migratable for PostgresStore {
    fn names(&self) -> StoreFuture<'_, Vec<AccountName>> {
        Box::pin(within(LONG, bundles::names(self)))
    }

    fn bundle<'a>(&'a self, name: &'a AccountName) -> StoreFuture<'a, AccountBundle> {
        Box::pin(within(SHORT, bundles::read(self, name)))
    }

    fn put_bundle<'a>(&'a self, bundle: &'a AccountBundle) -> StoreFuture<'a, Vec<ApplicationGrantRecord>> {
        Box::pin(within(SHORT, bundles::write(self, bundle)))
    }

    fn logins(&self) -> StoreFuture<'_, Vec<PendingLogin>> {
        Box::pin(within(LONG, logins::all(self)))
    }
}

impl RotateSealed for PostgresStore {
    fn values_to_reseal<'a>(
        &'a self,
        column: SealedColumn,
        prefix: &'a [u8],
        after: &'a SealedValue,
    ) -> StoreFuture<'a, Vec<SealedValue>> {
        Box::pin(within(SHORT, rotation::page(self, column, prefix, after)))
    }

    fn reseal<'a>(
        &'a self,
        column: SealedColumn,
        anew: &'a [(SealedValue, Vec<u8>)],
    ) -> StoreFuture<'a, usize> {
        Box::pin(within(SHORT, rotation::replace(self, column, anew)))
    }

    fn retire_keys_except<'a>(&'a self, key_id: &'a str) -> StoreFuture<'a, Vec<String>> {
        Box::pin(within(SHORT, rotation::retire_keys_except(self, key_id)))
    }
}
