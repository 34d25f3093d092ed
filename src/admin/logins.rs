//! Pairing, inviting, importing and exporting, as operators ask for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::journal::catalogue::AuditAct;
use crate::model::account::{AccountState, RealmName};
use crate::pairing::{
    self, ExportedGrant, ImportOptions, Invitation, LoginError, LoginOutcome, LoginProgress, LoginProof,
    PAIR_LINK_VALID, Selection, StartRequest,
};

use super::acts::streamed;
use super::error::ApiError;
use super::extract::{self, ApiBytes, ApiQuery};
use super::view::{
    ChoiceView, ImportLineView, ImportPreviewView, InvitationRequest, LoginFailure, PairFinish, PairOutcome,
    PairRequest, PairStarted, PairStatus, PairTicket, ReplaceHitView,
};
use super::{Actor, Admin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    replace: bool,
    /// With `replace`: do it; without this, the response lists what it would hit, and nothing is done.
    #[serde(default)]
    confirmed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    pattern: Option<String>,
    #[serde(default)]
    refresh_tokens: bool,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const INVITATION_DAYS: u32 = 7;

pub async fn start(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    extract::ApiJson(request): extract::ApiJson<PairRequest>,
) -> Result<Json<PairStarted>, ApiError> {
    let name = request.name.clone();
    let name = name.as_ref().map(|name| name.as_str());
    let paste = request.paste;
    let realm = match request.realm {
        Some(realm) => realm,
        None => admin.only_realm()?,
    };
    let start = StartRequest {
        realm,
        name: request.name,
        account_id: request.account_id,
        callback_url: request.callback_url,
        valid_for: PAIR_LINK_VALID,
    };
    if paste {
        let started =
            async { admin.pairing.start_pasted(start).await.map_err(|problem| admin.of_start(problem)) };
        let started = admin.audited(&actor, AuditAct::Pair, name, started).await?;
        return Ok(Json(PairStarted {
            url: started.redirect_uri,
            authorize_url: Some(started.authorize_url),
            ticket: Some(started.id.expose().to_owned()),
            expires_at: started.expires_at,
            warnings: started.warnings,
        }));
    }
    let link = async { admin.pairing.start(start).await.map_err(|problem| admin.of_start(problem)) };
    let link = admin.audited(&actor, AuditAct::Pair, name, link).await?;
    let ticket = link.url.rsplit('/').next().map(str::to_owned);
    Ok(Json(PairStarted {
        url: link.url,
        authorize_url: None,
        ticket,
        expires_at: link.expires_at,
        warnings: link.warnings,
    }))
}

/// For whoever handed the link out and waits.
pub async fn status(
    State(admin): State<Arc<Admin>>,
    extract::ApiJson(asked): extract::ApiJson<PairTicket>,
) -> Result<Json<PairStatus>, ApiError> {
    let failure = |error: Option<LoginError>| {
        error.map(|error| {
            let message = error.message();
            LoginFailure {
                code: error.code().to_owned(),
                title: message.title.to_owned(),
                detail: message.what,
                fix: message.todo,
                again: error.may_start_again(),
            }
        })
    };
    Ok(Json(match admin.pairing.progress(&asked.ticket).await.map_err(ApiError::of_store)? {
        LoginProgress::Waiting { expires_at, last_failure } => {
            PairStatus::Waiting { expires_at, last_failure: failure(last_failure) }
        }
        LoginProgress::Paired { account } => PairStatus::Paired { account },
        LoginProgress::Over { last_failure } => PairStatus::Over { last_failure: failure(last_failure) },
    }))
}

/// The redirected URL pasted in, or the account chosen after it. A choice's ticket is `login/choice`.
pub async fn finish(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    extract::ApiJson(finish): extract::ApiJson<PairFinish>,
) -> Result<Json<PairOutcome>, ApiError> {
    let (login, choice) = match finish.ticket.split_once('/') {
        Some((login, choice)) => (login, Some(choice)),
        None => (finish.ticket.as_str(), None),
    };
    let response = async {
        Ok(match (choice, finish.redirected_url, finish.account_id) {
            (None, Some(url), _) => admin.pairing.finish_pasted(login, &url).await,
            (Some(choice), _, Some(id)) => {
                admin.pairing.choose(choice, LoginProof::Operator { id: login }, &id.to_string()).await
            }
            _ => {
                return Err(ApiError::bad_request(
                    "Neither redirected_url nor the ticket of a choice with account_id was sent.",
                )
                .fix("Send one of the two."));
            }
        })
    };
    let response = admin.audited(&actor, AuditAct::FinishPairing, None, response).await?;
    Ok(Json(match response.outcome {
        LoginOutcome::Connected(connected) => {
            PairOutcome::Paired { account: connected.name, warnings: connected.warnings }
        }
        LoginOutcome::Choose(choice) => PairOutcome::Choose {
            ticket: format!("{login}/{}", choice.code.expose()),
            accounts: choice
                .accounts
                .into_iter()
                .map(|account| ChoiceView {
                    account_id: account.id,
                    name: account.name,
                    address: account.address,
                    paired: account.paired,
                })
                .collect(),
        },
        // A pasted login is never an application's.
        LoginOutcome::ReturnToApplication { .. } => pasted_failure(&LoginError::Broken),
        LoginOutcome::Failed { error, .. } => pasted_failure(&error),
    }))
}

fn pasted_failure(error: &LoginError) -> PairOutcome {
    let (message, again) = (error.pasted_message(), error.may_paste_again());
    let (code, title) = (error.code().to_owned(), message.title.to_owned());
    PairOutcome::Failed { code, title, detail: message.what, fix: message.todo, again }
}

pub async fn invite(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    extract::ApiJson(request): extract::ApiJson<InvitationRequest>,
) -> Result<Json<Vec<Invitation>>, ApiError> {
    let selection = match (request.pattern, request.needs_login) {
        (Some(pattern), false) => Selection::Pattern(pattern),
        (None, true) => Selection::NeedsLogin,
        _ => {
            return Err(ApiError::bad_request("Either pattern or needs_login is needed, and not both.")
                .fix("Send one of the two."));
        }
    };
    let words = match &selection {
        Selection::Pattern(pattern) => pattern.clone(),
        Selection::NeedsLogin => "those that need a login".to_owned(),
    };
    let request = pairing::InviteRequest {
        selection,
        realm: request.realm,
        callback_url: request.callback_url,
        valid_for: DAY * request.days.unwrap_or(INVITATION_DAYS),
    };
    let invited =
        async { admin.pairing.invite(request).await.map(Json).map_err(|problem| admin.of_operator(problem)) };
    admin.audited(&actor, AuditAct::Invite, Some(&words), invited).await
}

pub async fn import(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(query): ApiQuery<ImportQuery>,
    ApiBytes(body): ApiBytes,
) -> Result<Response, ApiError> {
    let entries = pairing::read_import(&body).map_err(|problem| {
        ApiError::bad_request(format!("{problem}.")).fix(
            "It must be a JSON array of {\"name\", \"realm\", \"account_id\", \"refresh_token\"}, or CSV with a header row \
             of these words.",
        )
    })?;
    let options = ImportOptions { paused: query.paused, replace: query.replace };
    if query.replace && !query.confirmed {
        let preview = admin.pairing.preview_import(&entries, options).await.map_err(ApiError::of_store)?;
        return Ok(Json(previewed(preview)).into_response());
    }
    let begun = async { Ok(admin.pairing.import(entries, options)) };
    let act = if query.replace { AuditAct::ImportWithReplace } else { AuditAct::Import };
    let mut lines = admin.audited(&actor, act, None, begun).await?;
    let (out, received) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if out.send(reported(line)).await.is_err() {
                return;
            }
        }
    });
    Ok(streamed(received))
}

