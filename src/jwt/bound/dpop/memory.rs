use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use foldhash::quality::RandomState;

use crate::{
    clock::Instants,
    error::{ConfigError, StoreError, StoreErrorKind},
    jwt::bound::{ProofUse, Remembered, ReplayStore},
    now::Now,
};

/// Requests of different keys seldom wait for each other.
const SHARDS: usize = 16;

/// Remembers the proofs that this process has seen: with several processes behind one name, a proof may be used once in each.
///
/// # Bounds
/// [`DEFAULT_ENTRIES`](Self::DEFAULT_ENTRIES) proofs, about 100 bytes each, of which one key has at most
/// [`DEFAULT_PER_KEY`](Self::DEFAULT_PER_KEY): with proofs that are good for 35 s, some 28 requests a second without end, or
/// 1 000 at once. A client that needs more needs a larger bound here, or several keys. Beyond its bound a key is refused
/// with `429`; beyond that of the store every proof is, with `503`.
pub struct MemoryReplays {
    shards: [Mutex<Shard>; SHARDS],
    entries: AtomicUsize,
    max_entries: usize,
    max_per_key: u32,
}

impl MemoryReplays {
    /// The number of proofs unless you say another: 100 000.
    pub const DEFAULT_ENTRIES: usize = 100_000;
    /// The number of proofs of one key unless you say another: 1 000.
    pub const DEFAULT_PER_KEY: u32 = 1_000;

    /// A store of the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            entries: AtomicUsize::new(0),
            max_entries: Self::DEFAULT_ENTRIES,
            max_per_key: Self::DEFAULT_PER_KEY,
        }
    }

    /// Sets the most proofs that are remembered, of all keys and of one.
    ///
    /// # Errors
    /// If either is zero, or one key may have more than there is room for.
    pub fn with_bounds(mut self, entries: usize, per_key: u32) -> Result<Self, ConfigError> {
        if entries == 0 || per_key == 0 || usize::try_from(per_key).is_ok_and(|per_key| per_key > entries) {
            let problem = "must be at least 1, and the whole at least as much as a key's part";
            return Err(ConfigError::new("bounds of the replay store", format!("{entries} and {per_key}"), problem));
        }
        (self.max_entries, self.max_per_key) = (entries, per_key);
        Ok(self)
    }

    /// How many proofs are remembered, some of which may be forgotten by now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Whether no proof is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &[u8; 32]) -> MutexGuard<'_, Shard> {
        let [first_byte, ..] = key;
        let [first, ..] = &self.shards;
        let shard = self.shards.get(usize::from(*first_byte) % SHARDS).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for one more, after a sweep of all shards if there is none.
    fn make_room(&self, now: u64) -> bool {
        let take = || {
            self.entries.fetch_update(Relaxed, Relaxed, |entries| {
                (entries < self.max_entries).then(|| entries.saturating_add(1))
            })
        };
        if take().is_ok() {
            return true;
        }
        for shard in &self.shards {
            let forgotten = shard.lock().unwrap_or_else(PoisonError::into_inner).forget(now);
            self.entries.fetch_sub(forgotten, Relaxed);
        }
        take().is_ok()
    }

    fn look(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError> {
        let now = at.unix_nanos();
        // Before the lock: a sweep takes all of them.
        if !self.make_room(now) {
            let full = StoreError::new(StoreErrorKind::Unavailable, "memory replay store").about("full");
            return Err(full.with_retry_after(Duration::from_secs(1)));
        }
        let (answer, forgotten) = {
            let mut shard = self.shard(proof.key_thumbprint());
            let forgotten = shard.forget(now);
            (shard.add(proof, self.max_per_key), forgotten)
        };
        let unused = usize::from(answer != Remembered::Fresh);
        self.entries.fetch_sub(forgotten.saturating_add(unused), Relaxed);
        Ok(answer)
    }
}

impl Default for MemoryReplays {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryReplays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReplays")
            .field("entries", &self.len())
            .field("max_entries", &self.max_entries)
            .field("max_per_key", &self.max_per_key)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ReplayStore for MemoryReplays {
    fn remember_now(&self, proof: &ProofUse, at: Instants) -> Now<Result<Remembered, StoreError>> {
        Now::Known(self.look(proof, at))
    }

    async fn remember(&self, proof: &ProofUse, at: Instants) -> Result<Remembered, StoreError> {
        self.look(proof, at)
    }
}

/// Half of a hash, which nobody can choose.
type Short = [u8; 16];

#[derive(Default)]
struct Shard {
    seen: HashSet<Short, RandomState>,
    keys: HashMap<Short, u32, RandomState>,
    /// When each may be forgotten, the first on top.
    ends: BinaryHeap<Reverse<(u64, Short, Short)>>,
    /// What ends by then may be forgotten.
    forgotten_until: u64,
}

impl Shard {
    /// Forgets what cannot be used any more. How many.
    fn forget(&mut self, now: u64) -> usize {
        let mut forgotten = 0_usize;
        while let Some(Reverse((until, id, key))) = self.ends.peek().copied() {
            if until > now {
                break;
            }
            self.ends.pop();
            self.seen.remove(&id);
            if let Some(count) = self.keys.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.keys.remove(&key);
                }
            }
            self.forgotten_until = self.forgotten_until.max(until);
            forgotten = forgotten.saturating_add(1);
        }
        forgotten
    }

    fn add(&mut self, proof: &ProofUse, max_per_key: u32) -> Remembered {
        let (id, key) = (short(proof.id()), short(proof.key_thumbprint()));
        if proof.until_unix_nanos() <= self.forgotten_until || self.seen.contains(&id) {
            return Remembered::Seen;
        }
        let count = self.keys.entry(key).or_default();
        if *count >= max_per_key {
            return Remembered::TooMany;
        }
        *count = count.saturating_add(1);
        self.seen.insert(id);
        self.ends.push(Reverse((proof.until_unix_nanos(), id, key)));
        Remembered::Fresh
    }
}

fn short(hash: &[u8; 32]) -> Short {
    let (half, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *half
}
