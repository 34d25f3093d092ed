//! What a request's head costs: ours against `httparse` behind the same checks, with the same outcome
//! (method, target, headers with their place, known names). `cargo bench --manifest-path fuzz/Cargo.toml`;
//! see decision 0016.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use genapi_gateway_fuzz::http1::{HeadLimits, HeaderSet, KnownHeader, parse_request, parse_response};
use http::{Method, StatusCode, Uri};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 64 * 1024, max_headers: 100 };

/// What a legacy application sends, and a browser behind a proxy.
const HEADS: &[(&str, &str)] = &[
    (
        "application, 7 headers",
        "GET /itero/v2/orders/lab?from=2026-11-01&page=2 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
         Authorization: Basic bGFiLXN5bmM6c2VjcmV0LXNlY3JldC1zZWNyZXQ=\r\nAccept: application/json\r\n\
         Accept-Encoding: gzip, deflate\r\nUser-Agent: LabSync/4.2 (Windows NT 10.0; Win64; x64)\r\n\
         X-Request-Id: 6f1c2d3e4b5a6978\r\nConnection: keep-alive\r\n\r\n",
    ),
    (
        "browser behind a proxy, 16 headers",
        "GET /itero/v2/patients?name=miller HTTP/1.1\r\nHost: gateway.example.com\r\nConnection: keep-alive\r\n\
         sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36\r\n\
         sec-ch-ua-platform: \"Linux\"\r\nAccept: */*\r\nOrigin: https://app.example.com\r\n\
         Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
         Referer: https://app.example.com/patients\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: de-DE,de;q=0.9,en;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
         X-Forwarded-For: 203.0.113.9\r\nVia: 1.1 proxy\r\n\r\n",
    ),
];

/// What `httparse` finds, in the form in which we keep it.
struct Parsed {
    _method: Method,
    _uri: Uri,
    _known: HeaderSet,
    lines: Vec<Line>,
    _head: Bytes,
}

/// As large as our own.
#[allow(dead_code)]
struct Line {
    name: KnownHeader,
    places: [u32; 5],
    replacement: Option<http::HeaderValue>,
}

thread_local! {
    /// Lists are reused, as ours are.
    static POOL: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The checks that httparse leaves out, and each header's place.
fn lines(head: &Bytes, headers: &[httparse::Header<'_>]) -> Option<(Vec<Line>, HeaderSet)> {
    // httparse takes a bare LF for an end of line.
    if memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return None;
    }
    let start = head.as_ptr() as usize;
    let place = |bytes: &[u8]| (bytes.as_ptr() as usize - start) as u32;
    let (mut known, mut lines) = (HeaderSet::NONE, POOL.take());
    lines.clear();
    for header in headers {
        let name = KnownHeader::from_bytes(header.name.as_bytes());
        known.add(name);
        let (at, value) = (place(header.name.as_bytes()), place(header.value));
        let value_end = value + header.value.len() as u32;
        // The end of the line: blanks behind the value belong to it.
        let end = value_end + memchr::memchr(b'\n', &head[value_end as usize..])? as u32 + 1;
        let places = [at, at + header.name.len() as u32, value, value_end, end];
        lines.push(Line { name, places, replacement: None });
    }
    Some((lines, known))
}

fn with_httparse(head: Bytes) -> Option<Parsed> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
    let mut request = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    if !config.parse_request_with_uninit_headers(&mut request, &head, &mut slots).ok()?.is_complete() {
        return None;
    }
    let (lines, known) = lines(&head, request.headers)?;
    let path = request.path?.as_bytes().as_ptr() as usize - head.as_ptr() as usize;
    let uri = Uri::from_maybe_shared(head.slice(path..path + request.path?.len())).ok()?;
    let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    Some(Parsed { _method: method, _uri: uri, _known: known, lines, _head: head })
}

const ROUNDS: usize = 4_000;
const CALLS: u32 = 200;

/// The fastest of many rounds: what else the machine does only slows down.
fn fastest(mut call: impl FnMut()) -> Duration {
    let round = |call: &mut dyn FnMut()| {
        let began = Instant::now();
        (0..CALLS).for_each(|_| call());
        began.elapsed() / CALLS
    };
    (0..ROUNDS).map(|_| round(&mut call)).min().unwrap_or_default()
}

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json; \
     charset=utf-8\r\nContent-Length: 1204\r\nConnection: keep-alive\r\nServer: Kestrel\r\nCache-Control: no-store\r\n\
     X-Request-Id: 6f1c2d3e4b5a6978\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n";

fn response_with_httparse(head: Bytes) -> Option<(StatusCode, Vec<Line>, HeaderSet, Bytes)> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; 200];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    if !config.parse_response_with_uninit_headers(&mut response, &head, &mut slots).ok()?.is_complete() {
        return None;
    }
    let (lines, known) = lines(&head, response.headers)?;
    Some((StatusCode::from_u16(response.code?).ok()?, lines, known, head))
}

fn main() {
    let head = Bytes::copy_from_slice(RESPONSE.as_bytes());
    assert_eq!(response_with_httparse(head.clone()).unwrap().1.len(), 8);
    let ours = fastest(|| drop(black_box(parse_response(black_box(head.clone()), &LIMITS))));
    let theirs = fastest(|| POOL.set(black_box(response_with_httparse(black_box(head.clone()))).unwrap().1));
    println!("response, 8 headers, {} bytes: ours {ours:?}, httparse {theirs:?}", RESPONSE.len());
    for (name, text) in HEADS {
        let head = Bytes::copy_from_slice(text.as_bytes());
        let headers = text.lines().count() - 2;
        assert_eq!(parse_request(head.clone(), &LIMITS).unwrap().headers.iter().count(), headers);
        assert_eq!(with_httparse(head.clone()).unwrap().lines.len(), headers);
        let ours = fastest(|| drop(black_box(parse_request(black_box(head.clone()), &LIMITS))));
        let theirs = fastest(|| POOL.set(black_box(with_httparse(black_box(head.clone()))).unwrap().lines));
        println!("{name}, {} bytes: ours {ours:?}, httparse {theirs:?}", text.len());
    }
}
