//! What becomes of requests over the quota: they wait their turn, or are only counted; and what responses tell.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    Clock, Connection, Instants, Now, ShadowMode, StoreError, StoreErrorKind, TlsVersion,
    problem::ProblemLayer,
    rate_limit::{
        Draw, MemoryLimits, OnStoreError, Quota, RateLimitLayer, RateLimitStore, Taken, Throttle, XRateLimitReset,
    },
};
use support::{NOW, Probe, Still, get, send, text};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

fn throttled(quota: Quota, seconds: u64, waiters: usize) -> RateLimitLayer {
    let throttle = Throttle::new(Duration::from_secs(seconds), waiters).unwrap();
    RateLimitLayer::per_client(quota).unwrap().with_clock(TokioClock(Instant::now())).throttle(throttle)
}

/// The paused time of tokio.
#[derive(Debug)]
struct TokioClock(Instant);

impl portcullis::Clock for TokioClock {
    fn now(&self) -> Instants {
        let nanos = u64::try_from(self.0.elapsed().as_nanos()).unwrap();
        Instants::new(NOW * 1_000_000_000 + nanos, nanos)
    }
}

fn get_from(number: u8) -> Request<()> {
    let mut request = Request::get("/orders").body(()).unwrap();
    let peer = ([192, 0, 2, number], 52_100).into();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

/// Sends all at once; tells status and milliseconds of each.
async fn all_at_once<S>(service: &S, requests: Vec<Request<()>>) -> Vec<(u16, u128)>
where
    S: Service<Request<()>, Response = Response<Full<Bytes>>, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let start = Instant::now();
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let service = service.clone();
            tokio::spawn(async move {
                (service.oneshot(request).await.unwrap().status().as_u16(), start.elapsed().as_millis())
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn requests_pass_one_after_the_other_as_the_quota_comes_back() {
    let layer = throttled(Quota::per_second(10).burst(2), 2, 100);
    let service = layer.layer(Probe::default());
    let answers = all_at_once(&service, (0..8).map(|_| get("/")).collect()).await;
    let (statuses, times): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    assert_eq!(statuses, [200; 8]);
    // In the order in which they came. Timers of tokio are exact to a millisecond.
    for (time, expected) in times.iter().zip([0, 0, 100, 200, 300, 400, 500, 600]) {
        assert!((expected..=expected + 12).contains(time), "{times:?}");
    }
    assert_eq!(layer.counts().waited, 6);
    assert_eq!(layer.counts().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_refused_at_once_or_when_its_time_is_over() {
    let layer = throttled(Quota::per_second(1), 3, 100);
    let service = layer.layer(Probe::default());
    let answers = all_at_once(&service, (0..8).map(|_| get("/")).collect()).await;
    let passed = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(passed, 4, "one at once, and one each second for three: {answers:?}");
    assert!(answers.iter().all(|(_, time)| *time <= 3_010), "{answers:?}");
    // The fifth may yet be served, if one before it gives up; behind it nobody can be.
    assert_eq!(answers.iter().filter(|answer| **answer == (429, 0)).count(), 3, "{answers:?}");

    let slow = throttled(Quota::per_hour(1), 3, 100);
    let service = slow.layer(Probe::default());
    let answers = all_at_once(&service, vec![get("/"), get("/")]).await;
    assert_eq!(answers, [(200, 0), (429, 0)], "an hour is too long, and that is plain at once");
}

#[tokio::test(start_paused = true)]
async fn waiters_are_capped_and_keys_do_not_hold_up_each_other() {
    let layer = throttled(Quota::per_second(1), 5, 3);
    let service = layer.layer(Probe::default());
    let answers = all_at_once(&service, (0..10).map(|_| get_from(1)).collect()).await;
    let at_once = answers.iter().filter(|(_, time)| *time == 0);
    assert_eq!(at_once.clone().filter(|(status, _)| *status == 200).count(), 1);
    assert_eq!(at_once.filter(|(status, _)| *status == 429).count(), 6, "three wait, and no more: {answers:?}");
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 4);

    // A crowd of one address, and one request of another.
    let layer = throttled(Quota::per_second(1), 5, 100);
    let service = layer.layer(Probe::default());
    let mut requests: Vec<_> = (0..50).map(|_| get_from(1)).collect();
    requests.extend([get_from(2), get_from(2)]);
    let answers = all_at_once(&service, requests).await;
    assert_eq!(answers[50], (200, 0));
    assert_eq!(answers[51].0, 200);
    assert!(answers[51].1 <= 1_005, "{answers:?}");

    // A crowd that has nothing to wait for takes no place from another key.
    let layer = throttled(Quota::per_second(1), 5, 10);
    let service = layer.layer(Probe::default());
    let mut requests: Vec<_> = (0..50).map(|_| get_from(1)).collect();
    requests.extend([get_from(2), get_from(2)]);
    let answers = all_at_once(&service, requests).await;
    assert_eq!(answers[50], (200, 0));
    assert_eq!(answers[51].0, 200, "{answers:?}");
}

/// The /48 around an IPv6 client has sixteen times its quota, and holds nobody up here.
#[tokio::test(start_paused = true)]
async fn a_crowd_over_ipv6_takes_no_more_places() {
    let from = |address: &str| {
        let mut request = get("/");
        let peer = std::net::SocketAddr::new(address.parse().unwrap(), 52_100);
        request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
        request
    };
    let layer = throttled(Quota::per_second(1), 5, 10);
    let service = layer.layer(Probe::default());
    let mut requests: Vec<_> = (0..50).map(|_| from("2001:db8:1::1")).collect();
    requests.extend([from("2001:db8:2::1"), from("2001:db8:2::1")]);
    let answers = all_at_once(&service, requests).await;
    assert_eq!(answers.iter().take(50).filter(|answer| **answer == (429, 0)).count(), 43, "{answers:?}");
    assert_eq!((answers[50], answers[51].0), ((200, 0), 200), "{answers:?}");
}

/// Where the /48 is what refuses, all of its /64 wait in one line, and no more of them than can be served.
#[tokio::test(start_paused = true)]
async fn a_crowd_of_many_networks_of_one_site_takes_no_more_places() {
    let from = |address: String| {
        let mut request = get("/");
        let peer = std::net::SocketAddr::new(address.parse().unwrap(), 52_100);
        request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
        request
    };
    // The /48 gets 16 at once, and 16 a second.
    let layer = throttled(Quota::per_second(1), 5, 200);
    let service = layer.layer(Probe::default());
    let mut requests: Vec<_> = (0..400).map(|subnet| from(format!("2001:db8:1:{subnet:x}::1"))).collect();
    requests.extend([from("2001:db8:2::1".into()), from("2001:db8:2::1".into())]);
    let answers = all_at_once(&service, requests).await;
    let crowd = &answers[..400];
    assert_eq!((answers[400], answers[401].0), ((200, 0), 200), "who is of another site has a place: {answers:?}");
    // Sixteen at once, and what comes back in five seconds.
    let passed = crowd.iter().filter(|(status, _)| *status == 200).count();
    assert!((94..=97).contains(&passed), "{passed}: {crowd:?}");
    let at_once = crowd.iter().filter(|answer| **answer == (429, 0)).count();
    assert!(at_once >= 400 - 16 - 82, "{at_once}: who cannot be served does not wait");
}

/// A request of this /64 of one site.
fn get_of_site(subnet: u16) -> Request<()> {
    let mut request = get("/");
    let peer = format!("[2001:db8:1:{subnet:x}::1]:52100").parse().unwrap();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

/// Asserts that these passed, each at its time or little later: timers of tokio are exact to a millisecond.
fn assert_passed_at(answers: &[(u16, u128)], milliseconds: &[u128]) {
    let on_time = |((status, time), expected): (&(u16, u128), &u128)| {
        *status == 200 && (*expected..=expected + 12).contains(time)
    };
    assert!(answers.len() == milliseconds.len() && answers.iter().zip(milliseconds).all(on_time), "{answers:?}");
}

/// Counts how often it is asked.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<(MemoryLimits, AtomicUsize)>);

#[async_trait]
impl RateLimitStore for Asked {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        self.0.0.take(draw, at).await
    }
}

/// Who finds the line too long, or no place, must not be able to take what those in the line wait for.
#[tokio::test(start_paused = true)]
async fn a_crowd_of_the_same_key_does_not_overtake_who_waits() {
    for waiters in [9, 500] {
        let asked = Asked::default();
        let layer = throttled(Quota::per_second(10).burst(1), 1, waiters).with_store(asked.clone());
        let service = layer.layer(Probe::default());
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
        let crowd = all_at_once(&service, (0..109).map(|_| get("/")).collect());
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            asked.0.1.load(Ordering::SeqCst)
        };
        let (answers, asked) = tokio::join!(crowd, meanwhile);
        assert_passed_at(&answers[..9], &[100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert!(answers[11..].iter().all(|answer| *answer == (429, 0)), "{answers:?}");
        assert_eq!(asked, 3, "the one that passed, and the first of the line as it came and as it entered");
    }
}

/// A /64 over its own quota waits for that, and not as the first of those who wait for the /48 around it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_another_key_does_not_hold_up_the_line() {
    let layer = throttled(Quota::per_second(1).burst(1), 3, 500);
    let service = layer.layer(Probe::default());
    let answers = all_at_once(&service, (0..16).map(get_of_site).collect()).await;
    assert_passed_at(&answers, &[0; 16]);
    let answers = all_at_once(&service, [100, 15, 101, 102, 103].map(get_of_site).into()).await;
    assert_passed_at(&answers, &[62, 1_000, 125, 187, 250]);
    assert_eq!((layer.counts().waited, layer.counts().refused), (5, 0));
}

/// Who was the first of its /64 stands behind those who wait for the /48.
#[tokio::test(start_paused = true)]
async fn the_first_of_one_line_does_not_overtake_another() {
    let layer = throttled(Quota::per_second(1).burst(1), 3, 500);
    let service = layer.layer(Probe::default());
    let answers = all_at_once(&service, (0..16).map(get_of_site).collect()).await;
    assert_passed_at(&answers, &[0; 16]);
    let over_its_own = all_at_once(&service, vec![get_of_site(0)]);
    let later = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        all_at_once(&service, (100..124).map(get_of_site).collect()).await
    };
    let (over_its_own, answers) = tokio::join!(over_its_own, later);
    // A unit comes back each 62.5 ms, of which fourteen are there by then.
    assert_passed_at(&answers[..14], &[0; 14]);
    assert_passed_at(&answers[14..], &[37, 100, 162, 225, 287, 350, 412, 475, 537, 600]);
    assert_passed_at(&over_its_own, &[1_562]);
}

/// A quota that is slow, and far from used up, is not what the line waits for.
#[tokio::test(start_paused = true)]
async fn a_line_is_as_slow_as_the_quota_that_holds_it_up() {
    let throttle = Throttle::new(Duration::from_secs(2), 100).unwrap();
    let limit = RateLimitLayer::per_client(Quota::per_second(10).burst(1)).unwrap();
    let limit = limit.and(Quota::per_day(10_000).named("day")).unwrap();
    let limit = limit.with_clock(TokioClock(Instant::now())).throttle(throttle);
    let service = limit.layer(Probe::default());
    let answers = all_at_once(&service, (0..20).map(|_| get("/")).collect()).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
}

fn is_waiting<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_waiting_takes_nothing_and_leaves_its_place() {
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let service = throttled(Quota::per_second(1), 10, 2).layer(probe);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    for round in 0..20 {
        let mut first = Box::pin(service.clone().oneshot(get("/")));
        let mut second = Box::pin(service.clone().oneshot(get("/")));
        assert!(is_waiting(&mut first) && is_waiting(&mut second), "round {round}");
        // The third finds both places taken.
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS, "round {round}");
        if round % 2 == 0 {
            drop((first, second));
        } else {
            drop(second);
            drop(first);
        }
    }
    assert_eq!(seen.calls(), 1, "who gave up did not reach the service");
    let start = Instant::now();
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    assert!(start.elapsed() <= Duration::from_millis(1_005), "forty that gave up took nothing: {:?}", start.elapsed());

    // The first of the line gives up: the next takes its turn.
    let mut first = Box::pin(service.clone().oneshot(get("/")));
    assert!(is_waiting(&mut first));
    let second = tokio::spawn({
        let service = service.clone();
        async move { send(&service, get("/")).await.status() }
    });
    tokio::task::yield_now().await;
    drop(first);
    let start = Instant::now();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    assert!(start.elapsed() <= Duration::from_millis(1_005), "{:?}", start.elapsed());
}

/// A store that always has to be waited for, and fails after some draws.
#[derive(Debug)]
struct Remote {
    limits: MemoryLimits,
    left: Mutex<u32>,
}

#[async_trait]
impl RateLimitStore for Remote {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        {
            let mut left = self.left.lock().unwrap();
            *left = left.checked_sub(1).ok_or_else(|| StoreError::new(StoreErrorKind::Unavailable, "remote"))?;
        }
        self.limits.take(draw, at).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_waits_and_one_that_fails_while_somebody_waits() {
    let remote = |left| Remote { limits: MemoryLimits::new(), left: Mutex::new(left) };
    let layer = throttled(Quota::per_second(10).burst(1), 5, 100).with_store(remote(1_000));
    let answers = all_at_once(&layer.layer(Probe::default()), (0..5).map(|_| get("/")).collect()).await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    assert!(answers[4].1 >= 400 && answers[4].1 <= 500, "{answers:?}");

    for (choice, status) in [(OnStoreError::Refuse, 503), (OnStoreError::Admit, 200)] {
        let layer = throttled(Quota::per_second(10).burst(1), 5, 100).with_store(remote(2)).on_store_error(choice);
        let service = layer.layer(Probe::default());
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
        assert_eq!(send(&service, get("/")).await.status(), status, "it failed while the request waited");
        assert_eq!(layer.counts().failed, 1);
    }
}

/// A store that answers so many draws, each after this time, and then none.
#[derive(Debug)]
struct Hanging {
    limits: MemoryLimits,
    left: Mutex<u32>,
    takes: Duration,
}

#[async_trait]
impl RateLimitStore for Hanging {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::time::sleep(self.takes).await;
        let left = {
            let mut left = self.left.lock().unwrap();
            let before = *left;
            *left = before.saturating_sub(1);
            before
        };
        if left == 0 {
            std::future::pending::<()>().await;
        }
        self.limits.take(draw, at).await
    }
}

fn hanging(left: u32, takes: Duration) -> Hanging {
    Hanging { limits: MemoryLimits::new(), left: Mutex::new(left), takes }
}

/// The first of the line waits for a store that hangs: who stands behind it has not used up a quota.
#[tokio::test(start_paused = true)]
async fn a_line_behind_a_store_that_hangs_gets_what_is_said_of_its_errors() {
    for (choice, status) in [(OnStoreError::Refuse, 503), (OnStoreError::Admit, 200)] {
        // One is served, the second is told to wait and takes the head of the line, where it gets no answer.
        let store = hanging(2, Duration::from_millis(1));
        let layer = throttled(Quota::per_second(10).burst(1), 2, 3).with_store(store).on_store_error(choice);
        let service = layer.layer(Probe::default());
        assert_eq!(send(&service, get("/")).await.status(), 200);
        let head = tokio::spawn(service.clone().oneshot(get("/")));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answers = all_at_once(&service, vec![get("/"), get("/")]).await;
        assert!(answers.iter().all(|(answer, time)| *answer == status && *time >= 2_000), "{choice:?}: {answers:?}");
        assert_eq!((layer.counts().failed, layer.counts().refused), (2, 0), "{choice:?}");

        // Who finds no place in that line is in no other case.
        let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(service.clone().oneshot(get("/")))).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let answers = all_at_once(&service, vec![get("/")]).await;
        assert_eq!(answers, [(status, 0)], "{choice:?}");
        waiting.into_iter().chain([head]).for_each(|task| task.abort());
    }
}

/// A store that fails each time lets one after the other out of the line, and the last ones' time is over before.
#[tokio::test(start_paused = true)]
async fn a_line_behind_a_store_that_fails_slowly_gets_what_is_said_of_its_errors() {
    #[derive(Debug)]
    struct Failing(MemoryLimits, AtomicUsize);

    #[async_trait]
    impl RateLimitStore for Failing {
        async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
            if self.1.fetch_add(1, Ordering::SeqCst) < 2 {
                return self.0.take(draw, at).await;
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
            Err(StoreError::new(StoreErrorKind::Unavailable, "slow"))
        }
    }

    for (choice, status) in [(OnStoreError::Refuse, 503), (OnStoreError::Admit, 200)] {
        let store = Failing(MemoryLimits::new(), AtomicUsize::new(0));
        let layer = throttled(Quota::per_second(10).burst(1), 2, 100).with_store(store).on_store_error(choice);
        let service = layer.layer(Probe::default());
        let answers = all_at_once(&service, (0..9).map(|_| get("/")).collect()).await;
        assert_eq!(answers[0], (200, 0), "{choice:?}");
        assert!(answers[1..].iter().all(|(answer, _)| *answer == status), "{choice:?}: {answers:?}");
        assert_eq!(layer.counts().refused, 0, "{choice:?}");
    }
}

/// Else a flood that makes a store slow would pass.
#[tokio::test(start_paused = true)]
async fn a_slow_store_that_answers_admits_nobody_over_the_quota() {
    // The quota gives a unit each millisecond, and the store an answer in ten.
    let store = hanging(u32::MAX, Duration::from_millis(10));
    let layer =
        throttled(Quota::per_second(1_000).burst(1), 1, 1_000).with_store(store).on_store_error(OnStoreError::Admit);
    let answers = all_at_once(&layer.layer(Probe::default()), (0..500).map(|_| get("/")).collect()).await;
    let refused = answers.iter().filter(|(status, _)| *status == 429).count();
    assert!(refused > 300, "{refused} were refused");
    assert_eq!(layer.counts().failed, 0);
}

#[tokio::test]
async fn in_shadow_mode_it_counts_and_refuses_nobody() {
    let mode = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let layer = RateLimitLayer::per_client(Quota::per_hour(2)).unwrap().with_clock(Still).shadow(mode);
    let service = layer.layer(Probe::default());
    for _ in 0..7 {
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(!response.headers().contains_key(name), "what is not enforced is not announced");
        }
    }
    assert_eq!((layer.counts().would_refuse, layer.counts().refused), (5, 0));
}

