//! `ca …`: makes the private CA, gives its certificate out in the forms that programs read, signs a leaf for
//! a proxy in front, and tells what the CA may do. Works on files alone; the running gateway takes a new CA
//! in the same folder by itself.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::ca::{
    self, AuthoritySummary, CA_CERTIFICATE, CA_KEY, HOST_NAME_RULE, HostNames, KeyAlgorithm, TrustStoreFormat,
};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::model::legacy_host::LEGACY_HOSTS;

use super::api::{CliError, CommandResult};
use super::output::{self, Style};
use super::{CaCommand, CaFormat};

/// The folder where none is named.
const DEFAULT_FOLDER: &str = "ca";

pub fn run(config: &Path, command: CaCommand) -> CommandResult {
    match command {
        CaCommand::Init { dir, hosts, rsa, output } => {
            init(&dir.unwrap_or_else(|| beside(config)), &hosts, algorithm(rsa), output.style())
        }
        CaCommand::Leaf { dir, hosts, rsa, out } => {
            leaf(&dir.unwrap_or_else(|| folder_of(config)), &hosts, algorithm(rsa), &out)
        }
        CaCommand::Export { dir, format, out } => {
            export(&dir.unwrap_or_else(|| folder_of(config)), format, out.as_deref())
        }
        CaCommand::Show { dir, output } => show(&dir.unwrap_or_else(|| folder_of(config)), output.style()),
    }
}

fn init(folder: &Path, further: &[String], algorithm: KeyAlgorithm, style: Style) -> CommandResult {
    let names = LEGACY_HOSTS.iter().map(|host| host.name).chain(further.iter().map(String::as_str));
    let hosts = host_names(names)?;
    let made = ca::init(folder, &hosts, algorithm, now()).map_err(CliError::other_from)?;
    let view = CaView::of(folder, &made);
    output::print_one(style, &view, || {
        format!(
            "{}\nNext:\n  1. The gateway's user has to be able to read {key}, and nobody else. No backup of the store holds it.\n  \
             2. In the configuration: [gateway] tls = {{ listen = [\"0.0.0.0:443\"], ca = {folder:?} }}\n     \
             or forward_proxy = {{ listen = [\"127.0.0.1:3128\"], ca = {folder:?} }} where no hosts file can be edited.\n  \
             3. genapi-gateway ca export --format pem|der|p12|jks --out FILE, and let the applications trust that.\n  \
             4. Where an old name now leads to the gateway, name the platform's real addresses in the realm's resolve.\n",
            view.lines(),
            key = view.key,
            folder = view.folder,
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn leaf(folder: &Path, names: &[String], algorithm: KeyAlgorithm, out: &Path) -> CommandResult {
    let authority = ca::load(folder).map_err(CliError::other_from)?;
    let hosts = match names {
        [] => authority.summary.hosts.clone(),
        names => host_names(names.iter().map(String::as_str))?,
    };
    let ends = ca::write_leaf(&authority, &hosts, algorithm, now(), out).map_err(CliError::other_from)?;
    output::write(&format!(
        "{}: a key and its certificate, of {}\nfor          {hosts}\nends         {ends}; run this again before, by a timer, \
         and let the program that uses it reload\n",
        out.display(),
        authority.summary.name,
    ));
    Ok(ExitCode::SUCCESS)
}

fn algorithm(rsa: bool) -> KeyAlgorithm {
    if rsa { KeyAlgorithm::Rsa } else { KeyAlgorithm::Ecdsa }
}

fn host_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<HostNames, CliError> {
    HostNames::new(names).map_err(|name| {
        CliError::other(format!("{name:?} cannot be a host of a CA. Fix: write {HOST_NAME_RULE}"))
    })
}

fn export(folder: &Path, format: CaFormat, out: Option<&Path>) -> CommandResult {
    let summary = ca::load_summary(folder).map_err(CliError::other_from)?;
    let format = match format {
        CaFormat::Pem => TrustStoreFormat::Pem,
        CaFormat::Der => TrustStoreFormat::Der,
        CaFormat::P12 => TrustStoreFormat::Pkcs12,
        CaFormat::Jks => TrustStoreFormat::Jks,
    };
    let bytes = ca::encode(format, &summary.certificate, now());
    let password = match format {
        TrustStoreFormat::Pkcs12 | TrustStoreFormat::Jks => {
            format!(" Its password is {}.", ca::TRUST_STORE_PASSWORD)
        }
        TrustStoreFormat::Pem | TrustStoreFormat::Der => String::new(),
    };
    let Some(out) = out else {
        let mut terminal = std::io::stdout().lock();
        if format != TrustStoreFormat::Pem && terminal.is_terminal() {
            return Err(CliError::other("this form is no text: name a file with --out"));
        }
        // A closed pipe has no use for the rest.
        let _ = terminal.write_all(&bytes).and_then(|()| terminal.flush());
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::write(out, bytes)
        .map_err(|error| CliError::other(format!("{} cannot be written ({error})", out.display())))?;
    output::write(&format!(
        "{}: the certificate of {}, without its key.{password}\nSHA-256 {}\n",
        out.display(),
        summary.name,
        summary.fingerprint()
    ));
    Ok(ExitCode::SUCCESS)
}

fn show(folder: &Path, style: Style) -> CommandResult {
    let summary = ca::load_summary(folder).map_err(CliError::other_from)?;
    let view = CaView::of(folder, &summary);
    output::print_one(style, &view, || view.lines());
    Ok(ExitCode::SUCCESS)
}

/// A CA as it is printed.
#[derive(Serialize)]
struct CaView {
    subject: String,
    fingerprint_sha256: String,
    /// It may sign for these, and no certificate that it signs for another is believed.
    hosts: Vec<String>,
    not_before: String,
    not_after: String,
    folder: String,
    certificate: String,
    key: String,
}

impl CaView {
    fn of(folder: &Path, summary: &AuthoritySummary) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let shown = |path: PathBuf| path.display().to_string();
        Self {
            subject: format!("CN={}", summary.name),
            fingerprint_sha256: summary.fingerprint(),
            hosts: summary.hosts.iter().map(str::to_owned).collect(),
            not_before: summary.not_before.to_string(),
            not_after: summary.not_after.to_string(),
            certificate: shown(folder.join(CA_CERTIFICATE)),
            key: shown(folder.join(CA_KEY)),
            folder: shown(folder),
        }
    }

    fn lines(&self) -> String {
        let Self { subject, fingerprint_sha256, not_before, not_after, certificate, key, .. } = self;
        format!(
            "subject      {subject}\nSHA-256      {fingerprint_sha256}\nsigns for    {}\n             \
             and names below them; no other name, no address, no further CA\n\
             valid        {not_before} to {not_after}\ncertificate  {certificate}\nkey          {key}\n",
            self.hosts.join(", ")
        )
    }
}

impl CliError {
    fn other_from(error: ca::CaError) -> Self {
        CliError::other(error.to_string())
    }
}

/// The configuration's CA where it has one, else where `ca init` makes it.
fn folder_of(config: &Path) -> PathBuf {
    let loaded = config::load_ca_folder(config, &config::process_env);
    loaded.unwrap_or_else(|| beside(config))
}

/// Beside the configuration file where there is one, so that `ca = "ca"` in it means the same folder.
fn beside(config: &Path) -> PathBuf {
    match config.parent() {
        Some(folder) if config.exists() => folder.join(DEFAULT_FOLDER),
        _ => PathBuf::from(DEFAULT_FOLDER),
    }
}

fn now() -> Timestamp {
    let clock = Clock::system();
    clock.time_of_day(clock.now())
}
