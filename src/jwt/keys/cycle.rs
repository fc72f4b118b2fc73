//! The life cycle of a key set that comes from elsewhere: when to ask, what to keep, and what to answer meanwhile.

mod flight;
mod task;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::watch, time::timeout};

use self::{
    flight::Flight,
    task::{TaskMark, keep},
};
use super::{
    budget::{Absent, Bucket, MAX_KID_LEN, nanos},
    origin::{Fetched, JwkSource, unavailable},
    source::{KeyHealth, KeySnapshot, KeysUnavailable, Refresh},
};
use crate::{
    clock::{Clock, Instants},
    error::StoreError,
    jwt::Algorithm,
};

/// What an origin says of freshness is held to these bounds.
const MIN_LIFE: Duration = Duration::from_secs(60);
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The times of a life cycle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long a set is fresh unless its origin says so.
    pub(super) soft_life: Duration,
    /// How long a set is trusted after its origin last confirmed it.
    pub(super) trust: Duration,
    /// The least time between two fetches once there is a set.
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) max_bytes: usize,
    /// What an RSA key without `alg` is for.
    pub(super) rsa: Algorithm,
}

#[derive(Debug)]
pub(super) struct Cycle {
    source: Box<dyn JwkSource>,
    rules: Rules,
    clock: Arc<dyn Clock>,
    state: ArcSwap<State>,
    /// When the next fetch is due; never, while one is under way.
    due: AtomicU64,
    control: Mutex<Control>,
    /// Counts the fetches that are over.
    flights: watch::Sender<u64>,
    has_task: AtomicBool,
}

/// What requests see.
#[derive(Clone, Debug)]
struct State {
    keys: Option<KeySnapshot>,
    confirmed_at: u64,
    trusted_until: u64,
    /// Why the last fetch failed, if it did.
    cause: Option<Arc<str>>,
}

/// What those who may fetch agree upon. The lock is never held over a wait.
#[derive(Debug, Default)]
struct Control {
    in_flight: bool,
    started_at: Option<u64>,
    failures: u32,
    /// Whether the last fetch brought keys.
    loaded: bool,
    bucket: Bucket,
    absent: Absent,
    /// The unknown kids that wait for the flight: the one that it started for, and those that came later. All tokens that name
    /// none ask for the same.
    asked: Vec<Option<Box<str>>>,
    validator: Option<String>,
    text: Box<str>,
}

/// What a caller who found no key has to do.
enum Begin {
    Answer(Refresh),
    /// Whether it began before the caller came.
    Join(watch::Receiver<u64>, bool),
    Start(Flight, watch::Receiver<u64>),
}

const SPENT: &str = "the budget of fetches for unknown keys is spent";
const TOO_EARLY: &str = "the keys were asked for before the token came, and its key is not among them";

