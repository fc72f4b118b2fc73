//! One count, and what several threads may do to it at the same time. It knows neither quotas nor clocks, so that a model can go
//! through every order of these steps: `tests/models.rs` builds this file with atomics that do.

use super::atomics::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Stands for the moment in a cell that is being given to another key. `Draw::take` never makes it.
pub(super) const CLAIMED: u64 = u64::MAX;

/// One count. A cell that was never used is one whose quota is whole.
///
/// What happens at the same time, without a lock:
/// - `tat` only grows while a cell belongs to one count, but for what [`take_back`] takes back, and it grows when the cell goes
///   to another: the new owner's moment is later than `now`, and the old one was not. So a compare-and-swap that finds the
///   `tat` of before proves that the cell did not change hands in between.
/// - Who takes a cell over first swaps `tat` for [`CLAIMED`], then writes the fingerprint, then the new `tat`. Who looks reads
///   `tat`, then the fingerprint: the new `tat` shows the new fingerprint; the old one with the new fingerprint fails the swap.
/// - A new count is put in its place under the lock of its key's stripe, and looked for once more there, so that it has one
///   cell. A draw of several charges holds the locks of all its keys.
#[derive(Default)]
pub(super) struct Cell {
    pub(super) fingerprint: AtomicU64,
    /// When the quota is whole again, in nanoseconds of the monotonic clock.
    pub(super) tat: AtomicU64,
}

impl Cell {
    /// When the quota is whole again, if the cell is this count's.
    #[inline]
    pub(super) fn moment_of(&self, fingerprint: u64) -> Option<u64> {
        let tat = self.tat.load(Acquire);
        (tat != CLAIMED && self.fingerprint.load(Relaxed) == fingerprint).then_some(tat)
    }

    /// Gives the cell to another count, unless its moment is no longer the one of before.
    pub(super) fn claim(&self, before: u64, fingerprint: u64, after: u64) -> bool {
        if !swap(&self.tat, before, CLAIMED) {
            return false;
        }
        self.fingerprint.store(fingerprint, Relaxed);
        self.tat.store(after, Release);
        true
    }
}

#[inline]
pub(super) fn swap(tat: &AtomicU64, before: u64, after: u64) -> bool {
    tat.compare_exchange(before, after, AcqRel, Acquire).is_ok()
}

/// Takes back what made `tat` to `after`: it becomes `whole`, or what others made of it less the `price`. A cell that has another
/// owner by now than the one with this fingerprint is left alone.
pub(super) fn take_back(tat: &AtomicU64, owner: Option<(&Cell, u64)>, after: u64, whole: u64, price: u64) {
    let mut current = after;
    loop {
        let given_back = if current == after { whole } else { current.saturating_sub(price) };
        match tat.compare_exchange(current, given_back, AcqRel, Acquire) {
            Ok(_) | Err(CLAIMED) => return,
            Err(_) if owner.is_some_and(|(cell, fingerprint)| cell.fingerprint.load(Relaxed) != fingerprint) => return,
            Err(other) => current = other,
        }
    }
}
