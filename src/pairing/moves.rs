//! Moves accounts between platforms and back: by a switch where the account holds a grant there, else by one
//! login, which the mark of a move waits for.
//!
//! The rule guarded here: calls leave a grant only for one that the platform has just taken, and the grant
//! that they leave is kept, so that no move costs a login that the platform did not ask for.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::migration::is_within_reach;
use super::start::{StartLink, StartLinkError, StartRequest};
use super::{OperatorError, Pairing, Selection};
use crate::access::grant_proof::GrantProofError;
use crate::clock::Timestamp;
use crate::config::RealmKind;
use crate::journal::JournalEvent;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::store::{AccountRecord, StoreError};

/// Which accounts, and where to.
#[derive(Debug, Clone)]
pub struct MoveRequest {
    /// Names, perhaps with `*`; ids; or `realm:id`.
    pub accounts: Vec<String>,
    /// Only so many per cent of them: a canary.
    pub share: Option<f64>,
    /// Required unless `back`.
    pub to: Option<RealmName>,
    pub back: bool,
    /// Say what would be done and do nothing.
    pub dry_run: bool,
    /// How long login links are good.
    pub valid_for: Duration,
    pub callback_url: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveResult {
    /// Calls go to the other platform.
    Moved,
    /// Marked; one login ends the move.
    Moving,
    /// Calls go where they went before the move.
    Back,
    Unchanged,
    Failed,
}

/// One account's line of the report.
#[derive(Clone, Serialize, Deserialize)]
pub struct MoveLine {
    /// The account, or the pattern that nobody matches.
    pub name: String,
    pub result: MoveResult,
    pub ok: bool,
    pub detail: String,
    /// Where somebody with a MyiTero login ends the move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_expires_at: Option<Timestamp>,
}

/// A line, and whether the platform was asked for a refresh on the way.
pub struct MovedAccount {
    pub line: MoveLine,
    pub refreshed: bool,
}

impl MoveResult {
    pub fn word(self) -> &'static str {
        match self {
            MoveResult::Moved => "moved",
            MoveResult::Moving => "moving",
            MoveResult::Back => "back",
            MoveResult::Unchanged => "unchanged",
            MoveResult::Failed => "failed",
        }
    }
}

impl MoveLine {
    /// Where nobody is meant.
    pub fn nobody() -> Self {
        Self::of("", MoveResult::Failed, "no account is meant")
    }

    fn of(name: &str, result: MoveResult, detail: impl Into<String>) -> Self {
        let ok = result != MoveResult::Failed;
        Self { name: name.to_owned(), result, ok, detail: detail.into(), link: None, link_expires_at: None }
    }
}

impl Pairing {
    /// The accounts that are meant, by name, and a line for each pattern that nobody matches.
    pub async fn accounts_to_move(
        &self,
        request: &MoveRequest,
    ) -> Result<(Vec<AccountName>, Vec<MoveLine>), OperatorError> {
        if let Some(to) = request.to.as_ref().filter(|to| self.realm(to).is_none()) {
            return Err(StartLinkError::UnknownRealm(to.clone()).into());
        }
        let records = self.records().await?;
        let mut unmatched = Vec::new();
        let mut chosen = vec![false; records.len()];
        for pattern in &request.accounts {
            let selection = Selection::Pattern(pattern.to_ascii_lowercase());
            let mut is_met = false;
            for (_, chosen) in records.iter().zip(&mut chosen).filter(|(it, _)| selection.admits(it)) {
                (*chosen, is_met) = (true, true);
            }
            if !is_met {
                unmatched.push(MoveLine::of(pattern, MoveResult::Failed, "no account matches"));
            }
        }
        let mut meant: Vec<AccountRecord> =
            records.into_iter().zip(chosen).filter_map(|(record, chosen)| chosen.then_some(record)).collect();
        if let (Some(share), Some(to)) = (request.share, &request.to) {
            meant = canary(meant, share, to);
        }
        Ok((meant.into_iter().map(|record| record.name).collect(), unmatched))
    }

