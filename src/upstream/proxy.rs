//! The outbound proxy: which hosts take it, and the CONNECT that opens a tunnel through it. Its password is
//! never printed.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::config::{self, ProxyChoice};

use crate::model::route::without_final_dot;

use super::{ConnectError, literal_address};

/// HTTPS_PROXY and NO_PROXY as a value, so that tests need not touch the environment. Not printable: a
/// proxy's address may hold a password.
#[derive(Clone, Default)]
pub struct ProxyVariables {
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

impl ProxyVariables {
    /// Lower case wins, as in curl.
    pub fn from_env() -> Self {
        let read = |lower: &str, upper: &str| {
            let set = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
            set(lower).or_else(|| set(upper))
        };
        Self { https_proxy: read("https_proxy", "HTTPS_PROXY"), no_proxy: read("no_proxy", "NO_PROXY") }
    }
}

pub(super) struct OutboundProxy {
    url: Url,
    host: String,
    port: u16,
    exempt: Vec<NoProxyEntry>,
}

/// An entry of NO_PROXY. hyper-util has a matcher for it that knows neither ports nor final dots nor `*.`.
enum NoProxyEntry {
    Everything,
    Network(IpNet),
    /// The name and everything below it, as curl has it.
    Name {
        suffix: String,
        port: Option<u16>,
    },
}

impl OutboundProxy {
    /// NO_PROXY holds for a proxy of the configuration as well: it says what is near, whoever names the
    /// proxy.
    pub(super) fn choose(
        choice: &ProxyChoice,
        variables: &ProxyVariables,
    ) -> Result<Option<Self>, ConnectError> {
        let url = match (choice, &variables.https_proxy) {
            (ProxyChoice::None, _) | (ProxyChoice::Environment, None) => return Ok(None),
            (ProxyChoice::Url(url), _) => url.clone(),
            (ProxyChoice::Environment, Some(text)) => parse(text)?,
        };
        let host = match (url.scheme(), url.host_str()) {
            ("http", Some(host)) => without_final_dot(host).to_owned(),
            _ => return Err(setup("only http:// proxies (CONNECT) are spoken to")),
        };
        let port = url.port_or_known_default().ok_or_else(|| setup("its port is missing"))?;
        let exempt = variables.no_proxy.as_deref().unwrap_or_default();
        Ok(Some(Self { url, host, port, exempt: parse_no_proxy(exempt) }))
    }

    /// With user and password, for the one library that wants it so.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether calls to this host take the proxy. Loopback never does: a sandbox must not depend on the
    /// environment.
    pub(super) fn applies_to(&self, host: &str, port: u16) -> bool {
        let host = without_final_dot(host).to_ascii_lowercase();
        let address = literal_address(&host);
        let local = host == "localhost" || host.ends_with(".localhost");
        if local || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        !self.exempt.iter().any(|parse_no_proxy_entry| parse_no_proxy_entry.matches(&host, address, port))
    }

    /// Asks for a tunnel to `host`. Not a byte beyond the response's head is read: what follows belongs to
    /// the tunnel.
    pub(super) async fn tunnel(
        &self,
        tcp: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> Result<(), ConnectError> {
        let broken = |error: std::io::Error| self.error(format!("broke the connection ({error})"));
        tcp.write_all(self.request(host, port).as_bytes()).await.map_err(broken)?;
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                return Err(self.error("answered CONNECT with something endless"));
            }
            // One byte at a time: some hundred small reads per connection, and none of the tunnel's bytes can
            // be lost.
            head.push(tcp.read_u8().await.map_err(broken)?);
        }
        match status(&head) {
            Some(200..=299) => Ok(()),
            Some(407) => Err(self.error(
                "wants other credentials (407): write them into its address, http://user:password@host:port",
            )),
            Some(403) => Err(self.error(format!("does not allow {host}:{port} (403): ask whoever runs it"))),
            Some(other) => Err(self.error(format!("answered {other} to CONNECT {host}:{port}"))),
            None => Err(self.error("did not answer CONNECT with HTTP")),
        }
    }

    pub(super) fn unreachable(&self, error: &ConnectError) -> ConnectError {
        self.error(format!("cannot be reached: {error}"))
    }

