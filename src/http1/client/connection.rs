//! One connection to an upstream host. No task drives it: whoever uses it polls it, inside its request's
//! future.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::task::unconstrained;

use super::dial::Io;
use super::keep_alive::MAX_IDLE;
use super::lazy_deadline::LazyDeadline;
use crate::http1::parse::{BodyDecoder, BodyError, HeadError, HeadLimits, ResponseHead};
use crate::http1::read_buffer::ReadBuffer;

/// What is taken of a response's head: usual ones have a few hundred bytes, and an endless one must end.
const HEAD_LIMITS: HeadLimits = HeadLimits { max_bytes: 64 * 1024, max_headers: 200 };

/// One connection, with the bytes that were read from it and not used yet.
pub struct UpstreamConnection<S: Io> {
    pub(super) stream: S,
    pub(super) read_buffer: ReadBuffer,
    /// Bytes that went over it: whether anything was sent, and whether anything came back.
    pub read: u64,
    pub written: u64,
    pub deadline: LazyDeadline,
    /// The last exchange has left it between two messages.
    pub reusable: bool,
    /// How long it may be idle, by its `Keep-Alive` header.
    pub max_idle: Duration,
    pub(super) idle_since: Instant,
    /// From then on it is not used again.
    pub(super) retired_at: Instant,
}

impl<S: Io> UpstreamConnection<S> {
    /// New, and never idle so far. From `retired_at` on it is not used again.
    pub(super) fn new(stream: S, now: Instant, retired_at: Instant) -> Self {
        Self {
            stream,
            read_buffer: ReadBuffer::default(),
            read: 0,
            written: 0,
            deadline: LazyDeadline::default(),
            reusable: false,
            max_idle: MAX_IDLE,
            idle_since: now,
            retired_at,
        }
    }

    /// Writes what it can of these parts, in their order, and tells how much that was.
    pub fn poll_write<const N: usize>(
        &mut self,
        parts: &[&[u8]; N],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut used = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            slices[used] = IoSlice::new(part);
            used += 1;
        }
        let written = ready!(match &slices[..used] {
            [] => Poll::Ready(Ok(0)),
            [only] => Pin::new(&mut self.stream).poll_write(cx, only),
            several => Pin::new(&mut self.stream).poll_write_vectored(cx, several),
        })?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    /// TLS keeps what the kernel does not take.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The next head, once it is here. `Ok(None)` is the end of the connection.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ResponseHead>, HeadError>> {
        loop {
            if let Some(head) = self.read_buffer.take_response(&HEAD_LIMITS)? {
                return Poll::Ready(Ok(Some(head)));
            }
            // A broken connection says no more than one that has ended.
            match ready!(self.read_buffer.poll_fill(&mut self.stream, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Ok(None)),
                Ok(read) => self.read += read as u64,
            }
        }
    }

    /// The next chunk of a body; `None` at its end.
    pub fn poll_chunk(
        &mut self,
        body: &mut BodyDecoder,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            if let Some(chunk) = self.read_buffer.take_chunk(body)? {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if body.has_ended() {
                return Poll::Ready(Ok(None));
            }
            let remaining = body.remaining().unwrap_or(u64::MAX);
            match ready!(self.read_buffer.poll_fill_body(&mut self.stream, remaining, cx)) {
                // TLS without its closing alert could have been cut by anyone.
                Err(_) => return Poll::Ready(Err(BodyError::Truncated)),
                Ok(0) => body.end()?,
                Ok(read) => self.read += read as u64,
            }
        }
    }

    /// What has come of a body.
    pub fn take_chunk(&mut self, body: &mut BodyDecoder) -> Result<Option<Bytes>, BodyError> {
        self.read_buffer.take_chunk(body)
    }

    /// How many bytes were read and not used yet.
    pub fn unread(&self) -> usize {
        self.read_buffer.len()
    }

    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }

    /// It is too old, or idle for too long, to be used again.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.retired_at || self.max_idle.is_zero() || self.idle(now) > self.max_idle
    }

    /// Between two messages, with nothing unread, and not ended. No read is made while the runtime has seen
    /// nothing arrive.
    pub(super) fn is_alive(&mut self) -> bool {
        self.reusable && self.read_buffer.is_empty() && has_nothing_to_read(&mut self.stream)
    }
}

fn has_nothing_to_read<S: Io>(stream: &mut S) -> bool {
    let mut probe = [0; 1];
    let mut probe = ReadBuf::new(&mut probe);
    let look = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut probe));
    // Tokio makes a task that has used up its budget wait without a look.
    pin!(unconstrained(look)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_ended_is_seen_even_by_a_task_whose_turn_is_used_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (remote, _) = listener.accept().await.unwrap();
        assert!(has_nothing_to_read(&mut stream));
        drop(remote);
        stream.readable().await.unwrap();
        while tokio::task::consume_budget().now_or_never().is_some() {}
        assert!(!has_nothing_to_read(&mut stream));
    }
}
