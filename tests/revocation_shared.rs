//! Revocations that processes share in Redis and PostgreSQL: the contract, other processes, and what goes wrong. Each test has
//! a server of its own.

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

#[path = "support/revocations.rs"]
mod revocations;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use portcullis::{
    Clock, RedisServer, StoreErrorKind, conformance,
    revocation::{
        OpenError, PostgresRevocations, RedisRevocations, Revocation, RevocationKind, RevocationLimits,
        RevocationStore, Standing, TokenMarks,
    },
    testing::TestClock,
};
use revocations::{
    BOTH, Server, authenticator, impatient, mint::ISSUER, minted, now, open, open_by, patient, postgres, proxy::Proxy,
    redis, revoke, start, status, until,
};
use sqlx::{Connection, PgConnection};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn they_keep_their_contract() {
    for kind in BOTH {
        let server = Server::start(kind);
        let address = server.address();
        conformance::revocation_store(&open(&address, patient()).await, "first", now()).await;
        let open = async || open(&address, patient()).await;
        let pause = async || tokio::time::sleep(Duration::from_millis(10)).await;
        conformance::revocation_store_that_is_shared(open, pause, "second", now()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn what_one_revokes_the_other_refuses() {
    for kind in BOTH {
        let server = Server::start(kind);
        let (here, there) = (open(&server.address(), patient()).await, open(&server.address(), patient()).await);
        let jwt = authenticator(&there);
        let each = |jti: &str| {
            let issued = now().unix_seconds();
            [
                Revocation::token(ISSUER, jti).unwrap(),
                Revocation::session(ISSUER, &format!("sid-{jti}")).unwrap(),
                Revocation::subject(ISSUER, &format!("sub-{jti}"), issued).unwrap(),
                Revocation::client(ISSUER, &format!("client-{jti}")).unwrap(),
            ]
        };
        for number in 0..4 {
            let token = minted(&format!("t-{number}"));
            assert_eq!(status(&jwt, &token), 200, "{kind:?}");
            here.revoke(&each(&format!("t-{number}"))[number], now()).await.unwrap();
            until("the other one refuses", || status(&jwt, &token) == 401).await;
            // Who starts now never takes it for good.
            let later = start(&server.address(), patient()).await;
            let later = authenticator(&later);
            until("it is loaded", || match status(&later, &token) {
                503 => false,
                401 => true,
                other => panic!("{kind:?}: {other}"),
            })
            .await;
        }
        let good = minted("t-9");
        assert_eq!(status(&jwt, &good), 200);
        // As long as ids may be.
        let long = "x\u{1}".repeat(1_000);
        revoke(&*here, &long).await;
        let marks = TokenMarks::new(ISSUER).token(&long);
        until("the long one is known", || there.state().check_marks(&marks, now()) != Standing::Good).await;
        here.revoke(&Revocation::key(ISSUER, "k-1").unwrap(), now()).await.unwrap();
        until("the key is refused", || status(&jwt, &good) == 401).await;
    }
}

const CHILD: &str = "PORTCULLIS_TEST_REVOCATIONS";

/// Another process, if it is told so: it says how a token stands whenever it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, as a process of its own"]
async fn another_process() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let store = open(&address, patient()).await;
    println!("\nloaded");
    for line in std::io::stdin().lines() {
        let marks = TokenMarks::new(ISSUER).token(&line.unwrap());
        println!("\nsays {:?}", store.state().check_marks(&marks, now()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn two_processes_share_them() {
    for kind in BOTH {
        let server = Server::start(kind);
        let store = open(&server.address(), patient()).await;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process", "--include-ignored", "--nocapture"])
            .env(CHILD, server.address())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut ask, mut lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        lines.find(|line| line.as_ref().unwrap() == "loaded").expect("it starts").unwrap();
        let mut says = |jti: &str| {
            writeln!(ask, "{jti}").unwrap();
            lines.find_map(|line| line.unwrap().strip_prefix("says ").map(str::to_owned)).expect("it answers")
        };
        assert_eq!(says("t-1"), "Good", "{kind:?}");
        revoke(&*store, "t-1").await;
        until("the other process refuses", || says("t-1") == "Revoked(Token)").await;
        assert_eq!(says("t-2"), "Good", "{kind:?}");
        drop(ask);
        assert!(child.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn stopped_and_started_again_under_load() {
    for kind in BOTH {
        let mut server = Server::start(kind);
        let (here, there) = (open(&server.address(), impatient()).await, open(&server.address(), impatient()).await);
        let jwt = Arc::new(authenticator(&there));
        let (bad, good) = (minted("bad"), minted("good"));
        revoke(&*here, "bad").await;
        until("it is refused", || status(&jwt, &bad) == 401).await;

        let (ends, passed, blind) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let load: Vec<_> = (0..4)
            .map(|_| {
                let (jwt, ends, passed, blind) =
                    (Arc::clone(&jwt), Arc::clone(&ends), Arc::clone(&passed), Arc::clone(&blind));
                let (bad, good) = (bad.clone(), good.clone());
                tokio::spawn(async move {
                    while !ends.load(SeqCst) {
                        assert_ne!(status(&jwt, &bad), 200, "a revoked token passes");
                        match status(&jwt, &good) {
                            200 => passed.fetch_add(1, SeqCst),
                            503 => blind.fetch_add(1, SeqCst),
                            other => panic!("{other}"),
                        };
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for round in 0..2 {
            let (seen, refused) = (passed.load(SeqCst), blind.load(SeqCst));
            until("requests pass", || passed.load(SeqCst) > seen + 100).await;
            server.kill();
            until("nobody can say", || blind.load(SeqCst) > refused + 100).await;
            let error = here.revoke(&Revocation::token(ISSUER, "t-9").unwrap(), now()).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{kind:?}");
            server.restart();
            let seen = passed.load(SeqCst);
            until("requests pass again", || passed.load(SeqCst) > seen + 100).await;
            until("the first one is back", || here.state().is_fresh(now())).await;
            let next = minted(&format!("round-{round}"));
            revoke(&*here, &format!("round-{round}")).await;
            until("what is revoked now is heard", || status(&jwt, &next) == 401).await;
        }
        ends.store(true, SeqCst);
        for task in load {
            task.await.expect("no task panics");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn what_was_missed_is_known_before_anything_is_trusted() {
    for kind in BOTH {
        let server = Server::start(kind);
        let proxy = Proxy::to(server.port()).await;
        let through = server.address().replace(&server.port().to_string(), &proxy.port().to_string());
        let (here, there) = (open(&server.address(), impatient()).await, open(&through, impatient()).await);
        let jwt = authenticator(&there);
        let (missed, good) = (minted("missed"), minted("good"));
        assert_eq!((status(&jwt, &missed), status(&jwt, &good)), (200, 200), "{kind:?}");
        proxy.cut();
        // More than one page.
        for number in 0..1_100 {
            revoke(&*here, &format!("other-{number}")).await;
        }
        revoke(&*here, "missed").await;
        until("nobody can say", || status(&jwt, &good) == 503).await;
        proxy.mend();
        until("it is known", || match status(&jwt, &missed) {
            503 => false,
            401 => true,
            other => panic!("{kind:?}: {other}: trusted before it was whole"),
        })
        .await;
        until("the rest passes", || status(&jwt, &good) == 200).await;
        assert_eq!(there.state().len(), here.state().len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_server_that_is_silent_is_not_trusted() {
    for kind in BOTH {
        let mut server = Server::start(kind);
        let store = open(&server.address(), impatient()).await;
        let (jwt, good) = (authenticator(&store), minted("good"));
        assert_eq!(status(&jwt, &good), 200);
        server.freeze();
        until("nobody can say", || status(&jwt, &good) == 503).await;
        server.thaw();
        until("it passes again", || status(&jwt, &good) == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn they_have_a_bound_and_what_has_ended_makes_room() {
    for kind in BOTH {
        let server = Server::start(kind);
        let store = open(&server.address(), patient().capacity(3)).await;
        let past = now().unix_seconds() - 10_000;
        let then = portcullis::Instants::new(past * 1_000_000_000, now().monotonic_nanos());
        // Good for 1 000 s, long ago: the server's clock says that it has ended.
        store.revoke(&Revocation::token(ISSUER, "old").unwrap().until(past + 1_000), then).await.unwrap();
        revoke(&*store, "one").await;
        revoke(&*store, "two").await;
        revoke(&*store, "two").await; // it is there already
        revoke(&*store, "three").await;
        let error = store.revoke(&Revocation::token(ISSUER, "four").unwrap(), now()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Conflict, "{kind:?}");
        for (jti, standing) in [("one", 401), ("two", 401), ("three", 401), ("four", 200)] {
            assert_eq!(status(&authenticator(&store), &minted(jti)), standing, "{kind:?}: {jti}");
        }
        // Who cannot take in all of it trusts nothing.
        let small = start(&server.address(), patient().capacity(1)).await;
        let whole = open(&server.address(), patient().capacity(3)).await;
        assert_eq!(whole.state().len(), 3, "{kind:?}: what has ended is not read");
        for _ in 0..50 {
            assert!(!small.state().is_fresh(now()), "{kind:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What has ended is removed a thousand at a time; one of many that is told again is not what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn what_has_ended_does_not_come_back_with_another_one() {
    for kind in BOTH {
        let server = Server::start(kind);
        let store = open(&server.address(), patient()).await;
        let past = now().unix_seconds() - 10_000;
        let then = portcullis::Instants::new(past * 1_000_000_000, now().monotonic_nanos());
        for number in 0..1_001 {
            let token = Revocation::token(ISSUER, &number.to_string()).unwrap();
            store.revoke(&token.until(past + 1_000), then).await.unwrap();
        }
        // Suspended for half an hour, whatever is issued.
        let suspended = Revocation::subject(ISSUER, "alice", u64::MAX).unwrap().until(past + 1_800);
        store.revoke(&suspended, then).await.unwrap();
        let second = now().unix_seconds();
        store.revoke(&Revocation::subject(ISSUER, "alice", second).unwrap(), now()).await.unwrap();
        let marks = |issued| TokenMarks::new(ISSUER).subject("alice").issued_at(issued);
        let another = open(&server.address(), patient()).await;
        for state in [store.state(), another.state()] {
            let standing = |issued| state.check_marks(&marks(issued), now());
            assert_eq!(standing(second), Standing::Revoked(RevocationKind::Subject), "{kind:?}");
            assert_eq!(standing(second + 1), Standing::Good, "{kind:?}: she has logged in again");
        }
    }
}

/// The server's clock jumps forward for a while, which is the same as that all processes are behind it; or that of one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_clock_that_is_ahead_deletes_nothing() {
    for kind in BOTH {
        let server = Server::start(kind);
        let yesterday = TestClock::at_unix(now().unix_seconds() - 100_000);
        let one = open_by(&server.address(), patient(), &yesterday).await;
        let token = |jti: &str| Revocation::token(ISSUER, jti).unwrap();
        one.revoke(&token("bad").until(yesterday.now().unix_seconds() + 3_600), yesterday.now()).await.unwrap();
        // Whatever is asked or revoked next would remove what has ended.
        one.revoke(&token("other"), yesterday.now()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let two = open_by(&server.address(), patient(), &yesterday).await;
        for store in [one, two] {
            let standing = store.state().check_marks(&TokenMarks::new(ISSUER).token("bad"), yesterday.now());
            assert_eq!(standing, Standing::Revoked(RevocationKind::Token), "{kind:?}");
        }

        let server = Server::start(kind);
        let right = open(&server.address(), patient()).await;
        right.revoke(&token("bad").until(now().unix_seconds() + 3_600), now()).await.unwrap();
        let tomorrow = TestClock::at_unix(now().unix_seconds() + 100_000);
        let hasty = open_by(&server.address(), patient(), &tomorrow).await;
        hasty.revoke(&token("other"), tomorrow.now()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let fresh = open(&server.address(), patient()).await;
        assert_eq!(status(&authenticator(&fresh), &minted("bad")), 401, "{kind:?}: one process is a day ahead");
        // And once that one is right again, it refuses what it heard of meanwhile.
        tomorrow.set_unix(now().unix_seconds());
        let standing = hasty.state().check_marks(&TokenMarks::new(ISSUER).token("bad"), tomorrow.now());
        assert_eq!(standing, Standing::Revoked(RevocationKind::Token), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn room_that_is_made_by_hand_is_room() {
    let server = postgres::Server::start();
    let store = open(&server.address(), RevocationLimits::new().capacity(2).max_age(Duration::from_secs(2))).await;
    revoke(&*store, "one").await;
    revoke(&*store, "two").await;
    let mut by_hand = PgConnection::connect(&server.address()).await.unwrap();
    sqlx::query("DELETE FROM portcullis_revocations").execute(&mut by_hand).await.unwrap();
    revoke(&*store, "three").await;
    // Longer than what was known before is believed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    until("nobody is refused for it", || store.state().is_fresh(now())).await;
    for (jti, standing) in [("one", 401), ("three", 401), ("four", 200)] {
        assert_eq!(status(&authenticator(&store), &minted(jti)), standing, "{jti}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn redis_that_has_lost_something_is_noticed() {
    let server = redis::Server::start();
    let store = open(&server.address(), RevocationLimits::new().max_age(Duration::from_secs(2))).await;
    let (jwt, bad, good) = (authenticator(&store), minted("bad"), minted("good"));
    revoke(&*store, "bad").await;
    assert_eq!((status(&jwt, &bad), status(&jwt, &good)), (401, 200));
    // Everything: who knows it already goes on.
    server.say("FLUSHALL");
    revoke(&*store, "other").await;
    until("the new life is known", || store.state().len() == 2 && status(&jwt, &good) == 200).await;
    assert_eq!(status(&jwt, &bad), 401, "it is not forgotten");
    // A part: nobody can say what is missing.
    assert!(server.keys().iter().all(|key| key.starts_with("portcullis:{revocations}:")), "{:?}", server.keys());
    server.say("DEL portcullis:{revocations}:entries");
    until("nothing is trusted", || status(&jwt, &good) == 503).await;
    let later = start(&server.address(), patient()).await;
    server.say("FLUSHALL");
    until("it is trusted again", || status(&jwt, &good) == 200).await;
    assert_eq!(status(&jwt, &bad), 401);
    until("the later one starts with nothing", || status(&authenticator(&later), &bad) == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn rows_by_hand_and_pushes_that_are_lost() {
    let server = postgres::Server::start();
    let store = open(&server.address(), RevocationLimits::new().max_age(Duration::from_secs(2))).await;
    let jwt = authenticator(&store);
    let mut by_hand = PgConnection::connect(&server.address()).await.unwrap();
    let insert = "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('token', $1, $2, $3)";
    let ends = i64::try_from(now().unix_seconds()).unwrap() + 3_600;
    for (silent, jti) in [(false, "told"), (true, "silent")] {
        let token = minted(jti);
        assert_eq!(status(&jwt, &token), 200);
        if silent {
            let disable = "ALTER TABLE portcullis_revocations DISABLE TRIGGER portcullis_tell";
            sqlx::query(disable).execute(&mut by_hand).await.unwrap();
        }
        sqlx::query(insert).bind(ISSUER).bind(jti).bind(ends).execute(&mut by_hand).await.unwrap();
        until(jti, || status(&jwt, &token) == 401).await;
    }
    // The same thing has the same name, whoever wrote it.
    revoke(&*store, "told").await;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM portcullis_revocations").fetch_one(&mut by_hand).await.unwrap();
    assert_eq!(count, 2);

    let other = PostgresRevocations::builder(&server.address()).without_migrating().connect().await.unwrap();
    other.loaded().await;
    assert_eq!(other.state().len(), 2);
    sqlx::query("INSERT INTO portcullis_revocation_schema (version) VALUES (9)").execute(&mut by_hand).await.unwrap();
    let error = PostgresRevocations::connect(&server.address()).await.unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 9, .. }), "{error}");
}

#[tokio::test]
async fn settings_that_make_no_sense() {
    let there = || RedisServer::at("redis://orders:hunter2@127.0.0.1:1");
    let redis = || RedisRevocations::builder(there());
    for (builder, setting) in [
        (RedisRevocations::builder("http://hunter2"), "redis"),
        (RedisRevocations::builder("redis://:hunter2@redis.internal"), "redis"),
        (RedisRevocations::builder(there().prefix("{")), "key prefix"),
        (redis().timeout(Duration::ZERO), "time-out"),
        (redis().limits(RevocationLimits::new().max_age(Duration::from_millis(1))), "age of revocations"),
        (RedisRevocations::builder(there().roots(Vec::new())), "redis"),
    ] {
        assert!(!format!("{builder:?}").contains("hunter2"));
        let error = builder.build().unwrap_err();
        assert!(error.setting() == setting && !error.to_string().contains("hunter2"), "{error}");
    }
    let elsewhere = || RedisRevocations::builder(RedisServer::at("redis://redis.internal").dangerous_plain_tcp());
    for builder in [redis(), elsewhere()] {
        let error = std::thread::spawn(move || builder.build().unwrap_err()).join().unwrap();
        assert_eq!(error.setting(), "tokio runtime");
    }
    let postgres = || PostgresRevocations::builder("postgres://orders:hunter2@127.0.0.1:1/orders");
    for builder in [
        PostgresRevocations::builder("hunter2"),
        postgres().timeout(Duration::ZERO),
        postgres().timeout(Duration::MAX),
        postgres().limits(RevocationLimits::new().max_age(Duration::from_secs(86_400))),
    ] {
        assert!(!format!("{builder:?}").contains("hunter2"));
        assert!(matches!(builder.connect().await.unwrap_err(), OpenError::Config(_)));
    }
    // Nobody is there: it starts, and trusts nothing.
    let store = RedisRevocations::builder("redis://127.0.0.1:1").timeout(Duration::from_millis(50)).build().unwrap();
    assert!(!store.state().is_fresh(now()));
    let error = store.revoke(&Revocation::token(ISSUER, "t").unwrap(), now()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}
