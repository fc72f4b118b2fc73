use std::{
    error::Error,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Control, Cycle, MAX_LIFE, MIN_LIFE, State};
use crate::{
    error::StoreError,
    event::{self, Event, EventKind},
    jwt::{
        KeySet,
        keys::{
            budget::{backoff, nanos, refresh_after},
            origin::{Fetched, nonsense, unavailable},
            source::KeySnapshot,
        },
    },
    log::{self, chain, one_line},
};

/// A fetch under way. Dropped before its end, it has failed.
pub(super) struct Flight {
    cycle: Arc<Cycle>,
    started_at: u64,
    /// The unknown kid that it started for, if a token named one: of one that came later, what it brings says nothing.
    kid: Option<Box<str>>,
    landed: bool,
}

impl Flight {
    pub(super) fn of(cycle: Arc<Cycle>, started_at: u64, kid: Option<Box<str>>) -> Self {
        Self { cycle, started_at, kid, landed: false }
    }

    pub(super) async fn fly(mut self) {
        let fetched = self.cycle.fetch().await;
        let mut tidings = Tidings::default();
        let mut control = self.cycle.control();
        match fetched.and_then(|fetched| self.install(&mut control, fetched, &mut tidings)) {
            Ok(life) => {
                let due = self.started_at.saturating_add(nanos(refresh_after(life)));
                if let Some(kid) = self.kid.take()
                    && !self.cycle.knows(&kid)
                {
                    control.absent.add(kid, self.now());
                }
                control.failures = 0;
                self.land(&mut control, true, due);
            }
            Err(error) => self.fail(&mut control, &error, &mut tidings),
        }
        drop(control);
        self.landed = true;
        tidings.tell();
    }

    fn now(&self) -> u64 {
        self.cycle.clock.now().monotonic_nanos().max(self.started_at)
    }

    /// Takes what was fetched. How long it is fresh.
    fn install(&self, control: &mut Control, fetched: Fetched, tidings: &mut Tidings) -> Result<Duration, StoreError> {
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
                let keys = KeySet::from_jwks_where_rsa_is(cycle.rules.rsa, &text).map_err(nonsense)?;
                for skipped in keys.skipped() {
                    tidings.warn(&format!("keys of {}: skipped {}", cycle.source.name(), chain(skipped)));
                }
                control.text = text.into();
                control.validator = validator;
                let generation = match known {
                    None => 1,
                    // Written otherwise: some servers tell their keys in any order.
                    Some(known) if known.keys().has_the_keys_of(&keys) => known.generation(),
                    Some(known) => {
                        tidings.event(Event::new(EventKind::KeySetRotated, cycle.source.name()));
                        known.generation().saturating_add(1)
                    }
                };
                KeySnapshot::new(keys, generation)
            }
        };
        if state.cause.is_some() {
            tidings.warn(&format!("keys of {}: refreshed again", cycle.source.name()));
            tidings.event(Event::new(EventKind::KeySetRestored, cycle.source.name()));
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
    fn fail(&self, control: &mut Control, error: &StoreError, tidings: &mut Tidings) {
        let cycle = &*self.cycle;
        let state = cycle.state.load();
        let cause = one_line(&error.source().map_or_else(|| error.to_string(), chain));
        if state.cause.as_deref() != Some(&*cause) {
            tidings.warn(&format!("keys of {} cannot be refreshed: {cause}", cycle.source.name()));
            tidings.event(Event::new(EventKind::KeySetUnavailable, cycle.source.name()).with("reason", &*cause));
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
            let mut tidings = Tidings::default();
            self.fail(&mut self.cycle.control(), &unavailable("the fetch was given up"), &mut tidings);
            tidings.tell();
        }
    }
}

/// What is said of a fetch, once it counts and nobody waits for the lock: a sink or a log that stands still holds up neither.
#[derive(Default)]
struct Tidings {
    warnings: Vec<String>,
    events: Vec<Event>,
}

impl Tidings {
    fn warn(&mut self, text: &str) {
        self.warnings.push(one_line(text));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn tell(self) {
        self.warnings.iter().for_each(|text| log::warn(text));
        self.events.into_iter().for_each(event::tell);
    }
}
