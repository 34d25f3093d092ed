//! Secrets that stand outside the configuration file: read them, or make them at first start. A secret that
//! others on the machine can read is refused, and no message ever holds one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::text_file::{self, LARGEST_SECRET, TextError};
use super::{Env, SecretSource};

/// Why a secret cannot be had, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    pub what: String,
    pub fix: String,
    /// Nothing is there at all, so that it may be made.
    pub missing: bool,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Fix: {}.", self.what, self.fix)
    }
}

impl std::error::Error for SecretError {}

/// Reads a secret: one line, without what an editor left around it.
pub fn read(source: &SecretSource, env: Env<'_>) -> Result<String, SecretError> {
    let bytes = match source {
        SecretSource::File(path) => read_file(path)?,
        SecretSource::Env(name) => read_variable(name, env)?.into_bytes(),
    };
    let line = text_file::decode(&bytes).and_then(text_file::one_line);
    line.map(str::to_owned).map_err(|error| of_text(source, error))
}

fn of_text(source: &impl fmt::Display, TextError { what, fix }: TextError) -> SecretError {
    problem(format!("{source} {what}"), fix)
}

/// Reads a secret, or makes one of `random_bytes` (base64url, one line, 0600, on disk before this returns)
/// where its file is missing. The second value says whether it was made. A variable of the environment is
/// never made.
pub fn read_or_make(
    source: &SecretSource,
    random_bytes: usize,
    env: Env<'_>,
) -> Result<(String, bool), SecretError> {
    match (read(source, env), source) {
        (Err(problem), SecretSource::File(path)) if problem.missing => make(path, random_bytes, env),
        (found, _) => found.map(|secret| (secret, false)),
    }
}

/// Whether anybody on this machine can read a file. For files whose looseness is only warned about.
#[cfg(unix)]
pub(super) fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
pub(super) fn open_to_others(_: &Path) -> bool {
    false
}

fn read_variable(name: &str, env: Env<'_>) -> Result<String, SecretError> {
    env(name).ok_or_else(|| SecretError {
        what: format!("environment variable {name} is not set"),
        fix: format!("set {name} in the environment of the gateway, or use {{ file = \"…\" }}"),
        missing: true,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => SecretError {
            what: format!("{shown} does not exist"),
            fix: "write the secret into that file, readable by the gateway alone (chmod 600)".to_owned(),
            missing: true,
        },
        ErrorKind::PermissionDenied => {
            let fix = format!("run this as {}, or let this user read it", owner_of(path));
            problem(format!("{shown} cannot be read by this user"), fix)
        }
        _ => problem(format!("{shown} cannot be read ({error})"), "name a readable file"),
    })?;
    refuse_loose(&file, path)?;
    text_file::read(file, LARGEST_SECRET).map_err(|error| of_text(&shown, error))
}

/// `create_new` decides between two that start at once: the loser reads what the winner made.
fn make(path: &Path, random_bytes: usize, env: Env<'_>) -> Result<(String, bool), SecretError> {
    let cannot = |error: std::io::Error| {
        let what = format!("{} cannot be made ({error})", path.display());
        problem(what, "let the gateway's user write to that folder, or make the file yourself")
    };
    let mut bytes = vec![0; random_bytes];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| problem("the system has no randomness to give".to_owned(), "try again"))?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return read(&SecretSource::File(path.to_owned()), env).map(|secret| (secret, false));
        }
        opened => opened.map_err(cannot)?,
    };
    file.write_all(format!("{secret}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)?;
    sync_folder(path).map_err(cannot)?;
    Ok((secret, true))
}

fn problem(what: String, fix: impl Into<String>) -> SecretError {
    SecretError { what, fix: fix.into(), missing: false }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "{}", path.display()),
            SecretSource::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Others get nothing, the group may read: service managers and Kubernetes hand secrets over as 0400 or 0440.
#[cfg(unix)]
fn refuse_loose(file: &File, path: &Path) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| problem(format!("{shown}: {error}"), "name a readable file"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o027 != 0 {
        let what = format!("{shown} is open to others on this machine (mode {mode:03o})");
        return Err(problem(what, format!("chmod 600 {shown}")));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_loose(_: &File, _: &Path) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn private(_: &mut OpenOptions) {}

/// A new file is only there after a power loss if its folder's entry is.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Whom to run as, by name; the group only where it may read.
#[cfg(unix)]
fn owner_of(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return "the user who may enter its folder".to_owned() };
    let user = name_of(metadata.uid(), "/etc/passwd");
    match metadata.mode() & 0o040 {
        0 => format!("user {user}"),
        _ => format!("user {user} or in group {}", name_of(metadata.gid(), "/etc/group")),
    }
}

/// The name of a numeric id in `/etc/passwd` or `/etc/group`, or the number.
#[cfg(unix)]
fn name_of(id: u32, table: &str) -> String {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let row = text.lines().find(|line| line.split(':').nth(2).is_some_and(|field| field == id.to_string()));
    row.and_then(|row| row.split(':').next()).map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(not(unix))]
fn owner_of(_: &Path) -> String {
    "its owner".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ENV: Env<'static> = &|_| None;

    #[test]
    fn a_made_secret_is_private_and_is_read_back_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let source = SecretSource::File(folder.path().join("admin.token"));
        let (first, made) = read_or_make(&source, 32, NO_ENV).unwrap();
        assert!(made);
        assert_eq!(first.len(), 43);
        assert_eq!(read_or_make(&source, 32, NO_ENV).unwrap(), (first.clone(), false));
        let other = SecretSource::File(folder.path().join("other.token"));
        assert_ne!(read_or_make(&other, 32, NO_ENV).unwrap().0, first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("admin.token")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_secret_from_the_environment_is_read_and_never_made() {
        let env = |name: &str| (name == "TOKEN").then(|| "s3cret\r\n".to_owned());
        assert_eq!(read(&SecretSource::Env("TOKEN".into()), &env).unwrap(), "s3cret");
        let problem = read_or_make(&SecretSource::Env("OTHER".into()), 32, &env).unwrap_err();
        assert_eq!(problem.what, "environment variable OTHER is not set");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_or_the_group_can_write_is_refused_with_the_command_to_type() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "s3cret\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o440, true), (0o644, false), (0o660, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = read_or_make(&SecretSource::File(path.clone()), 32, NO_ENV);
            assert_eq!(found.is_ok(), good, "{mode:o}");
            if let Err(problem) = found {
                assert_eq!(problem.fix, format!("chmod 600 {}", path.display()));
                assert!(!problem.to_string().contains("s3cret"));
            }
        }
    }

    #[test]
    fn an_empty_file_or_folder_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let empty = SecretSource::File(folder.path().join("empty"));
        let SecretSource::File(path) = &empty else { unreachable!() };
        let mut options = OpenOptions::new();
        private(options.write(true).create_new(true).read(true).truncate(false));
        options.open(path).unwrap().write_all(b"\n").unwrap();
        assert!(read_or_make(&empty, 32, NO_ENV).unwrap_err().what.ends_with("is empty"));
        assert!(read(&SecretSource::File(folder.path().to_owned()), NO_ENV).is_err());
    }
}