fn previewed(preview: pairing::ImportPreview) -> ImportPreviewView {
    let counted = |is: fn(&pairing::ReplaceHit) -> bool| preview.hits.iter().filter(|hit| is(hit)).count();
    ImportPreviewView {
        proven: counted(|hit| hit.proven),
        ready: counted(|hit| hit.state == AccountState::Ready),
        living: counted(|hit| hit.token_until.is_some()),
        new: preview.new,
        same: preview.same,
        failing: preview.failing,
        done: false,
        hits: preview
            .hits
            .into_iter()
            .map(|hit| ReplaceHitView {
                name: hit.name,
                realm: hit.realm,
                state: hit.state,
                proven: hit.proven,
                token_until: hit.token_until,
            })
            .collect(),
    }
}

fn reported(line: pairing::ImportLine) -> ImportLineView {
    ImportLineView {
        entry: line.line,
        of: line.of,
        name: line.name.map(|name| name.to_string()).unwrap_or_default(),
        result: line.result.word().to_owned(),
        ok: line.result.is_good(),
        detail: line.result.detail().to_owned(),
    }
}

pub async fn export(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(query): ApiQuery<ExportQuery>,
) -> Result<Json<Vec<ExportedGrant>>, ApiError> {
    let pattern = query.pattern.unwrap_or_else(|| "*".to_owned());
    let act = if query.refresh_tokens { AuditAct::ExportWithRefreshTokens } else { AuditAct::Export };
    let selection = Selection::Pattern(pattern.clone());
    let exported = async {
        admin
            .pairing
            .export(&selection, query.refresh_tokens)
            .await
            .map(Json)
            .map_err(|problem| admin.of_operator(problem))
    };
    admin.audited(&actor, act, Some(&pattern), exported).await
}

