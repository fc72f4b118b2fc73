//! The parts of a record.

use std::{borrow::Cow, fmt, sync::Arc};

use http::HeaderName;

use crate::{
    audit::{
        MAX_TEXT_LEN, Personal, Privacy,
        text::{clean, told},
    },
    mention::Telling,
    policy::Decision,
    principal::{Principal, PrincipalKind},
    rejection::RejectionKind,
    trail::{AttemptFact, DecisionFact, LimitFact, Trail},
};

/// The most items that are shown of one list in a decision.
const MAX_ITEMS: usize = 8;

fn text(text: &str) -> Cow<'_, str> {
    clean(text, MAX_TEXT_LEN)
}

/// The decisions of a trail, as records show them.
pub(crate) fn decisions<'t>(
    trail: &'t Trail,
    privacy: Option<&Privacy>,
) -> impl ExactSizeIterator<Item = AuditDecision<'t>> + use<'t> {
    let hides_reasons = privacy.is_some_and(|privacy| privacy.omits(Personal::Reasons));
    trail.decisions.iter().map(move |fact| AuditDecision::of(fact, hides_reasons))
}

/// The notes of a trail, as records show them.
pub(crate) fn notes<'t>(
    trail: &'t Trail,
    privacy: Option<&'t Privacy>,
) -> impl ExactSizeIterator<Item = (Cow<'t, str>, Cow<'t, str>)> {
    let hidden = privacy.is_some_and(|privacy| privacy.omits(Personal::Notes));
    let notes: &[(Box<str>, Telling)] = if hidden { &[] } else { &trail.rare().notes };
    notes.iter().map(move |(name, value)| (text(name), told(value, privacy, Privacy::note)))
}

/// An identity, as a record shows it: no claims, no roles, no secret.
#[derive(Clone)]
pub struct AuditIdentity {
    principal: Principal,
    privacy: Option<Arc<Privacy>>,
}

impl AuditIdentity {
    pub(crate) const fn new(principal: Principal, privacy: Option<Arc<Privacy>>) -> Self {
        Self { principal, privacy }
    }

    fn personal<'t>(&self, what: Personal, shown: &'t str) -> Cow<'t, str> {
        match &self.privacy {
            Some(privacy) if !privacy.shows(what) => privacy.text(what, self.principal.issuer(), shown),
            _ => text(shown),
        }
    }

    /// Person, program or key.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.principal.kind()
    }

    /// Who vouches for the subject.
    #[must_use]
    pub fn issuer(&self) -> Cow<'_, str> {
        text(self.principal.issuer())
    }

    /// The name at the issuer.
    #[must_use]
    pub fn subject(&self) -> Cow<'_, str> {
        self.personal(Personal::Subject, self.principal.subject())
    }

    /// The credential that proved it, such as `jwt`.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        self.principal.credential()
    }

    /// The public id of that credential.
    #[must_use]
    pub fn credential_id(&self) -> Option<Cow<'_, str>> {
        self.principal.credential_id().map(|id| self.personal(Personal::CredentialId, id))
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> Option<Cow<'_, str>> {
        self.principal.tenant().map(|tenant| self.personal(Personal::Tenant, tenant))
    }

    /// How the person proved who they are (`amr`, RFC 8176); the first sixteen.
    pub fn methods(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.principal.methods().take(16).map(text)
    }
}

impl fmt::Debug for AuditIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditIdentity")
            .field("issuer", &self.issuer())
            .field("subject", &self.subject())
            .finish_non_exhaustive()
    }
}

/// A credential that was looked at, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct AuditAttempt<'a>(Attempt<'a>);

