use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;

use crate::{
    policy::{Basis, Decision, Resource, Verdict},
    principal::Principal,
};

/// Positions by name. The names come from the policy alone, so that no client chooses what collides.
pub(super) type Positions = HashMap<Arc<str>, usize, FixedState>;

/// A policy as it is asked: inheritance and wildcards are worked out, every answer is a bit.
#[derive(Debug)]
pub(super) struct Table {
    /// Unique in the process: what principals remember of a table goes by it.
    pub(super) id: u64,
    pub(super) version: Arc<str>,
    pub(super) denials: Denials,
    /// What an allow by a permission of the credential's own rests on.
    pub(super) credential_basis: Arc<Basis>,
    pub(super) permissions: Box<[Arc<str>]>,
    pub(super) permission_positions: Positions,
    pub(super) roles: Box<[RoleEntry]>,
    pub(super) role_positions: Positions,
    pub(super) exclusive: Box<[Exclusive]>,
    pub(super) assignments: Assignments,
}

/// What denials rest on: made once, so that a denial does not allocate either.
#[derive(Debug)]
pub(super) struct Denials {
    pub(super) unknown_action: Arc<Basis>,
    pub(super) gone: Arc<Basis>,
    pub(super) other_tenant: Arc<Basis>,
    pub(super) own_things_only: Arc<Basis>,
    pub(super) not_granted: Arc<Basis>,
    pub(super) not_held: Arc<Basis>,
}

impl Denials {
    pub(super) fn new(version: &Arc<str>) -> Self {
        let basis = |reason: &'static str| Arc::new(Basis::new().version(Arc::clone(version)).reason(reason));
        Self {
            unknown_action: basis("the policy does not know this action"),
            gone: basis("the policy was reloaded and does not know it any more"),
            other_tenant: basis("the thing belongs to another tenant"),
            own_things_only: basis("granted on the principal's own things only"),
            not_granted: basis("no role grants it"),
            not_held: basis("no role of the principal is or inherits it"),
        }
    }
}

#[derive(Debug)]
pub(super) struct RoleEntry {
    pub(super) name: Arc<str>,
    /// What an allow rests on.
    pub(super) allow: Arc<Basis>,
    /// What a denial by a rule of this role rests on.
    pub(super) deny: Arc<Basis>,
    pub(super) reach: Reach,
    pub(super) written: Written,
}

/// A role as the document has it, for explanations.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) inherits: Vec<usize>,
    pub(super) grants: Vec<Arc<str>>,
    pub(super) grants_own: Vec<Arc<str>>,
    pub(super) denies: Vec<Arc<str>>,
}

/// What a role has, with everything that it inherits.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) cells: Box<[Cell]>,
    /// The roles that it inherits, and itself.
    pub(super) roles: Bits,
}

/// 64 permissions of a role, one bit each, beside each other: one line of cache for one question.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    pub(super) grants: u64,
    pub(super) own: u64,
    pub(super) denies: u64,
}

impl Reach {
    pub(super) fn none(permissions: usize, roles: usize) -> Self {
        Self { cells: vec![Cell::default(); permissions.div_ceil(64)].into(), roles: Bits::none(roles) }
    }

    pub(super) fn merge(&mut self, junior: &Self) {
        for (cell, more) in self.cells.iter_mut().zip(&junior.cells) {
            cell.grants |= more.grants;
            cell.own |= more.own;
            cell.denies |= more.denies;
        }
        self.roles.merge(&junior.roles);
    }

    /// The 64 permissions that this one is among, and its bit.
    pub(super) fn cell_mut(&mut self, permission: usize) -> Option<(&mut Cell, u64)> {
        self.cells.get_mut(permission / 64).map(|cell| (cell, 1 << (permission % 64)))
    }

    fn cell(&self, permission: usize) -> Cell {
        let bit = 1 << (permission % 64);
        self.cells.get(permission / 64).map_or(Cell::default(), |cell| Cell {
            grants: cell.grants & bit,
            own: cell.own & bit,
            denies: cell.denies & bit,
        })
    }

    pub(super) fn grants(&self, permission: usize) -> bool {
        self.cell(permission).grants != 0
    }

    pub(super) fn grants_own(&self, permission: usize) -> bool {
        self.cell(permission).own != 0
    }

