mod content;
mod disk;
mod document;
mod shared;
mod watch;

use std::{
    fmt,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use tokio::runtime::Handle;

use self::{shared::Shared, watch::TaskMark};
use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyFilter, KeyId, KeyUse, Lookup, Owner,
        Revocation, Rotation,
    },
    clock::Instants,
    error::{ConfigError, StoreError, StoreErrorKind},
    now::Now,
};

const NAME: &str = "file";

/// Keys in a file, TOML or JSON by its ending: for services with up to some ten thousand keys that change now and then, by
/// hand, by configuration management or through this store, and for several processes on one machine.
///
/// # Reading
/// The file is read whole, and answers come from memory, at once. A task looks at the file every second, by time of
/// modification, length and inode, and takes it in if it has changed: checked first, then in one step. A file that is broken,
/// or gone, changes nothing: what was read before stays, and [`health`](Self::health), the log and a counter tell; changes
/// through the store are refused until it is repaired. The task begins with [`open`](Self::open) or the first look-up within a
/// tokio runtime, and ends when the store is dropped. If that runtime ends first, [`Lost`](crate::api_key::KeyChange::Lost) is
/// published, and the next look-up begins the task in its own. The runtime needs its timer: without it nobody looks, and
/// `health`, the log and `Lost` say so. [`reload`](Self::reload) reads the file at once.
///
/// # Format
/// Strict: unknown fields, two records with one id and a text that is not whole are errors with file, line and key. The fields
/// of a key are those of [`RecordFields`](crate::api_key::RecordFields). A key is added to at most 64 MiB, as
/// [`Unavailable`](StoreErrorKind::Unavailable) else; up to 128 MiB are read, so that what is full can still be revoked and purged. On
/// Unix, a file that everybody may write is refused.
///
/// ```toml
/// version = 1
///
/// [[disabled]]                # owners; tenant if there is one
/// subject = "shipping"
/// at = 1800000000
/// reason = "left"
///
/// [[keys]]
/// id = "000g40r40m30e209"
/// scheme = "sha256"
/// hash = "0202020202020202020202020202020202020202020202020202020202020202"
/// subject = "billing"
/// scopes = ["orders:read"]
/// created = 1800000000
/// expires = "never"           # or seconds since the Unix epoch
///
/// [end]                       # the last table of the file: without it, it was cut off
/// ```
///
/// In JSON the same is `{"version": 1, "disabled": [..], "keys": [..]}`, which its last brace ends.
///
/// # Writing
/// A change writes the file anew: beside it, synced, and renamed into its place. It is readable by the owner alone, and by the group that
/// reads it now. The owner stays the same: root may make a change, another user may not. A crash leaves the old text or the new one.
/// Comments are lost. Writers of all processes take turns by a lock on the file `<name>.lock` beside it, which the system lets go when a process dies; each reads what the one before it wrote. An editor takes no lock:
/// its change is not overwritten if it was saved before the writing began, and the other way round is the editor's to tell.
/// Locks hold on one machine: over NFS, let one machine write. After 5 s without the lock the change fails as
/// [`Unavailable`](StoreErrorKind::Unavailable).
///
/// Last uses are written with the next change, or once a minute, or by [`flush`](Self::flush): a process that dies loses a
/// minute of them.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use portcullis::{Instants, api_key::{ApiKeyAuthenticator, FileKeyStore, NewApiKey}};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("keys.toml");
/// let store = Arc::new(FileKeyStore::create(&path)?);
/// let keys = ApiKeyAuthenticator::new(Arc::clone(&store));
/// let (key, _) = keys.issuer().issue(&store, NewApiKey::for_subject("billing"), Instants::new(0, 0)).await?;
///
/// let elsewhere = FileKeyStore::open(&path)?;
/// assert_eq!(elsewhere.health().keys, 1);
/// # drop(key);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct FileKeyStore {
    shared: Arc<Shared>,
}

/// How a [`FileKeyStore`] is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileHealth {
    /// Keys that it has, revoked and expired ones included.
    pub keys: usize,
    /// How often a new text was taken in.
    pub loads: u64,
    /// How often the file could not be read or was broken.
    pub failures: u64,
    /// What is wrong with the file now, by file and line, or why nobody looks at it; what was read before is in use. None if
    /// nothing is.
    pub failing: Option<Arc<str>>,
}

