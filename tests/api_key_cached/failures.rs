//! A store that does not answer: an error, or, by choice and for a while, what is remembered.

use std::{sync::Arc, time::Duration};

use portcullis::{
    StoreErrorKind::{self, Corrupt, Unavailable},
    api_key::{ApiKeyAdmin, ApiKeyStore, Cached, KeyCache, KeyChange, Rotation},
};

use super::slow::{Health, NOW, Slow, after, at, fields, find, found, id, leaked, lookup, owner, record, settle};

fn stale(store: Slow) -> Cached<Slow> {
    let cache = KeyCache::new().stale_on_error(Duration::from_secs(60));
    Cached::with_cache(store, &cache).unwrap()
}

async fn answer(cached: &Cached<Slow>, seconds: u64) -> Result<bool, StoreErrorKind> {
    find(cached, lookup(1, at(seconds))).await.map(|hit| hit.is_some()).map_err(|error| error.kind())
}

#[tokio::test]
async fn by_default_a_store_that_fails_is_an_error() {
    for (store, fresh) in [(Slow::without_feed(), 10), (Slow::with_feed(), 120)] {
        let cached = Cached::new(store);
        cached.store().add(record(1));
        assert_eq!(answer(&cached, 0).await, Ok(true));
        cached.store().set(Health::Fails(Unavailable));
        assert_eq!(answer(&cached, fresh - 1).await, Ok(true), "what is fresh needs no store");
        assert_eq!(answer(&cached, fresh).await, Err(Unavailable));
        cached.store().set(Health::Well);
        assert_eq!(answer(&cached, fresh).await, Ok(true));
        assert_eq!(cached.stats().stale, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn by_choice_it_is_served_for_a_while() {
    let cached = stale(Slow::without_feed());
    cached.store().add(record(1));
    assert_eq!(answer(&cached, 0).await, Ok(true));
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 9).await, Ok(true));
    assert_eq!(cached.stats().stale, 0, "fresh is not stale");
    assert_eq!((answer(&cached, 10).await, answer(&cached, 59).await), (Ok(true), Ok(true)));
    assert_eq!(cached.stats().stale, 2);
    assert_eq!(answer(&cached, 60).await, Err(Unavailable));
    assert!(find(&cached, lookup(2, at(10))).await.is_err(), "what is not remembered is an error");

    cached.store().set(Health::Fails(Corrupt));
    assert_eq!(answer(&cached, 20).await, Err(Corrupt), "a broken record is not an outage");
    cached.store().set(Health::Well);
    assert_eq!(answer(&cached, 59).await, Ok(true));
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 100).await, Ok(true), "the time runs from the last answer");
    assert_eq!(answer(&cached, 119).await, Err(Unavailable));
}

#[tokio::test]
async fn what_is_stale_never_outlives_the_keys_end() {
    let cached = stale(Slow::without_feed());
    let mut ending = fields(1);
    ending.expires = Some(NOW + 30);
    cached.store().add(ending.check().unwrap());
    assert_eq!(answer(&cached, 0).await, Ok(true));
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 29).await, Ok(true));
    assert_eq!(answer(&cached, 30).await, Err(Unavailable));
}

#[tokio::test]
async fn what_is_stale_never_outlives_a_change_that_is_known() {
    let known_changes: [(&str, KeyChange); 3] = [
        ("the key", KeyChange::Key(id(1))),
        ("its owner", KeyChange::Owner(owner(1))),
        ("everything", KeyChange::Everything),
    ];
    for (name, change) in known_changes {
        let cached = stale(Slow::with_feed());
        cached.store().add(record(1));
        assert_eq!(answer(&cached, 0).await, Ok(true), "{name}");
        cached.store().set(Health::Fails(Unavailable));
        cached.store().tell(&change);
        assert_eq!(answer(&cached, 0).await, Err(Unavailable), "{name}");
        assert_eq!(cached.stats().stale, 0, "{name}");
    }
    // Through the cache: whether it took effect nobody knows.
    let cached = stale(Slow::without_feed());
    cached.store().add(record(1));
    assert_eq!(answer(&cached, 0).await, Ok(true));
    cached.store().set(Health::Fails(Unavailable));
    assert!(cached.revoke(&id(1), &leaked()).await.is_err());
    assert_eq!(answer(&cached, 0).await, Err(Unavailable));

    let cached = stale(Slow::without_feed());
    cached.store().add(record(1));
    assert!(cached.rotate(Rotation::new(id(1), record(2), NOW + 5).unwrap()).await.unwrap());
    assert_eq!(answer(&cached, 0).await, Ok(true));
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 11).await, Err(Unavailable), "the overlap has ended");
}