    pub(super) fn denies(&self, permission: usize) -> bool {
        self.cell(permission).denies != 0
    }
}

/// Roles of which nobody may hold more than some at once.
#[derive(Debug)]
pub(super) struct Exclusive {
    pub(super) name: Arc<str>,
    pub(super) roles: Box<[usize]>,
    pub(super) at_most: usize,
    /// What a refusal rests on.
    pub(super) basis: Arc<Basis>,
}

impl Exclusive {
    /// Whether roles with these bits are too many.
    pub(super) fn is_broken_by<'a>(&self, held: impl Iterator<Item = &'a Bits> + Clone) -> bool {
        let counted = self.roles.iter().filter(|role| held.clone().any(|bits| bits.has(**role))).count();
        counted > self.at_most
    }
}

/// Who has which roles by the policy itself: by issuer, then by subject.
#[derive(Debug, Default)]
pub(super) struct Assignments(HashMap<Box<str>, BySubject, FixedState>);

type BySubject = HashMap<Box<str>, Vec<Assignment>, FixedState>;

/// Roles of one subject, in one tenant or in all of them.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) tenant: Option<Box<str>>,
    pub(super) roles: Vec<usize>,
}

impl Assignments {
    pub(super) fn add(&mut self, issuer: &str, subject: &str, assignment: Assignment) {
        self.0.entry(issuer.into()).or_default().entry(subject.into()).or_default().push(assignment);
    }

    /// The roles of a principal in a tenant.
    fn roles_of(&self, principal: &Principal, tenant: Option<&str>) -> impl Iterator<Item = &usize> {
        let assigned = self.of(principal.issuer(), principal.subject()).iter();
        assigned.filter(move |assigned| assigned.holds_in(tenant)).flat_map(|assigned| &assigned.roles)
    }

    pub(super) fn of(&self, issuer: &str, subject: &str) -> &[Assignment] {
        self.0.get(issuer).and_then(|subjects| subjects.get(subject)).map_or(&[], Vec::as_slice)
    }
}

impl Assignment {
    pub(super) fn holds_in(&self, tenant: Option<&str>) -> bool {
        match &self.tenant {
            None => true,
            Some(own) => tenant == Some(&**own),
        }
    }
}

/// What a question says of the thing.
#[derive(Clone, Copy)]
pub(super) struct Thing<'a> {
    pub(super) resource: Option<&'a Resource>,
    /// The handler will ask whose it is: what is granted on owned things passes.
    pub(super) passes_owners: bool,
}

impl<'a> Thing<'a> {
    fn tenant(self) -> Option<&'a str> {
        self.resource.and_then(Resource::tenant)
    }

    fn is_owned_by(self, principal: &Principal) -> bool {
        self.passes_owners || self.resource.is_some_and(|resource| resource.is_owned_by(principal))
    }
}

/// A decision and what it rests on, borrowed: to ask costs no reference count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome<'t> {
    pub(super) decision: Decision,
    pub(super) basis: &'t Arc<Basis>,
}

impl<'t> Outcome<'t> {
    const fn allow(basis: &'t Arc<Basis>) -> Self {
        Self { decision: Decision::Allow, basis }
    }

    pub(super) const fn deny(basis: &'t Arc<Basis>) -> Self {
        Self { decision: Decision::Deny, basis }
    }

    pub(super) fn verdict(self) -> Verdict {
        Verdict::from_basis(self.decision, Arc::clone(self.basis))
    }
}

impl Table {
    pub(super) fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Shows the roles that a principal has in a tenant and the policy knows: those of the credential, then those that the
    /// policy assigns. Others grant nothing.
    #[inline]
    pub(super) fn each_role<'t>(
        &'t self,
        principal: &Principal,
        tenant: Option<&str>,
        mut see: impl FnMut(&'t RoleEntry),
    ) {
        // Plain loops: chained iterators take longer here.
        let find = |name: &str| self.role_positions.get(name).copied();
        if let Some(known) = principal.known_roles(self.id, find) {
            for position in known {
                if let Some(role) = self.roles.get(*position) {
                    see(role);
                }
            }
        } else {
            for name in principal.roles() {
                if let Some(role) = find(name).and_then(|position| self.roles.get(position)) {
                    see(role);
                }
            }
        }
        if !self.assignments.0.is_empty() {
            self.assignments.roles_of(principal, tenant).filter_map(|role| self.roles.get(*role)).for_each(see);
        }
    }

