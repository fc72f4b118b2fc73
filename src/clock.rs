//! Where time comes from: read once per request from a [`Clock`], then passed on as an argument.

use std::{
    cell::Cell,
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

    /// That much later, on both clocks.
    #[cfg(any(
        feature = "rate-limit",
        feature = "jwt",
        feature = "jwt-pure-rust",
        feature = "api-key-admin",
        feature = "audit-json-lines"
    ))]
    pub(crate) fn later(self, by: Duration) -> Self {
        let by = nanos(by);
        Self::new(self.unix_nanos.saturating_add(by), self.monotonic_nanos.saturating_add(by))
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
/// The wall clock is read every [`MAX_LAG`](Self::MAX_LAG) in each thread, and in between the monotonic clock tells how
/// far it has come: one reading costs half of two. Somebody who sets the wall clock is followed within that time.
///
/// A wall clock that stands before 1970 reads as the end of time, so that every credential that ends has
/// ended.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// How long a wall clock that was set may go unnoticed.
    pub const MAX_LAG: Duration = Duration::from_millis(50);

    /// Creates the clock.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// Where both clocks stood when they were last read together.
type Anchor = Option<Instants>;

/// Both clocks after one reading of the monotonic one, and where they are anchored now.
fn advance(anchor: Anchor, monotonic: u64, read_wall: impl FnOnce() -> u64) -> (Instants, Anchor) {
    const MAX_LAG: u64 = 50_000_000;
    const { assert!(SystemClock::MAX_LAG.as_nanos() == MAX_LAG as u128) }
    if let Some(Instants { unix_nanos, monotonic_nanos }) = anchor
        && let Some(passed) = monotonic.checked_sub(monotonic_nanos)
        && passed < MAX_LAG
    {
        return (Instants::new(unix_nanos.saturating_add(passed), monotonic), anchor);
    }
    let read = Instants::new(read_wall(), monotonic);
    (read, Some(read))
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the real clocks")]
    fn now(&self) -> Instants {
        static START: OnceLock<Instant> = OnceLock::new();
        // Each thread its own: what threads share, and change together, they would wait for.
        thread_local!(static ANCHOR: Cell<Anchor> = const { Cell::new(None) });
        let monotonic = nanos(Instant::now().saturating_duration_since(*START.get_or_init(Instant::now)));
        ANCHOR.with(|kept| {
            let wall = || nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::MAX));
            let (now, anchor) = advance(kept.get(), monotonic, wall);
            kept.set(anchor);
            now
        })
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
    fn a_wall_clock_that_was_set_is_followed() {
        const SECOND: u64 = 1_000_000_000;
        const LAG: u64 = 50_000_000;
        let (first, anchor) = advance(None, 7, || 100 * SECOND);
        assert_eq!((first, anchor), (Instants::new(100 * SECOND, 7), Some(first)));
        for (name, passed, wall, expected) in [
            ("no time", 0, None, 100 * SECOND),
            ("in between", LAG - 1, None, 100 * SECOND + LAG - 1),
            ("set forward", LAG, Some(900 * SECOND), 900 * SECOND),
            ("set back", 2 * LAG, Some(SECOND), SECOND),
            ("before 1970", LAG, Some(u64::MAX), u64::MAX),
        ] {
            let (now, next) = advance(anchor, 7 + passed, || wall.expect(name));
            assert_eq!(now, Instants::new(expected, 7 + passed), "{name}");
            assert_eq!(next, if wall.is_some() { Some(now) } else { anchor }, "{name}");
        }
        let (end, _) = advance(Some(Instants::new(u64::MAX, 7)), 8, || 0);
        assert_eq!(end.unix_nanos(), u64::MAX, "the end of time stays the end");
        let (now, _) = advance(anchor, 6, || SECOND);
        assert_eq!(now, Instants::new(SECOND, 6), "a monotonic clock that was behind reads anew");
    }

    #[test]
    fn seconds_round_down() {
        assert_eq!(Instants::new(1_999_999_999, 0).unix_seconds(), 1);
    }
}
