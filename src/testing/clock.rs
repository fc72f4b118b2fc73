use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock, Instants};

/// A clock that stands still until told otherwise. Clones share the same hands.
///
/// ```
/// use std::time::Duration;
/// use portcullis::{Clock, testing::TestClock};
///
/// let clock = TestClock::at_unix(1_800_000_000);
/// let before = clock.now();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now().unix_seconds(), 1_800_000_090);
/// assert_eq!(clock.now().since(before), Duration::from_secs(90));
/// ```
#[derive(Clone, Debug)]
pub struct TestClock {
    hands: Arc<Hands>,
}

#[derive(Debug)]
struct Hands {
    unix: AtomicU64,
    monotonic: AtomicU64,
}

impl TestClock {
    /// Starts the clock at `seconds` after the Unix epoch.
    #[must_use]
    pub fn at_unix(seconds: u64) -> Self {
        super::not_for_production();
        let hands = Hands { unix: AtomicU64::new(seconds.saturating_mul(1_000_000_000)), monotonic: AtomicU64::new(0) };
        Self { hands: Arc::new(hands) }
    }

    /// Moves both hands forward, to the end of `u64` nanoseconds at most (in the year 2554): never round to the beginning.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        for hand in [&self.hands.unix, &self.hands.monotonic] {
            let _ = hand.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |at| Some(at.saturating_add(by)));
        }
    }

    /// Sets the wall clock to `seconds` after the Unix epoch, also backwards; the monotonic clock stays.
    pub fn set_unix(&self, seconds: u64) {
        self.hands.unix.store(seconds.saturating_mul(1_000_000_000), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instants {
        Instants::new(self.hands.unix.load(Ordering::SeqCst), self.hands.monotonic.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hands_stop_at_the_end() {
        let clock = TestClock::at_unix(u64::MAX);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now().unix_nanos(), u64::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Instants::new(u64::MAX, u64::MAX));
        clock.set_unix(0);
        assert_eq!(clock.now(), Instants::new(0, u64::MAX));
    }
}
