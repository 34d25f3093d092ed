//! One served connection: requests out of it, answers into it. It never waits for anything but the socket and the bodies; whoever holds
//! it decides what a request means, how long it may take, and when the connection is over.
//!
//! Everything happens in the one task that serves the connection: a request's body reads from the socket itself, so nothing is handed
//! over, and nothing has to be woken.

mod respond;

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
use super::body::{BodyFault, Decoder};
use super::head::{self, HeadFault, HeadLimits, RequestHead};
use super::inbox::Inbox;
use super::name::Name;
use super::request_body::{Kind, RequestBody, Source};

/// Takes note of a connection's life signs. Called for every byte's passing, so it must cost nothing.
pub trait Attendant {
    /// Bytes came; between requests, whether a head has begun with them.
    fn read(&self, head_has_begun: bool);
    /// Bytes are wanted, of a request's body or of something else, and there are none.
    fn read_waits(&self, of_body: bool);
    fn wrote(&self);
    /// The caller does not take what is written.
    fn write_waits(&self);
    /// The caller has shut down its sending side, `inside_body` of a request or not. True if it is to be
    /// taken for gone; else it is asked again when the connection is polled the next time.
    fn hang_up(&self, inside_body: bool) -> bool;
}

/// Nobody looks after it: a caller that shuts down its side has gone.
pub struct Unattended;

/// See the top of this file.
pub struct Served<S, A> {
    io: RefCell<Io<S>>,
    attendant: A,
    limits: HeadLimits,
}

struct Io<S> {
    /// `None` once the connection is out of our hands.
    stream: Option<S>,
    inbox: Inbox,
    /// The body of the request that is being answered.
    body: Decoder,
    /// Which request that is: a body that outlives its request reads nothing.
    number: u64,
    /// What is left to say before the body is read: the caller waits for it.
    invitation: &'static [u8],
    hung_up: bool,
}

/// Why there is no next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadEnd {
    Fault(HeadFault),
    /// The caller has gone, perhaps in the middle of a head.
    Gone,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How much of the next requests is taken in while one is being answered.
