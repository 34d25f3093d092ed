//! What is: accounts, callers, what happened, and how an account is, as the admin API says it, printed.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin::view::{
    AccountView, CallerView, CandidateView, Explanation, FailingView, Finding, GrantView, JournalView,
};
use crate::clock::Timestamp;
use crate::model::account::{AccountState, Remedy};

use super::api::{Api, CommandResult, segment};
use super::output::{self, Format, Screen, Style, TableRow, brief, count, say};

pub fn list(api: &Api, pattern: &str, style: Style) -> CommandResult {
    let accounts: Vec<AccountView> = api.get(&format!("/api/accounts?pattern={}", segment(pattern)))?;
    if accounts.is_empty() && style.format == Format::Table {
        say!("There is no account yet. `accounts pair` or `accounts import` adds some.");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(style, &accounts);
    let untried = accounts.iter().filter(|account| account.remedy == Some(Remedy::PresentToken)).count();
    if untried > 0 && style.format == Format::Table {
        let text = format!(
            "{untried} need the application's present refresh token (`accounts import FILE`), not a login: `explain` says more."
        );
        say!("{}", Screen::of(style).wrapped(0, &text));
    }
    Ok(ExitCode::SUCCESS)
}

fn full(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn short(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map(|at| brief(at, now)).unwrap_or_default()
}

impl TableRow for AccountView {
    const HEADINGS: &'static [&'static str] =
        &["name", "realm", "account id", "state", "token until", "last call", "route", "test"];
    const WIDE: &'static [&'static str] = &["route"];

    fn cells(&self) -> Vec<String> {
        self.row(full)
    }

    fn brief(&self, now: Timestamp) -> Vec<String> {
        self.row(|at| short(at, now))
    }
}

impl AccountView {
    fn row(&self, moment: impl Fn(Option<Timestamp>) -> String) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.realm.to_string(),
            self.account_id.to_string(),
            self.state.word().to_owned(),
            moment(self.token_expires_at),
            moment(self.signals.last_call_at),
            self.route.clone().unwrap_or_default(),
            self.test.map(|test| if test { "test" } else { "" }).unwrap_or_default().to_owned(),
        ]
    }
}

/// `callers list`: a program that has gone quiet shows here.
pub fn callers(config: &Path, style: Style) -> CommandResult {
    let callers: Vec<CallerView> = Api::from_config(config)?.get("/api/callers")?;
    output::print(style, &callers);
    Ok(ExitCode::SUCCESS)
}

impl TableRow for CallerView {
    const HEADINGS: &'static [&'static str] = &[
        "name",
        "last call",
        "last success",
        "last refusal",
        "refused at",
        "last order list",
        "links",
        "built",
    ];
    const WIDE: &'static [&'static str] = &["last order list", "links", "built"];

    fn cells(&self) -> Vec<String> {
        self.row(full)
    }

    fn brief(&self, now: Timestamp) -> Vec<String> {
        self.row(|at| short(at, now))
    }
}

impl CallerView {
    fn row(&self, moment: impl Fn(Option<Timestamp>) -> String) -> Vec<String> {
        let it = &self.signals;
        vec![
            self.name.clone(),
            moment(it.last_call_at),
            moment(it.last_success_at),
            it.last_refusal.clone().unwrap_or_default(),
            moment(it.last_refusal_at),
            moment(it.last_list_at),
            it.last_list_links.map(|links| links.to_string()).unwrap_or_default(),
            self.built_downloads.to_string(),
        ]
    }
}

/// `journal`: what happened, newest first, to one account or to all.
pub fn journal(config: &Path, account: Option<&str>, lines: u32, style: Style) -> CommandResult {
    let path = match account {
        Some(account) => format!("/api/accounts/{}/journal?lines={lines}", segment(account)),
        None => format!("/api/journal?lines={lines}"),
    };
    let entries: Vec<JournalView> = Api::from_config(config)?.get(&path)?;
    output::print(style, &entries);
    Ok(ExitCode::SUCCESS)
}

