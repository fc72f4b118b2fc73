use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    audit::{AuditEntry, AuditOutcome, AuditRecord, AuditSink, Lost, sample},
    error::StoreError,
    policy::Decision,
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

    /// All entries so far, in the order in which they came.
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

    /// Takes the one record of the one request since they were last taken, and sees that it was refused by a policy, and by
    /// this rule of it.
    ///
    /// # Panics
    /// If there is no record, or more than one, or the request was allowed, or no policy's denial names the rule.
    #[expect(clippy::must_use_candidate, reason = "the assertion alone will do")]
    #[track_caller]
    pub fn assert_denied_by(&self, rule: &str) -> AuditRecord {
        let record = self.one();
        let (outcome, path) = (record.outcome().as_str(), record.path());
        assert!(record.outcome() == AuditOutcome::Denied, "{path} was {outcome}, not denied");
        let denials = record.decisions().filter(|decision| decision.decision() == Decision::Deny);
        let rules: Vec<String> =
            denials.flat_map(|denial| denial.rules().map(|rule| rule.into_owned()).collect::<Vec<_>>()).collect();
        assert!(rules.iter().any(|held| held == rule), "{path} was denied by {rules:?}, not by {rule:?}");
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

/// A record to try a sink with: a GET of this path that was allowed, with a request id of its own.
#[must_use]
pub fn sample_record(path: &str) -> AuditRecord {
    sample(path)
}