const AHEAD: usize = 8 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + 'static, A: Attendant + 'static> Served<S, A> {
    pub fn new(stream: S, attendant: A, limits: HeadLimits) -> Rc<Self> {
        let io = Io {
            stream: Some(stream),
            inbox: Inbox::default(),
            body: Decoder::NONE,
            number: 0,
            invitation: &[],
            hung_up: false,
        };
        Rc::new(Self { io: RefCell::new(io), attendant, limits })
    }

    pub fn attendant(&self) -> &A {
        &self.attendant
    }

    /// The next request's head; `None` where the caller is done.
    pub async fn next_head(&self) -> Result<Option<RequestHead>, HeadEnd> {
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            loop {
                match io.inbox.take_head(&self.limits) {
                    Ok(Some(head)) => {
                        let parsed = head::parse_request(head, &self.limits);
                        return Poll::Ready(parsed.map(Some).map_err(HeadEnd::Fault));
                    }
                    Ok(None) => {}
                    Err(fault) => return Poll::Ready(Err(HeadEnd::Fault(fault))),
                }
                match ready!(self.poll_read(io, true, cx)) {
                    Ok(0) if !io.inbox.head_has_begun() => return Poll::Ready(Ok(None)),
                    Ok(0) | Err(_) => return Poll::Ready(Err(HeadEnd::Gone)),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Joins a head that was found good with the body behind it.
    pub fn begin(self: &Rc<Self>, head: RequestHead, body: Decoder) -> Request {
        let io = &mut *self.io.borrow_mut();
        io.number += 1;
        io.body = body;
        let empty = io.body == Decoder::NONE;
        io.invitation = if !empty && waits_for_invitation(&head) { CONTINUE } else { &[] };
        let kind = match empty {
            true => Kind::Whole(None),
            false => Kind::Live { source: self.clone(), number: io.number },
        };
        Request { head, body: RequestBody(kind) }
    }

    /// Ready when the caller has gone; to be polled while its request is being answered.
    pub fn poll_hung_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let io = &mut *self.io.borrow_mut();
        // A body is read by whoever wants it, and says so itself when it breaks off.
        while io.body.has_ended() && io.inbox.len() < AHEAD {
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
        io.body.has_ended() && io.inbox.is_empty()
    }

    /// The caller is in the middle of a head.
    pub fn is_inside_head(&self) -> bool {
        let io = self.io.borrow();
        io.body.has_ended() && io.inbox.head_has_begun()
    }

    /// The caller is in the middle of a body.
    pub fn is_inside_body(&self) -> bool {
        !self.io.borrow().body.has_ended()
    }

    /// A look at the stream, as long as it is here.
    pub fn with_stream<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.io.borrow().stream.as_ref().map(look)
    }

    /// The stream, out of HTTP's hands for good.
    pub fn take_stream(&self) -> Option<S> {
        self.io.borrow_mut().stream.take()
    }

    fn poll_read(&self, io: &mut Io<S>, between: bool, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(0)) };
        if !io.hung_up {
            let polled = match io.body.left() {
                Some(left) if left > 0 => io.inbox.poll_fill_body(stream, left, cx),
                _ => io.inbox.poll_fill(stream, cx),
            };
            match polled {
                Poll::Pending => {
                    self.attendant.read_waits(!io.body.has_ended());
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => io.hung_up = true,
                // TLS without its closing alert: requests tell their own length, so nothing can be missing
                // from one that is here.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => io.hung_up = true,
                Poll::Ready(Ok(read)) => {
                    self.attendant.read(between && io.inbox.head_has_begun());
                    return Poll::Ready(Ok(read));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        match self.attendant.hang_up(!io.body.has_ended()) {
            true => Poll::Ready(Ok(0)),
            false => Poll::Pending,
        }
    }

    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        let io = &mut *self.io.borrow_mut();
        if io.number != number {
            return Poll::Ready(Some(Err(BodyFault::BrokenOff)));
        }
        loop {
            match io.body.take(&mut io.inbox.bytes) {
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Ok(None) if io.body.has_ended() => return Poll::Ready(None),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
            if ready!(self.poll_invite(io, cx)).is_err() {
                return Poll::Ready(Some(Err(BodyFault::BrokenOff)));
            }
            match ready!(self.poll_read(io, false, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(BodyFault::BrokenOff))),
                Ok(_) => {}
            }
        }
    }

    /// Tells a caller that waits for it that its body is wanted.
    fn poll_invite(&self, io: &mut Io<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(())) };
        if io.invitation.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !io.invitation.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, io.invitation))?;
            io.invitation = &io.invitation[written..];
        }
        // What TLS keeps of it leaves with the next flush; the kernel takes so little at once.
        Pin::new(stream).poll_flush(cx)
    }
}

/// RFC 9110, 10.1.1.
fn waits_for_invitation(head: &RequestHead) -> bool {
    let expects = head.fields.get(Name::Expect);
    head.version == Version::HTTP_11
        && expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static, A: Attendant + 'static> Source for Served<S, A> {
    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        Served::poll_body(self, number, cx)
    }

    fn left(&self, number: u64) -> Option<u64> {
        let io = self.io.borrow();
        if io.number == number { io.body.left() } else { None }
    }

    fn take_whole(&self, number: u64) -> Option<Bytes> {
        let io = &mut *self.io.borrow_mut();
        match io.body {
            Decoder::Length(left) if io.number == number && io.inbox.len() as u64 >= left => {
                io.body.take(&mut io.inbox.bytes).ok().flatten()
            }
            _ => None,
        }
    }
}

impl Attendant for Unattended {
    fn read(&self, _head_has_begun: bool) {}
    fn read_waits(&self, _of_body: bool) {}
    fn wrote(&self) {}
    fn write_waits(&self) {}
    fn hang_up(&self, _inside_body: bool) -> bool {
        true
    }
}
