//! What happens to requests when the server that revocations are shared in is away, silent, slow or wrong, or is asked more than
//! it likes; what the log says; and that it recovers by itself. Each test has a server of its own.

#![cfg(unix)]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "test code, helpers included")]

#[path = "support/lines.rs"]
mod lines;
#[path = "support/revocations.rs"]
mod revocations;

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use ::redis::{Client, Script, pipe};
use lines::Lines;
use portcullis::{
    StoreErrorKind,
    jwt::JwtAuthenticator,
    revocation::{
        OpenError, PostgresRevocations, Revocation, RevocationKind, RevocationLimits, RevocationStore, Standing,
        TokenMarks,
    },
};
use revocations::{
    BOTH, Kind, Server, authenticator, impatient, mint::ISSUER, minted, now, open, patient, proxy::Proxy, redis,
    revoke, start, status, until,
};
use sqlx::{Connection, PgConnection};
use tokio_stream::StreamExt;
use tracing_subscriber::layer::SubscriberExt;

/// That nobody was answered anything but `200`.
const NOTHING: [u16; 0] = [];
/// Everything that Redis keeps, in the order of the scripts.
const KEYS: [&str; 4] = [
    "portcullis:{revocations}:state",
    "portcullis:{revocations}:entries",
    "portcullis:{revocations}:ends",
    "portcullis:{revocations}:order",
];
/// What writes a revocation and tells of it.
const REVOKE: &str =
    concat!(include_str!("../src/revocation/redis/forget.lua"), include_str!("../src/revocation/redis/revoke.lua"));

/// The way through a proxy to the server.
fn through(server: &Server, proxy: &Proxy) -> String {
    server.address().replace(&server.port().to_string(), &proxy.port().to_string())
}

