mod insufficient;
mod judge;

use std::{fmt, sync::Arc};

use insufficient::Insufficient;
use tower::Layer;

#[cfg(feature = "stack")]
use crate::guard::{
    predicate::Fact,
    review::{Asked, decides_by_roles},
    route::parameters_of,
};
#[cfg(feature = "rbac")]
use crate::policy::{Permission, Role};
use crate::{
    context::{Envelope, Stage},
    error::ConfigError,
    gate::{Gate, Step},
    guard::{
        requirement::{Node, Requirement},
        resource::ResourceSource,
        route::MatchedBy,
    },
    head::RequestHead,
    now::Now,
    policy::PolicyBackend,
    rejection::Rejection,
    shadow::{Shadow, ShadowMode},
};
#[cfg(all(feature = "stack", feature = "rbac"))]
use crate::{guard::review::role_policy, policy::Rbac};

/// The realm of the challenge that names missing scopes, unless [`GuardLayer::with_realm`] says another.
pub(super) const REALM: &str = "api";

/// Admits a request only if it meets a [`Requirement`]. See the [module docs](crate::guard).
///
/// It is a tower layer, for a router or for one route, and a rule of a stack's route table.
pub fn require(requirement: impl Into<Requirement>) -> GuardLayer {
    let requirement = requirement.into();
    let shared = Shared {
        text: requirement.to_string().into(),
        asks_policy: any_condition(&requirement, |node| matches!(node, Node::Policy(_))),
        needs_resource: any_condition(
            &requirement,
            |node| matches!(node, Node::Predicate(predicate) if predicate.needs_resource()),
        ),
        // Cannot fail: realm, scopes and classes are of the allowed characters.
        insufficient: Insufficient::new(REALM, &requirement).unwrap_or_else(|_| Insufficient::unsaid(REALM)),
        requirement,
        fulfilled: Box::default(),
        policy: None,
        #[cfg(feature = "stack")]
        by_roles: false,
        #[cfg(all(feature = "stack", feature = "rbac"))]
        rbac: None,
        resource: None,
        hides: false,
        shadow: None,
    };
    GuardLayer { shared: Arc::new(shared) }
}

fn any_condition(requirement: &Requirement, is_it: impl Fn(&Node) -> bool) -> bool {
    let mut found = false;
    requirement.node().visit(&mut |node| found |= is_it(node));
    found
}

/// Applies a [`Requirement`]; made by [`require`]. See the [module docs](crate::guard).
#[must_use]
#[derive(Clone)]
pub struct GuardLayer {
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Shared {
    requirement: Requirement,
    text: Arc<str>,
    insufficient: Insufficient,
    fulfilled: Box<[Box<str>]>,
    policy: Option<Arc<dyn PolicyBackend>>,
    #[cfg(feature = "stack")]
    by_roles: bool,
    /// The policy, if it is a role policy itself.
    #[cfg(all(feature = "stack", feature = "rbac"))]
    rbac: Option<Rbac>,
    resource: Option<ResourceSource>,
    asks_policy: bool,
    needs_resource: bool,
    hides: bool,
    shadow: Option<Shadow>,
}

impl Shared {
    /// What is wrong with the first condition on what this source of things can never tell.
    #[cfg(feature = "stack")]
    fn untold_by(&self, source: &ResourceSource) -> Option<String> {
        let mut untold = None;
        self.requirement.node().visit(&mut |node| {
            let Node::Predicate(predicate) = node else { return };
            let mend = match predicate.fact() {
                Some(fact) if source.may_tell(fact) => return,
                Some(Fact::Tenant) => "add .in_tenant(..)",
                Some(Fact::Owner | Fact::Attributes) => {
                    "find the thing by a function (from_head), or ask in the handler"
                }
                None => return,
            };
            untold.get_or_insert((predicate.name(), mend));
        });
        untold.map(|(condition, mend)| {
            format!("has a condition ({condition}) on what its thing ({source}) can never tell: {mend}")
        })
    }
}

impl GuardLayer {
    /// Names the protection space in the challenges that tell what is missing. The default is `api`.
    ///
    /// # Errors
    /// If the realm is empty or has a character that a challenge cannot carry; see [`Challenge::new`](crate::Challenge::new).
    pub fn with_realm(mut self, realm: &str) -> Result<Self, ConfigError> {
        let insufficient = Insufficient::new(realm, &self.shared.requirement)?;
        Arc::make_mut(&mut self.shared).insufficient = insufficient;
        Ok(self)
    }

