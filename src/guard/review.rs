//! What a rule means for a role, as far as that can be told without a request.

use std::any::Any;

#[cfg(feature = "rbac")]
use std::sync::Arc;

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Rbac, Resource};
use crate::{
    clock::Instants,
    guard::{ResourceSource, Rule, requirement::Node},
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, QueryParts},
    principal::Principal,
};

/// Who asks, and whom.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    pub(crate) subject: &'a Principal,
    pub(crate) policy: Option<Asked<'a>>,
    pub(crate) method: &'a str,
    pub(crate) template: &'a str,
}

/// A policy that is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) policy: &'a dyn PolicyBackend,
    pub(crate) by_roles: bool,
}

/// Whether a policy decides by roles: who else has them, and in which tenant, is not what a review of a role asks.
pub(crate) fn decides_by_roles(policy: &dyn Any) -> bool {
    #[cfg(feature = "rbac")]
    let by_roles = policy.is::<Rbac>() || policy.is::<Arc<Rbac>>();
    #[cfg(not(feature = "rbac"))]
    let by_roles = {
        let _ = policy;
        false
    };
    by_roles
}

/// What is the same in each question of a review, or asked for each role.
const TOLD: QueryParts = QueryParts::ROLES
    .and(QueryParts::METHOD)
    .and(QueryParts::ROUTE)
    .and(QueryParts::RESOURCE)
    .and(QueryParts::RESOURCE_FACTS)
    .and(QueryParts::ATTRIBUTES);

impl<'a> Review<'a> {
    /// What the rule says; [`Decision::CannotDecide`] where it depends on more than the role.
    pub(crate) fn of(self, rule: &'a Rule) -> Decision {
        match rule.guard() {
            Some(guard) => {
                let review = Self { policy: guard.own_policy().or(self.policy), ..self };
                let decision = review.of_node(guard.requirement().node(), guard.thing());
                // Whom it denies passes until the day that its shadow mode ends.
                if guard.has_shadow() { decision.or(Decision::CannotDecide) } else { decision }
            }
            None if rule.is_public() => Decision::Allow,
            None => Decision::Deny,
        }
    }

    fn of_node(self, node: &Node, thing: Option<&ResourceSource>) -> Decision {
        let held = |holds: bool| if holds { Decision::Allow } else { Decision::Deny };
        match node {
            Node::Authenticated => Decision::Allow,
            #[cfg(feature = "rbac")]
            Node::Permission(permission) => self.of_permission(permission, thing),
            #[cfg(feature = "rbac")]
            Node::Role(role) => role.verdict(self.subject).decision(),
            Node::RoleNamed(name) => held(self.subject.has_role(name)),
            Node::Scope(_) | Node::Check(..) | Node::Predicate(_) | Node::Strength(_) => Decision::CannotDecide,
            Node::Policy(_) if thing.is_some() => Decision::CannotDecide,
            Node::Policy(action) => self.ask(action),
            Node::All(nodes) => nodes.iter().map(|node| self.of_node(node, thing)).fold(Decision::Allow, Decision::and),
            Node::Any(nodes) => nodes.iter().map(|node| self.of_node(node, thing)).fold(Decision::Deny, Decision::or),
            Node::Not(node) => self.of_node(node, thing).negate(),
        }
    }

    /// It may depend on whose the thing is, and on the permissions that a credential carries.
    #[cfg(feature = "rbac")]
    fn of_permission(self, permission: &Permission, thing: Option<&ResourceSource>) -> Decision {
        let subject = self.subject;
        let carrying = Principal::builder(subject.kind(), subject.issuer(), subject.subject(), subject.credential())
            .roles(subject.roles())
            .permissions([permission.name()])
            .build();
        let nobodys = Resource::new("thing", "any");
        let own = nobodys.clone().owned_by(subject.issuer(), subject.subject());
        let things = match thing {
            None => [None; 2],
            Some(thing) if thing.may_tell_owner() => [Some(&nobodys), Some(&own)],
            Some(_) => [Some(&nobodys); 2],
        };
        let verdict = |subject, thing| permission.verdict(subject, thing).decision();
        let decision = verdict(subject, None);
        let agreed =
            things.iter().all(|thing| [subject, &carrying].iter().all(|subject| verdict(subject, *thing) == decision));
        match decision {
            _ if !agreed => Decision::CannotDecide,
            // A thing of another tenant is denied.
            Decision::Allow if thing.is_some_and(ResourceSource::may_tell_tenant) => Decision::CannotDecide,
            decision => decision,
        }
    }

    fn ask(self, action: &str) -> Decision {
        let Some(Asked { policy, by_roles }) = self.policy else { return Decision::CannotDecide };
        let told = if by_roles { TOLD.and(QueryParts::SUBJECT).and(QueryParts::TENANT) } else { TOLD };
        if policy.parts().without(told) != QueryParts::NONE {
            return Decision::CannotDecide;
        }
        let query = AccessQuery::new(self.subject, action, Instants::new(0, 0));
        match policy.decide_now(&query.with_route(self.method, Some(self.template))) {
            Now::Known(verdict) => verdict.decision(),
            Now::Wait => Decision::CannotDecide,
        }
    }
}