    fn request(&self, host: &str, port: u16) -> String {
        let credentials = self.credentials().unwrap_or_default();
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials}\r\n")
    }

    fn credentials(&self) -> Option<String> {
        if self.url.username().is_empty() && self.url.password().is_none() {
            return None;
        }
        let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let mut pair = plain(self.url.username());
        pair.push(b':');
        pair.extend(plain(self.url.password().unwrap_or_default()));
        Some(format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(pair)))
    }

    fn error(&self, why: impl Into<String>) -> ConnectError {
        ConnectError::Proxy { proxy: format!("{}:{}", self.host, self.port), why: why.into() }
    }
}

impl NoProxyEntry {
    fn matches(&self, host: &str, address: Option<IpAddr>, asked: u16) -> bool {
        match self {
            NoProxyEntry::Everything => true,
            NoProxyEntry::Network(network) => address.is_some_and(|address| network.contains(&address)),
            NoProxyEntry::Name { suffix, port } => {
                let below = host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (host == suffix || below) && port.is_none_or(|port| port == asked)
            }
        }
    }
}

const MAX_HEAD: usize = 8 * 1024;

fn parse(text: &str) -> Result<Url, ConnectError> {
    let text = text.trim();
    if let Some(error) = config::proxy_credentials_problem(text) {
        return Err(setup(error));
    }
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    // The text itself may hold a password, so it is not repeated.
    url.map_err(|error| setup(&format!("HTTPS_PROXY is not an address ({error})")))
}

fn setup(why: &str) -> ConnectError {
    ConnectError::Setup { why: format!("the outbound proxy is not usable: {why}; see `proxy` in [upstream]") }
}

fn parse_no_proxy(text: &str) -> Vec<NoProxyEntry> {
    let entries = text.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| parse_no_proxy_entry(&entry.to_ascii_lowercase())).collect()
}

