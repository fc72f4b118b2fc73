//! Slices of quotas that this process took ahead, and answers from.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use foldhash::quality::RandomState;
use tokio::time::Instant;

use super::ask::{Answer, Ask, Count, Failure};
use crate::{
    error::ConfigError,
    rate_limit::{Draw, Taken},
};

/// The least slice that is worth taking.
const MIN_SLICE: u32 = 20;
/// From here on the next slice is fetched before the last one is used up.
const MIN_AHEAD: u32 = 8;
/// After this, an answer that did not come is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const SHARDS: usize = 16;
/// The most keys that have a lease, in each of the shards.
const KEYS_PER_SHARD: usize = 1_024;

/// Lets a process take a slice of a quota at once and answer from it, so that most decisions do not ask Redis.
///
/// A slice is a part of the burst: one two-hundredth unless you say another. Quotas of which it would be less than 20 (of a
/// burst below 4 000) are asked about each time, and so is a draw of several quotas if that holds for one of them. A key that
/// is asked for seldom takes no slice: slices grow while they are used up in time.
///
/// # Overshoot
/// A slice counts as used from the moment it is taken, so the quota as a whole is never exceeded by what processes take. But
/// what was taken may be used later, when the quota has come back. So in any stretch of time each process passes at most one
/// slice more than the quota: of `n` processes `n / 200` of the burst, 1 % for two. What is not used within
/// [`held_for`](Self::held_for) is given back.
///
/// # Over the quota
/// A key that Redis refuses is refused in process until one request has come back, but for no longer than a slice is held:
/// then it is asked again. The same holds where Redis gave less than was asked for, because then it has nothing left. Each
/// time that it has nothing left, the process lets twice as many come back before it asks again, up to a slice, and up to what
/// comes back while a slice is held: the key gets as many as before, several at once, and is told when it is asked again.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | slice | a 200th of the burst | a 20th to a 10 000th |
/// | held for | 1 s | 10 ms to 60 s |
/// | keys with a slice at the same time | 16 384; others are asked about each time | |
///
/// ```
/// use portcullis::rate_limit::Leases;
///
/// let leases = Leases::new().one_in(1_000)?;
/// # let _ = leases;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Leases {
    one_in: u32,
    hold: Duration,
}

impl Leases {
    /// The default slices.
    pub const fn new() -> Self {
        Self { one_in: 200, hold: Duration::from_secs(1) }
    }

    /// Takes slices of one in `part` of the burst, 20 to 10 000. Default 200.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 20 to 10 000.
    pub fn one_in(self, part: u32) -> Result<Self, ConfigError> {
        if !(20..=10_000).contains(&part) {
            return Err(ConfigError::new("slice", format!("one in {part}"), "is not one in 20 to one in 10000"));
        }
        Ok(Self { one_in: part, ..self })
    }

    /// Gives back what was not used for that long, 10 ms to 60 s. Default 1 s.
    ///
    /// # Errors
    /// [`ConfigError`] unless it is 10 ms to 60 s.
    pub fn held_for(self, hold: Duration) -> Result<Self, ConfigError> {
        if hold < Duration::from_millis(10) || hold > Duration::from_secs(60) {
            return Err(ConfigError::new("lease", format!("{hold:?}"), "is not held for 10 ms to 60 s"));
        }
        Ok(Self { hold, ..self })
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self::new()
    }
}

/// The charges of a draw, under two seeds: with one alone, two draws might meet by chance, and one would use what the other took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeaseKey(u64, u64);

pub(super) struct Table {
    settings: Leases,
    shards: [Mutex<HashMap<LeaseKey, Lease>>; SHARDS],
    seeds: (RandomState, RandomState),
}

struct Lease {
    left: u32,
    /// Then what is left goes back.
    ends: Instant,
    /// How large the next slice is.
    want: u32,
    /// What was used of it since it was last looked after.
    used: u32,
    /// Somebody asks, until then.
    asking: Option<Instant>,
    refused: Option<Refused>,
    /// How many must have come back before Redis is asked again, once it had nothing left.
    patience: u32,
    told: Told,
    counts: Vec<Count>,
    time: Option<u64>,
}

