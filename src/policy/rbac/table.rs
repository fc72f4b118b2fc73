use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;

use crate::{
    policy::{
        Basis, Decision, Resource, Verdict,
        rbac::{
            assignments::Assignments,
            reach::{Bits, Reach, merge},
        },
    },
    principal::{Cell, Held, Principal},
};

/// A principal remembers what its roles have together of at most 64 times as many permissions: 384 bytes.
const MAX_KEPT_CELLS: usize = 16;

/// Positions by name. The names come from the policy alone, so that no client chooses what collides.
pub(super) type Positions = HashMap<Arc<str>, usize, FixedState>;

/// A policy as it is asked: inheritance and wildcards are worked out, every answer is a bit.
#[derive(Debug)]
pub(super) struct Table {
    /// Unique in the process: what principals remember of a table goes by it.
    pub(super) id: u64,
    pub(super) version: Arc<str>,
    /// Who has no tenant gets the things of every tenant.
    pub(super) allow_tenantless: bool,
    pub(super) denials: Denials,
    /// What an allow by a permission of the credential's own rests on.
    pub(super) credential_basis: Arc<Basis>,
    pub(super) permissions: Box<[Arc<str>]>,
    pub(super) permission_positions: Positions,
    pub(super) roles: Box<[RoleEntry]>,
    pub(super) role_positions: Positions,
    pub(super) exclusive: Box<[Exclusive]>,
    pub(super) assignments: Assignments,
    /// Whether one of the assignments is for principals of one kind.
    pub(super) assigns_by_kind: bool,
}

/// What denials rest on: made once, so that a denial does not allocate either.
#[derive(Debug)]
pub(super) struct Denials {
    pub(super) unknown_action: Arc<Basis>,
    pub(super) gone: Arc<Basis>,
    pub(super) other_tenant: Arc<Basis>,
    pub(super) no_tenant: Arc<Basis>,
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
            no_tenant: basis("the principal has no tenant"),
            own_things_only: basis("granted on the principal's own things only"),
            not_granted: basis("no role grants it"),
            not_held: basis("no role of the principal is or inherits it"),
        }
    }

    const fn of(&self, boundary: Boundary) -> &Arc<Basis> {
        match boundary {
            Boundary::OtherTenant => &self.other_tenant,
            Boundary::NoTenant => &self.no_tenant,
        }
    }
}

#[derive(Debug)]
pub(super) struct RoleEntry {
    pub(super) name: Arc<str>,
    /// What an allow rests on.
    pub(super) allow: Arc<Basis>,
    /// What an allow on the principal's own things alone rests on.
    pub(super) allow_own: Arc<Basis>,
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

/// What a question says of the thing.
#[derive(Clone, Copy)]
pub(super) struct Thing<'a> {
    pub(super) resource: Option<&'a Resource>,
    /// The handler will ask whose it is: what is granted on owned things passes, unless it is known to be somebody else's.
    pub(super) passes_owners: bool,
}

impl Thing<'_> {
    fn is_owned_by(self, principal: &Principal) -> bool {
        match self.resource {
            Some(resource) => {
                resource.is_owned_by(principal) || (self.passes_owners && resource.owners().next().is_none())
            }
            None => self.passes_owners,
        }
    }
}

/// How a thing of a tenant is kept from a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    OtherTenant,
    NoTenant,
}

/// What a table says, and by which of its points: to ask costs no reference count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Outside(Boundary),
    Exclusive,
    Denied,
    Granted,
    GrantedByCredential,
    GrantedToOwner,
    OwnThingsOnly,
    NotGranted,
}

impl Answer {
    pub(super) const fn is_allow(self) -> bool {
        matches!(self, Self::Granted | Self::GrantedByCredential | Self::GrantedToOwner)
    }
}

pub(super) fn deny(basis: &Arc<Basis>) -> Verdict {
    Verdict::from_basis(Decision::Deny, Arc::clone(basis))
}

