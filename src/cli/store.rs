//! `store …`: what is done to a whole store. Where a gateway runs, it does the work itself, through its admin
//! API; where none does, the store is opened here. Either way the audit log hears of it before it is done.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{self, AdminConfig, SecretSource, StoreUrl};
use crate::journal::audit::{AuditLog, AuditOutcome, AuditRecord};
use crate::journal::catalogue::AuditAct;
use crate::store::backup::Backup;
use crate::store::backup_receiver::BackupReceiver;
use crate::store::migrate::{Migratable, MigrationReport, copy};
use crate::store::rotate::Rotation;
use crate::store::{self, StoreError};

use super::api::{self, Api, CliError, CommandResult};
use super::arguments::{MigrateArguments, StoreCommand};
use super::output::{self, Format, count};

pub fn run(config: &Path, command: StoreCommand) -> CommandResult {
    match command {
        StoreCommand::Migrate(arguments) => migrate(config, &arguments),
        StoreCommand::Backup { file, output } => backup(config, &file, output.output),
        StoreCommand::Restore { file, output } => restore(config, &file, output.output),
        StoreCommand::RotateKey { output } => rotate_key(config, output.output),
    }
}

fn backup(config: &Path, file: &Path, format: Format) -> CommandResult {
    let taken = match running(config)? {
        Some(gateway) => gateway.post_for_file("/api/store/backup", BackupReceiver::create(file)?)?,
        None => {
            let store = store_of(config)?;
            by_hand(config, AuditAct::Backup, || async {
                Ok(store::back_up(&store, Clock::system(), file).await?)
            })?
        }
    };
    output::print_one(format, &taken, || {
        format!(
            "{}: {}, {} bytes.\nIt opens with the store's key only: keep that in another place. An old backup may hold refresh tokens that \
             were spent since; their accounts will need a login.\n",
            file.display(),
            accounts(taken.accounts),
            taken.bytes
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn restore(config: &Path, file: &Path, format: Format) -> CommandResult {
    if running(config)?.is_some() {
        return Err(CliError::other(
            "the gateway of this configuration is running: stop it first. A backup goes into a store that nobody works on",
        ));
    }
    let store = store_of(config)?;
    let put_back: Backup = by_hand(config, AuditAct::Restore, || async {
        Ok(store::restore(&store, Clock::system(), file).await?)
    })?;
    output::print_one(format, &put_back, || {
        format!(
            "{} put back. Start the gateway; accounts whose refresh tokens were spent since will need a login, and `accounts list` shows \
             which.\n",
            accounts(put_back.accounts)
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn rotate_key(config: &Path, format: Format) -> CommandResult {
    let done: Rotation = match running(config)? {
        Some(gateway) => gateway.post("/api/store/rotate-key", &())?,
        None => {
            let store = store_of(config)?;
            by_hand(config, AuditAct::RotateKey, || async {
                let opened = store::open(&store, Clock::system()).await?;
                let rotated = opened.rotate_key().await;
                opened.close().await?;
                Ok(rotated?)
            })?
        }
    };
    output::print_one(format, &done, || rotated(&done));
    Ok(if done.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rotated(done: &Rotation) -> String {
    let mut text = format!("{} re-encrypted with the first key.\n", count(done.resealed as u64, "value"));
    for broken in &done.broken {
        text.push_str(&format!("cannot be opened: {broken}\n"));
    }
    text.push_str(match (done.complete, done.broken.is_empty()) {
        (true, _) => {
            "Nothing is encrypted with an older key any more: the lines behind the first can be removed. Where applications use gateway tokens, leave \
             them for an hour.\n"
        }
        (false, false) => {
            "The older lines have to stay. Pair or import these accounts again, or put back the key that they need, then run this again.\n"
        }
        (false, true) => {
            "Another gateway still encrypts with an older key. Give every gateway the key file with the new key first, restart it, then run this \
             again.\n"
        }
    });
    text
}

fn migrate(config: &Path, arguments: &MigrateArguments) -> CommandResult {
    let (from, to) = (
        end_of(config, &arguments.from, &arguments.from_key)?,
        end_of(config, &arguments.to, &arguments.to_key)?,
    );
    if from.url == to.url {
        return Err(CliError::other("--from and --to are the same store: there is nothing to move"));
    }
    if let StoreUrl::Sqlite(file) = &from.url
        && !file.is_file()
    {
        return Err(CliError::other(format!(
            "{} does not exist: it is to be moved from there",
            file.display()
        )));
    }
    let made_key = matches!(&to.key, SecretSource::File(file) if !file.exists());
    let moved = by_hand(config, AuditAct::Migrate, || async {
        let (from, to) = (open(&from, "--from").await?, open(&to, "--to").await?);
        refuse_wrong_ends(&*from, &*to, arguments.merge).await?;
        let moved = copy(&*from, &*to, &progress).await?;
        from.close().await?;
        to.close().await?;
        Ok(moved)
    })?;
    if made_key && let SecretSource::File(file) = &to.key {
        eprintln!(
            "{} was made and seals the new store: keep a copy of it, apart from the database's",
            file.display()
        );
    }
    output::print_one(arguments.output.output, &moved, || moved_text(&moved));
    Ok(if moved.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open(end: &config::StoreConfig, option: &str) -> Result<Box<dyn Migratable>, CliError> {
    let opened = store::open_migratable(end, Clock::system()).await;
    opened.map_err(|trouble| CliError::other(format!("{option}: {trouble}")))
}

/// Of what was typed, or else of the configuration. What is typed starts at the current folder.
fn end_of(
    config: &Path,
    url: &Option<String>,
    key: &Option<PathBuf>,
) -> Result<config::StoreConfig, CliError> {
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|error| CliError::other(error.to_string()));
    let configured = match (url, key) {
        (Some(_), Some(_)) => None,
        _ => Some(store_of(config)?),
    };
    let url = match url {
        Some(text) => {
            let parsed = StoreUrl::parse(text, &absolute(Path::new("."))?);
            if has_password(text) {
                eprintln!(
                    "the address holds a password, and everybody on this machine can read what was typed; a password file (PGPASSFILE) or \
                     store.url keep it to themselves"
                );
            }
            parsed.map_err(|(what, fix)| CliError::other(format!("the address of a store {what}; {fix}")))?
        }
        None => configured.as_ref().map(|store| store.url.clone()).ok_or_else(neither)?,
    };
    let key = match key {
        Some(file) => SecretSource::File(absolute(file)?),
        None => configured.map(|store| store.key).ok_or_else(neither)?,
    };
    Ok(config::StoreConfig { url, key })
}

fn has_password(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.password().is_some())
}

fn neither() -> CliError {
    CliError::other("the configuration names no store")
}

/// Before anything is written: a mistyped address is more likely than a wish to mix two gateways' accounts.
async fn refuse_wrong_ends(from: &dyn Migratable, to: &dyn Migratable, merge: bool) -> Result<(), CliError> {
    let known: BTreeSet<_> = from.names().await?.into_iter().collect();
    if known.is_empty() {
        return Err(CliError::other("--from holds no account: is it the right store?"));
    }
    let foreign: Vec<_> = to.names().await?.into_iter().filter(|name| !known.contains(name)).collect();
    match foreign.first() {
        Some(first) if !merge => Err(CliError::other(format!(
            "--to is not empty: it holds {} that --from does not know, {first} for one. Is it the right store? With --merge they stay, and \
             the others are moved beside them",
            accounts(foreign.len() as u64)
        ))),
        _ => Ok(()),
    }
}

fn progress(done: usize, all: usize) {
    if done.is_multiple_of(1000) && done < all {
        eprintln!("{done} of {all} accounts");
    }
}

fn moved_text(moved: &MigrationReport) -> String {
    let mut text = format!(
        "{} moved and read back, {} there already, {} under way.\n",
        accounts(moved.moved as u64),
        moved.already_there,
        count(moved.logins as u64, "login")
    );
    if moved.removed > 0 {
        let past = accounts(moved.removed as u64);
        text.push_str(&format!("{past} removed earlier: what is kept of their past was moved too.\n"));
    }
    if !moved.only_in_target.is_empty() {
        text.push_str(&format!(
            "{} only the target knows; left alone.\n",
            accounts(moved.only_in_target.len() as u64)
        ));
    }
    for name in &moved.ahead {
        text.push_str(&format!(
            "not moved: {name}: the target has newer tokens, so the source is the older one\n"
        ));
    }
    for (name, why) in &moved.failed {
        text.push_str(&format!("not moved: {name}: {why}\n"));
    }
    text.push_str(if moved.complete() {
"Now name the target in store.url and start the gateway. What a gateway changed in the source meanwhile takes another run.\n"
} else {
"Not everything was moved. Put right what is named above, then run this again: what is there already is not moved twice.\n"
});
    text
}

fn accounts(number: u64) -> String {
    count(number, "account")
}

/// The gateway of this configuration, where one answers.
fn running(config: &Path) -> Result<Option<Api>, CliError> {
    match api::alive(config) {
        Ok(()) => Api::from_config(config).map(Some),
        Err(CliError::Config(text)) => Err(CliError::Config(text)),
        Err(CliError::Other(_) | CliError::Refused(_)) => Ok(None),
    }
}

fn store_of(config: &Path) -> Result<config::StoreConfig, CliError> {
    config::load_store(config, &config::process_env)
        .map_err(|problems| CliError::Config(problems.to_string()))
}

fn admin_of(config: &Path) -> Result<AdminConfig, CliError> {
    config::load_admin(config, &config::process_env)
        .map_err(|problems| CliError::Config(problems.to_string()))
}

/// Without a gateway: written into the audit log as it would do it, done, and what came of it written down.
fn by_hand<T, F: Future<Output = Result<T, CliError>>>(
    config: &Path,
    action: AuditAct,
    act: impl FnOnce() -> F,
) -> Result<T, CliError> {
    let admin = admin_of(config)?;
    api::runtime()?.block_on(async {
        let audit = AuditLog::open(&admin.audit, Clock::system()).map_err(not_audited)?;
        let request_id = format!("command-{}", std::process::id());
        let line = |outcome| AuditRecord {
            who: "command line".to_owned(),
            from: None,
            action,
            account: None,
            outcome,
            request_id: request_id.clone(),
        };
        audit.append(&line(AuditOutcome::Asked)).await.map_err(not_audited)?;
        let done = act().await;
        let ending = match &done {
            Ok(_) => AuditOutcome::Done,
            Err(failure) => AuditOutcome::Failed(failure.to_string()),
        };
        audit.append(&line(ending)).await.map_err(not_audited)?;
        done
    })
}

fn not_audited(error: impl std::fmt::Display) -> CliError {
    CliError::other(format!(
        "{error}; what cannot be written down is not done. Run this as the gateway's user, or correct [admin] audit"
    ))
}

impl From<StoreError> for CliError {
    fn from(trouble: StoreError) -> Self {
        Self::Other(trouble.to_string())
    }
}
