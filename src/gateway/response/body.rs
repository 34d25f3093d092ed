//! The body that the server sends to the caller. One that ends in an error aborts the caller's connection: a
//! short file must never look complete (threats, row 15).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::rewrite::RewritingBody;
use crate::gateway::access_log::RequestLog;
use crate::gateway::forward::upstream_body::{ResponseBodyError, UpstreamBody};
use crate::http1::client::Io;
use crate::http1::{ForwardedHeaders, Headers};

/// What the server sends to the caller. Dropped, it writes the call's line.
pub struct ResponseBody<S: Io> {
    kind: BodyKind<S>,
    log: Option<RequestLog>,
    headers: Option<Headers>,
}

enum BodyKind<S: Io> {
    Full(Option<Bytes>),
    Live(UpstreamBody<S>),
    Rewriting(Box<RewritingBody<S>>),
}

impl<S: Io> ForwardedHeaders for ResponseBody<S> {
    fn forwarded_headers(&self) -> Option<&Headers> {
        self.headers.as_ref()
    }
}

impl<S: Io> ResponseBody<S> {
    pub fn full(bytes: Bytes) -> Self {
        Self::new(BodyKind::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    pub fn live(body: UpstreamBody<S>) -> Self {
        Self::new(BodyKind::Live(body))
    }

    pub fn rewriting(body: Box<RewritingBody<S>>) -> Self {
        Self::new(BodyKind::Rewriting(body))
    }

    fn new(kind: BodyKind<S>) -> Self {
        Self { kind, log: None, headers: None }
    }

    /// The platform's fields, as they are to reach the caller.
    pub fn with_headers(self, headers: Headers) -> Self {
        Self { headers: Some(headers), ..self }
    }

    /// The line that is written when this body is done with.
    pub fn with_log(self, mut log: RequestLog) -> Self {
        log.complete = self.is_end_stream();
        Self { log: Some(log), ..self }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        match &mut self.kind {
            BodyKind::Full(bytes) => Poll::Ready(bytes.take().map(Ok)),
            BodyKind::Live(body) => body.poll_data(cx),
            BodyKind::Rewriting(body) => body.poll_data(cx),
        }
    }
}

impl<S: Io> Body for ResponseBody<S> {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = self.get_mut();
        let polled = ready!(this.poll_data(cx));
        let ended = this.is_end_stream();
        if let Some(log) = &mut this.log {
            match &polled {
                Some(Ok(data)) => log.bytes += data.len() as u64,
                Some(Err(_)) => log.complete = false,
                None => log.complete = true,
            }
            log.complete |= ended && !matches!(polled, Some(Err(_)));
            if let BodyKind::Rewriting(body) = &this.kind {
                let links = body.links();
                log.set_links(links.changed, links.passed);
            }
        }
        Poll::Ready(polled.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Full(bytes) => bytes.is_none(),
            BodyKind::Live(body) => body.is_finished(),
            BodyKind::Rewriting(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.kind {
            BodyKind::Full(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            BodyKind::Live(body) => body.length(),
            BodyKind::Rewriting(_) => None,
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
