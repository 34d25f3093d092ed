//! What can be typed behind `accounts`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::model::account::{AccountId, AccountName, ApiVersion, RealmName};

use super::compare::CompareArguments;
use super::moves::MoveArguments;
use super::output_arguments::{Format, OutputArguments};

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
    /// Ask discovery for another version of the API from now on, where the platform has it for the account.
    Version {
        /// A name, perhaps with `*` in it.
        pattern: String,
        /// Which, such as 3; back again likewise.
        #[arg(long)]
        to: ApiVersion,
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
    /// Move accounts to another platform: by a switch where they hold a grant there, else by one login, whose
    /// link is printed; or take moves back.
    Move(MoveArguments),
    /// Forget an account here; nothing is revoked or unpaired at the platform.
    Remove(RemoveArguments),
    /// Give an account another name.
    Rename(RenameArguments),
    /// Mark an account as one that exists to be tested with, or no longer: `load` calls no others on the real
    /// platform.
    Test(TestArguments),
    /// Make one call as an account and print status, size, number of links and time.
    Call(CallArguments),
    /// Make the same reads as an account on two platforms and print where they differ: nothing where they
    /// agree. Exit code 1 where they do not.
    Compare(CompareArguments),
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
pub struct TestArguments {
    /// Name or id.
    pub account: String,
    /// It is one.
    #[arg(long, required_unless_present = "off", conflicts_with = "off")]
    pub on: bool,
    /// It is none.
    #[arg(long)]
    pub off: bool,
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
