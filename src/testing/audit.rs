use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    audit::{AuditDecision, AuditEntry, AuditOutcome, AuditRecord, AuditSink, Lost, sample},
    error::StoreError,
    policy::Decision,
    rejection::RejectionKind,
};

/// An audit sink that keeps every entry in memory. Clones share the entries.
///
/// ```
/// use portcullis::{audit::AuditSink, testing::{Captured, sample_record}};
///
/// let captured = Captured::new();
/// captured.accept(sample_record("/orders").into()).unwrap();
/// assert_eq!(captured.records()[0].path(), "/orders");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Captured {
    entries: Arc<Mutex<Vec<AuditEntry>>>,
}

impl Captured {
    /// Creates an empty one.
    #[must_use]
    pub fn new() -> Self {
        super::not_for_production();
        Self::default()
    }

    /// The records of requests so far, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        self.lock().iter().filter_map(|entry| entry.decided().cloned()).collect()
    }

    /// All entries so far, in the order in which they came. Events are those of the process: of tests that run beside this one as well.
    #[must_use]
    pub fn entries(&self) -> Vec<AuditEntry> {
        self.lock().clone()
    }

    /// Takes the records of requests out, and drops the other entries.
    #[must_use]
    pub fn take(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut *self.lock()).iter().filter_map(|entry| entry.decided().cloned()).collect()
    }

    /// Takes the one record of the one request since they were last taken, and sees that it was allowed.
    ///
    /// # Panics
    /// If there is no record, or more than one, or the request was not allowed.
    #[expect(clippy::must_use_candidate, reason = "the assertion alone will do")]
    #[track_caller]
    pub fn assert_allowed(&self) -> AuditRecord {
        let record = self.one();
        let (outcome, reason) = (record.outcome().as_str(), record.rejection_reason().unwrap_or("no reason"));
        assert!(record.outcome() == AuditOutcome::Allowed, "{} was {outcome}: {reason}", record.path());
        record
    }

    /// Takes the one record of the one request since they were last taken, and sees that it was denied, and by this. It is
    /// - what the rule of the route demands, as `Stack::matrix` and the reports write it: `role manager`, `permission orders:edit`;
    /// - the action that a policy denied, to the rule or to the handler's `Authorizer`: `orders:edit`;
    /// - the rule of a policy that forbids, where one does and is named: `no-refunds` of a `deny` or a `forbid`. Want of a grant is no rule.
    ///
    /// Decisions that are [not enforced](crate::audit::AuditDecision::is_enforced) do not count: what a handler asked in order to show
    /// it (`Authorizer::allows`), a policy in shadow. What a `filter` left out does.
    ///
    /// A refusal of another kind than `403` and `404` is for [`assert_refused`](Self::assert_refused), but for a missing step-up.
    ///
    /// # Panics
    /// If there is no record, or more than one, or the request was not denied, or by something else, which is told.
    #[track_caller]
    pub fn assert_denied_by(&self, rule: &str) -> AuditRecord {
        let record = self.one();
        let (outcome, path) = (record.outcome().as_str(), record.path());
        assert!(record.outcome() == AuditOutcome::Denied, "{path} was {outcome}, not denied");
        let mut by: Vec<String> =
            record.rejection_reason().and_then(demanded).map(ToOwned::to_owned).into_iter().collect();
        let denied = |decision: &AuditDecision<'_>| decision.is_enforced() && decision.decision() == Decision::Deny;
        for denial in record.decisions().filter(denied) {
            by.extend(
                denial.rules().map(|rule| rule.into_owned()).chain(denial.action().map(|action| action.into_owned())),
            );
        }
        assert!(by.iter().any(|held| held == rule), "{path} was denied by {by:?}, not by {rule:?}");
        record
    }

    /// Takes the one record of the one request since they were last taken, and sees that it was refused in this way: as a bad
    /// credential, over a limit, because a backend did not answer.
    ///
    /// # Panics
    /// If there is no record, or more than one, or the request was not refused, or in another way, which is told with its reason.
    #[expect(clippy::must_use_candidate, reason = "the assertion alone will do")]
    #[track_caller]
    pub fn assert_refused(&self, kind: RejectionKind) -> AuditRecord {
        let record = self.one();
        let (held, reason) = (record.rejection(), record.rejection_reason().unwrap_or("no reason"));
        assert!(held == Some(kind), "{} was refused as {held:?} ({reason}), not as {kind:?}", record.path());
        record
    }

    /// Takes the one record of the one request since they were last taken.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn one(&self) -> AuditRecord {
        let mut records = self.take();
        assert!(records.len() == 1, "one request leaves one record, not {}", records.len());
        match records.pop() {
            Some(record) => record,
            None => unreachable!("it was counted"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<AuditEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditSink for Captured {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.lock().push(entry);
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What the rule of a route demands, of the reason for which it refused.
fn demanded(reason: &str) -> Option<&str> {
    [
        "does not meet ",
        "scopes do not reach for ",
        "not proved strongly or lately enough for ",
        "no log-in makes the credential strong enough for ",
    ]
    .into_iter()
    .find_map(|refuses| reason.strip_prefix(refuses))
}

/// A record to try a sink with: a GET of this path that was allowed, with a request id of its own.
#[must_use]
pub fn sample_record(path: &str) -> AuditRecord {
    sample(path)
}
