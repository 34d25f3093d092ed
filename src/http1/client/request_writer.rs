//! Writes a request, in as few writes as the connection takes, and takes the response's head when it comes,
//! be it before the end of the request.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::connection::UpstreamConnection;
use super::dial::Io;
use super::exchange_error::ExchangeError;
use super::outgoing_body::OutgoingBody;
use crate::http1::fairness::{YIELD_AFTER, poll_yield};
use crate::http1::parse::ResponseHead;
use crate::http1::write::write_chunk_header;
use crate::http1::write_buffer::WriteBuffer;

/// What ends a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How long an exchange may wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the last byte sent to the response's head.
    pub response: Duration,
    /// For the peer to take or give the next chunk of a body.
    pub idle: Duration,
    /// For the caller to give the next chunk of a body that is passed on.
    pub caller: Duration,
}

/// A request as it is handed over to be sent.
pub struct OutgoingRequest<'a> {
    /// Up to the value of its last header.
    pub head: WriteBuffer,
    /// That value. It may be a long secret, so it is never copied.
    pub last_value: &'a [u8],
    /// The body goes out in chunks; else its length stands in the head, or there is none.
    pub chunked: bool,
    pub body: OutgoingBody,
}

/// A request on its way out.
pub(super) struct RequestWriter<'a> {
    /// What has not been written yet: the head up to its last value, the bearer, which is too long to be
    /// copied for nothing, the head's end, a chunk's head, data, and what stands behind it.
    head: WriteBuffer,
    last_value: &'a [u8],
    end: &'static [u8],
    chunk_header: Vec<u8>,
    data: Bytes,
    tail: &'static [u8],
    /// Of all these, what has.
    sent: usize,
    body: OutgoingBody,
    chunked: bool,
    state: WriteState,
    /// Bytes of the body that were written since the last yield.
    since_yield: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteState {
    /// Bytes are to be written.
    Writing,
    /// The caller has not sent the next chunk.
    AwaitingBody,
    Flushing,
    Sent,
    /// The peer takes no more; it may have responded before that.
    PeerStoppedReading,
}

impl<'a> RequestWriter<'a> {
    pub fn new(request: OutgoingRequest<'a>) -> Self {
        let OutgoingRequest { head, last_value, chunked, body } = request;
        let mut writer = Self {
            head,
            last_value,
            end: b"\r\n\r\n",
            chunk_header: Vec::new(),
            data: Bytes::new(),
            tail: b"",
            sent: 0,
            body,
            chunked,
            state: WriteState::Writing,
            since_yield: 0,
        };
        // A buffered body leaves together with its head.
        if !writer.body.is_streamed() {
            let noop = &mut Context::from_waker(std::task::Waker::noop());
            let _ = writer.poll_next(noop);
        }
        writer
    }

    /// Sends, and takes the response when it comes, be it before the end of the request.
    pub fn poll_exchange<S: Io>(
        &mut self,
        connection: &mut UpstreamConnection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, ExchangeError>> {
        match self.poll_send(connection, cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            // A buffered request is sent completely before a response is looked for.
            Poll::Pending if !self.body.is_streamed() => return Poll::Pending,
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            match connection.poll_head(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(ExchangeError::ConnectionEnded)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ExchangeError::InvalidHead(error))),
                Poll::Ready(Ok(Some(head))) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(ExchangeError::SwitchedProtocols));
                }
                // 100 and 103 are for us alone, and we asked for neither.
                Poll::Ready(Ok(Some(head))) if head.status.is_informational() => {}
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
            }
        }
    }

    fn poll_send<S: Io>(
        &mut self,
        connection: &mut UpstreamConnection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ExchangeError>> {
        loop {
            match self.state {
                WriteState::Sent | WriteState::PeerStoppedReading => return Poll::Ready(Ok(())),
                WriteState::Flushing => match connection.poll_flush(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.state = WriteState::Sent,
                    Poll::Ready(Err(_)) => self.state = WriteState::PeerStoppedReading,
                },
                WriteState::AwaitingBody => match self.poll_next(cx) {
                    Poll::Pending => {
                        // What TLS holds back may be what the platform waits for.
                        let _ = connection.poll_flush(cx);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
                WriteState::Writing => match self.poll_write(connection, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(true) => {
                        self.next();
                        if self.since_yield >= YIELD_AFTER {
                            self.since_yield = 0;
                            poll_yield(cx);
                            return Poll::Pending;
                        }
                    }
                    Poll::Ready(false) => self.state = WriteState::PeerStoppedReading,
                },
            }
        }
    }

    /// True when all of it is written, false where it cannot be.
    fn poll_write<S: Io>(
        &mut self,
        connection: &mut UpstreamConnection<S>,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            let mut skip = self.sent;
            let parts = [
                &self.head[..],
                self.last_value,
                self.end,
                &self.chunk_header[..],
                &self.data[..],
                self.tail,
            ];
            let parts = parts.map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                &part[skipped..]
            });
            if parts.iter().all(|part| part.is_empty()) {
                return Poll::Ready(true);
            }
            match std::task::ready!(connection.poll_write(&parts, cx)) {
                Ok(written) if written > 0 => self.sent += written,
                _ => return Poll::Ready(false),
            }
        }
    }

    fn next(&mut self) {
        self.head.clear();
        self.last_value = b"";
        self.end = b"";
        self.chunk_header.clear();
        self.since_yield += self.data.len();
        self.data = Bytes::new();
        self.sent = 0;
        let over = self.body.has_ended() && (!self.chunked || self.tail.ends_with(LAST_CHUNK));
        self.tail = b"";
        self.state = if over { WriteState::Flushing } else { WriteState::AwaitingBody };
    }

    /// The body's next chunk into its place.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let chunked = self.chunked;
        match std::task::ready!(self.body.poll_chunk(cx)) {
            Some(Err(_)) => return Poll::Ready(Err(ExchangeError::CallerBodyFailed)),
            Some(Ok(data)) => {
                if chunked {
                    write_chunk_header(&mut self.chunk_header, data.len());
                    self.tail = if self.body.has_ended() { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                }
                self.data = data;
            }
            None if chunked => self.tail = LAST_CHUNK,
            None => {}
        }
        self.state = WriteState::Writing;
        Poll::Ready(Ok(()))
    }

    pub fn is_sent(&self) -> bool {
        self.state == WriteState::Sent
    }

    /// The caller owes the next chunk.
    pub fn awaiting_body(&self) -> bool {
        self.state == WriteState::AwaitingBody
    }

    /// A request that takes its time to send is not late as long as its bytes move.
    pub fn timeout(&self, timeouts: &Timeouts) -> Duration {
        match self.state {
            WriteState::AwaitingBody => timeouts.caller,
            WriteState::Writing if self.body.is_streamed() => timeouts.idle,
            _ => timeouts.response,
        }
    }
}