/// Denies what cannot be judged, or whatever is asked: a `not` around it opens nothing.
pub(super) fn refuse(basis: &Arc<Basis>) -> Verdict {
    deny(basis).firm()
}

fn allow(basis: &Arc<Basis>) -> Verdict {
    Verdict::from_basis(Decision::Allow, Arc::clone(basis))
}

impl Table {
    pub(super) fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Shows the roles that a principal has where the question is about this thing, and that the policy knows: those of the
    /// credential, then those that the policy assigns. Others grant nothing.
    #[inline]
    pub(super) fn each_role<'t>(
        &'t self,
        principal: &Principal,
        resource: Option<&Resource>,
        mut see: impl FnMut(&'t RoleEntry),
    ) {
        match principal.known_roles(self.id, || self.held_by(principal)) {
            Some(held) => held.positions.iter().filter_map(|position| self.roles.get(*position)).for_each(&mut see),
            None => self.named_roles(principal).filter_map(|position| self.roles.get(position)).for_each(&mut see),
        }
        if !self.assignments.is_empty() {
            let tenant = Self::tenant_of(principal, resource);
            self.assignments.roles_of(principal, tenant).filter_map(|role| self.roles.get(*role)).for_each(see);
        }
    }

    /// Where the roles of the credential stand.
    fn named_roles(&self, principal: &Principal) -> impl Iterator<Item = usize> {
        principal.roles().filter_map(|name| self.role_positions.get(name).copied())
    }

    /// What a principal remembers of this table: where its roles stand, and what they have together.
    #[cold]
    fn held_by(&self, principal: &Principal) -> Held {
        let positions: Box<[usize]> = self.named_roles(principal).collect();
        let words = self.permissions.len().div_ceil(64);
        let mut cells = if words > MAX_KEPT_CELLS { Box::default() } else { vec![Cell::default(); words].into() };
        for role in positions.iter().filter_map(|position| self.roles.get(*position)) {
            merge(&mut cells, &role.reach.cells);
        }
        Held { positions, cells }
    }

    /// What all roles that a principal has where the question is about this thing have of the 64 permissions of a word.
    #[inline]
    fn cell_of(&self, principal: &Principal, resource: Option<&Resource>, word: usize) -> Cell {
        if self.assignments.is_empty()
            && let Some(held) = principal.known_roles(self.id, || self.held_by(principal))
            && let Some(cell) = held.cells.get(word)
        {
            return *cell;
        }
        self.cell_of_each(principal, resource, word)
    }

    fn cell_of_each(&self, principal: &Principal, resource: Option<&Resource>, word: usize) -> Cell {
        let mut all = Cell::default();
        self.each_role(principal, resource, |role| {
            if let Some(cell) = role.reach.cells.get(word) {
                all.add(cell);
            }
        });
        all
    }

    /// The same as a list.
    pub(super) fn roles_of(&self, principal: &Principal, resource: Option<&Resource>) -> Vec<&RoleEntry> {
        let mut roles = Vec::new();
        self.each_role(principal, resource, |role| roles.push(role));
        roles
    }

    /// The tenant that a question is about: the thing's, or else the principal's.
    fn tenant_of<'t>(principal: &'t Principal, resource: Option<&'t Resource>) -> Option<&'t str> {
        resource.and_then(Resource::tenant).or_else(|| principal.tenant())
    }

    /// What keeps a principal from a thing that names its tenant.
    #[inline]
    pub(super) fn boundary(&self, principal: &Principal, resource: Option<&Resource>) -> Option<Boundary> {
        let owning = resource.and_then(Resource::tenant)?;
        match principal.tenant() {
            Some(asking) => (asking != owning).then_some(Boundary::OtherTenant),
            None => (!self.allow_tenantless).then_some(Boundary::NoTenant),
        }
    }