/// Nobody waits for a limit that is only tried out, and what its store cannot tell passes; once it is over, both count.
#[tokio::test(start_paused = true)]
async fn in_shadow_mode_nobody_waits_and_a_store_that_fails_is_no_outage() {
    let remote = |left| Remote { limits: MemoryLimits::new(), left: Mutex::new(left) };
    for (day, in_shadow) in [("2027-01-20", true), ("2027-01-15", false)] {
        let mode = ShadowMode::until_as_of(day, Still.now()).unwrap();
        let layer = throttled(Quota::per_second(10).burst(1), 5, 100).with_store(remote(2)).shadow(mode);
        let service = layer.layer(Probe::default());
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
        let second = send(&service, get("/")).await.status().as_u16();
        let third = send(&service, get("/")).await.status().as_u16();
        if in_shadow {
            assert_eq!((second, third, layer.counts().would_refuse), (200, 200, 2), "over the quota; then it failed");
        } else {
            assert_eq!((second, layer.counts().would_refuse), (503, 0));
        }
        assert_eq!(layer.counts().waited, 0);
    }
}

#[tokio::test]
async fn the_older_fields_come_on_demand() {
    for (reset, granted, refused) in
        [(XRateLimitReset::Seconds, "1800", "1800"), (XRateLimitReset::UnixTime, "1800001801", "1800001801")]
    {
        let layer = RateLimitLayer::per_client(Quota::per_hour(2).burst(1)).unwrap().with_clock(Still);
        let service = layer.with_x_ratelimit_headers(reset).layer(Probe::default());
        for (status, reset) in [(200, granted), (429, refused)] {
            let response = send(&service, get("/")).await;
            let told: BTreeMap<_, _> = response
                .headers()
                .iter()
                .filter(|(name, _)| name.as_str().contains("ratelimit"))
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            let expected = BTreeMap::from([
                ("ratelimit", r#""client";r=0;t=1800"#),
                ("ratelimit-policy", r#""client";q=2;w=3600"#),
                ("x-ratelimit-limit", "2"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", reset),
            ]);
            assert_eq!((response.status().as_u16(), told), (status, expected));
        }
    }
    let only = RateLimitLayer::per_client(Quota::per_hour(2)).unwrap().with_clock(Still).without_headers();
    let service = only.with_x_ratelimit_headers(XRateLimitReset::Seconds).layer(Probe::default());
    let response = send(&service, get("/")).await;
    assert!(!response.headers().contains_key("ratelimit"));
    assert_eq!(response.headers()["x-ratelimit-remaining"], "1");
}

/// A date is told as it is once the request has waited.
#[tokio::test(start_paused = true)]
async fn after_a_wait_the_older_fields_tell_a_date_to_come() {
    let layer = throttled(Quota::per_minute(6).burst(1), 30, 10).with_x_ratelimit_headers(XRateLimitReset::UnixTime);
    let service = layer.layer(Probe::default());
    for waited in [0, 10, 20] {
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let reset: u64 = response.headers()["x-ratelimit-reset"].to_str().unwrap().parse().unwrap();
        // Ten seconds from when it passed; rounded up twice.
        assert!((NOW + waited + 10..=NOW + waited + 12).contains(&reset), "{waited}: {}", reset - NOW);
    }
}

#[tokio::test]
async fn a_problem_document_names_the_policy() {
    let layer = RateLimitLayer::per_client(Quota::per_hour(5).named("hour")).unwrap();
    let layer = layer.and(Quota::per_day(1).named("day")).unwrap().with_clock(Still);
    let service = ProblemLayer::new().layer(layer.layer(Probe::default()));
    send(&service, get("/")).await;
    let response = send(&service, get("/")).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let document: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!((document["status"].as_u64(), document["title"].as_str()), (Some(429), Some("Too Many Requests")));
    assert_eq!(document["violated-policies"], serde_json::json!(["day"]));
}

/// A store that answers for another that is down.
#[derive(Debug)]
struct Fallback(MemoryLimits);

#[async_trait]
impl RateLimitStore for Fallback {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        self.0.take_now(draw, at).map(|answer| answer.map(Taken::degraded))
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        self.0.take(draw, at).await.map(Taken::degraded)
    }
}

#[tokio::test]
async fn answers_of_a_count_that_is_not_the_right_one_are_counted() {
    let layer = RateLimitLayer::per_client(Quota::per_hour(1)).unwrap().with_clock(Still);
    let layer = layer.with_store(Fallback(MemoryLimits::new()));
    let service = layer.layer(Probe::default());
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS, "it still limits");
    assert_eq!((layer.counts().degraded, layer.counts().refused), (2, 1));
}
