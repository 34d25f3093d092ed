//! What is: accounts, callers, and how an account is, as the admin API says it, printed.

use std::path::Path;
use std::process::ExitCode;

use crate::admin::view::{AccountView, CallerView, Explanation};
use crate::clock::Timestamp;
use crate::model::account::AccountState;

use super::api::{Api, Outcome, finish, segment};
use super::output::{self, Format, Row, say};

pub fn explain(config: &Path, account: &str, format: Format) -> ExitCode {
    finish(Api::from_config(config).and_then(|api| {
        let explanation: Explanation = api.get(&format!("/api/accounts/{}/explain", segment(account)))?;
        output::print_one(format, &explanation, || explained(&explanation));
        Ok(ExitCode::SUCCESS)
    }))
}

pub fn list(api: &Api, pattern: &str, format: Format) -> Outcome {
    let accounts: Vec<AccountView> = api.get(&format!("/api/accounts?pattern={}", segment(pattern)))?;
    if accounts.is_empty() && format == Format::Table {
        say!("No account matches. `accounts pair` or `accounts import` adds some.");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(format, &accounts);
    Ok(ExitCode::SUCCESS)
}

impl Row for AccountView {
    const HEADINGS: &'static [&'static str] =
        &["name", "realm", "account id", "state", "token until", "last call", "route"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.realm.to_string(),
            self.account_id.to_string(),
            self.state.word().to_owned(),
            self.token_expires_at.map(|at| at.to_string()).unwrap_or_default(),
            self.signals.last_call_at.map(|at| at.to_string()).unwrap_or_default(),
            self.route.clone().unwrap_or_default(),
        ]
    }
}

/// `callers list`: a program that has gone quiet shows here.
pub fn callers(config: &Path, format: Format) -> ExitCode {
    finish(Api::from_config(config).and_then(|api| {
        let callers: Vec<CallerView> = api.get("/api/callers")?;
        output::print(format, &callers);
        Ok(ExitCode::SUCCESS)
    }))
}

impl Row for CallerView {
    const HEADINGS: &'static [&'static str] =
        &["name", "last call", "last success", "last refusal", "refused at", "last order list", "links"];

    fn cells(&self) -> Vec<String> {
        let at = |moment: Option<Timestamp>| moment.map(|at| at.to_string()).unwrap_or_default();
        let it = &self.signals;
        vec![
            self.name.clone(),
            at(it.last_call_at),
            at(it.last_success_at),
            it.last_refusal.clone().unwrap_or_default(),
            at(it.last_refusal_at),
            at(it.last_list_at),
            it.last_list_links.map(|links| links.to_string()).unwrap_or_default(),
        ]
    }
}

fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

pub fn show(api: &Api, account: &str, format: Format) -> Outcome {
    let view: AccountView = api.get(&format!("/api/accounts/{}", segment(account)))?;
    output::print_one(format, &view, || shown(&view));
    Ok(ExitCode::SUCCESS)
}

fn shown(view: &AccountView) -> String {
    let mut lines = vec![
        ("name", view.name.to_string()),
        ("account id", format!("{} in realm {}", view.account_id, view.realm)),
        ("state", view.state.word().to_owned()),
    ];
    if let AccountState::NeedsLogin { since, why } = &view.state {
        lines.push(("since", since.to_string()));
        lines.push(("why", why.clone()));
    }
    let signals = &view.signals;
    lines.extend([
        ("route", view.route.clone().unwrap_or_else(|| "-".to_owned())),
        ("token until", moment(view.token_expires_at)),
        ("last refresh", moment(view.refreshed_at)),
        ("generation", view.generation.to_string()),
        ("last call", moment(signals.last_call_at)),
        ("last success", moment(signals.last_success_at)),
    ]);
    if let Some(refusal) = &signals.last_refusal {
        lines.push(("last refusal", format!("{refusal} at {}", moment(signals.last_refusal_at))));
    }
    if let Some(links) = signals.last_list_links {
        lines.push(("last order list", format!("{links} links at {}", moment(signals.last_list_at))));
    }
    if signals.unfinished_download_at.is_some() {
        lines.push(("unfinished download", moment(signals.unfinished_download_at)));
    }
    for grant in &view.grants {
        let current = if grant.current { "current" } else { "kept" };
        let under_way = match grant.refresh_under_way_since {
            Some(since) => format!(", refresh under way since {since}"),
            None => String::new(),
        };
        lines.push((
            "grant",
            format!(
                "{} {}, {current}, since {}{under_way}",
                grant.realm, grant.account_id, grant.obtained_at
            ),
        ));
    }
    lines.iter().map(|(label, value)| format!("{label:20}{value}\n")).collect()
}

fn explained(explanation: &Explanation) -> String {
    let mut text = shown(&explanation.account);
    text.push('\n');
    for finding in &explanation.findings {
        text.push_str(&format!("{:8}{}\n", finding.level, finding.what));
        if !finding.fix.is_empty() {
            text.push_str(&format!("        → {}\n", finding.fix));
        }
    }
    if !explanation.journal.is_empty() {
        text.push_str("\nwhat happened, newest first\n");
    }
    for entry in &explanation.journal {
        text.push_str(&format!("  {}  {:18}{}\n", entry.at, entry.event, entry.detail));
    }
    text
}
