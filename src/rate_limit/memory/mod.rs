mod cell;

/// What the cells are made of.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use foldhash::quality::RandomState;

use self::{
    atomics::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
    },
    cell::{CLAIMED, Cell, swap, take_back},
};
use crate::{
    clock::Instants,
    error::{ConfigError, StoreError},
    now::Now,
    rate_limit::{Charge, Draw, LatestTime, MAX_CHARGES, RateLimitStore, Taken},
};

/// How many cells fill a line of the processor's cache.
const WAYS: usize = 4;
/// How many counts there is room for in each bucket, times four. A count has two buckets to choose from, so that few meet
/// two full ones.
const QUARTERS_PER_BUCKET: usize = 9;
/// How many counts share one cell of those for keys that find no room.
const COUNTS_PER_SHARED: usize = 16;
/// Shared counts of quotas that come back within ten seconds, ten minutes, ten hours, or later stand apart: who is under a short
/// one is not kept waiting by the debts of a long one.
const SHARED_UP_TO: [u64; 3] = [10_000_000_000, 600_000_000_000, 36_000_000_000_000];
const AREAS: usize = SHARED_UP_TO.len() + 1;
/// The most counts that a table may have room for: about 1.9 GB.
const MAX_COUNTS: usize = 1 << 26;
/// How many keys can be put in their place at the same time.
const STRIPES: usize = 256;
/// How often a draw is tried. No two of its counts have one cell, so each time that it fails somebody else got on; after so many
/// it is refused, because it holds locks.
const MAX_ROUNDS: usize = 1_000;

/// Counts in this process's memory: a table of fixed size that answers at once.
///
/// # Bounds
/// - 29 bytes for each count of the capacity, all of it taken at the start: 1.9 MB for the default of
///   [`DEFAULT_CAPACITY`](Self::DEFAULT_CAPACITY) counts. A limiter of several quotas needs one count for each of them.
/// - Keys beyond the capacity cost no memory. A quota that is whole is forgotten as soon as its cell is needed; one that is
///   in debt never is. Where both buckets of a new key are full of debt, it shares a cell with its neighbours: an IPv4
///   address with its /24, an IPv6 /64 with its /48, anything else with whom the hash brings together, under quotas of about the
///   same length. When there is room again, it has a whole burst of its own. So a flood of addresses makes limits tighter for
///   newcomers and looser for nobody.
/// - A check of a key that is there, under one quota, reads one line of cache and writes it with one compare-and-swap. A key
///   that is not there, and one under several quotas, takes one of 256 short locks as well. Nothing is allocated.
///
/// A cell holds a 64-bit fingerprint under a seed that is random in each process, not the key itself. Two keys of one
/// fingerprint would share a count; that limits and never opens, and nobody outside can find such a pair.
///
/// Only the monotonic clock counts: setting the wall clock changes nothing. A request with an [older reading](LatestTime) than others
/// had counts as if it came with the latest. A restart forgets everything, and each process
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
    shared: [Box<[AtomicU64]>; AREAS],
    stripes: Box<[Mutex<()>]>,
    seed: RandomState,
    /// The monotonic clock never goes back, so what is behind this is the reading of a request that waited somewhere.
    latest: LatestTime,
}

/// The cells of one line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket([Cell; WAYS]);

impl Bucket {
    /// Looks at all cells without a branch between them: in which one it is, nobody can predict.
    #[inline]
    fn find(&self, fingerprint: u64) -> Option<(&Cell, u64)> {
        let mut found = WAYS;
        for (index, cell) in self.0.iter().enumerate().rev() {
            if cell.fingerprint.load(Relaxed) == fingerprint {
                found = index;
            }
        }
        let cell = self.0.get(found)?;
        cell.moment_of(fingerprint).map(|tat| (cell, tat))
    }
}

/// Where a count may stand: in two buckets that the hash of its key gives.
#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    fingerprint: u64,
}

