//! Acts that change what stands here and nothing at the platform: an account is removed, gets another name,
//! or is marked as one to test with.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use crate::config::AccountPattern;
use crate::journal::catalogue::AuditAct;
use crate::model::account::AccountName;
use crate::pairing::AccountChangeError;

use super::error::ApiError;
use super::extract::{ApiPath, ApiQuery};
use super::view::{AccountView, LocalActReport};
use super::{Actor, Admin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    #[serde(default)]
    confirmed: bool,
    /// Also where the newest tokens are in memory only.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameQuery {
    to: Option<String>,
    #[serde(default)]
    confirmed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestQuery {
    on: Option<bool>,
}

/// Marks an account as one that exists to be tested with, or no longer.
pub async fn test(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(mark): ApiQuery<TestQuery>,
) -> Result<Json<AccountView>, ApiError> {
    let name = admin.entry(&account)?.name.clone();
    let on = mark.on.ok_or_else(|| {
        ApiError::bad_request("The parameter on is missing.").fix("Add `?on=true` or `?on=false`.")
    })?;
    let marked = async { admin.pairing.set_test(&name, on).await.map_err(ApiError::of_store) };
    let subject = format!("{name} {}", if on { "on" } else { "off" });
    admin.audited(&actor, AuditAct::Test, Some(&subject), marked).await?;
    admin.record(name.as_str()).await.map(|record| Json(admin.view(&record)))
}

pub async fn remove(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(removal): ApiQuery<RemoveQuery>,
) -> Result<Json<LocalActReport>, ApiError> {
    let name = admin.name_of(&account)?;
    let preview = admin.pairing.preview_removal(&name).await.map_err(ApiError::of_local_act)?;
    let mut hits: Vec<String> = preview
        .grants
        .iter()
        .map(|(realm, id)| format!("It holds account {id} of realm {realm}."))
        .chain(preview.consequences)
        .collect();
    hits.extend(admin.naming(&name));
    let mut report = LocalActReport { account: name.clone(), hits, done: false, detail: String::new() };
    if !removal.confirmed {
        return Ok(Json(report));
    }
    let removed =
        async { admin.pairing.remove_account(&name, removal.force).await.map_err(ApiError::of_local_act) };
    admin.audited(&actor, AuditAct::Remove, Some(name.as_str()), removed).await?;
    report.done = true;
    report.detail = "Removed here. Nothing was revoked or unpaired at the platform.".to_owned();
    Ok(Json(report))
}

pub async fn rename(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(rename): ApiQuery<RenameQuery>,
) -> Result<Json<LocalActReport>, ApiError> {
    let from = admin.entry(&account)?.name.clone();
    let to = rename.to.ok_or_else(|| {
        ApiError::bad_request("The parameter to is missing.").fix("Add `?to=` with the new name.")
    })?;
    let to: AccountName =
        to.parse().map_err(|error| ApiError::bad_request(format!("{error}.")).fix("Choose another name."))?;
    let preview = admin.pairing.preview_rename(&from, &to).await.map_err(ApiError::of_local_act)?;
    let mut hits = preview.consequences;
    hits.extend(admin.naming(&from));
    let mut report = LocalActReport { account: from.clone(), hits, done: false, detail: String::new() };
    if !rename.confirmed {
        return Ok(Json(report));
    }
    let renamed = async { admin.pairing.rename_account(&from, &to).await.map_err(ApiError::of_local_act) };
    admin.audited(&actor, AuditAct::Rename, Some(&format!("{from} to {to}")), renamed).await?;
    report.account = to;
    report.done = true;
    report.detail = format!("Renamed from {from}.");
    Ok(Json(report))
}

impl Admin {
    /// Works for an account too whose record cannot be read, and which is not in the registry therefore.
    fn name_of(&self, text: &str) -> Result<AccountName, ApiError> {
        match self.entry(text) {
            Ok(entry) => Ok(entry.name.clone()),
            Err(problem) => text.parse().map_err(|_| problem),
        }
    }

    /// A warning where the configuration has the name in it, which stays there.
    fn naming(&self, account: &AccountName) -> Option<String> {
        let config = self.config.load();
        let literally = |pattern: &AccountPattern| matches!(pattern, AccountPattern::Name(name) if name == account.as_str());
        let naming = config.callers.iter().filter(|caller| caller.accounts.iter().any(literally));
        let callers: Vec<&str> = naming.map(|caller| caller.name.as_str()).collect();
        let is = if callers.len() == 1 { "caller names" } else { "callers name" };
        (!callers.is_empty()).then(|| {
            format!(
                "Warning: {} {is} it literally in config.toml ({}): change that too, and reload.",
                callers.len(),
                callers.join(", ")
            )
        })
    }
}

impl ApiError {
    fn of_local_act(error: AccountChangeError) -> Self {
        match error {
            AccountChangeError::Store(error) => ApiError::of_store(error),
            AccountChangeError::UnknownAccount(name) => ApiError::unknown_account(name.as_str(), None),
            AccountChangeError::NameTaken(_) | AccountChangeError::SameName(_) => {
                ApiError::new(StatusCode::CONFLICT, "name_taken", format!("{error}.")).fix("Choose another name.")
            }
            AccountChangeError::Unsaved(_) => ApiError::new(StatusCode::CONFLICT, "tokens_unsaved", format!("{error}.")).fix(
                "Make room on the store's disk: they are saved by themselves then. `accounts remove --force` gives them up.",
            ),
        }
    }
}
