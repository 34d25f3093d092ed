//! Per account, when what last happened: filled by the gateway, shown to operators. Atomics only, since it is written on every call.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Timestamp;

/// An account gone quiet is a signal, since "no cases" usually looks like 200 with an empty list.
#[derive(Debug, Default)]
pub struct Signals {
    call_at: AtomicU64,
    success_at: AtomicU64,
    refusal: Stamped,
    list: Stamped,
    unfinished_download_at: AtomicU64,
}

/// A reading of [`Signals`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignalsRead {
    pub last_call_at: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    /// The gateway's own number of a refusal code, and when.
    pub last_refusal: Option<(u16, Timestamp)>,
    /// Number of links in the last order list (65535 stands for more), and when.
    pub last_list: Option<(u16, Timestamp)>,
    pub unfinished_download_at: Option<Timestamp>,
}

impl Signals {
    /// A caller used the account.
    pub fn called(&self, at: Timestamp) {
        self.call_at.store(at.as_millis(), Relaxed);
    }

    /// The platform answered 2xx or 3xx.
    pub fn succeeded(&self, at: Timestamp) {
        self.success_at.store(at.as_millis(), Relaxed);
    }

    /// The gateway answered by itself.
    pub fn refused(&self, code: u16, at: Timestamp) {
        self.refusal.store(code, at);
    }

    /// An order list went out with this many links.
    pub fn listed(&self, links: usize, at: Timestamp) {
        self.list.store(u16::try_from(links).unwrap_or(u16::MAX), at);
    }

    /// A download ended before its last byte.
    pub fn download_unfinished(&self, at: Timestamp) {
        self.unfinished_download_at.store(at.as_millis(), Relaxed);
    }

    pub fn last_call_at(&self) -> Option<Timestamp> {
        moment(self.call_at.load(Relaxed))
    }

    pub fn read(&self) -> SignalsRead {
        SignalsRead {
            last_call_at: self.last_call_at(),
            last_success_at: moment(self.success_at.load(Relaxed)),
            last_refusal: self.refusal.load(),
            last_list: self.list.load(),
            unfinished_download_at: moment(self.unfinished_download_at.load(Relaxed)),
        }
    }
}

/// A small number and its moment in one word, so that a reader never pairs one with the other's successor.
#[derive(Debug, Default)]
struct Stamped(AtomicU64);

/// 48 bits of milliseconds last until the year 10889.
const MOMENT_BITS: u32 = 48;

impl Stamped {
    fn store(&self, number: u16, at: Timestamp) {
        let moment = at.as_millis() & ((1 << MOMENT_BITS) - 1);
        self.0.store(u64::from(number) << MOMENT_BITS | moment, Relaxed);
    }

    fn load(&self) -> Option<(u16, Timestamp)> {
        let word = self.0.load(Relaxed);
        let at = moment(word & ((1 << MOMENT_BITS) - 1))?;
        Some(((word >> MOMENT_BITS) as u16, at))
    }
}

fn moment(millis: u64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_not_told_as_the_epoch() {
        assert_eq!(Signals::default().read(), SignalsRead::default());
    }

    #[test]
    fn a_number_and_its_moment_come_back_together() {
        let signals = Signals::default();
        let at = Timestamp::from_millis(1_800_000_000_123);
        signals.listed(400, at);
        signals.refused(7, at);
        assert_eq!(signals.read().last_list, Some((400, at)));
        assert_eq!(signals.read().last_refusal, Some((7, at)));
        signals.listed(1_000_000, at);
        assert_eq!(signals.read().last_list, Some((u16::MAX, at)));
        signals.listed(0, at);
        assert_eq!(signals.read().last_list, Some((0, at)), "an empty list is the very signal");
    }
}
