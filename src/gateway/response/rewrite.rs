//! Rewrites the links of a response body: bodies up to 1 MiB are buffered and get a new Content-Length,
//! longer ones stream. What cannot be rewritten safely passes untouched, and is counted.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::read;
use flate2::write::MultiGzDecoder;
use http::{HeaderValue, Method, StatusCode};

use crate::http1::client::Io;
use crate::http1::{HeaderSet, Headers, KnownHeader, ascii_str};

use super::links::{LinkContext, LinkCounts, LinkMatcher, Rewriter, has_wide_letters};
use crate::gateway::forward::upstream_body::{ResponseBodyError, UpstreamBody};
use crate::gateway::v1::FieldStripper;

/// A longer body is rewritten as it streams.
pub const MAX_BUFFERED: usize = 1024 * 1024;

/// Compressed bytes unpacked at a time: gzip unpacks a byte to a thousand at most, so this bounds what one
/// step can make.
const GZIP_STEP: usize = 4 * 1024;

/// What to do with the response of an endpoint whose responses carry links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewritePlan {
    /// Nothing in it can be a link, or it has no body.
    NoLinks,
    /// It may hold links that cannot be changed: counted.
    PassThrough(&'static str),
    /// The head of a body that a GET would have changed.
    HeadOnly,
    Rewrite {
        gzip: bool,
    },
}

/// Decides by the head alone.
pub fn plan(method: &Method, status: StatusCode, headers: &Headers) -> RewritePlan {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || !is_text(headers) {
        return RewritePlan::NoLinks;
    }
    if has_wide_charset(headers) {
        return RewritePlan::PassThrough("charset");
    }
    if *method == Method::HEAD {
        return RewritePlan::HeadOnly;
    }
    if status == StatusCode::PARTIAL_CONTENT || headers.has(KnownHeader::ContentRange) {
        // Offsets count the vendor's bytes: a changed part would not fit the others.
        return RewritePlan::PassThrough("part");
    }
    match headers.get_unique(KnownHeader::ContentEncoding) {
        Ok(None) => RewritePlan::Rewrite { gzip: false },
        Ok(Some(one)) if one.eq_ignore_ascii_case(b"identity") => RewritePlan::Rewrite { gzip: false },
        Ok(Some(one)) if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") => {
            RewritePlan::Rewrite { gzip: true }
        }
        _ => RewritePlan::PassThrough("encoding"),
    }
}

/// JSON, XML and other text; a response without a type is taken for the JSON that these calls return.
fn is_text(headers: &Headers) -> bool {
    let Some(kind) = headers.get(KnownHeader::ContentType) else { return true };
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let contains = |word: &[u8]| essence.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    let is_text = essence.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/"));
    is_text || contains(b"json") || contains(b"xml")
}

/// Whether the type names a charset in which a slash is not the byte that it is in ASCII.
fn has_wide_charset(headers: &Headers) -> bool {
    let kind =
        headers.get(KnownHeader::ContentType).and_then(ascii_str).unwrap_or_default().to_ascii_lowercase();
    let charset = kind.split(';').find_map(|part| part.trim().strip_prefix("charset=")).unwrap_or_default();
    ["utf-16", "utf16", "utf-32", "utf32", "utf-7", "ucs-", "iso-10646-ucs", "ebcdic", "ibm037"]
        .iter()
        .any(|wide| charset.trim_matches('"').starts_with(wide))
}

/// All of a gzip text, where it is sound and not longer than what is buffered.
pub fn unpacked(gzip: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut reader = read::MultiGzDecoder::new(gzip).take(MAX_BUFFERED as u64 + 1);
    reader.read_to_end(&mut text).ok().filter(|_| text.len() <= MAX_BUFFERED)?;
    Some(text)
}

/// Drops what describes the vendor's bytes and no longer holds. The ETag stays: the same account and address
/// always give the same bytes, and a conditional request has to find its way back to the vendor's own.
pub fn drop_representation_headers(headers: &mut Headers, length: Option<usize>) {
    const REPRESENTATION_HEADERS: HeaderSet = HeaderSet::new(&[
        KnownHeader::ContentLength,
        KnownHeader::ContentEncoding,
        KnownHeader::AcceptRanges,
        KnownHeader::ContentMd5,
        KnownHeader::Digest,
        KnownHeader::ContentDigest,
        KnownHeader::ReprDigest,
    ]);
    let length = length.map(HeaderValue::from);
    let set_again = |name| length.is_some() && name == KnownHeader::ContentLength;
    headers.retain(|header| !REPRESENTATION_HEADERS.has(header.name) || set_again(header.name));
    if let Some(length) = length {
        headers.set(KnownHeader::ContentLength, length);
    }
}

