//! Which policies can apply to a request, by their scope alone: what stands between the brackets of `permit(...)`.
//!
//! The scope of a policy has three constraints, and each is a key: nothing, a type, an entity, or a group. A request has few
//! keys, those of its entities and of the groups that they are in, and the policies under them are looked up. So the cost
//! grows with the groups of the request and with the policies that apply, not with all others.

use std::{collections::HashMap, hash::Hash};

use cedar_policy::{ActionConstraint, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use foldhash::fast::RandomState;

type Map<K, V> = HashMap<K, V, RandomState>;

/// An entity of a request and all that it is in.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) uid: &'a EntityUid,
    pub(super) ancestors: &'a [&'a EntityUid],
}

/// Positions of policies, by scope.
#[derive(Default)]
pub(super) struct ScopeIndex {
    any_action: ByPrincipal,
    action: Map<EntityUid, ByPrincipal>,
    /// Actions named with `in`, which may be groups.
    action_in: Map<EntityUid, ByPrincipal>,
}

type ByPrincipal = Level<Level<Vec<u32>>>;

impl ScopeIndex {
    pub(super) fn insert(&mut self, position: u32, policy: &Policy) {
        let principal = Key::from(policy.principal_constraint());
        let resource = Key::from(policy.resource_constraint());
        let put = |actions: &mut ByPrincipal| actions.entry(&principal).entry(&resource).push(position);
        match policy.action_constraint() {
            ActionConstraint::Any => put(&mut self.any_action),
            ActionConstraint::Eq(uid) => put(self.action.entry(uid).or_default()),
            ActionConstraint::In(uids) => uids.into_iter().for_each(|uid| put(self.action_in.entry(uid).or_default())),
        }
    }

    /// The policies whose scope matches, each once, in their order.
    pub(super) fn matching(&self, principal: Place<'_>, action: Place<'_>, resource: Place<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let mut visit = |actions: &ByPrincipal| {
            actions.visit(principal, &mut |resources| {
                resources.visit(resource, &mut |positions| found.extend_from_slice(positions));
            });
        };
        visit(&self.any_action);
        self.action.get(action.uid).into_iter().for_each(&mut visit);
        action.and_ancestors().filter_map(|uid| self.action_in.get(uid)).for_each(visit);
        // A list of actions may have two groups of one action.
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl<'a> Place<'a> {
    fn and_ancestors(self) -> impl Iterator<Item = &'a EntityUid> {
        std::iter::once(self.uid).chain(self.ancestors.iter().copied())
    }
}

/// A constraint on a principal or a resource.
enum Key {
    Any,
    Is(EntityTypeName),
    Eq(EntityUid),
    In(Option<EntityTypeName>, EntityUid),
}

impl From<PrincipalConstraint> for Key {
    fn from(constraint: PrincipalConstraint) -> Self {
        match constraint {
            PrincipalConstraint::Any => Self::Any,
            PrincipalConstraint::Is(kind) => Self::Is(kind),
            PrincipalConstraint::Eq(uid) => Self::Eq(uid),
            PrincipalConstraint::In(uid) => Self::In(None, uid),
            PrincipalConstraint::IsIn(kind, uid) => Self::In(Some(kind), uid),
        }
    }
}

impl From<ResourceConstraint> for Key {
    fn from(constraint: ResourceConstraint) -> Self {
        match constraint {
            ResourceConstraint::Any => Self::Any,
            ResourceConstraint::Is(kind) => Self::Is(kind),
            ResourceConstraint::Eq(uid) => Self::Eq(uid),
            ResourceConstraint::In(uid) => Self::In(None, uid),
            ResourceConstraint::IsIn(kind, uid) => Self::In(Some(kind), uid),
        }
    }
}

/// Values by constraint.
struct Level<T> {
    any: Option<Box<T>>,
    is: Map<EntityTypeName, T>,
    eq: Map<EntityUid, T>,
    within: Map<EntityUid, Within<T>>,
}

/// What stands under one group.
struct Within<T> {
    any: Option<T>,
    is: Map<EntityTypeName, T>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { any: None, is: Map::default(), eq: Map::default(), within: Map::default() }
    }
}

impl<T> Default for Within<T> {
    fn default() -> Self {
        Self { any: None, is: Map::default() }
    }
}

impl<T: Default> Level<T> {
    fn entry(&mut self, key: &Key) -> &mut T {
        match key {
            Key::Any => self.any.get_or_insert_default(),
            Key::Is(kind) => of(&mut self.is, kind),
            Key::Eq(uid) => of(&mut self.eq, uid),
            Key::In(None, uid) => of(&mut self.within, uid).any.get_or_insert_default(),
            Key::In(Some(kind), uid) => of(&mut of(&mut self.within, uid).is, kind),
        }
    }
}

impl<T> Level<T> {
    fn visit(&self, place: Place<'_>, visit: &mut impl FnMut(&T)) {
        let kind = place.uid.type_name();
        self.any.as_deref().into_iter().for_each(&mut *visit);
        if !self.is.is_empty() {
            self.is.get(kind).into_iter().for_each(&mut *visit);
        }
        if !self.eq.is_empty() {
            self.eq.get(place.uid).into_iter().for_each(&mut *visit);
        }
        if self.within.is_empty() {
            return;
        }
        // An entity is in itself.
        for within in place.and_ancestors().filter_map(|uid| self.within.get(uid)) {
            within.any.iter().for_each(&mut *visit);
            within.is.get(kind).into_iter().for_each(&mut *visit);
        }
    }
}

fn of<'m, K: Clone + Eq + Hash, V: Default>(map: &'m mut Map<K, V>, key: &K) -> &'m mut V {
    map.entry(key.clone()).or_default()
}
