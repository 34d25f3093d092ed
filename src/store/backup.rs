//! A copy of a store that lives on while it is taken. It holds everything sealed as it is: without the key, which is to be kept elsewhere,
//! it opens nothing. An old one may hold refresh tokens that were spent since.
//!
//! Of SQLite it is a database file, to be put in the place of the old one. Of PostgreSQL it is a file of JSON lines for
//! [`super::postgres::PostgresStore::restore`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::private_file;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    pub accounts: u64,
    pub bytes: u64,
}

/// A private file beside the one that is wanted, which gets its name when it is whole and on the disk.
pub(super) struct Unnamed {
    path: PathBuf,
    wanted: PathBuf,
}

impl Unnamed {
    pub fn create(wanted: &Path) -> Result<(Self, File), StoreError> {
        if wanted.exists() {
            let why = format!("{} exists already; a backup is never written over", wanted.display());
            return Err(StoreError::Refused(why));
        }
        let path = wanted.with_added_extension("partial");
        // Left behind by a backup that was broken off.
        let made = match fs::remove_file(&path) {
            Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault),
            _ => private_file::create_new(&path),
        };
        let file = made.map_err(|fault| unwritable(&path, &fault))?;
        Ok((Self { path, wanted: wanted.to_owned() }, file))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn name(self) -> Result<u64, StoreError> {
        let named = File::open(&self.path)
            .and_then(|file| file.sync_all().map(|()| file))
            .and_then(|file| Ok(file.metadata()?.len()))
            .and_then(|bytes| fs::rename(&self.path, &self.wanted).map(|()| bytes))
            .and_then(|bytes| private_file::sync_folder_of(&self.wanted).map(|()| bytes));
        named.map_err(|fault| unwritable(&self.wanted, &fault))
    }
}

pub(super) fn unwritable(path: &Path, fault: &std::io::Error) -> StoreError {
    StoreError::OutOfOrder(format!("{} cannot be written: {fault}", path.display()))
}
