//! Finds where the parts of a URL in a text end.

use std::borrow::Cow;

/// Where an authority ends, if it ends the way one does: `https://eu.iterocloud.com.evil.test` is another
/// host altogether, `https://eu.iterocloud.com@evil.test` and `https://eu.iterocloud.com\@evil.test` are
/// tricks.
pub(super) fn authority_end(text: &[u8]) -> Option<usize> {
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let end = text.iter().position(|b| !part(b)).unwrap_or(text.len());
    let ends = match text.get(end) {
        None => true,
        Some(b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b',' | b')' | b'&') => true,
        Some(b'\\') => match text.get(end + 1) {
            Some(b'u') => text.get(end + 2..end + 6).is_some_and(is_escaped_delimiter),
            next => matches!(next, Some(b'/' | b'"' | b'n' | b'r' | b't')),
        },
        Some(b) => b.is_ascii_whitespace(),
    };
    (ends && end > 0).then_some(end)
}

/// The four digits of an escape that stands for a sign at which an authority ends: `/ ? # " ' < > &`. An
/// escaped letter or dot would go on with the host.
fn is_escaped_delimiter(digits: &[u8]) -> bool {
    [b"002f", b"003f", b"0023", b"0022", b"0027", b"003c", b"003e", b"0026"]
        .iter()
        .any(|delimiter| digits.eq_ignore_ascii_case(*delimiter))
}

/// The beginning of a URL's path, without escapes, query and fragment.
pub(super) fn path_of(text: &[u8]) -> Cow<'_, str> {
    let end = match url_end(text) {
        UrlEnd::At(end) | UrlEnd::Unclear(end) => end,
        UrlEnd::Beyond => text.len(),
    };
    let ends = |b: &u8| matches!(b, b'?' | b'#' | b'\'' | b',' | b')' | b'&');
    let path = &text[..text[..end].iter().position(ends).unwrap_or(end)];
    if !path.contains(&b'\\') {
        return String::from_utf8_lossy(path);
    }
    let path = String::from_utf8_lossy(path).replace("\\/", "/");
    let mut path = path.replace("\\u002f", "/").replace("\\u002F", "/");
    path.truncate(path.find('\\').unwrap_or(path.len()));
    Cow::Owned(path)
}

pub(super) enum UrlEnd {
    At(usize),
    /// A backslash stands there, and what follows decides.
    Unclear(usize),
    Beyond,
}

const fn may_end_url(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'"' | b'<' | b'>' | b'\\')
}

pub(super) fn url_end(text: &[u8]) -> UrlEnd {
    let mut at = 0;
    loop {
        at += plain_in_url(&text[at..]);
        match (text.get(at), text.get(at + 1)) {
            (None, _) => return UrlEnd::Beyond,
            (Some(b'\\'), None) => return UrlEnd::Unclear(at),
            (Some(b'\\'), Some(b'/')) => at += 2,
            (Some(b'\\'), Some(b'u')) => match text.get(at + 2..at + 6) {
                None => return UrlEnd::Unclear(at),
                Some(digits) if is_escaped_end(digits) => return UrlEnd::At(at),
                Some(_) => at += 2,
            },
            _ => return UrlEnd::At(at),
        }
    }
}

/// The four digits of an escape that stands for what no URL holds. Some programs write all quotes and angle
/// brackets like this, and the next link of their text must be seen.
fn is_escaped_end(digits: &[u8]) -> bool {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
    number.is_some_and(may_end_url)
}

/// How many bytes stand before the first one that may end a URL. Without a way out in the middle, a block
/// takes a few steps.
fn plain_in_url(text: &[u8]) -> usize {
    const BLOCK: usize = 16;
    let blocks = text.chunks_exact(BLOCK);
    let plain =
        blocks.take_while(|block| !block.iter().fold(false, |any, byte| any | may_end_url(*byte))).count();
    let before = plain * BLOCK;
    let rest = &text[before..];
    before + rest.iter().position(|byte| may_end_url(*byte)).unwrap_or(rest.len())
}
