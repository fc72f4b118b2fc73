use std::{
    cell::Cell,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::principal::Principal;

/// How many entries a bucket has room for.
const WAYS: usize = 5;
/// Half of how many there are meant to be in one. With two buckets to choose from, hardly any bucket gets more than it has
/// room for.
const ENTRIES_PER_TWO_BUCKETS: usize = 5;
/// A bucket with less than so many takes an entry, even if its other bucket has less: most are found in the first.
const NEARLY_FULL: usize = 3;

/// A table of fixed size. A hit takes one lock, which readers share, and reads two places in memory: the bucket, and the
/// principal, whose key stands right behind it.
pub(super) struct Table {
    buckets: Box<[Bucket]>,
    max_entries: usize,
    max_bytes: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
    hits: Counter,
    /// The bucket that makes room next.
    hand: AtomicUsize,
}

/// One line of the processor's cache.
#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    held: RwLock<[Option<Principal>; WAYS]>,
    /// A part of each entry's hash, so that mostly only one entry is looked at, and no lock is taken for a key that is not
    /// here; zero where there is none. Changed under the lock. Only the entry itself tells whether it is the one.
    tags: [AtomicU8; WAYS],
    /// A bit for each entry that was hit since room was last sought.
    used: AtomicU8,
    /// Where the search for an entry to evict begins. Changed under the lock.
    hand: AtomicU8,
}

impl Table {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            buckets: (0..Self::buckets_for(max_entries)).map(|_| Bucket::default()).collect(),
            max_entries,
            max_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            hits: Counter::default(),
            hand: AtomicUsize::new(0),
        }
    }

    fn buckets_for(max_entries: usize) -> usize {
        max_entries.saturating_mul(2).div_ceil(ENTRIES_PER_TWO_BUCKETS).max(1)
    }

    /// Finds the principal of a key. An entry that has ended, or whose keys are not the issuer's `generation` any more, is
    /// dropped; one whose time has not come yet, because the clock was set back, is left alone and not served.
    pub(super) fn get(
        &self,
        hash: u64,
        key: &[u8],
        now: u64,
        generation: impl Fn(usize) -> Option<u64>,
    ) -> Option<Principal> {
        for bucket in self.homes(hash) {
            if bucket.tagged(tag(hash)).next().is_none() {
                continue;
            }
            let held = bucket.read();
            let Some((place, found)) = bucket.find(&held, hash, key) else { continue };
            let terms = found.terms();
            if now < terms.from {
                return None;
            }
            if now < terms.until && terms.are_of(generation) {
                let found = found.clone();
                bucket.hit(place);
                drop(held);
                self.hits.add();
                return Some(found);
            }
            drop(held);
            let mut held = bucket.write();
            let ended = bucket.take_if(&mut held, place, |entry| entry.terms() == terms && entry.is_kept_under(key));
            drop(held);
            self.release(ended);
            return None;
        }
        None
    }

    /// Keeps an entry under the key that the principal is kept under, if there is room for it at all. Two threads that bring
    /// one token at the same moment may each find another place for it; then it is there twice, until one is evicted.
    pub(super) fn insert(&self, hash: u64, key: &[u8], principal: Principal, now: u64) {
        if !self.make_room(principal.size(), now) {
            return;
        }
        let Some(bucket) = self.home_for(hash, key) else { return };
        let mut held = bucket.write();
        let mut ended = [const { None }; WAYS];
        let place = bucket.find(&held, hash, key).map(|(place, _)| place).or_else(|| bucket.free());
        let place = place.unwrap_or_else(|| {
            ended = bucket.take_ended(&mut held, now);
            bucket.free().unwrap_or_else(|| {
                self.evictions.fetch_add(1, Relaxed);
                bucket.coldest().unwrap_or_else(|| bucket.hand())
            })
        });
        let old = bucket.put(&mut held, place, tag(hash), principal);
        drop(held);
        ended.into_iter().chain([old]).for_each(|entry| self.release(entry));
    }

    #[cfg(test)]
    pub(super) fn bytes_of_table(max_entries: usize) -> usize {
        Self::buckets_for(max_entries) * size_of::<Bucket>()
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.sum()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// The two buckets that may hold a key.
    fn homes(&self, hash: u64) -> impl Iterator<Item = &Bucket> {
        [hash, hash.rotate_left(32)].into_iter().filter_map(|hash| self.bucket(hash))
    }

    /// Where a key is, or else the bucket that it belongs into.
    fn home_for(&self, hash: u64, key: &[u8]) -> Option<&Bucket> {
        let known = self.homes(hash).find(|bucket| bucket.find(&bucket.read(), hash, key).is_some());
        let first = || self.homes(hash).next().filter(|bucket| bucket.count() < NEARLY_FULL);
        let emptier = || self.homes(hash).min_by_key(|bucket| bucket.count());
        known.or_else(first).or_else(emptier)
    }

    /// Spreads hashes over the buckets without a division: the upper half of the product.
    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let upper = u128::from(hash).saturating_mul(u128::from(count)) >> 64;
        self.buckets.get(usize::try_from(upper).ok()?)
    }

    /// Takes hold of the room for one entry. Goes around the table at most twice; the first time, entries that were hit since
    /// the last are spared.
    fn make_room(&self, size: usize, now: u64) -> bool {
        if size > self.max_bytes {
            return false;
        }
        for _ in 0..=self.buckets.len().saturating_mul(2) {
            if self.reserve(size) {
                return true;
            }
            let turn = self.hand.fetch_add(1, Relaxed);
            let Some(bucket) = turn.checked_rem(self.buckets.len()).and_then(|place| self.buckets.get(place)) else {
                return false;
            };
            let mut held = bucket.write();
            let ended = bucket.take_ended(&mut held, now);
            let coldest = if ended.iter().any(Option::is_some) { None } else { bucket.coldest() };
            let old = coldest.and_then(|place| bucket.take_if(&mut held, place, |_| true));
            drop(held);
            if old.is_some() {
                self.evictions.fetch_add(1, Relaxed);
            }
            ended.into_iter().chain([old]).for_each(|entry| self.release(entry));
        }
        false
    }

    fn reserve(&self, size: usize) -> bool {
        if !add_within(&self.entries, 1, self.max_entries) {
            return false;
        }
        let reserved = add_within(&self.bytes, size, self.max_bytes);
        if !reserved {
            self.entries.fetch_sub(1, Relaxed);
        }
        reserved
    }

    /// Gives back the room of an entry. Never under a lock: with the principal go types of the user's own.
    fn release(&self, entry: Option<Principal>) {
        if let Some(entry) = entry {
            self.entries.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(entry.size(), Relaxed);
        }
    }
}

