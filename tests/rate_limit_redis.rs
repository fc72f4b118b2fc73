//! Limits in Redis: the contract, other processes, leases, and what goes wrong. Each test has a server of its own.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[path = "rate_limit_redis/away.rs"]
mod away;
#[path = "support/certs.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used here")]
mod certs;
#[path = "rate_limit_redis/leases.rs"]
mod leases;
#[path = "support/redis.rs"]
mod redis;

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use portcullis::{
    Challenge, Clock, Connection, Instants, Now, Principal, PrincipalKind, RedisServer, Secret, StoreError,
    StoreErrorKind, SystemClock,
    authn::{AuthnLayer, Outcome, authenticate_fn},
    conformance::{rate_limit_store, rate_limit_store_that_is_full, rate_limit_store_that_is_shared},
    guard::public,
    rate_limit::{
        Charge, Draw, KeyPart, LimitKey, Plans, Quota, RateLimitLayer, RateLimitStore, RedisLimits, RedisState, Taken,
        WhenAway,
    },
    stack::Stack,
};
use redis::Server;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

const DAY: u64 = 86_400_000_000_000;
const NOW: Instants = Instants::new(1_800_000_000_000_000_000, DAY);

/// Waits until it is so. Whoever waits in vain fails after half a minute.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A busy machine is no reason to decide without Redis, where a test is not about that.
const PATIENT: Duration = Duration::from_secs(10);

fn store(server: &Server) -> RedisLimits {
    RedisLimits::builder(&server.address()).timeout(PATIENT).when_away(WhenAway::Fail).build().unwrap()
}

/// Takes as a layer does.
async fn draw(store: &RedisLimits, draw: &Draw<'_>) -> Result<Taken, StoreError> {
    let at = SystemClock::new().now();
    match store.take_now(draw, at) {
        Now::Known(answer) => answer,
        Now::Wait => store.take(draw, at).await,
    }
}

async fn take(store: &RedisLimits, name: &str, quotas: &[Quota], cost: u32) -> Result<Taken, StoreError> {
    let parts = [KeyPart::Custom(name)];
    let charges: Vec<Charge<'_>> =
        quotas.iter().map(|quota| Charge::new(LimitKey::new("test", &parts), quota)).collect();
    draw(store, &Draw::new(&charges).with_cost(NonZeroU32::new(cost).unwrap())).await
}

async fn granted(store: &RedisLimits, name: &str, quota: &Quota) -> bool {
    take(store, name, std::slice::from_ref(quota), 1).await.unwrap().is_granted()
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_store_keeps_its_contract() {
    let server = Server::start();
    let builder = |prefix: &str| {
        let server = RedisServer::at(&server.address()).prefix(prefix);
        RedisLimits::builder(server).timeout(PATIENT).callers_time()
    };
    rate_limit_store(&builder("portcullis:").build().unwrap(), NOW).await;
    rate_limit_store(&builder("cluster:").in_cluster().build().unwrap(), NOW).await;
    let long_ago = Instants::new(1_000_000_000_000_000_000, 0);
    rate_limit_store(&Arc::new(builder("earlier:").build().unwrap()), long_ago).await;
    rate_limit_store_that_is_shared(async || builder("shared:").build().unwrap(), NOW).await;
    rate_limit_store_that_is_full(&builder("full:").build().unwrap(), None, NOW).await;
}

/// The script is the arithmetic of `Draw::take` once more, so it must answer the same, whatever is asked.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_script_answers_as_the_arithmetic_does() {
    let server = Server::start();
    let shared = RedisLimits::builder(&server.address()).timeout(PATIENT).callers_time().build().unwrap();
    let mut kept: HashMap<String, u64> = HashMap::new();
    let quotas = [
        Quota::per_second(100).burst(7),
        Quota::per_minute(60).burst(30).named("minute"),
        Quota::per_hour(1_000).named("hour"),
        Quota::per_second(1_000).burst(3).named("tight"),
    ];
    let names = ["a", "b", "c"].map(|name| [KeyPart::Custom(name)]);
    let (mut state, mut after, mut granted) = (42_u64, 0_u64, 0);
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for step in 0..5_000 {
        after += [0, 1_000, 9_000, 1_000_000, 40_000_000, 3_000_000_000][usize::try_from(random(6)).unwrap()];
        let first = usize::try_from(random(4)).unwrap();
        let last = first + 1 + usize::try_from(random(4)).unwrap();
        let name = &names[usize::try_from(random(3)).unwrap()];
        let charges: Vec<Charge<'_>> =
            (first..last.min(4)).map(|quota| Charge::new(LimitKey::new("test", name), &quotas[quota])).collect();
        let draw = Draw::new(&charges).with_cost(NonZeroU32::new(1 + u32::try_from(random(4)).unwrap()).unwrap());
        let draw = if random(5) == 0 { draw.counting_refused() } else { draw };
        // At times the wall clock is a little back, as between two machines.
        let back = if random(10) == 0 { random(500_000) * 1_000 } else { 0 };
        let at = Instants::new(NOW.unix_nanos() + after - back, NOW.monotonic_nanos() + after);
        let count = |charge: &Charge<'_>| format!("{}/{}", charge.key(), charge.quota().name());
        let mut tats: Vec<u64> = charges.iter().map(|charge| kept.get(&count(charge)).copied().unwrap_or(0)).collect();
        let expected = draw.take(&mut tats, at.unix_nanos());
        kept.extend(charges.iter().map(count).zip(tats));
        let taken = match shared.take_now(&draw, at) {
            Now::Known(answer) => answer.unwrap(),
            Now::Wait => shared.take(&draw, at).await.unwrap(),
        };
        assert_eq!(taken, expected, "step {step}: {draw:?}");
        granted += u32::from(taken.is_granted());
    }
    assert!((1_000..4_000).contains(&granted), "{granted}: both outcomes were seen");
}

