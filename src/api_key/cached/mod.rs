mod budget;
mod config;
mod flight;
mod memory;
mod stats;
mod voids;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use self::{
    budget::Spent,
    flight::{Landed, Seat},
    memory::{Memory, Recalled},
    stats::count,
};
pub use self::{config::KeyCache, stats::CacheStats};
use crate::{
    api_key::{
        ApiKeyAdmin, ApiKeyRecord, ApiKeyStore, ChangeFeed, ChangeListener, Found, Hit, KeyChange, KeyFilter, KeyId,
        KeyUse, Lookup, Owner, Revocation, Rotation,
    },
    clock::Instants,
    error::{ConfigError, StoreError},
    now::Now,
};

/// How often a look-up asks again whose answer a change made void meanwhile.
const TRIES: usize = 3;

/// Remembers the answers of a store that must wait, so that most requests do not. It is a store itself, and an
/// [`ApiKeyAdmin`] if the store is.
///
/// What it remembers it answers at once, without allocation and without a lock that anybody holds for long. The rest it asks
/// the store, once for all who ask for the same key at that time; if the one who asks goes away, another one takes over. How
/// long an answer may take is the store's to limit.
///
/// # When an answer is trusted
/// - A store that tells its [changes](ApiKeyStore::changes): until a change of the key or its owner is told, and for
///   [2 minutes](KeyCache::fresh_with_changes) at most. While the store has [lost](KeyChange::Lost) touch with who changes
///   keys, every look-up asks it.
/// - One that does not: for [10 seconds](KeyCache::fresh_for). That is how long a key may work after it was revoked elsewhere.
/// - What is changed through this value counts at once in either case.
/// - That there is no such key: for [5 seconds](KeyCache::absent_for), and not past its insertion if that is told.
/// - An answer that was on its way while the key changed is not remembered; whoever waits for it gets a newer one.
/// - The store fails: the request gets its error, unless [`stale_on_error`](KeyCache::stale_on_error) was chosen.
///
/// All ages are measured from when the request came that asked the store, by the monotonic clock of [`Lookup::at`].
///
/// # Bounds
/// - [100 000 keys](KeyCache::max_keys); and [16 384 ids](KeyCache::max_absent) that have none, apart from them. So random ids
///   push out one another.
/// - Ids of which nothing is known are looked up at most [10 times a second](KeyCache::misses_per_source) for each source, with
///   bursts of 200, and [200 times](KeyCache::misses) for all together, with bursts of 2 000. Beyond that the answer is
///   [`Throttled`](crate::StoreErrorKind::Throttled), `429` to a client. A key that is remembered, trusted or not, passes
///   always, and a look-up that finds a key is given back: what counts are ids that are nobody's, look-ups that failed, and
///   those under way. A question that was given up because its client hung up counts, and so does the next one for the same id.
///   The source is [`Lookup::client`]; say who your proxies are, or all clients are one source.
/// - The budgets keep 8 192 sources in 128 KiB.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use portcullis::{Instants, Now, api_key::{ApiKeyAuthenticator, ApiKeyStore, Cached, Lookup, MemoryKeyStore, NewApiKey}};
///
/// let at = Instants::new(0, 0);
/// let store = Arc::new(Cached::new(MemoryKeyStore::new())); // a store in memory gains nothing
/// let (key, _) = NewApiKey::for_subject("billing").issue(&*store, at).await?;
///
/// assert!(store.find(Lookup::new(key.id(), at)).await?.is_some());
/// assert!(matches!(store.find_now(Lookup::new(key.id(), at)), Now::Known(Ok(Some(_)))));
/// assert_eq!((store.stats().hits, store.stats().loads), (1, 1));
/// let authenticator = ApiKeyAuthenticator::new(store);
/// # let _ = authenticator;
/// # Ok::<(), portcullis::api_key::IssueError>(())
/// # }).unwrap();
/// ```
pub struct Cached<S> {
    store: S,
    memory: Arc<Memory>,
}

impl<S: ApiKeyStore> Cached<S> {
    /// Remembers this store's answers by the [defaults](KeyCache).
    #[must_use]
    pub fn new(store: S) -> Self {
        Self::with(store, &KeyCache::new())
    }

    /// Remembers them as you say.
    ///
    /// # Errors
    /// If a number of the cache is out of its bounds.
    pub fn with_cache(store: S, cache: &KeyCache) -> Result<Self, ConfigError> {
        cache.check()?;
        Ok(Self::with(store, cache))
    }

    fn with(store: S, cache: &KeyCache) -> Self {
        let feed = store.changes();
        let memory = Arc::new(Memory::new(cache.rules(), feed.is_some()));
        if let Some(feed) = feed {
            let listener: Arc<dyn ChangeListener> = Arc::<Memory>::clone(&memory);
            feed.subscribe(Arc::downgrade(&listener));
        }
        Self { store, memory }
    }

