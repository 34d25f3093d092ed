//! What must hold for any input. The fuzz targets feed it with what a fuzzer finds, `tests/http1_corpus.rs`
//! with the corpus and with small changes to it; both include this file, so it names the code under test as
//! `crate::http1`.
//!
//! Whatever we accept, other readers have to understand in the same way: that is what smuggling needs to
//! fail. We may refuse what they accept.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Method;

use crate::http1::{
    BodyDecoder, BodyError, HeadError, HeadLimits, Headers, KnownHeader, ReadBuffer, RequestHead,
    ResponseHead, request_framing, response_body,
};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 16 * 1024, max_headers: 64 };

/// More than we take, so that httparse never stops where we go on.
const HTTPARSE_HEADERS: usize = 80;

/// A request head means the same however its bytes arrive, survives being written again, and has one framing.
pub fn request_head(input: &[u8]) {
    let at_once = read_request(&[input]);
    assert_eq!(shown(&at_once), shown(&read_request(&bytewise(input))), "arrival changes the meaning");
    let Ok(Some(head)) = at_once else { return };
    check_headers(&head.headers);
    let Ok(framing) = request_framing(&head) else { return };
    let chunked = head.headers.has(KnownHeader::TransferEncoding);
    let length = head.headers.has(KnownHeader::ContentLength);
    assert!(!(chunked && length), "two framings");
    assert_eq!(framing.decoder() == BodyDecoder::chunked(), chunked);
}

/// The same for a response head.
pub fn response_head(input: &[u8]) {
    let at_once = read_response(&[input]);
    assert_eq!(shown(&at_once), shown(&read_response(&bytewise(input))), "arrival changes the meaning");
    let Ok(Some(head)) = at_once else { return };
    check_headers(&head.headers);
    if response_body(&Method::GET, &head).is_ok() {
        let framings = [KnownHeader::TransferEncoding, KnownHeader::ContentLength];
        assert!(framings.into_iter().filter(|name| head.headers.has(*name)).count() <= 1, "two framings");
    }
    assert_eq!(response_body(&Method::HEAD, &head).is_ok(), response_body(&Method::GET, &head).is_ok());
}

/// A chunked body is decoded alike however its bytes arrive, its end is found at the same byte, and what is
/// broken stays broken.
pub fn chunked_body(input: &[u8]) {
    let at_once = decode(&[input]);
    let bytewise = decode(&bytewise(input));
    assert_eq!(at_once.outcome, bytewise.outcome, "arrival changes the outcome");
    if at_once.outcome.is_ok() {
        assert_eq!(at_once.data, bytewise.data, "arrival changes the data");
        assert_eq!(at_once.behind, bytewise.behind, "arrival moves the end");
    }
    assert!(at_once.data.len() <= input.len());
}

/// What we accept, `httparse` and hyper's decoder accept too, with the same meaning.
pub fn differential(input: &[u8]) {
    if let Ok(Some(ours)) = read_request(&[input]) {
        same_request(input, &ours);
    }
    if let Ok(Some(ours)) = read_response(&[input]) {
        same_response(input, &ours);
    }
    let ours = decode(&[input]);
    // hyper takes fewer extensions in all than we do.
    if ours.outcome == Ok(true) && input.len() < 8 * 1024 {
        assert_eq!(
            hyper_decodes(input),
            Some(ours.data),
            "hyper reads another body: {:?}",
            input.escape_ascii().to_string()
        );
    }
}

fn same_request(input: &[u8], ours: &RequestHead) {
    let mut headers = [httparse::EMPTY_HEADER; HTTPARSE_HEADERS];
    let mut theirs = httparse::Request::new(&mut headers);
    let parsed = theirs.parse(input);
    // A target in Latin-1 is passed on with escapes in place of those bytes; httparse refuses it.
    let line = input.split(|byte| *byte == b'\n').find(|line| line.len() > 1).unwrap_or_default();
    if std::str::from_utf8(line).is_err() && parsed == Err(httparse::Error::Token) {
        return;
    }
    assert!(
        parsed.is_ok_and(|status| status.is_complete()),
        "httparse refuses {:?}: {parsed:?}",
        input.escape_ascii().to_string()
    );
    assert_eq!(theirs.method, Some(ours.method.as_str()));
    assert_eq!(theirs.version, Some(u8::from(ours.version == http::Version::HTTP_11)));
    let path = theirs.path.unwrap_or_default();
    assert_eq!(as_uri_prints(path), ours.uri.to_string());
    same_headers(theirs.headers, &ours.headers);
}

fn same_response(input: &[u8], ours: &ResponseHead) {
    let mut headers = [httparse::EMPTY_HEADER; HTTPARSE_HEADERS];
    let mut theirs = httparse::Response::new(&mut headers);
    let parsed = theirs.parse(input);
    assert!(
        parsed.is_ok_and(|status| status.is_complete()),
        "httparse refuses {:?}: {parsed:?}",
        input.escape_ascii().to_string()
    );
    assert_eq!(theirs.code, Some(ours.status.as_u16()));
    assert_eq!(theirs.version, Some(u8::from(ours.version == http::Version::HTTP_11)));
    same_headers(theirs.headers, &ours.headers);
}

