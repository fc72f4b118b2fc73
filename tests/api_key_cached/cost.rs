//! What an answer from memory costs, in allocations and bytes; and how many there are under a load that is like the world's.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use async_trait::async_trait;
use portcullis::{
    Instants, Now,
    api_key::{ApiKeyRecord, ApiKeyStore, Cached, ChangeFeed, Found, Hit, KeyCache, KeyId, Lookup},
};

use super::slow::{after, at, id, lookup, record};

const KEYS: u32 = 100_000;

/// A store that says only in `find` what it knows.
#[derive(Debug)]
struct Counted {
    keys: HashMap<KeyId, Arc<ApiKeyRecord>>,
    feed: Option<ChangeFeed>,
    asked: AtomicU64,
}

impl Counted {
    fn new(keys: u32, feed: Option<ChangeFeed>) -> Self {
        let keys = (0..keys).map(|number| (id(number), Arc::new(record(number)))).collect();
        Self { keys, feed, asked: AtomicU64::new(0) }
    }
}

#[async_trait]
impl ApiKeyStore for Counted {
    async fn find(&self, lookup: Lookup) -> Found {
        self.asked.fetch_add(1, Relaxed);
        Ok(self.keys.get(lookup.id()).cloned().map(Hit::new))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        self.feed.as_ref()
    }
}

fn ask(store: &dyn ApiKeyStore, lookup: Lookup) -> Option<Hit> {
    match store.find_now(lookup) {
        Now::Known(found) => found.unwrap(),
        Now::Wait => match pin!(store.find(lookup)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found.unwrap(),
            Poll::Pending => panic!("this store does not wait"),
        },
    }
}

#[test]
fn an_answer_from_memory_allocates_nothing() {
    let cache = KeyCache::new().misses_per_source(1, 1).stale_on_error(Duration::from_secs(60));
    let cached = Cached::with_cache(Counted::new(1, None), &cache).unwrap();
    for (number, exists) in [(0, true), (1, false)] {
        assert_eq!(ask(&cached, lookup(number, at(0))).is_some(), exists);
        let allocations = measure(|| {
            let found = cached.find_now(lookup(number, at(1)));
            assert!(matches!(found, Now::Known(Ok(hit)) if hit.is_some() == exists));
        });
        assert_eq!(allocations.count_total, 0, "key {number}");
    }
    let throttled = measure(|| assert!(matches!(cached.find_now(lookup(2, at(0))), Now::Known(Err(_)))));
    assert_eq!(throttled.count_total, 0, "nor does a refusal");
    assert_eq!(measure(|| assert!(matches!(cached.find_now(lookup(0, at(20))), Now::Wait))).count_total, 0);
}

#[test]
fn a_key_takes_the_memory_that_the_docs_say() {
    let store = Counted::new(KEYS, None);
    let mut kept = None;
    let used = measure(|| {
        let cached = Cached::new(store);
        (0..KEYS).for_each(|number| assert!(ask(&cached, lookup(number, at(0))).is_some()));
        kept = Some(cached);
    });
    let stats = kept.unwrap().stats();
    assert_eq!((stats.keys, stats.evictions), (100_000, 0), "as many as there is room for");
    let each = used.bytes_current / i64::from(KEYS);
    assert!(each <= 110, "{each} bytes for each key");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The share of requests that needed no store. Keys are asked for as Zipf says (s = 1), `per_second` times.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn share(feed: Option<ChangeFeed>, per_second: u64, seconds: u64) -> f64 {
    let mut sums: Vec<f64> = (1..=KEYS).map(|rank| 1.0 / f64::from(rank)).collect();
    for index in 1..sums.len() {
        sums[index] += sums[index - 1];
    }
    let cached = Cached::new(Counted::new(KEYS, feed));
    let mut random = Random(42);
    let requests = per_second * seconds;
    for request in 0..requests {
        let point = random.unit() * sums.last().unwrap();
        let rank = sums.partition_point(|sum| *sum < point);
        let now: Instants = after(Duration::from_nanos(request * 1_000_000_000 / per_second));
        assert!(ask(&cached, Lookup::new(id(u32::try_from(rank).unwrap()), now)).is_some());
    }
    let asked = cached.store().asked.load(Relaxed);
    assert_eq!(asked, cached.stats().loads);
    assert_eq!(cached.stats().throttled, 0);
    1.0 - asked as f64 / requests as f64
}

#[test]
fn nine_of_ten_requests_need_no_store() {
    let told = share(Some(ChangeFeed::new()), 10_000, 120);
    assert!(told >= 0.9, "with a feed, from an empty cache on: {told}");
    let untold = share(None, 10_000, 30);
    assert!(untold >= 0.7, "by age alone, every key is asked for again after ten seconds: {untold}");
}
