//! What a look-up costs through the cache, against the store in memory in the same run; and what the cache saves the store
//! under a load like the world's.
//!
//! Criterion measures each contender by itself. A table of ratios comes first (see `ratio/mod.rs`);
//! `cargo bench --bench api_key_cached --all-features -- ratios` prints the table alone.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{
    collections::HashMap,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use criterion::Criterion;
use portcullis::{
    Instants, Now,
    api_key::{
        ApiKeyRecord, ApiKeyStore, Cached, ChangeFeed, FileKeyStore, Found, Hit, KeyCache, KeyHash, KeyId, Lookup,
        MemoryKeyStore, RecordFields,
    },
};
use ratio::{Timed, random, time};

const AT: Instants = Instants::new(1_800_000_000_000_000_000, 1_000_000_000);

fn id(number: u32) -> KeyId {
    // Spread as random ids are.
    let high = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let [a, b, c, d, e, f, g, h] = high;
    KeyId::from_bytes([a, b, c, d, e, f, g, h, a ^ d, c ^ h])
}

fn record(number: u32) -> ApiKeyRecord {
    let fields = RecordFields::new(id(number), KeyHash::from_bytes([1; 32]), "billing", 1_800_000_000, None);
    fields.check().expect("in its bounds")
}

fn records(keys: u32) -> impl Iterator<Item = ApiKeyRecord> {
    (0..keys).map(record)
}

/// A store that has to wait, as far as its callers know.
#[derive(Debug)]
struct Remote {
    keys: HashMap<KeyId, Arc<ApiKeyRecord>>,
    feed: ChangeFeed,
}

impl Remote {
    fn new(keys: u32) -> Self {
        let keys = records(keys).map(|record| (*record.id(), Arc::new(record))).collect();
        Self { keys, feed: ChangeFeed::new() }
    }
}

#[async_trait]
impl ApiKeyStore for Remote {
    async fn find(&self, lookup: Lookup) -> Found {
        Ok(self.keys.get(lookup.id()).cloned().map(Hit::new))
    }

    fn changes(&self) -> Option<&ChangeFeed> {
        Some(&self.feed)
    }
}

fn ask(store: &dyn ApiKeyStore, lookup: Lookup) -> Found {
    match store.find_now(lookup) {
        Now::Known(found) => found,
        Now::Wait => match pin!(store.find(lookup)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("no store here waits"),
        },
    }
}

/// Look-ups of random ids of this many.
struct Load {
    name: &'static str,
    store: Arc<dyn ApiKeyStore>,
    keys: u32,
    threads: usize,
}

impl Load {
    fn one(&self) -> Lookup {
        let number = u32::try_from(random(self.keys as usize)).expect("fits");
        Lookup::new(id(number), AT).from_client(Some([198, 51, 100, 7].into()))
    }

    fn run(&self, count: usize) -> f64 {
        const BATCH: usize = 256;
        let batches = count.div_ceil(BATCH).max(1);
        let mut taken = 0.0;
        for _ in 0..batches {
            let lookups: Vec<Lookup> = (0..BATCH).map(|_| self.one()).collect();
            taken += time(|| lookups.iter().for_each(|lookup| drop(black_box(ask(&*self.store, *lookup)))));
        }
        taken / (batches * BATCH) as f64
    }

    fn timed(&self) -> Timed<'_> {
        Timed {
            name: self.name,
            slice: Box::new(move |count| {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = (1..self.threads).map(|_| scope.spawn(|| self.run(count))).collect();
                    let own = self.run(count);
                    let others: f64 = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
                    (own + others) / self.threads as f64
                })
            }),
            once: Box::new(|| {
                let lookup = self.one();
                allocation_counter::measure(|| drop(black_box(ask(&*self.store, lookup)))).count_total
            }),
        }
    }
}

