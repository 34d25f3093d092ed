//! Bytes that were read from a connection and not used yet. An idle connection holds no buffer.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::buffer_pool;
use super::parse::{self, BodyDecoder, BodyError, HeadError, HeadLimits, RequestHead, ResponseHead};

/// Bytes read from a connection, in the order in which they came.
#[derive(Default)]
pub struct ReadBuffer {
    pub(super) bytes: BytesMut,
    /// Where the first line begins whose end has not been seen.
    line: usize,
    /// How long the first line is, once it is known.
    first_line: Option<usize>,
    /// The buffer was made for a body.
    body_sized: bool,
    /// How much the next read of a body asks for: doubles while reads fill it, so that downloads take few of
    /// them.
    read_size: usize,
}

/// Free space for a read of a head: enough for nearly all heads, and for small responses with theirs.
const ROOM: usize = 8 * 1024;
/// What the first read of a body asks for, where it is not known to be shorter.
const BODY_ROOM: usize = 64 * 1024;
/// Minimum free space for a read.
const MIN_ROOM: usize = 2 * 1024;
/// The most that a read of a body asks for. What the buffer has beyond that is filled too: up to 448 KiB come
/// at once, and bounding them costs downloads a tenth and more (`docs/benchmarks.md`).
const MAX_ROOM: usize = 256 * 1024;
/// Buffers that a worker keeps for the next connections that speak.
const MAX_POOLED: usize = 64;

/// What ends a head: the end of its last line, and an empty one.
const BLANK: &[u8] = b"\r\n\r\n";
static BLANK_LINE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(BLANK));

