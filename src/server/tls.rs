//! The server's own certificates, from files or of a private CA. A reload never drops a connection, and a
//! broken file never replaces a working one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::private_ca::{self, Accepted};
use super::tls_error::TlsError;
use super::{PeerCertificate, RequestedHost};
use crate::ca::{self, HostNames, LeafSource};
use crate::clock::Clock;

/// Where the PEM files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, leaf first.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whose client certificates are believed. A caller may still come without one.
    pub client_ca: Option<PathBuf>,
}

/// Where a private CA is, whose leaves are made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFolder {
    pub folder: PathBuf,
    /// As in [`TlsFiles`].
    pub client_ca: Option<PathBuf>,
}

/// Where a listener's certificates come from.
enum TlsSource {
    Files(TlsFiles),
    Ca(CaFolder, Clock),
}

/// What new connections are accepted with.
struct AcceptorSetup {
    config: Arc<ServerConfig>,
    /// Of a private CA.
    leaves: Option<Arc<LeafSource>>,
}

/// The certificates for new connections. Cheap to read on every accept, swapped by
/// [`reload_if_changed`](Self::reload_if_changed).
pub struct TlsCertificates {
    source: TlsSource,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<AcceptorSetup>,
    /// What was tried last, so that a broken file is reported once and not every two seconds.
    last_attempt: Mutex<LastAttempt>,
}

#[derive(PartialEq, Eq)]
enum LastAttempt {
    Content([u8; 32]),
    Unreadable(PathBuf),
}

/// The outcome of a reload.
#[derive(Debug)]
pub enum Reload {
    Unchanged,
    Swapped,
    /// The old certificate stays in use. Reported once for each content of the files.
    Failed(TlsError),
}

/// Without the mark that Windows editors set before a text: the line behind it would be overlooked, and with
/// it a certificate.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let read = std::fs::read(file).map_err(|error| TlsError::Unreadable { file: file.to_owned(), error })?;
    Ok(read.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(read))
}

impl TlsCertificates {
    pub fn load(files: TlsFiles, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        Self::from_source(TlsSource::Files(files), provider)
    }

    /// Leaves are made by `clock`.
    pub fn load_ca(ca: CaFolder, clock: Clock, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        Self::from_source(TlsSource::Ca(ca, clock), provider)
    }

    fn from_source(source: TlsSource, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        let content = source.read()?;
        let identity = content.to_setup(&source, &provider)?;
        let last_attempt = Mutex::new(LastAttempt::Content(content.hash()));
        Ok(Arc::new(Self { source, provider, current: ArcSwap::from_pointee(identity), last_attempt }))
    }

    /// Reads the files and, if their content is new and sound, uses it for connections from now on. Meant to
    /// be called every two seconds and on SIGHUP; file change events miss the way in which Kubernetes swaps
    /// mounted secrets.
    pub fn reload_if_changed(&self) -> Reload {
        let content = self.source.read();
        let seen = match &content {
            Ok(content) => LastAttempt::Content(content.hash()),
            Err(TlsError::Unreadable { file, .. }) => LastAttempt::Unreadable(file.clone()),
            Err(error) => LastAttempt::Unreadable(error.file().map(Path::to_owned).unwrap_or_default()),
        };
        {
            let mut last_attempt = self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
            if *last_attempt == seen {
                return Reload::Unchanged;
            }
            *last_attempt = seen;
        }
        match content.and_then(|content| content.to_setup(&self.source, &self.provider)) {
            Ok(identity) => {
                self.current.store(Arc::new(identity));
                Reload::Swapped
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// A handshake, and the host that was asked for where that is known; `tunnel_host` as in
    /// [`private_ca::accept`].
    pub(super) async fn accept(&self, tcp: TcpStream, tunnel_host: Option<&str>) -> io::Result<Accepted> {
        let identity = self.current.load_full();
        match &identity.leaves {
            None => Ok((TlsAcceptor::from(identity.config.clone()).accept(tcp).await?, RequestedHost::Any)),
            // Boxed: few listeners have one, and all others' handshakes would carry its size.
            Some(leaves) => {
                Box::pin(private_ca::accept(leaves, identity.config.clone(), tcp, tunnel_host)).await
            }
        }
    }

    /// The hosts of the private CA, if there is one.
    pub(super) fn hosts(&self) -> Option<Arc<HostNames>> {
        self.current.load().leaves.as_ref().map(|leaves| leaves.hosts().clone())
    }

    #[cfg(test)]
    fn current(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }
}

impl TlsSource {
    fn client_ca(&self) -> Option<&Path> {
        match self {
            Self::Files(files) => files.client_ca.as_deref(),
            Self::Ca(ca, _) => ca.client_ca.as_deref(),
        }
    }

    fn read(&self) -> Result<Content, TlsError> {
        let (cert, key) = match self {
            Self::Files(files) => (read(&files.cert)?, read(&files.key)?),
            // Only to see whether they changed: `ca` reads them, and says what is wrong with them.
            Self::Ca(ca, _) => {
                ca::load(&ca.folder).map_err(TlsError::Ca)?;
                (read(&ca.folder.join(ca::CA_CERTIFICATE))?, read(&ca.folder.join(ca::CA_KEY))?)
            }
        };
        Ok(Content { pem: Pem { cert, key }, client_ca: self.client_ca().map(read).transpose()? })
    }
}

/// What the files hold.
struct Content {
    pem: Pem,
    client_ca: Option<Vec<u8>>,
}

impl Content {
    fn hash(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [Some(&self.pem.cert), Some(&self.pem.key), self.client_ca.as_ref()].into_iter().flatten()
        {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }

    fn to_setup(
        &self,
        source: &TlsSource,
        provider: &Arc<CryptoProvider>,
    ) -> Result<AcceptorSetup, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Provider)?;
        let builder = match (&self.client_ca, source.client_ca()) {
            (Some(pem), Some(file)) => {
                builder.with_client_cert_verifier(client_verifier(pem, file, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let (mut config, leaves) = match source {
            TlsSource::Files(files) => {
                let (chain, key) = (self.pem.chain(files)?, self.pem.private_key(files)?);
                refuse_mismatch(files, provider, &chain, &key)?;
                let config = builder
                    .with_single_cert(chain, key)
                    .map_err(|error| TlsError::NotServable { file: files.cert.clone(), error })?;
                (config, None)
            }
            TlsSource::Ca(ca, clock) => {
                let leaves = leaves_of(ca, clock, provider)?;
                (builder.with_cert_resolver(leaves.clone()), Some(leaves))
            }
        };
        // Never h2: one protocol, one parser, one set of limits.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The provider lists AES-GCM first; ChaCha20 would double the cost of a download.
        config.ignore_client_order = true;
        // New keys with every reload: a ticket carries a client certificate that a new client CA may no
        // longer believe.
        if let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(AcceptorSetup { config: Arc::new(config), leaves })
    }
}

fn leaves_of(
    ca: &CaFolder,
    clock: &Clock,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<LeafSource>, TlsError> {
    let authority = ca::load(&ca.folder).map_err(TlsError::Ca)?;
    let leaves = LeafSource::new(authority, clock.clone(), provider.clone());
    let leaves = leaves.map_err(|error| TlsError::Leaf { folder: ca.folder.clone(), error })?;
    Ok(Arc::new(leaves))
}

/// The certificate that the caller showed and rustls verified.
pub(super) fn peer_certificate(connection: &ServerConnection) -> Option<Arc<PeerCertificate>> {
    let leaf = connection.peer_certificates()?.first()?;
    let hash = digest::digest(&digest::SHA256, leaf);
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(hash.as_ref());
    let dns_names = webpki::EndEntityCert::try_from(leaf)
        .map(|cert| cert.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default();
    Some(Arc::new(PeerCertificate { fingerprint, dns_names }))
}

pub(super) struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)? })
    }

    pub(super) fn chain(&self, files: &TlsFiles) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        match CertificateDer::pem_slice_iter(&self.cert).collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            _ => Err(TlsError::NoCertificate { file: files.cert.clone() }),
        }
    }

    fn private_key(&self, files: &TlsFiles) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| TlsError::NoKey { file: files.key.clone(), error: error.to_string() })
    }
}

