//! Who did what, when, to which account, and how it ended: one line of JSON per admin action, on the disk
//! before the action is answered.
//!
//! Append-only, 0600, flushed per line. It holds no secrets: what goes into it are words, names and ids.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::store::private_file;

use super::catalogue::AuditAct;

#[derive(Debug, thiserror::Error)]
#[error("the audit log {} cannot be written: {fault}", file.display())]
pub struct AuditError {
    file: PathBuf,
    #[source]
    fault: std::io::Error,
}

/// One admin action.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRecord {
    /// Who is held to it: the holder of the admin token, a caller, whoever opened a start link.
    pub who: String,
    pub from: Option<IpAddr>,
    pub action: AuditAct,
    /// The account's name, or the pattern that was given.
    pub account: Option<String>,
    #[serde(flatten)]
    pub outcome: AuditOutcome,
    pub request_id: String,
}

/// Two fields of the line: `outcome`, and `why` where it was not simply done.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum AuditOutcome {
    /// Written before it is done: what cannot be written down is not done.
    Asked,
    Done,
    /// Not allowed, not possible, or called off.
    Refused(String),
    Failed(String),
}

/// The log, open; clones write to the same file.
#[derive(Clone)]
pub struct AuditLog {
    path: Arc<Path>,
    file: Arc<Mutex<File>>,
    /// One at a time: a disk that does not answer holds one thread of the runtime, not all that it has for
    /// such work.
    permit: Arc<Semaphore>,
    /// How long an act waits for the disk before it is refused.
    timeout: Duration,
    clock: Clock,
}

const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct AuditLine<'a> {
    at: String,
    #[serde(flatten)]
    action: &'a AuditRecord,
}

impl AuditLog {
    /// Opens the file, and makes it where it is missing.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, AuditError> {
        let file = open(path).map_err(|fault| AuditError { file: path.to_owned(), fault })?;
        let (file, permit) = (Arc::new(Mutex::new(file)), Arc::new(Semaphore::new(1)));
        Ok(Self { path: path.into(), file, permit, timeout: WRITE_TIMEOUT, clock })
    }

    /// Whether `open` will succeed. Makes and changes nothing.
    pub fn check(path: &Path) -> Result<(), AuditError> {
        // Only ever appended to: the file may be set so that it takes nothing else.
        let looked = match OpenOptions::new().read(true).append(true).open(path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => private_file::can_be_made(path),
            opened => opened.map(drop),
        };
        looked.map_err(|fault| AuditError { file: path.to_owned(), fault })
    }

    /// Returns when the line is on the disk. Whoever cannot write it decides what becomes of the action.
    pub async fn append(&self, action: &AuditRecord) -> Result<(), AuditError> {
        let line = AuditLine { at: self.clock.now().to_string(), action };
        let text = serde_json::to_string(&line).map_err(|fault| self.error(fault.into()))?;
        self.with_file(move |file, _| write_line(file, &text)).await
    }

    /// Goes on in a file of the same name that logrotate left, or makes one.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        self.with_file(|file, path| {
            *file = open(path)?;
            Ok(())
        })
        .await
    }

    /// Off the runtime's threads: a flush takes as long as the disk does. Work that is begun goes on when
    /// nobody waits for it any more.
    async fn with_file<F>(&self, work: F) -> Result<(), AuditError>
    where
        F: FnOnce(&mut File, &Path) -> io::Result<()> + Send + 'static,
    {
        let (file, path, permit) = (self.file.clone(), self.path.clone(), self.permit.clone());
        let working = async move {
            let permit = permit.acquire_owned().await.map_err(io::Error::other)?;
            let worked = tokio::task::spawn_blocking(move || {
                let _turn = permit;
                work(&mut file.lock().unwrap_or_else(PoisonError::into_inner), &path)
            });
            worked.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
        };
        match tokio::time::timeout(self.timeout, working).await {
            Ok(worked) => worked.map_err(|fault| self.error(fault)),
            Err(_) => Err(self.error(io::Error::other("the disk does not answer"))),
        }
    }

    fn error(&self, fault: io::Error) -> AuditError {
        AuditError { file: self.path.to_path_buf(), fault }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = private_file::open_append(path)?;
    private_file::tighten(path)?;
    private_file::sync_folder_of(path)?;
    Ok(file)
}

