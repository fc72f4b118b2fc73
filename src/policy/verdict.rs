use std::{borrow::Cow, sync::Arc};

/// Allow, deny, or cannot decide: `200`, `403`, `503`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition: there is no fourth answer")]
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
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (Self::CannotDecide, _) | (_, Self::CannotDecide) => Self::CannotDecide,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }

    /// Allows if either does; not knowing outweighs a denial.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Allow, _) | (_, Self::Allow) => Self::Allow,
            (Self::CannotDecide, _) | (_, Self::CannotDecide) => Self::CannotDecide,
            (Self::Deny, Self::Deny) => Self::Deny,
        }
    }

    /// Allows what is denied; what cannot be decided stays so.
    #[must_use]
    pub const fn negate(self) -> Self {
        match self {
            Self::Allow => Self::Deny,
            Self::Deny => Self::Allow,
            Self::CannotDecide => Self::CannotDecide,
        }
    }
}

/// A policy's answer: the decision, the rule that made it, reasons for the record, and obligations.
///
/// An obligation is binding: an allow whose obligations nobody declared to fulfil is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    decision: Decision,
    rule: Option<Arc<str>>,
    reasons: Vec<Cow<'static, str>>,
    obligations: Vec<String>,
}

impl Verdict {
    /// Allows.
    #[must_use]
    pub const fn allow() -> Self {
        Self::of(Decision::Allow)
    }

    /// Denies, for a reason that the record shows and the client does not.
    pub fn deny(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::of(Decision::Deny).because(reason)
    }

    /// Says that no decision could be had, and why.
    pub fn cannot_decide(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::of(Decision::CannotDecide).because(reason)
    }

    pub(crate) const fn of(decision: Decision) -> Self {
        Self { decision, rule: None, reasons: Vec::new(), obligations: Vec::new() }
    }

    /// Names the rule that decided.
    #[must_use]
    pub fn by(mut self, rule: Arc<str>) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Adds a reason for the record.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reasons.push(reason.into());
        self
    }

    /// Binds the allow to something that the application must do.
    #[must_use]
    pub fn obliging(mut self, obligation: impl Into<String>) -> Self {
        self.obligations.push(obligation.into());
        self
    }

    /// The decision.
    #[must_use]
    pub const fn decision(&self) -> Decision {
        self.decision
    }

    /// The rule that decided.
    #[must_use]
    pub const fn rule(&self) -> Option<&Arc<str>> {
        self.rule.as_ref()
    }

    /// Why, for the record.
    #[must_use]
    pub fn reasons(&self) -> &[Cow<'static, str>] {
        &self.reasons
    }

    /// Rule and reasons, for the record.
    pub(crate) fn into_parts(self) -> (Option<Arc<str>>, Vec<Cow<'static, str>>) {
        (self.rule, self.reasons)
    }

    /// What the application must do for the allow to count.
    #[must_use]
    pub fn obligations(&self) -> &[String] {
        &self.obligations
    }
}

#[cfg(test)]
mod tests {
    use super::Decision::{Allow, CannotDecide, Deny};

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
}
