//! What policies know of a principal's roles.

use std::sync::OnceLock;

/// The most policies whose roles of a principal are remembered.
const MAX_POLICIES: usize = 4;

/// What roles have of 64 permissions of a policy, one bit each, beside each other: one line of cache for one question.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) grants: u64,
    pub(crate) own: u64,
    pub(crate) denies: u64,
}

impl Cell {
    #[inline]
    pub(crate) fn add(&mut self, other: &Self) {
        self.grants |= other.grants;
        self.own |= other.own;
        self.denies |= other.denies;
    }
}

/// The roles of a principal that a policy knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Where the policy has them.
    pub(crate) positions: Box<[usize]>,
    /// What they have together of each 64 permissions; empty for a policy of so many permissions that it would be large.
    pub(crate) cells: Box<[Cell]>,
}

/// What policies know of the roles, each policy at most once: a list that only grows. A newer policy has another number,
/// unique in the process, and what was remembered for an older one does not count. It is no part of what a principal is: it
/// is never compared or shown, and a copy begins without.
#[derive(Default)]
pub(super) struct KnownRoles(OnceLock<Box<Known>>);

struct Known {
    policy: u64,
    held: Held,
    next: KnownRoles,
}

impl KnownRoles {
    /// What this policy knows, looked up if it is the first time. None for a fifth policy, which looks each time.
    #[inline]
    pub(super) fn get_or_keep(&self, policy: u64, find: impl Fn() -> Held) -> Option<&Held> {
        match self.0.get() {
            Some(known) if known.policy == policy => Some(&known.held),
            Some(_) | None => self.further_on(policy, find),
        }
    }

    #[cold]
    fn further_on(&self, policy: u64, find: impl Fn() -> Held) -> Option<&Held> {
        let mut place = self;
        for _ in 0..MAX_POLICIES {
            let known = place.0.get_or_init(|| Box::new(Known { policy, held: find(), next: Self::default() }));
            if known.policy == policy {
                return Some(&known.held);
            }
            place = &known.next;
        }
        None
    }

    #[cfg(test)]
    pub(super) fn has_any(&self) -> bool {
        self.0.get().is_some()
    }
}

impl Clone for KnownRoles {
    fn clone(&self) -> Self {
        Self::default()
    }
}
