//! Certificates and keys in PEM form. What is in another form, or is the other of the two, is named with the
//! command that helps.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::text_file::{self, LARGEST_PEM};

/// What is wrong, and what to do.
type PemError = (String, String);

/// A file that holds one certificate at least, and none that is damaged.
pub(super) fn certificates(path: &Path) -> Result<(), PemError> {
    let pem = text_of(path, "x509")?;
    let fault = |what: &str, fix: &str| Err((format!("{} {what}", path.display()), fix.to_owned()));
    match CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(()),
        Err(_) => fault(
            "holds a certificate that is damaged, so it counts as no certificate",
            "copy the file again, whole, from -----BEGIN CERTIFICATE----- on",
        ),
        Ok(_) if pem.contains("PRIVATE KEY-----") => fault(
            "holds a private key and no certificate",
            "name the file that begins with -----BEGIN CERTIFICATE-----; cert and key may be exchanged",
        ),
        Ok(_) if pem.contains("CERTIFICATE REQUEST-----") => fault(
            "holds a request for a certificate and no certificate",
            "name what the authority sent back, -----BEGIN CERTIFICATE-----",
        ),
        Ok(_) => fault(
            "holds no certificate in PEM form",
            "name a file that begins with -----BEGIN CERTIFICATE-----",
        ),
    }
}

/// A file that holds a private key that needs no passphrase.
pub(super) fn private_key(path: &Path) -> Result<(), PemError> {
    let pem = text_of(path, "pkey")?;
    let shown = path.display();
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.contains("Proc-Type: 4,ENCRYPTED") {
        let fix = format!("openssl pkey -in {shown} -out plain.pem, chmod 600 plain.pem, and name that");
        return Err((format!("{shown} holds a private key that is encrypted with a passphrase"), fix));
    }
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err((
            format!("{shown} holds no private key in PEM form"),
            "name the key that belongs to cert, unencrypted: -----BEGIN PRIVATE KEY-----".to_owned(),
        )),
    }
}

/// `tool` is the command of openssl that turns this kind into PEM.
fn text_of(path: &Path, tool: &str) -> Result<String, PemError> {
    let shown = path.display();
    let fault = |error: text_file::TextError| (format!("{shown} {}", error.what), error.fix.to_owned());
    let bytes = text_file::read_path(path, LARGEST_PEM).map_err(fault)?;
    if bytes.trim_ascii().is_empty() {
        return Err((format!("{shown} is empty"), "write the PEM text into it".to_owned()));
    }
    match binary_form(&bytes) {
        Some(Binary::Pkcs12) => Err((
            format!("{shown} is a PKCS#12 file (.pfx, .p12) and not PEM"),
            format!("openssl pkcs12 -in {shown} -nodes -out both.pem, chmod 600 both.pem, and name that"),
        )),
        Some(Binary::Der) => Err((
            format!("{shown} is in DER form and not PEM"),
            format!("openssl {tool} -inform der -in {shown} -out {shown}.pem, and name that"),
        )),
        None => text_file::decode(&bytes).map(str::to_owned).map_err(fault),
    }
}

enum Binary {
    Der,
    Pkcs12,
}

/// Both begin with a SEQUENCE whose length takes more than one byte; version 3 comes first in PKCS#12 (RFC
/// 7292, 4).
fn binary_form(bytes: &[u8]) -> Option<Binary> {
    let [0x30, long, rest @ ..] = bytes else { return None };
    if long & 0x80 == 0 {
        return None;
    }
    let content = rest.get(usize::from(long & 0x7f)..).unwrap_or_default();
    if content.starts_with(&[2, 1, 3]) { Some(Binary::Pkcs12) } else { Some(Binary::Der) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_other_form_is_named_with_the_command_that_turns_it_into_pem() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        type Check = fn(&Path) -> Result<(), PemError>;
        let (certs, keys): (Check, Check) = (certificates, private_key);
        let wide: Vec<u8> = cert.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
        #[rustfmt::skip]
        let table: [(Check, Vec<u8>, &str, &str); 12] = [
            (certs, made.cert.der().to_vec(), "DER form", "openssl x509 -inform der"),
            (keys, made.signing_key.serialize_der(), "DER form", "openssl pkey -inform der"),
            (certs, vec![0x30, 0x82, 9, 0x99, 2, 1, 3, 0x30], "PKCS#12", "openssl pkcs12"),
            (certs, b" \n".to_vec(), "is empty", "PEM"),
            (keys, Vec::new(), "is empty", "PEM"),
            (certs, wide, "UTF-16", "UTF-8"),
            (certs, key.clone().into(), "private key and no certificate", "exchanged"),
            (keys, cert.clone().into(), "no private key", "BEGIN PRIVATE KEY"),
            (keys, encrypted.into(), "encrypted with a passphrase", "openssl pkey -in"),
            (keys, traditional.into(), "encrypted with a passphrase", "openssl pkey -in"),
            (certs, cert.replace("CERTIFICATE-", "CERTIFICATE REQUEST-").into(), "a request", "sent back"),
            (certs, cert[..cert.len() - 60].into(), "certificate", "BEGIN CERTIFICATE"),
        ];
        for (check, bytes, what, fix) in table {
            std::fs::write(&path, bytes).unwrap();
            let (told, cure) = check(&path).unwrap_err();
            assert!(told.contains(what) && cure.contains(fix), "{told}. Fix: {cure}");
        }
        for (check, text) in [(certs, &cert), (keys, &key)] {
            std::fs::write(&path, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
            check(&path).unwrap();
        }
        assert!(certificates(folder.path()).unwrap_err().0.contains("is a folder"));
    }
}
