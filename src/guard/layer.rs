use std::{fmt, sync::Arc};

use tower::Layer;

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Role};
use crate::{
    challenge::{Challenge, Challenges},
    client::ClientInfo,
    context::{Envelope, Stage, misordered},
    error::ConfigError,
    gate::{Gate, Step},
    guard::{
        evaluate::{self, Answer, Ask, NO_POLICY},
        requirement::{Node, Requirement},
    },
    head::RequestHead,
    now::Now,
    policy::{Decision, PolicyBackend, Verdict},
    rejection::{Rejection, RejectionKind},
    trail::{DecisionFact, Trail},
};

/// The realm of the challenge that names missing scopes, unless [`GuardLayer::realm`] says another.
const REALM: &str = "api";

/// Admits a request only if it meets a [`Requirement`]. See the [module docs](crate::guard).
///
/// It is a tower layer, for a router or for one route, and a rule of a stack's route table.
pub fn require(requirement: impl Into<Requirement>) -> GuardLayer {
    let requirement = requirement.into();
    let mut scopes = Vec::new();
    requirement.node().scopes(&mut scopes);
    let scopes = scopes.join(" ");
    let shared = Shared {
        text: requirement.to_string().into(),
        asks_policy: any_condition(&requirement, |node| matches!(node, Node::Policy(_))),
        // Cannot fail: realm and scopes are of the allowed characters.
        insufficient: insufficient_scope(REALM, &scopes).unwrap_or_default(),
        scopes: scopes.into(),
        requirement,
        fulfilled: Box::default(),
        policy: None,
    };
    GuardLayer { shared: Arc::new(shared) }
}

fn insufficient_scope(realm: &str, scopes: &str) -> Result<Challenges, ConfigError> {
    let challenge = Challenge::new("Bearer", realm)?.with("error", "insufficient_scope")?.with("scope", scopes)?;
    Ok([challenge].into_iter().collect())
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
    scopes: Box<str>,
    insufficient: Challenges,
    fulfilled: Box<[Box<str>]>,
    policy: Option<Arc<dyn PolicyBackend>>,
    asks_policy: bool,
}

impl GuardLayer {
    /// Names the protection space in the challenge that tells which scopes are missing. The default is `api`.
    ///
    /// # Errors
    /// If the realm is empty or has a character that a challenge cannot carry; see [`Challenge::new`].
    pub fn realm(mut self, realm: &str) -> Result<Self, ConfigError> {
        let insufficient = insufficient_scope(realm, &self.shared.scopes)?;
        Arc::make_mut(&mut self.shared).insufficient = insufficient;
        Ok(self)
    }

    /// Declares that the application fulfils these obligations. An allow that obliges to any other is refused with `500`.
    pub fn fulfilling<T: Into<Box<str>>>(mut self, obligations: impl IntoIterator<Item = T>) -> Self {
        Arc::make_mut(&mut self.shared).fulfilled = obligations.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the policy that this guard, the guards inside it, and the handler's [`Authorizer`](crate::guard::Authorizer)
    /// ask. Where layers are stacked by hand, this is the way to set one: put
    /// `require(authenticated()).with_policy(policy)` around the router.
    pub fn with_policy(mut self, policy: impl PolicyBackend) -> Self {
        Arc::make_mut(&mut self.shared).policy = Some(Arc::new(policy));
        self
    }

    /// Whether a policy must be set outside.
    pub(crate) fn needs_policy(&self) -> bool {
        self.shared.asks_policy && self.shared.policy.is_none()
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

    /// Checks what must stand before anything is asked, and hands out the question and the trail.
    fn open<'a>(
        &'a self,
        head: RequestHead<'a>,
        envelope: &'a mut Envelope,
    ) -> Result<(Ask<'a>, &'a mut Trail), Rejection> {
        if !envelope.has_run(Stage::Authentication) {
            return Err(misordered("no authentication outside the guard: add an AuthnLayer outside it"));
        }
        if let Some(policy) = &self.shared.policy {
            envelope.policy = Some(Arc::clone(policy));
        }
        if self.shared.asks_policy && envelope.policy.is_none() {
            return Err(misordered(NO_POLICY));
        }
        envelope.authenticated()?;
        let Envelope { subject, client_identity, client, policy, route, at, trail, .. } = envelope;
        let Some(subject) = subject.as_ref() else { return Err(misordered("the identity is gone")) };
        let ask = Ask {
            head: head.with_client(client.as_ref()),
            subject,
            client: client_identity.as_ref(),
            policy: policy.as_deref(),
            route: route.as_deref(),
            address: client.as_ref().and_then(ClientInfo::vouched_address),
            at: *at,
            fulfilled: &self.shared.fulfilled,
        };
        Ok((ask, trail))
    }

    /// Records the outcome of a combination, and answers the client.
    fn conclude(&self, answer: Answer, trail: &mut Trail) -> Result<(), Rejection> {
        let shared = &*self.shared;
        if shared.requirement.node().is_combination() {
            let verdict = Verdict::new(answer.decision);
            trail.decided(DecisionFact::new("guard", Some(Arc::clone(&shared.text)), verdict));
        }
        match answer {
            Answer { decision: Decision::Allow, .. } => Ok(()),
            Answer { decision: Decision::CannotDecide, .. } => {
                Err(Rejection::new(RejectionKind::Unavailable, format!("cannot decide {}", shared.text)))
            }
            Answer { decision: Decision::Deny, with_scopes: Decision::Allow } => Err(Rejection::new(
                RejectionKind::InsufficientScope,
                format!("scopes do not reach for {}", shared.text),
            )
            .with_challenges(shared.insufficient.clone())),
            Answer { decision: Decision::Deny, .. } => {
                Err(Rejection::new(RejectionKind::Forbidden, format!("does not meet {}", shared.text)))
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
        let (ask, trail) = match self.open(*head, envelope) {
            Ok(opened) => opened,
            Err(rejection) => return Now::Known(Err(rejection)),
        };
        let mark = trail.mark();
        match evaluate::decide_now(self.shared.requirement.node(), &ask, trail, true) {
            Now::Known(answer) => Now::Known(answer.and_then(|answer| self.conclude(answer, trail))),
            Now::Wait => {
                trail.rewind(mark);
                Now::Wait
            }
        }
    }

    async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<(), Rejection> {
        let (ask, trail) = self.open(head, envelope)?;
        let answer = evaluate::decide(self.shared.requirement.node(), &ask, trail, true).await?;
        self.conclude(answer, trail)
    }
}

impl fmt::Display for GuardLayer {
    /// The requirement, as reviewers and records read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.text)
    }
}

impl fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer")
            .field("requirement", &self.shared.requirement)
            .field("fulfilled", &self.shared.fulfilled)
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
