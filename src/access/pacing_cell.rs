//! Where an account keeps its [`Pacing`]. Nearly all accounts are healthy, and those allocate nothing for it.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

use super::locked;
use super::pacing::Pacing;

/// An account's [`Pacing`], allocated only while it differs from the default. Locked for a statement at a
/// time, never across a wait.
pub(super) struct PacingCell(Mutex<Option<Box<Pacing>>>);

/// The pacing in hand, put back when this is dropped.
pub(super) struct PacingGuard<'a> {
    pacing: Pacing,
    place: MutexGuard<'a, Option<Box<Pacing>>>,
}

impl PacingCell {
    pub fn new(pacing: Pacing) -> Self {
        let cell = Self(Mutex::default());
        *cell.lock() = pacing;
        cell
    }

    pub fn lock(&self) -> PacingGuard<'_> {
        let mut place = locked(&self.0);
        PacingGuard { pacing: place.take().map_or_else(Pacing::default, |kept| *kept), place }
    }
}

impl Deref for PacingGuard<'_> {
    type Target = Pacing;

    fn deref(&self) -> &Pacing {
        &self.pacing
    }
}

impl DerefMut for PacingGuard<'_> {
    fn deref_mut(&mut self) -> &mut Pacing {
        &mut self.pacing
    }
}

impl Drop for PacingGuard<'_> {
    fn drop(&mut self) {
        let pacing = mem::take(&mut self.pacing);
        *self.place = (pacing != Pacing::default()).then(|| Box::new(pacing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn in_peace_nothing_is_kept() {
        let cell = PacingCell::new(Pacing::default());
        assert!(locked(&cell.0).is_none());
        cell.lock().postpone(Timestamp::from_millis(5), "later", 0);
        assert_eq!(cell.lock().last_error(), Some(("later".to_owned(), Timestamp::from_millis(5))));
        *cell.lock() = Pacing::default();
        assert!(locked(&cell.0).is_none());
    }
}
