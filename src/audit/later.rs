//! What comes after the record: a handler that outlasts the head of its answer, a WebSocket's or a stream's, decides and notes on.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    audit::{
        AuditEntry, AuditIdentity, AuditLater, Personal, entry::LaterFacts, guard::Recorder, sink::accept_quietly,
    },
    context::{Afterwards, RequestId},
    mention::Telling,
    trail::{DecisionFact, MAX_NOTES, Trail},
};

/// How long decisions of one request are counted together, in nanoseconds: a minute.
const WINDOW: u64 = 60_000_000_000;
/// The most kinds of decisions that are told apart in that time.
const MAX_KINDS: usize = 16;
/// The most refusals that have an entry each in that time.
const MAX_REFUSALS: usize = 32;

/// Writes the entries of one request after its record. The last counts are written when nobody holds the request's context any
/// more.
pub(crate) struct Later {
    recorder: Arc<Recorder>,
    request_id: RequestId,
    subject: Option<AuditIdentity>,
    by_stranger: bool,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    /// By the monotonic clock; None before the first fact.
    began: Option<u64>,
    kinds: Vec<Kind>,
    refusals: usize,
    notes: usize,
    /// What is neither told nor counted by its kind.
    decisions_lost: u32,
    notes_lost: u32,
}

/// Decisions that are alike, and how many of them have no entry.
struct Kind {
    first: DecisionFact,
    more: u64,
}

/// One entry, before it has a time.
#[derive(Default)]
struct Draft {
    trail: Trail,
    count: Option<u64>,
}

impl Draft {
    fn of(fact: DecisionFact, count: Option<u64>) -> Self {
        let mut draft = Self { count, ..Self::default() };
        match count {
            None => draft.trail.decided(fact),
            // What policies in the shadow said may have differed each time.
            Some(_) => draft.trail.keep(fact),
        }
        draft
    }
}

impl Window {
    /// Begins anew where the time is over, and tells what was only counted in it.
    fn turn(&mut self, now: u64, out: &mut Vec<Draft>) {
        if self.began.is_none_or(|began| now.saturating_sub(began) >= WINDOW) {
            mem::replace(self, Self { began: Some(now), ..Self::default() }).close(out);
        }
    }

    fn decided(&mut self, fact: DecisionFact, out: &mut Vec<Draft>) {
        // Each refusal is told, as long as there is room; of what is allowed, the first of its kind.
        let told = fact.is_refusal() && self.refusals < MAX_REFUSALS;
        self.refusals = self.refusals.saturating_add(usize::from(told));
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.first.is_like(&fact)) {
            if told {
                out.push(Draft::of(fact, None));
            } else {
                kind.more = kind.more.saturating_add(1);
            }
        } else if self.kinds.len() < MAX_KINDS {
            self.kinds.push(Kind { first: fact.clone(), more: 0 });
            out.push(Draft::of(fact, None));
        } else if told {
            out.push(Draft::of(fact, None));
        } else {
            self.decisions_lost = self.decisions_lost.saturating_add(1);
        }
    }

    fn noted(&mut self, name: &str, told: Telling, out: &mut Vec<Draft>) {
        if self.notes >= MAX_NOTES {
            self.notes_lost = self.notes_lost.saturating_add(1);
            return;
        }
        self.notes = self.notes.saturating_add(1);
        let mut draft = Draft::default();
        draft.trail.note_telling(name, told);
        out.push(draft);
    }

    fn close(self, out: &mut Vec<Draft>) {
        let counted = self.kinds.into_iter().filter(|kind| kind.more > 0);
        out.extend(counted.map(|kind| Draft::of(kind.first, Some(kind.more))));
        if self.decisions_lost > 0 || self.notes_lost > 0 {
            let mut draft = Draft::default();
            draft.trail.lose(self.decisions_lost, self.notes_lost);
            out.push(draft);
        }
    }
}

impl Later {
    pub(crate) fn new(
        recorder: Arc<Recorder>,
        request_id: RequestId,
        subject: Option<AuditIdentity>,
        by_stranger: bool,
    ) -> Self {
        Self { recorder, request_id, subject, by_stranger, window: Mutex::default() }
    }

    /// Changes the window, and writes what comes of it with the window let go.
    fn write(&self, change: impl FnOnce(&mut Window, u64, &mut Vec<Draft>)) {
        // The clock and the sink are not all ours, and this may be a destructor.
        let _ = accept_quietly(|| {
            let now = self.recorder.clock.now();
            let mut drafts = Vec::new();
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut window, now.monotonic_nanos(), &mut drafts);
            drop(window);
            let mut handed_over = Ok(());
            for Draft { trail, count } in drafts {
                let entry = AuditEntry::Later(AuditLater::new(LaterFacts {
                    unix_nanos: now.unix_nanos(),
                    request_id: self.request_id,
                    subject: self.subject.clone(),
                    by_stranger: self.by_stranger,
                    trail,
                    count,
                    privacy: self.recorder.privacy.clone(),
                }));
                handed_over = handed_over.and(self.recorder.sink.accept(entry));
            }
            handed_over
        });
    }
}

impl Afterwards for Later {
    fn decided(&self, fact: DecisionFact) {
        self.write(|window, now, out| {
            window.turn(now, out);
            window.decided(fact, out);
        });
    }

    fn noted(&self, name: &str, told: Telling) {
        if self.recorder.privacy.as_ref().is_some_and(|privacy| privacy.omits(Personal::Notes)) {
            return;
        }
        self.write(|window, now, out| {
            window.turn(now, out);
            window.noted(name, told, out);
        });
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        let counted = self.window.get_mut().unwrap_or_else(PoisonError::into_inner);
        if counted.began.is_some() {
            self.write(|window, _, out| mem::take(window).close(out));
        }
    }
}
