//! Downloads of any size whose bytes follow from a seed, so that nobody has to store one to compare it.
//! Byte n is the same however it is asked for: whole, by range, in whatever chunks.

use std::ops::Range;

use aws_lc_rs::digest;

/// The content of one download: its bytes follow from the seed.
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
    fn a_range_equals_the_same_range_of_the_asset() {
        let asset = Asset { seed: 42, length: 1000 };
        let all_bytes = asset.bytes(0..1000);
        assert_eq!(asset.bytes(13..777), all_bytes[13..777]);
        let digest = super::super::hex(digest::digest(&digest::SHA256, &all_bytes).as_ref());
        assert_eq!(asset.sha256(), digest);
        assert_ne!(Asset { seed: 43, length: 1000 }.bytes(0..1000), all_bytes);
    }
}