    /// One account, there or back.
    pub async fn move_account(&self, name: &AccountName, request: &MoveRequest) -> MovedAccount {
        let done = match self.store.account(name).await {
            Ok(Some(record)) if request.back => self.take_back(record, request).await,
            Ok(Some(record)) => self.bring(record, request).await,
            Ok(None) => Err(MoveError::from("it was removed meanwhile")),
            Err(error) => Err(MoveError::from(error.to_string())),
        };
        match done {
            Ok((line, refreshed)) => MovedAccount { line, refreshed },
            Err(error) => {
                let line = MoveLine::of(name.as_str(), MoveResult::Failed, error.detail);
                MovedAccount { line, refreshed: error.refreshed }
            }
        }
    }

    async fn bring(
        &self,
        record: AccountRecord,
        request: &MoveRequest,
    ) -> Result<(MoveLine, bool), MoveError> {
        let Some(to) = &request.to else { return Err("no realm is named to move it to".into()) };
        let (name, from) = (record.name.as_str(), record.current.clone());
        self.check_reach(&from, to)?;
        if from == *to {
            let detail = format!("its calls go to realm {to} already");
            return Ok((MoveLine::of(name, MoveResult::Unchanged, detail), false));
        }
        if !holds(&record, to) {
            return self.begin_move(&record, to, request, String::new()).await.map(|line| (line, false));
        }
        if request.dry_run {
            let detail = format!("would switch it from realm {from}: it holds a grant in realm {to}");
            return Ok((MoveLine::of(name, MoveResult::Moved, detail), false));
        }
        match self.switch_proven(&record, to).await {
            Ok(refreshed) => {
                let detail = format!("from realm {from}; the grant there is kept as the way back");
                self.journal.record(
                    &record.name,
                    JournalEvent::Moved,
                    format!("from realm {from} to {to}, by an operator; the grant in {from} is kept"),
                );
                Ok((MoveLine::of(name, MoveResult::Moved, detail), refreshed))
            }
            Err(MoveError { is_refused: true, .. }) => {
                let why = format!("its grant in realm {to} no longer works, so ");
                self.begin_move(&record, to, request, why).await.map(|line| (line, true))
            }
            Err(error) => Err(error),
        }
    }

    /// Marks the account and makes the link that ends the move; a repetition makes another link.
    async fn begin_move(
        &self,
        record: &AccountRecord,
        to: &RealmName,
        request: &MoveRequest,
        why: String,
    ) -> Result<MoveLine, MoveError> {
        let (name, from) = (&record.name, &record.current);
        if request.dry_run {
            let detail = format!(
                "would mark it and make a login link for realm {to}; calls stay on {from} until then"
            );
            return Ok(MoveLine::of(name.as_str(), MoveResult::Moving, detail));
        }
        let link = self.move_link(name, to, request).await?;
        let is_new = record.moving_to.as_ref() != Some(to);
        if is_new {
            self.store.set_moving(name, Some(to)).await?;
            self.republish(name).await?;
            let detail = format!(
                "from realm {from} to {to}, by an operator; a login there ends it, until then calls stay on {from}"
            );
            self.journal.record(name, JournalEvent::MoveStarted, detail);
        }
        let until = link.expires_at;
        let again = if is_new { "" } else { "was moving already; another link: " };
        let detail = format!(
            "{again}{why}one login with this link ends the move; calls stay on realm {from} until then"
        );
        let line = MoveLine::of(name.as_str(), MoveResult::Moving, detail);
        Ok(MoveLine { link: Some(link.url), link_expires_at: Some(until), ..line })
    }

    async fn move_link(
        &self,
        name: &AccountName,
        to: &RealmName,
        request: &MoveRequest,
    ) -> Result<StartLink, StartLinkError> {
        self.start(StartRequest {
            realm: to.clone(),
            name: Some(name.clone()),
            account_id: None,
            callback_url: request.callback_url.clone(),
            valid_for: request.valid_for,
        })
        .await
    }

