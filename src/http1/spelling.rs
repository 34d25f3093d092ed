//! The letter case in which a message spelled its field names. `http` folds names, and old programs compare them as they stand.

use bytes::Bytes;
use http::{Extensions, HeaderName};

/// Travels in a message's extensions.
#[derive(Clone)]
pub struct Spelling {
    head: Bytes,
    /// Where each name stands in the head, in order.
    names: Vec<(u32, u32)>,
}

impl Spelling {
    pub(super) fn new(head: Bytes) -> Self {
        Self { head, names: Vec::with_capacity(16) }
    }

    pub(super) fn add(&mut self, start: usize, length: usize) {
        // Heads are bounded far below 4 GiB.
        self.names.push((start as u32, length as u32));
    }

    fn name(&self, at: usize) -> Option<&[u8]> {
        let (start, length) = self.names.get(at)?;
        self.head.get(*start as usize..(*start + *length) as usize)
    }

    fn position(&self, name: &HeaderName) -> Option<usize> {
        (0..self.names.len()).find(|at| self.is(*at, name))
    }

    fn is(&self, at: usize, name: &HeaderName) -> bool {
        self.name(at).is_some_and(|spelled| spelled.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }
}

/// Tells how names are spelled, fastest when they are asked for in their order.
pub struct Speller<'a> {
    spelling: Option<&'a Spelling>,
    next: usize,
}

impl<'a> Speller<'a> {
    pub fn of(extensions: &'a Extensions) -> Self {
        Self { spelling: extensions.get(), next: 0 }
    }

    /// As the message spelled it; lower case for fields that it did not have.
    pub fn spell<'n>(&mut self, name: &'n HeaderName) -> &'n [u8]
    where
        'a: 'n,
    {
        let plain = name.as_str().as_bytes();
        let Some(spelling) = self.spelling else { return plain };
        let at = match spelling.is(self.next, name) {
            true => Some(self.next),
            false => spelling.position(name),
        };
        let Some(at) = at else { return plain };
        self.next = at + 1;
        spelling.name(at).unwrap_or(plain)
    }
}
