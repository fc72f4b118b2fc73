//! The suite for rate limit stores, on the store of this crate, its pointers, and stores written with public API alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use portcullis::{
    Instants, Now, StoreError,
    conformance::{rate_limit_store, rate_limit_store_that_is_full, rate_limit_store_that_is_shared},
    rate_limit::{Charge, Draw, KeyPart, LatestTime, MemoryLimits, RateLimitStore, Taken},
};

const DAY: u64 = 86_400_000_000_000;
const NOW: Instants = Instants::new(1_800_000_000_000_000_000, DAY);

#[tokio::test]
async fn memory() {
    rate_limit_store(&MemoryLimits::new(), NOW).await;
    rate_limit_store(&MemoryLimits::new(), Instants::new(0, 123_456_789_012_345)).await;
    rate_limit_store(&MemoryLimits::with_capacity(256).unwrap(), NOW).await;
}

#[tokio::test]
async fn pointers() {
    let shared: Arc<dyn RateLimitStore> = Arc::new(MemoryLimits::new());
    rate_limit_store(&shared, NOW).await;
    let boxed: Box<dyn RateLimitStore> = Box::new(MemoryLimits::new());
    rate_limit_store(&boxed, NOW).await;
}

#[tokio::test]
async fn memory_is_bounded_and_may_be_shared() {
    for entries in [1, 256, 2_000] {
        rate_limit_store_that_is_full(&MemoryLimits::with_capacity(entries).unwrap(), Some(entries), NOW).await;
    }
    let store = Arc::new(MemoryLimits::new());
    rate_limit_store_that_is_full(&store, None, NOW).await;
    rate_limit_store_that_is_shared(async || Arc::clone(&store), NOW).await;
}

/// A token bucket, in plain arithmetic of its own: what share of the burst's time is left, in nanoseconds, and since when.
#[derive(Debug, Default)]
struct TokenBuckets(Mutex<HashMap<String, (i128, i128)>>, LatestTime);

impl TokenBuckets {
    /// The name of a charge, its price, and what is left of it.
    fn left(buckets: &HashMap<String, (i128, i128)>, charge: &Charge<'_>, now: i128) -> (String, i128) {
        let name = format!("{}/{}", charge.key(), charge.quota().name());
        let whole = i128::from(charge.quota().capacity_nanos());
        let Some((debt, since)) = buckets.get(&name) else { return (name, whole) };
        let debt = (debt - (now - since)).max(0);
        let debt = if debt > whole + 60_000_000_000 { whole } else { debt };
        (name, whole - debt)
    }
}

#[async_trait]
impl RateLimitStore for TokenBuckets {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::task::yield_now().await;
        let mut buckets = self.0.lock().unwrap();
        let now = i128::from(self.1.catch_up(at).unix_nanos());
        let nanos = |number: i128| u64::try_from(number).unwrap();
        let counted: Vec<_> = draw
            .charges()
            .iter()
            .map(|charge| {
                let quota = charge.quota();
                let price = i128::from(quota.interval_nanos()) * i128::from(draw.cost().get());
                (Self::left(&buckets, charge, now), price, i128::from(quota.capacity_nanos()), quota.interval_nanos())
            })
            .collect();
        if let Some(index) = counted.iter().position(|(_, price, whole, _)| price > whole) {
            return Ok(Taken::too_costly(index));
        }
        let missing = |left: i128, price: i128| price - left;
        let refuses = counted.iter().any(|((_, left), price, ..)| left < price);
        let taken: Vec<_> = counted
            .into_iter()
            .map(|((name, left), price, whole, each)| {
                let left = match (refuses, draw.counts_refused()) {
                    (false, _) => left - price,
                    (true, true) => left.min((left - price).max(0)),
                    (true, false) => left,
                };
                buckets.insert(name, (whole - left, now));
                (left, price, whole, each)
            })
            .collect();
        let answers = taken.into_iter().enumerate().map(|(index, (left, price, whole, each))| {
            if refuses {
                (-missing(left, price), Taken::refused(index, nanos(missing(left, price).max(0))))
            } else {
                let remaining = left / i128::from(each);
                (remaining, Taken::granted(index, u32::try_from(remaining).unwrap(), nanos(whole - left)))
            }
        });
        Ok(answers.min_by_key(|(order, _)| *order).map_or(Taken::too_costly(0), |(_, taken)| taken))
    }
}

#[tokio::test]
async fn a_token_bucket_of_your_own() {
    rate_limit_store(&TokenBuckets::default(), NOW).await;
}

/// What a store may get wrong.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    None,
    TakesWhenItRefuses,
    NeverCountsRefusals,
    ForgetsTheIssuer,
    ForgetsTheTenant,
    TakesBeforeItSaysWait,
    CountsTheFastWayApart,
    OnlyTheFirstCharge,
    OneAfterTheOther,
    KnowsNoName,
    KnowsTheNumbers,
    WidensEveryNetwork,
    SaysTooShortAWait,
    BelievesTheClock,
    OpensWhenTheClockGoesBack,
    BelievesOldReadings,
    ForgetsEverything,
    ReadsThenWrites,
}

