//! Whatever happens in whatever order, an answer was true within the documented age, and no change that was told is ignored.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    StoreError, StoreErrorKind,
    api_key::{ApiKeyStore, Cached, ChangeFeed, Found, Hit, KeyCache, KeyChange, Lookup},
};
use proptest::prelude::*;

use super::slow::{after, fields, find, id, leaked, lookup, owner, record};

const KEYS: usize = 4;

/// What is true of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fact {
    exists: bool,
    revoked: bool,
    owner_disabled: bool,
}

impl Fact {
    fn of(hit: Option<&Hit>) -> Self {
        hit.map_or_else(Self::default, |hit| Self {
            exists: true,
            revoked: hit.record().revocation().is_some(),
            owner_disabled: hit.owner_disabled(),
        })
    }
}

/// A change, when it was made, and whether it was told.
#[derive(Clone, Copy, Debug)]
struct Change {
    from: Fact,
    at: u64,
    told: bool,
}

#[derive(Debug)]
struct Model {
    feed: Option<ChangeFeed>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Even if there is no such key its owner may be disabled; the fact does not say so then.
    keys: [(bool, bool); KEYS],
    disabled: [bool; 2],
    fails: bool,
    holds: bool,
    /// Whether its last answer was that it is away: that is what whoever asked knows of it until the next one.
    failed_last: bool,
}

/// Keys 0 and 2 are of one owner, 1 and 3 of another.
fn owner_of(key: usize) -> u32 {
    u32::try_from(key % 2).unwrap()
}

fn number(key: usize) -> u32 {
    owner_of(key) + 7 * u32::try_from(key).unwrap()
}

impl State {
    fn fact(&self, key: usize) -> Fact {
        let (exists, revoked) = self.keys[key];
        if !exists {
            return Fact::default();
        }
        Fact { exists, revoked, owner_disabled: self.disabled[key % 2] }
    }
}

