//! What stands between the socket and hyper: takes note of every byte's passing, and gives refusals their words.
//!
//! Adds no system call, no copy and no buffer to a request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::pulse::Pulse;
use super::refusal::ServerRefusal;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_mut().0,
        }
    }
}

/// Puts a refusal into the handler's words, as bytes.
pub(super) type Words = Rc<dyn Fn(ServerRefusal) -> Bytes>;

pub(super) struct Wire {
    socket: Socket,
    pulse: Rc<Pulse>,
    words: Words,
    max_head: usize,
    /// What is written in place of hyper's own bare refusal.
    substitute: Option<Bytes>,
    refused: Option<ServerRefusal>,
}

impl Wire {
    pub(super) fn new(socket: Socket, pulse: Rc<Pulse>, words: Words, max_head: usize) -> Self {
        Self { socket, pulse, words, max_head, substitute: None, refused: None }
    }

    /// What hyper has refused by itself, if it has.
    pub(super) fn refused(&self) -> Option<ServerRefusal> {
        self.refused
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Sends a refusal that hyper cannot send any more.
    pub(super) async fn refuse(&mut self, refusal: ServerRefusal) -> io::Result<()> {
        self.refused = Some(refusal);
        let words = (self.words)(refusal);
        self.socket.write_all(&words).await?;
        self.socket.flush().await
    }

    /// Makes the end of this connection visible as a failure, even to callers that take the end of the stream for
    /// the end of the answer.
    pub(super) fn abort(&mut self) {
        // Fails only on a socket that is gone already.
        let _ = self.socket.tcp().set_zero_linger();
    }

    /// hyper answers what it cannot parse with a bare status. The handler's words take its place.
    fn substitute_for(&mut self, written: &[u8]) {
        if self.pulse.unfinished() || self.refused.is_some() {
            return;
        }
        if let Some(refusal) = bare_refusal(written, &self.pulse, self.max_head) {
            self.refused = Some(refusal);
            self.substitute = Some((self.words)(refusal));
        }
    }

    /// Writes the substitute, then claims that the `claimed` bytes of hyper's were written.
    fn poll_substitute(&mut self, cx: &mut Context<'_>, claimed: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.substitute.as_mut().filter(|rest| rest.has_remaining()) {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.advance(written);
        }
        self.substitute = None;
        Poll::Ready(Ok(claimed))
    }

    fn note_write(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Pending => self.pulse.write_waits(),
            Poll::Ready(_) => self.pulse.wrote(),
        }
    }
}

/// An answer cut short by a panic or by the end of its runtime must not look whole either.
impl Drop for Wire {
    fn drop(&mut self) {
        if self.pulse.unfinished() {
            self.abort();
        }
    }
}

/// Recognises hyper's automatic answer (`role.rs`, `on_error`): a head with one of three statuses and no body.
fn bare_refusal(written: &[u8], pulse: &Pulse, max_head: usize) -> Option<ServerRefusal> {
    let status = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    if written.len() > 160 || !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let too_long = pulse.scan().request_line() > max_head / 2;
    match status.get(..3)? {
        b"400" => Some(ServerRefusal::BadRequest("the request head cannot be parsed")),
        b"414" => Some(ServerRefusal::UriTooLong),
        // hyper looks at the size of the head before it looks at the line that made it so large.
        b"431" if too_long => Some(ServerRefusal::UriTooLong),
        b"431" => Some(ServerRefusal::HeadTooLarge),
        _ => None,
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let before = buf.filled().len();
        if !wire.pulse.has_hung_up() {
            match Pin::new(&mut wire.socket).poll_read(cx, buf) {
                Poll::Pending => {
                    wire.pulse.read_waits();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if buf.filled().len() > before => {
                    wire.pulse.read(&buf.filled()[before..]);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        // The end of the stream. hyper takes it for a hang-up and drops the request, so it may have to wait for it;
        // the sweep wakes this connection when the time comes.
        if wire.pulse.hang_up() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.substitute_for(buf);
        let outcome = match wire.substitute {
            Some(_) => wire.poll_substitute(cx, buf.len()),
            None => Pin::new(&mut wire.socket).poll_write(cx, buf),
        };
        wire.note_write(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if let [only] = bufs {
            wire.substitute_for(only);
        }
        let outcome = match wire.substitute {
            Some(_) => wire.poll_substitute(cx, bufs.iter().map(|buf| buf.len()).sum()),
            None => Pin::new(&mut wire.socket).poll_write_vectored(cx, bufs),
        };
        wire.note_write(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let outcome = Pin::new(&mut wire.socket).poll_flush(cx);
        match outcome {
            // TLS keeps what the kernel does not take.
            Poll::Pending => wire.pulse.write_waits(),
            Poll::Ready(_) => wire.pulse.flushed(),
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Socket::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