#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    latest: LatestTime,
    kept: Mutex<HashMap<String, u64>>,
    turn: Mutex<()>,
}

impl Default for Flawed {
    fn default() -> Self {
        Self::new(Flaw::None)
    }
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, latest: LatestTime::new(), kept: Mutex::default(), turn: Mutex::default() }
    }

    fn name(&self, charge: &Charge<'_>, fast: bool) -> String {
        let mut key = charge.key().to_string();
        let name = charge.quota().name();
        match (self.flaw, charge.key().parts()) {
            (Flaw::ForgetsTheIssuer, [KeyPart::Principal { subject, .. }]) => key = (*subject).to_owned(),
            (Flaw::ForgetsTheTenant, [KeyPart::Principal { issuer, subject, .. }]) => {
                let principal = KeyPart::Principal { issuer, tenant: None, subject };
                key = format!("{}:{principal}", charge.key().scope());
            }
            (Flaw::WidensEveryNetwork, [KeyPart::Network { prefix, .. }]) => {
                key = format!("{}{:?}", charge.key().scope(), KeyPart::wide_network(*prefix));
            }
            _ => {}
        }
        match self.flaw {
            Flaw::CountsTheFastWayApart if fast => format!("{key}/{name}/fast"),
            Flaw::KnowsNoName => key,
            Flaw::KnowsTheNumbers => format!("{key}/{name}/{}", charge.quota().count()),
            _ => format!("{key}/{name}"),
        }
    }

    fn read(&self, draw: &Draw<'_>, fast: bool) -> (Vec<String>, Vec<u64>) {
        let names: Vec<String> = draw.charges().iter().map(|charge| self.name(charge, fast)).collect();
        let kept = self.kept.lock().unwrap();
        let tats = names.iter().map(|name| kept.get(name).copied().unwrap_or(0)).collect();
        (names, tats)
    }

    fn ask(&self, draw: &Draw<'_>, at: Instants, fast: bool) -> Taken {
        let _turn = self.turn.lock().unwrap();
        let (names, tats) = self.read(draw, fast);
        self.decide(draw, at, names, tats)
    }

    fn decide(&self, draw: &Draw<'_>, at: Instants, names: Vec<String>, mut tats: Vec<u64>) -> Taken {
        let at = if matches!(self.flaw, Flaw::BelievesOldReadings) { at } else { self.latest.catch_up(at) };
        let now = at.unix_nanos();
        let mut kept = self.kept.lock().unwrap();
        let first = draw.charges().get(..1).unwrap_or_default();
        let plain = Draw::new(draw.charges()).with_cost(draw.cost());
        let before = tats.clone();
        let mut taken = match self.flaw {
            Flaw::OnlyTheFirstCharge => Draw::new(first).with_cost(draw.cost()).take(&mut tats, now),
            Flaw::NeverCountsRefusals => plain.take(&mut tats, now),
            Flaw::OneAfterTheOther => {
                let each = draw.charges().iter().zip(&mut tats).enumerate().map(|(index, (charge, tat))| {
                    let alone = Draw::new(std::slice::from_ref(charge)).with_cost(draw.cost());
                    (alone.take(std::slice::from_mut(tat), now), index)
                });
                let all: Vec<_> = each.collect();
                match all.iter().find(|(taken, _)| !taken.is_granted()) {
                    Some((refused, index)) => refused
                        .retry_after_nanos()
                        .map_or(Taken::too_costly(*index), |wait| Taken::refused(*index, wait)),
                    None => draw.take(&mut before.clone(), now),
                }
            }
            _ => draw.take(&mut tats, now),
        };
        match self.flaw {
            Flaw::TakesWhenItRefuses if !taken.is_granted() && !tats.is_empty() => {
                tats[0] += draw.charges()[0].quota().interval_nanos();
            }
            Flaw::SaysTooShortAWait => {
                if let Some(wait) = taken.retry_after_nanos() {
                    taken = Taken::refused(taken.charge(), wait / 2);
                }
            }
            Flaw::BelievesTheClock if !taken.is_granted() => tats = before,
            Flaw::OpensWhenTheClockGoesBack => {
                for (tat, charge) in tats.iter_mut().zip(draw.charges()) {
                    if *tat > now + charge.quota().capacity_nanos() {
                        *tat = 0;
                    }
                }
            }
            _ => {}
        }
        kept.extend(names.into_iter().zip(tats));
        if matches!(self.flaw, Flaw::ForgetsEverything) {
            kept.clear();
        }
        taken
    }
}

#[async_trait]
impl RateLimitStore for Flawed {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        if matches!(self.flaw, Flaw::ReadsThenWrites) {
            return Now::Wait;
        }
        let taken = self.ask(draw, at, true);
        if matches!(self.flaw, Flaw::TakesBeforeItSaysWait) { Now::Wait } else { Now::Known(Ok(taken)) }
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let (names, tats) = self.read(draw, false);
        if !matches!(self.flaw, Flaw::ReadsThenWrites) {
            return Ok(self.ask(draw, at, false));
        }
        tokio::task::yield_now().await;
        Ok(self.decide(draw, at, names, tats))
    }
}

