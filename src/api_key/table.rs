//! A hash table for records, in one flat list: a request for a key that was not used for long waits for memory once for the
//! slot, where a table with its marks in a second list makes it wait twice.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;

use crate::api_key::{ApiKeyRecord, Hit, KeyId};

/// 24 bytes, as in the table. A change puts another one in its place.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) record: Arc<ApiKeyRecord>,
    pub(super) id: KeyId,
    pub(super) owner_disabled: bool,
}

impl Entry {
    pub(super) fn new(record: ApiKeyRecord, owner_disabled: bool) -> Self {
        Self { id: *record.id(), record: Arc::new(record), owner_disabled }
    }

    pub(super) fn hit(&self) -> Hit {
        Hit::new(Arc::clone(&self.record)).with_owner_disabled(self.owner_disabled)
    }
}

/// Open addressing, to the next free slot. The length is a power of two, and at most three of four slots are taken, so a search
/// ends. Nothing is removed from the middle: [`retain`](Self::retain) makes the list anew.
#[derive(Default)]
pub(super) struct Table {
    slots: Box<[Option<Entry>]>,
    taken: usize,
    hasher: RandomState,
}

impl Table {
    pub(super) const fn len(&self) -> usize {
        self.taken
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.slots.iter_mut().flatten()
    }

    #[inline]
    pub(super) fn get(&self, id: &KeyId) -> Option<&Entry> {
        let (before, after) = self.slots.split_at_checked(self.home(id))?;
        for slot in after.iter().chain(before) {
            match slot {
                Some(entry) if entry.id == *id => return Some(entry),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Puts the entry in the place of the one that has its id, and returns that one.
    pub(super) fn replace(&mut self, entry: Entry) -> Option<Entry> {
        if self.taken >= self.slots.len() / 4 * 3 {
            self.rebuild(self.slots.len().saturating_mul(2).max(8));
        }
        let home = self.home(&entry.id);
        let (before, after) = self.slots.split_at_mut_checked(home)?;
        let mut places = after.iter_mut().chain(before);
        let place = places.find(|slot| slot.as_ref().is_none_or(|known| known.id == entry.id))?;
        let old = place.replace(entry);
        self.taken = self.taken.saturating_add(usize::from(old.is_none()));
        old
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Entry) -> bool) {
        for slot in &mut self.slots {
            if slot.take_if(|entry| !stays(entry)).is_some() {
                self.taken = self.taken.saturating_sub(1);
            }
        }
        // Gaps would hide what stands behind them.
        self.rebuild(self.taken.saturating_mul(2).next_power_of_two().max(8));
    }

    fn home(&self, id: &KeyId) -> usize {
        // Any bits will do: the hash is well mixed.
        let hash = usize::try_from(self.hasher.hash_one(id) & u64::from(u32::MAX)).unwrap_or_default();
        hash & self.slots.len().saturating_sub(1)
    }

    fn rebuild(&mut self, len: usize) {
        let empty = std::iter::repeat_with(|| None).take(len).collect();
        let old = std::mem::replace(&mut self.slots, empty);
        self.taken = 0;
        for entry in old.into_iter().flatten() {
            self.replace(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::api_key::{KeyHash, RecordFields};

    #[test]
    fn an_entry_and_its_slot_are_small() {
        assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>()), (24, 24));
    }

    fn entry(id: u8, mark: bool) -> Entry {
        let fields = RecordFields::new(KeyId::from_bytes([id; 10]), KeyHash::from_bytes([0; 32]), "x", 0, None);
        Entry::new(fields.check().unwrap(), mark)
    }

    proptest! {
        /// It does what a map of the standard library does.
        #[test]
        fn as_a_map(steps in proptest::collection::vec((0..3_u8, any::<u8>(), any::<bool>()), 0..400)) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (step, id, mark) in steps {
                match step {
                    0 | 1 => {
                        let old = table.replace(entry(id, mark)).map(|entry| entry.owner_disabled);
                        prop_assert_eq!(old, model.insert(KeyId::from_bytes([id; 10]), mark));
                    }
                    _ => {
                        table.retain(|entry| entry.owner_disabled || entry.id.as_bytes()[0] % 3 != id % 3);
                        model.retain(|key, marked| *marked || key.as_bytes()[0] % 3 != id % 3);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for id in 0..=u8::MAX {
                let key = KeyId::from_bytes([id; 10]);
                prop_assert_eq!(table.get(&key).map(|entry| entry.owner_disabled), model.get(&key).copied());
            }
            let mut all: Vec<KeyId> = table.iter().map(|entry| entry.id).collect();
            all.sort_unstable();
            prop_assert!(all.iter().eq(model.keys()));
        }
    }
}
