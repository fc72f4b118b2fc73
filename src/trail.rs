//! What a request's stages, policies and handler leave for the audit record.

mod decisions;
mod limits;

use std::{borrow::Cow, sync::Arc};

use http::HeaderName;

#[cfg(any(feature = "rate-limit", feature = "audit-metrics", all(test, feature = "audit")))]
pub(crate) use self::limits::LimitState;
pub(crate) use self::{
    decisions::{DecisionFact, Decisions},
    limits::{LimitFact, LimitFacts},
};
use crate::{
    mention::Telling,
    policy::{Directives, Shadowed, StepUp, Verdict},
    rejection::RejectionKind,
};

/// The most notes that a request keeps; later ones are counted, not kept.
pub const MAX_NOTES: usize = 16;
/// The longest name and the longest value of a note, in bytes; the rest is cut off.
pub const MAX_NOTE_LEN: usize = 256;

/// Who says in the record what a guard in shadow mode would have refused.
#[cfg(any(feature = "guard", feature = "audit-metrics"))]
pub(crate) const GUARD_SHADOW: &str = "guard-shadow";

/// A credential that was presented, and what became of it, where that was not an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptFact {
    pub(crate) outcome: AttemptOutcome,
    /// The header fields in which there was a credential.
    pub(crate) fields: Vec<HeaderName>,
    pub(crate) kind: RejectionKind,
    pub(crate) reason: Cow<'static, str>,
}

/// What became of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Refused,
    /// A bad one that the client's software sent by itself, where none is needed or another one counts.
    Ignored,
}

impl AttemptOutcome {
    #[cfg(feature = "audit")]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Ignored => "ignored",
        }
    }
}

/// How far the decisions had come, for [`Trail::rewind`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    kept: usize,
    lost: u32,
    obligations: usize,
    advice: usize,
    demands: usize,
}

/// Facts for the record that no stage needs again.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) decisions: Decisions,
    pub(crate) limits: LimitFacts,
    /// Apart, and mostly nowhere: every request pays for what stands above.
    rare: Option<Box<Rare>>,
}

/// What most requests leave nothing of.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) decisions_lost: u32,
    /// What the allows of guards ask of the handler. Bounded by what the application's requirements are.
    pub(crate) directives: Directives,
    /// What the denials of policies say would help, for the guard's challenge. Bounded as the directives are.
    demands: Vec<StepUp>,
    pub(crate) notes: Vec<(Box<str>, Telling)>,
    pub(crate) notes_lost: u32,
    pub(crate) flags: Vec<&'static str>,
    /// The fields of credentials that crossed the wire in the clear.
    pub(crate) exposed: Vec<HeaderName>,
    /// Credentials that came and gave no identity.
    pub(crate) attempts: Vec<AttemptFact>,
    /// The permission that passes the principal on their own things, while the handler has asked about none.
    owner_unasked: Option<Arc<str>>,
}

