//! Where each account stands between the old platform and the new one, what remains to be done, and by whom.
//! All of it follows from what the store holds: realms, grants, the current one, the state, the mark of a
//! move.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::walls::Walls;
use super::{Pairing, PairingRealm};
use crate::config::RealmKind;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::store::{AccountRecord, StoreError};

/// Where an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    OnOld,
    /// Marked as moving: Align is to move it, and its next login on the new platform ends the move.
    Moving,
    OnNew,
    NeedsLogin,
}

/// Whose step is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextBy {
    Nobody,
    /// Whoever runs the gateway.
    Operator,
    /// Whoever runs the platforms.
    Align,
    /// Somebody of the account, with a MyiTero login.
    Clinic,
}

/// One account of the overview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationLine {
    pub name: AccountName,
    pub account_id: AccountId,
    /// Where its calls go.
    pub realm: RealmName,
    pub migration: MigrationState,
    /// Where it is to go, if that is known.
    pub to: Option<RealmName>,
    /// Other realms in which it holds a grant.
    pub also_in: Vec<RealmName>,
    /// Whether its calls go to the new platform.
    pub on_new: bool,
    /// Whether its move was begun and waits for a login.
    pub is_moving: bool,
    /// Held by an operator, so that somebody else refreshes it.
    pub paused: bool,
    pub next_by: NextBy,
    /// What remains to be done, for people.
    pub next: String,
}

impl MigrationState {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            MigrationState::OnOld => "on the old platform",
            MigrationState::Moving => "moving",
            MigrationState::OnNew => "on the new one",
            MigrationState::NeedsLogin => "needs login",
        }
    }
}

impl NextBy {
    pub fn word(self) -> &'static str {
        match self {
            NextBy::Nobody => "nobody",
            NextBy::Operator => "operator",
            NextBy::Align => "align",
            NextBy::Clinic => "clinic",
        }
    }
}

impl Pairing {
    /// All accounts, by name.
    pub async fn migration(&self) -> Result<Vec<MigrationLine>, StoreError> {
        let settings = self.settings.load_full();
        Ok(self.records().await?.iter().map(|record| line(record, &settings.realms)).collect())
    }
}

/// Realms that an account may move between.
pub(super) fn is_within_reach(
    realms: &BTreeMap<RealmName, PairingRealm>,
    from: &RealmName,
    to: &RealmName,
) -> bool {
    realms.contains_key(from) && realms.contains_key(to) && !Walls::of(realms).part(from, to)
}

fn line(record: &AccountRecord, realms: &BTreeMap<RealmName, PairingRealm>) -> MigrationLine {
    let current = &record.current;
    let is_new = |name: &RealmName| realms.get(name).is_some_and(|realm| realm.kind == RealmKind::New);
    let others = record.grants.iter().map(|grant| &grant.realm).filter(|realm| *realm != current);
    let also_in: Vec<RealmName> = others.cloned().collect();
    let mut targets = realms.keys().filter(|to| is_new(to) && is_within_reach(realms, current, to));
    let only_target = targets.next().filter(|_| targets.next().is_none());
    let to = match (&record.moving_to, is_new(current)) {
        (Some(to), _) => Some(to.clone()),
        (None, true) => None,
        (None, false) => also_in.iter().find(|realm| is_new(realm)).or(only_target).cloned(),
    };
    let migration = match (&record.state, &record.moving_to, is_new(current)) {
        (AccountState::NeedsLogin { .. }, ..) => MigrationState::NeedsLogin,
        (_, Some(_), _) => MigrationState::Moving,
        (_, None, true) => MigrationState::OnNew,
        (_, None, false) => MigrationState::OnOld,
    };
    let (next_by, next) = next_step(record, migration, to.as_ref(), &also_in);
    MigrationLine {
        name: record.name.clone(),
        account_id: record.current_grant().map_or(AccountId::new(0), |grant| grant.account_id),
        realm: current.clone(),
        migration,
        to,
        also_in,
        on_new: is_new(current),
        is_moving: record.moving_to.is_some(),
        paused: record.state == AccountState::Paused,
        next_by,
        next,
    }
}

