//! A CA's folder: the certificate for everybody, the key for the gateway alone. It is made as a whole or not
//! at all, is never overwritten, and no backup of the store holds any of it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::clock::Timestamp;
use crate::store::private_file;

use super::CaError;
use super::authority::{self, Authority, AuthoritySummary, InvalidCaError};
use super::host_names::HostNames;
use super::key_algorithm::KeyAlgorithm;
use super::trust_store::{TrustStoreFormat, encode};

/// What applications trust.
pub const CA_CERTIFICATE: &str = "ca.pem";
/// Whoever has it can play each of the CA's hosts toward each program that trusts the CA.
pub const CA_KEY: &str = "ca.key";

/// Far more than either file has.
const LARGEST_FILE: u64 = 64 * 1024;

/// Makes a CA for `hosts` in `folder`, which must not exist or be empty. `now` is a time of day.
pub fn init(
    folder: &Path,
    hosts: &HostNames,
    algorithm: KeyAlgorithm,
    now: Timestamp,
) -> Result<AuthoritySummary, CaError> {
    refuse_overwriting(folder)?;
    let cannot = |error: io::Error| cannot_be_made(folder, &error);
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = authority::make(hosts, algorithm, now);
    let (certificate, key) =
        made.map_err(|error| CaError::of(folder, format!("cannot be made ({error})"), "try again"))?;
    let pem = encode(TrustStoreFormat::Pem, &certificate, now);
    // Beside the folder and then renamed, so that there is never a certificate without its key.
    let staging = tempfile::Builder::new().prefix(".ca-").tempdir_in(parent).map_err(cannot)?;
    make_private(staging.path()).map_err(cannot)?;
    write(&staging.path().join(CA_KEY), key.as_bytes()).map_err(cannot)?;
    write(&staging.path().join(CA_CERTIFICATE), &pem).map_err(cannot)?;
    private_file::sync_folder_of(&staging.path().join(CA_KEY)).map_err(cannot)?;
    fs::rename(staging.path(), folder).map_err(|error| match error.kind() {
        // Somebody else was faster.
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => taken(folder),
        _ => cannot(error),
    })?;
    // Nothing is left under its first name, so there is nothing to clean up.
    let _ = staging.keep();
    private_file::sync_folder_of(folder).map_err(cannot)?;
    load(folder).map(|authority| authority.summary)
}

/// The CA in `folder` with its key.
pub fn load(folder: &Path) -> Result<Authority, CaError> {
    let certificate = read_certificate(folder)?;
    let key_file = folder.join(CA_KEY);
    let key = read(&key_file, true)?;
    let fault = |why| explain(folder, why);
    let key = std::str::from_utf8(&key).map_err(|_| fault(InvalidCaError::Key))?;
    Authority::from_parts(certificate, key).map_err(fault)
}

/// What the certificate in `folder` says; the key is not touched.
pub fn load_summary(folder: &Path) -> Result<AuthoritySummary, CaError> {
    let read = AuthoritySummary::read(read_certificate(folder)?);
    read.map(|(summary, _)| summary).map_err(|why| explain(folder, why))
}

fn read_certificate(folder: &Path) -> Result<CertificateDer<'static>, CaError> {
    let file = folder.join(CA_CERTIFICATE);
    let pem = read(&file, false)?;
    CertificateDer::from_pem_slice(&pem).map_err(|_| explain(folder, InvalidCaError::Certificate))
}

fn explain(folder: &Path, why: InvalidCaError) -> CaError {
    let (certificate, key) = (folder.join(CA_CERTIFICATE), folder.join(CA_KEY));
    let restore = "put the folder's copy back, or move the folder away and run genapi-gateway ca init";
    match why {
        InvalidCaError::Certificate => CaError::of(&certificate, "is not a CA that ca init made", restore),
        InvalidCaError::Unconstrained => CaError::of(
            &certificate,
            "does not say which hosts it may sign for, so it could be used against any",
            "move the folder away and run genapi-gateway ca init",
        ),
        InvalidCaError::Key => CaError::of(&key, "holds no usable private key", restore),
        InvalidCaError::Mismatch => CaError::of(&key, format!("is not the key of {CA_CERTIFICATE}"), restore),
    }
}

fn read(file: &Path, secret: bool) -> Result<Vec<u8>, CaError> {
    let fault = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => {
            CaError::of(file, "does not exist", "run genapi-gateway ca init, or name the CA's folder")
        }
        ErrorKind::PermissionDenied => CaError::of(
            file,
            "cannot be read by this user",
            "run this as the gateway's user, or give that user the folder (chown -R)",
        ),
        _ => CaError::of(file, format!("cannot be read ({error})"), "name the folder of a CA"),
    };
    let opened = File::open(file).map_err(fault)?;
    if secret {
        refuse_loose(&opened, file)?;
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(opened, LARGEST_FILE), &mut bytes).map_err(fault)?;
    Ok(bytes)
}