    /// The store that is asked.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// What was remembered, asked and refused so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.memory.stats()
    }

    /// Trusts nothing of what is remembered any more: each key is asked for again.
    pub fn flush(&self) {
        self.memory.voids.everything();
    }

    /// Asks the store, or waits for the one who does. Each question is charged to whoever asks it: one that was given up is
    /// asked again by the next who waits, and would else cost those who hang up nothing.
    async fn landing(&self, seat: &Seat<'_>, lookup: Lookup, free: bool) -> Result<Landed, Spent> {
        let load = || async {
            let memory = &*self.memory;
            let charge = if free { None } else { Some(memory.charge(&lookup)?) };
            let number = memory.voids.now();
            count(&memory.counters.loads);
            let began = Instant::now();
            let found = self.store.find(lookup).await;
            Ok(memory.land(&lookup, number, (found, began.elapsed()), charge.as_ref()))
        };
        seat.flight.get_or_try_init(load).await.cloned()
    }

    fn void_after(&self, changes: impl IntoIterator<Item = KeyChange>) -> Void<'_> {
        Void { memory: &self.memory, changes: changes.into_iter().collect() }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ApiKeyStore> ApiKeyStore for Cached<S> {
    fn find_now(&self, lookup: Lookup) -> Now<Found> {
        let memory = &*self.memory;
        match memory.answer_now(&lookup) {
            Ok(found) => Now::Known(found),
            Err(None) => memory.refusal(&lookup).map_or(Now::Wait, |throttled| Now::Known(Err(throttled))),
            Err(Some(entry)) => match memory.stale_now(Some(&entry), &lookup) {
                Some(hit) => {
                    count(&memory.counters.misses);
                    Now::Known(Ok(Some(hit)))
                }
                None => Now::Wait,
            },
        }
    }

    async fn find(&self, lookup: Lookup) -> Found {
        let memory = &*self.memory;
        let known = match memory.answer_now(&lookup) {
            Ok(found) => return found,
            Err(known) => known,
        };
        count(&memory.counters.misses);
        let probe = memory.probe(&lookup);
        if probe.is_none()
            && let Some(hit) = memory.stale_now(known.as_ref(), &lookup)
        {
            return Ok(Some(hit));
        }
        let mut tries = 0;
        let mut exists = known.is_some();
        loop {
            let seat = memory.flights.board(*lookup.id());
            if seat.joined && tries == 0 {
                count(&memory.counters.joined);
            }
            let landed = self.landing(&seat, lookup, exists).await;
            drop(seat);
            let landed = landed.map_err(|spent| memory.throttled(spent, lookup.at()))?;
            exists |= matches!(landed.found, Ok(Some(_)));
            tries += 1;
            if memory.counts(&landed, &lookup) || tries == TRIES {
                return memory.answer(&landed, known.as_ref(), &lookup);
            }
            // Void meanwhile; another one may have the new answer already.
            match memory.recall(&lookup) {
                Recalled::Found(hit) => return Ok(Some(hit)),
                Recalled::Absent => return Ok(None),
                Recalled::Ask(_) => {}
            }
        }
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        self.store.changes()
    }

    fn remembers(&self, id: &KeyId) -> bool {
        self.memory.has(id) || self.store.remembers(id)
    }
}

/// Voids what was remembered when a change is over: done, failed or given up.
struct Void<'a> {
    memory: &'a Memory,
    changes: Vec<KeyChange>,
}

impl Drop for Void<'_> {
    fn drop(&mut self) {
        for change in &self.changes {
            self.memory.voids.change(change);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ApiKeyAdmin> ApiKeyAdmin for Cached<S> {
    async fn insert(&self, record: ApiKeyRecord) -> Result<(), StoreError> {
        let _void = self.void_after([KeyChange::Key(*record.id())]);
        self.store.insert(record).await
    }

    async fn rotate(&self, rotation: Rotation) -> Result<bool, StoreError> {
        let _void = self.void_after([rotation.old(), rotation.record().id()].map(|id| KeyChange::Key(*id)));
        self.store.rotate(rotation).await
    }

    async fn revoke(&self, id: &KeyId, revocation: &Revocation) -> Result<bool, StoreError> {
        let _void = self.void_after([KeyChange::Key(*id)]);
        self.store.revoke(id, revocation).await
    }

    async fn disable_owner(&self, owner: &Owner, disablement: &Revocation) -> Result<bool, StoreError> {
        let _void = self.void_after([KeyChange::Owner(owner.clone())]);
        self.store.disable_owner(owner, disablement).await
    }

    async fn enable_owner(&self, owner: &Owner) -> Result<bool, StoreError> {
        let _void = self.void_after([KeyChange::Owner(owner.clone())]);
        self.store.enable_owner(owner).await
    }

    async fn disablement(&self, owner: &Owner) -> Result<Option<Revocation>, StoreError> {
        self.store.disablement(owner).await
    }

    async fn get(&self, id: &KeyId) -> Found {
        self.store.get(id).await
    }

    async fn list(&self, filter: &KeyFilter, after: Option<&KeyId>, limit: usize) -> Result<Vec<Hit>, StoreError> {
        self.store.list(filter, after, limit).await
    }

    async fn purge(&self, at: Instants, kept: Duration) -> Result<u64, StoreError> {
        self.store.purge(at, kept).await
    }

    async fn record_uses(&self, uses: &[KeyUse]) -> Result<(), StoreError> {
        self.store.record_uses(uses).await
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("store", &self.store).field("stats", &self.memory.stats()).finish()
    }
}
