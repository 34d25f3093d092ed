//! What is to be done with an element of an import file, and what an import
//! that replaces would hit. Decides, does nothing.

use std::collections::{HashMap, HashSet};

use super::{Pairing, naming};
use crate::clock::Timestamp;
use crate::model::account::{AccountId, AccountName, AccountState, RealmName};
use crate::model::token::RefreshToken;
use crate::store::{AccountRecord, GrantRecord, NewGrant, StoreError};

/// One element of the file.
#[derive(Debug, Clone)]
pub struct ImportEntry {
    pub name: AccountName,
    pub realm: RealmName,
    pub account_id: AccountId,
    pub refresh_token: RefreshToken,
    /// Whether it exists to be tested with; absent: as it is.
    pub test: Option<bool>,
}

/// What an import may do besides adding accounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// Only store: somebody else still refreshes these accounts.
    pub paused: bool,
    /// The file's tokens are newer than ours: try them also where ours work.
    pub replace: bool,
}

/// What happened, with a detail for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "result", content = "detail", rename_all = "snake_case")]
pub enum ImportResult {
    /// The account, or its grant in this realm, is new here.
    Imported(String),
    /// The account is as it was.
    Kept(String),
    /// A known account has the file's token now.
    Replaced(String),
    /// Nothing was stored, or its first refresh failed.
    Failed(String),
}

impl ImportResult {
    pub fn word(&self) -> &'static str {
        match self {
            ImportResult::Imported(_) => "imported",
            ImportResult::Kept(_) => "kept",
            ImportResult::Replaced(_) => "replaced",
            ImportResult::Failed(_) => "failed",
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            ImportResult::Imported(detail)
            | ImportResult::Kept(detail)
            | ImportResult::Replaced(detail)
            | ImportResult::Failed(detail) => detail,
        }
    }

    /// Whether the command may end with 0.
    pub fn is_good(&self) -> bool {
        !matches!(self, ImportResult::Failed(_))
    }
}

/// What an import that replaces would do. Nothing was done yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportPreview {
    /// Accounts that have another token here, which would be replaced if the platform takes the file's.
    pub hits: Vec<ReplaceHit>,
    /// Elements that would be stored anew.
    pub new: usize,
    /// Elements whose token is stored already.
    pub same: usize,
    /// Elements that would fail.
    pub failing: usize,
}

/// An account whose token would be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaceHit {
    pub name: AccountName,
    pub realm: RealmName,
    pub state: AccountState,
    /// Whether the token that is stored has brought access before.
    pub proven: bool,
    /// The end of a living access token.
    pub token_until: Option<Timestamp>,
}

/// What is to be done with an element.
pub(super) enum EntryPlan {
    /// Nothing that works is in the way.
    Store(StoreAction),
    /// Another token is stored: the file's is tried first.
    Prove,
    /// The token is stored already.
    Same,
}

/// What storing an entry does to the account.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreAction {
    New,
    Replaced,
}

impl Pairing {
    /// What [`Pairing::import`] with `replace` would hit. Changes nothing and asks the platform nothing.
    pub async fn preview_import(
        &self,
        entries: &[Result<ImportEntry, String>],
        options: ImportOptions,
    ) -> Result<ImportPreview, StoreError> {
        let records = self.records().await?;
        let mut owners = TokenOwners::of(&records);
        let by_name: HashMap<_, _> = records.iter().map(|record| (&record.name, record)).collect();
        let mut preview = ImportPreview::default();
        for entry in entries {
            let Ok(entry) = entry else {
                preview.failing += 1;
                continue;
            };
            let known = by_name.get(&entry.name).copied();
            match self.plan(entry, known, options, &mut owners) {
                Ok(EntryPlan::Store(_)) => preview.new += 1,
                Ok(EntryPlan::Same) => preview.same += 1,
                Ok(EntryPlan::Prove) => {
                    preview.hits.extend(known.and_then(|record| self.hit(record, &entry.realm)))
                }
                Err(ImportResult::Kept(_)) => preview.same += 1,
                Err(_) => preview.failing += 1,
            }
        }
        Ok(preview)
    }

    fn hit(&self, record: &AccountRecord, realm: &RealmName) -> Option<ReplaceHit> {
        let grant = grant_in(record, realm)?;
        let ends = grant.access.as_ref().map(|access| access.expires_at);
        Some(ReplaceHit {
            name: record.name.clone(),
            realm: realm.clone(),
            state: record.state.clone(),
            proven: !never_proved(grant),
            token_until: ends.filter(|until| *until > self.clock.now()),
        })
    }

