use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::principal::Principal;

/// How many entries a bucket has room for.
const WAYS: usize = 16;
/// How many there are meant to be in one. An entry goes into the emptier of two, so that hardly any bucket gets more.
const ENTRIES_PER_BUCKET: usize = 12;

/// How much of the end of a token is hashed: the last bytes of its signature, which nobody can choose.
pub(super) const TAIL: usize = 32;

/// When, and by whose keys, a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jwt) struct Terms {
    /// The first nanosecond since the Unix epoch at which it is.
    from: u64,
    /// The first at which it is not any more.
    until: u64,
    /// The place of the issuer among the authenticator's.
    issuer: u32,
    /// Which keys of the issuer verified it.
    generation: u32,
}

impl Terms {
    /// None if a number is too large to be kept, and then the token is not either: after 2^32 changes of keys.
    pub(in crate::jwt) fn new(from: u64, until: u64, issuer: usize, generation: u64) -> Option<Self> {
        Some(Self { from, until, issuer: issuer.try_into().ok()?, generation: generation.try_into().ok()? })
    }

    fn are_of(&self, generation: impl FnOnce(usize) -> Option<u64>) -> bool {
        usize::try_from(self.issuer).ok().and_then(generation) == Some(u64::from(self.generation))
    }
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

/// A table of fixed size. A hit takes no lock but that of its own entry, which readers share. It reads four places in memory:
/// the head of the bucket, the entry, the token, the principal.
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
struct Bucket {
    head: Head,
    slots: [Slot; WAYS],
}

/// What is looked at first, in one line of the processor's cache.
#[derive(Default)]
#[repr(align(64))]
struct Head {
    /// A part of each entry's hash, so that only one entry need be looked at; zero where there is none. Changed under the
    /// writers' lock. Only the entry itself tells whether it is the one.
    tags: [AtomicU16; WAYS],
    hits: AtomicU64,
    /// A bit for each entry that was hit since room was last sought.
    used: AtomicU16,
    /// Held by who changes entries: where the search for an entry to evict begins.
    writers: Mutex<u8>,
}

#[derive(Default)]
#[repr(align(64))]
struct Slot(RwLock<Option<Entry>>);

/// What a look at an entry tells.
enum Look {
    Other,
    NotYet,
    Ended(Terms),
    Good(Principal),
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
        generation: impl Fn(usize) -> Option<u64>,
    ) -> Option<Principal> {
        for bucket in self.homes(hash) {
            for place in bucket.head.tagged(tag(hash)) {
                match bucket.slots.get(place)?.look(key, now, &generation) {
                    Look::Other => {}
                    Look::NotYet => return None,
                    Look::Ended(terms) => {
                        let writers = bucket.head.lock();
                        let ended = bucket.take_if(place, |entry| entry.terms == terms && entry.is(key));
                        drop(writers);
                        self.release(ended);
                        return None;
                    }
                    Look::Good(principal) => {
                        bucket.head.hit(place);
                        return Some(principal);
                    }
                }
            }
        }
        None
    }

    /// Keeps an entry, if there is room for it at all. Two threads that bring one token at the same moment may each find
    /// another place for it; then it is there twice, until one is evicted.
    pub(super) fn insert(&self, hash: u64, key: &[u8], principal: Principal, terms: Terms, now: u64) {
        let entry = Entry { key: Zeroizing::new(key.into()), principal, terms };
        if !self.make_room(entry.size(), now) {
            return;
        }
        let known = self.homes(hash).find(|bucket| bucket.place_of(hash, key).is_some());
        let emptier = || self.homes(hash).min_by_key(|bucket| bucket.head.count());
        let Some(bucket) = known.or_else(emptier) else { return };
        let mut hand = bucket.head.lock();
        let mut ended = [const { None }; WAYS];
        let place = bucket.place_of(hash, key).or_else(|| bucket.head.free());
        let place = place.unwrap_or_else(|| {
            ended = bucket.take_ended(now);
            bucket.head.free().unwrap_or_else(|| {
                self.evictions.fetch_add(1, Relaxed);
                let place = bucket.head.coldest(*hand).unwrap_or(usize::from(*hand));
                *hand = u8::try_from(place.saturating_add(1) % WAYS).unwrap_or(0);
                place
            })
        });
        let old = bucket.put(place, tag(hash), entry);
        drop(hand);
        ended.into_iter().chain([old]).for_each(|entry| self.release(entry));
    }