fn write_line(file: &mut File, text: &str) -> io::Result<()> {
    // A full disk or a kill may have left half a line; what follows begins on its own.
    let mut line = String::with_capacity(text.len() + 2);
    if !ends_with_line_break(file)? {
        line.push('\n');
    }
    line.push_str(text);
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn ends_with_line_break(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use serde_json::{Value, json};
    use std::error::Error;
    use std::fs;

    fn action(outcome: AuditOutcome) -> AuditRecord {
        AuditRecord {
            who: "admin".into(),
            from: Some(IpAddr::from([127, 0, 0, 1])),
            action: AuditAct::Unpair,
            account: Some("smile".into()),
            outcome,
            request_id: "r-1".into(),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_default())
            .collect()
    }

    fn set_up() -> (tempfile::TempDir, PathBuf, AuditLog) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = AuditLog::open(&path, Clock::manual(Timestamp::from_millis(1_700_000_000_000))).unwrap();
        (folder, path, audit)
    }

    fn expected(outcome: &str) -> Value {
        json!({
            "at": "2023-11-14T22:13:20Z", "who": "admin", "from": "127.0.0.1", "action": "unpair",
            "account": "smile", "outcome": outcome, "request_id": "r-1"
        })
    }

    #[tokio::test]
    async fn an_action_is_one_line_and_a_line_break_in_it_starts_no_other() {
        let (_folder, path, audit) = set_up();
        audit.append(&action(AuditOutcome::Done)).await.unwrap();
        audit.append(&action(AuditOutcome::Refused("no\n{\"who\": \"mallory\"}".into()))).await.unwrap();
        let mut refused = expected("refused");
        refused["why"] = json!("no\n{\"who\": \"mallory\"}");
        assert_eq!(lines(&path), [expected("done"), refused]);
        assert_eq!(private_file::loose_mode(&File::open(&path).unwrap()).unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_there_stays_and_half_a_line_is_not_continued() {
        let (_folder, path, audit) = set_up();
        drop(audit);
        fs::write(&path, "{\"half").unwrap();
        let audit = AuditLog::open(&path, Clock::manual(Timestamp::from_millis(1_700_000_000_000))).unwrap();
        audit.append(&action(AuditOutcome::Done)).await.unwrap();
        assert_eq!(lines(&path), [Value::Null, expected("done")]);
    }

    #[tokio::test]
    async fn after_a_rotation_it_goes_on_in_a_new_file() {
        let (folder, path, audit) = set_up();
        audit.append(&action(AuditOutcome::Done)).await.unwrap();
        let rotated = folder.path().join("audit.log.1");
        fs::rename(&path, &rotated).unwrap();
        audit.clone().reopen().await.unwrap();
        audit.append(&action(AuditOutcome::Done)).await.unwrap();
        assert_eq!((lines(&rotated).len(), lines(&path).len()), (1, 1));
    }

    #[tokio::test]
    async fn a_disk_that_does_not_respond_blocks_one_thread_and_refuses_the_act_until_it_does() {
        let (_folder, path, mut audit) = set_up();
        audit.timeout = Duration::from_millis(20);
        let (response, responded) = std::sync::mpsc::channel::<()>();
        let stuck = audit.with_file(move |_, _| responded.recv().or(Ok(())));
        for refused in [stuck.await, audit.append(&action(AuditOutcome::Asked)).await] {
            let why = refused.unwrap_err().source().unwrap().to_string();
            assert_eq!(why, "the disk does not answer");
        }
        assert_eq!(audit.permit.available_permits(), 0, "the first still has the file, and no other began");
        drop(response);
        audit.timeout = WRITE_TIMEOUT;
        audit.append(&action(AuditOutcome::Done)).await.unwrap();
        assert_eq!(lines(&path), [expected("done")]);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_opened_is_named() {
        let (folder, path, audit) = set_up();
        let why = AuditLog::open(folder.path(), Clock::system()).err().unwrap().to_string();
        assert!(why.contains(&folder.path().display().to_string()), "{why}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(audit.reopen().await.is_err());
        audit.append(&action(AuditOutcome::Done)).await.expect("the file that is open still takes lines");
    }
}
