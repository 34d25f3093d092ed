//! Bodies of answers. A body that does not come whole ends in an error, which aborts the caller's connection: a short file must never
//! look whole (threats, row 15).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::http1::client::{Checkout, Io};
use crate::http1::{BodyDecoder, BodyError, ForwardedHeaders, Headers};

use super::rewrite::RewritingBody;
use crate::gateway::access_log::RequestLog;

/// What the server sends to the caller. Dropped, it writes the call's line.
pub struct ResponseBody<S: Io> {
    kind: BodyKind<S>,
    log: Option<RequestLog>,
    headers: Option<Headers>,
}

enum BodyKind<S: Io> {
    Full(Option<Bytes>),
    Live(UpstreamBody<S>),
    RewritingBody(Box<RewritingBody<S>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseBodyError {
    #[error("the platform's answer broke off")]
    Truncated,
    #[error("the platform's answer stalled")]
    Stalled,
    #[error("the platform's compressed answer is damaged")]
    Damaged,
}

/// The body of an answer as it comes, and the connection that it comes over.
pub struct UpstreamBody<S: Io> {
    /// Read ahead; delivered first.
    front: Option<Bytes>,
    decoder: BodyDecoder,
    checkout: Option<Checkout<S>>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer runs for the pause that is going on.
    timer_runs: bool,
    ended: bool,
}

impl<S: Io> UpstreamBody<S> {
    /// A small answer has come with its head: then its connection is free at once.
    pub fn new(
        decoder: BodyDecoder,
        mut checkout: Checkout<S>,
        idle: Duration,
        now: std::time::Instant,
    ) -> Self {
        let mut body =
            Self { front: None, decoder, checkout: None, idle, timer: None, timer_runs: false, ended: false };
        // A fault shows again when the body is read on.
        body.front = checkout.connection.take_chunk(&mut body.decoder).unwrap_or_default();
        body.checkout = Some(checkout);
        if body.decoder.has_ended() {
            body.end(now);
        }
        body
    }

    /// The next piece; an answer's trailers end here.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        if let Some(front) = self.front.take() {
            return Poll::Ready(Some(Ok(front)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match self.poll_platform(cx) {
            Poll::Pending => self.poll_timer(cx).map(|()| Some(Err(self.fail(ResponseBodyError::Stalled)))),
            Poll::Ready(polled) => {
                self.timer_runs = false;
                Poll::Ready(polled)
            }
        }
    }

    /// The exact length, where the platform has told it.
    pub fn length(&self) -> Option<u64> {
        let front = self.front.as_ref().map_or(0, |front| front.len() as u64);
        match self.ended {
            true => Some(front),
            false => self.decoder.remaining().map(|rest| front + rest),
        }
    }

    /// Reads a small answer to its end, so that its connection is free for the repeat while the answer waits to be needed. A larger one
    /// is left as it is.
    pub async fn buffer_up_to(&mut self, limit: usize) -> Result<(), ResponseBodyError> {
        if self.ended || self.length().is_some_and(|length| length > limit as u64) {
            return Ok(());
        }
        let mut read = BytesMut::new();
        while !self.ended && read.len() <= limit {
            match std::future::poll_fn(|cx| self.poll_data(cx)).await {
                Some(Ok(chunk)) => read.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        self.front = (!read.is_empty()).then(|| read.freeze());
        Ok(())
    }

    fn poll_platform(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ResponseBodyError>>> {
        let Some(checkout) = &mut self.checkout else { return Poll::Ready(None) };
        match ready!(checkout.connection.poll_chunk(&mut self.decoder, cx)) {
            Ok(chunk) => {
                if self.decoder.has_ended() {
                    self.end(std::time::Instant::now());
                }
                Poll::Ready(chunk.map(Ok))
            }
            Err(BodyError::Truncated | BodyError::InvalidChunks) => {
                Poll::Ready(Some(Err(self.fail(ResponseBodyError::Truncated))))
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.timer_runs {
            timer.as_mut().reset(deadline);
            self.timer_runs = true;
        }
        timer.as_mut().poll(cx)
    }

    /// All of the body has come: the connection may serve the next call.
    fn end(&mut self, now: std::time::Instant) {
        self.ended = true;
        if let Some(checkout) = self.checkout.take() {
            checkout.checkin(now);
        }
    }

    fn fail(&mut self, error: ResponseBodyError) -> ResponseBodyError {
        self.ended = true;
        self.checkout = None;
        error
    }
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

    pub fn rewriting(body: RewritingBody<S>) -> Self {
        Self::new(BodyKind::RewritingBody(Box::new(body)))
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
            BodyKind::RewritingBody(body) => body.poll_data(cx),
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
            if let BodyKind::RewritingBody(body) = &this.kind {
                log.set_links(body.links());
            }
        }
        Poll::Ready(polled.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Full(bytes) => bytes.is_none(),
            BodyKind::Live(body) => body.ended && body.front.is_none(),
            BodyKind::RewritingBody(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.kind {
            BodyKind::Full(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            BodyKind::Live(body) => body.length(),
            BodyKind::RewritingBody(_) => None,
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