/// A response body, decompressed chunk by chunk.
pub struct DecodedBody<S: Io> {
    body: UpstreamBody<S>,
    gzip: Option<Gzip>,
    stripping: Option<Box<Stripping>>,
}

/// Fields that go before links are looked for.
#[derive(Default)]
struct Stripping {
    stripper: FieldStripper,
    finished: bool,
}

struct Gzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    packed: Bytes,
    seen_any: bool,
    finished: bool,
}

/// A rewritten body that is too long to be buffered.
pub struct RewritingBody<S: Io> {
    decoded: DecodedBody<S>,
    rewriter: Rewriter,
    /// Rewritten and not sent yet.
    ready: Vec<u8>,
    ended: bool,
}

/// What is done to a body before links are looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoding {
    pub gzip: bool,
    /// The fields that V2 adds to orders are removed.
    pub strips_orders: bool,
}

pub enum RewrittenBody<S: Io> {
    Buffered(Bytes),
    Streaming(Box<RewritingBody<S>>),
}

/// A response whose links are ours.
pub struct RewrittenResponse<S: Io> {
    pub body: RewrittenBody<S>,
    /// The body's length, where it is known.
    pub length: Option<usize>,
    /// How many links became ours so far.
    pub links: LinkCounts,
    /// Byte for byte what came.
    pub untouched: bool,
}

/// Rewrites a response of which nothing was sent yet. Most responses are small and many hold no link: what
/// comes in one chunk is searched in place, and nothing is set up for it.
pub async fn rewrite<S: Io>(
    body: UpstreamBody<S>,
    decoding: Decoding,
    matcher: Rc<LinkMatcher>,
    link_context: impl FnOnce() -> LinkContext,
) -> Result<RewrittenResponse<S>, ResponseBodyError> {
    let mut decoded = DecodedBody::new(body, decoding);
    let expected = decoded.expected();
    let first = decoded.next_chunk().await?.unwrap_or_default();
    let mut next = decoded.next_chunk().await?;
    if next.is_none() && !matcher.is_match(&first) {
        let length = Some(first.len());
        let links = LinkCounts { changed: 0, passed: u64::from(has_wide_letters(&first)) };
        return Ok(RewrittenResponse {
            body: RewrittenBody::Buffered(first),
            length,
            links,
            untouched: decoding == Decoding::default(),
        });
    }
    let mut rewriter = Rewriter::new(link_context(), matcher);
    let mut ready = Vec::with_capacity(expected + expected / 4);
    let mut read = first.len();
    rewriter.pass(&first, &mut ready);
    while let Some(chunk) = next {
        read += chunk.len();
        rewriter.pass(&chunk, &mut ready);
        if read > MAX_BUFFERED {
            let links = rewriter.links();
            let rewriting = RewritingBody { decoded, rewriter, ready, ended: false };
            let body = RewrittenBody::Streaming(Box::new(rewriting));
            return Ok(RewrittenResponse { body, length: None, links, untouched: false });
        }
        next = decoded.next_chunk().await?;
    }
    rewriter.finish(&mut ready);
    let (length, links) = (Some(ready.len()), rewriter.links());
    Ok(RewrittenResponse {
        body: RewrittenBody::Buffered(Bytes::from(ready)),
        length,
        links,
        untouched: false,
    })
}

impl<S: Io> DecodedBody<S> {
    fn new(body: UpstreamBody<S>, decoding: Decoding) -> Self {
        let gzip = decoding.gzip.then(|| Gzip {
            decoder: MultiGzDecoder::new(Vec::new()),
            packed: Bytes::new(),
            seen_any: false,
            finished: false,
        });
        let stripping = decoding.strips_orders.then(Box::default);
        Self { body, gzip, stripping }
    }

    /// How much to make room for.
    fn expected(&self) -> usize {
        let told = self.body.length().unwrap_or_default();
        usize::try_from(told).unwrap_or(MAX_BUFFERED).min(MAX_BUFFERED)
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ResponseBodyError> {
        poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        loop {
            let polled = ready!(self.poll_decoded(cx));
            let Some(stripping) = &mut self.stripping else { return Poll::Ready(polled) };
            match stripping.after(polled) {
                Some(Ok(nothing)) if nothing.is_empty() => {}
                passed => return Poll::Ready(passed),
            }
        }
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        let Some(gzip) = &mut self.gzip else { return self.body.poll_data(cx) };
        loop {
            if !gzip.packed.is_empty() {
                let chunk = gzip.unpack();
                if !matches!(&chunk, Ok(bytes) if bytes.is_empty()) {
                    return Poll::Ready(Some(chunk));
                }
                continue;
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(packed)) => gzip.packed = packed,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(gzip.finish()),
            }
        }
    }
}

