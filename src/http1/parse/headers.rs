//! The headers of one head as they were sent: order, letter case and blanks included. Old programs compare
//! them as they stand, so a header that nobody has changed is written as the very line that it came as.
//!
//! Not a map: a head has a dozen headers, a call asks for a few of them, and most of those are absent, which
//! one bit tells.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head_error::{HeadError, HeadLimits, HeadPart, invalid_byte};
use super::known_header::{HeaderSet, KnownHeader};
use crate::http1::buffer_pool;
use crate::http1::write::write_header;

/// The headers of one head, in their order.
#[derive(Default)]
pub struct Headers {
    head: Bytes,
    list: Vec<HeaderLine>,
    names: HeaderSet,
}

/// Where in the head a header stands. Heads are bounded far below 4 GiB.
#[derive(Clone)]
struct HeaderLine {
    name: KnownHeader,
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    /// Behind its CR LF.
    end: u32,
    /// In place of the value that was sent.
    replacement: Option<HeaderValue>,
}

/// One header.
#[derive(Clone, Copy)]
pub struct HeaderField<'f> {
    pub name: KnownHeader,
    /// The name in its sender's letter case.
    pub raw_name: &'f [u8],
    pub value: &'f [u8],
    /// All of it with its CR LF, where nobody has changed it.
    line: Option<&'f [u8]>,
}

/// A header that may stand only once stands twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateHeader;

thread_local! {
    // A call needs two lists, of about the same size.
    static POOL: RefCell<Vec<Vec<HeaderLine>>> = const { RefCell::new(Vec::new()) };
}

/// How many lists a worker keeps, and how large they may have become.
const POOLED_LISTS: usize = 32;
const MAX_POOLED_LINES: usize = 64;

impl Headers {
    /// The lines of a head from `at` on, up to the blank one that ends it.
    pub(super) fn parse(head: Bytes, mut at: usize, limits: &HeadLimits) -> Result<Self, HeadError> {
        let list = buffer_pool::take(&POOL).unwrap_or_else(|| Vec::with_capacity(16));
        let mut headers = Self { head, list, names: HeaderSet::NONE };
        loop {
            let line = &headers.head[at..];
            if line.starts_with(b"\r\n") {
                return Ok(headers);
            }
            if headers.list.len() == limits.max_headers {
                return Err(HeadError::TooLarge);
            }
            let line = parse_header_line(line, at, headers.list.len() + 1)?;
            at = line.end as usize;
            headers.names.add(line.name);
            headers.list.push(line);
        }
    }

    /// A head that somebody here puts together. Names and values that may not stand in one are refused.
    pub fn from_pairs<'a>(
        headers: impl IntoIterator<Item = (&'a str, impl AsRef<[u8]>)>,
    ) -> Result<Self, HeadError> {
        let mut head = Vec::new();
        for (name, value) in headers {
            let value = value.as_ref();
            if !is_valid_value(value) {
                return Err(HeadError::Malformed);
            }
            write_header(&mut head, name.as_bytes(), value);
        }
        head.extend_from_slice(b"\r\n");
        Self::parse(Bytes::from(head), 0, &HeadLimits { max_bytes: usize::MAX, max_headers: usize::MAX })
    }

