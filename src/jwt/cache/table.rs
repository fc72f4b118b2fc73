use std::sync::{
    PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::principal::Principal;

/// How many entries share a lock.
const WAYS: usize = 16;
/// How many entries there are meant to be in a bucket. The other half takes up that some buckets get more than others.
const ENTRIES_PER_BUCKET: usize = 8;

/// How much of the end of a token is hashed: the last bytes of its signature, which nobody can choose.
pub(super) const TAIL: usize = 32;

/// When, and by whose keys, a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jwt) struct Terms {
    /// The first nanosecond since the Unix epoch at which it is.
    pub(in crate::jwt) from: u64,
    /// The first at which it is not any more.
    pub(in crate::jwt) until: u64,
    /// The place of the issuer among the authenticator's.
    pub(in crate::jwt) issuer: usize,
    /// Which keys of the issuer verified it.
    pub(in crate::jwt) generation: u64,
}

/// A verified token, or its digest.
struct Entry {
    key: Zeroizing<Box<[u8]>>,
    principal: Principal,
    terms: Terms,
}

impl Entry {
    fn size(&self) -> usize {
        self.key.len().saturating_add(self.principal.size())
    }

    /// Compares all of it. A key whose tail differs is told in constant time; who knows the tail of a good signature, and
    /// thereby gets to the second comparison, has the token.
    fn is(&self, key: &[u8]) -> bool {
        match (self.key.split_last_chunk::<TAIL>(), key.split_last_chunk::<TAIL>()) {
            (Some((head, tail)), Some((other_head, other_tail))) => {
                head.len() == other_head.len()
                    && bool::from(words(tail).ct_eq(&words(other_tail)))
                    && head == other_head
            }
            _ => false,
        }
    }
}

/// Words are compared faster than bytes.
fn words(tail: &[u8; TAIL]) -> [u64; TAIL / 8] {
    let (chunks, _) = tail.as_chunks::<8>();
    let mut words = [0; TAIL / 8];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words
}

/// A table of fixed size: buckets of sixteen entries, each behind a lock that readers share.
///
/// A hit reads the bucket, the token and the principal, and writes the bucket's lock and counter and the principal's count.
pub(super) struct Table {
    buckets: Box<[Bucket]>,
    max_entries: usize,
    max_bytes: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
    /// The bucket that makes room next.
    hand: AtomicUsize,
}

#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    slots: RwLock<Slots>,
    hits: AtomicU64,
    /// A bit for each entry that was hit since room was last sought.
    used: AtomicU16,
}

#[derive(Default)]
struct Slots {
    /// A part of each entry's hash, so that others' memory need not be looked at.
    tags: [u32; WAYS],
    entries: [Option<Entry>; WAYS],
    /// Where the search for an entry to evict begins.
    hand: usize,
}

impl Table {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let count = max_entries.div_ceil(ENTRIES_PER_BUCKET).max(1);
        Self {
            buckets: (0..count).map(|_| Bucket::default()).collect(),
            max_entries,
            max_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Finds the principal of a key. An entry that has ended, or whose keys are not the issuer's `generation` any more, is
    /// dropped; one whose time has not come yet, because the clock was set back, is left alone and not served.
    pub(super) fn get(
        &self,
        hash: u64,
        key: &[u8],
        now: u64,
        generation: impl FnOnce(usize) -> Option<u64>,
    ) -> Option<Principal> {
        let bucket = self.bucket(hash)?;
        let slots = bucket.read();
        let (place, entry) = slots.find(tag(hash), key)?;
        let terms = entry.terms;
        if now < terms.from {
            return None;
        }
        if now < terms.until && generation(terms.issuer) == Some(terms.generation) {
            let principal = entry.principal.clone();
            drop(slots);
            bucket.hit(place);
            return Some(principal);
        }
        drop(slots);
        self.remove(bucket, hash, key, terms);
        None
    }

    /// Keeps an entry, if there is room for it at all.
    pub(super) fn insert(&self, hash: u64, key: &[u8], principal: Principal, terms: Terms, now: u64) {
        let entry = Entry { key: Zeroizing::new(key.into()), principal, terms };
        let Some(bucket) = self.bucket(hash) else { return };
        if !self.make_room(entry.size(), now) {
            return;
        }
        let mut slots = bucket.write();
        let ended = slots.take_ended(now);
        let place = match slots.find(tag(hash), key) {
            Some((place, _)) => place,
            None => slots.free().unwrap_or_else(|| {
                self.evictions.fetch_add(1, Relaxed);
                let place = slots.coldest(&bucket.used).unwrap_or(slots.hand);
                slots.hand = place.saturating_add(1) % WAYS;
                place
            }),
        };
        bucket.used.fetch_and(!bit(place), Relaxed);
        let old = slots.put(place, tag(hash), entry);
        drop(slots);
        ended.into_iter().for_each(|entry| self.release(entry));
        self.release(old);
    }

    #[cfg(test)]
    pub(super) fn bytes_of_table(max_entries: usize) -> usize {
        max_entries.div_ceil(ENTRIES_PER_BUCKET) * size_of::<Bucket>()
    }

    pub(super) fn hits(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(bucket.hits.load(Relaxed)))
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

    /// Spreads hashes over the buckets without a division: the upper half of the product.
    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let upper = u128::from(hash).saturating_mul(u128::from(count)) >> 64;
        self.buckets.get(usize::try_from(upper).ok()?)
    }

