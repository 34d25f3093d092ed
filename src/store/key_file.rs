//! Where the seal key comes from: a private file, the service manager's credentials, or the environment. Made
//! only together with a new database.
//!
//! A key is 32 bytes in base64 on a line of its own. Further lines hold older keys, which open what they once
//! sealed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::private_file;
use super::seal::{KEY_LEN, SealKey, SealKeys};
use super::{SetupError, StoreError};
use crate::config::SecretSource;
use crate::config::text_file::{self, LARGEST_SECRET, TextError};

/// Looks a variable of the environment up; tests bring their own.
pub type EnvLookup<'a> = &'a (dyn Fn(&str) -> Option<OsString> + Sync);

type RawKey = [u8; KEY_LEN];

/// Where systemd puts what `LoadCredential=` names (systemd.exec(5)).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Secrets for a purpose of their own, one that follows from each key, the sealing one's first. The database
/// has to exist: no key is made.
pub fn derive(
    source: &SecretSource,
    purpose: &str,
    environment: EnvLookup<'_>,
) -> Result<Vec<[u8; 32]>, StoreError> {
    let follow = |key: &RawKey| {
        // The line as it is written, so that blanks and further lines beside it change nothing.
        let key = hmac::Key::new(hmac::HMAC_SHA256, STANDARD.encode(key).as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        secret
    };
    Ok(find(source, "the database", Missing::Refuse, environment)?.iter().map(follow).collect())
}

/// Reads the keys; makes one where `database` is new and its key file does not exist.
pub fn load(
    source: &SecretSource,
    database: &str,
    database_is_new: bool,
    environment: EnvLookup<'_>,
) -> Result<SealKeys, StoreError> {
    let unusable = |why| StoreError::Refused(format!("{source} cannot be used as a key: {why}"));
    let missing = if database_is_new { Missing::Make } else { Missing::Refuse };
    let found = find(source, database, missing, environment)?;
    let mut keys = found.iter().map(SealKey::new).collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    let sealing = keys.remove(0);
    Ok(SealKeys::new(sealing, keys))
}

/// For what was sealed elsewhere: its key has to be there, and none is made.
pub fn must_be_there(
    source: &SecretSource,
    what: &str,
    environment: EnvLookup<'_>,
) -> Result<(), StoreError> {
    find(source, what, Missing::Refuse, environment)?;
    Ok(())
}

/// Whether `load` will find its keys, or can make one. Makes none.
pub fn check(
    source: &SecretSource,
    database: &str,
    database_is_new: bool,
    environment: EnvLookup<'_>,
) -> Result<(), SetupError> {
    let missing = if database_is_new { Missing::Expect } else { Missing::Refuse };
    find(source, database, missing, environment).map(drop)
}

/// What a key file that is not there means.
#[derive(Clone, Copy)]
enum Missing {
    Refuse,
    Make,
    /// It will be made; whether it can be is looked at.
    Expect,
}

/// At least one, the sealing one first; none where a missing file is expected.
fn find(
    source: &SecretSource,
    database: &str,
    missing: Missing,
    environment: EnvLookup<'_>,
) -> Result<Vec<RawKey>, SetupError> {
    match source {
        SecretSource::Env(variable) => from_environment(variable, environment),
        SecretSource::File(path) => {
            if let Some(credential) = credential_named_like(path, environment) {
                // Its mode is the service manager's business: 0400 behind a folder of the service's own, at
                // times 0440.
                return read(File::open(&credential), &credential);
            }
            match (File::open(path), missing) {
                (Err(error), Missing::Make) if error.kind() == ErrorKind::NotFound => make(path),
                (Err(error), Missing::Expect) if error.kind() == ErrorKind::NotFound => {
                    private_file::can_be_made(path).map_err(|error| cannot_make(path, &error))?;
                    Ok(Vec::new())
                }
                (Err(error), Missing::Refuse) if error.kind() == ErrorKind::NotFound => {
                    Err(absent(path, database))
                }
                (opened, _) => read_private(opened, path),
            }
        }
    }
}

fn credential_named_like(path: &Path, environment: EnvLookup<'_>) -> Option<PathBuf> {
    let credential = Path::new(&environment(CREDENTIALS)?).join(path.file_name()?);
    credential.is_file().then_some(credential)
}

fn from_environment(variable: &str, environment: EnvLookup<'_>) -> Result<Vec<RawKey>, SetupError> {
    let text = environment(variable).ok_or_else(|| {
        SetupError::new(
            format!("the store's key is to come from the variable {variable}, which is not set"),
            "a new one for a new database: head -c 32 /dev/urandom | base64",
        )
    })?;
    parse(text.as_encoded_bytes()).map_err(|error| of(&format!("the variable {variable}"), error))
}

fn read_private(opened: std::io::Result<File>, path: &Path) -> Result<Vec<RawKey>, SetupError> {
    let file = opened.map_err(|error| unreadable(path, &error))?;
    match private_file::loose_mode(&file) {
        Ok(Some(mode)) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Err(SetupError::new(
            format!("the key file {} is open to others (mode {mode:04o})", path.display()),
            format!("type: chmod 600 {}", path.display()),
        )),
        Ok(_) => read(Ok(file), path),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn read(opened: std::io::Result<File>, path: &Path) -> Result<Vec<RawKey>, SetupError> {
    let file = opened.map_err(|error| unreadable(path, &error))?;
    let bytes = text_file::read(file, LARGEST_SECRET);
    bytes
        .and_then(|bytes| parse(&bytes))
        .map_err(|error| of(&format!("the key file {}", path.display()), error))
}

fn of(source: &str, TextError { what, fix }: TextError) -> SetupError {
    SetupError::new(format!("{source} {what}"), fix)
}

/// Says what is wrong, never what was read.
fn parse(bytes: &[u8]) -> Result<Vec<RawKey>, TextError> {
    const FIX: &str = "32 bytes in base64 are expected, put the key back from where a copy is kept";
    let text = text_file::decode(bytes)?;
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let key = STANDARD.decode(line.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        let what = format!("has no key on line {}", number + 1);
        keys.push(key.ok_or(TextError { what, fix: FIX })?);
    }
    if keys.is_empty() {
        return Err(TextError { what: "holds no key".to_owned(), fix: FIX });
    }
    Ok(keys)
}

fn make(path: &Path) -> Result<Vec<RawKey>, SetupError> {
    let mut key = [0; KEY_LEN];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| SetupError::new("the system gave no random bytes for a key", "try again"))?;
    // A half-written key must never be found beside a database: it gets its name when it is whole and on the
    // disk.
    let unnamed = path.with_added_extension("new");
    let written = remove_leftover(&unnamed)
        .and_then(|()| private_file::create_new(&unnamed))
        .and_then(|mut file| {
            file.write_all(format!("{}\n", STANDARD.encode(key)).as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unnamed, path))
        .and_then(|()| private_file::sync_folder_of(path));
    written.map_err(|error| cannot_make(path, &error))?;
    tracing::info!(file = %path.display(), "a key was made for a new database; keep a copy of it, apart from the database's");
    Ok(vec![key])
}

fn remove_leftover(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn cannot_make(path: &Path, error: &std::io::Error) -> SetupError {
    SetupError::new(
        format!("the key file {} cannot be made: {error}", path.display()),
        "let the gateway's user write to that folder, or name another file",
    )
}

fn absent(path: &Path, database: &str) -> SetupError {
    SetupError::new(
        format!("the key file {} is missing, and {database} was sealed with it", path.display()),
        "put it back from where it is kept. Without it no token can be read: to begin anew, move the database away and pair or import \
         every account again",
    )
}

fn unreadable(path: &Path, error: &std::io::Error) -> SetupError {
    SetupError::new(
        format!("the key file {} cannot be read: {error}", path.display()),
        "let the gateway's user read it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct KeyFolder(tempfile::TempDir);

    impl KeyFolder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn key(&self) -> PathBuf {
            self.0.path().join("gateway.key")
        }

        fn load(&self, new: bool) -> Result<SealKeys, StoreError> {
            load(
                &SecretSource::File(self.key()),
                &self.0.path().join("gateway.db").display().to_string(),
                new,
                &|_| None,
            )
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn line(fill: u8) -> String {
        STANDARD.encode([fill; KEY_LEN])
    }

    fn id(fill: u8) -> String {
        SealKeys::new(SealKey::new(&[fill; KEY_LEN]).unwrap(), vec![]).sealing_id().to_string()
    }

    #[test]
    fn a_new_database_gets_a_new_key_that_is_private_and_is_found_again() {
        let folder = KeyFolder::new();
        let made = folder.load(true).unwrap().sealing_id();
        assert_eq!(fs::metadata(folder.key()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.load(false).unwrap().sealing_id(), made);
        assert_eq!(folder.load(true).unwrap().sealing_id(), made, "an existing key is never replaced");
        assert_ne!(KeyFolder::new().load(true).unwrap().sealing_id(), made);
    }

    #[test]
    fn a_missing_key_beside_an_old_database_is_refused_and_none_is_made() {
        let folder = KeyFolder::new();
        let refusal = folder.load(false).unwrap_err().to_string();
        assert!(refusal.contains("gateway.key is missing") && refusal.contains("gateway.db"), "{refusal}");
        assert!(!folder.key().exists());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_cures_it() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o660] {
            let folder = KeyFolder::new();
            folder.write("gateway.key", &line(1), mode);
            let refusal = folder.load(false).unwrap_err().to_string();
            assert!(refusal.contains(&format!("chmod 600 {}", folder.key().display())), "{refusal}");
        }
        let folder = KeyFolder::new();
        folder.write("gateway.key", &line(1), 0o400);
        assert!(folder.load(false).is_ok());
    }

    #[test]
    fn the_first_line_seals_and_the_others_open() {
        let folder = KeyFolder::new();
        folder.write("gateway.key", &format!("{}\n\n{}\n", line(2), line(1)), 0o600);
        let keys = folder.load(false).unwrap();
        assert_eq!(keys.ids().map(|id| id.to_string()).collect::<Vec<_>>(), [id(2), id(1)]);
    }

    #[test]
    fn secrets_for_another_purpose_follow_from_each_key_alone_and_from_the_place_where_the_store_finds_it() {
        let folder = KeyFolder::new();
        let nothing: EnvLookup<'_> = &|_| None;
        let source = SecretSource::File(folder.key());
        assert!(derive(&source, "tokens", nothing).unwrap_err().to_string().contains("is missing"));
        assert!(!folder.key().exists());
        folder.write("gateway.key", &line(1), 0o600);
        let old = derive(&source, "tokens", nothing).unwrap();
        folder.write("gateway.key", &format!("{}\n\n {} \n", line(2), line(1)), 0o600);
        let both = derive(&source, "tokens", nothing).unwrap();
        assert_eq!((both.len(), both[1]), (2, old[0]));
        assert_ne!(both[0], both[1]);
        assert_ne!(derive(&source, "links", nothing).unwrap()[1], old[0]);
        assert_ne!(both[0], [2; 32], "the key itself is not given away");
        fs::create_dir(folder.0.path().join("credentials")).unwrap();
        folder.write("credentials/gateway.key", &line(1), 0o440);
        let credentials = folder.0.path().join("credentials");
        let environment = |name: &str| (name == CREDENTIALS).then(|| credentials.clone().into_os_string());
        assert_eq!(derive(&source, "tokens", &environment).unwrap(), old);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in ["", "\n", "c2VjcmV0", "not base64 at all!", &"A".repeat(45)] {
            let folder = KeyFolder::new();
            folder.write("gateway.key", text, 0o600);
            let refusal = folder.load(false).unwrap_err().to_string();
            assert!(refusal.contains("32 bytes in base64"), "{refusal}");
            assert!(text.trim().is_empty() || !refusal.contains(text), "{refusal}");
        }
    }

    #[test]
    fn a_look_says_what_loading_would_and_makes_nothing() {
        let folder = KeyFolder::new();
        let source = SecretSource::File(folder.key());
        let look = |new| check(&source, "gateway.db", new, &|_| None);
        look(true).unwrap();
        assert!(!folder.key().exists());
        let said = |new| look(new).unwrap_err().to_string();
        assert_eq!(
            said(false),
            folder
                .load(false)
                .unwrap_err()
                .to_string()
                .replace(&*folder.0.path().join("gateway.db").to_string_lossy(), "gateway.db")
        );
        let below = SecretSource::File(folder.key().join("none").join("gateway.key"));
        assert!(check(&below, "gateway.db", true, &|_| None).unwrap_err().what.contains("cannot be made"));
        folder.write("gateway.key", &format!("\u{feff}{}\r\n", line(1)), 0o600);
        look(false).unwrap();
        folder.write("gateway.key", &line(1), 0o644);
        assert_eq!(said(true), folder.load(true).unwrap_err().to_string());
        fs::remove_file(folder.key()).unwrap();
        fs::create_dir(folder.key()).unwrap();
        assert!(said(true).contains("gateway.key is a folder"), "{}", said(true));
    }

    #[test]
    fn a_credential_of_the_service_manager_goes_before_the_file_of_that_name() {
        let folder = KeyFolder::new();
        fs::create_dir(folder.0.path().join("credentials")).unwrap();
        folder.write("credentials/gateway.key", &line(7), 0o440);
        folder.write("gateway.key", &line(1), 0o600);
        let credentials = folder.0.path().join("credentials");
        let environment = |name: &str| (name == CREDENTIALS).then(|| credentials.clone().into_os_string());
        let keys = load(&SecretSource::File(folder.key()), "gateway.db", false, &environment).unwrap();
        assert_eq!(keys.sealing_id().to_string(), id(7));
    }

    #[test]
    fn a_key_can_come_from_the_environment_and_its_absence_is_told() {
        let source = SecretSource::Env("STORE_KEY".into());
        let environment = |name: &str| (name == "STORE_KEY").then(|| line(3).into());
        let keys = load(&source, "gateway.db", true, &environment).unwrap();
        assert_eq!(keys.sealing_id().to_string(), id(3));
        let refusal = load(&source, "gateway.db", true, &|_| None).unwrap_err().to_string();
        assert!(refusal.contains("STORE_KEY"), "{refusal}");
    }
}