    async fn take_back(
        &self,
        record: AccountRecord,
        request: &MoveRequest,
    ) -> Result<(MoveLine, bool), MoveError> {
        let (name, from) = (record.name.as_str(), &record.current);
        if let Some(to) = &record.moving_to {
            if !request.dry_run {
                self.end_move(&record.name, to, from).await?;
            }
            let would = if request.dry_run { "would take back its move" } else { "its move is taken back" };
            let detail = format!("{would} to realm {to}; calls stay on realm {from}");
            return Ok((MoveLine::of(name, MoveResult::Back, detail), false));
        }
        let Some(to) = self.way_back(&record, request.to.as_ref())? else {
            let detail = format!("calls go to realm {from}, and there is no move to take back");
            return Ok((MoveLine::of(name, MoveResult::Unchanged, detail), false));
        };
        self.check_reach(from, &to)?;
        if request.dry_run {
            let detail = format!("would switch it from realm {from} back to {to}");
            return Ok((MoveLine::of(name, MoveResult::Back, detail), false));
        }
        let refreshed = self.switch_proven(&record, &to).await.map_err(|error| MoveError {
            detail: format!("calls stay on realm {from}: its grant in realm {to}: {}", error.detail),
            ..error
        })?;
        let detail = format!("from realm {from} back to {to}, by an operator; the grant in {from} is kept");
        self.journal.record(&record.name, JournalEvent::MovedBack, detail);
        let detail = format!("to realm {to}; the grant in realm {from} is kept");
        Ok((MoveLine::of(name, MoveResult::Back, detail), refreshed))
    }

    async fn end_move(&self, name: &AccountName, to: &RealmName, stays: &RealmName) -> Result<(), MoveError> {
        self.store.set_moving(name, None).await?;
        self.republish(name).await?;
        let detail =
            format!("the move to realm {to} was taken back by an operator; calls stay on realm {stays}");
        self.journal.record(name, JournalEvent::MovedBack, detail);
        // One that stays leads to a login that moves the account after all.
        if let Err(error) = self.pending.cancel_in(name, to).await {
            tracing::warn!(%error, account = %name, "login links of a move that was taken back go on");
        }
        Ok(())
    }

    /// The realm that an account came from: of kind old while it is on the new platform, unless another is
    /// named.
    fn way_back(
        &self,
        record: &AccountRecord,
        named: Option<&RealmName>,
    ) -> Result<Option<RealmName>, MoveError> {
        let kind = |name: &RealmName| self.realm(name).map(|realm| realm.kind);
        if let Some(named) = named.filter(|named| **named != record.current) {
            let held = holds(record, named).then(|| Some(named.clone()));
            return held.ok_or_else(|| format!("it holds no grant in realm {named}").into());
        }
        if kind(&record.current) != Some(RealmKind::New) {
            return Ok(None);
        }
        let grants = record.grants.iter().map(|grant| &grant.realm);
        let mut old = grants.filter(|realm| kind(realm) == Some(RealmKind::Old));
        match (old.next(), old.next()) {
            (only, None) => Ok(only.cloned()),
            (_, Some(_)) => Err("it holds grants in several realms of kind old: name one with --to".into()),
        }
    }

    /// Makes a grant that waits the one in use, once the platform has taken it; says whether that took a
    /// refresh. One of a paused account is not asked about: somebody else refreshes it.
    async fn switch_proven(&self, record: &AccountRecord, to: &RealmName) -> Result<bool, MoveError> {
        let name = &record.name;
        let mut refreshed = false;
        if record.state != AccountState::Paused {
            let account = self.registry.by_name(name.as_str()).ok_or("it was removed meanwhile")?;
            refreshed = self.renewals.prove_grant(&account, to).await?.refreshed;
        }
        self.use_grant(record, to).await?;
        Ok(refreshed)
    }

    fn check_reach(&self, from: &RealmName, to: &RealmName) -> Result<(), MoveError> {
        if is_within_reach(&self.settings.load().realms, from, to) {
            return Ok(());
        }
        Err(format!("nothing leads from realm {from} to realm {to}").into())
    }
}

/// Why one account is not moved.
struct MoveError {
    detail: String,
    /// The platform no longer takes the grant that it was to move to.
    is_refused: bool,
    /// Whether the platform was asked for a refresh all the same.
    refreshed: bool,
}