impl Place {
    /// Which lock puts it there. All charges of one key have the same.
    fn stripe(&self) -> usize {
        usize::try_from(self.hash & 0xff).unwrap_or(0)
    }
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
        let shared = counts.div_ceil(COUNTS_PER_SHARED).div_ceil(AREAS).max(MAX_CHARGES);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            shared: [(); AREAS].map(|()| (0..shared).map(|_| AtomicU64::new(0)).collect()),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            seed: RandomState::default(),
            latest: LatestTime::new(),
        }
    }

    /// How many counts there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buckets.len().saturating_mul(QUARTERS_PER_BUCKET) / 4
    }

    #[inline]
    pub(super) fn take_from(&self, draw: &Draw<'_>, now: u64) -> Taken {
        // The short way: one charge whose count is there.
        if let [charge] = draw.charges() {
            let place = self.place(charge);
            while let Some((cell, before)) = self.find(&place) {
                // After the count was read: who changed it told of the time before that.
                let now = self.latest.catch_up_nanos(now);
                let (taken, after) = draw.take_one(charge, before, now);
                if after == before || swap(&cell.tat, before, after) {
                    return taken;
                }
            }
        }
        // Most draws of several have two: room for more would be made ready, and dropped, in vain.
        if draw.charges().len() <= 2 {
            self.take_locked::<2>(draw, now)
        } else {
            self.take_locked::<MAX_CHARGES>(draw, now)
        }
    }

    /// What [`take_now`](RateLimitStore::take_now) would answer, and takes nothing.
    pub(super) fn look(&self, draw: &Draw<'_>, at: Instants) -> Taken {
        let charges = draw.charges();
        if charges.len() > MAX_CHARGES {
            return Self::refuse_draw(0);
        }
        let now = at.monotonic_nanos();
        let (mut seats, mut tats) = ([None; MAX_CHARGES], [0; MAX_CHARGES]);
        let mut places = [Place { hash: 0, fingerprint: 0 }; MAX_CHARGES];
        places.iter_mut().zip(charges).for_each(|(place, charge)| *place = self.place(charge));
        self.sit(charges, &places, now, &mut seats, &mut tats);
        draw.take(&mut tats, now)
    }

    #[cold]
    fn refuse_draw(index: usize) -> Taken {
        Taken::too_costly(index)
    }

    /// The long way, for draws of up to `N` charges.
    #[cold]
    #[inline(never)]
    fn take_locked<const N: usize>(&self, draw: &Draw<'_>, now: u64) -> Taken {
        let charges = draw.charges();
        if charges.is_empty() || charges.len() > N {
            return Self::refuse_draw(0);
        }
        let mut places = [Place { hash: 0, fingerprint: 0 }; N];
        for (index, charge) in charges.iter().enumerate() {
            // Charges of one key stand side by side, and are hashed once.
            let before = index.checked_sub(1).and_then(|before| Some((charges.get(before)?, *places.get(before)?)));
            let place = match before {
                Some((before, place)) if before.key() == charge.key() => Self::place_of(place.hash, charge),
                _ => self.place(charge),
            };
            // Under one fingerprint they would have one cell.
            if places.iter().take(index).any(|other| other.fingerprint == place.fingerprint) {
                return Self::refuse_draw(index);
            }
            if let Some(slot) = places.get_mut(index) {
                *slot = place;
            }
        }
        let places = places.get(..charges.len()).unwrap_or_default();
        let _locks = self.lock::<N>(places);
        let mut now = now;
        for _ in 0..MAX_ROUNDS {
            now = self.latest.catch_up_nanos(now);
            let mut seats = [None; N];
            let mut before = [0; N];
            self.sit(charges, places, now, &mut seats, &mut before);
            now = self.latest.catch_up_nanos(now);
            let mut after = before;
            let taken = draw.take(&mut after, now);
            // A debt in a shared cell may be that of a neighbour's longer quota.
            for ((seat, before), after) in seats.iter().zip(&before).zip(&mut after) {
                if matches!(seat, Some(Seat::Shared(_))) {
                    *after = (*after).max(*before);
                }
            }
            let steps = seats.iter().flatten().zip(places).zip(before.iter().zip(&after));
            let steps = steps.filter(|(_, (before, after))| before != after).map(|((seat, place), (before, after))| {
                Move { seat: *seat, fingerprint: place.fingerprint, before: *before, after: *after }
            });
            let made = steps.clone().take_while(Move::make).count();
            if made == steps.clone().count() {
                return taken;
            }
            // Somebody was faster at one of them: take back the others, and look again.
            steps.take(made).for_each(|step| step.undo(now));
        }
        Taken::refused(0, 1)
    }

    /// Locks the keys' stripes, in their order, so that no two wait for each other.
    fn lock<const N: usize>(&self, places: &[Place]) -> (Option<MutexGuard<'_, ()>>, [Option<MutexGuard<'_, ()>>; N]) {
        let lock =
            |stripe: usize| self.stripes.get(stripe).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        let mut rest = [const { None }; N];
        let first = places.first().map(Place::stripe);
        if places.iter().all(|place| Some(place.stripe()) == first) {
            return (first.and_then(lock), rest);
        }
        let mut stripes = [None; N];
        stripes.iter_mut().zip(places).for_each(|(stripe, place)| *stripe = Some(place.stripe()));
        stripes.sort_unstable();
        let mut last = None;
        for (guard, stripe) in rest.iter_mut().zip(stripes) {
            if stripe != last {
                (*guard, last) = (stripe.and_then(lock), stripe);
            }
        }
        (None, rest)
    }

    /// Finds where each count stands or will, and when it is whole. Those that are there come first: what is whole may be given
    /// away, but not by a draw to itself.
    fn sit<'a>(
        &'a self,
        charges: &[Charge<'_>],
        places: &[Place],
        now: u64,
        seats: &mut [Option<Seat<'a>>],
        tats: &mut [u64],
    ) {
        let mut absent = false;
        for ((place, seat), kept) in places.iter().zip(&mut *seats).zip(&mut *tats).take(charges.len()) {
            match self.find(place) {
                Some((cell, tat)) => (*seat, *kept) = (Some(Seat::Own(cell)), tat),
                None => absent = true,
            }
        }
        if !absent {
            return;
        }
        for (index, (charge, place)) in charges.iter().zip(places).enumerate() {
            let (Some(None), Some(kept)) = (seats.get(index), tats.get_mut(index)) else { continue };
            let seat = if let Some((cell, tat)) = self.spare(place, now, seats) {
                *kept = 0;
                Seat::Spare(cell, tat)
            } else {
                let cell = self.shared_cell(charge, seats);
                *kept = cell.load(Acquire);
                Seat::Shared(cell)
            };
            if let Some(slot) = seats.get_mut(index) {
                *slot = Some(seat);
            }
        }
    }

    #[inline]
    fn find(&self, place: &Place) -> Option<(&Cell, u64)> {
        let home = self.home(place);
        match self.buckets.get(home)?.find(place.fingerprint) {
            None => self.buckets.get(self.away(place, home))?.find(place.fingerprint),
            found => found,
        }
    }

    /// The cell to take over: of the first bucket that has a whole one, the one that is whole the longest.
    fn spare<'a>(&'a self, place: &Place, now: u64, taken: &[Option<Seat<'a>>]) -> Option<(&'a Cell, u64)> {
        let free = |cell: &&'a Cell| {
            !taken.iter().flatten().any(|seat| match seat {
                Seat::Own(other) | Seat::Spare(other, _) => std::ptr::eq(*other, *cell),
                Seat::Shared(_) => false,
            })
        };
        let home = self.home(place);
        [home, self.away(place, home)].into_iter().find_map(|bucket| {
            let cells = self.buckets.get(bucket)?.0.iter().filter(free);
            let tats = cells.map(|cell| (cell, cell.tat.load(Acquire)));
            tats.filter(|(_, tat)| *tat <= now && *tat != CLAIMED).min_by_key(|(_, tat)| *tat)
        })
    }

    #[inline]
    fn place(&self, charge: &Charge<'_>) -> Place {
        Self::place_of(charge.key().hash_with(&self.seed), charge)
    }

    #[inline]
    fn place_of(hash: u64, charge: &Charge<'_>) -> Place {
        // Zero is the fingerprint of a cell that nobody has.
        Place { hash, fingerprint: (hash ^ charge.quota().name_hash()).max(1) }
    }

    /// The bucket that is looked at first.
    #[inline]
    fn home(&self, place: &Place) -> usize {
        spread(place.hash, self.buckets.len())
    }

    /// Any other one.
    fn away(&self, place: &Place, home: usize) -> usize {
        let count = self.buckets.len();
        let hash = place.hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let away = home.saturating_add(spread(hash, count.saturating_sub(1))).saturating_add(1);
        if away < count { away } else { away.saturating_sub(count) }
    }

    /// Where the neighbours of a key count together; no cell that another charge of the draw has.
    fn shared_cell<'a>(&'a self, charge: &Charge<'_>, taken: &[Option<Seat<'a>>]) -> &'a AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        let mut hasher = self.seed.build_hasher();
        charge.key().scope().hash(&mut hasher);
        charge.key().parts().iter().for_each(|part| part.widened().hash(&mut hasher));
        charge.quota().name_hash().hash(&mut hasher);
        let longest = charge.quota().longest_nanos();
        let area = SHARED_UP_TO.iter().filter(|most| longest > **most).count();
        let area = self.shared.get(area).map(|area| &**area).unwrap_or_default();
        let start = spread(hasher.finish(), area.len());
        let is_free = |cell: &&AtomicU64| {
            !taken.iter().flatten().any(|seat| matches!(seat, Seat::Shared(other) if std::ptr::eq(*other, *cell)))
        };
        area.iter().cycle().skip(start).take(MAX_CHARGES).find(is_free).unwrap_or(&NOWHERE)
    }
}

/// Spreads hashes over `count` places without a division: the upper half of the product.
#[inline]
fn spread(hash: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let upper = u128::from(hash).wrapping_mul(u128::from(count)) >> 64;
    usize::try_from(upper).unwrap_or(0)
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
            Seat::Spare(cell, tat) => cell.claim(tat, self.fingerprint, self.after),
        }
    }

    /// Gives back what it took, and no more than that if others took in the meantime.
    fn undo(&self, now: u64) {
        let whole = match self.seat {
            // Later than what stood there before: see `Cell`.
            Seat::Spare(_, old) => old.saturating_add(1).max(now),
            Seat::Own(_) | Seat::Shared(_) => self.before,
        };
        let price = self.after.saturating_sub(whole.max(now));
        match self.seat {
            Seat::Own(cell) | Seat::Spare(cell, _) => {
                take_back(&cell.tat, Some((cell, self.fingerprint)), self.after, whole, price);
            }
            Seat::Shared(tat) => take_back(tat, None, self.after, whole, price),
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
