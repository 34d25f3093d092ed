//! Logs connections that fail before their first request, each peer at most once an hour: a probe that never
//! learns must not fill the log.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::{AlertDescription, Error, InvalidMessage};

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FailureKind {
    ProxyHeader,
    Handshake,
}

/// Which peers the log has heard of. Shared by all workers.
#[derive(Default)]
pub(super) struct FailureLog(Mutex<HashMap<(FailureKind, IpAddr), Instant>>);

const SILENCE: Duration = Duration::from_secs(3600);

/// Peers that are remembered. Beyond them nobody new is logged until an hour has passed; all are counted.
const MAX_PEERS: usize = 1024;

impl FailureLog {
    /// Whether this one is to be logged.
    pub(super) fn should_log(&self, failure: FailureKind, peer: IpAddr, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < SILENCE;
        let key = (failure, network_of(peer));
        if logged.get(&key).is_some_and(recent) {
            return false;
        }
        if logged.len() >= MAX_PEERS {
            logged.retain(|_, at| recent(at));
        }
        let room = logged.len() < MAX_PEERS;
        if room {
            logged.insert(key, now);
        }
        room
    }
}

/// One machine may have all addresses of an IPv6 /64.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Why a handshake failed, and what helps.
pub(super) fn handshake_reason(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the caller closed the connection before the handshake was over, as probes of a port do"
                    .to_owned()
            }
            _ => error.to_string(),
        };
    };
    let hint = match tls {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what came is no TLS; plain HTTP belongs to a listener without it"
        }
        Error::PeerIncompatible(_) => {
            "TLS 1.2 with ECDHE and AES-GCM is the least; Windows 7 and Server 2012 R2 need an ECDSA certificate here"
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "the caller does not trust this gateway's certificate: it has to know the CA, and use a name in it"
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure) => {
            "the caller found no version or cipher suite that both have"
        }
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
            "the caller's own certificate is not one that client_ca has signed, or has expired"
        }
        _ => return tls.to_string(),
    };
    format!("{tls}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_logged_once_an_hour_and_memory_is_bounded() {
        let log = FailureLog::default();
        let now = Instant::now();
        let peer: IpAddr = "192.0.2.7".parse().unwrap();
        assert!(log.should_log(FailureKind::Handshake, peer, now));
        assert!(!log.should_log(FailureKind::Handshake, "::ffff:192.0.2.7".parse().unwrap(), now));
        assert!(log.should_log(FailureKind::ProxyHeader, peer, now), "another kind is news");
        assert!(!log.should_log(FailureKind::Handshake, peer, now + SILENCE - Duration::from_secs(1)));
        assert!(log.should_log(FailureKind::Handshake, peer, now + SILENCE));
        assert!(log.should_log(FailureKind::Handshake, "2001:db8::1".parse().unwrap(), now));
        assert!(!log.should_log(FailureKind::Handshake, "2001:db8::2".parse().unwrap(), now), "the same /64");
        for number in 0..5000_u32 {
            log.should_log(FailureKind::Handshake, IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(log.0.lock().unwrap().len(), MAX_PEERS);
        assert!(log.should_log(FailureKind::Handshake, "198.51.100.1".parse().unwrap(), now + SILENCE * 2));
    }

    #[test]
    fn the_reason_is_told_in_words() {
        let logged = |error| handshake_reason(&io::Error::new(io::ErrorKind::InvalidData, error));
        let no_suite = Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon);
        assert!(logged(no_suite).contains("ECDSA certificate"));
        assert!(logged(Error::AlertReceived(AlertDescription::UnknownCA)).contains("does not trust"));
        assert!(logged(Error::InvalidMessage(InvalidMessage::InvalidContentType)).contains("plain HTTP"));
        assert!(handshake_reason(&io::ErrorKind::UnexpectedEof.into()).contains("probes"));
    }
}
