//! Brings accounts over from an application that paired them, line by line, repeatable. The rule: an account that works is never
//! broken by an old token.
//!
//! Which token wins, where the account is known with another one: tokens carry no date, and on a platform that rotates them the file's
//! is the older one as soon as the gateway has refreshed. So the file's token is taken where the account needs a login, or where the
//! stored token has never proved itself (imported, not yet refreshed); otherwise the stored one stays, unless the operator says `replace`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{Pairing, naming};
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
}

#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// Only store: somebody else still refreshes these accounts.
    pub paused: bool,
    /// The file's tokens are newer than ours.
    pub replace: bool,
}

/// What became of one element.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImportLine {
    /// Counted from 1.
    pub line: usize,
    /// Absent where the element could not be read.
    pub name: Option<AccountName>,
    #[serde(flatten)]
    pub result: ImportResult,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ImportResult {
    /// Stored, and renewed where it is ours to renew.
    Imported { renewed: bool },
    /// A known account got this token.
    Replaced { renewed: bool },
    /// This token is stored already.
    Unchanged { renewed: bool },
    /// A known account kept its own token.
    Kept { why: String },
    /// Stored, but the first renewal failed.
    NotRenewed { why: String },
    /// Nothing was stored.
    Failed { why: String },
}

impl ImportResult {
    /// Whether the command may end with 0.
    pub fn is_good(&self) -> bool {
        match self {
            ImportResult::Imported { .. }
            | ImportResult::Replaced { .. }
            | ImportResult::Unchanged { .. }
            | ImportResult::Kept { .. } => true,
            ImportResult::NotRenewed { .. } | ImportResult::Failed { .. } => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportFileProblem {
    #[error("the file is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    #[error("the file is not a JSON array")]
    NotAnArray,
}

/// Reads an import file; an element that cannot be read spoils only itself. No text of the file appears in an error.
pub fn read_import(text: &str) -> Result<Vec<Result<ImportEntry, String>>, ImportFileProblem> {
    let text = text.trim_start_matches('\u{feff}');
    let value: Value = serde_json::from_str(text)
        .map_err(|problem| ImportFileProblem::NotJson { line: problem.line(), column: problem.column() })?;
    let Value::Array(elements) = value else { return Err(ImportFileProblem::NotAnArray) };
    Ok(elements.iter().map(read_element).collect())
}

fn read_element(element: &Value) -> Result<ImportEntry, String> {
    let map = element.as_object().ok_or("it is not an object")?;
    let text = |key: &str| read_text(map, key);
    let id = match map.get("account_id") {
        Some(Value::Number(number)) => number.to_string(),
        _ => text("account_id").map_err(|_| "account_id is missing or no number")?.to_owned(),
    };
    Ok(ImportEntry {
        name: text("name")?.parse().map_err(|problem| format!("{problem}"))?,
        realm: text("realm")?.parse().map_err(|problem| format!("{problem}"))?,
        account_id: id.trim().parse().map_err(|_| "account_id is not a whole number")?,
        refresh_token: RefreshToken::checked(text("refresh_token")?.trim()).map_err(|p| p.to_string())?,
    })
}

fn read_text<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    map.get(key).and_then(Value::as_str).ok_or_else(|| format!("{key} is missing or no string"))
}

/// Refresh calls are spread out: hundreds of accounts at once would look like an attack to the platform.
const RENEWAL_PACE: Duration = Duration::from_millis(250);

impl Pairing {
    /// Works through a file; the lines come as they are done. Hanging up stops it after the line in hand: it can be repeated.
    pub fn import(
        self: &Arc<Self>,
        entries: Vec<Result<ImportEntry, String>>,
        options: ImportOptions,
    ) -> mpsc::Receiver<ImportLine> {
        let (lines, received) = mpsc::channel(1);
        tokio::spawn(self.clone().import_all(entries, options, lines));
        received
    }

    async fn import_all(
        self: Arc<Self>,
        entries: Vec<Result<ImportEntry, String>>,
        options: ImportOptions,
        lines: mpsc::Sender<ImportLine>,
    ) {
        let mut owners = match self.records().await {
            Ok(records) => TokenOwners::of(&records),
            Err(problem) => {
                let result = ImportResult::Failed { why: problem.to_string() };
                let _ = lines.send(ImportLine { line: 1, name: None, result }).await;
                return;
            }
        };
        for (index, entry) in entries.into_iter().enumerate() {
            let (name, result) = match entry {
                Ok(entry) => (Some(entry.name.clone()), self.import_one(entry, options, &mut owners).await),
                Err(why) => (None, ImportResult::Failed { why }),
            };
            if lines.send(ImportLine { line: index + 1, name, result }).await.is_err() {
                return;
            }
        }
    }

    async fn import_one(
        &self,
        entry: ImportEntry,
        options: ImportOptions,
        owners: &mut TokenOwners,
    ) -> ImportResult {
        let stored = match self.store_entry(&entry, options, owners).await {
            Ok(stored) => stored,
            Err(result) => return result,
        };
        let renewed = match self.renew_once(&entry, &stored, options).await {
            Ok(renewed) => renewed,
            Err(why) => return ImportResult::NotRenewed { why },
        };
        match stored {
            Stored::New => ImportResult::Imported { renewed },
            Stored::Replaced => ImportResult::Replaced { renewed },
            Stored::Same => ImportResult::Unchanged { renewed },
        }
    }

    async fn store_entry(
        &self,
        entry: &ImportEntry,
        options: ImportOptions,
        owners: &mut TokenOwners,
    ) -> Result<Stored, ImportResult> {
        let failed = |why: String| ImportResult::Failed { why };
        let of_store = |problem: StoreError| ImportResult::Failed { why: problem.to_string() };
        let ImportEntry { name, realm, account_id, refresh_token } = entry;
        if self.realm(realm).is_none() {
            return Err(failed(format!("realm {realm} is not configured")));
        }
        owners.claim(entry).map_err(failed)?;
        let _saving = self.saving.lock().await;
        let known = self.store.account(name).await.map_err(of_store)?;
        let records = known.as_slice();
        if let Some(other) = naming::id_of(records, name, realm).filter(|other| other != account_id) {
            let why = format!("the name {name} stands for account {other} in realm {realm} already");
            return Err(failed(why));
        }
        let grant = known.as_ref().and_then(|record| record.grants.iter().find(|g| g.realm == *realm));
        let stored = match (&known, grant) {
            (Some(_), Some(grant)) if grant.refresh == *refresh_token => return Ok(Stored::Same),
            (Some(record), Some(grant)) => match may_replace(record, grant, options) {
                true => Stored::Replaced,
                false => return Err(ImportResult::Kept { why: KEPT.to_owned() }),
            },
            (_, None) | (None, _) => Stored::New,
        };
        let grant = new_grant(entry, known.as_ref(), options, self.clock.now());
        let record = self.store.put_grant(grant).await.map_err(of_store)?;
        self.hooks.publish(&record);
        self.hooks.note(name, "imported", format!("account {account_id} of realm {realm}"));
        Ok(stored)
    }

    /// Proves a token that nobody has used yet, or tries a dead one again since an operator asks; the others are not refreshed without
    /// need (gen-api, section 2).
    async fn renew_once(
        &self,
        entry: &ImportEntry,
        stored: &Stored,
        options: ImportOptions,
    ) -> Result<bool, String> {
        if options.paused {
            return Ok(false);
        }
        let known = self.store.account(&entry.name).await.map_err(|problem| problem.to_string())?;
        let Some(record) = known else { return Err("the account vanished meanwhile".to_owned()) };
        if record.current != entry.realm || record.state == AccountState::Paused {
            return Ok(false);
        }
        let is_proven = record.current_grant().is_some_and(|grant| !never_proved(grant));
        if *stored == Stored::Same && record.state == AccountState::Ready && is_proven {
            return Ok(false);
        }
        let renewed = self.hooks.renew(&entry.name).await;
        self.clock.sleep(RENEWAL_PACE).await;
        renewed.map(|()| true)
    }
}

const KEPT: &str =
    "the account has another token, which works as far as is known; --replace takes the file's token";

#[derive(PartialEq, Eq)]
enum Stored {
    New,
    Replaced,
    Same,
}

fn may_replace(record: &AccountRecord, grant: &GrantRecord, options: ImportOptions) -> bool {
    let needs_login =
        record.current == grant.realm && matches!(record.state, AccountState::NeedsLogin { .. });
    options.replace || needs_login || never_proved(grant)
}

/// Imported and not refreshed since: pairing and every refresh leave an access token beside the grant.
fn never_proved(grant: &GrantRecord) -> bool {
    grant.access.is_none()
}

/// A second realm's grant waits until `switch`: an import must not move an account that works.
fn new_grant(
    entry: &ImportEntry,
    known: Option<&AccountRecord>,
    options: ImportOptions,
    at: crate::clock::Timestamp,
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
    }
}

/// Which account a token belongs to: a token that stands at two accounts is a mistake in the file, and using it would mix their
/// patients (gen-api, section 6).
struct TokenOwners(HashMap<RefreshToken, (RealmName, AccountId)>);

impl TokenOwners {
    fn of(records: &[AccountRecord]) -> Self {
        let grants = records.iter().flat_map(|record| &record.grants);
        Self(grants.map(|g| (g.refresh.clone(), (g.realm.clone(), g.account_id))).collect())
    }

