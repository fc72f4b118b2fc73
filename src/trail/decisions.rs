use std::{ops::Deref, sync::Arc};

use crate::policy::{Decision, Verdict};

/// The most decisions that a request keeps: a handler may ask in a loop, as often as a client names things.
pub(super) const MAX_DECISIONS: usize = 32;
/// After so many, none is kept that is like one before it, so that no list pushes out what the handler asks after it.
const MAX_ALIKE: usize = 24;
/// After so many, that holds for refusals, too.
const MAX_REFUSALS_ALIKE: usize = 28;

/// The longest action in a record, in bytes, as all texts there.
#[cfg(feature = "guard")]
const MAX_ACTION_LEN: usize = 256;

/// One decision: who was asked, what, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct DecisionFact {
    pub(crate) backend: &'static str,
    pub(crate) action: Option<Arc<str>>,
    pub(crate) verdict: Verdict,
    /// Whether the request depended on it.
    pub(crate) enforced: bool,
}

impl DecisionFact {
    pub(crate) const fn new(backend: &'static str, action: Option<Arc<str>>, verdict: Verdict) -> Self {
        Self { backend, action, verdict, enforced: true }
    }

    /// A decision about an action that a handler named: its length may be a client's to choose. No more of it is kept than a record shows.
    #[cfg(feature = "guard")]
    pub(crate) fn of_handler(backend: &'static str, action: &str, verdict: Verdict) -> Self {
        // One character more than is shown tells that it was cut.
        let end = action.char_indices().map(|(at, _)| at).find(|at| *at > MAX_ACTION_LEN);
        let kept = end.and_then(|end| action.get(..end)).unwrap_or(action);
        Self::new(backend, Some(kept.into()), verdict)
    }

    /// The same for an answer that nothing depended on: who asked goes on either way, or a policy is only tried out.
    pub(crate) const fn unenforced(mut self) -> Self {
        self.enforced = false;
        self
    }

    pub(crate) const fn decision(&self) -> Decision {
        self.verdict.decision()
    }

    /// Whether it is of the same kind: who was asked, what, and what came of it, whatever it was about.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let of = |fact: &Self| (fact.backend, fact.decision(), fact.enforced);
        of(self) == of(other) && self.action == other.action
    }

    /// Whether it refuses something that the request depended on.
    pub(crate) fn is_refusal(&self) -> bool {
        self.enforced && self.decision() != Decision::Allow
    }
}

/// Decisions in order. The first one, mostly the only one, costs no allocation.
#[derive(Debug, Default)]
pub(crate) enum Decisions {
    #[default]
    None,
    One(DecisionFact),
    Several(Vec<DecisionFact>),
}

impl Decisions {
    pub(super) fn push(&mut self, fact: DecisionFact) {
        match self {
            Self::None => *self = Self::One(fact),
            Self::Several(facts) => facts.push(fact),
            Self::One(_) => {
                if let Self::One(first) = std::mem::take(self) {
                    *self = Self::Several(vec![first, fact]);
                }
            }
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Self::Several(facts) => facts.truncate(len),
            Self::One(_) if len == 0 => *self = Self::None,
            Self::None | Self::One(_) => {}
        }
    }

    pub(super) fn into_facts(self) -> impl Iterator<Item = DecisionFact> {
        let (first, rest) = match self {
            Self::None => (None, Vec::new()),
            Self::One(fact) => (Some(fact), Vec::new()),
            Self::Several(facts) => (None, facts),
        };
        first.into_iter().chain(rest)
    }

    /// Whether one more is kept: in the order of their coming, so that how many there were stays a mark.
    pub(super) fn have_room_for(&self, fact: &DecisionFact) -> bool {
        match self.len() {
            0..MAX_ALIKE => true,
            MAX_ALIKE..MAX_REFUSALS_ALIKE if fact.is_refusal() => true,
            MAX_ALIKE..MAX_DECISIONS => !self.iter().any(|kept| kept.is_like(fact)),
            _ => false,
        }
    }

    /// Says of those from the `first` on that nothing depended on them.
    #[cfg(feature = "guard")]
    pub(super) fn unenforce(&mut self, first: usize) {
        let facts = match self {
            Self::None => &mut [],
            Self::One(fact) => std::slice::from_mut(fact),
            Self::Several(facts) => facts.as_mut_slice(),
        };
        facts.iter_mut().skip(first).for_each(|fact| fact.enforced = false);
    }
}

impl Deref for Decisions {
    type Target = [DecisionFact];

    fn deref(&self) -> &[DecisionFact] {
        match self {
            Self::None => &[],
            Self::One(fact) => std::slice::from_ref(fact),
            Self::Several(facts) => facts,
        }
    }
}

impl<'a> IntoIterator for &'a Decisions {
    type Item = &'a DecisionFact;
    type IntoIter = std::slice::Iter<'a, DecisionFact>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(all(test, feature = "guard"))]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_an_action_is_kept_than_is_shown() {
        for (name, action, kept) in [
            ("short", "orders:read".to_owned(), 11),
            ("the longest that is shown", "a".repeat(256), 256),
            ("one more", "a".repeat(257), 257),
            ("a megabyte", "a".repeat(1 << 20), 257),
            ("a character across the bound", format!("a{}", "\u{20ac}".repeat(1000)), 259),
        ] {
            let fact = DecisionFact::of_handler("test", &action, Verdict::allow());
            let held = fact.action.unwrap();
            assert!(action.starts_with(&*held), "{name}");
            assert_eq!(held.len(), kept, "{name}");
        }
    }
}
