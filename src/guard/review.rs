//! What a rule means for a role, as far as that can be told without a request.

use crate::{
    clock::Instants,
    guard::{Rule, requirement::Node},
    now::Now,
    policy::{AccessQuery, Decision, PolicyBackend},
    principal::Principal,
};

/// Who asks, and whom.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    pub(crate) subject: &'a Principal,
    pub(crate) policy: Option<&'a dyn PolicyBackend>,
    pub(crate) method: &'a str,
    pub(crate) template: &'a str,
}

impl Review<'_> {
    /// What the rule says; [`Decision::CannotDecide`] where it depends on more than the role.
    pub(crate) fn of(self, rule: &Rule) -> Decision {
        match rule.guard() {
            Some(guard) => self.of_node(guard.requirement().node(), guard.names_resource()),
            None if rule.is_public() => Decision::Allow,
            None => Decision::Deny,
        }
    }

    fn of_node(self, node: &Node, names_resource: bool) -> Decision {
        let held = |holds: bool| if holds { Decision::Allow } else { Decision::Deny };
        match node {
            Node::Authenticated => Decision::Allow,
            #[cfg(feature = "rbac")]
            Node::Permission(permission) => permission.verdict(self.subject, None).decision(),
            #[cfg(feature = "rbac")]
            Node::Role(role) => role.verdict(self.subject).decision(),
            Node::RoleNamed(name) => held(self.subject.has_role(name)),
            Node::Scope(_) | Node::Check(..) | Node::Predicate(_) | Node::Strength(_) => Decision::CannotDecide,
            Node::Policy(_) if names_resource => Decision::CannotDecide,
            Node::Policy(action) => self.ask(action),
            Node::All(nodes) => {
                nodes.iter().map(|node| self.of_node(node, names_resource)).fold(Decision::Allow, Decision::and)
            }
            Node::Any(nodes) => {
                nodes.iter().map(|node| self.of_node(node, names_resource)).fold(Decision::Deny, Decision::or)
            }
            Node::Not(node) => self.of_node(node, names_resource).negate(),
        }
    }

    fn ask(self, action: &str) -> Decision {
        let query = AccessQuery::new(self.subject, action, Instants::new(0, 0));
        let query = query.with_route(self.method, Some(self.template));
        match self.policy.map(|policy| policy.decide_now(&query)) {
            Some(Now::Known(verdict)) => verdict.decision(),
            Some(Now::Wait) | None => Decision::CannotDecide,
        }
    }
}
