//! Header fields in both directions. What belongs to one connection stays on it, the caller's credentials end here, ours are set
//! last and once; everything else passes in its order, its letter case included.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::http1::{Speller, Spelling};

use super::refusal::{Refusal, X_REQUEST_ID};

/// What an outbound head has from us.
pub struct Ours<'a> {
    pub host: HeaderValue,
    pub bearer: &'a HeaderValue,
    /// `1.1 genapi-gateway-<instance>`
    pub via: &'a HeaderValue,
    pub request_id: &'a HeaderValue,
    /// How the body is framed on the way out.
    pub framing: Framing,
    /// The answer's links will be rewritten: whole and in the clear, please.
    pub links: bool,
}

/// How a body of the caller goes out: as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, or one whose Content-Length passes as it is.
    AsDeclared,
    Chunked,
}

/// The platform's request head, made of the caller's as it is written.
pub struct Outbound<'a> {
    pub caller: &'a Parts,
    /// How the caller spelled its head.
    pub spelling: &'a Spelling,
    /// The target: the route's Path, what the caller asked for behind it, and its query without the mark.
    pub path: [&'a str; 2],
    pub query: Option<&'a str>,
    pub ours: Ours<'a>,
}

impl Outbound<'_> {
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_request_line(out);
        let Self { caller, ours, .. } = self;
        let mut speller = Speller::of(self.spelling);
        speller.write_new(out, &header::HOST, &ours.host);
        let nominated = nominated(&caller.headers);
        let chunked = ours.framing == Framing::Chunked;
        let mut identified = false;
        for (name, value) in &caller.headers {
            if *name == X_REQUEST_ID {
                if !identified {
                    speller.write_new(out, name, ours.request_id);
                    identified = true;
                }
                continue;
            }
            let stays = stays_here(name)
                || nominated.contains(name)
                || (ours.links && spoils_links(name))
                || (chunked && *name == header::CONTENT_LENGTH);
            if !stays {
                speller.write(out, name, value);
            }
        }
        if chunked {
            speller.write_new(out, &header::TRANSFER_ENCODING, &CHUNKED);
        }
        if ours.links {
            speller.write_new(out, &header::ACCEPT_ENCODING, &IDENTITY);
        }
        speller.write_new(out, &header::VIA, ours.via);
        if !identified {
            speller.write_new(out, &X_REQUEST_ID, ours.request_id);
        }
        speller.write_new(out, &header::AUTHORIZATION, ours.bearer);
        out.extend_from_slice(b"\r\n");
    }

    /// The bytes as they were sent, behind the route's Path.
    fn write_request_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.caller.method.as_str().as_bytes());
        out.push(b' ');
        let [prefix, rest] = self.path;
        let rest = if prefix.is_empty() && rest.is_empty() { "/" } else { rest };
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(rest.as_bytes());
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }
}

static CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
static IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// The caller's answer head, from the platform's; in place.
pub fn inbound(headers: &mut HeaderMap, request_id: &HeaderValue) {
    let nominated = nominated(headers);
    if headers.keys().any(|name| belongs_to_one_connection(name) || nominated.contains(name)) {
        *headers = std::mem::take(headers)
            .iter()
            .filter(|(name, _)| !belongs_to_one_connection(name) && !nominated.contains(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
    }
    headers.insert(X_REQUEST_ID.clone(), request_id.clone());
}

/// Whether this gateway has already handled the request.
pub fn check_loop(headers: &HeaderMap, via: &HeaderValue) -> Result<(), Refusal> {
    let ours = via.as_bytes();
    let passed = headers
        .get_all(header::VIA)
        .iter()
        .any(|line| line.as_bytes().split(|b| *b == b',').any(|entry| entry.trim_ascii() == ours));
    if passed { Err(Refusal::Loop) } else { Ok(()) }
}

/// The caller's request id, if it is one that may stand in a log. A copy: the log's line outlives the head, and must not keep it.
pub fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&X_REQUEST_ID)?;
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let may = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(fits);
    HeaderValue::from_bytes(id.as_bytes()).ok().filter(|_| may)
}

/// What `Connection` names. Three fields are never honoured there: dropping them would change what the request means (threats, row 4).
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let keeps = [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH];
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !keeps.contains(name))
        .collect()
}

fn belongs_to_one_connection(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION | header::TE | header::TRAILER | header::TRANSFER_ENCODING | header::UPGRADE
    ) || matches!(
        name.as_str(),
        "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings"
            | "alt-svc"
    )
}

/// What a caller sends for us, about itself, or to sway a server behind: none of it is the platform's business (threats, row 5).
fn stays_here(name: &HeaderName) -> bool {
    if matches!(*name, header::AUTHORIZATION | header::HOST | header::EXPECT | header::FORWARDED)
        || belongs_to_one_connection(name)
    {
        return true;
    }
    let text = name.as_str();
    if text.contains('_') {
        // Some servers read x_forwarded_for as x-forwarded-for, and content_length as a second length.
        return HeaderName::try_from(text.replace('_', "-"))
            .is_ok_and(|dashed| stays_here(&dashed) || is_ours_alone(&dashed));
    }
    text.starts_with("x-gateway-")
        || text.starts_with("x-forwarded-")
        || matches!(text, "x-real-ip" | "x-original-url" | "x-rewrite-url" | "x-original-host")
}

