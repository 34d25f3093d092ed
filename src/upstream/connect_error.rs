//! Why a host could not be reached, in sentences that name host and remedy. Nothing of a request has been
//! sent.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::CertificateError;

/// Why there is no connection. Nothing of a request was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the name {host} cannot be looked up ({why}): check its spelling and this machine's DNS")]
    NameUnknown { host: String, why: String },
    #[error("{host} is not called: {why}")]
    AddressRefused { host: String, why: String },
    #[error(
        "no connection to {host}:{port} ({why}): check the network, a firewall, or whether a proxy is needed"
    )]
    ConnectFailed { host: String, port: u16, why: String },
    #[error("no connection to {host}:{port} within {} ms: check the network or a firewall", .after.as_millis())]
    TimedOut { host: String, port: u16, after: Duration },
    #[error("no TLS with {host}: {why}")]
    Tls { host: String, why: TlsHandshakeError },
    #[error("the proxy {proxy} {why}")]
    Proxy { proxy: String, why: String },
    /// The configuration cannot work on this machine; found when it is loaded.
    #[error("{why}")]
    Setup { why: String },
}

/// What went wrong in the handshake. The certificate's faults are distinguished, since each has another
/// remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsHandshakeError {
    Expired,
    NotYetValid,
    WrongName,
    UnknownCa,
    /// Another fault of the certificate.
    Certificate(String),
    /// No fault of the certificate: another protocol, a broken connection.
    Handshake(String),
}

impl ConnectError {
    /// Whether the platform's certificate is the trouble.
    pub fn is_certificate(&self) -> bool {
        matches!(self, ConnectError::Tls { why, .. } if !matches!(why, TlsHandshakeError::Handshake(_)))
    }

    /// The trouble that an HTTP library has wrapped into its own error, if it was ours or TLS's.
    pub fn found_in(host: &str, error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = recognize(host, error) {
                return Some(found);
            }
            // An io::Error reports its content's source and leaves the content itself out.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(content) => Some(content),
                None => error.source(),
            };
        }
        None
    }

    pub(super) fn handshake(host: &str, error: &io::Error) -> Self {
        Self::found_in(host, error).unwrap_or_else(|| Self::Tls {
            host: host.to_owned(),
            why: TlsHandshakeError::Handshake(error.to_string()),
        })
    }
}

fn recognize(host: &str, error: &(dyn Error + 'static)) -> Option<ConnectError> {
    if let Some(ours) = error.downcast_ref::<ConnectError>() {
        return Some(ours.clone());
    }
    let why = TlsHandshakeError::from(error.downcast_ref::<rustls::Error>()?);
    Some(ConnectError::Tls { host: host.to_owned(), why })
}

impl From<&rustls::Error> for TlsHandshakeError {
    fn from(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(fault) = error else {
            return TlsHandshakeError::Handshake(error.to_string());
        };
        match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsHandshakeError::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsHandshakeError::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsHandshakeError::WrongName
            }
            CertificateError::UnknownIssuer => TlsHandshakeError::UnknownCa,
            other => TlsHandshakeError::Certificate(other.to_string()),
        }
    }
}

impl fmt::Display for TlsHandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsHandshakeError::Expired => f.write_str("its certificate has expired; check this machine's clock too"),
            TlsHandshakeError::NotYetValid => {
                f.write_str("its certificate is not valid yet; check this machine's clock")
            }
            TlsHandshakeError::WrongName => f.write_str("its certificate is made out to another name"),
            TlsHandshakeError::UnknownCa => {
                f.write_str("its certificate comes from a CA that is not trusted here; if it is yours or your proxy's, name it in `ca_file`")
            }
            TlsHandshakeError::Certificate(why) => write!(f, "its certificate is refused ({why})"),
            TlsHandshakeError::Handshake(why) => write!(f, "the handshake failed ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_found_under_the_wrappings_of_a_library() {
        let ours = ConnectError::NameUnknown { host: "a.test".to_owned(), why: "x".to_owned() };
        let wrapped = io::Error::other(io::Error::other(ours.clone()));
        assert_eq!(ConnectError::found_in("b.test", &wrapped), Some(ours));

        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let found = ConnectError::found_in("b.test", &io::Error::other(expired)).unwrap();
        assert_eq!(found, ConnectError::Tls { host: "b.test".to_owned(), why: TlsHandshakeError::Expired });
        assert_eq!(ConnectError::found_in("b.test", &io::Error::other("something else")), None);
    }
}