/// Says which certificate a key belongs to where that is not the first, as in a chain that was put together
/// backwards.
fn refuse_mismatch(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), TlsError> {
    let signing = provider.key_provider.load_private_key(key.clone_key());
    let signing =
        signing.map_err(|error| TlsError::NoKey { file: files.key.clone(), error: error.to_string() })?;
    let other_key = rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch);
    let is_of = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], signing.clone()).keys_match() != Err(other_key.clone())
    };
    // A key whose public half cannot be had is let through: rustls serves it.
    if chain.first().is_none_or(is_of) {
        return Ok(());
    }
    let belongs_to = chain.iter().position(is_of).map(|at| at + 1);
    Err(TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone(), belongs_to })
}

fn client_verifier(
    pem: &[u8],
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let refuse = |error: String| TlsError::ClientCa { file: file.to_owned(), error };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn write_pair(files: &TlsFiles) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        cert.der().to_vec()
    }

    #[test]
    fn a_broken_file_keeps_the_old_certificate_and_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem"), client_ca: None };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        assert!(matches!(
            TlsCertificates::load(files.clone(), provider.clone()),
            Err(TlsError::Unreadable { file, .. }) if file == files.cert
        ));
        write_pair(&files);
        let certificates = TlsCertificates::load(files.clone(), provider).unwrap();
        let first = certificates.current();
        assert!(matches!(certificates.reload_if_changed(), Reload::Unchanged));

        let sound_key = std::fs::read(&files.key).unwrap();
        std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        match certificates.reload_if_changed() {
            Reload::Failed(error @ TlsError::Mismatch { .. }) => {
                assert!(error.to_string().contains("c.pem"), "{error}");
                assert!(error.to_string().contains("k.pem"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(certificates.reload_if_changed(), Reload::Unchanged));
        std::fs::write(&files.key, b"nonsense").unwrap();
        assert!(matches!(certificates.reload_if_changed(), Reload::Failed(TlsError::NoKey { .. })));
        std::fs::remove_file(&files.cert).unwrap();
        assert!(matches!(certificates.reload_if_changed(), Reload::Failed(TlsError::Unreadable { .. })));
        assert!(matches!(certificates.reload_if_changed(), Reload::Unchanged));
        assert!(Arc::ptr_eq(&first, &certificates.current()));

        std::fs::write(&files.key, sound_key).unwrap();
        write_pair(&files);
        assert!(matches!(certificates.reload_if_changed(), Reload::Swapped));
        assert!(!Arc::ptr_eq(&first, &certificates.current()));
    }

    #[test]
    fn only_http_1_is_ever_agreed_on() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem"), client_ca: None };
        write_pair(&files);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates = TlsCertificates::load(files, provider).unwrap();
        assert_eq!(certificates.current().alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
