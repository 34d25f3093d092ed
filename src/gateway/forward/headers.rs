//! Headers in both directions. Hop-by-hop headers and the caller's credentials are dropped, ours are set last
//! and once; everything else passes in its order, its letter case included.

use http::HeaderValue;

use crate::http1::{HeaderField, HeaderSet, Headers, KnownHeader, RequestHead, write_header};

use crate::gateway::refusal::Refusal;

/// What an outbound head has from us.
pub struct GatewayHeaders<'a> {
    pub host: HeaderValue,
    /// The complete value of `Authorization`. A secret.
    pub bearer: &'a str,
    /// `1.1 genapi-gateway-<instance>`
    pub via: &'a HeaderValue,
    pub request_id: &'a HeaderValue,
    /// How the body is framed on the way out.
    pub framing: OutboundFraming,
    /// The response will be rewritten: it is asked for in one part and without compression.
    pub links: bool,
}

/// How a body of the caller goes out: as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundFraming {
    /// No body, or one whose Content-Length passes as it is.
    AsReceived,
    Chunked,
    /// The body is not the caller's any more, and so long.
    Length(usize),
}

/// The platform's request head, made of the caller's as it is written.
pub struct OutboundHead<'a> {
    pub caller: &'a RequestHead,
    /// The target: the route's Path, what the caller asked for below it, and its query without the `?`.
    pub path: [&'a str; 2],
    pub query: Option<&'a str>,
    pub gateway_headers: GatewayHeaders<'a>,
}

impl OutboundHead<'_> {
    /// All but the bearer itself, which comes last, and the end of the head after it.
    pub fn write_up_to_bearer(&self, out: &mut Vec<u8>) {
        self.write_request_line(out);
        let headers = &self.caller.headers;
        let gateway_headers = &self.gateway_headers;
        // A field of ours goes under the name that the caller uses for it.
        let write_ours = |out: &mut Vec<u8>, name, value: &HeaderValue| {
            write_header(out, headers.raw_name(name), value.as_bytes())
        };
        write_ours(out, KnownHeader::Host, &gateway_headers.host);
        let nominated = nominated(headers);
        let replaced = gateway_headers.replaced();
        let mut identified = false;
        for header in headers.iter() {
            if header.name == KnownHeader::XRequestId {
                if !identified {
                    write_ours(out, KnownHeader::XRequestId, gateway_headers.request_id);
                    identified = true;
                }
                continue;
            }
            if !replaced.has(header.name) && !is_dropped(&header) && !nominated.have(&header) {
                header.write(out);
            }
        }
        match gateway_headers.framing {
            OutboundFraming::AsReceived => {}
            OutboundFraming::Chunked => write_ours(out, KnownHeader::TransferEncoding, &CHUNKED),
            OutboundFraming::Length(length) => {
                write_ours(out, KnownHeader::ContentLength, &HeaderValue::from(length));
            }
        }
        if gateway_headers.links {
            write_ours(out, KnownHeader::AcceptEncoding, &IDENTITY);
        }
        write_ours(out, KnownHeader::Via, gateway_headers.via);
        if !identified {
            write_ours(out, KnownHeader::XRequestId, gateway_headers.request_id);
        }
        out.extend_from_slice(headers.raw_name(KnownHeader::Authorization));
        out.extend_from_slice(b": ");
    }

    /// The bytes as they were sent, after the route's Path.
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

impl GatewayHeaders<'_> {
    /// What of the caller's own would contradict how the call goes out.
    fn replaced(&self) -> HeaderSet {
        let framing = match self.framing {
            OutboundFraming::AsReceived => HeaderSet::NONE,
            OutboundFraming::Chunked => HeaderSet::new(&[KnownHeader::ContentLength]),
            OutboundFraming::Length(_) => DESCRIBES_BODY,
        };
        if self.links { framing.union(PREVENTS_REWRITING) } else { framing }
    }
}

