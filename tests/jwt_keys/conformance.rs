//! The suite for key sources, on what the crate has and on a source that is written with public API alone.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use portcullis::{
    Clock, Instants,
    conformance::{key_source, key_source_without_keys},
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
        self.0.lock().unwrap().clone().ok_or_else(|| KeysUnavailable::new("nothing was pushed", 5))
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
