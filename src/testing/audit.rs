use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    audit::{AuditEntry, AuditRecord, AuditSink, Lost, sample},
    error::StoreError,
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