/// Makes the caller's response head of the platform's, in place.
pub fn prepare_response(headers: &mut Headers, request_id: &HeaderValue) {
    let nominated: Vec<Vec<u8>> = nominated(headers).0.into_iter().map(<[u8]>::to_vec).collect();
    if headers.iter().any(|header| HOP_BY_HOP.has(header.name)) {
        headers.retain(|header| {
            let named = nominated.iter().any(|name| header.raw_name.eq_ignore_ascii_case(name));
            !named && !HOP_BY_HOP.has(header.name)
        });
    }
    headers.set(KnownHeader::XRequestId, request_id.clone());
}

/// Whether this gateway has already handled the request.
pub fn check_loop(headers: &Headers, via: &HeaderValue) -> Result<(), Refusal> {
    let gateway_headers = via.as_bytes();
    let passed = headers.tokens(KnownHeader::Via).any(|entry| entry == gateway_headers);
    if passed { Err(Refusal::Loop) } else { Ok(()) }
}

/// The caller's request id, if it is one that may stand in a log. A copy: the log's line outlives the head,
/// and must not keep it.
pub fn request_id(headers: &Headers) -> Option<HeaderValue> {
    let id = headers.get(KnownHeader::XRequestId)?;
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let may = (1..=128).contains(&id.len()) && id.iter().all(fits);
    HeaderValue::from_bytes(id).ok().filter(|_| may)
}

/// What `Connection` names.
struct Nominated<'f>(Vec<&'f [u8]>);

/// Three fields are never honoured there: dropping them would change what the request means (threats, row 4).
fn nominated(headers: &Headers) -> Nominated<'_> {
    const NEVER_NOMINATED: HeaderSet =
        HeaderSet::new(&[KnownHeader::Authorization, KnownHeader::Host, KnownHeader::ContentLength]);
    let is_field = |word: &&[u8]| {
        !word.is_empty() && !word.eq_ignore_ascii_case(b"keep-alive") && !word.eq_ignore_ascii_case(b"close")
    };
    let words = headers.tokens(KnownHeader::Connection).filter(is_field);
    Nominated(words.filter(|word| !NEVER_NOMINATED.has(KnownHeader::from_bytes(word))).collect())
}

impl Nominated<'_> {
    fn have(&self, header: &HeaderField<'_>) -> bool {
        self.0.iter().any(|name| header.raw_name.eq_ignore_ascii_case(name))
    }
}

const HOP_BY_HOP: HeaderSet = HeaderSet::new(&[
    KnownHeader::Connection,
    KnownHeader::Te,
    KnownHeader::Trailer,
    KnownHeader::TransferEncoding,
    KnownHeader::Upgrade,
    KnownHeader::KeepAlive,
    KnownHeader::ProxyConnection,
    KnownHeader::ProxyAuthenticate,
    KnownHeader::ProxyAuthorization,
    KnownHeader::Http2Settings,
    KnownHeader::AltSvc,
]);

/// What a caller sends for us, about itself, or to sway an upstream server: none of it is the platform's
/// business (threats, row 5).
const DROPPED_FROM_REQUESTS: HeaderSet = HOP_BY_HOP.union(HeaderSet::new(&[
    KnownHeader::Authorization,
    KnownHeader::Host,
    KnownHeader::Expect,
    KnownHeader::Forwarded,
    KnownHeader::Origin,
    KnownHeader::XForwardedFor,
    KnownHeader::XGatewayAccount,
    KnownHeader::XGatewayKey,
    KnownHeader::XOriginalHost,
    KnownHeader::XOriginalUrl,
    KnownHeader::XRealIp,
    KnownHeader::XRewriteUrl,
]));

/// Fields that pass or are set by us, and must not come a second time under a name that looks alike.
const RESERVED: HeaderSet =
    HeaderSet::new(&[KnownHeader::ContentLength, KnownHeader::Via, KnownHeader::XRequestId]);

/// A part of a response cannot be rewritten, and a compressed one only with effort.
const PREVENTS_REWRITING: HeaderSet =
    HeaderSet::new(&[KnownHeader::Range, KnownHeader::IfRange, KnownHeader::AcceptEncoding]);

