//! Which host of the old platform a request was sent to: the one that the connection was opened for, and what
//! its head says has to agree. It decides whether a request is for tokens or for the API, never for whom it
//! is or where it goes (threats, row 5).

use crate::http1::{KnownHeader, RequestHead, ascii_str};
use crate::model::legacy_host::HostRole;
use crate::server::RequestedHost;

/// The head names another host than the connection was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherHost;

/// `None` where nothing tells: on listeners without a private CA, and for hosts that an operator added.
pub fn role(head: &RequestHead, requested: &RequestedHost) -> Result<Option<HostRole>, OtherHost> {
    let host = match requested {
        // The usual one: nothing more is looked at.
        RequestedHost::Any => return Ok(None),
        RequestedHost::Unnamed => return Ok(hosts_in(head).next().and_then(HostRole::of)),
        RequestedHost::Named(host) => host,
    };
    let agree =
        hosts_in(head).all(|named| named.strip_suffix('.').unwrap_or(named).eq_ignore_ascii_case(host));
    if agree { Ok(HostRole::of(host)) } else { Err(OtherHost) }
}

/// The target's host, which outranks the header (RFC 9112, 3.2.2), then the header's.
fn hosts_in(head: &RequestHead) -> impl Iterator<Item = &str> {
    let header = head.headers.get(KnownHeader::Host).and_then(ascii_str);
    head.uri.host().into_iter().chain(header.map(without_port))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, parse_request};

    const OAUTH: &str = "identity-cus.aligntech.com";
    const API: &str = "api-proxy.aligntech.com";

    fn head(text: &str) -> RequestHead {
        let limits = HeadLimits { max_bytes: 1000, max_headers: 3 };
        parse_request(format!("{text}\r\n\r\n").into(), &limits).unwrap()
    }

    fn named(host: &str) -> RequestedHost {
        RequestedHost::Named(host.into())
    }

    #[test]
    fn the_host_of_the_connection_counts_and_the_head_has_to_agree() {
        for (text, requested, expected) in [
            (format!("GET / HTTP/1.1\r\nHost: {OAUTH}"), named(OAUTH), Ok(Some(HostRole::OAuth))),
            (
                format!("GET / HTTP/1.1\r\nHost: {}.:443", API.to_uppercase()),
                named(API),
                Ok(Some(HostRole::Api)),
            ),
            (format!("GET https://{API}/ HTTP/1.1\r\nHost: {API}"), named(API), Ok(Some(HostRole::Api))),
            ("GET / HTTP/1.0".to_owned(), named(API), Ok(Some(HostRole::Api))),
            ("GET / HTTP/1.1\r\nHost: added.test".to_owned(), named("added.test"), Ok(None)),
            (format!("GET / HTTP/1.1\r\nHost: {API}"), named(OAUTH), Err(OtherHost)),
            (format!("GET https://{API}/ HTTP/1.1\r\nHost: {OAUTH}"), named(OAUTH), Err(OtherHost)),
            (format!("GET https://{OAUTH}/ HTTP/1.1\r\nHost: {API}"), named(OAUTH), Err(OtherHost)),
            ("GET / HTTP/1.1\r\nHost: evil.test".to_owned(), named(API), Err(OtherHost)),
        ] {
            assert_eq!(role(&head(&text), &requested), expected, "{text}");
        }
    }

    #[test]
    fn without_a_named_host_the_head_tells_and_elsewhere_nobody_asks() {
        let to = |host: &str| head(&format!("GET / HTTP/1.1\r\nHost: {host}"));
        assert_eq!(role(&to(OAUTH), &RequestedHost::Unnamed), Ok(Some(HostRole::OAuth)));
        assert_eq!(role(&to("127.0.0.1:443"), &RequestedHost::Unnamed), Ok(None));
        assert_eq!(role(&to(OAUTH), &RequestedHost::Any), Ok(None));
        let by_url = head(&format!("GET http://{OAUTH}/ HTTP/1.1\r\nHost: {API}"));
        assert_eq!(role(&by_url, &RequestedHost::Unnamed), Ok(Some(HostRole::OAuth)));
    }
}