impl Stripping {
    /// What stays of a chunk, and at the end what was held back.
    fn after(
        &mut self,
        polled: Option<Result<Bytes, ResponseBodyError>>,
    ) -> Option<Result<Bytes, ResponseBodyError>> {
        let mut out = Vec::new();
        match polled {
            Some(Ok(chunk)) => {
                out.reserve(chunk.len());
                self.stripper.pass(&chunk, &mut out);
            }
            None if !self.finished => {
                self.finished = true;
                self.stripper.finish(&mut out);
                if out.is_empty() {
                    return None;
                }
            }
            ended => return ended,
        }
        Some(Ok(Bytes::from(out)))
    }
}

impl Gzip {
    fn unpack(&mut self) -> Result<Bytes, ResponseBodyError> {
        let step = self.packed.len().min(GZIP_STEP);
        self.seen_any = true;
        self.decoder.write_all(&self.packed[..step]).map_err(|_| ResponseBodyError::Damaged)?;
        self.packed.advance(step);
        Ok(self.taken())
    }

    /// A truncated archive must not look complete.
    fn finish(&mut self) -> Option<Result<Bytes, ResponseBodyError>> {
        if self.finished || !self.seen_any {
            return None;
        }
        self.finished = true;
        match self.decoder.try_finish() {
            Ok(()) => Some(Ok(self.taken())).filter(|chunk| !matches!(chunk, Ok(bytes) if bytes.is_empty())),
            Err(_) => Some(Err(ResponseBodyError::Damaged)),
        }
    }

    fn taken(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.decoder.get_mut()))
    }
}

impl<S: Io> RewritingBody<S> {
    pub fn links(&self) -> LinkCounts {
        self.rewriter.links()
    }

    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        loop {
            if !self.ready.is_empty() {
                return Poll::Ready(Some(Ok(Bytes::from(std::mem::take(&mut self.ready)))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.decoded.poll_chunk(cx)) {
                Some(Ok(chunk)) => {
                    self.ready.reserve(chunk.len() + chunk.len() / 4);
                    self.rewriter.pass(&chunk, &mut self.ready);
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.rewriter.finish(&mut self.ready);
                    self.ended = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(method: Method, status: u16, lines: &[(&'static str, &'static str)]) -> RewritePlan {
        let headers = Headers::from_pairs(lines.iter().copied()).unwrap();
        plan(&method, StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn only_complete_text_in_a_known_form_is_rewritten() {
        let json = ("content-type", "application/json; charset=utf-8");
        let gzip = ("content-encoding", "GZip");
        let table = [
            (Method::GET, 200, vec![json], RewritePlan::Rewrite { gzip: false }),
            (Method::GET, 200, vec![], RewritePlan::Rewrite { gzip: false }),
            (
                Method::GET,
                404,
                vec![("content-type", "application/problem+json")],
                RewritePlan::Rewrite { gzip: false },
            ),
            (Method::GET, 200, vec![("content-type", "text/xml")], RewritePlan::Rewrite { gzip: false }),
            (Method::GET, 200, vec![json, gzip], RewritePlan::Rewrite { gzip: true }),
            (Method::GET, 200, vec![json, ("content-encoding", "br")], RewritePlan::PassThrough("encoding")),
            (Method::GET, 206, vec![json], RewritePlan::PassThrough("part")),
            (
                Method::GET,
                200,
                vec![("content-type", "APPLICATION/Fhir+JSON")],
                RewritePlan::Rewrite { gzip: false },
            ),
            (Method::GET, 200, vec![("content-type", "Text/Plain")], RewritePlan::Rewrite { gzip: false }),
            (Method::GET, 200, vec![("content-type", "application/zip; of=json")], RewritePlan::NoLinks),
            (Method::GET, 200, vec![("content-type", "tex")], RewritePlan::NoLinks),
            (Method::GET, 200, vec![("content-type", "application/zip")], RewritePlan::NoLinks),
            (Method::GET, 204, vec![], RewritePlan::NoLinks),
            (Method::GET, 304, vec![json], RewritePlan::NoLinks),
            (Method::HEAD, 200, vec![json], RewritePlan::HeadOnly),
        ];
        for (method, status, lines, expected) in table {
            assert_eq!(planned(method.clone(), status, &lines), expected, "{method} {status} {lines:?}");
        }
    }

    #[test]
    fn what_described_the_old_bytes_goes_and_the_etag_stays() {
        let mut headers = Headers::from_pairs([
            ("content-length", "10"),
            ("content-encoding", "gzip"),
            ("content-md5", "x"),
            ("repr-digest", "x"),
            ("accept-ranges", "bytes"),
            ("etag", "\"1\""),
        ])
        .unwrap();
        drop_representation_headers(&mut headers, Some(12));
        let mut out = Vec::new();
        headers.iter().for_each(|header| header.write(&mut out));
        assert_eq!(String::from_utf8(out).unwrap(), "content-length: 12\r\netag: \"1\"\r\n");
    }
}