    /// Says what thing the request is about: for the policy, for permission and role handles (a thing of another tenant is
    /// denied, and to who has no tenant one of any; one that names none is for all), and for conditions such as
    /// [`owner`](crate::guard::owner). No other condition looks at it: [`scope`](crate::guard::scope),
    /// [`role`](crate::guard::role) by name and [`network`](crate::guard::network) pass for the thing of another tenant as well.
    /// A guard none of whose conditions looks at it is refused at the build of a stack, and so is one with a condition on what
    /// the thing can never tell, such as the owner of one that is [named by the path](crate::guard::from_path).
    ///
    /// A request that does not name it is refused with `400`, or `404` if the guard [hides](Self::hide); a route that has no such
    /// parameter, with `500`, or at the build of a stack. What the policy should know beyond type, id and tenant is not in the head: ask the
    /// [`Authorizer`](crate::guard::Authorizer).
    pub fn on(mut self, resource: ResourceSource) -> Self {
        Arc::make_mut(&mut self.shared).resource = Some(resource);
        self
    }

    /// Hides that the route exists from those who may not use it: what would be a `403` is a
    /// [`NotFound`](crate::RejectionKind::NotFound), `404`, rendered like the application's own. So is the `400` of a request that
    /// does not name the guard's thing: whether who sent it may use the route is not asked. The anonymous get `401` all the same.
    ///
    /// It hides nothing unless the application answers alike where there is nothing; see the manual's page on the guard.
    pub fn hide(mut self) -> Self {
        Arc::make_mut(&mut self.shared).hides = true;
        self
    }

    /// Declares that the application fulfils these obligations, beside those of earlier calls. An allow that obliges to any other is
    /// refused with `500`.
    pub fn fulfilling<T: Into<Box<str>>>(mut self, obligations: impl IntoIterator<Item = T>) -> Self {
        let fulfilled = &mut Arc::make_mut(&mut self.shared).fulfilled;
        let earlier = std::mem::take(fulfilled).into_iter();
        *fulfilled = earlier.chain(obligations.into_iter().map(Into::into)).collect();
        self
    }

    /// Sets the policy that this guard, the guards inside it, and the handler's [`Authorizer`](crate::guard::Authorizer)
    /// ask. Where layers are stacked by hand, this is the way to set one: put
    /// `require(authenticated()).with_policy(policy)` around the router.
    pub fn with_policy(mut self, policy: impl PolicyBackend) -> Self {
        let shared = Arc::make_mut(&mut self.shared);
        #[cfg(feature = "stack")]
        {
            shared.by_roles = decides_by_roles(&policy);
        }
        #[cfg(all(feature = "stack", feature = "rbac"))]
        {
            shared.rbac = role_policy(&policy).cloned();
        }
        shared.policy = Some(Arc::new(policy));
        self
    }

    /// Tries the guard out until a day: what it would refuse passes, the anonymous as anonymous, and is marked in the audit
    /// record with `guard_would_refuse` and decisions that are not enforced. From that day on it refuses.
    ///
    /// A bad credential in `Authorization` is refused all the same; a bad cookie or certificate gives no identity, as where no
    /// rule stands. Layers that are put together wrongly refuse. An allow's obligations and advice do not reach the handler, whose
    /// own [`Authorizer`](crate::guard::Authorizer) enforces. It is not for a route that was closed before: what was refused then
    /// would pass.
    pub fn shadow(mut self, mode: ShadowMode) -> Self {
        Arc::make_mut(&mut self.shared).shadow = Some(Shadow::new(mode));
        self
    }

    /// How many requests passed that it would have refused, were it not in [shadow mode](Self::shadow).
    #[must_use]
    pub fn would_refuse(&self) -> u64 {
        self.shared.shadow.as_ref().map_or(0, Shadow::would_refuse)
    }

    /// Tells at start, and in audit, that it is in shadow mode.
    #[cfg(feature = "stack")]
    pub(crate) fn announce(&self, at: crate::clock::Instants, line: &str) {
        if let Some(shadow) = &self.shared.shadow {
            shadow.announce(at, &format!("rule {line}: {}", self.shared.text));
        }
    }

