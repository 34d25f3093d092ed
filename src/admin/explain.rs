//! `explain`: how an account is, why, and what to do about it, in words. Findings come in order of importance.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use crate::access::book::Summary;
use crate::access::renewal::Alarms;
use crate::clock::Timestamp;
use crate::model::account::AccountState;

use super::Admin;
use super::extract::Path;
use super::problem::Problem;
use super::view::{AccountView, Explanation, Finding};

const LINES: u32 = 20;
/// An office that was busy and has been silent for this long has probably lost its way to us.
const QUIET: Duration = Duration::from_secs(3 * 24 * 3600);

pub async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(account): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let entry = admin.entry(&account)?;
    admin.machinery.catch_up().await;
    let record = admin.record(&account).await?;
    let view = admin.view(&record);
    let findings = findings(&view, &entry.summary(), &admin.renewals.alarms(), admin.clock.now());
    let journal = admin.timeline(Some(&entry.name), LINES).await?;
    Ok(Json(Explanation { account: view, findings, journal }))
}

fn findings(view: &AccountView, summary: &Summary, alarms: &Alarms, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(realm_finding(summary, alarms));
    findings.push(state_finding(view));
    findings.extend(token_findings(&view.state, summary, now));
    findings.extend(signal_findings(view, now));
    findings
}

fn realm_finding(summary: &Summary, alarms: &Alarms) -> Option<Finding> {
    let (realm, trouble) = alarms.realms.iter().find(|(realm, _)| *realm == summary.realm)?;
    Some(finding(
        "trouble",
        trouble.sentence(realm),
        "`genapi-gateway check --connect` shows whether it is the way there, the certificate or the credentials. Grants are kept.",
    ))
}

fn state_finding(view: &AccountView) -> Finding {
    match &view.state {
        AccountState::Ready => finding("ok", "The account is served and its token is kept alive.".into(), ""),
        AccountState::Paused => finding(
            "note",
            "The account is paused: it is neither served nor refreshed here.".into(),
            &format!("`genapi-gateway accounts resume {}` takes it up again.", view.name),
        ),
        AccountState::NeedsLogin { since, why } => finding(
            "trouble",
            format!("The platform no longer takes the account's grant, since {since}: {why}."),
            &format!(
                "Somebody with a MyiTero login has to log in once: `genapi-gateway accounts pair --realm {} --name {}`, or `accounts invite {}` for a link to mail.",
                view.realm, view.name, view.name
            ),
        ),
    }
}

fn token_findings(state: &AccountState, summary: &Summary, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    if summary.unsaved {
        findings.push(finding(
            "trouble",
            "The newest tokens are in memory only, since the store does not take them: a crash now would cost a login.".into(),
            "Make room on the store's disk; the gateway saves them by itself as soon as it can. Do not restart it before.",
        ));
    }
    if let Some((why, retry_at)) = &summary.trouble {
        findings.push(finding(
            "trouble",
            format!("The last renewal failed: {why}. Next try after {retry_at}."),
            "",
        ));
    }
    let served = matches!(state, AccountState::Ready);
    match summary.expires_at {
        Some(until) if until > now => {
            findings.push(finding("ok", format!("The token is good until {until}."), ""));
        }
        Some(until) if served => {
            findings.push(finding(
                "note",
                format!("The token ran out at {until}; the next call renews it."),
                "",
            ));
        }
        None if served => {
            findings.push(finding("note", "There is no token yet; the next call fetches one.".into(), ""))
        }
        // What is paused or needs a login is not renewed by a call.
        Some(_) | None => {}
    }
    if summary.route.is_none() {
        findings.push(finding(
            "trouble",
            "No route is known: discovery has not succeeded yet.".into(),
            &format!("`genapi-gateway accounts discover {}` says why.", summary.account_id),
        ));
    }
    findings
}

fn signal_findings(view: &AccountView, now: Timestamp) -> Vec<Finding> {
    let signals = &view.signals;
    let mut findings = Vec::new();
    match signals.last_call_at {
        None => findings.push(finding(
            "note",
            "No call has come in for this account since the gateway started.".into(),
            "If the application should be calling: is its base URL the gateway's, with /accounts/… in it?",
        )),
        Some(at) if now.since(at) > QUIET => findings.push(finding(
            "note",
            format!("The account has gone quiet: its last call was at {at}."),
            "Does the application still run, and does it still point here?",
        )),
        Some(_) => {}
    }
    if let (Some(code), Some(at)) = (&signals.last_refusal, signals.last_refusal_at) {
        let later = signals.last_success_at.is_some_and(|success| success > at);
        let level = if later { "note" } else { "trouble" };
        findings.push(finding(
            level,
            format!("The gateway refused a call with {code} at {at}."),
            "docs/operations.md lists every code.",
        ));
    }
    if signals.last_list_links == Some(0) {
        findings.push(finding(
            "note",
            "The last order list was empty, which looks like success.".into(),
            "Compare with what the practice or lab sees in MyiTero.",
        ));
    }
    if let Some(at) = signals.unfinished_download_at {
        findings.push(finding(
            "trouble",
            format!("A download ended before its last byte at {at}."),
            "A lab's order may have left its list all the same: fetch it again by its RX id.",
        ));
    }
    findings
}

fn finding(level: &str, what: String, fix: &str) -> Finding {
    Finding { level: level.to_owned(), what, fix: fix.to_owned() }
}
