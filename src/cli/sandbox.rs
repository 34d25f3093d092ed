//! `sandbox`: the stand-in for iTero as a program of its own, with a gateway configuration that fits it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::clock::Clock;
use crate::sandbox::matching::{self, Addresses};
use crate::sandbox::{Habits, Handle, Options, Platform, Region, Sandbox};
use crate::server::notify::{Signal, Signals};

use super::SandboxArguments;
use super::output::{self, say};

/// What is remembered for the control port; a load test would otherwise fill it with its own calls.
const KEEP_CALLS: usize = 1000;

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
    let hint = "another one may be running; --port chooses other ports, --port 0 free ones";
    let sandbox = Sandbox::start(options(arguments)).await.context(hint)?;
    sandbox.populate(arguments.accounts as u64);
    output::write(&addresses(&sandbox));
    if let Some(dir) = &arguments.write {
        let gateway = Addresses::new(arguments.gateway, arguments.admin);
        for platform in Platform::ALL {
            sandbox.allow_redirect(platform, &gateway.redirect_uri);
        }
        let key = matching::write(&sandbox, dir, &gateway)?;
        output::write(&next_steps(&sandbox, dir, &key, &gateway));
    }
    say!("ready; stop with Ctrl-C");
    while !matches!(signals.next().await, Signal::Stop) {}
    sandbox.stop().await;
    Ok(())
}

fn options(arguments: &SandboxArguments) -> Options {
    let habits = Habits {
        token_size: arguments.token_size,
        rotate_refresh: arguments.rotate,
        expiry_status: arguments.expiry_status,
        access_token_life: arguments.token_life,
        ..Habits::default()
    };
    Options {
        clock: Clock::system(),
        ports: (arguments.port != 0).then_some(arguments.port),
        tls: arguments.tls,
        habits,
        control: true,
        keep_calls: KEEP_CALLS,
        ..Options::default()
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
    lines.push(("login for every account".to_owned(), "user@sandbox.test / sandbox".to_owned()));
    lines.iter().map(|(label, value)| format!("{label:40}{value}\n")).collect()
}

fn next_steps(sandbox: &Handle, dir: &Path, key: &str, gateway: &Addresses) -> String {
    let name = sandbox.accounts().first().map_or_else(|| "NAME".to_owned(), matching::account_name);
    let config = dir.join(matching::CONFIG);
    let (config, import) = (config.display(), dir.join(matching::IMPORT));
    format!(
        "\na matching gateway, in two more terminals:\n  \
         genapi-gateway -c {config} serve\n  \
         genapi-gateway -c {config} accounts import {}\n\
         then a call:\n  \
         curl -H 'X-Gateway-Key: {key}' http://{}/accounts/{name}/orders/practice\n\n",
        import.display(),
        gateway.gateway,
    )
}
