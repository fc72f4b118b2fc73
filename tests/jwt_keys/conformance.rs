//! The suite for key sources, on what the crate has and on a source that is written with public API alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use portcullis::{
    Clock, Instants,
    conformance::{key_source, key_source_that_loses_its_origin, key_source_with_origin, key_source_without_keys},
    http_client::{FetchLimits, HttpFetch},
    jwt::{
        KeySet,
        keys::{Fetched, JwkSource, KeyHealth, KeySnapshot, KeySource, KeysUnavailable, LiveKeys, Refresh},
    },
};

use super::origin::{Origin, SET, Script, Signer, TokioClock, set_of};

fn set() -> String {
    set_of(&[Signer::new(0, "a").jwk()])
}

#[tokio::test(start_paused = true)]
async fn fixed_keys_conform_alone_and_behind_pointers() {
    let keys = KeySet::from_jwks(&set()).unwrap();
    let at = TokioClock::new().now();
    key_source(&keys, at).await;
    let erased: Arc<dyn KeySource> = Arc::new(keys.clone());
    key_source(&erased, at).await;
    let boxed: Box<dyn KeySource> = Box::new(keys);
    key_source(&boxed, at).await;
}

#[tokio::test(start_paused = true)]
async fn live_keys_conform() {
    let clock = TokioClock::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set()).unwrap();
    let origin = Origin::default();
    origin.serve(SET, set());
    let metadata = format!(r#"{{"issuer":"https://id.example.com","jwks_uri":"{SET}"}}"#);
    origin.serve("https://id.example.com/.well-known/openid-configuration", metadata);
    for keys in [
        LiveKeys::jwks_file(&path),
        LiveKeys::jwks_url(SET).http(origin.clone()),
        LiveKeys::discover("https://id.example.com").http(origin.clone()),
        LiveKeys::from_source(Env),
    ] {
        key_source(&keys.clock(clock.clone()).build().unwrap(), clock.now()).await;
    }
    origin.script(SET, Script::Down("away"));
    for keys in [
        LiveKeys::jwks_file(folder.path().join("nowhere.json")),
        LiveKeys::jwks_url(SET).http(origin.clone()),
        LiveKeys::discover("https://id.example.com").http(origin.clone()),
    ] {
        key_source_without_keys(&keys.clock(clock.clone()).build().unwrap(), clock.now()).await;
    }
}

#[derive(Debug)]
struct Env;

#[async_trait]
impl JwkSource for Env {
    fn name(&self) -> &str {
        "environment"
    }

    async fn fetch(&self, _: Option<&str>) -> Result<Fetched, portcullis::StoreError> {
        Ok(Fetched::set(set()))
    }
}

/// Keys that an operator pushes.
#[derive(Debug, Default)]
struct Pushed(Mutex<Option<KeySnapshot>>);

impl Pushed {
    fn push(&self, keys: KeySet) {
        let mut held = self.0.lock().unwrap();
        let generation = held.as_ref().map_or(1, |held| held.generation() + 1);
        *held = Some(KeySnapshot::new(keys, generation));
    }
}

