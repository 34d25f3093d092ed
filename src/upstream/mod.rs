//! How to reach a realm's hosts: names to permitted addresses, trust, outbound proxy. Control calls and
//! callers' calls take the same way, so that a private address or an unknown CA is refused on both (threats,
//! rows 7 and 24).

mod connect_error;
mod happy_eyeballs;
mod proxy;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod trust;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use url::{Host, Url};

use crate::config;
use crate::model::route::{is_private, without_final_dot};

pub use connect_error::{ConnectError, TlsHandshakeError};
pub use proxy::ProxyVariables;
pub use stream::Stream;
use stream::TlsTransport;

use proxy::OutboundProxy;

/// Connects to one realm's hosts. Cloning costs a reference count.
#[derive(Clone)]
pub struct Connector(Arc<ConnectorInner>);

struct ConnectorInner {
    tls: Arc<rustls::ClientConfig>,
    resolve: BTreeMap<String, IpAddr>,
    allow_insecure: bool,
    connect_timeout: Duration,
    proxy: Option<OutboundProxy>,
    /// Of the addresses that the configuration names.
    ports: BTreeMap<String, u16>,
}

/// How long a library's connection waits to learn which address answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

impl Connector {
    /// Reads CA files and the proxy's address; opens no connection. `variables` are HTTPS_PROXY and NO_PROXY
    /// as a value.
    pub fn new(
        realm: &config::RealmConfig,
        upstream: &config::UpstreamConfig,
        variables: &ProxyVariables,
    ) -> Result<Self, ConnectError> {
        let named = [&realm.oauth_base, &realm.base_url].into_iter();
        let ports = named.filter_map(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
        let resolve = realm
            .resolve
            .iter()
            .map(|(name, address)| (without_final_dot(name).to_ascii_lowercase(), *address));
        Ok(Self(Arc::new(ConnectorInner {
            tls: trust::client_config(realm)?,
            resolve: resolve.collect(),
            allow_insecure: realm.hosts.allow_insecure,
            connect_timeout: upstream.connect_timeout,
            proxy: OutboundProxy::choose(&upstream.proxy, variables)?,
            ports: ports.collect(),
        })))
    }

    /// The TLS configuration: the system's CAs and the realm's, HTTP/1.1 only.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        self.0.tls.clone()
    }

