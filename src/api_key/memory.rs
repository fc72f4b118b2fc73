use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use foldhash::fast::RandomState;

use crate::{
    api_key::{ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, Found, KeyId, MAX_PAGE, Revocation},
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    now::Now,
};

const NAME: &str = "memory";

/// Keys in memory: for tests, and for services whose keys come from their configuration. Gone when the process ends.
///
/// It answers at once, and holds what its owner inserts: nothing that a client sends makes it grow. Share it as
/// `Arc<MemoryKeyStore>`.
///
/// ```
/// use std::sync::Arc;
/// use portcullis::api_key::{ApiKeyAuthenticator, MemoryKeyStore};
///
/// let store = Arc::new(MemoryKeyStore::new());
/// let authenticator = ApiKeyAuthenticator::new(Arc::clone(&store));
/// # let _ = authenticator;
/// ```
#[derive(Default)]
pub struct MemoryKeyStore {
    records: RwLock<HashMap<KeyId, Arc<ApiKeyRecord>, RandomState>>,
    /// The same ids in order, so that a page costs its own length. Locked before `records` where both are.
    ids: Mutex<BTreeSet<KeyId>>,
}

impl MemoryKeyStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`Conflict`](StoreErrorKind::Conflict) if the id exists.
    pub fn add(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        let id = *record.id();
        let record = Arc::new(record);
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.insert(id) {
            return Err(StoreError::new(StoreErrorKind::Conflict, NAME));
        }
        self.records.write().unwrap_or_else(PoisonError::into_inner).insert(id, record);
        Ok(())
    }

    /// How many keys there are, revoked and expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, id: &KeyId) -> Option<Arc<ApiKeyRecord>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn revoke_now(&self, id: &KeyId, at: Instants, reason: &str) -> bool {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = records.get_mut(id) else { return false };
        if record.revocation().is_none() {
            let revocation = Revocation::new(at.unix_seconds(), reason);
            *record = Arc::new(ApiKeyRecord::clone(record).with_revocation(revocation));
        }
        true
    }

    fn page(&self, after: Option<&KeyId>, limit: usize) -> Vec<Arc<ApiKeyRecord>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page: Vec<KeyId> = {
            let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.range((start, Bound::Unbounded)).take(limit.min(MAX_PAGE)).copied().collect()
        };
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        page.iter().filter_map(|id| records.get(id).cloned()).collect()
    }
}

#[async_trait]
impl ApiKeyStore for MemoryKeyStore {
    fn find_now(&self, id: &KeyId) -> Now<Found> {
        Now::Known(Ok(self.get(id)))
    }

    async fn find(&self, id: &KeyId) -> Found {
        Ok(self.get(id))
    }
}

#[async_trait]
impl ApiKeyAdmin for MemoryKeyStore {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.add(record)
    }

    async fn revoke(&self, id: &KeyId, at: Instants, reason: &str) -> Result<bool, StoreError> {
        Ok(self.revoke_now(id, at, reason))
    }

    async fn list(&self, after: Option<&KeyId>, limit: usize) -> Result<Vec<Arc<ApiKeyRecord>>, StoreError> {
        Ok(self.page(after, limit))
    }
}

impl fmt::Debug for MemoryKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeyStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::KeyHash;

    fn record(byte: u8) -> ApiKeyRecord {
        ApiKeyRecord::new(KeyId::from_bytes([byte; 10]), KeyHash::from_bytes([byte; 32]), "billing", 100, None)
    }

    #[test]
    fn a_page_is_bounded_whatever_is_asked() {
        let store = MemoryKeyStore::new();
        for number in 0..=u16::try_from(MAX_PAGE).unwrap() {
            let [high, low] = number.to_be_bytes();
            let id = KeyId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, high, low]);
            store.add(ApiKeyRecord::new(id, KeyHash::from_bytes([0; 32]), "billing", 0, None)).unwrap();
        }
        let page = store.page(None, usize::MAX);
        assert_eq!(page.len(), MAX_PAGE);
        assert_eq!(store.page(page.last().map(|record| record.id()), usize::MAX).len(), 1);
        assert!(store.page(None, 0).is_empty());
    }

    #[test]
    fn a_poisoned_lock_still_answers() {
        let store = Arc::new(MemoryKeyStore::new());
        store.add(record(1)).unwrap();
        let other = Arc::clone(&store);
        let thread = std::thread::spawn(move || {
            let (_ids, _records) = (other.ids.lock().unwrap(), other.records.write().unwrap());
            panic!("poisons both locks");
        });
        assert!(thread.join().is_err());
        assert!(store.get(&KeyId::from_bytes([1; 10])).is_some());
        assert!(store.add(record(2)).is_ok());
        assert!(store.revoke_now(&KeyId::from_bytes([1; 10]), Instants::new(0, 0), "test"));
        assert_eq!(store.page(None, 10).len(), 2);
    }
}