/// Asks for a good token all the time until it is told to end; what it was answered besides `200`.
fn asking(jwt: &Arc<JwtAuthenticator>) -> impl Future<Output = Vec<u16>> + use<> {
    let (jwt, ends, asked) = (Arc::clone(jwt), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (told, counts, good) = (Arc::clone(&ends), Arc::clone(&asked), minted("good"));
    let task = tokio::spawn(async move {
        let mut other = Vec::new();
        while !told.load(SeqCst) {
            other.extend(Some(status(&jwt, &good)).filter(|status| *status != 200));
            counts.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        other
    });
    async move {
        until("it has asked", || asked.load(SeqCst) > 20).await;
        ends.store(true, SeqCst);
        task.await.unwrap()
    }
}

fn is_revoked(store: &Arc<dyn RevocationStore>, jti: &str) -> bool {
    store.state().check_marks(&TokenMarks::new(ISSUER).token(jti), now()) == Standing::Revoked(RevocationKind::Token)
}

/// Writes a revocation as the store does, of this kind, and tells of it in this channel.
async fn by_script(server: &Server, kind: &str, jti: &str, channel: &str) {
    let mut connection = Client::open(server.address()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let script = Script::new(REVOKE);
    let mut call = script.prepare_invoke();
    for key in KEYS {
        call.key(key);
    }
    call.arg(0).arg(format!("id of {jti}")).arg(format!("{kind}\0{ISSUER}\0{jti}")).arg((1_u64 << 53) - 1);
    call.arg(now().unix_seconds() + 3_600).arg(1_000_000).arg("life").arg(channel).arg(now().unix_seconds());
    let answer: u32 = call.invoke_async(&mut connection).await.unwrap();
    assert_eq!(answer, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_server_that_is_not_there_is_503_and_is_found_when_it_comes() {
    for kind in BOTH {
        let mut server = Server::start(kind);
        // The table is there, so that only the server is away.
        drop(open(&server.address(), patient()).await);
        server.kill();
        match kind {
            Kind::Redis => {
                let store = start(&server.address(), patient()).await;
                let jwt = authenticator(&store);
                let rejection = jwt.verify(&minted("good"), now()).unwrap_err();
                assert_eq!((rejection.status().as_u16(), rejection.retry_after()), (503, Some(Duration::from_secs(1))));
                server.restart();
                until("it passes", || status(&jwt, &minted("good")) == 200).await;
            }
            // Its table is looked at first: whoever starts the program hears of it.
            Kind::Postgres => {
                let error = PostgresRevocations::connect(&server.address()).await.unwrap_err();
                let OpenError::Store(error) = error else { panic!("{error}") };
                assert_eq!(error.kind(), StoreErrorKind::Unavailable);
                server.restart();
                let jwt = authenticator(&open(&server.address(), patient()).await);
                assert_eq!(status(&jwt, &minted("good")), 200);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
#[expect(clippy::disallowed_methods, reason = "how long a revocation waits for a real server")]
async fn a_revocation_that_cannot_be_told_is_an_error_in_time() {
    for kind in BOTH {
        let mut server = Server::start(kind);
        let store = open(&server.address(), impatient()).await;
        let jwt = authenticator(&store);
        revoke(&*store, "before").await;
        server.freeze();
        let start = std::time::Instant::now();
        let error = store.revoke(&Revocation::token(ISSUER, "meanwhile").unwrap(), now()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{kind:?}: {error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{kind:?}: {:?}", start.elapsed());
        until("nobody can say", || status(&jwt, &minted("good")) == 503).await;
        assert_ne!(status(&jwt, &minted("before")), 200, "{kind:?}: it is not forgotten");
        server.thaw();
        until("it passes again", || status(&jwt, &minted("good")) == 200).await;
        assert_eq!(status(&jwt, &minted("before")), 401, "{kind:?}");
        // Whether that one arrived in the end nobody can say: whoever was told of an error tries again.
        until("it can be told again", || store.state().is_fresh(now())).await;
        revoke(&*store, "meanwhile").await;
        assert_eq!(status(&jwt, &minted("meanwhile")), 401, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_slow_server_is_waited_for_within_the_time_out_and_distrusted_beyond_it() {
    for kind in BOTH {
        let server = Server::start(kind);
        let proxy = Proxy::to(server.port()).await;
        let limits = RevocationLimits::new().max_age(Duration::from_secs(4));
        let (here, there) = (open(&server.address(), patient()).await, open(&through(&server, &proxy), limits).await);
        let jwt = Arc::new(authenticator(&there));
        // There is a connection to revoke through.
        revoke(&*there, "first").await;
        proxy.delay(Duration::from_millis(50));
        let asked = asking(&jwt);
        for number in 0..5 {
            let jti = format!("slow-{number}");
            revoke(&*here, &jti).await;
            until("it is heard", || status(&jwt, &minted(&jti)) == 401).await;
        }
        revoke(&*there, "back").await;
        until("it arrives", || is_revoked(&here, "back")).await;
        assert_eq!(asked.await, NOTHING, "{kind:?}: no request waits, and none is refused");
        proxy.delay(Duration::from_secs(20));
        until("nobody can say", || status(&jwt, &minted("good")) == 503).await;
        proxy.delay(Duration::ZERO);
        until("it passes again", || status(&jwt, &minted("good")) == 200).await;
    }
}

/// A connection that is lost and found again before the state is too old: no request notices but those that were revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn what_was_pushed_while_the_connection_was_down_is_read_when_it_is_back() {
    for kind in BOTH {
        let server = Server::start(kind);
        let proxy = Proxy::to(server.port()).await;
        let (here, there) =
            (open(&server.address(), patient()).await, open(&through(&server, &proxy), patient()).await);
        let jwt = Arc::new(authenticator(&there));
        let asked = asking(&jwt);
        for round in 0..3 {
            let token = minted(&format!("missed-{round}"));
            assert_eq!(status(&jwt, &token), 200, "{kind:?}");
            proxy.cut();
            revoke(&*here, &format!("missed-{round}")).await;
            assert_eq!(status(&jwt, &token), 200, "{kind:?}: it cannot be known");
            proxy.mend();
            until("it is known", || status(&jwt, &token) == 401).await;
        }
        assert_eq!(asked.await, NOTHING, "{kind:?}: nobody else notices");
        assert_eq!(there.state().len(), here.state().len());
    }
}

/// PostgreSQL's own is in `revocation_shared`: rows whose trigger is off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_push_that_redis_never_sent_is_asked_for() {
    let server = Server::start(Kind::Redis);
    let limits = RevocationLimits::new().max_age(Duration::from_secs(2));
    let store = open(&server.address(), limits).await;
    let jwt = Arc::new(authenticator(&store));
    let asked = asking(&jwt);
    for jti in ["silent-1", "silent-2"] {
        let token = minted(jti);
        assert_eq!(status(&jwt, &token), 200);
        by_script(&server, "token", jti, "elsewhere").await;
        until("it is asked for", || status(&jwt, &token) == 401).await;
    }
    // One that comes after one that did not brings both.
    by_script(&server, "token", "silent-3", "elsewhere").await;
    revoke(&*store, "told").await;
    until("both are known", || is_revoked(&store, "silent-3") && is_revoked(&store, "told")).await;
    assert_eq!(asked.await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_flood_of_revocations_is_taken_in_whole_while_requests_pass() {
    const WRITERS: usize = 4;
    const EACH: usize = 1_000;
    for kind in BOTH {
        let server = Server::start(kind);
        let there = open(&server.address(), patient()).await;
        let jwt = Arc::new(authenticator(&there));
        let asked = asking(&jwt);
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let store = open(&server.address(), patient()).await;
            writers.push(tokio::spawn(async move {
                for number in 0..EACH {
                    revoke(&*store, &format!("flood-{writer}-{number}")).await;
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        until("the last ones are known", || there.state().len() == WRITERS * EACH).await;
        for jti in (0..WRITERS).flat_map(|writer| (0..EACH).map(move |number| format!("flood-{writer}-{number}"))) {
            assert!(is_revoked(&there, &jti), "{kind:?}: {jti}");
        }
        assert_eq!(asked.await, NOTHING, "{kind:?}");
    }
}

/// Whoever may write into the channel may also make the task ask, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn a_flood_of_nonsense_in_the_channel_changes_nothing() {
    for kind in BOTH {
        let server = Server::start(kind);
        let store = open(&server.address(), patient()).await;
        let jwt = Arc::new(authenticator(&store));
        revoke(&*store, "before").await;
        let asked = asking(&jwt);
        match &server {
            Server::Redis(redis) => {
                let client = Client::open(redis.address()).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                for round in 0..20 {
                    let mut pipe = pipe();
                    for number in 0..1_000 {
                        let text = if number % 2 == 0 { format!("{round} {number}") } else { "x 7 7 9 nothing".into() };
                        pipe.publish("portcullis:{revocations}:changes", text).ignore();
                    }
                    let () = pipe.query_async(&mut connection).await.unwrap();
                }
                let stats = redis.say("INFO commandstats");
                let asked = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
                let asked: u32 = asked.split(',').next().unwrap().parse().unwrap();
                assert!(asked < 2_000, "one question answers many: {asked}");
            }
            Server::Postgres(postgres) => {
                let mut connection = PgConnection::connect(&postgres.address()).await.unwrap();
                let tell = "SELECT count(pg_notify('portcullis_revocations', 'nonsense ' || number)) \
                    FROM generate_series(1, 5000) AS number";
                sqlx::query(tell).execute(&mut connection).await.unwrap();
            }
        }
        revoke(&*open(&server.address(), patient()).await, "after").await;
        until("what is none of it is heard", || is_revoked(&store, "after")).await;
        assert!(is_revoked(&store, "before"));
        assert_eq!(asked.await, NOTHING, "{kind:?}");
        assert_eq!(store.state().len(), 2, "{kind:?}");
    }
}

/// Channels are often everybody's where keys are not, and are not told apart by the number of the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_push_that_is_forged_hides_nothing_and_ends_no_trust() {
    const CHANNEL: &str = "portcullis:{revocations}:changes";
    let server = Server::start(Kind::Redis);
    let Server::Redis(redis) = &server else { panic!("it is none") };
    redis.say("ACL SETUSER guest on >g resetkeys ~guest:* allchannels +publish +subscribe +ping +hello");
    let guest = Client::open(format!("redis://guest:g@127.0.0.1:{}", redis.port())).unwrap();
    let mut connection = guest.get_multiplexed_async_connection().await.unwrap();
    let (here, there) = (open(&server.address(), patient()).await, open(&server.address(), patient()).await);
    let jwt = Arc::new(authenticator(&there));
    let asked = asking(&jwt);
    revoke(&*here, "first").await;
    until("it is heard", || is_revoked(&there, "first")).await;
    let life = redis.say("HGET portcullis:{revocations}:state life");
    let life = life.lines().nth(1).unwrap();
    let ends = now().unix_seconds() + 3_600;
    for (name, text) in [
        ("the next one, of another", format!("{life} 2 9 {ends} token\0x\0x")),
        ("what nobody can read", format!("{life} 3 {ends} galaxy")),
        ("what is revoked, without being kept", format!("{life} 4 {ends} {ends} token\0{ISSUER}\0good")),
    ] {
        let mut pipe = pipe();
        let () = pipe.publish(CHANNEL, text).ignore().query_async(&mut connection).await.unwrap();
        revoke(&*here, name).await;
        until("it is heard all the same", || is_revoked(&there, name)).await;
    }
    assert_eq!(asked.await, NOTHING);
}

/// What the channel says is for everybody to hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn a_push_does_not_say_what_was_revoked() {
    let server = Server::start(Kind::Redis);
    let store = open(&server.address(), patient()).await;
    let mut heard = Client::open(server.address()).unwrap().get_async_pubsub().await.unwrap();
    heard.subscribe("portcullis:{revocations}:changes").await.unwrap();
    revoke(&*store, "secret").await;
    let push = heard.on_message().next().await.unwrap();
    assert_eq!(push.get_payload_bytes(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Redis; tests/run installs it"]
async fn what_redis_holds_and_nobody_can_read_is_503_until_it_is_gone() {
    let server = Server::start(Kind::Redis);
    let Server::Redis(redis) = &server else { panic!("it is none") };
    for what in ["an entry of a later release", "a key of another type"] {
        let store = open(&server.address(), impatient()).await;
        let jwt = authenticator(&store);
        revoke(&*store, "bad").await;
        assert_eq!((status(&jwt, &minted("good")), status(&jwt, &minted("bad"))), (200, 401));
        if what == "a key of another type" {
            redis.say("DEL portcullis:{revocations}:entries");
            redis.say("SET portcullis:{revocations}:entries text");
        } else {
            by_script(&server, "galaxy", "far-away", "portcullis:{revocations}:changes").await;
        }
        until(what, || status(&jwt, &minted("good")) == 503).await;
        let later = start(&server.address(), patient()).await;
        for _ in 0..50 {
            assert_eq!(status(&authenticator(&later), &minted("good")), 503, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for key in KEYS {
            redis.say(&format!("DEL {key}"));
        }
        until("it passes again", || status(&jwt, &minted("good")) == 200).await;
        assert_eq!(status(&jwt, &minted("bad")), 401, "who knows it keeps it");
        until("it starts", || status(&authenticator(&later), &minted("good")) == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL; tests/run installs it"]
async fn a_row_that_nobody_can_read_is_503_until_it_is_gone() {
    let server = Server::start(Kind::Postgres);
    let store = open(&server.address(), impatient()).await;
    let jwt = authenticator(&store);
    revoke(&*store, "bad").await;
    let mut by_hand = PgConnection::connect(&server.address()).await.unwrap();
    for statement in [
        "ALTER TABLE portcullis_revocations DROP CONSTRAINT portcullis_revocations_kind_check",
        "INSERT INTO portcullis_revocations (kind, issuer, value, ends) VALUES ('galaxy', 'i', 'far-away', 9000000000)",
    ] {
        sqlx::query(statement).execute(&mut by_hand).await.unwrap();
    }
    until("nobody can say", || status(&jwt, &minted("good")) == 503).await;
    let later = start(&server.address(), patient()).await;
    for _ in 0..50 {
        assert_eq!(status(&authenticator(&later), &minted("good")), 503);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query("DELETE FROM portcullis_revocations WHERE kind = 'galaxy'").execute(&mut by_hand).await.unwrap();
    until("it passes again", || status(&jwt, &minted("good")) == 200).await;
    assert_eq!(status(&jwt, &minted("bad")), 401);
    until("it starts", || status(&authenticator(&later), &minted("good")) == 200).await;
}

/// What the library logs, which only one of the tests can begin to keep.
fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let lines = Lines::default();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines.clone())).unwrap();
        lines
    })
}

/// On one thread, which tells its log from those of the other tests.
#[tokio::test]
#[ignore = "needs Redis; tests/run installs it"]
async fn redis_that_comes_back_with_older_data_is_told_by_the_log() {
    const LOST: &str = "ERROR revocations: Redis has lost its data";
    let lines = lines();
    let mut redis = redis::Server::start();
    let address = redis.address();
    let (store, other) = (open(&address, impatient()).await, open(&address, impatient()).await);
    revoke(&*store, "a").await;
    redis.say("SAVE");
    revoke(&*store, "b").await;
    until("the other one knows it", || is_revoked(&other, "b")).await;
    redis.kill();
    until("nobody can say", || !store.state().is_fresh(now()) && !other.state().is_fresh(now())).await;
    redis.restart();
    until("it is back", || store.state().is_fresh(now()) && other.state().is_fresh(now())).await;
    assert_eq!(lines.count(LOST), 2, "once in each process: {:?}", lines.here());
    assert!(is_revoked(&store, "a") && is_revoked(&store, "b") && is_revoked(&other, "b"));
    // As many as there were before: whoever is behind must not take them for those.
    revoke(&*open(&address, impatient()).await, "c").await;
    until("it is heard", || is_revoked(&store, "c") && is_revoked(&other, "c")).await;
    assert_eq!(lines.count(LOST), 2, "{:?}", lines.here());
}

/// On one thread as well.
#[tokio::test]
#[ignore = "needs Redis and PostgreSQL; tests/run installs them"]
async fn the_log_says_once_that_it_is_away_and_once_that_it_is_back() {
    let lines = lines();
    for kind in BOTH {
        let name = if matches!(kind, Kind::Redis) { "redis" } else { "postgres" };
        let away = format!("ERROR revocations: what others revoke is not heard: {name}: backend unavailable");
        let back = match kind {
            Kind::Redis => "WARN revocations: Redis answers again, and all that it has is known",
            Kind::Postgres => "WARN revocations: PostgreSQL answers again, and all that it has is known",
        };
        let mut server = Server::start(kind);
        let store = open(&server.address(), impatient()).await;
        let good = || status(&authenticator(&store), &minted("good"));
        for (round, silent) in [(1, false), (2, true)] {
            if silent {
                server.freeze()
            } else {
                server.kill()
            }
            until("nobody can say", || good() == 503).await;
            until("it is said", || lines.count(&away) >= round).await;
            // It tries more than once, and says it once.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if silent {
                server.thaw()
            } else {
                server.restart()
            }
            until("it passes again", || good() == 200).await;
            assert_eq!((lines.count(&away), lines.count(back)), (round, round), "{:?}", lines.here());
        }
    }
}