    /// Drops the entry of a key, unless another has taken its place meanwhile.
    fn remove(&self, bucket: &Bucket, hash: u64, key: &[u8], terms: Terms) {
        let mut slots = bucket.write();
        let old = match slots.find(tag(hash), key) {
            Some((place, entry)) if entry.terms == terms => slots.take(place),
            Some(_) | None => None,
        };
        drop(slots);
        self.release(old);
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
            let mut slots = bucket.write();
            let ended = slots.take_ended(now);
            let old = if ended.iter().any(Option::is_some) { None } else { slots.take_coldest(&bucket.used) };
            drop(slots);
            if old.is_some() {
                self.evictions.fetch_add(1, Relaxed);
            }
            ended.into_iter().for_each(|entry| self.release(entry));
            self.release(old);
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

    /// Gives back the room of an entry, and wipes its key. Never under a lock: with the principal go types of the user's own.
    fn release(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.entries.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(entry.size(), Relaxed);
        }
    }
}

impl Bucket {
    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn hit(&self, place: usize) {
        self.hits.fetch_add(1, Relaxed);
        if self.used.load(Relaxed) & bit(place) == 0 {
            self.used.fetch_or(bit(place), Relaxed);
        }
    }
}

impl Slots {
    fn find(&self, tag: u32, key: &[u8]) -> Option<(usize, &Entry)> {
        let entries = self.tags.iter().zip(&self.entries).enumerate();
        entries
            .filter(|(_, (known, _))| **known == tag)
            .find_map(|(place, (_, entry))| entry.as_ref().filter(|entry| entry.is(key)).map(|entry| (place, entry)))
    }

    fn free(&self) -> Option<usize> {
        self.entries.iter().position(Option::is_none)
    }

    /// An entry that was not hit since the last search. If all were, they count as not hit from now on, and there is none.
    fn coldest(&self, used: &AtomicU16) -> Option<usize> {
        let hit = used.load(Relaxed);
        let places = (self.hand..WAYS).chain(0..self.hand);
        let held = |place: &usize| self.entries.get(*place).is_some_and(Option::is_some);
        let found = places.filter(held).find(|place| hit & bit(*place) == 0);
        if found.is_none() {
            used.store(0, Relaxed);
        }
        found
    }

    fn take_coldest(&mut self, used: &AtomicU16) -> Option<Entry> {
        let place = self.coldest(used)?;
        self.take(place)
    }

    fn take_ended(&mut self, now: u64) -> [Option<Entry>; WAYS] {
        self.entries.each_mut().map(|slot| slot.take_if(|entry| now >= entry.terms.until))
    }

    fn put(&mut self, place: usize, tag: u32, entry: Entry) -> Option<Entry> {
        if let Some(known) = self.tags.get_mut(place) {
            *known = tag;
        }
        self.entries.get_mut(place)?.replace(entry)
    }

    fn take(&mut self, place: usize) -> Option<Entry> {
        self.entries.get_mut(place)?.take()
    }
}

