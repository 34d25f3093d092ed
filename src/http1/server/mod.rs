//! The server half: requests out of one connection, responses into it. It waits for nothing but the socket
//! and the bodies. Its user decides what a request means, how long it may take, and when the connection is
//! closed.
//!
//! Everything happens in the one task that serves the connection: a request's body reads from the socket
//! itself, so there is no channel and no wake-up.

mod respond;
mod response_head;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Request;
use super::parse::{BodyDecoder, BodyError, HeadError, HeadLimits, KnownHeader, RequestHead};
use super::read_buffer::ReadBuffer;
use super::request_body::{BodySource, BodyStream, RequestBody};

pub use response_head::{ForwardedHeaders, ResponseContext, WriteError};

/// Observes what a connection does. Called for every read and write, so it must cost next to nothing.
pub trait ConnectionObserver {
    /// Bytes were read; `head_has_begun` tells whether they begin a head.
    fn on_read(&self, head_has_begun: bool);
    /// A read is pending, of a request's body or of something else.
    fn on_read_pending(&self, of_body: bool);
    fn on_write(&self);
    /// A write is pending: the caller does not read.
    fn on_write_pending(&self);
    /// The caller has shut down its sending side, `inside_body` of a request or not. True if it is to be
    /// taken for gone; else it is asked again when the connection is polled the next time.
    fn on_peer_eof(&self, inside_body: bool) -> bool;
}

/// Observes nothing; a caller that shuts down its sending side counts as gone.
pub struct NoopConnectionObserver;

/// One connection of a caller: reads requests, writes responses.
pub struct ServerConnection<S, A> {
    io: RefCell<ConnectionIo<S>>,
    observer: A,
    limits: HeadLimits,
}

struct ConnectionIo<S> {
    /// `None` once `take_stream` was called.
    stream: Option<S>,
    read_buffer: ReadBuffer,
    /// The body of the request that is being answered.
    body: BodyDecoder,
    /// Which request that is: a body that outlives its request reads nothing.
    request_number: u64,
    /// What remains to be written of `100 Continue` before the body is read.
    pending_continue: &'static [u8],
    peer_closed: bool,
}

/// Why there is no next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadHeadError {
    Invalid(HeadError),
    /// The caller has closed the connection, perhaps within a head.
    PeerClosed,
}