#[tokio::test]
async fn a_revoked_key_is_not_revived() {
    let cached = stale(Slow::without_feed());
    cached.store().add(record(1));
    cached.revoke(&id(1), &leaked()).await.unwrap();
    assert_eq!(answer(&cached, 0).await, Ok(true), "found, and told to be revoked");
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 11).await, Err(Unavailable));
}

#[tokio::test]
async fn a_lost_feed_and_a_failing_store_together() {
    let cached = stale(Slow::with_feed());
    cached.store().add(record(1));
    assert_eq!(answer(&cached, 0).await, Ok(true));
    cached.store().tell(&KeyChange::Lost);
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 59).await, Ok(true), "no longer than without a feed");
    assert_eq!(cached.stats().stale, 1);
    assert_eq!(answer(&cached, 60).await, Err(Unavailable));

    let strict = Cached::new(Slow::with_feed());
    strict.store().add(record(1));
    assert_eq!(answer(&strict, 0).await, Ok(true));
    strict.store().tell(&KeyChange::Lost);
    strict.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&strict, 0).await, Err(Unavailable));
}

/// A time-out of the store is waited out once a second, and not by each request that comes after another one.
#[tokio::test(start_paused = true)]
async fn who_comes_after_one_that_waited_in_vain_does_not_wait() {
    let cached = Arc::new(stale(Slow::without_feed()));
    for number in [1, 2] {
        cached.store().add(record(number));
        assert!(found(&*cached, number, at(0)).await);
    }
    cached.store().set(Health::Fails(Unavailable));
    cached.store().close();
    let waits = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { found(&*cached, 1, at(20)).await }
    });
    settle().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    cached.store().open();
    assert!(waits.await.unwrap(), "served after the time-out, at 22");
    let asked = cached.store().asked();
    for (number, milliseconds) in [(1, 22_000), (2, 22_000), (1, 22_999)] {
        let found = cached.find_now(lookup(number, after(Duration::from_millis(milliseconds))));
        assert!(matches!(found, portcullis::Now::Known(Ok(Some(_)))), "{number}, {milliseconds}");
    }
    assert_eq!(cached.store().asked(), asked);
    assert!(find(&*cached, lookup(3, at(22))).await.is_err(), "who cannot be served without it asks it");
    assert_eq!(cached.store().asked(), asked + 1);

    cached.store().set(Health::Well);
    assert!(found(&*cached, 1, at(22)).await);
    assert_eq!((cached.store().asked(), cached.stats().stale), (asked + 1, 5));
    assert!(found(&*cached, 1, at(23)).await);
    assert_eq!((cached.store().asked(), cached.stats().stale), (asked + 2, 5), "and after a second it is asked again");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_hangs_one_request_waits_for_it() {
    let cached = Arc::new(stale(Slow::without_feed()));
    for number in [1, 2] {
        cached.store().add(record(number));
        assert!(found(&*cached, number, at(0)).await);
    }
    cached.store().set(Health::Fails(Unavailable));
    assert_eq!(answer(&cached, 11).await, Ok(true));
    cached.store().close();
    let waits = tokio::spawn({
        let cached = Arc::clone(&cached);
        async move { find(&*cached, lookup(1, at(12))).await.map(|hit| hit.is_some()) }
    });
    settle().await;
    let asked = cached.store().asked();
    for number in [1, 2, 1, 2] {
        let found = cached.find_now(lookup(number, at(13)));
        assert!(matches!(found, portcullis::Now::Known(Ok(Some(_)))), "the others do not wait");
        assert!(cached.find(lookup(number, at(13))).await.unwrap().is_some());
    }
    assert_eq!(cached.store().asked(), asked);
    assert!(matches!(cached.find_now(lookup(2, at(60))), portcullis::Now::Wait), "what is too old waits");
    cached.store().set(Health::Well);
    cached.store().open();
    assert!(waits.await.unwrap().unwrap());
    assert!(found(&*cached, 2, at(14)).await);
    assert_eq!(cached.store().asked(), asked + 1, "the store is asked again");
    let served = cached.stats().stale;
    assert!(found(&*cached, 2, at(15)).await);
    assert_eq!(cached.stats().stale, served);
}
