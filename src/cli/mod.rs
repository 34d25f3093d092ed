//! The command line: which one function each subcommand calls. `arguments` and `account_arguments` say what
//! can be typed.

mod account_arguments;
mod accounts;
mod api;
mod arguments;
mod ca;
mod callers;
mod check;
mod compare;
mod csv;
mod healthcheck;
mod import;
pub mod load;
mod migration_mail;
mod moves;
mod output;
mod output_arguments;
mod pair;
mod sandbox;
mod screen;
mod serve;
mod show;
mod store;
mod table;
mod test_accounts;
mod trust;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

pub use account_arguments::{
    AccountsCommand, CallArguments, DestructiveArguments, ImportArguments, PairArguments, RemoveArguments,
    RenameArguments, TestArguments,
};
pub use arguments::{
    Arguments, CaCommand, CaFormat, CallersCommand, CheckArguments, CheckFormat, Command, DEFAULT_CONFIG,
    DemoArguments, MigrateArguments, SandboxArguments, StoreCommand,
};
pub use compare::CompareArguments;
pub use moves::{MigrationArguments, MigrationFormat, MoveArguments};
pub use output_arguments::{Format, OutputArguments};

/// A bad configuration, as sysexits.h has it (EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;
/// What cannot be read as a command.
const EXIT_USAGE: u8 = 2;

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
        Command::Migration(arguments) => moves::migration(&config, &arguments),
        Command::Store(command) => store::run(&config, command),
        Command::Callers(CallersCommand::NewKey { name, output }) => callers::new_key(&name, output.style()),
        Command::Callers(CallersCommand::List(output)) => show::callers(&config, output.style()),
        Command::Ca(command) => ca::run(&config, command),
        Command::Healthcheck => healthcheck::run(&config),
        Command::Load(arguments) => return load::run(&config, &arguments),
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