    fn claim(&mut self, entry: &ImportEntry) -> Result<(), String> {
        let mine = (entry.realm.clone(), entry.account_id);
        let owner = self.0.entry(entry.refresh_token.clone()).or_insert_with(|| mine.clone());
        match *owner == mine {
            true => Ok(()),
            false => {
                let (realm, id) = owner;
                Err(format!("its refresh token belongs to account {id} of realm {realm}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_cannot_be_read_spoils_only_itself_and_is_never_quoted() {
        let text = r#"[
            {"name": "smile", "realm": "global", "account_id": "12", "refresh_token": "rt-1"},
            {"name": "Smile!", "realm": "global", "account_id": 12, "refresh_token": "s3cret"},
            {"name": "grin", "realm": "global", "account_id": 12, "refresh_token": 5550001},
            {"name": "grin", "realm": "global", "account_id": 1.5, "refresh_token": "s3cret"},
            {"name": "grin", "realm": "global", "account_id": 12, "refresh_token": "s3 cret"},
            "s3cret"
        ]"#;
        let entries = read_import(text).unwrap();
        assert_eq!(entries.len(), 6);
        assert_eq!(entries[0].as_ref().unwrap().account_id, AccountId::new(12));
        for entry in &entries[1..] {
            let why = entry.as_ref().unwrap_err();
            assert!(!why.contains("s3") && !why.contains("555"), "{why}");
        }
    }

    #[test]
    fn a_file_that_is_no_array_of_json_is_refused_as_a_whole() {
        assert_eq!(read_import("{}").unwrap_err(), ImportFileProblem::NotAnArray);
        assert_eq!(read_import("\"s3cret\"").unwrap_err(), ImportFileProblem::NotAnArray);
        assert_eq!(read_import("[\n{]").unwrap_err(), ImportFileProblem::NotJson { line: 2, column: 2 });
        assert!(read_import("\u{feff}[]").unwrap().is_empty());
    }
}
