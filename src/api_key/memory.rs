use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyChange, KeyFilter, KeyId, KeyUse, Lookup,
        MAX_PAGE, Owner, Revocation, Rotation,
        table::{Entry, Table},
    },
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    now::Now,
};

const NAME: &str = "memory";
const SHARDS: usize = 256;

/// Keys in memory: for tests, and for services whose keys come from their configuration. Gone when the process ends.
///
/// It answers at once, and holds what its owner inserts: no key that a client sends makes it grow. Share it as
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
pub struct MemoryKeyStore {
    /// By the first byte of the id, so that the shards are in the order of the ids.
    shards: Box<[Shard]>,
    /// The owners that are disabled. Held while anything changes: one change at a time.
    disabled: Mutex<HashMap<Owner, Revocation>>,
    changes: ChangeFeed,
}

/// In a cache line of its own: two requests for keys of two shards do not meet.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Table>);

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
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
        {
            let disabled = self.change();
            self.add_to(&disabled, record)?;
        }
        self.changes.publish(&KeyChange::Key(id));
        Ok(())
    }

    /// How many keys there are, revoked and expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: &KeyId) -> Option<&Shard> {
        let [first, ..] = *id.as_bytes();
        self.shards.get(usize::from(first))
    }

    fn find_entry(&self, id: &KeyId) -> Option<Hit> {
        self.shard(id)?.read().get(id).map(Entry::hit)
    }

    /// Begins a change.
    fn change(&self) -> MutexGuard<'_, HashMap<Owner, Revocation>> {
        self.disabled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_to(&self, disabled: &HashMap<Owner, Revocation>, record: ApiKeyRecord) -> Result<(), StoreError> {
        let id = *record.id();
        let conflict = || StoreError::new(StoreErrorKind::Conflict, NAME).about(format!("key {id}"));
        let entry = Entry::new(record, false);
        let entry = Entry { owner_disabled: disabled.contains_key(entry.record.owner()), ..entry };
        let mut shard = self.shard(&id).ok_or_else(conflict)?.write();
        if shard.get(&id).is_some() {
            return Err(conflict());
        }
        shard.replace(entry);
        Ok(())
    }

    /// Puts what `change` makes of a record in its place, if it makes something of it. False if there is no such key.
    fn replace(&self, id: &KeyId, change: impl FnOnce(&ApiKeyRecord) -> Option<ApiKeyRecord>) -> bool {
        let Some(shard) = self.shard(id) else { return false };
        // Made outside the lock: changes come one at a time, so nobody else changes it meanwhile.
        let Some(hit) = self.find_entry(id) else { return false };
        if let Some(record) = change(hit.record()) {
            let old = shard.write().replace(Entry::new(record, hit.owner_disabled()));
            drop(old);
        }
        true
    }

    fn rotate_now(&self, rotation: Rotation) -> Result<bool, StoreError> {
        let (old, new) = (*rotation.old(), *rotation.record().id());
        {
            let disabled = self.change();
            let Some(hit) = self.find_entry(&old) else { return Ok(false) };
            let Some(shortened) = rotation.shorten(hit.record()) else {
                return Err(StoreError::new(StoreErrorKind::Conflict, NAME).about(format!("key {old}")));
            };
            self.add_to(&disabled, rotation.record().clone())?;
            self.replace(&old, |_| Some(shortened));
        }
        self.changes.publish(&KeyChange::Key(old));
        self.changes.publish(&KeyChange::Key(new));
        Ok(true)
    }

    fn revoke_now(&self, id: &KeyId, revocation: &Revocation) -> bool {
        let exists = {
            let _changing = self.change();
            self.replace(id, |record| record.revocation().is_none().then(|| record.revoked(revocation)))
        };
        if exists {
            self.changes.publish(&KeyChange::Key(*id));
        }
        exists
    }

    /// Disables the owner, or enables them. Whether that changed anything.
    fn set_owner(&self, owner: &Owner, disablement: Option<&Revocation>) -> bool {
        {
            let mut disabled = self.change();
            match disablement {
                Some(_) if disabled.contains_key(owner) => return false,
                Some(disablement) => {
                    disabled.insert(owner.clone(), disablement.clone());
                }
                None if disabled.remove(owner).is_none() => return false,
                None => {}
            }
            for shard in &self.shards {
                for entry in shard.write().iter_mut().filter(|entry| entry.record.owner() == owner) {
                    entry.owner_disabled = disablement.is_some();
                }
            }
        }
        self.changes.publish(&KeyChange::Owner(owner.clone()));
        true
    }

    fn page(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Vec<Hit> {
        let limit = limit.min(MAX_PAGE);
        let first = after.map_or(0, |id| usize::from(id.as_bytes()[0]));
        let mut page = Vec::new();
        for shard in self.shards.iter().skip(first) {
            if page.len() >= limit {
                break;
            }
            let start = page.len();
            let shard = shard.read();
            let entries = shard.iter().filter(|entry| after.is_none_or(|after| *after < entry.id));
            page.extend(entries.map(Entry::hit).filter(|hit| filter.fits(hit)));
            drop(shard);
            if let Some(added) = page.get_mut(start..) {
                added.sort_unstable_by_key(|hit| *hit.record().id());
            }
        }
        page.truncate(limit);
        page
    }

    fn purge_now(&self, at: Instants, kept: Duration) -> u64 {
        let before = at.unix_seconds().saturating_sub(kept.as_secs());
        let _changing = self.change();
        let mut purged = 0_u64;
        for shard in &self.shards {
            shard.write().retain(|entry| {
                let stays = entry.record.ended().is_none_or(|end| end >= before);
                purged = purged.saturating_add(u64::from(!stays));
                stays
            });
        }
        purged
    }

    fn record_uses_now(&self, uses: &[KeyUse]) {
        for used in uses {
            let _changing = self.change();
            self.replace(used.id(), |record| Some(record.used(used.last())));
        }
    }
}