    pub(super) fn plan(
        &self,
        entry: &ImportEntry,
        known: Option<&AccountRecord>,
        options: ImportOptions,
        owners: &mut TokenOwners,
    ) -> Result<EntryPlan, ImportResult> {
        let ImportEntry { name, realm, account_id, refresh_token, test: _ } = entry;
        if self.realm(realm).is_none() {
            // Its text may be a token that stands in the wrong column.
            return Err(ImportResult::Failed("its realm is not configured".to_owned()));
        }
        owners.claim(entry).map_err(ImportResult::Failed)?;
        if let Some(other) = known
            .and_then(|record| naming::id_of(std::slice::from_ref(record), name, realm))
            .filter(|other| other != account_id)
        {
            return Err(ImportResult::Failed(format!(
                "the name {name} stands for account {other} in realm {realm} already; `accounts remove {name}` forgets that, \
                 `accounts rename {name} NEW` gives it another name"
            )));
        }
        let Some((record, grant)) = known.and_then(|record| Some((record, grant_in(record, realm)?))) else {
            return self.plan_new(entry, known);
        };
        if grant.refresh == *refresh_token {
            return Ok(EntryPlan::Same);
        }
        let needs_login = record.current == *realm && matches!(record.state, AccountState::NeedsLogin { .. });
        let nothing_works = never_proved(grant) || needs_login;
        let is_paused = record.state == AccountState::Paused;
        if options.paused || (is_paused && !options.replace) {
            return if nothing_works {
                Ok(EntryPlan::Store(StoreAction::Replaced))
            } else {
                Err(ImportResult::Kept(KEPT_PAUSED.to_owned()))
            };
        }
        if nothing_works || options.replace {
            return Ok(EntryPlan::Prove);
        }
        Err(ImportResult::Kept(KEPT.to_owned()))
    }

    /// A grant in a further realm, of the same group.
    fn plan_new(
        &self,
        entry: &ImportEntry,
        known: Option<&AccountRecord>,
    ) -> Result<EntryPlan, ImportResult> {
        let ImportEntry { name, realm, .. } = entry;
        let walls = self.walls();
        match known.and_then(|record| walls.beyond(record, realm)) {
            None => Ok(EntryPlan::Store(StoreAction::New)),
            Some(beyond) => Err(ImportResult::Failed(format!(
                "the name {name} stands for account {} of realm {}, and realm {realm} is of another group; give it \
                 another name",
                beyond.account_id, beyond.realm
            ))),
        }
    }
}

const KEPT: &str =
    "the account has another token, which has worked; --replace tries the file's token in its place";
const KEPT_PAUSED: &str = "the account has another token, which has worked, and nothing is refreshed while it is paused; \
     --replace without --paused tries the file's token";

fn grant_in<'a>(record: &'a AccountRecord, realm: &RealmName) -> Option<&'a GrantRecord> {
    record.grants.iter().find(|grant| grant.realm == *realm)
}

/// Imported and not refreshed since: pairing and every refresh leave an access token beside the grant.
pub(super) fn never_proved(grant: &GrantRecord) -> bool {
    grant.access.is_none()
}

/// A second realm's grant waits until `switch`: an import must not move an account that works.
pub(super) fn new_grant(
    entry: &ImportEntry,
    known: Option<&AccountRecord>,
    options: ImportOptions,
    at: Timestamp,
) -> NewGrant {
    let make_current = known.is_none_or(|record| record.current == entry.realm);
    let state = match known.map(|record| &record.state) {
        _ if options.paused && make_current => Some(AccountState::Paused),
        None => Some(AccountState::Ready),
        Some(AccountState::NeedsLogin { .. }) if make_current => Some(AccountState::Ready),
        Some(_) => None,
    };
    NewGrant {
        name: entry.name.clone(),
        realm: entry.realm.clone(),
        account_id: entry.account_id,
        refresh: entry.refresh_token.clone(),
        access: None,
        route: None,
        at,
        make_current,
        state,
        trial: None,
    }
}

/// Which account a token belongs to: a token that stands at two accounts is a mistake in the file, and using
/// it would mix their patients (gen-api, section 6).
pub(super) struct TokenOwners {
    by_token: HashMap<RefreshToken, (RealmName, AccountId)>,
    names: HashSet<AccountName>,
}

impl TokenOwners {
    pub fn of(records: &[AccountRecord]) -> Self {
        let grants = records.iter().flat_map(|record| &record.grants);
        let by_token = grants.map(|g| (g.refresh.clone(), (g.realm.clone(), g.account_id))).collect();
        Self { by_token, names: records.iter().map(|record| record.name.clone()).collect() }
    }

    /// Refuses an element whose columns are swapped, as far as what is known here shows it. Its name is not
    /// to be repeated.
    pub fn unswapped(&self, entry: Result<ImportEntry, String>) -> Result<ImportEntry, String> {
        let entry = entry?;
        let is_token = self.by_token.contains_key(&RefreshToken::new(entry.name.as_str()));
        let is_name = self.names.contains(entry.refresh_token.expose());
        if is_token || (is_name && !self.names.contains(&entry.name)) {
            return Err("name and refresh_token are swapped".to_owned());
        }
        Ok(entry)
    }

    fn claim(&mut self, entry: &ImportEntry) -> Result<(), String> {
        let mine = (entry.realm.clone(), entry.account_id);
        let owner = self.by_token.entry(entry.refresh_token.clone()).or_insert_with(|| mine.clone());
        if *owner == mine {
            return Ok(());
        }
        let (realm, id) = owner;
        Err(format!("its refresh token belongs to account {id} of realm {realm}"))
    }
}
