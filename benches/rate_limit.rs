//! What a limit costs: the decision alone next to governor's, on one thread and on two, and the layer around an axum router
//! next to tower_governor.
//!
//! Tables of ratios come first (see `ratio/mod.rs`), with the bytes for each key; `cargo bench --bench rate_limit --all-features -- ratios`
//! prints them alone, and `-- redis` those of a shared limit.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench stops where it cannot go on")]

mod ratio;
#[path = "rate_limit/redis.rs"]
mod shared;

use std::{
    hash::BuildHasher,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use criterion::{BatchSize, Criterion};
use governor::{RateLimiter, clock::DefaultClock, state::keyed::DashMapStateStore};
use http::Request;
use portcullis::{
    Clock, Connection, Instants, Now, SystemClock,
    rate_limit::{
        Charge, ConcurrencyLayer, Draw, KeyPart, LimitScope, MemoryLimits, Quota, Quotas, RateLimitLayer,
        RateLimitStore,
    },
};
use ratio::{Contender, Timed, base, random, router, send, time};
use tower::Layer;
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder, key_extractor::PeerIpKeyExtractor};

/// A thousand a second, of which each key has so many at once that none is refused: every key stays in debt.
fn quota() -> Quota {
    Quota::per_second(1_000).burst(u32::MAX)
}

type Governor = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>;

fn governor() -> Governor {
    let thousand = NonZeroU32::new(1_000).expect("not zero");
    RateLimiter::dashmap(governor::Quota::per_second(thousand).allow_burst(NonZeroU32::MAX))
}

fn addresses(count: u32) -> Vec<IpAddr> {
    (0..count).map(|number| Ipv4Addr::from(0x0a00_0000 + number).into()).collect()
}

const SCOPE: LimitScope<'static> = LimitScope::new("client");

fn check(limits: &MemoryLimits, quotas: &[Quota], address: IpAddr, at: Instants) {
    let parts = [KeyPart::network(address)];
    let key = SCOPE.key(&parts);
    let granted = match quotas {
        [quota] => limits.take_now(&Draw::new(&[Charge::new(key, quota)]), at),
        quotas => {
            let charges: [Charge<'_>; 2] = std::array::from_fn(|index| Charge::new(key, &quotas[index]));
            limits.take_now(&Draw::new(&charges), at)
        }
    };
    assert!(matches!(granted, Now::Known(Ok(taken)) if taken.is_granted()));
}

/// Runs with one address after the other, in random order.
fn of_addresses(addresses: &[IpAddr], count: usize, run: impl Fn(IpAddr)) -> f64 {
    const BATCH: usize = 256;
    let batches = count.div_ceil(BATCH).max(1);
    let mut taken = 0.0;
    for _ in 0..batches {
        let batch: [IpAddr; BATCH] = std::array::from_fn(|_| addresses[random(addresses.len())]);
        taken += time(|| batch.iter().for_each(|address| run(*address)));
    }
    taken / (batches * BATCH) as f64
}

fn timed<'a>(name: &'static str, addresses: &'a [IpAddr], run: impl Fn(IpAddr) + 'a) -> Timed<'a> {
    addresses.iter().for_each(|address| run(*address));
    let run = std::rc::Rc::new(run);
    let once = std::rc::Rc::clone(&run);
    Timed {
        name,
        slice: Box::new(move |count| of_addresses(addresses, count, &*run)),
        once: Box::new(move || allocation_counter::measure(|| once(addresses[0])).count_total),
    }
}

/// On two threads at once, each with keys of its own: the time of one operation on one of them.
fn on_two_threads<'a>(name: &'static str, addresses: &'a [IpAddr], run: impl Fn(IpAddr) + Sync + 'a) -> Timed<'a> {
    addresses.iter().for_each(|address| run(*address));
    Timed {
        name,
        slice: Box::new(move |count| {
            let (one, other) = addresses.split_at(addresses.len() / 2);
            std::thread::scope(|scope| {
                let threads = [one, other].map(|half| scope.spawn(|| of_addresses(half, count, &run)));
                threads.map(|thread| thread.join().expect("it does not panic")).iter().sum::<f64>() / 2.0
            })
        }),
        once: Box::new(|| 0),
    }
}

