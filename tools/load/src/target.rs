//! Where calls go and how connections are made; TLS where the target asks for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

use super::LoadError;

/// A target whose name has been looked up.
pub struct ResolvedTarget {
    address: SocketAddr,
    /// As the Host field has it.
    pub authority: String,
    /// Without a slash at its end.
    pub base_path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// A connected socket, with TLS or without.
pub enum TargetStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ResolvedTarget {
    pub async fn find(url: &Url, trust: Option<&Arc<ClientConfig>>) -> Result<Self, LoadError> {
        let unreachable = |why: String| LoadError::Unreachable { target: url.clone(), why };
        let host = url.host_str().ok_or_else(|| unreachable("it names no host".into()))?;
        let port = url.port_or_known_default().ok_or_else(|| unreachable("it names no port".into()))?;
        let bare = host.trim_matches(['[', ']']);
        let address = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|error| unreachable(error.to_string()))?
            .next()
            .ok_or_else(|| unreachable("the name has no address".into()))?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(tls(bare, trust).map_err(LoadError::LoadPlan)?),
            _ => return Err(LoadError::LoadPlan(format!("{url}: a target begins with http:// or https://"))),
        };
        let target = Self {
            address,
            authority: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
            base_path: url.path().trim_end_matches('/').to_owned(),
            tls,
        };
        target.connect().await.map_err(unreachable)?;
        Ok(target)
    }

    pub async fn connect(&self) -> Result<TargetStream, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => Ok(TargetStream::Plain(stream)),
            Some((connector, name)) => {
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
                Ok(TargetStream::Tls(Box::new(stream)))
            }
        }
    }
}

fn tls(host: &str, trust: Option<&Arc<ClientConfig>>) -> Result<(TlsConnector, ServerName<'static>), String> {
    let trust = trust.ok_or("an https target needs to know whom to trust: name a CA file")?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    Ok((trust.clone().into(), name))
}

impl TargetStream {
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            TargetStream::Plain(stream) => stream.write_all(bytes).await,
            TargetStream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            TargetStream::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            TargetStream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}
