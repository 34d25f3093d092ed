//! `demo`: the main job on this machine, over real sockets: sandbox, gateway and admin on loopback, no
//! configuration, no root, no internet. It drives the path that a legacy application drives, breaks things on
//! purpose, and says what it checked.

mod applications;
mod checks;
mod stand_in;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;

use crate::app::{self, Running};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::sandbox::gateway_files::{self, Addresses};
use crate::sandbox::{AccountSpec, Platform, Region, Sandbox, SandboxOptions};
use crate::server::InheritedSockets;
use crate::server::notify::{Signal, Signals};

use applications::Applications;

/// Everything that the demo starts.
pub struct DemoEnvironment {
    pub sandbox: Sandbox,
    pub running: Running,
    pub applications: Applications,
    /// Holds configuration, keys and database; gone at the end.
    folder: tempfile::TempDir,
}

/// The clinic that is paired through the login page, and a lab that is taken over by an import.
pub const CLINIC: u64 = 4711;
pub const CLINIC_NAME: &str = "smile-berlin";
pub const LAB: u64 = 4712;
pub const USER: &str = "user@sandbox.test";
pub const PASSWORD: &str = "sandbox";
const ASSET_BYTES: u64 = 20 * 1024 * 1024;

/// Runs all checks; `once` ends with them, else everything stays up until Ctrl-C.
pub fn run(once: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run_checks(once)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_checks(once: bool) -> anyhow::Result<bool> {
    let mut signals = Signals::listen()?;
    let started = Instant::now();
    let demo = DemoEnvironment::start().await?;
    println!("sandbox, gateway and admin are up on loopback ({} ms)", started.elapsed().as_millis());
    println!();
    let report = checks::all(&demo).await;
    println!();
    println!("{report} in {:.1} s", started.elapsed().as_secs_f64());
    if !once {
        println!("\n{}", demo.next_steps());
        while !matches!(signals.next().await, Signal::Stop) {}
    }
    demo.stop().await;
    Ok(report.all_held())
}

impl DemoEnvironment {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let sandbox = Sandbox::start(SandboxOptions { control: true, ..SandboxOptions::default() }).await?;
        let clinic = AccountSpec::clinic(CLINIC, "Smile Berlin").in_region(Region::Europe).with_orders(3);
        sandbox.add_account(clinic.with_user(USER, PASSWORD).with_asset_bytes(ASSET_BYTES));
        let lab = AccountSpec::lab(LAB, "Crown Lab Oslo").in_region(Region::Europe).with_orders(3);
        sandbox.add_account(lab.with_user(USER, PASSWORD).with_asset_bytes(ASSET_BYTES));
        let redirect_uri = "http://127.0.0.1:0/oauth2/callback".to_owned();
        let any = || "127.0.0.1:0".to_owned();
        let key = gateway_files::write(
            &sandbox,
            folder.path(),
            &Addresses { gateway: any(), admin: any(), redirect_uri },
        )?;
        stand_in::extend_config(folder.path(), "127.0.0.1:0")?;
        // The files pair every account on the way; the demo pairs the clinic itself.
        sandbox.forget_refresh(CLINIC);
        let config = load(folder.path())?;
        let running = app::start(config, Clock::system(), &mut InheritedSockets::none()).await?;
        write_real_ports(&sandbox, folder.path(), &key, &running)?;
        for realm in running.config().realms.values() {
            sandbox.allow_redirect(Platform::New, realm.redirect_uri.as_str());
        }
        let applications = Applications::new(&running, key, folder.path())?;
        Ok(Self { sandbox, running, applications, folder })
    }

    /// What to try by hand.
    fn next_steps(&self) -> String {
        let Applications { gateway, admin, key, .. } = &self.applications;
        let config = self.folder.path().join(gateway_files::CONFIG);
        let control = self.sandbox.control_url().unwrap_or_default();
        format!(
            "everything stays up until Ctrl-C. In another terminal:\n\n  \
             curl -i -H 'X-Gateway-Key: {key}' {gateway}/accounts/{CLINIC_NAME}/itero-gen-api/v2/orders/practice\n  \
             curl -i -H 'X-Gateway-Key: {key}' {gateway}/accounts/{CLINIC_NAME}/practice-configuration\n  \
             curl -i {gateway}/orders/practice                      # a refusal: nobody knows who is calling\n  \
             curl {admin}/readyz?verbose\n  \
             curl {admin}/metrics\n\n  \
             export GENAPI_GATEWAY_CONFIG={config}   # the configuration of this gateway\n  \
             {program} accounts list\n  \
             curl -X POST {control}/accounts/{CLINIC}/forget   # break it: these two end its tokens; then call as above\n  \
             curl -X POST {control}/accounts/{CLINIC}/expire\n  \
             {program} explain {CLINIC_NAME}   # how it is, why, and what to do\n\n  \
             the sandbox's control port (expire tokens, move regions, faults): {control}\n",
            config = config.display(),
            program = program(),
        )
    }

    async fn stop(self) {
        self.running.stop().await;
        self.sandbox.stop().await;
        drop(self.folder);
    }
}

/// From now on the command line finds this gateway by its file.
fn write_real_ports(sandbox: &Sandbox, folder: &Path, key: &str, running: &Running) -> anyhow::Result<()> {
    let (data, admin) = running.data_addr().zip(running.admin_addr()).context("no listener")?;
    let text = gateway_files::config_toml(sandbox, key, &Addresses::new(data, admin));
    let written = std::fs::write(folder.join(gateway_files::CONFIG), text);
    written.context("the configuration cannot be written")?;
    let tls = running.bound.data_tls.first().context("no TLS listener")?;
    stand_in::extend_config(folder, &tls.to_string())
}

/// As it was started: `cargo run` puts it on no path.
fn program() -> String {
    let started = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    let near =
        started.as_deref().zip(here.as_deref()).and_then(|(started, here)| started.strip_prefix(here).ok());
    match (near, started.as_deref()) {
        (Some(near), _) => format!("./{}", near.display()),
        (None, Some(started)) => started.display().to_string(),
        (None, None) => "genapi-gateway".to_owned(),
    }
}

/// The file that was just written, with the ports still to be found and the log out of the way.
fn load(folder: &Path) -> anyhow::Result<Config> {
    let loaded = config::load(&folder.join(gateway_files::CONFIG), &config::process_env);
    let mut config = loaded.map_err(|problems| anyhow::anyhow!("{problems}"))?.config;
    config.gateway.workers = 2;
    Ok(config)
}
