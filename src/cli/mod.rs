//! The command line: what can be typed, and which one function each subcommand calls.

mod accounts;
mod api;
mod callers;
mod check;
mod healthcheck;
mod import;
pub mod load;
mod output;
mod pair;
mod sandbox;
mod serve;
mod show;
mod store;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::model::account::{AccountId, AccountName, RealmName};

pub use output::Format;
use output::Style;

/// Where the configuration is looked for when neither `-c` nor the environment names it.
pub const DEFAULT_CONFIG: &str = "/etc/genapi-gateway/config.toml";
/// A bad configuration, as sysexits.h has it (EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;
/// What cannot be read as a command.
const EXIT_USAGE: u8 = 2;

/// Authenticating reverse proxy that keeps legacy applications working against the iTero Gen API.
///
/// Point a legacy application's base URL at the gateway: it puts the account's token on, goes where
/// discovery says, renews, retries, and hands the response back.
#[derive(Debug, Parser)]
#[command(name = "genapi-gateway", version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file.
    #[arg(short, long, global = true, value_name = "FILE", env = "GENAPI_GATEWAY_CONFIG", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until it is told to stop (SIGTERM drains, a second one stops at once, SIGHUP reloads).
    Serve,
    /// Check the configuration file as `serve` would, and say what is wrong with it.
    Check(CheckArguments),
    /// Show the main job on this machine: sandbox, gateway and admin on loopback, no configuration needed.
    Demo(DemoArguments),
    /// Run the stand-in for iTero, with every habit and fault that the vendor leaves open.
    Sandbox(SandboxArguments),
    /// List, pair, import, watch and repair accounts (speaks to the running gateway).
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Say in words how an account is, why, and what to do.
    Explain {
        /// Name or id.
        account: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// What happened to an account or to all of them and why, newest first.
    Journal {
        /// Name or id; without it, all accounts.
        account: Option<String>,
        /// How many lines, at most 1000.
        #[arg(long, default_value_t = 20, value_name = "N")]
        lines: u32,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Move, back up and put back the store, and change its key.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Keys for the applications that call the gateway.
    #[command(subcommand)]
    Callers(CallersCommand),
    /// Ask the running gateway whether it is alive: exit code 0 or 1, for containers.
    Healthcheck,
    /// Load-test a gateway (backed by a sandbox) before trusting it.
    Load(Box<load::LoadArguments>),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Also try the way to the platform: DNS, TLS, clock, credentials, redirect rules, discovery.
    #[arg(long)]
    pub connect: bool,
    /// How to print; json is one document on standard output, with errors, warnings and steps.
    #[arg(short, long, value_enum, default_value_t = CheckFormat::Table)]
    pub output: CheckFormat,
}

/// `-o table|json` of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A line for each.
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Exit after the checks: 0 when all held, 1 when one did not.
    #[arg(long)]
    pub once: bool,
}

#[derive(Debug, Args)]
pub struct SandboxArguments {
    /// How many paired accounts to begin with; with --write one more, which is left to be paired.
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub accounts: usize,
    /// Write a matching gateway configuration, keys and import file into this folder, and keep accounts and
    /// tokens there: another run with it goes on.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    /// Where the gateway of the written configuration listens for callers. [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT", requires = "write")]
    pub gateway: Option<SocketAddr>,
    /// The same for operators. [default: 127.0.0.1:8081]
    #[arg(long, value_name = "IP:PORT", requires = "write")]
    pub admin: Option<SocketAddr>,
    /// First port; the listeners take this one and the ones behind it. 0 takes free ones. [default: 9400]
    #[arg(long)]
    pub port: Option<u16>,
    /// Answer over TLS with a CA of its own.
    #[arg(long)]
    pub tls: bool,
    /// Bytes of an access token (the vendor says up to 8192).
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    pub token_size: usize,
    /// Life of an access token.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub token_life: std::time::Duration,
    /// Hand out a new refresh token with every refresh.
    #[arg(long)]
    pub rotate: bool,
    /// Status that says that a token has expired.
    #[arg(long, default_value = "401", value_parser = expiry_status())]
    pub expiry_status: u16,
}

#[derive(Debug, Args)]
pub struct OutputArguments {
    /// How to print; with json, errors on standard error are JSON too.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Tables with every column and with times in full, as broad as they get.
    #[arg(long)]
    pub wide: bool,
}

impl OutputArguments {
    pub fn style(&self) -> Style {
        Style { format: self.output, wide: self.wide }
    }
}

