//! Re-encrypts everything with the first key, so that older keys can be thrown away. Every sealed value names
//! its key, so an interrupted run is simply repeated, and the gateways work on meanwhile.
//!
//! With several gateways: give every one the new key as a further line and restart them one by one (it
//! opens), then make it the first line everywhere (it seals), then rotate, then take the old line away.

use super::seal::{SealContext, SealKeys};
use super::{StoreError, StoreFuture};

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rotation {
    pub resealed: usize,
    /// Nothing is sealed under an older key any more: the lines behind the first can go.
    pub complete: bool,
    /// What does not open under any key that is held, for people. While there is any, no key is retired.
    pub broken: Vec<String>,
    /// Keys that the store knew until now and that nothing is sealed under any more.
    pub retired: Vec<String>,
}

/// Where sealed values stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedColumn {
    Refresh,
    Access,
    Fallback,
    Login,
    ApplicationGrant,
    CallbackUrl,
}

/// One of them. `row` and `realm` are those of its [`SealContext`]; an application grant has its caller in
/// the place of the realm.
#[derive(Clone, Default)]
pub struct SealedValue {
    pub row: String,
    pub realm: String,
    pub sealed: Vec<u8>,
}

/// A store's two statements for a column: values not under a mark after a place; one value replaced by
/// another.
pub struct RotationQueries {
    pub page: &'static str,
    pub replace: &'static str,
}

/// A store whose sealed values can be gone through.
pub trait RotateSealed: Sync {
    /// Some of those in `column` that do not begin with `prefix`, in order, after `after`.
    fn values_to_reseal<'a>(
        &'a self,
        column: SealedColumn,
        prefix: &'a [u8],
        after: &'a SealedValue,
    ) -> StoreFuture<'a, Vec<SealedValue>>;
    /// Puts each second in the place of its first, where that is still the same; one transaction. Says how
    /// many were.
    fn reseal<'a>(
        &'a self,
        column: SealedColumn,
        anew: &'a [(SealedValue, Vec<u8>)],
    ) -> StoreFuture<'a, usize>;
    /// Forgets the proofs of all keys but this one; says which.
    fn retire_keys_except<'a>(&'a self, key_id: &'a str) -> StoreFuture<'a, Vec<String>>;
}

impl SealedColumn {
    pub const ALL: [Self; 6] =
        [Self::Refresh, Self::Access, Self::Fallback, Self::Login, Self::ApplicationGrant, Self::CallbackUrl];

    fn context(self, value: &SealedValue) -> SealContext<'_> {
        let (table, column) = match self {
            Self::Refresh => ("grants", "refresh"),
            Self::Access => ("grants", "access"),
            Self::Fallback => ("fallbacks", "refresh"),
            Self::Login => ("pending_logins", "payload"),
            Self::ApplicationGrant => ("application_grants", "refresh"),
            Self::CallbackUrl => ("application_grants", "callback_url"),
        };
        SealContext { table, row: &value.row, realm: &value.realm, column }
    }
}

pub async fn rotate(store: &dyn RotateSealed, keys: &SealKeys) -> Result<Rotation, StoreError> {
    let mut report = Rotation::default();
    for column in SealedColumn::ALL {
        reseal_column(store, keys, column, &mut report).await?;
    }
    report.complete = report.broken.is_empty() && nothing_remaining(store, keys).await?;
    if report.complete {
        report.retired = store.retire_keys_except(&keys.sealing_id().to_string()).await?;
    }
    Ok(report)
}

async fn reseal_column(
    store: &dyn RotateSealed,
    keys: &SealKeys,
    column: SealedColumn,
    report: &mut Rotation,
) -> Result<(), StoreError> {
    let mut after = SealedValue::default();
    loop {
        let page = store.values_to_reseal(column, &keys.prefix(), &after).await?;
        let Some(last) = page.last().cloned() else { return Ok(()) };
        let mut anew = Vec::with_capacity(page.len());
        for value in page {
            let context = column.context(&value);
            match keys.unseal(context, &value.sealed) {
                Ok(secret) => {
                    let sealed = keys
                        .seal(context, &secret)
                        .map_err(|why| StoreError::Unavailable(why.to_string().into()))?;
                    anew.push((value, sealed));
                }
                Err(why) => {
                    report.broken.push(format!("{} {} {}: {why}", context.table, value.row, value.realm));
                }
            }
        }
        // One that changed meanwhile was sealed by whoever changed it.
        report.resealed += store.reseal(column, &anew).await?;
        after = last;
    }
}

/// Another gateway may still seal under the old key: then that key stays for the next run.
async fn nothing_remaining(store: &dyn RotateSealed, keys: &SealKeys) -> Result<bool, StoreError> {
    for column in SealedColumn::ALL {
        if !store.values_to_reseal(column, &keys.prefix(), &SealedValue::default()).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}
