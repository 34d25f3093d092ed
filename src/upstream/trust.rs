//! Which certificates a realm's hosts may show. There is no switch that skips the check (threats, row 24).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore};

use crate::config;
use crate::config::text_file::{self, LARGEST_PEM};

use super::ConnectError;

/// The system's CAs and the realm's `ca_file`.
pub(super) fn client_config(realm: &config::RealmConfig) -> Result<Arc<ClientConfig>, ConnectError> {
    // A certificate of the system's store that cannot be read is one CA less, and no reason to do without the
    // others.
    trusting(realm, rustls_native_certs::load_native_certs().certs)
}

/// A machine without a CA store is fine where the realm brings its own CA, or speaks plain http to a sandbox.
fn trusting(
    realm: &config::RealmConfig,
    system: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, ConnectError> {
    let mut roots = RootCertStore::empty();
    let (from_system, _) = roots.add_parsable_certificates(system);
    if let Some(file) = &realm.ca_file {
        add_file(&mut roots, file)?;
    }
    let needs_tls = [&realm.oauth_base, &realm.base_url].iter().any(|base| base.scheme() == "https");
    match (from_system, &realm.ca_file) {
        (0, None) if needs_tls => {
            return Err(setup(
                "this machine has no CA store, so no https can be trusted: \
                 install the package ca-certificates, or name a PEM file in the realm's `ca_file`"
                    .to_owned(),
            ));
        }
        (0, Some(file)) => {
            tracing::info!(realm = %realm.name, ca_file = %file.display(), "no CA store on this machine, only ca_file is trusted");
        }
        _ => {}
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTP/2 is never spoken to the platform: the gateway frames HTTP/1 on both sides.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// AES-GCM before ChaCha20, which doubles the cost of a download on processors with AES instructions.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| is_chacha(suite.suite()));
    provider
}

fn is_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), ConnectError> {
    let shown = file.display();
    let unreadable = |error: String| setup(format!("ca_file {shown} cannot be read as PEM: {error}"));
    let bytes = text_file::read_path(file, LARGEST_PEM).map_err(|error| unreadable(error.to_string()))?;
    let pem = text_file::decode(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| {
            setup(format!("ca_file {shown} holds a certificate that is not usable: {error}"))
        })?;
    }
    if roots.len() > before { Ok(()) } else { Err(setup(format!("ca_file {shown} holds no certificate"))) }
}

fn setup(why: String) -> ConnectError {
    ConnectError::Setup { why }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestAuthority, realm};
    use super::*;

    #[test]
    fn only_http_1_is_offered_and_aes_comes_first() {
        let mut with_file = realm();
        let ours = TestAuthority::new("ours");
        with_file.ca_file = Some(ours.ca_file());
        let config = client_config(&with_file).unwrap();
        assert_eq!(config.alpn_protocols, vec![b"http/1.1".to_vec()]);
        let order: Vec<bool> =
            config.crypto_provider().cipher_suites.iter().map(|s| is_chacha(s.suite())).collect();
        assert!(order.is_sorted() && order.contains(&true) && order.contains(&false), "{order:?}");
    }

    #[test]
    fn a_machine_without_a_ca_store_needs_ca_file_for_https_alone() {
        let ours = TestAuthority::new("ours");
        let mut realm = realm();
        assert!(trusting(&realm, Vec::new()).is_ok());
        realm.oauth_base = "https://prod-identity.iterocloud.com".parse().unwrap();
        let error = trusting(&realm, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("ca-certificates"), "{error}");
        realm.ca_file = Some(ours.ca_file());
        assert!(trusting(&realm, Vec::new()).is_ok());
    }

    #[test]
    fn a_ca_file_that_is_missing_empty_or_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, content) in [("missing.pem", None), ("empty.pem", Some("")), ("broken.pem", Some(broken))]
        {
            let file = folder.path().join(name);
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let mut realm = realm();
            realm.ca_file = Some(file);
            let error = client_config(&realm).unwrap_err();
            assert!(matches!(&error, ConnectError::Setup { why } if why.contains(name)), "{error}");
        }
    }
}
