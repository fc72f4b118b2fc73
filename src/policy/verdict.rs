use std::{borrow::Cow, sync::Arc};

use crate::policy::{Directive, StepUp};

/// Allow, deny, or cannot decide: `200`, `403`, `503`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: there is no fourth answer")]
#[must_use = "it refuses nothing by itself: `Authorizer::check` does, with `?`"]
pub enum Decision {
    /// The action may happen.
    Allow,
    /// The action may not happen. What a policy does not know is denied.
    Deny,
    /// Whoever should decide could not. Never an allow.
    CannotDecide,
}

impl Decision {
    /// The word that records show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::CannotDecide => "cannot_decide",
        }
    }

    /// Allows if both do; a denial outweighs not knowing.
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (Self::CannotDecide, _) | (_, Self::CannotDecide) => Self::CannotDecide,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }

    /// Allows if either does; not knowing outweighs a denial.
    pub const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Allow, _) | (_, Self::Allow) => Self::Allow,
            (Self::CannotDecide, _) | (_, Self::CannotDecide) => Self::CannotDecide,
            (Self::Deny, Self::Deny) => Self::Deny,
        }
    }

    /// Allows what is denied; what cannot be decided stays so.
    pub const fn negate(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
            Self::CannotDecide => Self::CannotDecide,
        }
    }
}

/// What stands behind a verdict: the rules that decided, the version of the policy, and reasons for the record.
///
/// A backend that gives the same one again and again makes it once and shares it: a verdict from a shared basis costs one
/// reference count and no allocation.
///
/// ```
/// use std::sync::Arc;
/// use portcullis::policy::{Basis, Decision, Verdict};
///
/// let basis = Arc::new(Basis::new().rule("office hours").version("7").reason("it is Sunday"));
/// let verdict = Verdict::from_basis(Decision::Deny, Arc::clone(&basis));
/// assert_eq!(&*verdict.rules()[0], "office hours");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    rules: Vec<Arc<str>>,
    version: Option<Arc<str>>,
    reasons: Vec<Cow<'static, str>>,
}

impl Basis {
    /// Nothing known.
    #[must_use]
    pub const fn new() -> Self {
        Self { rules: Vec::new(), version: None, reasons: Vec::new() }
    }

    /// Adds the id of a rule or policy that decided.
    #[must_use]
    pub fn rule(mut self, id: impl Into<Arc<str>>) -> Self {
        self.rules.push(id.into());
        self
    }

    /// Says which version of the policy decided.
    #[must_use]
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds a reason for the record.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reasons.push(reason.into());
        self
    }
}

/// What an allow asks of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    pub(crate) obligations: Vec<Directive>,
    pub(crate) advice: Vec<Directive>,
    /// What would turn a denial, if the person proves it.
    pub(crate) step_up: Option<StepUp>,
    /// What policies say that are not enforced, where they differ.
    pub(crate) shadows: Vec<Shadowed>,
}

/// What a policy says that is asked and not enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shadowed {
    pub(crate) backend: &'static str,
    pub(crate) verdict: Verdict,
}

/// A policy's answer: the decision, the rules and the version of the policy that made it, reasons for the record,
/// obligations and advice.
///
/// An obligation is binding: an allow whose obligations are not all declared as fulfilled, by the guard or by the handler, is
/// refused with `500`. Advice is not binding.
///
/// It is three words long; a plain allow or one from a shared [`Basis`] does not allocate.
///
/// ```
/// use portcullis::policy::{Directive, Verdict};
///
/// let verdict = Verdict::allow()
///     .by("orders-eu")
///     .of_version("2026-11-01")
///     .obliging(Directive::new("mask").with("fields", vec!["email"]))
///     .advising("offer step-up");
/// assert_eq!((verdict.obligations().len(), verdict.advice().len()), (1, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    decision: Decision,
    /// A denial for want of anything that speaks of the question.
    silent: bool,
    /// A denial that does not tell whether what was asked holds.
    firm: bool,
    /// A denial that was made with an eye on whether the principal has made a step-up.
    momentary: bool,
    basis: Option<Arc<Basis>>,
    directives: Option<Arc<Directives>>,
}

impl Verdict {
    /// Allows.
    #[must_use]
    pub const fn allow() -> Self {
        Self::new(Decision::Allow)
    }