/// What Redis said last, for the client.
struct Told {
    charge: usize,
    remaining: u32,
    whole: Instant,
}

struct Refused {
    charge: usize,
    cost: u32,
    until: Instant,
    believed: Instant,
}

/// A slice to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) key: LeaseKey,
    pub(super) most: u32,
}

impl Table {
    pub(super) fn new(settings: Leases) -> Self {
        Self { settings, shards: Default::default(), seeds: Default::default() }
    }

    pub(super) const fn hold(&self) -> Duration {
        self.settings.hold
    }

    /// How much a process may take ahead; none where it asks each time.
    fn slice(&self, draw: &Draw<'_>) -> Option<u32> {
        let part = |burst: u32| burst.checked_div(self.settings.one_in);
        let slice = draw.charges().iter().filter_map(|charge| part(charge.quota().burst_size())).min()?;
        (slice >= MIN_SLICE && !draw.counts_refused()).then_some(slice)
    }

    fn key(&self, draw: &Draw<'_>) -> LeaseKey {
        LeaseKey(self.seeds.0.hash_one(Charged(draw)), self.seeds.1.hash_one(Charged(draw)))
    }

    fn shard(&self, key: LeaseKey) -> MutexGuard<'_, HashMap<LeaseKey, Lease>> {
        let [first, ..] = &self.shards;
        let index = usize::try_from(key.0 & 0xf).unwrap_or(0);
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers from what is there; with the slice to fetch, if that comes to an end.
    pub(super) fn spend(&self, draw: &Draw<'_>, now: Instant) -> Option<(Taken, Option<Slice>)> {
        let slice = self.slice(draw)?;
        let (key, cost) = (self.key(draw), draw.cost().get());
        let mut shard = self.shard(key);
        let lease = shard.get_mut(&key)?;
        if lease.left < cost || now >= lease.ends {
            let refused = lease.refused.as_ref().filter(|refused| cost >= refused.cost && now < refused.believed)?;
            return Some((Taken::refused(refused.charge, nanos(refused.until.saturating_duration_since(now))), None));
        }
        lease.left = lease.left.saturating_sub(cost);
        lease.used = lease.used.saturating_add(cost);
        let ahead = lease.want >= MIN_AHEAD && lease.left <= lease.want / 2;
        let fetch = (ahead && lease.refused.is_none() && !lease.is_asking(now)).then(|| {
            lease.grow(slice);
            lease.asking = now.checked_add(PATIENCE);
            Slice { key, most: lease.want.saturating_sub(lease.left).max(1) }
        });
        let told = &lease.told;
        let reset = nanos(told.whole.saturating_duration_since(now));
        Some((Taken::granted(told.charge, told.remaining.saturating_add(lease.left), reset), fetch))
    }

    /// What to ask Redis for: a slice with the cost, unless one is on its way or there is none for this draw.
    pub(super) fn plan(&self, draw: &Draw<'_>, now: Instant) -> Option<Slice> {
        let slice = self.slice(draw)?;
        let key = self.key(draw);
        let mut shard = self.shard(key);
        if shard.len() >= KEYS_PER_SHARD && !shard.contains_key(&key) {
            return None;
        }
        let lease = shard.entry(key).or_insert_with(|| Lease::new(now));
        if lease.is_asking(now) {
            return None;
        }
        if now < lease.ends {
            lease.grow(slice);
        }
        lease.asking = now.checked_add(PATIENCE);
        Some(Slice { key, most: draw.cost().get().saturating_add(lease.want.saturating_sub(lease.left)) })
    }