impl Cycle {
    pub(super) fn new(source: Box<dyn JwkSource>, rules: Rules, clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = State { keys: None, confirmed_at: 0, trusted_until: 0, cause: None };
        Arc::new(Self {
            source,
            rules,
            clock,
            state: ArcSwap::from_pointee(state),
            due: AtomicU64::new(0),
            control: Mutex::default(),
            flights: watch::Sender::new(0),
            has_task: AtomicBool::new(false),
        })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    pub(super) fn snapshot(self: &Arc<Self>, at: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        let now = at.monotonic_nanos();
        let waits_for_caller = self.needs_waking(now) && self.wake(at);
        let state = self.state.load();
        match &state.keys {
            Some(keys) if now < state.trusted_until && waits_for_caller => Ok(keys.clone().with_due()),
            Some(keys) if now < state.trusted_until => Ok(keys.clone()),
            Some(_) | None => Err(self.not_ready(&state, now)),
        }
    }

    pub(super) fn generation(self: &Arc<Self>, at: Instants) -> Option<u64> {
        let now = at.monotonic_nanos();
        // Requests that need no keys themselves keep them fresh as well.
        if self.needs_waking(now) {
            self.wake(at);
        }
        let state = self.state.load();
        let keys = state.keys.as_ref().filter(|_| now < state.trusted_until);
        keys.map(KeySnapshot::generation)
    }

    pub(super) fn health(&self, at: Instants) -> KeyHealth {
        let (now, state) = (at.monotonic_nanos(), self.state.load());
        let health = match &state.keys {
            Some(snapshot) if now < state.trusted_until => {
                let keys = snapshot.keys();
                let age = Duration::from_nanos(now.saturating_sub(state.confirmed_at));
                KeyHealth::ready(keys.keys().len()).with_skipped(keys.skipped().len()).with_age(age)
            }
            Some(_) => KeyHealth::not_ready("the keys are too old to be trusted"),
            None => KeyHealth::not_ready("no keys were loaded yet"),
        };
        match &state.cause {
            Some(cause) => health.with_cause(Arc::clone(cause)),
            None => health,
        }
    }

    fn not_ready(&self, state: &State, now: u64) -> KeysUnavailable {
        let what = if state.keys.is_some() { "keys too old" } else { "no keys yet" };
        let cause = state.cause.as_deref().unwrap_or("not fetched yet");
        let due = match self.due.load(Ordering::Relaxed) {
            u64::MAX => now,
            due => due,
        };
        KeysUnavailable::new(
            format!("{}: {what}: {cause}", self.source.name()),
            Duration::from_nanos(due.saturating_sub(now)),
        )
    }

    fn needs_waking(&self, now: u64) -> bool {
        now >= self.due.load(Ordering::Relaxed) || !self.has_task.load(Ordering::Relaxed)
    }

    /// Starts the task, and the fetch if it is due. Whether the caller has to refresh, because nobody else can.
    #[cold]
    fn wake(self: &Arc<Self>, at: Instants) -> bool {
        let Ok(runtime) = Handle::try_current() else {
            return at.monotonic_nanos() >= self.due.load(Ordering::Relaxed);
        };
        self.start(&runtime);
        if at.monotonic_nanos() >= self.due.load(Ordering::Relaxed)
            && let Begin::Start(flight, _) = self.begin(None, u64::MAX, at)
        {
            runtime.spawn(flight.fly());
        }
        false
    }

    pub(super) fn start(self: &Arc<Self>, runtime: &Handle) {
        if !self.has_task.swap(true, Ordering::Relaxed) {
            // The mark goes with the task, also when a runtime that is shut down drops it unpolled.
            let mark = TaskMark(Arc::downgrade(self));
            runtime.spawn(keep(mark));
        }
    }

    /// The answer if there is one without a fetch. Spends nothing.
    pub(super) fn refresh_now(self: &Arc<Self>, kid: Option<&str>, seen: u64, at: Instants) -> Option<Refresh> {
        let mut control = self.control();
        self.decide(&mut control, kid, seen, at).err()
    }

    pub(super) async fn refresh_for(self: &Arc<Self>, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        let (mut flights, began_before) = match self.begin(kid, seen, at) {
            Begin::Answer(refresh) => return refresh,
            Begin::Join(flights, began_before) => (flights, began_before),
            Begin::Start(flight, flights) => {
                match Handle::try_current() {
                    // Whoever waits may go away; the fetch is for all.
                    Ok(runtime) => drop(runtime.spawn(flight.fly())),
                    Err(_) => flight.fly().await,
                }
                (flights, false)
            }
        };
        // Cannot fail: `self` has the sender.
        let _ = flights.changed().await;
        let (control, now) = (self.control(), self.clock.now().monotonic_nanos());
        if !control.loaded {
            return Refresh::Unavailable(self.not_ready(&self.state.load(), now));
        }
        if !began_before || self.may_have(kid, seen) {
            return Refresh::LookAgain;
        }
        if kid.is_some_and(|kid| control.absent.holds(kid, now)) {
            return Refresh::NothingNew;
        }
        // The key may have been rotated in since the origin was asked.
        let wait = Duration::from_nanos(self.next_for_key(&control).saturating_sub(now));
        Refresh::Unavailable(KeysUnavailable::new(TOO_EARLY, wait))
    }

    /// Whether to fetch, or to wait for a fetch; or the answer without one.
    fn decide(&self, control: &mut Control, kid: Option<&str>, seen: u64, at: Instants) -> Result<Reason, Refresh> {
        let now = at.monotonic_nanos();
        let state = self.state.load();
        let later = |cause: &'static str, wait| {
            Err(Refresh::Unavailable(KeysUnavailable::new(cause, Duration::from_nanos(wait))))
        };
        if state.keys.as_ref().is_some_and(|keys| keys.generation() > seen) && now < state.trusted_until {
            return Err(Refresh::LookAgain);
        }
        let due = now >= self.due.load(Ordering::Relaxed);
        if state.keys.is_none() || now >= state.trusted_until || due {
            return if due || control.in_flight {
                Ok(Reason::Due)
            } else {
                Err(Refresh::Unavailable(self.not_ready(&state, now)))
            };
        }
        // Of tokens without a kid none is remembered to have no key: a good one looks like a forged one.
        if kid.is_some_and(|kid| kid.len() > MAX_KID_LEN || control.absent.holds(kid, now)) {
            return Err(Refresh::NothingNew);
        }
        if control.in_flight && control.asked.iter().any(|asked| asked.as_deref() == kid) {
            return Ok(Reason::Due);
        }
        if !control.in_flight {
            let next = self.next_for_key(control);
            if now < next {
                return later(SPENT, next - now);
            }
        }
        match control.bucket.wait(now) {
            0 => Ok(Reason::Key(kid.map(Box::from))),
            wait => later(SPENT, wait),
        }
    }