/// Fields that pass or are set by us, and must not come a second time under a name that looks alike.
fn is_ours_alone(name: &HeaderName) -> bool {
    matches!(*name, header::CONTENT_LENGTH | header::VIA) || *name == X_REQUEST_ID
}

/// A part of an answer cannot be rewritten, and a compressed one only with effort.
fn spoils_links(name: &HeaderName) -> bool {
    matches!(*name, header::RANGE | header::IF_RANGE | header::ACCEPT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    fn sent(caller: &[(&str, &str)], framing: Framing, links: bool) -> Vec<String> {
        let ours = Ours {
            host: HeaderValue::from_static("eu.iterocloud.com"),
            bearer: &HeaderValue::from_static("Bearer ours"),
            via: &HeaderValue::from_static("1.1 genapi-gateway-a1"),
            request_id: &HeaderValue::from_static("r1"),
            framing,
            links,
        };
        let mut parts = http::Request::new(()).into_parts().0;
        parts.headers = map(caller);
        let mut out = Vec::new();
        let spelling = &Spelling::none();
        Outbound { caller: &parts, spelling, path: ["/v2", "/x"], query: Some("q"), ours }.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let fields = text.strip_prefix("GET /v2/x?q HTTP/1.1\r\n").unwrap();
        fields.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn the_platform_gets_exactly_this_head() {
        let caller = [
            ("host", "gateway.test"),
            ("user-agent", "legacy/1.0"),
            ("authorization", "Bearer old"),
            ("authorization", "Bearer older"),
            ("proxy-authorization", "Basic x"),
            ("x-gateway-key", "k"),
            ("x_gateway_key", "k"),
            ("x-gateway-account", "smile"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_host", "evil"),
            ("content_length", "7"),
            ("x_request_id", "evil"),
            ("x-original-url", "/unpair-account"),
            ("x-thing", "1"),
            ("cookie", "a=b"),
            ("x-thing", "2"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("connection", "Upgrade, X-Private, authorization, host, content-length"),
            ("x-private", "1"),
            ("content-length", "5"),
            ("via", "1.0 old-proxy"),
            ("traceparent", "00-x"),
            ("x-request-id", "whatever"),
            ("range", "bytes=0-1"),
            ("accept-encoding", "br"),
        ];
        let expected = [
            "host: eu.iterocloud.com",
            "user-agent: legacy/1.0",
            "x-thing: 1",
            "x-thing: 2",
            "cookie: a=b",
            "content-length: 5",
            "via: 1.0 old-proxy",
            "traceparent: 00-x",
            "x-request-id: r1",
            "range: bytes=0-1",
            "accept-encoding: br",
            "via: 1.1 genapi-gateway-a1",
            "authorization: Bearer ours",
        ];
        assert_eq!(sent(&caller, Framing::AsDeclared, false), expected);
    }

    #[test]
    fn a_call_whose_links_become_ours_asks_for_a_whole_answer_in_the_clear() {
        let caller = [("range", "bytes=0-1"), ("if-range", "x"), ("accept-encoding", "gzip, br")];
        let expected = [
            "host: eu.iterocloud.com",
            "accept-encoding: identity",
            "via: 1.1 genapi-gateway-a1",
            "x-request-id: r1",
            "authorization: Bearer ours",
        ];
        assert_eq!(sent(&caller, Framing::AsDeclared, true), expected);
    }

    #[test]
    fn a_chunked_body_is_framed_anew_and_never_carries_a_length_too() {
        let out = sent(&[("transfer-encoding", "chunked"), ("content-length", "3")], Framing::Chunked, false);
        assert!(out.contains(&"transfer-encoding: chunked".to_owned()));
        assert!(!out.iter().any(|line| line.starts_with("content-length")));
    }

    #[test]
    fn the_caller_gets_the_vendors_head_without_what_belonged_to_the_connection() {
        let mut answer = map(&[
            ("date", "Sat, 21 Nov 2026 10:00:00 GMT"),
            ("server", "vendor"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("alt-svc", "h3=\":443\""),
            ("content-type", "application/json"),
        ]);
        inbound(&mut answer, &HeaderValue::from_static("r1"));
        let expected = [
            "date: Sat, 21 Nov 2026 10:00:00 GMT",
            "server: vendor",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "content-type: application/json",
            "x-request-id: r1",
        ];
        assert_eq!(lines(&answer), expected);
    }

    #[test]
    fn a_request_that_has_been_here_is_a_loop() {
        let via = HeaderValue::from_static("1.1 genapi-gateway-a1");
        assert!(check_loop(&map(&[("via", "1.0 x, 1.1 genapi-gateway-a1 ")]), &via).is_err());
        assert!(check_loop(&map(&[("via", "1.1 genapi-gateway-b2")]), &via).is_ok());
        assert!(check_loop(&map(&[]), &via).is_ok());
    }

    #[test]
    fn a_request_id_is_taken_only_where_it_may_stand_in_a_log() {
        for (id, taken) in [
            ("abc-1._Z", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("a".repeat(129).as_str(), false),
        ] {
            assert_eq!(request_id(&map(&[("x-request-id", id)])).is_some(), taken, "{id:?}");
        }
    }
}
