//! Proofs that processes remember together in Redis: the contract, other processes, and what goes wrong. Each test has a server
//! of its own.

#![cfg(unix)]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "test code, helpers included"
)]

mod support;

#[path = "support/lines.rs"]
mod lines;
#[path = "jwt/mint.rs"]
mod mint;
#[path = "jwt/owner.rs"]
mod owner;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis.rs"]
mod redis;

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http::Request;
use mint::{AUDIENCE, ISSUER, P256};
use owner::{Owner, URL, claims_at};
use portcullis::{
    Clock, Instants, RedisServer, Secret, StoreError, StoreErrorKind, SystemClock,
    authn::AuthnLayer,
    conformance,
    health::Health,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator, Key, KeySet,
        bound::{Dpop, ProofUse, RedisReplays, RedisReplaysBuilder, Remembered, ReplayStore},
    },
};
use proxy::Proxy;
use redis::Server;
use support::{Probe, send};
use tokio::time::{Instant, sleep};
use tower::Layer;
use tracing_subscriber::layer::SubscriberExt;

/// A busy machine is no reason to fail, where a test is not about that.
const PATIENT: Duration = Duration::from_secs(10);
const LIFE: &str = "portcullis:{dpop}:life";
const SECOND: u64 = 1_000_000_000;

fn builder(server: &Server) -> RedisReplaysBuilder {
    at(&server.address())
}

fn at(server: impl Into<RedisServer>) -> RedisReplaysBuilder {
    RedisReplays::builder(server).timeout(PATIENT)
}

fn now() -> Instants {
    SystemClock::new().now()
}

fn after(seconds: u64) -> Instants {
    let now = now();
    Instants::new(now.unix_nanos() + seconds * SECOND, now.monotonic_nanos() + seconds * SECOND)
}

/// Good for a minute: longer than proofs that clients may send, so that it is told from all that may be forgotten.
fn used(key: u8, jti: &str) -> ProofUse {
    ProofUse::new([key; 32], jti, after(60).unix_nanos())
}

async fn ask(store: &RedisReplays, proof: &ProofUse) -> Result<Remembered, StoreErrorKind> {
    store.remember(proof, now()).await.map_err(|error| error.kind())
}

/// Waits until it is so. Whoever waits in vain fails after a minute.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Who takes tokens of the issuer with this key, and proofs.
fn authenticator(public: &str, store: RedisReplays) -> JwtAuthenticator {
    let keys = KeySet::new([Key::from_pem(Algorithm::ES256, public).unwrap()]).unwrap();
    let profile = Issuer::fixed(ISSUER, keys).access_tokens(AUDIENCE).algorithms([Algorithm::ES256]);
    let dpop = Dpop::at([URL]).unwrap().replays(store).required();
    JwtAuthenticator::builder().issuer(profile).dpop(dpop).build().unwrap()
}