impl Admin {
    fn only_realm(&self) -> Result<RealmName, ApiError> {
        let realms = self.pairing.realm_names();
        match <[RealmName; 1]>::try_from(realms) {
            Ok([only]) => Ok(only),
            Err(several) => {
                Err(ApiError::bad_request("Several realms are configured, so one has to be named.")
                    .fix(format!("Name one of them (--realm): {}.", listed(&several))))
            }
        }
    }

    fn of_start(&self, problem: pairing::StartLinkError) -> ApiError {
        let unknown = matches!(problem, pairing::StartLinkError::UnknownRealm(_));
        let told = ApiError::of_start(problem);
        if unknown {
            return told.fix(format!("These are configured: {}.", listed(&self.pairing.realm_names())));
        }
        told
    }

    /// With the account that may have been meant.
    pub(super) fn of_operator(&self, problem: pairing::OperatorError) -> ApiError {
        match problem {
            pairing::OperatorError::NobodyMatches(pattern) => self.unknown(&pattern),
            pairing::OperatorError::Start(problem) => self.of_start(problem),
            other => ApiError::of_operator(other),
        }
    }
}

fn listed(realms: &[RealmName]) -> String {
    realms.iter().map(RealmName::as_str).collect::<Vec<_>>().join(", ")
}

impl ApiError {
    pub(super) fn of_start(problem: pairing::StartLinkError) -> Self {
        match problem {
            pairing::StartLinkError::Store(problem) => ApiError::of_store(problem),
            other => ApiError::bad_request(format!("{other}.")).fix("Correct it; nothing was begun."),
        }
    }

    pub(super) fn of_operator(problem: pairing::OperatorError) -> Self {
        use pairing::OperatorError::*;
        match problem {
            NobodyMatches(_) | NobodyNeedsLogin | UnknownAccount(_) | NoGrant { .. } => {
                ApiError::new(StatusCode::NOT_FOUND, "account_unknown", format!("{problem}."))
                    .fix("`accounts list` shows them all.")
            }
            OtherGroup { .. } => ApiError::new(StatusCode::CONFLICT, "other_group", format!("{problem}."))
                .fix("Pair it there under another name: accounts of two groups have nothing in common."),
            Start(problem) => ApiError::of_start(problem),
            Store(problem) => ApiError::of_store(problem),
        }
    }

    pub(super) fn of_ending(problem: pairing::GrantRemovalError) -> Self {
        match problem {
            pairing::GrantRemovalError::Store(problem) => ApiError::of_store(problem),
            other => ApiError::new(StatusCode::CONFLICT, "not_done", format!("{other}.")),
        }
    }
}
