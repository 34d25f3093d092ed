//! One process per database file: two gateways on one file would refresh the same grants behind each other's
//! back.
//!
//! The lock lives in the kernel, on a file beside the database, and ends with its holder, however that ends.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::StoreError;
use super::private_file;

/// Held as long as it lives.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock or says who has it. Locking the database file itself would not do: closing any handle
    /// to it drops SQLite's own locks (sqlite.org/howtocorrupt.html, 2.2).
    pub fn take(database: &Path) -> Result<Self, StoreError> {
        let path = database.with_added_extension("lock");
        let mut file = private_file::open_or_create(&path)
            .map_err(|error| StoreError::Refused(format!("{} cannot be opened: {error}", path.display())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held_by_another(database, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::Refused(format!(
                    "{} cannot be locked: {error}; the folder must lie on a file system that knows locks",
                    path.display()
                )));
            }
        }
        // Only a courtesy to whoever finds the lock taken, so a full disk may lose it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn held_by_another(database: &Path, file: &mut File) -> StoreError {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(32).read_to_string(&mut text));
    let process = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(id)) => format!("another gateway (process {id})"),
        _ => "another gateway".to_owned(),
    };
    StoreError::InUse(format!(
        "{} is in use by {process}; one process per SQLite file: stop that one first",
        database.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_which_process_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("gateway.db");
        let first = ProcessLock::take(&database).unwrap();
        let refusal = ProcessLock::take(&database).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(first);
        ProcessLock::take(&database).unwrap();
    }
}
