//! What is remembered, and the rules by which it is trusted.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use quick_cache::{Lifecycle, UnitWeighter, sync};

use super::{
    budget::{Budget, Charge, Spent},
    config::{Rules, nanos},
    flight::{Flights, Landed},
    stats::{CacheStats, Counters, count},
    voids::{OwnerSlot, Voids},
};
use crate::{
    api_key::{ChangeListener, Found, Hit, KeyChange, KeyId, Lookup},
    clock::Instants,
    error::{StoreError, StoreErrorKind},
    log::Seldom,
};

const NAME: &str = "key cache";
const SECOND: u64 = 1_000_000_000;
/// How long a store that failed is left alone by those who can be served without it.
const REST: u64 = SECOND;

type Area<V> = sync::Cache<KeyId, V, UnitWeighter, RandomState, Evictions>;

/// Counts what goes for want of room.
#[derive(Clone, Debug, Default)]
struct Evictions(Arc<AtomicU64>);

impl<V> Lifecycle<KeyId, V> for Evictions {
    /// What goes is dropped after the lock.
    type RequestState = Option<V>;

    fn on_evict(&self, evicted: &mut Option<V>, _: KeyId, value: V) {
        count(&self.0);
        *evicted = Some(value);
    }
}

/// A key that was found.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    hit: Hit,
    number: u64,
    loaded_at: u64,
    owner: OwnerSlot,
}

/// An id that has no key.
#[derive(Clone, Copy, Debug)]
struct Absence {
    number: u64,
    loaded_at: u64,
}

/// What memory says.
pub(super) enum Recalled {
    Found(Hit),
    Absent,
    /// Ask. What is remembered of the key although it is not trusted any more: that it exists, so that asking is free.
    Ask(Option<Entry>),
}

pub(super) struct Memory {
    rules: Rules,
    told: bool,
    keys: Area<Entry>,
    absent: Area<Absence>,
    evictions: Evictions,
    pub(super) voids: Voids,
    pub(super) flights: Flights,
    pub(super) counters: Counters,
    budget: Budget,
    /// Whether the store did not answer the last time.
    failing: AtomicBool,
    /// When a store that failed is asked again, by the monotonic clock.
    resumes: AtomicU64,
    /// Whether somebody asks it whether it does again.
    probing: AtomicBool,
    said: Notices,
}

struct Notices {
    stale: Seldom,
    spent: Seldom,
}

impl Memory {
    /// `told` says whether the store tells its changes.
    pub(super) fn new(rules: Rules, told: bool) -> Self {
        let evictions = Evictions::default();
        Self {
            rules,
            told,
            keys: area(rules.max_keys, evictions.clone()),
            absent: area(rules.max_absent, Evictions::default()),
            evictions,
            voids: Voids::new(),
            flights: Flights::default(),
            counters: Counters::default(),
            budget: Budget::new(rules.per_source, rules.in_all),
            failing: AtomicBool::new(false),
            resumes: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            said: Notices { stale: Seldom::new(), spent: Seldom::new() },
        }
    }