    /// Where a host may be called: its pinned address, else what DNS says without private addresses. Literal
    /// addresses are for sandboxes. The proxy's own name may stand for a private address: the operator wrote
    /// it down.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        if let Some(pinned) = self.pinned(host) {
            return Ok(vec![SocketAddr::new(pinned, port)]);
        }
        let is_proxy = self.0.proxy.as_ref().is_some_and(|proxy| proxy.host() == host);
        if let Some(literal) = literal_address(host) {
            if !is_proxy {
                self.check_literal(host)?;
            }
            return Ok(vec![SocketAddr::new(literal, port)]);
        }
        let addresses = resolve_host(host, port).await?;
        if is_proxy || self.0.allow_insecure { Ok(addresses) } else { without_private(host, addresses) }
    }

    /// A connection to `host`, through the proxy where one applies, within `upstream.connect_timeout` in all.
    /// Nothing of a request has been sent when this fails.
    pub async fn connect(&self, host: &str, port: u16, secure: bool) -> Result<Stream, ConnectError> {
        match tokio::time::timeout(self.0.connect_timeout, self.open(host, port, secure)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.timed_out(host, port)),
        }
    }

    /// The proxy, with its credentials, that a call to this URL has to take.
    ///
    /// Only https takes one: plain http is for sandboxes, which are near. A host with a pinned address is
    /// called at that address, so it takes none either.
    pub fn proxy_for(&self, url: &Url) -> Option<&Url> {
        let host = url.host_str()?;
        let port = url.port_or_known_default()?;
        self.proxy(host, port, url.scheme() == "https").map(OutboundProxy::url)
    }

    async fn open(&self, host: &str, port: u16, secure: bool) -> Result<Stream, ConnectError> {
        if !secure {
            self.check_plain(host)?;
            return self.dial(host, port).await.map(Stream::Plain);
        }
        let name = server_name(host)?;
        let tcp = match self.proxy(host, port, secure) {
            None => self.dial(host, port).await?,
            Some(proxy) => {
                // The proxy looks the name up, so only the name itself can be checked here.
                self.check_literal(host)?;
                let unreachable = |error| proxy.unreachable(&error);
                let mut tcp = self.dial(proxy.host(), proxy.port()).await.map_err(unreachable)?;
                proxy.tunnel(&mut tcp, host, port).await?;
                tcp
            }
        };
        let connector = tokio_rustls::TlsConnector::from(self.0.tls.clone());
        match connector.connect(name, TlsTransport(tcp)).await {
            Ok(tls) => Ok(Stream::Tls(Box::new(tls))),
            Err(error) => Err(ConnectError::handshake(host, &error)),
        }
    }

    /// A connection to whichever address answers first; the caller has the deadline.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = self.addresses(host, port).await?;
        let failed = |why| ConnectError::ConnectFailed { host: host.to_owned(), port, why };
        happy_eyeballs::connect(addresses).await.map_err(failed)
    }

    /// For a library that connects by itself, to one address after the other: the one that answers first
    /// comes first. Their port is 0, which stands for the URL's own.
    pub async fn addresses_fastest_first(&self, host: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        let port = self.usual_port(host);
        let mut addresses =
            happy_eyeballs::fastest_first(self.addresses(host, port).await?, PROBE_TIMEOUT).await;
        addresses.iter_mut().for_each(|address| address.set_port(0));
        Ok(addresses)
    }

    /// The port of the realm's own addresses and of the proxy; for other hosts that of https.
    fn usual_port(&self, host: &str) -> u16 {
        let proxy = self.0.proxy.as_ref().filter(|proxy| proxy.host() == host).map(OutboundProxy::port);
        let known = || self.0.ports.get(&host.to_ascii_lowercase()).copied();
        proxy.or_else(known).unwrap_or(443)
    }

    fn timed_out(&self, host: &str, port: u16) -> ConnectError {
        ConnectError::TimedOut { host: host.to_owned(), port, after: self.0.connect_timeout }
    }

    fn pinned(&self, host: &str) -> Option<IpAddr> {
        self.0.resolve.get(&host.to_ascii_lowercase()).copied()
    }

    fn proxy(&self, host: &str, port: u16, secure: bool) -> Option<&OutboundProxy> {
        let proxy = self.0.proxy.as_ref()?;
        (secure && self.pinned(host).is_none() && proxy.applies_to(host, port)).then_some(proxy)
    }

    fn check_plain(&self, host: &str) -> Result<(), ConnectError> {
        if self.0.allow_insecure {
            Ok(())
        } else {
            Err(refused(host, "plain http is refused; a sandbox needs `allow_insecure = true`"))
        }
    }

    fn check_literal(&self, host: &str) -> Result<(), ConnectError> {
        match literal_address(host) {
            Some(_) if !self.0.allow_insecure => Err(refused(
                host,
                "an address instead of a name is refused; a sandbox needs `allow_insecure = true`",
            )),
            _ => Ok(()),
        }
    }
}

fn refused(host: &str, why: &str) -> ConnectError {
    ConnectError::AddressRefused { host: host.to_owned(), why: why.to_owned() }
}

/// The address that a host *is*, in every spelling that a resolver would take for one (`127.1`, `0x7f.0.0.1`,
/// `[::1]`).
fn literal_address(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    match Host::parse(host) {
        Ok(Host::Ipv4(address)) => Some(address.into()),
        Ok(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    }
}

async fn resolve_host(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let unknown = |why: String| ConnectError::NameUnknown { host: host.to_owned(), why };
    let mut addresses = Vec::new();
    for address in tokio::net::lookup_host((host, port)).await.map_err(|error| unknown(error.to_string()))? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(unknown("it has no address".to_owned())) } else { Ok(addresses) }
}

