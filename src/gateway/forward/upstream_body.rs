//! The body of the platform's response as it comes. One that does not come to its end fails, so that a short
//! file never looks complete (threats, row 15).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep};

use crate::http1::client::{Checkout, Io};
use crate::http1::{BodyDecoder, BodyError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseBodyError {
    #[error("the platform's answer broke off")]
    Truncated,
    #[error("the platform's answer stalled")]
    Stalled,
    #[error("the platform's compressed answer is damaged")]
    Damaged,
}

/// A response body as it comes, and the connection that it comes over.
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
    /// A small body has come with its head: then its connection is free at once.
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

    /// The next chunk; a response's trailers are dropped.
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

    /// Whether nothing is left to deliver.
    pub fn is_finished(&self) -> bool {
        self.ended && self.front.is_none()
    }

    /// The exact length, where the platform has declared it.
    pub fn length(&self) -> Option<u64> {
        let front = self.front.as_ref().map_or(0, |front| front.len() as u64);
        if self.ended { Some(front) } else { self.decoder.remaining().map(|rest| front + rest) }
    }

    /// Buffers a small body so that its connection can be reused for the retry. A larger one is left as it
    /// is.
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

    /// All of the body, where it has been read ahead.
    pub fn buffered(&self) -> Option<&[u8]> {
        self.ended.then(|| self.front.as_deref().unwrap_or_default())
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
            // The data is complete: a download is not lost over the lines behind it.
            Err(BodyError::InvalidTrailers) => {
                self.ended = true;
                self.checkout = None;
                Poll::Ready(None)
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