    fn begin(self: &Arc<Self>, kid: Option<&str>, seen: u64, at: Instants) -> Begin {
        let mut control = self.control();
        let now = at.monotonic_nanos();
        let kid = match self.decide(&mut control, kid, seen, at) {
            Err(answer) => return Begin::Answer(answer),
            Ok(Reason::Due) => None,
            Ok(Reason::Key(kid)) => {
                control.bucket.take(now);
                control.asked.push(kid.clone());
                kid
            }
        };
        let flights = self.flights.subscribe();
        if control.in_flight {
            return Begin::Join(flights, control.started_at.is_some_and(|started| started < now));
        }
        control.in_flight = true;
        control.started_at = Some(now);
        self.due.store(u64::MAX, Ordering::Relaxed);
        Begin::Start(Flight::of(Arc::clone(self), now, kid), flights)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next fetch for an unknown key may go out.
    fn next_for_key(&self, control: &Control) -> u64 {
        control.started_at.map_or(0, |started| started.saturating_add(nanos(self.rules.interval)))
    }

    /// Whether the set may have the key. One without an id answers to any, but was looked at already unless the set is newer.
    fn may_have(&self, kid: Option<&str>, seen: u64) -> bool {
        let state = self.state.load();
        let Some(snapshot) = &state.keys else { return false };
        let is_newer = snapshot.generation() > seen;
        match kid {
            None => is_newer,
            Some(kid) => snapshot.keys().keys().iter().any(|key| key.id().map_or(is_newer, |id| id == kid)),
        }
    }

    fn knows(&self, kid: &str) -> bool {
        let state = self.state.load();
        state.keys.as_ref().is_some_and(|keys| keys.keys().keys().iter().any(|key| key.id() == Some(kid)))
    }

    async fn fetch(&self) -> Result<Fetched, StoreError> {
        let validator = self.control().validator.clone();
        let fetch = self.source.fetch(validator.as_deref());
        if Handle::try_current().is_err() {
            return fetch.await;
        }
        match timeout(self.rules.timeout, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(unavailable(format!("no answer within {:?}", self.rules.timeout))),
        }
    }
}

enum Reason {
    Due,
    /// A key is sought: this one, or any.
    Key(Option<Box<str>>),
}
