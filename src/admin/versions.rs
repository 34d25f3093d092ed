//! `accounts version`: accounts get another version of the vendor's API, one after the other.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::journal::catalogue::AuditAct;
use crate::model::account::{AccountName, ApiVersion, NameError, RealmName};

use super::accounts::PatternQuery;
use super::acts::{ActOutcome, gone, one_by_one};
use super::error::ApiError;
use super::extract::ApiQuery;
use super::view::ActReport;
use super::{Actor, Admin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    pattern: Option<String>,
    to: String,
}

pub async fn set(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(VersionQuery { pattern, to }): ApiQuery<VersionQuery>,
) -> Result<Response, ApiError> {
    let to: ApiVersion = to.parse().map_err(|error: NameError| {
        ApiError::bad_request(error.to_string()).fix("Add `&to=` with a number, such as 3.")
    })?;
    let names = admin.names(&actor, AuditAct::Version, PatternQuery { pattern }).await?;
    Ok(one_by_one(admin.clock.clone(), names, move |name, ()| {
        let admin = admin.clone();
        async move { admin.set_version_now(name, to).await }
    }))
}

impl Admin {
    async fn set_version_now(&self, name: AccountName, to: ApiVersion) -> ActOutcome<ActReport> {
        let Some(entry) = self.registry.by_name(name.as_str()) else {
            return ActOutcome::NotAsked(gone(name));
        };
        let is_live = entry.summary().expires_at.is_some_and(|until| until > self.clock.now());
        let (realm, _) = entry.identity();
        let known = self.config.load().realms.get(&realm).cloned();
        let outcome = match known {
            Some(realm) if realm.route.is_none() => {
                self.pairing.set_version(&entry, to, &realm.discovery.version).await
            }
            Some(_) => Err(format!("realm {realm} has a fixed route, so discovery is not asked")),
            None => Err(format!("realm {realm} is not in the configuration")),
        };
        let ok = outcome.is_ok();
        let report = ActReport { name, ok, detail: outcome.unwrap_or_else(|why| why) };
        // Without a live token there was a refresh first.
        if is_live { ActOutcome::NotAsked(report) } else { ActOutcome::Asked(report) }
    }

    /// The version of the API that an account has, by itself or by its realm.
    pub(super) fn version_of(&self, realm: &RealmName, own: Option<ApiVersion>) -> Option<String> {
        let default = || Some(self.config.load().realms.get(realm)?.discovery.version.clone());
        own.map(|version| version.to_string()).or_else(default)
    }
}
