//! How many requests run at the same time: each way in which one ends lets the next one in, and nothing else does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use std::{
    convert::Infallible,
    future::pending,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use portcullis::{
    Clock, Connection, Rejection, RejectionKind, ShadowMode, TlsVersion,
    authn::AuthnLayer,
    guard::{authenticated, public, require},
    rate_limit::{ConcurrencyLayer, LimitBy, OnMissingKey, Quota},
    stack::Stack,
};
use support::{Still, test_scheme};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A body that has as many frames as are left, and then waits, fails or ends.
struct Slow {
    frames: u32,
    then: Poll<Option<Result<Frame<Bytes>, std::io::Error>>>,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.frames == 0 {
            return std::mem::replace(&mut self.then, Poll::Ready(None));
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"frame")))))
    }
}

/// `/slow`, `/failing`, `/endless`: bodies; `/stuck`: never answers; `/panic`; else at once.
fn handler()
-> impl Service<Request<()>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
    service_fn(async |request: Request<()>| {
        let slow = |frames, then| Body::new(Slow { frames, then });
        let body = match request.uri().path() {
            "/slow" => slow(2, Poll::Ready(None)),
            "/failing" => slow(1, Poll::Ready(Some(Err(std::io::Error::other("torn"))))),
            "/endless" => slow(1, Poll::Pending),
            "/stuck" => pending().await,
            "/panic" => panic!("a handler's bug"),
            "/empty" => Body::empty(),
            _ => Body::from("done"),
        };
        Ok::<_, Infallible>(Response::new(body))
    })
}

fn get(path: &str) -> Request<()> {
    from(path, "198.51.100.7")
}

fn from(path: &str, address: &str) -> Request<()> {
    let mut request = Request::get(path).body(()).unwrap();
    let peer = (address.parse::<IpAddr>().unwrap(), 52_100).into();
    request.extensions_mut().insert(Connection::tls(peer, TlsVersion::Tls13));
    request
}

fn is(path: &str, subject: &str) -> Request<()> {
    support::with(get(path), "authorization", &format!("Test {subject}"))
}

