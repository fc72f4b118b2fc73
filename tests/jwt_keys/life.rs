//! Start, refresh, outage, end.

use std::{
    future::Future,
    pin::pin,
    sync::mpsc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::StatusCode;
use portcullis::{
    Clock, Instants, Now, RequestHead, StoreError,
    audit::{AuditEntry, AuditLayer, AuditSink, Lost},
    authn::{Authenticator, Outcome},
    event::EventKind,
    http_client::FetchLimits,
    jwt::{
        Algorithm, Issuer, JwtAuthenticator,
        keys::{KeySource, LiveKeys},
    },
    testing::TestClock,
};
use tokio::time::{advance, sleep};

use super::origin::{House, Origin, SET, Script, Signer, TokioClock, authenticator, seconds, set_of, status};

#[tokio::test(start_paused = true)]
async fn refreshes_at_four_fifths_with_jitter_and_no_request() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    sleep(seconds(419)).await;
    assert_eq!(origin.fetches(), 1);
    sleep(seconds(62)).await;
    assert_eq!(origin.fetches(), 2, "between 420 s and 480 s");
    sleep(seconds(3_600)).await;
    assert!((9..=11).contains(&origin.fetches()), "{}", origin.fetches());
    assert_eq!(house.status_now(&key.token()), 200);
    assert_eq!(house.keys.generation(house.now()), Some(1), "the same set is the same generation");
}

#[tokio::test(start_paused = true)]
async fn starts_without_keys_and_recovers() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    origin.script(SET, Script::Down("connection refused"));
    let house = House::of(&origin);
    assert!(!house.jwt.is_ready(house.now()));
    assert_eq!(house.status(&key.token()).await, 503);
    assert!(house.cause().contains("connection refused"), "{}", house.cause());
    let causes: Vec<_> =
        house.jwt.readiness(house.now()).map(|(_, health)| health.cause().unwrap().to_owned()).collect();
    assert_eq!(causes, [house.cause()]);

    sleep(seconds(1)).await;
    assert!((2..=5).contains(&origin.fetches()), "250 ms, 500 ms, ..: {}", origin.fetches());
    sleep(seconds(600)).await;
    assert!((14..=35).contains(&origin.fetches()), "up to 60 s: {}", origin.fetches());
    let before = origin.fetches();
    for _ in 0..100 {
        assert_eq!(house.status(&key.token()).await, 503);
    }
    assert_eq!(origin.fetches(), before, "requests do not hammer an origin that is down");

    origin.serve(SET, set_of(&[key.jwk()]));
    sleep(seconds(61)).await;
    assert_eq!(house.status_now(&key.token()), 200);
    assert!(house.jwt.is_ready(house.now()));
    assert_eq!(house.cause(), "");
}

/// Where traffic waits until a service is ready, no request would fetch its keys.
#[tokio::test(start_paused = true)]
async fn looking_at_the_readiness_starts_the_task_once() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::of(&origin);
    assert!((0..100).all(|_| !house.jwt.is_ready(house.now())));
    sleep(seconds(1)).await;
    assert!(house.jwt.is_ready(house.now()));
    assert_eq!(origin.fetches(), 1, "however often it is looked at");
    assert_eq!(house.status_now(&key.token()), 200);
}

/// A sink that stands still until a made-up `kid` has its answer. Whether it got one, and which keys counted then.
#[derive(Debug)]
struct Still(LiveKeys, Instants, mpsc::Sender<(EventKind, bool, Option<u64>)>);

const TOLD: &str = "https://told.example/jwks";