impl TableRow for JournalView {
    const HEADINGS: &'static [&'static str] = &["at", "account", "event", "detail"];

    fn cells(&self) -> Vec<String> {
        vec![self.at.to_string(), self.account.to_string(), self.event.clone(), self.detail.clone()]
    }

    fn brief(&self, now: Timestamp) -> Vec<String> {
        let mut cells = self.cells();
        cells[0] = past(self.at, now);
        cells
    }
}

/// When something happened. What a wrong clock noted for a time to come has happened all the same.
fn past(at: Timestamp, now: Timestamp) -> String {
    let is_odd = at.since(now) > CLOCKS_AGREE;
    if is_odd { "clock wrong".to_owned() } else { brief(at, now) }
}

const CLOCKS_AGREE: Duration = Duration::from_secs(60);

pub fn show(api: &Api, account: &str, style: Style) -> CommandResult {
    let view: AccountView = api.get(&format!("/api/accounts/{}", segment(account)))?;
    print_account(style, &view);
    Ok(ExitCode::SUCCESS)
}

/// As a row in CSV, so that it has the columns of `accounts list`.
pub fn print_account(style: Style, view: &AccountView) {
    if style.format == Format::Csv {
        output::print(style, std::slice::from_ref(view));
    } else {
        output::print_one(style, view, || facts(view, Screen::of(style)));
    }
}

pub fn explain(config: &Path, account: &str, style: Style) -> CommandResult {
    let path = format!("/api/accounts/{}/explain", segment(account));
    let explanation: Explanation = Api::from_config(config)?.get(&path)?;
    if style.format == Format::Csv {
        output::print(style, &explanation.findings);
    } else {
        output::print_one(style, &explanation, || explained(&explanation, Screen::of(style)));
    }
    Ok(ExitCode::SUCCESS)
}

impl TableRow for Finding {
    const HEADINGS: &'static [&'static str] = &["level", "what", "fix"];

    fn cells(&self) -> Vec<String> {
        vec![self.level.clone(), self.what.clone(), self.fix.clone()]
    }
}

/// Where values begin.
const INDENT: usize = 20;

fn facts(view: &AccountView, screen: Screen) -> String {
    let moment = |at| screen.moment(at);
    let mut lines = vec![
        ("name", view.name.to_string()),
        ("account id", format!("{} in realm {}", view.account_id, view.realm)),
        ("state", view.state.word().to_owned()),
    ];
    if let AccountState::NeedsLogin { since, why } = &view.state {
        lines.push(("since", moment(Some(*since))));
        lines.push(("why", why.clone()));
    }
    if view.test == Some(true) {
        lines.push(("test account", "yes".to_owned()));
    }
    let refused = if is_refused(view, screen.now) { ", but callers do not get through with it" } else { "" };
    let signals = &view.signals;
    lines.extend([("route", view.route.clone().unwrap_or_else(|| "-".to_owned()))]);
    lines.extend(view.version.iter().map(|version| ("version", version.clone())));
    if let Some(candidate) = &view.candidate {
        let CandidateView { route, since, why } = candidate;
        lines.push(("not used", format!("{route}, which discovery names since {since}: {why}")));
    }
    lines.extend([
        ("token until", format!("{}{refused}", moment(view.token_expires_at))),
        ("last refresh", moment(view.refreshed_at)),
        ("generation", view.generation.to_string()),
        ("last call", moment(signals.last_call_at)),
        ("last success", moment(signals.last_success_at)),
    ]);
    if let Some(FailingView { calls, since, last, .. }) = &view.failing {
        let calls = count(u64::from(*calls), "call");
        lines.push(("failing", format!("{calls} in a row since {since}, the last with {last}")));
    }
    if !view.applications.is_empty() {
        lines.push(("applications", view.applications.join(", ")));
    }
    if let Some(refusal) = &signals.last_refusal {
        lines.push(("last refusal", format!("{refusal}, {}", moment(signals.last_refusal_at))));
    }
    if let Some(links) = signals.last_list_links {
        lines
            .push(("last order list", format!("{}, {}", count(links, "link"), moment(signals.last_list_at))));
    }
    if signals.unfinished_download_at.is_some() {
        lines.push(("unfinished download", moment(signals.unfinished_download_at)));
    }
    lines.extend(view.grants.iter().map(|grant| ("grant", grant_line(grant, screen))));
    let line = |(label, value): &(&str, String)| {
        let value = screen.wrapped(INDENT, &output::shown(value));
        let value = if *label == "state" { screen.tone(&value) } else { value };
        format!("{label:INDENT$}{value}\n")
    };
    lines.iter().map(line).collect()
}

