use std::{
    collections::{HashMap, hash_map::Entry},
    hash::BuildHasher,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use foldhash::quality::RandomState;
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    clock::Instants,
    error::{ConfigError, StoreError, StoreErrorKind},
    now::Now,
    rate_limit::{Charge, Draw, RateLimitStore, Taken, layer::Tally},
};

const LONGEST_WAIT: Duration = Duration::from_secs(60);
const MOST_WAITERS: usize = 65_536;

/// Lets requests over the quota wait their turn: how long, and how many of them at most.
///
/// Those of one key pass one after the other, in the order in which they came, as the quota comes back. A request is refused
/// with `429` if its turn does not come in time, at once if it is plain that it will not, or if as many wait already; it takes
/// nothing of what others in its line wait for. Who waits for one key does not hold up those who wait for another one: a client over
/// its own quota those of its IPv6 /48. A waiting request holds its connection and its body, so keep both numbers small.
///
/// Where the store holds a line up, those who cannot enter it, or whose turn does not come, get what
/// [`on_store_error`](crate::rate_limit::RateLimitLayer::on_store_error) says, and no `429`: if it failed when it was asked last for who
/// is first, or has not answered for half of the longest wait. Who is first waits for the store as long as that takes, so give it a
/// time-out of its own.
///
/// # Cancel safety
/// A request that is given up while it waits took nothing, and leaves its place.
///
/// ```
/// use std::time::Duration;
/// use portcullis::rate_limit::{Quota, RateLimitLayer, Throttle};
///
/// let limit = RateLimitLayer::per_principal(Quota::per_second(10))?.throttle(Throttle::new(Duration::from_secs(2), 500)?);
/// # let _ = limit;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Throttle {
    longest: Duration,
    waiters: usize,
}

impl Throttle {
    /// Waits at most this long, and with at most this many others of the limiter.
    ///
    /// # Errors
    /// [`ConfigError`] if the time is zero or above 60 s, or the number zero or above 65 536.
    pub fn new(longest: Duration, waiters: usize) -> Result<Self, ConfigError> {
        if longest.is_zero() || longest > LONGEST_WAIT {
            return Err(ConfigError::new("longest wait", format!("{longest:?}"), "is not above zero and at most 60 s"));
        }
        if waiters == 0 || waiters > MOST_WAITERS {
            return Err(ConfigError::new("waiters", waiters.to_string(), "is not 1 to 65536"));
        }
        Ok(Self { longest, waiters })
    }

    pub(super) fn queue(self) -> Queue {
        Queue {
            longest: self.longest,
            places: Semaphore::new(self.waiters),
            waiters: self.waiters,
            lines: Mutex::default(),
            seed: RandomState::default(),
        }
    }
}

/// Who waits.
#[derive(Debug)]
pub(super) struct Queue {
    longest: Duration,
    places: Semaphore,
    waiters: usize,
    /// One line for each key that somebody waits for; no more of them than waiters.
    lines: Mutex<HashMap<u64, Line>>,
    seed: RandomState,
}

#[derive(Debug)]
struct Line {
    /// Who is first holds it. It is fair, and who gives up leaves it.
    turn: Arc<Turn<()>>,
    waiting: usize,
    /// How many nanoseconds it takes for each unit, at least.
    pace: u64,
    /// Since when who is first waits for the store.
    asking: Option<Instant>,
    /// Whether the store failed when it was asked last.
    failed: bool,
}

impl Line {
    /// How long one more waits at least: the first may be served at any moment, and each of the others takes a unit or more.
    fn least_wait(&self, cost: NonZeroU32) -> Duration {
        let others = u64::try_from(self.waiting.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_nanos(self.pace.saturating_mul(others.saturating_add(cost.get().into())))
    }
}

impl Queue {
    #[cfg(feature = "stack")]
    pub(super) const fn longest(&self) -> Duration {
        self.longest
    }

