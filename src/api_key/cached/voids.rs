//! What is void: counted, so that a change costs the same however much is remembered, and what is loaded meanwhile is void too.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use foldhash::quality::RandomState;

use crate::api_key::{KeyChange, KeyId, Owner};

/// Keys and owners share slots: a change voids one in 4 096 others too, which costs these a look-up.
const SLOTS: usize = 4_096;

/// Where an owner's changes are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnerSlot(u16);

/// A change takes the next number and leaves it in its slot. What carries a smaller one, taken before it was loaded, is void:
/// whether it was remembered then, or is only loaded yet.
pub(super) struct Voids {
    last: AtomicU64,
    everything: AtomicU64,
    keys: Box<[AtomicU64]>,
    owners: Box<[AtomicU64]>,
    /// Whether the store has stopped to tell.
    lost: AtomicBool,
    seed: RandomState,
}

impl Voids {
    pub(super) fn new() -> Self {
        let slots = || std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self {
            last: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            keys: slots(),
            owners: slots(),
            lost: AtomicBool::new(false),
            seed: RandomState::default(),
        }
    }

    /// The number to take before loading.
    pub(super) fn now(&self) -> u64 {
        self.last.load(SeqCst)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(SeqCst)
    }

    pub(super) fn owner(&self, owner: &Owner) -> OwnerSlot {
        let slot = self.seed.hash_one(owner) % SLOTS as u64;
        OwnerSlot(u16::try_from(slot).unwrap_or(0))
    }

    /// Whether what was loaded under this number still counts.
    pub(super) fn hold(&self, number: u64, id: &KeyId, owner: Option<OwnerSlot>) -> bool {
        let not_after = |slot: Option<&AtomicU64>| slot.is_some_and(|slot| slot.load(SeqCst) <= number);
        not_after(Some(&self.everything))
            && not_after(self.keys.get(key_slot(id)))
            && owner.is_none_or(|OwnerSlot(slot)| not_after(self.owners.get(usize::from(slot))))
    }

    pub(super) fn change(&self, change: &KeyChange) {
        let number = self.last.fetch_add(1, SeqCst).saturating_add(1);
        let slot = match change {
            KeyChange::Key(id) => self.keys.get(key_slot(id)),
            KeyChange::Owner(owner) => {
                let OwnerSlot(slot) = self.owner(owner);
                self.owners.get(usize::from(slot))
            }
            KeyChange::Everything => Some(&self.everything),
            KeyChange::Lost => {
                self.lost.store(true, SeqCst);
                return;
            }
        };
        if let Some(slot) = slot {
            slot.fetch_max(number, SeqCst);
        }
        if *change == KeyChange::Everything {
            self.lost.store(false, SeqCst); // last: what was remembered is void by now
        }
    }

    /// As [`KeyChange::Everything`], said by somebody else than the store.
    pub(super) fn everything(&self) {
        let number = self.last.fetch_add(1, SeqCst).saturating_add(1);
        self.everything.fetch_max(number, SeqCst);
    }
}

/// Ids are random, so their bits are spread already. Only changes write, and nobody else's ids change.
fn key_slot(id: &KeyId) -> usize {
    let [.., high, low] = *id.as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(last: u8) -> KeyId {
        KeyId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    }

    #[test]
    fn a_change_voids_what_was_loaded_before_it() {
        let voids = Voids::new();
        let (mine, other) = (Owner::new("billing").unwrap(), Owner::new("shipping").unwrap());
        let (slot, other_slot) = (Some(voids.owner(&mine)), Some(voids.owner(&other)));
        for (name, change, key, owner, neither) in [
            ("the key", KeyChange::Key(id(1)), false, true, true),
            ("the owner", KeyChange::Owner(mine), true, false, true),
            ("everything", KeyChange::Everything, false, false, false),
            ("lost", KeyChange::Lost, true, true, true),
        ] {
            let before = voids.now();
            assert!(voids.hold(before, &id(1), slot));
            voids.change(&change);
            assert_eq!(voids.hold(before, &id(1), other_slot), key, "{name}");
            assert_eq!(voids.hold(before, &id(2), slot), owner, "{name}");
            assert_eq!(voids.hold(before, &id(2), other_slot), neither, "{name}");
            let after = voids.now();
            assert!(voids.hold(after, &id(1), slot) && voids.hold(after, &id(2), other_slot), "{name}");
        }
        assert!(voids.is_lost());
        voids.everything();
        assert!(voids.is_lost(), "only the store says that it tells again");
        voids.change(&KeyChange::Everything);
        assert!(!voids.is_lost());
    }
}