fn loads() -> Vec<Load> {
    let warm = |cached: Cached<Remote>, keys: u32| {
        (0..keys).for_each(|number| drop(ask(&cached, Lookup::new(id(number), AT)).expect("an answer")));
        Arc::new(cached) as Arc<dyn ApiKeyStore>
    };
    let memory = |keys: u32| {
        let store = MemoryKeyStore::new();
        records(keys).for_each(|record| store.add(record).expect("a new id"));
        Arc::new(store) as Arc<dyn ApiKeyStore>
    };
    let file = |keys: u32| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.json");
        let keys: Vec<String> =
            records(keys).map(|record| serde_json::to_string(&record.fields()).expect("a record has a text")).collect();
        std::fs::write(&path, format!("{{\"version\": 1, \"keys\": [{}]}}", keys.join(","))).expect("a file");
        Arc::new(FileKeyStore::open(path).expect("a valid file")) as Arc<dyn ApiKeyStore>
    };
    let endless = || KeyCache::new().misses(u32::MAX, 1_000).misses_per_source(u32::MAX, 1_000);
    let cached = |cache: KeyCache, keys| Cached::with_cache(Remote::new(keys), &cache).expect("a cache");
    let (small, large) = (warm(cached(endless(), 10_000), 10_000), warm(cached(endless(), 100_000), 100_000));
    let absent = warm(cached(endless(), 0), 10_000);
    let spent = Arc::new(cached(KeyCache::new(), 0));
    (0..1_000).for_each(|number| {
        let lookup = Lookup::new(id(1_000_000 + number), AT).from_client(Some([198, 51, 100, 7].into()));
        drop(ask(&*spent, lookup));
    });
    let forgetful = Arc::new(cached(endless().max_keys(1).max_absent(1), 10_000));
    let load = |name, store, keys| Load { name, store, keys, threads: 1 };
    vec![
        load("memory, 10 000 keys", memory(10_000), 10_000),
        load("memory again (noise)", memory(10_000), 10_000),
        load("file, 10 000 keys", file(10_000), 10_000),
        load("cached, 10 000 keys", Arc::clone(&small), 10_000),
        load("cached, hardly any room: all ask", forgetful, 10_000),
        load("cached, known to be absent", absent, 10_000),
        load("cached, unknown and throttled", spent, 10_000),
        load("memory, 100 000 keys", memory(100_000), 100_000),
        load("cached, 100 000 keys", large, 100_000),
        Load { name: "memory, two threads", store: memory(10_000), keys: 10_000, threads: 2 },
        Load { name: "cached, two threads", store: small, keys: 10_000, threads: 2 },
    ]
}

/// The share of look-ups that need no store: 100 000 keys, asked for after Zipf (s = 1), 10 000 a second for two minutes, from an
/// empty cache of the default size on.
fn spared() {
    const KEYS: u32 = 100_000;
    const REQUESTS: u64 = 10_000 * 120;
    let mut sums: Vec<f64> = (1..=KEYS).map(|rank| 1.0 / f64::from(rank)).collect();
    for index in 1..sums.len() {
        sums[index] += sums[index - 1];
    }
    let cached = Cached::new(Remote::new(KEYS));
    for request in 0..REQUESTS {
        let point = random(1 << 30) as f64 / f64::from(1 << 30) * sums[sums.len() - 1];
        let rank = u32::try_from(sums.partition_point(|sum| *sum < point)).expect("fits").min(KEYS - 1);
        let since = request * 100_000;
        let now = Instants::new(AT.unix_nanos() + since, AT.monotonic_nanos() + since);
        assert!(ask(&cached, Lookup::new(id(rank), now)).expect("an answer").is_some());
    }
    let share = 1.0 - cached.stats().loads as f64 / REQUESTS as f64;
    println!("after Zipf, 100 000 keys, two minutes from empty: {:.1} % answered without the store\n", share * 100.0);
}

fn main() {
    let loads = loads();
    let timed: Vec<Timed<'_>> = loads.iter().map(Load::timed).collect();
    ratio::measure(&timed).print("look-up", loads[0].name);
    spared();
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("api_key_cached");
    for load in loads.iter().filter(|load| load.threads == 1) {
        group.bench_function(load.name, |bencher| {
            let lookup = load.one();
            bencher.iter(|| ask(&*load.store, black_box(lookup)).is_ok());
        });
    }
    group.finish();
    criterion.final_summary();
}
