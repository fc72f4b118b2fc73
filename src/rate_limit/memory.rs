use std::{
    fmt,
    hash::BuildHasher,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use foldhash::quality::RandomState;

use crate::{
    clock::Instants,
    error::{ConfigError, StoreError},
    now::Now,
    rate_limit::{LimitKey, MAX_QUOTAS, Quotas, RateLimitStore, Taken},
};

/// How many cells a bucket has: eight, behind one lock.
const WAYS: usize = 8;
/// How many keys there are room for, for each bucket. The three cells to spare take up that some buckets get more keys
/// than others.
const KEYS_PER_BUCKET: usize = 5;
/// The most keys that a table may have room for: about 1.8 GB.
const MAX_KEYS: usize = 1 << 26;

/// Makes one fingerprint for each quota of a key.
const SALTS: [u64; MAX_QUOTAS] = [0, 0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0x8cb9_2ba7_2f3d_8dd7];

/// Counts in this process's memory: a table of fixed size that answers at once.
///
/// # Bounds
/// - 27.2 bytes for each key of the capacity, all of it taken at the start: 1.8 MB for the default of
///   [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) keys. A limiter of several quotas needs the capacity that many times.
/// - Keys beyond the capacity cost no memory. Where a bucket of eight cells is full, the one that is whole again soonest is
///   forgotten, which gives its key a whole burst again. A cell whose quota is whole is no loss, so only keys that are in
///   use at the same time count; those that used up the most are kept the longest. Filled to its capacity with keys in use,
///   the table forgets about 1 in 40 early.
/// - A check takes one short lock that only the keys of one bucket share, and allocates nothing.
///
/// A cell holds a 64-bit fingerprint of the key under a seed that is random in each process, not the key itself. Two keys
/// of one fingerprint would share a quota; that limits and never opens, and nobody outside can find such a pair.
///
/// Only the monotonic clock counts: setting the wall clock changes nothing. A restart forgets everything, and each process
/// counts on its own: behind a load balancer, `n` processes together pass up to `n` times the quota.
///
/// ```
/// use portcullis::rate_limit::MemoryLimits;
///
/// let limits = MemoryLimits::with_capacity(1_000_000)?;
/// assert!(limits.capacity() >= 1_000_000);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
pub struct MemoryLimits {
    buckets: Box<[Mutex<[Cell; WAYS]>]>,
    seed: RandomState,
}

/// One quota of one key. A cell that was never used is one whose quota is whole.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    fingerprint: u64,
    /// When the quota is whole again, in nanoseconds of the monotonic clock.
    tat: u64,
}

impl MemoryLimits {
    /// The capacity unless you say another: 65 536 keys.
    pub const DEFAULT_CAPACITY: usize = 65_536;

    /// Makes a table of the default capacity.
    #[must_use]
    pub fn new() -> Self {
        Self::of_buckets(Self::DEFAULT_CAPACITY.div_ceil(KEYS_PER_BUCKET))
    }

    /// Makes a table with room for `keys` keys that are in use at the same time.
    ///
    /// # Errors
    /// [`ConfigError`] if `keys` is zero or above 67 108 864.
    pub fn with_capacity(keys: usize) -> Result<Self, ConfigError> {
        if keys == 0 || keys > MAX_KEYS {
            return Err(ConfigError::new("capacity", keys.to_string(), "is not 1 to 67108864 keys"));
        }
        Ok(Self::of_buckets(keys.div_ceil(KEYS_PER_BUCKET)))
    }

    fn of_buckets(count: usize) -> Self {
        let buckets = (0..count.max(1)).map(|_| Mutex::new([Cell::default(); WAYS])).collect();
        Self { buckets, seed: RandomState::default() }
    }

    /// How many keys there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buckets.len().saturating_mul(KEYS_PER_BUCKET)
    }

    /// Spreads hashes over the buckets without a division: the upper half of the product.
    fn bucket(&self, hash: u64) -> Option<&Mutex<[Cell; WAYS]>> {
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let upper = u128::from(hash).saturating_mul(u128::from(count)) >> 64;
        self.buckets.get(usize::try_from(upper).ok()?)
    }

    fn take_from(&self, key: &LimitKey<'_>, quotas: &Quotas, cost: NonZeroU32, now: u64) -> Taken {
        let hash = self.seed.hash_one(key);
        let Some(bucket) = self.bucket(hash) else {
            return Taken::too_costly(0);
        };
        let mut cells = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let fingerprints = SALTS.map(|salt| hash ^ salt);
        let mut tats = fingerprints.map(|fingerprint| find(&cells, fingerprint));
        let taken = quotas.take(&mut tats, now, cost);
        if taken.is_granted() {
            for ((fingerprint, tat), _) in fingerprints.into_iter().zip(tats).zip(quotas.iter()) {
                keep(&mut cells, &fingerprints, Cell { fingerprint, tat });
            }
        }
        taken
    }
}

fn find(cells: &[Cell; WAYS], fingerprint: u64) -> u64 {
    cells.iter().find(|cell| cell.fingerprint == fingerprint).map_or(0, |cell| cell.tat)
}

