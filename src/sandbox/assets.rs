//! Downloads of any size whose bytes follow from a seed, so that nobody has to store one to compare it.
//! Byte n is the same however it is asked for: whole, by range, in whatever pieces.

use std::ops::Range;

use aws_lc_rs::digest;

use super::reply::{Reply, ReplyContent};
use super::request::SandboxRequest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    pub seed: u64,
    pub length: u64,
}

impl Asset {
    /// Writes the bytes from `offset` on into `into`.
    pub fn fill(self, offset: u64, into: &mut [u8]) {
        let mut at = 0;
        while at < into.len() {
            let position = offset + at as u64;
            let word = splitmix(self.seed.wrapping_add(position / 8)).to_le_bytes();
            let skip = (position % 8) as usize;
            let take = (8 - skip).min(into.len() - at);
            into[at..at + take].copy_from_slice(&word[skip..skip + take]);
            at += take;
        }
    }

    /// The bytes of a range, for tests that hold small ones in memory.
    pub fn bytes(self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.fill(range.start, &mut bytes);
        bytes
    }

    /// Hex, over the whole.
    pub fn sha256(self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut block = vec![0; 64 * 1024];
        let mut offset = 0;
        while offset < self.length {
            let take = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(block.len());
            self.fill(offset, &mut block[..take]);
            context.update(&block[..take]);
            offset += take as u64;
        }
        super::hex(context.finish().as_ref())
    }

    pub fn etag(self) -> String {
        format!("\"{:x}-{:x}\"", self.seed, self.length)
    }

    /// Answers a GET or HEAD: 200, 206, 304 or 416. `order` is told when its bytes have gone out.
    pub fn response(self, request: &SandboxRequest, name: &str, order: Option<u64>) -> Reply {
        let etag = self.etag();
        if request.header("if-none-match") == Some(&etag) {
            return Reply::empty(304).with("ETag", etag);
        }
        let current = request.header("if-range").is_none_or(|wanted| wanted == etag);
        let asked = request.header("range").filter(|_| current).map(|range| parse_range(range, self.length));
        let (status, range) = match asked {
            Some(RangeRequest::Part(range)) => (206, range),
            Some(RangeRequest::Unsatisfiable) => {
                let whole = format!("bytes */{}", self.length);
                return Reply::error(416, "range not satisfiable").with("Content-Range", whole);
            }
            Some(RangeRequest::Complete) | None => (200, 0..self.length),
        };
        let mut reply = Reply::empty(status)
            .with("Content-Type", "application/zip")
            .with("Content-Disposition", format!("attachment; filename=\"{name}\""))
            .with("Accept-Ranges", "bytes")
            .with("ETag", etag);
        if status == 206 {
            let part = format!("bytes {}-{}/{}", range.start, range.end - 1, self.length);
            reply = reply.with("Content-Range", part);
        }
        reply.body = ReplyContent::Asset { asset: self, range, order };
        reply
    }
}

enum RangeRequest {
    Part(Range<u64>),
    /// Several ranges, or a unit that nobody knows: ignored, as RFC 9110 section 14.2 allows.
    Complete,
    Unsatisfiable,
}

fn parse_range(text: &str, length: u64) -> RangeRequest {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|span| span.split_once('-')) else {
        return RangeRequest::Complete;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(last)) if first.is_empty() && last > 0 => length.saturating_sub(last)..length,
        (Err(_), Ok(0)) if first.is_empty() => return RangeRequest::Unsatisfiable,
        _ => return RangeRequest::Complete,
    };
    if range.start >= range.end { RangeRequest::Unsatisfiable } else { RangeRequest::Part(range) }
}

fn splitmix(state: u64) -> u64 {
    let mut word = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_equals_the_same_part_of_the_whole() {
        let asset = Asset { seed: 42, length: 1000 };
        let whole = asset.bytes(0..1000);
        assert_eq!(asset.bytes(13..777), whole[13..777]);
        let digest = super::super::hex(digest::digest(&digest::SHA256, &whole).as_ref());
        assert_eq!(asset.sha256(), digest);
        assert_ne!(Asset { seed: 43, length: 1000 }.bytes(0..1000), whole);
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let part = |text| match parse_range(text, 100) {
            RangeRequest::Part(range) => Some(range),
            RangeRequest::Complete => Some(0..100),
            RangeRequest::Unsatisfiable => None,
        };
        assert_eq!(part("bytes=0-0"), Some(0..1));
        assert_eq!(part("bytes=90-"), Some(90..100));
        assert_eq!(part("bytes=-10"), Some(90..100));
        assert_eq!(part("bytes=50-500"), Some(50..100));
        assert_eq!(part("bytes=-500"), Some(0..100));
        assert_eq!(part("bytes=100-"), None);
        assert_eq!(part("bytes=-0"), None);
        assert_eq!(part("bytes=0-1,5-6"), Some(0..100));
        assert_eq!(part("lines=0-1"), Some(0..100));
    }
}