    /// Decides. What refuses comes first: another tenant or none, roles that exclude each other, denying rules.
    #[inline]
    pub(super) fn decide(
        &self,
        principal: &Principal,
        permission: usize,
        thing: Thing<'_>,
        trust_credential: bool,
    ) -> Answer {
        if let Some(boundary) = self.boundary(principal, thing.resource) {
            return Answer::Outside(boundary);
        }
        if !self.exclusive.is_empty() && self.broken(principal, thing.resource).is_some() {
            return Answer::Exclusive;
        }
        let (word, bit) = (permission / 64, 1 << (permission % 64));
        let all = self.cell_of(principal, thing.resource, word);
        if all.denies & bit != 0 {
            Answer::Denied
        } else if all.grants & bit != 0 {
            Answer::Granted
        } else if trust_credential && self.is_carried_by(principal, permission) {
            Answer::GrantedByCredential
        } else if all.own & bit == 0 {
            Answer::NotGranted
        } else if thing.is_owned_by(principal) {
            Answer::GrantedToOwner
        } else {
            Answer::OwnThingsOnly
        }
    }

    fn is_carried_by(&self, principal: &Principal, permission: usize) -> bool {
        let name = self.permissions.get(permission);
        name.is_some_and(|name| principal.permissions().contains(name))
    }

    /// The answer with what it rests on: one reference count, and no allocation.
    pub(super) fn verdict(
        &self,
        principal: &Principal,
        permission: usize,
        thing: Thing<'_>,
        trust_credential: bool,
    ) -> Verdict {
        let by_role = |has: fn(&Reach, usize) -> bool| {
            let mut found = None;
            self.each_role(principal, thing.resource, |role| {
                if found.is_none() && has(&role.reach, permission) {
                    found = Some(role);
                }
            });
            found
        };
        let denials = &self.denials;
        match self.decide(principal, permission, thing, trust_credential) {
            Answer::Outside(boundary) => refuse(denials.of(boundary)),
            Answer::Exclusive => {
                refuse(self.broken(principal, thing.resource).map_or(&denials.not_granted, |set| &set.basis))
            }
            Answer::Denied => deny(by_role(Reach::denies).map_or(&denials.not_granted, |role| &role.deny)),
            Answer::Granted => {
                by_role(Reach::grants).map_or_else(|| deny(&denials.not_granted), |role| allow(&role.allow))
            }
            Answer::GrantedToOwner => {
                by_role(Reach::grants_own).map_or_else(|| deny(&denials.not_granted), |role| allow(&role.allow_own))
            }
            Answer::GrantedByCredential => allow(&self.credential_basis),
            Answer::OwnThingsOnly => deny(&denials.own_things_only).leaving_it(),
            Answer::NotGranted => deny(&denials.not_granted).leaving_it(),
        }
    }

    /// Whether the principal has a role, or one that inherits it, where the question is about this thing.
    pub(super) fn holds(&self, principal: &Principal, role: usize, thing: Thing<'_>) -> Verdict {
        if let Some(boundary) = self.boundary(principal, thing.resource) {
            return refuse(self.denials.of(boundary));
        }
        if let Some(broken) = self.broken(principal, thing.resource) {
            return refuse(&broken.basis);
        }
        let mut found = None;
        self.each_role(principal, thing.resource, |held| {
            if found.is_none() && held.reach.roles.has(role) {
                found = Some(held);
            }
        });
        found.map_or_else(|| deny(&self.denials.not_held), |held| allow(&held.allow))
    }

    /// The first set of exclusive roles of which the principal holds too many.
    pub(super) fn broken(&self, principal: &Principal, resource: Option<&Resource>) -> Option<&Exclusive> {
        let is_broken = |set: &&Exclusive| {
            let has = |member: &&usize| {
                let mut has = false;
                self.each_role(principal, resource, |role| has |= role.reach.roles.has(**member));
                has
            };
            set.roles.iter().filter(has).count() > set.at_most
        };
        self.exclusive.iter().find(is_broken)
    }
}