async fn send<S>(service: &S, request: Request<()>) -> Response<Body>
where
    S: Service<Request<()>, Response = Response<Body>, Error = Infallible> + Clone,
{
    service.clone().oneshot(request).await.unwrap()
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> Vec<&'a str> {
    response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_request_runs_until_its_body_ends_fails_or_is_dropped() {
    let layer = ConcurrencyLayer::per_client(2).unwrap().with_clock(Still);
    let service = layer.layer(handler());
    for path in ["/slow", "/failing", "/endless"] {
        let first = send(&service, get(path)).await;
        let second = send(&service, get(path)).await;
        assert_eq!(layer.running(), 2, "{path}: the head is there, the body is not");
        assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert_eq!(layer.running(), 2, "who is refused does not run");
        let mut first = first.into_body();
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut first).poll_frame(&mut Context::from_waker(Waker::noop())) {}
        let ended = path != "/endless";
        assert_eq!(layer.running(), if ended { 1 } else { 2 }, "{path}: read as far as it goes");
        let expected = if ended { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(send(&service, get("/empty")).await.status(), expected, "{path}");
        drop(first);
        assert_eq!(layer.running(), 1, "{path}: ended once, not twice");
        drop(second);
        assert_eq!(layer.running(), 0, "{path}: the client hung up");
    }
    let response = send(&service, get("/empty")).await;
    assert_eq!(layer.running(), 0, "an empty body is done at its head");
    assert_eq!(field(&response, "ratelimit"), [r#""concurrent";r=1"#]);
    let response = send(&service, get("/")).await;
    assert_eq!(layer.running(), 1);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    assert_eq!(layer.running(), 0);
}

/// As the docs say: what leaves HTTP behind has no body that tells when it ends.
#[tokio::test]
async fn what_leaves_http_behind_is_counted_until_its_head() {
    let layer = ConcurrencyLayer::per_client(1).unwrap().with_clock(Still);
    let switching = service_fn(async |_: Request<()>| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        Ok::<_, std::convert::Infallible>(response)
    });
    let service = layer.layer(switching);
    for _ in 0..3 {
        let response = send(&service, get("/ws")).await;
        assert_eq!((response.status(), layer.running()), (StatusCode::SWITCHING_PROTOCOLS, 0));
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_or_panics_runs_no_longer() {
    let layer = ConcurrencyLayer::per_client(1).unwrap();
    let service = layer.layer(handler());
    let mut stuck = Box::pin(service.clone().oneshot(get("/stuck")));
    assert!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(layer.running(), 1);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(stuck);
    assert_eq!(layer.running(), 0);
    for _ in 0..3 {
        let panicking = tokio::spawn(service.clone().oneshot(get("/panic")));
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(layer.running(), 0);
    }
    let failing = layer.layer(service_fn(async |_: Request<()>| Err::<Response<Body>, _>("broken")));
    assert_eq!(failing.oneshot(get("/")).await.unwrap_err(), "broken");
    assert_eq!(layer.running(), 0);
}

#[tokio::test]
async fn what_responses_tell() {
    let layer = ConcurrencyLayer::per_client(2).unwrap().named("at \"once\"").unwrap();
    let service = layer.layer(handler());
    let first = send(&service, get("/slow")).await;
    let second = send(&service, get("/slow")).await;
    let refused = send(&service, get("/slow")).await;
    for (response, left) in [(&first, 1), (&second, 0), (&refused, 0)] {
        assert_eq!(field(response, "ratelimit-policy"), [r#""at \"once\"";q=2;qu="concurrent-requests""#]);
        assert_eq!(field(response, "ratelimit"), [format!(r#""at \"once\"";r={left}"#)]);
    }
    assert_eq!(field(&refused, "retry-after"), ["1"]);
    assert_eq!(field(&refused, "cache-control"), ["no-store"]);
    let rejection = refused.extensions().get::<Rejection>().unwrap();
    assert_eq!((rejection.kind(), rejection.violated_policy()), (RejectionKind::RateLimited, Some("at \"once\"")));

    let silent = layer.without_headers().layer(handler());
    let refused = send(&silent, get("/slow")).await;
    assert_eq!((refused.status(), field(&refused, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, vec!["1"]));
    assert!(field(&refused, "ratelimit").is_empty() && field(&refused, "ratelimit-policy").is_empty());
}

#[tokio::test]
async fn keys_count_apart_and_only_while_they_run() {
    let layer = ConcurrencyLayer::per_client(1).unwrap();
    let service = layer.layer(handler());
    let mut bodies = Vec::new();
    for number in 0..200 {
        let response = send(&service, from("/endless", &format!("203.0.113.{number}"))).await;
        assert_eq!(response.status(), StatusCode::OK);
        bodies.push(response);
    }
    assert_eq!(layer.running(), 200);
    assert_eq!(send(&service, from("/", "203.0.113.7")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(bodies);
    assert_eq!(layer.running(), 0);

    let per_principal = ConcurrencyLayer::per_principal(1).unwrap();
    let authn = || AuthnLayer::new(test_scheme()).allow_anonymous().dangerous_plain_http();
    let service = authn().layer(per_principal.layer(handler()));
    let alice = send(&service, is("/endless", "alice")).await;
    assert_eq!(send(&service, is("/", "alice")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(send(&service, is("/", "bob")).await.status(), StatusCode::OK);
    assert_eq!(send(&service, get("/endless")).await.status(), StatusCode::OK, "nobody is not counted");
    drop(alice);
    assert_eq!(send(&service, is("/", "alice")).await.status(), StatusCode::OK);

    let shared = ConcurrencyLayer::per(LimitBy::header("x-device").unwrap(), 1).unwrap();
    let shared = shared.on_missing_key(OnMissingKey::Share);
    let service = shared.layer(handler());
    let first = send(&service, get("/endless")).await;
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(first);
}

#[tokio::test]
async fn misplaced_it_never_passes() {
    let inside = AuthnLayer::new(test_scheme()).dangerous_plain_http();
    let inside = inside.layer(ConcurrencyLayer::per_client(1).unwrap().layer(handler()));
    let outside = ConcurrencyLayer::per_principal(1).unwrap();
    for response in [
        send(&inside, is("/", "alice")).await,
        send(&outside.layer(handler()), is("/", "alice")).await,
        send(&ConcurrencyLayer::per_client(1).unwrap().layer(handler()), Request::new(())).await,
    ] {
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(outside.running(), 0);
}

#[tokio::test]
async fn in_shadow_mode_it_counts_what_would_run_and_refuses_nobody() {
    let mode = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let layer = ConcurrencyLayer::per_client(2).unwrap().with_clock(Still).shadow(mode);
    let service = layer.layer(handler());
    let mut running = Vec::new();
    for _ in 0..7 {
        let response = send(&service, get("/endless")).await;
        assert_eq!(response.status(), StatusCode::OK);
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(field(&response, name).is_empty(), "what is not enforced is not announced");
        }
        running.push(response);
    }
    assert_eq!((layer.running(), layer.would_refuse()), (2, 5), "who would have been refused would not run");
    drop(running.split_off(2));
    assert_eq!(layer.running(), 2, "who was not counted leaves no place");
    running.clear();
    assert_eq!(layer.running(), 0);
    send(&service, get("/")).await;
    assert_eq!(layer.would_refuse(), 5);

    // A key that is missing would be refused; what is in the wrong place is.
    let by_device = ConcurrencyLayer::per(LimitBy::header("x-device").unwrap(), 1).unwrap().with_clock(Still);
    let by_device = by_device.on_missing_key(OnMissingKey::Refuse);
    assert!(send(&by_device.layer(handler()), get("/")).await.status().is_client_error());
    let by_device = by_device.shadow(mode);
    assert_eq!(send(&by_device.layer(handler()), get("/")).await.status(), StatusCode::OK);
    assert_eq!(by_device.would_refuse(), 1);
    let outside = ConcurrencyLayer::per_principal(1).unwrap().with_clock(Still).shadow(mode);
    assert_eq!(send(&outside.layer(handler()), is("/", "alice")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((outside.would_refuse(), outside.running()), (0, 0));

    // Over: the day has begun.
    let over = ShadowMode::until_as_of("2027-01-15", Still.now()).unwrap();
    let layer = ConcurrencyLayer::per_client(1).unwrap().with_clock(Still).shadow(over);
    let service = layer.layer(handler());
    let first = send(&service, get("/endless")).await;
    assert_eq!(field(&first, "ratelimit"), [r#""concurrent";r=0"#]);
    assert_eq!(send(&service, get("/")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(layer.would_refuse(), 0);
}

/// Networks around an IPv6 /64 are tried out as well, and what its own limit let in leaves again.
#[tokio::test]
async fn in_shadow_mode_networks_count_as_ever() {
    let mode = ShadowMode::until_as_of("2027-01-20", Still.now()).unwrap();
    let layer = ConcurrencyLayer::per_client(1).unwrap().with_clock(Still).shadow(mode);
    let service = layer.layer(handler());
    let mut running = Vec::new();
    for number in 0..20 {
        running.push(send(&service, from("/endless", &format!("2001:db8:1:{number:x}::1"))).await);
    }
    assert_eq!((layer.running(), layer.would_refuse()), (16, 4));
    running.clear();
    assert_eq!(layer.running(), 0);
}

#[test]
fn bad_settings_are_named() {
    let error = ConcurrencyLayer::per_client(0).unwrap_err().to_string();
    assert_eq!(error, "concurrent requests: 0 must be at least 1");
    assert!(ConcurrencyLayer::per_client(1).unwrap().named("ü").is_err());
}

#[tokio::test]
async fn networks_of_ipv6_have_a_second_limit_around_them() {
    let layer = ConcurrencyLayer::per_client(2).unwrap().with_clock(Still);
    let service = layer.layer(handler());
    let subnet = |number: u32| format!("2001:db8:1:{number:x}::{number:x}");
    let mut running = Vec::new();
    for number in 0..32 {
        let response = send(&service, from("/endless", &subnet(number / 2))).await;
        assert_eq!(response.status(), StatusCode::OK, "{number}: two of each /64, thirty-two of their /48");
        let left = 1 - (number % 2);
        assert_eq!(field(&response, "ratelimit"), [format!(r#""concurrent";r={}"#, left.min(31 - number))]);
        running.push(response);
    }
    assert_eq!(layer.running(), 32, "each counts once");
    let refused = send(&service, from("/", &subnet(99))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "another /64 of the same /48");
    assert_eq!(layer.running(), 32, "what its own limit let in has left again");
    assert_eq!(send(&service, from("/empty", "2001:db8:2::1")).await.status(), StatusCode::OK, "another /48");
    running.pop();
    assert_eq!(send(&service, from("/empty", &subnet(99))).await.status(), StatusCode::OK);
    assert_eq!(send(&service, from("/empty", &subnet(0))).await.status(), StatusCode::TOO_MANY_REQUESTS, "its own");
    running.clear();
    assert_eq!(layer.running(), 0);

    let narrow = ConcurrencyLayer::per_client(1).unwrap().dangerous_without_wide_networks();
    let service = narrow.layer(handler());
    for number in 0..40 {
        running.push(send(&service, from("/endless", &subnet(number))).await);
    }
    assert_eq!(narrow.running(), 40);
}

#[tokio::test]
async fn a_stack_counts_what_runs() {
    let (principals, clients) = (ConcurrencyLayer::per_principal(1).unwrap(), ConcurrencyLayer::per_client(3).unwrap());
    let stack = Stack::builder()
        .clock(Still)
        .dangerous_plain_http()
        .authenticate(test_scheme())
        .limit_principals(Quota::per_hour(3))
        .limit_concurrency(principals.clone())
        .limit_concurrency(clients.clone())
        .route("GET /public", public())
        .fallback(require(authenticated()))
        .build()
        .unwrap();
    let service = stack.protect(handler());
    let first = send(&service, is("/endless", "alice")).await;
    assert_eq!(field(&first, "ratelimit"), [r#""default";r=2;t=1200"#, r#""concurrent";r=0"#, r#""concurrent";r=2"#]);
    assert_eq!((principals.running(), clients.running()), (1, 1));
    let refused = send(&service, is("/", "alice")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.into_body().collect().await.is_ok());
    assert_eq!((principals.running(), clients.running()), (1, 1), "who is refused further inside leaves as well");

    let second = send(&service, is("/endless", "bob")).await;
    let third = send(&service, get("/public")).await;
    assert_eq!((second.status(), third.status(), clients.running()), (StatusCode::OK, StatusCode::OK, 3));
    assert_eq!(send(&service, get("/public")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop((first, second, third));
    assert_eq!((principals.running(), clients.running()), (0, 0));
    let again = send(&service, is("/", "alice")).await;
    assert_eq!(field(&again, "ratelimit")[0], r#""default";r=1;t=2400"#, "what did not run took nothing");
    drop(again);
    let anonymous = send(&service, get("/secret")).await;
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    drop(anonymous);
    assert_eq!(clients.running(), 0);

    let twice = Stack::builder().limit_concurrency(clients.clone()).limit_concurrency(clients);
    assert!(twice.route("GET /", public()).build().is_err());
    let nobody = Stack::builder().limit_concurrency(principals).route("GET /", public()).build();
    assert!(nobody.unwrap_err().to_string().starts_with("limit_concurrency: "));
}

/// A limit that waits must not count its request twice.
#[tokio::test]
async fn a_stage_that_waits_counts_once() {
    use portcullis::{
        Instants, StoreError,
        rate_limit::{Draw, RateLimitLayer, RateLimitStore, Taken},
    };

    #[derive(Debug)]
    struct Remote(Arc<Mutex<u32>>);

    #[async_trait::async_trait]
    impl RateLimitStore for Remote {
        async fn take(&self, _: &Draw<'_>, _: Instants) -> Result<Taken, StoreError> {
            tokio::task::yield_now().await;
            *self.0.lock().unwrap() += 1;
            Ok(Taken::granted(0, 1, 0))
        }
    }

    let (asked, limit) = (Arc::default(), ConcurrencyLayer::per_principal(1).unwrap());
    let clients = ConcurrencyLayer::per_client(1).unwrap();
    let remote = || Remote(Arc::clone(&asked));
    let stack = Stack::builder()
        .dangerous_plain_http()
        .authenticate(support::Waiting(test_scheme()))
        .limit(RateLimitLayer::per_client(Quota::per_hour(3)).unwrap().with_store(remote()))
        .limit(RateLimitLayer::per_principal(Quota::per_hour(3)).unwrap().with_store(remote()))
        .limit_concurrency(limit.clone())
        .limit_concurrency(clients.clone())
        .fallback(require(authenticated()))
        .build()
        .unwrap();
    let service = stack.protect(handler());
    for _ in 0..3 {
        let response = send(&service, is("/endless", "alice")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((limit.running(), clients.running()), (1, 1));
        drop(response);
        assert_eq!((limit.running(), clients.running()), (0, 0));
        // Given up while it waits.
        let mut waiting = Box::pin(service.clone().oneshot(is("/", "alice")));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(clients.running(), 1);
        drop(waiting);
        assert_eq!((limit.running(), clients.running()), (0, 0));
    }
    assert_eq!(*asked.lock().unwrap(), 6);
}