fn parse_no_proxy_entry(entry: &str) -> NoProxyEntry {
    if entry == "*" {
        return NoProxyEntry::Everything;
    }
    if let Ok(network) = entry.parse() {
        return NoProxyEntry::Network(network);
    }
    if let Some(address) = literal_address(without_final_dot(entry)) {
        return NoProxyEntry::Network(address.into());
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
        _ => (entry, None),
    };
    let suffix = name.strip_prefix('*').unwrap_or(name).trim_start_matches('.');
    let suffix = without_final_dot(suffix).to_owned();
    NoProxyEntry::Name { suffix, port }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TestAuthority, connect_proxy, realm, tls_echo, upstream};
    use super::super::{Connector, Stream};
    use super::*;

    fn proxy(no_proxy: &str) -> OutboundProxy {
        let variables = ProxyVariables {
            https_proxy: Some("http://user:p%40ss@proxy.test:3128".to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
        };
        OutboundProxy::choose(&ProxyChoice::Environment, &variables).unwrap().unwrap()
    }

    #[test]
    fn no_proxy_knows_names_suffixes_ports_networks_and_the_star() {
        for (no_proxy, host, exempt) in [
            ("", "eu.iterocloud.com", false),
            ("*", "eu.iterocloud.com", true),
            ("iterocloud.com", "eu.iterocloud.com", true),
            (".iterocloud.com", "eu.iterocloud.com", true),
            (".iterocloud.com.", "eu.iterocloud.com", true),
            ("eu.iterocloud.com.", "eu.iterocloud.com", true),
            ("eu.iterocloud.com", "eu.iterocloud.com.", true),
            ("eu.iterocloud.com.:443", "eu.iterocloud.com", true),
            (".", "eu.iterocloud.com", false),
            ("com..", "eu.iterocloud.com", false),
            ("*.iterocloud.com", "EU.iterocloud.com", true),
            ("iterocloud.com", "eviliterocloud.com", false),
            ("other.test, eu.iterocloud.com", "eu.iterocloud.com", true),
            ("eu.iterocloud.com:443", "eu.iterocloud.com", true),
            ("eu.iterocloud.com:8443", "eu.iterocloud.com", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("[2606:4700::1]", "[2606:4700::1]", true),
        ] {
            assert_eq!(!proxy(no_proxy).applies_to(host, 443), exempt, "{no_proxy:?} {host}");
        }
    }

    #[test]
    fn loopback_is_never_proxied() {
        for host in ["localhost", "localhost.", "a.localhost", "127.0.0.1", "127.8.8.8", "[::1]"] {
            assert!(!proxy("").applies_to(host, 443), "{host}");
        }
    }

    #[test]
    fn the_configuration_decides_before_the_environment() {
        let variables = ProxyVariables { https_proxy: Some("env.test:1".to_owned()), no_proxy: None };
        let choose = |choice| OutboundProxy::choose(&choice, &variables).unwrap();
        assert!(choose(ProxyChoice::None).is_none());
        assert_eq!(choose(ProxyChoice::Environment).unwrap().host(), "env.test");
        let configured = choose(ProxyChoice::Url("http://file.test:3128".parse().unwrap())).unwrap();
        assert_eq!((configured.host(), configured.port()), ("file.test", 3128));
    }

    #[test]
    fn a_proxy_that_we_cannot_speak_to_is_refused_without_its_password() {
        for bad in ["socks5://u:hunter2@p.test:1080", "https://u:hunter2@p.test", "http://u:hunter2@p.test:x"]
        {
            let variables = ProxyVariables { https_proxy: Some(bad.to_owned()), no_proxy: None };
            let error = OutboundProxy::choose(&ProxyChoice::Environment, &variables).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_that_were_cut_in_the_middle_are_explained_without_being_shown() {
        for (address, told) in [
            (r"http://CLINIC\svc:hunter2@p.test:3128", "%5C"),
            (r"CLINIC\svc:hunter2@p.test:3128", "%5C"),
            (r"http://CLINIC\svc@p.test:3128", "%5C"),
            ("http://svc:hunter2/x@p.test:3128", "percent-encoded"),
            ("http://svc:hunter2#x@p.test:3128", "percent-encoded"),
            ("http://svc:hunter2@x@p.test:3128", "percent-encoded"),
        ] {
            let variables = ProxyVariables { https_proxy: Some(address.to_owned()), no_proxy: None };
            let error =
                OutboundProxy::choose(&ProxyChoice::Environment, &variables).err().unwrap().to_string();
            assert!(
                error.contains(told) && !error.contains("hunter2") && !error.contains("CLINIC"),
                "{error}"
            );
        }
        for good in ["http://CLINIC%5Csvc:p%40ss@p.test:3128", "http://p.test:3128/", "p.test:3128"] {
            assert_eq!(config::proxy_credentials_problem(good), None, "{good}");
        }
    }

    #[test]
    fn credentials_come_from_the_address_and_are_decoded() {
        let request = proxy("").request("eu.iterocloud.com", 443);
        assert_eq!(
            request,
            format!(
                "CONNECT eu.iterocloud.com:443 HTTP/1.1\r\nHost: eu.iterocloud.com:443\r\n\
                 Proxy-Authorization: Basic {}\r\n\r\n",
                STANDARD.encode("user:p@ss")
            )
        );
    }

    async fn through(response: Option<&'static str>) -> Result<Stream, ConnectError> {
        let ours = TestAuthority::new("ours");
        let server = tls_echo(ours.issue("eu.gateway.test")).await;
        let proxy = connect_proxy(server, response).await;
        let mut strict = realm();
        strict.hosts.allow_insecure = false;
        strict.ca_file = Some(ours.ca_file());
        let mut through = upstream();
        through.proxy = ProxyChoice::Url(format!("http://{}", proxy.address).parse().unwrap());
        let connector = Connector::new(&strict, &through, &ProxyVariables::default()).unwrap();
        // The name exists in no DNS: only the proxy knows it.
        connector.connect("eu.gateway.test", 443, true).await
    }

    #[tokio::test]
    async fn a_tunnel_carries_tls_to_a_name_that_only_the_proxy_knows() {
        let mut stream = through(None).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"ping");
    }

    #[tokio::test]
    async fn a_proxys_refusal_is_told_in_words() {
        for (response, told) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "other credentials"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow eu.gateway.test:443"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502"),
            ("SSH-2.0-x\r\n\r\n", "did not answer CONNECT with HTTP"),
            ("HTTP/1.1 200", "broke the connection"),
        ] {
            let error = through(Some(response)).await.err().unwrap();
            assert!(
                matches!(error, ConnectError::Proxy { .. }) && error.to_string().contains(told),
                "{error}"
            );
        }
    }
}
