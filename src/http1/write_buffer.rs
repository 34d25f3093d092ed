//! A reusable buffer in which a message is put together before it is written.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::buffer_pool;

/// A buffer of the thread's pool, empty at first; it returns to the pool when dropped.
pub struct WriteBuffer(Vec<u8>);

/// Enough for heads, and for small responses with theirs.
const INITIAL_CAPACITY: usize = 4 * 1024;
/// How many buffers a worker keeps, and how large they may have become.
const MAX_POOLED: usize = 32;
const MAX_POOLED_CAPACITY: usize = 16 * 1024;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl WriteBuffer {
    pub fn new() -> Self {
        Self(buffer_pool::take(&POOL).unwrap_or_else(|| Vec::with_capacity(INITIAL_CAPACITY)))
    }
}

impl Default for WriteBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for WriteBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for WriteBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        if !(1..=MAX_POOLED_CAPACITY).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        buffer_pool::keep(&POOL, MAX_POOLED, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_large_ones_do_not() {
        let mut first = WriteBuffer::new();
        first.extend_from_slice(b"of one call");
        let place = first.as_ptr();
        drop(first);
        let second = WriteBuffer::new();
        assert_eq!((second.as_ptr(), second.len()), (place, 0));
        let mut large = WriteBuffer::new();
        large.reserve(MAX_POOLED_CAPACITY + 1);
        drop((second, large, WriteBuffer(Vec::new())));
        let rooms = [WriteBuffer::new(), WriteBuffer::new()].map(|scratch| scratch.capacity());
        assert_eq!(rooms, [INITIAL_CAPACITY, INITIAL_CAPACITY]);
    }
}
