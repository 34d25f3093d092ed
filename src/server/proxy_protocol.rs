//! PROXY protocol, version 2: the caller's address as a trusted proxy tells it. Read from trusted proxies
//! only.
//!
//! Facts: HAProxy's `proxy-protocol.txt`, section 2.2.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Addresses take 36 bytes, the TLVs that balancers add some hundred more. The format itself would allow 64
/// K.
const MAX_REST: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    /// HAProxy's `send-proxy`, nginx's `proxy_protocol on`: a line of text.
    #[error("{VERSION_1}")]
    VersionOne,
    #[error("the PROXY header did not arrive: {0}")]
    Io(#[from] io::Error),
}

/// The response to a proxy that speaks version 1.
pub(super) const VERSION_1: &str = "the PROXY header is of version 1, and only version 2 is read: set send-proxy-v2 in HAProxy, or \
    have the balancer add X-Forwarded-For instead";

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionStart {
    VersionTwo,
    VersionOne,
    Other,
}

/// Reads the header if there is one. `None`: there is none, or it speaks for the balancer itself (LOCAL,
/// health checks).
pub(super) async fn read(socket: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    match detect_start(socket).await? {
        ConnectionStart::VersionTwo => read_header(socket).await,
        ConnectionStart::VersionOne => Err(ProxyError::VersionOne),
        ConnectionStart::Other => Ok(None),
    }
}

/// Looks without taking: a balancer may just as well send TLS or HTTP at once.
async fn detect_start(socket: &TcpStream) -> io::Result<ConnectionStart> {
    let mut start = [0; SIGNATURE.len()];
    loop {
        let seen = socket.peek(&mut start).await?;
        if let Some(detect_start) = classify_start(&start[..seen]) {
            return Ok(detect_start);
        }
        // A signature that comes in pieces. What was seen stays readable, so there is nothing to wait for but
        // time.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `None` where more has to come before it can be decided.
fn classify_start(seen: &[u8]) -> Option<ConnectionStart> {
    let known = [
        (&SIGNATURE[..], ConnectionStart::VersionTwo),
        (b"PROXY TCP4 ", ConnectionStart::VersionOne),
        (b"PROXY TCP6 ", ConnectionStart::VersionOne),
        (b"PROXY UNKNOW", ConnectionStart::VersionOne),
    ];
    if seen.is_empty() {
        return Some(ConnectionStart::Other);
    }
    match known.iter().find(|(begin, _)| seen.starts_with(begin)) {
        Some((_, detect_start)) => Some(*detect_start),
        None if known.iter().any(|(begin, _)| begin.starts_with(seen)) => None,
        None => Some(ConnectionStart::Other),
    }
}

async fn read_header(socket: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyError> {
    let mut fixed = [0; 16];
    socket.read_exact(&mut fixed).await?;
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MAX_REST {
        return Err(ProxyError::Malformed("too long"));
    }
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    address(fixed[12], fixed[13], &rest)
}

fn address(version_and_command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match version_and_command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("unknown version or command")),
    }
    match family {
        0x11 => match rest.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, high, low, _, _]) => {
                let ip = Ipv4Addr::new(*a, *b, *c, *d);
                Ok(Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low])))))
            }
            None => Err(ProxyError::Malformed("too short for IPv4")),
        },
        0x21 => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(ip), Some([high, low, _, _])) => {
                let ip = Ipv6Addr::from(*ip).to_canonical();
                Ok(Some(SocketAddr::from((ip, u16::from_be_bytes([*high, *low])))))
            }
            _ => Err(ProxyError::Malformed("too short for IPv6")),
        },
        // UNSPEC and Unix sockets name nobody: the connection stands for the balancer.
        0x00 | 0x31 | 0x32 => Ok(None),
        _ => Err(ProxyError::Malformed("not TCP")),
    }
}

#[cfg(test)]
pub(super) fn header_v4(source: std::net::SocketAddrV4) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([0x21, 0x11, 0, 12]);
    header.extend(source.ip().octets());
    header.extend([127, 0, 0, 1]);
    header.extend(source.port().to_be_bytes());
    header.extend([0, 80]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_told_apart_as_soon_as_it_can_be() {
        for (seen, classified) in [
            (&b""[..], Some(ConnectionStart::Other)),
            (b"P", None),
            (b"PO", Some(ConnectionStart::Other)),
            (b"PROXY ", None),
            (b"PROXY / HTTP", Some(ConnectionStart::Other)),
            (b"PROXY TCP4 1", Some(ConnectionStart::VersionOne)),
            (b"PROXY TCP6 :", Some(ConnectionStart::VersionOne)),
            (b"PROXY UNKNOW", Some(ConnectionStart::VersionOne)),
            (b"\r\n\r\n", None),
            (SIGNATURE, Some(ConnectionStart::VersionTwo)),
        ] {
            assert_eq!(classify_start(seen), classified, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn addresses_are_read_and_what_is_malformed_is_refused() {
        let v4 = header_v4("203.0.113.9:4711".parse().unwrap());
        let mut bytes = &v4[..];
        assert_eq!(read_header(&mut bytes).await.unwrap(), Some("203.0.113.9:4711".parse().unwrap()));
        assert!(bytes.is_empty());

        let mut v6 = vec![0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&99u16.to_be_bytes());
        assert_eq!(address(0x21, 0x21, &v6).unwrap(), Some("[2001:db8::7]:99".parse().unwrap()));

        assert_eq!(address(0x20, 0x11, &[0; 12]).unwrap(), None, "LOCAL keeps the balancer's address");
        assert_eq!(address(0x21, 0x00, &[]).unwrap(), None);
        assert!(address(0x11, 0x11, &[0; 12]).is_err(), "version 1");
        assert!(address(0x21, 0x11, &[0; 11]).is_err());
        assert!(address(0x21, 0x21, &[0; 35]).is_err());
        assert!(address(0x21, 0x12, &[0; 12]).is_err(), "UDP");

        let mut long = SIGNATURE.to_vec();
        long.extend([0x21, 0x11, 0xff, 0xff]);
        assert!(matches!(read_header(&mut &long[..]).await, Err(ProxyError::Malformed("too long"))));
    }
}
