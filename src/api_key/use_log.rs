use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use crate::{
    api_key::{ApiKeyAdmin, KeyId, KeyUse, LastUse},
    error::StoreError,
    log,
};

const SHARDS: usize = 16;
/// The most keys that wait in a shard.
const MOST: usize = 1_024;
/// How many uses the store gets in one call.
const BATCH: usize = 1_000;

/// Collects when keys are used, and writes it to a store in batches, so that no request waits for it or fails by it.
///
/// A key is noted once a minute, by the request's clock; the latest use waits to be written. At most 16 384 keys wait: what is
/// beyond is [dropped](Self::dropped) and counted, and noted again by a later minute. Nothing is written until somebody
/// [flushes](Self::flush), or [runs](Self::run) the log in a task of its own. A clone is the same log.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::{sync::Arc, time::Duration};
/// use portcullis::api_key::{ApiKeyAuthenticator, MemoryKeyStore, UseLog};
///
/// let store = Arc::new(MemoryKeyStore::new());
/// let log = UseLog::new(Arc::clone(&store));
/// let keys = ApiKeyAuthenticator::new(store).record_uses(log.clone());
/// let writer = log.clone();
/// tokio::spawn(async move { writer.run(|| tokio::time::sleep(Duration::from_secs(10))).await });
/// // ... serve, and at the end:
/// log.flush().await?;
/// # let _ = keys;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct UseLog {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ApiKeyAdmin>,
    shards: [Shard; SHARDS],
    dropped: AtomicU64,
}

#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<HashMap<KeyId, LastUse, RandomState>>);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, LastUse, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UseLog {
    /// Writes to this store.
    #[must_use]
    pub fn new(store: impl ApiKeyAdmin) -> Self {
        let shared = Shared { store: Arc::new(store), shards: Default::default(), dropped: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Notes a use. Takes a lock that is held for as long as it takes to put an entry into a table.
    pub fn note(&self, used: KeyUse) {
        self.shared.note(used);
    }

    /// How many keys wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// How many uses were lost because too many keys were waiting.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is waiting.
    ///
    /// # Errors
    /// If the store fails. What it did not take waits on.
    ///
    /// # Cancel safety
    /// What was not written yet when the future is dropped waits on.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let mut taken = Taken { log: &self.shared, uses: Vec::new() };
        for shard in &self.shared.shards {
            taken.uses.extend(shard.lock().drain().map(|(id, last)| KeyUse::new(id, last)));
        }
        while !taken.uses.is_empty() {
            let rest = taken.uses.len().saturating_sub(BATCH);
            self.shared.store.record_uses(taken.uses.get(rest..).unwrap_or_default()).await?;
            taken.uses.truncate(rest);
        }
        Ok(())
    }

    /// Flushes each time that a pause is over, for ever; a failure is logged as an error, and what was not written waits for
    /// the next time. Give it to a task, with the timer of your runtime.
    pub async fn run<F: Future<Output = ()> + Send>(&self, mut pause: impl FnMut() -> F + Send) {
        loop {
            pause().await;
            if let Err(error) = self.flush().await {
                log::error(&format!("last uses of API keys are not written: {}", log::chain(&error)));
            }
        }
    }
}

impl Shared {
    fn note(&self, used: KeyUse) {
        let [.., last] = *used.id().as_bytes();
        let Some(shard) = self.shards.get(usize::from(last) % SHARDS) else { return };
        let mut waiting = shard.lock();
        let full = waiting.len() >= MOST;
        match waiting.entry(*used.id()) {
            Entry::Occupied(mut known) if known.get().at() <= used.last().at() => {
                known.insert(used.last());
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(_) if full => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Entry::Vacant(place) => {
                place.insert(used.last());
            }
        }
    }
}

/// What a flush has taken out, and has not written yet.
struct Taken<'a> {
    log: &'a Shared,
    uses: Vec<KeyUse>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.uses.drain(..).for_each(|used| self.log.note(used));
    }
}

impl fmt::Debug for UseLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UseLog")
            .field("waiting", &self.waiting())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::MemoryKeyStore;

    fn used(id: [u8; 10], at: u64) -> KeyUse {
        KeyUse::new(KeyId::from_bytes(id), LastUse::new(at, None))
    }

    #[test]
    fn the_latest_use_waits() {
        let log = UseLog::new(MemoryKeyStore::new());
        for at in [5, 9, 7] {
            log.note(used([1; 10], at));
        }
        assert_eq!(log.waiting(), 1);
        assert_eq!(log.shared.shards[1].lock().values().map(LastUse::at).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let log = UseLog::new(MemoryKeyStore::new());
        for number in 0..2_000_u16 {
            let [high, low] = number.to_be_bytes();
            log.note(used([high, low, 0, 0, 0, 0, 0, 0, 0, 0], 1)); // all in one shard
        }
        assert_eq!((log.waiting(), log.dropped()), (MOST, 2_000 - 1_024));
        log.note(used([0; 10], 2));
        assert_eq!(log.dropped(), 2_000 - 1_024, "a key that waits already finds its place");
    }
}