    #[cfg(test)]
    pub(super) fn bytes_of_table(max_entries: usize) -> usize {
        max_entries.div_ceil(ENTRIES_PER_BUCKET) * size_of::<Bucket>()
    }

    pub(super) fn hits(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(bucket.head.hits.load(Relaxed)))
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
            let hand = bucket.head.lock();
            let ended = bucket.take_ended(now);
            let coldest = if ended.iter().any(Option::is_some) { None } else { bucket.head.coldest(*hand) };
            let old = coldest.and_then(|place| bucket.take_if(place, |_| true));
            drop(hand);
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

    /// Gives back the room of an entry, and wipes its key. Never under a lock: with the principal go types of the user's own.
    fn release(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.entries.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(entry.size(), Relaxed);
        }
    }
}

/// What changes entries; all of it under the writers' lock.
impl Bucket {
    fn place_of(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.head.tagged(tag(hash)).find(|place| self.slots.get(*place).is_some_and(|slot| slot.holds(key)))
    }

    fn put(&self, place: usize, tag: u16, entry: Entry) -> Option<Entry> {
        self.head.used.fetch_and(!bit(place), Relaxed);
        self.head.set_tag(place, tag);
        self.slots.get(place)?.with(|slot| slot.replace(entry))
    }

    fn take_if(&self, place: usize, wanted: impl FnOnce(&mut Entry) -> bool) -> Option<Entry> {
        let taken = self.slots.get(place)?.with(|slot| slot.take_if(wanted));
        if taken.is_some() {
            self.head.set_tag(place, 0);
        }
        taken
    }

    fn take_ended(&self, now: u64) -> [Option<Entry>; WAYS] {
        std::array::from_fn(|place| self.take_if(place, |entry| now >= entry.terms.until))
    }
}

impl Head {
    fn tagged(&self, tag: u16) -> impl Iterator<Item = usize> {
        let tags = self.tags.iter().enumerate();
        tags.filter(move |(_, known)| known.load(Relaxed) == tag).map(|(place, _)| place)
    }

    fn set_tag(&self, place: usize, tag: u16) {
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
        self.hits.fetch_add(1, Relaxed);
        if self.used.load(Relaxed) & bit(place) == 0 {
            self.used.fetch_or(bit(place), Relaxed);
        }
    }

    /// An entry that was not hit since the last search. If all were, they count as not hit from now on, and there is none.
    fn coldest(&self, hand: u8) -> Option<usize> {
        let hit = self.used.load(Relaxed);
        let hand = usize::from(hand);
        let held = |place: &usize| self.tags.get(*place).is_some_and(|tag| tag.load(Relaxed) != 0);
        let found = (hand..WAYS).chain(0..hand).filter(held).find(|place| hit & bit(*place) == 0);
        if found.is_none() {
            self.used.store(0, Relaxed);
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, u8> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn look(&self, key: &[u8], now: u64, generation: impl FnOnce(usize) -> Option<u64>) -> Look {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(entry) if entry.is(key) => {
                let terms = entry.terms;
                if now < terms.from {
                    Look::NotYet
                } else if now < terms.until && terms.are_of(generation) {
                    Look::Good(entry.principal.clone())
                } else {
                    Look::Ended(terms)
                }
            }
            Some(_) | None => Look::Other,
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|entry| entry.is(key))
    }

    fn with<R>(&self, change: impl FnOnce(&mut Option<Entry>) -> R) -> R {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The lowest bits; the buckets are chosen by others.
const fn tag(hash: u64) -> u16 {
    let [a, b, ..] = hash.to_le_bytes();
    match u16::from_le_bytes([a, b]) {
        0 => 1,
        tag => tag,
    }
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

    #[test]
    fn each_place_is_one_line_of_the_cache() {
        assert_eq!((size_of::<Head>(), size_of::<Slot>()), (64, 64));
    }

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
    fn a_table_takes_as_many_as_it_is_meant_to() {
        let table = Table::new(6000, 1 << 30);
        (0..6000).for_each(|number| insert(&table, number, ALWAYS, 0));
        assert_eq!((table.entries(), table.evictions()), (6000, 0));
        assert!((0..6000).all(|number| get(&table, number, 0)));
        assert_eq!(table.hits(), 6000);
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