#[async_trait]
impl KeySource for Pushed {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        self.0.lock().unwrap().clone().ok_or_else(|| KeysUnavailable::new("nothing was pushed", Duration::from_secs(5)))
    }

    async fn refresh_for(&self, _: Option<&str>, seen: u64, at: Instants) -> Refresh {
        match self.snapshot(at) {
            Ok(keys) if keys.generation() > seen => Refresh::LookAgain,
            Ok(_) => Refresh::NothingNew,
            Err(unavailable) => Refresh::Unavailable(unavailable),
        }
    }

    fn health(&self, at: Instants) -> KeyHealth {
        match self.snapshot(at) {
            Ok(keys) => KeyHealth::ready(keys.keys().keys().len()),
            Err(unavailable) => KeyHealth::not_ready(unavailable.cause()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hand_written_source_conforms() {
    let (pushed, at) = (Pushed::default(), TokioClock::new().now());
    key_source_without_keys(&pushed, at).await;
    for _ in 0..2 {
        pushed.push(KeySet::from_jwks(&set()).unwrap());
        key_source(&pushed, at).await;
    }
}

/// Forgets its keys when it is asked for one that it lacks.
#[derive(Debug)]
struct Forgetful(Pushed);

#[async_trait]
impl KeySource for Forgetful {
    fn snapshot(&self, at: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        self.0.snapshot(at)
    }

    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        if seen > 0 {
            *self.0.0.lock().unwrap() = None;
        }
        self.0.refresh_for(kid, seen, at).await
    }

    fn health(&self, at: Instants) -> KeyHealth {
        self.0.health(at)
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "keys that were there stay there")]
async fn the_suite_finds_a_source_that_forgets() {
    let forgetful = Forgetful(Pushed::default());
    forgetful.0.push(KeySet::from_jwks(&set()).unwrap());
    key_source(&forgetful, TokioClock::new().now()).await;
}

/// Lets time pass for the source and for its requests.
async fn pass(clock: &TokioClock, time: Duration) -> Instants {
    // A sleep, so that the task that refreshes has its turn.
    tokio::time::sleep(time).await;
    clock.now()
}

#[tokio::test(start_paused = true)]
async fn live_keys_conform_while_their_keys_rotate() {
    let clock = TokioClock::new();
    let metadata = format!(r#"{{"issuer":"https://id.example.com","jwks_uri":"{SET}"}}"#);
    for number in 0..3 {
        let origin = Origin::serving(&[Signer::new(0, "a").jwk()]);
        origin.serve("https://id.example.com/.well-known/openid-configuration", metadata.clone());
        let keys = match number {
            0 => LiveKeys::jwks_url(SET).http(origin.clone()),
            1 => LiveKeys::discover("https://id.example.com").http(origin.clone()),
            _ => LiveKeys::from_source(Own(origin.clone())),
        };
        let keys = keys.clock(clock.clone()).build().unwrap();
        let rotate = || {
            origin.serve(SET, set_of(&[Signer::new(0, "a").jwk(), Signer::new(1, "b").jwk()]));
            "b".to_owned()
        };
        let fetches = || origin.fetches().try_into().unwrap();
        key_source_with_origin(&keys, fetches, rotate, async |time| pass(&clock, time).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn live_keys_conform_while_their_origin_withdraws_and_fails() {
    let clock = TokioClock::new();
    for own in [false, true] {
        let origin = Origin::serving(&[Signer::new(0, "a").jwk(), Signer::new(1, "b").jwk()]);
        let keys = match own {
            true => LiveKeys::from_source(Own(origin.clone())),
            false => LiveKeys::jwks_url(SET).http(origin.clone()),
        };
        let keys = keys.clock(clock.clone()).build().unwrap();
        let withdraw = || {
            origin.serve(SET, set());
            "b".to_owned()
        };
        let fail = || origin.script(SET, Script::Down("away"));
        key_source_that_loses_its_origin(&keys, withdraw, fail, async |time| pass(&clock, time).await).await;
    }
}

/// A source of one's own over the same origin.
#[derive(Debug)]
struct Own(Origin);

#[async_trait]
impl JwkSource for Own {
    fn name(&self) -> &str {
        "own"
    }

    async fn fetch(&self, _: Option<&str>) -> Result<Fetched, portcullis::StoreError> {
        let request = http::Request::get(SET).body(bytes::Bytes::new()).unwrap();
        let answer = self.0.fetch(request, FetchLimits::default()).await?;
        Ok(Fetched::set(String::from_utf8(answer.into_body().to_vec()).unwrap()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    FetchesEachTime,
    FetchesForEachKidOnce,
    KeepsTheGeneration,
    KeepsItsKeys,
    GoesBack,
    NeverForgets,
    ForgetsInAnOutage,
}

/// Fetches at most once in half a minute, unless it has a fault.
#[derive(Debug)]
struct Fetching {
    fault: Fault,
    origin: Mutex<KeySet>,
    fetches: AtomicU64,
    held: Mutex<(KeySet, u64, Instants)>,
    asked: Mutex<std::collections::HashSet<String>>,
    is_away: AtomicBool,
    has_forgotten: AtomicBool,
}

impl Fetching {
    fn new(fault: Fault, at: Instants) -> Self {
        Self::holding(fault, &set(), at)
    }

    fn holding(fault: Fault, set: &str, at: Instants) -> Self {
        let keys = KeySet::from_jwks(set).unwrap();
        Self {
            fault,
            origin: Mutex::new(keys.clone()),
            fetches: AtomicU64::new(1),
            held: Mutex::new((keys, 7, at)),
            asked: Mutex::default(),
            is_away: AtomicBool::new(false),
            has_forgotten: AtomicBool::new(false),
        }
    }

    fn away() -> KeysUnavailable {
        KeysUnavailable::new("away", Duration::from_secs(1))
    }

    fn withdraw(&self) -> String {
        *self.origin.lock().unwrap() = KeySet::from_jwks(&set()).unwrap();
        "b".to_owned()
    }

    fn rotate(&self) -> String {
        let set = set_of(&[Signer::new(0, "a").jwk(), Signer::new(1, "b").jwk()]);
        *self.origin.lock().unwrap() = KeySet::from_jwks(&set).unwrap();
        "b".to_owned()
    }
}

#[async_trait]
impl KeySource for Fetching {
    fn snapshot(&self, _: Instants) -> Result<KeySnapshot, KeysUnavailable> {
        if self.has_forgotten.load(SeqCst) {
            return Err(Self::away());
        }
        let held = self.held.lock().unwrap();
        Ok(KeySnapshot::new(held.0.clone(), held.1))
    }

    async fn refresh_for(&self, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
        let mut held = self.held.lock().unwrap();
        if seen < held.1 {
            return Refresh::LookAgain;
        }
        let is_due = match self.fault {
            Fault::FetchesEachTime => true,
            Fault::FetchesForEachKidOnce => self.asked.lock().unwrap().insert(kid.unwrap_or_default().to_owned()),
            _ => at.since(held.2) >= Duration::from_secs(30),
        };
        if !is_due {
            return Refresh::NothingNew;
        }
        self.fetches.fetch_add(1, SeqCst);
        held.2 = at;
        if self.is_away.load(SeqCst) {
            self.has_forgotten.store(self.fault == Fault::ForgetsInAnOutage, SeqCst);
            return Refresh::Unavailable(Self::away());
        }
        let new = self.origin.lock().unwrap().clone();
        let keeps_all = match self.fault {
            Fault::KeepsItsKeys => true,
            Fault::NeverForgets => new.keys().len() < held.0.keys().len(),
            _ => false,
        };
        if keeps_all || new.keys().len() == held.0.keys().len() {
            return Refresh::NothingNew;
        }
        held.0 = new;
        match self.fault {
            Fault::KeepsTheGeneration => {}
            Fault::GoesBack => held.1 -= 1,
            _ => held.1 += 1,
        }
        Refresh::LookAgain
    }

    fn health(&self, at: Instants) -> KeyHealth {
        KeyHealth::ready(self.snapshot(at).unwrap().keys().keys().len())
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_finds_each_fault_of_a_source_that_fetches() {
    for (fault, sentence) in [
        (Fault::None, ""),
        (Fault::FetchesEachTime, "a handful of fetches at one instant"),
        (Fault::FetchesForEachKidOnce, "a handful of fetches at one instant"),
        (Fault::KeepsTheGeneration, "another set has a larger generation"),
        (Fault::KeepsItsKeys, "a key that was rotated in is found"),
        (Fault::GoesBack, "the generation never shrinks"),
    ] {
        let suite = async move {
            let clock = TokioClock::new();
            let source = Fetching::new(fault, clock.now());
            let fetches = || source.fetches.load(SeqCst);
            let pass = async |time| pass(&clock, time).await;
            key_source_with_origin(&source, fetches, || source.rotate(), pass).await;
        };
        let said = found(suite).await;
        assert_eq!(said.is_none(), fault == Fault::None, "{fault:?}");
        assert!(said.as_deref().unwrap_or_default().contains(sentence), "{fault:?}: {said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_finds_each_fault_of_a_source_that_loses_its_origin() {
    let two = set_of(&[Signer::new(0, "a").jwk(), Signer::new(1, "b").jwk()]);
    for (fault, sentence) in [
        (Fault::None, ""),
        (Fault::NeverForgets, "a key that was withdrawn is gone"),
        (Fault::ForgetsInAnOutage, "a failed refresh does not take the keys away at once"),
    ] {
        let two = two.clone();
        let suite = async move {
            let clock = TokioClock::new();
            let source = Fetching::holding(fault, &two, clock.now());
            let (withdraw, fail) = (|| source.withdraw(), || source.is_away.store(true, SeqCst));
            key_source_that_loses_its_origin(&source, withdraw, fail, async |time| pass(&clock, time).await).await;
        };
        let said = found(suite).await;
        assert_eq!(said.is_none(), fault == Fault::None, "{fault:?}: {said:?}");
        assert!(said.as_deref().unwrap_or_default().contains(sentence), "{fault:?}: {said:?}");
    }
}

/// What the suite said when it found a fault.
async fn found(suite: impl Future<Output = ()> + 'static) -> Option<String> {
    let here = tokio::task::LocalSet::new();
    let ended = here.run_until(async { tokio::task::spawn_local(suite).await }).await;
    ended.err().map(|error| {
        let panic = error.into_panic();
        let told = panic.downcast_ref::<String>().cloned();
        told.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}
