//! How many requests run, by key.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::quality::RandomState;

use crate::rate_limit::{LimitScope, by::Parts};

/// How many locks the counts are spread over.
const SHARDS: usize = 16;

/// How many run, by key. Two keys of one fingerprint would share a count: too strict, and nobody outside can bring it about.
#[derive(Default)]
pub(super) struct Running {
    shards: [Mutex<HashMap<u64, u32, RandomState>>; SHARDS],
    all: AtomicU64,
    seed: RandomState,
}

impl Running {
    fn shard(&self, key: u64) -> MutexGuard<'_, HashMap<u64, u32, RandomState>> {
        let [first, ..] = &self.shards;
        let index = usize::try_from(key & 0xf).unwrap_or(0);
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among at most so many, and tells how many more there are.
    pub(super) fn take(self: &Arc<Self>, parts: &Parts<'_>, most: u32, requests: u64) -> Option<(Place, u32)> {
        let key = parts.key(LimitScope::new("")).hash_with(&self.seed);
        let running = self.enter(key, most)?;
        self.all.fetch_add(requests, Relaxed);
        Some((Place { running: Arc::clone(self), key, requests }, most.saturating_sub(running)))
    }

    /// How many run now, in all.
    pub(super) fn all(&self) -> u64 {
        self.all.load(Relaxed)
    }

    /// How many run with this one.
    fn enter(&self, key: u64, most: u32) -> Option<u32> {
        let running = match self.shard(key).entry(key) {
            Entry::Occupied(count) if *count.get() >= most => return None,
            Entry::Occupied(mut count) => {
                *count.get_mut() = count.get().saturating_add(1);
                *count.get()
            }
            Entry::Vacant(count) => *count.insert(1),
        };
        Some(running)
    }

    fn leave(&self, key: u64) {
        if let Entry::Occupied(mut count) = self.shard(key).entry(key) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A place among those that run; whoever drops it lets the next one in.
pub(super) struct Place {
    running: Arc<Running>,
    key: u64,
    /// How many it stands for in the sum: that of the network around stands for none.
    requests: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.all.fetch_sub(self.requests, Relaxed);
        self.running.leave(self.key);
    }
}