type Held = [Option<Principal>; WAYS];

impl Bucket {
    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<'h>(&self, held: &'h Held, hash: u64, key: &[u8]) -> Option<(usize, &'h Principal)> {
        let entry = |place: usize| Some((place, held.get(place)?.as_ref()?));
        self.tagged(tag(hash)).filter_map(entry).find(|(_, entry)| entry.is_kept_under(key))
    }

    fn put(&self, held: &mut Held, place: usize, tag: u8, entry: Principal) -> Option<Principal> {
        self.used.fetch_and(!bit(place), Relaxed);
        self.set_tag(place, tag);
        held.get_mut(place)?.replace(entry)
    }

    fn take_if(&self, held: &mut Held, place: usize, wanted: impl FnOnce(&Principal) -> bool) -> Option<Principal> {
        let taken = held.get_mut(place)?.take_if(|entry| wanted(entry));
        if taken.is_some() {
            self.set_tag(place, 0);
        }
        taken
    }

    fn take_ended(&self, held: &mut Held, now: u64) -> Held {
        std::array::from_fn(|place| self.take_if(held, place, |entry| now >= entry.terms().until))
    }

    fn tagged(&self, tag: u8) -> impl Iterator<Item = usize> {
        let tags = self.tags.iter().enumerate();
        tags.filter(move |(_, known)| known.load(Relaxed) == tag).map(|(place, _)| place)
    }

    fn set_tag(&self, place: usize, tag: u8) {
        if let Some(known) = self.tags.get(place) {
            known.store(tag, Relaxed);
        }
    }

    fn free(&self) -> Option<usize> {
        self.tagged(0).next()
    }

    fn count(&self) -> usize {
        WAYS.saturating_sub(self.tagged(0).count())
    }

    fn hit(&self, place: usize) {
        if self.used.load(Relaxed) & bit(place) == 0 {
            self.used.fetch_or(bit(place), Relaxed);
        }
    }

    fn hand(&self) -> usize {
        usize::from(self.hand.load(Relaxed)) % WAYS
    }

    /// An entry that was not hit since the last search. If all were, they count as not hit from now on, and there is none.
    fn coldest(&self) -> Option<usize> {
        let (hit, hand) = (self.used.load(Relaxed), self.hand());
        let held = |place: &usize| self.tags.get(*place).is_some_and(|tag| tag.load(Relaxed) != 0);
        let found = (hand..WAYS).chain(0..hand).filter(held).find(|place| hit & bit(*place) == 0);
        if found.is_none() {
            self.used.store(0, Relaxed);
        }
        let next = found.unwrap_or(hand).saturating_add(1) % WAYS;
        self.hand.store(u8::try_from(next).unwrap_or(0), Relaxed);
        found
    }
}

/// Counts what all threads do, without their waiting for each other.
struct Counter([Padded; OWN + 1]);

/// How many threads have a place of their own. The rest, if there are so many, share the last one.
const OWN: usize = 63;

#[derive(Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Padded::default()))
    }
}

impl Counter {
    fn add(&self) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: Cell<Option<usize>> = const { Cell::new(None) });
        let number = THREAD.with(|thread| {
            thread.get().unwrap_or_else(|| {
                let number = THREADS.fetch_add(1, Relaxed);
                thread.set(Some(number));
                number
            })
        });
        match (self.0.get(number), self.0.last()) {
            // Nobody else writes there, so nothing has to be locked.
            (Some(own), _) if number < OWN => own.0.store(own.0.load(Relaxed).wrapping_add(1), Relaxed),
            (_, Some(shared)) => drop(shared.0.fetch_add(1, Relaxed)),
            (_, None) => {}
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, own| sum.wrapping_add(own.0.load(Relaxed)))
    }
}

/// The lowest bits; the buckets are chosen by others.
const fn tag(hash: u64) -> u8 {
    let [tag, ..] = hash.to_le_bytes();
    if tag == 0 { 1 } else { tag }
}

const fn bit(place: usize) -> u8 {
    1 << (place % WAYS)
}

fn add_within(counter: &AtomicUsize, more: usize, most: usize) -> bool {
    let within = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
    counter.fetch_update(Relaxed, Relaxed, within).is_ok()
}

#[cfg(test)]
mod tests;
