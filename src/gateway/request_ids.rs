//! Makes the ids of calls that come without one.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;
use http::HeaderValue;

/// Request ids of one worker: a random prefix and a count.
pub struct RequestIds {
    /// Sixteen hexadecimal digits and a dash.
    prefix: String,
    count: Cell<u64>,
    /// Ids are written one after the other: each is a slice of this buffer, and allocates nothing of its own.
    buffer: RefCell<BytesMut>,
}

/// Room for some forty ids: a log line that waits keeps its neighbours' memory too.
const ID_BUFFER: usize = 1024;

impl RequestIds {
    pub fn new(prefix: u64) -> Self {
        Self { prefix: format!("{prefix:016x}-"), count: Cell::new(0), buffer: RefCell::default() }
    }

    pub fn next(&self) -> HeaderValue {
        self.count.set(self.count.get() + 1);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(self.count.get()).as_bytes();
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() < self.prefix.len() + digits.len() {
            *buffer = BytesMut::with_capacity(ID_BUFFER);
        }
        buffer.extend_from_slice(self.prefix.as_bytes());
        buffer.extend_from_slice(digits);
        HeaderValue::from_maybe_shared(buffer.split().freeze())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_worker_count_up_from_a_random_beginning() {
        let ids = RequestIds::new(0xff);
        ids.count.set(8);
        let next = || ids.next().to_str().unwrap().to_owned();
        assert_eq!([next(), next()], ["00000000000000ff-9", "00000000000000ff-10"]);
        ids.count.set(u64::MAX - 1);
        assert_eq!(next(), format!("00000000000000ff-{}", u64::MAX));
    }
}