impl Trail {
    /// What is rarely there, empty where it is not.
    pub(crate) fn rare(&self) -> &Rare {
        static NOTHING: Rare = Rare::nothing();
        self.rare.as_deref().unwrap_or(&NOTHING)
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Keeps a decision, and those of shadows that differ.
    pub(crate) fn decided(&mut self, fact: DecisionFact) {
        if fact.verdict.shadows().is_empty() {
            self.keep(fact);
            return;
        }
        let (shadows, action) = (fact.verdict.shadows().to_vec(), fact.action.clone());
        self.keep(fact);
        for Shadowed { backend, verdict } in shadows {
            self.keep(DecisionFact { backend, action: action.clone(), verdict, enforced: false });
        }
    }

    pub(crate) fn keep(&mut self, fact: DecisionFact) {
        if self.decisions.have_room_for(&fact) {
            self.decisions.push(fact);
        } else {
            let rare = self.rare_mut();
            rare.decisions_lost = rare.decisions_lost.saturating_add(1);
        }
    }

    /// Says that so many decisions and notes are not kept.
    #[cfg(feature = "audit")]
    pub(crate) fn lose(&mut self, decisions: u32, notes: u32) {
        let rare = self.rare_mut();
        rare.decisions_lost = rare.decisions_lost.saturating_add(decisions);
        rare.notes_lost = rare.notes_lost.saturating_add(notes);
    }

    /// Empties it.
    #[cfg(feature = "audit")]
    pub(crate) fn clear(&mut self) {
        let Self { decisions, limits, rare } = self;
        *decisions = Decisions::None;
        limits.clear();
        *rare = None;
    }

    /// The trail for the record. What guards oblige the handler to stays: it may ask after that.
    #[cfg(feature = "audit")]
    pub(crate) fn hand_over(&mut self) -> Self {
        let trail = std::mem::take(self);
        let Directives { obligations, advice, .. } = &trail.rare().directives;
        if !(obligations.is_empty() && advice.is_empty()) {
            self.rare_mut().directives = trail.rare().directives.clone();
        }
        trail
    }

    /// Keeps what an allow asks of the handler.
    pub(crate) fn directed(&mut self, verdict: &Verdict) {
        if verdict.is_allow() && !(verdict.obligations().is_empty() && verdict.advice().is_empty()) {
            let kept = &mut self.rare_mut().directives;
            kept.obligations.extend_from_slice(verdict.obligations());
            kept.advice.extend_from_slice(verdict.advice());
        }
    }

    /// Adds what another trail kept.
    pub(crate) fn append(&mut self, other: Self) {
        other.decisions.into_facts().for_each(|fact| self.keep(fact));
        other.limits.into_facts().for_each(|fact| self.limits.push(fact));
        let Some(theirs) = other.rare else { return };
        let rare = self.rare_mut();
        rare.directives.obligations.extend(theirs.directives.obligations);
        rare.directives.advice.extend(theirs.directives.advice);
        rare.attempts.extend(theirs.attempts);
        rare.owner_unasked = theirs.owner_unasked.or(rare.owner_unasked.take());
        rare.decisions_lost = rare.decisions_lost.saturating_add(theirs.decisions_lost);
        rare.notes_lost = rare.notes_lost.saturating_add(theirs.notes_lost);
        theirs.notes.into_iter().for_each(|(name, told)| self.note_telling(&name, told));
        theirs.flags.into_iter().for_each(|flag| self.flag(flag));
        theirs.exposed.into_iter().for_each(|name| self.expose(name));
    }

    pub(crate) fn mark(&self) -> Mark {
        let Rare { directives, demands, decisions_lost, .. } = self.rare();
        let (obligations, advice) = (directives.obligations.len(), directives.advice.len());
        Mark { kept: self.decisions.len(), lost: *decisions_lost, obligations, advice, demands: demands.len() }
    }

    /// What the denials since the mark say would help.
    #[cfg(feature = "guard")]
    pub(crate) fn demands_since(&self, mark: Mark) -> &[StepUp] {
        self.rare().demands.get(mark.demands..).unwrap_or_default()
    }

    /// Keeps what a denial says would help. Apart from the decisions, of which only the first are kept.
    #[cfg(feature = "guard")]
    pub(crate) fn demanded(&mut self, verdict: &Verdict) {
        if let Some(demand) = verdict.step_up_demand() {
            self.rare_mut().demands.push(demand.clone());
        }
    }

    /// Forgets the decisions since the mark: those that an attempt found before it had to wait are made again.
    pub(crate) fn rewind(&mut self, to: Mark) {
        self.decisions.truncate(to.kept);
        if let Some(rare) = &mut self.rare {
            rare.decisions_lost = to.lost;
            rare.directives.obligations.truncate(to.obligations);
            rare.directives.advice.truncate(to.advice);
            rare.demands.truncate(to.demands);
        }
    }

    /// Keeps that a permission passes the principal if the thing is their own, which the handler is to ask.
    #[cfg(feature = "rbac")]
    pub(crate) fn leave_owner_to_handler(&mut self, permission: &Arc<str>) {
        self.rare_mut().owner_unasked = Some(Arc::clone(permission));
    }

    /// The handler asks.
    #[cfg(feature = "guard")]
    pub(crate) fn handler_asks(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.owner_unasked = None;
        }
    }

    /// The permission of which the handler was to ask whose the thing is, and has not.
    #[cfg(any(feature = "audit", feature = "guard"))]
    pub(crate) fn owner_unasked(&self) -> Option<&Arc<str>> {
        self.rare().owner_unasked.as_ref()
    }

    /// Says of the decisions since the mark that nothing depended on them, and asks nothing of the handler for them.
    #[cfg(feature = "guard")]
    pub(crate) fn unenforce(&mut self, from: Mark) {
        self.decisions.unenforce(from.kept);
        if let Some(rare) = &mut self.rare {
            rare.directives.obligations.truncate(from.obligations);
            rare.directives.advice.truncate(from.advice);
            rare.owner_unasked = None;
        }
    }

    #[cfg(test)]
    pub(crate) fn note(&mut self, name: &str, value: &str) {
        self.note_telling(name, cut(value).into());
    }

    /// Keeps a note of our own, whose value may mention somebody; it is as long as our bounds of names and ids let it be.
    pub(crate) fn note_telling(&mut self, name: &str, told: Telling) {
        let rare = self.rare_mut();
        if rare.notes.len() < MAX_NOTES {
            rare.notes.push((cut(name).into(), told));
        } else {
            rare.notes_lost = rare.notes_lost.saturating_add(1);
        }
    }

    /// Keeps what became of a credential. Each stage of authentication adds one for each of its authenticators at most.
    pub(crate) fn attempted(&mut self, attempt: AttemptFact) {
        self.rare_mut().attempts.push(attempt);
    }

    pub(crate) fn limited(&mut self, fact: LimitFact) {
        self.limits.push(fact);
    }

    /// Says that the credential in this field, whose value is nowhere kept, crossed the wire in the clear.
    pub(crate) fn expose(&mut self, name: HeaderName) {
        let exposed = &mut self.rare_mut().exposed;
        if !exposed.contains(&name) {
            exposed.push(name);
        }
    }

