use std::time::Duration;

use crate::error::ConfigError;

/// How much a [`Cached`](crate::api_key::Cached) store remembers, for how long, and how many misses it lets through.
///
/// ```
/// use std::time::Duration;
/// use portcullis::api_key::{Cached, KeyCache, MemoryKeyStore};
///
/// let cache = KeyCache::new().max_keys(20_000).fresh_for(Duration::from_secs(3)).stale_on_error(Duration::from_secs(60));
/// let store = Cached::with_cache(MemoryKeyStore::new(), &cache)?;
/// # let _ = store;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct KeyCache {
    max_keys: usize,
    max_absent: usize,
    fresh_for: Duration,
    fresh_with_changes: Duration,
    absent_for: Duration,
    stale_on_error: Option<Duration>,
    per_source: (u32, u32),
    in_all: (u32, u32),
}

const MAX_ENTRIES: usize = 1 << 24;
const MAX_FRESH: Duration = Duration::from_secs(60 * 60);
const MAX_SHORT: Duration = Duration::from_secs(60);

impl KeyCache {
    /// Keys that are remembered unless you say another number: 100 000.
    pub const DEFAULT_KEYS: usize = 100_000;
    /// Ids without a key that are remembered unless you say another number: 16 384.
    pub const DEFAULT_ABSENT: usize = 16_384;

    /// The defaults.
    pub const fn new() -> Self {
        Self {
            max_keys: Self::DEFAULT_KEYS,
            max_absent: Self::DEFAULT_ABSENT,
            fresh_for: Duration::from_secs(10),
            fresh_with_changes: Duration::from_secs(120),
            absent_for: Duration::from_secs(5),
            stale_on_error: None,
            per_source: (200, 10),
            in_all: (2_000, 200),
        }
    }

    /// Sets the most keys that are remembered, 1 to 16 777 216. Default [`DEFAULT_KEYS`](Self::DEFAULT_KEYS). Only keys that
    /// exist take room here; beyond the bound, and a sixteenth to spare, one goes that was not asked for lately. A key takes
    /// about 110 bytes of the cache besides its record.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets the most ids without a key that are remembered, 1 to 16 777 216, in a place of their own: they never push out a
    /// key. Default [`DEFAULT_ABSENT`](Self::DEFAULT_ABSENT).
    pub const fn max_absent(mut self, ids: usize) -> Self {
        self.max_absent = ids;
        self
    }

    /// Sets how long a record is trusted that the store cannot take back, because it tells no changes: the longest that a
    /// revocation made elsewhere takes to be seen. Above 0, at most 1 h. Default 10 s.
    pub const fn fresh_for(mut self, time: Duration) -> Self {
        self.fresh_for = time;
        self
    }

    /// Sets how long a record is trusted while the store tells its [changes](crate::api_key::ChangeFeed): the second line of
    /// defence, against a feed that goes silent and does not know it. Above 0, at most 1 h. Default 2 min.
    pub const fn fresh_with_changes(mut self, time: Duration) -> Self {
        self.fresh_with_changes = time;
        self
    }

    /// Sets how long it is remembered that there is no such key, at most 60 s; 0 remembers nothing. Default 5 s.
    pub const fn absent_for(mut self, time: Duration) -> Self {
        self.absent_for = time;
        self
    }

    /// Serves what is remembered while the store is [unavailable](crate::StoreErrorKind::Unavailable), for at most this long
    /// after the store gave it: more than [`fresh_for`](Self::fresh_for), at most 60 s. The store counts as unavailable until it has
    /// answered again; it is asked by one request at a time, a second after the last one waited in vain, and the others are served at
    /// once. With a store that tells its changes, choose [`fresh_with_changes`](Self::fresh_with_changes) below it: what was
    /// loaded before that is not served once the feed is lost. By default a store that does not answer is an error.
    ///
    /// It is never served past the key's own end, nor after a change of the key or its owner was heard of.
    ///
    /// # Security
    /// A key that is revoked during the outage works this long.
    pub const fn stale_on_error(mut self, time: Duration) -> Self {
        self.stale_on_error = Some(time);
        self
    }

    /// Sets how many ids that nothing is known of one source may have looked up: `burst` at once, and `per_second` more every
    /// second. Default 200 and 10. A source is an IPv4 address or an IPv6 /64; all of a /48 together have eight times as much.
    /// A look-up that finds a key is given back.
    pub const fn misses_per_source(mut self, burst: u32, per_second: u32) -> Self {
        self.per_source = (burst, per_second);
        self
    }

