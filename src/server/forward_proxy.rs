//! A forward proxy for the hosts of a private CA, for programs that can be given a proxy and no other
//! address.
//!
//! The rule guarded here: it is no relay. A host is compared by name, before any look-up, with the CA's own;
//! what is for one of these ends here, and nothing is ever sent anywhere else (threats, row 35).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Response, Uri, header};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::ca::HostNames;
use crate::http1::{HeadLimits, KnownHeader, ReadBuffer, RequestHead, ascii_str, parse_content_length};

use super::refusal::{ServerRefusal, to_wire};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const PAC_PATH: &str = "/proxy.pac";

/// How a connection to the proxy begins.
pub(super) enum ProxyStart {
    /// TLS for this host follows; the caller was told to go ahead.
    Tunnel(TcpStream, Box<str>),
    /// Requests follow, which name their host by URL.
    Requests(TcpStream),
    Refused(TcpStream, ServerRefusal),
    /// The caller has closed the connection.
    Closed,
}

/// Looks at the first byte, without taking it: no method but CONNECT that anybody here answers begins with
/// it.
pub(super) async fn start(
    mut tcp: TcpStream,
    hosts: &HostNames,
    limits: &HeadLimits,
) -> io::Result<ProxyStart> {
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Ok(ProxyStart::Closed);
    }
    if !first[0].eq_ignore_ascii_case(&b'C') {
        return Ok(ProxyStart::Requests(tcp));
    }
    let head = match read_head(&mut tcp, limits).await? {
        None => return Ok(ProxyStart::Closed),
        Some(Err(refusal)) => return Ok(ProxyStart::Refused(tcp, refusal)),
        Some(Ok(head)) => head,
    };
    match tunnel_host(&head, hosts) {
        Ok(host) => {
            let host = Box::from(host);
            tcp.write_all(ESTABLISHED).await?;
            Ok(ProxyStart::Tunnel(tcp, host))
        }
        Err(refusal) => Ok(ProxyStart::Refused(tcp, refusal)),
    }
}

/// One head, and nothing behind it: a caller waits for the answer to CONNECT, and what is sent before it
/// could be taken for either side of it.
async fn read_head(
    tcp: &mut TcpStream,
    limits: &HeadLimits,
) -> io::Result<Option<Result<RequestHead, ServerRefusal>>> {
    let mut buffer = ReadBuffer::default();
    loop {
        match buffer.take_request(limits) {
            Ok(Some(_)) if !buffer.is_empty() => {
                return Ok(Some(Err(ServerRefusal::BadRequest(
                    "nothing may follow CONNECT before its answer",
                ))));
            }
            Ok(Some(head)) => return Ok(Some(Ok(head))),
            Ok(None) => {}
            Err(error) => return Ok(Some(Err(error.into()))),
        }
        if poll_fn(|cx| buffer.poll_fill(tcp, cx)).await? == 0 {
            return Ok(None);
        }
    }
}

/// The host of ours that a tunnel is asked for.
fn tunnel_host<'a>(head: &RequestHead, hosts: &'a HostNames) -> Result<&'a str, ServerRefusal> {
    if head.method != Method::CONNECT {
        return Err(ServerRefusal::MethodNotAllowed);
    }
    let bodyless = match head.headers.get_unique(KnownHeader::ContentLength) {
        Ok(None) => true,
        Ok(Some(length)) => parse_content_length(length) == Some(0),
        Err(_) => false,
    };
    if !bodyless || head.headers.has(KnownHeader::TransferEncoding) {
        return Err(ServerRefusal::BadRequest("CONNECT has no body"));
    }
    if head.headers.get_unique(KnownHeader::Host).is_err() {
        return Err(ServerRefusal::BadRequest("CONNECT has one Host at most"));
    }
    if head.uri.scheme().is_some() || head.uri.path_and_query().is_some() {
        return Err(ServerRefusal::BadRequest("the target of CONNECT is a host and a port"));
    }
    let host = head.uri.authority().and_then(|target| host_of_ours(target, &[443], None, hosts));
    host.ok_or(ServerRefusal::ProxyTarget)
}

