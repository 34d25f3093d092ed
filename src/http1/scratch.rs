//! Where a message is put together before it leaves: each worker has a few such buffers, and uses them again and again.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::spares;

/// See the top of this file. Empty at first.
pub struct Scratch(Vec<u8>);

/// What a buffer has room for at first: heads, and small answers with theirs.
const ROOM: usize = 4 * 1024;
/// How many buffers a worker keeps, and how large they may have become.
const SPARE: usize = 32;
const SPARE_ROOM: usize = 16 * 1024;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    pub fn new() -> Self {
        Self(spares::take(&SPARES).unwrap_or_else(|| Vec::with_capacity(ROOM)))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if !(1..=SPARE_ROOM).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        spares::keep(&SPARES, SPARE, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_large_ones_do_not() {
        let mut first = Scratch::new();
        first.extend_from_slice(b"of one call");
        let place = first.as_ptr();
        drop(first);
        let second = Scratch::new();
        assert_eq!((second.as_ptr(), second.len()), (place, 0));
        let mut large = Scratch::new();
        large.reserve(SPARE_ROOM + 1);
        drop((second, large, Scratch(Vec::new())));
        let rooms = [Scratch::new(), Scratch::new()].map(|scratch| scratch.capacity());
        assert_eq!(rooms, [ROOM, ROOM]);
    }
}
