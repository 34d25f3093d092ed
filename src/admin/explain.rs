//! `explain`: how an account is, why, and what to do about it, in words. Findings come in order of importance.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use crate::access::book::Summary;
use crate::access::renewal::Alarms;
use crate::access::streak::{Failure, Streak};
use crate::clock::Timestamp;
use crate::model::account::{AccountState, Remedy};

use super::Admin;
use super::extract::Path;
use super::problem::Problem;
use super::view::{AccountView, Explanation, Finding};

const LINES: u32 = 20;
/// An office that was busy and has been silent for this long has probably lost its way to us.
const QUIET: Duration = Duration::from_secs(3 * 24 * 3600);
/// So many requests in a row that the platform does not take are no slip.
const MANY: u32 = 3;

pub async fn explain(
    State(admin): State<Arc<Admin>>,
    Path(account): Path<String>,
) -> Result<Json<Explanation>, Problem> {
    let entry = admin.entry(&account)?;
    admin.machinery.catch_up().await;
    // What ails the store must not keep what is known without it from being told.
    let record = admin.store.account(&entry.name).await;
    let (view, unread) = match record {
        Ok(Some(record)) => (admin.view(&record), None),
        Ok(None) => return Err(admin.unknown(&account)),
        Err(trouble) => (admin.view_without_store(&entry), Some(trouble.to_string())),
    };
    let store = admin.machinery.store_trouble().or(unread);
    let (summary, alarms) = (entry.summary(), admin.renewals.alarms());
    let facts = Facts { view: &view, summary: &summary, alarms: &alarms, store, now: admin.clock.now() };
    let findings = facts.findings();
    let journal = admin.timeline(Some(&entry.name), LINES).await.unwrap_or_default();
    Ok(Json(Explanation { account: view, findings, journal }))
}

/// What the findings rest on.
struct Facts<'a> {
    view: &'a AccountView,
    summary: &'a Summary,
    alarms: &'a Alarms,
    /// What ails the store, as a sentence.
    store: Option<String>,
    now: Timestamp,
}

