//! The life cycle of a key set that comes from elsewhere: when to ask, what to keep, and what to answer meanwhile.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::watch, time::timeout};

use super::{
    budget::{Absent, Bucket, MAX_KID_LEN, backoff, nanos, refresh_after, whole_seconds},
    origin::{Fetched, JwkSource, nonsense, unavailable},
    source::{KeyHealth, KeySnapshot, KeysUnavailable, Refresh},
};
use crate::{
    clock::{Clock, Instants},
    error::StoreError,
    jwt::KeySet,
    log,
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
    /// The unknown kids that the flight is for.
    asked: Vec<Box<str>>,
    validator: Option<String>,
    text: Box<str>,
}

/// What a caller who found no key has to do.
enum Begin {
    Answer(Refresh),
    Join(watch::Receiver<u64>),
    Start(Flight, watch::Receiver<u64>),
}

const SPENT: &str = "the budget of fetches for unknown kids is spent";

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
        let mut waits_for_caller = false;
        if now >= self.due.load(Ordering::Relaxed) || !self.has_task.load(Ordering::Relaxed) {
            waits_for_caller = self.wake(at);
        }
        let state = self.state.load();
        match &state.keys {
            Some(keys) if now < state.trusted_until && waits_for_caller => Ok(keys.clone().with_due()),
            Some(keys) if now < state.trusted_until => Ok(keys.clone()),
            Some(_) | None => Err(self.not_ready(&state, now)),
        }
    }

    pub(super) fn generation(&self, at: Instants) -> Option<u64> {
        let state = self.state.load();
        let keys = state.keys.as_ref().filter(|_| at.monotonic_nanos() < state.trusted_until);
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
        KeysUnavailable::new(format!("{}: {what}: {cause}", self.source.name()), whole_seconds(due.saturating_sub(now)))
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
        let mut flights = match self.begin(kid, seen, at) {
            Begin::Answer(refresh) => return refresh,
            Begin::Join(flights) => flights,
            Begin::Start(flight, flights) => {
                match Handle::try_current() {
                    // Whoever waits may go away; the fetch is for all.
                    Ok(runtime) => drop(runtime.spawn(flight.fly())),
                    Err(_) => flight.fly().await,
                }
                flights
            }
        };
        // Cannot fail: `self` has the sender.
        let _ = flights.changed().await;
        if self.control().loaded {
            return Refresh::LookAgain;
        }
        Refresh::Unavailable(self.not_ready(&self.state.load(), self.clock.now().monotonic_nanos()))
    }

    /// Whether to fetch, or to wait for a fetch; or the answer without one.
    fn decide(&self, control: &mut Control, kid: Option<&str>, seen: u64, at: Instants) -> Result<Reason, Refresh> {
        let now = at.monotonic_nanos();
        let state = self.state.load();
        let later =
            |cause: &'static str, wait| Err(Refresh::Unavailable(KeysUnavailable::new(cause, whole_seconds(wait))));
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
        let kid = kid.unwrap_or_default();
        if kid.len() > MAX_KID_LEN || control.absent.holds(kid, now) {
            return Err(Refresh::NothingNew);
        }
        if control.in_flight && control.asked.iter().any(|asked| **asked == *kid) {
            return Ok(Reason::Due);
        }
        if !control.in_flight {
            let next = control.started_at.map_or(0, |started| started.saturating_add(nanos(self.rules.interval)));
            if now < next {
                return later(SPENT, next - now);
            }
        }
        match control.bucket.wait(now) {
            0 => Ok(Reason::Kid(kid.into())),
            wait => later(SPENT, wait),
        }
    }

    fn begin(self: &Arc<Self>, kid: Option<&str>, seen: u64, at: Instants) -> Begin {
        let mut control = self.control();
        let now = at.monotonic_nanos();
        match self.decide(&mut control, kid, seen, at) {
            Err(answer) => return Begin::Answer(answer),
            Ok(Reason::Due) => {}
            Ok(Reason::Kid(kid)) => {
                control.bucket.take(now);
                control.asked.push(kid);
            }
        }
        let flights = self.flights.subscribe();
        if control.in_flight {
            return Begin::Join(flights);
        }
        control.in_flight = true;
        control.started_at = Some(now);
        self.due.store(u64::MAX, Ordering::Relaxed);
        Begin::Start(Flight { cycle: Arc::clone(self), started_at: now, landed: false }, flights)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
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
    Kid(Box<str>),
}

/// A fetch under way. Dropped before its end, it has failed.
struct Flight {
    cycle: Arc<Cycle>,
    started_at: u64,
    landed: bool,
}

