//! What a look-up in a database costs, by the store and through a cache before it, next to the bare query in the same run.
//!
//! PostgreSQL is measured if `PORTCULLIS_TEST_POSTGRES` has the address of a server; 10 000 keys are added to its database.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;

use std::{hint::black_box, sync::Arc};

use portcullis::{
    Instants, Now,
    api_key::{ApiKeyAdmin, ApiKeyStore, Cached, KeyId, KeyLife, Lookup, NewApiKey, PostgresKeyStore, SqliteKeyStore},
};
use ratio::{Timed, measure, random, time};
use sqlx::{Database, Pool, pool::PoolOptions, sqlite::SqliteConnectOptions};
use tokio::runtime::Runtime;

const AT: Instants = Instants::new(1_800_000_000_000_000_000, 0);
const KEYS: usize = 10_000;

const HASH: &str = "SELECT hash FROM portcullis_api_keys WHERE id = $1";
/// The whole row, and whether its owner is disabled: what a store asks.
const ROW: &str = "SELECT k.*, d.subject IS NOT NULL AS owner_disabled FROM portcullis_api_keys k \
     LEFT JOIN portcullis_disabled_owners d ON d.tenant = k.tenant AND d.subject = k.subject WHERE k.id = $1";

/// One look-up after the other, of random keys.
fn looked_up<'a>(
    name: &'static str,
    runtime: &'a Runtime,
    ids: &'a [KeyId],
    look_up: impl AsyncFn(&KeyId) + 'a,
) -> Timed<'a> {
    let look_up = Arc::new(look_up);
    let once = Arc::clone(&look_up);
    let some = move || &ids[random(ids.len())];
    Timed {
        name,
        slice: Box::new(move |count| {
            let all = async {
                for _ in 0..count {
                    look_up(some()).await;
                }
            };
            time(|| runtime.block_on(all)) / count as f64
        }),
        once: Box::new(move || {
            allocation_counter::measure(|| runtime.block_on(async { once(some()).await })).count_total
        }),
    }
}

fn by_store<'a>(name: &'static str, runtime: &'a Runtime, ids: &'a [KeyId], store: &'a dyn ApiKeyStore) -> Timed<'a> {
    looked_up(name, runtime, ids, async |id| {
        let lookup = Lookup::new(*id, AT);
        let found = match store.find_now(lookup) {
            Now::Known(found) => found,
            Now::Wait => store.find(lookup).await,
        };
        assert!(black_box(found).expect("an answer").is_some());
    })
}

/// A cache that has seen every key.
fn warm<S: ApiKeyStore>(runtime: &Runtime, ids: &[KeyId], store: S) -> Cached<S> {
    let cached = Cached::new(store);
    for id in ids {
        assert!(runtime.block_on(cached.find(Lookup::new(*id, AT))).expect("an answer").is_some());
    }
    cached
}

macro_rules! by_query {
    ($name:expr, $runtime:expr, $ids:expr, $pool:expr, $statement:expr) => {
        looked_up($name, $runtime, $ids, async |id: &KeyId| {
            let row = sqlx::query($statement).bind(id.as_bytes().as_slice()).fetch_optional($pool).await;
            assert!(black_box(row.expect("an answer")).is_some());
        })
    };
}

async fn fill(store: &dyn ApiKeyAdmin) -> Vec<KeyId> {
    let mut ids = Vec::with_capacity(KEYS);
    for number in 0..KEYS {
        let key = NewApiKey::for_subject(format!("owner-{}", number / 4)).role("clerk").scope("orders:read");
        let (_, record) = key.lives(KeyLife::Never).issue(store, AT).await.expect("a key");
        ids.push(*record.id());
    }
    ids
}

/// As the stores have it: no trial of a connection that was just used.
fn pool<DB: Database>() -> PoolOptions<DB> {
    PoolOptions::new().max_connections(4).test_before_acquire(false)
}

fn sqlite(runtime: &Runtime) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    let store = Arc::new(runtime.block_on(SqliteKeyStore::open(&path)).expect("a store"));
    let ids = runtime.block_on(fill(&*store));
    let options = SqliteConnectOptions::new().filename(&path);
    let bare: Pool<sqlx::Sqlite> = runtime.block_on(pool().connect_with(options)).expect("a pool");
    let cached = warm(runtime, &ids, Arc::clone(&store));
    measure(&[
        by_query!("the bare query", runtime, &ids, &bare, ROW),
        by_query!("the bare query again (noise)", runtime, &ids, &bare, ROW),
        by_query!("a bare query for the hash alone", runtime, &ids, &bare, HASH),
        by_store("SqliteKeyStore", runtime, &ids, &store),
        by_store("the same through Cached, remembered", runtime, &ids, &cached),
    ])
    .print("SQLite, one look-up of 10 000 keys", "the bare query");
}

fn postgres(runtime: &Runtime, address: &str) {
    let store = Arc::new(runtime.block_on(PostgresKeyStore::connect(address)).expect("a store"));
    let ids = runtime.block_on(fill(&*store));
    let bare: Pool<sqlx::Postgres> = runtime.block_on(pool().connect(address)).expect("a pool");
    let cached = warm(runtime, &ids, Arc::clone(&store));
    measure(&[
        by_query!("the bare query", runtime, &ids, &bare, ROW),
        by_query!("the bare query again (noise)", runtime, &ids, &bare, ROW),
        by_query!("a bare query for the hash alone", runtime, &ids, &bare, HASH),
        by_store("PostgresKeyStore", runtime, &ids, &store),
        by_store("the same through Cached, remembered", runtime, &ids, &cached),
    ])
    .print("PostgreSQL, one look-up of 10 000 keys", "the bare query");
}

fn main() {
    // `cargo test --benches` calls it too, and does not want to wait.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    sqlite(&runtime);
    match std::env::var("PORTCULLIS_TEST_POSTGRES") {
        Ok(address) => postgres(&runtime, &address),
        Err(_) => println!("PostgreSQL is not measured: PORTCULLIS_TEST_POSTGRES has no address of a server"),
    }
}
