//! `sandbox`: the stand-in for iTero as a program of its own, with a gateway configuration that fits it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::clock::Clock;
use crate::sandbox::gateway_files::{self, Addresses};
use crate::sandbox::saved::{self, SavedSandbox, StateFile};
use crate::sandbox::{AccountSpec, Behavior, Handle, Platform, Region, Sandbox, SandboxOptions};
use crate::server::notify::{Signal, Signals};

use super::arguments::SandboxArguments;
use super::output::{self, say};

/// What is remembered for the control port; a load test would otherwise fill it with its own calls.
const KEEP_CALLS: usize = 1000;
const FIRST_PORT: u16 = 9400;
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);
/// How often the state is written down while it changes; more rarely where that takes long.
const SAVE_EVERY: Duration = Duration::from_millis(250);

const USER: &str = "user@sandbox.test";
const PASSWORD: &str = "sandbox";

pub fn run(arguments: &SandboxArguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(stay_up(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the sandbox does not start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn stay_up(arguments: &SandboxArguments) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let before = match &arguments.write {
        Some(dir) => saved::read(dir)?,
        None => None,
    };
    if let (Some(dir), Some(saved)) = (&arguments.write, &before) {
        refuse_other_addresses(arguments, dir, saved)?;
    }
    let hint = "another one may be running; --port chooses other ports, --port 0 free ones";
    let sandbox = Sandbox::start(options(arguments, before.as_ref())).await.context(hint)?;
    output::write(&addresses(&sandbox));
    let mut state_file = match &arguments.write {
        Some(dir) => Some(set_up(&sandbox, arguments, dir, before)?),
        None => {
            sandbox.populate(arguments.accounts as u64);
            None
        }
    };
    say!("ready; stop with Ctrl-C");
    let mut pause = SAVE_EVERY;
    loop {
        tokio::select! {
            signal = signals.next() => if matches!(signal, Signal::Stop) { break },
            () = tokio::time::sleep(pause), if state_file.is_some() => {
                let started = Instant::now();
                save(&mut state_file, &sandbox).await?;
                pause = SAVE_EVERY.max(10 * started.elapsed());
            }
        }
    }
    let handle = Handle::clone(&sandbox);
    sandbox.stop().await;
    save(&mut state_file, &handle).await
}

/// Off the threads that answer. A disk that is full ends no practice.
async fn save(state_file: &mut Option<StateFile>, sandbox: &Handle) -> anyhow::Result<()> {
    let Some(mut writing) = state_file.take() else { return Ok(()) };
    let sandbox = sandbox.clone();
    let saved = tokio::task::spawn_blocking(move || (writing.save(&sandbox), writing)).await?;
    if let Err(error) = &saved.0 {
        eprintln!("the sandbox's state is not kept: {error:#}");
    }
    *state_file = Some(saved.1);
    Ok(())
}

/// Writes what is missing of the matching set, or goes on with what is there.
fn set_up(
    sandbox: &Handle,
    arguments: &SandboxArguments,
    dir: &Path,
    before: Option<SavedSandbox>,
) -> anyhow::Result<StateFile> {
    let (addresses, key) = match before {
        Some(saved) => {
            sandbox.restore(saved.state);
            (Addresses::written(&saved.gateway, &saved.admin), Some(saved.caller_key))
        }
        None => {
            for account in sandbox.populate(arguments.accounts as u64) {
                sandbox.grant(account);
            }
            // To pair by hand: the others are taken over by the import.
            let account = AccountSpec::clinic(to_pair(arguments), "Clinic to pair").in_region(Region::Europe);
            sandbox.add_account(account.with_user(USER, PASSWORD));
            let gateway = arguments.gateway.unwrap_or(GATEWAY);
            (Addresses::new(gateway, arguments.admin.unwrap_or(ADMIN)), None)
        }
    };
    for platform in Platform::ALL {
        sandbox.allow_redirect(platform, &addresses.redirect_uri);
    }
    let goes_on = key.is_some();
    let key = key.unwrap_or_else(gateway_files::new_caller_key);
    let mut state_file = StateFile::new(dir, &addresses, &key);
    std::fs::create_dir_all(dir)?;
    // First: files without it would be nobody's.
    state_file.save(sandbox)?;
    gateway_files::write_missing(sandbox, dir, &addresses, &key)?;
    if goes_on {
        say!("\ngoes on with what is in {}: {} accounts", dir.display(), sandbox.accounts().len());
    }
    output::write(&next_steps(sandbox, dir, &key, &addresses));
    Ok(state_file)
}

/// Above those that are paired from the start.
fn to_pair(arguments: &SandboxArguments) -> u64 {
    10_001 + arguments.accounts as u64
}

/// The files that are there name the addresses of the run that wrote them.
fn refuse_other_addresses(
    arguments: &SandboxArguments,
    dir: &Path,
    saved: &SavedSandbox,
) -> anyhow::Result<()> {
    let first = saved.ports.iter().map(|(_, port)| *port).min().unwrap_or(FIRST_PORT);
    let other =
        |wanted: Option<SocketAddr>, held: &str| wanted.is_some_and(|wanted| wanted.to_string() != held);
    let port = arguments.port.filter(|port| *port != 0 && *port != first);
    let asked = [
        (other(arguments.gateway, &saved.gateway), "--gateway", saved.gateway.clone()),
        (other(arguments.admin, &saved.admin), "--admin", saved.admin.clone()),
        (port.is_some(), "--port", first.to_string()),
        (arguments.tls && saved.identity.is_none(), "--tls", "no TLS".to_owned()),
    ];
    let wrong = asked.into_iter().find(|(differs, ..)| *differs);
    let wrong = wrong.map(|(_, option, held)| {
        format!(
            "the files in {} are for another {option} ({held}): leave it out, or delete that folder and begin anew",
            dir.display()
        )
    });
    ensure!(wrong.is_none(), wrong.unwrap_or_default());
    Ok(())
}

fn options(arguments: &SandboxArguments, before: Option<&SavedSandbox>) -> SandboxOptions {
    let behavior = Behavior {
        token_size: arguments.token_size,
        rotate_refresh: arguments.rotate,
        expiry_status: arguments.expiry_status,
        access_token_life: arguments.token_life,
        ..Behavior::default()
    };
    let identity = before.and_then(|saved| saved.identity.clone());
    SandboxOptions {
        clock: Clock::system(),
        ports: Some(arguments.port.unwrap_or(FIRST_PORT)).filter(|port| *port != 0),
        same_ports: before.iter().flat_map(|saved| saved.ports.iter().copied()).collect(),
        tls: arguments.tls || identity.is_some(),
        identity,
        behavior,
        control: true,
        keep_calls: KEEP_CALLS,
        ..SandboxOptions::default()
    }
}

fn addresses(sandbox: &Handle) -> String {
    let mut lines = Vec::new();
    for (platform, word) in [(Platform::New, "new"), (Platform::Old, "old"), (Platform::China, "china")] {
        lines.push((format!("{word} platform, oauth_base"), sandbox.oauth_base(platform)));
        lines.push((format!("{word} platform, base_url"), sandbox.base_url(platform)));
    }
    for (region, word) in [
        (Region::NorthAmerica, "North America"),
        (Region::Europe, "Europe"),
        (Region::AsiaPacific, "Asia Pacific"),
        (Region::China, "China"),
    ] {
        lines.push((format!("region {word}"), sandbox.region_url(region)));
    }
    if let Some(control) = sandbox.control_url() {
        lines.push(("control port (open it in a browser)".to_owned(), control));
    }
    lines.push(("login for every account".to_owned(), format!("{USER} / {PASSWORD}")));
    lines.iter().map(|(label, value)| format!("{label:40}{value}\n")).collect()
}

fn next_steps(sandbox: &Handle, dir: &Path, key: &str, gateway: &Addresses) -> String {
    let accounts = sandbox.accounts();
    let paired = accounts.iter().find(|account| sandbox.is_paired(account.id));
    let name = paired.map_or_else(|| "NAME".to_owned(), gateway_files::account_name);
    let shown = |file: &str| quoted(&absolute(dir).join(file));
    let mut text = format!(
        "\na matching gateway, in a terminal:\n  \
         export GENAPI_GATEWAY_CONFIG={config}\n  \
         genapi-gateway serve\n\
         in another, with the same export, its accounts and a call:\n  \
         export GENAPI_GATEWAY_CONFIG={config}\n  \
         genapi-gateway accounts import {import}\n  \
         curl -H 'X-Gateway-Key: {key}' http://{at}/accounts/{name}/orders/practice\n",
        config = shown(gateway_files::CONFIG),
        import = shown(gateway_files::IMPORT),
        at = gateway.gateway,
    );
    if let Some(account) = accounts.iter().find(|account| !sandbox.is_paired(account.id)) {
        text.push_str(&format!(
            "then pair the account that nobody has connected yet, as a clinic would ({USER} / {PASSWORD}):\n  \
             genapi-gateway accounts pair --realm {} --name {}\n",
            gateway_files::realm(account.platform),
            gateway_files::account_name(account),
        ));
    }
    text.push('\n');
    text
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_alphanumeric() || "/._-+:@".contains(letter);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
