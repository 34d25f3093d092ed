//! What a worker keeps to use again: a few of each kind, so that the memory of a rush does not stay for good.

use std::cell::RefCell;
use std::thread::LocalKey;

pub(super) type Spares<T> = LocalKey<RefCell<Vec<T>>>;

/// One of them, if there is one.
pub(super) fn take<T: 'static>(spares: &'static Spares<T>) -> Option<T> {
    // Fails only where the thread ends.
    spares.try_with(|spares| spares.borrow_mut().pop()).ok().flatten()
}

/// Keeps one more, where there are not `most` of them already.
pub(super) fn keep<T: 'static>(spares: &'static Spares<T>, most: usize, one: T) {
    // Fails only where the thread ends.
    let _ = spares.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < most {
            spares.push(one);
        }
    });
}
