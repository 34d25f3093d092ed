//! `explain`: how an account is, why, and what to do about it, in words. Findings come in order of
//! importance.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use crate::config::{Config, RealmConfig, RealmKind};
use crate::journal::JournalEvent;
use crate::model::account::{AccountState, RealmName, Remedy};

use super::Admin;
use super::error::ApiError;
use super::explain_inputs::{ExplainInputs, finding, fix_of_realm};
use super::extract::ApiPath;
use super::view::{AccountView, Explanation, Finding, GrantView, JournalView};

const LINES: u32 = 20;
/// How long a wrong clock is reported after it was found.
const CLOCK_LATELY: Duration = Duration::from_secs(3600);

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
        beyond_wall: admin.beyond_wall(&view),
        new_realm: new_realm_beside(&admin.config.load(), &summary.realm),
        now,
    };
    let findings = facts.findings();
    Ok(Json(Explanation { account: view, findings, journal }))
}

impl Admin {
    /// Pairing and import keep an account within one group, but a realm may be put into one later.
    fn beyond_wall(&self, view: &AccountView) -> Option<RealmName> {
        let config = self.config.load();
        let own = &config.realms.get(&view.realm)?.group;
        let is_beyond =
            |grant: &&GrantView| config.realms.get(&grant.realm).is_some_and(|realm| realm.group != *own);
        view.grants.iter().find(is_beyond).map(|grant| grant.realm.clone())
    }
}

/// The one realm of kind new, for an account of an old one.
fn new_realm_beside(config: &Config, current: &RealmName) -> Option<RealmName> {
    let is_new = |realm: &&RealmConfig| realm.kind == RealmKind::New;
    let old = config.realms.get(current).filter(|realm| !is_new(realm))?;
    let mut new = config.realms.values().filter(|realm| is_new(realm) && realm.group == old.group);
    let only = new.next().filter(|_| new.next().is_none())?;
    Some(only.name.clone())
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
        findings.extend(self.test_finding());
        findings.extend(self.move_finding());
        findings.extend(self.unproven_route());
        findings.extend(self.call_findings(is_trouble));
        findings.extend(self.download_finding().filter(|found| found.level == "note"));
        findings
    }

    fn test_finding(&self) -> Option<Finding> {
        let what = "It is a test account: load tests and drills may call it.";
        (self.view.test == Some(true)).then(|| finding("ok", what.into(), ""))
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
                    "{}, since {since}: {why}.{}",
                    match &view.moving_to {
                        Some(to) => format!("The account's move to realm {to} waits for its login"),
                        None => "The account's grant no longer works".to_owned(),
                    },
                    self.live_until().map_or_else(String::new, |until| {
                        format!(" Calls are served until its last token ends at {until}.")
                    })
                ),
                &self.login_advice(),
            )),
        }
    }

    /// Where somebody is to log in. An old platform's token may have ended since Align has moved the account.
    fn login_advice(&self) -> String {
        let view = self.view;
        let realm = view.moving_to.as_ref().unwrap_or(&view.realm);
        let advice = view.remedy.unwrap_or(Remedy::Login).advice(realm, &view.name);
        match &self.new_realm {
            Some(new) if view.moving_to.is_none() => format!(
                "If Align has moved the account to the new platform: `genapi-gateway accounts move {} --to {new}` makes the \
                 login link for it. If not: {advice}",
                view.name
            ),
            _ => advice,
        }
    }

    fn move_finding(&self) -> Option<Finding> {
        let (view, to) = (self.view, self.view.moving_to.as_ref()?);
        (view.state == AccountState::Ready).then(|| {
            finding(
                "note",
                format!(
                    "The account is moving to realm {to}: calls go to realm {} until its login there.",
                    view.realm
                ),
                &format!(
                    "Once Align has moved it, somebody with a MyiTero login logs in with the link (another: `genapi-gateway \
                     accounts invite {} --realm {to}`). `genapi-gateway accounts move --back {}` takes it back.",
                    view.name, view.name
                ),
            )
        })
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
        if let Some(realm) = &self.beyond_wall {
            let AccountView { name, realm: own, .. } = self.view;
            findings.push(finding(
                "note",
                format!("It holds a grant in realm {realm} too, which is of another group than realm {own}: it is never switched there."),
                &format!("`genapi-gateway accounts unpair {name} --realm {realm}` ends that grant; it shows first whom that hits."),
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
}
