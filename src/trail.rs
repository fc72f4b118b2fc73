//! What a request's stages, policies and handler leave for the audit record.

use std::{borrow::Cow, sync::Arc};

use crate::policy::{Decision, Verdict};

/// The most notes that a request keeps; later ones are counted, not kept.
pub const MAX_NOTES: usize = 16;
/// The longest name and the longest value of a note, in bytes; the rest is cut off.
pub const MAX_NOTE_LEN: usize = 256;

/// One decision: who was asked, what, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct DecisionFact {
    pub(crate) backend: &'static str,
    pub(crate) decision: Decision,
    pub(crate) action: Option<Box<str>>,
    pub(crate) rule: Option<Arc<str>>,
    pub(crate) reasons: Vec<Cow<'static, str>>,
}

impl DecisionFact {
    pub(crate) fn of(backend: &'static str, action: Option<&str>, verdict: &Verdict) -> Self {
        Self {
            backend,
            decision: verdict.decision(),
            action: action.map(Into::into),
            rule: verdict.rule().cloned(),
            reasons: verdict.reasons().to_vec(),
        }
    }
}

/// Facts for the record that no stage needs again.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) decisions: Vec<DecisionFact>,
    pub(crate) decisions_lost: u32,
    pub(crate) notes: Vec<(Box<str>, Box<str>)>,
    pub(crate) notes_lost: u32,
    pub(crate) flags: Vec<&'static str>,
}

/// The most decisions that a request keeps: a handler may ask in a loop.
const MAX_DECISIONS: usize = 32;

impl Trail {
    pub(crate) fn decided(&mut self, fact: DecisionFact) {
        if self.decisions.len() < MAX_DECISIONS {
            self.decisions.push(fact);
        } else {
            self.decisions_lost = self.decisions_lost.saturating_add(1);
        }
    }

    pub(crate) fn note(&mut self, name: &str, value: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push((cut(name).into(), cut(value).into()));
        } else {
            self.notes_lost = self.notes_lost.saturating_add(1);
        }
    }

    /// Marks the request with a word such as `credential_over_plain_http`, once.
    pub(crate) fn flag(&mut self, flag: &'static str) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_NOTE_LEN)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_in_number_and_length() {
        let mut trail = Trail::default();
        for _ in 0..=MAX_NOTES {
            trail.note("name", &"ä".repeat(MAX_NOTE_LEN));
        }
        assert_eq!((trail.notes.len(), trail.notes_lost), (MAX_NOTES, 1));
        assert!(trail.notes.iter().all(|(_, value)| value.len() <= MAX_NOTE_LEN));
    }
}
