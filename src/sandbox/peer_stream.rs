//! One connection of a small HTTP/1.1 server: heads, bodies, and a peer that may leave at any time.

use std::io;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::request::{ReadRequestError, RequestFraming, SandboxRequest, parse_head};

/// Room for an 8 K token and a gateway's worth of other fields.
const MAX_HEAD: usize = 64 * 1024;
/// What is kept of a body; the rest is counted and hashed.
const BODY_KEPT: usize = 64 * 1024;
const MAX_CHUNK_LINE: usize = 4 * 1024;
const READ: usize = 8 * 1024;
/// Real time: the peer has to read what is in its buffers, whatever the sandbox's clock shows.
const LINGER: Duration = Duration::from_secs(1);

/// One connection: the stream and what has been read ahead of it.
pub struct PeerStream<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PeerStream<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(16 * 1024) }
    }

    /// A request without its body, and how to read that.
    pub async fn read_request(&mut self) -> Result<(SandboxRequest, RequestFraming), ReadRequestError> {
        parse_head(self.read_head().await?)
    }

    pub async fn read_body(
        &mut self,
        request: &mut SandboxRequest,
        framing: RequestFraming,
    ) -> Result<(), ReadRequestError> {
        let expects =
            request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if expects && !matches!(framing, RequestFraming::None) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = ReceivedBody::default();
        match framing {
            RequestFraming::None => {}
            RequestFraming::Length(length) => self.read_exactly(length, &mut body).await?,
            RequestFraming::Chunked => self.read_chunks(&mut body).await?,
        }
        body.into_request(request);
        Ok(())
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits for `pause`, but no longer than the peer stays. True: the peer is still there.
    pub async fn wait_while_connected(&mut self, pause: impl Future<Output = ()>) -> bool {
        tokio::pin!(pause);
        loop {
            // A peer that sends ever more while it waits is not read further: that is its own back-pressure.
            if self.buffer.len() > MAX_HEAD {
                pause.await;
                return true;
            }
            tokio::select! {
                () = &mut pause => return true,
                read = self.stream.read_buf(&mut self.buffer) => if !matches!(read, Ok(1..)) {
                    return false;
                },
            }
        }
    }

    /// Says goodbye, and listens a little longer: a reset would take the
    /// response back from a peer that still sends.
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
        let farewell = async {
            while let Ok(1..) = self.stream.read_buf(&mut self.buffer).await {
                self.buffer.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }

    async fn read_more(&mut self) -> Result<(), ReadRequestError> {
        self.buffer.reserve(READ);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ReadRequestError::Closed),
            _ => Ok(()),
        }
    }

    async fn read_head(&mut self) -> Result<Bytes, ReadRequestError> {
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(3);
            if let Some(end) = memchr::memmem::find(&self.buffer[from..], b"\r\n\r\n") {
                return Ok(self.buffer.split_to(from + end + 4).freeze());
            }
            searched = self.buffer.len();
            if searched > MAX_HEAD {
                return Err(ReadRequestError::Refused(431, "head too large"));
            }
            self.read_more().await?;
        }
    }

    async fn read_exactly(&mut self, length: u64, body: &mut ReceivedBody) -> Result<(), ReadRequestError> {
        let mut remaining = length;
        while remaining > 0 {
            if self.buffer.is_empty() {
                self.read_more().await?;
            }
            let take = self.buffer.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
            body.take(&self.buffer[..take]);
            self.buffer.advance(take);
            remaining -= take as u64;
        }
        Ok(())
    }

    async fn read_chunks(&mut self, body: &mut ReceivedBody) -> Result<(), ReadRequestError> {
        const BAD: ReadRequestError = ReadRequestError::Refused(400, "bad chunk");
        loop {
            let line = self.read_line().await?;
            // Extensions are legal and nobody needs them: refused, so that none gets through a proxy unseen.
            let text = std::str::from_utf8(&line).map_err(|_| BAD)?;
            if text.is_empty() || text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(BAD);
            }
            let length = u64::from_str_radix(text, 16).map_err(|_| BAD)?;
            if length == 0 {
                return if self.read_line().await?.is_empty() {
                    Ok(())
                } else {
                    Err(ReadRequestError::Refused(400, "trailers are not taken"))
                };
            }
            self.read_exactly(length, body).await?;
            if !self.read_line().await?.is_empty() {
                return Err(BAD);
            }
        }
    }

    async fn read_line(&mut self) -> Result<Bytes, ReadRequestError> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > MAX_CHUNK_LINE {
                return Err(ReadRequestError::Refused(400, "chunk line too long"));
            }
            self.read_more().await?;
        }
    }
}