#[async_trait]
impl ApiKeyStore for Model {
    async fn find(&self, lookup: Lookup) -> Found {
        let (fails, fact) = {
            let state = self.state.lock().unwrap();
            let key = (0..KEYS).find(|key| id(number(*key)) == *lookup.id()).unwrap();
            (state.fails, (key, state.fact(key)))
        };
        std::future::poll_fn(|_| match self.state.lock().unwrap().holds {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        self.state.lock().unwrap().failed_last = fails;
        if fails {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "model"));
        }
        let (key, fact) = fact;
        let record =
            if fact.revoked { record(number(key)).revoked(&leaked()) } else { fields(number(key)).check().unwrap() };
        Ok(fact.exists.then(|| Hit::new(Arc::new(record)).with_owner_disabled(fact.owner_disabled)))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        self.feed.as_ref()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(usize),
    Revoke(usize),
    Disable(usize),
    Enable(usize),
    Tell,
    Lose,
    Resync,
    Fail(bool),
    Hold,
    Release,
    Ask(usize),
    GiveUp(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS;
    let step = prop_oneof![
        1 => key.clone().prop_map(Step::Insert),
        2 => key.clone().prop_map(Step::Revoke),
        1 => (0..2_usize).prop_map(Step::Disable),
        1 => (0..2_usize).prop_map(Step::Enable),
        3 => Just(Step::Tell),
        1 => Just(Step::Lose),
        1 => Just(Step::Resync),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => Just(Step::Hold),
        2 => Just(Step::Release),
        9 => key.prop_map(Step::Ask),
        1 => (0..3_usize).prop_map(Step::GiveUp),
        3 => prop_oneof![0..2_000_u64, 4_000..6_000_u64, 9_000..11_000_u64, 55_000..125_000_u64].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

struct Asked {
    key: usize,
    at: u64,
    answer: Pin<Box<dyn Future<Output = Found>>>,
}

/// Drives a cache and remembers what was true when.
struct World {
    cached: Arc<Cached<Arc<Model>>>,
    model: Arc<Model>,
    stale: bool,
    now: u64,
    lost: bool,
    /// Whether the store fails, failed since the last release, or has not answered since it did: what waits may be served stale.
    failed: bool,
    history: [Vec<Change>; KEYS],
    untold: VecDeque<(KeyChange, Vec<(usize, usize)>)>,
    waiting: Vec<Asked>,
}

impl World {
    fn new(feed: bool, stale: bool) -> Self {
        let model = Arc::new(Model { feed: feed.then(ChangeFeed::new), state: Mutex::default() });
        let cache = KeyCache::new();
        let cache = if stale { cache.stale_on_error(Duration::from_secs(60)) } else { cache };
        let cached = Arc::new(Cached::with_cache(Arc::clone(&model), &cache).unwrap());
        Self {
            cached,
            model,
            stale,
            now: 0,
            lost: false,
            failed: false,
            history: Default::default(),
            untold: VecDeque::new(),
            waiting: Vec::new(),
        }
    }

    fn change(&mut self, change: KeyChange, make: impl FnOnce(&mut State)) {
        let mut state = self.model.state.lock().unwrap();
        let before = [0, 1, 2, 3].map(|key| state.fact(key));
        make(&mut state);
        let mut changed = Vec::new();
        for (key, from) in before.into_iter().enumerate() {
            if state.fact(key) != from {
                changed.push((key, self.history[key].len()));
                self.history[key].push(Change { from, at: self.now, told: false });
            }
        }
        if self.model.feed.is_some() && !self.lost {
            self.untold.push_back((change, changed));
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let told = |key: usize| KeyChange::Key(id(number(key)));
        let told_owner = |index: usize| KeyChange::Owner(owner(u32::try_from(index).unwrap()));
        match step {
            Step::Insert(key) => self.change(told(key), |state| state.keys[key].0 = true),
            Step::Revoke(key) => self.change(told(key), |state| state.keys[key].1 = state.keys[key].0),
            Step::Disable(index) => self.change(told_owner(index), |state| state.disabled[index] = true),
            Step::Enable(index) => self.change(told_owner(index), |state| state.disabled[index] = false),
            Step::Tell => {
                if let Some((change, which)) = self.untold.pop_front() {
                    self.model.feed.as_ref().unwrap().publish(&change);
                    which.into_iter().for_each(|(key, index)| self.history[key][index].told = true);
                }
            }
            Step::Lose => {
                if let Some(feed) = &self.model.feed {
                    (self.lost, self.untold) = (true, VecDeque::new());
                    feed.publish(&KeyChange::Lost);
                }
            }
            Step::Resync => {
                if let Some(feed) = &self.model.feed {
                    (self.lost, self.untold) = (false, VecDeque::new());
                    feed.publish(&KeyChange::Everything);
                    self.history.iter_mut().flatten().for_each(|change| change.told = true);
                }
            }
            Step::Fail(fails) => {
                self.model.state.lock().unwrap().fails = fails;
                self.failed |= fails;
            }
            Step::Hold => self.model.state.lock().unwrap().holds = true,
            Step::Release => {
                self.model.state.lock().unwrap().holds = false;
                self.poll()?;
                prop_assert!(self.waiting.is_empty(), "everybody gets an answer");
                let state = self.model.state.lock().unwrap();
                self.failed = state.fails || state.failed_last;
            }
            Step::Ask(key) => {
                let (cached, lookup) = (Arc::clone(&self.cached), lookup(number(key), self.time()));
                let answer = Box::pin(async move { find(&*cached, lookup).await });
                self.waiting.push(Asked { key, at: self.now, answer });
                self.poll()?;
            }
            Step::GiveUp(index) => {
                if index < self.waiting.len() {
                    drop(self.waiting.remove(index));
                    self.poll()?;
                }
            }
            Step::Wait(millis) => self.now += millis,
        }
        Ok(())
    }

    fn time(&self) -> portcullis::Instants {
        after(Duration::from_millis(self.now))
    }

    /// Polls all who wait, until nobody gets any further.
    fn poll(&mut self) -> Result<(), TestCaseError> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let before = self.waiting.len();
            let mut waiting = Vec::new();
            for mut asked in std::mem::take(&mut self.waiting) {
                match asked.answer.as_mut().poll(&mut cx) {
                    Poll::Pending => waiting.push(asked),
                    Poll::Ready(answer) => self.check(asked.key, asked.at, answer)?,
                }
            }
            self.waiting = waiting;
            if self.waiting.len() == before {
                return Ok(());
            }
        }
    }

    fn check(&self, key: usize, asked_at: u64, answer: Found) -> Result<(), TestCaseError> {
        let Ok(answer) = answer else {
            prop_assert!(self.failed, "an error comes from a store that fails");
            return Ok(());
        };
        let answer = Fact::of(answer.as_ref());
        let mut age = if self.model.feed.is_some() && !self.lost { 120_000 } else { 10_000 };
        if self.stale && self.failed {
            age = age.max(60_000);
        }
        let oldest = asked_at.saturating_sub(age);
        // The latest fact, and what was before a change that is neither told nor too long ago.
        let now = self.model.state.lock().unwrap().fact(key);
        let mut possible = vec![now];
        for change in self.history[key].iter().rev() {
            if change.told || change.at < oldest {
                break;
            }
            possible.push(change.from);
        }
        prop_assert!(possible.contains(&answer), "{answer:?} of key {key} at {asked_at} is none of {possible:?}");
        Ok(())
    }
}

/// Nobody knows that a store is back before it has answered: while one asks it, the others are served what is remembered.
#[test]
fn a_store_is_away_until_it_answers() {
    use Step::{Ask, Fail, Hold, Insert, Release, Revoke, Wait};

    let mut world = World::new(false, true);
    let away = [Insert(1), Ask(1), Fail(true), Ask(2), Fail(false), Release, Hold, Revoke(1), Wait(10_001), Ask(0)];
    away.into_iter().for_each(|step| world.step(step).unwrap());
    let stats = |world: &World| (world.cached.stats().stale, world.waiting.len());
    world.step(Ask(1)).unwrap();
    assert_eq!(stats(&world), (1, 1), "served at once, and the one who asks waits");
    world.step(Release).unwrap();
    world.step(Hold).unwrap();
    world.step(Ask(1)).unwrap();
    assert_eq!(stats(&world), (1, 1), "it waits for the store, which has answered");
    world.step(Release).unwrap();
    assert_eq!(stats(&world), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_older_than_documented(feed: bool, stale: bool, steps in steps()) {
        let mut world = World::new(feed, stale);
        for step in steps {
            world.step(step)?;
        }
        world.step(Step::Release)?;
    }
}
