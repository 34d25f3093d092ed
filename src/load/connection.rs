//! One keep-alive connection of the load generator.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use url::Url;

use super::{Call, LoadError, Plan};

/// How connections are made.
pub struct Way {
    address: std::net::SocketAddr,
    authority: String,
    base_path: String,
    tls: Option<(tokio_rustls::TlsConnector, ServerName<'static>)>,
}

/// A call with everything that does not change from one sending to the next.
pub struct Prepared(Request<()>, Bytes);

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Way {
    pub async fn find(plan: &Plan) -> Result<Rc<Self>, LoadError> {
        let target = &plan.target;
        let unreachable = |why: String| LoadError::Unreachable { target: target.clone(), why };
        let host = target.host_str().ok_or_else(|| unreachable("it names no host".into()))?;
        let port = target.port_or_known_default().ok_or_else(|| unreachable("it names no port".into()))?;
        let bare = host.trim_matches(['[', ']']);
        let address = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|error| unreachable(error.to_string()))?
            .next()
            .ok_or_else(|| unreachable("the name has no address".into()))?;
        let way = Self {
            address,
            authority: authority(target, host),
            base_path: target.path().trim_end_matches('/').to_owned(),
            tls: tls(plan, bare).map_err(LoadError::Plan)?,
        };
        way.connect().await.map_err(unreachable)?;
        Ok(Rc::new(way))
    }

    pub fn prepare(&self, call: &Call) -> Result<Prepared, String> {
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = format!("{}{}", self.base_path, call.path)
            .parse()
            .map_err(|error| format!("{}: {error}", call.path))?;
        *request.headers_mut() = call.headers.clone();
        let host = self.authority.parse().map_err(|_| format!("{} is no host", self.authority))?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        Ok(Prepared(request, call.body.clone()))
    }

    pub async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(|error| error.to_string())?;
                handshake(stream).await
            }
        }
    }
}

fn authority(target: &Url, host: &str) -> String {
    match target.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn tls(plan: &Plan, host: &str) -> Result<Option<(tokio_rustls::TlsConnector, ServerName<'static>)>, String> {
    if plan.target.scheme() != "https" {
        return Ok(None);
    }
    let config: Arc<rustls::ClientConfig> =
        plan.tls.clone().ok_or("an https target needs to know whom to trust: name a CA file")?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    Ok(Some((config.into(), name)))
}

async fn handshake<S>(stream: S) -> Result<Connection, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(Connection { sender })
}

impl Connection {
    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends, and reads the answer to its end.
    pub async fn exchange(&mut self, call: &Prepared) -> Result<(u16, u64), String> {
        let Prepared(head, body) = call;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = head.method().clone();
        *request.uri_mut() = head.uri().clone();
        *request.headers_mut() = head.headers().clone();
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((status, bytes))
    }
}
