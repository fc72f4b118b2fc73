use std::fmt;

#[cfg(feature = "rbac")]
use crate::policy::{Permission, Role};
use crate::{
    context::{Envelope, Stage},
    guard::{GuardLayer, route::MatchedBy},
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
    Deny { hides: bool },
    Require(GuardLayer),
}

/// Everybody passes, with and without an identity. A bad credential is refused all the same.
#[must_use]
pub const fn public() -> Rule {
    Rule { kind: Kind::Public }
}

/// Nobody passes: `401` without an identity, `403` with one, or `404` if the rule [hides](Rule::hide).
#[must_use]
pub const fn deny() -> Rule {
    Rule { kind: Kind::Deny { hides: false } }
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
            Kind::Deny { hides: false } => f.write_str("deny"),
            Kind::Deny { hides: true } => f.write_str("deny, hidden"),
            Kind::Require(guard) => fmt::Display::fmt(guard, f),
        }
    }
}

impl Rule {
    /// Hides that the route exists from those who may not use it; see [`GuardLayer::hide`]. As the fallback of a stack,
    /// `deny().hide()` also hides which paths and methods its table knows, in whatever spelling and from preflights too.
    #[must_use]
    pub fn hide(self) -> Self {
        let kind = match self.kind {
            Kind::Public => Kind::Public,
            Kind::Deny { .. } => Kind::Deny { hides: true },
            Kind::Require(guard) => Kind::Require(guard.hide()),
        };
        Self { kind }
    }

    /// Whether what it denies is answered as if there were nothing.
    pub(crate) fn hides(&self) -> bool {
        match &self.kind {
            Kind::Public => false,
            Kind::Deny { hides } => *hides,
            Kind::Require(guard) => guard.hides(),
        }
    }

    /// What is wrong with it on a route of this template.
    #[cfg(feature = "stack")]
    pub(crate) fn check_route(&self, template: &str) -> Result<(), String> {
        match &self.kind {
            Kind::Public | Kind::Deny { .. } => Ok(()),
            Kind::Require(guard) => guard.check_route(template),
        }
    }

    /// The guard in it.
    #[cfg(feature = "stack")]
    pub(crate) const fn guard(&self) -> Option<&GuardLayer> {
        match &self.kind {
            Kind::Public | Kind::Deny { .. } => None,
            Kind::Require(guard) => Some(guard),
        }
    }

    /// Whether everybody passes.
    #[cfg(feature = "stack")]
    pub(crate) const fn is_public(&self) -> bool {
        matches!(self.kind, Kind::Public)
    }

    /// Decides, if the answer is in memory. The stack must have marked [`Stage::Authentication`] before.
    pub(crate) fn decide_now(&self, head: &RequestHead<'_>, envelope: &mut Envelope) -> Now<Result<(), Rejection>> {
        match &self.kind {
            Kind::Require(guard) => guard.ask_now(head, MatchedBy::Table, envelope),
            Kind::Public => {
                envelope.decided(DecisionFact::new("public", None, Verdict::allow()));
                Now::Known(Ok(()))
            }
            Kind::Deny { hides } => Now::Known(Err(refuse(envelope, *hides))),
        }
    }

    /// Decides what [`decide_now`](Self::decide_now) could not.
    pub(crate) async fn decide(&self, head: RequestHead<'_>, envelope: &mut Envelope) -> Result<(), Rejection> {
        match &self.kind {
            Kind::Require(guard) => guard.ask(head, MatchedBy::Table, envelope).await,
            Kind::Public | Kind::Deny { .. } => match self.decide_now(&head, envelope) {
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
            Kind::Public | Kind::Deny { .. } => Vec::new(),
        }
    }

    /// The role handles in it, to be checked against the stack's policy.
    #[cfg(feature = "rbac")]
    pub(crate) fn roles(&self) -> Vec<&Role> {
        match &self.kind {
            Kind::Require(guard) => guard.roles(),
            Kind::Public | Kind::Deny { .. } => Vec::new(),
        }
    }
}

fn refuse(envelope: &mut Envelope, hides: bool) -> Rejection {
    if envelope.has_run(Stage::Authentication)
        && let Err(rejection) = envelope.authenticated()
    {
        return rejection;
    }
    envelope.decided(DecisionFact::new("deny", None, Verdict::deny("nobody may")));
    let kind = if hides { RejectionKind::NotFound } else { RejectionKind::Forbidden };
    Rejection::new(kind, "the rule of this route denies everybody")
}
