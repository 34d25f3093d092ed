//! The overview of a migration between platforms, and moving accounts there and back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;

use crate::journal::catalogue::AuditAct;
use crate::model::account::AccountName;
use crate::pairing::{INVITE_LINK_VALID, MoveLine, MoveRequest, MovedAccount};

use super::acts::{ActOutcome, one_by_one};
use super::error::ApiError;
use super::extract::ApiJson;
use super::view::{MigrationRealm, MigrationReport, MoveOrder};
use super::{Actor, Admin};

/// Where each account stands, and what the realms are called to Align.
pub async fn migration(State(admin): State<Arc<Admin>>) -> Result<Json<MigrationReport>, ApiError> {
    let accounts = admin.pairing.migration().await.map_err(ApiError::of_store)?;
    let config = admin.config.load();
    let realms = config.realms.values().map(|realm| MigrationRealm {
        name: realm.name.clone(),
        is_new: realm.kind == crate::config::RealmKind::New,
        client_id: realm.client_id.clone(),
        oauth_base: realm.oauth_base.to_string(),
        base_url: realm.base_url.to_string(),
        redirect_uri: realm.redirect_uri.to_string(),
        discovery: format!("{} version {}", realm.discovery.name, realm.discovery.version),
    });
    Ok(Json(MigrationReport { realms: realms.collect(), accounts }))
}

/// Moves accounts one after the other; a line for each as it is done.
pub async fn move_accounts(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiJson(order): ApiJson<MoveOrder>,
) -> Result<Response, ApiError> {
    let request = request_of(order)?;
    let plan = async {
        admin.pairing.accounts_to_move(&request).await.map_err(|problem| admin.of_operator(problem))
    };
    let (names, unmatched) = if request.dry_run {
        plan.await?
    } else {
        let act = if request.back { AuditAct::MoveBack } else { AuditAct::Move };
        let share = request.share.map(|share| format!(" ({share} %)")).unwrap_or_default();
        let to = request.to.as_ref().map(|realm| format!(" to {realm}")).unwrap_or_default();
        let whom = format!("{}{share}{to}", request.accounts.join(" "));
        admin.audited(&actor, act, Some(&whom), plan).await?
    };
    let unmatched = unmatched.into_iter().map(|line| (None, Some(line)));
    let meant = names.into_iter().map(|name| (Some(name), None));
    let all: Vec<(Option<AccountName>, Option<MoveLine>)> = unmatched.chain(meant).collect();
    Ok(one_by_one(admin.clock.clone(), all, move |name, told| {
        let (admin, request) = (admin.clone(), request.clone());
        async move { one(&admin, &request, name, told).await }
    }))
}

async fn one(
    admin: &Admin,
    request: &MoveRequest,
    name: Option<AccountName>,
    told: Option<MoveLine>,
) -> ActOutcome<MoveLine> {
    match (name, told) {
        (Some(name), _) => match admin.pairing.move_account(&name, request).await {
            MovedAccount { line, refreshed: true } => ActOutcome::Asked(line),
            MovedAccount { line, refreshed: false } => ActOutcome::NotAsked(line),
        },
        (None, told) => ActOutcome::NotAsked(told.unwrap_or_else(MoveLine::nobody)),
    }
}

fn request_of(order: MoveOrder) -> Result<MoveRequest, ApiError> {
    let MoveOrder { accounts, share, to, back, dry_run, callback_url, days } = order;
    let wrong = |what: &str, fix: &str| Err(ApiError::bad_request(what).fix(fix));
    if accounts.is_empty() {
        return wrong("No account is named.", "Name accounts or patterns in `accounts`; `*` means all.");
    }
    if !back && to.is_none() {
        return wrong("No realm is named.", "Name the realm to move to in `to`, or set `back`.");
    }
    if share.is_some_and(|share| !(share > 0.0 && share <= 100.0)) {
        return wrong("A share is above 0 and at most 100 per cent.", "Send it as a number such as 5.");
    }
    if share.is_some() && back {
        return wrong("A share is for the way there.", "Name the accounts that are to go back.");
    }
    let valid_for = days.map_or(INVITE_LINK_VALID, |days| Duration::from_secs(u64::from(days) * 24 * 3600));
    Ok(MoveRequest { accounts, share, to, back, dry_run, valid_for, callback_url })
}