/// A request body as it is read: its beginning, its length, and a digest of what is too long to keep.
#[derive(Default)]
struct ReceivedBody {
    kept: BytesMut,
    length: u64,
    digest: Option<digest::Context>,
}

impl ReceivedBody {
    fn take(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.digest.is_none() && self.kept.len() + bytes.len() > BODY_KEPT {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(&self.kept);
            self.digest = Some(context);
        }
        if let Some(context) = &mut self.digest {
            context.update(bytes);
        }
        let room = BODY_KEPT - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn into_request(self, request: &mut SandboxRequest) {
        request.body = self.kept.freeze();
        request.body_length = self.length;
        request.body_sha256 = self.digest.map(|context| super::hex(context.finish().as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<SandboxRequest, u16> {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let mut peer = PeerStream::new(far);
        let reading = async {
            let (mut request, framing) = peer.read_request().await?;
            peer.read_body(&mut request, framing).await?;
            Ok(request)
        };
        match reading.await {
            Ok(request) => Ok(request),
            Err(ReadRequestError::Refused(status, _)) => Err(status),
            Err(ReadRequestError::Closed) => Err(0),
        }
    }

    #[tokio::test]
    async fn a_request_is_kept_as_it_came() {
        let request = read(
            b"POST /a%2fb?q=%20 HTTP/1.1\r\nHoSt: x\r\nX-A:  1 \r\nX-A: 2\r\ncontent-length: 3\r\n\r\nabc",
        );
        let request = request.await.unwrap();
        assert_eq!(&request.target[..], b"/a%2fb?q=%20");
        let names: Vec<_> = request.headers.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [&b"HoSt"[..], b"X-A", b"X-A", b"content-length"]);
        assert_eq!(&request.headers[1].1[..], b"1");
        assert_eq!((&request.body[..], request.body_length), (&b"abc"[..], 3));
    }

    #[tokio::test]
    async fn doubtful_framing_is_refused() {
        for head in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: +3",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: xchunked",
            "Content-Length : 3",
            "X: 1\r\n folded: 2",
        ] {
            let text = format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\nabc");
            assert_eq!(read(text.as_bytes()).await.unwrap_err(), 400, "{head}");
        }
    }

    #[tokio::test]
    async fn a_chunked_body_is_put_together_and_its_trailers_are_refused() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = read(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(&request.body[..], b"abcde");
        let trailed = read(format!("{head}0\r\nX: 1\r\n\r\n").as_bytes()).await;
        assert_eq!(trailed.unwrap_err(), 400);
        let extended = read(format!("{head}1;x=y\r\na\r\n0\r\n\r\n").as_bytes()).await;
        assert_eq!(extended.unwrap_err(), 400);
    }

    #[tokio::test]
    async fn a_large_body_is_counted_and_hashed_and_its_beginning_kept() {
        let body = vec![b'z'; BODY_KEPT + 1];
        let mut bytes = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        let request = read(&bytes).await.unwrap();
        assert_eq!(request.body.len(), BODY_KEPT);
        assert_eq!(request.body_length, body.len() as u64);
        let hash = super::super::hex(digest::digest(&digest::SHA256, &body).as_ref());
        assert_eq!(request.body_sha256, Some(hash));
    }
}