fn without_private(host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, ConnectError> {
    let (private, public): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| is_private(a.ip()));
    match private.first() {
        Some(address) if public.is_empty() => Err(refused(
            host,
            &format!(
                "DNS says {}, a private address; if that is meant, name host and address in `resolve`",
                address.ip()
            ),
        )),
        _ => Ok(public),
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectError> {
    if let Some(address) = literal_address(host) {
        return Ok(ServerName::IpAddress(address.into()));
    }
    ServerName::try_from(host.to_owned()).map_err(|_| refused(host, "this is not a host name"))
}

#[cfg(test)]
mod tests {
    use super::testing::{ServerIdentity, TestAuthority, realm, tls_echo, unresponsive_address, upstream};
    use super::*;
    use crate::config::ProxyChoice;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn connector(realm: &config::RealmConfig) -> Connector {
        Connector::new(realm, &upstream(), &ProxyVariables::default()).unwrap()
    }

    fn strict_realm() -> config::RealmConfig {
        let mut strict = realm();
        strict.hosts.allow_insecure = false;
        strict
    }

    fn pinned_realm(host: &str) -> config::RealmConfig {
        let mut pinned = strict_realm();
        pinned.resolve.insert(host.to_owned(), "127.0.0.1".parse().unwrap());
        pinned
    }

    async fn handshake(identity: ServerIdentity, trusted: &TestAuthority) -> Result<Stream, ConnectError> {
        let server = tls_echo(identity).await;
        let mut realm = pinned_realm("api.gateway.test");
        realm.ca_file = Some(trusted.ca_file());
        connector(&realm).connect("api.gateway.test", server.port(), true).await
    }

    #[tokio::test]
    async fn a_literal_address_is_refused_in_every_spelling() {
        for host in ["127.0.0.1", "8.8.8.8", "[::1]", "::1", "127.1", "0x7f.0.0.1", "2130706433"] {
            let refused = connector(&strict_realm()).addresses(host, 443).await.unwrap_err();
            assert!(matches!(refused, ConnectError::AddressRefused { .. }), "{host}: {refused}");
        }
        assert_eq!(
            connector(&realm()).addresses("[::1]", 80).await.unwrap(),
            vec!["[::1]:80".parse::<SocketAddr>().unwrap()]
        );
    }

    #[tokio::test]
    async fn a_name_that_means_a_private_address_is_refused_unless_it_is_pinned() {
        let refused = connector(&strict_realm()).addresses("localhost", 443).await.unwrap_err();
        assert!(
            matches!(&refused, ConnectError::AddressRefused { host, .. } if host == "localhost"),
            "{refused}"
        );
        assert!(refused.to_string().contains("`resolve`"), "{refused}");
        let pinned = connector(&pinned_realm("LOCALHOST")).addresses("localhost", 443).await.unwrap();
        assert_eq!(pinned, vec!["127.0.0.1:443".parse::<SocketAddr>().unwrap()]);
        assert!(!connector(&realm()).addresses("localhost", 443).await.unwrap().is_empty());
    }

    #[test]
    fn of_a_mixed_response_only_the_public_addresses_are_used() {
        let addresses = vec!["10.0.0.1:443".parse().unwrap(), "8.8.8.8:443".parse().unwrap()];
        assert_eq!(without_private("x.test", addresses).unwrap(), vec!["8.8.8.8:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn plain_http_needs_allow_insecure() {
        let refused = connector(&strict_realm()).connect("api.gateway.test", 80, false).await.err().unwrap();
        assert!(refused.to_string().contains("allow_insecure"), "{refused}");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failed_connect_that_names_host_and_port() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let failed = connector(&realm()).connect("127.0.0.1", port, false).await.err().unwrap();
        assert!(matches!(&failed, ConnectError::ConnectFailed { .. }), "{failed}");
        assert!(failed.to_string().contains(&format!("127.0.0.1:{port}")), "{failed}");
    }

    #[tokio::test]
    async fn an_address_that_does_not_respond_is_followed_by_the_next() {
        // `localhost` is often ::1 first, and nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!connector(&realm()).connect("localhost", port, false).await.unwrap().is_secure());
    }

    #[tokio::test]
    async fn an_address_that_never_responds_times_the_attempt_out() {
        let silent = unresponsive_address();
        let mut short = upstream();
        short.connect_timeout = Duration::from_millis(50);
        let connector = Connector::new(&realm(), &short, &ProxyVariables::default()).unwrap();
        let late = connector.connect("127.0.0.1", silent.address.port(), false).await.err().unwrap();
        assert!(matches!(late, ConnectError::TimedOut { .. }), "{late}");
    }

    #[tokio::test]
    async fn a_library_is_given_first_the_address_that_responds() {
        // `localhost` is ::1 as well on most machines, and nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut realm = realm();
        let port = listener.local_addr().unwrap().port();
        realm.oauth_base = format!("http://localhost:{port}").parse().unwrap();
        let addresses = connector(&realm).addresses_fastest_first("localhost").await.unwrap();
        assert_eq!(addresses[0], "127.0.0.1:0".parse::<SocketAddr>().unwrap());
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_is_cut_by_the_connect_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut short = upstream();
        short.connect_timeout = Duration::from_millis(50);
        let connector = Connector::new(&realm(), &short, &ProxyVariables::default()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let late = connector.connect("127.0.0.1", port, true).await.err().unwrap();
        assert!(matches!(late, ConnectError::TimedOut { .. }), "{late}");
    }

    #[tokio::test]
    async fn a_certificate_of_the_realms_own_ca_is_trusted_and_bytes_flow_both_ways() {
        let ours = TestAuthority::new("ours");
        let mut stream = handshake(ours.issue("api.gateway.test"), &ours).await.unwrap();
        assert!(stream.is_secure());
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"ping");
    }

    #[tokio::test]
    async fn a_bad_certificate_is_refused_and_its_fault_is_told() {
        let ours = TestAuthority::new("ours");
        for (identity, fault) in [
            (ours.issue_expired("api.gateway.test"), TlsHandshakeError::Expired),
            (ours.issue("other.gateway.test"), TlsHandshakeError::WrongName),
            (TestAuthority::new("theirs").issue("api.gateway.test"), TlsHandshakeError::UnknownCa),
        ] {
            let error = handshake(identity, &ours).await.err().unwrap();
            assert_eq!(error, ConnectError::Tls { host: "api.gateway.test".to_owned(), why: fault });
            assert!(error.is_certificate());
        }
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_no_certificate_trouble() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let error = connector(&realm()).connect("127.0.0.1", port, true).await.err().unwrap();
        assert!(matches!(error, ConnectError::Tls { why: TlsHandshakeError::Handshake(_), .. }), "{error}");
        assert!(!error.is_certificate());
    }

    #[tokio::test]
    async fn a_pinned_host_and_plain_http_take_no_proxy() {
        let mut proxied = upstream();
        proxied.proxy = ProxyChoice::Url("http://127.0.0.1:3128".parse().unwrap());
        let mut pinned = pinned_realm("api.gateway.test");
        pinned.hosts.allow_insecure = true;
        let connector = Connector::new(&pinned, &proxied, &ProxyVariables::default()).unwrap();
        for (url, takes) in [
            ("https://eu.gateway.test/x", true),
            ("http://eu.gateway.test/x", false),
            ("https://api.gateway.test/x", false),
            ("https://localhost/x", false),
        ] {
            assert_eq!(connector.proxy_for(&url.parse().unwrap()).is_some(), takes, "{url}");
        }
    }
}
