//! Rate limits over the public API: each layer alone, in the wrong place, over stores that wait and stores that fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, Request, StatusCode, header};
use portcullis::{
    Challenge, Clock, ConfigError, Connection, Instants, Now, Principal, PrincipalKind, Rejection, RejectionKind,
    RequestHead, StoreError, StoreErrorKind,
    authn::{Authenticator, AuthnLayer, Identity, Outcome, authenticate_fn},
    evidence::{EvidenceLayer, TrustedProxies},
    rate_limit::{Draw, MemoryLimits, OnStoreError, Quota, RateLimitLayer, RateLimitStore, Taken},
};
use support::{NOW, Probe, get, send, with};
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt};

/// A clock that is moved by hand; clones share the hands.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Instants {
        let nanos = self.0.load(Ordering::SeqCst);
        Instants::new(NOW * 1_000_000_000 + nanos, nanos)
    }
}

fn per_client(quota: Quota) -> (RateLimitLayer, Hands) {
    let hands = Hands::default();
    (RateLimitLayer::per_client(quota).unwrap().with_clock(hands.clone()), hands)
}

fn get_from(address: &str) -> Request<()> {
    let mut request = Request::get("/orders").body(()).unwrap();
    request.extensions_mut().insert(Connection::plain((address.parse::<std::net::IpAddr>().unwrap(), 52_100).into()));
    request
}

/// `x-device: issuer|subject` is that principal; any other value is refused.
fn devices() -> AuthnLayer {
    let authenticator = authenticate_fn(Challenge::new("Device", "factory").unwrap(), |head, _| {
        let Some(name) = head.headers().get("x-device").map(|value| value.to_str().unwrap()) else {
            return Outcome::Absent;
        };
        match name.split_once('|') {
            Some((issuer, subject)) => {
                Outcome::verified(Principal::builder(PrincipalKind::Service, issuer, subject, "device").build())
            }
            None => Rejection::new(RejectionKind::InvalidCredential, "no such device").into(),
        }
    });
    AuthnLayer::new(authenticator).allow_anonymous().dangerous_plain_http()
}

fn device(name: &str) -> Request<()> {
    with(get("/orders"), "x-device", name)
}

/// The members of a list, whichever lines they stand on.
fn field<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap().split(", ")).collect()
}

