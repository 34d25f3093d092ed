//! TLS with the leaves of a private CA: the ClientHello is read first, and who asks for a host that is not
//! one of the CA's gets an alert and no certificate at all (threats, row 34).

use std::io;
use std::pin::pin;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::LeafSource;

use super::RequestedHost;

/// A record of type alert: fatal, `unrecognized_name` (RFC 8446, 5.1 and 6; RFC 6066, 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A connection, and the host that its caller asked for.
pub(super) type Accepted = (TlsStream<TcpStream>, RequestedHost);

/// `config` resolves its certificates by `leaves`. Inside a tunnel, `tunnel_host` is the only host that may
/// be asked for.
pub(super) async fn accept(
    leaves: &Arc<LeafSource>,
    config: Arc<ServerConfig>,
    tcp: TcpStream,
    tunnel_host: Option<&str>,
) -> io::Result<Accepted> {
    let mut start = pin!(LazyConfigAcceptor::new(Acceptor::default(), tcp)).await?;
    let asked = {
        let hello = start.client_hello();
        let asked = leaves.requested_host(&hello);
        asked.ok().filter(|asked| asked.is_none() || tunnel_host.is_none() || *asked == tunnel_host)
    };
    let Some(asked) = asked else {
        // Whoever has gone does not need it.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        return Err(io::Error::new(io::ErrorKind::InvalidInput, UNKNOWN_HOST));
    };
    let named = asked.or(tunnel_host).map(Box::from);
    let requested_host = named.map_or(RequestedHost::Unnamed, RequestedHost::Named);
    leaves.prepare(&start.client_hello()).await.map_err(io::Error::other)?;
    Ok((start.into_stream(config).await?, requested_host))
}

const UNKNOWN_HOST: &str =
    "the caller asked for a host that is not one of the private CA's: genapi-gateway ca show lists them";
