//! Which leaf a caller is shown, by its ClientHello: one of the CA's for the CA's hosts, and nothing at all
//! to whoever asks for another name.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureScheme};

use super::leaves::{LeafError, LeafSource};

impl LeafSource {
    /// The host of the CA that a caller asks for, or `None` where it names none, as old programs do not.
    pub fn requested_host(&self, hello: &ClientHello<'_>) -> Result<Option<&str>, UnknownHost> {
        let Some(name) = hello.server_name() else { return Ok(None) };
        self.hosts().find(name).map(Some).ok_or(UnknownHost)
    }

    /// Has ready whatever leaf this caller may need, so that resolving it does not wait.
    pub async fn prepare(&self, hello: &ClientHello<'_>) -> Result<(), LeafError> {
        if takes_ecdsa(hello.signature_schemes()) && has_suite_for_ecdsa(hello.cipher_suites()) {
            self.ecdsa()?;
        } else {
            self.rsa().await?;
        }
        Ok(())
    }
}

/// A caller named a host that is not one of the CA's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownHost;

impl ResolvesServerCert for LeafSource {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.requested_host(&hello).ok()?;
        // rustls has taken out by now what fits none of the caller's cipher suites.
        if takes_ecdsa(hello.signature_schemes()) { self.ecdsa().ok() } else { self.rsa_if_made()?.ok() }
    }
}

impl fmt::Debug for LeafSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafSource").field("hosts", self.hosts()).finish_non_exhaustive()
    }
}

fn takes_ecdsa(schemes: &[SignatureScheme]) -> bool {
    schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
}

/// TLS 1.3's suites go with every key; those of TLS 1.2 name theirs.
fn has_suite_for_ecdsa(suites: &[CipherSuite]) -> bool {
    suites.iter().any(|suite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        )
    })
}