#[tokio::test]
async fn a_burst_then_429_then_recovery() {
    let (layer, clock) = per_client(Quota::per_minute(60).burst(3));
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let service = layer.layer(probe);

    for (remaining, reset) in [(2, 1), (1, 2), (0, 3)] {
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(field(response.headers(), "ratelimit-policy"), [r#""client";q=60;w=60"#]);
        assert_eq!(field(response.headers(), "ratelimit"), [format!(r#""client";r={remaining};t={reset}"#)]);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }

    clock.advance(Duration::from_millis(100));
    for _ in 0..10 {
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(field(response.headers(), "ratelimit-policy"), [r#""client";q=60;w=60"#]);
        assert_eq!(field(response.headers(), "ratelimit"), [r#""client";r=0;t=1"#]);
        assert_eq!(field(response.headers(), "retry-after"), ["1"], "900 ms, rounded up");
        assert_eq!(field(response.headers(), "cache-control"), ["no-store"]);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::RateLimited);
    }
    assert_eq!(seen.calls(), 3, "what is refused does not reach the service");

    clock.advance(Duration::from_millis(899));
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    clock.advance(Duration::from_millis(1));
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK, "refused requests took nothing");
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn retry_after_is_told_for_a_long_wait_and_is_enough() {
    let (layer, clock) = per_client(Quota::per_day(2).burst(1));
    let service = layer.layer(Probe::default());
    send(&service, get("/")).await;
    let refused = send(&service, get("/")).await;
    let told: u64 = field(refused.headers(), "retry-after")[0].parse().unwrap();
    assert_eq!(told, 43_200);
    clock.advance(Duration::from_secs(told));
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stranger_cannot_choose_the_key() {
    let (layer, _) = per_client(Quota::per_hour(2));
    let service = layer.layer(Probe::default());
    let mut statuses = Vec::new();
    for number in 0..5 {
        let mut request = with(get("/"), "x-forwarded-for", &format!("203.0.113.{number}"));
        request = with(request, "forwarded", &format!("for=203.0.113.{number}"));
        request = with(request, "x-real-ip", &format!("203.0.113.{number}"));
        statuses.push(send(&service, request).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429]);
}

#[tokio::test]
async fn networks_are_the_keys() {
    for (name, first, second, shared) in [
        ("one IPv4 address", "192.0.2.1", "192.0.2.1", true),
        ("two IPv4 addresses", "192.0.2.1", "192.0.2.2", false),
        ("IPv4 and the same mapped", "192.0.2.1", "::ffff:192.0.2.1", true),
        ("one IPv6 /64", "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
        ("two IPv6 /64", "2001:db8:1:2::1", "2001:db8:1:3::1", false),
    ] {
        let (layer, _) = per_client(Quota::per_hour(1));
        let service = layer.layer(Probe::default());
        assert_eq!(send(&service, get_from(first)).await.status(), StatusCode::OK, "{name}");
        let expected = if shared { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        assert_eq!(send(&service, get_from(second)).await.status(), expected, "{name}");
    }
}

#[tokio::test]
async fn without_an_address_nothing_passes() {
    let (layer, _) = per_client(Quota::per_hour(100));
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let service = layer.layer(probe);
    let mut unaddressed = Request::new(());
    unaddressed.extensions_mut().insert(Connection::unaddressed());
    for request in [Request::new(()), unaddressed] {
        let response = send(&service, request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.extensions().get::<Rejection>().unwrap().reason().contains("no peer address"));
    }
    assert_eq!(seen.calls(), 0);
}

#[tokio::test]
async fn principals_are_known_by_issuer_and_subject() {
    let limit = RateLimitLayer::per_principal(Quota::per_hour(1)).unwrap();
    let service = devices().layer(limit.layer(Probe::default()));
    for name in ["a|alice", "a|bob", "b|alice", "b|bob"] {
        let response = send(&service, device(name)).await;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        assert_eq!(field(response.headers(), "ratelimit"), [r#""default";r=0;t=3600"#], "{name}");
    }
    for name in ["a|alice", "a|bob", "b|alice", "b|bob"] {
        assert_eq!(send(&service, device(name)).await.status(), StatusCode::TOO_MANY_REQUESTS, "{name}");
    }
}

#[tokio::test]
async fn one_principal_at_two_addresses_has_one_quota() {
    let limit = RateLimitLayer::per_principal(Quota::per_hour(1)).unwrap();
    let service = devices().layer(limit.layer(Probe::default()));
    let from = |address| with(get_from(address), "x-device", "a|alice");
    assert_eq!(send(&service, from("192.0.2.1")).await.status(), StatusCode::OK);
    assert_eq!(send(&service, from("192.0.2.2")).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn who_is_not_authenticated_learns_nothing_of_a_principals_quota() {
    let limit = RateLimitLayer::per_principal(Quota::per_hour(1)).unwrap();
    let service = devices().layer(limit.layer(Probe::default()));
    send(&service, device("a|alice")).await;
    for _ in 0..3 {
        let anonymous = send(&service, get("/orders")).await;
        assert_eq!(anonymous.status(), StatusCode::OK, "anonymous requests are not counted here");
        let bad = send(&service, device("alice")).await;
        assert_eq!(bad.status(), StatusCode::UNAUTHORIZED);
        for headers in [anonymous.headers(), bad.headers()] {
            assert!(!headers.contains_key("ratelimit") && !headers.contains_key("ratelimit-policy"));
        }
    }
}

#[tokio::test]
async fn the_ceiling_counts_floods_of_any_credential() {
    let (ceiling, _) = per_client(Quota::per_hour(4));
    let quota = RateLimitLayer::per_principal(Quota::per_hour(100)).unwrap();
    let service = ceiling.layer(devices().layer(quota.layer(Probe::default())));
    let mut statuses = Vec::new();
    for request in [get("/"), device("bad"), device("bad"), device("a|alice"), device("a|alice"), device("bad")] {
        statuses.push(send(&service, request).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 401, 401, 200, 429, 429]);
}

#[tokio::test]
async fn both_limits_tell_on_one_response() {
    let (ceiling, clock) = per_client(Quota::per_second(100));
    let quota = RateLimitLayer::per_principal(Quota::per_minute(60).burst(2)).unwrap();
    let service = ceiling.layer(devices().layer(quota.layer(Probe::default())));
    send(&service, device("a|alice")).await;
    clock.advance(Duration::from_millis(500));
    let response = send(&service, device("a|alice")).await;
    assert_eq!(field(response.headers(), "ratelimit"), [r#""default";r=0;t=2"#, r#""client";r=99;t=1"#]);
    assert_eq!(response.headers().get_all("ratelimit").iter().count(), 1, "on one line");
    assert_eq!(field(response.headers(), "ratelimit-policy"), [r#""default";q=60;w=60"#, r#""client";q=100;w=1"#]);
    // Refused further inside, the response still tells of the ceiling.
    let refused = send(&service, device("a|alice")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(refused.headers(), "ratelimit"), [r#""default";r=0;t=1"#, r#""client";r=98;t=1"#]);
    assert_eq!(field(refused.headers(), "retry-after"), ["1"]);
    clock.advance(Duration::from_millis(500));
    assert_eq!(send(&service, device("a|alice")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn misplaced_limits_never_pass() {
    let principal = || RateLimitLayer::per_principal(Quota::per_hour(100)).unwrap();
    let client = || RateLimitLayer::per_client(Quota::per_hour(100)).unwrap();
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);

    let alone = principal().layer(probe.clone());
    let outside = principal().layer(devices().layer(probe.clone()));
    let inside = devices().layer(client().layer(probe.clone()));
    let crossed = client().layer(principal().layer(devices().layer(probe.clone())));
    for request in [|| get("/"), || device("a|alice")] {
        assert_eq!(send(&alone, request()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(send(&outside, request()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(send(&inside, request()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(send(&crossed, request()).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(seen.calls(), 0);
}

#[tokio::test]
async fn several_quotas_all_hold() {
    let (layer, clock) = per_client(Quota::per_second(2).named("burst"));
    let layer = layer.and(Quota::per_hour(3).named("hour")).unwrap();
    let service = layer.layer(Probe::default());
    let first = send(&service, get("/")).await;
    assert_eq!(field(first.headers(), "ratelimit-policy"), [r#""burst";q=2;w=1"#, r#""hour";q=3;w=3600"#]);
    assert_eq!(field(first.headers(), "ratelimit"), [r#""burst";r=1;t=1"#]);
    send(&service, get("/")).await;
    let refused = send(&service, get("/")).await;
    assert_eq!(field(refused.headers(), "ratelimit"), [r#""burst";r=0;t=1"#]);
    clock.advance(Duration::from_secs(1));
    let third = send(&service, get("/")).await;
    assert_eq!(field(third.headers(), "ratelimit"), [r#""hour";r=0;t=3599"#]);
    let refused = send(&service, get("/")).await;
    assert_eq!(field(refused.headers(), "ratelimit"), [r#""hour";r=0;t=1199"#]);
    assert_eq!(field(refused.headers(), "retry-after"), ["1199"]);
}

#[tokio::test]
async fn fields_can_be_switched_off() {
    let (layer, _) = per_client(Quota::per_hour(1));
    let service = layer.without_headers().layer(Probe::default());
    let (granted, refused) = (send(&service, get("/")).await, send(&service, get("/")).await);
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    for headers in [granted.headers(), refused.headers()] {
        assert!(!headers.contains_key("ratelimit") && !headers.contains_key("ratelimit-policy"));
    }
    assert_eq!(field(refused.headers(), "retry-after"), ["3600"]);
}

#[tokio::test]
async fn clones_of_layer_and_service_share_one_count() {
    let (layer, _) = per_client(Quota::per_hour(4));
    let first = layer.layer(Probe::default());
    let second = layer.clone().layer(Probe::default());
    let third = first.clone();
    let mut statuses = Vec::new();
    for service in [&first, &second, &third, &second, &first] {
        statuses.push(send(service, get("/")).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 429]);

    let own = RateLimitLayer::per_client(Quota::per_hour(4)).unwrap().layer(Probe::default());
    assert_eq!(send(&own, get("/")).await.status(), StatusCode::OK, "another limiter counts on its own");
}

#[tokio::test]
async fn limiters_on_one_store_are_kept_apart_by_scope() {
    let store = Arc::new(MemoryLimits::new());
    let limiter = |scope: &'static str| {
        let layer = RateLimitLayer::per_client(Quota::per_hour(1)).unwrap().with_store(Arc::clone(&store));
        layer.with_scope(scope).unwrap().layer(Probe::default())
    };
    let (search, same, export) = (limiter("search"), limiter("search"), limiter("export"));
    assert_eq!(send(&search, get("/")).await.status(), StatusCode::OK);
    assert_eq!(send(&same, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(send(&export, get("/")).await.status(), StatusCode::OK);
}

/// A store that always waits, and then asks another or fails.
#[derive(Debug)]
struct Remote(Option<MemoryLimits>);

#[async_trait]
impl RateLimitStore for Remote {
    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        tokio::task::yield_now().await;
        match &self.0 {
            Some(limits) => limits.take(draw, at).await,
            None => Err(StoreError::new(StoreErrorKind::Unavailable, "remote").caused_by("connection refused")),
        }
    }
}

/// A store that fails at once.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl RateLimitStore for Broken {
    fn take_now(&self, _: &Draw<'_>, _: Instants) -> Now<Result<Taken, StoreError>> {
        Now::Known(Err(StoreError::new(StoreErrorKind::Corrupt, "broken")))
    }

    async fn take(&self, _: &Draw<'_>, _: Instants) -> Result<Taken, StoreError> {
        Err(StoreError::new(StoreErrorKind::Corrupt, "broken"))
    }
}

#[tokio::test]
async fn a_store_that_waits() {
    let (layer, clock) = per_client(Quota::per_hour(2));
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let quota =
        RateLimitLayer::per_principal(Quota::per_hour(1)).unwrap().with_store(Remote(Some(MemoryLimits::new())));
    let service = layer.with_store(Remote(Some(MemoryLimits::new()))).layer(devices().layer(quota.layer(probe)));

    let first = send(&service, device("a|alice")).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(field(first.headers(), "ratelimit"), [r#""default";r=0;t=3600"#, r#""client";r=1;t=1800"#]);
    assert_eq!(send(&service, device("a|alice")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let third = send(&service, device("a|bob")).await;
    assert_eq!(field(third.headers(), "ratelimit"), [r#""client";r=0;t=1800"#]);
    clock.advance(Duration::from_secs(1_800));
    assert_eq!(send(&service, device("a|bob")).await.status(), StatusCode::OK);
    assert_eq!(seen.calls(), 2);
}

#[tokio::test]
async fn a_store_that_fails_refuses_unless_told_otherwise() {
    let layer = |waits: bool| {
        let (layer, _) = per_client(Quota::per_hour(1));
        if waits { layer.with_store(Remote(None)) } else { layer.with_store(Broken) }
    };
    for waits in [false, true] {
        let probe = Probe::default();
        let seen = Arc::clone(&probe.seen);
        let service = layer(waits).layer(probe);
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::Unavailable);
        assert!(rejection.reason().starts_with("rate limit store: "), "{}", rejection.reason());
        assert!(!format!("{:?}", response.headers()).contains("rate limit store"), "the client is not told");
        assert_eq!(seen.calls(), 0);

        let service = layer(waits).on_store_error(OnStoreError::Admit).layer(Probe::default());
        for _ in 0..3 {
            let response = send(&service, get("/")).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert!(!response.headers().contains_key("ratelimit"), "nothing is known of the quota");
        }
    }
}

#[tokio::test]
async fn a_request_dropped_while_it_waits_does_not_reach_the_service() {
    let probe = Probe::default();
    let seen = Arc::clone(&probe.seen);
    let (layer, _) = per_client(Quota::per_hour(1));
    let mut service = layer.with_store(Remote(Some(MemoryLimits::new()))).layer(probe);
    let ready = ServiceExt::<Request<()>>::ready(&mut service).await.unwrap();
    let mut waiting = Box::pin(ready.call(get("/")));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(waiting);
    assert_eq!(seen.calls(), 0);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
}

/// A store whose quota can never be met by the cost.
#[derive(Debug)]
struct Never;

#[async_trait]
impl RateLimitStore for Never {
    async fn take(&self, _: &Draw<'_>, _: Instants) -> Result<Taken, StoreError> {
        Ok(Taken::too_costly(0))
    }
}

#[tokio::test]
async fn a_refusal_for_good_invites_no_retry() {
    let (layer, _) = per_client(Quota::per_hour(1));
    let response = send(&layer.with_store(Never).layer(Probe::default()), get("/")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(field(response.headers(), "ratelimit"), [r#""client";r=0"#]);
}

#[test]
fn bad_configuration_is_named() {
    let errors: [(Result<RateLimitLayer, ConfigError>, &str); 5] = [
        (RateLimitLayer::per_client(Quota::per_second(0)), "per_second: 0"),
        (RateLimitLayer::per_principal(Quota::per_hour(5).burst(0)), "burst: 0"),
        (RateLimitLayer::per_client(Quota::per_second(u32::MAX)), "per_second: 4294967295"),
        (
            RateLimitLayer::per_client(Quota::per_hour(5)).unwrap().and(Quota::per_day(5).named("client")),
            "policy name: \"client\"",
        ),
        (RateLimitLayer::per_client(Quota::per_hour(5)).unwrap().with_scope("a:b"), "scope: \"a:b\""),
    ];
    for (result, start) in errors {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn layers_and_services_can_go_anywhere() {
    fn anywhere<T: Clone + Send + Sync + 'static>(_: &T) {}
    let layer = RateLimitLayer::per_client(Quota::per_hour(5)).unwrap();
    anywhere(&layer);
    anywhere(&layer.layer(Probe::default()));
    anywhere(&Arc::new(MemoryLimits::new()));
}

#[tokio::test]
async fn jitter_spreads_retry_after_and_is_never_less_than_the_time() {
    let (layer, _) = per_client(Quota::per_hour(60).burst(1));
    let service = layer.clone().with_retry_jitter(Duration::from_secs(30)).unwrap().layer(Probe::default());
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let response = send(&service, get("/")).await;
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(field(response.headers(), "ratelimit"), [r#""client";r=0;t=60"#], "the true time");
        told.insert(field(response.headers(), "retry-after")[0].parse::<u64>().unwrap());
    }
    assert!(told.iter().all(|seconds| (60..=90).contains(seconds)), "{told:?}");
    assert!(told.len() > 15, "{told:?}");
    for wrong in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(3_601)] {
        let error = layer.clone().with_retry_jitter(wrong).unwrap_err().to_string();
        assert!(error.starts_with("retry jitter: ") && error.ends_with("is not 1 s to 1 h"), "{error}");
    }
}

/// Notes at which times it is asked.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Vec<u64>>>, Arc<MemoryLimits>);

#[async_trait]
impl RateLimitStore for Noting {
    fn take_now(&self, draw: &Draw<'_>, at: Instants) -> Now<Result<Taken, StoreError>> {
        self.0.lock().unwrap().push(at.monotonic_nanos());
        self.1.take_now(draw, at)
    }

    async fn take(&self, draw: &Draw<'_>, at: Instants) -> Result<Taken, StoreError> {
        self.1.take(draw, at).await
    }
}

/// A look-up that waits for its answer, for who says so; others are known at once.
#[derive(Clone, Debug)]
struct LookUp(Arc<Notify>);

impl LookUp {
    fn find(head: &RequestHead<'_>) -> Outcome {
        let name = head.headers().get("x-device").unwrap().to_str().unwrap();
        Outcome::Verified(
            Identity::from(Principal::builder(PrincipalKind::Service, "test", name, "device").build())
                .leaving_authorization(),
        )
    }
}

#[async_trait]
impl Authenticator for LookUp {
    fn challenges(&self) -> Vec<Challenge> {
        vec![Challenge::new("Device", "factory").unwrap()]
    }

    fn authenticate_now(&self, head: &RequestHead<'_>, _: Instants) -> Now<Outcome> {
        if head.headers().contains_key("x-slow") { Now::Wait } else { Now::Known(Self::find(head)) }
    }

    async fn authenticate(&self, head: &RequestHead<'_>, _: Instants) -> Outcome {
        self.0.notified().await;
        Self::find(head)
    }
}

/// A request that is looked up slowly, while its principal sends others: it counts by when it comes to the limit.
#[tokio::test]
async fn a_limit_inside_a_layer_that_waited_counts_by_the_time_after_that() {
    const SECOND: u64 = 1_000_000_000;
    for seconds in [3, 70] {
        let (hands, found) = (Hands::default(), Arc::new(Notify::new()));
        let store = Noting::default();
        let limit = RateLimitLayer::per_principal(Quota::per_second(10)).unwrap().with_store(store.clone());
        let authn = AuthnLayer::new(LookUp(Arc::clone(&found))).dangerous_plain_http();
        let service = authn.with_clock(hands.clone()).layer(limit.layer(Probe::default()));
        hands.advance(Duration::from_secs(100));
        let slow = tokio::spawn(send_owned(service.clone(), with(device("a"), "x-slow", "1")));
        tokio::task::yield_now().await;
        hands.advance(Duration::from_secs(seconds));
        for _ in 0..9 {
            assert_eq!(send(&service, device("a")).await.status(), StatusCode::OK);
        }
        found.notify_one();
        let (status, retry) = slow.await.unwrap();
        assert_eq!((status, retry), (StatusCode::OK, None), "{seconds} s");
        assert_eq!(store.0.lock().unwrap().last(), Some(&((100 + seconds) * SECOND)), "it says what time it is");
        // Nor does it give back what was taken meanwhile.
        assert_eq!(send(&service, device("a")).await.status(), StatusCode::TOO_MANY_REQUESTS, "{seconds} s");
    }
}

async fn send_owned<S>(service: S, request: Request<()>) -> (StatusCode, Option<String>)
where
    S: Service<Request<()>, Response = http::Response<http_body_util::Full<bytes::Bytes>>> + Clone,
    S::Error: std::fmt::Debug,
{
    let response = service.oneshot(request).await.unwrap();
    let retry = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
    (response.status(), retry)
}

/// The same of a layer that is not ours, between the one that read the time and the limit.
#[tokio::test]
async fn an_old_reading_is_no_ones_loss_and_no_ones_gain() {
    for seconds in [3, 70] {
        let (limit, hands) = per_client(Quota::per_second(10));
        let arrived = Arc::new(Notify::new());
        let evidence = EvidenceLayer::new(TrustedProxies::none());
        let service = evidence.with_clock(hands.clone()).layer({
            let inner = limit.layer(Probe::default());
            let arrived = Arc::clone(&arrived);
            tower::service_fn(move |request: Request<()>| {
                let (inner, arrived) = (inner.clone(), Arc::clone(&arrived));
                async move {
                    if request.headers().contains_key("x-slow") {
                        arrived.notified().await;
                    }
                    inner.oneshot(request).await
                }
            })
        });
        hands.advance(Duration::from_secs(100));
        let slow = tokio::spawn(send_owned(service.clone(), with(get("/"), "x-slow", "1")));
        tokio::task::yield_now().await;
        hands.advance(Duration::from_secs(seconds));
        for _ in 0..9 {
            assert_eq!(send(&service, get("/")).await.status(), StatusCode::OK);
        }
        arrived.notify_one();
        assert_eq!(slow.await.unwrap(), (StatusCode::OK, None), "{seconds} s");
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS, "{seconds} s");
    }
}
