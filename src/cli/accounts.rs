//! `accounts …`: each subcommand is one or two calls of the admin API, printed.

use std::io::{BufRead, Read};
use std::path::Path;
use std::process::ExitCode;

use crate::admin::view::{
    AccountView, CallReport, CallRequest, Destructive, Done, ImportLine, InviteRequest, PairFinish,
    PairOutcome, PairRequest, PairStarted,
};
use crate::clock::Timestamp;
use crate::model::account::{AccountId, RealmName};
use crate::pairing::{ExportedGrant, Invitation};

use super::api::{Api, Failure, Outcome, finish, segment};
use super::output::{self, Format, Row, say};
use super::show;
use super::{AccountsCommand, CallArguments, DestructiveArguments, PairArguments};

pub fn run(config: &Path, command: AccountsCommand) -> ExitCode {
    finish(Api::from_config(config).and_then(|api| match command {
        AccountsCommand::List { pattern, output } => show::list(&api, &pattern, output.output),
        AccountsCommand::Show { account, output } => show::show(&api, &account, output.output),
        AccountsCommand::Pair(pair) => self::pair(&api, pair),
        AccountsCommand::Invite { pattern, needs_login, realm, callback_url, days, output } => {
            let days = Some(days);
            invite(&api, InviteRequest { pattern, needs_login, realm, callback_url, days }, output.output)
        }
        AccountsCommand::Import { file, paused, replace, output } => {
            import(&api, &file, paused, replace, output.output)
        }
        AccountsCommand::Export { pattern, with_refresh_tokens, yes: _ } => {
            export(&api, &pattern, with_refresh_tokens)
        }
        AccountsCommand::Pause { pattern, output } => each(&api, "pause", &pattern, output.output),
        AccountsCommand::Resume { pattern, output } => each(&api, "resume", &pattern, output.output),
        AccountsCommand::Renew { pattern, output } => each(&api, "renew", &pattern, output.output),
        AccountsCommand::Discover { pattern, output } => each(&api, "discover", &pattern, output.output),
        AccountsCommand::Switch { account, realm } => switch(&api, &account, &realm),
        AccountsCommand::Call(call) => self::call(&api, call),
        AccountsCommand::Unpair(what) => destroy(&api, "unpair", &what),
        AccountsCommand::Revoke(what) => destroy(&api, "revoke", &what),
    }))
}

fn each(api: &Api, act: &str, pattern: &str, format: Format) -> Outcome {
    let mut done = Vec::new();
    let mut failed = false;
    api.post_lines(&format!("/api/{act}?pattern={}", segment(pattern)), Vec::new(), |line: Done| {
        failed |= !line.ok;
        match format {
            Format::Table => {
                say!("{:8}{}  {}", if line.ok { "ok" } else { "failed" }, line.name, line.detail)
            }
            Format::Json | Format::Csv => done.push(line),
        }
    })?;
    if format != Format::Table {
        output::print(format, &done);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Row for Done {
    const HEADINGS: &'static [&'static str] = &["name", "ok", "detail"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.ok.to_string(), self.detail.clone()]
    }
}

fn invite(api: &Api, request: InviteRequest, format: Format) -> Outcome {
    let invitations: Vec<Invitation> = api.post("/api/invitations", &request)?;
    if invitations.is_empty() {
        return Err(Failure::other("no account matches, so there is nobody to invite"));
    }
    output::print(format, &invitations);
    Ok(ExitCode::SUCCESS)
}

