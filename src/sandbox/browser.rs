//! The browser's part of a login over real sockets, for tests and `demo`: it fills in the pages as a person
//! would. It reaches every host by its port, so host names need no resolver.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Handle;

impl Handle {
    /// Logs in with a right password and returns the redirect URL with its code, which is not fetched.
    pub async fn log_in(&self, authorize_url: &str, email: &str, password: &str) -> anyhow::Result<String> {
        let first = self.get(authorize_url).await?;
        let Some(login_page) = location(&first) else {
            bail!("authorize answered {}: {}", first.status(), text(&first));
        };
        if !login_page.starts_with(&self.origin_of(authorize_url)?) {
            // An error of the application's part goes straight back to it.
            return Ok(login_page);
        }
        let page = self.get(&login_page).await?;
        let ticket = hidden_ticket(&text(&page)).context("the login page has no form")?;
        let form = [("ticket", ticket.as_str()), ("email", email)];
        let page = self.post(&login_page, "/login/email", &form).await?;
        let ticket = hidden_ticket(&text(&page)).context("the second page has no form")?;
        let form = [("ticket", ticket.as_str()), ("password", password)];
        let response = self.post(&login_page, "/login/password", &form).await?;
        location(&response).context("e-mail address or password was refused")
    }

    /// Presses Cancel on the first page and returns the redirect URL with its error.
    pub async fn cancel_login(&self, authorize_url: &str) -> anyhow::Result<String> {
        let first = self.get(authorize_url).await?;
        let login_page = location(&first).context("authorize did not lead to the login page")?;
        let page = self.get(&login_page).await?;
        let ticket = hidden_ticket(&text(&page)).context("the login page has no form")?;
        let response = self.post(&login_page, "/login/cancel", &[("ticket", &ticket)]).await?;
        location(&response).context("cancelling led nowhere")
    }

    /// One request to any host, on a connection of its own, with the whole response read.
    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<http::Response<Bytes>> {
        let url = Url::parse(&request.uri().to_string())?;
        let port = url.port().context("no port")?;
        let address = self.context.addresses.values().find(|address| address.port() == port);
        let address = *address.context("no host of this sandbox listens there")?;
        let stream = connect(address).await?;
        match url.scheme() {
            "https" => {
                let name = ServerName::try_from(url.host_str().unwrap_or_default().to_owned())?;
                exchange(self.connector()?.connect(name, stream).await?, request).await
            }
            _ => exchange(stream, request).await,
        }
    }

    async fn get(&self, url: &str) -> anyhow::Result<http::Response<Bytes>> {
        self.send(http::Request::get(url).body(Full::default())?).await
    }

    async fn post(
        &self,
        page: &str,
        action: &str,
        form: &[(&str, &str)],
    ) -> anyhow::Result<http::Response<Bytes>> {
        let url = format!("{}{action}", self.origin_of(page)?);
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let kind = "application/x-www-form-urlencoded";
        let request = http::Request::post(url).header("content-type", kind);
        self.send(request.body(Full::from(body))?).await
    }

    fn origin_of(&self, url: &str) -> anyhow::Result<String> {
        Ok(Url::parse(url)?.origin().ascii_serialization())
    }

    /// Trusts the sandbox's own authority and nobody else.
    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let pem = self.ca_pem().context("the sandbox has no TLS")?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))
}

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> anyhow::Result<http::Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        parts.headers.insert("host", authority.as_str().parse()?);
    }
    parts.uri = parts.uri.path_and_query().map_or("/", |target| target.as_str()).parse()?;
    let talk = async {
        let response = sender.send_request(http::Request::from_parts(parts, body)).await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        drop(sender);
        Ok(http::Response::from_parts(parts, bytes))
    };
    let (response, _) = tokio::join!(talk, connection);
    response
}

fn location(response: &http::Response<Bytes>) -> Option<String> {
    response.headers().get("location")?.to_str().ok().map(str::to_owned)
}

fn text(response: &http::Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

fn hidden_ticket(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("name=ticket value=\"")?;
    rest.split_once('"').map(|(ticket, _)| ticket.to_owned())
}
