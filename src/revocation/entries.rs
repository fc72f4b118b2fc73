//! What a state knows, by the hashes of what was revoked, and how it makes room.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Tokens issued after this second are not met.
    pub(super) issued_until: u64,
    /// The second from which nobody needs it.
    pub(super) until: u64,
}

pub(super) struct Entries {
    known: HashMap<u64, Entry, BuildHasherDefault<Hashed>>,
    room: usize,
    /// None of them ends before this second.
    first_end: u64,
}

/// The keys are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Entries {
    pub(super) fn with_room(room: usize) -> Self {
        Self { known: HashMap::default(), room, first_end: u64::MAX }
    }

    pub(super) fn get(&self, hash: u64) -> Option<Entry> {
        self.known.get(&hash).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Adds all, or none where there is no room for all that has not ended.
    ///
    /// What has ended is added as well while there is room: the clock may be ahead, and nobody tells it twice. To one that has ended
    /// nothing is added: what it met would be met again.
    pub(super) fn add(&mut self, mut new: Vec<(u64, Entry)>, now: u64) -> Result<(), Full> {
        new.sort_unstable_by_key(|(hash, _)| *hash);
        if !self.fits(&new) {
            new.retain(|(_, entry)| now < entry.until);
            let fits = self.fits(&new) || self.forget(now) && self.fits(&new);
            if !fits {
                return Err(Full { room: self.room });
            }
        }
        for (hash, new) in new {
            let entry = self.known.entry(hash).or_insert(new);
            if entry.until <= now {
                *entry = new;
            }
            entry.issued_until = entry.issued_until.max(new.issued_until);
            entry.until = entry.until.max(new.until);
            self.first_end = self.first_end.min(entry.until);
        }
        Ok(())
    }

    /// Whether those of these that are not known, sorted by their hashes, find room.
    fn fits(&self, new: &[(u64, Entry)]) -> bool {
        let mut last = None;
        let lacks = |hash: &u64| last.replace(*hash) != Some(*hash) && !self.known.contains_key(hash);
        let lacking = new.iter().map(|(hash, _)| hash).copied().filter(lacks).count();
        self.known.len().saturating_add(lacking) <= self.room
    }

    /// Drops what has ended. No if nothing can have: then none is looked at, for a full state is asked for room again and again.
    fn forget(&mut self, now: u64) -> bool {
        if now < self.first_end {
            return false;
        }
        let mut first_end = u64::MAX;
        self.known.retain(|_, entry| {
            let stays = now < entry.until;
            if stays {
                first_end = first_end.min(entry.until);
            }
            stays
        });
        self.first_end = first_end;
        true
    }
}

/// There is room for so many and no more.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) room: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn until(until: u64) -> Entry {
        Entry { issued_until: u64::MAX, until }
    }

    #[test]
    fn a_full_one_is_looked_through_only_when_something_has_ended() {
        let mut entries = Entries::with_room(3);
        entries.add(vec![(1, until(10)), (2, until(20)), (3, until(30))], 0).unwrap();
        assert!(entries.add(vec![(4, until(40))], 9).is_err());
        assert!(!entries.forget(9), "in vain");
        assert!(entries.add(vec![(4, until(40)), (5, until(50))], 10).is_err(), "there is room for one");
        assert_eq!(entries.len(), 2, "which has ended is gone");
        assert!(!entries.forget(19), "the first of the rest ends at 20");
        // Longer for one, and the next end is that of another.
        entries.add(vec![(2, until(60)), (2, until(5))], 19).unwrap();
        assert!(entries.forget(20) && !entries.forget(29));
        entries.add(vec![(6, until(25))], 24).unwrap();
        assert!(entries.forget(25) && entries.get(6).is_none());
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn one_that_has_ended_is_replaced() {
        let mut entries = Entries::with_room(2);
        let issued_until_5 = Entry { issued_until: 5, until: 100 };
        for (now, issued_until) in [(9, u64::MAX), (10, 5)] {
            entries.add(vec![(now, until(10))], 0).unwrap();
            entries.add(vec![(now, issued_until_5)], now).unwrap();
            let entry = entries.get(now).unwrap();
            assert_eq!((entry.issued_until, entry.until), (issued_until, 100), "at {now}");
        }
    }
}
