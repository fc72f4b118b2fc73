use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Instants;

/// How much later a reading must be to be noted: a store is asked all the time, and its threads should not take turns at this.
const GRAIN: u64 = 10_000_000;

/// The latest time at which a store of this process was asked, to within 10 ms.
///
/// A request is counted by when it came, and may come to its limit after others that came later: a layer outside made it wait. By
/// its reading they have taken what is not there yet, so it would be refused; and by one that is more than a minute old, what
/// they owe looks like the debt of a clock that was set back, and would be [cut](crate::rate_limit::Draw::take). The monotonic clock
/// tells one from the other: it never goes back, so a reading that is behind it is old.
///
/// ```
/// use portcullis::{Instants, rate_limit::LatestTime};
///
/// const SECOND: u64 = 1_000_000_000;
/// let latest = LatestTime::new();
/// let now = Instants::new(900 * SECOND, 200 * SECOND);
/// assert_eq!(latest.catch_up(now), now);
/// assert_eq!(latest.catch_up(Instants::new(830 * SECOND, 130 * SECOND)), now, "70 s old");
/// let set_back = Instants::new(500 * SECOND, 201 * SECOND);
/// assert_eq!(latest.catch_up(set_back), set_back, "a wall clock may be set");
/// ```
#[derive(Debug, Default)]
pub struct LatestTime(AtomicU64);

impl LatestTime {
    /// Starts with none.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// This reading, or as much later, on both clocks, as it is older than the latest. Costs one load; every 10 ms, one write.
    #[must_use]
    #[inline]
    pub fn catch_up(&self, at: Instants) -> Instants {
        let late = self.catch_up_nanos(at.monotonic_nanos()).saturating_sub(at.monotonic_nanos());
        if late == 0 {
            at
        } else {
            Instants::new(at.unix_nanos().saturating_add(late), at.monotonic_nanos().saturating_add(late))
        }
    }

    /// The same of the monotonic clock alone.
    #[inline]
    pub(super) fn catch_up_nanos(&self, now: u64) -> u64 {
        let latest = self.0.load(Relaxed);
        match now.checked_sub(latest) {
            Some(passed) if passed < GRAIN => now,
            Some(_) => self.note(now),
            None => latest,
        }
    }

    #[cold]
    fn note(&self, now: u64) -> u64 {
        self.0.fetch_max(now, Relaxed);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_never_more_than_a_grain_behind_another() {
        let latest = LatestTime::new();
        for (now, expected, noted) in [
            (5, 5, 0),
            (GRAIN, GRAIN, GRAIN),
            (2 * GRAIN - 1, 2 * GRAIN - 1, GRAIN),
            (3, GRAIN, GRAIN),
            (9 * GRAIN, 9 * GRAIN, 9 * GRAIN),
            (0, 9 * GRAIN, 9 * GRAIN),
            (u64::MAX, u64::MAX, u64::MAX),
            (1, u64::MAX, u64::MAX),
        ] {
            assert_eq!((latest.catch_up_nanos(now), latest.0.load(Relaxed)), (expected, noted), "{now}");
        }
    }
}