#[async_trait::async_trait]
impl AuditSink for Still {
    fn accept(&self, entry: AuditEntry) -> Result<(), Lost> {
        let AuditEntry::Event(event) = entry else { return Ok(()) };
        // Events are the whole process's.
        if event.about() != TOLD {
            return Ok(());
        }
        let (keys, at, (done, is_done)) = (self.0.clone(), self.1, mpsc::channel());
        std::thread::spawn(move || {
            drop(keys.refresh_now(Some("made-up"), 2, at));
            done.send(())
        });
        let answered = is_done.recv_timeout(seconds(2)).is_ok();
        self.2.send((event.kind(), answered, self.0.generation(at))).unwrap();
        Ok(())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn lost(&self) -> u64 {
        0
    }
}

/// Tokens with a made-up `kid` come from strangers, and would hold a thread each.
#[tokio::test(start_paused = true)]
async fn no_request_waits_for_the_sink_that_hears_of_keys() {
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::default();
    origin.serve(TOLD, set_of(&[old.jwk()]));
    let house = House::of_keys(LiveKeys::jwks_url(TOLD).http(origin.clone()));
    house.keys.load().await.unwrap();
    let (told, heard) = mpsc::channel();
    let _audit = AuditLayer::new(Still(house.keys.clone(), house.now(), told));
    origin.serve(TOLD, set_of(&[new.jwk()]));
    sleep(seconds(481)).await;
    assert_eq!(heard.try_recv(), Ok((EventKind::KeySetRotated, true, Some(2))), "told once the new keys count");
    origin.script(TOLD, Script::Down("connection refused"));
    sleep(seconds(481)).await;
    assert_eq!(heard.try_recv(), Ok((EventKind::KeySetUnavailable, true, Some(2))));
    origin.serve(TOLD, set_of(&[new.jwk()]));
    sleep(seconds(120)).await;
    assert_eq!(heard.try_recv(), Ok((EventKind::KeySetRestored, true, Some(2))));
}

#[tokio::test(start_paused = true)]
async fn the_first_request_waits_for_the_first_keys() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    origin.delay(seconds(2));
    let house = House::of(&origin);
    let mut request = http::Request::new(());
    request.headers_mut().insert("authorization", format!("Bearer {}", key.token()).parse().unwrap());
    let head = RequestHead::of(&request);
    assert!(matches!(house.jwt.authenticate_now(&head, house.now()), Now::Wait));
    assert!(matches!(house.jwt.authenticate(&head, house.now()).await, Outcome::Verified(_)));
    assert!(matches!(house.jwt.authenticate_now(&head, house.now()), Now::Known(Outcome::Verified(_))));
    assert_eq!(origin.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn asking_for_the_generation_keeps_the_keys_fresh() {
    let origin = Origin::serving(&[Signer::new(0, "a").jwk()]);
    let house = House::of(&origin);
    assert_eq!(house.keys.generation(house.now()), None);
    sleep(seconds(1)).await;
    assert_eq!((house.keys.generation(house.now()), origin.fetches()), (Some(1), 1));
    sleep(seconds(481)).await;
    assert_eq!((house.keys.generation(house.now()), origin.fetches()), (Some(1), 2));
}

#[tokio::test(start_paused = true)]
async fn fails_fast_by_choice() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::of(&origin);
    house.jwt.fail_fast(house.now()).await.unwrap();
    house.jwt.fail_fast(house.now()).await.unwrap();
    assert_eq!(origin.fetches(), 1);

    origin.script(SET, Script::Down("connection refused"));
    let house = House::of(&origin);
    assert!(house.jwt.fail_fast(house.now()).await.unwrap_err().cause().contains("connection refused"));
    assert!(house.keys.load().await.is_err());
}

/// One issuer that is down, or slow, does not keep the others from being asked.
#[tokio::test(start_paused = true)]
async fn failing_fast_asks_all_issuers_at_the_same_time() {
    let (down, other) = (Origin::default(), Origin::serving(&[Signer::new(0, "a").jwk()]));
    down.script(SET, Script::Down("connection refused"));
    down.delay(seconds(2));
    let clock = TokioClock::new();
    let issuer = |name: &str, origin: &Origin| {
        let keys = LiveKeys::jwks_url(SET).http(origin.clone()).clock(clock.clone()).build().unwrap();
        Issuer::with_keys(name, keys).access_tokens("orders-api").algorithms([Algorithm::ES256])
    };
    let issuers = [issuer("https://down.example", &down), issuer("https://other.example", &other)];
    let jwt = issuers.into_iter().fold(JwtAuthenticator::builder(), |jwt, issuer| jwt.issuer(issuer)).build().unwrap();
    assert!(jwt.fail_fast(clock.now()).await.unwrap_err().cause().contains("connection refused"));
    let ready: Vec<_> = jwt.readiness(clock.now()).map(|(_, health)| health.is_ready()).collect();
    assert_eq!((ready, other.fetches()), (vec![false, true], 1));
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_an_outage_until_they_are_too_old() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    origin.script(SET, Script::Down("no route to host"));
    sleep(seconds(24 * 3_600 - 10)).await;
    assert_eq!(house.status_now(&key.token()), 200);
    assert!(house.cause().contains("no route to host"));
    let tries = origin.fetches();
    assert!((1_400..=2_900).contains(&tries), "one in 30 s to 60 s: {tries}");
    sleep(seconds(11)).await;
    assert_eq!(house.status_now(&key.token()), 503);
    assert_eq!(house.status(&key.token()).await, 503);
    assert_eq!(house.keys.generation(house.now()), None);
    assert!(!house.jwt.is_ready(house.now()));

    origin.serve(SET, set_of(&[key.jwk()]));
    sleep(seconds(61)).await;
    assert_eq!(house.status_now(&key.token()), 200);
    assert_eq!(house.keys.generation(house.now()), Some(1), "the same keys are back");
}

#[tokio::test(start_paused = true)]
async fn a_slow_origin_is_given_up() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    origin.script(SET, Script::Hang);
    let house = House::of(&origin);
    let start = tokio::time::Instant::now();
    assert_eq!(house.status(&key.token()).await, 503);
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(house.cause().contains("no answer within 5s"), "{}", house.cause());