    /// Whether there was such a key when it was asked for last, trusted or not.
    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.keys.peek(id).is_some()
    }

    /// Answers from memory, without waiting or allocating.
    pub(super) fn recall(&self, lookup: &Lookup) -> Recalled {
        let (id, now) = (lookup.id(), lookup.at().monotonic_nanos());
        let trusted = |number, owner, loaded_at: u64, life| {
            now.saturating_sub(loaded_at) < life && !self.voids.is_lost() && self.voids.hold(number, id, owner)
        };
        if let Some(entry) = self.keys.get(id) {
            if trusted(entry.number, Some(entry.owner), entry.loaded_at, self.fresh()) {
                return Recalled::Found(entry.hit);
            }
            return Recalled::Ask(Some(entry));
        }
        match self.absent.get(id) {
            Some(absence) if trusted(absence.number, None, absence.loaded_at, self.rules.absent) => Recalled::Absent,
            _ => Recalled::Ask(None),
        }
    }

    /// The same, counted; what is to be asked otherwise.
    pub(super) fn answer_now(&self, lookup: &Lookup) -> Result<Found, Option<Entry>> {
        match self.recall(lookup) {
            Recalled::Found(hit) => {
                self.counters.hit(lookup.id());
                Ok(Ok(Some(hit)))
            }
            Recalled::Absent => {
                count(&self.counters.negative_hits);
                Ok(Ok(None))
            }
            Recalled::Ask(entry) => Err(entry),
        }
    }

    const fn fresh(&self) -> u64 {
        if self.told { self.rules.fresh_with_changes } else { self.rules.fresh }
    }

    /// Whether an answer that somebody else asked for may be taken.
    pub(super) fn counts(&self, landed: &Landed, lookup: &Lookup) -> bool {
        lookup.at().monotonic_nanos().saturating_sub(landed.loaded_at) < self.rules.fresh
            && self.voids.hold(landed.number, lookup.id(), landed.owner)
    }

    /// Takes in what the store said.
    pub(super) fn land(
        &self,
        lookup: &Lookup,
        number: u64,
        (found, took): (Found, Duration),
        charge: Option<&Charge>,
    ) -> Landed {
        let (id, loaded_at) = (*lookup.id(), lookup.at().monotonic_nanos());
        let owner = match &found {
            Ok(Some(hit)) => Some(self.voids.owner(hit.record().owner())),
            Ok(None) | Err(_) => None,
        };
        match (&found, owner) {
            (Ok(Some(hit)), Some(owner)) => {
                self.keys.insert(id, Entry { hit: hit.clone(), number, loaded_at, owner });
                self.absent.remove(&id);
                if let Some(charge) = charge {
                    self.budget.give_back(charge);
                }
            }
            (Ok(_), _) => {
                self.keys.remove(&id);
                if self.rules.absent > 0 {
                    self.absent.insert(id, Absence { number, loaded_at });
                }
            }
            (Err(_), _) => {}
        }
        let failing = found.as_ref().is_err_and(unavailable);
        if failing {
            self.resumes.store(loaded_at.saturating_add(nanos(took)).saturating_add(REST), Relaxed);
        }
        if self.failing.load(Relaxed) != failing {
            self.failing.store(failing, Relaxed);
        }
        Landed { found: found.map_err(Arc::new), owner, number, loaded_at }
    }

    /// What a request gets of an answer.
    pub(super) fn answer(&self, landed: &Landed, known: Option<&Entry>, lookup: &Lookup) -> Found {
        let error = match &landed.found {
            Ok(found) => return Ok(found.clone()),
            Err(error) => error,
        };
        match known.filter(|_| unavailable(error)).and_then(|entry| self.stale(entry, lookup)) {
            Some(hit) => Ok(Some(hit)),
            None => Err(StoreError::shared(error)),
        }
    }

    /// The remembered key, if it may be served while the store does not answer.
    fn stale(&self, entry: &Entry, lookup: &Lookup) -> Option<Hit> {
        let (id, at) = (lookup.id(), lookup.at());
        let age = at.monotonic_nanos().saturating_sub(entry.loaded_at);
        let serves = self.rules.stale.is_some_and(|most| age < most)
            && self.voids.hold(entry.number, id, Some(entry.owner))
            && entry.hit.is_active(at.unix_seconds());
        serves.then(|| {
            count(&self.counters.stale);
            self.said.stale.error(at, "key cache: the store does not answer, and keys that are not fresh are served");
            entry.hit.clone()
        })
    }

    /// The same, at once, while somebody else waits for the store, or one has just waited in vain.
    pub(super) fn stale_now(&self, entry: Option<&Entry>, lookup: &Lookup) -> Option<Hit> {
        entry
            .filter(|_| self.failing.load(Relaxed) && (self.is_resting(lookup) || self.probing.load(SeqCst)))
            .and_then(|entry| self.stale(entry, lookup))
    }

    /// Whether a store that failed is not to be asked yet: each who asks may wait as long as the store lets them.
    fn is_resting(&self, lookup: &Lookup) -> bool {
        lookup.at().monotonic_nanos() < self.resumes.load(Relaxed)
    }

    /// Makes the caller the one who asks a store that fails; None if somebody does, it is not to be asked yet, or it does not fail.
    pub(super) fn probe(&self, lookup: &Lookup) -> Option<Probe<'_>> {
        // Not `then_some`: a probe that is dropped says that nobody asks.
        (self.failing.load(Relaxed) && !self.is_resting(lookup) && !self.probing.swap(true, SeqCst))
            .then(|| Probe(&self.probing))
    }

    /// Charges a look-up of an id that nothing is known of.
    pub(super) fn charge(&self, lookup: &Lookup) -> Result<Charge, Spent> {
        self.budget.take(lookup.client(), lookup.at().monotonic_nanos())
    }

    /// The refusal of such a look-up, if it would be refused now.
    pub(super) fn refusal(&self, lookup: &Lookup) -> Option<StoreError> {
        let spent = self.budget.spent(lookup.client(), lookup.at().monotonic_nanos())?;
        count(&self.counters.misses);
        Some(self.throttled(spent, lookup.at()))
    }

    /// The refusal of one that is over a budget.
    pub(super) fn throttled(&self, spent: Spent, at: Instants) -> StoreError {
        count(&self.counters.throttled);
        let wait = match spent {
            Spent::Source(wait) => wait,
            Spent::All(wait) => {
                self.said.spent.error(at, "key cache: the budget of all sources for unknown keys is used up");
                wait
            }
        };
        let wait = Duration::from_secs(wait.div_ceil(SECOND));
        StoreError::new(StoreErrorKind::Throttled, NAME).with_retry_after(wait)
    }

    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            evictions: self.evictions.0.load(Relaxed),
            keys: self.keys.len(),
            absent: self.absent.len(),
            ..self.counters.read()
        }
    }
}

impl ChangeListener for Memory {
    fn changed(&self, change: &KeyChange) {
        self.voids.change(change);
    }
}

/// Says that nobody asks any more, when it goes.
pub(super) struct Probe<'a>(&'a AtomicBool);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

fn unavailable(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::Unavailable
}

fn area<V: Clone>(capacity: usize, evictions: Evictions) -> Area<V> {
    // Its shards get unequal shares: with a little to spare, as many as were asked for do fit.
    let weight = u64::try_from(capacity).unwrap_or(u64::MAX).saturating_add(u64::try_from(capacity / 16).unwrap_or(0));
    sync::Cache::with(capacity, weight, UnitWeighter, RandomState::default(), evictions)
}
