use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::api_key::KeyId;

/// What a [`Cached`](crate::api_key::Cached) store has done since it was made, and holds now. Read without a lock: while
/// requests run, the numbers may be of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Look-ups that were answered with a remembered key.
    pub hits: u64,
    /// Look-ups that were answered by remembering that there is no such key.
    pub negative_hits: u64,
    /// Look-ups that memory did not answer. Those throttled, joined and served stale are among them.
    pub misses: u64,
    /// Questions to the store.
    pub loads: u64,
    /// Look-ups that took the answer to another one's question.
    pub joined: u64,
    /// Look-ups that were refused because a budget for misses was used up.
    pub throttled: u64,
    /// Look-ups that were answered with a key that was not fresh, because the store did not answer.
    pub stale: u64,
    /// Keys that were dropped for want of room.
    pub evictions: u64,
    /// Keys remembered now.
    pub keys: usize,
    /// Ids without a key remembered now.
    pub absent: usize,
}

const LINES: usize = 16;

/// The counters. Hits are counted in several cache lines, so that requests on several cores do not meet.
#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: [Line; LINES],
    pub(super) negative_hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) throttled: AtomicU64,
    pub(super) stale: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Counters {
    pub(super) fn hit(&self, id: &KeyId) {
        let [first, ..] = *id.as_bytes();
        if let Some(Line(hits)) = self.hits.get(usize::from(first) % LINES) {
            hits.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn read(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.iter().fold(0, |sum, Line(hits)| sum.wrapping_add(hits.load(Relaxed))),
            negative_hits: self.negative_hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            loads: self.loads.load(Relaxed),
            joined: self.joined.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            stale: self.stale.load(Relaxed),
            ..CacheStats::default()
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
