//! A leaf in a file, for a proxy in front that ends TLS which the gateway does not speak (below 1.2). It
//! names hosts of the CA and no other, it is private, and it replaces nothing but a leaf that was made here.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use rcgen::KeyUsagePurpose;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::Timestamp;
use crate::store::private_file;

use super::CaError;
use super::authority::{Authority, AuthoritySummary, Validity};
use super::host_names::HostNames;
use super::key_algorithm::KeyAlgorithm;
use super::trust_store::{TrustStoreFormat, encode};

/// Nobody renews it but a timer of the operator's: a month of failures may go unnoticed, and it still serves.
pub const LEAF_FILE_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// Writes a new key and its leaf for `hosts` into one PEM file, with the CA's certificate between them, as
/// HAProxy reads it. Each host has to be the CA's. A leaf that stands there is replaced at once or not at
/// all. `now` is a time of day; what is returned is when the leaf ends.
pub fn write_leaf(
    authority: &Authority,
    hosts: &HostNames,
    algorithm: KeyAlgorithm,
    now: Timestamp,
    out: &Path,
) -> Result<Timestamp, CaError> {
    refuse_other_hosts(authority, hosts, out)?;
    refuse_other_file(out)?;
    let pem = make(authority, hosts, algorithm, now)
        .map_err(|error| CaError::of(out, format!("cannot be made ({error})"), "try again"))?;
    replace(out, &pem).map_err(|error| {
        let fix = "name a file with --out in a folder that this user may write to";
        CaError::of(out, format!("cannot be written ({error})"), fix)
    })?;
    Ok(now + LEAF_FILE_LIFE)
}

fn make(
    authority: &Authority,
    hosts: &HostNames,
    algorithm: KeyAlgorithm,
    now: Timestamp,
) -> Result<Vec<u8>, rcgen::Error> {
    let key = algorithm.generate_for_leaf()?;
    // Programs before ECDHE encrypt to the key of an RSA leaf, and some ask whether they may.
    let usages = match algorithm {
        KeyAlgorithm::Ecdsa => vec![KeyUsagePurpose::DigitalSignature],
        KeyAlgorithm::Rsa => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment],
    };
    let validity = Validity { made: now, life: LEAF_FILE_LIFE };
    let leaf = authority.sign_leaf(&key, hosts, &usages, validity)?;
    let mut pem = encode(TrustStoreFormat::Pem, &leaf, now);
    pem.extend(encode(TrustStoreFormat::Pem, &authority.summary.certificate, now));
    pem.extend(key.serialize_pem().into_bytes());
    Ok(pem)
}

fn refuse_other_hosts(authority: &Authority, hosts: &HostNames, out: &Path) -> Result<(), CaError> {
    let permitted = &authority.summary.hosts;
    match hosts.iter().find(|host| permitted.find(host).is_none()) {
        None => Ok(()),
        Some(other) => Err(CaError::of(
            out,
            format!("is not made: {other} is no host of this CA"),
            format!("name hosts of {permitted}; a CA with others is a new one (ca init --host)"),
        )),
    }
}

/// A key, a configuration or somebody else's certificate is not overwritten by a slip of the hand.
fn refuse_other_file(out: &Path) -> Result<(), CaError> {
    let refused = |what: &str| CaError::of(out, what, "name another file with --out, or move this one away");
    match fs::read(out) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(content) if is_leaf_file(&content) => Ok(()),
        Ok(_) => Err(refused("is there and holds something else than a leaf of ca leaf")),
        Err(error) => Err(refused(&format!("cannot be read ({error})"))),
    }
}

/// A chain that ends in a CA of ours, and a key.
fn is_leaf_file(content: &[u8]) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let Ok(chain) = chain else { return false };
    let [_, ca] = &chain[..] else { return false };
    AuthoritySummary::read(ca.clone()).is_ok() && PrivateKeyDer::from_pem_slice(content).is_ok()
}