    let house = House::with(&origin, |keys| keys.limits(FetchLimits::new(seconds(1), 1_024)));
    let start = tokio::time::Instant::now();
    assert!(house.keys.load().await.is_err());
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_clone() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!((origin.holders(), metrics.num_alive_tasks()), (1, 1));
    let House { jwt, keys, .. } = house;
    drop(keys);
    sleep(seconds(1)).await;
    assert_eq!((origin.holders(), metrics.num_alive_tasks()), (1, 1), "the authenticator still has it");
    drop(jwt);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((origin.holders(), metrics.num_alive_tasks()), (0, 0));
    sleep(seconds(7_200)).await;
    assert_eq!(origin.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_a_source_that_fails() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let house = House::loaded(&origin).await;
    origin.script(SET, Script::Panic);
    for _ in 0..1_000 {
        advance(seconds(1)).await;
        assert_eq!(house.status(&key.token()).await, 200);
    }
    assert!((2..=22).contains(&origin.fetches()), "{}", origin.fetches());
    origin.serve(SET, set_of(&[key.jwk()]));
    for _ in 0..61 {
        advance(seconds(1)).await;
        assert_eq!(house.status(&key.token()).await, 200);
        tokio::task::yield_now().await;
    }
    assert_eq!(house.cause(), "", "the task is back");
}

#[test]
fn a_new_runtime_takes_over_from_one_that_is_gone() {
    let key = Signer::new(0, "a");
    let origin = Origin::serving(&[key.jwk()]);
    let clock = TestClock::at_unix(1_800_000_000);
    let keys = LiveKeys::jwks_url(SET).http(origin.clone()).clock(clock.clone()).build().unwrap();
    let jwt = authenticator(keys.clone());
    for run in 1..=3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            use portcullis::Clock;
            assert_eq!(status(jwt.verify_waiting(&key.token(), clock.now()).await), 200);
            clock.advance(seconds(500));
            assert_eq!(status(jwt.verify(&key.token(), clock.now())), 200, "stale keys serve while they are refreshed");
            while origin.fetches() == run {
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Polls once: without a runtime nothing here can wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("waits for something outside"),
    }
}

#[test]
fn without_a_runtime_requests_refresh() {
    use portcullis::Clock;
    let (old, new) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[old.jwk()]);
    let clock = TestClock::at_unix(1_800_000_000);
    let keys = LiveKeys::jwks_url(SET).http(origin.clone()).clock(clock.clone()).build().unwrap();
    let jwt = authenticator(keys.clone());
    keys.start();
    assert_eq!(status(jwt.verify(&old.token(), clock.now())), 503, "no keys yet, and no waiting");
    assert_eq!(status(at_once(jwt.verify_waiting(&old.token(), clock.now()))), 200);
    assert_eq!(status(jwt.verify(&old.token(), clock.now())), 200);
    assert_eq!(origin.fetches(), 1);

    clock.advance(seconds(500));
    assert_eq!(status(jwt.verify(&old.token(), clock.now())), 200, "still good");
    assert_eq!(status(at_once(jwt.verify_waiting(&old.token(), clock.now()))), 200);
    assert_eq!(origin.fetches(), 2, "due, and refreshed by a request");

    clock.advance(seconds(31));
    origin.serve(SET, set_of(&[new.jwk()]));
    assert_eq!(status(at_once(jwt.verify_waiting(&new.token(), clock.now()))), 200);
    assert_eq!(status(at_once(jwt.verify_waiting(&old.token(), clock.now()))), 503, "fetched a moment ago");

