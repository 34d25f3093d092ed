//! Per account and per caller, when what last happened: filled by the gateway, shown to operators. Atomics
//! only, since it is written on every call. What it learned goes to the store in batches, and what other
//! gateways learned comes from there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

use crate::clock::Timestamp;
use crate::store::last_seen::LastSeen;

/// An account gone quiet is a signal, since "no cases" usually looks like 200 with an empty list.
#[derive(Debug, Default)]
pub struct Activity {
    call_at: AtomicU64,
    success_at: AtomicU64,
    refusal: Stamped,
    list: Stamped,
    unfinished_download_at: AtomicU64,
    /// Something happened here since it was last taken to the store.
    changed: AtomicBool,
}

impl Activity {
    /// A caller used the account.
    pub fn called(&self, at: Timestamp) {
        self.call_at.store(at.as_millis(), Relaxed);
        self.changed();
    }

    /// The platform answered 2xx or 3xx.
    pub fn succeeded(&self, at: Timestamp) {
        self.success_at.store(at.as_millis(), Relaxed);
        self.changed();
    }

    /// The gateway answered by itself.
    pub fn refused(&self, code: u16, at: Timestamp) {
        self.refusal.store(code, at);
        self.changed();
    }

    /// An order list went out with this many links.
    pub fn listed(&self, links: usize, at: Timestamp) {
        self.list.store(u16::try_from(links).unwrap_or(u16::MAX), at);
        self.changed();
    }

    /// A download ended before its last byte.
    pub fn download_unfinished(&self, at: Timestamp) {
        self.unfinished_download_at.store(at.as_millis(), Relaxed);
        self.changed();
    }

    /// After the value, so that whoever takes the change sees it.
    fn changed(&self) {
        self.changed.store(true, Release);
    }

    /// Whether there is something for [`Activity::take_changes`]. Only reads: most accounts are quiet.
    pub fn has_changed(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// What there is, where something happened since this was last asked.
    pub fn take_changes(&self) -> Option<LastSeen> {
        self.changed.swap(false, AcqRel).then(|| self.read())
    }

    /// It did not get where it was to go.
    pub fn put_back_changes(&self) {
        self.changed();
    }

    /// Takes over what others saw, where it is newer.
    pub fn learn(&self, seen: &LastSeen) {
        let newest = |cell: &AtomicU64, at: Option<Timestamp>| {
            cell.fetch_max(at.map_or(0, Timestamp::as_millis), Relaxed);
        };
        newest(&self.call_at, seen.last_call_at);
        newest(&self.success_at, seen.last_success_at);
        newest(&self.unfinished_download_at, seen.unfinished_download_at);
        self.refusal.learn(seen.last_refusal);
        self.list.learn(seen.last_list);
    }

    /// When a call was last answered well.
    pub fn succeeded_at(&self) -> Option<Timestamp> {
        moment(self.success_at.load(Relaxed))
    }

    pub fn last_call_at(&self) -> Option<Timestamp> {
        moment(self.call_at.load(Relaxed))
    }

    pub fn read(&self) -> LastSeen {
        LastSeen {
            last_call_at: self.last_call_at(),
            last_success_at: moment(self.success_at.load(Relaxed)),
            last_refusal: self.refusal.load(),
            last_list: self.list.load(),
            unfinished_download_at: moment(self.unfinished_download_at.load(Relaxed)),
        }
    }
}

/// A small number and its time in one atomic integer, so that a reader never pairs one with the other's
/// successor.
#[derive(Debug, Default)]
struct Stamped(AtomicU64);

/// 48 bits of milliseconds last until the year 10889.
const MOMENT_BITS: u32 = 48;

impl Stamped {
    fn store(&self, number: u16, at: Timestamp) {
        self.0.store(Self::word(number, at), Relaxed);
    }

    fn learn(&self, seen: Option<(u16, Timestamp)>) {
        let Some((number, at)) = seen else { return };
        let newer = Self::word(number, at);
        let is_newer = |known: u64| (moment_of(known) < moment_of(newer)).then_some(newer);
        // Where a call writes meanwhile, that is newer still.
        let _ = self.0.fetch_update(Relaxed, Relaxed, is_newer);
    }

    fn word(number: u16, at: Timestamp) -> u64 {
        u64::from(number) << MOMENT_BITS | moment_of(at.as_millis())
    }

    fn load(&self) -> Option<(u16, Timestamp)> {
        let word = self.0.load(Relaxed);
        let at = moment(moment_of(word))?;
        Some(((word >> MOMENT_BITS) as u16, at))
    }
}

fn moment_of(word: u64) -> u64 {
    word & ((1 << MOMENT_BITS) - 1)
}

fn moment(millis: u64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_not_told_as_the_epoch() {
        assert_eq!(Activity::default().read(), LastSeen::default());
    }

    #[test]
    fn a_number_and_its_moment_come_back_together() {
        let activity = Activity::default();
        let at = Timestamp::from_millis(1_800_000_000_123);
        activity.listed(400, at);
        activity.refused(7, at);
        assert_eq!(activity.read().last_list, Some((400, at)));
        assert_eq!(activity.read().last_refusal, Some((7, at)));
        activity.listed(1_000_000, at);
        assert_eq!(activity.read().last_list, Some((u16::MAX, at)));
        activity.listed(0, at);
        assert_eq!(activity.read().last_list, Some((0, at)), "an empty list is the very signal");
    }

    #[test]
    fn what_happened_is_taken_to_the_store_once_and_again_where_it_did_not_arrive() {
        let activity = Activity::default();
        assert_eq!(activity.take_changes(), None);
        activity.called(Timestamp::from_millis(5));
        let taken = activity.take_changes().unwrap();
        assert_eq!(taken.last_call_at, Some(Timestamp::from_millis(5)));
        assert_eq!(activity.take_changes(), None);
        activity.put_back_changes();
        assert_eq!(activity.take_changes(), Some(taken));
    }

    #[test]
    fn of_what_others_saw_only_the_newer_is_taken_over_and_nothing_of_it_goes_back_to_the_store() {
        let at = Timestamp::from_millis;
        let activity = Activity::default();
        activity.called(at(10));
        activity.refused(1, at(10));
        activity.take_changes();
        let others = LastSeen {
            last_call_at: Some(at(9)),
            last_success_at: Some(at(9)),
            last_refusal: Some((0, at(11))),
            last_list: Some((400, at(8))),
            unfinished_download_at: None,
        };
        activity.learn(&others);
        assert_eq!(activity.read(), LastSeen { last_call_at: Some(at(10)), ..others.clone() });
        assert_eq!(
            activity.read(),
            others.merged(&LastSeen { last_call_at: Some(at(10)), ..LastSeen::default() })
        );
        activity.learn(&LastSeen { last_refusal: Some((7, at(3))), ..LastSeen::default() });
        assert_eq!(activity.read().last_refusal, Some((0, at(11))));
        assert_eq!(activity.take_changes(), None);
    }
}
