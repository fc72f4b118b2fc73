use std::{collections::HashMap, sync::Arc};

use foldhash::fast::FixedState;

use crate::{policy::Basis, principal::Principal};

/// Positions by name. The names come from the policy alone, so that no client chooses what collides.
pub(super) type Positions = HashMap<Arc<str>, usize, FixedState>;

/// A policy as it is asked: inheritance is worked out, every answer is a bit.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) version: Arc<str>,
    pub(super) denials: Denials,
    /// What an allow by a permission of the credential's own rests on.
    pub(super) credential_basis: Arc<Basis>,
    pub(super) permissions: Box<[Arc<str>]>,
    pub(super) permission_positions: Positions,
    pub(super) roles: Box<[RoleEntry]>,
    pub(super) role_positions: Positions,
}

/// What denials rest on: made once, so that a denial does not allocate either.
#[derive(Debug)]
pub(super) struct Denials {
    pub(super) unknown_action: Arc<Basis>,
    pub(super) other_tenant: Arc<Basis>,
    pub(super) own_things_only: Arc<Basis>,
    pub(super) not_granted: Arc<Basis>,
}

impl Denials {
    pub(super) fn new(version: &Arc<str>) -> Self {
        let basis = |reason: &'static str| Arc::new(Basis::new().version(Arc::clone(version)).reason(reason));
        Self {
            unknown_action: basis("the policy does not know this action"),
            other_tenant: basis("the thing belongs to another tenant"),
            own_things_only: basis("granted on the principal's own things only"),
            not_granted: basis("no role grants it"),
        }
    }
}

#[derive(Debug)]
pub(super) struct RoleEntry {
    pub(super) name: Arc<str>,
    /// What an allow rests on.
    pub(super) basis: Arc<Basis>,
    pub(super) reach: Reach,
}

/// What a role has, with everything that it inherits.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) grants: Bits,
    pub(super) grants_own: Bits,
    /// The roles that it inherits, and itself.
    pub(super) roles: Bits,
}

impl Reach {
    pub(super) fn none(permissions: usize, roles: usize) -> Self {
        Self { grants: Bits::none(permissions), grants_own: Bits::none(permissions), roles: Bits::none(roles) }
    }

    pub(super) fn merge(&mut self, junior: &Self) {
        self.grants.merge(&junior.grants);
        self.grants_own.merge(&junior.grants_own);
        self.roles.merge(&junior.roles);
    }
}

impl Table {
    /// The principal's roles that the policy knows; the others grant nothing.
    pub(super) fn roles_of<'t>(&'t self, principal: &Principal) -> impl Iterator<Item = &'t RoleEntry> {
        principal.roles().iter().filter_map(|name| self.roles.get(*self.role_positions.get(&**name)?))
    }
}

/// A set of positions, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    pub(super) fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)].into())
    }

    pub(super) fn set(&mut self, position: usize) {
        if let Some(word) = self.0.get_mut(position / 64) {
            *word |= 1 << (position % 64);
        }
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 64).is_some_and(|word| word & (1 << (position % 64)) != 0)
    }

    fn merge(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_at_the_edges_of_words() {
        let mut bits = Bits::none(130);
        for position in [0, 63, 64, 127, 128, 129] {
            assert!(!bits.has(position), "{position}");
            bits.set(position);
            assert!(bits.has(position), "{position}");
        }
        assert!(!bits.has(1) && !bits.has(65) && !bits.has(1_000));
        let mut merged = Bits::none(130);
        merged.set(1);
        merged.merge(&bits);
        assert!(merged.has(1) && merged.has(129) && !merged.has(2));
    }
}