impl Facts<'_> {
    /// The verdict first: the gravest trouble, or that there is none. Nothing below contradicts it.
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.state_finding().into_iter().collect();
        findings.extend(self.troubles());
        if findings.is_empty() {
            findings.push(finding("ok", "The account is served and its token is kept alive.".into(), ""));
        }
        let is_well = findings[0].level == "ok";
        let is_trouble = findings[0].level == "trouble";
        findings.extend(self.token_finding(is_well));
        findings.extend(self.route_findings());
        findings.extend(self.call_findings(is_trouble));
        findings.extend(self.download_finding().filter(|found| found.level == "note"));
        findings
    }

    fn state_finding(&self) -> Option<Finding> {
        let view = self.view;
        match &view.state {
            AccountState::Ready => None,
            AccountState::Paused => Some(finding(
                "note",
                "The account is paused: it is neither served nor refreshed here.".into(),
                &format!("`genapi-gateway accounts resume {}` takes it up again.", view.name),
            )),
            AccountState::NeedsLogin { since, why } => Some(finding(
                "trouble",
                format!(
                    "The platform no longer takes the account's grant, since {since}: {why}.{}",
                    self.live_until().map_or_else(String::new, |until| {
                        format!(" Calls are served until its last token ends at {until}.")
                    })
                ),
                &view.remedy.unwrap_or(Remedy::Login).advice(&view.realm, &view.name),
            )),
        }
    }

    /// In order of what callers feel.
    fn troubles(&self) -> Vec<Finding> {
        let mut troubles = Vec::new();
        if self.view.state != AccountState::Paused {
            troubles.extend(self.streak_finding());
            if self.summary.route.is_none() {
                troubles.push(finding(
                    "trouble",
                    "No route is known, so no call can be made: discovery has not succeeded yet.".into(),
                    &format!("`genapi-gateway accounts discover {}` says why.", self.view.name),
                ));
            }
        }
        troubles.extend(self.realm_finding());
        troubles.extend(self.renewal_finding());
        if self.summary.unsaved {
            troubles.push(finding(
                "trouble",
                "The newest tokens are in memory only, since the store does not take them: a crash now would cost a login.".into(),
                "Make room on the store's disk; the gateway saves them by itself as soon as it can. Do not restart it before.",
            ));
        }
        if let Some(trouble) = &self.store {
            troubles.push(finding(
                "trouble",
                format!("The store is in trouble: {trouble}."),
                "Calls go on with what is held in memory; nothing new can be saved until it is well. `/readyz?verbose` follows it.",
            ));
        }
        troubles.extend(self.download_finding().filter(|found| found.level == "trouble"));
        troubles
    }

    /// What callers got, where the last of them got nothing good.
    fn streak_finding(&self) -> Option<Finding> {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak))?;
        let calls = match streak.count {
            1 => format!("The last call, at {},", streak.last),
            many => format!("All of the last {many} calls, since {},", streak.since),
        };
        let (what, fix) = match streak.what {
            // An application that asks for what is not there, now and then, is no trouble of the account's.
            Failure::Status(400 | 404..=499) if streak.count < MANY => return None,
            Failure::Status(status) => (
                match streak.count {
                    1 => format!("The platform answered the last call with {status}, at {}.", streak.last),
                    many => format!(
                        "The platform answers {status} to every call: {many} in a row since {}.",
                        streak.since
                    ),
                },
                self.fix_of_status(status),
            ),
            Failure::Refused("platform_unreachable") => {
                let why = self.summary.unreachable.as_ref().map(|it| format!(": {}", it.why));
                let route = self.summary.route.as_ref().map_or_else(String::new, |route| format!(" to {route}"));
                (
                    format!("{calls} found no connection{route}{}.", why.unwrap_or_default()),
                    "The network here or the platform: `genapi-gateway check --connect` tells which. Discovery is asked once a minute whether the account has moved.".to_owned(),
                )
            }
            Failure::Refused("token_unavailable") => {
                let why = self.why_no_token().map_or_else(String::new, |why| format!(": {why}"));
                (
                    format!("{calls} got 503 token_unavailable{why}."),
                    "The token endpoint is tried again by itself; `genapi-gateway check --connect` asks it now.".to_owned(),
                )
            }
            // Said by the account's state already.
            Failure::Refused("account_needs_login") => return None,
            Failure::Refused(code) => (
                format!("{calls} got {code}: the platform did not give a valid answer in time."),
                "The trouble is the platform's or on the way there; a call that creates something may have taken effect.".to_owned(),
            ),
        };
        Some(finding("trouble", what, &fix))
    }

    fn fix_of_status(&self, status: u16) -> String {
        let name = &self.view.name;
        match status {
            401 => format!("The platform refuses a token that it has issued: `genapi-gateway accounts renew {name}` gets another one; if that changes nothing, ask Align."),
            403 => format!("The platform knows the account and forbids these calls: their right to the API, or its region. `genapi-gateway accounts discover {name}` asks where it lives; Align says what it may do."),
            500..=599 => "The trouble is the platform's and nothing here can mend it: tell Align since when, with a request id of the access log.".to_owned(),
            404 => format!("Either the application asks for what is not there, or its base URL or the route's Path is wrong: compare the access log with the API's documents; `genapi-gateway accounts discover {name}` asks for the route."),
            _ => "The application's requests are not taken: compare the access log with the API's documents.".to_owned(),
        }
    }

    /// Whether what failed has been shown to be over without a caller.
    fn is_over(&self, streak: &Streak) -> bool {
        let refreshed_since = self.summary.refreshed_at.is_some_and(|at| at > streak.last);
        streak.well_at.is_some() || (streak.what.ends_with_tokens() && refreshed_since)
    }

    fn why_no_token(&self) -> Option<String> {
        let realm = self.alarms.realms.iter().find(|(realm, _)| *realm == self.summary.realm);
        let realm = realm.map(|(realm, trouble)| trouble.sentence(realm));
        realm.or_else(|| self.summary.trouble.as_ref().map(|(why, _)| why.clone()))
    }

    fn realm_finding(&self) -> Option<Finding> {
        let (realm, trouble) = self.alarms.realms.iter().find(|(realm, _)| *realm == self.summary.realm)?;
        let sentence = trouble.sentence(realm);
        Some(finding(
            "trouble",
            format!("{}{}.{}", sentence[..1].to_uppercase(), &sentence[1..], self.meanwhile()),
            "`genapi-gateway check --connect` shows whether it is the way there, the certificate or the credentials. Grants are kept.",
        ))
    }

    fn renewal_finding(&self) -> Option<Finding> {
        let (why, retry_at) = self.summary.trouble.as_ref()?;
        let next = match *retry_at > self.now {
            true => format!("Next try after {retry_at}."),
            false => "The next try is due.".to_owned(),
        };
        Some(finding("trouble", format!("The last renewal failed: {why}. {next}{}", self.meanwhile()), ""))
    }

    /// What trouble of renewals means to callers now.
    fn meanwhile(&self) -> String {
        match (self.live_until(), &self.view.state) {
            (_, AccountState::Paused | AccountState::NeedsLogin { .. }) => String::new(),
            (Some(until), AccountState::Ready) => {
                format!(" Calls are served with the token at hand, which ends at {until}.")
            }
            (None, AccountState::Ready) => " Until it succeeds, calls get 503 token_unavailable.".to_owned(),
        }
    }

    fn live_until(&self) -> Option<Timestamp> {
        self.summary.expires_at.filter(|until| *until > self.now)
    }

    fn token_finding(&self, is_well: bool) -> Option<Finding> {
        let served = matches!(self.view.state, AccountState::Ready);
        let level = if is_well { "ok" } else { "note" };
        match self.summary.expires_at {
            Some(until) if until > self.now => {
                Some(finding(level, format!("The token is good until {until}."), ""))
            }
            // What is paused or needs a login is not renewed by a call.
            _ if !served || self.summary.trouble.is_some() => None,
            Some(until) => {
                Some(finding("note", format!("The token ran out at {until}; the next call renews it."), ""))
            }
            None => Some(finding("note", "There is no token yet; the next call fetches one.".into(), "")),
        }
    }

    /// Which route is in use, where that is not plain.
    fn route_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(route) = &self.summary.route else { return findings };
        if let Some(candidate) = &self.view.candidate {
            findings.push(finding(
                "note",
                format!(
                    "Calls go to {route}. Discovery names {} since {}, which is not used: {}.",
                    candidate.route, candidate.since, candidate.why
                ),
                "Nothing to do: it is asked again every minute and used as soon as it answers as the API does.",
            ));
        } else if !self.summary.route_proven {
            findings.push(finding(
                "note",
                format!(
                    "Calls go to {route}, which has not answered as the API does yet; no other is known."
                ),
                "It is asked again by itself; a call that succeeds proves it.",
            ));
        }
        findings
    }

    fn call_findings(&self, is_trouble: bool) -> Vec<Finding> {
        let (signals, now) = (&self.view.signals, self.now);
        let mut findings = Vec::new();
        if let Some(streak) = self.summary.streak.as_ref().filter(|streak| self.is_over(streak)) {
            findings.push(finding(
                "note",
                format!(
                    "{} calls failed in a row until {}; since then the platform has answered again.",
                    streak.count, streak.last
                ),
                "",
            ));
        }
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
            let level = if is_trouble && !later { "trouble" } else { "note" };
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
        findings
    }

    fn download_finding(&self) -> Option<Finding> {
        let signals = &self.view.signals;
        let at = signals.unfinished_download_at?;
        let later = signals.last_success_at.is_some_and(|success| success > at);
        Some(finding(
            if later { "note" } else { "trouble" },
            format!("A download ended before its last byte at {at}."),
            "A lab's order may have left its list all the same: fetch it again by its RX id.",
        ))
    }
}

fn finding(level: &str, what: String, fix: &str) -> Finding {
    Finding { level: level.to_owned(), what, fix: fix.to_owned() }
}
