//! Acting: pause, resume, renew, discover, call, unpair, revoke. Each act is written into the audit log
//! before it is done.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::access::registry::{Account, Availability};
use crate::access::renewal::{Cause, RenewError};
use crate::clock::Clock;
use crate::journal::catalogue::AuditAct;
use crate::model::account::{AccountName, AccountState, RealmName};
use crate::pairing::{GrantRemoval, OPERATOR_PACE, Selection};

use super::accounts::PatternQuery;
use super::error::ApiError;
use super::extract::{self, ApiPath, ApiQuery};
use super::view::{AccountView, ActReport, CallRequest, CallResponse, DestructiveReport};
use super::{Actor, Admin};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmQuery {
    #[serde(default)]
    confirmed: bool,
    realm: Option<RealmName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewQuery {
    pattern: Option<String>,
    /// Also while the store takes no writes.
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchQuery {
    realm: RealmName,
}

pub async fn pause(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(pattern): ApiQuery<PatternQuery>,
) -> Result<Response, ApiError> {
    let (pattern, selection) = chosen(pattern)?;
    let pause = async { admin.pairing.pause(&selection).await.map_err(|problem| admin.of_operator(problem)) };
    let held = admin.audited(&actor, AuditAct::Pause, Some(&pattern), pause).await?;
    let lines = held.into_iter().map(|held| ActReport {
        name: held.name,
        ok: true,
        detail: if held.changed { "paused".into() } else { format!("unchanged: {}", held.state.word()) },
    });
    Ok(lines_of(lines))
}

/// Resuming means serving again, so it ends with one renewal each.
pub async fn resume(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(pattern): ApiQuery<PatternQuery>,
) -> Result<Response, ApiError> {
    let (pattern, selection) = chosen(pattern)?;
    let resume =
        async { admin.pairing.resume(&selection).await.map_err(|problem| admin.of_operator(problem)) };
    let held = admin.audited(&actor, AuditAct::Resume, Some(&pattern), resume).await?;
    let clock = admin.clock.clone();
    let held = held.into_iter().map(|held| (held.name, (held.changed, held.state))).collect();
    Ok(one_by_one(clock, held, move |name, (changed, state)| {
        let admin = admin.clone();
        async move {
            if changed {
                return ActOutcome::Asked(admin.resume_now(name).await);
            }
            let ok = state == AccountState::Ready;
            let detail = match state {
                AccountState::NeedsLogin { why, .. } => {
                    format!("unchanged: was not paused, needs a login: {why}")
                }
                AccountState::Ready | AccountState::Paused => "unchanged: was not paused".into(),
            };
            ActOutcome::NotAsked(ActReport { name, ok, detail })
        }
    }))
}

pub async fn renew(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(RenewQuery { pattern, force }): ApiQuery<RenewQuery>,
) -> Result<Response, ApiError> {
    let pattern = PatternQuery { pattern };
    let names = admin.names(&actor, AuditAct::Renew, pattern).await?;
    Ok(one_by_one(admin.clock.clone(), names, move |name, ()| {
        let admin = admin.clone();
        async move {
            if force {
                return ActOutcome::Asked(admin.renew_now(name, Cause::Forced).await);
            }
            if let Err(trouble) = admin.store.ping().await {
                let detail = format!(
                    "nothing was done: {trouble}. It takes no writes, so new tokens would be in memory only and a crash would cost \
                     the login; --force refreshes all the same"
                );
                return ActOutcome::NotAsked(ActReport { name, ok: false, detail });
            }
            ActOutcome::Asked(admin.renew_now(name, Cause::Operator).await)
        }
    }))
}

pub async fn discover(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiQuery(pattern): ApiQuery<PatternQuery>,
) -> Result<Response, ApiError> {
    let names = admin.names(&actor, AuditAct::Discover, pattern).await?;
    Ok(one_by_one(admin.clock.clone(), names, move |name, ()| {
        let admin = admin.clone();
        async move { ActOutcome::NotAsked(admin.discover_now(name).await) }
    }))
}

pub async fn call(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    extract::ApiJson(call): extract::ApiJson<CallRequest>,
) -> Result<Json<CallResponse>, ApiError> {
    let entry = admin.entry(&account)?;
    let made = async {
        admin.operator.call(entry.name.clone(), call).await.map(Json).map_err(|why| {
            ApiError::bad_request(why).fix("Send a method such as GET and a path that begins with `/`.")
        })
    };
    admin.audited(&actor, AuditAct::Call, Some(entry.name.as_str()), made).await
}

pub async fn unpair(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(confirmation): ApiQuery<ConfirmQuery>,
) -> Result<Json<DestructiveReport>, ApiError> {
    admin.end(&actor, AuditAct::Unpair, GrantRemoval::Unpair, &account, confirmation).await
}

pub async fn revoke(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(confirmation): ApiQuery<ConfirmQuery>,
) -> Result<Json<DestructiveReport>, ApiError> {
    admin.end(&actor, AuditAct::Revoke, GrantRemoval::Revoke, &account, confirmation).await
}

pub async fn switch(
    State(admin): State<Arc<Admin>>,
    actor: Actor,
    ApiPath(account): ApiPath<String>,
    ApiQuery(switch): ApiQuery<SwitchQuery>,
) -> Result<Json<AccountView>, ApiError> {
    let entry = admin.entry(&account)?;
    let done =
        async { admin.pairing.switch(&entry.name, &switch.realm).await.map_err(ApiError::of_operator) };
    admin.audited(&actor, AuditAct::Switch, Some(entry.name.as_str()), done).await?;
    let record = admin.record(entry.name.as_str()).await?;
    Ok(Json(admin.view(&record)))
}

impl Admin {
    pub(super) async fn names(
        &self,
        actor: &Actor,
        act: AuditAct,
        pattern: PatternQuery,
    ) -> Result<Vec<(AccountName, ())>, ApiError> {
        let (pattern, selection) = chosen(pattern)?;
        let names = async {
            let records = self.store.accounts().await.map_err(ApiError::of_store)?.accounts;
            let chosen = records.into_iter().filter(|record| selection.admits(record));
            let names: Vec<_> = chosen.map(|record| (record.name, ())).collect();
            if names.is_empty() { Err(self.unknown(&pattern)) } else { Ok(names) }
        };
        self.audited(actor, act, Some(&pattern), names).await
    }

    /// Succeeds where calls are served, be it without a refresh: the vendor wants refreshes apart.
    async fn resume_now(&self, name: AccountName) -> ActReport {
        let done = self.renew_now(name, Cause::Operator).await;
        let Some(entry) = self.registry.by_name(done.name.as_str()).filter(|_| !done.ok) else { return done };
        let now = self.clock.now();
        match entry.availability(now) {
            Availability::Ready(access)
                if access.expires_at() > now && entry.state() == AccountState::Ready =>
            {
                let (until, route) = (access.expires_at(), access.route());
                let detail =
                    format!("served, good until {until}, {route}; not refreshed now: {}", done.detail);
                ActReport { ok: true, detail, ..done }
            }
            _ => done,
        }
    }

    async fn renew_now(&self, name: AccountName, cause: Cause) -> ActReport {
        let Some(entry) = self.registry.by_name(name.as_str()) else { return gone(name) };
        let outcome = self.renewals.renew(&entry, entry.generation(), cause).await;
        match outcome {
            Ok(access) => ActReport {
                name,
                ok: true,
                detail: format!("good until {}, {}", access.expires_at(), access.route()),
            },
            Err(problem) => ActReport { ok: false, detail: sentence(&entry, problem), name },
        }
    }

    async fn discover_now(&self, name: AccountName) -> ActReport {
        let Some(entry) = self.registry.by_name(name.as_str()) else { return gone(name) };
        match self.renewals.rediscover(&entry).await {
            Ok(route) => ActReport { name, ok: true, detail: route.to_string() },
            Err(problem) => ActReport { ok: false, detail: sentence(&entry, problem), name },
        }
    }

    async fn end(
        &self,
        actor: &Actor,
        act: AuditAct,
        ending: GrantRemoval,
        account: &str,
        confirmation: ConfirmQuery,
    ) -> Result<Json<DestructiveReport>, ApiError> {
        let name = self.entry(account)?.name.clone();
        let realm = confirmation.realm.as_ref();
        let preview =
            self.pairing.preview_grant_removal(ending, &name, realm).await.map_err(ApiError::of_ending)?;
        let mut report = DestructiveReport {
            account: preview.name,
            account_id: preview.account_id,
            realm: preview.realm.clone(),
            hits: preview.consequences.into_iter().map(str::to_owned).collect(),
            done: false,
            detail: String::new(),
        };
        if !confirmation.confirmed {
            return Ok(Json(report));
        }
        let end = async {
            self.pairing
                .remove_grant(ending, name.clone(), confirmation.realm)
                .await
                .map_err(ApiError::of_ending)
        };
        let ended = self.audited(actor, act, Some(name.as_str()), end).await?;
        report.done = true;
        report.detail = match (ended.was_dead, ended.saved) {
            (_, false) => {
                "Done at the platform; the store does not take it yet, the gateway keeps trying.".into()
            }
            (true, true) => "Done: the platform did not know the grant any more.".into(),
            (false, true) => "Done.".into(),
        };
        Ok(Json(report))
    }
}

fn chosen(pattern: PatternQuery) -> Result<(String, Selection), ApiError> {
    let pattern = pattern.pattern.ok_or_else(|| {
        ApiError::bad_request("The parameter pattern is missing.")
            .fix("Add `?pattern=` with a name, an id, or a name with `*` in it; `*` alone means all.")
    })?;
    let selection = Selection::Pattern(pattern.to_ascii_lowercase());
    Ok((pattern, selection))
}

pub(super) fn gone(name: AccountName) -> ActReport {
    ActReport { name, ok: false, detail: "it was removed meanwhile".into() }
}

fn sentence(entry: &Account, problem: RenewError) -> String {
    match problem {
        RenewError::TooSoon { until } => {
            format!("refreshed a moment ago; the next refresh may go out at {until}")
        }
        RenewError::Paused => format!("paused: `accounts resume {}` first", entry.name),
        RenewError::NeedsLogin { since, why, remedy } => {
            format!("needs {} since {since}: {why}", remedy.need())
        }
        RenewError::Unavailable { retry_at, detail } => format!("{detail}; next try after {retry_at}"),
        RenewError::StillRunning => "still under way: look again with `accounts show`".into(),
    }
}

/// What came of one account.
pub(super) enum ActOutcome<R> {
    /// The platform was asked for a refresh: the next one waits for [`OPERATOR_PACE`].
    Asked(R),
    NotAsked(R),
}

/// Works through the names one after the other and hands out a line of JSON for each as it is done.
pub(super) fn one_by_one<N, T, R, F, Fut>(clock: Clock, names: Vec<(N, T)>, act: F) -> Response
where
    N: Send + 'static,
    T: Send + 'static,
    R: Serialize + Send + 'static,
    F: Fn(N, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ActOutcome<R>> + Send,
{
    let (lines, received) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pause = false;
        for (name, what) in names {
            if pause {
                clock.sleep(OPERATOR_PACE).await;
            }
            let done;
            (done, pause) = match act(name, what).await {
                ActOutcome::Asked(done) => (done, true),
                ActOutcome::NotAsked(done) => (done, false),
            };
            if lines.send(done).await.is_err() {
                return;
            }
        }
    });
    streamed(received)
}

/// Newline-delimited JSON, a line as soon as it is known.
pub fn streamed<T: Serialize + Send + 'static>(received: mpsc::Receiver<T>) -> Response {
    let lines = futures_util::stream::unfold(received, |mut received| async move {
        let line = received.recv().await?;
        Some((json_line(&line), received))
    });
    ([(http::header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn lines_of(done: impl Iterator<Item = ActReport>) -> Response {
    let lines = done.filter_map(|line| json_line(&line).ok()).fold(Vec::new(), |mut all, line| {
        all.extend_from_slice(&line);
        all
    });
    ([(http::header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

fn json_line<T: Serialize>(line: &T) -> Result<bytes::Bytes, serde_json::Error> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}
