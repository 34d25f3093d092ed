//! Reads HTTP/1.1 responses as the bytes come, keeping none of a body: the generator must stay cheaper than
//! what it measures.

use memchr::{memchr, memmem};

/// The longest head taken; a split one is kept until it is whole.
const MAX_HEAD: usize = 256 * 1024;

/// What is known of a response once it is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedResponse {
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// It carries the header that every sandbox response has.
    pub from_sandbox: bool,
    /// The gateway made it up itself; the platform was not asked. Holds the code, which is the reason phrase.
    pub refusal: Option<String>,
    /// The connection can carry another call.
    pub keep_alive: bool,
}

/// One response, fed chunk by chunk.
pub struct ResponseReader {
    state: ReadState,
    head: Vec<u8>,
    response: ReceivedResponse,
    /// The response to a HEAD has no body, whatever its fields say.
    is_head: bool,
}

/// Which part of the response is read next.
#[derive(Debug, PartialEq)]
enum ReadState {
    Head,
    Length(u64),
    /// The hexadecimal line before a chunk: the number so far, and whether its digits are over.
    ChunkSize(u64, bool),
    Chunk(u64),
    /// The line break behind a chunk.
    ChunkEnd,
    /// Trailer fields: how many bytes the current line has.
    Trailers(usize),
    UntilClose,
    Done,
}

impl ResponseReader {
    pub fn new(is_head: bool) -> Self {
        Self { state: ReadState::Head, head: Vec::new(), response: ReceivedResponse::default(), is_head }
    }

    /// Whether the first byte has come.
    pub fn has_begun(&self) -> bool {
        self.state != ReadState::Head || !self.head.is_empty()
    }

    /// Takes the next bytes; returns how many of them were body, and the response where it is complete.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(u64, Option<ReceivedResponse>), &'static str> {
        let before = self.response.bytes;
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                ReadState::Head => self.take_head(bytes)?,
                ReadState::Length(remaining) => {
                    let taken = prefix_within(bytes, *remaining);
                    *remaining -= taken as u64;
                    self.response.bytes += taken as u64;
                    if *remaining == 0 {
                        self.state = ReadState::Done;
                    }
                    &bytes[taken..]
                }
                ReadState::ChunkSize(size, over) => {
                    match (bytes[0], char::from(bytes[0]).to_digit(16)) {
                        (b'\n', _) if *size == 0 => self.state = ReadState::Trailers(0),
                        (b'\n', _) => self.state = ReadState::Chunk(*size),
                        (_, Some(digit)) if !*over => {
                            *size =
                                size.checked_mul(16).ok_or("a chunk of absurd length")? + u64::from(digit);
                        }
                        _ => *over = true,
                    }
                    &bytes[1..]
                }
                ReadState::Chunk(remaining) => {
                    let taken = prefix_within(bytes, *remaining);
                    *remaining -= taken as u64;
                    self.response.bytes += taken as u64;
                    if *remaining == 0 {
                        self.state = ReadState::ChunkEnd;
                    }
                    &bytes[taken..]
                }
                ReadState::ChunkEnd => {
                    if bytes[0] == b'\n' {
                        self.state = ReadState::ChunkSize(0, false);
                    }
                    &bytes[1..]
                }
                ReadState::Trailers(length) => {
                    match bytes[0] {
                        b'\n' if *length == 0 => self.state = ReadState::Done,
                        b'\n' => *length = 0,
                        b'\r' => {}
                        _ => *length += 1,
                    }
                    &bytes[1..]
                }
                ReadState::UntilClose => {
                    self.response.bytes += bytes.len() as u64;
                    &[]
                }
                ReadState::Done => return Err("bytes after the answer"),
            };
        }
        let grown = self.response.bytes - before;
        Ok((grown, (self.state == ReadState::Done).then(|| std::mem::take(&mut self.response))))
    }

    /// The connection has ended; right only for a response that ends with it.
    pub fn close(&mut self) -> Result<ReceivedResponse, &'static str> {
        match self.state {
            ReadState::UntilClose => Ok(std::mem::take(&mut self.response)),
            ReadState::Head if self.head.is_empty() => Err("closed before an answer"),
            _ => Err("cut short"),
        }
    }

    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], &'static str> {
        const END: &[u8] = b"\r\n\r\n";
        if self.head.is_empty() {
            // The usual case: the whole head in one chunk, read where it lies.
            if let Some(end) = memmem::find(bytes, END) {
                self.read_head(&bytes[..end + 2])?;
                return Ok(&bytes[end + 4..]);
            }
        }
        let known = self.head.len();
        if known + bytes.len() > MAX_HEAD {
            return Err("an endless head");
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.head[known.saturating_sub(3)..], END) else { return Ok(&[]) };
        let end = known.saturating_sub(3) + end;
        let head = std::mem::take(&mut self.head);
        self.read_head(&head[..end + 2])?;
        Ok(&bytes[end + 4 - known..])
    }

    /// Reads a head whose every line still has its line break.
    fn read_head(&mut self, head: &[u8]) -> Result<(), &'static str> {
        let mut lines = HeaderLines(head);
        let line = lines.next().ok_or("no status line")?;
        let (minor, rest) = match line {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] => {
                (*minor, rest)
            }
            _ => return Err("no HTTP/1 status line"),
        };
        let digits =
            rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or("no status")?;
        let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        if (100..200).contains(&status) {
            // An interim response: the real one follows.
            return Ok(());
        }
        let fields = ResponseFields::read(lines)?;
        self.response.status = status;
        self.response.from_sandbox = fields.from_sandbox;
        self.response.refusal = fields.refused.then(|| String::from_utf8_lossy(&rest[3..]).trim().to_owned());
        self.response.keep_alive = minor == b'1' && !fields.closes;
        self.state = match fields {
            _ if self.is_head || matches!(status, 204 | 304) => ReadState::Done,
            ResponseFields { chunked: true, .. } => ReadState::ChunkSize(0, false),
            ResponseFields { length: Some(0), .. } => ReadState::Done,
            ResponseFields { length: Some(length), .. } => ReadState::Length(length),
            _ => {
                self.response.keep_alive = false;
                ReadState::UntilClose
            }
        };
        Ok(())
    }
}

