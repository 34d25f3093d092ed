//! `explain`: how an account is, why, and what to do about it, in words. Findings come in order of
//! importance.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use crate::access::circuit_breaker::OpenReason;
use crate::access::failure_streak::{CallFailure, FailureStreak, NotServed};
use crate::access::registry::Summary;
use crate::access::renewal::Alarms;
use crate::clock::Timestamp;
use crate::journal::JournalEvent;
use crate::model::account::{AccountState, RealmName, Remedy};

use super::Admin;
use super::error::ApiError;
use super::extract::ApiPath;
use super::view::{AccountView, Explanation, Finding, JournalView};

const LINES: u32 = 20;
/// An office that was busy and has been silent for this long has probably lost its way to us.
const QUIET: Duration = Duration::from_secs(3 * 24 * 3600);
/// How long a wrong clock is reported after it was found.
const CLOCK_LATELY: Duration = Duration::from_secs(3600);
/// So many requests in a row that the platform does not take are no slip.
const MANY: u32 = 3;

pub async fn explain(
    State(admin): State<Arc<Admin>>,
    ApiPath(account): ApiPath<String>,
) -> Result<Json<Explanation>, ApiError> {
    let entry = admin.entry(&account)?;
    admin.last_seen.catch_up().await;
    // What is known without the store is shown even while the store is in trouble.
    let record = admin.store.account(&entry.name).await;
    let (view, unread) = match record {
        Ok(Some(record)) => (admin.view(&record), None),
        Ok(None) => return Err(admin.unknown(&account)),
        Err(trouble) => (admin.view_without_store(&entry), Some(trouble.to_string())),
    };
    let store = admin.health.store_trouble().or(unread);
    let (summary, alarms) = (entry.summary(), admin.renewals.alarms());
    let journal = admin.timeline(Some(&entry.name), LINES).await.unwrap_or_default();
    let now = admin.clock.now();
    let is_correction = |line: &&JournalView| {
        line.event == JournalEvent::MomentCorrected.word() && now.since(line.at) < CLOCK_LATELY
    };
    let correction = journal.iter().find(is_correction).map(|line| line.detail.clone());
    let facts = ExplainInputs {
        view: &view,
        summary: &summary,
        alarms: &alarms,
        store,
        log: admin.health.log_trouble(),
        clock: admin.health.clock_trouble().or(correction),
        has_realm: admin.config.load().realms.contains_key(&summary.realm),
        now,
    };
    let findings = facts.findings();
    Ok(Json(Explanation { account: view, findings, journal }))
}

/// What the findings rest on.
struct ExplainInputs<'a> {
    view: &'a AccountView,
    summary: &'a Summary,
    alarms: &'a Alarms,
    /// What ails the store, as a sentence.
    store: Option<String>,
    /// What keeps log lines from being written.
    log: Option<String>,
    /// That a clock was found to be wrong lately.
    clock: Option<String>,
    /// Whether the configuration has the account's realm.
    has_realm: bool,
    now: Timestamp,
}