impl From<String> for MoveError {
    fn from(detail: String) -> Self {
        Self { detail, is_refused: false, refreshed: false }
    }
}

impl From<&str> for MoveError {
    fn from(detail: &str) -> Self {
        detail.to_owned().into()
    }
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        error.to_string().into()
    }
}

impl From<StartLinkError> for MoveError {
    fn from(error: StartLinkError) -> Self {
        error.to_string().into()
    }
}

impl From<GrantProofError> for MoveError {
    fn from(error: GrantProofError) -> Self {
        let is_refused = error == GrantProofError::Refused;
        Self { detail: error.to_string(), is_refused, refreshed: is_refused }
    }
}

fn holds(record: &AccountRecord, realm: &RealmName) -> bool {
    record.grants.iter().any(|grant| grant.realm == *realm)
}

/// A share of those that this move is about, at least one of them: the same ones each time, and with a larger
/// share the same ones and more.
fn canary(accounts: Vec<AccountRecord>, share: f64, to: &RealmName) -> Vec<AccountRecord> {
    let has_come = |record: &AccountRecord| record.grants.iter().all(|grant| grant.realm == *to);
    let mut ranked: Vec<AccountRecord> = accounts.into_iter().filter(|record| !has_come(record)).collect();
    ranked.sort_by_cached_key(|record| rank(&record.name));
    let wanted = (ranked.len() as f64 * share / 100.0).ceil() as usize;
    ranked.truncate(wanted);
    ranked.sort_by(|a, b| a.name.cmp(&b.name));
    ranked
}

/// A place that depends on the name alone, on every machine and in every version.
fn rank(name: &AccountName) -> Vec<u8> {
    digest(&SHA256, name.as_str().as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::account::AccountId;
    use crate::model::token::RefreshToken;
    use crate::store::GrantRecord;

    fn account(number: u64, realms: &[&str]) -> AccountRecord {
        let grant = |realm: &&str| GrantRecord {
            realm: realm.parse().unwrap(),
            account_id: AccountId::new(number),
            refresh: RefreshToken::new("r"),
            access: None,
            generation: 1,
            refreshed_at: None,
            obtained_at: Timestamp::default(),
            route: None,
            intent: None,
        };
        AccountRecord {
            name: format!("a{number:03}").parse().unwrap(),
            current: realms[0].parse().unwrap(),
            state: AccountState::Ready,
            is_test: false,
            version: None,
            moving_to: None,
            grants: realms.iter().map(grant).collect(),
        }
    }

    fn chosen(accounts: &[AccountRecord], share: f64) -> Vec<AccountName> {
        let chosen = canary(accounts.to_vec(), share, &"global".parse().unwrap());
        chosen.into_iter().map(|record| record.name).collect()
    }

    #[test]
    fn a_share_is_the_same_each_time_and_grows_by_adding() {
        let fleet: Vec<_> = (0..300).map(|number| account(number, &["old"])).collect();
        let five = chosen(&fleet, 5.0);
        assert_eq!(five.len(), 15);
        let turned: Vec<_> = fleet.iter().rev().cloned().collect();
        assert_eq!(chosen(&turned, 5.0), five);
        let twenty = chosen(&fleet, 20.0);
        assert!(twenty.len() == 60 && five.iter().all(|name| twenty.contains(name)));
        assert_eq!((chosen(&fleet, 100.0).len(), chosen(&fleet, 0.1).len()), (300, 1));
    }

    #[test]
    fn those_that_were_moved_still_count_and_those_that_never_were_elsewhere_do_not() {
        let mut fleet: Vec<_> = (0..40).map(|number| account(number, &["old"])).collect();
        let before = chosen(&fleet, 10.0);
        for record in fleet.iter_mut().filter(|record| before.contains(&record.name)) {
            *record = account(record.name.as_str()[1..].parse().unwrap(), &["global", "old"]);
        }
        fleet.extend((40..80).map(|number| account(number, &["global"])));
        assert_eq!(chosen(&fleet, 10.0), before);
    }
}