    pub fn iter(&self) -> impl Iterator<Item = HeaderField<'_>> {
        self.list.iter().map(|line| self.header(line))
    }

    /// Whether one of these is here.
    pub fn has_any(&self, names: HeaderSet) -> bool {
        self.names.intersects(names)
    }

    pub fn has(&self, name: KnownHeader) -> bool {
        self.names.has(name)
    }

    /// The values under this name, in their order.
    pub fn all(&self, name: KnownHeader) -> impl DoubleEndedIterator<Item = &[u8]> {
        let list = if self.has(name) { &self.list[..] } else { &[] };
        list.iter().filter(move |line| line.name == name).map(|line| self.value(line))
    }

    /// The first value under this name.
    pub fn get(&self, name: KnownHeader) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The value under a name that must not stand twice.
    pub fn get_unique(&self, name: KnownHeader) -> Result<Option<&[u8]>, DuplicateHeader> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (one, None) => Ok(one),
            (_, Some(_)) => Err(DuplicateHeader),
        }
    }

    /// Whether one of the lists under this name has this token.
    pub fn has_token(&self, name: KnownHeader, word: &[u8]) -> bool {
        self.tokens(name).any(|one| one.eq_ignore_ascii_case(word))
    }

    /// The tokens of all lists under this name.
    pub fn tokens(&self, name: KnownHeader) -> impl Iterator<Item = &[u8]> {
        self.all(name).flat_map(tokens)
    }

    /// The name in the letter case in which it was sent; in lower case where it was not.
    pub fn raw_name(&self, name: KnownHeader) -> &[u8] {
        let sent = self.has(name).then(|| self.list.iter().find(|line| line.name == name)).flatten();
        sent.map_or(name.as_str().as_bytes(), |line| self.header(line).raw_name)
    }

    /// Puts a value in place of all that stood under its name, or behind the other headers.
    pub fn set(&mut self, name: KnownHeader, value: HeaderValue) {
        let mut value = Some(value);
        if self.has(name) {
            self.list.retain_mut(|line| {
                let first = line.name == name && value.is_some();
                if first {
                    line.replacement = value.take();
                }
                first || line.name != name
            });
        }
        if value.is_some() {
            self.names.add(name);
            let nowhere = HeaderLine {
                name,
                start: 0,
                name_end: 0,
                value_start: 0,
                value_end: 0,
                end: 0,
                replacement: value,
            };
            self.list.push(nowhere);
        }
    }

    /// Puts another value in the place of each one for which there is one; the others stay as they were sent.
    pub fn change(&mut self, mut other: impl FnMut(HeaderField<'_>) -> Option<HeaderValue>) {
        let mut list = std::mem::take(&mut self.list);
        for line in &mut list {
            if let Some(value) = other(self.header(line)) {
                line.replacement = Some(value);
            }
        }
        self.list = list;
    }

    /// Keeps the headers for which `stays` is true.
    pub fn retain(&mut self, mut stays: impl FnMut(HeaderField<'_>) -> bool) {
        let mut list = std::mem::take(&mut self.list);
        list.retain(|line| stays(self.header(line)));
        self.names = HeaderSet::NONE;
        list.iter().for_each(|line| self.names.add(line.name));
        self.list = list;
    }

    /// As `http`'s map.
    pub fn to_map(&self) -> HeaderMap {
        let value = |line: &HeaderLine| match &line.replacement {
            Some(replacement) => Ok(replacement.clone()),
            None => HeaderValue::from_maybe_shared(
                self.head.slice(line.value_start as usize..line.value_end as usize),
            ),
        };
        let pair = |line| Some((HeaderName::from_bytes(self.header(line).raw_name).ok()?, value(line).ok()?));
        let mut map = HeaderMap::with_capacity(self.list.len());
        // What was let in here may stand in any map.
        self.list.iter().filter_map(pair).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn header<'f>(&'f self, line: &'f HeaderLine) -> HeaderField<'f> {
        let sent = &self.head[line.start as usize..line.end as usize];
        let raw_name = match sent {
            [] => line.name.as_str().as_bytes(),
            sent => &sent[..(line.name_end - line.start) as usize],
        };
        let sent = line.replacement.is_none().then_some(sent);
        HeaderField { name: line.name, raw_name, value: self.value(line), line: sent }
    }

    fn value<'f>(&'f self, line: &'f HeaderLine) -> &'f [u8] {
        match &line.replacement {
            Some(replacement) => replacement.as_bytes(),
            None => &self.head[line.value_start as usize..line.value_end as usize],
        }
    }
}

impl HeaderField<'_> {
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.line {
            Some(line) => out.extend_from_slice(line),
            None => write_header(out, self.raw_name, self.value),
        }
    }
}

/// The tokens of a list.
pub fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A value as text, where it is some.
pub fn ascii_str(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
}

impl Drop for Headers {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.list);
        if list.capacity() == 0 || list.capacity() > MAX_POOLED_LINES {
            return;
        }
        // What it held must not outlive its call.
        list.clear();
        buffer_pool::keep(&POOL, POOLED_LISTS, list);
    }
}

impl fmt::Debug for Headers {
    /// Values hold what no log may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|header| String::from_utf8_lossy(header.raw_name))).finish()
    }
}

/// The header that `line` begins with, which stands at `at`. No blank may stand in a name, so neither before
/// its colon, nor at the beginning of a folded line.
fn parse_header_line(line: &[u8], at: usize, number: usize) -> Result<HeaderLine, HeadError> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(HeadError::Malformed)?;
    let name = KnownHeader::from_bytes(&line[..colon]);
    // Those that are known are made of nothing else.
    if name == KnownHeader::Other && !is_valid_name(&line[..colon]) {
        return Err(invalid_byte(&line[..colon], HeadPart::FieldName(number), is_token_byte));
    }
    let behind = colon + 1;
    let end = behind + memchr::memchr(b'\n', &line[behind..]).ok_or(HeadError::Malformed)?;
    let value = line[behind..end].strip_suffix(b"\r").ok_or(HeadError::BareLineFeed)?;
    if !is_valid_value(value) {
        return Err(invalid_byte(value, HeadPart::FieldValue(number), |byte| is_value_byte(&byte)));
    }
    let trimmed = value.trim_ascii();
    let before = value.len() - value.trim_ascii_start().len();
    // A head is bounded far below 4 GiB.
    let place = |offset: usize| (at + offset) as u32;
    Ok(HeaderLine {
        name,
        start: place(0),
        name_end: place(colon),
        value_start: place(behind + before),
        value_end: place(behind + before + trimmed.len()),
        end: place(end + 1),
        replacement: None,
    })
}

/// Whether a line, without its CR LF, is a header: what stands behind a chunked body has to be some, too.
pub(super) fn is_header_line(line: &[u8]) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    colon.is_some_and(|colon| is_valid_name(&line[..colon]) && is_valid_value(&line[colon + 1..]))
}

fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte))
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    IS_TOKEN_BYTE[usize::from(byte)]
}

/// Eight bytes at a time: nearly all values hold printable characters and nothing else.
fn is_valid_value(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let plain =
        words.iter().all(|word| is_printable(u64::from_ne_bytes(*word)) || word.iter().all(is_value_byte));
    plain && rest.iter().all(is_value_byte)
}

/// No byte below the blank, and none that is DEL. May take bytes beyond ASCII for one: those are looked at
/// one by one.
const fn is_printable(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
    let del = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (below_blank | del | word) & TOPS == 0
}

/// RFC 9110, 5.6.2.
static IS_TOKEN_BYTE: [bool; 256] = {
    let mut may = [false; 256];
    let mut byte = 0;
    while byte < may.len() {
        let letter = byte as u8;
        may[byte] = letter.is_ascii_alphanumeric()
            || matches!(
                letter,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    may
};

/// RFC 9110, 5.5: no controls but the tab.
fn is_value_byte(byte: &u8) -> bool {
    *byte >= b' ' && *byte != 0x7f || *byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(lines: &str) -> Headers {
        let limits = HeadLimits { max_bytes: 1000, max_headers: 10 };
        Headers::parse(Bytes::copy_from_slice(lines.as_bytes()), 0, &limits).unwrap()
    }

    fn written(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.iter().for_each(|header| header.write(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_keep_their_order_their_letter_case_and_their_bytes() {
        let lines = "HOST: a\r\nX-Thing:  \t1 2ä \r\nx-thing:\r\n\r\n";
        let mut headers = sent(lines);
        assert_eq!(written(&headers), lines.strip_suffix("\r\n").unwrap());
        let values: Vec<&[u8]> = headers.iter().map(|header| header.value).collect();
        assert_eq!(values, ["a".as_bytes(), "1 2ä".as_bytes(), b""]);
        // What is changed is written anew, under the name that was used.
        headers.set(KnownHeader::Host, HeaderValue::from_static("b"));
        headers.set(KnownHeader::Via, HeaderValue::from_static("v"));
        headers.set(KnownHeader::Via, HeaderValue::from_static("w"));
        assert_eq!(written(&headers), "HOST: b\r\nX-Thing:  \t1 2ä \r\nx-thing:\r\nvia: w\r\n");
        assert_eq!(
            (headers.raw_name(KnownHeader::Host), headers.raw_name(KnownHeader::Te)),
            (&b"HOST"[..], &b"te"[..])
        );
        headers.retain(|header| header.name != KnownHeader::Other);
        assert_eq!(written(&headers), "HOST: b\r\nvia: w\r\n");
    }

    #[test]
    fn a_value_is_found_under_its_name_and_one_that_stands_twice_is_told() {
        let mut headers = sent("Via: a, b\r\nHost: x\r\nvia: c\r\n\r\n");
        assert_eq!(headers.get(KnownHeader::Via), Some(&b"a, b"[..]));
        assert_eq!(headers.get_unique(KnownHeader::Host), Ok(Some(&b"x"[..])));
        assert_eq!(headers.get_unique(KnownHeader::Via), Err(DuplicateHeader));
        assert_eq!(headers.get_unique(KnownHeader::Te), Ok(None));
        assert!(
            headers.has_token(KnownHeader::Via, b"C")
                && headers.has_token(KnownHeader::Via, b"b")
                && !headers.has_token(KnownHeader::Via, b"a, b")
        );
        assert_eq!(headers.to_map().get_all("via").iter().count(), 2);
        headers.set(KnownHeader::Via, HeaderValue::from_static("d"));
        assert_eq!(headers.get_unique(KnownHeader::Via), Ok(Some(&b"d"[..])));
        headers.retain(|header| header.name != KnownHeader::Via);
        assert!(!headers.has(KnownHeader::Via) && headers.has(KnownHeader::Host));
    }

    #[test]
    fn a_list_that_is_used_again_holds_nothing_of_its_last_head() {
        drop(sent("Authorization: secret\r\nHost: a\r\n\r\n"));
        let second = sent("Host: b\r\n\r\n");
        assert_eq!(second.iter().count(), 1);
        assert_eq!(format!("{second:?}"), r#"["Host"]"#);
    }

    #[test]
    fn only_what_may_stand_in_a_name_or_a_value_does() {
        for byte in 0..=u8::MAX {
            let name = [b'x', byte];
            assert_eq!(IS_TOKEN_BYTE[usize::from(byte)], HeaderName::from_bytes(&name).is_ok(), "{byte}");
            for place in 0..20 {
                let mut value = *b"a value of 20 letters";
                value[place] = byte;
                assert_eq!(
                    is_valid_value(&value),
                    HeaderValue::from_bytes(&value).is_ok(),
                    "{byte} at {place}"
                );
            }
        }
        assert!(Headers::from_pairs([("a b", "c")]).is_err());
        assert!(Headers::from_pairs([("a", "b\r\nc: d")]).is_err_and(|error| error == HeadError::Malformed));
    }
}