/// As `explain` says it: a token that the platform has refused serves nobody.
fn is_refused(view: &AccountView, now: Timestamp) -> bool {
    view.token_expires_at.is_some_and(|until| until > now)
        && view.failing.as_ref().is_some_and(|it| {
            ["401", "token_unavailable"].contains(&it.last.as_str())
                && view.refreshed_at.is_none_or(|at| at <= it.last_at)
        })
}

fn grant_line(grant: &GrantView, screen: Screen) -> String {
    let current = if grant.current { "current" } else { "kept" };
    let under_way = match grant.refresh_under_way_since {
        Some(since) => format!(", refresh under way since {}", screen.moment(Some(since))),
        None => String::new(),
    };
    let made = screen.moment(Some(grant.obtained_at));
    format!("{} {}, {current}, made {made}{under_way}", grant.realm, grant.account_id)
}

/// Findings first: they stand in order of importance, and what follows is what they rest on.
fn explained(explanation: &Explanation, screen: Screen) -> String {
    const LEVEL: usize = 8;
    let mut text = String::new();
    for finding in &explanation.findings {
        let level = format!("{:LEVEL$}", finding.level).replace(&finding.level, &screen.tone(&finding.level));
        text.push_str(&format!("{level}{}\n", screen.wrapped(LEVEL, &finding.what)));
        if !finding.fix.is_empty() {
            let fix = screen.wrapped(LEVEL + 2, &finding.fix);
            text.push_str(&format!("{:LEVEL$}→ {fix}\n", ""));
        }
    }
    text.push('\n');
    text.push_str(&facts(&explanation.account, screen));
    if !explanation.journal.is_empty() {
        text.push_str("\nwhat happened, newest first\n");
    }
    for entry in &explanation.journal {
        let when =
            if screen.width.is_some() { past(entry.at, screen.now) } else { screen.moment(Some(entry.at)) };
        let lead = format!("  {when:11}  {:18}  ", entry.event);
        let indent = lead.chars().count();
        text.push_str(&format!("{lead}{}\n", screen.wrapped(indent, &output::shown(&entry.detail))));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_begins_with_its_verdict_and_fits_80_columns() {
        let account = serde_json::json!({
            "name": "smile-berlin", "realm": "global", "account_id": 4711, "state": "needs_login",
            "since": 1_800_000_000_000_u64, "why": "the platform answered 401 invalid_grant ".repeat(4),
            "route": "https://api.example.test/itero-gen-api/v2", "token_expires_at": 1_800_000_000_000_u64,
            "refreshed_at": null, "generation": 7, "grants": [], "signals": {},
        });
        let finding = |level: &str, what: &str| serde_json::json!({"level": level, "what": what, "fix": "Do this, and then do that. ".repeat(6)});
        let explanation: Explanation = serde_json::from_value(serde_json::json!({
            "account": account,
            "findings": [finding("trouble", &"A long sentence about it. ".repeat(6)), finding("ok", "Well.")],
            "journal": [{"at": 1_799_999_000_000_u64, "account": "smile-berlin", "event": "refresh_superseded",
                "detail": "newer tokens of another gateway ".repeat(5)}],
        }))
        .unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let text = explained(&explanation, Screen { width: Some(80), prose: Some(80), colour: false, now });
        assert!(text.starts_with("trouble A long sentence"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("  17 min ago   refresh_superseded  newer"), "{text}");
    }
}
