use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use async_trait::async_trait;
use foldhash::quality::RandomState;

use crate::{
    clock::Instants,
    error::{ConfigError, StoreError},
    now::Now,
    rate_limit::{Charge, Draw, MAX_CHARGES, RateLimitStore, Taken},
};

/// How many cells fill a line of the processor's cache.
const WAYS: usize = 4;
/// How many counts there is room for in each bucket, times four. A count has two buckets to choose from, so that few meet
/// two full ones.
const QUARTERS_PER_BUCKET: usize = 9;
/// How many counts share one cell of those for keys that find no room.
const COUNTS_PER_SHARED: usize = 16;
/// The most counts that a table may have room for: about 1.9 GB.
const MAX_COUNTS: usize = 1 << 26;
/// How many keys can be put in their place at the same time.
const STRIPES: usize = 256;
/// Stands for the moment in a cell that is being given to another key. [`Draw::take`] never makes it.
const CLAIMED: u64 = u64::MAX;

/// Counts in this process's memory: a table of fixed size that answers at once.
///
/// # Bounds
/// - 29 bytes for each count of the capacity, all of it taken at the start: 1.9 MB for the default of
///   [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) counts. A limiter of several quotas needs one count for each of them.
/// - Keys beyond the capacity cost no memory. A quota that is whole is forgotten as soon as its cell is needed; one that is
///   in debt never is. Where both buckets of a new key are full of debt, it shares a cell with its neighbours: an IPv4
///   address with its /24, an IPv6 /64 with its /48, anything else with whom the hash brings together. When there is room again,
///   it has a whole burst of its own. So a flood of addresses makes limits tighter for newcomers and looser for nobody.
/// - A check of a key that is there, under one quota, reads one line of cache and writes it with one compare-and-swap. A key
///   that is not there, and one under several quotas, takes one of 256 short locks as well. Nothing is allocated.
///
/// A cell holds a 64-bit fingerprint under a seed that is random in each process, not the key itself. Two keys of one
/// fingerprint would share a count; that limits and never opens, and nobody outside can find such a pair.
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
    buckets: Box<[Bucket]>,
    shared: Box<[AtomicU64]>,
    stripes: Box<[Mutex<()>]>,
    seed: RandomState,
}

/// The cells of one line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([Cell; WAYS]);

/// One count. A cell that was never used is one whose quota is whole.
///
/// What happens at the same time, without a lock:
/// - `tat` only grows while a cell belongs to one count, but for what [`Move::undo`] takes back, and it grows when the cell goes
///   to another: the new owner's moment is later than `now`, and the old one was not. So a compare-and-swap that finds the
///   `tat` of before proves that the cell did not change hands in between.
/// - Who takes a cell over first swaps `tat` for [`CLAIMED`], then writes the fingerprint, then the new `tat`. Who looks reads
///   `tat`, then the fingerprint: the new `tat` shows the new fingerprint; the old one with the new fingerprint fails the swap.
/// - A new count is put in its place under the lock of its key's stripe, and looked for once more there, so that it has one
///   cell. A draw of several charges holds the locks of all its keys.
#[derive(Default)]
struct Cell {
    fingerprint: AtomicU64,
    /// When the quota is whole again, in nanoseconds of the monotonic clock.
    tat: AtomicU64,
}

/// Where a count may stand.
#[derive(Clone, Copy)]
struct Place {
    buckets: [usize; 2],
    fingerprint: u64,
    stripe: usize,
}

