use std::{fmt, sync::Arc};

use crate::{
    policy::{
        Rbac, Resource, Verdict,
        rbac::table::{Answer, RoleEntry, Thing, refuse},
    },
    principal::Principal,
};

/// A permission that its policy knows; made by [`Rbac::permission`], so that a typo fails at start.
///
/// As a requirement of a route it asks its own policy alone, also where that is combined with others: the roles of the principal
/// must grant it. A route names no thing, so
/// what a role grants on owned things only (`grants_own`) does not pass; see [`allow_owners`](Self::allow_owners). Where the
/// guard names a thing that has a tenant, it is denied to principals of another one, and of none.
///
/// It stays valid when the policy is reloaded, and follows the newer one. If that does not list the permission any more,
/// everybody is denied, [firmly](Verdict::firm), and the log says so. A clone costs two reference counts.
#[derive(Clone)]
pub struct Permission {
    policy: Rbac,
    slot: usize,
    name: Arc<str>,
    owners: bool,
}

impl Permission {
    pub(super) const fn new(policy: Rbac, slot: usize, name: Arc<str>) -> Self {
        Self { policy, slot, name, owners: false }
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

    /// Lets a route pass whoever holds the permission only on things of their own, unless the guard's thing tells its owner, and that is
    /// somebody else. The handler **must** then ask its
    /// [`Authorizer`](crate::guard::Authorizer) about the thing; without that, everybody reaches everything. A handler that answers such
    /// a request with success, and has asked about no thing by then, is told of where there is an audit layer: as an error in the log, at
    /// most once a minute, and by the flag `owner_not_asked` in the record.
    #[must_use]
    pub fn allow_owners(mut self) -> Self {
        self.owners = true;
        self
    }

    /// Whether a principal holds it, as a route would find: no thing is named. It allocates nothing and counts no reference.
    ///
    /// False does not tell why: demand the opposite with [`not`](crate::guard::not), which knows what cannot be judged.
    #[must_use]
    pub fn is_held_by(&self, principal: &Principal) -> bool {
        let thing = self.thing(None);
        self.policy.ask(|snapshot| {
            snapshot.permission(self.slot).is_some_and(|permission| {
                snapshot.table.decide(principal, permission, thing, self.policy.trust_credential).is_allow()
            })
        })
    }

    pub(crate) const fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn verdict(&self, principal: &Principal, resource: Option<&Resource>) -> Verdict {
        let thing = self.thing(resource);
        self.policy.ask(|snapshot| match snapshot.permission(self.slot) {
            Some(permission) => snapshot.table.verdict(principal, permission, thing, self.policy.trust_credential),
            None => refuse(&snapshot.table.denials.gone),
        })
    }

    /// Whether it passes a principal on the handler's word alone: on what is their own, and the handler will ask whose the thing is.
    pub(crate) fn leaves_owner_to_handler(&self, principal: &Principal, resource: Option<&Resource>) -> bool {
        let thing = Thing { resource, passes_owners: false };
        let is_open = resource.is_none_or(|resource| resource.owners().next().is_none());
        self.owners
            && is_open
            && self.policy.ask(|snapshot| {
                snapshot.permission(self.slot).is_some_and(|permission| {
                    let trust_credential = self.policy.trust_credential;
                    snapshot.table.decide(principal, permission, thing, trust_credential) == Answer::OwnThingsOnly
                })
            })
    }

    const fn thing<'r>(&self, resource: Option<&'r Resource>) -> Thing<'r> {
        Thing { resource, passes_owners: self.owners }
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
/// As a requirement of a route it passes whoever has the role or one that inherits it (ANSI INCITS 359, authorized roles). Where
/// the guard names a thing, the roles count that the policy assigns in the thing's tenant, and a thing of another tenant is
/// denied, as is that of any tenant to who has none, both as with a [`Permission`].
/// It stays valid when the policy is reloaded, as a [`Permission`] does. A clone costs two reference counts.
#[derive(Clone)]
pub struct Role {
    policy: Rbac,
    slot: usize,
    name: Arc<str>,
}

impl Role {
    pub(super) const fn new(policy: Rbac, slot: usize, name: Arc<str>) -> Self {
        Self { policy, slot, name }
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

    /// What the role grants on everything, inherited grants included and denied ones left out, in the order of the policy's
    /// list.
    #[must_use]
    pub fn permissions(&self) -> Vec<String> {
        self.named(|role, permission| role.reach.grants(permission) && !role.reach.denies(permission))
    }

    /// What the role grants on the principal's own things, inherited grants included and denied ones left out, in the order
    /// of the policy's list.
    #[must_use]
    pub fn permissions_own(&self) -> Vec<String> {
        self.named(|role, permission| role.reach.grants_own(permission) && !role.reach.denies(permission))
    }

    fn named(&self, has: impl Fn(&RoleEntry, usize) -> bool) -> Vec<String> {
        self.policy.ask(|snapshot| {
            let table = &snapshot.table;
            let role = snapshot.role(self.slot).and_then(|position| table.roles.get(position));
            let all = table.permissions.iter().enumerate();
            let had = all.filter(|(permission, _)| role.is_some_and(|role| has(role, *permission)));
            had.map(|(_, name)| name.to_string()).collect()
        })
    }

    /// Whether a principal has it, or a role that inherits it, as a route would find that names no thing.
    ///
    /// False does not tell why: demand the opposite with [`not`](crate::guard::not), which knows what cannot be judged.
    #[must_use]
    pub fn is_held_by(&self, principal: &Principal) -> bool {
        self.verdict(principal, None).is_allow()
    }

    pub(crate) fn verdict(&self, principal: &Principal, resource: Option<&Resource>) -> Verdict {
        let thing = Thing { resource, passes_owners: false };
        self.policy.ask(|snapshot| match snapshot.role(self.slot) {
            Some(role) => snapshot.table.holds(principal, role, thing),
            None => refuse(&snapshot.table.denials.gone),
        })
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
