//! Free lists of one thread: a few buffers of each kind are reused, and the memory of a burst is given back.

use std::cell::RefCell;
use std::thread::LocalKey;

pub(super) type BufferPool<T> = LocalKey<RefCell<Vec<T>>>;

/// One of them, if there is one.
pub(super) fn take<T: 'static>(pool: &'static BufferPool<T>) -> Option<T> {
    // Fails only where the thread ends.
    pool.try_with(|pool| pool.borrow_mut().pop()).ok().flatten()
}

/// Keeps one more, where there are not `max_pooled` of them already.
pub(super) fn keep<T: 'static>(pool: &'static BufferPool<T>, max_pooled: usize, buffer: T) {
    // Fails only where the thread ends.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < max_pooled {
            pool.push(buffer);
        }
    });
}