    clock.advance(seconds(500));
    origin.script(SET, Script::Down("away"));
    assert_eq!(
        status(at_once(jwt.verify_waiting(&new.token(), clock.now()))),
        200,
        "a failed refresh takes nothing away"
    );
    assert!(keys.health(clock.now()).cause().unwrap().contains("away"));
    clock.advance(seconds(500));
    assert_eq!(status(at_once(jwt.verify_waiting(&old.token(), clock.now()))), 503, "it may have been rotated in");
    assert_eq!(status(at_once(jwt.verify_waiting(&new.token(), clock.now()))), 200);
    clock.advance(seconds(500));
    origin.serve(SET, set_of(&[new.jwk()]));
    assert_eq!(status(at_once(jwt.verify_waiting(&old.token(), clock.now()))), 401, "it was not");
}

#[tokio::test(start_paused = true)]
async fn cache_control_counts_within_bounds() {
    let rows = [
        ("max-age=1", 40, 50),
        ("no-store", 40, 50),
        ("max-age=3600", 2_518, 2_882),
        ("max-age=99999999999", 60_478, 69_122),
    ];
    let key = Signer::new(0, "a");
    for (cache_control, none_before, one_until) in rows {
        let origin = Origin::default();
        origin.answer(SET, StatusCode::OK, &[("cache-control", cache_control)], set_of(&[key.jwk()]));
        let house = House::loaded(&origin).await;
        sleep(seconds(none_before)).await;
        assert_eq!(origin.fetches(), 1, "{cache_control}");
        sleep(seconds(one_until - none_before)).await;
        assert_eq!(origin.fetches(), 2, "{cache_control}");
        drop(house);
    }
}

/// What is written otherwise is no rotation: nothing that was verified is forgotten, and nobody is told of one.
#[tokio::test(start_paused = true)]
async fn the_same_keys_in_another_text_are_the_same_set() {
    let (one, two) = (Signer::new(0, "a"), Signer::new(1, "b"));
    let origin = Origin::serving(&[one.jwk(), two.jwk()]);
    let house = House::loaded(&origin).await;
    let elsewhere = Signer::new(0, "b");
    let rows = [
        ("another order", set_of(&[two.jwk(), one.jwk()]), 1),
        ("white space", set_of(&[one.jwk(), two.jwk()]).replace(',', " ,\n "), 1),
        ("members", set_of(&[one.jwk(), two.jwk().replace("{", r#"{"x5t":"x","use":"sig","#)]), 1),
        ("an unusable key", set_of(&[one.jwk(), two.jwk(), "{}".to_owned()]), 1),
        ("one key less", set_of(&[one.jwk()]), 2),
        ("one twice", set_of(&[one.jwk(), one.jwk()]), 3),
        ("another name", set_of(&[elsewhere.jwk()]), 4),
        ("another key", set_of(&[two.jwk()]), 5),
        ("another algorithm", set_of(&[two.jwk().replace("{", r#"{"alg":"ES384","#), one.jwk()]), 6),
    ];
    for (name, text, generation) in rows {
        origin.serve(SET, text);
        sleep(seconds(600)).await;
        assert_eq!(house.keys.generation(house.now()), Some(generation), "{name}: {}", house.cause());
    }
    assert_eq!(house.keys.health(house.now()).skipped(), 1);
}

#[tokio::test(start_paused = true)]
async fn not_modified_confirms_the_set() {
    let key = Signer::new(0, "a");
    let origin = Origin::default();
    origin.answer(SET, StatusCode::OK, &[("etag", "\"v1\"")], set_of(&[key.jwk()]));
    let house = House::loaded(&origin).await;
    origin.answer(SET, StatusCode::NOT_MODIFIED, &[], "");
    sleep(seconds(25 * 3_600)).await;
    assert_eq!(house.status_now(&key.token()), 200);
    assert_eq!(house.keys.generation(house.now()), Some(1));
    assert!(house.keys.health(house.now()).age().unwrap() <= seconds(481));
    let asked: Vec<_> =
        origin.requests().iter().map(|request| request.headers().get("if-none-match").cloned()).collect();
    assert_eq!(asked[0], None);
    assert!(asked.len() > 100 && asked[1..].iter().all(|etag| etag.as_ref().unwrap() == "\"v1\""));
}