    /// Denies, for a reason that the record shows and the client does not.
    pub fn deny(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Decision::Deny).because(reason)
    }

    /// Denies until the person proves who they are more strongly, or again: the client gets `401` and is told how (RFC 9470), where
    /// that alone is missing.
    ///
    /// A demand that the principal meets already helps nobody, and is a denial like any other.
    #[must_use]
    pub fn step_up(demand: StepUp) -> Self {
        Self::new(Decision::Deny).demanding(demand)
    }

    /// Says of a denial what would help. On another verdict it means nothing.
    #[must_use]
    pub fn demanding(self, demand: StepUp) -> Self {
        self.because(format!("step-up: {demand}")).with_demand(demand)
    }

    /// The same for a denial whose reasons tell of it already.
    #[must_use]
    pub(crate) fn without_demand(mut self) -> Self {
        self.directives_mut().step_up = None;
        self
    }

    pub(crate) fn with_demand(mut self, demand: StepUp) -> Self {
        self.directives_mut().step_up = Some(demand);
        self
    }

    /// Denies because nothing in the policy speaks of the question. Alone it is a denial like any other; where policies are
    /// [combined](crate::policy::Combined) by deny-overrides or first-applicable, it leaves the question to the others.
    pub fn not_applicable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::deny(reason).leaving_it()
    }

    /// The same of a denial that is there.
    #[must_use]
    pub(crate) const fn leaving_it(mut self) -> Self {
        self.silent = matches!(self.decision, Decision::Deny);
        self
    }

    /// Says of a denial that it does not tell whether what was asked holds: because nobody can judge it, as with an action that the
    /// policy does not know, or because nothing passes, whatever is asked. A [`not`](crate::guard::not) around a firm denial opens
    /// nothing. On another verdict it means nothing.
    ///
    /// ```
    /// use portcullis::policy::Verdict;
    ///
    /// let verdict = Verdict::deny("unknown action").firm();
    /// assert!(verdict.is_firm() && !Verdict::allow().firm().is_firm());
    /// ```
    #[must_use]
    pub const fn firm(mut self) -> Self {
        self.firm = matches!(self.decision, Decision::Deny);
        self
    }

    /// Says of a denial that it is for this principal at this time alone: whether the principal has made a step-up is in it.
    #[must_use]
    pub(crate) const fn of_the_moment(mut self) -> Self {
        self.momentary = matches!(self.decision, Decision::Deny);
        self
    }

    pub(crate) const fn is_of_the_moment(&self) -> bool {
        self.momentary
    }

    /// Says that no decision could be had, and why.
    pub fn cannot_decide(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Decision::CannotDecide).because(reason)
    }

    /// A decision, and nothing behind it yet.
    #[must_use]
    pub const fn new(decision: Decision) -> Self {
        Self { decision, silent: false, firm: false, momentary: false, basis: None, directives: None }
    }

    /// A decision, and what stands behind it.
    #[must_use]
    pub const fn from_basis(decision: Decision, basis: Arc<Basis>) -> Self {
        Self { decision, silent: false, firm: false, momentary: false, basis: Some(basis), directives: None }
    }

    fn basis_mut(&mut self) -> &mut Basis {
        Arc::make_mut(self.basis.get_or_insert_default())
    }

    fn directives_mut(&mut self) -> &mut Directives {
        Arc::make_mut(self.directives.get_or_insert_default())
    }

    /// Keeps what a policy says that is not enforced.
    pub(crate) fn shadowed_by(mut self, backend: &'static str, verdict: Self) -> Self {
        self.directives_mut().shadows.push(Shadowed { backend, verdict });
        self
    }

    /// Keeps as well what verdicts that do not count had beside them.
    pub(crate) fn with_shadows(mut self, shadows: Vec<Shadowed>) -> Self {
        if !shadows.is_empty() {
            self.directives_mut().shadows.extend(shadows);
        }
        self
    }

    pub(crate) fn shadows(&self) -> &[Shadowed] {
        self.directives.as_ref().map_or(&[], |directives| &directives.shadows)
    }

    /// Names a rule or policy that decided; there may be several.
    #[must_use]
    pub fn by(mut self, rule: impl Into<Arc<str>>) -> Self {
        self.basis_mut().rules.push(rule.into());
        self
    }

    /// Says which version of the policy decided.
    #[must_use]
    pub fn of_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.basis_mut().version = Some(version.into());
        self
    }

    /// Adds a reason for the record.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.basis_mut().reasons.push(reason.into());
        self
    }

    /// Binds the allow to something that the application must do. On another verdict it means nothing.
    #[must_use]
    pub fn obliging(mut self, obligation: impl Into<Directive>) -> Self {
        self.directives_mut().obligations.push(obligation.into());
        self
    }

    /// Adds something that the application may do.
    #[must_use]
    pub fn advising(mut self, advice: impl Into<Directive>) -> Self {
        self.directives_mut().advice.push(advice.into());
        self
    }

    /// Adds what stands behind another verdict and what it asks of an allow; the decision stays, and so does a demand to step up or
    /// that there is none. A version that is set stays too.
    #[must_use]
    pub fn with_facts_of(mut self, other: &Self) -> Self {
        match (&mut self.basis, &other.basis) {
            (_, None) => {}
            (mine @ None, Some(theirs)) => *mine = Some(Arc::clone(theirs)),
            (Some(mine), Some(theirs)) => {
                let mine = Arc::make_mut(mine);
                mine.rules.extend(theirs.rules.iter().cloned());
                mine.reasons.extend(theirs.reasons.iter().cloned());
                if mine.version.is_none() {
                    mine.version.clone_from(&theirs.version);
                }
            }
        }
        if let Some(theirs) = &other.directives {
            let mine = self.directives_mut();
            mine.obligations.extend(theirs.obligations.iter().cloned());
            mine.advice.extend(theirs.advice.iter().cloned());
            mine.shadows.extend(theirs.shadows.iter().cloned());
        }
        self
    }

    /// The decision.
    pub const fn decision(&self) -> Decision {
        self.decision
    }

    /// Whether it allows. An obligation may still stand in the way.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self.decision, Decision::Allow)
    }

    /// Whether it is a denial because [nothing speaks of the question](Self::not_applicable).
    #[must_use]
    pub const fn is_not_applicable(&self) -> bool {
        self.silent && matches!(self.decision, Decision::Deny)
    }

    /// Whether it is a [firm](Self::firm) denial.
    #[must_use]
    pub const fn is_firm(&self) -> bool {
        self.firm && matches!(self.decision, Decision::Deny)
    }

    /// What would help against the denial. None if it is no denial, or nothing would.
    #[must_use]
    pub fn step_up_demand(&self) -> Option<&StepUp> {
        let demand = self.directives.as_ref().and_then(|directives| directives.step_up.as_ref());
        demand.filter(|_| matches!(self.decision, Decision::Deny))
    }

    /// The rules or policies that decided.
    #[must_use]
    pub fn rules(&self) -> &[Arc<str>] {
        self.basis.as_ref().map_or(&[], |basis| &basis.rules)
    }

    /// The version of the policy that decided.
    #[must_use]
    pub fn version(&self) -> Option<&Arc<str>> {
        self.basis.as_ref().and_then(|basis| basis.version.as_ref())
    }

    /// Why, for the record.
    #[must_use]
    pub fn reasons(&self) -> &[Cow<'static, str>] {
        self.basis.as_ref().map_or(&[], |basis| &basis.reasons)
    }

    /// What the application must do for the allow to count.
    #[must_use]
    pub fn obligations(&self) -> &[Directive] {
        self.directives.as_ref().map_or(&[], |directives| &directives.obligations)
    }

    /// What the application may do.
    #[must_use]
    pub fn advice(&self) -> &[Directive] {
        self.directives.as_ref().map_or(&[], |directives| &directives.advice)
    }

    /// The same, with another decision.
    pub(crate) const fn but(mut self, decision: Decision) -> Self {
        self.decision = decision;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Decision::{Allow, CannotDecide, Deny},
        *,
    };

    #[test]
    fn the_three_valued_truth_table() {
        for (a, b, and, or) in [
            (Allow, Allow, Allow, Allow),
            (Allow, Deny, Deny, Allow),
            (Allow, CannotDecide, CannotDecide, Allow),
            (Deny, Deny, Deny, Deny),
            (Deny, CannotDecide, Deny, CannotDecide),
            (CannotDecide, CannotDecide, CannotDecide, CannotDecide),
        ] {
            assert_eq!((a.and(b), b.and(a)), (and, and), "{a:?} and {b:?}");
            assert_eq!((a.or(b), b.or(a)), (or, or), "{a:?} or {b:?}");
        }
        assert_eq!([Allow, Deny, CannotDecide].map(super::Decision::negate), [Deny, Allow, CannotDecide]);
    }

    #[test]
    fn a_verdict_is_small_and_a_shared_basis_stays_as_it_is() {
        assert!(size_of::<Verdict>() <= 3 * size_of::<usize>());
        let basis = Arc::new(Basis::new().rule("r").version("1"));
        let verdict = Verdict::from_basis(Allow, Arc::clone(&basis)).by("s").because("more");
        assert_eq!(verdict.rules(), [Arc::from("r"), Arc::from("s")]);
        assert_eq!(*basis, Basis::new().rule("r").version("1"));
    }

    #[test]
    fn facts_of_several_verdicts_come_together() {
        let first = Verdict::allow().by("a").of_version("1").obliging("mask");
        let second = Verdict::deny("no").by("b").of_version("2").obliging("log").advising("ask");
        let both = first.with_facts_of(&second).with_facts_of(&Verdict::allow());
        assert_eq!((both.decision(), both.rules()), (Allow, &["a".into(), "b".into()][..]));
        assert_eq!((both.version().map(|version| &**version), both.reasons()), (Some("1"), &["no".into()][..]));
        assert_eq!(both.obligations(), ["mask".into(), "log".into()]);
        assert_eq!(both.advice(), ["ask".into()]);
        assert_eq!(Verdict::allow().with_facts_of(&second).version().map(|version| &**version), Some("2"));
    }
}
