//! A limit for each of 10 000 addresses: the decision next to governor's, the layer next to tower_governor's; within the quota, and
//! beyond it.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    rc::Rc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use governor::{RateLimiter, clock::DefaultClock, state::keyed::DashMapStateStore};
use http::Request;
use portcullis::{
    Clock, Connection, Instants, Now, SystemClock,
    rate_limit::{Charge, Draw, KeyPart, LimitScope, MemoryLimits, Quota, Quotas, RateLimitLayer, RateLimitStore},
};
use tower::Layer;
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder, key_extractor::PeerIpKeyExtractor};

use crate::ratio::{Contender, Timed, base, measure, random, router, time};

const KEYS: u32 = 10_000;
const DAY: Duration = Duration::from_secs(86_400);
const SCOPE: LimitScope<'static> = LimitScope::new("client");

type Governor = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>;

fn addresses() -> Vec<IpAddr> {
    (0..KEYS).map(|number| Ipv4Addr::from(0x0a00_0000 + number).into()).collect()
}

/// A thousand a second, of which each key has so many at once that none is refused.
fn wide() -> Quota {
    Quota::per_second(1_000).burst(u32::MAX)
}

/// Used up by the first one.
fn narrow() -> Quota {
    Quota::per_day(1)
}

fn governor_of(quota: governor::Quota) -> Governor {
    RateLimiter::dashmap(quota)
}

pub fn tables() {
    decisions();
    layers();
}

fn is_granted(limits: &MemoryLimits, quotas: &Quotas, address: IpAddr, at: Instants) -> bool {
    let parts = [KeyPart::network(address)];
    let charges = [Charge::new(SCOPE.key(&parts), &quotas[0])];
    match limits.take_now(&Draw::new(&charges), at) {
        Now::Known(taken) => taken.expect("an answer").is_granted(),
        Now::Wait => panic!("it is in memory"),
    }
}

/// Each address once first, then any; all but the first answers must be this one.
fn timed<'a>(
    name: &'static str,
    addresses: &'a [IpAddr],
    expected: bool,
    ask: impl Fn(IpAddr) -> bool + 'a,
) -> Timed<'a> {
    assert!(addresses.iter().all(|address| ask(*address)), "{name}: a limiter allows");
    assert!(addresses.iter().all(|address| ask(*address) == expected), "{name}");
    let run = Rc::new(move |address: IpAddr| assert_eq!(black_box(ask(address)), expected));
    let once = Rc::clone(&run);
    let slice = move |count: usize| {
        const BATCH: usize = 256;
        let batches = count.div_ceil(BATCH).max(1);
        let mut taken = 0.0;
        for _ in 0..batches {
            let batch: [IpAddr; BATCH] = std::array::from_fn(|_| addresses[random(addresses.len())]);
            taken += time(|| batch.iter().for_each(|address| run(*address)));
        }
        taken / (batches * BATCH) as f64
    };
    let once = move || allocation_counter::measure(|| once(addresses[0])).count_total;
    Timed { name, slice: Box::new(slice), once: Box::new(once) }
}

fn decisions() {
    let addresses = addresses();
    let clock = SystemClock::new();
    // One moment for all, as one reading of a request's time is for all of its layers.
    let at = clock.now();
    let table = || MemoryLimits::with_capacity(2 * addresses.len()).expect("a capacity");
    let (given, read, refusing) = (table(), table(), table());
    let (wide, narrow) = (Quotas::new([wide()]).expect("a quota"), Quotas::new([narrow()]).expect("a quota"));
    let thousand = NonZeroU32::new(1_000).expect("not zero");
    let allowing = governor_of(governor::Quota::per_second(thousand).allow_burst(NonZeroU32::MAX));
    let used_up = governor_of(governor::Quota::with_period(DAY).expect("a period"));
    measure(&[
        timed("governor, keyed by address", &addresses, true, |address| allowing.check_key(&address).is_ok()),
        timed("portcullis, the time is given", &addresses, true, |address| is_granted(&given, &wide, address, at)),
        timed("portcullis, the time is read", &addresses, true, |address| {
            is_granted(&read, &wide, address, clock.now())
        }),
        timed("governor, refused", &addresses, false, |address| used_up.check_key(&address).is_ok()),
        timed("portcullis, refused", &addresses, false, |address| is_granted(&refusing, &narrow, address, at)),
    ])
    .print("a decision, 10 000 keys", "governor, keyed by address");
}

fn layers() {
    let from = |address| {
        let mut request = base();
        let peer = SocketAddr::new(address, 52_100);
        request.extensions_mut().insert(Connection::plain(peer));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    let requests: Vec<Request<()>> = addresses().into_iter().map(from).collect();
    let limit = |quota| RateLimitLayer::per_client(quota).expect("a quota");
    let with = |name, app: Router| Contender::with_requests(name, app, &requests);
    let ours = |name, layer: RateLimitLayer| Contender::with_requests(name, layer.layer(router()), &requests);
    let contenders = [
        with("bare axum router", router()),
        with("tower_governor", governed(Duration::from_millis(1), u32::MAX, false)),
        with("tower_governor, with fields", governed(Duration::from_millis(1), u32::MAX, true)),
        ours("portcullis, without fields", limit(wide()).without_headers()),
        ours("portcullis, with fields", limit(wide())),
        with("tower_governor, 429", governed(DAY, 1, false)).refused(429),
        with("tower_governor, 429, with fields", governed(DAY, 1, true)).refused(429),
        ours("portcullis, 429, without fields", limit(narrow()).without_headers()).refused(429),
        ours("portcullis, 429, with fields", limit(narrow())).refused(429),
    ];
    for contender in &contenders {
        // The first of each address is admitted by all of them.
        contender.send_each_as(200);
        contender.warm_up();
    }
    let timed: Vec<_> = contenders.iter().map(Contender::timed).collect();
    measure(&timed).print("through axum, 10 000 keys", contenders[0].name);
}

fn governed(period: Duration, burst: u32, with_fields: bool) -> Router {
    let mut config = GovernorConfigBuilder::default();
    let mut config = config.period(period).burst_size(burst).key_extractor(PeerIpKeyExtractor);
    if with_fields {
        let config = config.use_headers().finish().expect("a configuration");
        return router().layer(GovernorLayer::new(config));
    }
    router().layer(GovernorLayer::new(config.finish().expect("a configuration")))
}