#[derive(Clone, Copy, Debug)]
enum Attempt<'a> {
    Verified(&'a AuditIdentity),
    Failed(&'a AttemptFact, bool),
}

impl<'a> AuditAttempt<'a> {
    pub(crate) const fn verified(identity: &'a AuditIdentity) -> Self {
        Self(Attempt::Verified(identity))
    }

    pub(crate) fn of(fact: &'a AttemptFact, privacy: Option<&Privacy>) -> Self {
        Self(Attempt::Failed(fact, privacy.is_some_and(|privacy| privacy.omits(Personal::Reasons))))
    }

    /// `verified`, `refused`, or `ignored`: a bad one that came by itself, a cookie, where none was needed or beside one that
    /// counts.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self.0 {
            Attempt::Verified(_) => "verified",
            Attempt::Failed(fact, _) => fact.outcome.as_str(),
        }
    }

    /// What kind of credential it was, where it was verified.
    #[must_use]
    pub fn credential(&self) -> Option<&'static str> {
        match self.0 {
            Attempt::Verified(identity) => Some(identity.credential()),
            Attempt::Failed(..) => None,
        }
    }

    /// The header fields in which there was a credential, where it was not verified.
    #[must_use]
    pub fn fields(&self) -> &'a [HeaderName] {
        match self.0 {
            Attempt::Verified(_) => &[],
            Attempt::Failed(fact, _) => &fact.fields,
        }
    }

    /// Why it was not accepted.
    #[must_use]
    pub const fn rejection(&self) -> Option<RejectionKind> {
        match self.0 {
            Attempt::Verified(_) => None,
            Attempt::Failed(fact, _) => Some(fact.kind),
        }
    }

    /// The operator's reason.
    #[must_use]
    pub fn reason(&self) -> Option<Cow<'a, str>> {
        match self.0 {
            Attempt::Verified(_) | Attempt::Failed(_, true) => None,
            Attempt::Failed(fact, false) => Some(text(&fact.reason)),
        }
    }
}

/// What one limiter answered.
#[derive(Clone, Copy, Debug)]
pub struct AuditLimit<'a>(&'a LimitFact);

impl<'a> AuditLimit<'a> {
    pub(crate) const fn of(fact: &'a LimitFact) -> Self {
        Self(fact)
    }

    /// The limiter: `client`, `principal`, or the name that it was given.
    #[must_use]
    pub fn scope(&self) -> Cow<'a, str> {
        text(&self.0.scope)
    }

    /// `granted`, `refused`, `would_refuse` (it only observes), or `failed_open`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        self.0.state.as_str()
    }

    /// Whether another count than the shared one decided.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.0.degraded
    }

    /// How many more requests it would have granted at once.
    #[must_use]
    pub const fn remaining(&self) -> Option<u32> {
        self.0.remaining
    }

    /// After a refusal, the milliseconds until it grants again, rounded up.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.0.retry_after_nanos.map(|nanos| nanos.div_ceil(1_000_000))
    }
}

/// What one policy was asked, and what it said.
#[derive(Clone, Copy, Debug)]
pub struct AuditDecision<'a> {
    fact: &'a DecisionFact,
    hides_reasons: bool,
}

impl<'a> AuditDecision<'a> {
    pub(crate) const fn of(fact: &'a DecisionFact, hides_reasons: bool) -> Self {
        Self { fact, hides_reasons }
    }

    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.fact.is_like(other.fact)
    }

    pub(crate) fn is_refusal(&self) -> bool {
        self.fact.is_refusal()
    }

    /// The backend that decided, such as `rbac`.
    #[must_use]
    pub const fn backend(&self) -> &'static str {
        self.fact.backend
    }

    /// The decision.
    pub const fn decision(&self) -> Decision {
        self.fact.decision()
    }

    /// Whether the request depended on it. It does not where a handler asked only to show or hide something.
    #[must_use]
    pub const fn is_enforced(&self) -> bool {
        self.fact.enforced
    }

    /// What was asked for.
    #[must_use]
    pub fn action(&self) -> Option<Cow<'a, str>> {
        self.fact.action.as_deref().map(text)
    }

    /// The first of the rules that decided.
    #[must_use]
    pub fn rule(&self) -> Option<Cow<'a, str>> {
        self.rules().next()
    }

    /// The rules or policies that decided; the first eight.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.fact.verdict.rules().iter().take(MAX_ITEMS).map(|rule| text(rule))
    }

    /// The version of the policy that decided.
    #[must_use]
    pub fn policy_version(&self) -> Option<Cow<'a, str>> {
        self.fact.verdict.version().map(|version| text(version))
    }

    /// The names of the obligations; the first eight.
    #[must_use]
    pub fn obligations(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.fact.verdict.obligations().iter().take(MAX_ITEMS).map(|obligation| text(obligation.name()))
    }

    /// The names of the advice; the first eight.
    #[must_use]
    pub fn advice(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        self.fact.verdict.advice().iter().take(MAX_ITEMS).map(|advice| text(advice.name()))
    }

    /// Why; the first eight reasons.
    #[must_use]
    pub fn reasons(&self) -> impl ExactSizeIterator<Item = Cow<'a, str>> + use<'a> {
        let shown = if self.hides_reasons { 0 } else { MAX_ITEMS };
        self.fact.verdict.reasons().iter().take(shown).map(|reason| text(reason))
    }
}
