//! A sink that keeps the records of requests.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use portcullis::{
    StoreError,
    audit::{AuditEntry, AuditRecord, AuditSink, Lost},
};

/// Clones keep them in one place.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Vec<AuditRecord>>>);

impl Kept {
    pub fn all(&self) -> Vec<AuditRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn take(&self) -> Vec<AuditRecord> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the one record that there must be.
    #[track_caller]
    pub fn one(&self, name: &str) -> AuditRecord {
        only(self.take(), name)
    }

    /// The one record that there must be, which stays.
    #[track_caller]
    pub fn only(&self) -> AuditRecord {
        only(self.all(), "a request")
    }
}

#[track_caller]
fn only(records: Vec<AuditRecord>, name: &str) -> AuditRecord {
    match <[AuditRecord; 1]>::try_from(records) {
        Ok([record]) => record,
        Err(records) => panic!("{name}: exactly one record: {records:?}"),
    }
}

#[async_trait]
impl AuditSink for Kept {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(entry.decided().cloned());
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
