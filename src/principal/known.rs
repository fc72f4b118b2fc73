//! What policies know of a principal's roles.

use std::sync::OnceLock;

/// The most policies whose positions of roles are remembered.
const MAX_POLICIES: usize = 4;

/// Where policies have the roles that they know, each policy at most once: a list that only grows. A newer policy has another
/// number, unique in the process, and what was remembered for an older one does not count. It is no part of what a principal
/// is: it is never compared or shown, and a copy begins without.
#[derive(Default)]
pub(super) struct KnownRoles(OnceLock<Box<Known>>);

struct Known {
    policy: u64,
    positions: Box<[usize]>,
    next: KnownRoles,
}

impl KnownRoles {
    /// The positions for this policy, looked up if it is the first time. None for a fifth policy, which looks each time.
    #[inline]
    pub(super) fn get_or_keep(&self, policy: u64, find: impl Fn() -> Box<[usize]>) -> Option<&[usize]> {
        match self.0.get() {
            Some(known) if known.policy == policy => Some(&known.positions),
            Some(_) | None => self.further_on(policy, find),
        }
    }

    #[cold]
    fn further_on(&self, policy: u64, find: impl Fn() -> Box<[usize]>) -> Option<&[usize]> {
        let mut place = self;
        for _ in 0..MAX_POLICIES {
            let known = place.0.get_or_init(|| Box::new(Known { policy, positions: find(), next: Self::default() }));
            if known.policy == policy {
                return Some(&known.positions);
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
