//! Redis that is killed, paused, full or never there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use portcullis::{
    Connection, Now, SystemClock,
    rate_limit::{OnStoreError, Quota, RateLimitLayer, RateLimitStore, RedisLimits, RedisState, WhenAway},
};
use tower::{Layer, ServiceExt, service_fn};

use super::{Charge, Clock, Draw, KeyPart, LimitKey, PATIENT, granted, redis::Server, take, until};

/// As few as 50 ms would make a busy machine look like one without Redis.
const SHORT: Duration = Duration::from_millis(500);

fn falling_back(server: &Server) -> RedisLimits {
    RedisLimits::builder(&server.address()).timeout(SHORT).build().unwrap()
}

/// Asks all the time, from several tasks, until it is told to end.
struct Load {
    ends: Arc<AtomicBool>,
    decided: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(store: &RedisLimits) -> Self {
        let (ends, decided) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..8)
            .map(|number| {
                let (store, ends, decided) = (store.clone(), Arc::clone(&ends), Arc::clone(&decided));
                tokio::spawn(async move {
                    let (name, quota) = (format!("load-{number}"), Quota::per_second(1_000));
                    while !ends.load(SeqCst) {
                        let _ = take(&store, &name, std::slice::from_ref(&quota), 1).await.unwrap();
                        decided.fetch_add(1, SeqCst);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        Self { ends, decided, tasks }
    }

    /// Waits until so many more are decided.
    async fn goes_on(&self) {
        let before = self.decided.load(SeqCst);
        until("decisions are made", || self.decided.load(SeqCst) > before + 1_000).await;
    }

    async fn end(self) {
        self.ends.store(true, SeqCst);
        for task in self.tasks {
            task.await.expect("no task panics");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis; tests/run installs it"]
async fn killed_and_started_again_under_load() {
    let mut server = Server::start();
    let store = falling_back(&server);
    let load = Load::on(&store);
    load.goes_on().await;
    assert_eq!((store.state(), store.counts().degraded), (RedisState::Up, 0));
    for round in 1..=2 {
        let before = store.counts();
        server.kill();
        until("it is noticed", || store.state() == RedisState::Away).await;
        load.goes_on().await;
        let counts = store.counts();
        assert!(counts.degraded > before.degraded + 500 && counts.failures > before.failures, "{counts:?}");
        server.restart();
        until("it is back", || store.state() == RedisState::Up).await;
        let asked = store.counts().asked;
        load.goes_on().await;
        assert!(store.counts().asked > asked, "it is asked again, round {round}");
        assert_eq!(store.counts().connections, before.connections + 1);
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis; tests/run installs it"]
async fn paused_it_costs_one_time_out() {
    let mut server = Server::start();
    let store = falling_back(&server);
    let load = Load::on(&store);
    load.goes_on().await;
    let before = store.counts();
    server.freeze();
    until("it is noticed", || store.state() == RedisState::Away).await;
    // From now on nobody waits: the answer is there at once.
    let (quota, parts) = (Quota::per_day(1_000), [KeyPart::Custom("a")]);
    let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
    for _ in 0..500 {
        match store.take_now(&Draw::new(&charges), SystemClock::new().now()) {
            Now::Known(Ok(taken)) => assert!(taken.is_granted() && taken.is_degraded()),
            other => panic!("{other:?}"),
        }
    }
    let over = store.take_now(&Draw::new(&charges), SystemClock::new().now());
    assert!(matches!(over, Now::Known(Ok(taken)) if !taken.is_granted()), "half of the quota is this process's share");
    load.goes_on().await;
    // Eight waited at the most, each once; what is tried in the background is counted as well.
    let failures = store.counts().failures - before.failures;
    assert!((1..=8 + 8).contains(&failures), "{failures}");
    server.thaw();
    until("it is back", || store.state() == RedisState::Up).await;
    let asked = store.counts().asked;
    load.goes_on().await;
    assert!(store.counts().asked > asked);
    assert!(granted(&store, "a", &quota).await);
    load.end().await;
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_server_that_comes_late_is_found() {
    let mut server = Server::start();
    server.kill();
    let store = falling_back(&server);
    assert_eq!(store.state(), RedisState::Connecting);
    let quota = Quota::per_day(10);
    for number in 0..6 {
        let taken = take(&store, "a", std::slice::from_ref(&quota), 1).await.unwrap();
        assert_eq!((taken.is_granted(), taken.is_degraded()), (number < 5, true), "half of ten, in process");
    }
    assert_eq!(store.state(), RedisState::Away);
    // What costs more than the share passes as far as the quota has room.
    assert!(take(&store, "b", std::slice::from_ref(&quota), 10).await.unwrap().is_granted());
    server.restart();
    until("it is found", || store.state() == RedisState::Up).await;
    let taken = take(&store, "a", std::slice::from_ref(&quota), 1).await.unwrap();
    assert_eq!((taken.remaining(), taken.is_degraded()), (9, false));
}

#[tokio::test]
async fn what_a_costly_request_took_of_the_share_is_kept_by_a_cheap_one() {
    let store = RedisLimits::builder("redis+unix:///nowhere/redis.sock").build().unwrap();
    let (quota, parts) = (Quota::per_day(10), [KeyPart::Custom("a")]);
    let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
    let costly = Draw::new(&charges).with_cost(std::num::NonZeroU32::new(10).unwrap());
    let taken = store.take(&costly, super::NOW).await.unwrap();
    assert!(taken.is_granted() && taken.is_degraded());
    // Of half of the quota one comes back in 17 280 s, and the ten are twice as much as there is room for.
    for _ in 0..2 {
        let refused = store.take(&Draw::new(&charges), super::NOW).await.unwrap();
        assert_eq!(refused.retry_after_nanos(), Some(6 * 17_280 * 1_000_000_000));
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn one_that_is_full_or_a_replica_is_as_good_as_away() {
    let server = Server::start();
    let store = falling_back(&server);
    let quota = Quota::per_day(10);
    assert!(granted(&store, "a", &quota).await);
    for (ill, well) in
        [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")]
    {
        assert_eq!(server.say(ill), "+OK\r\n");
        let taken = take(&store, "b", std::slice::from_ref(&quota), 1).await.unwrap();
        assert!(taken.is_degraded(), "{ill}");
        assert_eq!(server.say(well), "+OK\r\n");
        until("it is well", || store.state() == RedisState::Up).await;
        assert!(!take(&store, "c", std::slice::from_ref(&quota), 1).await.unwrap().is_degraded());
    }
    assert_eq!(store.counts().corrupt, 0);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_limiter_shows_what_the_store_does() {
    let mut server = Server::start();
    let status = async |limit: &RateLimitLayer| {
        let handler =
            service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new())));
        let mut request = Request::new(());
        request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
        limit.layer(handler).oneshot(request).await.unwrap().status()
    };
    let limit = |when_away, scope: &str| {
        let store = RedisLimits::builder(&server.address()).timeout(PATIENT).when_away(when_away).build().unwrap();
        let limit = RateLimitLayer::per_client(Quota::per_day(4)).unwrap().with_store(store);
        limit.with_scope(scope.to_owned()).unwrap()
    };
    let closed = limit(WhenAway::Fail, "closed");
    let open = limit(WhenAway::Fail, "open").on_store_error(OnStoreError::Admit);
    let own = limit(WhenAway::InProcess { percent: 25 }, "own");
    for limit in [&closed, &open, &own] {
        assert_eq!(status(limit).await, StatusCode::OK);
    }
    server.kill();
    assert_eq!(status(&closed).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&open).await, StatusCode::OK);
    assert_eq!(status(&own).await, StatusCode::OK);
    assert_eq!(status(&own).await, StatusCode::TOO_MANY_REQUESTS, "a quarter of four is one");
    assert_eq!((closed.counts().failed, open.counts().failed, own.counts().degraded), (1, 1, 2));
    server.restart();
    for limit in [&closed, &own] {
        let start = tokio::time::Instant::now();
        while status(limit).await != StatusCode::OK {
            assert!(start.elapsed() < Duration::from_secs(30), "it does not recover");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
