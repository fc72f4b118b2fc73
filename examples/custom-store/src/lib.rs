//! A template for a store of your own: counts of a rate limiter in a map that is bounded. Put your database in its place, and
//! keep the test.
//!
//! A real store answers three questions of the manual's page on rate limits: what is one step (here, what is done under the
//! lock), what happens to keys that nobody asks for any more (here, they go when they are whole, once a second where room is scarce),
//! and what happens when there is no room (here, newcomers share one count: too strict, never too lax).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use portcullis::{
    Instants, StoreError,
    rate_limit::{Draw, LatestTime, RateLimitStore, Taken},
};

/// Counts in a map of at most so many keys.
#[derive(Debug)]
pub struct MapLimits {
    most: usize,
    latest: LatestTime,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// When each count is whole again, in nanoseconds since the Unix epoch.
    whole: HashMap<String, u64>,
    /// When it was last looked which are, in nanoseconds since the Unix epoch.
    cleaned: u64,
}

impl MapLimits {
    /// Keeps at most `most` counts, and a few more for the keys that find no room.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, latest: LatestTime::new(), counts: Mutex::default() }
    }

    /// How many counts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).whole.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl RateLimitStore for MapLimits {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // A request may have waited on its way here: others were counted by a later time.
        let now = self.latest.catch_up(at).unix_nanos();
        let Counts { whole, cleaned } = &mut *counts;
        // A count is known by its key and the name of its quota: the numbers of a quota may change while it runs.
        let mut names: Vec<String> =
            draw.charges().iter().map(|charge| format!("{}/{}", charge.key(), charge.quota().name())).collect();
        let missing = names.iter().filter(|name| !whole.contains_key(*name)).count();
        // Once a second at most: a flood of newcomers must not look through all counts, one after the other, under the lock.
        if whole.len() + missing > self.most && now.abs_diff(*cleaned) >= 1_000_000_000 {
            // What is whole can be forgotten: nobody can tell it from what was never there.
            whole.retain(|_, moment| *moment > now);
            *cleaned = now;
        }
        if whole.len() + missing > self.most {
            for (index, (name, charge)) in names.iter_mut().zip(draw.charges()).enumerate() {
                if !whole.contains_key(name.as_str()) {
                    // One for each charge of a draw, so that none is charged twice, and for each size of quota: a smaller one
                    // would cut the debt of a larger one.
                    let quota = charge.quota();
                    *name = format!("everybody else/{index}/{}/{}", quota.interval_nanos(), quota.capacity_nanos());
                }
            }
        }
        let mut moments: Vec<u64> = names.iter().map(|name| whole.get(name).copied().unwrap_or(0)).collect();
        let taken = draw.take(&mut moments, now);
        // Also if it was refused: what was counted nevertheless, and a debt that cannot be, change the moments.
        whole.extend(names.into_iter().zip(moments));
        Ok(taken)
    }
}