    /// The same as a list.
    pub(super) fn roles_of(&self, principal: &Principal, tenant: Option<&str>) -> Vec<&RoleEntry> {
        let mut roles = Vec::new();
        self.each_role(principal, tenant, |role| roles.push(role));
        roles
    }

    /// The tenant that a question is about: the thing's, or else the principal's.
    pub(super) fn tenant_of<'t>(principal: &'t Principal, resource: Option<&'t Resource>) -> Option<&'t str> {
        resource.and_then(Resource::tenant).or_else(|| principal.tenant())
    }

    /// Decides. What refuses comes first: another tenant, roles that exclude each other, denying rules.
    pub(super) fn decide(
        &self,
        principal: &Principal,
        permission: usize,
        thing: Thing<'_>,
        trust_credential: bool,
    ) -> Outcome<'_> {
        let tenant = match (thing.tenant(), principal.tenant()) {
            (Some(owning), Some(asking)) if owning != asking => return Outcome::deny(&self.denials.other_tenant),
            (owning, asking) => owning.or(asking),
        };
        if let Some(broken) = self.broken(principal, tenant) {
            return Outcome::deny(broken);
        }
        let (mut denying, mut granting, mut granting_own) = (None, None, None);
        self.each_role(principal, tenant, |role| {
            let cell = role.reach.cell(permission);
            if cell.denies != 0 {
                denying = denying.or(Some(&role.deny));
            }
            if cell.grants != 0 {
                granting = granting.or(Some(&role.allow));
            }
            if cell.own != 0 {
                granting_own = granting_own.or(Some(&role.allow));
            }
        });
        if let Some(basis) = denying {
            return Outcome::deny(basis);
        }
        if let Some(basis) = granting {
            return Outcome::allow(basis);
        }
        if trust_credential
            && let Some(name) = self.permissions.get(permission)
            && principal.permissions().iter().any(|held| **held == **name)
        {
            return Outcome::allow(&self.credential_basis);
        }
        match granting_own {
            Some(basis) if thing.is_owned_by(principal) => Outcome::allow(basis),
            Some(_) => Outcome::deny(&self.denials.own_things_only),
            None => Outcome::deny(&self.denials.not_granted),
        }
    }

    /// Whether the principal has a role, or one that inherits it.
    pub(super) fn holds(&self, principal: &Principal, role: usize) -> Outcome<'_> {
        let tenant = principal.tenant();
        if let Some(broken) = self.broken(principal, tenant) {
            return Outcome::deny(broken);
        }
        let mut found = None;
        self.each_role(principal, tenant, |held| {
            if found.is_none() && held.reach.roles.has(role) {
                found = Some(&held.allow);
            }
        });
        found.map_or(Outcome::deny(&self.denials.not_held), Outcome::allow)
    }

    /// The first set of exclusive roles of which the principal holds too many.
    #[inline]
    fn broken(&self, principal: &Principal, tenant: Option<&str>) -> Option<&Arc<Basis>> {
        if self.exclusive.is_empty() {
            return None;
        }
        self.first_broken(principal, tenant)
    }

    fn first_broken(&self, principal: &Principal, tenant: Option<&str>) -> Option<&Arc<Basis>> {
        let is_broken = |set: &&Exclusive| {
            let has = |member: &&usize| {
                let mut has = false;
                self.each_role(principal, tenant, |role| has |= role.reach.roles.has(**member));
                has
            };
            set.roles.iter().filter(has).count() > set.at_most
        };
        self.exclusive.iter().find(is_broken).map(|set| &set.basis)
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

    #[test]
    fn cells_at_the_edges_of_words() {
        let mut reach = Reach::none(130, 1);
        for permission in [0, 63, 64, 129] {
            let (cell, bit) = reach.cell_mut(permission).unwrap();
            cell.grants |= bit;
            assert!(reach.grants(permission) && !reach.grants_own(permission) && !reach.denies(permission));
        }
        assert!(!reach.grants(1) && !reach.grants(128) && !reach.grants(1_000));
        assert!(reach.cell_mut(1_000).is_none());
    }
}