fn next_step(
    record: &AccountRecord,
    migration: MigrationState,
    to: Option<&RealmName>,
    also_in: &[RealmName],
) -> (NextBy, String) {
    let name = &record.name;
    if record.state == AccountState::Paused {
        let what = format!("take it up again: `accounts resume {name}`; until then it is not served here");
        return (NextBy::Operator, what);
    }
    let has_grant = to.is_some_and(|to| also_in.contains(to));
    match (migration, to) {
        (MigrationState::OnNew, _) if also_in.is_empty() => (NextBy::Nobody, "nothing".to_owned()),
        (MigrationState::OnNew, _) => {
            let kept: Vec<&str> = also_in.iter().map(RealmName::as_str).collect();
            (
                NextBy::Nobody,
                format!("nothing; the grant in realm {} is kept as the way back", kept.join(", ")),
            )
        }
        (MigrationState::OnOld | MigrationState::NeedsLogin, Some(to)) if has_grant => {
            let what = format!("switch it, which takes no login: `accounts move {name} --to {to}`");
            (NextBy::Operator, what)
        }
        (MigrationState::OnOld, Some(to)) => {
            let what =
                format!("begin its move, which makes its login link: `accounts move {name} --to {to}`");
            (NextBy::Operator, what)
        }
        (MigrationState::OnOld, None) => {
            (NextBy::Nobody, "nothing: there is not one realm of kind new to move it to".to_owned())
        }
        (MigrationState::Moving, Some(to)) => {
            let what = format!("move the account; after that one login with the link for realm {to} ends it");
            (NextBy::Align, what)
        }
        (MigrationState::NeedsLogin, Some(to)) if record.moving_to.is_some() => {
            let what = format!(
                "log in once with the link for realm {to} (another link: `accounts invite {name} --realm {to}`)"
            );
            (NextBy::Clinic, what)
        }
        (MigrationState::NeedsLogin, Some(to)) => {
            let what = format!(
                "if Align has moved it, `accounts move {name} --to {to}` makes the login link; else `accounts invite {name}`"
            );
            (NextBy::Operator, what)
        }
        (MigrationState::NeedsLogin | MigrationState::Moving, None) => {
            (NextBy::Clinic, format!("log in once (a link: `accounts invite {name}`)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::doubles::{self, ScriptedPlatform};
    use crate::clock::Timestamp;
    use crate::model::token::RefreshToken;
    use crate::store::GrantRecord;

    fn realm(name: &str) -> RealmName {
        name.parse().unwrap()
    }

    fn realms(kinds: &[(&str, RealmKind)]) -> BTreeMap<RealmName, PairingRealm> {
        let of = |kind| PairingRealm {
            group: None,
            kind,
            redirect_uri: "https://gateway.example.com/oauth2/callback".parse().unwrap(),
            hosts: doubles::policy(),
            calls: Arc::new(ScriptedPlatform::new(true)),
        };
        kinds.iter().map(|(name, kind)| (realm(name), of(*kind))).collect()
    }

    fn account(held: &[&str], change: impl FnOnce(&mut AccountRecord)) -> AccountRecord {
        let grant = |held: &&str| GrantRecord {
            realm: realm(held),
            account_id: AccountId::new(7),
            refresh: RefreshToken::new("r"),
            access: None,
            generation: 1,
            refreshed_at: None,
            obtained_at: Timestamp::default(),
            route: None,
            intent: None,
        };
        let mut record = AccountRecord {
            name: "smile".parse().unwrap(),
            current: realm(held[0]),
            state: AccountState::Ready,
            is_test: false,
            version: None,
            moving_to: None,
            grants: held.iter().map(grant).collect(),
        };
        change(&mut record);
        record
    }

    #[test]
    fn each_state_has_a_next_step_and_somebody_to_take_it() {
        let both = realms(&[("old", RealmKind::Old), ("global", RealmKind::New)]);
        let dead = |record: &mut AccountRecord| {
            record.state = AccountState::NeedsLogin { since: Timestamp::default(), why: "x".into() };
        };
        let marked = |record: &mut AccountRecord| record.moving_to = Some(realm("global"));
        for (record, migration, by, next) in [
            (account(&["old"], |_| ()), MigrationState::OnOld, NextBy::Operator, "begin its move"),
            (account(&["old", "global"], |_| ()), MigrationState::OnOld, NextBy::Operator, "switch it"),
            (account(&["old"], marked), MigrationState::Moving, NextBy::Align, "move the account"),
            (account(&["global"], |_| ()), MigrationState::OnNew, NextBy::Nobody, "nothing"),
            (
                account(&["global", "old"], |_| ()),
                MigrationState::OnNew,
                NextBy::Nobody,
                "nothing; the grant in",
            ),
            (account(&["old"], dead), MigrationState::NeedsLogin, NextBy::Operator, "if Align has moved it"),
            (account(&["old", "global"], dead), MigrationState::NeedsLogin, NextBy::Operator, "switch it"),
            (account(&["global"], dead), MigrationState::NeedsLogin, NextBy::Clinic, "log in once"),
            (
                account(&["old"], |record| (dead(record), marked(record)).1),
                MigrationState::NeedsLogin,
                NextBy::Clinic,
                "log in once with the link for realm global",
            ),
            (
                account(&["old"], |record| record.state = AccountState::Paused),
                MigrationState::OnOld,
                NextBy::Operator,
                "take it up again",
            ),
        ] {
            let line = line(&record, &both);
            assert_eq!((line.migration, line.next_by), (migration, by), "{record:?}");
            assert!(line.next.starts_with(next), "{}", line.next);
        }
    }

    #[test]
    fn where_there_is_not_one_new_realm_nobody_is_sent_there() {
        for kinds in [
            &[("old", RealmKind::Old)][..],
            &[("old", RealmKind::Old), ("a", RealmKind::New), ("b", RealmKind::New)][..],
        ] {
            let line = line(&account(&["old"], |_| ()), &realms(kinds));
            assert_eq!((line.to, line.next_by), (None, NextBy::Nobody));
        }
    }
}