    /// Marks the request with a word such as `credential_over_plain_http`, once.
    pub(crate) fn flag(&mut self, flag: &'static str) {
        let flags = &mut self.rare_mut().flags;
        if !flags.contains(&flag) {
            flags.push(flag);
        }
    }
}

impl Rare {
    const fn nothing() -> Self {
        Self {
            decisions_lost: 0,
            directives: Directives { obligations: Vec::new(), advice: Vec::new(), step_up: None, shadows: Vec::new() },
            demands: Vec::new(),
            notes: Vec::new(),
            notes_lost: 0,
            flags: Vec::new(),
            exposed: Vec::new(),
            attempts: Vec::new(),
            owner_unasked: None,
        }
    }
}

/// A text as long as a note may be.
pub(crate) fn cut(text: &str) -> &str {
    let end = (0..=MAX_NOTE_LEN.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{decisions::MAX_DECISIONS, *};

    #[test]
    fn notes_are_bounded_in_number_and_length() {
        let mut trail = Trail::default();
        for _ in 0..=MAX_NOTES {
            trail.note("name", &"ä".repeat(MAX_NOTE_LEN));
        }
        let Rare { notes, notes_lost, .. } = trail.rare();
        assert_eq!((notes.len(), *notes_lost), (MAX_NOTES, 1));
        assert!(notes.iter().all(|(_, value)| value.plain().len() <= MAX_NOTE_LEN));
    }

    #[test]
    fn what_is_asked_in_a_loop_pushes_out_nothing_that_is_asked_after_it() {
        let fact = |action: &str, verdict| DecisionFact::new("test", Some(action.into()), verdict);
        let seen = |trail: &Trail| {
            let kept = trail.decisions.iter();
            let mut each: Vec<(String, usize)> = Vec::new();
            for action in kept.filter_map(|fact| fact.action.as_deref()) {
                match each.last_mut().filter(|(last, _)| last == action) {
                    Some((_, count)) => *count += 1,
                    None => each.push((action.to_owned(), 1)),
                }
            }
            (each, trail.rare().decisions_lost)
        };
        let expect = |each: &[(&str, usize)], lost| {
            (each.iter().map(|(action, count)| ((*action).to_owned(), *count)).collect::<Vec<_>>(), lost)
        };
        let mut trail = Trail::default();
        for _ in 0..100 {
            trail.decided(fact("list", Verdict::allow()).unenforced());
        }
        let mark = trail.mark();
        trail.decided(fact("transfer", Verdict::allow()));
        assert_eq!(seen(&trail), expect(&[("list", 24), ("transfer", 1)], 76));
        // Refusals have a few places more, and not all of them.
        for _ in 0..100 {
            trail.decided(fact("burn", Verdict::deny("no")));
        }
        trail.decided(fact("burn", Verdict::allow()));
        trail.decided(fact("burn", Verdict::cannot_decide("away")));
        assert_eq!(seen(&trail), expect(&[("list", 24), ("transfer", 1), ("burn", 5)], 173));
        // And kinds are bounded as well.
        for n in 0..100 {
            trail.decided(fact(&n.to_string(), Verdict::deny("no")));
        }
        assert_eq!((trail.decisions.len(), trail.rare().decisions_lost), (MAX_DECISIONS, 271));
        trail.rewind(mark);
        assert_eq!(seen(&trail), expect(&[("list", 24)], 76));
    }

    #[test]
    fn decisions_keep_their_order_are_bounded_and_rewind() {
        let mut trail = Trail::default();
        let fact = |n: usize| DecisionFact::new("test", Some(n.to_string().into()), Verdict::allow());
        let actions = |trail: &Trail| {
            trail.decisions.iter().map(|fact| fact.action.as_deref().unwrap().into()).collect::<Vec<String>>()
        };
        let empty = trail.mark();
        trail.decided(fact(0));
        let one = trail.mark();
        for n in 1..MAX_DECISIONS + 3 {
            trail.decided(fact(n));
        }
        assert_eq!(actions(&trail), (0..MAX_DECISIONS).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(trail.rare().decisions_lost, 3);
        trail.rewind(one);
        assert_eq!((actions(&trail), trail.rare().decisions_lost), (vec!["0".to_owned()], 0));
        trail.rewind(empty);
        assert!(trail.decisions.is_empty());
        trail.decided(fact(7));
        trail.rewind(empty);
        assert!(trail.decisions.is_empty());
        trail.directed(&Verdict::allow().obliging("mask"));
        let masked = trail.mark();
        trail.directed(&Verdict::allow().obliging("log").advising("ask"));
        trail.directed(&Verdict::deny("no").obliging("never"));
        let asked = |trail: &Trail| {
            let kept = &trail.rare().directives;
            (kept.obligations.len(), kept.advice.len())
        };
        assert_eq!(asked(&trail), (2, 1));
        trail.rewind(masked);
        assert_eq!(asked(&trail), (1, 0));
    }
}
