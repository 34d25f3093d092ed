//! Read-only calls: accounts, callers, their activity, their timeline.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::access::failure_streak::{CallFailure, FailureStreak};
use crate::access::registry::{Account, AccountLookup, Summary};
use crate::model::account::{AccountId, AccountName, AccountState, RealmName, Remedy};
use crate::pairing::Selection;
use crate::store::AccountRecord;
use crate::store::last_seen::LastSeen;

use super::Admin;
use super::error::ApiError;
use super::extract::{ApiPath, ApiQuery};
use super::nearest::Nearest;
use super::view::{AccountView, CallerView, CandidateView, FailingView, GrantView, JournalView, SignalsView};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternQuery {
    pub pattern: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalQuery {
    lines: Option<u32>,
}

/// Longer timelines are for the log.
const MAX_LINES: u32 = 1000;

pub async fn list(
    State(admin): State<Arc<Admin>>,
    ApiQuery(pattern): ApiQuery<PatternQuery>,
) -> Result<Json<Vec<AccountView>>, ApiError> {
    admin.last_seen.catch_up().await;
    let records = admin.store.accounts().await.map_err(ApiError::of_store)?.accounts;
    let Some(pattern) = pattern.pattern.filter(|pattern| pattern != "*") else {
        return Ok(Json(records.iter().map(|record| admin.view(record)).collect()));
    };
    let selection = Selection::Pattern(pattern.to_ascii_lowercase());
    let views: Vec<_> =
        records.iter().filter(|record| selection.admits(record)).map(|record| admin.view(record)).collect();
    if views.is_empty() { Err(admin.unknown(&pattern)) } else { Ok(Json(views)) }
}

pub async fn show(
    State(admin): State<Arc<Admin>>,
    ApiPath(account): ApiPath<String>,
) -> Result<Json<AccountView>, ApiError> {
    admin.last_seen.catch_up().await;
    let record = admin.record(&account).await?;
    Ok(Json(admin.view(&record)))
}

/// An application that has gone quiet is a signal too.
pub async fn callers(State(admin): State<Arc<Admin>>) -> Json<Vec<CallerView>> {
    admin.last_seen.catch_up().await;
    let view = |name: &String| CallerView {
        name: name.clone(),
        signals: admin.moments(&admin.last_seen.callers.read(name)),
        built_downloads: admin.last_seen.callers.built_downloads(name),
    };
    Json(admin.config.load().callers.iter().map(|caller| view(&caller.name)).collect())
}

pub async fn journal(
    State(admin): State<Arc<Admin>>,
    ApiPath(account): ApiPath<String>,
    ApiQuery(lines): ApiQuery<JournalQuery>,
) -> Result<Json<Vec<JournalView>>, ApiError> {
    let known = admin.entry(&account).map(|entry| entry.name.clone());
    let name = match known {
        Ok(name) => name,
        // A timeline outlives its account, and its name.
        Err(unknown) => {
            let Ok(name) = account.parse::<AccountName>() else { return Err(unknown) };
            if admin.timeline(Some(&name), 1).await?.is_empty() {
                return Err(unknown);
            }
            name
        }
    };
    admin.timeline(Some(&name), lines.lines.unwrap_or(100)).await.map(Json)
}

pub async fn complete_journal(
    State(admin): State<Arc<Admin>>,
    ApiQuery(lines): ApiQuery<JournalQuery>,
) -> Result<Json<Vec<JournalView>>, ApiError> {
    admin.timeline(None, lines.lines.unwrap_or(100)).await.map(Json)
}

impl Admin {
    /// An account by its name, its id, or `realm:id`.
    pub(super) fn entry(&self, text: &str) -> Result<Arc<Account>, ApiError> {
        if let Some(entry) =
            self.registry.by_name(text).or_else(|| self.registry.by_name(&text.to_ascii_lowercase()))
        {
            return Ok(entry);
        }
        let (realm, id) = match text.split_once(':') {
            Some((realm, id)) => (realm.parse::<RealmName>().ok(), id),
            None => (None, text),
        };
        let Ok(id) = id.parse::<AccountId>() else { return Err(self.unknown(text)) };
        match self.registry.by_id(realm.as_ref(), id) {
            AccountLookup::One(entry) => Ok(entry),
            AccountLookup::Nobody => Err(self.unknown(text)),
            AccountLookup::Ambiguous(realms) => {
                let forms: Vec<String> = realms.iter().map(|realm| format!("{realm}:{id}")).collect();
                Err(ApiError::bad_request(format!("Account id {id} exists in several realms."))
                    .fix(format!("Write {}.", forms.join(" or "))))
            }
        }
    }

    /// That nobody is called so, and who may have been meant.
    pub(super) fn unknown(&self, text: &str) -> ApiError {
        let mut nearest = Nearest::to(text);
        self.registry.for_each(|entry| nearest.look_at(&entry.name));
        ApiError::unknown_account(text, nearest.found())
    }

    pub(super) async fn record(&self, text: &str) -> Result<AccountRecord, ApiError> {
        let entry = self.entry(text)?;
        let record = self.store.account(&entry.name).await.map_err(ApiError::of_store)?;
        record.ok_or_else(|| self.unknown(text))
    }

    /// The registry wins over the store: it is newer while the store takes no writes.
    pub(super) fn view(&self, record: &AccountRecord) -> AccountView {
        let entry = self.registry.by_name(record.name.as_str());
        let summary = entry.as_ref().map(|entry| entry.summary());
        let grant = record.current_grant();
        let stored = |grant: &crate::store::GrantRecord| {
            grant.route.as_ref().map(|route| format!("{}{}", route.domain, route.path))
        };
        let state = summary.as_ref().map_or_else(|| record.state.clone(), |summary| summary.state.clone());
        let needs_login = matches!(state, AccountState::NeedsLogin { .. });
        // Pairing and every refresh leave an access token beside the grant.
        let untried = grant.is_some_and(|grant| grant.access.is_none());
        AccountView {
            name: record.name.clone(),
            realm: record.current.clone(),
            account_id: grant.map_or(AccountId::new(0), |grant| grant.account_id),
            state,
            test: Some(record.is_test),
            remedy: needs_login.then(|| Remedy::of(untried && record.moving_to.is_none())),
            version: self.version_of(&record.current, record.version),
            moving_to: record.moving_to.clone(),
            route: match &summary {
                Some(summary) => summary.route.as_ref().map(|route| route.to_string()),
                None => grant.and_then(stored),
            },
            candidate: summary.as_ref().and_then(candidate),
            failing: summary.as_ref().and_then(|summary| summary.streak.as_ref()).map(failing),
            token_expires_at: summary.as_ref().and_then(|summary| summary.expires_at),
            refreshed_at: summary.as_ref().and_then(|summary| summary.refreshed_at),
            generation: summary.as_ref().map_or(0, |summary| summary.generation),
            grants: record
                .grants
                .iter()
                .map(|grant| GrantView {
                    realm: grant.realm.clone(),
                    account_id: grant.account_id,
                    current: grant.realm == record.current,
                    obtained_at: grant.obtained_at,
                    refreshed_at: grant.refreshed_at,
                    refresh_under_way_since: grant.intent,
                })
                .collect(),
            applications: self.pairing.applications_of(&record.name),
            signals: entry.map(|entry| self.moments(&entry.activity.read())).unwrap_or_default(),
        }
    }

    /// What is known in memory, where the store cannot be read.
    pub(super) fn view_without_store(&self, entry: &Account) -> AccountView {
        let summary = entry.summary();
        let grant = GrantView {
            realm: summary.realm.clone(),
            account_id: summary.account_id,
            current: true,
            obtained_at: summary.obtained_at,
            refreshed_at: summary.refreshed_at,
            refresh_under_way_since: None,
        };
        AccountView {
            name: entry.name.clone(),
            realm: summary.realm.clone(),
            account_id: summary.account_id,
            state: summary.state.clone(),
            test: None,
            // Whether its token was ever tried stands in the store alone.
            remedy: None,
            version: self.version_of(&summary.realm, summary.version),
            moving_to: Some(entry.login_realm()).filter(|realm| *realm != summary.realm),
            route: summary.route.as_ref().map(|route| route.to_string()),
            candidate: candidate(&summary),
            failing: summary.streak.as_ref().map(failing),
            token_expires_at: summary.expires_at,
            refreshed_at: summary.refreshed_at,
            generation: summary.generation,
            grants: vec![grant],
            applications: self.pairing.applications_of(&entry.name),
            signals: self.moments(&entry.activity.read()),
        }
    }

    fn moments(&self, read: &LastSeen) -> SignalsView {
        SignalsView {
            last_call_at: read.last_call_at,
            last_success_at: read.last_success_at,
            last_refusal: read.last_refusal.map(|(number, _)| (self.refusal_code)(number).to_owned()),
            last_refusal_at: read.last_refusal.map(|(_, at)| at),
            last_list_at: read.last_list.map(|(_, at)| at),
            last_list_links: read.last_list.map(|(links, _)| u64::from(links)),
            unfinished_download_at: read.unfinished_download_at,
        }
    }

    pub(super) async fn timeline(
        &self,
        account: Option<&AccountName>,
        lines: u32,
    ) -> Result<Vec<JournalView>, ApiError> {
        let entries = self.store.journal(account, lines.min(MAX_LINES)).await.map_err(ApiError::of_store)?;
        Ok(entries
            .into_iter()
            .map(|entry| JournalView {
                at: entry.at,
                account: entry.account,
                event: entry.event,
                detail: entry.detail,
            })
            .collect())
    }
}

/// Where discovery names another route than the one in use.
fn candidate(summary: &Summary) -> Option<CandidateView> {
    let candidate =
        summary.candidate.as_ref().filter(|known| Some(&known.route) != summary.route.as_ref())?;
    let route = candidate.route.to_string();
    Some(CandidateView { route, since: candidate.since, why: candidate.why.clone() })
}

fn failing(streak: &FailureStreak) -> FailingView {
    let last = match streak.what {
        CallFailure::Status(status) => status.to_string(),
        CallFailure::Refused(why) => why.code().to_owned(),
    };
    FailingView { calls: streak.count, since: streak.since, last_at: streak.last, last }
}