/// The lower half; the bucket is chosen by the upper bits.
const fn tag(hash: u64) -> u32 {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn bit(place: usize) -> u16 {
    1 << (place % WAYS)
}

fn add_within(counter: &AtomicUsize, more: usize, most: usize) -> bool {
    let within = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
    counter.fetch_update(Relaxed, Relaxed, within).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::PrincipalKind;

    const ALWAYS: Terms = Terms { from: 0, until: u64::MAX, issuer: 0, generation: 1 };

    fn alice() -> Principal {
        Principal::builder(PrincipalKind::User, "https://id.example.com", "alice", "jwt").build()
    }

    fn key(number: u64) -> Vec<u8> {
        [[b'a'; TAIL].as_slice(), &number.to_le_bytes()].concat()
    }

    /// Spreads numbers over the table as a hash does.
    const fn hash(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn get(table: &Table, number: u64, now: u64) -> bool {
        table.get(hash(number), &key(number), now, |_| Some(1)).is_some()
    }

    fn insert(table: &Table, number: u64, terms: Terms, now: u64) {
        table.insert(hash(number), &key(number), alice(), terms, now);
    }

    #[test]
    fn one_hash_and_two_keys() {
        let table = Table::new(100, 1 << 20);
        for number in 0..10 {
            table.insert(7, &key(number), alice(), ALWAYS, 0);
        }
        for number in 0..20 {
            assert_eq!(table.get(7, &key(number), 0, |_| Some(1)).is_some(), number < 10, "{number}");
        }
        assert!(table.get(7, &[], 0, |_| Some(1)).is_none());
        let longer = [key(1), key(1)].concat();
        assert!(table.get(7, &longer, 0, |_| Some(1)).is_none());
    }

    #[test]
    fn terms_to_the_nanosecond() {
        let terms = Terms { from: 10, until: 20, issuer: 3, generation: 1 };
        let rows = [
            ("clock set back", 9, Some(1), false, true),
            ("begin", 10, Some(1), true, true),
            ("last moment", 19, Some(1), true, true),
            ("end", 20, Some(1), false, false),
            ("other keys", 15, Some(2), false, false),
            ("no such issuer", 15, None, false, false),
        ];
        for (name, now, generation, served, stays) in rows {
            let table = Table::new(1, 1 << 20);
            insert(&table, 1, terms, 15);
            let found = table.get(hash(1), &key(1), now, |issuer| {
                assert_eq!(issuer, 3, "{name}");
                generation
            });
            assert_eq!(found.is_some(), served, "{name}");
            assert_eq!(table.entries() == 1, stays, "{name}");
            assert_eq!(table.bytes() == 0, !stays, "{name}");
        }
    }

    #[test]
    fn bounds_hold_whatever_comes() {
        let one = key(0).len() + alice().size();
        for (entries, bytes, most) in [(1, 1 << 20, 1), (50, 1 << 20, 50), (1000, one * 30, 30), (1000, one, 1)] {
            let table = Table::new(entries, bytes);
            for number in 0..3000 {
                insert(&table, number, ALWAYS, 0);
                assert!(get(&table, number, 0), "{number} is there once it was put there");
                assert!(table.entries() <= most && table.bytes() <= bytes);
            }
            assert_eq!(table.bytes(), table.entries() * one);
            assert_eq!(table.evictions(), 3000 - u64::try_from(table.entries()).unwrap());
        }
        let table = Table::new(1000, one - 1);
        insert(&table, 1, ALWAYS, 0);
        assert!(!get(&table, 1, 0) && table.entries() == 0, "what does not fit alone is not kept");
    }

    #[test]
    fn an_entry_replaces_itself() {
        let table = Table::new(10, 1 << 20);
        for _ in 0..5 {
            insert(&table, 1, ALWAYS, 0);
        }
        assert_eq!((table.entries(), table.evictions()), (1, 0));
    }

    #[test]
    fn what_is_in_use_stays_and_what_has_ended_goes_first() {
        let table = Table::new(400, 1 << 20);
        let in_use = 0..100;
        for number in in_use.clone() {
            insert(&table, number, ALWAYS, 0);
        }
        for number in 1000..4000 {
            insert(&table, number, ALWAYS, 0);
            if number % 50 == 0 {
                in_use.clone().for_each(|number| {
                    get(&table, number, 0);
                });
            }
        }
        let kept = in_use.filter(|number| get(&table, *number, 0)).count();
        assert!(kept >= 95, "{kept} of 100");

        let table = Table::new(16, 1 << 20);
        for number in 0..8 {
            insert(&table, number, Terms { until: 5, ..ALWAYS }, 0);
            insert(&table, number + 100, ALWAYS, 0);
        }
        for number in 200..208 {
            insert(&table, number, ALWAYS, 5);
        }
        assert_eq!((table.entries(), table.evictions()), (16, 0));
    }

    #[test]
    fn threads_agree_on_the_bounds() {
        let one = key(0).len() + alice().size();
        let table = Table::new(64, one * 40);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..2000_u64 {
                        let number = (round * 7 + thread) % 200;
                        if !get(table, number, round) {
                            insert(table, number, Terms { until: round + 50, ..ALWAYS }, round);
                        }
                        assert!(table.entries() <= 64 && table.bytes() <= one * 40);
                    }
                });
            }
        });
        assert_eq!(table.bytes(), table.entries() * one);
    }
}
