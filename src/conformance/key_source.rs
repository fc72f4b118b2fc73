use std::time::Duration;

use crate::{
    clock::Instants,
    jwt::{
        Key,
        keys::{KeySource, KeysUnavailable, Refresh},
    },
    now::Now,
};

/// A kid that no origin should have.
const UNKNOWN: &str = "portcullis-conformance-no-such-kid";
/// How many fetches made-up kids may lead to at one instant.
const HANDFUL: u64 = 5;
/// How many minutes a source may take to find a key that was rotated in, or that one was withdrawn.
const MINUTES: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Checks what every [`KeySource`] must do:
/// 1. a source that has keys, or gets them at the first [`refresh_for`](KeySource::refresh_for), keeps them, says so in
///    its health, and gives them a generation that is not zero and agrees with [`generation`](KeySource::generation);
/// 2. who looked at an older generation is told to look again;
/// 3. a thousand kids that nobody has, and as many tokens that name none, are all answered, do not take the keys away, and are in the
///    end either unknown or not to be asked for now;
/// 4. where [`refresh_now`](KeySource::refresh_now) has the answer, [`refresh_for`](KeySource::refresh_for) has the same,
///    and asking for it spends nothing.
///
/// [`key_source_with_origin`] also counts what is fetched, and rotates keys; [`key_source_that_loses_its_origin`] withdraws one, and
/// takes the origin away.
///
/// # Panics
/// With a sentence that names the broken rule. If the source cannot get keys.
pub async fn key_source(source: &dyn KeySource, at: Instants) {
    if source.snapshot(at).is_err() {
        let loaded = source.refresh_for(None, 0, at).await;
        assert_eq!(loaded, Refresh::LookAgain, "a source that can get keys says LookAgain once it has them");
    }
    let first = keys_of(source, at);

    let older = source.refresh_for(Some(UNKNOWN), 0, at).await;
    assert_eq!(older, Refresh::LookAgain, "who saw generation 0 must look again");

    flood(source, first, at).await;
    for kid in [Some(UNKNOWN), Some(""), Some(&*"k".repeat(100_000)), None] {
        let answer = ask(source, kid, keys_of(source, at), at).await;
        if let Refresh::Unavailable(unavailable) = &answer {
            says_when(unavailable);
        }
        let _ = keys_of(source, at);
    }
    for kid in [Some(UNKNOWN), None] {
        let last = ask(source, kid, keys_of(source, at), at).await;
        assert_ne!(
            last,
            Refresh::LookAgain,
            "an unknown kid that keeps coming, or none, does not lead to a fetch each time"
        );
    }
}

/// Checks a [`KeySource`] whose origin the test has in its hand: all of [`key_source`], and
/// 1. at one instant, thousands of kids that nobody has, and of tokens that name none, lead to a handful of fetches, before a rotation
///    and after one;
/// 2. a key that was rotated in is found within half an hour once a token names it, under a larger generation;
/// 3. the generation never shrinks.
///
/// `fetches` tells how often the origin was asked so far; `rotate` puts a new key into its set and gives the key's kid; `pass`
/// lets so much time pass, as requests see it and as the source does, and reads the clock.
///
/// # Panics
/// With a sentence that names the broken rule. If the source cannot get keys.
pub async fn key_source_with_origin(
    source: &dyn KeySource,
    fetches: impl Fn() -> u64,
    rotate: impl Fn() -> String,
    pass: impl AsyncFn(Duration) -> Instants,
) {
    let few = |before: u64| {
        let more = fetches().saturating_sub(before);
        assert!(more <= HANDFUL, "kids that nobody has lead to a handful of fetches at one instant, not to {more}");
    };
    let (mut at, before) = (pass(Duration::ZERO).await, fetches());
    key_source(source, at).await;
    few(before);
    let first = keys_of(source, at);

    let kid = rotate();
    for _ in 0..MINUTES {
        at = pass(MINUTE).await;
        let seen = keys_of(source, at);
        assert!(seen >= first, "the generation never shrinks");
        if has(source, &kid, at) {
            break;
        }
        let _ = ask(source, Some(&kid), seen, at).await;
    }
    assert!(has(source, &kid, at), "a key that was rotated in is found once a token names it");
    let rotated = keys_of(source, at);
    assert!(rotated > first, "another set has a larger generation");
    let older = source.refresh_for(Some(UNKNOWN), first, at).await;
    assert_eq!(older, Refresh::LookAgain, "who saw an older generation must look again");

    at = pass(MINUTE).await;
    let before = fetches();
    flood(source, rotated, at).await;
    few(before);
    assert!(has(source, &kid, at), "kids that nobody has take no key away");
}

