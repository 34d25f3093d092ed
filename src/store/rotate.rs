//! Seals everything anew under the first key, so that older keys can be thrown away. Every sealed value names its key, so a run that was
//! broken off is simply run again, and the gateways work on meanwhile.
//!
//! With several gateways: give every one the new key as a further line and restart them one by one (it opens), then make it the first
//! line everywhere (it seals), then rotate, then take the old line away.

use super::seal::{Place, SealKeys};
use super::{Pending, StoreError};

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
pub enum Column {
    Refresh,
    Access,
    Fallback,
    Login,
}

/// One of them. `row` and `realm` are those of its [`Place`].
#[derive(Clone, Default)]
pub struct SealedValue {
    pub row: String,
    pub realm: String,
    pub sealed: Vec<u8>,
}

/// A store's two statements for a column: values not under a mark after a place; one value replaced by another.
pub struct Statements {
    pub page: &'static str,
    pub replace: &'static str,
}

/// A store whose sealed values can be gone through.
pub trait Resealing: Sync {
    /// Some of those in `column` that do not begin with `mark`, in order, after `after`.
    fn sealed_otherwise<'a>(
        &'a self,
        column: Column,
        mark: &'a [u8],
        after: &'a SealedValue,
    ) -> Pending<'a, Vec<SealedValue>>;
    /// Puts each second in the place of its first, where that is still the same; one transaction. Says how many were.
    fn reseal<'a>(&'a self, column: Column, anew: &'a [(SealedValue, Vec<u8>)]) -> Pending<'a, usize>;
    /// Forgets the proofs of all keys but this one; says which.
    fn retire_all_but<'a>(&'a self, key_id: &'a str) -> Pending<'a, Vec<String>>;
}

impl Column {
    pub const ALL: [Self; 4] = [Self::Refresh, Self::Access, Self::Fallback, Self::Login];

    fn place(self, value: &SealedValue) -> Place<'_> {
        let (table, column) = match self {
            Self::Refresh => ("grants", "refresh"),
            Self::Access => ("grants", "access"),
            Self::Fallback => ("fallbacks", "refresh"),
            Self::Login => ("pending_logins", "payload"),
        };
        Place { table, row: &value.row, realm: &value.realm, column }
    }
}

pub async fn rotate(store: &dyn Resealing, keys: &SealKeys) -> Result<Rotation, StoreError> {
    let mut report = Rotation::default();
    for column in Column::ALL {
        reseal_column(store, keys, column, &mut report).await?;
    }
    report.complete = report.broken.is_empty() && nothing_left(store, keys).await?;
    if report.complete {
        report.retired = store.retire_all_but(&keys.sealing_id().to_string()).await?;
    }
    Ok(report)
}

async fn reseal_column(
    store: &dyn Resealing,
    keys: &SealKeys,
    column: Column,
    report: &mut Rotation,
) -> Result<(), StoreError> {
    let mut after = SealedValue::default();
    loop {
        let page = store.sealed_otherwise(column, &keys.mark(), &after).await?;
        let Some(last) = page.last().cloned() else { return Ok(()) };
        let mut anew = Vec::with_capacity(page.len());
        for value in page {
            let place = column.place(&value);
            match keys.unseal(place, &value.sealed) {
                Ok(secret) => {
                    let sealed = keys
                        .seal(place, &secret)
                        .map_err(|why| StoreError::OutOfOrder(why.to_string().into()))?;
                    anew.push((value, sealed));
                }
                Err(why) => {
                    report.broken.push(format!("{} {} {}: {why}", place.table, value.row, value.realm));
                }
            }
        }
        // One that changed meanwhile was sealed by whoever changed it.
        report.resealed += store.reseal(column, &anew).await?;
        after = last;
    }
}

/// Another gateway may still seal under the old key: then that key stays for the next run.
async fn nothing_left(store: &dyn Resealing, keys: &SealKeys) -> Result<bool, StoreError> {
    for column in Column::ALL {
        if !store.sealed_otherwise(column, &keys.mark(), &SealedValue::default()).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}