    #[cfg(feature = "stack")]
    pub(super) fn requirement(&self) -> &Requirement {
        &self.shared.requirement
    }

    #[cfg(feature = "stack")]
    pub(super) fn thing(&self) -> Option<&ResourceSource> {
        self.shared.resource.as_ref()
    }

    #[cfg(feature = "stack")]
    pub(super) fn has_shadow(&self) -> bool {
        self.shared.shadow.is_some()
    }

    /// The policy that it asks in the place of the stack's.
    #[cfg(feature = "stack")]
    pub(crate) fn own_policy(&self) -> Option<Asked<'_>> {
        let policy = self.shared.policy.as_deref()?;
        Some(Asked { policy, by_roles: self.shared.by_roles })
    }

    /// The same, if it is a role policy itself.
    #[cfg(all(feature = "stack", feature = "rbac"))]
    pub(crate) fn own_rbac(&self) -> Option<&Rbac> {
        self.shared.rbac.as_ref()
    }

    /// Whether what it denies is answered as if there were nothing.
    pub(crate) fn hides(&self) -> bool {
        self.shared.hides
    }

    /// Whether a policy must be set outside.
    pub(crate) fn needs_policy(&self) -> bool {
        self.shared.asks_policy && self.shared.policy.is_none()
    }

    /// The actions that it asks a policy about.
    #[cfg(feature = "stack")]
    pub(crate) fn actions(&self) -> Vec<&str> {
        let mut actions = Vec::new();
        self.shared.requirement.node().visit(&mut |node| {
            if let Node::Policy(action) = node {
                actions.push(&**action);
            }
        });
        actions
    }

    #[cfg(feature = "rbac")]
    pub(crate) fn permissions(&self) -> Vec<&Permission> {
        let mut permissions = Vec::new();
        self.shared.requirement.node().visit(&mut |node| {
            if let Node::Permission(permission) = node {
                permissions.push(permission);
            }
        });
        permissions
    }

    #[cfg(feature = "rbac")]
    pub(crate) fn roles(&self) -> Vec<&Role> {
        let mut roles = Vec::new();
        self.shared.requirement.node().visit(&mut |node| {
            if let Node::Role(role) = node {
                roles.push(role);
            }
        });
        roles
    }

    /// What is wrong with this guard on a route of this template.
    #[cfg(feature = "stack")]
    pub(crate) fn check_route(&self, template: &str) -> Result<(), String> {
        let shared = &*self.shared;
        match &shared.resource {
            None if shared.needs_resource => {
                Err("has a condition on the thing, and names none: add .on(..)".to_owned())
            }
            None => Ok(()),
            Some(_) if !any_condition(&shared.requirement, Node::looks_at_thing) => {
                let condition = "a permission or role of the policy, a policy, or a condition on the thing";
                Err(format!("names a thing, and no condition looks at it: add {condition}, or take it away"))
            }
            Some(resource) => {
                let parameters = parameters_of(template);
                for needed in resource.parameters() {
                    match parameters.iter().filter(|held| **held == needed).count() {
                        0 => return Err(format!("names a thing by {{{needed}}}, which its path does not have")),
                        1 => {}
                        _ => return Err(format!("names a thing by {{{needed}}}, which stands twice in its path")),
                    }
                }
                shared.untold_by(resource).map_or(Ok(()), Err)
            }
        }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Gate<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate::new(inner, self.clone())
    }
}

impl Step for GuardLayer {
    type Memo = ();

    fn stage(&self) -> Stage {
        Stage::Guard
    }

    fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<(), Rejection>> {
        self.ask_now(head, MatchedBy::Outside, envelope)
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<(), Rejection> {
        self.ask(head, MatchedBy::Outside, envelope).await
    }
}

impl fmt::Display for GuardLayer {
    /// The requirement, as reviewers and records read it, and what else the guard says: `owner on order {id}, hidden`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.text)?;
        if let Some(resource) = &self.shared.resource {
            write!(f, " on {resource}")?;
        }
        f.write_str(if self.shared.hides { ", hidden" } else { "" })?;
        f.write_str(if self.shared.shadow.is_some() { ", in shadow mode" } else { "" })
    }
}

impl fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer")
            .field("requirement", &self.shared.requirement)
            .field("fulfilled", &self.shared.fulfilled)
            .field("policy", &self.shared.policy)
            .field("resource", &self.shared.resource)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