impl ExplainInputs<'_> {
    /// The verdict first: the gravest trouble, or that there is none. Nothing below contradicts it.
    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self.state_finding().into_iter().collect();
        findings.extend(self.troubles());
        findings.extend(self.oddities());
        if findings.is_empty() {
            findings.push(finding("ok", "The account is served and its token is kept alive.".into(), ""));
        }
        let is_well = findings[0].level == "ok";
        let is_trouble = findings[0].level == "trouble";
        findings.extend(self.token_finding(is_well));
        findings.extend(self.unproven_route());
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
                    "The account's grant no longer works, since {since}: {why}.{}",
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
        let is_paused = self.view.state == AccountState::Paused;
        if !self.has_realm {
            troubles.push(self.no_realm());
        } else if !is_paused {
            troubles.extend(self.streak_finding());
            if self.summary.route.is_none() {
                troubles.push(finding(
                    "trouble",
                    "No route is known, so no call can be made: discovery has not succeeded yet.".into(),
                    &format!("`genapi-gateway accounts discover {}` says why.", self.view.name),
                ));
            }
        }
        // What callers got says it already where they got no token.
        if self.has_realm && (is_paused || !self.got_no_token()) {
            troubles.extend(self.realm_finding());
            troubles.extend(self.renewal_finding());
        }
        if self.summary.unsaved {
            troubles.push(finding(
                "trouble",
                "The newest tokens are in memory only, since the store does not take them: a crash now would cost a login.".into(),
                "Make room on the store's disk; the gateway saves them by itself as soon as it can. Do not restart it before.",
            ));
        }
        if let Some(trouble) = &self.store {
            let meanwhile = match self.live_until() {
                Some(until) => format!(" Calls are served with the token at hand, which ends at {until}."),
                None => " A new token is asked for only while it can be saved.".to_owned(),
            };
            let meanwhile = if self.view.state == AccountState::Ready { meanwhile } else { String::new() };
            troubles.push(finding(
                "trouble",
                format!("The store takes no writes: {trouble}.{meanwhile}"),
                "Free what holds its lock, make room on its disk, or bring its server back; the gateway goes on by itself then. `/readyz?verbose` follows it.",
            ));
        }
        if let Some(trouble) = &self.log {
            troubles.push(finding(
                "trouble",
                format!("The log is not written: {trouble}. Calls do not wait for it."),
                "See who reads the gateway's standard error (journald, a container's log driver, a pipe), and whether its disk is full.",
            ));
        }
        troubles.extend(self.download_finding().filter(|found| found.level == "trouble"));
        troubles
    }

    fn no_realm(&self) -> Finding {
        let realm = &self.summary.realm;
        finding(
            "trouble",
            format!(
                "The account's realm {realm} is not in the configuration: the account is neither served nor refreshed."
            ),
            &format!(
                "Put [realms.{realm}] back into the configuration and send SIGHUP; its grants are kept until then."
            ),
        )
    }

    /// What is worth telling first of an account that is served all the same.
    fn oddities(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let (Some(route), Some(candidate)) = (&self.summary.route, &self.view.candidate) {
            findings.push(finding(
                "note",
                format!(
                    "Calls go to {route}, the last route that is proven. Discovery names {} since {}, which is not used: {}.",
                    candidate.route, candidate.since, candidate.why
                ),
                "Nothing to do: it is asked again every minute and used as soon as it answers as the API does.",
            ));
        }
        if let Some(trouble) = &self.clock {
            findings.push(finding(
                "note",
                format!("A clock is or was wrong: {trouble}. Calls are not affected."),
                "See that NTP sets the clock of this machine, and that of every other gateway on the same store.",
            ));
        }
        findings
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
            CallFailure::Status(400 | 404..=499) if streak.count < MANY => return None,
            CallFailure::Status(status) => (
                match streak.count {
                    1 => format!("The platform answered the last call with {status}, at {}.", streak.last),
                    many => format!(
                        "The platform answers {status} to every call: {many} in a row since {}.",
                        streak.since
                    ),
                },
                self.fix_of_status(status),
            ),
            CallFailure::Refused(NotServed::PlatformUnreachable) => {
                let why = self.summary.unreachable.as_ref().map(|it| format!(": {}", it.why));
                let route = self.summary.route.as_ref().map_or_else(String::new, |route| format!(" They go to {route}"));
                (
                    format!("{calls} got 502 platform_unreachable.{route}{}.", why.unwrap_or_default()),
                    format!("`genapi-gateway check --connect` shows whether this machine reaches the platform at all; `genapi-gateway accounts discover {}` asks where the account lives now, as the gateway does by itself once a minute.", self.view.name),
                )
            }
            CallFailure::Refused(NotServed::TokenUnavailable) => {
                let why = self.why_no_token().map_or_else(String::new, |why| format!(": {why}"));
                (format!("{calls} got 503 token_unavailable{why}."), self.fix_of_no_token())
            }
            // Said by the account's state already.
            CallFailure::Refused(NotServed::AccountNeedsLogin) => return None,
            CallFailure::Refused(why @ (NotServed::PlatformTimeout | NotServed::PlatformMisbehaved)) => (
                if why == NotServed::PlatformTimeout {
                    format!("{calls} got 504 platform_timeout: the platform did not answer in time.")
                } else {
                    format!("{calls} got 502 platform_misbehaved: the platform's answer broke off or was not valid HTTP.")
                },
                "The trouble is the platform's or on the way there: `genapi-gateway check --connect` looks at the way. A call that creates something may have taken effect; look before it is sent again.".to_owned(),
            ),
        };
        Some(finding("trouble", what, &fix))
    }

    fn fix_of_status(&self, status: u16) -> String {
        let name = &self.view.name;
        match status {
            401 => format!("The platform refuses a token that it has issued: `genapi-gateway accounts renew {name}` gets another one; if that changes nothing, ask Align."),
            403 => format!("The platform takes the token and forbids the calls. Either the account may not use this part of the API: look in MyiTero, or ask Align. Or it has moved: `genapi-gateway accounts discover {name}` asks where it lives."),
            500..=599 => "The trouble is the platform's and nothing here can mend it: tell Align since when, with a request id of the access log.".to_owned(),
            404 => format!("Either the application asks for what is not there, or its base URL or the route's ApiPath is wrong: compare the access log with the API's documents; `genapi-gateway accounts discover {name}` asks for the route."),
            _ => "The application's requests are not taken: compare the access log with the API's documents.".to_owned(),
        }
    }

    fn fix_of_no_token(&self) -> String {
        if let Some((_, trouble)) = self.realm_trouble() {
            return fix_of_realm(trouble).to_owned();
        }
        match &self.summary.last_error {
            Some((_, retry_at)) if *retry_at > self.now => {
                format!(
                    "It is tried again by itself, next after {retry_at}. `genapi-gateway check --connect` asks the token endpoint now."
                )
            }
            None if self.store.is_some() => {
                "The gateway goes on by itself as soon as the store takes writes again.".to_owned()
            }
            _ => "It is tried again by itself. `genapi-gateway check --connect` asks the token endpoint now."
                .to_owned(),
        }
    }

    /// Whether callers got no token, up to now.
    fn got_no_token(&self) -> bool {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak));
        streak.is_some_and(|streak| streak.what == CallFailure::Refused(NotServed::TokenUnavailable))
    }

    /// Whether the platform has refused the token at hand, as far as callers have seen.
    fn is_refused(&self) -> bool {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak));
        streak.is_some_and(|streak| streak.what.ends_with_tokens())
    }

    /// Whether what failed has been shown to be over without a caller.
    fn is_over(&self, streak: &FailureStreak) -> bool {
        // Calls that waited for the refresh may have given up while it was under way.
        let from = match streak.what {
            CallFailure::Refused(NotServed::TokenUnavailable) if self.summary.last_error.is_none() => {
                streak.since
            }
            _ => streak.last,
        };
        let refreshed_since = self.summary.refreshed_at.is_some_and(|at| at > from);
        streak.well_at.is_some() || (streak.what.ends_with_tokens() && refreshed_since)
    }

    fn why_no_token(&self) -> Option<String> {
        let realm = self.realm_trouble().map(|(realm, trouble)| trouble.sentence(realm));
        let renewal = realm.or_else(|| self.summary.last_error.as_ref().map(|(why, _)| why.clone()));
        renewal.or_else(|| {
            self.store
                .as_ref()
                .map(|why| format!("no new token is asked for while the store takes no writes ({why})"))
        })
    }

    fn realm_trouble(&self) -> Option<&(RealmName, OpenReason)> {
        self.alarms.realms.iter().find(|(realm, _)| *realm == self.summary.realm)
    }

    fn realm_finding(&self) -> Option<Finding> {
        let (realm, trouble) = self.realm_trouble()?;
        let sentence = trouble.sentence(realm);
        Some(finding(
            "trouble",
            format!("{}{}.{}", sentence[..1].to_uppercase(), &sentence[1..], self.meanwhile()),
            fix_of_realm(trouble),
        ))
    }

    fn renewal_finding(&self) -> Option<Finding> {
        let (why, retry_at) = self.summary.last_error.as_ref()?;
        let next = if *retry_at > self.now {
            format!("Next try after {retry_at}.")
        } else {
            "The next try is due.".to_owned()
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
        self.summary.expires_at.filter(|until| *until > self.now && !self.is_refused() && self.has_realm)
    }

    fn token_finding(&self, is_well: bool) -> Option<Finding> {
        let served = matches!(self.view.state, AccountState::Ready);
        let level = if is_well { "ok" } else { "note" };
        match self.summary.expires_at {
            _ if !self.has_realm => None,
            Some(until) if until > self.now && self.is_refused() => Some(finding(
                "note",
                format!("The token at hand ends at {until}, and the platform has refused it."),
                "",
            )),
            Some(until) if until > self.now => {
                Some(finding(level, format!("The token is good until {until}."), ""))
            }
            // What is paused or needs a login is not renewed by a call.
            _ if !served || self.summary.last_error.is_some() => None,
            Some(until) => {
                Some(finding("note", format!("The token ran out at {until}; the next call renews it."), ""))
            }
            None => Some(finding("note", "There is no token yet; the next call fetches one.".into(), "")),
        }
    }

    fn unproven_route(&self) -> Option<Finding> {
        let route = self.summary.route.as_ref()?;
        (!self.summary.route_proven && self.view.candidate.is_none()).then(|| {
            finding(
                "note",
                format!(
                    "Calls go to {route}, which has not answered as the API does yet; no other is known."
                ),
                "It is asked again by itself; a call that succeeds proves it.",
            )
        })
    }

    fn call_findings(&self, is_trouble: bool) -> Vec<Finding> {
        let (signals, now) = (&self.view.signals, self.now);
        let mut findings = Vec::new();
        if let Some(streak) = self.summary.streak.as_ref().filter(|streak| self.is_over(streak)) {
            let calls = match streak.count {
                1 => "A call failed at".to_owned(),
                many => format!("{many} calls failed in a row until"),
            };
            findings.push(finding(
                "note",
                format!("{calls} {}; since then the platform has answered again.", streak.last),
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
        if let (Some(code), Some(at)) = (&signals.last_refusal, signals.last_refusal_at)
            && !self.is_said(code)
        {
            let later = signals.last_success_at.is_some_and(|success| success > at);
            let level = if is_trouble && !later { "trouble" } else { "note" };
            findings.push(finding(
                level,
                format!("The gateway refused a call with {code} at {at}."),
                "docs/refusals.md lists every code.",
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

    /// Whether a refusal is what a finding above is about.
    fn is_said(&self, code: &str) -> bool {
        let of_calls = self.summary.streak.as_ref().is_some_and(|streak| match streak.what {
            CallFailure::Refused(known) => known.code() == code,
            CallFailure::Status(_) => false,
        });
        let of_state = match self.view.state {
            AccountState::Ready => false,
            AccountState::Paused => code == "account_paused",
            AccountState::NeedsLogin { .. } => code == "account_needs_login",
        };
        of_calls || of_state || !self.has_realm
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

fn fix_of_realm(trouble: &OpenReason) -> &'static str {
    match trouble {
        OpenReason::BadCredentials { .. } => {
            "Compare client_id and client_secret with what Align gave you, correct them, and send SIGHUP. Grants are kept."
        }
        OpenReason::Unavailable { .. } => {
            "It is tried again by itself. `genapi-gateway check --connect` shows whether it is the way there, the certificate or the token endpoint. Grants are kept."
        }
    }
}

fn finding(level: &str, what: String, fix: &str) -> Finding {
    Finding { level: level.to_owned(), what, fix: fix.to_owned() }
}
