//! Decodes bodies: by length, in chunks, or to the end of the connection. Chunks are taken as strictly as
//! heads: where two readers could disagree about an end, there is none (threats, row 1).

use bytes::{Bytes, BytesMut};

use super::headers::is_header_line;

/// How the rest of a body is delimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyDecoder {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(ChunkedState),
    /// Everything up to the end of the connection.
    UntilClose {
        ended: bool,
    },
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkedState {
    /// In the line with a chunk's size.
    Size,
    /// In a chunk's data, of which so much is missing.
    Data(u64),
    /// In the CR LF behind the data.
    DataEnd,
    /// In the lines behind the last chunk, of which so many bytes have come.
    Trailers(usize),
    Ended,
    /// Something else stood where a line should have: nothing behind it is believed.
    Broken(BodyError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body broke off")]
    Truncated,
    #[error("the body's chunks cannot be told apart")]
    InvalidChunks,
    /// All data has come with the last chunk; what stands behind it is no trailer section, or breaks off. A
    /// response may be passed on complete, but its connection serves nobody again.
    #[error("the lines behind the body's last chunk are no trailers")]
    InvalidTrailers,
}

/// A size line with its extensions, and all trailers: more says nothing, and costs.
const MAX_LINE: usize = 4 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;

impl BodyDecoder {
    pub const NONE: BodyDecoder = BodyDecoder::Length(0);

    pub fn chunked() -> Self {
        BodyDecoder::Chunked(ChunkedState::Size)
    }

    pub fn until_close() -> Self {
        BodyDecoder::UntilClose { ended: false }
    }

    pub fn has_ended(&self) -> bool {
        match self {
            BodyDecoder::Length(remaining) => *remaining == 0,
            BodyDecoder::Chunked(chunks) => *chunks == ChunkedState::Ended,
            BodyDecoder::UntilClose { ended } => *ended,
        }
    }

    /// How much is still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            BodyDecoder::Length(remaining) => Some(*remaining),
            BodyDecoder::Chunked(ChunkedState::Ended) | BodyDecoder::UntilClose { ended: true } => Some(0),
            BodyDecoder::Chunked(_) | BodyDecoder::UntilClose { .. } => None,
        }
    }

    /// Takes the next chunk of data out of what has been read; `None` where more has to be read, or all has
    /// been.
    pub fn take(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, BodyError> {
        match self {
            BodyDecoder::Length(remaining) => {
                let chunk = take_up_to(bytes, *remaining);
                *remaining -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            BodyDecoder::Chunked(chunks) => {
                chunks.advance(bytes)?;
                let ChunkedState::Data(remaining) = chunks else { return Ok(None) };
                let Some(chunk) = take_up_to(bytes, *remaining) else { return Ok(None) };
                match *remaining - chunk.len() as u64 {
                    0 => *chunks = ChunkedState::DataEnd,
                    rest => *chunks = ChunkedState::Data(rest),
                }
                // So that the end is known with the last chunk, where it has come. A fault behind it shows
                // with the next call: this chunk is sound.
                let _shown_later = chunks.advance(bytes);
                Ok(Some(chunk))
            }
            BodyDecoder::UntilClose { .. } => Ok(take_up_to(bytes, u64::MAX)),
        }
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<(), BodyError> {
        match self {
            BodyDecoder::UntilClose { ended } => {
                *ended = true;
                Ok(())
            }
            _ if self.has_ended() => Ok(()),
            BodyDecoder::Chunked(ChunkedState::Trailers(_)) => Err(BodyError::InvalidTrailers),
            _ => Err(BodyError::Truncated),
        }
    }
}

fn take_up_to(bytes: &mut BytesMut, remaining: u64) -> Option<Bytes> {
    let length = bytes.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
    (length > 0).then(|| bytes.split_to(length).freeze())
}

impl ChunkedState {
    /// Reads on to the next data, as far as that is here. What has failed once stays failed.
    fn advance(&mut self, bytes: &mut BytesMut) -> Result<(), BodyError> {
        self.next_state(bytes).inspect_err(|error| *self = ChunkedState::Broken(*error))
    }

    fn next_state(&mut self, bytes: &mut BytesMut) -> Result<(), BodyError> {
        loop {
            *self = match *self {
                ChunkedState::Size => match take_line(bytes, MAX_LINE)? {
                    None => return Ok(()),
                    Some(line) => match parse_chunk_size(&line).ok_or(BodyError::InvalidChunks)? {
                        0 => ChunkedState::Trailers(0),
                        size => ChunkedState::Data(size),
                    },
                },
                ChunkedState::DataEnd => match take_line(bytes, 2)? {
                    None => return Ok(()),
                    Some(line) if line.is_empty() => ChunkedState::Size,
                    Some(_) => return Err(BodyError::InvalidChunks),
                },
                ChunkedState::Trailers(before) => match take_trailer(bytes, before)? {
                    None => return Ok(()),
                    Some(0) => ChunkedState::Ended,
                    Some(length) => ChunkedState::Trailers((before + length).min(MAX_TRAILERS)),
                },
                ChunkedState::Data(_) | ChunkedState::Ended => return Ok(()),
                ChunkedState::Broken(error) => return Err(error),
            };
        }
    }
}

/// How long the next trailer is, behind `before` bytes of others; 0 is the end of them. Nobody here listens
/// to a trailer, but something else in its place would be a second meaning.
fn take_trailer(bytes: &mut BytesMut, before: usize) -> Result<Option<usize>, BodyError> {
    match take_line(bytes, MAX_TRAILERS - before) {
        Ok(None) => Ok(None),
        Ok(Some(line)) if line.is_empty() => Ok(Some(0)),
        Ok(Some(line)) if is_header_line(&line) => Ok(Some(line.len() + 2)),
        Ok(Some(_)) | Err(_) => Err(BodyError::InvalidTrailers),
    }
}

/// The next line without its CR LF, if it is here.
fn take_line(bytes: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, BodyError> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > limit { Err(BodyError::InvalidChunks) } else { Ok(None) };
    };
    if end > limit || end == 0 || bytes[end - 1] != b'\r' {
        return Err(BodyError::InvalidChunks);
    }
    let mut line = bytes.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

/// One to sixteen hexadecimal digits, and extensions that nobody reads (RFC 9112, 7.1.1).
fn parse_chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, extension) = line.split_at(digits);
    let plain = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
    // Blanks alone: `trim_ascii_start` would take a bare CR for one.
    let blanks = extension.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let fits = match &extension[blanks..] {
        [] => extension.is_empty(),
        [b';', rest @ ..] => rest.iter().all(plain),
        _ => false,
    };
    if !fits || !(1..=16).contains(&digits) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, what is left behind it, and whether it has ended; fed byte by byte or at once.
    fn decoded(
        mut decoder: BodyDecoder,
        text: &str,
        at_once: bool,
    ) -> Result<(String, String, bool), BodyError> {
        let (mut held, mut data) = (BytesMut::new(), Vec::new());
        let step = if at_once { text.len().max(1) } else { 1 };
        let mut rest = Vec::new();
        for chunk in text.as_bytes().chunks(step) {
            if decoder.has_ended() {
                rest.extend_from_slice(chunk);
                continue;
            }
            held.extend_from_slice(chunk);
            while let Some(chunk) = decoder.take(&mut held)? {
                data.extend_from_slice(&chunk);
            }
        }
        rest.splice(0..0, held.to_vec());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(data), text(rest), decoder.has_ended()))
    }

    #[test]
    fn chunks_come_together_however_they_were_sent() {
        let text = "3\r\nabc\r\n1;ext=\"1\"\r\nd\r\n00A \t;x\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\nnext";
        let expected = ("abcd0123456789".to_owned(), "next".to_owned(), true);
        for at_once in [true, false] {
            assert_eq!(decoded(BodyDecoder::chunked(), text, at_once).unwrap(), expected);
        }
        assert_eq!(
            decoded(BodyDecoder::Length(3), "abcdef", true).unwrap(),
            ("abc".into(), "def".into(), true)
        );
        assert_eq!(
            decoded(BodyDecoder::until_close(), "abc", true).unwrap(),
            ("abc".into(), "".into(), false)
        );
    }

    #[test]
    fn chunks_that_two_readers_could_understand_in_two_ways_are_refused() {
        for bad in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3 3\r\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
            ";\r\n0\r\n\r\n",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n0\r\n\r\n",
            "3\r;a\r\nabc\r\n0\r\n\r\n",
            "3\x0c;a\r\nabc\r\n0\r\n\r\n",
            "0\r\n\n",
            "0\r\nabc\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na: b\rc\r\n\r\n",
        ] {
            for at_once in [true, false] {
                assert!(decoded(BodyDecoder::chunked(), bad, at_once).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn a_body_that_was_broken_once_is_not_read_on() {
        for bad in ["zz\r\n3\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n\r\n0\r\n\r\n"] {
            let (mut decoder, mut held) = (BodyDecoder::chunked(), BytesMut::from(bad));
            let first_fault = (0..9).find(|_| decoder.take(&mut held).is_err());
            assert!(first_fault.is_some(), "{bad:?}");
            assert_eq!(decoder.take(&mut held), Err(BodyError::InvalidChunks), "{bad:?}");
            assert!(!decoder.has_ended() && decoder.end().is_err());
        }
    }

    #[test]
    fn a_fault_behind_the_last_chunk_costs_no_data_and_is_told_apart() {
        for bad in ["0\r\nno header\r\n\r\n", "0\r\n\n", "0\r\na: b\rc\r\n\r\n"] {
            let mut held = BytesMut::from(format!("3\r\nabc\r\n{bad}").as_str());
            let mut decoder = BodyDecoder::chunked();
            assert_eq!(decoder.take(&mut held), Ok(Some(Bytes::from("abc"))), "{bad:?}");
            for _ in 0..2 {
                assert_eq!(decoder.take(&mut held), Err(BodyError::InvalidTrailers), "{bad:?}");
            }
            assert!(!decoder.has_ended());
        }
        let (mut decoder, mut held) = (BodyDecoder::chunked(), BytesMut::from("3\r\nabc\r\n0\r\nA: b\r\n"));
        assert_eq!(decoder.take(&mut held), Ok(Some(Bytes::from("abc"))));
        assert_eq!((decoder.take(&mut held), decoder.end()), (Ok(None), Err(BodyError::InvalidTrailers)));
    }

    #[test]
    fn trailers_without_end_are_not_read() {
        let endless = format!("0\r\n{}", "A: b\r\n".repeat(10_000));
        assert_eq!(decoded(BodyDecoder::chunked(), &endless, false), Err(BodyError::InvalidTrailers));
        let long = format!("1;{}", "x".repeat(10_000));
        assert_eq!(decoded(BodyDecoder::chunked(), &long, false), Err(BodyError::InvalidChunks));
    }

    #[test]
    fn an_end_that_comes_early_is_a_body_broken_off() {
        assert_eq!(BodyDecoder::Length(1).end(), Err(BodyError::Truncated));
        assert_eq!(BodyDecoder::chunked().end(), Err(BodyError::Truncated));
        assert_eq!(BodyDecoder::Length(0).end(), Ok(()));
        let mut to_the_end = BodyDecoder::until_close();
        assert_eq!((to_the_end.has_ended(), to_the_end.end(), to_the_end.has_ended()), (false, Ok(()), true));
    }
}
