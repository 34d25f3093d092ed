//! What a sandbox keeps between two runs, as one file beside the configuration that it wrote: a gateway that
//! was practised with is good the next day too. Behavior and faults are those of each run.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::options::TlsIdentity;
use super::state::{Practice, SandboxState};
use super::tokens::{SavedTokens, TokenStore};
use super::{Handle, HostRole, gateway_files};

/// Beside `config.toml`.
pub const STATE_FILE: &str = "sandbox-state.json";

/// A sandbox and the gateway that its files are for.
#[derive(Serialize, Deserialize)]
pub struct SavedSandbox {
    /// Where the written gateway listens.
    pub gateway: String,
    pub admin: String,
    pub caller_key: String,
    pub ports: Vec<(HostRole, u16)>,
    pub identity: Option<TlsIdentity>,
    #[serde(rename = "world")]
    pub state: SavedState,
}

/// What outlives a run. The applications are those of each run.
#[derive(Serialize, Deserialize)]
pub struct SavedState {
    practices: Vec<Practice>,
    passwords: HashMap<String, String>,
    #[serde(rename = "vault")]
    tokens: SavedTokens,
}

impl SandboxState {
    pub fn save(&self) -> SavedState {
        SavedState {
            practices: self.accounts.values().cloned().collect(),
            passwords: self.passwords.clone(),
            tokens: self.tokens.save(),
        }
    }

    pub fn restore(&mut self, saved: SavedState) {
        let practices = saved.practices.into_iter().map(|practice| (practice.account.id, practice));
        self.accounts = practices.collect();
        self.passwords = saved.passwords;
        self.tokens = TokenStore::restore(saved.tokens);
        self.revision += 1;
    }
}

/// Writes the state of one sandbox down whenever it has changed.
pub struct StateFile {
    file: PathBuf,
    gateway: String,
    admin: String,
    caller_key: String,
    written: Option<u64>,
}

/// What an earlier run left in `dir`: `None` in a folder that holds nothing of a sandbox. What is there and
/// does not fit is never overwritten; the error says what to delete.
pub fn read(dir: &Path) -> anyhow::Result<Option<SavedSandbox>> {
    let file = dir.join(STATE_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {
            let there = gateway_files::files_in(dir);
            if there.is_empty() {
                return Ok(None);
            }
            bail!(
                "{} holds {} and no {STATE_FILE}, so no sandbox can go on with it: delete {}, and gateway.db and gateway.key where they \
                 are there, or name another folder",
                dir.display(),
                there.join(", "),
                if there.len() == 1 { "that file" } else { "those files" },
            );
        }
        Err(fault) => return Err(fault).with_context(|| format!("{} cannot be read", file.display())),
    };
    let saved = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} does not read: delete it and {}, or name another folder",
            file.display(),
            gateway_files::CONFIG
        )
    })?;
    Ok(Some(saved))
}

impl StateFile {
    pub fn new(dir: &Path, addresses: &gateway_files::Addresses, caller_key: &str) -> Self {
        Self {
            file: dir.join(STATE_FILE),
            gateway: addresses.gateway.clone(),
            admin: addresses.admin.clone(),
            caller_key: caller_key.to_owned(),
            written: None,
        }
    }

    /// Writes the state down unless nothing has changed since the last time. A reader finds the old state or
    /// the new one.
    pub fn save(&mut self, sandbox: &Handle) -> anyhow::Result<()> {
        let revision = sandbox.revision();
        if self.written == Some(revision) {
            return Ok(());
        }
        let saved = SavedSandbox {
            gateway: self.gateway.clone(),
            admin: self.admin.clone(),
            caller_key: self.caller_key.clone(),
            ports: sandbox.ports(),
            identity: sandbox.identity().cloned(),
            state: sandbox.saved_state(),
        };
        let next = self.file.with_extension("new");
        let written = serde_json::to_vec(&saved).map_err(anyhow::Error::from).and_then(|text| {
            let _ = fs::remove_file(&next);
            gateway_files::create_private(&next)?.write_all(&text)?;
            fs::rename(&next, &self.file)?;
            Ok(())
        });
        written.with_context(|| format!("{} cannot be written", self.file.display()))?;
        self.written = Some(revision);
        Ok(())
    }
}