/// Puts the cell in its place, or in that of the cell that is whole again soonest and not of the same key.
fn keep(cells: &mut [Cell; WAYS], own: &[u64; MAX_QUOTAS], new: Cell) {
    if let Some(cell) = cells.iter_mut().find(|cell| cell.fingerprint == new.fingerprint) {
        *cell = new;
    } else if let Some(cell) =
        cells.iter_mut().filter(|cell| !own.contains(&cell.fingerprint)).min_by_key(|cell| cell.tat)
    {
        *cell = new;
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLimits").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

#[async_trait]
impl RateLimitStore for MemoryLimits {
    fn take_now(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Now<Result<Taken, StoreError>> {
        Now::Known(Ok(self.take_from(key, quotas, cost, at.monotonic_nanos())))
    }

    async fn take(
        &self,
        key: &LimitKey<'_>,
        quotas: &Quotas,
        cost: NonZeroU32,
        at: Instants,
    ) -> Result<Taken, StoreError> {
        Ok(self.take_from(key, quotas, cost, at.monotonic_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::rate_limit::Quota;

    fn quotas(quotas: impl IntoIterator<Item = Quota>) -> Quotas {
        Quotas::new(quotas).unwrap()
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn take(limits: &MemoryLimits, quotas: &Quotas, number: u32, now: u64) -> bool {
        limits.take_from(&LimitKey::client("client", address(number)), quotas, NonZeroU32::MIN, now).is_granted()
    }

    #[test]
    fn the_memory_bound_is_as_documented() {
        let bytes = |limits: &MemoryLimits| std::mem::size_of_val(&*limits.buckets);
        assert_eq!(std::mem::size_of::<Cell>(), 16);
        let limits = MemoryLimits::new();
        assert!(bytes(&limits) <= 1_800_000, "{} bytes", bytes(&limits));
        assert!(bytes(&limits) <= limits.capacity() * 28);
        assert!(MemoryLimits::with_capacity(0).is_err());
        assert_eq!(
            MemoryLimits::with_capacity(usize::MAX).unwrap_err().to_string(),
            format!("capacity: {} is not 1 to 67108864 keys", usize::MAX)
        );
        assert_eq!(MemoryLimits::with_capacity(1).unwrap().capacity(), 5);
    }

    #[test]
    fn a_flood_of_a_million_keys_takes_no_memory() {
        let limits = MemoryLimits::with_capacity(1_000).unwrap();
        let once = quotas([Quota::per_hour(10)]);
        let (buckets, start) = (limits.buckets.len(), limits.buckets.as_ptr());
        for number in 0..1_000_000 {
            assert!(take(&limits, &once, number, 1), "a stranger's flood refuses nobody");
        }
        assert_eq!((limits.buckets.len(), limits.buckets.as_ptr()), (buckets, start));
    }

    #[test]
    fn a_flood_does_not_free_whom_it_does_not_outspend() {
        let limits = MemoryLimits::with_capacity(1).unwrap();
        let hourly = quotas([Quota::per_hour(10)]);
        for _ in 0..10 {
            assert!(take(&limits, &hourly, 7, 1));
        }
        for number in 100..10_100 {
            take(&limits, &hourly, number, 1);
        }
        assert!(!take(&limits, &hourly, 7, 1), "it used up the most, so it is kept");
    }

    #[test]
    fn cells_that_are_whole_again_go_first() {
        let limits = MemoryLimits::with_capacity(1).unwrap();
        let (minute, second) = (quotas([Quota::per_minute(1)]), quotas([Quota::per_second(1)]));
        assert!(take(&limits, &minute, 7, 0));
        // Seven others fill the bucket; two seconds later they are whole again.
        for number in 100..107 {
            assert!(take(&limits, &second, number, 0));
        }
        for (wave, now) in [(1, 2), (2, 4), (3, 6), (4, 8)] {
            for number in 0..7 {
                assert!(take(&limits, &second, wave * 1_000 + number, now * 1_000_000_000));
                assert!(!take(&limits, &minute, 7, now * 1_000_000_000), "wave {wave}, key {number}");
            }
        }
    }

    #[test]
    fn filled_to_capacity_few_keys_are_forgotten() {
        let limits = MemoryLimits::with_capacity(20_000).unwrap();
        let daily = quotas([Quota::per_day(1)]);
        for number in 0..20_000 {
            assert!(take(&limits, &daily, number, 0));
        }
        // Asked in the same order, a forgotten key may push out another; count what is there, without taking.
        let held: usize =
            limits.buckets.iter().map(|bucket| bucket.lock().unwrap().iter().filter(|cell| cell.tat > 0).count()).sum();
        assert!((19_300..=20_000).contains(&held), "{held}");
    }

    #[test]
    fn all_quotas_of_a_key_are_kept_side_by_side() {
        let limits = MemoryLimits::with_capacity(1).unwrap();
        let four = quotas([
            Quota::per_second(100).named("a"),
            Quota::per_minute(3).named("b"),
            Quota::per_hour(1_000).named("c"),
            Quota::per_day(1_000).named("d"),
        ]);
        let daily = quotas([Quota::per_day(1_000)]);
        for number in 0..8 {
            assert!(take(&limits, &daily, number, 0));
        }
        // The bucket is full of cells that last longer: the key's own cells must not push out one another.
        for _ in 0..3 {
            assert!(take(&limits, &four, 99, 0));
        }
        assert!(!take(&limits, &four, 99, 0));
        let cells = limits.buckets[0].lock().unwrap();
        let hash = limits.seed.hash_one(LimitKey::client("client", address(99)));
        assert!(SALTS.iter().all(|salt| find(&cells, hash ^ salt) > 0));
    }

    #[test]
    fn threads_share_one_count() {
        let limits = MemoryLimits::new();
        let hundred = quotas([Quota::per_hour(100)]);
        let granted: usize = std::thread::scope(|scope| {
            let run = || (0..80).filter(|_| take(&limits, &hundred, 7, 5)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 100);
    }
}
