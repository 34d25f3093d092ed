//! Files that nobody but the gateway's own user may read: keys, databases, the audit log. Made 0600, never
//! loosened.
//!
//! Where the system has no such modes, the folder's access list is what guards them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a file that must not exist yet.
pub fn create_new(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().write(true).create_new(true)).open(path)
}

/// Opens a file for reading and writing and makes it where it is missing; its content stays.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)
}

/// Opens a file to which lines are only ever added, and makes it where it is missing.
pub fn open_append(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).append(true).create(true)).open(path)
}

/// Whether a file of this name could be made. It is tried with one that never gets a name, so that nothing
/// changes.
pub fn can_be_made(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !fs::metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    make_unnamed(folder)
}

/// Whether a file that is there can be opened for reading and writing; `false` where there is none. Nothing
/// is made or changed.
pub fn can_be_written(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) if file.metadata()?.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The mode of a file that others may read or write; `None` for one that is private.
pub fn loose_mode(file: &File) -> io::Result<Option<u32>> {
    let mode = mode_of(&file.metadata()?);
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Takes everybody else's rights away from a file that may have been made by hand; says whether there were
/// any.
pub fn tighten(path: &Path) -> io::Result<bool> {
    let loose = mode_of(&fs::metadata(path)?) & 0o077 != 0;
    if loose {
        set_private(path)?;
    }
    Ok(loose)
}

/// Makes the entry of a new file survive a power cut.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        // A bare name stands in the current folder.
        Some(folder) if cfg!(unix) && folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn make_unnamed(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    match private(options.write(true).custom_flags(libc::O_TMPFILE)).open(folder) {
        // A file system that knows no unnamed files tells nothing this way; the start will tell.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
        {
            Ok(())
        }
        made => made.map(drop),
    }
}

#[cfg(not(target_os = "linux"))]
fn make_unnamed(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(unix)]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o7777
}

#[cfg(unix)]
fn set_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(not(unix))]
fn mode_of(_: &fs::Metadata) -> u32 {
    0o600
}

#[cfg(not(unix))]
fn set_private(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_folder_of_a_bare_name_is_the_current_one() {
        sync_folder_of(Path::new("name")).unwrap();
        sync_folder_of(&std::env::temp_dir().join("name")).unwrap();
        assert!(sync_folder_of(Path::new("/nonexistent/name")).is_err());
    }

    #[test]
    fn what_could_be_made_or_written_is_known_without_doing_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        can_be_made(&file).unwrap();
        assert!(!can_be_written(&file).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&file, "x").unwrap();
        assert!(can_be_written(&file).unwrap());
        assert_eq!(can_be_made(&file.join("below")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(can_be_made(Path::new("/nonexistent/x")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(can_be_written(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_is_made_here_is_private_and_what_was_loose_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        for (name, made) in [
            ("new", create_new(&folder.path().join("new"))),
            ("both", open_or_create(&folder.path().join("both"))),
            ("log", open_append(&folder.path().join("log"))),
        ] {
            assert_eq!(loose_mode(&made.unwrap()).unwrap(), None, "{name}");
        }
        assert!(create_new(&folder.path().join("new")).is_err());

        let path = folder.path().join("log");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(loose_mode(&File::open(&path).unwrap()).unwrap(), Some(0o640));
        assert!(tighten(&path).unwrap());
        assert!(!tighten(&path).unwrap());
    }
}