    /// Takes, unless others of the key are before it. Who is refused for now has to wait.
    pub(super) fn take_now(
        &self,
        store: &dyn RateLimitStore,
        draw: &Draw<'_>,
        at: Instants,
    ) -> Now<Result<Taken, StoreError>> {
        if self.places.available_permits() < self.waiters && self.line_before(draw, &[]).is_some() {
            return Now::Wait;
        }
        match store.take_now(draw, at) {
            Now::Known(Ok(taken)) if self.may_wait(&taken) && self.places.available_permits() > 0 => Now::Wait,
            answer => answer,
        }
    }

    pub(super) async fn take(
        &self,
        store: &dyn RateLimitStore,
        draw: &Draw<'_>,
        at: Instants,
        tally: &Tally,
    ) -> Result<Taken, StoreError> {
        let start = Instant::now();
        let left = || self.longest.saturating_sub(start.elapsed());
        let deadline = start.checked_add(self.longest).unwrap_or(start);
        let mut waiter = None;
        // The lines that it is the first of. A /64's is entered before that of its /48, by all of them, so that no two wait for each other.
        let mut first_of: Vec<First<'_>> = Vec::new();
        loop {
            let (index, refused, pace) = match self.line_before(draw, &first_of) {
                // Should the line end meanwhile, nobody knows which quota holds this up: the fastest counts.
                Some(index) => (index, None, draw.charges().iter().map(interval).min().unwrap_or(0)),
                None => {
                    let answer = {
                        let _asking = Asking::of(self, &first_of);
                        store.take(draw, at.later(start.elapsed())).await
                    };
                    self.edit_lines(&first_of, |line| line.failed = answer.is_err());
                    let taken = answer?;
                    if taken.is_granted() && waiter.is_some() {
                        tally.waited.fetch_add(1, Relaxed);
                    }
                    let wait = taken.retry_after_nanos().map(Duration::from_nanos).filter(|wait| *wait <= left());
                    let (Some(wait), Some(refusing)) = (wait, draw.charges().get(taken.charge())) else {
                        return Ok(taken);
                    };
                    let line = self.line_of(refusing);
                    if let Some(place) = first_of.iter().position(|first| first.place.key == line) {
                        // Those whom another of its keys holds up go on meanwhile.
                        first_of.truncate(place.saturating_add(1));
                        sleep(wait).await;
                        continue;
                    }
                    // All whom one key holds up wait in one line, as slow as its quota: the many /64 of a site, at their /48.
                    (taken.charge(), Some(taken), interval(refusing))
                }
            };
            // What those in the line wait for is theirs: who cannot enter it, or whose turn does not come, takes nothing.
            let turned_away = || refused.map_or_else(|| self.turned_away(draw, index), Ok);
            if waiter.is_none() {
                let (Ok(permit), Ok(_)) = (self.places.try_acquire(), tokio::runtime::Handle::try_current()) else {
                    return turned_away();
                };
                waiter = Some(permit);
            }
            let Some(charge) = draw.charges().get(index) else { return turned_away() };
            first_of.retain(|first| first.index < index);
            let Some(place) = Place::enter(self, self.line_of(charge), pace, draw.cost(), left()) else {
                return self.turned_away(draw, index);
            };
            let turn = timeout_at(deadline, Arc::clone(&place.turn).lock_owned()).await;
            let Ok(turn) = turn else { return self.turned_away(draw, index) };
            first_of.push(First { _turn: turn, place, index });
        }
    }

    /// The answer to who cannot wait behind those in the line of this charge. The store was not asked: that is a refusal, and a failure
    /// of the store where it is the store that the line waits for.
    fn turned_away(&self, draw: &Draw<'_>, index: usize) -> Result<Taken, StoreError> {
        let refused =
            |wait: Duration| Taken::refused(index, u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)).aside();
        let Some(charge) = draw.charges().get(index) else { return Ok(refused(Duration::ZERO)) };
        match self.lines().get(&self.line_of(charge)) {
            Some(line) if self.is_stuck(line) => {
                Err(StoreError::new(StoreErrorKind::Unavailable, "throttle").about("the line waits for the store"))
            }
            Some(line) => Ok(refused(line.least_wait(draw.cost()))),
            None => Ok(refused(Duration::from_nanos(interval(charge)))),
        }
    }

