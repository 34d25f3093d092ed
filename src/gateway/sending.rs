//! A request on its way to the platform: its head with the bearer in it, and its body as it comes, written in as few pieces as the
//! connection takes. The answer's head is taken when it comes; what it means, and whose fault it is if none does, `forward` says.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::http1::{HeadError, ResponseHead, WriteBuffer, YIELD_AFTER, poll_yield, write_chunk_header};

use super::forward::Timeouts;
use super::headers::{OutboundFraming, OutboundHead};
use super::pool::{Link, Wire};
use super::replay::AttemptBody;

/// What ends a chunked body.
const LAST: &[u8] = b"0\r\n\r\n";

/// A request on its way out.
pub(super) struct Sending<'a> {
    /// What has not been written yet: the head up to its last value, the bearer, which is too long to be copied for nothing, the head's
    /// end, a chunk's head, data, and what stands behind it.
    head: WriteBuffer,
    bearer: &'a [u8],
    end: &'static [u8],
    chunk_header: Vec<u8>,
    data: Bytes,
    tail: &'static [u8],
    /// Of all these, what has.
    sent: usize,
    body: AttemptBody,
    framing: OutboundFraming,
    state: State,
    /// Bytes of the body that have left since the others had their turn.
    moved: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes are to be written.
    Writing,
    /// The caller has not sent the next piece.
    WaitsForCaller,
    Flushing,
    Sent,
    /// The platform takes no more; it may have answered before that.
    Refused,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    TimedOut,
    /// The connection ended, or broke.
    Ended,
    CallerBrokeOff,
    Head(HeadError),
    Switched,
}

impl<'a> Sending<'a> {
    /// Puts the head together.
    pub fn new(outbound: &OutboundHead<'a>, body: AttemptBody) -> Self {
        let mut head = WriteBuffer::new();
        outbound.write_up_to_bearer(&mut head);
        let mut sending = Self {
            head,
            bearer: outbound.gateway_headers.bearer.as_bytes(),
            end: b"\r\n\r\n",
            chunk_header: Vec::new(),
            data: Bytes::new(),
            tail: b"",
            sent: 0,
            body,
            framing: outbound.gateway_headers.framing,
            state: State::Writing,
            moved: 0,
        };
        // A kept body leaves together with its head.
        if !sending.body.is_streamed() {
            let noop = &mut Context::from_waker(std::task::Waker::noop());
            let _ = sending.poll_next(noop);
        }
        sending
    }

    /// Sends, and takes the answer when it comes, be it before the end of the request.
    pub fn poll_exchange<S: Wire>(
        &mut self,
        link: &mut Link<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Fault>> {
        match self.poll_send(link, cx) {
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
            // What is sent in one piece is sent before anyone looks for an answer.
            Poll::Pending if !self.body.is_streamed() => return Poll::Pending,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            match link.poll_head(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(Fault::Ended)),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Fault::Head(fault))),
                Poll::Ready(Ok(Some(head))) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(Fault::Switched));
                }
                // 100 and 103 are for us alone, and we asked for neither.
                Poll::Ready(Ok(Some(head))) if head.status.is_informational() => {}
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
            }
        }
    }

    fn poll_send<S: Wire>(&mut self, link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            match self.state {
                State::Sent | State::Refused => return Poll::Ready(Ok(())),
                State::Flushing => match link.poll_flush(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.state = State::Sent,
                    Poll::Ready(Err(_)) => self.state = State::Refused,
                },
                State::WaitsForCaller => match self.poll_next(cx) {
                    Poll::Pending => {
                        // What TLS holds back may be what the platform waits for.
                        let _ = link.poll_flush(cx);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                },
                State::Writing => match self.poll_write(link, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(true) => {
                        self.next();
                        if self.moved >= YIELD_AFTER {
                            self.moved = 0;
                            poll_yield(cx);
                            return Poll::Pending;
                        }
                    }
                    Poll::Ready(false) => self.state = State::Refused,
                },
            }
        }
    }

    /// True when all of it is written, false where it cannot be.
    fn poll_write<S: Wire>(&mut self, link: &mut Link<S>, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let mut skip = self.sent;
            let parts =
                [&self.head[..], self.bearer, self.end, &self.chunk_header[..], &self.data[..], self.tail];
            let parts = parts.map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                &part[skipped..]
            });
            if parts.iter().all(|part| part.is_empty()) {
                return Poll::Ready(true);
            }
            match std::task::ready!(link.poll_write(&parts, cx)) {
                Ok(written) if written > 0 => self.sent += written,
                _ => return Poll::Ready(false),
            }
        }
    }

    fn next(&mut self) {
        self.head.clear();
        self.bearer = b"";
        self.end = b"";
        self.chunk_header.clear();
        self.moved += self.data.len();
        self.data = Bytes::new();
        self.sent = 0;
        let over = self.body.has_ended()
            && (self.framing == OutboundFraming::AsReceived || self.tail.ends_with(LAST));
        self.tail = b"";
        self.state = if over { State::Flushing } else { State::WaitsForCaller };
    }

    /// The body's next piece into its place.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let chunked = self.framing == OutboundFraming::Chunked;
        match std::task::ready!(self.body.poll_chunk(cx)) {
            Some(Err(_)) => return Poll::Ready(Err(Fault::CallerBrokeOff)),
            Some(Ok(data)) => {
                if chunked {
                    write_chunk_header(&mut self.chunk_header, data.len());
                    self.tail = if self.body.has_ended() { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                }
                self.data = data;
            }
            None if chunked => self.tail = LAST,
            None => {}
        }
        self.state = State::Writing;
        Poll::Ready(Ok(()))
    }

    pub fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// The caller owes the next piece.
    pub fn waits_for_caller(&self) -> bool {
        self.state == State::WaitsForCaller
    }

    /// A request that takes its time to send is not late as long as its bytes move.
    pub fn timeouts(&self, timeouts: &Timeouts) -> Duration {
        match self.state {
            State::WaitsForCaller => timeouts.caller,
            State::Writing if self.body.is_streamed() => timeouts.idle,
            _ => timeouts.response,
        }
    }
}
