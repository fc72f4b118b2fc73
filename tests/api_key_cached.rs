//! A cache before a store of keys: what it answers, what it asks, and what it must not answer any more. Time is the time of
//! the look-ups; the store is a script.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "helpers of tests are shared and panic as tests do"
)]

#[path = "api_key_cached/budget.rs"]
mod budget;
#[path = "api_key_cached/changes.rs"]
mod changes;
#[path = "api_key_cached/cost.rs"]
mod cost;
#[path = "api_key_cached/failures.rs"]
mod failures;
#[path = "api_key_cached/flights.rs"]
mod flights;
#[path = "api_key_cached/properties.rs"]
mod properties;
#[path = "api_key_cached/slow.rs"]
mod slow;

use std::{sync::Arc, time::Duration};

use portcullis::{
    Now,
    api_key::{ApiKeyAdmin, ApiKeyStore, Cached, KeyCache, MemoryKeyStore},
    conformance,
};
use slow::{Slow, after, at, find, found, id, known, lookup, record};

#[tokio::test]
async fn a_cached_store_keeps_the_contract_of_its_traits() {
    conformance::api_key_store(&Cached::new(MemoryKeyStore::new()), at(0)).await;
    for store in [Slow::with_feed(), Slow::without_feed()] {
        let cached = Cached::new(store);
        conformance::api_key_store(&cached, at(0)).await;
        conformance::api_key_store(&cached, after(Duration::from_secs(5))).await;
        assert!(cached.stats().hits > 0 && cached.stats().negative_hits > 0);
    }
    let shared: Arc<dyn ApiKeyAdmin> = Arc::new(Cached::new(Slow::with_feed()));
    conformance::api_key_store(&shared, at(0)).await;
    let over_shared: Arc<dyn ApiKeyAdmin> = Arc::new(Slow::without_feed());
    conformance::api_key_store(&Cached::new(Cached::new(over_shared)), at(0)).await;
}

#[tokio::test]
async fn an_answer_is_remembered_for_its_time_and_no_longer() {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    for (name, store, life) in
        [("without a feed", Slow::without_feed(), s(10)), ("with one", Slow::with_feed(), s(120))]
    {
        let cached = Cached::new(store);
        cached.store().add(record(1));
        assert!(matches!(cached.find_now(lookup(1, at(0))), Now::Wait), "{name}");
        assert!(found(&cached, 1, at(0)).await, "{name}");
        for later in [at(0), after(life - ms(1))] {
            assert_eq!(known(&cached, 1, later), Some(true), "{name}");
            assert!(found(&cached, 1, later).await, "{name}");
        }
        assert_eq!(cached.store().asked(), 1, "{name}");
        assert_eq!(known(&cached, 1, after(life)), None, "{name}");
        assert!(found(&cached, 1, after(life)).await);
        assert_eq!(cached.store().asked(), 2, "{name}");
        assert_eq!(known(&cached, 1, at(0)), Some(true), "a request that came before is not too late");
    }
}

#[tokio::test]
async fn absence_is_remembered_shortly_and_apart() {
    let cached = Cached::new(Slow::without_feed());
    assert!(!found(&cached, 1, at(0)).await);
    assert_eq!(known(&cached, 1, after(Duration::from_millis(4_999))), Some(false));
    cached.store().add(record(1));
    assert_eq!(known(&cached, 1, after(Duration::from_secs(5))), None);
    assert!(found(&cached, 1, after(Duration::from_secs(5))).await);

    let forgetful = KeyCache::new().absent_for(Duration::ZERO);
    let cached = Cached::with_cache(Slow::without_feed(), &forgetful).unwrap();
    for asked in 1..4 {
        assert!(!found(&cached, 1, at(0)).await);
        assert_eq!((cached.store().asked(), cached.stats().absent), (asked, 0));
    }
}

#[tokio::test]
async fn the_wall_clock_moves_nothing() {
    let cached = Cached::new(Slow::without_feed());
    cached.store().add(record(1));
    let odd = |wall, monotonic| portcullis::Instants::new(wall, monotonic);
    assert!(found(&cached, 1, odd(u64::MAX, 1_000)).await);
    assert_eq!(known(&cached, 1, odd(0, 1_000)), Some(true));
    assert_eq!(known(&cached, 1, odd(0, 10_000_001_000)), None);
    assert!(found(&cached, 1, odd(7, u64::MAX)).await);
    assert_eq!(known(&cached, 1, odd(7, u64::MAX)), Some(true));
    assert_eq!(cached.store().asked(), 2);
}

#[tokio::test]
async fn settings_are_checked_and_shown() {
    assert!(Cached::with_cache(MemoryKeyStore::new(), &KeyCache::new().max_keys(0)).is_err());
    let cached = Cached::new(MemoryKeyStore::new());
    let text = format!("{cached:?}");
    assert!(text.contains("MemoryKeyStore") && text.contains("evictions: 0"), "{text}");
    assert!(find(&cached, lookup(1, at(0))).await.unwrap().is_none());
    assert!(cached.get(&id(1)).await.unwrap().is_none());
}
