//! Whether the last question to another service had an answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;

use crate::clock::Instants;

/// What the last question found. Who finds all well takes no lock.
#[derive(Debug, Default)]
pub(crate) struct LastAnswer {
    is_failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// Why the last question had no answer, and when it was asked, by the monotonic clock; no time if that question alone may be to blame.
#[derive(Clone, Debug)]
struct Failure {
    cause: Arc<str>,
    asked_at: Option<u64>,
}

/// Whether a status may come from what stands in the question. Whoever brings such a one must not make the service look away.
pub(crate) const fn may_be_the_questions_fault(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 414 | 422 | 431)
}

impl LastAnswer {
    /// How long a question that had no answer says that the service is away. It may be back, and nobody has asked.
    pub(crate) const RECENT: Duration = Duration::from_secs(10);

    pub(crate) fn came(&self) {
        if self.is_failing.load(Ordering::Acquire) {
            self.note(None);
        }
    }

    pub(crate) fn failed(&self, cause: impl Into<Arc<str>>, at: Instants) {
        self.note(Some(Failure { cause: cause.into(), asked_at: Some(at.monotonic_nanos()) }));
    }

    /// There was no answer to this question, and there may be one to others: a failure, and never a recent one. It does not cover up
    /// one that is.
    pub(crate) fn doubted(&self, cause: impl Into<Arc<str>>, at: Instants) {
        if self.recent_failure(at).is_none() {
            self.note(Some(Failure { cause: cause.into(), asked_at: None }));
        }
    }

    fn note(&self, failure: Option<Failure>) {
        let mut held = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_failing.store(failure.is_some(), Ordering::Release);
        *held = failure;
    }

    /// Why the last question had no answer; none if it had one, or none was asked.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.held().map(|failure| failure.cause)
    }

    /// The same if that question was asked within [`RECENT`](Self::RECENT).
    pub(crate) fn recent_failure(&self, at: Instants) -> Option<Arc<str>> {
        let age = |asked_at: u64| Duration::from_nanos(at.monotonic_nanos().saturating_sub(asked_at));
        let is_recent = |failure: &Failure| failure.asked_at.is_some_and(|asked_at| age(asked_at) < Self::RECENT);
        self.held().filter(is_recent).map(|failure| failure.cause)
    }

    fn held(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