    /// Whether the store holds the line up, and not the quota. One that is slow and answers does not: who floods could make it slow, and
    /// would pass where a failure admits.
    fn is_stuck(&self, line: &Line) -> bool {
        line.failed || line.asking.is_some_and(|since| since.elapsed().saturating_mul(2) >= self.longest)
    }

    fn edit_lines(&self, first_of: &[First<'_>], edit: impl Fn(&mut Line)) {
        let mut lines = self.lines();
        for first in first_of {
            lines.entry(first.place.key).and_modify(&edit);
        }
    }

    fn may_wait(&self, taken: &Taken) -> bool {
        taken.retry_after_nanos().is_some_and(|wait| Duration::from_nanos(wait) <= self.longest)
    }

    fn line_of(&self, charge: &Charge<'_>) -> u64 {
        self.seed.hash_one(charge.key())
    }

    /// The first of its charges in whose key's line others stand before it.
    fn line_before(&self, draw: &Draw<'_>, first_of: &[First<'_>]) -> Option<usize> {
        let lines = self.lines();
        draw.charges().iter().position(|charge| {
            let line = self.line_of(charge);
            lines.contains_key(&line) && first_of.iter().all(|first| first.place.key != line)
        })
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is first in these lines asks the store; no longer when it is dropped.
struct Asking<'a, 'q> {
    queue: &'q Queue,
    first_of: &'a [First<'q>],
}

impl<'a, 'q> Asking<'a, 'q> {
    fn of(queue: &'q Queue, first_of: &'a [First<'q>]) -> Self {
        let now = Instant::now();
        queue.edit_lines(first_of, |line| line.asking = Some(now));
        Self { queue, first_of }
    }
}

impl Drop for Asking<'_, '_> {
    fn drop(&mut self) {
        self.queue.edit_lines(self.first_of, |line| line.asking = None);
    }
}

/// Who is the first of a line.
struct First<'a> {
    // Before the place: the next one wakes, and finds the line.
    _turn: OwnedMutexGuard<()>,
    place: Place<'a>,
    /// Of the charge whose key's line it is.
    index: usize,
}

fn interval(charge: &Charge<'_>) -> u64 {
    charge.quota().interval_nanos()
}

/// A place in a line, left on drop.
struct Place<'a> {
    queue: &'a Queue,
    key: u64,
    turn: Arc<Turn<()>>,
}

impl<'a> Place<'a> {
    /// None behind so many that it would wait too long: places are for those who can be served, of whichever key.
    /// `pace` is that of a line which this one begins, `left` how long it may wait.
    fn enter(queue: &'a Queue, key: u64, pace: u64, cost: NonZeroU32, left: Duration) -> Option<Self> {
        let mut lines = queue.lines();
        if lines.get(&key).is_some_and(|line| line.least_wait(cost) > left) {
            return None;
        }
        let line = lines.entry(key).or_insert_with(|| Line {
            turn: Arc::default(),
            waiting: 0,
            pace,
            asking: None,
            failed: false,
        });
        line.waiting = line.waiting.saturating_add(1);
        Some(Self { queue, key, turn: Arc::clone(&line.turn) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut line) = self.queue.lines().entry(self.key) {
            line.get_mut().waiting = line.get().waiting.saturating_sub(1);
            if line.get().waiting == 0 {
                line.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_named() {
        let error = |longest, waiters| Throttle::new(longest, waiters).unwrap_err().to_string();
        let second = Duration::from_secs(1);
        assert_eq!(error(Duration::ZERO, 1), "longest wait: 0ns is not above zero and at most 60 s");
        assert_eq!(error(61 * second, 1), "longest wait: 61s is not above zero and at most 60 s");
        assert_eq!(error(second, 0), "waiters: 0 is not 1 to 65536");
        assert_eq!(error(second, 65_537), "waiters: 65537 is not 1 to 65536");
        assert!(Throttle::new(60 * second, 65_536).is_ok());
    }
}
