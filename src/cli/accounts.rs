//! `accounts …`: each subcommand is one or two calls of the admin API, printed.

use std::path::Path;
use std::process::ExitCode;

use crate::admin::view::{
    AccountView, ActReport, CallRequest, CallResponse, DestructiveReport, InvitationRequest, LocalActReport,
};
use crate::model::account::RealmName;
use crate::pairing::{ExportedGrant, Invitation};

use super::account_arguments::{
    AccountsCommand, CallArguments, DestructiveArguments, RemoveArguments, RenameArguments, TestArguments,
};
use super::api::{Api, CliError, CommandResult, read_file, segment};
use super::compare;
use super::import;
use super::moves;
use super::output::{self, Format, Screen, Style, TableRow, count, say};
use super::pair::{self, leads_to_loopback};
use super::show;

pub fn run(config: &Path, command: AccountsCommand) -> CommandResult {
    Api::from_config(config).and_then(|api| match command {
        AccountsCommand::List { pattern, output } => show::list(&api, &pattern, output.style()),
        AccountsCommand::Show { account, output } => show::show(&api, &account, output.style()),
        AccountsCommand::Pair(pair) => pair::run(&api, pair),
        AccountsCommand::Invite { pattern, needs_login, realm, callback_url, days, output } => {
            let days = Some(days);
            invite(
                &api,
                InvitationRequest { pattern, needs_login, realm, callback_url, days },
                output.style(),
            )
        }
        AccountsCommand::Import(arguments) => import::run(&api, &arguments),
        AccountsCommand::Export { pattern, with_refresh_tokens, yes: _, output } => {
            export(&api, &pattern, with_refresh_tokens, output)
        }
        AccountsCommand::Pause { pattern, output } => each(&api, "pause", &pattern, "", output.style()),
        AccountsCommand::Resume { pattern, output } => each(&api, "resume", &pattern, "", output.style()),
        AccountsCommand::Renew { pattern, force, output } => {
            let force = if force { "&force=true" } else { "" };
            each(&api, "renew", &pattern, force, output.style())
        }
        AccountsCommand::Discover { pattern, output } => each(&api, "discover", &pattern, "", output.style()),
        AccountsCommand::Version { pattern, to, output } => {
            each(&api, "version", &pattern, &format!("&to={to}"), output.style())
        }
        AccountsCommand::Switch { account, realm, output } => switch(&api, &account, &realm, output.style()),
        AccountsCommand::Move(what) => moves::move_accounts(&api, what),
        AccountsCommand::Remove(what) => remove(&api, &what),
        AccountsCommand::Rename(what) => rename(&api, &what),
        AccountsCommand::Test(mark) => test(&api, &mark),
        AccountsCommand::Call(call) => self::call(&api, call),
        AccountsCommand::Compare(what) => compare::run(&api, &what),
        AccountsCommand::Unpair(what) => destroy(&api, "unpair", &what),
        AccountsCommand::Revoke(what) => destroy(&api, "revoke", &what),
    })
}

/// `parameters` follow the pattern in the query.
fn each(api: &Api, act: &str, pattern: &str, parameters: &str, style: Style) -> CommandResult {
    let screen = Screen::of(style);
    let mut done = Vec::new();
    let mut failed = false;
    api.post_lines(
        &format!("/api/{act}?pattern={}{parameters}", segment(pattern)),
        Vec::new(),
        |line: ActReport| {
            failed |= !line.ok;
            match style.format {
                Format::Table => {
                    let word = if line.ok { "ok" } else { "failed" };
                    let lead = format!("{word:8}{}  ", line.name);
                    let detail = screen.hanging(lead.chars().count(), 8, &line.detail);
                    say!("{}{detail}", lead.replacen(word, &screen.tone(word), 1));
                }
                Format::Json | Format::Csv => done.push(line),
            }
        },
    )?;
    if style.format != Format::Table {
        output::print(style, &done);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl TableRow for ActReport {
    const HEADINGS: &'static [&'static str] = &["name", "ok", "detail"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.ok.to_string(), self.detail.clone()]
    }
}

fn invite(api: &Api, request: InvitationRequest, style: Style) -> CommandResult {
    let invitations: Vec<Invitation> = api.post("/api/invitations", &request)?;
    if invitations.is_empty() {
        return Err(CliError::other("no account matches, so there is nobody to invite"));
    }
    if let Some(warning) = invitations.first().and_then(|first| leads_to_loopback(&first.link)) {
        output::warn(style.format, &warning);
    }
    if style.format == Format::Table {
        invitations.iter().for_each(|invitation| output::write(&invited(invitation, Screen::of(style))));
    } else {
        output::print(style, &invitations);
    }
    Ok(ExitCode::SUCCESS)
}

/// The link gets a line of its own: cut it would be of no use.
fn invited(invitation: &Invitation, screen: Screen) -> String {
    let account = invitation.account_id.map(|id| format!(" {id}")).unwrap_or_default();
    let until = screen.moment(Some(invitation.expires_at));
    format!("{}  {}{account}  ends {until}\n  {}\n", invitation.name, invitation.realm, invitation.link)
}

impl TableRow for Invitation {
    const HEADINGS: &'static [&'static str] = &["name", "realm", "account id", "expires at", "url"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.realm.to_string(),
            self.account_id.map(|id| id.to_string()).unwrap_or_default(),
            self.expires_at.to_string(),
            self.link.clone(),
        ]
    }
}

