//! Where time comes from: read once per request from a [`Clock`], then passed on as an argument.

use std::{
    fmt::Debug,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One reading of the time: the wall clock, for claims and records, and a clock that never goes back, for limits and
/// latencies.
///
/// Both count nanoseconds: the wall clock from the Unix epoch, the monotonic one from a moment that is fixed within a
/// process and means nothing outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    unix_nanos: u64,
    monotonic_nanos: u64,
}

impl Instants {
    /// Makes a reading from nanoseconds since the Unix epoch and from nanoseconds of a clock that never goes back.
    #[must_use]
    pub const fn new(unix_nanos: u64, monotonic_nanos: u64) -> Self {
        Self { unix_nanos, monotonic_nanos }
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.unix_nanos / 1_000_000_000
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(self) -> u64 {
        self.unix_nanos
    }

    /// Nanoseconds of the monotonic clock; only differences mean anything.
    #[must_use]
    pub const fn monotonic_nanos(self) -> u64 {
        self.monotonic_nanos
    }

    /// How long ago `earlier` was by the monotonic clock; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.monotonic_nanos.saturating_sub(earlier.monotonic_nanos))
    }
}

/// Tells the time. Layers read it once per request.
///
/// Production code uses [`SystemClock`]; tests use `TestClock` (feature `testing`), which stands still until told.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Instants;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instants {
        (**self).now()
    }
}

/// The operating system's clocks.
///
/// A wall clock that stands before 1970 reads as the end of time, so that every credential that ends has
/// ended.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// Creates the clock.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real clocks")]
    fn now(&self) -> Instants {
        static START: OnceLock<Instant> = OnceLock::new();
        let monotonic = Instant::now().saturating_duration_since(*START.get_or_init(Instant::now));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX);
        Instants::new(nanos(unix), nanos(monotonic))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_never_go_back() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        assert!(second.monotonic_nanos() >= first.monotonic_nanos());
        assert_eq!(first.since(second), Duration::ZERO);
    }

    #[test]
    fn seconds_round_down() {
        assert_eq!(Instants::new(1_999_999_999, 0).unix_seconds(), 1);
    }
}
