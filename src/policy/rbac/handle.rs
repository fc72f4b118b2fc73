use std::{fmt, sync::Arc};

use crate::{
    policy::{Basis, Decision, Rbac, Verdict},
    principal::Principal,
};

/// A permission that its policy knows; made by [`Rbac::permission`], so that a typo fails at start.
///
/// As a requirement of a route it asks its own policy: the roles of the principal must grant it. A route names no thing, so
/// what a role grants on owned things only (`grants_own`) does not pass; see [`allow_owners`](Self::allow_owners).
/// A clone costs two reference counts.
#[derive(Clone)]
pub struct Permission {
    policy: Rbac,
    position: usize,
    name: Arc<str>,
    owners: bool,
}

impl Permission {
    pub(super) const fn new(policy: Rbac, position: usize, name: Arc<str>) -> Self {
        Self { policy, position, name, owners: false }
    }

    /// The name, such as `orders:read`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it comes from this policy: not one that reads alike, but this one or a clone of it.
    #[must_use]
    pub fn belongs_to(&self, policy: &Rbac) -> bool {
        self.policy.is_same_as(policy)
    }

    /// Lets a route pass whoever holds the permission only on things of their own. The handler **must** then ask
    /// [`Authorizer::check`](crate::guard::Authorizer::check) about the thing; without that, everybody reaches everything.
    #[must_use]
    pub fn allow_owners(mut self) -> Self {
        self.owners = true;
        self
    }

    pub(crate) const fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn verdict(&self, principal: &Principal) -> Verdict {
        let verdict = self.policy.verdict(principal, self.position, None);
        if self.owners && verdict.decision() == Decision::Deny {
            return self.policy.verdict_as_owner(principal, self.position).unwrap_or(verdict);
        }
        verdict
    }

    pub(crate) const fn passes_owners(&self) -> bool {
        self.owners
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permission")
            .field("name", &self.name)
            .field("allow_owners", &self.owners)
            .field("policy", &self.policy.version())
            .finish()
    }
}

/// A role that its policy knows; made by [`Rbac::role`], so that a typo fails at start.
///
/// As a requirement of a route it passes whoever has the role or one that inherits it (ANSI INCITS 359, authorized roles).
/// A clone costs two reference counts.
#[derive(Clone)]
pub struct Role {
    policy: Rbac,
    position: usize,
    name: Arc<str>,
}

impl Role {
    pub(super) const fn new(policy: Rbac, position: usize, name: Arc<str>) -> Self {
        Self { policy, position, name }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it comes from this policy: not one that reads alike, but this one or a clone of it.
    #[must_use]
    pub fn belongs_to(&self, policy: &Rbac) -> bool {
        self.policy.is_same_as(policy)
    }

    /// What the role grants on everything, inherited grants included, in the order of the policy's list.
    pub fn permissions(&self) -> impl Iterator<Item = &str> {
        let role = self.policy.table().roles.get(self.position);
        self.named(move |position| role.is_some_and(|role| role.reach.grants.has(position)))
    }

    /// What the role grants on the principal's own things, inherited grants included, in the order of the policy's list.
    pub fn permissions_own(&self) -> impl Iterator<Item = &str> {
        let role = self.policy.table().roles.get(self.position);
        self.named(move |position| role.is_some_and(|role| role.reach.grants_own.has(position)))
    }

    fn named(&self, has: impl Fn(usize) -> bool) -> impl Iterator<Item = &str> {
        let all = self.policy.table().permissions.iter().enumerate();
        all.filter(move |(position, _)| has(*position)).map(|(_, name)| &**name)
    }

    /// The role that makes the principal one of these, if any does: what an allow rests on.
    pub(crate) fn held_by(&self, principal: &Principal) -> Option<Arc<Basis>> {
        let mut roles = self.policy.table().roles_of(principal);
        roles.find(|role| role.reach.roles.has(self.position)).map(|role| Arc::clone(&role.basis))
    }

    pub(crate) const fn shared_name(&self) -> &Arc<str> {
        &self.name
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("name", &self.name).field("policy", &self.policy.version()).finish()
    }
}
