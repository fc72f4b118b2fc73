//! What a rule means for a role, as far as that can be told without a request.

use std::any::Any;

#[cfg(feature = "rbac")]
use std::sync::Arc;

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Rbac, Resource};
use crate::{
    clock::Instants,
    guard::{ResourceSource, Rule, predicate::Fact, requirement::Node, truth::Truth},
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend, QueryParts},
    principal::Principal,
};

/// Who asks, and whom.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    pub(crate) subject: &'a Principal,
    pub(crate) policy: Option<Asked<'a>>,
    /// None for all of them.
    pub(crate) method: Option<&'a str>,
    pub(crate) template: &'a str,
}

/// A policy that is asked.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) policy: &'a dyn PolicyBackend,
    pub(crate) by_roles: bool,
}

/// The role policy that a policy is, and not one that is a part of it.
#[cfg(feature = "rbac")]
pub(crate) fn role_policy(policy: &dyn Any) -> Option<&Rbac> {
    policy.downcast_ref::<Rbac>().or_else(|| policy.downcast_ref::<Arc<Rbac>>().map(|rbac| &**rbac))
}

/// Whether a policy decides by roles: who else has them, and in which tenant, is not what a review of a role asks.
pub(crate) fn decides_by_roles(policy: &dyn Any) -> bool {
    #[cfg(feature = "rbac")]
    let by_roles = role_policy(policy).is_some();
    #[cfg(not(feature = "rbac"))]
    let by_roles = {
        let _ = policy;
        false
    };
    by_roles
}

/// What is the same in each question of a review, or asked for each role.
const TOLD: QueryParts = QueryParts::ROLES
    .and(QueryParts::ROUTE)
    .and(QueryParts::RESOURCE)
    .and(QueryParts::RESOURCE_FACTS)
    .and(QueryParts::ATTRIBUTES);

/// What the guard's thing is, as far as a review looks at it.
#[derive(Clone, Copy)]
enum About<'a> {
    Nothing,
    Thing(&'a ResourceSource),
    /// A thing, and it is of another tenant than the principal's, or has one where the principal has none.
    Foreign,
}

impl<'a> Review<'a> {
    /// What the rule says; [`Decision::CannotDecide`] where it depends on more than the role.
    pub(crate) fn of(self, rule: &'a Rule) -> Decision {
        match rule.guard() {
            Some(guard) => {
                let review = Self { policy: guard.own_policy().or(self.policy), ..self };
                let decision = |about| review.of_node(guard.requirement().node(), about).decision();
                let decided = match guard.thing() {
                    None => decision(About::Nothing),
                    Some(thing)
                        if thing.may_tell(Fact::Tenant)
                            && decision(About::Thing(thing)) != decision(About::Foreign) =>
                    {
                        Decision::CannotDecide
                    }
                    Some(thing) => decision(About::Thing(thing)),
                };
                // Whom it denies passes until the day that its shadow mode ends.
                if guard.has_shadow() { decided.or(Decision::CannotDecide) } else { decided }
            }
            None if rule.is_public() => Decision::Allow,
            None => Decision::Deny,
        }
    }

    fn of_node(self, node: &Node, about: About<'_>) -> Truth {
        let held = |holds: bool| if holds { Truth::Yes } else { Truth::No };
        match node {
            Node::Authenticated => Truth::Yes,
            #[cfg(feature = "rbac")]
            Node::Permission(permission) => self.of_permission(permission, about),
            #[cfg(feature = "rbac")]
            Node::Role(role) => match about {
                About::Nothing | About::Thing(_) => Truth::of(&role.verdict(self.subject, None)),
                About::Foreign => Truth::Refused,
            },
            Node::RoleNamed(name) => held(self.subject.has_role(name)),
            Node::Scope(_) | Node::Check(..) | Node::Predicate(_) | Node::Strength(_) => Truth::Unknown,
            Node::Policy(action) => match about {
                About::Nothing => self.ask(action),
                About::Thing(_) | About::Foreign => Truth::Unknown,
            },
            Node::All(nodes) => nodes.iter().map(|node| self.of_node(node, about)).fold(Truth::Yes, Truth::and),
            Node::Any(nodes) => nodes.iter().map(|node| self.of_node(node, about)).fold(Truth::No, Truth::or),
            Node::Not(node) => self.of_node(node, about).negate(),
        }
    }

    /// It may depend on whose the thing is, and on the permissions that a credential carries.
    #[cfg(feature = "rbac")]
    fn of_permission(self, permission: &Permission, about: About<'_>) -> Truth {
        let subject = self.subject;
        let carrying = Principal::builder(subject.kind(), subject.issuer(), subject.subject(), subject.credential())
            .roles(subject.roles())
            .permissions([permission.name()])
            .build();
        let nobodys = Resource::new("thing", "any");
        let own = nobodys.clone().owned_by(subject.issuer(), subject.subject());
        let things = match about {
            About::Nothing => [None; 2],
            About::Thing(thing) if thing.may_tell(Fact::Owner) => [Some(&nobodys), Some(&own)],
            About::Thing(_) => [Some(&nobodys); 2],
            About::Foreign => return Truth::Refused,
        };
        if permission.leaves_owner_to_handler(subject, None) {
            return Truth::Unknown;
        }
        let truth = |subject, thing| Truth::of(&permission.verdict(subject, thing));
        let alone = truth(subject, None);
        let agreed =
            things.iter().all(|thing| [subject, &carrying].iter().all(|subject| truth(subject, *thing) == alone));
        if agreed { alone } else { Truth::Unknown }
    }

    fn ask(self, action: &str) -> Truth {
        let Some(Asked { policy, by_roles }) = self.policy else { return Truth::Unknown };
        // Of the claims it is the kind, which the roles that a policy assigns may go by.
        let of_others = QueryParts::SUBJECT.and(QueryParts::TENANT).and(QueryParts::CLAIMS);
        let told = if by_roles { TOLD.and(of_others) } else { TOLD };
        let told = if self.method.is_some() { told.and(QueryParts::METHOD) } else { told };
        if policy.parts().without(told) != QueryParts::NONE {
            return Truth::Unknown;
        }
        let query = AccessQuery::new(self.subject, action, Instants::new(0, 0));
        // Of a line for all methods the policy does not read which it is.
        match policy.decide_now(&query.with_route(self.method.unwrap_or("ANY"), Some(self.template))) {
            Now::Known(verdict) => Truth::of(&verdict),
            Now::Wait => Truth::Unknown,
        }
    }
}