#[test]
#[ignore = "needs Redis; tests/run installs it"]
fn processes_share_a_quota() {
    let server = Server::start();
    let quotas = [Quota::per_day(1_000), Quota::per_day(2_000).named("other")];
    // Each with a runtime and a connection of its own, as processes are.
    let counted = std::thread::scope(|scope| {
        let process = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let store = store(&server);
                let tasks: Vec<_> = (0..32)
                    .map(|_| {
                        let (store, quotas) = (store.clone(), quotas.clone());
                        tokio::spawn(async move {
                            let mut granted = 0;
                            for _ in 0..50 {
                                granted += u32::from(take(&store, "alice", &quotas, 1).await.unwrap().is_granted());
                            }
                            granted
                        })
                    })
                    .collect();
                let mut granted = 0;
                for task in tasks {
                    granted += task.await.unwrap();
                }
                (granted, store.counts())
            })
        };
        let threads = [scope.spawn(process), scope.spawn(process)];
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(counted.iter().map(|(granted, _)| granted).sum::<u32>(), 1_000, "of 3 200 that were asked for");
    for (_, counts) in counted {
        assert_eq!((counts.asked, counts.in_process, counts.connections), (1_600, 0, 1));
        assert!(counts.calls * 4 < counts.asked, "decisions that wait together share a call: {counts:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = runtime.block_on(take(&store(&server), "alice", &quotas[1..], 1)).unwrap();
    assert_eq!(left.remaining(), 999, "what one quota refused was taken from no other");
}

const ADDRESS: &str = "PORTCULLIS_TEST_REDIS";

/// One of the services of the next test: this program again, told by a variable where Redis is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let store = RedisLimits::builder(&address).timeout(PATIENT).when_away(WhenAway::Fail).build().unwrap();
    let limit = RateLimitLayer::per_client(Quota::per_day(1_000)).unwrap().with_store(store);
    let stack = Stack::builder().dangerous_plain_http().limit(limit).fallback(public()).build().unwrap();
    let handler = tower::service_fn(async |_: http::Request<()>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let app = stack.protect(handler);
            tokio::spawn(async move {
                let mut passed = 0;
                for _ in 0..50 {
                    let mut request = http::Request::get("/").body(()).unwrap();
                    request.extensions_mut().insert(Connection::plain("198.51.100.7:52100".parse().unwrap()));
                    let status = app.clone().oneshot(request).await.unwrap().status().as_u16();
                    assert!(matches!(status, 200 | 429), "{status}");
                    passed += u32::from(status == 200);
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    eprintln!("passed {passed}");
}

#[test]
#[ignore = "needs Redis; tests/run installs it"]
fn services_of_two_processes_share_a_quota() {
    let server = Server::start();
    let start = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(ADDRESS, server.address());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let passed = [start(), start()].map(|process| {
        let output = process.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        let passed = told.lines().find_map(|line| line.strip_prefix("passed "));
        passed.unwrap_or_else(|| panic!("{told}")).parse::<u32>().unwrap()
    });
    assert_eq!(passed.iter().sum::<u32>(), 1_000, "{passed:?} of 1 600");
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_servers_clock_counts_and_keys_live_as_long_as_their_debt() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_second(10).burst(2);
    // The clock that is passed is a year ahead, then a year behind: nobody looks at it.
    let parts = [KeyPart::Custom("a")];
    let charges = [Charge::new(LimitKey::new("test", &parts), &quota)];
    let mut granted = 0;
    for year in [0, 1, 2, 0] {
        let at = Instants::new(NOW.unix_nanos() + year * 365 * DAY, year * 365 * DAY);
        granted += u32::from(store.take(&Draw::new(&charges), at).await.unwrap().is_granted());
    }
    assert!((2..=4).contains(&granted), "{granted} of a burst of two, and a tenth of a second each more");
    assert_eq!(server.keys().len(), 1);
    assert!(server.keys()[0].starts_with("portcullis:{"));
    until("a key is gone with its debt", || server.keys().is_empty()).await;
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_key_never_ends_before_its_debt_nor_much_later() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_second(1_000).burst(1_000_000);
    let number = |command: &str| {
        let answer = server.say(command);
        answer.trim_start_matches(':').trim_end().rsplit("\r\n").next().unwrap().parse::<u64>().unwrap()
    };
    let mut before = 0;
    for cost in [2_500, 1, 1, 100, 1, 1, 700, 1, 1, 1].into_iter().cycle().take(200) {
        assert!(take(&store, "a", std::slice::from_ref(&quota), cost).await.unwrap().is_granted());
        let key = &server.keys()[0];
        let (whole, ends) = (number(&format!("GET {key}")), number(&format!("PEXPIRETIME {key}")));
        assert!(before == 0 || whole == before + u64::from(cost) * 1_000, "{whole} after {before}: {cost} more");
        assert!((whole..=whole + 1_000_000).contains(&(ends * 1_000)), "{whole} ends at {ends}");
        before = whole;
    }
    let stats = server.say("INFO commandstats");
    assert!(stats.contains("cmdstat_incrby:"), "most need no other life: {stats}");

    // As another program may have written it.
    let key = server.keys()[0].clone();
    server.say(&format!("SET {key} {before}.0 PX 3600000"));
    for after in 1..=2 {
        assert!(granted(&store, "a", &quota).await);
        assert_eq!(number(&format!("GET {key}")), before + after * 1_000);
    }
    assert_eq!(store.counts().corrupt, 0);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_key_on_a_shorter_plan_pays_no_debt_of_a_longer_one() {
    let server = Server::start();
    let plans = Plans::new([Quota::per_minute(5)]).unwrap().with("day", [Quota::per_day(4)]).unwrap();
    let limit = RateLimitLayer::per_principal(&plans).unwrap().with_store(store(&server));
    let authenticator = authenticate_fn(Challenge::new("Plan", "tests").unwrap(), |head, _| {
        let plan = head.headers()["x-plan"].to_str().unwrap();
        Outcome::verified(Principal::builder(PrincipalKind::Service, "a", "alice", "plan").plan(plan).build())
    });
    let handler = tower::service_fn(async |_: http::Request<()>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let service = AuthnLayer::new(authenticator).dangerous_plain_http().layer(limit.layer(handler));
    let ask = async |plan: &str| {
        let request = http::Request::get("/").header("x-plan", plan).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    for (plan, status) in [("day", 200), ("day", 200), ("day", 200), ("day", 200), ("none", 429), ("day", 429)] {
        assert_eq!(ask(plan).await, status, "{plan}");
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_next_call_is_there_while_the_server_works_and_no_third() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_day(1_000);
    assert!(granted(&store, "a", &quota).await);
    // It reads what it is sent, and does it later.
    assert_eq!(server.say("CLIENT PAUSE 30000 WRITE"), "+OK\r\n");
    let (mut decisions, before) = (Vec::new(), store.counts());
    for (more, calls, asked) in [(1, 1, 1), (5, 1, 1), (20, 2, 26), (40, 2, 26)] {
        for _ in 0..more {
            let (store, quota) = (store.clone(), quota.clone());
            decisions.push(tokio::spawn(async move { granted(&store, "a", &quota).await }));
        }
        until("they are asked", || store.counts().asked >= before.asked + asked).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let counts = store.counts();
        assert_eq!((counts.calls - before.calls, counts.asked - before.asked), (calls, asked));
    }
    assert_eq!(server.say("CLIENT UNPAUSE"), "+OK\r\n");
    for decision in decisions {
        assert!(decision.await.unwrap());
    }
    let counts = store.counts();
    assert_eq!((counts.asked - before.asked, counts.failures), (66, 0));
    assert_eq!(take(&store, "a", &[quota], 1).await.unwrap().remaining(), 932);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn scripts_that_were_flushed_are_sent_again() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_day(3);
    for flush in [false, true, true] {
        if flush {
            assert_eq!(server.say("SCRIPT FLUSH"), "+OK\r\n");
        }
        assert!(granted(&store, "a", &quota).await);
    }
    assert!(!granted(&store, "a", &quota).await);
    assert_eq!((store.counts().failures, store.counts().corrupt), (0, 0));
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn an_account_that_may_do_no_more() {
    let server = Server::start();
    let may = "+time +mget +get +exists +set +incrby +del +evalsha +eval +ping";
    let account = |name: &str, may: &str| format!("ACL SETUSER {name} on >correct-horse ~portcullis:* {may}");
    assert_eq!(server.say(&account("limits", may)), "+OK\r\n");
    assert_eq!(server.say(&account("older", &may.replace("+incrby ", ""))), "+OK\r\n");
    let quota = Quota::per_day(3);
    for (name, key) in [("limits", "a"), ("older", "b")] {
        let server = RedisServer::at(&server.address()).login(Some(name), Secret::from("correct-horse".to_owned()));
        let store = RedisLimits::builder(server).timeout(PATIENT).when_away(WhenAway::Fail).build().unwrap();
        for number in 1..=4 {
            assert_eq!(granted(&store, key, &quota).await, number <= 3, "{name}: {number}");
        }
        assert_eq!((store.counts().failures, store.counts().corrupt), (0, 0), "{name}");
    }
    assert_eq!(server.keys().len(), 2);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn keys_that_hold_something_else_are_an_error_and_are_left_alone() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_day(10);
    assert!(granted(&store, "a", &quota).await);
    let key = server.keys()[0].clone();
    for (command, kind) in [
        (format!("LPUSH {key} 1"), "+list\r\n"),
        (format!("HSET {key} 1 1"), "+hash\r\n"),
        (format!("SET {key} text"), "+string\r\n"),
        (format!("SET {key} nan"), "+string\r\n"),
        (format!("SET {key} inf"), "+string\r\n"),
        (format!("SET {key} -5"), "+string\r\n"),
        (format!("SET {key} 9007199254740993"), "+string\r\n"),
    ] {
        server.say(&format!("DEL {key}"));
        server.say(&command);
        let before = store.counts().corrupt;
        // At the same time as one that is good.
        let (bad, good) = tokio::join!(
            take(&store, "a", std::slice::from_ref(&quota), 1),
            take(&store, "b", std::slice::from_ref(&quota), 1)
        );
        assert_eq!(bad.unwrap_err().kind(), StoreErrorKind::Corrupt, "{command}");
        assert!(good.unwrap().is_granted(), "{command}");
        assert_eq!(server.say(&format!("TYPE {key}")), kind, "{command}");
        assert_eq!((store.counts().corrupt, store.state()), (before + 1, RedisState::Up));
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn passwords() {
    let server = Server::start_with(&["--requirepass", "correct-horse"]);
    let quota = Quota::per_day(10);
    let port = server.port();
    let builder = |server: RedisServer| RedisLimits::builder(server).timeout(PATIENT).when_away(WhenAway::Fail);
    let plain = || RedisServer::at(&server.address());
    let in_address = builder(RedisServer::at(&format!("redis://:correct-horse@127.0.0.1:{port}/3"))).build().unwrap();
    let apart = builder(plain().login(None, Secret::from("correct-horse".to_owned()))).build().unwrap();
    for store in [&in_address, &apart] {
        assert!(granted(store, "a", &quota).await);
        let shown = format!("{store:?} {:?}", builder(RedisServer::at("redis://:correct-horse@a")));
        assert!(!shown.contains("horse"), "{shown}");
    }
    let wrong = builder(plain().login(Some("default"), Secret::from("wrong".to_owned()))).build().unwrap();
    for store in [wrong, builder(plain()).build().unwrap()] {
        let refused = take(&store, "a", std::slice::from_ref(&quota), 1).await.unwrap_err();
        assert_eq!((refused.kind(), store.state()), (StoreErrorKind::Unavailable, RedisState::Away));
        assert_eq!(store.counts().connections, 0);
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn over_tls_and_over_a_socket() {
    let quota = Quota::per_day(10);
    let authority = certs::Authority::new("one");
    let issued = authority.server(&["localhost"]);
    let server = Server::start_with_tls(&issued.pem, &issued.key);
    let address = format!("rediss://localhost:{}", server.port());
    let builder = |server: RedisServer| RedisLimits::builder(server).timeout(PATIENT).when_away(WhenAway::Fail);
    let trusted = builder(RedisServer::at(&address).roots(authority.pem.clone())).build().unwrap();
    assert!(granted(&trusted, "a", &quota).await);
    let strangers = certs::Authority::new("other").pem;
    let by_address = format!("rediss://127.0.0.1:{}", server.port());
    for (address, roots) in [(&address, &strangers), (&by_address, &authority.pem)] {
        let store = builder(RedisServer::at(address).roots(roots.clone())).build().unwrap();
        assert!(take(&store, "a", std::slice::from_ref(&quota), 1).await.is_err(), "{address}");
        assert_eq!(store.counts().connections, 0);
    }

    let server = Server::start();
    let store = builder(RedisServer::at(&format!("redis+unix://{}", server.socket().display()))).build().unwrap();
    assert!(granted(&store, "a", &quota).await);
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_node_of_a_cluster_decides_about_all_keys_of_a_decision() {
    let server = Server::start_in_cluster();
    assert_eq!(server.say("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
    tokio::time::timeout(Duration::from_secs(20), async {
        while !server.say("CLUSTER INFO").contains("cluster_state:ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let store = RedisLimits::builder(&server.address()).timeout(PATIENT).in_cluster().build().unwrap();
    let quotas = [Quota::per_day(10), Quota::per_day(20).named("other")];
    let (narrow, wide) = (Quota::per_day(2), Quota::per_day(32));
    let of_network = async |number: u16| {
        let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, number, 7, 0, 0, 0, 1).into();
        let (inner, outer) = ([KeyPart::network(address)], [KeyPart::wide_network(address)]);
        let charges = [
            Charge::new(LimitKey::new("client", &inner), &narrow),
            Charge::new(LimitKey::new("client", &outer), &wide),
        ];
        draw(&store, &Draw::new(&charges)).await.unwrap().is_granted()
    };
    for round in 0..3 {
        // In different slots, at the same time.
        let (one, other, third) = tokio::join!(of_network(1), of_network(2), take(&store, "a", &quotas, 1));
        assert_eq!((one, other), (round < 2, round < 2));
        assert!(third.unwrap().is_granted());
    }
    assert_eq!((store.counts().corrupt, store.counts().failures), (0, 0), "{:?}", store.counts());
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn who_no_longer_waits_takes_nothing_more_and_disturbs_nobody() {
    let server = Server::start();
    let store = store(&server);
    let quota = Quota::per_day(1_000);
    for _ in 0..100 {
        let given_up = tokio::time::timeout(Duration::ZERO, take(&store, "a", std::slice::from_ref(&quota), 1));
        let _ = given_up.await;
        assert!(granted(&store, "a", &quota).await);
    }
    assert_eq!(store.state(), RedisState::Up);
}

#[test]
fn bad_settings_are_named() {
    let error = |builder: portcullis::rate_limit::RedisLimitsBuilder| builder.build().unwrap_err().to_string();
    let here = || RedisServer::at("redis://127.0.0.1");
    let builder = || RedisLimits::builder(here());
    let leases = portcullis::rate_limit::Leases::new;
    for (told, begins) in [
        (error(RedisLimits::builder("secret")), "redis: the address is no redis://"),
        (error(RedisLimits::builder(here().prefix("a{b}"))), "key prefix: \"a{b}\" is not 1 to 64"),
        (error(builder().timeout(Duration::ZERO)), "time-out: 0ns is not 1 ms to 10 s"),
        (error(builder().timeout(Duration::from_secs(11))), "time-out: 11s is not"),
        (error(builder().when_away(WhenAway::InProcess { percent: 0 })), "share while Redis is away: 0 %"),
        (error(builder().when_away(WhenAway::InProcess { percent: 101 })), "share while Redis is away: 101 %"),
        (error(builder().capacity(0)), "capacity: 0"),
        (error(RedisLimits::builder(here().roots("x"))), "redis: the address is not rediss://"),
        (error(RedisLimits::builder("redis://redis.internal")), "redis: the address is plain TCP to another machine"),
        (error(RedisLimits::builder(here().login(None, Secret::new(vec![0xff])))), "password: bytes is no text"),
        (leases().one_in(19).unwrap_err().to_string(), "slice: one in 19 is not"),
        (leases().one_in(10_001).unwrap_err().to_string(), "slice: one in 10001 is not"),
        (leases().held_for(Duration::from_millis(9)).unwrap_err().to_string(), "lease: 9ms is not held"),
        (leases().held_for(Duration::from_secs(61)).unwrap_err().to_string(), "lease: 61s is not held"),
    ] {
        assert!(told.starts_with(begins), "{told}");
    }
    assert!(format!("{:?}", builder().build().unwrap()).contains("state: Connecting"));
    assert!(RedisLimits::builder(RedisServer::at("redis://redis.internal").dangerous_plain_tcp()).build().is_ok());
}