impl FileKeyStore {
    /// Reads a file, which must be there.
    ///
    /// # Errors
    /// If it ends neither in `.toml` nor in `.json`, cannot be read, may be written by everybody, or is not valid: the error
    /// names file, line and key.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let store = Self { shared: Shared::open(path.as_ref())? };
        store.start();
        Ok(store)
    }

    /// What [`open`](Self::open) would refuse; nothing is kept or started.
    #[cfg(feature = "config")]
    pub(crate) fn check(path: impl AsRef<Path>) -> Result<(), ConfigError> {
        Shared::open(path.as_ref()).map(drop)
    }

    /// Makes a file without keys, and opens it.
    ///
    /// # Errors
    /// If it is there already, or cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Shared::create(path.as_ref())?;
        Self::open(path)
    }

    /// Reads the file now. Whether its text was another one.
    ///
    /// # Errors
    /// [`Corrupt`](StoreErrorKind::Corrupt) if it is not valid, [`Unavailable`](StoreErrorKind::Unavailable) if it cannot be
    /// read; what was read before stays.
    pub async fn reload(&self) -> Result<bool, StoreError> {
        self.blocking(Shared::reload).await
    }

    /// Writes the last uses that are not in the file yet.
    ///
    /// # Errors
    /// If the file cannot be written; they stay in memory then.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.blocking(Shared::flush).await
    }

    /// What it holds, and whether the file is in order.
    #[must_use]
    pub fn health(&self) -> FileHealth {
        self.shared.health()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.path()
    }

    /// Starts the task that looks at the file, if it does not run and there is a runtime for it.
    fn start(&self) {
        if !self.shared.has_task.load(Relaxed)
            && let Ok(runtime) = Handle::try_current()
            && !self.shared.has_task.swap(true, Relaxed)
        {
            let mark = TaskMark::new(Arc::downgrade(&self.shared));
            runtime.spawn(watch::watch(mark, self.shared.alive.subscribe()));
        }
    }

    /// Runs work on the file. It is not given up half-way if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Ok(runtime) = Handle::try_current() else { return work(&self.shared) };
        let shared = Arc::clone(&self.shared);
        let work = runtime.spawn_blocking(move || work(&shared));
        work.await.map_err(|error| StoreError::new(StoreErrorKind::Unavailable, NAME).caused_by(error))?
    }

    fn find_entry(&self, id: &KeyId) -> Option<Hit> {
        self.start();
        self.shared.content().find(id).cloned()
    }

    fn with_use(&self, hit: Hit) -> Hit {
        self.shared.lock(&self.shared.uses).apply(hit)
    }
}

fn conflict(id: &KeyId) -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, NAME).about(format!("key {id}"))
}

#[async_trait]
impl ApiKeyStore for FileKeyStore {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        Now::Known(Ok(self.find_entry(lookup.id())))
    }

    async fn find(&self, lookup: Lookup) -> Found {
        Ok(self.find_entry(lookup.id()))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.shared.feed)
    }
}

#[async_trait]
impl ApiKeyAdmin for FileKeyStore {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.blocking(move |shared| shared.change(|draft| draft.insert(record.clone()))).await
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        self.blocking(move |shared| shared.change(|draft| draft.rotate(&rotation))).await
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        let (id, revocation) = (*id, revocation.clone());
        self.blocking(move |shared| shared.change(|draft| Ok(draft.revoke(&id, &revocation)))).await
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        let (owner, disablement) = (owner.clone(), disablement.clone());
        self.blocking(move |shared| shared.change(|draft| Ok(draft.disable(owner.clone(), disablement.clone())))).await
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.blocking(move |shared| shared.change(|draft| Ok(draft.enable(owner.clone())))).await
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        Ok(self.shared.content().disabled().get(owner).cloned())
    }

    async fn get(&self, id: &KeyId) -> Found {
        Ok(self.find_entry(id).map(|hit| self.with_use(hit)))
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        let page = self.shared.content().page(filter, after, limit);
        Ok(page.into_iter().map(|hit| self.with_use(hit)).collect())
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        self.blocking(move |shared| shared.change(|draft| Ok(draft.purge(at, kept)))).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        self.start();
        self.shared.lock(&self.shared.uses).note(&self.shared.content(), uses);
        Ok(())
    }
}

impl fmt::Debug for FileKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeyStore").field("path", &self.path()).field("health", &self.health()).finish()
    }
}