fn export(api: &Api, pattern: &str, with_refresh_tokens: bool, format: Format) -> CommandResult {
    let lines: Vec<ExportedGrant> =
        api.get(&format!("/api/export?pattern={}&refresh_tokens={with_refresh_tokens}", segment(pattern)))?;
    output::print(format, &lines);
    Ok(ExitCode::SUCCESS)
}

impl TableRow for ExportedGrant {
    const HEADINGS: &'static [&'static str] = &["name", "realm", "account id", "refresh token", "test"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.realm.to_string(),
            self.account_id.to_string(),
            self.refresh_token.clone().unwrap_or_default(),
            if self.test { "true".to_owned() } else { String::new() },
        ]
    }
}

fn switch(api: &Api, account: &str, realm: &RealmName, style: Style) -> CommandResult {
    let path = format!("/api/accounts/{}/switch?realm={}", segment(account), segment(realm.as_str()));
    let view: AccountView = api.post(&path, &())?;
    match style.format {
        Format::Table => say!("{}: calls go to realm {} from now on", view.name, view.realm),
        Format::Json | Format::Csv => show::print_account(style, &view),
    }
    Ok(ExitCode::SUCCESS)
}

fn call(api: &Api, arguments: CallArguments) -> CommandResult {
    let body = arguments.data.as_deref().map(read_file).transpose()?;
    let body = body
        .map(|bytes| String::from_utf8(bytes).map_err(|_| CliError::other("the body is not text")))
        .transpose()?;
    let request = CallRequest {
        method: arguments.method.to_uppercase(),
        path: arguments.path,
        content_type: body.is_some().then_some(arguments.content_type),
        body,
        with_body: arguments.body,
    };
    let report: CallResponse =
        api.post(&format!("/api/accounts/{}/call", segment(&arguments.account)), &request)?;
    output::print_one(arguments.output.style(), &report, || called(&report));
    Ok(if report.status < 400 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn called(report: &CallResponse) -> String {
    let code = report.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let summary = format!(
        "{}{code}  {}  {}  {} ms\n",
        report.status,
        count(report.bytes, "byte"),
        count(report.links, "link"),
        report.millis
    );
    match &report.body {
        Some(body) => format!("{summary}\n{body}\n"),
        None => summary,
    }
}

fn destroy(api: &Api, act: &str, arguments: &DestructiveArguments) -> CommandResult {
    let mut path = format!("/api/accounts/{}/{act}?confirmed={}", segment(&arguments.account), arguments.yes);
    if let Some(realm) = &arguments.realm {
        path.push_str(&format!("&realm={}", segment(realm.as_str())));
    }
    let report: DestructiveReport = api.post(&path, &())?;
    let style = arguments.output.style();
    output::print_one(style, &report, || destroyed(&report, arguments.yes, Screen::of(style)));
    Ok(if report.done || !arguments.yes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn destroyed(report: &DestructiveReport, confirmed: bool, screen: Screen) -> String {
    let mut text = format!("{} ({} in realm {})\n", report.account, report.account_id, report.realm);
    for hit in &report.hits {
        text.push_str(&format!("  - {}\n", screen.wrapped(4, hit)));
    }
    if !report.detail.is_empty() {
        text.push_str(&format!("{}\n", screen.wrapped(0, &report.detail)));
    }
    if !report.done && !confirmed {
        text.push_str("Nothing was done. Add --yes to do it.\n");
    }
    text
}

fn remove(api: &Api, arguments: &RemoveArguments) -> CommandResult {
    let RemoveArguments { account, force, yes, output } = arguments;
    let act: LocalActReport =
        api.post(&format!("/api/accounts/{}/remove?confirmed={yes}&force={force}", segment(account)), &())?;
    output::print_one(output.style(), &act, || told(&act, Screen::of(output.style())));
    Ok(ExitCode::SUCCESS)
}

fn rename(api: &Api, arguments: &RenameArguments) -> CommandResult {
    let RenameArguments { account, to, yes, output } = arguments;
    let path =
        format!("/api/accounts/{}/rename?to={}&confirmed={yes}", segment(account), segment(to.as_str()));
    let act: LocalActReport = api.post(&path, &())?;
    output::print_one(output.style(), &act, || told(&act, Screen::of(output.style())));
    Ok(ExitCode::SUCCESS)
}

fn test(api: &Api, arguments: &TestArguments) -> CommandResult {
    let TestArguments { account, on, off: _, output } = arguments;
    let view: AccountView = api.post(&format!("/api/accounts/{}/test?on={on}", segment(account)), &())?;
    match output.style().format {
        Format::Table if *on => say!("{} is a test account", view.name),
        Format::Table => say!("{} is no test account", view.name),
        Format::Json | Format::Csv => show::print_account(output.style(), &view),
    }
    Ok(ExitCode::SUCCESS)
}

fn told(act: &LocalActReport, screen: Screen) -> String {
    let hits: String = act.hits.iter().map(|hit| format!("  - {}\n", screen.wrapped(4, hit))).collect();
    let outcome = if act.done { act.detail.as_str() } else { "Nothing was done. Add --yes to do it." };
    format!("{}\n{hits}{}\n", act.account, screen.wrapped(0, outcome))
}
