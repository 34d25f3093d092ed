//! Decodes a path as leniently as any platform might read it, and refuses what has no place in one (threats,
//! row 6).

use std::borrow::Cow;

use crate::gateway::refusal::Refusal;

/// How often a path may be encoded over before it is refused.
const MAX_ENCODINGS: usize = 4;

/// Decodes until nothing is left to decode, refusing on the way what has no place in a path (threats, row 6).
pub fn decode_fully(path: &str) -> Result<Cow<'_, str>, Refusal> {
    let mut text = Cow::Borrowed(path);
    check_decoded(&text)?;
    for _ in 0..MAX_ENCODINGS {
        if !text.contains('%') {
            return Ok(text);
        }
        let once = percent_decode_once(&text);
        if once == *text {
            return Ok(text);
        }
        check_decoded(&once)?;
        text = Cow::Owned(once);
    }
    Err(Refusal::BadRequest("the path is encoded over and over"))
}

/// One layer of encoding taken off, as leniently as any platform might read it: `%2e`, the `%u002e` of old
/// Windows servers, and ASCII spelled in more bytes than it needs (`%c0%ae`).
fn percent_decode_once(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, remainder @ ..] = rest {
        rest = match (first, remainder) {
            (b'%', [b'u' | b'U', hex @ ..]) if hex_number(hex, 4).is_some() => {
                let character =
                    hex_number(hex, 4).and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                &hex[4..]
            }
            (b'%', hex) if hex_number(hex, 2).is_some() => {
                bytes.extend(hex_number(hex, 2).and_then(|value| u8::try_from(value).ok()));
                &hex[2..]
            }
            _ => {
                bytes.push(*first);
                remainder
            }
        };
    }
    String::from_utf8_lossy(&fold_overlong(&bytes)).into_owned()
}

fn hex_number(text: &[u8], digits: usize) -> Option<u32> {
    let text = text.get(..digits).filter(|text| text.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Puts the ASCII that overlong sequences stand for in their place.
fn fold_overlong(mut bytes: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(bytes.len());
    while let [first, remainder @ ..] = bytes {
        let (byte, rest) = match bytes {
            [0xc0 | 0xc1, low @ 0x80..=0xbf, rest @ ..] => ((first & 1) << 6 | (low & 0x3f), rest),
            [0xe0, high @ 0x80..=0x81, low @ 0x80..=0xbf, rest @ ..]
            | [0xf0, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xbf, rest @ ..] => {
                ((high & 1) << 6 | (low & 0x3f), rest)
            }
            _ => (*first, remainder),
        };
        short.push(byte);
        bytes = rest;
    }
    short
}

fn check_decoded(path: &str) -> Result<(), Refusal> {
    // Nearly all paths are as plain as this; without a way out in the middle it takes a step per sixteen
    // bytes.
    let plain = |byte: u8| byte >= 0x20 && byte != 0x7f && byte != b'\\' && byte != b'.';
    if path.bytes().fold(true, |all, byte| all & plain(byte)) {
        return Ok(());
    }
    let (mut before, mut dot_begins_segment) = (0, false);
    for byte in path.bytes() {
        match byte {
            0..0x20 | 0x7f => return Err(Refusal::BadRequest("the path holds control characters")),
            b'\\' => return Err(Refusal::BadRequest("the path holds a backslash")),
            _ => dot_begins_segment |= byte == b'.' && before == b'/',
        }
        before = byte;
    }
    // Some platforms cut parameters and blanks off a segment before they look at it: "..;x" and ".. " are
    // "..".
    let is_dots =
        |segment: &str| matches!(segment.split(';').next().unwrap_or_default().trim_end(), "." | "..");
    if dot_begins_segment && path.split('/').any(is_dots) {
        Err(Refusal::BadRequest("the path holds dot segments"))
    } else {
        Ok(())
    }
}