impl Row for Invitation {
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

fn import(api: &Api, file: &Path, paused: bool, replace: bool, format: Format) -> Outcome {
    let body = read(file)?;
    let mut lines = Vec::new();
    let mut failed = 0;
    let mut entries = 0;
    api.post_lines(&format!("/api/import?paused={paused}&replace={replace}"), body, |line: ImportLine| {
        entries += 1;
        failed += usize::from(!line.ok);
        match format {
            Format::Table => {
                say!(
                    "{:8}{:4}  {}  {}",
                    if line.ok { "ok" } else { "failed" },
                    line.entry,
                    line.name,
                    line.detail
                );
            }
            Format::Json | Format::Csv => lines.push(line),
        }
    })?;
    match format {
        Format::Table => say!("{} of {entries} imported", entries - failed),
        Format::Json | Format::Csv => output::print(format, &lines),
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Row for ImportLine {
    const HEADINGS: &'static [&'static str] = &["entry", "name", "ok", "detail"];

    fn cells(&self) -> Vec<String> {
        vec![self.entry.to_string(), self.name.clone(), self.ok.to_string(), self.detail.clone()]
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let result = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().read_to_end(&mut body).map(|_| ()),
        false => std::fs::read(file).map(|read| body = read),
    };
    result.map(|()| body).map_err(|error| Failure::other(format!("{}: {error}", file.display())))
}

fn export(api: &Api, pattern: &str, with_refresh_tokens: bool) -> Outcome {
    let lines: Vec<ExportedGrant> =
        api.get(&format!("/api/export?pattern={}&refresh_tokens={with_refresh_tokens}", segment(pattern)))?;
    output::print_one(Format::Json, &lines, String::new);
    Ok(ExitCode::SUCCESS)
}

fn pair(api: &Api, arguments: PairArguments) -> Outcome {
    let request = PairRequest {
        realm: arguments.realm,
        name: arguments.name,
        account_id: arguments.account_id,
        callback_url: arguments.callback_url,
        paste: arguments.paste,
    };
    let started: PairStarted = api.post("/api/pairings", &request)?;
    for warning in &started.warnings {
        eprintln!("warning: {warning}");
    }
    match (&started.authorize_url, &started.ticket) {
        (Some(authorize_url), Some(ticket)) => paste(api, authorize_url, ticket.clone(), started.expires_at),
        _ => {
            say!(
                "Open this link in the browser of somebody with a MyiTero login (once, until {}):",
                started.expires_at
            );
            say!("{}", started.url);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn paste(api: &Api, authorize_url: &str, ticket: String, expires_at: Timestamp) -> Outcome {
    say!("1. Log in here, in any browser (until {expires_at}):");
    say!("{authorize_url}");
    say!("2. The browser ends on an address that it may not be able to open. Paste that address here:");
    let redirected_url = Some(ask()?);
    let mut finish = PairFinish { ticket, redirected_url, account_id: None };
    loop {
        match api.post("/api/pairings/finish", &finish)? {
            PairOutcome::Paired { account, warnings } => {
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
                say!("paired: {account}");
                return Ok(ExitCode::SUCCESS);
            }
            PairOutcome::Failed { title, detail, fix } => {
                return Err(Failure::Other(format!("{title}. {detail} {fix}")));
            }
            PairOutcome::Choose { ticket, accounts } => {
                say!("3. Which account?");
                for account in &accounts {
                    let paired = if account.paired { " (paired already)" } else { "" };
                    say!("   {}  {}, {}{paired}", account.account_id, account.name, account.address);
                }
                let id: AccountId = ask()?.parse().map_err(|error| Failure::other(format!("{error}")))?;
                finish = PairFinish { ticket, redirected_url: None, account_id: Some(id) };
            }
        }
    }
}

fn ask() -> Result<String, Failure> {
    output::write("> ");
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => Err(Failure::other("nothing was pasted in")),
        Ok(_) => Ok(line.trim().to_owned()),
    }
}

fn switch(api: &Api, account: &str, realm: &RealmName) -> Outcome {
    let path = format!("/api/accounts/{}/switch?realm={}", segment(account), segment(realm.as_str()));
    let view: AccountView = api.post(&path, &())?;
    say!("{}: calls go to realm {} from now on", view.name, view.realm);
    Ok(ExitCode::SUCCESS)
}

fn call(api: &Api, arguments: CallArguments) -> Outcome {
    let body = arguments.data.as_deref().map(read).transpose()?;
    let body = body
        .map(|bytes| String::from_utf8(bytes).map_err(|_| Failure::other("the body is not text")))
        .transpose()?;
    let request = CallRequest {
        method: arguments.method.to_uppercase(),
        path: arguments.path,
        content_type: body.is_some().then_some(arguments.content_type),
        body,
        with_body: arguments.body,
    };
    let report: CallReport =
        api.post(&format!("/api/accounts/{}/call", segment(&arguments.account)), &request)?;
    output::print_one(arguments.output.output, &report, || called(&report));
    Ok(if report.status < 400 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn called(report: &CallReport) -> String {
    let code = report.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let summary = format!(
        "{}{code}  {} bytes  {} links  {} ms\n",
        report.status, report.bytes, report.links, report.millis
    );
    match &report.body {
        Some(body) => format!("{summary}\n{body}\n"),
        None => summary,
    }
}

fn destroy(api: &Api, act: &str, arguments: &DestructiveArguments) -> Outcome {
    let mut path = format!("/api/accounts/{}/{act}?confirmed={}", segment(&arguments.account), arguments.yes);
    if let Some(realm) = &arguments.realm {
        path.push_str(&format!("&realm={}", segment(realm.as_str())));
    }
    let report: Destructive = api.post(&path, &())?;
    say!("{} ({} in realm {})", report.account, report.account_id, report.realm);
    for hit in &report.hits {
        say!("  - {hit}");
    }
    say!("{}", report.detail);
    if !report.done && !arguments.yes {
        say!("Nothing was done. Add --yes to do it.");
    }
    Ok(if report.done || !arguments.yes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