/// What the suite says of a store; nothing if it finds nothing.
fn found(suite: impl Future<Output = ()>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(suite))) else {
        return String::new();
    };
    let said = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(ToString::to_string));
    said.unwrap()
}

/// Room for a hundred counts. What comes later shares one, or takes the place of the oldest.
#[derive(Debug)]
struct Hundred {
    evicts: bool,
    kept: Mutex<Vec<(String, u64)>>,
}

#[async_trait]
impl RateLimitStore for Hundred {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let mut name = draw.charges()[0].key().to_string();
        let mut kept = self.kept.lock().unwrap();
        if kept.len() >= 100 && !kept.iter().any(|(key, _)| *key == name) {
            if self.evicts {
                kept.remove(0);
            } else {
                "everybody else".clone_into(&mut name);
            }
        }
        let place = kept.iter().position(|(key, _)| *key == name).unwrap_or_else(|| {
            kept.push((name, 0));
            kept.len() - 1
        });
        Ok(draw.take(std::slice::from_mut(&mut kept[place].1), at.unix_nanos()))
    }
}

/// Lets its lock go between the look and the write, without waiting for anything.
#[derive(Debug, Default)]
struct TwoSteps(Mutex<HashMap<String, u64>>, LatestTime);

#[async_trait]
impl RateLimitStore for TwoSteps {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let now = self.1.catch_up(at).unix_nanos();
        let name = |charge: &Charge<'_>| format!("{}/{}", charge.key(), charge.quota().name());
        let names: Vec<_> = draw.charges().iter().map(name).collect();
        let read = |name| self.0.lock().unwrap().get(name).copied().unwrap_or(0);
        let mut times: Vec<u64> = names.iter().map(read).collect();
        std::thread::yield_now();
        let taken = draw.take(&mut times, now);
        self.0.lock().unwrap().extend(names.into_iter().zip(times));
        Ok(taken)
    }
}

#[test]
fn two_steps_are_found_by_threads() {
    let said = found(rate_limit_store(&TwoSteps::default(), NOW));
    assert!(said.contains("threads that `take` are granted as many as one after the other"), "{said}");
}

#[test]
fn the_suite_of_bounds_finds_what_is_wrong() {
    let hundred = |evicts| Hundred { evicts, kept: Mutex::default() };
    let full = |store: &dyn RateLimitStore| found(rate_limit_store_that_is_full(store, Some(100), NOW));
    assert_eq!(full(&hundred(false)), "");
    assert!(full(&hundred(true)).contains("first: what is in debt is not forgotten"));
    assert!(full(&Flawed::new(Flaw::None)).contains("a store does not grow"));
    assert_eq!(found(rate_limit_store_that_is_full(&Flawed::new(Flaw::None), None, NOW)), "");
}

/// Where processes keep their counts, each of which takes turns with itself alone.
#[derive(Debug, Default)]
struct InTurns {
    place: Arc<Flawed>,
    turn: tokio::sync::Mutex<()>,
}

#[async_trait]
impl RateLimitStore for InTurns {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        let _turn = self.turn.lock().await;
        let (names, tats) = self.place.read(draw, false);
        tokio::task::yield_now().await;
        Ok(self.place.decide(draw, at, names, tats))
    }
}

#[test]
fn the_suite_of_shared_stores_finds_what_is_wrong() {
    assert_eq!(found(rate_limit_store(&InTurns::default(), NOW)), "");
    let place = Arc::<Flawed>::default();
    let open = async || InTurns { place: Arc::clone(&place), ..InTurns::default() };
    assert!(found(rate_limit_store_that_is_shared(open, NOW)).contains("processes that ask at once"));
    let apart = async || MemoryLimits::new();
    assert!(found(rate_limit_store_that_is_shared(apart, NOW)).contains("what one process took is taken from all"));
}

#[test]
fn the_suite_finds_what_is_wrong() {
    let passes = |flaw| found(rate_limit_store(&Flawed::new(flaw), NOW)).is_empty();
    assert!(passes(Flaw::None));
    for flaw in [
        Flaw::TakesWhenItRefuses,
        Flaw::NeverCountsRefusals,
        Flaw::ForgetsTheIssuer,
        Flaw::ForgetsTheTenant,
        Flaw::TakesBeforeItSaysWait,
        Flaw::CountsTheFastWayApart,
        Flaw::OnlyTheFirstCharge,
        Flaw::OneAfterTheOther,
        Flaw::KnowsNoName,
        Flaw::KnowsTheNumbers,
        Flaw::WidensEveryNetwork,
        Flaw::SaysTooShortAWait,
        Flaw::BelievesTheClock,
        Flaw::OpensWhenTheClockGoesBack,
        Flaw::BelievesOldReadings,
        Flaw::ForgetsEverything,
        Flaw::ReadsThenWrites,
    ] {
        assert!(!passes(flaw), "{flaw:?} went unnoticed");
    }
}
