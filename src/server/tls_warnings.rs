//! What callers will not like about certificates that can be served, now or soon.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::ca;
use crate::clock::Timestamp;

use super::certificate::{self, CertificateWarning};
use super::tls::{CaFolder, Pem, TlsFiles, read};
use super::tls_error::TlsError;

/// Warnings about files that can be served, for callers that use one of `names`.
pub fn certificate_warnings(
    files: &TlsFiles,
    names: &[String],
    now: Timestamp,
) -> Result<Vec<CertificateWarning>, TlsError> {
    let pem = Pem::read(files)?;
    let chain = pem.chain(files)?;
    let mut warnings = certificate::expiry_warnings(&files.cert, &chain, now);
    warnings.extend(certificate::chain_order_warning(&files.cert, &chain));
    warnings.extend(names.iter().filter_map(|name| certificate::name_warning(&files.cert, &chain[0], name)));
    if let Some(file) = &files.client_ca {
        warnings.extend(authority_warnings(file, now)?);
    }
    Ok(warnings)
}

/// Warnings about a private CA, for callers that use one of `names`.
pub fn ca_warnings(
    ca: &CaFolder,
    names: &[String],
    now: Timestamp,
) -> Result<Vec<CertificateWarning>, TlsError> {
    let summary = ca::load_summary(&ca.folder).map_err(TlsError::Ca)?;
    let file = ca.folder.join(ca::CA_CERTIFICATE);
    let mut warnings = certificate::expiry_warnings(&file, &[summary.certificate], now);
    for warning in &mut warnings {
        warning.fix =
            "make a new CA in another folder (genapi-gateway ca init --dir), let the applications trust it \
            beside this one, then name that folder"
                .to_owned();
    }
    warnings.extend(names.iter().filter(|name| summary.hosts.find(name).is_none()).map(|name| {
        let what = format!("{} is not for {name}, by which callers come", ca.folder.display());
        let fix = format!("make a CA with --host {name}, or write another url");
        CertificateWarning { file: file.clone(), what, fix }
    }));
    if let Some(file) = &ca.client_ca {
        warnings.extend(authority_warnings(file, now)?);
    }
    Ok(warnings)
}

/// Warnings about authorities that are trusted.
pub fn authority_warnings(file: &Path, now: Timestamp) -> Result<Vec<CertificateWarning>, TlsError> {
    let pem = read(file)?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| TlsError::NoCertificate { file: file.to_owned() })?;
    Ok(certificate::expiry_warnings(file, &found, now))
}
