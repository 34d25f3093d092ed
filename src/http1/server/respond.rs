//! Writes responses. A body is written as it comes, in as few writes as the socket takes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::response_head::{ForwardedHeaders, ResponseContext, ResponseFraming, WriteError};
use super::{ConnectionObserver, ServerConnection};
use crate::http1::fairness::{YIELD_AFTER, yield_to_others};
use crate::http1::write::write_chunk_header;
use crate::http1::write_buffer::WriteBuffer;

/// How much of a body that nobody wants is read, so that its connection can serve on.
const MAX_DISCARDED: usize = 64 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + 'static, A: ConnectionObserver + 'static> ServerConnection<S, A> {
    /// Writes a response as its body comes. Tells whether the connection may serve another request.
    pub async fn write_response<B>(
        &self,
        context: ResponseContext,
        response: Response<B>,
    ) -> Result<bool, WriteError>
    where
        B: Body<Data = Bytes> + ForwardedHeaders,
    {
        let (head, body) = response.into_parts();
        let framing = ResponseFraming::new(&context, &head, &body);
        let keep = framing.keep && (!self.is_inside_body() || self.discard_rest_of_body().await);
        let mut out = WriteBuffer::new();
        framing.write_head(&mut out, &context, &head, body.forwarded_headers(), keep);
        let mut remaining = framing.remaining();
        // Dropped as soon as nothing more is wanted of it, and before its last bytes leave: what it tells on
        // its way out is known by the time the caller has its response.
        let mut body = pin!(Some(body));
        let mut more = remaining > 0;
        let mut since_yield = 0;
        while more {
            let (chunk, ended) = self.next_chunk(body.as_mut(), &mut out).await?;
            remaining = remaining.checked_sub(chunk.len() as u64).ok_or(WriteError::BodyFailed)?;
            more = !ended && remaining > 0;
            if !more {
                framing.check_complete(remaining)?;
                body.set(None);
            }
            let tail: &[u8] = match (framing.chunked(), more, chunk.is_empty()) {
                (false, _, _) => b"",
                (true, true, _) => b"\r\n",
                (true, false, false) => b"\r\n0\r\n\r\n",
                (true, false, true) => b"0\r\n\r\n",
            };
            if framing.chunked() && !chunk.is_empty() {
                write_chunk_header(&mut out, chunk.len());
            }
            if out.len() + chunk.len() + tail.len() <= out.capacity() {
                // One small write costs less than two.
                out.extend_from_slice(&chunk);
                out.extend_from_slice(tail);
                self.write(&out, &[], &[]).await?;
            } else {
                self.write(&out, &chunk, tail).await?;
            }
            out.clear();
            since_yield += chunk.len();
            if more && since_yield >= YIELD_AFTER {
                since_yield = 0;
                yield_to_others().await;
            }
        }
        body.set(None);
        self.write(&out, &[], &[]).await?;
        self.flush().await.map(|()| keep)
    }

    /// Writes a response that is made of bytes already.
    pub async fn write_raw(&self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write(bytes, &[], &[]).await?;
        self.flush().await
    }

    /// The next chunk of a response's body, empty at its end, and whether it is the last. While it has to be
    /// waited for, `out` is written, and a close by the caller is noticed.
    async fn next_chunk<B: Body<Data = Bytes>>(
        &self,
        mut body: Pin<&mut Option<B>>,
        out: &mut Vec<u8>,
    ) -> Result<(Bytes, bool), WriteError> {
        let mut sent = 0;
        let chunk = poll_fn(|cx| {
            while let Some(mut body) = body.as_mut().as_pin_mut()
                && let Poll::Ready(frame) = body.as_mut().poll_frame(cx)
            {
                match frame {
                    None => return Poll::Ready(Ok((Bytes::new(), true))),
                    Some(Err(_)) => return Poll::Ready(Err(WriteError::BodyFailed)),
                    // Trailers end here, and an empty chunk would look like the end.
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data()
                            && !data.is_empty()
                        {
                            return Poll::Ready(Ok((data, body.is_end_stream())));
                        }
                    }
                }
            }
            while sent < out.len() {
                match self.poll_write(&[IoSlice::new(&out[sent..])], cx) {
                    Poll::Ready(Ok(written)) => sent += written,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(WriteError::PeerClosed)),
                    Poll::Pending => break,
                }
            }
            if sent > 0 && sent == out.len() && matches!(self.poll_flush(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Err(WriteError::PeerClosed));
            }
            self.poll_peer_closed(cx).map(|()| Err(WriteError::PeerClosed))
        })
        .await;
        out.drain(..sent);
        chunk
    }

    /// What has come of a body that nobody read is skipped, as far as that is little; false where the rest is
    /// still on its way.
    async fn discard_rest_of_body(&self) -> bool {
        let mut skipped = 0;
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            while skipped <= MAX_DISCARDED {
                match io.body.take(&mut io.read_buffer.bytes) {
                    Ok(Some(chunk)) => skipped += chunk.len(),
                    Ok(None) if io.body.has_ended() => return Poll::Ready(true),
                    // A response does not wait for what the caller may never send.
                    Ok(None) if matches!(self.poll_read(io, false, cx), Poll::Ready(Ok(1..))) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            Poll::Ready(false)
        })
        .await
    }

    /// All of it, in as few writes as the socket takes.
    async fn write(&self, head: &[u8], chunk: &[u8], tail: &[u8]) -> Result<(), WriteError> {
        let parts = [head, chunk, tail];
        let complete: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < complete {
                let mut skip = sent;
                let slices = parts.map(|part| {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    IoSlice::new(&part[skipped..])
                });
                let from = slices.iter().position(|slice| !slice.is_empty()).unwrap_or_default();
                let to = slices.iter().rposition(|slice| !slice.is_empty()).unwrap_or_default();
                match ready!(self.poll_write(&slices[from..=to], cx)) {
                    Ok(written) if written > 0 => sent += written,
                    _ => return Poll::Ready(Err(WriteError::PeerClosed)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn poll_write(&self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = &mut *self.io.borrow_mut();
        let Some(stream) = &mut io.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let polled = match slices {
            [only] => Pin::new(stream).poll_write(cx, only),
            many => Pin::new(stream).poll_write_vectored(cx, many),
        };
        match polled {
            Poll::Pending => self.observer.on_write_pending(),
            Poll::Ready(_) => self.observer.on_write(),
        }
        polled
    }

    async fn flush(&self) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_flush(cx)).await.map_err(|_| WriteError::PeerClosed)
    }

    /// TLS keeps what the kernel does not take.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.io.borrow_mut();
        let Some(stream) = &mut io.stream else { return Poll::Ready(Ok(())) };
        let polled = Pin::new(stream).poll_flush(cx);
        match polled {
            Poll::Pending => self.observer.on_write_pending(),
            Poll::Ready(_) => self.observer.on_write(),
        }
        polled
    }
}