thread_local! {
    // Connections are idle most of their life, and there may be ten thousand: they hold a buffer only while
    // something is in it.
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

impl ReadBuffer {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reads once what there is, at the end of what was read before. Zero is the end of the stream.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer_pool::take(&POOL).unwrap_or_default();
        }
        if self.bytes.capacity() - self.bytes.len() < MIN_ROOM {
            self.bytes.reserve(ROOM);
        }
        let polled = pin!(stream.read_buf(&mut self.bytes)).poll(cx);
        if polled.is_pending() && self.bytes.is_empty() {
            self.release();
        }
        polled
    }

    /// Like `poll_fill`, for a body of which `remaining` bytes are known to come.
    pub fn poll_fill_body<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        remaining: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let remaining = usize::try_from(remaining).unwrap_or(MAX_ROOM);
        let room = self.read_size.clamp(BODY_ROOM, MAX_ROOM).min(remaining.max(MIN_ROOM));
        if self.bytes.capacity() - self.bytes.len() < room {
            self.bytes.reserve(room);
            self.body_sized |= room > ROOM;
        }
        let polled = self.poll_fill(stream, cx);
        if let Poll::Ready(Ok(read)) = &polled
            && *read >= room / 2
        {
            self.read_size = room * 2;
        }
        polled
    }

    /// The head of the next request, once its last byte is here.
    pub fn take_request(&mut self, limits: &HeadLimits) -> Result<Option<RequestHead>, HeadError> {
        match self.take_head(limits)? {
            Some(head) => parse::parse_request(head, limits).map(Some),
            None => Ok(None),
        }
    }

    /// The head of the next response, once its last byte is here.
    pub fn take_response(&mut self, limits: &HeadLimits) -> Result<Option<ResponseHead>, HeadError> {
        match self.take_head(limits)? {
            Some(head) => parse::parse_response(head, limits).map(Some),
            None => Ok(None),
        }
    }

    /// The next chunk of a body, as far as it is here.
    pub fn take_chunk(&mut self, decoder: &mut BodyDecoder) -> Result<Option<Bytes>, BodyError> {
        decoder.take(&mut self.bytes)
    }

    /// The head of the next message, once its last byte is here. Blank lines before it are skipped (RFC
    /// 9112, 2.2).
    fn take_head(&mut self, limits: &HeadLimits) -> Result<Option<Bytes>, HeadError> {
        // Nearly all come in one chunk. Lines that end in any other way are found when they are taken apart.
        if self.line == 0
            && self.bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && let Some(end) = BLANK_LINE.find(&self.bytes).map(|end| end + BLANK.len())
            && end <= limits.max_bytes
        {
            return Ok(Some(self.bytes.split_to(end).freeze()));
        }
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.bytes[self.line..]) else {
                return self.within(limits, self.bytes.len()).map(|()| None);
            };
            let end = self.line + end;
            let line = &self.bytes[self.line..end];
            if line.last() != Some(&b'\r') {
                return Err(HeadError::BareLineFeed);
            }
            let blank = line.len() == 1;
            match (blank, self.first_line) {
                (true, None) => {
                    let _ = self.bytes.split_to(end + 1);
                    continue;
                }
                (true, Some(_)) => {
                    self.within(limits, end + 1)?;
                    self.line = 0;
                    self.first_line = None;
                    return Ok(Some(self.bytes.split_to(end + 1).freeze()));
                }
                (false, None) => self.first_line = Some(line.len()),
                (false, Some(_)) => {}
            }
            self.line = end + 1;
        }
    }

    /// Part of a head is here, and not only the blank lines before one.
    pub fn head_has_begun(&self) -> bool {
        self.first_line.is_some() || !matches!(&self.bytes[..], b"" | b"\r")
    }

    fn within(&self, limits: &HeadLimits, length: usize) -> Result<(), HeadError> {
        if length <= limits.max_bytes {
            Ok(())
        } else if self.first_line.unwrap_or(length) > limits.max_bytes / 2 {
            // The line that made it so large is named.
            Err(HeadError::TargetTooLong)
        } else {
            Err(HeadError::TooLarge)
        }
    }

    /// Lets go of a buffer in which nothing is left to be read. Where the head that came in it is still in
    /// use, that is tried again when the next one is waited for.
    fn release(&mut self) {
        self.read_size = 0;
        if std::mem::take(&mut self.body_sized) {
            self.bytes = BytesMut::new();
        } else if self.bytes.try_reclaim(ROOM) {
            let bytes = std::mem::take(&mut self.bytes);
            if bytes.capacity() <= 2 * ROOM {
                buffer_pool::keep(&POOL, MAX_POOLED, bytes);
            }
        }
    }

    /// Nothing more is expected for a while.
    pub fn release_if_empty(&mut self) {
        if self.bytes.is_empty() {
            self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn heads(pieces: &[&str]) -> Result<Vec<String>, HeadError> {
        let limits = HeadLimits { max_bytes: 64, max_headers: 8 };
        let (mut read_buffer, mut heads) = (ReadBuffer::default(), Vec::new());
        for chunk in pieces {
            read_buffer.bytes.extend_from_slice(chunk.as_bytes());
            while let Some(head) = read_buffer.take_head(&limits)? {
                parse::parse_request(head.clone(), &limits)?;
                heads.push(String::from_utf8(head.to_vec()).unwrap());
            }
        }
        Ok(heads)
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_once_the_head_that_came_in_it_is_done_with() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let limits = HeadLimits { max_bytes: 64, max_headers: 8 };
        let mut read_buffer = ReadBuffer::default();
        let mut place = None;
        for _ in 0..3 {
            far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(read_buffer.poll_fill(&mut near, cx).is_ready());
            let head = read_buffer.take_head(&limits).unwrap().unwrap();
            // The caller is watched while its request is being answered.
            assert!(read_buffer.poll_fill(&mut near, cx).is_pending());
            assert_eq!(*place.get_or_insert(head.as_ptr()), head.as_ptr());
            drop(head);
            assert!(read_buffer.poll_fill(&mut near, cx).is_pending());
            assert_eq!(read_buffer.bytes.capacity(), 0, "between requests there is no buffer");
        }
    }

    #[test]
    fn a_head_is_taken_when_its_last_byte_is_here_however_it_came() {
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(heads(&[request, request]).unwrap(), [request, request]);
        assert_eq!(heads(&["\r\n\r\n", request]).unwrap(), [request]);
        let letters: Vec<String> = request.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(heads(&letters).unwrap(), [request]);
        assert!(heads(&[&request[..request.len() - 1]]).unwrap().is_empty());
    }

    #[test]
    fn bare_line_feeds_and_heads_without_end_are_refused() {
        let long = "x".repeat(70);
        for (bytes, fault) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::BareLineFeed),
            ("\nGET / HTTP/1.1\r\n\r\n", HeadError::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\n", HeadError::BareLineFeed),
            (long.as_str(), HeadError::TargetTooLong),
            (&format!("GET / HTTP/1.1\r\nA: {long}"), HeadError::TooLarge),
        ] {
            assert_eq!(heads(&[bytes]), Err(fault), "{bytes}");
        }
    }
}
