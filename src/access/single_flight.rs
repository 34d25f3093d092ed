//! Single flight: one renewal of an account at a time. Whoever comes meanwhile waits for its result.
//!
//! The rule guarded here: what decides whether another one may start is looked at under the slot's lock.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::cause::RenewalResult;
use super::locked;

/// Sent once; closed without a result where the renewal was cut off.
pub(super) type ResultSender = watch::Sender<Option<RenewalResult>>;
pub(super) type ResultReceiver = watch::Receiver<Option<RenewalResult>>;

/// An account's slot for its one renewal. Nearly always empty, and then one pointer wide.
#[derive(Default)]
pub(super) struct SingleFlight(Mutex<Option<Box<ResultReceiver>>>);

/// The slot, locked: nobody else starts or ends a renewal of the account meanwhile. Never held across an
/// `.await`.
pub(super) struct LockedSlot<'a>(MutexGuard<'a, Option<Box<ResultReceiver>>>);

impl SingleFlight {
    pub fn lock(&self) -> LockedSlot<'_> {
        LockedSlot(locked(&self.0))
    }

    /// The renewal in flight, where there is one.
    pub fn in_flight(&self) -> Option<ResultReceiver> {
        self.lock().in_flight()
    }
}

impl LockedSlot<'_> {
    pub fn in_flight(&self) -> Option<ResultReceiver> {
        self.0.as_deref().cloned()
    }

    /// From now on there is a renewal in flight, whose result goes into the sender.
    pub fn occupy(&mut self) -> (ResultSender, ResultReceiver) {
        let (sender, receiver) = watch::channel(None);
        *self.0 = Some(Box::new(receiver.clone()));
        (sender, receiver)
    }

    pub fn clear(&mut self) {
        *self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::cause::RenewError;

    #[test]
    fn an_empty_slot_costs_little() {
        assert!(size_of::<SingleFlight>() <= 2 * size_of::<usize>());
    }

    #[test]
    fn whoever_comes_meanwhile_hears_the_same_result() {
        let flight = SingleFlight::default();
        assert!(flight.in_flight().is_none());
        let (sender, first) = flight.lock().occupy();
        let second = flight.in_flight().unwrap();
        flight.lock().clear();
        sender.send_replace(Some(Err(RenewError::Paused)));
        for receiver in [first, second] {
            assert!(matches!(*receiver.borrow(), Some(Err(RenewError::Paused))));
        }
        assert!(flight.in_flight().is_none());
    }
}