    /// Keeps what came beyond what was spent at once. Gives how many that are, and what of it goes back.
    pub(super) fn fill(&self, ask: &mut Ask, answer: Result<Answer, Failure>, now: Instant) -> (u32, Option<Ask>) {
        let Some(key) = ask.lease else { return (0, None) };
        let spent = if ask.reply.is_some() { ask.least } else { 0 };
        let mut shard = self.shard(key);
        // It was given back in the meantime, and comes again.
        let lease = shard.entry(key).or_insert_with(|| Lease::new(now));
        lease.asking = None;
        let Ok(answer) = answer else { return (0, None) };
        let at = |micros: u64| now.checked_add(Duration::from_micros(micros)).unwrap_or(now);
        let held = now.checked_add(self.settings.hold).unwrap_or(now);
        let interval = ask.counts.get(answer.charge).map_or(0, |count| count.interval);
        let batch = self.batch(&ask.counts, interval);
        if answer.units == 0 {
            let more = interval.saturating_mul(lease.wait_for(batch).saturating_sub(1).into());
            let until = at(answer.micros.saturating_add(more));
            lease.refused = Some(Refused { charge: answer.charge, cost: ask.least, until, believed: until.min(held) });
            return (0, None);
        }
        let kept = answer.units.saturating_sub(spent);
        // Several come at once where Redis stood still for longer than one is waited for: no more is held than one of them brings.
        let all = lease.left.saturating_add(kept);
        lease.left = all.min(lease.want.max(kept));
        let beyond = all.saturating_sub(lease.left);
        let beyond = (beyond > 0).then(|| Ask::giving_back(ask.counts.clone(), beyond, ask.time));
        lease.used = lease.used.saturating_add(spent);
        lease.ends = held;
        lease.refused = if answer.units < ask.most {
            // That was all: there is not even one left.
            let until = at(interval.saturating_mul(lease.wait_for(batch).into()));
            Some(Refused { charge: answer.charge, cost: 1, until, believed: until.min(held) })
        } else {
            lease.patience /= 2;
            None
        };
        lease.told = Told { charge: answer.charge, remaining: answer.remaining, whole: at(answer.micros) };
        (lease.counts, lease.time) = (std::mem::take(&mut ask.counts), ask.time);
        (kept, beyond)
    }

    /// For how many to come back Redis is left alone at most: a slice, and what comes back while one is held.
    fn batch(&self, counts: &[Count], interval: u64) -> u32 {
        let slice = counts.iter().filter_map(|count| count.burst.checked_div(self.settings.one_in)).min().unwrap_or(0);
        let held = u64::try_from(self.settings.hold.as_micros()).unwrap_or(u64::MAX);
        slice.min(held.checked_div(interval).and_then(|count| u32::try_from(count).ok()).unwrap_or(slice))
    }

    /// Gives back what was not used in time; with `all`, what is there.
    pub(super) fn unused(&self, now: Instant, all: bool) -> Vec<Ask> {
        let mut unused = Vec::new();
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, lease| {
                if (now < lease.ends && !all) || lease.is_asking(now) {
                    return true;
                }
                if lease.left > 0 {
                    unused.push(Ask::giving_back(lease.counts.clone(), lease.left, lease.time));
                }
                // As much as was used in the time of a slice is what the next one is for.
                (lease.left, lease.want) = (0, lease.used.min(lease.want));
                std::mem::take(&mut lease.used) > 0
                    || lease.refused.as_ref().is_some_and(|refused| now < refused.believed)
            });
        }
        unused
    }
}

impl Lease {
    fn new(now: Instant) -> Self {
        let told = Told { charge: 0, remaining: 0, whole: now };
        Self {
            left: 0,
            ends: now,
            want: 0,
            used: 0,
            asking: None,
            refused: None,
            patience: 0,
            told,
            counts: Vec::new(),
            time: None,
        }
    }

    fn is_asking(&self, now: Instant) -> bool {
        self.asking.is_some_and(|until| now < until)
    }

    fn grow(&mut self, slice: u32) {
        self.want = self.want.saturating_mul(2).max(4).min(slice);
    }

    /// How many must come back before Redis is asked again: twice as many each time that it had nothing left.
    fn wait_for(&mut self, most: u32) -> u32 {
        self.patience = self.patience.saturating_mul(2).clamp(1, most.max(1));
        self.patience
    }
}

/// Keys, names and numbers: of a quota that changed, what was taken before is given back.
struct Charged<'a>(&'a Draw<'a>);

impl Hash for Charged<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for charge in self.0.charges() {
            charge.key().hash(state);
            state.write_u64(charge.quota().name_hash());
            state.write_u64(charge.quota().interval_nanos());
            state.write_u32(charge.quota().burst_size());
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