    /// Sets the same for all sources together. Default 2 000 and 200.
    pub const fn misses(mut self, burst: u32, per_second: u32) -> Self {
        self.in_all = (burst, per_second);
        self
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (setting, entries) in [("keys of the key cache", self.max_keys), ("ids of the key cache", self.max_absent)]
        {
            if entries == 0 || entries > MAX_ENTRIES {
                return Err(ConfigError::new(setting, entries.to_string(), "is not 1 to 16777216"));
            }
        }
        for (setting, time) in [
            ("freshness of cached keys", self.fresh_for),
            ("freshness of cached keys with changes", self.fresh_with_changes),
        ] {
            if time.is_zero() || time > MAX_FRESH {
                return Err(ConfigError::new(setting, format!("{time:?}"), "is not up to 1 h"));
            }
        }
        if self.absent_for > MAX_SHORT {
            let value = format!("{:?}", self.absent_for);
            return Err(ConfigError::new("memory of absent keys", value, "is above 60 s"));
        }
        if let Some(stale) = self.stale_on_error.filter(|stale| *stale <= self.fresh_for || *stale > MAX_SHORT) {
            let problem = "is not more than the keys are fresh and at most 60 s";
            return Err(ConfigError::new("staleness of cached keys on errors", format!("{stale:?}"), problem));
        }
        for (setting, (burst, per_second)) in
            [("misses of one source", self.per_source), ("misses of all sources", self.in_all)]
        {
            if burst == 0 || per_second == 0 {
                let value = format!("{burst} at once, {per_second} a second");
                return Err(ConfigError::new(setting, value, "lets nothing through"));
            }
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            max_keys: self.max_keys,
            max_absent: self.max_absent,
            fresh: nanos(self.fresh_for),
            fresh_with_changes: nanos(self.fresh_with_changes),
            absent: nanos(self.absent_for),
            stale: self.stale_on_error.map(nanos),
            per_source: Rate::new(self.per_source),
            in_all: Rate::new(self.in_all),
        }
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        Self::new()
    }
}

/// What was configured, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) max_keys: usize,
    pub(super) max_absent: usize,
    pub(super) fresh: u64,
    pub(super) fresh_with_changes: u64,
    pub(super) absent: u64,
    pub(super) stale: Option<u64>,
    pub(super) per_source: Rate,
    pub(super) in_all: Rate,
}

/// A bucket that holds `capacity` and gets one back each `interval`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) interval: u64,
    pub(super) capacity: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Rate {
    fn new((burst, per_second): (u32, u32)) -> Self {
        let interval = SECOND.checked_div(per_second.into()).unwrap_or(u64::MAX).max(1);
        Self { interval, capacity: interval.saturating_mul(burst.into()) }
    }

    pub(super) const fn times(self, factor: u64) -> Self {
        let interval = match self.interval / factor {
            0 => 1,
            interval => interval,
        };
        Self { interval, capacity: self.capacity }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_their_bounds() {
        assert!(KeyCache::new().check().is_ok());
    }

    #[test]
    fn settings_that_make_no_sense() {
        let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
        for (name, cache) in [
            ("no key", KeyCache::new().max_keys(0)),
            ("too many keys", KeyCache::new().max_keys(MAX_ENTRIES + 1)),
            ("no id", KeyCache::new().max_absent(0)),
            ("never fresh", KeyCache::new().fresh_for(zero)),
            ("fresh too long", KeyCache::new().fresh_for(MAX_FRESH + second)),
            ("never fresh with changes", KeyCache::new().fresh_with_changes(zero)),
            ("fresh too long with changes", KeyCache::new().fresh_with_changes(MAX_FRESH + second)),
            ("absent too long", KeyCache::new().absent_for(MAX_SHORT + second)),
            ("stale before it is", KeyCache::new().stale_on_error(Duration::from_secs(10))),
            ("stale too long", KeyCache::new().stale_on_error(MAX_SHORT + second)),
            ("no burst", KeyCache::new().misses_per_source(0, 1)),
            ("no rate", KeyCache::new().misses(1, 0)),
        ] {
            assert!(cache.check().is_err(), "{name}");
        }
        assert!(KeyCache::new().absent_for(zero).misses(u32::MAX, u32::MAX).check().is_ok());
    }
}