/// Checks what a [`KeySource`] must do whose origin withdraws a key, and then gives no answer any more:
/// 1. a key that was withdrawn is gone within half an hour in which tokens name keys that nobody has, under a larger generation;
/// 2. in an outage the source keeps its keys, for five minutes at least.
///
/// `withdraw` takes one of two or more keys out of the origin's set and gives its kid; `fail` ends every answer of the origin; `pass`
/// is as for [`key_source_with_origin`].
///
/// # Panics
/// With a sentence that names the broken rule. If the source cannot get keys at first.
pub async fn key_source_that_loses_its_origin(
    source: &dyn KeySource,
    withdraw: impl Fn() -> String,
    fail: impl Fn(),
    pass: impl AsyncFn(Duration) -> Instants,
) {
    let mut at = pass(Duration::ZERO).await;
    if source.snapshot(at).is_err() {
        let _asked = source.refresh_for(None, 0, at).await;
    }
    let first = keys_of(source, at);
    let before = kids(source, at);
    let withdrawn = withdraw();
    assert!(before.contains(&withdrawn), "the suite needs a source that has the key {withdrawn}: {before:?}");
    for _ in 0..MINUTES {
        at = pass(MINUTE).await;
        let seen = keys_of(source, at);
        if !has(source, &withdrawn, at) {
            break;
        }
        let _ = ask(source, Some(UNKNOWN), seen, at).await;
    }
    assert!(!has(source, &withdrawn, at), "a key that was withdrawn is gone once tokens lead to another look");
    let rest = keys_of(source, at);
    assert!(rest > first, "another set has a larger generation");

    let kept = kids(source, at);
    fail();
    for _ in 0..5 {
        at = pass(MINUTE).await;
        let seen = keys_of(source, at);
        let answer = ask(source, Some(UNKNOWN), seen, at).await;
        assert_ne!(answer, Refresh::LookAgain, "an origin that gives no answer has no newer keys");
        assert!(source.snapshot(at).is_ok(), "a failed refresh does not take the keys away at once");
        assert_eq!(kids(source, at), kept, "a failed refresh changes no key");
    }
}

/// A thousand kids that nobody has, and as many tokens that name none.
async fn flood(source: &dyn KeySource, mut seen: u64, at: Instants) {
    for number in 0..1000 {
        let kid = format!("{UNKNOWN}-{number}");
        for kid in [Some(&*kid), None] {
            if ask(source, kid, seen, at).await == Refresh::LookAgain {
                let again = keys_of(source, at);
                assert!(again >= seen, "the generation never shrinks");
                seen = again;
            }
        }
    }
}

fn kids(source: &dyn KeySource, at: Instants) -> Vec<String> {
    let of = |key: &Key| key.id().map(str::to_owned);
    source.snapshot(at).map_or_else(|_| Vec::new(), |held| held.keys().keys().iter().filter_map(of).collect())
}

fn has(source: &dyn KeySource, kid: &str, at: Instants) -> bool {
    source.snapshot(at).is_ok_and(|snapshot| snapshot.keys().keys().iter().any(|key| key.id() == Some(kid)))
}

/// Checks what a [`KeySource`] must do while it has no keys and cannot get any: it says so, with a cause and a time to come
/// back, everywhere alike.
///
/// # Panics
/// With a sentence that names the broken rule.
pub async fn key_source_without_keys(source: &dyn KeySource, at: Instants) {
    match source.refresh_for(None, 0, at).await {
        Refresh::Unavailable(unavailable) => says_when(&unavailable),
        other => assert!(matches!(other, Refresh::Unavailable(_)), "no keys is Unavailable, not {other:?}"),
    }
    let snapshot = source.snapshot(at);
    assert!(snapshot.is_err(), "no keys, no snapshot");
    if let Err(unavailable) = snapshot {
        says_when(&unavailable);
    }
    assert_eq!(source.generation(at), None, "no keys, no generation");
    let health = source.health(at);
    assert!(!health.is_ready(), "no keys is not ready");
    assert!(health.cause().is_some_and(|cause| !cause.is_empty()), "what is not ready has a cause");
}

/// The generation, after a look at what must hold.
fn keys_of(source: &dyn KeySource, at: Instants) -> u64 {
    let snapshot = source.snapshot(at);
    assert!(snapshot.is_ok(), "keys that were there stay there: {snapshot:?}");
    let Ok(snapshot) = snapshot else { return 0 };
    assert!(!snapshot.keys().keys().is_empty(), "a snapshot holds keys");
    assert_ne!(snapshot.generation(), 0, "a generation is not zero");
    assert_eq!(source.generation(at), Some(snapshot.generation()), "`generation` and `snapshot` agree");
    let health = source.health(at);
    assert!(health.is_ready(), "what has keys is ready: {health:?}");
    assert_eq!(health.keys(), snapshot.keys().keys().len(), "health counts the keys");
    snapshot.generation()
}

async fn ask(source: &dyn KeySource, kid: Option<&str>, seen: u64, at: Instants) -> Refresh {
    let now = source.refresh_now(kid, seen, at);
    let again = source.refresh_now(kid, seen, at);
    assert_eq!(now, again, "`refresh_now` spends nothing");
    let waited = source.refresh_for(kid, seen, at).await;
    if let Now::Known(now) = now {
        assert_eq!(now, waited, "`refresh_now` and `refresh_for` agree");
    }
    waited
}

fn says_when(unavailable: &KeysUnavailable) {
    assert!(unavailable.retry_after() >= Duration::from_secs(1), "Retry-After is at least a second");
    assert!(!unavailable.cause().is_empty(), "the operator learns the cause");
}