fn decisions() {
    let one = Quotas::new([quota()]).expect("a quota");
    let two = Quotas::new([quota(), quota().named("other")]).expect("quotas");
    let clock = SystemClock::new();
    // One moment for all, as one reading of a request's time is for all of its layers.
    let at = clock.now();
    for keys in [1, 10_000, 1_000_000_u32] {
        let addresses = addresses(keys);
        let table = || MemoryLimits::with_capacity(addresses.len()).expect("a capacity");
        let (given, read, both, peer) =
            (table(), table(), MemoryLimits::with_capacity(2 * addresses.len()), governor());
        let both = both.expect("a capacity");
        let rows = [
            timed("governor, keyed by address", &addresses, |address| {
                assert!(black_box(peer.check_key(&address)).is_ok());
            }),
            timed("governor again (noise)", &addresses, |address| {
                assert!(black_box(peer.check_key(&address)).is_ok());
            }),
            timed("one quota, the time is given", &addresses, |address| check(&given, &one, address, at)),
            timed("one quota, the time is read", &addresses, |address| check(&read, &one, address, clock.now())),
            timed("two quotas, the time is given", &addresses, |address| check(&both, &two, address, at)),
        ];
        ratio::measure(&rows).print(&format!("decision, {keys} keys"), "governor, keyed by address");
    }

    let addresses = addresses(10_000);
    let (table, peer) = (MemoryLimits::with_capacity(10_000).expect("a capacity"), governor());
    // What two threads cost that share nothing: two virtual cores may be one.
    let hasher = std::hash::RandomState::new();
    let hash = |address: IpAddr| {
        black_box(hasher.hash_one(address));
    };
    let rows = [
        timed("one thread", &addresses, |address| check(&table, &one, address, at)),
        on_two_threads("two threads, other keys", &addresses, |address| check(&table, &one, address, at)),
        timed("governor, one thread", &addresses, |address| assert!(peer.check_key(&address).is_ok())),
        on_two_threads("governor, two threads", &addresses, |address| assert!(peer.check_key(&address).is_ok())),
        timed("the machine: a hash of the address, one thread", &addresses, hash),
        on_two_threads("the machine, two threads", &addresses, hash),
    ];
    ratio::measure(&rows).print("decision, 10000 keys", "one thread");
}

fn memory() {
    println!("{:<42} {:>12}", "bytes for each key", "1000000 keys");
    let addresses = addresses(1_000_000);
    let one = Quotas::new([quota()]).expect("a quota");
    let at = SystemClock::new().now();
    let ours = allocation_counter::measure(|| {
        let table = MemoryLimits::with_capacity(addresses.len()).expect("a capacity");
        addresses.iter().for_each(|address| check(&table, &one, *address, at));
        black_box(&table);
    });
    let peers = allocation_counter::measure(|| {
        let peer = governor();
        addresses.iter().for_each(|address| assert!(peer.check_key(address).is_ok()));
        black_box(&peer);
    });
    for (name, most) in [("ours", ours.bytes_max), ("governor, keyed by address", peers.bytes_max)] {
        println!("{name:<42} {:>12.1}", most as f64 / addresses.len() as f64);
    }
    println!();
}

fn requests() -> Vec<Request<()>> {
    let from = |address| {
        let mut request = base();
        let peer = SocketAddr::new(address, 52_100);
        request.extensions_mut().insert(Connection::plain(peer));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    addresses(10_000).into_iter().map(from).collect()
}

fn contenders(requests: &[Request<()>]) -> Vec<Contender> {
    let limit = || RateLimitLayer::per_client(quota()).expect("a quota");
    let used_up = RateLimitLayer::per_client(Quota::per_day(1)).expect("a quota");
    vec![
        Contender::with_requests("bare axum router", router(), requests),
        Contender::with_requests("bare axum router again (noise)", router(), requests),
        Contender::with_requests("limit, without fields", limit().without_headers().layer(router()), requests),
        Contender::with_requests("limit, with fields", limit().layer(router()), requests),
        Contender::with_requests(
            "limit on concurrency, without fields",
            ConcurrencyLayer::per_client(10).expect("a limit").without_headers().layer(router()),
            requests,
        ),
        Contender::with_requests("tower_governor, by peer", governed(Duration::from_millis(1), u32::MAX), requests),
        Contender::with_requests("tower_governor, with x-ratelimit fields", governed_with_fields(), requests),
        Contender::with_requests(
            "refused with 429, without fields",
            used_up.clone().without_headers().layer(router()),
            requests,
        )
        .refused(429),
        Contender::with_requests("refused with 429, with fields", used_up.layer(router()), requests).refused(429),
        Contender::with_requests(
            "tower_governor, refused with 429",
            governed(Duration::from_secs(86_400), 1),
            requests,
        )
        .refused(429),
    ]
}

fn governed(period: Duration, burst: u32) -> Router {
    let mut config = GovernorConfigBuilder::default();
    let config = config.period(period).burst_size(burst).key_extractor(PeerIpKeyExtractor).finish();
    router().layer(GovernorLayer::new(config.expect("a configuration")))
}

fn governed_with_fields() -> Router {
    let mut config = GovernorConfigBuilder::default();
    let mut config = config.period(Duration::from_millis(1)).burst_size(u32::MAX).key_extractor(PeerIpKeyExtractor);
    let config = config.use_headers().finish();
    router().layer(GovernorLayer::new(config.expect("a configuration")))
}

fn main() {
    if std::env::args().any(|argument| argument == "redis") {
        return shared::rows();
    }
    memory();
    decisions();
    let requests = requests();
    let contenders = contenders(&requests);
    // Who is refused has to use up its quota first.
    for contender in &contenders {
        contender.send_each();
        contender.warm_up();
    }
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    ratio::measure(&timed).print("layer, 10000 keys", contenders[0].name);
    shared::rows();
    if std::env::args().any(|argument| argument == "ratios") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rate_limit");
    for contender in &contenders {
        group.bench_function(contender.name, |bencher| {
            bencher.iter_batched(
                || contender.a_request(),
                |request| send(&contender.app, request),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
