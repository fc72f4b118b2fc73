//! A store as somebody else writes one: it waits, fails and tells its changes as the test says.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, StoreError, StoreErrorKind,
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, Found, Hit, KeyChange, KeyFilter, KeyHash, KeyId, KeyUse,
        Lookup, MemoryKeyStore, Owner, RecordFields, Revocation, Rotation,
    },
};
use tokio::sync::watch;

pub const NOW: u64 = 1_800_000_000;

pub fn at(seconds: u64) -> Instants {
    after(Duration::from_secs(seconds))
}

pub fn after(time: Duration) -> Instants {
    let nanos = u64::try_from(time.as_nanos()).unwrap();
    Instants::new(NOW * 1_000_000_000 + nanos, 1_000_000_000_000 + nanos)
}

pub fn id(number: u32) -> KeyId {
    let [a, b, c, d] = number.to_be_bytes();
    // Spread as random ids are.
    KeyId::from_bytes([d, c, b, a, 0, 0, a ^ 7, b ^ 7, c ^ 7, d ^ 7])
}

pub fn owner(number: u32) -> Owner {
    Owner::new(&format!("owner-{}", number % 7)).unwrap()
}

pub fn fields(number: u32) -> RecordFields {
    RecordFields::new(id(number), KeyHash::from_bytes([1; 32]), owner(number).subject(), NOW, None)
}

pub fn record(number: u32) -> ApiKeyRecord {
    fields(number).check().unwrap()
}

pub fn lookup(number: u32, at: Instants) -> Lookup {
    Lookup::new(id(number), at).from_client(Some([198, 51, 100, 7].into()))
}

pub fn leaked() -> Revocation {
    Revocation::new(NOW, "leaked").unwrap()
}

/// As a gate asks: at once if that is possible.
pub async fn find(store: &dyn ApiKeyStore, lookup: Lookup) -> Found {
    match store.find_now(lookup) {
        Now::Known(found) => found,
        Now::Wait => store.find(lookup).await,
    }
}

pub async fn found(store: &dyn ApiKeyStore, number: u32, at: Instants) -> bool {
    find(store, lookup(number, at)).await.unwrap().is_some()
}

/// What the store says at once: whether there is such a key.
pub fn known(store: &dyn ApiKeyStore, number: u32, at: Instants) -> Option<bool> {
    match store.find_now(lookup(number, at)) {
        Now::Known(found) => Some(found.unwrap().is_some()),
        Now::Wait => None,
    }
}

pub async fn active(store: &dyn ApiKeyStore, number: u32, at: Instants) -> bool {
    find(store, lookup(number, at)).await.unwrap().is_some_and(|hit| hit.is_active(at.unix_seconds()))
}

/// Lets all spawned tasks run until they wait.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// What a question is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    Fails(StoreErrorKind),
}

#[derive(Debug)]
pub struct Slow {
    content: MemoryKeyStore,
    feed: Option<ChangeFeed>,
    /// Whether the store's own changes are told.
    pub tells: AtomicBool,
    health: Mutex<Health>,
    gate: watch::Sender<bool>,
    asked: AtomicUsize,
}

impl Slow {
    fn new(feed: Option<ChangeFeed>) -> Self {
        Self {
            content: MemoryKeyStore::new(),
            feed,
            tells: AtomicBool::new(true),
            health: Mutex::new(Health::Well),
            gate: watch::Sender::new(true),
            asked: AtomicUsize::new(0),
        }
    }

    pub fn with_feed() -> Self {
        Self::new(Some(ChangeFeed::new()))
    }

    pub fn without_feed() -> Self {
        Self::new(None)
    }

    pub fn lost() -> Self {
        Self::new(Some(ChangeFeed::new_lost()))
    }

    /// How often `find` was called.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    pub fn set(&self, health: Health) {
        *self.health.lock().unwrap() = health;
    }

    /// Holds the answers back, read as they are.
    pub fn close(&self) {
        self.gate.send_replace(false);
    }

    pub fn open(&self) {
        self.gate.send_replace(true);
    }

    pub fn tell(&self, change: &KeyChange) {
        if let Some(feed) = self.feed.as_ref().filter(|_| self.tells.load(SeqCst)) {
            feed.publish(change);
        }
    }

    /// What another process does: no caller of ours, and told only if the feed is.
    pub fn add(&self, record: ApiKeyRecord) {
        let id = *record.id();
        self.content.add(record).unwrap();
        self.tell(&KeyChange::Key(id));
    }

    pub async fn revoke_elsewhere(&self, number: u32) {
        assert!(self.content.revoke(&id(number), &leaked()).await.unwrap());
        self.tell(&KeyChange::Key(id(number)));
    }

    fn ill(&self) -> Result<(), StoreError> {
        match *self.health.lock().unwrap() {
            Health::Well => Ok(()),
            Health::Fails(kind) => Err(StoreError::new(kind, "slow").caused_by("no route to host")),
        }
    }
}

#[async_trait]
impl ApiKeyStore for Slow {
    async fn find(&self, lookup: Lookup) -> Found {
        self.asked.fetch_add(1, SeqCst);
        let read = self.ill().map(|()| self.content.find_now(lookup));
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.unwrap();
        tokio::task::yield_now().await;
        match read? {
            Now::Known(found) => found,
            Now::Wait => unreachable!("memory answers at once"),
        }
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        self.feed.as_ref()
    }
}

#[async_trait]
impl ApiKeyAdmin for Slow {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        self.ill()?;
        let id = *record.id();
        self.content.insert(record).await?;
        self.tell(&KeyChange::Key(id));
        Ok(())
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        self.ill()?;
        let (old, new) = (*rotation.old(), *rotation.record().id());
        let exists = self.content.rotate(rotation).await?;
        self.tell(&KeyChange::Key(old));
        self.tell(&KeyChange::Key(new));
        Ok(exists)
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        let exists = self.content.revoke(id, revocation).await?;
        self.ill()?; // what did not answer may have done it
        self.tell(&KeyChange::Key(*id));
        Ok(exists)
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        self.ill()?;
        let new = self.content.disable_owner(owner, disablement).await?;
        self.tell(&KeyChange::Owner(owner.clone()));
        Ok(new)
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        self.ill()?;
        let was = self.content.enable_owner(owner).await?;
        self.tell(&KeyChange::Owner(owner.clone()));
        Ok(was)
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        self.content.disablement(owner).await
    }

    async fn get(&self, id: &KeyId) -> Found {
        self.content.get(id).await
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        self.content.list(filter, after, limit).await
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        self.content.purge(at, kept).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        self.content.record_uses(uses).await
    }
}
