//! The lease of a grant: who of several gateways on one store may refresh it.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::model::account::{AccountName, RealmName};
use crate::store::cluster::LeaseGuard;

use super::context::RenewalContext;

/// A dead holder is taken over after this long; a living one extends it every third of it, however long the
/// platform takes.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The guard of a lease that was taken for [`LEASE`]. `ends` is kept up to date with its end.
pub(super) fn guard<'a>(
    context: &'a RenewalContext,
    name: &'a AccountName,
    realm: &'a RealmName,
    ends: &'a AtomicU64,
) -> LeaseGuard<'a> {
    let (store, clock, owner) = (&*context.store, &context.clock, &context.replica);
    LeaseGuard { store, clock, name, realm, owner, life: LEASE, ends }
}
