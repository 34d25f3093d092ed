//! A second pair of eyes on the bytes of a connection: where requests begin and end, and what hyper would settle silently.
//!
//! hyper merges equal Content-Lengths, drops Content-Length beside Transfer-Encoding and takes a bare LF for the end
//! of a line before anyone else sees the head. This scan sees the bytes first and only ever says no; it never decides
//! what a request means. It also knows whether a request has arrived in full, which the deadlines need.

use super::framing::{FramingError, is_number};

#[derive(Debug, Default)]
pub(super) struct Scan {
    at: At,
    line: Line,
    head: Head,
    /// Bytes of the last request line.
    request_line: usize,
    /// Heads seen to their end, so that a flaw is found again when hyper comes to that request.
    heads: u64,
    flaw: Option<(u64, FramingError)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum At {
    /// Before a request line; blank lines may stand here (RFC 9112, 2.2).
    #[default]
    Start,
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    /// Behind a chunked request, after which the connection closes.
    Last,
    /// Behind that, or behind something that cannot be understood.
    Over,
}

#[derive(Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    flaw: Option<FramingError>,
}

impl Scan {
    /// Takes what was read from the caller, in whatever pieces it came.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Start | At::Head | At::ChunkSize | At::Trailers => self.take_line(bytes),
                At::Body(left) => self.take_body(bytes, left),
                At::Chunk(left) => self.take_chunk(bytes, left),
                At::Last | At::Over => {
                    self.at = At::Over;
                    return;
                }
            };
        }
    }

    /// A head has begun and is not complete.
    pub(super) fn inside_head(&self) -> bool {
        match self.at {
            At::Head => true,
            At::Start => self.line.len > 0 && self.line.start != [b'\r'],
            _ => false,
        }
    }

    /// A body has begun and is not complete.
    pub(super) fn inside_body(&self) -> bool {
        matches!(self.at, At::Body(_) | At::ChunkSize | At::Chunk(_) | At::Trailers)
    }

    /// Everything that came belongs to requests that are complete, and nothing more is known to be on its way.
    pub(super) fn between_requests(&self) -> bool {
        (self.at == At::Start && self.line.len == 0) || self.at == At::Last
    }

    /// What is wrong with the framing of the `number`th request, counted from 1.
    pub(super) fn flaw(&self, number: u64) -> Option<FramingError> {
        self.flaw.filter(|(head, _)| *head == number).map(|(_, flaw)| flaw)
    }

    /// Bytes of the last request line, as far as it has come.
    pub(super) fn request_line(&self) -> usize {
        if self.at == At::Start { self.line.len.max(self.request_line) } else { self.request_line }
    }

    /// Reads up to the next LF. Lines that came in one piece, nearly all, are looked at where they lie.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.line.push(bytes);
            return &[];
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.line.len == 0 {
            self.end_line(line, line.len(), line.last() == Some(&b'\r'));
        } else {
            self.line.push(line);
            let Line { start, len, last } = std::mem::take(&mut self.line);
            self.end_line(&start, len, last == b'\r');
        }
        rest
    }

    /// `start` is the line without its LF, cut at [`Line::KEPT`] if it came in pieces.
    fn end_line(&mut self, start: &[u8], len: usize, ends_with_cr: bool) {
        if !ends_with_cr && matches!(self.at, At::Start | At::Head) {
            self.head.flaw.get_or_insert(FramingError::BareLineFeed);
        }
        let len = if ends_with_cr { len - 1 } else { len };
        let whole = start.len() >= len;
        let line = &start[..len.min(start.len())];
        match self.at {
            At::Start if len == 0 => {}
            At::Start => {
                self.request_line = len;
                self.at = At::Head;
            }
            At::Head if len == 0 => self.end_head(),
            At::Head => self.head.read_field(line, whole),
            At::ChunkSize => {
                self.at = match chunk_size(line) {
                    Some(0) => At::Trailers,
                    Some(size) => At::Chunk(size + 2),
                    None => At::Over,
                }
            }
            At::Trailers if len == 0 => self.at = At::Last,
            At::Trailers => {}
            At::Body(_) | At::Chunk(_) | At::Last | At::Over => {}
        }
    }

    fn end_head(&mut self) {
        self.heads += 1;
        let head = std::mem::take(&mut self.head);
        let two_framings = (head.chunked && head.length.is_some()).then_some(FramingError::TwoFramings);
        if let Some(flaw) = head.flaw.or(two_framings) {
            self.flaw = Some((self.heads, flaw));
            self.at = At::Over;
            return;
        }
        self.at = match head.length {
            _ if head.chunked => At::ChunkSize,
            Some(length) if length > 0 => At::Body(length),
            _ => At::Start,
        };
    }

    fn take_body<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let taken = left.min(bytes.len() as u64);
        self.at = if taken == left { At::Start } else { At::Body(left - taken) };
        &bytes[taken as usize..]
    }

    /// A chunk and the CR LF behind it.
    fn take_chunk<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let taken = left.min(bytes.len() as u64);
        self.at = if taken == left { At::ChunkSize } else { At::Chunk(left - taken) };
        &bytes[taken as usize..]
    }
}