fn prefix_within(bytes: &[u8], remaining: u64) -> usize {
    bytes.len().min(usize::try_from(remaining).unwrap_or(usize::MAX))
}

/// The fields that matter here.
#[derive(Default)]
struct ResponseFields {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    from_sandbox: bool,
    refused: bool,
}

impl ResponseFields {
    fn read(lines: HeaderLines) -> Result<Self, &'static str> {
        let mut fields = Self::default();
        for line in lines {
            let Some(colon) = memchr(b':', line) else { return Err("a field without a colon") };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            // By length first: most fields are none of ours.
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    fields.length = Some(number.ok_or("a Content-Length that is no number")?);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    fields.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    fields.closes = value.eq_ignore_ascii_case(b"close");
                }
                9 if name.eq_ignore_ascii_case(super::SANDBOX_MARK.0.as_bytes()) => {
                    fields.from_sandbox = value == super::SANDBOX_MARK.1.as_bytes();
                }
                12 if name.eq_ignore_ascii_case(b"proxy-status") => {
                    fields.refused = value.starts_with(b"genapi-gateway");
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// Lines without their breaks.
struct HeaderLines<'a>(&'a [u8]);

impl<'a> Iterator for HeaderLines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_complete(text: &str, step: usize) -> Result<ReceivedResponse, &'static str> {
        let mut reader = ResponseReader::new(false);
        let mut last = None;
        for chunk in text.as_bytes().chunks(step) {
            let (_, response) = reader.feed(chunk)?;
            last = last.or(response);
        }
        last.map_or_else(|| reader.close(), Ok)
    }

    #[test]
    fn responses_read_the_same_however_they_are_cut() {
        let counted = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-SANDBOX: genapi-gateway\r\n\r\nabcde";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n";
        let closing = "HTTP/1.1 200 OK\r\n\r\nabcde";
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 slow\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        for step in [1, 2, 3, 7, 1000] {
            let response = read_complete(counted, step).unwrap();
            assert_eq!(
                (response.status, response.bytes, response.from_sandbox, response.keep_alive),
                (200, 5, true, true)
            );
            let response = read_complete(chunked, step).unwrap();
            assert_eq!(
                (response.bytes, response.from_sandbox, response.keep_alive),
                (5, false, true),
                "{step}"
            );
            let response = read_complete(closing, step).unwrap();
            assert_eq!((response.bytes, response.keep_alive), (5, false));
            let response = read_complete(interim, step).unwrap();
            assert_eq!((response.status, response.keep_alive), (503, false));
        }
    }

    #[test]
    fn a_refusal_of_the_gateway_is_told_by_its_proxy_status_and_named_by_its_reason() {
        let refused = "HTTP/1.1 401 account_needs_login\r\nProxy-Status: genapi-gateway; error=http_request_denied\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_complete(refused, 1000).unwrap().refusal.as_deref(), Some("account_needs_login"));
        let passed = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_complete(passed, 1000).unwrap().refusal, None);
    }

    #[test]
    fn what_is_short_or_too_long_or_no_response_at_all_is_an_error() {
        for (text, why) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcde", "cut short"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcde", "bytes after the answer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", "cut short"),
            ("SSH-2.0-x\r\n\r\n", "no HTTP/1 status line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabcd", "a Content-Length that is no number"),
            ("", "closed before an answer"),
        ] {
            assert_eq!(read_complete(text, 1000), Err(why));
        }
        let mut is_head = ResponseReader::new(true);
        let (_, response) = is_head.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").unwrap();
        assert_eq!(response.unwrap().bytes, 0);
    }
}