const CONTINUE_RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much of the next requests is read while one is being handled.
const READ_AHEAD: usize = 8 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + 'static, A: ConnectionObserver + 'static> ServerConnection<S, A> {
    pub fn new(stream: S, observer: A, limits: HeadLimits) -> Rc<Self> {
        let io = ConnectionIo {
            stream: Some(stream),
            read_buffer: ReadBuffer::default(),
            body: BodyDecoder::NONE,
            request_number: 0,
            pending_continue: &[],
            peer_closed: false,
        };
        Rc::new(Self { io: RefCell::new(io), observer, limits })
    }

    pub fn observer(&self) -> &A {
        &self.observer
    }

    /// The next request's head; `None` where the caller is done.
    pub async fn next_head(&self) -> Result<Option<RequestHead>, ReadHeadError> {
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            loop {
                match io.read_buffer.take_request(&self.limits) {
                    Ok(Some(head)) => return Poll::Ready(Ok(Some(head))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(ReadHeadError::Invalid(error))),
                }
                match ready!(self.poll_read(io, true, cx)) {
                    Ok(0) if !io.read_buffer.head_has_begun() => return Poll::Ready(Ok(None)),
                    Ok(0) | Err(_) => return Poll::Ready(Err(ReadHeadError::PeerClosed)),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Joins a head that was found good with the body behind it.
    pub fn start_request(self: &Rc<Self>, head: RequestHead, body: BodyDecoder) -> Request {
        let io = &mut *self.io.borrow_mut();
        io.request_number += 1;
        io.body = body;
        let empty = io.body == BodyDecoder::NONE;
        io.pending_continue = if !empty && expects_continue(&head) { CONTINUE_RESPONSE } else { &[] };
        let source = if empty {
            BodySource::Buffered(None)
        } else {
            BodySource::Streaming { source: self.clone(), request_number: io.request_number }
        };
        Request { head, body: RequestBody(source) }
    }

    /// Ready when the caller has closed the connection; polled while its request is being handled.
    pub fn poll_peer_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let io = &mut *self.io.borrow_mut();
        // A body is read by whoever wants it, and says so itself when it breaks off.
        while io.body.has_ended() && io.read_buffer.len() < READ_AHEAD {
            match ready!(self.poll_read(io, false, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Whether everything that came has been used: nothing is known to be on its way.
    pub fn is_between_requests(&self) -> bool {
        let io = self.io.borrow();
        io.body.has_ended() && io.read_buffer.is_empty()
    }

    /// The caller is in the middle of a head.
    pub fn is_inside_head(&self) -> bool {
        let io = self.io.borrow();
        io.body.has_ended() && io.read_buffer.head_has_begun()
    }

    /// The caller is in the middle of a body.
    pub fn is_inside_body(&self) -> bool {
        !self.io.borrow().body.has_ended()
    }

    /// A look at the stream, as long as it is here.
    pub fn with_stream<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.io.borrow().stream.as_ref().map(look)
    }

    /// Takes the stream for good.
    pub fn take_stream(&self) -> Option<S> {
        self.io.borrow_mut().stream.take()
    }

    fn poll_read(
        &self,
        io: &mut ConnectionIo<S>,
        between_requests: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(0)) };
        if !io.peer_closed {
            let polled = match io.body.remaining() {
                Some(remaining) if remaining > 0 => io.read_buffer.poll_fill_body(stream, remaining, cx),
                _ => io.read_buffer.poll_fill(stream, cx),
            };
            match polled {
                Poll::Pending => {
                    self.observer.on_read_pending(!io.body.has_ended());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => io.peer_closed = true,
                // TLS without its closing alert: requests tell their own length, so nothing can be missing
                // from one that is here.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    io.peer_closed = true
                }
                Poll::Ready(Ok(read)) => {
                    self.observer.on_read(between_requests && io.read_buffer.head_has_begun());
                    return Poll::Ready(Ok(read));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if self.observer.on_peer_eof(!io.body.has_ended()) { Poll::Ready(Ok(0)) } else { Poll::Pending }
    }

    fn poll_body(&self, request_number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let io = &mut *self.io.borrow_mut();
        if io.request_number != request_number {
            return Poll::Ready(Some(Err(BodyError::Truncated)));
        }
        loop {
            match io.body.take(&mut io.read_buffer.bytes) {
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Ok(None) if io.body.has_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if ready!(self.poll_write_continue(io, cx)).is_err() {
                return Poll::Ready(Some(Err(BodyError::Truncated)));
            }
            match ready!(self.poll_read(io, false, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BodyError::Truncated))),
                Ok(_) => {}
            }
        }
    }

    /// Tells a caller that waits for it that its body is wanted.
    fn poll_write_continue(&self, io: &mut ConnectionIo<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(())) };
        if io.pending_continue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !io.pending_continue.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, io.pending_continue))?;
            io.pending_continue = &io.pending_continue[written..];
        }
        // What TLS keeps of it leaves with the next flush; the kernel takes so little at once.
        Pin::new(stream).poll_flush(cx)
    }
}

/// RFC 9110, 10.1.1.
fn expects_continue(head: &RequestHead) -> bool {
    let expects = head.headers.get(KnownHeader::Expect);
    head.version == Version::HTTP_11
        && expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static, A: ConnectionObserver + 'static> BodyStream
    for ServerConnection<S, A>
{
    fn poll_body(&self, request_number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        ServerConnection::poll_body(self, request_number, cx)
    }

    fn remaining(&self, request_number: u64) -> Option<u64> {
        let io = self.io.borrow();
        if io.request_number == request_number { io.body.remaining() } else { None }
    }

    fn take_if_complete(&self, request_number: u64) -> Option<Bytes> {
        let io = &mut *self.io.borrow_mut();
        match io.body {
            BodyDecoder::Length(remaining)
                if io.request_number == request_number && io.read_buffer.len() as u64 >= remaining =>
            {
                io.body.take(&mut io.read_buffer.bytes).ok().flatten()
            }
            _ => None,
        }
    }
}

impl ConnectionObserver for NoopConnectionObserver {
    fn on_read(&self, _head_has_begun: bool) {}
    fn on_read_pending(&self, _of_body: bool) {}
    fn on_write(&self) {}
    fn on_write_pending(&self) {}
    fn on_peer_eof(&self, _inside_body: bool) -> bool {
        true
    }
}