/// Whoever reads it meanwhile reads the old one or the new one.
fn replace(out: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Made 0600.
    let mut file = tempfile::Builder::new().prefix(".leaf-").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(out).map_err(|error| error.error)?;
    private_file::sync_folder_of(out)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::ca;
    use std::os::unix::fs::PermissionsExt;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn folder_with_a_ca(algorithm: KeyAlgorithm) -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let hosts = names(&["api.old.test", "login.old.test"]);
        ca::init(&folder.path().join("ca"), &hosts, algorithm, NOW).unwrap();
        let authority = ca::load(&folder.path().join("ca")).unwrap();
        (folder, authority)
    }

    fn names(names: &[&str]) -> HostNames {
        HostNames::new(names.iter().copied()).unwrap()
    }

    fn hosts_of(leaf: &CertificateDer<'_>) -> Vec<String> {
        let leaf = webpki::EndEntityCert::try_from(leaf).unwrap();
        leaf.valid_dns_names().map(str::to_owned).collect()
    }

    #[test]
    fn a_leaf_is_private_for_the_named_hosts_and_belongs_to_its_key_and_its_ca() {
        for (of_ca, of_leaf) in
            [(KeyAlgorithm::Ecdsa, KeyAlgorithm::Rsa), (KeyAlgorithm::Rsa, KeyAlgorithm::Ecdsa)]
        {
            let (folder, authority) = folder_with_a_ca(of_ca);
            let out = folder.path().join("front.pem");
            let ends = write_leaf(&authority, &names(&["API.old.test"]), of_leaf, NOW, &out).unwrap();
            assert_eq!(ends, NOW + LEAF_FILE_LIFE);
            assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
            let content = fs::read(&out).unwrap();
            let chain: Vec<_> = CertificateDer::pem_slice_iter(&content).map(Result::unwrap).collect();
            assert_eq!(chain[1], authority.summary.certificate);
            assert_eq!(hosts_of(&chain[0]), ["api.old.test"]);
            let key = PrivateKeyDer::from_pem_slice(&content).unwrap();
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
            certified.keys_match().unwrap();
            assert_eq!(
                certified.key.algorithm() == rustls::SignatureAlgorithm::RSA,
                of_leaf == KeyAlgorithm::Rsa
            );
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
        }
    }

    #[test]
    fn a_leaf_for_another_host_is_refused_and_nothing_is_written() {
        let (folder, authority) = folder_with_a_ca(KeyAlgorithm::Ecdsa);
        let out = folder.path().join("front.pem");
        for host in ["other.test", "x.api.old.test", "old.test"] {
            let hosts = names(&["api.old.test", host]);
            let refused = write_leaf(&authority, &hosts, KeyAlgorithm::Ecdsa, NOW, &out).unwrap_err();
            assert!(refused.what.ends_with(&format!("{host} is no host of this CA")), "{refused}");
        }
        assert!(!out.exists());
    }

    #[test]
    fn a_leaf_is_replaced_by_the_next_one_and_nothing_else_is() {
        let (folder, authority) = folder_with_a_ca(KeyAlgorithm::Ecdsa);
        let hosts = names(&["api.old.test"]);
        let write = |out: &Path| write_leaf(&authority, &hosts, KeyAlgorithm::Ecdsa, NOW, out);
        let out = folder.path().join("front.pem");
        write(&out).unwrap();
        let first = fs::read(&out).unwrap();
        write(&out).unwrap();
        assert_ne!(fs::read(&out).unwrap(), first, "a new key each time");

        let somebody = rcgen::generate_simple_self_signed(vec!["api.old.test".to_owned()]).unwrap();
        let theirs = folder.path().join("theirs.pem");
        fs::write(&theirs, somebody.cert.pem() + &somebody.signing_key.serialize_pem()).unwrap();
        let ca = folder.path().join("ca");
        for file in [theirs, ca.join(ca::CA_KEY), ca.join(ca::CA_CERTIFICATE), ca.clone()] {
            let before = fs::read(&file).ok();
            let refused = write(&file).unwrap_err();
            assert!(refused.fix.contains("another file"), "{refused}");
            assert_eq!(fs::read(&file).ok(), before);
        }
    }
}