async fn status(jwt: &JwtAuthenticator, token: &str, proof: &str) -> u16 {
    let service = AuthnLayer::new(jwt.clone()).dangerous_plain_http().layer(Probe::default());
    let request = Request::get("/orders").header("authorization", format!("DPoP {token}")).header("dpop", proof);
    send(&service, request.body(()).unwrap()).await.status().as_u16()
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn the_store_keeps_its_contract() {
    let server = Server::start();
    let (store, small) =
        (builder(&server).build().unwrap(), at(RedisServer::at(&server.address()).prefix("small:")).per_key(32));
    let small: Box<dyn ReplayStore> = Box::new(small.build().unwrap());
    // As if they had been there for long: a proof of the suite is good for 30 s from now on.
    for (store, prefix) in [(&store as &dyn ReplayStore, "portcullis:"), (&*small, "small:")] {
        assert_eq!(store.remember(&used(1, "a"), now()).await.unwrap(), Remembered::Fresh);
        server.say(&format!("HSET {prefix}{{dpop}}:life since 1"));
    }
    conformance::replay_store(&store, "first", now()).await;
    conformance::replay_store(&Arc::new(builder(&server).build().unwrap()), "second", now()).await;
    let open = async || builder(&server).build().unwrap();
    conformance::replay_store_that_is_shared(open, "shared", now()).await;
    conformance::replay_store(&small, "first", now()).await;
    conformance::replay_store_that_is_full(&small, "bounds", now(), 32, None).await;
    let keys = server.keys();
    assert!(
        keys.iter().all(|key| key.starts_with("portcullis:{dpop}:") || key.starts_with("small:{dpop}:")),
        "{keys:?}"
    );
    for key in keys.iter().filter(|key| !key.ends_with(":life")) {
        let left: u64 = server.say(&format!("PTTL {key}"))[1..].trim().parse().unwrap();
        assert!(left > 30_000 && left < 100_000, "{key} lives for {left} ms: 10 s, 30 s or 60 s, and 30 s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis; tests/run installs it"]
async fn of_all_who_ask_one_is_told_that_it_is_new() {
    let server = Server::start();
    let stores: Vec<RedisReplays> = (0..4).map(|_| builder(&server).build().unwrap()).collect();
    for round in 0..20 {
        let proof = used(1, &format!("round-{round}"));
        let asked: Vec<_> = (0..32)
            .map(|number| {
                let store = stores[number % stores.len()].clone();
                tokio::spawn(async move { ask(&store, &proof).await.unwrap() })
            })
            .collect();
        let mut fresh = 0;
        for answer in asked {
            match answer.await.unwrap() {
                Remembered::Fresh => fresh += 1,
                Remembered::Seen => {}
                Remembered::TooMany => panic!("there is room"),
            }
        }
        assert_eq!(fresh, 1, "round {round}");
    }
    let apart = at(RedisServer::at(&server.address()).prefix("other-service:")).build().unwrap();
    assert_eq!(ask(&apart, &used(1, "round-1")).await, Ok(Remembered::Fresh), "another prefix is another store");
}

const CHILD: &str = "PORTCULLIS_TEST_REPLAYS";
const PUBLIC: &str = "PORTCULLIS_TEST_REPLAYS_KEY";

/// Another process, if it is told so: it says which status a request gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, as a process of its own"]
async fn another_process() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let store = RedisReplays::builder(&address).timeout(PATIENT).build().unwrap();
    store.ready().await;
    let jwt = authenticator(&std::env::var(PUBLIC).unwrap(), store);
    println!("\nready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (token, proof) = line.split_once(' ').unwrap();
        println!("\nsays {}", status(&jwt, token, proof).await);
    }
}

struct Process {
    child: Child,
    ask: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(server: &Server) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process", "--include-ignored", "--nocapture"])
            .env(CHILD, server.address())
            .env(PUBLIC, P256.public_key_pem())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { ask: child.stdin.take(), lines, child };
        process.lines.find(|line| line.as_ref().unwrap() == "ready").expect("it starts").unwrap();
        process
    }

    fn ask(&mut self, token: &str, proof: &str) {
        writeln!(self.ask.as_mut().unwrap(), "{token} {proof}").unwrap();
    }

    fn says(&mut self) -> u16 {
        let said = self.lines.find_map(|line| line.unwrap().strip_prefix("says ").map(str::to_owned));
        said.expect("it answers").parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_proof_is_good_once_in_all_processes() {
    let server = Server::start();
    let (mut one, mut other) = (Process::start(&server), Process::start(&server));
    let owner = Owner::new();
    let token = owner.token();
    let proof = |jti: &str| owner.proof(&claims_at(&token, jti, now().unix_seconds()));

    let first = proof("a");
    one.ask(&token, &first);
    assert_eq!(one.says(), 200);
    for process in [&mut other, &mut one] {
        process.ask(&token, &first);
        assert_eq!(process.says(), 401, "a replay, wherever it goes");
    }
    // Both at once: one of them.
    for round in 0..50 {
        let proof = proof(&format!("round-{round}"));
        one.ask(&token, &proof);
        other.ask(&token, &proof);
        let mut told = [one.says(), other.says()];
        told.sort_unstable();
        assert_eq!(told, [200, 401], "round {round}");
    }
    // And one that starts afterwards.
    let mut later = Process::start(&server);
    let last = proof("b");
    one.ask(&token, &last);
    assert_eq!(one.says(), 200);
    later.ask(&token, &last);
    assert_eq!(later.says(), 401);
    for mut process in [one, other, later] {
        drop(process.ask.take());
        assert!(process.child.wait().unwrap().success());
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_key_has_a_bound_and_what_has_ended_makes_room() {
    let server = Server::start();
    let store = builder(&server).per_key(2).build().unwrap();
    let other = builder(&server).per_key(2).build().unwrap();
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    // As if it had been there for long: what ends soon may be remembered.
    server.say(&format!("HSET {LIFE} since 1"));
    let brief = ProofUse::new([1; 32], "brief", now().unix_nanos() + 2 * SECOND);
    assert_eq!(ask(&other, &brief).await, Ok(Remembered::Fresh));
    for store in [&store, &other] {
        assert_eq!(ask(store, &used(1, "c")).await, Ok(Remembered::TooMany));
        assert_eq!(ask(store, &used(1, "a")).await, Ok(Remembered::Seen), "known, bound or not");
    }
    assert_eq!(ask(&store, &used(2, "a")).await, Ok(Remembered::Fresh), "another key has its own");
    until("the brief one ends", async || ask(&store, &used(1, "c")).await == Ok(Remembered::Fresh)).await;
    assert_eq!(ask(&store, &brief).await, Ok(Remembered::Seen), "and is kept for a while");
    assert_eq!(ask(&store, &used(1, "d")).await, Ok(Remembered::TooMany));

    // To a client.
    let owner = Owner::new();
    let token = owner.token();
    let proof = |jti: &str| owner.proof(&claims_at(&token, jti, now().unix_seconds()));
    let jwt = authenticator(&P256.public_key_pem(), store);
    let told = [proof("a"), proof("b"), proof("c")];
    let mut answers = Vec::new();
    for proof in &told {
        answers.push(status(&jwt, &token, proof).await);
    }
    assert_eq!(answers, [200, 200, 429]);
    let size =
        server.say("MEMORY USAGE portcullis:{dpop}:0101010101010101010101010101010101010101010101010101010101010101");
    assert!(size[1..].trim().parse::<u32>().unwrap() < 500, "{size}");
}

/// Proofs that end at once: there are never many that could be used again, and all are kept for a while.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn what_has_ended_and_is_kept_has_a_bound_too() {
    let server = Server::start();
    let store = builder(&server).per_key(10).build().unwrap();
    assert_eq!(ask(&store, &used(2, "a")).await, Ok(Remembered::Fresh));
    server.say(&format!("HSET {LIFE} since 1"));
    let (mut fresh, mut refused, mut number) = (0, 0, 0);
    while refused < 2 {
        number += 1;
        let brief = ProofUse::new([1; 32], &number.to_string(), now().unix_nanos() + SECOND / 5);
        match ask(&store, &brief).await.unwrap() {
            Remembered::Fresh => (fresh, refused) = (fresh + 1, 0),
            Remembered::Seen => {}
            // Once those have ended there is room, unless there are too many that are only kept.
            Remembered::TooMany => {
                refused += 1;
                sleep(Duration::from_millis(250)).await;
            }
        }
        assert!(fresh <= 100, "a client fills Redis: {number} asked");
    }
    assert!(fresh >= 20, "twice as many as could be used again: {fresh}");
    assert_eq!(ask(&store, &used(1, "good for long")).await, Ok(Remembered::TooMany));
    assert_eq!(ask(&store, &used(2, "b")).await, Ok(Remembered::Fresh), "another key has its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis; tests/run installs it"]
async fn killed_and_started_again_under_load() {
    for keeps in [false, true] {
        let mut server =
            Server::start_with(if keeps { &["--appendonly", "yes", "--appendfsync", "always"] } else { &[] });
        let store = RedisReplays::builder(&server.address()).timeout(Duration::from_millis(500)).build().unwrap();
        store.ready().await;
        let health = Health::new().watch_replays(&store);
        assert!(health.look(now()).is_ready());
        let jwt = Arc::new(authenticator(&P256.public_key_pem(), store.clone()));
        let owner = Arc::new(Owner::new());
        let token = owner.token();
        let old = owner.proof(&claims_at(&token, "old", now().unix_seconds()));
        assert_eq!(status(&jwt, &token, &old).await, 200);

        let (ends, passed, blind) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let load: Vec<_> = (0..4)
            .map(|task| {
                let (jwt, owner, token, old) = (Arc::clone(&jwt), Arc::clone(&owner), token.clone(), old.clone());
                let (ends, passed, blind) = (Arc::clone(&ends), Arc::clone(&passed), Arc::clone(&blind));
                tokio::spawn(async move {
                    for number in 0.. {
                        if ends.load(SeqCst) {
                            return;
                        }
                        let start = Instant::now();
                        let told = status(&jwt, &token, &old).await;
                        assert!(matches!(told, 401 | 503), "{told}: a proof passes twice");
                        let new = claims_at(&token, &format!("{task}-{number}"), now().unix_seconds());
                        match status(&jwt, &token, &owner.proof(&new)).await {
                            200 => passed.fetch_add(1, SeqCst),
                            503 => blind.fetch_add(1, SeqCst),
                            other => panic!("{other}"),
                        };
                        assert!(start.elapsed() < Duration::from_secs(5), "nobody waits for long");
                        // Of one key there may be a thousand.
                        sleep(Duration::from_millis(100)).await;
                    }
                })
            })
            .collect();
        let counted = async |count: &AtomicU64, what: &str| {
            let before = count.load(SeqCst);
            until(what, async || count.load(SeqCst) > before + 8).await;
        };
        counted(&passed, "requests pass").await;
        server.kill();
        counted(&blind, "nobody can say").await;
        assert!(!store.is_ready() && !health.look(now()).is_ready());
        server.restart();
        counted(&passed, "requests pass again").await;
        store.ready().await;
        assert!(store.is_ready());
        server.freeze();
        counted(&blind, "nobody answers").await;
        let start = Instant::now();
        until("nobody waits any more", async || {
            let start = Instant::now();
            ask(&store, &used(1, "a")).await == Err(StoreErrorKind::Unavailable)
                && start.elapsed() < Duration::from_millis(100)
        })
        .await;
        assert!(start.elapsed() < Duration::from_secs(20));
        server.thaw();
        counted(&passed, "it goes on").await;
        ends.store(true, SeqCst);
        for task in load {
            task.await.expect("no task fails");
        }
    }
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn what_it_has_forgotten_is_not_taken_for_new() {
    let server = Server::start();
    let store = builder(&server).build().unwrap();
    // A proof that is made now, at a server that may have lost the same one a moment ago.
    let made_now = |jti: &str| ProofUse::new([1; 32], jti, after(30).unix_nanos());
    let error = store.remember(&made_now("a"), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(
        error.retry_after().is_some_and(|wait| wait > Duration::ZERO && wait <= Duration::from_secs(12)),
        "{error:?}"
    );
    assert!(!store.is_ready());
    let start = Instant::now();
    store.ready().await;
    assert!(store.is_ready() && start.elapsed() < Duration::from_secs(14));
    assert_eq!(ask(&store, &made_now("a")).await, Ok(Remembered::Fresh));

    // Who connects to the same server later need not wait.
    let later = builder(&server).build().unwrap();
    until("it is connected", async || later.is_ready()).await;
    assert_eq!(ask(&later, &made_now("a")).await, Ok(Remembered::Seen));
    assert_eq!(ask(&later, &made_now("b")).await, Ok(Remembered::Fresh));

    // Everything is gone, and the connections are not: what was used is not new.
    server.say("FLUSHALL");
    for jti in ["a", "b", "never used"] {
        assert_eq!(ask(&store, &made_now(jti)).await, Err(StoreErrorKind::Unavailable), "{jti}");
    }
    assert!(!store.is_ready(), "and health says it");
    let ready = store.ready();
    assert!(tokio::time::timeout(Duration::from_secs(1), ready).await.is_err());
    assert_eq!(ask(&store, &used(1, "made later")).await, Ok(Remembered::Fresh));
    // Another server in its place, with what it had.
    server.say(&format!("HSET {LIFE} since 1 run another"));
    assert_eq!(ask(&store, &made_now("c")).await, Ok(Remembered::Fresh), "as ever on the connection");
    let moved = builder(&server).build().unwrap();
    let kind = ask(&moved, &made_now("d")).await;
    assert_eq!(kind, Err(StoreErrorKind::Unavailable), "it may be behind the one before");
    assert_eq!(ask(&store, &made_now("e")).await, Err(StoreErrorKind::Unavailable), "and everybody knows");
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn clocks_that_differ() {
    let server = Server::start();
    let store = builder(&server).build().unwrap();
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    server.say(&format!("HSET {LIFE} since 1"));
    // What has ended by the server's clock may be forgotten there.
    let at = |back: u64| Instants::new(now().unix_nanos() - back * SECOND, now().monotonic_nanos());
    let ended = |back: u64| ProofUse::new([1; 32], "b", at(back).unix_nanos() + SECOND);
    assert_eq!(store.remember(&ended(3), at(3)).await.unwrap(), Remembered::Seen, "a little ahead of ours");
    let error = store.remember(&ended(20), at(20)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "ahead by so much that nothing would pass");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("clock"), "{cause}");
    let error = store.remember(&ProofUse::new([1; 32], "c", after(50).unix_nanos()), after(20)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "behind by so much that what it forgot might pass");

    // One process is 4 s ahead, a client as much as it may be, and then everything is lost.
    let ahead = ProofUse::new([1; 32], "ahead", now().unix_nanos() + 39 * SECOND);
    assert_eq!(store.remember(&ahead, after(4)).await.unwrap(), Remembered::Fresh);
    server.say("FLUSHALL");
    assert_eq!(ask(&store, &used(1, "of another process")).await, Ok(Remembered::Fresh));
    let told = store.remember(&ahead, after(4)).await.map_err(|error| error.kind());
    assert_eq!(told, Err(StoreErrorKind::Unavailable), "a replay");
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_clock_that_is_far_ahead_shuts_nobody_else_out() {
    let server = Server::start();
    let store = builder(&server).build().unwrap();
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    server.say("FLUSHALL");
    let fast = ProofUse::new([1; 32], "fast", after(3_660).unix_nanos());
    assert!(store.remember(&fast, after(3_600)).await.is_err());
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    // As one left it that was believed.
    let ahead = after(3_600).unix_nanos() / 1_000_000;
    server.say(&format!("HSET {LIFE} since {ahead}"));
    assert_eq!(ask(&store, &used(1, "b")).await, Ok(Remembered::Fresh));

    // Whoever connects mends it as well, without being asked.
    for since in [ahead.to_string(), "x".to_owned()] {
        server.say(&format!("HSET {LIFE} since {since}"));
        let later = builder(&server).build().unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(20), later.ready()).await;
        assert!(ready.is_ok() && later.is_ready(), "{since}");
        assert_eq!(ask(&later, &used(1, &since)).await, Ok(Remembered::Fresh));
    }
}

/// It answers what nobody waits for any more: it connects, and each request would wait in vain.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_slow_server_is_away_until_it_answers_in_time() {
    let lines = lines::Lines::default();
    // For all threads: while there is one for this thread alone, the first event of another one turns them off for good.
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines.clone())).unwrap();
    let server = Server::start();
    let proxy = Proxy::to(server.port()).await;
    let through = format!("redis://127.0.0.1:{}", proxy.port());
    let store = RedisReplays::builder(&through).build().unwrap();
    let mut number = 0;
    let mut passes = async || {
        number += 1;
        ask(&store, &used(1, &number.to_string())).await == Ok(Remembered::Fresh)
    };
    store.ready().await;
    until("it passes", &mut passes).await;
    let (away, back) = ("ERROR replay store: no proof can be taken", "WARN replay store: Redis answers again");
    let (away_before, back_before) = (lines.count(away), lines.count(back));
    // 250 ms until an answer is there.
    proxy.delay(Duration::from_millis(125));
    let mut waited = 0;
    for _ in 0..80 {
        let start = Instant::now();
        assert_eq!(ask(&store, &used(2, "a")).await, Err(StoreErrorKind::Unavailable));
        waited += u32::from(start.elapsed() >= Duration::from_millis(150));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(waited <= 2, "{waited} have waited");
    assert!(!store.is_ready());
    assert_eq!((lines.count(away), lines.count(back)), (away_before + 1, back_before), "{:?}", lines.here());
    proxy.delay(Duration::ZERO);
    until("it passes again", &mut passes).await;
    assert!(store.is_ready());
    until("the log says it", async || lines.count(back) > back_before).await;
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_server_that_cannot_remember_says_so() {
    let server = Server::start();
    let store = builder(&server).build().unwrap();
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    let round = async |shut: &str, open: &str| {
        assert_eq!(server.say(shut), "+OK\r\n");
        until(shut, async || ask(&store, &used(1, shut)).await == Err(StoreErrorKind::Unavailable)).await;
        for _ in 0..20 {
            assert_eq!(ask(&store, &used(1, shut)).await, Err(StoreErrorKind::Unavailable), "{shut}");
        }
        assert_eq!(server.say(open), "+OK\r\n");
        let mut number = 0;
        until(open, async || {
            number += 1;
            ask(&store, &used(1, &format!("{open} {number}"))).await == Ok(Remembered::Fresh)
        })
        .await;
    };
    round("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0").await;
    round("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE").await;
    // Its keys are somebody else's.
    server.say(&format!("DEL {LIFE}"));
    server.say(&format!("SET {LIFE} x"));
    assert_eq!(ask(&store, &used(1, "b")).await, Err(StoreErrorKind::Corrupt));
    server.say(&format!("DEL {LIFE}"));
    let spoilt = format!("portcullis:{{dpop}}:{}", "02".repeat(32));
    server.say(&format!("SET {spoilt} x"));
    assert_eq!(ask(&store, &used(2, "b")).await, Err(StoreErrorKind::Corrupt));
    server.say(&format!("HSET {LIFE} since x"));
    assert_ne!(ask(&store, &used(1, "c")).await, Err(StoreErrorKind::Corrupt), "a date that is none begins anew");
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_connection_that_is_cut_is_made_again() {
    let server = Server::start();
    let proxy = Proxy::to(server.port()).await;
    let through = format!("redis://127.0.0.1:{}", proxy.port());
    let store = RedisReplays::builder(&through).timeout(PATIENT).build().unwrap();
    store.ready().await;
    let made_now = |jti: &str| ProofUse::new([1; 32], jti, after(30).unix_nanos());
    assert_eq!(ask(&store, &made_now("a")).await, Ok(Remembered::Fresh));
    proxy.cut();
    until("it is away", async || ask(&store, &made_now("b")).await == Err(StoreErrorKind::Unavailable)).await;
    proxy.mend();
    // The same server, which has forgotten nothing: nobody waits longer than for the connection.
    until("it is back", async || ask(&store, &made_now("a")).await == Ok(Remembered::Seen)).await;
    assert!(store.is_ready());
    assert_eq!(ask(&store, &made_now("c")).await, Ok(Remembered::Fresh));
}

#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn an_account_that_may_do_no_more_and_a_node_of_a_cluster() {
    let server = Server::start();
    let may = "+hget +hset +hexists +zscore +zadd +zcount +zremrangebyscore +pttl +pexpireat +evalsha +eval +script|load +time +info";
    let account = format!("ACL SETUSER replays on >correct-horse ~portcullis:{{dpop}}:* {may}");
    assert_eq!(server.say(&account), "+OK\r\n");
    let with = |password: &str| {
        at(RedisServer::at(&server.address()).login(Some("replays"), Secret::from(password.to_owned())))
    };
    let store = with("correct-horse").build().unwrap();
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Fresh));
    assert_eq!(ask(&store, &used(1, "a")).await, Ok(Remembered::Seen));
    assert!(!format!("{store:?}").contains("correct"), "{store:?}");
    let wrong = with("wrong").build().unwrap();
    assert!(ask(&wrong, &used(1, "b")).await.is_err());

    let node = Server::start_in_cluster();
    assert_eq!(node.say("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
    until("the cluster stands", async || node.say("CLUSTER INFO").contains("cluster_state:ok")).await;
    let store = builder(&node).build().unwrap();
    for key in 0..20 {
        assert_eq!(ask(&store, &used(key, "a")).await, Ok(Remembered::Fresh));
        assert_eq!(ask(&store, &used(key, "a")).await, Ok(Remembered::Seen));
    }
}

#[tokio::test]
async fn settings_that_make_no_sense() {
    let there = || RedisServer::at("redis://orders:hunter2@127.0.0.1:1");
    let good = || RedisReplays::builder(there());
    for (builder, setting) in [
        (RedisReplays::builder("http://hunter2"), "redis"),
        (RedisReplays::builder("redis://:hunter2@redis.internal"), "redis"),
        (RedisReplays::builder(there().prefix("{")), "key prefix"),
        (good().timeout(Duration::ZERO), "time-out"),
        (good().timeout(Duration::from_secs(11)), "time-out"),
        (good().per_key(0), "proofs of one key"),
        (good().per_key(1_000_001), "proofs of one key"),
        (RedisReplays::builder(there().roots(Vec::new())), "redis"),
        (RedisReplays::builder(there().login(None, Secret::new(vec![0xff]))), "password"),
    ] {
        assert!(!format!("{builder:?}").contains("hunter2"));
        let error = builder.build().unwrap_err();
        assert!(error.setting() == setting && !error.to_string().contains("hunter2"), "{error}");
    }
    let elsewhere = || RedisReplays::builder(RedisServer::at("redis://redis.internal").dangerous_plain_tcp());
    for builder in [good(), elsewhere()] {
        let error = std::thread::spawn(move || builder.build().unwrap_err()).join().unwrap();
        assert_eq!(error.setting(), "tokio runtime");
    }
    // Nobody is there: it starts, and nothing passes.
    let store = good().timeout(Duration::from_millis(50)).build().unwrap();
    assert!(!store.is_ready() && !format!("{store:?}").contains("hunter2"));
    let error: StoreError = store.remember(&used(1, "a"), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let owner = Owner::new();
    let token = owner.token();
    let jwt = authenticator(&P256.public_key_pem(), store);
    let proof = owner.proof(&claims_at(&token, "a", now().unix_seconds()));
    assert_eq!(status(&jwt, &token, &proof).await, 503);
}