/// What tells of a body's bytes, and does not hold for others.
const DESCRIBES_BODY: HeaderSet = HeaderSet::new(&[
    KnownHeader::ContentLength,
    KnownHeader::ContentMd5,
    KnownHeader::Digest,
    KnownHeader::ContentDigest,
    KnownHeader::ReprDigest,
]);

fn is_dropped(header: &HeaderField<'_>) -> bool {
    match header.name {
        KnownHeader::Other => is_proxy_header(header.raw_name),
        name => DROPPED_FROM_REQUESTS.has(name),
    }
}

/// The same for names that are not known one by one.
fn is_proxy_header(name: &[u8]) -> bool {
    let begins =
        |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    if name.contains(&b'_') {
        // Some servers read x_forwarded_for as x-forwarded-for, and content_length as a second length.
        let dashed: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        let known = KnownHeader::from_bytes(&dashed);
        return DROPPED_FROM_REQUESTS.union(RESERVED).has(known) || is_proxy_header(&dashed);
    }
    begins(b"x-gateway-") || begins(b"x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> Headers {
        Headers::from_pairs(lines.iter().copied()).unwrap()
    }

    fn lines(headers: &Headers) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.iter().map(|header| format!("{}: {}", text(header.raw_name), text(header.value))).collect()
    }

    fn sent(caller: &[(&str, &str)], framing: OutboundFraming, links: bool) -> Vec<String> {
        let gateway_headers = GatewayHeaders {
            host: HeaderValue::from_static("eu.iterocloud.com"),
            bearer: "Bearer ours",
            via: &HeaderValue::from_static("1.1 genapi-gateway-a1"),
            request_id: &HeaderValue::from_static("r1"),
            framing,
            links,
        };
        let head = RequestHead {
            method: http::Method::GET,
            uri: http::Uri::from_static("/"),
            version: http::Version::HTTP_11,
            headers: map(caller),
        };
        let mut out = Vec::new();
        OutboundHead { caller: &head, path: ["/v2", "/x"], query: Some("q"), gateway_headers }
            .write_up_to_bearer(&mut out);
        out.extend_from_slice(b"Bearer ours\r\n\r\n");
        let text = String::from_utf8(out).unwrap();
        let headers = text.strip_prefix("GET /v2/x?q HTTP/1.1\r\n").unwrap();
        headers.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect()
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
            "cookie: a=b",
            "x-thing: 2",
            "content-length: 5",
            "via: 1.0 old-proxy",
            "traceparent: 00-x",
            "x-request-id: r1",
            "range: bytes=0-1",
            "accept-encoding: br",
            "via: 1.1 genapi-gateway-a1",
            "authorization: Bearer ours",
        ];
        assert_eq!(sent(&caller, OutboundFraming::AsReceived, false), expected);
    }

    #[test]
    fn a_call_whose_links_become_ours_asks_for_a_complete_uncompressed_response() {
        let caller = [("range", "bytes=0-1"), ("if-range", "x"), ("accept-encoding", "gzip, br")];
        let expected = [
            "host: eu.iterocloud.com",
            "accept-encoding: identity",
            "via: 1.1 genapi-gateway-a1",
            "x-request-id: r1",
            "authorization: Bearer ours",
        ];
        assert_eq!(sent(&caller, OutboundFraming::AsReceived, true), expected);
    }

    #[test]
    fn a_chunked_body_is_framed_anew_and_never_carries_a_length_too() {
        let out = sent(
            &[("transfer-encoding", "chunked"), ("content-length", "3")],
            OutboundFraming::Chunked,
            false,
        );
        assert!(out.contains(&"transfer-encoding: chunked".to_owned()));
        assert!(!out.iter().any(|line| line.starts_with("content-length")));
    }

    #[test]
    fn the_caller_gets_the_vendors_head_without_what_belonged_to_the_connection() {
        let mut response = map(&[
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
        prepare_response(&mut response, &HeaderValue::from_static("r1"));
        let expected = [
            "date: Sat, 21 Nov 2026 10:00:00 GMT",
            "server: vendor",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "content-type: application/json",
            "x-request-id: r1",
        ];
        assert_eq!(lines(&response), expected);
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
