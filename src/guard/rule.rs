use std::fmt;

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Role};
use crate::{
    context::{Envelope, Stage},
    gate::Step,
    guard::GuardLayer,
    head::RequestHead,
    now::Now,
    policy::Verdict,
    rejection::{Rejection, RejectionKind},
    trail::DecisionFact,
};

/// What a route of a stack's table asks for: [`public`], [`deny`], or [`require`](crate::guard::require).
///
/// `Display` writes it as a reviewer reads it.
#[derive(Clone, Debug)]
pub struct Rule {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Public,
    Deny,
    Require(GuardLayer),
}

/// Everybody passes, with and without an identity. A bad credential is refused all the same.
#[must_use]
pub const fn public() -> Rule {
    Rule { kind: Kind::Public }
}

/// Nobody passes: `401` without an identity, `403` with one.
#[must_use]
pub const fn deny() -> Rule {
    Rule { kind: Kind::Deny }
}

impl From<GuardLayer> for Rule {
    fn from(guard: GuardLayer) -> Self {
        Self { kind: Kind::Require(guard) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Public => f.write_str("public"),
            Kind::Deny => f.write_str("deny"),
            Kind::Require(guard) => fmt::Display::fmt(guard, f),
        }
    }
}

impl Rule {
    /// Decides, if the answer is in memory. The stack must have marked [`Stage::Authentication`] before.
    pub(crate) fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<(), Rejection>> {
        match &self.kind {
            Kind::Require(guard) => guard.decide_now(head, envelope),
            Kind::Public => {
                envelope.decided(DecisionFact::new("public", None, Verdict::allow()));
                Now::Known(Ok(()))
            }
            Kind::Deny => Now::Known(Err(refuse(envelope))),
        }
    }

    /// Decides what [`decide_now`](Self::decide_now) could not.
    pub(crate) async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<(), Rejection> {
        match &self.kind {
            Kind::Require(guard) => guard.decide(head, envelope).await,
            Kind::Public | Kind::Deny => match self.decide_now(&head, envelope) {
                Now::Known(answer) => answer,
                Now::Wait => Err(Rejection::new(RejectionKind::Unavailable, "no answer")),
            },
        }
    }

    /// Whether a policy must be set on the stack.
    pub(crate) fn needs_policy(&self) -> bool {
        matches!(&self.kind, Kind::Require(guard) if guard.needs_policy())
    }

    /// Whether nobody passes without an authenticator.
    pub(crate) const fn needs_identity(&self) -> bool {
        matches!(self.kind, Kind::Require(_))
    }

    /// The permission handles in it, to be checked against the stack's policy.
    #[cfg(feature = "rbac")]
    pub(crate) fn permissions(&self) -> Vec<&Permission> {
        match &self.kind {
            Kind::Require(guard) => guard.permissions(),
            Kind::Public | Kind::Deny => Vec::new(),
        }
    }

    /// The role handles in it, to be checked against the stack's policy.
    #[cfg(feature = "rbac")]
    pub(crate) fn roles(&self) -> Vec<&Role> {
        match &self.kind {
            Kind::Require(guard) => guard.roles(),
            Kind::Public | Kind::Deny => Vec::new(),
        }
    }
}

fn refuse(envelope: &mut Envelope) -> Rejection {
    if envelope.has_run(Stage::Authentication)
        && let Err(rejection) = envelope.authenticated()
    {
        return rejection;
    }
    envelope.decided(DecisionFact::new("deny", None, Verdict::deny("nobody may")));
    Rejection::new(RejectionKind::Forbidden, "the rule of this route denies everybody")
}
