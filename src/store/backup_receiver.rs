//! A backup that comes from elsewhere, chunk by chunk: the file gets its name when it has been read as a
//! complete backup.

use std::path::Path;

use tokio::io::AsyncWriteExt;

use super::backup::{Backup, BackupKind, PartialFile, incomplete, kind_of, unwritable};
use super::{StoreError, postgres, sqlite};

/// A backup that another store sends, chunk by chunk.
pub struct BackupReceiver {
    partial: PartialFile,
    file: tokio::fs::File,
}

impl BackupReceiver {
    pub fn create(wanted: &Path) -> Result<Self, StoreError> {
        let (partial, file) = PartialFile::create(wanted)?;
        Ok(Self { partial, file: tokio::fs::File::from_std(file) })
    }

    pub async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(chunk).await.map_err(|error| unwritable(self.partial.wanted(), &error))
    }

    /// Reads it once, so that what gets a name is a whole backup.
    pub async fn finish(mut self) -> Result<Backup, StoreError> {
        self.file.flush().await.map_err(|error| unwritable(self.partial.wanted(), &error))?;
        let counted = match kind_of(self.partial.path()) {
            Ok(BackupKind::Sqlite) => sqlite::count_accounts(self.partial.path()).await,
            Ok(BackupKind::Postgres) => {
                postgres::check_backup(self.partial.path()).map(|backup| backup.accounts)
            }
            Err(trouble) => Err(trouble),
        };
        let accounts = counted.map_err(|_| incomplete(self.partial.wanted()))?;
        Ok(Backup { accounts, bytes: self.partial.persist()? })
    }
}