impl Flight {
    async fn fly(mut self) {
        let fetched = self.cycle.fetch().await;
        let mut control = self.cycle.control();
        match fetched.and_then(|fetched| self.install(&mut control, fetched)) {
            Ok(life) => {
                let due = self.started_at.saturating_add(nanos(refresh_after(life)));
                let now = self.now();
                for kid in std::mem::take(&mut control.asked) {
                    if !self.cycle.knows(&kid) {
                        control.absent.add(kid, now);
                    }
                }
                control.failures = 0;
                self.land(&mut control, true, due);
            }
            Err(error) => self.fail(&mut control, &error),
        }
        drop(control);
        self.landed = true;
    }

    fn now(&self) -> u64 {
        self.cycle.clock.now().monotonic_nanos().max(self.started_at)
    }

    /// Takes what was fetched. How long it is fresh.
    fn install(&self, control: &mut Control, fetched: Fetched) -> Result<Duration, StoreError> {
        let cycle = &*self.cycle;
        let (text, fresh_for, validator) = fetched.into_parts();
        let state = cycle.state.load();
        let keys = match (text, &state.keys) {
            (None, None) => return Err(nonsense("says that nothing changed before there was anything")),
            (None, Some(keys)) => {
                control.validator = validator.or_else(|| control.validator.take());
                keys.clone()
            }
            (Some(text), _) if text.len() > cycle.rules.max_bytes => {
                return Err(nonsense(format!("the set has more than {} bytes", cycle.rules.max_bytes)));
            }
            (Some(text), Some(keys)) if *text == *control.text => {
                control.validator = validator;
                keys.clone()
            }
            (Some(text), known) => {
                let keys = KeySet::from_jwks(&text).map_err(nonsense)?;
                for skipped in keys.skipped() {
                    log::warn(&one_line(&format!("keys of {}: skipped {}", cycle.source.name(), chain(skipped))));
                }
                control.text = text.into();
                control.validator = validator;
                KeySnapshot::new(keys, known.as_ref().map_or(1, |known| known.generation().saturating_add(1)))
            }
        };
        if state.cause.is_some() {
            log::warn(&one_line(&format!("keys of {}: refreshed again", cycle.source.name())));
        }
        cycle.state.store(Arc::new(State {
            keys: Some(keys),
            confirmed_at: self.started_at,
            trusted_until: self.started_at.saturating_add(nanos(cycle.rules.trust)),
            cause: None,
        }));
        Ok(fresh_for.map_or(cycle.rules.soft_life, |life| life.clamp(MIN_LIFE, MAX_LIFE)).min(cycle.rules.trust))
    }

    /// Keeps the keys that there are, and remembers why there are no newer ones.
    fn fail(&self, control: &mut Control, error: &StoreError) {
        let cycle = &*self.cycle;
        let state = cycle.state.load();
        let cause = one_line(&error.source().map_or_else(|| error.to_string(), chain));
        if state.cause.as_deref() != Some(&*cause) {
            log::warn(&one_line(&format!("keys of {} cannot be refreshed: {cause}", cycle.source.name())));
        }
        cycle.state.store(Arc::new(State { cause: Some(cause.into()), ..State::clone(&state) }));
        control.failures = control.failures.saturating_add(1);
        let least = if state.keys.is_some() { cycle.rules.interval } else { Duration::ZERO };
        let delay = backoff(control.failures).max(least);
        self.land(control, false, self.now().saturating_add(nanos(delay)));
    }

    fn land(&self, control: &mut Control, loaded: bool, due: u64) {
        control.in_flight = false;
        control.loaded = loaded;
        control.asked.clear();
        self.cycle.due.store(due, Ordering::Relaxed);
        self.cycle.flights.send_modify(|over| *over = over.wrapping_add(1));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            let mut control = self.cycle.control();
            self.fail(&mut control, &unavailable("the fetch was given up"));
        }
    }
}

/// Says that the task of a cycle is gone, when it goes.
struct TaskMark(Weak<Cycle>);

impl Drop for TaskMark {
    fn drop(&mut self) {
        if let Some(cycle) = self.0.upgrade() {
            cycle.has_task.store(false, Ordering::Relaxed);
        }
    }
}

/// Refreshes until the cycle is dropped.
async fn keep(mark: TaskMark) {
    loop {
        let Some(cycle) = mark.0.upgrade() else { return };
        let mut flights = cycle.flights.subscribe();
        let now = cycle.clock.now();
        let wait = match cycle.due.load(Ordering::Relaxed) {
            due if due <= now.monotonic_nanos() => {
                if let Begin::Start(flight, _) = cycle.begin(None, u64::MAX, now) {
                    drop(cycle);
                    flight.fly().await;
                }
                continue;
            }
            // Under way: the end wakes the task.
            u64::MAX => MAX_LIFE,
            due => Duration::from_nanos(due - now.monotonic_nanos()),
        };
        drop(cycle);
        // Wakes when it is due, when a flight is over, and when the cycle is dropped.
        if matches!(timeout(wait, flights.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

/// An error and what led to it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A bounded text without control characters: part of it may come from the origin.
fn one_line(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