#[derive(Debug, Subcommand)]
pub enum AccountsCommand {
    /// All accounts with their state, or those that match a pattern.
    List {
        /// A name, perhaps with `*` in it.
        #[arg(default_value = "*")]
        pattern: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// One account with its grants, its route and its last signs of life.
    Show {
        /// Name or id.
        account: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Pair an account: prints a one-time link for the browser, or takes the redirected URL pasted in.
    Pair(PairArguments),
    /// Links for clinics to log in by themselves, valid for days; with -o csv ready for a mail merge.
    Invite {
        /// Accounts to invite: a name, perhaps with `*` in it.
        #[arg(required_unless_present = "needs_login")]
        pattern: Option<String>,
        /// Every account that needs a login.
        #[arg(long, conflicts_with = "pattern")]
        needs_login: bool,
        /// Pair them in this realm instead of their current one: for moving to another platform.
        #[arg(long)]
        realm: Option<RealmName>,
        /// Where the platform is to send scan notifications.
        #[arg(long, value_name = "URL")]
        callback_url: Option<String>,
        /// How many days the links are good.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=30))]
        days: u32,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Take over refresh tokens: a JSON array of {"name", "realm", "account_id", "refresh_token"}, or CSV
    /// with these in a header row.
    Import(ImportArguments),
    /// Accounts in the form that `import` reads.
    Export {
        /// A name, perhaps with `*` in it.
        #[arg(default_value = "*")]
        pattern: String,
        /// Print the refresh tokens too; whoever holds them holds the accounts. Written to the audit log.
        #[arg(long, requires = "yes")]
        with_refresh_tokens: bool,
        /// Confirm.
        #[arg(long)]
        yes: bool,
        /// How to print; `import` reads json and csv.
        #[arg(short, long, value_enum, default_value_t = Format::Json)]
        output: Format,
    },
    /// Stop refreshing and serving accounts, so that somebody else may.
    Pause {
        /// A name, perhaps with `*` in it.
        pattern: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Take paused accounts up again: one refresh and one discovery each.
    Resume {
        /// A name, perhaps with `*` in it.
        pattern: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Refresh now, then discover; also tries an account again that needs a login.
    Renew {
        /// A name, perhaps with `*` in it.
        pattern: String,
        /// Refresh although the store takes no writes: the new tokens are in memory only then, and a crash
        /// costs the login.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Ask discovery where an account's calls go now.
    Discover {
        /// A name, perhaps with `*` in it.
        pattern: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Send an account's calls to the platform of another grant that it holds: after a move, or back again.
    Switch {
        /// Name or id.
        account: String,
        /// Where to.
        #[arg(long)]
        realm: RealmName,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Forget an account here; nothing is revoked or unpaired at the platform.
    Remove(RemoveArguments),
    /// Give an account another name.
    Rename(RenameArguments),
    /// Make one call as an account and print status, size, number of links and time.
    Call(CallArguments),
    /// Unpair at the platform: hits every user of the account.
    Unpair(DestructiveArguments),
    /// Revoke the refresh token at the platform: hits every user of the account.
    Revoke(DestructiveArguments),
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The file, or `-` for standard input.
    pub file: PathBuf,
    /// Only store: do not refresh until `accounts resume`.
    #[arg(long)]
    pub paused: bool,
    /// The file's tokens are newer: try them also where the gateway's own work, and take those that the
    /// platform takes.
    #[arg(long)]
    pub replace: bool,
    /// Do it; without this, --replace prints what it would hit and does nothing.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct PairArguments {
    /// Which realm of the configuration; may be left out where there is one.
    #[arg(long)]
    pub realm: Option<RealmName>,
    /// The name that the account is to have here; without it, it is made from the vendor's.
    #[arg(long)]
    pub name: Option<AccountName>,
    /// Pair this account without asking, if the user has it.
    #[arg(long, value_name = "ID")]
    pub account_id: Option<AccountId>,
    /// Where the platform is to send scan notifications. Align changes it only by unpairing and pairing
    /// again.
    #[arg(long, value_name = "URL")]
    pub callback_url: Option<String>,
    /// The browser cannot reach the gateway: log in anywhere and paste the redirected URL here.
    #[arg(long)]
    pub paste: bool,
    /// Stay until the login by the link has ended, and say how.
    #[arg(long, conflicts_with = "paste")]
    pub wait: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct CallArguments {
    /// Name or id.
    pub account: String,
    /// GET, PUT, …
    pub method: String,
    /// Path and query below the account's route, such as /orders/lab
    pub path: String,
    /// Print the response's body too: it may hold patient data.
    #[arg(long)]
    pub body: bool,
    /// Send this file as the body (`-` for standard input).
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Content type of what is sent.
    #[arg(long, default_value = "application/json", requires = "data")]
    pub content_type: String,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct DestructiveArguments {
    /// Name or id.
    pub account: String,
    /// Its grant in this realm instead of the current one.
    #[arg(long)]
    pub realm: Option<RealmName>,
    /// Do it; without this, whom it would hit is printed and nothing is done.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Name or id.
    pub account: String,
    /// Also where its newest tokens are in memory only, which loses them.
    #[arg(long)]
    pub force: bool,
    /// Do it; without this, what it would mean is printed and nothing is done.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Args)]
pub struct RenameArguments {
    /// Name or id.
    pub account: String,
    /// The new name.
    pub to: AccountName,
    /// Do it; without this, what it would mean is printed and nothing is done.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Move everything to another store, account by account, and prove it by reading it back. If it is
    /// interrupted, run it again.
    Migrate(MigrateArguments),
    /// Copy the store into a new file, while the gateway goes on. Without the key, which is to be kept
    /// elsewhere, it opens nothing.
    Backup {
        /// Must not exist yet.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Put a backup back into a store that holds nothing; with the gateway stopped.
    Restore {
        /// What `store backup` wrote.
        file: PathBuf,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Re-encrypt everything with the first key of the key file, so that the other lines can be removed. If
    /// it is interrupted, run it again.
    RotateKey {
        #[command(flatten)]
        output: OutputArguments,
    },
}

#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// Where it is: sqlite:FILE or postgres://USER@HOST/DATABASE. Without it, the configuration's store.
    #[arg(long, value_name = "URL", required_unless_present = "to")]
    pub from: Option<String>,
    /// Where it is to go. Without it, the configuration's store.
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// The key file of the first. Without it, the configuration's key.
    #[arg(long, value_name = "FILE")]
    pub from_key: Option<PathBuf>,
    /// The key file of the second, made where the store is new. Without it, the configuration's key.
    #[arg(long, value_name = "FILE")]
    pub to_key: Option<PathBuf>,
    /// The second may hold accounts that the first does not know; they stay as they are.
    #[arg(long)]
    pub merge: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

#[derive(Debug, Subcommand)]
pub enum CallersCommand {
    /// Make a key for an application: prints the key once, and the lines for the configuration.
    NewKey {
        /// The caller's name in the configuration.
        #[arg(default_value = "my-application")]
        name: String,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// The callers of the configuration and when each was last seen, by all gateways on the same store.
    List(OutputArguments),
}

/// Reads what was typed and runs it. What cannot be read ends with 2, and for programs that read JSON it is
/// JSON.
pub fn run_command_line(words: Vec<OsString>) -> ExitCode {
    let read = Arguments::command()
        .try_get_matches_from(&words)
        .and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, format_of(&matches))));
    match read {
        Ok((arguments, format)) => run(arguments, format),
        Err(error) if error.use_stderr() && wants_json(&words) => {
            let text = error.render().to_string();
            let told = serde_json::json!({"code": "usage", "detail": text.trim_end(), "fix": ""});
            output::print_error(&told.to_string());
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => error.exit(),
    }
}

/// What `-o` says, whichever command has it.
fn format_of(matches: &ArgMatches) -> Format {
    match matches.subcommand() {
        Some((_, below)) => format_of(below),
        // What prints JSON without being told to still says in words why it does not.
        None => match matches.try_get_one("output") {
            Ok(Some(format)) if matches.value_source("output") == Some(ValueSource::CommandLine) => *format,
            _ => Format::Table,
        },
    }
}

/// Of words that could not be read as a whole.
fn wants_json(words: &[OsString]) -> bool {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.iter().any(|word| matches!(&**word, "-ojson" | "-o=json" | "--output=json"))
        || words.windows(2).any(|pair| matches!(&*pair[0], "-o" | "--output") && pair[1] == "json")
}

/// Runs what was typed; the exit code is the contract of design section 8.
fn run(arguments: Arguments, format: Format) -> ExitCode {
    let config = arguments.config;
    let outcome = match arguments.command {
        Command::Serve => return serve::run(&config),
        Command::Check(check) => return check::run(&config, &check),
        Command::Demo(demo) => return crate::demo::run(demo.once),
        Command::Sandbox(options) => return sandbox::run(&options),
        Command::Accounts(command) => accounts::run(&config, command),
        Command::Explain { account, output } => show::explain(&config, &account, output.style()),
        Command::Journal { account, lines, output } => {
            show::journal(&config, account.as_deref(), lines, output.style())
        }
        Command::Store(command) => store::run(&config, command),
        Command::Callers(CallersCommand::NewKey { name, output }) => callers::new_key(&name, output.style()),
        Command::Callers(CallersCommand::List(output)) => show::callers(&config, output.style()),
        Command::Healthcheck => healthcheck::run(&config),
        Command::Load(arguments) => return load::run(&arguments),
        Command::Completions { shell } => {
            // Into memory first: written in parts, a closed pipe would end in a panic.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "genapi-gateway", &mut script);
            output::write(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    };
    api::finish(format, outcome)
}

fn expiry_status() -> impl TypedValueParser<Value = u16> {
    PossibleValuesParser::new(["401", "403"]).try_map(|status| status.parse())
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Format::Table, Format::Json, Format::Csv]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.word()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn refresh_tokens_are_exported_only_with_both_words() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("genapi-gateway accounts export --with-refresh-tokens").is_err());
        assert!(parse("genapi-gateway accounts export --with-refresh-tokens --yes").is_ok());
    }
}