/// Where a count stands, or will.
#[derive(Clone, Copy)]
enum Seat<'a> {
    /// It is there.
    Own(&'a Cell),
    /// It is not, and this cell's quota is whole.
    Spare(&'a Cell, u64),
    /// It is not, and there is no room.
    Shared(&'a AtomicU64),
}

impl MemoryLimits {
    /// The capacity unless you say another: 65 536 counts.
    pub const DEFAULT_CAPACITY: usize = 65_536;

    /// Makes a table of the default capacity.
    #[must_use]
    pub fn new() -> Self {
        Self::of_counts(Self::DEFAULT_CAPACITY)
    }

    /// Makes a table with room for `counts` keys that are in debt at the same time, each under one quota.
    ///
    /// # Errors
    /// [`ConfigError`] if `counts` is zero or above 67 108 864.
    pub fn with_capacity(counts: usize) -> Result<Self, ConfigError> {
        if counts == 0 || counts > MAX_COUNTS {
            return Err(ConfigError::new("capacity", counts.to_string(), "is not 1 to 67108864 counts"));
        }
        Ok(Self::of_counts(counts))
    }

    fn of_counts(counts: usize) -> Self {
        let buckets = counts.saturating_mul(4).div_ceil(QUARTERS_PER_BUCKET).max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            shared: (0..counts.div_ceil(COUNTS_PER_SHARED).max(MAX_CHARGES)).map(|_| AtomicU64::new(0)).collect(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            seed: RandomState::default(),
        }
    }

    /// How many counts there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buckets.len().saturating_mul(QUARTERS_PER_BUCKET) / 4
    }

    fn take_from(&self, draw: &Draw<'_>, now: u64) -> Taken {
        if let [charge] = draw.charges()
            && let Some(taken) = self.take_one(draw, &self.place(charge), now)
        {
            return taken;
        }
        self.take_locked(draw, now)
    }

    /// The short way: one charge whose count is there.
    fn take_one(&self, draw: &Draw<'_>, place: &Place, now: u64) -> Option<Taken> {
        loop {
            let (cell, before) = self.find(place)?;
            let mut after = [before];
            let taken = draw.take(&mut after, now);
            if after == [before] || swap(&cell.tat, before, after[0]) {
                return Some(taken);
            }
        }
    }

    fn take_locked(&self, draw: &Draw<'_>, now: u64) -> Taken {
        let charges = draw.charges();
        if charges.len() > MAX_CHARGES {
            return Taken::too_costly(0);
        }
        let places: Places = std::array::from_fn(|index| charges.get(index).map(|charge| self.place(charge)));
        if let Some(twice) = repeated(&places) {
            return Taken::too_costly(twice);
        }
        let _locks = self.lock(&places);
        loop {
            let (seats, before) = self.seats(charges, &places, now);
            let mut after = before;
            let taken = draw.take(&mut after, now);
            let mut moves = [None; MAX_CHARGES];
            for ((slot, (seat, place)), (before, after)) in
                moves.iter_mut().zip(seats.into_iter().zip(places)).zip(before.into_iter().zip(after))
            {
                if let (Some(seat), Some(place)) = (seat, place)
                    && before != after
                {
                    *slot = Some(Move { seat, fingerprint: place.fingerprint, before, after });
                }
            }
            let failed = moves.iter().position(|step| step.is_some_and(|step| !step.make()));
            let Some(failed) = failed else { return taken };
            // Somebody was faster at one of them: take back the others, and look again.
            moves.iter().take(failed).flatten().for_each(|step| step.undo(now));
        }
    }

    /// Locks the keys' stripes, in their order, so that no two wait for each other.
    fn lock(&self, places: &Places) -> [Option<MutexGuard<'_, ()>>; MAX_CHARGES] {
        let mut stripes = places.map(|place| place.map(|place| place.stripe));
        stripes.sort_unstable();
        let mut last = None;
        stripes.map(|stripe| {
            if stripe == last {
                return None;
            }
            last = stripe;
            self.stripes.get(stripe?).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn seats<'a>(
        &'a self,
        charges: &[Charge<'_>],
        places: &Places,
        now: u64,
    ) -> ([Option<Seat<'a>>; MAX_CHARGES], [u64; MAX_CHARGES]) {
        let (mut seats, mut tats): ([Option<Seat<'a>>; MAX_CHARGES], _) = ([None; MAX_CHARGES], [0; MAX_CHARGES]);
        for (index, (charge, place)) in charges.iter().zip(places.iter().flatten()).enumerate() {
            let (seat, tat) = if let Some((cell, tat)) = self.find(place) {
                (Seat::Own(cell), tat)
            } else if let Some((cell, tat)) = self.spare(place, now, &seats) {
                (Seat::Spare(cell, tat), 0)
            } else {
                let cell = self.shared_cell(charge, &seats);
                (Seat::Shared(cell), cell.load(Acquire))
            };
            if let (Some(slot), Some(kept)) = (seats.get_mut(index), tats.get_mut(index)) {
                (*slot, *kept) = (Some(seat), tat);
            }
        }
        (seats, tats)
    }

    fn find(&self, place: &Place) -> Option<(&Cell, u64)> {
        self.cells(place).find_map(|cell| {
            if cell.fingerprint.load(Relaxed) != place.fingerprint {
                return None;
            }
            let tat = cell.tat.load(Acquire);
            (tat != CLAIMED && cell.fingerprint.load(Relaxed) == place.fingerprint).then_some((cell, tat))
        })
    }

    /// The cell to take over: of the first bucket that has a whole one, the one that is whole the longest.
    fn spare<'a>(&'a self, place: &Place, now: u64, taken: &[Option<Seat<'a>>]) -> Option<(&'a Cell, u64)> {
        let free = |cell: &&'a Cell| {
            !taken.iter().flatten().any(|seat| matches!(seat, Seat::Spare(other, _) if std::ptr::eq(*other, *cell)))
        };
        place.buckets.iter().find_map(|bucket| {
            let cells = self.buckets.get(*bucket)?.0.iter().filter(free);
            let tats = cells.map(|cell| (cell, cell.tat.load(Acquire)));
            tats.filter(|(_, tat)| *tat <= now && *tat != CLAIMED).min_by_key(|(_, tat)| *tat)
        })
    }

    fn cells(&self, place: &Place) -> impl Iterator<Item = &Cell> {
        place.buckets.into_iter().filter_map(|bucket| self.buckets.get(bucket)).flat_map(|bucket| &bucket.0)
    }

    fn place(&self, charge: &Charge<'_>) -> Place {
        let hash = self.seed.hash_one(charge.key());
        let other = hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (count, home) = (self.buckets.len(), spread(hash, self.buckets.len()));
        // Any other one: `away` is 1 to `count - 1`.
        let away = spread(other, count.saturating_sub(1)).saturating_add(1);
        let away = home.saturating_add(away);
        Place {
            buckets: [home, if away < count { away } else { away.saturating_sub(count) }],
            // Zero is the fingerprint of a cell that nobody has.
            fingerprint: (hash ^ charge.quota().name_hash()).max(1),
            stripe: usize::try_from(hash & 0xff).unwrap_or(0),
        }
    }

    /// Where the neighbours of a key count together; no cell that another charge of the draw has.
    fn shared_cell<'a>(&'a self, charge: &Charge<'_>, taken: &[Option<Seat<'a>>]) -> &'a AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        let mut hasher = self.seed.build_hasher();
        charge.key().scope().hash(&mut hasher);
        charge.key().parts().iter().for_each(|part| part.widened().hash(&mut hasher));
        charge.quota().name_hash().hash(&mut hasher);
        let start = spread(hasher.finish(), self.shared.len());
        let is_free = |cell: &&AtomicU64| {
            !taken.iter().flatten().any(|seat| matches!(seat, Seat::Shared(other) if std::ptr::eq(*other, *cell)))
        };
        self.shared.iter().cycle().skip(start).take(MAX_CHARGES).find(is_free).unwrap_or(&NOWHERE)
    }
}

type Places = [Option<Place>; MAX_CHARGES];

/// The index of a charge that stands twice.
fn repeated(places: &Places) -> Option<usize> {
    let same = |one: &Place, other: &Place| one.fingerprint == other.fingerprint && one.buckets == other.buckets;
    places.iter().enumerate().find_map(|(index, place)| {
        let before = places.get(..index)?;
        place.as_ref().filter(|place| before.iter().flatten().any(|other| same(place, other))).map(|_| index)
    })
}

/// Spreads hashes over `count` places without a division: the upper half of the product.
fn spread(hash: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let upper = u128::from(hash).saturating_mul(u128::from(count)) >> 64;
    usize::try_from(upper).unwrap_or(0)
}

fn swap(tat: &AtomicU64, before: u64, after: u64) -> bool {
    tat.compare_exchange(before, after, AcqRel, Acquire).is_ok()
}

/// One count's part of a draw.
#[derive(Clone, Copy)]
struct Move<'a> {
    seat: Seat<'a>,
    fingerprint: u64,
    before: u64,
    after: u64,
}

impl Move<'_> {
    /// Makes it, unless somebody was faster.
    fn make(&self) -> bool {
        match self.seat {
            Seat::Own(cell) => swap(&cell.tat, self.before, self.after),
            Seat::Shared(tat) => swap(tat, self.before, self.after),
            Seat::Spare(cell, tat) => {
                if !swap(&cell.tat, tat, CLAIMED) {
                    return false;
                }
                cell.fingerprint.store(self.fingerprint, Relaxed);
                cell.tat.store(self.after, Release);
                true
            }
        }
    }

    /// Gives back what it took, and no more than that if others took in the meantime.
    fn undo(&self, now: u64) {
        let (cell, tat) = match self.seat {
            Seat::Own(cell) => (Some(cell), &cell.tat),
            Seat::Spare(cell, _) => (Some(cell), &cell.tat),
            Seat::Shared(tat) => (None, tat),
        };
        let whole = match self.seat {
            // Later than what stood there before: see `Cell`.
            Seat::Spare(_, old) => old.saturating_add(1).max(now),
            Seat::Own(_) | Seat::Shared(_) => self.before,
        };
        let price = self.after.saturating_sub(whole.max(now));
        let mut current = self.after;
        loop {
            let given_back = if current == self.after { whole } else { current.saturating_sub(price) };
            match tat.compare_exchange(current, given_back, AcqRel, Acquire) {
                Ok(_) => return,
                Err(CLAIMED) => return,
                Err(_) if cell.is_some_and(|cell| cell.fingerprint.load(Relaxed) != self.fingerprint) => return,
                Err(other) => current = other,
            }
        }
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
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        Now::Known(Ok(self.take_from(draw, at.monotonic_nanos())))
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        Ok(self.take_from(draw, at.monotonic_nanos()))
    }
}

#[cfg(test)]
mod tests;
