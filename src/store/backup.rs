//! A copy of a store that lives on while it is taken. It holds everything sealed as it is: without the key,
//! which is to be kept elsewhere, it opens nothing. An old one may hold refresh tokens that were spent since.
//!
//! Of SQLite it is a database file. Of PostgreSQL it is a file of JSON lines. Either goes back into an empty
//! store of its kind only.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::private_file;
use super::{Store, StoreError};

/// What was written or put back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    pub accounts: u64,
    pub bytes: u64,
}

/// Where a backup goes: a file, or the network.
pub type BackupSink<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    Sqlite,
    Postgres,
}

/// A private file beside the one that is wanted, which gets its name when it is whole and on the disk.
/// Without that it goes again.
pub(super) struct PartialFile {
    path: PathBuf,
    wanted: PathBuf,
}

/// Into a new, private file.
pub async fn to_file(store: &dyn Store, into: &Path) -> Result<Backup, StoreError> {
    let (partial, file) = PartialFile::create(into)?;
    let mut file = tokio::fs::File::from_std(file);
    let accounts = store.back_up(&mut file).await?;
    file.flush().await.map_err(|error| unwritable(into, &error))?;
    Ok(Backup { accounts, bytes: partial.persist()? })
}

/// By how it begins.
pub fn kind_of(file: &Path) -> Result<BackupKind, StoreError> {
    let mut beginning = [0; SQLITE.len()];
    let mut opened = File::open(file).map_err(|error| unreadable(file, &error))?;
    match opened.read_exact(&mut beginning) {
        Ok(()) if beginning == *SQLITE => Ok(BackupKind::Sqlite),
        Ok(()) if beginning.starts_with(b"{\"head\":") => Ok(BackupKind::Postgres),
        Ok(()) => Err(no_backup(file)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(no_backup(file)),
        Err(error) => Err(unreadable(file, &error)),
    }
}

/// sqlite.org/fileformat.html, 1.3.1
const SQLITE: &[u8; 16] = b"SQLite format 3\0";

impl PartialFile {
    pub fn create(wanted: &Path) -> Result<(Self, File), StoreError> {
        if wanted.exists() {
            let why = format!("{} exists already; a backup is never written over", wanted.display());
            return Err(StoreError::Refused(why));
        }
        let path = wanted.with_added_extension("partial");
        // Left behind by a process that was killed.
        let made = match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => private_file::create_new(&path),
        };
        let file = made.map_err(|error| unwritable(wanted, &error))?;
        Ok((Self { path, wanted: wanted.to_owned() }, file))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that it gets in the end.
    pub fn wanted(&self) -> &Path {
        &self.wanted
    }

    /// Its size in bytes.
    pub fn persist(self) -> Result<u64, StoreError> {
        let named = File::open(&self.path)
            .and_then(|file| file.sync_all().map(|()| file))
            .and_then(|file| Ok(file.metadata()?.len()))
            .and_then(|bytes| fs::rename(&self.path, &self.wanted).map(|()| bytes))
            .and_then(|bytes| private_file::sync_folder_of(&self.wanted).map(|()| bytes));
        named.map_err(|error| unwritable(&self.wanted, &error))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After `persist` there is nothing of that name any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Nothing is wrong with the store then: the place that was named for the copy is.
pub(super) fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let why = match (error.kind(), folder) {
        (std::io::ErrorKind::NotFound, Some(folder)) if !folder.exists() => {
            format!("the folder {} does not exist", folder.display())
        }
        _ => error.to_string(),
    };
    StoreError::Refused(format!("{} cannot be written: {why}", path.display()))
}

/// What a copy of it says to the database library would name the copy, or send to a backup who has just that.
pub(super) fn incomplete(file: &Path) -> StoreError {
    StoreError::Refused(format!(
        "{} is no whole backup: it is cut short, damaged, or of another program",
        file.display()
    ))
}

/// What is wrong with a working copy of a backup is wrong with the file that was named.
pub(super) fn of_copy(copy: &Path, named: &Path, trouble: StoreError) -> StoreError {
    match trouble {
        StoreError::Refused(text) => {
            StoreError::Refused(text.replace(&copy.display().to_string(), &named.display().to_string()))
        }
        other => other,
    }
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Refused(format!("{} cannot be read: {error}", path.display()))
}

fn no_backup(file: &Path) -> StoreError {
    StoreError::Refused(format!("{} is no backup that `store backup` wrote", file.display()))
}
