//! Which realms are of one group. The rule: an account has grants in realms of one group only, so that no
//! change to it leads from one group into another.

use std::collections::BTreeMap;

use super::PairingRealm;
use crate::model::account::{RealmGroup, RealmName};
use crate::store::{AccountRecord, GrantRecord};

/// The group of each configured realm.
#[derive(Default)]
pub(super) struct Walls(BTreeMap<RealmName, Option<RealmGroup>>);

impl Walls {
    pub fn of(realms: &BTreeMap<RealmName, PairingRealm>) -> Self {
        Self(realms.iter().map(|(name, realm)| (name.clone(), realm.group.clone())).collect())
    }

    /// Whether a wall stands between two realms. Of a realm that is not configured nothing is known, and
    /// nothing can be called.
    pub fn part(&self, one: &RealmName, other: &RealmName) -> bool {
        matches!((self.0.get(one), self.0.get(other)), (Some(one), Some(other)) if one != other)
    }

    /// A grant of the account on the other side of a wall, seen from a realm.
    pub fn beyond<'a>(&self, record: &'a AccountRecord, realm: &RealmName) -> Option<&'a GrantRecord> {
        record.grants.iter().find(|grant| self.part(&grant.realm, realm))
    }
}
