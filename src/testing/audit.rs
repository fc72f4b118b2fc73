use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{
    audit::{AuditRecord, AuditSink, Lost, sample},
    error::StoreError,
};

/// An audit sink that keeps every record in memory. Clones share the records.
///
/// ```
/// use portcullis::{audit::AuditSink, testing::{Captured, sample_record}};
///
/// let captured = Captured::new();
/// captured.accept(sample_record("/orders")).unwrap();
/// assert_eq!(captured.records()[0].path(), "/orders");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Captured {
    records: Arc<Mutex<Vec<AuditRecord>>>,
}

impl Captured {
    /// Creates an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The records so far, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> Vec<AuditRecord> {
        self.lock().clone()
    }

    /// Takes the records out.
    #[must_use]
    pub fn take(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<AuditRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditSink for Captured {
    fn accept(&self, record: AuditRecord) -> Result<(), Lost> {
        self.lock().push(record);
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