/// The group may read: Kubernetes hands secrets over as 0440.
fn refuse_loose(file: &File, path: &Path) -> Result<(), CaError> {
    let mode = private_file::loose_mode(file);
    let mode = mode.map_err(|error| CaError::of(path, format!("cannot be read ({error})"), "name a file"))?;
    match mode {
        Some(mode) if mode & 0o027 != 0 => Err(CaError::of(
            path,
            format!("is open to others on this machine (mode {mode:03o})"),
            format!("chmod 600 {}, and if somebody may have read it, make a new CA", path.display()),
        )),
        _ => Ok(()),
    }
}

/// An empty folder is taken: its owner may have made it for us.
fn refuse_overwriting(folder: &Path) -> Result<(), CaError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| Err(taken(folder))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_be_made(folder, &error)),
    }
}

fn taken(folder: &Path) -> CaError {
    let fix =
        "name another folder with --dir; a new CA in its place would have to be trusted anew everywhere";
    let what = if folder.join(CA_KEY).exists() { "holds a CA already" } else { "is not empty" };
    CaError::of(folder, what, fix)
}

fn cannot_be_made(folder: &Path, error: &io::Error) -> CaError {
    let fix = "name a folder with --dir in one that this user may write to";
    CaError::of(folder, format!("cannot be made ({error})"), fix)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private_file::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    fn hosts() -> HostNames {
        HostNames::new(["api.old.test", "login.old.test"]).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_ca_is_made_as_a_whole_private_and_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ca");
        let made = init(&folder, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap();
        assert_eq!(made.hosts, hosts());
        assert_eq!(load_summary(&folder).unwrap(), made);
        assert_eq!(load(&folder).unwrap().summary, made);
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(CA_KEY)), 0o600);
        let key = fs::read(folder.join(CA_KEY)).unwrap();
        let refused = init(&folder, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap_err();
        assert!(refused.what.ends_with("holds a CA already"), "{refused}");
        assert_eq!(fs::read(folder.join(CA_KEY)).unwrap(), key);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn an_empty_folder_is_taken_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
        fs::create_dir(&empty).unwrap();
        init(&empty, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("somebody.else"), "x").unwrap();
        assert!(
            init(&full, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap_err().what.ends_with("is not empty")
        );
        assert!(init(&folder.path().join("no/such"), &hosts(), KeyAlgorithm::Ecdsa, now()).is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_file_and_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let (ours, other) = (parent.path().join("ours"), parent.path().join("other"));
        init(&ours, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap();
        init(&other, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap();
        let refused = |change: &dyn Fn(&Path)| {
            let folder = tempfile::tempdir().unwrap();
            for file in [CA_CERTIFICATE, CA_KEY] {
                fs::copy(ours.join(file), folder.path().join(file)).unwrap();
            }
            change(folder.path());
            load(folder.path()).unwrap_err()
        };
        let key = |folder: &Path| folder.join(CA_KEY);
        let open = |mode| {
            move |folder: &Path| fs::set_permissions(key(folder), fs::Permissions::from_mode(mode)).unwrap()
        };
        let unconstrained = |folder: &Path| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, "x");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            fs::write(folder.join(CA_CERTIFICATE), made.pem()).unwrap();
        };
        type Change<'a> = &'a dyn Fn(&Path);
        let table: [(Change<'_>, &str, &str); 8] = [
            (&open(0o644), CA_KEY, "is open to others on this machine (mode 644)"),
            (&open(0o660), CA_KEY, "is open to others on this machine (mode 660)"),
            (&|folder| fs::remove_file(key(folder)).unwrap(), CA_KEY, "does not exist"),
            (
                &|folder| assert!(fs::copy(other.join(CA_KEY), key(folder)).is_ok()),
                CA_KEY,
                "is not the key of ca.pem",
            ),
            (&|folder| fs::write(key(folder), "x").unwrap(), CA_KEY, "holds no usable private key"),
            (
                &|folder| fs::remove_file(folder.join(CA_CERTIFICATE)).unwrap(),
                CA_CERTIFICATE,
                "does not exist",
            ),
            (
                &|folder| fs::write(folder.join(CA_CERTIFICATE), "x").unwrap(),
                CA_CERTIFICATE,
                "is not a CA that",
            ),
            (&unconstrained, CA_CERTIFICATE, "does not say which hosts"),
        ];
        for (change, file, what) in table {
            let error = refused(change);
            assert!(error.file.ends_with(file) && error.what.contains(what), "{error}");
        }
        refused(&|folder| {
            let made = rcgen::generate_simple_self_signed(vec!["api.old.test".to_owned()]).unwrap();
            fs::write(folder.join(CA_CERTIFICATE), made.cert.pem()).unwrap();
        });
    }

    #[test]
    fn the_group_may_read_the_key_as_kubernetes_hands_it_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ca");
        init(&folder, &hosts(), KeyAlgorithm::Ecdsa, now()).unwrap();
        fs::set_permissions(folder.join(CA_KEY), fs::Permissions::from_mode(0o440)).unwrap();
        load(&folder).unwrap();
    }
}
