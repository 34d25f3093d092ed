//! Responses that come packed although none was asked for. What they unpack to stays within the limit of a
//! response.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Why a body cannot be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DecompressError {
    /// Holds the coding, for people.
    Unknown(String),
    TooLong,
}

/// Packed more often than this, a response is no accident.
const MOST_LAYERS: usize = 3;
const GZIP_MARK: [u8; 2] = [0x1f, 0x8b];

/// The body as it was before packing, and whether there was any. `most` bytes come out at the most.
pub(super) fn decompress(
    headers: &HeaderMap,
    body: Vec<u8>,
    most: usize,
) -> Result<(Vec<u8>, bool), DecompressError> {
    let codings = codings(headers);
    if codings.is_empty() && !body.starts_with(&GZIP_MARK) {
        return Ok((body, false));
    }
    if body.is_empty() || reads_as_json(&body) {
        // The header names a coding, and a proxy on the way has unpacked it already.
        return Ok((body, !codings.is_empty()));
    }
    if codings.is_empty() {
        return Ok((gunzip(&body, most)?, true));
    }
    if codings.len() > MOST_LAYERS {
        return Err(DecompressError::Unknown(format!("{} codings", codings.len())));
    }
    let mut decompressed = body;
    for coding in codings.iter().rev() {
        decompressed = match coding.as_str() {
            "gzip" | "x-gzip" => gunzip(&decompressed, most)?,
            "deflate" => inflate(&decompressed, most)?,
            _ => return Err(DecompressError::Unknown(coding.clone())),
        };
    }
    Ok((decompressed, true))
}

/// In the order in which they were applied. Anything but a plain word is replaced: it would be printed.
fn codings(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let words = values.flat_map(|value| value.to_str().unwrap_or("?").split(','));
    let words = words.map(|word| word.trim().to_ascii_lowercase());
    words
        .filter(|word| !word.is_empty() && word != "identity")
        .map(|word| {
            if word.len() <= 16 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                word
            } else {
                "an unknown coding".to_owned()
            }
        })
        .collect()
}

fn reads_as_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii_start();
    matches!(body, [b'{' | b'[', b'"' | b'{' | b'[' | b']' | b'}' | b' ' | b'\r' | b'\n' | b'\t', ..])
}

fn gunzip(body: &[u8], most: usize) -> Result<Vec<u8>, DecompressError> {
    bounded(MultiGzDecoder::new(body), most)
}

/// "deflate" means zlib's format (RFC 9110, 8.4.1.2); some servers send the bare stream.
fn inflate(body: &[u8], most: usize) -> Result<Vec<u8>, DecompressError> {
    match bounded(ZlibDecoder::new(body), most)? {
        decompressed if decompressed.is_empty() => bounded(DeflateDecoder::new(body), most),
        decompressed => Ok(decompressed),
    }
}

/// A damaged end costs what comes after it only: whoever reads the text decides whether enough of it is
/// there.
fn bounded(unpacker: impl Read, most: usize) -> Result<Vec<u8>, DecompressError> {
    let mut decompressed = Vec::new();
    let _ = unpacker.take(most as u64 + 1).read_to_end(&mut decompressed);
    if decompressed.len() > most { Err(DecompressError::TooLong) } else { Ok(decompressed) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = br#"{"access_token":"t"}"#;
    const MOST: usize = 1024 * 1024;

    fn headers(coding: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, coding.parse().unwrap())])
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn every_coding_that_servers_send_unasked_is_unpacked() {
        let mut damaged = gzip(TEXT);
        let end = damaged.len();
        damaged[end - 6] ^= 1;
        let trailing = [gzip(TEXT), b"junk".to_vec()].concat();
        for (coding, body) in [
            ("gzip", gzip(TEXT)),
            ("X-GZip", gzip(TEXT)),
            ("deflate", zlib(TEXT)),
            ("deflate", deflate(TEXT)),
            ("Identity, gzip", gzip(TEXT)),
            ("gzip, gzip", gzip(&gzip(TEXT))),
            ("deflate, gzip", gzip(&zlib(TEXT))),
            ("gzip", TEXT.to_vec()),
            ("br", TEXT.to_vec()),
            ("gzip", damaged),
            ("gzip", trailing),
        ] {
            assert_eq!(decompress(&headers(coding), body, MOST), Ok((TEXT.to_vec(), true)), "{coding}");
        }
        assert_eq!(decompress(&HeaderMap::new(), gzip(TEXT), MOST), Ok((TEXT.to_vec(), true)));
        assert_eq!(decompress(&headers("identity"), TEXT.to_vec(), MOST), Ok((TEXT.to_vec(), false)));
    }

    #[test]
    fn what_is_not_understood_is_named_and_a_bomb_stays_within_the_limit() {
        let unknown = |name: &str| Err(DecompressError::Unknown(name.to_owned()));
        assert_eq!(decompress(&headers("br"), b"\x0b\x02".to_vec(), MOST), unknown("br"));
        assert_eq!(decompress(&headers("t ok"), b"\x0b".to_vec(), MOST), unknown("an unknown coding"));
        let bomb = gzip(&vec![b' '; 64 * MOST]);
        assert_eq!(decompress(&headers("gzip"), bomb.clone(), MOST), Err(DecompressError::TooLong));
        assert_eq!(decompress(&headers("gzip, gzip"), gzip(&bomb), MOST), Err(DecompressError::TooLong));
    }
}
