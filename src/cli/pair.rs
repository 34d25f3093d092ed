//! `accounts pair`: a link for somebody's browser, or a login whose end is pasted in.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use crate::admin::view::{
    AccountView, ChoiceView, LoginFailure, PairFinish, PairOutcome, PairRequest, PairStarted, PairStatus,
    PairTicket,
};
use crate::clock::{Clock, Timestamp};
use crate::model::account::{AccountId, AccountName};

use super::account_arguments::PairArguments;
use super::api::{Api, CliError, CommandResult, segment};
use super::output::{self, Format, Style, say};

pub fn run(api: &Api, arguments: PairArguments) -> CommandResult {
    let style = arguments.output.style();
    let request = PairRequest {
        realm: arguments.realm,
        name: arguments.name,
        account_id: arguments.account_id,
        callback_url: arguments.callback_url,
        paste: arguments.paste,
    };
    let mut started: PairStarted = api.post("/api/pairings", &request)?;
    if !arguments.paste {
        started.warnings.extend(leads_to_loopback(&started.url));
    }
    for warning in &started.warnings {
        output::warn(style.format, warning);
    }
    let ticket = started.ticket.clone().unwrap_or_default();
    if let Some(authorize_url) = &started.authorize_url {
        return paste(api, authorize_url, ticket, started.expires_at, style);
    }
    output::print_one(style, &started, || {
        format!(
            "Open this link in the browser of somebody with a MyiTero login (once, until {}):\n{}\n",
            started.expires_at, started.url
        )
    });
    if arguments.wait { wait(api, ticket, started.expires_at, style) } else { Ok(ExitCode::SUCCESS) }
}

const PACE: Duration = Duration::from_secs(1);

