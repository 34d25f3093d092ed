//! What can be typed: the commands and their options, except those of `accounts`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::account_arguments::AccountsCommand;
use super::load;
use super::moves::MigrationArguments;
use super::output_arguments::OutputArguments;

/// Where the configuration is looked for when neither `-c` nor the environment names it.
pub const DEFAULT_CONFIG: &str = "/etc/genapi-gateway/config.toml";

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
    /// Where each account stands between the old platform and the new one, and what remains to be done.
    Migration(MigrationArguments),
    /// Move, back up and put back the store, and change its key.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Keys for the applications that call the gateway.
    #[command(subcommand)]
    Callers(CallersCommand),
    /// The private CA behind `tls = { ca = … }`, for applications that have old host names compiled in.
    #[command(subcommand)]
    Ca(CaCommand),
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

#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make the CA: a certificate to be trusted by applications, and a key that stays with the gateway.
    Init {
        /// Its folder, which must not exist or be empty. Without it: `ca` beside the configuration file.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// A further host that it may sign for, beside the old platform's; can be given several times.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// An RSA key, for programs that know no elliptic curves or whose trust store takes none.
        #[arg(long)]
        rsa: bool,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Write a key and a certificate of 90 days for a proxy in front that ends TLS itself, as HAProxy reads
    /// them.
    ///
    /// The gateway needs none: it makes its own. A timer has to run this again; the file is replaced at once.
    Leaf {
        /// The CA's folder. Without it: the configuration's, or `ca` beside the configuration file.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// A host that it is for, one of the CA's; can be given several times. Without it: all of them.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// An RSA key, for programs that know no elliptic curves.
        #[arg(long)]
        rsa: bool,
        /// Where to: for its owner alone.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the certificate as a trust store for applications; never the key.
    Export {
        /// Its folder. Without it: the configuration's, or `ca` beside the configuration file.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// pem: OpenSSL, Debian, PHP, Python, curl; der: Windows; p12: Java 9 and later; jks: Java 8.
        #[arg(long, value_enum)]
        format: CaFormat,
        /// Where to; without it, to standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Whom it may sign for, until when, its fingerprint, and where its files are.
    Show {
        /// Its folder. Without it: the configuration's, or `ca` beside the configuration file.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArguments,
    },
}

/// `--format` of `ca export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaFormat {
    Pem,
    Der,
    P12,
    Jks,
}

fn expiry_status() -> impl TypedValueParser<Value = u16> {
    PossibleValuesParser::new(["401", "403"]).try_map(|status| status.parse())
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