fn same_headers(theirs: &[httparse::Header<'_>], ours: &Headers) {
    let theirs: Vec<_> = theirs.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
    let ours: Vec<_> = ours.iter().map(|header| (header.raw_name, header.value)).collect();
    assert_eq!(theirs, ours, "httparse reads other headers");
}

/// A target as `Uri` prints it: an absolute one with a path, `http` in lower case, and without the fragment,
/// which no request has.
fn as_uri_prints(target: &str) -> String {
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    let authority = target.find("://").filter(|_| !target.starts_with('/')).map_or(0, |at| at + 3);
    let scheme = match target[..authority].to_ascii_lowercase() {
        known if known == "http://" || known == "https://" => known,
        _ => target[..authority].to_owned(),
    };
    let target = &format!("{scheme}{}", &target[authority..]);
    match target[authority..].find(['/', '?']) {
        _ if authority == 0 => target.clone(),
        None => format!("{target}/"),
        Some(at) if target[authority + at..].starts_with('/') => target.clone(),
        Some(at) => format!("{}/{}", &target[..authority + at], &target[authority + at..]),
    }
}

/// Headers that are written and read again are the same.
fn check_headers(headers: &Headers) {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    headers.iter().for_each(|header| header.write(&mut head));
    head.extend_from_slice(b"\r\n");
    let limits = HeadLimits { max_bytes: usize::MAX, ..LIMITS };
    let mut buffer = ReadBuffer::default();
    fill(&mut buffer, &head);
    let again = buffer.take_request(&limits).unwrap().expect("a complete head");
    let pairs = |headers: &Headers| -> Vec<_> {
        headers.iter().map(|header| (header.raw_name.to_vec(), header.value.to_vec())).collect()
    };
    assert_eq!(pairs(headers), pairs(&again.headers));
}

fn bytewise(input: &[u8]) -> Vec<&[u8]> {
    input.chunks(1).collect()
}

fn read_request(arrivals: &[&[u8]]) -> Result<Option<RequestHead>, HeadError> {
    read(arrivals, |buffer| buffer.take_request(&LIMITS))
}

fn read_response(arrivals: &[&[u8]]) -> Result<Option<ResponseHead>, HeadError> {
    read(arrivals, |buffer| buffer.take_response(&LIMITS))
}

fn read<T>(
    arrivals: &[&[u8]],
    take: impl Fn(&mut ReadBuffer) -> Result<Option<T>, HeadError>,
) -> Result<Option<T>, HeadError> {
    let mut buffer = ReadBuffer::default();
    for arrival in arrivals {
        fill(&mut buffer, arrival);
        if let Some(head) = take(&mut buffer)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn fill(buffer: &mut ReadBuffer, mut bytes: &[u8]) {
    let cx = &mut Context::from_waker(Waker::noop());
    while !bytes.is_empty() {
        assert!(matches!(buffer.poll_fill(&mut bytes, cx), Poll::Ready(Ok(1..))));
    }
}

/// Whether a head was accepted, and what it says. Errors are not compared: with all bytes at hand another one
/// of several may be found first.
fn shown<T: std::fmt::Debug>(head: &Result<Option<T>, HeadError>) -> Option<String> {
    head.as_ref().ok()?.as_ref().map(|head| format!("{head:?}"))
}

struct Decoded {
    /// Whether the end was reached.
    outcome: Result<bool, BodyError>,
    data: Vec<u8>,
    /// Bytes behind the end.
    behind: usize,
}

fn decode(arrivals: &[&[u8]]) -> Decoded {
    let (mut decoder, mut buffer) = (BodyDecoder::chunked(), ReadBuffer::default());
    let mut decoded = Decoded { outcome: Ok(false), data: Vec::new(), behind: 0 };
    for arrival in arrivals {
        if decoder.has_ended() {
            decoded.behind += arrival.len();
            continue;
        }
        fill(&mut buffer, arrival);
        loop {
            match buffer.take_chunk(&mut decoder) {
                Ok(Some(chunk)) => decoded.data.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => {
                    assert!(buffer.take_chunk(&mut decoder).is_err(), "a broken body goes on");
                    assert!(decoder.end().is_err(), "a broken body ends well");
                    decoded.outcome = Err(error);
                    return decoded;
                }
            }
        }
    }
    decoded.outcome = Ok(decoder.has_ended());
    decoded.behind += buffer.len();
    decoded
}

/// The body as hyper's server decodes it; `None` where it refuses it.
fn hyper_decodes(body: &[u8]) -> Option<Vec<u8>> {
    use http_body_util::{BodyExt, Empty};
    let mut wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    wire.extend_from_slice(body);
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(async move {
        let (mut near, far) = tokio::io::duplex(wire.len() + 4096);
        tokio::io::AsyncWriteExt::write_all(&mut near, &wire).await.ok()?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let tell = tell.lock().unwrap().take();
            async move {
                let collected = request.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
                // What stands behind the body is another request, and none of our business.
                if let Some(tell) = tell {
                    let _ = tell.send(collected);
                }
                Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .max_headers(1000)
            .serve_connection(hyper_util::rt::TokioIo::new(far), service);
        let mut serving = pin!(serving);
        let mut told = pin!(told);
        tokio::select! {
            biased;
            told = &mut told => told.ok().flatten(),
            _ = &mut serving => told.await.ok().flatten(),
        }
    })
}