impl Head {
    fn read_field(&mut self, line: &[u8], whole: bool) {
        // Most lines are told apart by their first letter.
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length") {
                    self.read_length(value, whole);
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    self.read_coding(value, whole);
                }
            }
            _ => {}
        }
    }

    fn read_length(&mut self, value: &[u8], whole: bool) {
        let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        if !whole || !is_number(value) || self.length.is_some() {
            self.flaw.get_or_insert(FramingError::ContentLength);
        }
        self.length = length.or(self.length);
    }

    fn read_coding(&mut self, value: &[u8], whole: bool) {
        if !whole || self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            self.flaw.get_or_insert(FramingError::TransferEncoding);
        }
        self.chunked = true;
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    field.eq_ignore_ascii_case(name).then(|| trim_blanks(value))
}

fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The size of a chunk from its line; extensions are skipped. A size that no `u64` holds is hyper's to refuse; those at its very end
/// are cut a little, since nobody will send them to their end, and the deadlines have to know that a body is awaited.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
    Some(size.min(u64::MAX - 2))
}

/// A line that did not come in one piece.
#[derive(Debug, Default)]
struct Line {
    start: Vec<u8>,
    len: usize,
    last: u8,
}

impl Line {
    /// Enough for any honest Content-Length or Transfer-Encoding line; longer ones of these are refused.
    const KEPT: usize = 128;

    fn push(&mut self, piece: &[u8]) {
        if let Some(last) = piece.last() {
            self.last = *last;
        }
        let room = Self::KEPT.saturating_sub(self.start.len());
        self.start.extend_from_slice(&piece[..room.min(piece.len())]);
        self.len += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanned(pieces: &[&str]) -> Scan {
        let mut scan = Scan::default();
        for piece in pieces {
            scan.feed(piece.as_bytes());
        }
        scan
    }

    #[test]
    fn what_hyper_would_settle_silently_is_a_flaw() {
        use FramingError::*;
        let table = [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", Some(ContentLength)),
            ("Content-Length: 1\r\ncontent-length: 2\r\n", Some(ContentLength)),
            ("Content-Length: +1\r\n", Some(ContentLength)),
            ("Content-Length: 1, 1\r\n", Some(ContentLength)),
            ("Content-Length:\r\n", Some(ContentLength)),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Some(TwoFramings)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", Some(TwoFramings)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Some(TransferEncoding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Some(TransferEncoding)),
            ("Transfer-Encoding:\x0bchunked\r\n", Some(TransferEncoding)),
            ("A: b\n", Some(BareLineFeed)),
            ("A: b\r\n", None),
            ("Content-Length: \t 17 \r\n", None),
            ("TRANSFER-ENCODING: Chunked\r\n", None),
            ("Content-Length-Of-Stay: 1\r\nContent-Length: 1\r\n", None),
        ];
        for (fields, flaw) in table {
            let scan = scanned(&["GET / HTTP/1.1\r\n", fields, "\r\n"]);
            assert_eq!(scan.flaw(1), flaw, "{fields:?}");
        }
    }

    #[test]
    fn a_flaw_belongs_to_its_own_request() {
        let scan = scanned(&[
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
        ]);
        assert_eq!(scan.flaw(1), None);
        assert_eq!(scan.flaw(2), None);
        assert_eq!(scan.flaw(3), Some(FramingError::BareLineFeed));
    }

    #[test]
    fn it_knows_whether_a_request_has_arrived_in_full() {
        assert!(scanned(&[]).between_requests());
        assert!(!scanned(&["\r\n"]).inside_head());
        assert!(scanned(&["G"]).inside_head());
        assert!(scanned(&["GET / HTTP/1.1\r\nHost: a\r\n"]).inside_head());
        assert!(scanned(&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"]).between_requests());
        assert!(scanned(&["POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na"]).inside_body());
        assert!(scanned(&["POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"]).between_requests());
        let chunked =
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\na\nb\r\n00\r\nTrailer: t\r\n";
        assert!(scanned(&[chunked]).inside_body());
        assert!(scanned(&[chunked, "\r\n"]).between_requests());
        assert!(!scanned(&[chunked, "\r\nG"]).between_requests());
        let endless = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab";
        assert!(scanned(&[endless]).inside_body(), "or no deadline would ever end it");
    }

    #[test]
    fn a_length_line_padded_beyond_reason_is_a_flaw() {
        let padding = " ".repeat(300);
        let scan = scanned(&["GET / HTTP/1.1\r\nContent-Length:", &padding, "5\r\n", "\r\n"]);
        assert_eq!(scan.flaw(1), Some(FramingError::ContentLength));
    }

    proptest! {
        /// However the bytes are cut into reads, the verdict is the same.
        #[test]
        fn pieces_do_not_matter(
            fields in proptest::collection::vec(0..7usize, 0..6),
            cuts in proptest::collection::vec(0..400usize, 0..12),
        ) {
            let table = ["A: b\r\n", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n", "C: d\n",
                "Host: x\r\n", "Connection: close\r\n", "Content-Length: 4,4\r\n"];
            let fields: String = fields.iter().map(|field| table[*field]).collect();
            let text = format!("POST /x HTTP/1.1\r\n{fields}\r\n4\r\nGET / HTTP/1.1\r\n\r\n");
            let whole = scanned(&[&text]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            pieces.push(&text[from..]);
            let cut = scanned(&pieces);
            prop_assert_eq!(&cut.at, &whole.at);
            prop_assert_eq!(cut.flaw, whole.flaw);
            prop_assert_eq!(cut.heads, whole.heads);
            prop_assert_eq!(cut.line.len, whole.line.len);
        }
    }
}
