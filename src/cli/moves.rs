//! `migration` and `accounts move`: where each account stands between two platforms, and moving them.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::admin::view::{MigrationReport, MoveOrder};
use crate::model::account::RealmName;
use crate::pairing::{MigrationLine, MoveLine};

use super::api::{Api, CliError, CommandResult, read_file};
use super::migration_mail;
use super::output::{self, Format, Screen, Style, TableRow, say};
use super::output_arguments::OutputArguments;

/// `-o table|json|csv|mail` of `migration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrationFormat {
    Table,
    Json,
    Csv,
    /// The text that tells Align which accounts are ready.
    Mail,
}

#[derive(Debug, Args)]
pub struct MigrationArguments {
    /// How to print; mail is the text that tells Align which accounts are ready.
    #[arg(short, long, value_enum, default_value_t = MigrationFormat::Table)]
    pub output: MigrationFormat,
    /// Tables with every column, as broad as they get.
    #[arg(long)]
    pub wide: bool,
}

#[derive(Debug, Args)]
pub struct MoveArguments {
    /// Names, perhaps with `*` in them, or ids.
    #[arg(value_name = "NAME|PATTERN", required_unless_present_any = ["file", "share"])]
    pub accounts: Vec<String>,
    /// A list of names, one a line (`-` for standard input); what follows a `#` is left out.
    #[arg(long, value_name = "LIST")]
    pub file: Option<std::path::PathBuf>,
    /// A canary: so many per cent of those that the move is about, the same ones each time.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "back")]
    pub share: Option<f64>,
    /// The realm to move to; with --back, the one to go back to where there are several.
    #[arg(long, value_name = "REALM", required_unless_present = "back")]
    pub to: Option<RealmName>,
    /// Take moves back: calls go where they went before.
    #[arg(long)]
    pub back: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the platform is to send scan notifications of accounts that log in anew.
    #[arg(long, value_name = "URL")]
    pub callback_url: Option<String>,
    /// How many days login links are good.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=30))]
    pub days: u32,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `5%` or `5`.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "write it as 5%".to_owned())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("above 0% and at most 100%".to_owned()) }
}

/// Where each account stands, and what remains to be done.
pub fn migration(config: &Path, arguments: &MigrationArguments) -> CommandResult {
    let report: MigrationReport = Api::from_config(config)?.get("/api/migration")?;
    let style = |format| Style { format, wide: arguments.wide };
    match arguments.output {
        MigrationFormat::Table => output::print(style(Format::Table), &report.accounts),
        MigrationFormat::Csv => output::print(style(Format::Csv), &report.accounts),
        MigrationFormat::Json => output::print_one(Format::Json, &report, String::new),
        MigrationFormat::Mail => output::write(&migration_mail::text(&report)),
    }
    Ok(ExitCode::SUCCESS)
}

impl TableRow for MigrationLine {
    const HEADINGS: &'static [&'static str] =
        &["name", "account id", "state", "realm", "to", "also in", "by", "next"];
    const WIDE: &'static [&'static str] = &["account id", "also in"];

    fn cells(&self) -> Vec<String> {
        let also_in: Vec<&str> = self.also_in.iter().map(RealmName::as_str).collect();
        vec![
            self.name.to_string(),
            self.account_id.to_string(),
            self.migration.words().to_owned(),
            self.realm.to_string(),
            self.to.as_ref().map(RealmName::to_string).unwrap_or_default(),
            also_in.join(" "),
            self.next_by.word().to_owned(),
            self.next.clone(),
        ]
    }
}

/// `accounts move`: a line for each account as it is done.
pub fn move_accounts(api: &Api, arguments: MoveArguments) -> CommandResult {
    let style = arguments.output.style();
    let screen = Screen::of(style);
    let order = order_of(arguments)?;
    let body = serde_json::to_vec(&order).map_err(|error| CliError::other(error.to_string()))?;
    let (mut done, mut failed) = (Vec::new(), false);
    api.post_lines("/api/move", body, |line: MoveLine| {
        failed |= !line.ok;
        match style.format {
            Format::Table => print_line(&line, screen),
            Format::Json | Format::Csv => done.push(line),
        }
    })?;
    if style.format != Format::Table {
        output::print(style, &done);
    }
    if order.dry_run && style.format == Format::Table {
        say!("Nothing was done. Leave --dry-run out to do it.");
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn order_of(arguments: MoveArguments) -> Result<MoveOrder, CliError> {
    let MoveArguments { mut accounts, file, share, to, back, dry_run, callback_url, days, .. } = arguments;
    if let Some(file) = &file {
        let text =
            String::from_utf8(read_file(file)?).map_err(|_| CliError::other("the list is not text"))?;
        let names = text.lines().filter_map(|line| line.split('#').next()).map(str::trim);
        accounts.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        if accounts.is_empty() {
            return Err(CliError::other("the list names no account"));
        }
    }
    if accounts.is_empty() {
        accounts.push("*".to_owned());
    }
    Ok(MoveOrder { accounts, share, to, back, dry_run, callback_url, days: Some(days) })
}

/// The link gets a line of its own: cut it would be of no use.
fn print_line(line: &MoveLine, screen: Screen) {
    let word = line.result.word();
    let lead = format!("{word:10}{}  ", line.name);
    let detail = screen.hanging(lead.chars().count(), 10, &line.detail);
    say!("{}{detail}", lead.replacen(word, &screen.tone(word), 1));
    if let Some(link) = &line.link {
        say!("{:10}{link}  ends {}", "", screen.moment(line.link_expires_at));
    }
}

impl TableRow for MoveLine {
    const HEADINGS: &'static [&'static str] = &["name", "result", "ok", "detail", "url", "expires at"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.result.word().to_owned(),
            self.ok.to_string(),
            self.detail.clone(),
            self.link.clone().unwrap_or_default(),
            self.link_expires_at.map(|at| at.to_string()).unwrap_or_default(),
        ]
    }
}