/// What a request to the proxy that is no CONNECT is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProxiedRequest {
    /// A host of ours: it is handled as on any other listener.
    Ours,
    Pac,
    Refused,
}

pub(super) fn classify(head: &RequestHead, hosts: &HostNames) -> ProxiedRequest {
    match head.uri.authority() {
        Some(target) => {
            let default = if head.uri.scheme_str() == Some("https") { 443 } else { 80 };
            match host_of_ours(target, &[80, 443], Some(default), hosts) {
                Some(_) => ProxiedRequest::Ours,
                None => ProxiedRequest::Refused,
            }
        }
        None if is_pac(&head.method, &head.uri) => ProxiedRequest::Pac,
        None => ProxiedRequest::Refused,
    }
}

fn is_pac(method: &Method, uri: &Uri) -> bool {
    uri.path() == PAC_PATH && matches!(*method, Method::GET | Method::HEAD)
}

/// The host as the CA spells it, where the port is one of `ports` and nobody's name stands before it.
fn host_of_ours<'a>(
    target: &Authority,
    ports: &[u16],
    default_port: Option<u16>,
    hosts: &'a HostNames,
) -> Option<&'a str> {
    // `host:` and a port that is no number have none, and are not taken for the default.
    let written = target.as_str().len() > target.host().len();
    let port = if written { target.port_u16() } else { default_port };
    let is_plain = !target.as_str().contains('@');
    hosts.find(target.host()).filter(|_| is_plain && port.is_some_and(|port| ports.contains(&port)))
}

/// The proxy auto-configuration file: our hosts through this proxy, all else directly. The proxy is named as
/// the caller named it, since that address works for it, whatever stands between.
pub(super) fn pac(head: &RequestHead, hosts: &HostNames, own: SocketAddr) -> Bytes {
    let named = head.headers.get(KnownHeader::Host).and_then(ascii_str).and_then(plain_authority);
    let proxy = named.unwrap_or_else(|| own.to_string());
    let listed: Vec<String> = hosts.iter().map(|host| format!("    \"{host}\": 1")).collect();
    let script = format!(
        "function FindProxyForURL(url, host) {{\n  var hosts = {{\n{}\n  }};\n  \
         host = host.toLowerCase().replace(/\\.$/, \"\");\n  \
         return hosts[host] === 1 ? \"PROXY {proxy}\" : \"DIRECT\";\n}}\n",
        listed.join(",\n")
    );
    let mut response = Response::new(Bytes::from(script));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ns-proxy-autoconfig"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let wire = to_wire(&response);
    let without_body = wire.len() - response.body().len();
    if head.method == Method::HEAD { wire.slice(..without_body) } else { wire }
}

