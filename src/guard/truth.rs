use crate::policy::{Decision, Verdict};

/// What a condition comes to: a [`Decision`] that tells firm denials from others.
///
/// `all` takes the least of its parts, `any` the greatest. Without a `not`, a firm denial is one like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    /// It does not hold.
    No,
    /// A firm denial: refused, and refused as well if it is negated.
    Refused,
    /// It cannot be decided.
    Unknown,
    /// It holds.
    Yes,
}

impl Truth {
    pub(super) const fn of(verdict: &Verdict) -> Self {
        match verdict.decision() {
            Decision::Allow => Self::Yes,
            Decision::Deny if verdict.is_firm() => Self::Refused,
            Decision::Deny => Self::No,
            Decision::CannotDecide => Self::Unknown,
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// Only what is known is turned.
    pub(super) const fn negate(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Refused => Self::Refused,
            Self::Unknown => Self::Unknown,
        }
    }

    pub(super) const fn decision(self) -> Decision {
        match self {
            Self::Yes => Decision::Allow,
            Self::No | Self::Refused => Decision::Deny,
            Self::Unknown => Decision::CannotDecide,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Truth::{No, Refused, Unknown, Yes},
        *,
    };

    const ALL: [Truth; 4] = [No, Refused, Unknown, Yes];

    #[test]
    fn joined_it_decides_as_decisions_do() {
        for a in ALL {
            for b in ALL {
                assert_eq!(a.and(b).decision(), a.decision().and(b.decision()), "{a:?} and {b:?}");
                assert_eq!(a.or(b).decision(), a.decision().or(b.decision()), "{a:?} or {b:?}");
            }
        }
    }

    #[test]
    fn only_what_is_known_is_turned() {
        assert_eq!(ALL.map(Truth::negate), [Yes, Refused, Unknown, No]);
        for known in [No, Unknown, Yes] {
            assert_eq!(known.negate().decision(), known.decision().negate());
        }
    }

    #[test]
    fn what_a_verdict_comes_to() {
        for (verdict, expected) in [
            (Verdict::allow(), Yes),
            (Verdict::allow().firm(), Yes),
            (Verdict::deny("no"), No),
            (Verdict::not_applicable("nothing"), No),
            (Verdict::deny("no").firm(), Refused),
            (Verdict::not_applicable("nothing").firm(), Refused),
            (Verdict::cannot_decide("away").firm(), Unknown),
        ] {
            assert_eq!(Truth::of(&verdict), expected, "{verdict:?}");
        }
    }
}