impl Default for MemoryKeyStore {
    fn default() -> Self {
        Self {
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
            disabled: Mutex::default(),
            changes: ChangeFeed::new(),
        }
    }
}

#[async_trait]
impl ApiKeyStore for MemoryKeyStore {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        Now::Known(Ok(self.find_entry(lookup.id())))
    }

    async fn find(&self, lookup: Lookup) -> Found {
        Ok(self.find_entry(lookup.id()))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.changes)
    }
}

#[async_trait]
impl ApiKeyAdmin for MemoryKeyStore {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.add(record)
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        self.rotate_now(rotation)
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        Ok(self.revoke_now(id, revocation))
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        Ok(self.set_owner(owner, Some(disablement)))
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        Ok(self.set_owner(owner, None))
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        Ok(self.change().get(owner).cloned())
    }

    async fn get(&self, id: &KeyId) -> Found {
        Ok(self.find_entry(id))
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        Ok(self.page(filter, after, limit))
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        Ok(self.purge_now(at, kept))
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        self.record_uses_now(uses);
        Ok(())
    }
}

impl fmt::Debug for MemoryKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeyStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api_key::{KeyHash, RecordFields};

    fn record(id: [u8; 10]) -> ApiKeyRecord {
        RecordFields::new(KeyId::from_bytes(id), KeyHash::from_bytes([0; 32]), "billing", 100, None).check().unwrap()
    }

    #[test]
    fn a_page_is_bounded_whatever_is_asked() {
        let store = MemoryKeyStore::new();
        for number in 0..=u16::try_from(MAX_PAGE).unwrap() {
            let [high, low] = number.to_be_bytes();
            store.add(record([high, 0, 0, 0, 0, 0, 0, 0, 0, low])).unwrap();
        }
        let all = KeyFilter::all();
        let page = store.page(&all, None, usize::MAX);
        assert_eq!(page.len(), MAX_PAGE);
        assert_eq!(store.page(&all, page.last().map(|hit| hit.record().id()), usize::MAX).len(), 1);
        assert!(store.page(&all, None, 0).is_empty());
    }

    #[test]
    fn a_poisoned_lock_still_answers() {
        let store = Arc::new(MemoryKeyStore::new());
        store.add(record([1; 10])).unwrap();
        let other = Arc::clone(&store);
        let thread = std::thread::spawn(move || {
            let _locks = (other.change(), other.shards[1].write(), other.shards[2].write());
            panic!("poisons the locks");
        });
        assert!(thread.join().is_err());
        let id = KeyId::from_bytes([1; 10]);
        assert!(store.find_entry(&id).is_some());
        assert!(store.add(record([2; 10])).is_ok());
        assert!(store.revoke_now(&id, &Revocation::new(0, "test").unwrap()));
        assert_eq!(store.page(&KeyFilter::all(), None, 10).len(), 2);
    }
}