/// Until the login has ended. A gateway that is restarted meanwhile keeps its links, so it is asked again.
fn wait(api: &Api, ticket: String, expires_at: Timestamp, style: Style) -> CommandResult {
    let (clock, asked) = (Clock::system(), PairTicket { ticket });
    let (mut told, mut is_away) = (None, false);
    loop {
        match api.post("/api/pairings/status", &asked) {
            Ok(PairStatus::Paired { account }) => return paired(api, account, style),
            Ok(PairStatus::Over { last_failure }) => return Err(over(last_failure)),
            Ok(PairStatus::Waiting { last_failure, .. }) => {
                is_away = false;
                if let Some(failure) = &last_failure
                    && !failure.again
                {
                    return Err(ended(failure));
                }
                if last_failure != told
                    && let Some(failure) = &last_failure
                {
                    let text = format!(
                        "a login came no further: {}. {} The link stays good until {expires_at}.",
                        failure.title, failure.detail
                    );
                    output::warn(style.format, &text);
                }
                told = last_failure;
            }
            Err(failure) if may_pass(&failure) && clock.now() < expires_at => {
                if !is_away {
                    output::warn(style.format, &format!("{failure} Waiting goes on."));
                }
                is_away = true;
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(PACE);
    }
}

fn may_pass(failure: &CliError) -> bool {
    match failure {
        CliError::Refused(problem) => problem.status >= 500,
        CliError::Other(_) => true,
        CliError::Config(_) => false,
    }
}

fn paired(api: &Api, account: Option<AccountName>, style: Style) -> CommandResult {
    let Some(name) = account else {
        return Err(CliError::other("the link was used; `accounts list` shows what it led to"));
    };
    let view: AccountView = api.get(&format!("/api/accounts/{}", segment(name.as_str())))?;
    match style.format {
        Format::Table => {
            say!("paired: {name} ({} in realm {}), {}", view.account_id, view.realm, view.state.word());
        }
        Format::Json | Format::Csv => super::show::print_account(style, &view),
    }
    Ok(ExitCode::SUCCESS)
}

fn over(last: Option<LoginFailure>) -> CliError {
    let why = match last {
        Some(failure) => format!("The last try ended so: {}. {}", failure.title, failure.detail),
        None => "Nobody finished a login with it.".to_owned(),
    };
    CliError::other(format!("The link's time is over, and nothing was paired. {why}"))
}

fn ended(failure: &LoginFailure) -> CliError {
    CliError::other(format!("{}. {}", failure.title, failure.detail))
}

/// What is asked for while somebody pastes goes to standard error where a program reads the output.
fn tell(style: Style, text: &str) {
    match style.format {
        Format::Table => say!("{text}"),
        Format::Json | Format::Csv => eprintln!("{text}"),
    }
}

fn paste(api: &Api, authorize_url: &str, ticket: String, until: Timestamp, style: Style) -> CommandResult {
    tell(style, &format!("1. Log in here, in any browser (until {until}):"));
    tell(style, authorize_url);
    tell(
        style,
        "2. The browser ends on an address that it may not be able to open. Paste that address here:",
    );
    let mut finish = PairFinish { ticket, redirected_url: Some(ask(style)?), account_id: None };
    let clock = Clock::system();
    loop {
        let outcome: PairOutcome = api.post("/api/pairings/finish", &finish)?;
        match &outcome {
            PairOutcome::Paired { account, warnings } => {
                for warning in warnings {
                    output::warn(style.format, warning);
                }
                output::print_one(style, &outcome, || format!("paired: {account}\n"));
                return Ok(ExitCode::SUCCESS);
            }
            PairOutcome::Failed { title, detail, again: true, .. } if clock.now() < until => {
                tell(style, &format!("{title}. {detail}"));
                tell(style, "Paste the whole address from the browser's address line (Ctrl-D gives up):");
                finish.redirected_url = Some(ask(style)?);
            }
            PairOutcome::Failed { title, detail, fix, .. } => {
                return Err(CliError::other(format!("{title}. {detail} {fix}")));
            }
            PairOutcome::Choose { ticket, accounts } => {
                let id = choose(accounts, style)?;
                finish = PairFinish { ticket: ticket.clone(), redirected_url: None, account_id: Some(id) };
            }
        }
    }
}

/// Asks until one of them is named: a choice that is handed in wrong would cost the login.
fn choose(accounts: &[ChoiceView], style: Style) -> Result<AccountId, CliError> {
    tell(style, "3. Which account?");
    for account in accounts {
        let paired = if account.paired { " (paired already)" } else { "" };
        tell(style, &format!("   {}  {}, {}{paired}", account.account_id, account.name, account.address));
    }
    loop {
        let run_command_line = ask(style)?;
        let id = run_command_line.parse().ok();
        match accounts.iter().find(|account| Some(account.account_id) == id) {
            Some(account) => return Ok(account.account_id),
            None => tell(style, "That is none of these numbers; type one of them (Ctrl-D gives up):"),
        }
    }
}

fn ask(style: Style) -> Result<String, CliError> {
    match style.format {
        Format::Table => output::write("> "),
        Format::Json | Format::Csv => eprint!("> "),
    }
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => Err(CliError::other("nothing was pasted in")),
        Ok(_) => Ok(line.trim().to_owned()),
    }
}

/// Such a link works in browsers on the gateway's own machine alone.
pub fn leads_to_loopback(link: &str) -> Option<String> {
    let url = url::Url::parse(link).ok()?;
    let host = match url.host()? {
        url::Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            (name == "localhost" || name.ends_with(".localhost")).then(|| name.to_owned())
        }
        url::Host::Ipv4(ip) => ip.is_loopback().then(|| ip.to_string()),
        url::Host::Ipv6(ip) => ip.to_canonical().is_loopback().then(|| format!("[{ip}]")),
    }?;
    Some(format!(
        "The link leads to {host}, so only a browser on the gateway's own machine can open it. For others, give the realm a \
         redirect_uri at an address that they reach, and let Align register it."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_gateways_own_machine_are_warned_of() {
        for link in [
            "http://127.0.0.1:8081/connect/x",
            "https://LOCALHOST./connect/x",
            "https://gateway.localhost/connect/x",
            "http://[::1]:8081/connect/x",
            "http://[::ffff:127.0.0.9]/connect/x",
        ] {
            assert!(leads_to_loopback(link).is_some(), "{link}");
        }
        for link in ["https://gateway.example.test/connect/x", "http://10.0.0.1/connect/x", "nonsense"] {
            assert!(leads_to_loopback(link).is_none(), "{link}");
        }
    }
}