/// A host and a port, of letters that mean nothing in a script.
fn plain_authority(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    let port = authority.port_u16().unwrap_or(80);
    is_plain.then(|| format!("{}:{port}", authority.host()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse_request;

    fn hosts() -> HostNames {
        HostNames::new(["api.test", "login.test"]).unwrap()
    }

    fn head(text: &str) -> RequestHead {
        let limits = HeadLimits { max_bytes: 4096, max_headers: 20 };
        parse_request(Bytes::copy_from_slice(text.replace('\n', "\r\n").as_bytes()), &limits).unwrap()
    }

    #[test]
    fn a_tunnel_leads_to_a_host_of_ours_on_443_in_every_spelling_and_nowhere_else() {
        for (target, expected) in [
            ("api.test:443", Ok("api.test")),
            ("API.Test:443", Ok("api.test")),
            ("login.test.:443", Ok("login.test")),
            ("api.test:80", Err(ServerRefusal::ProxyTarget)),
            ("api.test:8443", Err(ServerRefusal::ProxyTarget)),
            ("other.test:443", Err(ServerRefusal::ProxyTarget)),
            ("x.api.test:443", Err(ServerRefusal::ProxyTarget)),
            ("api.test.other.test:443", Err(ServerRefusal::ProxyTarget)),
            ("127.0.0.1:443", Err(ServerRefusal::ProxyTarget)),
            ("169.254.169.254:443", Err(ServerRefusal::ProxyTarget)),
            ("[::1]:443", Err(ServerRefusal::ProxyTarget)),
            ("localhost:443", Err(ServerRefusal::ProxyTarget)),
            ("me@api.test:443", Err(ServerRefusal::ProxyTarget)),
            ("api.test@other.test:443", Err(ServerRefusal::ProxyTarget)),
            ("api.test..:443", Err(ServerRefusal::ProxyTarget)),
            ("api.test", Err(ServerRefusal::ProxyTarget)),
        ] {
            let head = head(&format!("CONNECT {target} HTTP/1.1\nHost: {target}\n\n"));
            assert_eq!(tunnel_host(&head, &hosts()), expected, "{target}");
        }
    }

    #[test]
    fn a_connect_with_a_body_a_path_or_in_lower_case_is_none() {
        for request in [
            "CONNECT api.test:443 HTTP/1.1\nHost: a\nContent-Length: 1\n\n",
            "CONNECT api.test:443 HTTP/1.1\nHost: a\nContent-Length: 0\nContent-Length: 0\n\n",
            "CONNECT api.test:443 HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n",
            "CONNECT api.test:443 HTTP/1.1\nHost: a\nHost: b\n\n",
            "CONNECT https://api.test:443/ HTTP/1.1\nHost: a\n\n",
            "CONNECT / HTTP/1.1\nHost: a\n\n",
            "connect api.test:443 HTTP/1.1\nHost: a\n\n",
            "COPY api.test:443 HTTP/1.1\nHost: a\n\n",
        ] {
            let refused = tunnel_host(&head(request), &hosts()).unwrap_err();
            assert_ne!(refused, ServerRefusal::ProxyTarget, "{request}");
        }
        let zero = "CONNECT api.test:443 HTTP/1.1\nHost: a\nContent-Length: 0\n\n";
        assert_eq!(tunnel_host(&head(zero), &hosts()), Ok("api.test"));
    }

    #[test]
    fn requests_by_url_are_ours_by_host_and_port() {
        for (target, expected) in [
            ("http://api.test/x", ProxiedRequest::Ours),
            ("http://API.test.:80/x", ProxiedRequest::Ours),
            ("https://api.test/x", ProxiedRequest::Ours),
            ("https://api.test:443/x", ProxiedRequest::Ours),
            ("http://api.test:8080/x", ProxiedRequest::Refused),
            ("http://api.test:/x", ProxiedRequest::Refused),
            ("http://me@api.test/x", ProxiedRequest::Refused),
            ("http://other.test/x", ProxiedRequest::Refused),
            ("http://127.0.0.1/proxy.pac", ProxiedRequest::Refused),
            ("/proxy.pac", ProxiedRequest::Pac),
            ("/proxy.pac?x", ProxiedRequest::Pac),
            ("/", ProxiedRequest::Refused),
            ("/proxy.pac/x", ProxiedRequest::Refused),
        ] {
            let head = head(&format!("GET {target} HTTP/1.1\nHost: api.test\n\n"));
            assert_eq!(classify(&head, &hosts()), expected, "{target}");
        }
        assert_eq!(
            classify(&head("POST /proxy.pac HTTP/1.1\nHost: a\n\n"), &hosts()),
            ProxiedRequest::Refused
        );
    }

    #[test]
    fn the_pac_names_the_proxy_as_the_caller_does_unless_that_could_be_a_script() {
        let own = "127.0.0.1:3128".parse().unwrap();
        let of = |host: &str| {
            let file = pac(&head(&format!("GET /proxy.pac HTTP/1.1\nHost: {host}\n\n")), &hosts(), own);
            String::from_utf8(file.to_vec()).unwrap()
        };
        assert!(of("proxy.clinic.test:3128").contains("\"PROXY proxy.clinic.test:3128\" : \"DIRECT\""));
        assert!(of("[fd00::1]:3128").contains("PROXY [fd00::1]:3128"));
        assert!(of("proxy.test").contains("PROXY proxy.test:80"));
        for odd in ["a'b:1", "a;b", "a%22"] {
            assert!(of(odd).contains("PROXY 127.0.0.1:3128"), "{odd}");
        }
        let head = pac(&head("HEAD /proxy.pac HTTP/1.1\nHost: a\n\n"), &hosts(), own);
        assert!(head.ends_with(b"\r\n\r\n"));
    }
}
